//! Range reads, both ways at once: what users iterate.
//!
//! Two cursors over the same pinned view, one from the front and one from the back, made when first
//! asked for. They stop where they meet. A range pins files and memtables while it lives, not memory
//! for its results.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::cursor::Cursor;
use super::visible::VisibleCursor;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::expiry;
use crate::inner::{SeenLive, View};
use crate::types::{KeyspaceId, SeqNo, TenantId};

/// Entries of a keyspace in key order, from both ends. Each is `(key, value)`.
///
/// A value that expires is left out from its moment on, also when that comes while the range is read: what was
/// yielded before is not taken back. An error ends the iteration: what follows it is `None`.
pub struct Range {
    engine: Engine,
    tenant: TenantId,
    keyspace: KeyspaceId,
    seen: Arc<SeenLive>,
    view: Arc<View>,
    at: SeqNo,
    /// Tree keys: `lower` inclusive, `upper` exclusive; None is the tenant's end.
    lower: Bytes,
    upper: Option<Bytes>,
    /// Each stands on what it yielded last.
    front: Option<VisibleCursor<Box<dyn Cursor>>>,
    back: Option<VisibleCursor<Box<dyn Cursor>>>,
    done: bool,
    /// Told first, instead of any entry.
    broken: Option<Error>,
}

/// What is yielded.
type KeyValue = (Bytes, Bytes);

impl Range {
    pub(crate) fn new(
        engine: Engine,
        (tenant, keyspace): (TenantId, KeyspaceId),
        seen: Arc<SeenLive>,
        (view, at): (Arc<View>, SeqNo),
        lower: Vec<u8>,
        upper: Option<Vec<u8>>,
    ) -> Range {
        let done = upper.as_ref().is_some_and(|upper| *upper <= lower);
        Range {
            engine,
            tenant,
            keyspace,
            seen,
            view,
            at,
            lower: lower.into(),
            upper: upper.map(Bytes::from),
            front: None,
            back: None,
            done,
            broken: None,
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
        Ok(VisibleCursor::new(self.view.cursor(self.tenant)?, self.at)
            .bounded(self.lower.clone(), self.upper.clone()))
    }

    fn check(&self) -> Result<()> {
        let inner = self.engine.inner();
        inner.check_tenant_again(self.tenant, &self.seen)?;
        inner.check_keyspace(self.tenant, self.keyspace, Some(self.at))
    }

    fn advance(&mut self) -> Result<Option<KeyValue>> {
        self.check()?;
        let cursor = match &mut self.front {
            Some(cursor) => {
                cursor.next(&self.engine.inner().times)?;
                cursor
            }
            None => {
                let mut cursor = self.cursor()?;
                cursor.seek(&self.engine.inner().times, &self.lower)?;
                self.front.insert(cursor)
            }
        };
        // Nothing at or above the upper bound comes out of a bounded cursor.
        let back = self.back.as_ref().and_then(|back| back.entry());
        let met = back.is_some_and(|back| cursor.entry().is_some_and(|entry| entry.key >= back.key));
        Ok(if met { None } else { key_value(cursor) })
    }

    fn retreat(&mut self) -> Result<Option<KeyValue>> {
        self.check()?;
        let cursor = match &mut self.back {
            Some(cursor) => {
                cursor.prev(&self.engine.inner().times)?;
                cursor
            }
            None => {
                let mut cursor = self.cursor()?;
                let times = &self.engine.inner().times;
                match &self.upper {
                    Some(upper) => cursor.seek_before(times, upper)?,
                    None => cursor.seek_last(times)?,
                }
                self.back.insert(cursor)
            }
        };
        let front = self.front.as_ref().and_then(|front| front.entry());
        let met = front.is_some_and(|front| cursor.entry().is_some_and(|entry| entry.key <= front.key));
        Ok(if met { None } else { key_value(cursor) })
    }

    fn deliver(&mut self, step: Result<Option<KeyValue>>) -> Option<Result<KeyValue>> {
        if !matches!(step, Ok(Some(_))) {
            self.done = true;
        }
        step.transpose()
    }
}

fn key_value(cursor: &VisibleCursor<Box<dyn Cursor>>) -> Option<KeyValue> {
    let mut entry = cursor.owned()?;
    // The keyspace id is the first four bytes of every tree key in range.
    entry.key.advance(4.min(entry.key.len()));
    Some((entry.key, expiry::value(entry.kind, entry.value).0))
}

impl Iterator for Range {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.broken.take().map_or_else(|| self.advance(), Err);
        self.deliver(step)
    }
}

impl DoubleEndedIterator for Range {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.broken.take().map_or_else(|| self.retreat(), Err);
        self.deliver(step)
    }
}
