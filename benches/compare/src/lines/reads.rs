//! Reads of a loaded and settled database: with everything in the cache, and with a cache of a tenth of it.

use anyhow::{Result, ensure};

use super::{Group, Plan, get, seek_50, steps};
use crate::measure::{Measured, Step, run};
use crate::store::{Budget, Direction, Store};
use crate::work::key;

pub const LOAD: &str = "load in random order";
pub const LOAD_AND_SETTLE: &str = "load in random order, and settle";
pub const SPACE: &str = "space after load and settle";
pub const LOAD_DEVICE: &str = "bytes to the device by load and settle";
pub const LOAD_CALLS: &str = "bytes by write calls by load and settle";

pub const LOADED: Group = Group {
    name: "loaded",
    lines: &[
        LOAD,
        LOAD_AND_SETTLE,
        SPACE,
        LOAD_DEVICE,
        LOAD_CALLS,
        "random get, 1 thread",
        "random get, 2 threads",
        "random get, 16 threads",
        "missing get, 1 thread",
        "missing get, 2 threads",
        "seek + 50, 1 thread",
        "seek + 50, 2 threads",
        "seek + 50 backward, 2 threads",
        "prefix of 100, 2 threads",
        "full scan",
        "full scan backward",
    ],
    run: |round| {
        let (store, plan) = (round.loaded(&round.budget)?, round.plan);
        let (forward, backward) = (Direction::Forward, Direction::Backward);
        let (store, keys) = (&*store, plan.keys);
        round.line("random get, 1 thread", || get(store, plan, 1, 0))?;
        round.line("random get, 2 threads", || get(store, plan, 2, 0))?;
        round.line("random get, 16 threads", || get(store, plan, 16, 0))?;
        round.line("missing get, 1 thread", || get(store, plan, 1, keys))?;
        round.line("missing get, 2 threads", || get(store, plan, 2, keys))?;
        round.line("seek + 50, 1 thread", || seek_50(store, plan, 1, forward))?;
        round.line("seek + 50, 2 threads", || seek_50(store, plan, 2, forward))?;
        round.line("seek + 50 backward, 2 threads", || {
            seek_50(store, plan, 2, backward)
        })?;
        round.line("prefix of 100, 2 threads", || prefix_100(store, plan, 2))?;
        round.line("full scan", || full_scan(store, plan, forward))?;
        round.line("full scan backward", || full_scan(store, plan, backward))
    },
};

pub const SMALL_CACHE: Group = Group {
    name: "small cache",
    lines: &[
        "cache a tenth of the data: random get, 1 thread",
        "cache a tenth of the data: random get, 2 threads",
        "cache a tenth of the data: seek + 50, 1 thread",
        "cache a tenth of the data: seek + 50, 2 threads",
    ],
    run: |round| {
        let plan = round.plan;
        if !round.dir.join("loaded").exists() {
            drop(round.loaded(&round.budget)?);
        }
        let store = round.loaded(&Budget {
            cache_bytes: (plan.user_bytes(plan.keys) / 10.0) as u64,
            ..round.budget
        })?;
        let (store, forward) = (&*store, Direction::Forward);
        let line = |rest: &str, run: &dyn Fn() -> Result<Measured>| {
            round.line(&format!("cache a tenth of the data: {rest}"), run)
        };
        line("random get, 1 thread", &|| get(store, plan, 1, 0))?;
        line("random get, 2 threads", &|| get(store, plan, 2, 0))?;
        line("seek + 50, 1 thread", &|| seek_50(store, plan, 1, forward))?;
        line("seek + 50, 2 threads", &|| seek_50(store, plan, 2, forward))
    },
};

/// Reads all keys that share all but their last two digits.
fn prefix_100(store: &dyn Store, plan: &Plan, threads: usize) -> Result<Measured> {
    let hundreds = plan.keys / 100;
    let step = |_| -> Step<'_> {
        Box::new(move |dice| {
            let key = key(100 * dice.below(hundreds));
            let found = store.prefix(&key[..key.len() - 2])?;
            ensure!(found == 100, "a prefix of 100 found {found}");
            Ok(1)
        })
    };
    run(plan.time, plan.seed, steps(threads, step))
}

/// Reads all entries, over and over.
fn full_scan(store: &dyn Store, plan: &Plan, direction: Direction) -> Result<Measured> {
    let step: Step<'_> = Box::new(move |_| {
        let found = store.scan(&[], usize::MAX, direction)? as u64;
        ensure!(found == plan.keys, "a scan of all found {found}");
        Ok(found)
    });
    run(plan.time, plan.seed, vec![step])
}
