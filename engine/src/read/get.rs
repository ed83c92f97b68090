//! Point reads: the newest source that knows a key decides.
//!
//! Sources are asked newest first: active memtable, immutable memtables, level 0 newest table first,
//! then each deeper level's one table. Versions of a key never get older on that way up, so the first
//! entry at or below the snapshot is the newest.

use super::cursor::{Cursor, Found};
use super::level::{self, LevelCursor};
use super::merge::MergeCursor;
use crate::error::Result;
use crate::hooks::rare;
use crate::inner::View;
use crate::types::{SeqNo, TenantId};

/// Newest version of `key` at or below `at`, deletes included.
pub(crate) fn find(view: &View, tenant: TenantId, key: &[u8], at: SeqNo) -> Result<Option<Found>> {
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
    /// All versions of one tenant's entries at or below any version that was visible before this call, from
    /// every source.
    pub fn cursor(&self, tenant: TenantId) -> Result<Box<dyn Cursor>> {
        let mut sources: Vec<Box<dyn Cursor>> = Vec::new();
        for memtable in std::iter::once(&self.active).chain(&self.immutables) {
            // What comes into an empty one later is newer than all that was visible.
            if !memtable.is_empty() {
                sources.push(memtable.cursor(tenant));
            }
        }
        let mut levels = self.version.levels.iter();
        for table in levels.next().into_iter().flatten().filter(|t| t.contains(tenant)) {
            sources.push(Box::new(table.cursor(tenant)?));
        }
        for tables in levels {
            match level::tables_of(tables, tenant) {
                [] => {}
                [only] if !only.contains(tenant) => {}
                [only] => sources.push(Box::new(only.cursor(tenant)?)),
                several => sources.push(Box::new(LevelCursor::new(several, tenant))),
            }
        }
        Ok(match sources.pop() {
            Some(only) if sources.is_empty() => only,
            Some(last) => {
                sources.push(last);
                Box::new(MergeCursor::new(sources))
            }
            None => Box::new(MergeCursor::new(sources)),
        })
    }
}
