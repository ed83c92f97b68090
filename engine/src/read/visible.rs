//! What a reader at a snapshot sees: for each key its newest version at or below the snapshot, if
//! that is a put and has not ended. Whether it has is asked when the cursor comes to it, of the time that every
//! step is given; what is current stays current until the next step.
//!
//! Invariants: going forwards, the source stands on the current entry, or it has lent a stretch, in which the current
//! entry is, and stands somewhere before that: it is told where to go on when the stretch ends. Going backwards,
//! versions of a key come oldest first, so that the source has to step to a smaller key before it is known which
//! one counts; the current entry is then held. Where the source knows that a key has but one version, it stands on
//! that, as forwards. An error leaves the cursor unpositioned. Outside the bounds nothing is read beyond the first
//! entry met there.

use std::sync::Arc;

use crate::error::Result;
use crate::expiry::Shows;
use crate::hooks::planted;
use crate::operation::count;
use crate::read::cursor::{Cursor, Entry, EntryRef};
use crate::read::digits::eight;
use crate::table::Stretch;
use crate::types::SeqNo;

/// Steps over versions of one key before it is cheaper to seek past them.
const STEPS_MAX: u32 = 8;

/// Where the current entry is.
enum Current {
    None,
    /// The source stands on it; versions that are newer than the snapshot may stand before.
    Source,
    /// In a stretch that the source lent: it stands somewhere before. Going forwards.
    Lent(Stretch),
    /// The source stands on it, and it is the only version of its key: going backwards.
    Only,
    /// Here; the source has gone on to a smaller key: going backwards.
    Held(Entry),
}

/// Yields, for each key, its newest version at or below a snapshot; skips deleted and expired keys.
pub(crate) struct VisibleCursor<C> {
    source: C,
    snapshot: SeqNo,
    bounds: Arc<Bounds>,
    /// Digits of the upper bound: a key with smaller ones is below.
    upper: u64,
    current: Current,
    /// The source was asked for a stretch where it stands, and had none.
    asked: bool,
    /// The stretch that was left last.
    spare: Option<Stretch>,
}

/// The tree keys between which a range lies.
#[derive(Default)]
pub(crate) struct Bounds {
    /// No key below this is yielded.
    pub lower: Vec<u8>,
    /// No key at or above this is yielded; None = no bound.
    pub upper: Option<Vec<u8>>,
}

impl<C: Cursor> VisibleCursor<C> {
    /// Over all of `source`, as of `snapshot`. Unpositioned.
    pub(crate) fn new(source: C, snapshot: SeqNo) -> VisibleCursor<C> {
        VisibleCursor::bounded(source, snapshot, Arc::default())
    }

    /// Over what of `source` is inside `bounds`, as of `snapshot`; stops at them: a scan of one keyspace never walks
    /// the next one's deleted entries. Unpositioned.
    pub(crate) fn bounded(source: C, snapshot: SeqNo, bounds: Arc<Bounds>) -> VisibleCursor<C> {
        VisibleCursor {
            source,
            snapshot,
            upper: bounds.upper.as_ref().map_or(u64::MAX, |upper| eight(upper, 0)),
            bounds,
            current: Current::None,
            asked: false,
            spare: None,
        }
    }

    fn is_past(&self, key: &[u8]) -> bool {
        let upper = self.bounds.upper.as_deref();
        eight(key, 0) >= self.upper && upper.is_some_and(|upper| key >= upper)
    }

    /// To the first visible entry whose tree key is at or after `key`.
    pub(crate) fn seek(&mut self, times: &Shows<'_>, key: &[u8]) -> Result<()> {
        self.current = Current::None;
        let key = key.max(&self.bounds.lower);
        self.source.seek(key, self.snapshot)?;
        self.settle_forward(times)
    }

    /// To the last visible entry whose tree key is smaller than `key`.
    #[cfg(test)]
    pub(crate) fn seek_before(&mut self, times: &Shows<'_>, key: &[u8]) -> Result<()> {
        self.current = Current::None;
        let key = self.bounds.upper.as_deref().map_or(key, |upper| key.min(upper));
        self.source.seek_before(key)?;
        self.settle_backward(times)
    }

    /// To the first visible entry.
    #[cfg(test)]
    pub(crate) fn seek_first(&mut self, times: &Shows<'_>) -> Result<()> {
        self.seek(times, &[])
    }

    /// To the last visible entry.
    pub(crate) fn seek_last(&mut self, times: &Shows<'_>) -> Result<()> {
        self.current = Current::None;
        match &self.bounds.upper {
            Some(upper) => self.source.seek_before(upper)?,
            None => self.source.seek_last()?,
        }
        self.settle_backward(times)
    }

    /// To the next visible entry; unpositioned after the last. Does nothing when unpositioned.
    pub(crate) fn next(&mut self, times: &Shows<'_>) -> Result<()> {
        if self.next_in_stretch(times) {
            return Ok(());
        }
        match std::mem::replace(&mut self.current, Current::None) {
            Current::None => return Ok(()),
            Current::Source => match self.lend() {
                Some(mut stretch) => {
                    if stretch.next(self.snapshot, times) {
                        self.current = Current::Lent(stretch);
                        return Ok(());
                    }
                    self.leave(stretch)?;
                }
                None => self.source.next_key()?,
            },
            Current::Lent(stretch) => self.leave(stretch)?,
            Current::Only => self.source.next_key()?,
            Current::Held(entry) => {
                // The end of the key's versions, unless one has the smallest number of all.
                self.source.seek(&entry.key, SeqNo::ZERO)?;
                if self.source.entry().is_some_and(|next| next.key == entry.key) {
                    self.source.next_key()?;
                }
            }
        }
        self.settle_forward(times)?;
        // Who has come here by a step is likely to go on.
        if let Current::Source = self.current
            && let Some(stretch) = self.lend()
        {
            self.current = Current::Lent(stretch);
        }
        Ok(())
    }

