//! One tenant's range deletes on their way from the inputs of a job to its outputs.
//!
//! 1. An entry goes where whoever sees it sees a range delete over it as well ([`Retention::seen_together`]): judged by
//!    all range deletes of the inputs, those included that go themselves.
//! 2. Of a fragment's versions those stay that a delete of one key would: of each stripe the newest; none of the oldest
//!    stripe where nothing older can lie below.
//! 3. Outputs are cut at keys, and fragments with them, so that tables stay disjoint; and so are the parts that a
//!    compaction is carried out in: each has of a fragment what lies in it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::retention::{Retention, Verdict};
use super::{Work, keyspace_of};
use crate::error::Result;
use crate::hooks::{planted, rare};
use crate::range_delete::{Fragment, Fragments, Seqnos};
use crate::read::cursor::EntryRef;
use crate::table::KeyRange;
use crate::types::{SeqNo, TenantId};

/// The range deletes of one tenant.
#[derive(Default)]
pub(crate) struct RangeDeletes {
    /// Of all inputs, as far as they lie in the part.
    all: Vec<Fragment>,
    /// Those before here end at or before the last key asked about.
    passed: usize,
    /// What stays of them and is in no output yet.
    left: VecDeque<Fragment>,
}

impl RangeDeletes {
    /// - `part`: where the entries lie that they are asked about.
    /// - `needed`: whether something older than the fragment may lie below the output.
    pub fn new(
        work: &Work<'_>,
        tenant: TenantId,
        all: &Fragments,
        part: KeyRange<'_>,
        needed: impl Fn(&Fragment) -> Result<bool>,
    ) -> Result<RangeDeletes> {
        let mut left = VecDeque::new();
        let all: Vec<Fragment> = all.iter().filter_map(|whole| clipped(whole, part)).collect();
        for fragment in &all {
            let dropped = match keyspace_of(&fragment.start) {
                Some(keyspace) => (work.dropped)(tenant, keyspace)?,
                None => None,
            };
            let mut retention = Retention::new(work.snapshots);
            let mut seqnos = Seqnos::new();
            for seqno in &fragment.seqnos {
                let stays = match retention.judge(*seqno, true, dropped) {
                    Verdict::Keep => true,
                    Verdict::Drop => false,
                    Verdict::KeepUnlessBottom => !planted!(RangeDeleteDroppedEarly) && needed(fragment)?,
                };
                if stays {
                    seqnos.push(*seqno);
                } else {
                    rare!(RangeDeleteDropped);
                }
            }
            if !seqnos.is_empty() {
                left.push_back(Fragment {
                    seqnos,
                    ..fragment.clone()
                });
            }
        }
        Ok(RangeDeletes { all, passed: 0, left })
    }

    /// Whether nobody can read the entry, for one of them. Asked of entries in order.
    pub fn hide(&mut self, entry: EntryRef<'_>, retention: &Retention<'_>) -> bool {
        while self
            .all
            .get(self.passed)
            .is_some_and(|fragment| fragment.end <= entry.key)
        {
            self.passed += 1;
        }
        let over = self
            .all
            .get(self.passed)
            .filter(|fragment| fragment.start <= entry.key);
        // The oldest above it: whoever does not see that one sees none of the others.
        let hidden = over
            .and_then(|fragment| fragment.oldest_over(entry.seqno))
            .is_some_and(|seqno| {
                retention.seen_together(entry.seqno, seqno) || planted!(CoveredDroppedForSnapshots)
            });
        if hidden {
            rare!(CoveredEntryDropped);
        }
        hidden
    }

    /// The oldest that stays over `key`, before which all were taken.
    pub fn oldest_that_stays_over(&self, key: &[u8]) -> Option<SeqNo> {
        let next = self.left.front()?;
        let over = next.start <= key && next.end > key;
        next.seqnos.last().copied().filter(|_| over)
    }

    /// Whether nothing is left for the outputs.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Takes the next one that ends at or before `key`. None: any.
    pub fn next_before(&mut self, key: Option<&[u8]>) -> Option<Fragment> {
        let next = self.left.front()?;
        if key.is_some_and(|key| next.end > key) {
            return None;
        }
        self.left.pop_front()
    }

    /// Takes what comes before `key` of the one that goes on behind it, if one does.
    pub fn cut_at(&mut self, key: &[u8]) -> Option<Fragment> {
        let whole = self.left.front_mut().filter(|fragment| fragment.start < key)?;
        rare!(RangeDeleteCut);
        let start = whole.start.clone();
        if planted!(RangeDeleteNotCut) {
            return Some(whole.clone());
        }
        whole.start = Bytes::copy_from_slice(key);
        Some(Fragment {
            start,
            end: whole.start.clone(),
            seqnos: whole.seqnos.clone(),
        })
    }
}

/// What of a fragment lies in `part`.
fn clipped(whole: &Fragment, part: KeyRange<'_>) -> Option<Fragment> {
    let end = part.upper.filter(|upper| *upper < whole.end);
    if whole.end <= part.lower || end.is_some_and(|end| end <= whole.start) {
        return None;
    }
    let mut fragment = whole.clone();
    if planted!(PartKeepsWholeRangeDeletes) {
        return Some(fragment);
    }
    if fragment.start < part.lower {
        rare!(RangeDeleteCutAtPart);
        fragment.start = Bytes::copy_from_slice(part.lower);
    }
    if let Some(end) = end {
        rare!(RangeDeleteCutAtPart);
        fragment.end = Bytes::copy_from_slice(end);
    }
    Some(fragment)
}
