//! The lines of the comparison, in groups that share a start.
//!
//! A group runs in a process of its own, so that caches and peak memory are its own. `loaded`, `small cache`
//! and `writes` open one database after the other; whichever comes first loads it. Within a group, lines that
//! change the data come last. Each line runs for the same time on every engine.

mod activity;
mod empty;
mod large;
mod reads;
mod tenants;
mod writes;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::figure::{Figure, Unit};
use crate::measure::{Measured, Step, run, took};
use crate::process::{self, Watch, Written};
use crate::store::{Budget, Direction, Engine, Store};
use crate::work::{Dice, key, shuffled, value};

/// How large and how long.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Entries of a loaded database.
    pub keys: u64,
    /// Of the small values.
    pub value_bytes: usize,
    /// For each run of each line.
    pub time: Duration,
    /// Of this round.
    pub seed: u64,
    /// The activity data; the repository's sample if none.
    pub activity: Option<PathBuf>,
}

/// Entries written or deleted at a time where that is not what is measured.
pub const BATCH: usize = 1000;

impl Plan {
    /// Bytes of keys and values of so many entries.
    pub fn user_bytes(&self, entries: u64) -> f64 {
        (entries * (key(0).len() + self.value_bytes) as u64) as f64
    }
}

/// Lines that share a start.
pub struct Group {
    pub name: &'static str,
    /// In the order of the report.
    pub lines: &'static [&'static str],
    run: fn(&Round) -> Result<()>,
}

/// All groups, in the order of the report.
pub const GROUPS: &[Group] = &[
    empty::GROUP,
    reads::LOADED,
    reads::SMALL_CACHE,
    writes::GROUP,
    large::GROUP,
    tenants::GROUP,
    activity::GROUP,
];

impl Group {
    pub fn find(name: &str) -> Result<&'static Group> {
        GROUPS
            .iter()
            .find(|group| group.name == name)
            .with_context(|| format!("no group {name}"))
    }
}

/// One group, one engine, one time.
pub struct Round<'a> {
    pub engine: &'a Engine,
    pub budget: Budget,
    pub plan: &'a Plan,
    /// The engine's own; what is in `loaded` in it outlives the group.
    pub dir: &'a Path,
    /// Only lines whose name contains this.
    pub only: Option<&'a str>,
    figures: RefCell<Vec<Figure>>,
}

impl<'a> Round<'a> {
    pub fn new(
        engine: &'a Engine,
        budget: Budget,
        plan: &'a Plan,
        dir: &'a Path,
        only: Option<&'a str>,
    ) -> Self {
        Round {
            engine,
            budget,
            plan,
            dir,
            only,
            figures: RefCell::default(),
        }
    }

    /// Runs the lines that are wanted, and what the group cost in memory if all of them are.
    pub fn run(self, group: &Group) -> Result<Vec<Figure>> {
        let watch = Watch::start();
        (group.run)(&self)?;
        if self.only.is_none() {
            let (resident, own) = (process::peak_resident()?, watch.peak());
            for (what, bytes) in [("private", own), ("resident", resident)] {
                let line = format!("peak {what} memory: {}", group.name);
                self.tell(Figure::new(line, Unit::Bytes, bytes as f64));
            }
        }
        Ok(self.figures.into_inner())
    }

    fn tell(&self, figure: Figure) {
        self.figures.borrow_mut().push(figure);
    }

    fn wants(&self, line: &str) -> bool {
        self.only.is_none_or(|part| line.contains(part))
    }

    /// Runs a line if it is wanted.
    fn line(&self, name: &str, run: impl FnOnce() -> Result<Measured>) -> Result<()> {
        if self.wants(name) {
            let measured = run().with_context(|| name.to_owned())?;
            self.tell(Figure::rate(name, &measured));
        }
        Ok(())
    }

    /// Tells of a figure that is there anyway, if it is wanted.
    fn also(&self, name: &str, unit: Unit, value: f64) {
        if self.wants(name) {
            self.tell(Figure::new(name, unit, value));
        }
    }

