//! Work that changes a loaded database: reads beside writes, YCSB, overwriting until compaction is steady.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};

use super::{Group, Plan, Round, put, steps};
use crate::figure::{Figure, Unit};
use crate::measure::{Measured, Step, Until, run, run_each};
use crate::process::Written;
use crate::store::{Direction, Store};
use crate::work::{Zipf, key, value};

const THETA: f64 = 0.99;
const GETS: &str = "get while writing: gets";
const PUTS: &str = "get while writing: puts";
const BOTH: &str = "get while writing: root of their product";
const OVERWRITE: &str = "overwrite, 2 threads, sustained";
const OVERWRITE_DEVICE: &str = "bytes to the device by overwrite and settle";
const OVERWRITE_CALLS: &str = "bytes by write calls by overwrite and settle";

pub const GROUP: Group = Group {
    name: "writes",
    lines: &[
        GETS,
        PUTS,
        BOTH,
        "YCSB A (50 update)",
        "YCSB B (5 update)",
        "YCSB C (reads)",
        "YCSB D (5 insert, latest)",
        "YCSB E (95 scan, 5 insert)",
        "YCSB F (50 read-modify-write)",
        OVERWRITE,
        OVERWRITE_DEVICE,
        OVERWRITE_CALLS,
    ],
    run: |round| {
        let (store, plan) = (round.loaded(&round.budget)?, round.plan);
        let store = &*store;
        get_while_writing(round, store)?;
        let zipf = Zipf::new(plan.keys, THETA);
        let ycsb = |share, other| ycsb(store, plan, &zipf, share, other);
        round.line("YCSB A (50 update)", || ycsb(50, Other::Update))?;
        round.line("YCSB B (5 update)", || ycsb(5, Other::Update))?;
        round.line("YCSB C (reads)", || ycsb(0, Other::Update))?;
        round.line("YCSB D (5 insert, latest)", || ycsb_latest(store, plan, &zipf))?;
        round.line("YCSB E (95 scan, 5 insert)", || ycsb(95, Other::Scan))?;
        round.line("YCSB F (50 read-modify-write)", || ycsb(50, Other::Modify))?;
        if [OVERWRITE, OVERWRITE_DEVICE, OVERWRITE_CALLS]
            .iter()
            .any(|line| round.wants(line))
        {
            overwrite(round, store)?;
        }
        Ok(())
    },
};

/// One thread reads, one writes.
fn get_while_writing(round: &Round, store: &dyn Store) -> Result<()> {
    if ![GETS, PUTS, BOTH].iter().any(|line| round.wants(line)) {
        return Ok(());
    }
    let (plan, keys) = (round.plan, round.plan.keys);
    let reader: Step<'_> = Box::new(move |dice| {
        ensure!(store.get(&key(dice.below(keys)))?.is_some(), "a key is missing");
        Ok(1)
    });
    let writer = put(store, plan.value_bytes, false, move |dice| dice.below(keys));
    let both = run_each(plan.time, plan.seed, vec![reader, writer])?;
    let mut product = 1.0;
    for (name, measured) in [GETS, PUTS].into_iter().zip(both) {
        product *= measured.per_second;
        round.line(name, || Ok(measured))?;
    }
    round.also(BOTH, Unit::PerSecond, product.sqrt());
    Ok(())
}

/// First every key once on average, untimed, so that compaction has met all of its work; then as many again,
/// timed. Each part ends after ten times a line's time if that is sooner. Settling counts in the bytes.
fn overwrite(round: &Round, store: &dyn Store) -> Result<()> {
    let (plan, keys) = (round.plan, round.plan.keys);
    let until = Until {
        time: 10 * plan.time,
        count: keys,
    };
    // What lines before left to do is not this one's.
    store.settle()?;
    let before = Written::now()?;
    let mut puts = 0;
    let mut last = None;
    for part in 0..2u64 {
        let step = |_| put(store, plan.value_bytes, false, move |dice| dice.below(keys));
        let measured = run(until, plan.seed.wrapping_add(part << 56), steps(2, step))?;
        puts += measured.count;
        last = Some(measured);
    }
    store.settle()?;
    let after = Written::now()?;
    if let (Some(measured), true) = (last, round.wants(OVERWRITE)) {
        round.tell(Figure::rate(OVERWRITE, &measured));
    }
    let user = plan.user_bytes(puts);
    let (device, calls) = (after.device - before.device, after.calls - before.calls);
    round.also(OVERWRITE_DEVICE, Unit::Times, device as f64 / user);
    round.also(OVERWRITE_CALLS, Unit::Times, calls as f64 / user);
    Ok(())
}

/// What YCSB does when it does not read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Other {
    Update,
    Modify,
    Scan,
}

/// Two threads, zipfian; `share` of a hundred operations are the other kind. E's rest are inserts.
fn ycsb(store: &dyn Store, plan: &Plan, zipf: &Zipf, share: u64, other: Other) -> Result<Measured> {
    let (len, inserted) = (plan.value_bytes, AtomicU64::new(plan.keys));
    let inserted = &inserted;
    let step = |_| -> Step<'_> {
        Box::new(move |dice| {
            let chosen = key(zipf.key(dice));
            match (dice.below(100) < share, other) {
                (true, Other::Update) => store.put(&chosen, &value(dice, len), false)?,
                (true, Other::Modify) => {
                    store.get(&chosen)?;
                    store.put(&chosen, &value(dice, len), false)?;
                }
                (true, Other::Scan) => {
                    let len = 1 + dice.below(100) as usize;
                    store.scan(&chosen, len, Direction::Forward)?;
                }
                (false, Other::Scan) => {
                    let new = key(inserted.fetch_add(1, Ordering::Relaxed));
                    store.put(&new, &value(dice, len), false)?;
                }
                (false, _) => drop(store.get(&chosen)?),
            }
            Ok(1)
        })
    };
    run(plan.time, plan.seed, steps(2, step))
}

/// D: what was inserted last is read most.
fn ycsb_latest(store: &dyn Store, plan: &Plan, zipf: &Zipf) -> Result<Measured> {
    let (len, newest) = (plan.value_bytes, AtomicU64::new(plan.keys));
    let newest = &newest;
    let step = |_| -> Step<'_> {
        Box::new(move |dice| {
            if dice.below(100) < 5 {
                let new = key(newest.fetch_add(1, Ordering::Relaxed));
                store.put(&new, &value(dice, len), false)?;
            } else {
                let last = newest.load(Ordering::Relaxed);
                store.get(&key(last.saturating_sub(1 + zipf.rank(dice))))?;
            }
            Ok(1)
        })
    };
    run(plan.time, plan.seed, steps(2, step))
}