    /// The same, if that takes no more than a look at the block that it is in. False: [`next`](VisibleCursor::next)
    /// does it.
    #[inline(always)]
    pub(crate) fn next_in_stretch(&mut self, times: &Shows<'_>) -> bool {
        match &mut self.current {
            Current::Lent(stretch) => stretch.next(self.snapshot, times),
            _ => false,
        }
    }

    /// The stretch that it is in.
    #[inline(always)]
    pub(crate) fn stretch(&self) -> Option<&Stretch> {
        match &self.current {
            Current::Lent(stretch) => Some(stretch),
            _ => None,
        }
    }

    /// To the previous visible entry; unpositioned before the first. Does nothing when unpositioned.
    pub(crate) fn prev(&mut self, times: &Shows<'_>) -> Result<()> {
        match std::mem::replace(&mut self.current, Current::None) {
            Current::None => return Ok(()),
            Current::Source => {
                if let Some(key) = self.source.entry().map(|entry| entry.key.to_vec()) {
                    self.source.seek_before(&key)?;
                }
            }
            Current::Lent(stretch) => self.source.seek_before(stretch.entry().key)?,
            Current::Only => self.source.prev()?,
            Current::Held(_) => {}
        }
        self.settle_backward(times)
    }

    /// Whether it is on an entry.
    pub(crate) fn is_positioned(&self) -> bool {
        !matches!(self.current, Current::None)
    }

    /// The visible entry, always with a value to read, if positioned.
    pub(crate) fn entry(&self) -> Option<EntryRef<'_>> {
        match &self.current {
            Current::None => None,
            Current::Source | Current::Only => self.source.entry(),
            Current::Lent(stretch) => Some(stretch.entry()),
            Current::Held(entry) => Some(entry.view()),
        }
    }

    /// The same, taken out.
    pub(crate) fn owned(&self) -> Option<Entry> {
        match &self.current {
            Current::None => None,
            Current::Source | Current::Only => self.source.owned(),
            Current::Lent(stretch) => Some(stretch.owned()),
            Current::Held(entry) => Some(entry.clone()),
        }
    }

    /// What the source lends, as far as the upper bound.
    fn lend(&mut self) -> Option<Stretch> {
        if std::mem::replace(&mut self.asked, true) {
            return None;
        }
        self.source.stretch(self.bounds.upper.as_deref(), &mut self.spare)
    }

    /// Past what a stretch has come to, at its end.
    fn leave(&mut self, mut stretch: Stretch) -> Result<()> {
        stretch.is_left();
        let stretch = self.spare.insert(stretch);
        if planted!(StretchLeftBehind) {
            return self.source.next_key();
        }
        self.source.leave(stretch)
    }

    /// From the source's entry on, the first that is visible.
    fn settle_forward(&mut self, times: &Shows<'_>) -> Result<()> {
        let (mut steps, mut hidden) = (0, 0);
        self.asked = false;
        while let Some(entry) = self.source.entry() {
            if self.is_past(entry.key) {
                break;
            }
            if entry.seqno > self.snapshot {
                (steps, hidden) = (steps + 1, hidden + 1);
                if steps == STEPS_MAX {
                    let key = entry.key.to_vec();
                    self.source.seek(&key, self.snapshot)?;
                    steps = 0;
                } else {
                    self.source.next()?;
                }
                continue;
            }
            steps = 0;
            if times.shows(entry.kind, entry.value) {
                self.current = Current::Source;
                break;
            }
            hidden += 1;
            if planted!(DeleteSkippedAlone) {
                self.source.next()?;
                continue;
            }
            self.source.next_key()?;
        }
        count(|counters| {
            counters.entries += hidden + u64::from(self.is_positioned());
            counters.hidden += hidden;
        });
        Ok(())
    }

    /// From the source's entry backwards, the first key with a visible version. Going backwards the
    /// versions of a key come oldest first: the last one at or below the snapshot counts.
    fn settle_backward(&mut self, times: &Shows<'_>) -> Result<()> {
        let shows = |entry: &Entry| times.shows(entry.kind, &entry.value);
        let mut found: Option<Entry> = None;
        while let Some(entry) = self.source.entry() {
            let same = found.as_ref().is_some_and(|found| found.key == entry.key);
            if !same {
                // Asked once: it may expire at any moment.
                if let Some(found) = found.take().filter(shows) {
                    self.current = Current::Held(found);
                    return Ok(());
                }
                if entry.key < &self.bounds.lower[..] {
                    return Ok(());
                }
                if self.source.is_newest() {
                    if entry.seqno <= self.snapshot && times.shows(entry.kind, entry.value) {
                        self.current = Current::Only;
                        return Ok(());
                    }
                    self.source.prev()?;
                    continue;
                }
            }
            if entry.seqno <= self.snapshot {
                found = self.source.owned();
                self.source.prev()?;
            } else {
                // Newer than the snapshot, and so are the rest of this key's versions.
                let key = entry.key.to_vec();
                self.skip_versions_back(&key)?;
            }
        }
        if let Some(found) = found.filter(shows) {
            self.current = Current::Held(found);
        }
        Ok(())
    }

    /// Moves the source backwards past all versions of `key`.
    fn skip_versions_back(&mut self, key: &[u8]) -> Result<()> {
        let mut steps = 0;
        while self.source.entry().is_some_and(|entry| entry.key == key) {
            steps += 1;
            if steps == STEPS_MAX {
                self.source.seek_before(key)?;
            } else {
                self.source.prev()?;
            }
        }
        Ok(())
    }
}