    /// An empty database for one line; its directory is removed after.
    fn fresh<T>(&self, work: impl FnOnce(&dyn Store, &Path) -> Result<T>) -> Result<T> {
        let dir = self.dir.join("fresh");
        let outcome = {
            let store = (self.engine.open)(&dir, &self.budget)?;
            work(&*store, &dir)
        };
        std::fs::remove_dir_all(&dir)?;
        outcome
    }

    /// The loaded database, with this budget; loads and settles it if it is not there yet. Then looks at
    /// something in every block, so that what fits the cache is in it.
    fn loaded(&self, budget: &Budget) -> Result<Box<dyn Store>> {
        let dir = self.dir.join("loaded");
        let there = dir.exists();
        let store = (self.engine.open)(&dir, budget)?;
        if !there {
            let load = load(&*store, self.plan)?;
            for (name, measured) in [
                (reads::LOAD, &load.unsettled),
                (reads::LOAD_AND_SETTLE, &load.settled),
            ] {
                self.line(name, || Ok(measured.clone()))?;
            }
            self.also(reads::SPACE, Unit::Bytes, process::space(&dir)? as f64);
            let user = self.plan.user_bytes(self.plan.keys);
            self.also(reads::LOAD_DEVICE, Unit::Times, load.device / user);
            self.also(reads::LOAD_CALLS, Unit::Times, load.calls / user);
        }
        for number in (0..self.plan.keys).step_by(16) {
            store.get(&key(number))?;
        }
        Ok(store)
    }
}

/// What a load gave and cost.
pub struct Load {
    pub unsettled: Measured,
    pub settled: Measured,
    /// Bytes written until settled, by [`Written`].
    pub device: f64,
    pub calls: f64,
}

/// Writes entries `0..keys` in random order, a thousand in a batch, and settles.
pub fn load(store: &dyn Store, plan: &Plan) -> Result<Load> {
    let before = Written::now()?;
    let began = Instant::now();
    for batch in shuffled(plan.keys, plan.value_bytes, plan.seed, BATCH) {
        store.put_many(&batch)?;
    }
    let unsettled = took(plan.keys, began.elapsed());
    store.settle()?;
    let settled = took(plan.keys, began.elapsed());
    let after = Written::now()?;
    Ok(Load {
        unsettled,
        settled,
        device: (after.device - before.device) as f64,
        calls: (after.calls - before.calls) as f64,
    })
}

pub fn steps<'a>(threads: usize, step: impl FnMut(usize) -> Step<'a>) -> Vec<Step<'a>> {
    (0..threads).map(step).collect()
}

/// Puts of a key that `next` chooses.
pub fn put<'a>(
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

/// Puts of random keys.
pub fn random_put(store: &dyn Store, plan: &Plan, threads: usize, sync: bool) -> Result<Measured> {
    let keys = plan.keys;
    let step = |_| put(store, plan.value_bytes, sync, move |dice| dice.below(keys));
    run(plan.time, plan.seed, steps(threads, step))
}

/// Gets of random keys from `beyond` on; at 0 they are all there, from `plan.keys` on none is.
pub fn get(store: &dyn Store, plan: &Plan, threads: usize, beyond: u64) -> Result<Measured> {
    let keys = plan.keys;
    let step = |_| -> Step<'_> {
        Box::new(move |dice| {
            let found = store.get(&key(beyond + dice.below(keys)))?;
            anyhow::ensure!(
                found.is_some() == (beyond == 0),
                "a get found what it must not, or not what it must"
            );
            Ok(1)
        })
    };
    run(plan.time, plan.seed, steps(threads, step))
}

/// Seeks to a random key and reads 50 entries.
pub fn seek_50(store: &dyn Store, plan: &Plan, threads: usize, direction: Direction) -> Result<Measured> {
    let (low, high) = match direction {
        Direction::Forward => (0, plan.keys.saturating_sub(50)),
        Direction::Backward => (50, plan.keys),
    };
    let step = |_| -> Step<'_> {
        Box::new(move |dice| {
            let from = low + dice.below(high - low + 1);
            let found = store.scan(&key(from), 50, direction)?;
            anyhow::ensure!(found == 50, "a scan of 50 found {found}");
            Ok(1)
        })
    };
    run(plan.time, plan.seed, steps(threads, step))
}

#[cfg(test)]
mod tests;
