//! Memtable.
use std::sync::Arc;

use bytes::Bytes;

use crate::read::cursor::{Cursor, Entry, EntryKind};
use crate::types::{SeqNo, TenantId};

/// Recent entries of all tenants, in memory.
pub(crate) struct Memtable {}

impl Memtable {
    /// An empty one.
    pub(crate) fn new() -> Memtable {
        Memtable {}
    }
    /// Adds a version. Safe from several threads.
    pub(crate) fn insert(&self, tenant: TenantId, key: Bytes, seqno: SeqNo, kind: EntryKind, value: Bytes) {
        let _ = (tenant, key, seqno, kind, value);
        todo!()
    }
    /// The newest version of `key` at or below `at`, deletes included.
    pub(crate) fn get(&self, _tenant: TenantId, _key: &[u8], _at: SeqNo) -> Option<Entry> {
        todo!()
    }
    /// Approximate memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        todo!()
    }
    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        todo!()
    }
    /// Whether nothing was inserted.
    pub(crate) fn is_empty(&self) -> bool {
        todo!()
    }
    /// Over one tenant's entries.
    pub(crate) fn cursor(self: &Arc<Self>, _tenant: TenantId) -> Box<dyn Cursor> {
        todo!()
    }
    /// Tenants with entries, ascending.
    pub(crate) fn tenants(&self) -> Vec<TenantId> {
        todo!()
    }
}
