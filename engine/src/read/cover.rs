//! Covers: what the range deletes of one source hide from a reader.
//!
//! Invariant: looks only at tables that have range deletes of the tenant, and reads none before it is asked.

use std::sync::Arc;

use crate::error::Result;
use crate::hooks::planted;
use crate::memtable::Memtable;
use crate::range_delete::{Fragments, Look};
use crate::read::level::{search, tables_of};
use crate::table::Table;
use crate::types::{SeqNo, TenantId};

/// The range deletes of one tenant in one source.
pub(crate) enum Cover {
    /// Of a memtable, as they were.
    Memtable(Vec<Arc<Fragments>>),
    /// Of a table of level 0, or of a level: those that have any, in order.
    Tables(TenantId, Vec<Arc<Table>>),
}

impl Cover {
    /// Of a memtable. None if there are none.
    pub(crate) fn of_memtable(memtable: &Memtable, tenant: TenantId) -> Option<Cover> {
        let lists = memtable.range_deletes(tenant);
        (!lists.is_empty()).then_some(Cover::Memtable(lists))
    }

    /// Of tables in order and disjoint: one of level 0, or a level. None if there are none.
    pub(crate) fn of_tables(tables: &[Arc<Table>], tenant: TenantId) -> Option<Cover> {
        let own = tables_of(tables, tenant).iter();
        let tables: Vec<_> = own
            .filter(|table| table.deletes_ranges_of(tenant))
            .cloned()
            .collect();
        (!tables.is_empty()).then_some(Cover::Tables(tenant, tables))
    }

    /// What is said of `key` to who reads at `at`.
    pub(crate) fn look(&self, key: &[u8], at: SeqNo) -> Result<Look> {
        match self {
            Cover::Memtable(lists) => {
                let looks = lists.iter().map(|list| list.look(key, at));
                Ok(looks.reduce(Look::and).unwrap_or_default())
            }
            Cover::Tables(tenant, tables) => look_in_tables(tables, *tenant, key, at),
        }
    }
}

/// Between two tables, and between what they delete, nothing is deleted.
fn look_in_tables(tables: &[Arc<Table>], tenant: TenantId, key: &[u8], at: SeqNo) -> Result<Look> {
    let found = search(tables, tenant, key)?;
    let end_before = match found.checked_sub(1).and_then(|before| tables.get(before)) {
        Some(before) => before.span(tenant)?.map(|(_, end)| end),
        None => None,
    };
    let Some(table) = tables.get(found) else {
        return Ok(Look::gap(end_before, None));
    };
    let Some((first, end)) = table.span(tenant)? else {
        // The tenant is deleted: nothing is read of it.
        return Ok(Look::default());
    };
    if key < &first[..] {
        return Ok(Look::gap(end_before, Some(first)));
    }
    let Some(fragments) = table.range_deletes(tenant)? else {
        return Ok(Look::gap(end_before, Some(end)));
    };
    let mut look = fragments.look(key, at);
    if planted!(CoverEndsWithTable) {
        return Ok(look);
    }
    look.from = look.from.or(end_before);
    look.to = look.to.or(Some(end));
    Ok(look)
}
