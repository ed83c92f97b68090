//! A few seeds of the pair over gRPC on a simulated network.

use strongroom_turmoil::plan::Plan;
use strongroom_turmoil::run::run;

#[test]
fn pair_over_grpc_loses_nothing_it_promised_whatever_the_network_does() {
    for seed in 1..=4 {
        if let Err(what) = run(seed) {
            panic!("seed {seed:#x}: {what}\n{:?}", Plan::of(seed));
        }
    }
}
