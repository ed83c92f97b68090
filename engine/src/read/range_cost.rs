//! What ranges paid for data that is not settled: memtables and level 0, which every range merges with the levels below.
//!
//! Once they paid as much as it costs to flush and compact that data, it is flushed and compacted (`background`, and
//! `Reason::Ranges` of the picker). So all in all it costs about twice what would have been best at most, whatever comes
//! later (the ski rental of competitive analysis), and who reads no ranges pays nothing. Both prices are in bytes: a
//! range's is how many bytes of tables a compaction reads in the time that the range lost.
//!
//! Gets do not count: filters, and the hash of a memtable, lead them past what has not their key.
//!
//! The account is a [`View`](crate::inner::View)'s, and goes over to the next; a flush takes its price from it, and a
//! compaction of level 0 all there is.
//!
//! Sources: LevelDB's seek compaction (doc/impl.md, `allowed_seeks`), Pebble's read compactions; both charge a file
//! for reads that found nothing in it, here what merging costs is charged.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::compaction::picker::LEVEL_FACTOR;
use crate::inner::View;
use crate::options::Options;
use crate::types::TenantId;
use crate::version::Version;

/// Of a seek in one more source: 0.8 us by estimate, where a byte of a compaction's input takes 6.5 ns (decision 0030).
const SOURCE_BYTES: u64 = 128;
/// Of a step of a merge, beside one in a block of one table: 0.27 us, by what a range of 50 lost.
const STEP_BYTES: u64 = 40;
/// Background work is asked to look for the first time when ranges paid this part of a memtable.
const FIRST_LOOK: u64 = 64;

/// See the module.
#[derive(Default)]
pub(crate) struct RangeCost {
    paid: AtomicU64,
    /// Background work is asked to look when that much is paid.
    look_at: AtomicU64,
}

impl RangeCost {
    /// - `paid`: before.
    pub fn new(paid: u64, options: &Options) -> RangeCost {
        RangeCost {
            paid: AtomicU64::new(paid),
            look_at: AtomicU64::new(paid.saturating_add(options.memtable_bytes as u64 / FIRST_LOOK)),
        }
    }

    /// What the flush of so many bytes of memtables costs, with its share of the compaction that as many tables of level 0 as
    /// start one bring about sooner.
    fn price_of_flush(memory: u64, version: &Version, options: &Options) -> u64 {
        memory.saturating_add(bytes_of(version, 1) / (options.level0_tables.max(1) as u64))
    }

    /// The most there can be to pay for: so many bytes of memtables, and level 0. More is for what was never worth a
    /// job; it buys none later.
    pub fn most(memory: u64, version: &Version, options: &Options) -> u64 {
        let level0 = bytes_of(version, 0).saturating_mul(1 + LEVEL_FACTOR);
        RangeCost::price_of_flush(memory, version, options).saturating_add(level0)
    }

    /// A range over `sources` that are not settled is over; it took so many steps of a merge. True: it is time for
    /// background work to look.
    pub fn pay(&self, sources: u64, steps: u64) -> bool {
        if sources == 0 {
            return false;
        }
        let cost = sources * SOURCE_BYTES + steps * STEP_BYTES;
        let before = self.paid.fetch_add(cost, Ordering::Relaxed);
        let look_at = self.look_at.load(Ordering::Relaxed);
        before < look_at && before.saturating_add(cost) >= look_at
    }

    pub fn paid(&self) -> u64 {
        self.paid.load(Ordering::Relaxed)
    }

    /// Whether a flush of so many bytes is paid for: by itself, or because level 0 is, which is then compacted with what is
    /// flushed in it, once and not twice.
    pub fn pays_for_flush(&self, memory: u64, version: &Version, options: &Options) -> bool {
        self.paid() >= RangeCost::price_of_flush(memory, version, options) || self.pays_for_level0(version)
    }

    /// The same of level 0, with all of level 1: the picker takes what overlaps.
    fn pays_for_level0(&self, version: &Version) -> bool {
        let level0 = bytes_of(version, 0);
        level0 > 0 && self.paid() >= level0.saturating_add(bytes_of(version, 1))
    }

    /// A flush of so many bytes was done over `version`; before the compaction that level 0 is paid for, that is one
    /// job with it.
    pub fn spend_on_flush(&self, memory: u64, version: &Version) {
        if !self.pays_for_level0(version) {
            self.spend(memory);
        }
    }

    /// A job of that price was done.
    pub fn spend(&self, price: u64) {
        let left = |paid: u64| Some(paid.saturating_sub(price));
        // It is always given something to store.
        let _ = self.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    }

    /// Background work looked, and it is not enough for anything: it looks again when there is a quarter more.
    pub fn look_later(&self) {
        let paid = self.paid();
        let first = self.look_at.load(Ordering::Relaxed);
        if paid >= first {
            self.look_at
                .store(paid.saturating_add(paid / 4).saturating_add(1), Ordering::Relaxed);
        }
    }
}

fn bytes_of(version: &Version, level: usize) -> u64 {
    let tables = version.levels.get(level).into_iter().flatten();
    tables.map(|table| table.meta().bytes).sum()
}

impl View {
    /// Sources that a range of the tenant merges and that are not settled.
    pub fn unsettled(&self, tenant: TenantId) -> u64 {
        let memtables = std::iter::once(&self.active).chain(&self.immutables);
        let memtables = memtables.filter(|memtable| !memtable.is_empty()).count();
        let level0 = self.version.levels.first().into_iter().flatten();
        (memtables + level0.filter(|table| table.contains(tenant)).count()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> RangeCost {
        let options = Options {
            memtable_bytes: 64 << 10,
            ..Options::default()
        };
        RangeCost::new(0, &options)
    }

    #[test]
    fn who_pays_the_last_bit_has_background_work_look_and_nobody_else() {
        let cost = account();
        let asked: Vec<u64> = (1..=64).filter(|_| cost.pay(1, 0)).map(|_| cost.paid()).collect();
        assert_eq!(asked, [1024]);
        cost.look_later();
        let asked: Vec<u64> = (1..=64).filter(|_| cost.pay(1, 0)).map(|_| cost.paid()).collect();
        assert_eq!(asked, [10_368]);
    }

    #[test]
    fn a_range_pays_for_each_source_and_each_step_unless_all_is_settled() {
        let cost = account();
        assert!(!cost.pay(0, 1_000_000));
        assert_eq!(cost.paid(), 0);
        cost.pay(3, 10);
        assert_eq!(cost.paid(), 3 * SOURCE_BYTES + 10 * STEP_BYTES);
    }

    #[test]
    fn what_is_spent_is_not_there_for_the_next() {
        let cost = account();
        cost.pay(10, 0);
        cost.spend(1000);
        assert_eq!(cost.paid(), 280);
        cost.spend(u64::MAX);
        assert_eq!(cost.paid(), 0);
    }
}
