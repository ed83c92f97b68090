//! One level's tables as one cursor over one tenant: concatenation.
//!
//! A level's tables are ordered and disjoint by (tenant, key), range deletes included, and all versions of a key
//! stand in one table. So a tenant's tables are neighbours, and at most one of them holds a given key. Which one is
//! found by binary search over the tables' bounds of the tenant, which come from their sealed indexes
//! by way of the cache.
//!
//! Invariants: as in `read::cursor`; one table's cursor is open at a time; no table is read before a
//! seek needs it.

use std::sync::Arc;

use crate::error::Result;
use crate::read::cursor::{Cursor, Entry, EntryRef};
use crate::table::{Stretch, Table, TableCursor};
use crate::types::{SeqNo, TenantId};

/// The part of `tables` (one level, ordered and disjoint) whose range of tenants includes `tenant`.
/// Neighbours. A single one may have nothing of it; of several, all have some, because their ranges
/// share only their edges.
pub(crate) fn tables_of(tables: &[Arc<Table>], tenant: TenantId) -> &[Arc<Table>] {
    let start = tables.partition_point(|table| table.meta().tenant_max < tenant);
    let rest = tables.get(start..).unwrap_or_default();
    let len = rest.partition_point(|table| table.meta().tenant_min <= tenant);
    rest.get(..len).unwrap_or_default()
}

/// The one table of a level that may hold `key` of `tenant`. Reads bounds only if several tables hold
/// the tenant.
pub(crate) fn table_for<'a>(
    tables: &'a [Arc<Table>],
    tenant: TenantId,
    key: &[u8],
) -> Result<Option<&'a Arc<Table>>> {
    if let [only] = tables {
        return Ok(Some(only));
    }
    match tables_of(tables, tenant) {
        [only] => Ok(Some(only)),
        several => Ok(several.get(search(several, tenant, key)?)),
    }
}

/// The index of the first table that speaks of keys of `tenant` at or after `key`; the number of tables
/// if there is none. All have some of `tenant`; if its key is destroyed, none counts.
pub(crate) fn search(tables: &[Arc<Table>], tenant: TenantId, key: &[u8]) -> Result<usize> {
    let (mut low, mut high) = (0, tables.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(table) = tables.get(middle) else { break };
        if table.ends_before(tenant, key)? {
            low = middle + 1
        } else {
            high = middle
        }
    }
    Ok(low)
}

/// A cursor over one tenant's part of a level.
pub(crate) struct LevelCursor {
    tenant: TenantId,
    /// Those with entries of the tenant, in order.
    tables: Vec<Arc<Table>>,
    at: usize,
    /// Over `tables[at]`.
    open: Option<TableCursor>,
    sweep: bool,
}

impl LevelCursor {
    /// Over `tenant` in `tables`: one level, ordered and disjoint. Reads nothing yet.
    pub(crate) fn new(tables: &[Arc<Table>], tenant: TenantId) -> LevelCursor {
        let tables = tables_of(tables, tenant)
            .iter()
            .filter(|table| table.contains(tenant));
        LevelCursor {
            tenant,
            tables: tables.cloned().collect(),
            at: 0,
            open: None,
            sweep: false,
        }
    }

    /// The same for compaction: see [`Table::sweep`].
    pub(crate) fn sweep(tables: &[Arc<Table>], tenant: TenantId) -> LevelCursor {
        LevelCursor {
            sweep: true,
            ..LevelCursor::new(tables, tenant)
        }
    }

    /// Opens the cursor of table `at`, keeping one that is open already; None past either end.
    fn table(&mut self, at: usize) -> Result<Option<&mut TableCursor>> {
        if self.at != at || self.open.is_none() {
            self.open = match self.tables.get(at) {
                Some(table) if self.sweep => Some(table.sweep(self.tenant)?),
                Some(table) => Some(table.cursor(self.tenant)?),
                None => None,
            };
            self.at = at;
        }
        Ok(self.open.as_mut())
    }

