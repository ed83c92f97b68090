//! How much there is: of a range of keys, or of a tenant, without reading it.

use std::ops::RangeBounds;

use crate::error::Result;
use crate::inner::View;
use crate::memtable::Memtable;
use crate::quota;
use crate::read::level;
use crate::table::KeyRange;
use crate::tenant::{Keyspace, Tenant};
use crate::types::{SeqNo, TenantId};

/// Entries of one memtable that are counted one by one; what comes after them is not.
const COUNTED_MAX: u64 = 10_000;

/// How much there is, about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Size {
    /// Versions of entries: deletes, and values that expired or that newer ones hide, are among them until
    /// compaction drops them.
    pub entries: u64,
    /// Bytes: sealed blocks in tables, values apart from them, keys and values in memtables. Indexes and filters are
    /// not counted.
    pub bytes: u64,
}

/// What a tenant takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Versions of entries in tables: deletes, and values that expired or that newer ones hide, are among them
    /// until compaction drops them.
    pub entries: u64,
    /// Deletes among them.
    pub deletes: u64,
    /// Sealed bytes in tables: blocks, filters, indexes.
    pub table_bytes: u64,
    /// Sealed bytes in value files: those that newer ones hide are among them until compaction empties their file.
    pub value_bytes: u64,
    /// In memtables, not in tables yet: counted as in [`Keyspace::approximate_size`], but all bytes.
    pub memtables: Size,
}

impl Usage {
    /// Sealed bytes in tables and value files together: all that the tenant has on disk but its log.
    pub fn file_bytes(&self) -> u64 {
        self.table_bytes.saturating_add(self.value_bytes)
    }

    /// What a quota is compared with: sealed bytes in tables and value files, and keys and values in memtables.
    pub fn bytes(&self) -> u64 {
        self.file_bytes().saturating_add(self.memtables.bytes)
    }
}

impl Tenant {
    /// What the tenant takes, its catalog of keyspaces included.
    ///
    /// - Accuracy: exact, but for the number of entries in memtables: of each the first 10,000 are counted.
    /// - Cost: a search in each table's directory, which is in memory, whatever the number of tenants; no file is
    ///   read.
    /// - Errors: `NotFound`.
    pub fn usage(&self) -> Result<Usage> {
        let inner = self.engine.inner();
        inner.check_tenant(self.id)?;
        let view = inner.view();
        let mut usage = Usage::default();
        for (_, table) in view.version.tables() {
            let Some(run) = table.run(self.id) else { continue };
            usage.entries += run.entries;
            usage.deletes += run.deletes;
            usage.table_bytes += run.bytes;
        }
        usage.value_bytes = apart(&view, self.id);
        let all = KeyRange {
            lower: &[],
            upper: None,
        };
        for memtable in std::iter::once(&view.active).chain(&view.immutables) {
            add_memtable(&mut usage.memtables, memtable, self.id, all)?;
        }
        usage.memtables.bytes = quota::in_memory(&view, self.id);
        // Deleted meanwhile: what was counted is no longer anybody's.
        inner.check_tenant(self.id)?;
        Ok(usage)
    }
}

impl Keyspace {
    /// About how much lies in `range`, without reading it.
    ///
    /// - Accuracy: of each table up to two blocks too much (blocks at the range's ends count in full) and never too
    ///   little; of each memtable the first 10,000 entries of the range. Values that stand apart (`separate_bytes`) count
    ///   by the entries: as if each of the tenant's had as much of them as any other.
    /// - Cost: the indexes of the keyspace's tables, most often from the cache; no data block is read.
    /// - Errors: as for [`get`](Keyspace::get).
    pub fn approximate_size<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<Size> {
        let (lower, upper) = self.bounds(range);
        let range = KeyRange {
            lower: &lower,
            upper: upper.as_deref(),
        };
        self.read_at(None, |view, _| size(view, self.tenant_id(), range))
    }
}

fn size(view: &View, tenant: TenantId, range: KeyRange<'_>) -> Result<Size> {
    let mut size = Size::default();
    if range.upper.is_some_and(|upper| upper <= range.lower) {
        return Ok(size);
    }
    for memtable in std::iter::once(&view.active).chain(&view.immutables) {
        add_memtable(&mut size, memtable, tenant, range)?;
    }
    let mut entries = 0;
    let mut levels = view.version.levels.iter();
    let level0 = levels.next().into_iter().flatten();
    for table in level0.chain(levels.flat_map(|tables| level::tables_of(tables, tenant))) {
        let share = table.share(tenant, range)?;
        entries += share.entries;
        size.bytes += share.bytes;
    }
    size.entries += entries;
    let apart = apart(view, tenant);
    if apart > 0 {
        let runs = view.version.tables().filter_map(|(_, table)| table.run(tenant));
        let all: u64 = runs.map(|run| run.entries).sum();
        let part = u128::from(apart) * u128::from(entries.min(all)) / u128::from(all.max(1));
        size.bytes += u64::try_from(part).unwrap_or(u64::MAX);
    }
    Ok(size)
}

/// A tenant's sealed bytes in value files.
fn apart(view: &View, tenant: TenantId) -> u64 {
    let runs = view.version.values.values().filter_map(|file| file.run(tenant));
    runs.map(|run| run.bytes).sum()
}

fn add_memtable(
    size: &mut Size,
    memtable: &std::sync::Arc<Memtable>,
    tenant: TenantId,
    range: KeyRange<'_>,
) -> Result<()> {
    let mut cursor = memtable.cursor(tenant);
    cursor.seek(range.lower, SeqNo::MAX)?;
    for _ in 0..COUNTED_MAX {
        let Some(entry) = cursor.entry() else { break };
        if range.upper.is_some_and(|upper| upper <= entry.key) {
            break;
        }
        size.entries += 1;
        size.bytes += (entry.key.len() + entry.value.len()) as u64;
        cursor.next()?;
    }
    Ok(())
}
