//! Point reads: the newest source that knows a key decides.
//!
//! Sources are asked newest first: active memtable, immutable memtables, level 0 newest table first,
//! then each deeper level's one table. Versions of a key never get older on that way up, so the first
//! entry at or below the snapshot is the newest.

use super::cursor::Entry;
use super::level::{self, LevelCursor};
use super::merge::MergeCursor;
use crate::error::Result;
use crate::hooks::rare;
use crate::inner::View;
use crate::types::{SeqNo, TenantId};

/// Newest version of `key` at or below `at`, deletes included.
pub(crate) fn find(view: &View, tenant: TenantId, key: &[u8], at: SeqNo) -> Result<Option<Entry>> {
    if let Some(entry) = view.active.get(tenant, key, at) {
        return Ok(Some(entry));
    }
    for memtable in &view.immutables {
        if let Some(entry) = memtable.get(tenant, key, at) {
            rare!(ReadFromImmutable);
            return Ok(Some(entry));
        }
    }
    let mut levels = view.version.levels.iter();
    for table in levels.next().into_iter().flatten() {
        if let Some(entry) = table.get(tenant, key, at)? {
            return Ok(Some(entry));
        }
    }
    for tables in levels {
        if let Some(table) = level::table_for(tables, tenant, key)?
            && let Some(entry) = table.get(tenant, key, at)?
        {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

impl View {
    /// All versions of one tenant's entries, from every source.
    pub fn cursor(&self, tenant: TenantId) -> Result<MergeCursor> {
        let mut sources = vec![self.active.cursor(tenant)];
        sources.extend(self.immutables.iter().map(|m| m.cursor(tenant)));
        let mut levels = self.version.levels.iter();
        for table in levels.next().into_iter().flatten().filter(|t| t.contains(tenant)) {
            sources.push(table.cursor(tenant)?);
        }
        for tables in levels {
            if !level::tables_of(tables, tenant).is_empty() {
                sources.push(Box::new(LevelCursor::new(tables, tenant)));
            }
        }
        Ok(MergeCursor::new(sources))
    }
}
