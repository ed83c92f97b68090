//! Does what a plan says: reads tables, writes tables, returns the edit.
//!
//! In parts by range of keys, each by itself ([`parts`]), and in each tenant after tenant in the union of the inputs' directories: the inputs' cursors are merged, each
//! key's versions are judged by [`Retention`], survivors go to the outputs, without their version where nobody can tell it from any before it ([`settles`]);
//! of a value that has ended a delete survives, which hides what the value hid. Values that stand apart are not read, unless their file is to be emptied. What range deletes hide from everybody is left out, for the most part
//! unread. A destroyed tenant's cursors
//! are empty, so its data is left out without being decrypted; a tenant whose key should exist and does
//! not is an error, never silently dropped.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::expiry;
use crate::hooks::{planted, rare};
use crate::options::Options;
use crate::range_delete::{Fragment, Fragments};
use crate::read::cover::Cover;
use crate::read::cursor::{Cursor, EntryKind, EntryRef};
use crate::read::level::{LevelCursor, tables_of};
use crate::read::merge::MergeCursor;
use crate::read::uncovered::Uncovered;
use crate::table::{KeyRange, Owner, Table};
use crate::types::{KeyspaceId, SeqNo, TenantId};
use crate::version::{Edit, Version};

use super::apart::{self, Place};
use super::below::Below;
use super::output::{Outputs, cancelled};
use super::parts::{self, Part};
use super::picker::{Action, Plan};
use super::range_deletes::RangeDeletes;
use super::retention::{Retention, Verdict};
use super::{Terms, Work, keyspace_of};

/// Work between two looks at whether the job was cancelled, in bytes of entries.
const LOOK_BYTES: usize = 64 << 10;
/// What an entry counts for besides its bytes.
const ENTRY_BYTES: usize = 64;

/// Carries out `plan` on `version`, which has all its inputs.
///
/// The new tables are synced, names included; nothing else has changed when it returns. After an error
/// no new table is left.
///
/// - `Closed`: cancelled.
/// - `Corruption`: an input is damaged, or sealed under a key that should exist and does not.
/// - `NoSpace`, `Io`: the outputs could not be written.
pub(crate) fn compact(work: &Work<'_>, version: &Version, plan: &Plan) -> Result<Edit> {
    let inputs = inputs(version, plan)?;
    let mut edit = Edit::default();
    for (level, table) in &inputs {
        edit.removed.push((*level as u8, table.meta().number));
    }
    let output = plan.output as u8;
    if plan.action == Action::Move {
        edit.added = inputs
            .iter()
            .map(|(_, table)| (output, table.meta().clone()))
            .collect();
        return Ok(edit);
    }
    let Options {
        table_bytes,
        compaction_threads,
        ..
    } = *work.options;
    let (table_bytes, parts) = match plan.action {
        Action::Erase => (u64::MAX, vec![Part::default()]),
        _ => (
            table_bytes,
            parts::parts_of(&inputs, compaction_threads, table_bytes)?,
        ),
    };
    if parts.len() > 1 {
        rare!(CompactionInParts);
    }
    let sources = sources(&inputs);
    let do_part: parts::DoPart<'_> = &|work, part| {
        let mut outputs = Outputs::new(work, table_bytes);
        let mut job = Job {
            work,
            version,
            plan,
            until_look: 0,
        };
        for_each_tenant(&inputs, |tenant, bytes| {
            let Some(range) = part.of(tenant) else {
                return Ok(());
            };
            outputs.at_tenant(bytes)?;
            job.tenant(tenant, range, &sources, &mut outputs)
        })?;
        outputs.finish()
    };
    let written = parts::carry_out(work, &parts, do_part)?.keep(work.db)?;
    edit.added = written.tables.into_iter().map(|meta| (output, meta)).collect();
    edit.values = written.values;
    Ok(edit)
}

/// The plan's tables, in the plan's order.
fn inputs(version: &Version, plan: &Plan) -> Result<Vec<(usize, Arc<Table>)>> {
    let mut all: HashMap<(usize, u64), &Arc<Table>> = version
        .tables()
        .map(|(level, table)| ((level, table.meta().number), table))
        .collect();
    let find = |input: &(usize, u64)| match all.remove(input) {
        Some(table) => Ok((input.0, Arc::clone(table))),
        None => Err(Error::new(ErrorKind::Invalid, "the plan is not for this version")),
    };
    plan.inputs.iter().map(find).collect()
}

/// The inputs as they are merged, newest first: every table of level 0 by itself, and each other level
/// as one ordered run.
fn sources(inputs: &[(usize, Arc<Table>)]) -> Vec<Vec<Arc<Table>>> {
    let mut level0: Vec<_> = inputs
        .iter()
        .filter(|(level, _)| *level == 0)
        .map(|(_, t)| t)
        .collect();
    level0.sort_by_key(|table| Reverse(table.meta().number));
    let mut sources: Vec<Vec<Arc<Table>>> = level0.into_iter().map(|t| vec![Arc::clone(t)]).collect();
    for level in 1..crate::version::LEVELS {
        let run: Vec<_> = inputs
            .iter()
            .filter(|(l, _)| *l == level)
            .map(|(_, table)| Arc::clone(table))
            .collect();
        if !run.is_empty() {
            sources.push(run);
        }
    }
    sources
}

