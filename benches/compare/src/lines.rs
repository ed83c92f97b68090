//! The lines of the comparison. Each begins on an empty database, or on one loaded with `keys` entries and
//! settled, and runs for the same time on every engine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::measure::{Measured, Step, once, run, run_each};
use crate::store::{Direction, Store};
use crate::work::{Dice, Zipf, key, value};

/// How large and how long.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Entries of a loaded database.
    pub keys: u64,
    /// Of the small values.
    pub value_bytes: usize,
    /// For each run of each line.
    pub time: Duration,
    /// Of this round.
    pub seed: u64,
}

/// What a line starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    Empty,
    Loaded,
}

/// One line.
pub struct Line {
    pub name: &'static str,
    pub start: Start,
    pub run: fn(&dyn Store, &Plan) -> Result<Measured>,
}

const LARGE_VALUE: usize = 16 << 10;
const THETA: f64 = 0.99;

/// All lines, in the order of the report.
pub const LINES: &[Line] = &[
    Line {
        name: "sync put, 1 thread",
        start: Start::Empty,
        run: |s, p| sync_put(s, p, 1),
    },
    Line {
        name: "sync put, 16 threads",
        start: Start::Empty,
        run: |s, p| sync_put(s, p, 16),
    },
    Line {
        name: "sync put, 64 threads",
        start: Start::Empty,
        run: |s, p| sync_put(s, p, 64),
    },
    Line {
        name: "sequential put, 1 thread",
        start: Start::Empty,
        run: |s, p| sequential_put(s, p, 1),
    },
    Line {
        name: "sequential put, 2 threads",
        start: Start::Empty,
        run: |s, p| sequential_put(s, p, 2),
    },
    Line {
        name: "random put, 1 thread",
        start: Start::Empty,
        run: |s, p| random_put(s, p, 1),
    },
    Line {
        name: "random put, 2 threads",
        start: Start::Empty,
        run: |s, p| random_put(s, p, 2),
    },
    Line {
        name: "16 KiB values: put",
        start: Start::Empty,
        run: large_put,
    },
    Line {
        name: "random get, 1 thread",
        start: Start::Loaded,
        run: |s, p| get(s, p, 1, 0),
    },
    Line {
        name: "random get, 2 threads",
        start: Start::Loaded,
        run: |s, p| get(s, p, 2, 0),
    },
    Line {
        name: "missing get, 2 threads",
        start: Start::Loaded,
        run: |s, p| get(s, p, 2, p.keys),
    },
    Line {
        name: "seek + 50, 2 threads",
        start: Start::Loaded,
        run: seek_50,
    },
    Line {
        name: "full scan",
        start: Start::Loaded,
        run: |s, p| full_scan(s, p, Direction::Forward),
    },
    Line {
        name: "full scan backward",
        start: Start::Loaded,
        run: |s, p| full_scan(s, p, Direction::Backward),
    },
    Line {
        name: "get while writing: gets",
        start: Start::Loaded,
        run: |s, p| get_while_writing(s, p, 0),
    },
    Line {
        name: "get while writing: puts",
        start: Start::Loaded,
        run: |s, p| get_while_writing(s, p, 1),
    },
    Line {
        name: "YCSB A (50 update)",
        start: Start::Loaded,
        run: |s, p| ycsb(s, p, 50, Other::Update),
    },
    Line {
        name: "YCSB B (5 update)",
        start: Start::Loaded,
        run: |s, p| ycsb(s, p, 5, Other::Update),
    },
    Line {
        name: "YCSB C (reads)",
        start: Start::Loaded,
        run: |s, p| ycsb(s, p, 0, Other::Update),
    },
    Line {
        name: "YCSB D (5 insert, latest)",
        start: Start::Loaded,
        run: ycsb_latest,
    },
    Line {
        name: "YCSB E (95 scan, 5 insert)",
        start: Start::Loaded,
        run: |s, p| ycsb(s, p, 95, Other::Scan),
    },
    Line {
        name: "YCSB F (50 read-modify-write)",
        start: Start::Loaded,
        run: |s, p| ycsb(s, p, 50, Other::Modify),
    },
    Line {
        name: "overwrite, 2 threads",
        start: Start::Loaded,
        run: |s, p| random_put(s, p, 2),
    },
    Line {
        name: "delete all of one tenant",
        start: Start::Loaded,
        run: delete_all,
    },
];

fn steps<'a>(threads: usize, mut step: impl FnMut(usize) -> Step<'a>) -> Vec<Step<'a>> {
    (0..threads).map(&mut step).collect()
}

fn put<'a>(
    store: &'a dyn Store,
    len: usize,
    sync: bool,
    mut next: impl FnMut(&mut Dice) -> u64 + Send + 'a,
) -> Step<'a> {
    Box::new(move |dice| {
        let number = next(dice);
        store.put(&key(number), &value(dice, len), sync)?;
        Ok(1)
    })
}

