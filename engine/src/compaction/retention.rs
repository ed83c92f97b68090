//! Which versions of a key may go. Pure: no files, no keys, no clock.
//!
//! Live snapshots cut history into stripes: an entry belongs to the stripe of the oldest snapshot
//! that sees it, entries newer than every snapshot to the last. Of each stripe only the newest entry
//! of a key can ever be read, so one rule does it all:
//!
//! 1. An entry of a dropped keyspace goes when the drop is at or above it, and the drop itself is
//!    visible to every snapshot.
//! 2. Of a key's entries in one stripe, the newest stays and the others go.
//! 3. A delete that would stay goes too when it is in the oldest stripe (every snapshot sees it) and
//!    nothing older can exist below: then its absence reads the same.
//!
//! Nobody may later take a snapshot below the visible version of the moment the list was made. The
//! caller therefore counts the visible version among the snapshots; see `Work::snapshots`. Entries newer
//! than it are not yet published: any of them may become what a reader reads at, so all stay.

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
    /// - `dropped`: version at which the entry's keyspace was dropped, if it was.
    pub fn judge(&mut self, seqno: SeqNo, is_delete: bool, dropped: Option<SeqNo>) -> Verdict {
        if dropped.is_some_and(|drop| seqno <= drop && self.stripe(drop) == 0) {
            return Verdict::Drop;
        }
        let stripe = self.stripe(seqno);
        if stripe > 0 && stripe == self.snapshots.len() {
            // Newer than all that is visible: each of these may yet become what a reader reads at.
            return Verdict::Keep;
        }
        // Entries come newest first, so stripes do not rise: equal means a newer one is kept.
        if self.kept == Some(stripe) {
            return Verdict::Drop;
        }
        self.kept = Some(stripe);
        if is_delete && stripe == 0 {
            Verdict::KeepUnlessBottom
        } else {
            Verdict::Keep
        }
    }

    /// How many snapshots do not see `seqno`. 0: all do.
    fn stripe(&self, seqno: SeqNo) -> usize {
        self.snapshots.partition_point(|snapshot| *snapshot < seqno)
    }
}
