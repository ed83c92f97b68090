//! Several cursors of one tenant as one.

use crate::error::Result;
use crate::read::cursor::{Cursor, Entry};
use crate::types::SeqNo;

/// Several cursors of one tenant as one, in internal order.
pub(crate) struct MergeCursor {}

impl MergeCursor {
    /// Over `sources`, newest first.
    pub(crate) fn new(sources: Vec<Box<dyn Cursor>>) -> MergeCursor {
        let _ = sources;
        MergeCursor {}
    }
}

impl Cursor for MergeCursor {
    fn seek(&mut self, _key: &[u8], _seqno: SeqNo) -> Result<()> {
        todo!()
    }
    fn seek_first(&mut self) -> Result<()> {
        todo!()
    }
    fn seek_last(&mut self) -> Result<()> {
        todo!()
    }
    fn seek_before(&mut self, _key: &[u8]) -> Result<()> {
        todo!()
    }
    fn next(&mut self) -> Result<()> {
        todo!()
    }
    fn prev(&mut self) -> Result<()> {
        todo!()
    }
    fn entry(&self) -> Option<&Entry> {
        todo!()
    }
}
