//! Range reads, both ways at once: what users iterate.
//!
//! Two cursors over the same pinned view, one from the front and one from the back, made when first
//! asked for. They stop where they meet. A range pins files and memtables while it lives, not memory
//! for its results.

use bytes::Bytes;

use super::cursor::Entry;
use super::merge::MergeCursor;
use super::visible::VisibleCursor;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::inner::View;
use crate::types::{KeyspaceId, SeqNo, TenantId};

/// Entries of a keyspace in key order, from both ends. Each is `(key, value)`.
///
/// An error ends the iteration: what follows it is `None`.
pub struct Range {
    engine: Engine,
    tenant: TenantId,
    keyspace: KeyspaceId,
    view: View,
    at: SeqNo,
    /// Tree keys: `lower` inclusive, `upper` exclusive; None is the tenant's end.
    lower: Bytes,
    upper: Option<Bytes>,
    front: Option<VisibleCursor<MergeCursor>>,
    back: Option<VisibleCursor<MergeCursor>>,
    last_front: Option<Bytes>,
    last_back: Option<Bytes>,
    done: bool,
    /// Told first, instead of any entry.
    broken: Option<Error>,
}

impl Range {
    pub(crate) fn new(
        engine: Engine,
        tenant: TenantId,
        keyspace: KeyspaceId,
        view: View,
        at: SeqNo,
        lower: Vec<u8>,
        upper: Option<Vec<u8>>,
    ) -> Range {
        let done = upper.as_ref().is_some_and(|upper| *upper <= lower);
        Range {
            engine,
            tenant,
            keyspace,
            view,
            at,
            lower: lower.into(),
            upper: upper.map(Bytes::from),
            front: None,
            back: None,
            last_front: None,
            last_back: None,
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

    fn cursor(&self) -> Result<VisibleCursor<MergeCursor>> {
        Ok(VisibleCursor::new(self.view.cursor(self.tenant)?, self.at)
            .bounded(self.lower.clone(), self.upper.clone()))
    }

    fn advance(&mut self) -> Result<Option<Entry>> {
        self.engine.inner().check_tenant(self.tenant)?;
        self.engine
            .inner()
            .check_keyspace(self.tenant, self.keyspace, Some(self.at))?;
        let cursor = match &mut self.front {
            Some(cursor) => {
                cursor.next()?;
                cursor
            }
            None => {
                let mut cursor = self.cursor()?;
                cursor.seek(&self.lower)?;
                self.front.insert(cursor)
            }
        };
        let Some(entry) = cursor.entry() else {
            return Ok(None);
        };
        let past_end = self
            .upper
            .as_ref()
            .is_some_and(|upper| entry.key[..] >= upper[..]);
        let met = self.last_back.as_ref().is_some_and(|back| entry.key >= *back);
        if past_end || met {
            return Ok(None);
        }
        self.last_front = Some(entry.key.clone());
        Ok(Some(entry.clone()))
    }

    fn retreat(&mut self) -> Result<Option<Entry>> {
        self.engine.inner().check_tenant(self.tenant)?;
        self.engine
            .inner()
            .check_keyspace(self.tenant, self.keyspace, Some(self.at))?;
        let cursor = match &mut self.back {
            Some(cursor) => {
                cursor.prev()?;
                cursor
            }
            None => {
                let mut cursor = self.cursor()?;
                match &self.upper {
                    Some(upper) => cursor.seek_before(upper)?,
                    None => cursor.seek_last()?,
                }
                self.back.insert(cursor)
            }
        };
        let Some(entry) = cursor.entry() else {
            return Ok(None);
        };
        let past_start = entry.key[..] < self.lower[..];
        let met = self.last_front.as_ref().is_some_and(|front| entry.key <= *front);
        if past_start || met {
            return Ok(None);
        }
        self.last_back = Some(entry.key.clone());
        Ok(Some(entry.clone()))
    }

    fn deliver(&mut self, step: Result<Option<Entry>>) -> Option<Result<(Bytes, Bytes)>> {
        match step {
            // The keyspace id is the first four bytes of every tree key in range.
            Ok(Some(entry)) => Some(Ok((entry.key.slice(4..), entry.value))),
            Ok(None) => {
                self.done = true;
                None
            }
            Err(e) => {
                self.done = true;
                Some(Err(e))
            }
        }
    }
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