/// Calls `visit` with each tenant of the inputs and the bytes it has in them, ascending.
fn for_each_tenant(
    inputs: &[(usize, Arc<Table>)],
    mut visit: impl FnMut(TenantId, u64) -> Result<()>,
) -> Result<()> {
    let mut directories: Vec<_> = inputs.iter().map(|(_, table)| table.tenants()).collect();
    let mut heads = BinaryHeap::new();
    for (at, directory) in directories.iter_mut().enumerate() {
        heads.extend(directory.next().map(|run| Reverse((run.tenant, run.bytes, at))));
    }
    while let Some(Reverse((tenant, mut bytes, at))) = heads.pop() {
        let mut advance = vec![at];
        while let Some(Reverse((_, more, at))) = heads.peek().filter(|head| head.0.0 == tenant).copied() {
            heads.pop();
            bytes = bytes.saturating_add(more);
            advance.push(at);
        }
        visit(tenant, bytes)?;
        for at in advance {
            let next = directories.get_mut(at).and_then(Iterator::next);
            heads.extend(next.map(|run| Reverse((run.tenant, run.bytes, at))));
        }
    }
    Ok(())
}

struct Job<'a> {
    work: &'a Work<'a>,
    version: &'a Version,
    plan: &'a Plan,
    /// Bytes until the next look.
    until_look: usize,
}

impl Job<'_> {
    fn tenant(
        &mut self,
        tenant: TenantId,
        range: KeyRange<'_>,
        sources: &[Vec<Arc<Table>>],
        outputs: &mut Outputs<'_>,
    ) -> Result<()> {
        if !range.lower.is_empty() || range.upper.is_some() {
            rare!(PartCutInsideTenant);
        }
        // What everybody sees deleted is not even read.
        let oldest = self.work.snapshots.first().copied().unwrap_or(SeqNo::MAX);
        let mut cursors: Vec<Box<dyn Cursor>> = Vec::new();
        let (mut covers, mut deletes) = (Vec::new(), Vec::new());
        for run in sources {
            let own = Cover::of_tables(run, tenant).map(Arc::new);
            let source: Box<dyn Cursor> = match tables_of(run, tenant) {
                [table] if table.contains(tenant) => Box::new(table.sweep(tenant)?),
                [] | [_] => continue,
                several => Box::new(LevelCursor::sweep(several, tenant)),
            };
            cursors.push(Uncovered::over(source, own.clone(), &covers, oldest));
            covers.extend(own);
            for table in tables_of(run, tenant) {
                deletes.extend(table.range_deletes(tenant)?);
            }
        }
        let mut cursor: Box<dyn Cursor> = match cursors.len() {
            0 => return Ok(()),
            1 => match cursors.pop() {
                Some(only) => only,
                None => return Ok(()),
            },
            _ => Box::new(MergeCursor::new(cursors)),
        };
        let mut below = Below::new(self.version, self.plan.output, tenant);
        let deletes = Fragments::merged(deletes.iter().map(Arc::as_ref));
        let needed = |fragment: &Fragment| below.may_hold_any(&fragment.start, &fragment.end);
        let mut deletes = RangeDeletes::new(self.work, tenant, &deletes, range, needed)?;
        if self.plan.action == Action::Erase && !deletes.is_empty() {
            return Err(live_data());
        }
        let mut retention = Retention::new(self.work.snapshots);
        let mut key = Vec::new();
        let mut terms: Option<Terms> = None;
        match range.lower {
            [] => cursor.seek_first()?,
            lower => {
                cursor.seek(lower, SeqNo::MAX)?;
                if planted!(PartSkipsFirstKey) {
                    cursor.next_key()?;
                }
            }
        }
        while let Some(entry) = cursor.entry() {
            if range.ends_at_or_before(entry.key) {
                break;
            }
            self.look(entry.key.len() + entry.value.len() + ENTRY_BYTES)?;
            if key != entry.key {
                retention.next_key();
                if !outputs.at_key(tenant, entry.key, &mut deletes)? {
                    return Ok(());
                }
                terms = self.work.terms(tenant, entry.key, terms)?;
                key.clear();
                key.extend_from_slice(entry.key);
            }
            if deletes.hide(entry, &retention) {
                cursor.next()?;
                continue;
            }
            let drop = terms.as_ref().and_then(|terms| terms.dropped);
            let ends = Terms::ends(terms.as_ref(), entry);
            let gone = expiry::is_gone(entry.kind, ends, self.work.now);
            let keep = match retention.judge(entry.seqno, gone, drop) {
                Verdict::Keep => true,
                Verdict::Drop => false,
                Verdict::KeepUnlessBottom => {
                    let dropped = planted!(CompactionDropsDeletes)
                        || (planted!(ExpiredDroppedAlone) && entry.kind == EntryKind::Expiring);
                    let kept = !dropped && below.may_hold(entry.key)?;
                    if kept {
                        rare!(DeleteKept);
                    } else {
                        rare!(DeleteDropped);
                    }
                    kept
                }
            };
            if keep {
                if self.plan.action == Action::Erase {
                    return Err(live_data());
                }
                let (entry, ends) = if gone {
                    (entry.as_delete(), None)
                } else {
                    (entry, ends)
                };
                let settled = settles(entry, &retention, &deletes, &mut below);
                if !self.put_down(tenant, entry, (ends, settled), terms.as_ref(), outputs)? {
                    return Ok(());
                }
            }
            cursor.next()?;
        }
        outputs.end_tenant(tenant, &mut deletes)
    }

    /// Adds an entry to the outputs, its value where it belongs; `settled`: without its version, where the value stands
    /// beside it. False if the tenant's key was destroyed meanwhile.
    fn put_down(
        &mut self,
        tenant: TenantId,
        entry: EntryRef<'_>,
        (ends, settled): (Option<u64>, bool),
        terms: Option<&Terms>,
        outputs: &mut Outputs<'_>,
    ) -> Result<bool> {
        let separation = Terms::separation(terms, self.work.options);
        let emptied = |file: u64| self.plan.emptied.binary_search(&file).is_ok();
        let moved = match apart::place(entry, separation, emptied) {
            Place::Stay => return outputs.add(tenant, versioned(entry, settled), ends),
            Place::Apart => return outputs.add_apart(tenant, entry, entry.value),
            Place::Move(_) => true,
            Place::Inside(_) => false,
        };
        let (file, reference) = self.version.find_value(entry.value)?;
        self.look(reference.bytes as usize)?;
        let owner = Owner {
            tenant,
            key: entry.key,
            seqno: entry.seqno,
        };
        let Some(value) = file.read(owner, &reference)? else {
            return Ok(false);
        };
        if moved {
            rare!(ValueMoved);
            return outputs.add_apart(tenant, entry, &value);
        }
        rare!(ValueTakenBack);
        let entry = EntryRef {
            kind: EntryKind::Put,
            value: &value,
            ..entry
        };
        outputs.add(tenant, versioned(entry, settled), ends)
    }

    fn look(&mut self, bytes: usize) -> Result<()> {
        match self.until_look.checked_sub(bytes) {
            Some(less) => self.until_look = less,
            None => {
                self.until_look = LOOK_BYTES;
                if (self.work.cancelled)() {
                    return Err(cancelled());
                }
            }
        }
        Ok(())
    }
}

