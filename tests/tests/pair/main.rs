//! A small slice of the replication simulation: a few seeds of each profile, equal seeds, shallow exploration.
//! The long runs are `sim seeds`, `sim ci` and `sim soak`.

use strongroom_tests::pair::{self, explore};

fn slice(profile: &str, seeds: u64) {
    for seed in 0..seeds {
        let outcome = pair::run(profile, seed);
        assert_eq!(outcome.failure, None, "profile {profile} seed {seed}");
    }
}

#[test]
fn pairs_under_faults_of_everything_then_nothing_acknowledged_is_lost() {
    slice("pair", 25);
}

#[test]
fn pairs_with_replicated_writes_only_then_clients_see_registers() {
    slice("pair-strict", 25);
}

#[test]
fn messages_repeated_and_exchanged_then_refused_never_applied() {
    slice("pair-hostile", 15);
}

#[test]
fn trios_pointed_here_and_there_then_every_path_is_whole() {
    slice("trio", 15);
}

#[test]
fn equal_seeds_then_equal_traces() {
    for profile in ["pair", "pair-strict", "pair-hostile", "trio"] {
        for seed in 100..103 {
            let (one, two) = (pair::run(profile, seed), pair::run(profile, seed));
            assert_eq!(one.trace, two.trace, "profile {profile} seed {seed}");
            assert_ne!(one.trace, pair::run(profile, seed + 1000).trace);
        }
    }
}

#[test]
fn every_order_of_two_acts_then_all_that_was_acknowledged_is_there() {
    let explored = explore::explore(2).unwrap();
    assert!(explored.states >= 30, "{explored:?}");
}
