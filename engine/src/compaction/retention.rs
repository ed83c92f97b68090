//! Which versions of a key may go. Pure: no files, no keys, no clock.
//!
//! Live snapshots cut history into stripes: an entry belongs to the stripe of the oldest snapshot
//! that sees it, entries newer than every snapshot to the last. Of each stripe only the newest entry
//! of a key can ever be read, so one rule does it all:
//!
//! 1. An entry of a dropped keyspace goes when the drop is at or above it, and the drop itself is
//!    visible to every snapshot.
//! 2. Of a key's entries in one stripe, the newest stays and the others go; of those newer than every
//!    snapshot all stay.
//! 3. A delete that would stay goes too when it is in the oldest stripe (every snapshot sees it) and
//!    nothing older can exist below: then its absence reads the same.
//!
//! The caller counts the visible version among the snapshots (see `Work::snapshots`): nobody may later
//! take a snapshot below it. Entries newer than all of them are not yet published. Each may become what
//! a reader reads at, so all of them stay; without any snapshot only the newest counts.

use crate::hooks::rare;
use crate::types::SeqNo;

/// Decides for the versions of one tree key after another, each newest first.
pub(crate) struct Retention<'a> {
    /// Live snapshots, ascending.
    snapshots: &'a [SeqNo],
    /// Stripe of the last entry kept of the current key.
    kept: Option<usize>,
}

/// What becomes of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Some reader needs it.
    Keep,
    /// A delete that only has to stay if something older of this key may exist below the output.
    KeepUnlessBottom,
    /// No reader can ever see it.
    Drop,
}

