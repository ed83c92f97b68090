//! Tables.
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::io::Io;
use crate::read::cursor::{Cursor, Entry};
use crate::seal::{FileHeader, FileKeys};
use crate::types::{SeqNo, TenantId};

/// What the manifest records of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TableMeta {
    /// File number: names the file.
    pub number: u64,
    /// From the header.
    pub file_id: [u8; 16],
    /// File length.
    pub bytes: u64,
    /// Entries of all tenants.
    pub entries: u64,
    /// SHA-256 over header, tenant directory and footer.
    pub digest: [u8; 32],
    /// Smallest tenant inside.
    pub tenant_min: TenantId,
    /// Largest tenant inside.
    pub tenant_max: TenantId,
    /// Oldest version inside.
    pub seqno_min: SeqNo,
    /// Newest version inside.
    pub seqno_max: SeqNo,
}

impl TableMeta {
    /// Encoded length.
    pub(crate) const BYTES: usize = 104;
    /// Appends the fixed-size encoding.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }
    /// Decodes exactly [`BYTES`](TableMeta::BYTES) bytes; None if they are no table's.
    pub(crate) fn decode(bytes: &[u8]) -> Option<TableMeta> {
        let _ = bytes;
        todo!()
    }
}

/// One tenant's share of a table, from its clear directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TenantRun {
    /// The tenant.
    pub tenant: TenantId,
    /// Versions, deletes included.
    pub entries: u64,
    /// Deletes among them.
    pub deletes: u64,
    /// Sealed bytes, index and filter included.
    pub bytes: u64,
    /// Oldest version.
    pub seqno_min: SeqNo,
    /// Newest version.
    pub seqno_max: SeqNo,
}

/// Writes a table.
pub(crate) struct TableBuilder {}

impl TableBuilder {
    /// Creates the file at `path`. Removed again if the builder is dropped before `finish`.
    pub(crate) fn new(
        io: &Io,
        path: &Path,
        header: FileHeader,
        keys: &Arc<FileKeys>,
        block_bytes: usize,
        filter_bits: usize,
    ) -> Result<TableBuilder> {
        let _ = (io, path, header, keys, block_bytes, filter_bits);
        todo!()
    }
    /// Adds the next entry: tenants ascending, inside one in internal order, each place once.
    /// `NotFound` when the tenant's key is destroyed: nothing was added, go on with the next tenant.
    pub(crate) fn add(&mut self, tenant: TenantId, entry: &Entry) -> Result<()> {
        let _ = (tenant, entry);
        todo!()
    }
    /// About how long the file would be if finished now.
    pub(crate) fn bytes_estimate(&self) -> u64 {
        todo!()
    }
    /// Entries added.
    pub(crate) fn entries(&self) -> u64 {
        todo!()
    }
    /// Completes and syncs the file; the caller syncs the directory. `Invalid` without entries.
    pub(crate) fn finish(self) -> Result<TableMeta> {
        todo!()
    }
}

/// An open table.
pub(crate) struct Table {}

impl Table {
    /// Opens and checks length, header, footer, directory and digest.
    pub(crate) fn open(io: &Io, path: &Path, meta: TableMeta, keys: Arc<FileKeys>, cache: Arc<BlockCache>) -> Result<Arc<Table>> {
        let _ = (io, path, meta, keys, cache);
        todo!()
    }
    /// The newest version of `key` at or below `at`, deletes included. None for a destroyed tenant.
    pub(crate) fn get(&self, _tenant: TenantId, _key: &[u8], _at: SeqNo) -> Result<Option<Entry>> {
        todo!()
    }
    /// Over one tenant's entries, through the cache. Empty for a destroyed tenant.
    pub(crate) fn cursor(self: &Arc<Self>, _tenant: TenantId) -> Result<Box<dyn Cursor>> {
        todo!()
    }
    /// The same for compaction: blocks read go past the cache, several at a time.
    pub(crate) fn sweep(self: &Arc<Self>, _tenant: TenantId) -> Result<Box<dyn Cursor>> {
        todo!()
    }
    /// Whether the table has entries of `tenant`.
    pub(crate) fn contains(&self, _tenant: TenantId) -> bool {
        todo!()
    }
    /// `tenant`'s share.
    pub(crate) fn run(&self, _tenant: TenantId) -> Option<TenantRun> {
        todo!()
    }
    /// All tenants, ascending.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = TenantRun> + '_ {
        std::iter::empty()
    }
    /// First and last tree key of `tenant`. None if it has none here, or its key is destroyed.
    pub(crate) fn bounds(&self, _tenant: TenantId) -> Result<Option<(Bytes, Bytes)>> {
        todo!()
    }
    /// What the manifest records.
    pub(crate) fn meta(&self) -> &TableMeta {
        todo!()
    }
    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        todo!()
    }
    /// The file is removed when the last handle drops.
    pub(crate) fn mark_obsolete(&self) {
        todo!()
    }
}

/// Decrypted blocks, indexes and filters of all tables.
pub(crate) struct BlockCache {}

/// What the cache holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct CacheUsage {
    /// Bytes held.
    pub bytes: u64,
    /// Bytes allowed.
    pub bytes_max: u64,
    /// Items held.
    pub items: u64,
}

impl BlockCache {
    /// Of at most `bytes`; 0 turns it off.
    pub(crate) fn new(bytes: u64) -> BlockCache {
        let _ = bytes;
        BlockCache {}
    }
    /// Drops all of `tenant`.
    pub(crate) fn purge(&self, _tenant: TenantId) {
        todo!()
    }
    /// What it holds.
    pub(crate) fn usage(&self) -> CacheUsage {
        todo!()
    }
}
