//! Flush: an immutable memtable becomes a table of level 0.
//!
//! The table holds, of each key, the versions that a reader may still need; deletes stay, for they may
//! hide something in the tables below, and so do range deletes, and a delete in place of a value that has ended.
//! Tenants whose key is destroyed are left out. Like a compaction
//! it changes nothing by itself: the returned edit does, when it is logged.
//!
//! One flush at a time, memtables in the order they were filled: the order of level 0 is that of table
//! numbers.

use std::sync::Arc;

use crate::compaction::apart::{self, Place};
use crate::compaction::output::{Outputs, cancelled};
use crate::compaction::range_deletes::RangeDeletes;
use crate::compaction::retention::{Retention, Verdict};
use crate::compaction::{Terms, Work};
use crate::error::Result;
use crate::expiry;
use crate::hooks::rare;
use crate::memtable::Memtable;
use crate::range_delete::Fragments;
use crate::table::KeyRange;
use crate::types::{Lsn, SeqNo};
use crate::version::Edit;

/// Writes `memtable`, which nobody inserts into any more, to a table.
///
/// - `flushed`: the WAL before it is in tables once the edit is logged.
/// - `seqno`: newest version in the memtable.
///
/// The table is synced, its name included. There is none if no entry is left to keep; the edit moves
/// `flushed` all the same. After an error no new table is left: `Closed` if cancelled, `NoSpace` or `Io`
/// if it could not be written; the memtable stays as it is and may be flushed again.
pub(crate) fn flush(work: &Work<'_>, memtable: &Arc<Memtable>, flushed: Lsn, seqno: SeqNo) -> Result<Edit> {
    let mut outputs = Outputs::new(work, u64::MAX);
    for tenant in memtable.tenants() {
        if (work.cancelled)() {
            return Err(cancelled());
        }
        if !work.keys.is_live(tenant) {
            rare!(FlushLeftTenantOut);
            continue;
        }
        let mut cursor = memtable.cursor(tenant);
        let deletes = memtable.range_deletes(tenant);
        let deletes = Fragments::merged(deletes.iter().map(Arc::as_ref));
        let mut deletes = RangeDeletes::new(work, tenant, &deletes, KeyRange::ALL, |_| Ok(true))?;
        let mut retention = Retention::new(work.snapshots);
        let mut key = Vec::new();
        let mut terms = None;
        cursor.seek_first()?;
        while let Some(entry) = cursor.entry() {
            if key != entry.key {
                retention.next_key();
                terms = work.terms(tenant, entry.key, terms)?;
                key.clear();
                key.extend_from_slice(entry.key);
            }
            if deletes.hide(entry, &retention) {
                cursor.next()?;
                continue;
            }
            let drop = terms.as_ref().and_then(|terms| terms.dropped);
            let ends = Terms::ends(terms.as_ref(), entry);
            let gone = expiry::is_gone(entry.kind, ends, work.now);
            let verdict = retention.judge(entry.seqno, gone, drop);
            let (entry, ends) = if gone {
                (entry.as_delete(), None)
            } else {
                (entry, ends)
            };
            if verdict != Verdict::Drop {
                // No memtable has references.
                let separation = Terms::separation(terms.as_ref(), work.options);
                let there = match apart::place(entry, separation, |_| false) {
                    Place::Apart => outputs.add_apart(tenant, entry, entry.value)?,
                    _ => outputs.add(tenant, entry, ends)?,
                };
                if !there {
                    break;
                }
            }
            cursor.next()?;
        }
        outputs.end_tenant(tenant, &mut deletes)?;
    }
    let written = outputs.finish()?.keep(work.db)?;
    let added: Vec<_> = written.tables.into_iter().map(|meta| (0, meta)).collect();
    if added.is_empty() {
        rare!(FlushedNothing);
    }
    Ok(Edit {
        added,
        values: written.values,
        flushed: Some(flushed),
        seqno: Some(seqno),
        ..Edit::default()
    })
}
