//! Point reads: the newest source that knows a key decides.
//!
//! Sources are asked newest first: active memtable, immutable memtables, level 0 newest table first,
//! then each deeper level's one table. Versions of a key never get older on that way up, and neither do range
//! deletes of it, so the first of either at or below the snapshot is the newest: a source is asked for both, and only
//! inside one of them are their versions compared.

use std::sync::Arc;

use bytes::Bytes;

use super::cover::Cover;
use super::cursor::{Cursor, EntryKind, Found};
use super::level::{self, LevelCursor};
use super::merge::MergeCursor;
use super::uncovered::Uncovered;
use crate::error::Result;
use crate::hooks::{planted, rare};
use crate::inner::View;
use crate::memtable::Memtable;
use crate::operation::{count, is_measuring};
use crate::table::Table;
use crate::types::{SeqNo, TenantId};

/// Newest version of `key` at or below `at`, deletes included; a range delete reads as a delete of its version.
pub(crate) fn find(view: &View, tenant: TenantId, key: &[u8], at: SeqNo) -> Result<Option<Found>> {
    // One look at the flag, and none where everybody passes.
    if is_measuring() {
        return counted(view, tenant, key, at);
    }
    look::<false>(view, tenant, key, at)
}

/// The same, measured. By itself, so that it takes no registers from who is not.
#[cold]
#[inline(never)]
fn counted(view: &View, tenant: TenantId, key: &[u8], at: SeqNo) -> Result<Option<Found>> {
    look::<true>(view, tenant, key, at)
}

/// The same; `COUNT`: it is measured.
#[inline(always)]
fn look<const COUNT: bool>(view: &View, tenant: TenantId, key: &[u8], at: SeqNo) -> Result<Option<Found>> {
    let in_memtable = |memtable: &Memtable| {
        if COUNT {
            count(|counters| counters.memtables += 1);
        }
        let entry = memtable.get(tenant, key, at);
        match memtable.deletes_ranges() {
            true => newer(entry, memtable.deleted(tenant, key, at)),
            false => entry,
        }
    };
    let in_table = |table: &Table| -> Result<_> {
        if COUNT {
            count(|counters| counters.tables += 1);
        }
        let entry = table.look::<COUNT>(tenant, key, at)?;
        match table.deletes_ranges() {
            true => Ok(newer(entry, table.deleted(tenant, key, at)?)),
            false => Ok(entry),
        }
    };
    if let Some(entry) = in_memtable(&view.active) {
        return Ok(Some(entry));
    }
    for memtable in &view.immutables {
        if let Some(entry) = in_memtable(memtable) {
            rare!(ReadFromImmutable);
            return Ok(Some(entry));
        }
    }
    let mut levels = view.version.levels.iter();
    for table in levels.next().into_iter().flatten() {
        if let Some(entry) = in_table(table)? {
            return Ok(Some(entry));
        }
    }
    for tables in levels.filter(|tables| !tables.is_empty()) {
        let Some(table) = level::table_for(tables, tenant, key)? else {
            continue;
        };
        let found = match planted!(LevelDeletesIgnored) {
            true => table.get(tenant, key, at)?,
            false => in_table(table)?,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The newer of what one source says. Of one batch the entry stands: what came before the range delete is not there.
fn newer(entry: Option<Found>, deleted: Option<SeqNo>) -> Option<Found> {
    match deleted {
        Some(seqno) if entry.as_ref().is_none_or(|entry| entry.seqno < seqno) => {
            rare!(ReadFromRangeDelete);
            Some(Found {
                seqno,
                kind: EntryKind::Delete,
                value: Bytes::new(),
            })
        }
        _ => entry,
    }
}

impl View {
    /// All versions of one tenant's entries at or below `at`, a version that was visible before this call, from
    /// every source; without what range deletes hide from who reads at `at`.
    pub fn cursor(&self, tenant: TenantId, at: SeqNo) -> Result<Box<dyn Cursor>> {
        let mut sources: Vec<Box<dyn Cursor>> = Vec::new();
        // Of the sources so far, which are newer than the next.
        let mut covers: Vec<Arc<Cover>> = Vec::new();
        let mut push = |source: Box<dyn Cursor>, own: Option<Cover>| {
            let own = own.map(Arc::new);
            sources.push(Uncovered::over(source, own.clone(), &covers, at));
            covers.extend(own);
        };
        for memtable in std::iter::once(&self.active).chain(&self.immutables) {
            // What comes into an empty one later is newer than all that was visible.
            if !memtable.is_empty() {
                push(memtable.cursor(tenant), Cover::of_memtable(memtable, tenant));
            }
        }
        let mut levels = self.version.levels.iter();
        for table in levels.next().into_iter().flatten().filter(|t| t.contains(tenant)) {
            let own = Cover::of_tables(std::slice::from_ref(table), tenant);
            push(Box::new(table.cursor(tenant)?), own);
        }
        for tables in levels.filter(|tables| !tables.is_empty()) {
            let own = Cover::of_tables(tables, tenant);
            match level::tables_of(tables, tenant) {
                [] => {}
                [only] if !only.contains(tenant) => {}
                [only] => push(Box::new(only.cursor(tenant)?), own),
                several => push(Box::new(LevelCursor::new(several, tenant)), own),
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