    /// To the first entry of the first table from `at` on that has one (a destroyed tenant's have none).
    fn enter_forward(&mut self, mut at: usize) -> Result<()> {
        while let Some(cursor) = self.table(at)? {
            cursor.seek_first()?;
            if cursor.is_positioned() {
                return Ok(());
            }
            at += 1;
        }
        Ok(())
    }

    /// To the last entry of the last table before `at` that has one.
    fn enter_backward(&mut self, mut at: usize) -> Result<()> {
        while let Some(before) = at.checked_sub(1) {
            at = before;
            let Some(cursor) = self.table(at)? else {
                return Ok(());
            };
            cursor.seek_last()?;
            if cursor.is_positioned() {
                return Ok(());
            }
        }
        self.open = None;
        Ok(())
    }

    fn find(&self, key: &[u8]) -> Result<usize> {
        if self.tables.len() == 1 {
            Ok(0)
        } else {
            search(&self.tables, self.tenant, key)
        }
    }

    /// A step inside the open table, or into one after it.
    fn forward(&mut self, step: impl FnOnce(&mut TableCursor) -> Result<()>) -> Result<()> {
        let Some(cursor) = self.open.as_mut().filter(|cursor| cursor.is_positioned()) else {
            return Ok(());
        };
        let stepped = step(cursor);
        if stepped.is_ok() && cursor.is_positioned() {
            return Ok(());
        }
        self.moved(|level| {
            stepped?;
            level.enter_forward(level.at + 1)
        })
    }

    /// Runs a move; an error leaves the cursor unpositioned.
    fn moved(&mut self, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let result = step(self);
        if result.is_err() {
            self.open = None;
        }
        result
    }
}

impl Cursor for LevelCursor {
    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.moved(|level| {
            let at = level.find(key)?;
            let Some(cursor) = level.table(at)? else {
                return Ok(());
            };
            cursor.seek(key, seqno)?;
            if cursor.is_positioned() {
                Ok(())
            } else {
                level.enter_forward(at + 1)
            }
        })
    }

    fn seek_first(&mut self) -> Result<()> {
        self.moved(|level| level.enter_forward(0))
    }

    fn seek_last(&mut self) -> Result<()> {
        self.moved(|level| level.enter_backward(level.tables.len()))
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.moved(|level| {
            let at = level.find(key)?;
            let Some(cursor) = level.table(at)? else {
                return level.enter_backward(at);
            };
            cursor.seek_before(key)?;
            if cursor.is_positioned() {
                Ok(())
            } else {
                level.enter_backward(at)
            }
        })
    }

    fn next(&mut self) -> Result<()> {
        self.forward(TableCursor::next)
    }

    fn next_key(&mut self) -> Result<()> {
        // All versions of a key stand in one table.
        self.forward(TableCursor::next_key)
    }

    fn prev(&mut self) -> Result<()> {
        self.moved(|level| {
            let Some(cursor) = level.open.as_mut().filter(|cursor| cursor.is_positioned()) else {
                return Ok(());
            };
            cursor.prev()?;
            if cursor.is_positioned() {
                Ok(())
            } else {
                level.enter_backward(level.at)
            }
        })
    }

    fn entry(&self) -> Option<EntryRef<'_>> {
        self.open.as_ref().and_then(TableCursor::entry)
    }

    fn owned(&self) -> Option<Entry> {
        self.open.as_ref().and_then(TableCursor::owned)
    }

    fn is_newest(&self) -> bool {
        self.open.as_ref().is_some_and(TableCursor::is_newest)
    }

    fn stretch(&mut self, below: Option<&[u8]>, spare: &mut Option<Stretch>) -> Option<Stretch> {
        self.open.as_mut().and_then(|open| open.stretch(below, spare))
    }

    fn leave(&mut self, stretch: &Stretch) -> Result<()> {
        self.forward(|cursor| cursor.leave(stretch))
    }
}
