//! The newest version of each key at or below a snapshot.
use crate::error::Result;
use crate::read::cursor::{Cursor, Entry};
use crate::types::SeqNo;

/// Yields, for each key, its newest version at or below a snapshot; skips deleted keys.
pub(crate) struct VisibleCursor {}

impl VisibleCursor {
    /// Over `source` as of `snapshot`. Unpositioned.
    pub(crate) fn new(source: Box<dyn Cursor>, snapshot: SeqNo) -> VisibleCursor {
        let _ = (source, snapshot);
        VisibleCursor {}
    }
    /// To the first visible entry whose tree key is at or after `key`.
    pub(crate) fn seek(&mut self, _key: &[u8]) -> Result<()> {
        todo!()
    }
    /// To the last visible entry whose tree key is smaller than `key`.
    pub(crate) fn seek_before(&mut self, _key: &[u8]) -> Result<()> {
        todo!()
    }
    /// To the first visible entry.
    pub(crate) fn seek_first(&mut self) -> Result<()> {
        todo!()
    }
    /// To the last visible entry.
    pub(crate) fn seek_last(&mut self) -> Result<()> {
        todo!()
    }
    /// To the next visible entry.
    pub(crate) fn next(&mut self) -> Result<()> {
        todo!()
    }
    /// To the previous visible entry.
    pub(crate) fn prev(&mut self) -> Result<()> {
        todo!()
    }
    /// The visible entry (a put), if positioned.
    pub(crate) fn entry(&self) -> Option<&Entry> {
        todo!()
    }
}