/// Whether nothing will ever tell the version of an entry that stays from any version before it: every reader sees it, it
/// is the oldest of its key, and no range delete stays that is over it, which may be older. Never so of the catalog,
/// whose versions mean something.
fn settles(
    entry: EntryRef<'_>,
    retention: &Retention<'_>,
    deletes: &RangeDeletes,
    below: &mut Below<'_>,
) -> bool {
    let catalog = keyspace_of(entry.key).is_none_or(|keyspace| keyspace == KeyspaceId::CATALOG);
    if catalog && !planted!(ZeroedCatalog) {
        return false;
    }
    if !retention.is_seen_by_all(entry.seqno) && !planted!(ZeroedUnderASnapshot) {
        return false;
    }
    if !below.is_free_of(entry.key) && !planted!(ZeroedOverOlder) {
        return false;
    }
    match deletes.oldest_that_stays_over(entry.key) {
        Some(oldest) if oldest <= entry.seqno => {
            rare!(SeqNoKeptForRangeDelete);
            planted!(ZeroedUnderARangeDelete)
        }
        // It hides the entry from whoever sees it, whatever the entry's version is; yet there is no need to.
        Some(_) => false,
        None => true,
    }
}

/// An entry as it is written: if it is settled, with the version before all. Not a delete, which is on its way out; nor
/// one whose value stands apart, sealed for its version.
fn versioned(entry: EntryRef<'_>, settled: bool) -> EntryRef<'_> {
    let zeroed = match entry.kind {
        EntryKind::Put | EntryKind::Expiring | EntryKind::Dated => settled,
        EntryKind::Separated => settled && planted!(ZeroedApart),
        EntryKind::Delete => false,
    };
    if !zeroed {
        return entry;
    }
    rare!(SeqNoZeroed);
    EntryRef {
        seqno: SeqNo::ZERO,
        ..entry
    }
}

fn live_data() -> Error {
    Error::new(ErrorKind::Invalid, "a table to erase has live data")
}
