//! How fast writers may write, by what background work is behind with. Pure: from debts and rates to a rate.
//!
//! ```text
//! rate  no limit |\
//!                | \             drain * 3 * (1 - x) / x
//!                |  `.           equal to the drain at x = 3/4
//!                |    `-._
//!                |        `--..__ drain / 32
//!       ---------+--------------+----+-> debt
//!              begins          ends  stop      x goes from 0 to 1 between the first two
//! ```
//!
//! Three debts, each beside the rate at which it has lately been paid; the slowest rate of the three counts:
//!
//! | debt | begins | stop | paid by |
//! |---|---|---|---|
//! | bytes in memtables | half of what may be | what may be | flush |
//! | tables of level 0, and the one that is about to be | twice the trigger, where the picker turns to them first | `level0_tables_stop` | compaction |
//! | bytes by which levels are over their size | two full level 0 | eight; nobody stops | compaction |
//!
//! So writers slow down from nothing, without a step, to what flush and compaction can do, long before they would have
//! to stop; a rate that is measured wrong moves the debt at which they settle and no more. [`shares`] deals the rate
//! out among tenants. Waiting is done in `throttle`.
//!
//! Sources: the debts are RocksDB's (wiki, Write Stalls); a rate by the distance to the stop, instead of steps of a
//! fifth up or down, is Speedb's (dynamic delayed writes); a rate measured by what leaves level 0 is CockroachDB's
//! (docs/tech-notes/admission_control.md).

pub(crate) mod shares;

#[cfg(any(test, feature = "sim"))]
pub(crate) mod model;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::compaction::picker::LEVEL_FACTOR;
use crate::hooks::planted;
use crate::options::Options;
use crate::version::Version;

/// Writers are slowed down to this share of what background work does, no further: then they stop.
const SLOWEST: u64 = 32;
/// What is left between the slowest rate and the stop, of the way there: an eighth, for what is written while one job runs.
const RESERVE: u64 = 8;
/// How late on the way writers are as slow as background work: at 3 / 4. Compactions of more tables do more in a second.
const LATE: u128 = 3;
/// What flush and compaction are taken to do before they did anything, in bytes a second.
const DRAIN_AT_FIRST: u64 = 32 << 20;
/// The least they are taken to do.
const DRAIN_MIN: u64 = 1 << 20;
/// Weight of a new measurement: 1 / 4; and how far it may be from the last.
const SMOOTH: u64 = 4;
/// What levels may be over their size, in level-0 tables at the stop, before writers are slowed, and at most.
const EXCESS: (u64, u64) = (2, 8);

/// What background work is behind with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Debt {
    /// Bytes in memtables.
    pub memory: u64,
    /// Tables of level 0.
    pub level0: u64,
    /// Bytes by which levels are over their size.
    pub excess: u64,
}

/// Why writers are slowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Pressure {
    /// Memtables wait for flush.
    Memtables,
    /// Level 0 waits for compaction.
    Level0,
    /// Lower levels are far over their size.
    Levels,
}

impl Debt {
    /// Of a version, and of this much in memory.
    pub fn of(memory: u64, version: &Version, options: &Options) -> Debt {
        let mut target = options.level1_bytes.max(1);
        let mut excess = 0u64;
        for level in version.levels.iter().skip(1) {
            let bytes: u64 = level.iter().map(|table| table.meta().bytes).sum();
            excess = excess.saturating_add(bytes.saturating_sub(target));
            target = target.saturating_mul(LEVEL_FACTOR);
        }
        Debt {
            memory,
            level0: version.levels.first().map_or(0, Vec::len) as u64,
            excess,
        }
    }

    /// With more in memory.
    pub fn plus(self, memory: u64) -> Debt {
        Debt {
            memory: self.memory.saturating_add(memory),
            ..self
        }
    }
}

/// The rates at which flush and compaction have lately paid debts, in bytes of memtables a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Drain {
    flush: u64,
    level0: u64,
    /// Time in compactions since one took tables from level 0.
    spent: Duration,
}

impl Default for Drain {
    fn default() -> Drain {
        Drain {
            flush: DRAIN_AT_FIRST,
            level0: DRAIN_AT_FIRST,
            spent: Duration::ZERO,
        }
    }
}

impl Drain {
    /// A memtable became a table.
    pub fn flushed(&mut self, bytes: u64, took: Duration) {
        self.flush = blend(self.flush, bytes, took);
    }

    /// A compaction ended that took `bytes` from level 0, maybe none.
    pub fn compacted(&mut self, bytes: u64, took: Duration) {
        self.spent = self.spent.saturating_add(took);
        if bytes > 0 {
            self.level0 = blend(self.level0, bytes, self.spent);
            self.spent = Duration::ZERO;
        }
    }
}

fn blend(rate: u64, bytes: u64, took: Duration) -> u64 {
    let sample = u128::from(bytes) * 1_000_000_000 / took.as_nanos().max(1);
    let sample = u64::try_from(sample).unwrap_or(u64::MAX);
    let sample = sample.clamp(rate / SMOOTH, rate.saturating_mul(SMOOTH));
    let blended = (u128::from(rate) * u128::from(SMOOTH - 1) + u128::from(sample)) / u128::from(SMOOTH);
    u64::try_from(blended).unwrap_or(u64::MAX).max(DRAIN_MIN)
}

/// Bytes a second that all writers together may write, and why; None: any number.
pub(crate) fn rate(debt: &Debt, drain: impl FnOnce() -> Drain, options: &Options) -> Option<(u64, Pressure)> {
    let memtable = options.memtable_bytes as u64;
    let memory_max = memtable.saturating_mul(options.immutable_memtables_max as u64 + 1);
    let memory = Stretch::new(debt.memory, memory_max / 2, memory_max);

    // The table that memtables will be counts as far as it is full, so that one more makes no step.
    let tables = debt.level0.saturating_mul(memtable);
    let tables = tables.saturating_add(debt.memory.min(memtable));
    let (trigger, stop) = (options.level0_tables as u64, options.level0_tables_stop as u64);
    let begins = trigger.saturating_mul(2).min((trigger + stop) / 2);
    let full = stop.saturating_mul(memtable);
    let level0 = Stretch::new(tables, begins.saturating_mul(memtable), full);

    let (begins, ends) = (full.saturating_mul(EXCESS.0), full.saturating_mul(EXCESS.1));
    let levels = Stretch::new(debt.excess, begins, ends);

    if (memory.is_none() && level0.is_none() && levels.is_none()) || planted!(PaceForgotten) {
        return None;
    }
    let drain = drain();
    let all = [
        (memory, drain.flush, Pressure::Memtables),
        (level0, drain.level0, Pressure::Level0),
        (levels, drain.level0, Pressure::Levels),
    ];
    let slow = all
        .into_iter()
        .filter_map(|(of, drain, why)| Some((of?.rate(drain), why)));
    slow.min_by_key(|(rate, _)| *rate)
}

/// A debt between where it begins to matter and where it ends.
struct Stretch {
    past: u64,
    left: u64,
}

impl Stretch {
    /// None before it begins.
    fn new(debt: u64, begins: u64, stop: u64) -> Option<Stretch> {
        let past = debt.checked_sub(begins).filter(|past| *past > 0)?;
        let ends = stop - stop.saturating_sub(begins) / RESERVE;
        let left = ends.saturating_sub(debt);
        Some(Stretch { past, left })
    }

    fn rate(&self, drain: u64) -> u64 {
        let rate = u128::from(drain) * LATE * u128::from(self.left) / u128::from(self.past.max(1));
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        rate.max(drain / SLOWEST).max(1)
    }
}
