//! One tenant over a level's ordered, disjoint tables.
use std::sync::Arc;

use crate::error::Result;
use crate::read::cursor::{Cursor, Entry};
use crate::table::Table;
use crate::types::{SeqNo, TenantId};

/// The tables of `tables` (one level, ordered and disjoint) that may hold entries of `tenant`.
pub(crate) fn tables_of(tables: &[Arc<Table>], tenant: TenantId) -> &[Arc<Table>] {
    let _ = tenant;
    tables
}

/// The one table of a level that may hold `key` of `tenant`.
pub(crate) fn table_for<'a>(tables: &'a [Arc<Table>], tenant: TenantId, key: &[u8]) -> Result<Option<&'a Arc<Table>>> {
    let _ = (tables, tenant, key);
    todo!()
}

/// A cursor over one tenant's part of a level: concatenation, tables opened lazily.
pub(crate) struct LevelCursor {}

impl LevelCursor {
    /// Over `tenant` in `tables`: one level, ordered and disjoint.
    pub(crate) fn new(tables: &[Arc<Table>], tenant: TenantId) -> LevelCursor {
        let _ = (tables, tenant);
        LevelCursor {}
    }
}

impl Cursor for LevelCursor {
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