impl<'a> Retention<'a> {
    /// For `snapshots`, ascending.
    pub fn new(snapshots: &'a [SeqNo]) -> Retention<'a> {
        debug_assert!(snapshots.is_sorted());
        Retention {
            snapshots,
            kept: None,
        }
    }

    /// The next entry belongs to another key.
    pub fn next_key(&mut self) {
        self.kept = None;
    }

    /// What becomes of the key's next older entry.
    ///
    /// - `is_delete`: nothing can be read of it but that the key is absent.
    /// - `dropped`: version at which the entry's keyspace was dropped, if it was.
    pub fn judge(&mut self, seqno: SeqNo, is_delete: bool, dropped: Option<SeqNo>) -> Verdict {
        if dropped.is_some_and(|drop| seqno <= drop && self.stripe(drop) == 0) {
            rare!(DroppedKeyspaceErased);
            return Verdict::Drop;
        }
        let stripe = self.stripe(seqno);
        if stripe > 0 && stripe == self.snapshots.len() {
            return Verdict::Keep;
        }
        // Entries come newest first, so stripes do not rise: equal means a newer one is kept.
        if self.kept == Some(stripe) {
            return Verdict::Drop;
        }
        if self.kept.is_some() {
            rare!(VersionKeptForSnapshot);
        }
        self.kept = Some(stripe);
        if is_delete && stripe == 0 {
            Verdict::KeepUnlessBottom
        } else {
            Verdict::Keep
        }
    }

    /// Whether whoever sees the version `older` sees `newer` too, and goes on doing so.
    pub fn seen_together(&self, older: SeqNo, newer: SeqNo) -> bool {
        let stripe = self.stripe(older);
        let unpublished = stripe > 0 && stripe == self.snapshots.len();
        stripe == self.stripe(newer) && !unpublished
    }

    /// Whether no reader, now or later, reads before the version.
    pub fn is_seen_by_all(&self, seqno: SeqNo) -> bool {
        self.stripe(seqno) == 0
    }

    /// How many snapshots do not see `seqno`. 0: all do.
    fn stripe(&self, seqno: SeqNo) -> usize {
        self.snapshots.partition_point(|snapshot| *snapshot < seqno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::testing::Dice;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Entry {
        seqno: SeqNo,
        delete: bool,
    }

    /// What a reader at `at` finds: the newest entry it sees.
    fn read(entries: &[Entry], at: SeqNo) -> Option<Entry> {
        entries.iter().find(|entry| entry.seqno <= at).copied()
    }

    fn survivors(entries: &[Entry], snapshots: &[SeqNo], bottom: bool) -> Vec<Entry> {
        let mut retention = Retention::new(snapshots);
        let keep = |entry: &&Entry| match retention.judge(entry.seqno, entry.delete, None) {
            Verdict::Keep => true,
            Verdict::KeepUnlessBottom => !bottom,
            Verdict::Drop => false,
        };
        entries.iter().filter(keep).copied().collect()
    }

    #[test]
    fn every_reader_reads_the_same_and_nothing_else_is_kept() {
        for seed in 0..20_000 {
            let dice = Dice::new(seed);
            let mut seqno = 1 + dice.below(5);
            let mut entries = Vec::new();
            for _ in 0..dice.below(9) {
                entries.push(Entry {
                    seqno: SeqNo(seqno),
                    delete: dice.one_in(3),
                });
                seqno += 1 + dice.below(4);
            }
            entries.reverse();
            let mut snapshots: Vec<SeqNo> =
                (0..dice.below(5)).map(|_| SeqNo(dice.below(seqno + 3))).collect();
            snapshots.sort_unstable();
            let bottom = dice.one_in(2);
            let kept = survivors(&entries, &snapshots, bottom);
            let context = format!("seed {seed}: {entries:?} {snapshots:?} bottom {bottom} kept {kept:?}");
            // Whoever reads now or later: at a snapshot, or at a version not yet published.
            let newest = snapshots.last().copied().unwrap_or(SeqNo::MAX);
            let unpublished = || {
                entries
                    .iter()
                    .map(|entry| entry.seqno)
                    .filter(|seqno| *seqno > newest)
            };
            let readers = || snapshots.iter().copied().chain([SeqNo::MAX]).chain(unpublished());
            for at in readers() {
                // At the bottom a delete reads like nothing.
                let hidden = |entry: &Entry| bottom && entry.delete;
                let (before, after) = (read(&entries, at), read(&kept, at));
                assert_eq!(
                    before.filter(|e| !hidden(e)),
                    after.filter(|e| !hidden(e)),
                    "at {at}, {context}"
                );
            }
            for entry in &kept {
                assert!(
                    readers().any(|at| read(&entries, at) == Some(*entry)),
                    "{entry:?} {context}"
                );
                let seen_by_all = snapshots.first().is_none_or(|oldest| entry.seqno <= *oldest);
                assert!(!(bottom && entry.delete && seen_by_all), "{entry:?} {context}");
            }
        }
    }

    #[test]
    fn dropped_keyspace_goes_when_every_snapshot_sees_the_drop() {
        let snapshots = [SeqNo(10), SeqNo(20)];
        for (seqno, drop, verdict) in [
            (9, Some(9), Verdict::Drop),
            (9, Some(10), Verdict::Drop),
            (10, Some(10), Verdict::Drop),
            (9, Some(11), Verdict::Keep),
            (9, Some(8), Verdict::Keep),
            (11, Some(10), Verdict::Keep),
            (9, None, Verdict::Keep),
        ] {
            let mut retention = Retention::new(&snapshots);
            assert_eq!(
                retention.judge(SeqNo(seqno), false, drop.map(SeqNo)),
                verdict,
                "{seqno} {drop:?}"
            );
        }
        let mut retention = Retention::new(&[]);
        assert_eq!(retention.judge(SeqNo(9), false, Some(SeqNo(9))), Verdict::Drop);
        // What was dropped does not stand in for an older entry.
        assert_eq!(retention.judge(SeqNo(8), false, None), Verdict::Keep);
    }

    #[test]
    fn keys_do_not_hide_each_other() {
        let mut retention = Retention::new(&[]);
        assert_eq!(retention.judge(SeqNo(5), false, None), Verdict::Keep);
        assert_eq!(retention.judge(SeqNo(4), false, None), Verdict::Drop);
        retention.next_key();
        assert_eq!(retention.judge(SeqNo(3), true, None), Verdict::KeepUnlessBottom);
        assert_eq!(retention.judge(SeqNo(2), false, None), Verdict::Drop);
    }
}