fn sync_put(store: &dyn Store, plan: &Plan, threads: usize) -> Result<Measured> {
    let keys = plan.keys;
    run(
        plan.time,
        plan.seed,
        steps(threads, |_| {
            put(store, plan.value_bytes, true, move |d| d.below(keys))
        }),
    )
}

fn sequential_put(store: &dyn Store, plan: &Plan, threads: usize) -> Result<Measured> {
    let next = AtomicU64::new(0);
    let next = &next;
    let step = |_| {
        put(store, plan.value_bytes, false, move |_| {
            next.fetch_add(1, Ordering::Relaxed)
        })
    };
    run(plan.time, plan.seed, steps(threads, step))
}

fn random_put(store: &dyn Store, plan: &Plan, threads: usize) -> Result<Measured> {
    let keys = plan.keys;
    run(
        plan.time,
        plan.seed,
        steps(threads, |_| {
            put(store, plan.value_bytes, false, move |d| d.below(keys))
        }),
    )
}

fn large_put(store: &dyn Store, plan: &Plan) -> Result<Measured> {
    let keys = plan.keys;
    run(
        plan.time,
        plan.seed,
        vec![put(store, LARGE_VALUE, false, move |d| d.below(keys))],
    )
}

fn get(store: &dyn Store, plan: &Plan, threads: usize, beyond: u64) -> Result<Measured> {
    let keys = plan.keys;
    let step = |_| -> Step<'_> {
        Box::new(move |dice| {
            let found = store.get(&key(beyond + dice.below(keys)))?;
            ensure!(
                found.is_some() == (beyond == 0),
                "a get found what it must not, or not what it must"
            );
            Ok(1)
        })
    };
    run(plan.time, plan.seed, steps(threads, step))
}

fn seek_50(store: &dyn Store, plan: &Plan) -> Result<Measured> {
    let keys = plan.keys.saturating_sub(50);
    let step = |_| -> Step<'_> {
        Box::new(move |dice| {
            let found = store.scan(&key(dice.below(keys)), 50, Direction::Forward)?;
            ensure!(found == 50, "a scan of 50 found {found}");
            Ok(1)
        })
    };
    run(plan.time, plan.seed, steps(2, step))
}

fn full_scan(store: &dyn Store, plan: &Plan, direction: Direction) -> Result<Measured> {
    once(plan.keys, || {
        let found = store.scan(&[], usize::MAX, direction)? as u64;
        ensure!(found == plan.keys, "a scan of all found {found}");
        Ok(())
    })
}

fn delete_all(store: &dyn Store, plan: &Plan) -> Result<Measured> {
    once(plan.keys, || store.delete_all(&mut (0..plan.keys).map(key)))
}

/// One thread reads, one writes; `which` says whose figures are given.
fn get_while_writing(store: &dyn Store, plan: &Plan, which: usize) -> Result<Measured> {
    let keys = plan.keys;
    let reader: Step<'_> = Box::new(move |dice| {
        ensure!(store.get(&key(dice.below(keys)))?.is_some(), "a key is missing");
        Ok(1)
    });
    let writer = put(store, plan.value_bytes, false, move |d| d.below(keys));
    let mut both = run_each(plan.time, plan.seed, vec![reader, writer])?;
    Ok(both.swap_remove(which))
}

/// What YCSB does when it does not read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Other {
    Update,
    Modify,
    Scan,
}

/// Two threads, zipfian; `share` of a hundred operations are the other kind. E's rest are inserts.
fn ycsb(store: &dyn Store, plan: &Plan, share: u64, other: Other) -> Result<Measured> {
    let zipf = Zipf::new(plan.keys, THETA);
    let (zipf, len, inserted) = (&zipf, plan.value_bytes, AtomicU64::new(plan.keys));
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
                    store.put(
                        &key(inserted.fetch_add(1, Ordering::Relaxed)),
                        &value(dice, len),
                        false,
                    )?;
                }
                (false, _) => drop(store.get(&chosen)?),
            }
            Ok(1)
        })
    };
    run(plan.time, plan.seed, steps(2, step))
}

/// D: what was inserted last is read most.
fn ycsb_latest(store: &dyn Store, plan: &Plan) -> Result<Measured> {
    let zipf = Zipf::new(plan.keys, THETA);
    let (zipf, len, newest) = (&zipf, plan.value_bytes, AtomicU64::new(plan.keys));
    let newest = &newest;
    let step = |_| -> Step<'_> {
        Box::new(move |dice| {
            if dice.below(100) < 5 {
                store.put(
                    &key(newest.fetch_add(1, Ordering::Relaxed)),
                    &value(dice, len),
                    false,
                )?;
            } else {
                let last = newest.load(Ordering::Relaxed);
                store.get(&key(last.saturating_sub(1 + zipf.rank(dice))))?;
            }
            Ok(1)
        })
    };
    run(plan.time, plan.seed, steps(2, step))
}
