//! A cursor over one tenant in a memtable.
//!
//! It holds some consecutive entries at a time, few after a seek and more while it is stepped, and
//! searches the skip list anew for the next ones: a handle to a node would borrow from the memtable
//! the cursor itself keeps alive. A search for up to 128 entries costs little an entry.
//!
//! Invariant: `chunk` holds consecutive entries as they were when it was filled. Entries that came
//! since are missed inside the chunk, which is what the memtable's promise allows.

use std::sync::Arc;

use super::{Memtable, Node, Parts, entry};
use crate::error::Result;
use crate::read::cursor::{Cursor, Entry};
use crate::types::{SeqNo, TenantId};

const CHUNK_MIN: usize = 2;
const CHUNK_MAX: usize = 128;

pub(super) struct MemtableCursor {
    memtable: Arc<Memtable>,
    tenant: TenantId,
    /// In internal order.
    chunk: Vec<Entry>,
    /// The place in `chunk`; unpositioned when past its end.
    at: usize,
    chunk_len: usize,
}

impl MemtableCursor {
    pub(super) fn new(memtable: Arc<Memtable>, tenant: TenantId) -> MemtableCursor {
        MemtableCursor {
            memtable,
            tenant,
            chunk: Vec::new(),
            at: 0,
            chunk_len: CHUNK_MIN,
        }
    }

    /// Fills the chunk with entries from `node` on and takes the first.
    fn fill_forward(&mut self, chunk: Vec<Entry>) {
        self.chunk = chunk;
        self.at = 0;
    }

    /// Fills the chunk with entries that end at the one before the place, and takes the last.
    fn fill_backward(&mut self, mut chunk: Vec<Entry>) {
        chunk.reverse();
        self.at = chunk.len().saturating_sub(1);
        self.chunk = chunk;
    }

    /// Up to `chunk_len` entries of the tenant, starting with `node` and going on with `step`.
    fn collect<'a>(
        tenant: TenantId,
        chunk_len: usize,
        mut node: Option<Node<'a>>,
        step: impl Fn(&Node<'a>) -> Option<Node<'a>>,
    ) -> Vec<Entry> {
        let mut chunk = Vec::with_capacity(chunk_len);
        while let Some(found) = node.filter(|node| node.key().tenant == tenant) {
            chunk.push(entry(&found));
            if chunk.len() >= chunk_len {
                break;
            }
            node = step(&found);
        }
        chunk
    }

    fn forward(&mut self, place: Parts<'_>, inclusive: bool) {
        let node = self.memtable.lower(place, inclusive);
        let chunk = Self::collect(self.tenant, self.chunk_len, node, |node| node.next());
        self.fill_forward(chunk);
    }

    fn backward(&mut self, place: Parts<'_>) {
        let node = self.memtable.before(place);
        let chunk = Self::collect(self.tenant, self.chunk_len, node, |node| node.prev());
        self.fill_backward(chunk);
    }

    fn grow(&mut self) {
        self.chunk_len = (self.chunk_len * 2).min(CHUNK_MAX);
    }
}

impl Cursor for MemtableCursor {
    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.chunk_len = CHUNK_MIN;
        self.forward(Parts::new(self.tenant, key, seqno), true);
        Ok(())
    }

    fn seek_first(&mut self) -> Result<()> {
        self.seek(&[], SeqNo::MAX)
    }

    fn seek_last(&mut self) -> Result<()> {
        self.chunk_len = CHUNK_MIN;
        match self.tenant.0.checked_add(1).map(TenantId) {
            Some(after) => self.backward(Parts::new(after, &[], SeqNo::MAX)),
            None => {
                let node = self.memtable.map.back();
                let chunk = Self::collect(self.tenant, self.chunk_len, node, |node| node.prev());
                self.fill_backward(chunk);
            }
        }
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.chunk_len = CHUNK_MIN;
        self.backward(Parts::new(self.tenant, key, SeqNo::MAX));
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        if self.at + 1 < self.chunk.len() {
            self.at += 1;
        } else if let Some(Entry { key, seqno, .. }) = self.entry().cloned() {
            self.grow();
            self.forward(Parts::new(self.tenant, &key, seqno), false);
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        if self.at > 0 && self.at < self.chunk.len() {
            self.at -= 1;
        } else if let Some(Entry { key, seqno, .. }) = self.entry().cloned() {
            self.grow();
            self.backward(Parts::new(self.tenant, &key, seqno));
        }
        Ok(())
    }

    fn entry(&self) -> Option<&Entry> {
        self.chunk.get(self.at)
    }
}
