//! Range reads, both ways at once: what users iterate.
//!
//! Two cursors over the same pinned view, one from the front and one from the back, made when first
//! asked for. They stop where they meet. A range pins files and memtables while it lives, not memory
//! for its results.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes};

use super::cursor::{Cursor, EntryKind, EntryRef};
use super::visible::{Bounds, VisibleCursor};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::expiry;
use crate::inner::{Seen, View};
use crate::retention::Rule;
use crate::table::Owner;
use crate::types::{KeyspaceId, SeqNo, TenantId};

/// Entries of a keyspace in key order, from both ends. Each is `(key, value)`.
///
/// As an iterator it hands out [`Bytes`], which keep the block of memory that they lie in for as long as they live.
/// Who only looks at entries, one after the other, is served faster by [`next_ref`](Range::next_ref): it counts no
/// references.
///
/// A value that expires is left out from its moment on, also when that comes while the range is read: what was
/// yielded before is not taken back. An error ends the iteration: what follows it is `None`.
pub struct Range {
    engine: Engine,
    tenant: TenantId,
    keyspace: KeyspaceId,
    seen: Arc<Seen>,
    view: Arc<View>,
    at: SeqNo,
    bounds: Arc<Bounds>,
    /// Each stands on what it yielded last.
    front: Side,
    back: Side,
    done: bool,
    /// Steps it took that were more than one in a block.
    steps: u64,
    /// Told first, instead of any entry.
    broken: Option<Error>,
    /// The value that stands apart from the entry that was yielded last, if one does.
    apart: Bytes,
}

impl Range {
    pub(crate) fn new(
        engine: Engine,
        (tenant, keyspace): (TenantId, KeyspaceId),
        seen: Arc<Seen>,
        (view, at): (Arc<View>, SeqNo),
        bounds: Bounds,
    ) -> Range {
        let done = bounds.upper.as_ref().is_some_and(|upper| *upper <= bounds.lower);
        Range {
            engine,
            tenant,
            keyspace,
            seen,
            view,
            at,
            bounds: Arc::new(bounds),
            front: None,
            back: None,
            done,
            steps: 0,
            broken: None,
            apart: Bytes::new(),
        }
    }

    /// A range that yields `error` and ends.
    pub(crate) fn failed(mut self, error: Error) -> Range {
        self.broken = Some(error);
        self
    }

    /// The version the range reads at.
    pub fn seqno(&self) -> SeqNo {
        self.at
    }

    fn cursor(&self) -> Result<VisibleCursor<Box<dyn Cursor>>> {
        let source = self.view.cursor(self.tenant, self.at)?;
        Ok(VisibleCursor::bounded(source, self.at, self.bounds.clone()))
    }

    fn check(&self) -> Result<()> {
        let inner = self.engine.inner();
        inner.check_tenant_again(self.tenant, &self.seen)?;
        inner.check_keyspace(self.tenant, self.keyspace, Some(self.at))
    }

    /// What every step looks at: whether there is still something to read, and by which rule.
    #[inline]
    fn look(&self) -> Result<Option<Arc<Rule>>> {
        let inner = self.engine.inner();
        if inner.is_unchanged(&self.seen) && !inner.any_dropped.load(Ordering::Acquire) {
            return Ok(None);
        }
        self.look_again()
    }

    #[cold]
    fn look_again(&self) -> Result<Option<Arc<Rule>>> {
        self.check()?;
        let settings = &self.engine.inner().settings;
        Ok(settings.rule_again(self.tenant, self.keyspace, &self.seen))
    }

    /// The next entry, lent until the next call: key and value as they lie in memory. Otherwise as
    /// [`next`](Iterator::next), with which it takes turns.
    pub fn next_ref(&mut self) -> Option<Result<(&[u8], &[u8])>> {
        if self.glide() {
            let stretch = self.front.as_ref()?.stretch()?;
            return Some(Ok(pair(&stretch.entry(), &self.apart)));
        }
        let step = self.step(Range::advance);
        lent(&self.front, &self.apart, step)
    }

    /// The last entry not yet yielded, lent until the next call; as [`next_back`](DoubleEndedIterator::next_back).
    pub fn next_back_ref(&mut self) -> Option<Result<(&[u8], &[u8])>> {
        let step = self.step(Range::retreat);
        lent(&self.back, &self.apart, step)
    }

    /// A step of the front as most are: in a stretch, with nothing to look at beside. False: it takes more.
    ///
    /// Whether the keyspace is deleted was asked when the front was made: a deletion that comes later is newer than
    /// the version that is read at.
    #[inline(always)]
    fn glide(&mut self) -> bool {
        let inner = self.engine.inner();
        let plain = !self.done && self.back.is_none() && self.view.version.values.is_empty();
        match &mut self.front {
            Some(front) if plain && inner.is_unchanged(&self.seen) => {
                front.next_in_stretch(&inner.times.by(None))
            }
            _ => false,
        }
    }

