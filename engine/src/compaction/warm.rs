//! What readers have in the cache of tables that a compaction replaces, brought in of the tables that replace them,
//! before readers come to those.
//!
//! Only what was there: a stretch of keys of which the cache had no block stays out, so that compacting what nobody
//! reads leaves the cache to those who read something else. And what was there of the old tables goes as soon as nobody
//! new can find it, so that it is there once.
//!
//! It is for speed alone: a failure is left to whoever reads the table next. Decision 0027.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::Result;
use crate::hooks::rare;
use crate::read::level::{search, tables_of};
use crate::table::{BlockCache, Table};
use crate::types::TenantId;
use crate::version::{Edit, Version, table_path};

use super::Work;

/// Looks at whether the job was cancelled are so many stretches of keys apart.
const LOOK_EVERY: usize = 16;

/// Has `edit` count, by `apply`, with the cache following: what it lacks of the new tables comes first, what it has of
/// those that `version` has and `edit` removes goes when nobody new can find them, so after `apply`.
pub(crate) fn follow(
    work: &Work<'_>,
    cache: &Arc<BlockCache>,
    version: &Version,
    edit: Edit,
    apply: impl FnOnce(Edit) -> Result<()>,
) -> Result<()> {
    carry_over(work, cache, version, &edit);
    let replaced = replaced(version, &edit);
    apply(edit)?;
    replaced.iter().for_each(|table| table.let_go());
    Ok(())
}

/// Brings in what the tables that `edit` adds to `version` have where the cache has something of those that it removes.
pub(crate) fn carry_over(work: &Work<'_>, cache: &Arc<BlockCache>, version: &Version, edit: &Edit) {
    if cache.usage().pieces == 0 {
        return;
    }
    // A failure here would come again when the edit is applied, and be told then.
    let Ok(new) = added(work, cache, version, edit) else {
        return;
    };
    let mut stretches = 0;
    let mut goes_on = true;
    for old in replaced(version, edit) {
        old.cached(|tenant, from, to| {
            stretches += 1;
            let asks = stretches % LOOK_EVERY == 0;
            goes_on = goes_on && !(asks && (work.cancelled)()) && warm(&new, tenant, from, to).is_ok();
        });
    }
}

/// The stretch of a tenant's keys from `from` to `to`, in tables as they come in a level.
fn warm(tables: &[Arc<Table>], tenant: TenantId, from: &[u8], to: &[u8]) -> Result<()> {
    let tables = tables_of(tables, tenant);
    let first = match tables {
        [_] => 0,
        several => search(several, tenant, from)?,
    };
    for table in tables.iter().skip(first) {
        if table.warm(tenant, from, to)? > 0 {
            rare!(CacheCarriedOver);
        }
        if !table.ends_before(tenant, to)? {
            break;
        }
    }
    Ok(())
}

/// The tables that are in `version` and not in the one after `edit`.
fn replaced<'a>(version: &'a Version, edit: &Edit) -> Vec<&'a Arc<Table>> {
    let stays = |number: u64| edit.added.iter().any(|(_, meta)| meta.number == number);
    let gone: BTreeSet<u64> = edit.removed.iter().map(|(_, number)| *number).collect();
    version
        .tables()
        .map(|(_, table)| table)
        .filter(|table| gone.contains(&table.meta().number) && !stays(table.meta().number))
        .collect()
}

/// The tables that are new, as they come in a level. Opened here and once more for the version; the cache knows
/// both by the number of the file.
fn added(
    work: &Work<'_>,
    cache: &Arc<BlockCache>,
    version: &Version,
    edit: &Edit,
) -> Result<Vec<Arc<Table>>> {
    let known: BTreeSet<u64> = version.tables().map(|(_, table)| table.meta().number).collect();
    edit.added
        .iter()
        .filter(|(_, meta)| !known.contains(&meta.number))
        .map(|(_, meta)| {
            let path = table_path(work.db, meta.number);
            Table::open(
                work.io,
                &path,
                meta.clone(),
                Arc::clone(work.keys),
                Arc::clone(cache),
            )
        })
        .collect()
}
