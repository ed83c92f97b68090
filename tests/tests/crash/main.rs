//! Every operation of every scenario is tried as the moment at which the power fails, and as the one
//! that fails: a slice of what `sim enumerate` does in full (strongroom_tests::enumerate).
//!
//! Each scenario is a test of its own, so that they run side by side. `STRONGROOM_CRASH_SEEDS` sets the
//! number of random crashes of each moment (default 3), `STRONGROOM_SEED` the first seed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a surprise is a failure")]

mod full_disk;
mod lies;
mod threads;

use strongroom_tests::enumerate::{Scope, parts};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(default)
}

fn scope() -> Scope {
    Scope::slice(number("STRONGROOM_SEED", 0), number("STRONGROOM_CRASH_SEEDS", 3))
}

/// All loops over one scenario.
fn enumerate(scenario: &str) {
    let prefix = format!("{scenario}: ");
    let chosen: Vec<_> = parts()
        .into_iter()
        .filter(|part| part.name.starts_with(&prefix))
        .collect();
    assert_eq!(chosen.len(), 5, "loops over {scenario:?}");
    for part in chosen {
        let report = part.run(&scope());
        println!("{}: {} points", report.part, report.points());
        assert!(report.failures.is_empty(), "{}", report.failures.join("\n\n"));
        assert!(report.points() > 10, "{}: hardly anything was tried", report.part);
    }
}

macro_rules! suite {
    ($($test:ident: $scenario:literal,)*) => {$(
        #[test]
        fn $test() {
            enumerate($scenario);
        }
    )*};
}

suite! {
    every_operation_of_a_first_opening_may_fail: "first opening",
    every_operation_of_writing_may_fail: "write",
    every_operation_of_rotation_may_fail: "rotate",
    every_operation_of_a_flush_may_fail: "flush",
    every_operation_of_a_flush_in_passing_may_fail: "flush in passing",
    every_operation_of_a_compaction_may_fail: "compact",
    every_operation_of_compacting_deletes_may_fail: "compact deletes",
    every_operation_of_recovery_may_fail: "recovery",
    every_operation_of_creating_and_deleting_tenants_may_fail: "create and delete tenants",
    every_operation_of_deleting_a_keyspace_may_fail: "delete keyspaces",
    every_operation_of_deleting_a_keyspace_unsynced_may_fail: "delete keyspaces, buffered",
    every_operation_of_changing_manifests_may_fail: "manifests",
    every_operation_of_a_checkpoint_may_fail: "checkpoint",
    every_operation_of_a_restore_may_fail: "restore",
    every_operation_of_a_decision_may_fail: "fence and acceptance",
    every_operation_of_a_bootstrap_may_fail: "bootstrap",
    every_operation_of_following_may_fail: "follow",
    every_operation_of_taking_keys_over_may_fail: "keys on a standby",
    every_operation_of_a_promotion_may_fail: "promotion",
    every_operation_of_a_return_as_standby_may_fail: "return as standby",
    every_operation_of_a_standbys_life_may_fail: "life of a standby",
}

#[test]
fn every_operation_of_random_work_may_be_the_last() {
    let first = number("STRONGROOM_SEED", 0);
    for seed in first..first + number("STRONGROOM_RANDOM_WORK", 4) {
        let report = parts::random(seed).run(&scope());
        println!("{}: {} points", report.part, report.points());
        assert!(report.failures.is_empty(), "{}", report.failures.join("\n\n"));
    }
}
