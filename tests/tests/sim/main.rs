//! A slice of the simulations that the binary `sim` runs at length.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a surprise is a failure")]

use strongroom_tests::layers;
use strongroom_tests::runner::{self, Plan, Run, Seeds, Totals};

fn slice(profile: &str, seeds: u64) -> Totals {
    let (layer, profile) = layers::find(profile).unwrap();
    let seeds = (0..seeds).collect();
    let plan = Plan::Lists(vec![Seeds {
        layer,
        profile,
        seeds,
    }]);
    let totals = runner::run(plan, 2, &runner::commit(), |_| {});
    assert_eq!(totals.failures, Vec::<String>::new());
    totals
}

#[test]
fn engine_seeds_hold_every_acknowledged_write() {
    let totals = slice("engine", 150);
    assert!(totals.counters.get(layers::counted::CRASHES) > 100);
    assert!(totals.counters.get(layers::counted::ACKNOWLEDGED) > 1000);
    let totals = slice("engine-crashes", 50);
    assert!(totals.counters.get(layers::counted::CRASHES) > 20);
}

#[test]
fn equal_seeds_give_equal_traces_and_others_do_not() {
    let (layer, profile) = layers::find("engine").unwrap();
    let traces: Vec<u64> = (1..8)
        .map(|seed| {
            let run = Run { layer, profile, seed };
            let outcome = run.twice();
            assert_eq!(outcome.failure, None);
            outcome.trace
        })
        .collect();
    let distinct: std::collections::BTreeSet<_> = traces.iter().collect();
    assert_eq!(distinct.len(), traces.len());
}