    /// Whether the front stands on an entry that is still to be yielded.
    fn advance(&mut self) -> Result<bool> {
        let (inner, rule) = (self.engine.inner(), self.look()?);
        let times = inner.times.by(rule.as_deref());
        match &mut self.front {
            Some(cursor) => cursor.next(&times)?,
            None => {
                let cursor = self.cursor()?;
                self.front.insert(cursor).seek(&times, &self.bounds.lower)?;
            }
        }
        // Nothing at or above the upper bound comes out of a bounded cursor.
        self.arrive(true)
    }

    fn retreat(&mut self) -> Result<bool> {
        let (inner, rule) = (self.engine.inner(), self.look()?);
        let times = inner.times.by(rule.as_deref());
        match &mut self.back {
            Some(cursor) => cursor.prev(&times)?,
            None => {
                let cursor = self.cursor()?;
                self.back.insert(cursor).seek_last(&times)?;
            }
        }
        self.arrive(false)
    }

    /// Whether the side that moved stands on an entry, before the one where the other side stands. Reads its value, if
    /// that stands apart.
    fn arrive(&mut self, forward: bool) -> Result<bool> {
        let (here, other) = match forward {
            true => (&self.front, &self.back),
            false => (&self.back, &self.front),
        };
        let Some(here) = here else { return Ok(false) };
        let other = other.as_ref().and_then(|other| other.entry());
        if other.is_none() && self.view.version.values.is_empty() {
            return Ok(here.is_positioned());
        }
        let is_between = |entry: &EntryRef<'_>| match other {
            None => true,
            Some(other) if forward => entry.key < other.key,
            Some(other) => entry.key > other.key,
        };
        match here.entry().filter(is_between) {
            Some(entry) if entry.kind == EntryKind::Separated => self.apart = self.read_apart(entry)?,
            Some(_) => {}
            None => return Ok(false),
        }
        Ok(true)
    }

    /// One step with `step`; None when the range has ended.
    fn step(&mut self, step: fn(&mut Range) -> Result<bool>) -> Option<Result<()>> {
        if self.done {
            return None;
        }
        self.steps += 1;
        let stepped = self.broken.take().map_or_else(|| step(self), Err);
        // A source has nothing more of a tenant whose key was destroyed meanwhile: that is not the end, and what the
        // others have may be older than what it had.
        let stepped = stepped.and_then(|more| {
            let inner = self.engine.inner();
            inner.check_tenant_again(self.tenant, &self.seen).map(|()| more)
        });
        self.done = !matches!(stepped, Ok(true));
        match stepped {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// The value that stands apart from `entry`.
    fn read_apart(&self, entry: EntryRef<'_>) -> Result<Bytes> {
        let owner = Owner {
            tenant: self.tenant,
            key: entry.key,
            seqno: entry.seqno,
        };
        let (file, reference) = self.view.version.find_value(entry.value)?;
        match file.get(owner, &reference)? {
            // Deleted while it was read: what the cache had may be a destroyed tenant's.
            Some(value) => self.check().map(|()| value),
            None => {
                self.engine.inner().check_tenant(self.tenant)?;
                let text = "the tenant's key went while its value was read";
                Err(Error::new(ErrorKind::NotFound, text))
            }
        }
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        let sides = u64::from(self.front.is_some()) + u64::from(self.back.is_some());
        let sources = sides * self.view.unsettled(self.tenant);
        if self.view.range_cost.pay(sources, self.steps) {
            self.engine.inner().wake_background();
        }
    }
}

type Side = Option<VisibleCursor<Box<dyn Cursor>>>;

/// What a side stands on after a step of its own, lent; with the value that stands apart from it, if one does.
fn lent<'a>(
    side: &'a Side,
    apart: &'a Bytes,
    step: Option<Result<()>>,
) -> Option<Result<(&'a [u8], &'a [u8])>> {
    if let Err(error) = step? {
        return Some(Err(error));
    }
    Some(Ok(pair(&side.as_ref()?.entry()?, apart)))
}

#[inline]
fn pair<'a>(entry: &EntryRef<'a>, apart: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    // The keyspace id is the first four bytes of every tree key in range.
    let key = entry.key.get(4..).unwrap_or_default();
    let value = match entry.kind {
        EntryKind::Separated => apart,
        kind => expiry::lent(kind, entry.value),
    };
    (key, value)
}

/// The same, taken out.
fn taken(side: &Side, apart: &Bytes, step: Option<Result<()>>) -> Option<Result<(Bytes, Bytes)>> {
    if let Err(error) = step? {
        return Some(Err(error));
    }
    let mut entry = side.as_ref()?.owned()?;
    entry.key.advance(4.min(entry.key.len()));
    let value = match entry.kind {
        EntryKind::Separated => apart.clone(),
        kind => expiry::value(kind, entry.value),
    };
    Some(Ok((entry.key, value)))
}

impl Iterator for Range {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.glide() {
            return taken(&self.front, &self.apart, Some(Ok(())));
        }
        let step = self.step(Range::advance);
        taken(&self.front, &self.apart, step)
    }
}

impl DoubleEndedIterator for Range {
    fn next_back(&mut self) -> Option<Self::Item> {
        let step = self.step(Range::retreat);
        taken(&self.back, &self.apart, step)
    }
}
