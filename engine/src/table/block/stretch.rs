//! A stretch: entries of one block that a reader goes over without asking the cursor that lent them.
//!
//! Going from entry to entry in a block takes a look at its places; asking a merge of cursors, each behind a
//! pointer, takes many times that. So the cursor says once how far the entries that follow come from this block
//! alone, and is told later where the reader has come to.
//!
//! Invariants: `at` is before `end`, and `end` in the block; between them no other source has an entry. `parts` are
//! of the entry that was shown last, which `at` is on unless a step found none after it.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Block, PLACE_BYTES, Parts, SAME_KEY};
use crate::expiry::Shows;
use crate::hooks::{planted, rare};
use crate::operation::count;
use crate::read::cursor::{Entry, EntryRef};
use crate::read::digits::{self, eight};
use crate::types::SeqNo;

/// So many entries ahead of the one that is shown, memory is asked for.
pub(in crate::table) const AHEAD: usize = 4;

/// The rest of a block, from the entry that the cursor stood on.
pub(crate) struct Stretch {
    block: Arc<Block>,
    /// Where it began, and how many entries it did not show since.
    from: usize,
    hidden: usize,
    at: usize,
    end: usize,
    parts: Parts,
    /// Whether the key that it is on is done with: older versions of it do not count.
    done: bool,
}

impl Stretch {
    /// From entry `at`, which has `parts`, to the end of the block, or as far as keys are below `below`; None if there
    /// is nothing after it. One that was left, `spare`, is made use of if it is of the same block.
    pub(in crate::table) fn new(
        block: &Arc<Block>,
        at: usize,
        parts: Parts,
        below: Option<&[u8]>,
        spare: &mut Option<Stretch>,
    ) -> Option<Stretch> {
        let end = below.map_or(block.len(), |below| block.end_below(at, below));
        if at + 1 >= end {
            return None;
        }
        for index in at + 1..=at + AHEAD {
            block.expect(index);
        }
        if let Some(mut spare) = spare.take_if(|spare| Arc::ptr_eq(&spare.block, block)) {
            (spare.from, spare.at, spare.end) = (at, at, end);
            (spare.parts, spare.done) = (parts, true);
            return Some(spare);
        }
        Some(Stretch {
            block: block.clone(),
            from: at,
            hidden: 0,
            at,
            end,
            parts,
            done: true,
        })
    }

    /// The reader has left it.
    pub(crate) fn is_left(&mut self) {
        count(|counters| {
            counters.entries += (self.at - self.from) as u64;
            counters.hidden += self.hidden as u64;
        });
        (self.from, self.hidden) = (self.at, 0);
    }

    /// To the next key of which who reads at `snapshot` sees a version, and to that. False if there is none: then it
    /// is on the last entry that it looked at.
    #[inline(always)]
    pub(crate) fn next(&mut self, snapshot: SeqNo, times: &Shows<'_>) -> bool {
        while self.at + 1 < self.end {
            let Some(place) = self.block.place(self.at + 1) else {
                return false;
            };
            self.at += 1;
            self.block.expect(self.at + AHEAD);
            if self.done && place & SAME_KEY != 0 && !planted!(StretchShowsOldVersions) {
                self.hidden += 1;
                continue;
            }
            let Some(parts) = self.block.parts_at(place) else {
                return false;
            };
            let entry = self.block.view(&parts);
            self.done = entry.seqno <= snapshot;
            if !self.done {
                rare!(NewerInStretch);
            } else if times.shows(entry.kind, entry.value) {
                self.parts = parts;
                return true;
            }
            self.hidden += 1;
        }
        false
    }

    /// Whether nothing that follows with the key that it is on counts. False: that is newer than the reader.
    pub(in crate::table) fn is_done(&self) -> bool {
        self.done
    }

    /// The entry of the block that it is on.
    pub(in crate::table) fn at(&self) -> usize {
        self.at
    }

    /// The entry that was shown last.
    #[inline(always)]
    pub(crate) fn entry(&self) -> EntryRef<'_> {
        self.block.view(&self.parts)
    }

    /// The same, taken out.
    pub(crate) fn owned(&self) -> Entry {
        self.block.owned(&self.parts)
    }
}

/// What was gone past is counted once, when the reader leaves it.
impl Drop for Stretch {
    #[inline]
    fn drop(&mut self) {
        self.is_left();
    }
}

impl Block {
    /// Where the entries behind entry `at` end whose keys are below `key`. Looks at the digits of those that are, one
    /// after the other: who asks goes over them next, and mostly there are few.
    fn end_below(&self, at: usize, key: &[u8]) -> usize {
        let own = self.key(at);
        match digits::beside(key, own.get(..self.skip).unwrap_or_default()) {
            Ordering::Less => return at + 1,
            Ordering::Greater => return self.len(),
            Ordering::Equal => {}
        }
        let wanted = eight(key, self.skip);
        let places = self.places().get(at + 1..).unwrap_or_default();
        let is_below = |place: &&[u8; PLACE_BYTES]| digits::number(place) < wanted;
        let end = at + 1 + places.iter().take_while(is_below).count();
        if end < self.len() {
            rare!(StretchCut);
            if self.key(end) < key {
                return self.lower_bound(key, SeqNo::MAX).max(at + 1);
            }
        }
        end
    }
}
