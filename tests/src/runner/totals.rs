//! Sums over many runs, by layer and profile, and what the process counted meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use super::one::Run;
use crate::layers::{Counters, Outcome, RARE, counted};

/// No report lists more failures than this; all are counted.
const FAILURES_LISTED: usize = 20;

/// One profile's share.
#[derive(Clone, Default, Debug)]
pub struct Share {
    /// Its layer.
    pub layer: &'static str,
    /// Runs.
    pub runs: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Time spent, summed over threads.
    pub time: Duration,
}

/// Everything that was counted.
#[derive(Clone, Default, Debug)]
pub struct Totals {
    /// By profile.
    pub shares: BTreeMap<&'static str, Share>,
    /// Over all.
    pub counters: Counters,
    /// The first failures: the line that repeats each, and what is wrong.
    pub failures: Vec<String>,
    /// How many there were.
    pub failed: u64,
}

impl Totals {
    /// Adds one run.
    pub fn add(&mut self, run: &Run, outcome: &Outcome, time: Duration, commit: &str) {
        let share = self.shares.entry(run.profile.name).or_default();
        share.layer = run.layer.name;
        share.runs += 1;
        share.time += time;
        self.counters.merge(&outcome.counters);
        if let Some(failure) = &outcome.failure {
            share.failed += 1;
            self.failed += 1;
            if self.failures.len() < FAILURES_LISTED {
                self.failures.push(format!("{}\n{failure}", run.repro(commit)));
            }
        }
    }

    /// Rare states by name with their visits in this process.
    pub fn rare(&self) -> BTreeMap<&'static str, u64> {
        RARE.iter().flat_map(|list| list()).collect()
    }

    /// Names of rare states that were never visited.
    pub fn never_visited(&self) -> Vec<&'static str> {
        let rare = self.rare().into_iter();
        rare.filter(|(_, visits)| *visits == 0).map(|(n, _)| n).collect()
    }

    /// (key, nonce) pairs compared in this process.
    pub fn nonce_pairs(&self) -> u64 {
        strongroom::recorder_pairs()
    }

    /// Counters that begin with `prefix`, without it.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
        let all = self.counters.0.iter();
        all.filter_map(move |(name, count)| name.strip_prefix(prefix).map(|rest| (rest, *count)))
    }

    /// Figures every report shows, also when they are 0.
    pub fn headline(&self) -> Vec<(&'static str, u64)> {
        use counted::*;
        let names = [
            RUNS,
            OPERATIONS,
            CRASHES,
            CRASH_POINTS,
            ERROR_POINTS,
            FAILOVERS,
            ACKNOWLEDGED,
            LOST,
            UNDETECTED,
            PANICS,
            RERUNS,
        ];
        let mut lines: Vec<_> = names.map(|name| (name, self.counters.get(name))).into();
        let injected = self.with_prefix("fault: ").map(|(_, count)| count).sum();
        lines.push(("faults injected", injected));
        lines.push(("(key, nonce) pairs checked", self.nonce_pairs()));
        lines.push(("failed runs", self.failed));
        lines
    }
}
