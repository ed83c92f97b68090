//! Looks at a version the way the picker wants to see it.
//!
//! How much of a table belongs to destroyed tenants is read from its clear directory, once per table
//! and destruction, not at every pick. Whether it holds entries of a dropped keyspace is asked of the
//! table itself, which reads one block.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::range_delete::Fragment;
use crate::read::cursor::Cursor;
use crate::seal::FileKeys;
use crate::settings::Known;
use crate::table::{Table, ValueFile};
use crate::types::{KeyspaceId, SeqNo, TenantId};
use crate::version::Version;

use super::picker::{Edges, Shape, TableShape, ValueShape};

/// A keyspace that was dropped and may still have entries in tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DroppedKeyspace {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its id, never used again.
    pub keyspace: KeyspaceId,
    /// The version of the drop.
    pub at: SeqNo,
}

/// Remembers what directories say, from one pick to the next.
#[derive(Default)]
pub(crate) struct Survey {
    /// Destructions counted when `facts` was gathered, and the newest setting known then.
    as_of: (u64, SeqNo),
    facts: HashMap<u64, Facts>,
    values: HashMap<u64, ValueFacts>,
}

#[derive(Clone, Copy, Default)]
struct ValueFacts {
    bytes: u64,
    live_bytes: u64,
    expires: Option<u64>,
}

#[derive(Clone, Copy, Default)]
struct Facts {
    deletes: u64,
    range_deletes: u64,
    dead_bytes: u64,
    all_dead: bool,
    expires: Option<u64>,
}

impl Survey {
    /// The shape of `version`.
    ///
    /// - `destructions`: any number that changes whenever a tenant is destroyed. Every change reads all
    ///   directories again, so it should not change at other times.
    /// - `drops`: dropped keyspaces to look for. The job must be told of them too, or it leaves their
    ///   entries and the same plan is made again.
    /// - `snapshots`, `now`, `settings`: as in [`Work`](super::Work). Every change of a setting reads all directories
    ///   again, and of tables that are older than a retention one block.
    pub fn shape(
        &mut self,
        version: &Version,
        keys: &FileKeys,
        destructions: u64,
        drops: &[DroppedKeyspace],
        (snapshots, now): (&[SeqNo], u64),
        settings: Known<'_>,
    ) -> Result<Shape> {
        let as_of = (destructions, settings.newest);
        if self.as_of != as_of {
            self.as_of = as_of;
            self.facts.clear();
            self.values.clear();
        }
        let oldest_snapshot = snapshots.first().copied().unwrap_or(SeqNo::MAX);
        let mut shape = Shape {
            oldest_snapshot,
            now,
            ..Shape::default()
        };
        let mut facts = HashMap::new();
        for (tables, shapes) in version.levels.iter().zip(&mut shape.levels) {
            for table in tables {
                let number = table.meta().number;
                let known = self.facts.get(&number).copied();
                let known = known.unwrap_or_else(|| gather(table, keys, settings));
                facts.insert(number, known);
                let mut dropped = false;
                for drop in drops.iter().filter(|drop| drop.at <= oldest_snapshot) {
                    dropped = dropped || holds(table, drop)?;
                }
                shapes.push(table_shape(table, known, dropped));
            }
        }
        self.facts = facts;
        shape.values = self.values(version, keys, settings);
        Ok(shape)
    }

    fn values(&mut self, version: &Version, keys: &FileKeys, settings: Known<'_>) -> Vec<ValueShape> {
        let referred = version.referred();
        let mut all = HashMap::new();
        let mut shapes = Vec::with_capacity(version.values.len());
        for (number, file) in &version.values {
            let known = self.values.get(number).copied();
            let facts = known.unwrap_or_else(|| gather_values(file, keys, settings));
            all.insert(*number, facts);
            let needed = referred.get(number).copied().unwrap_or(0);
            shapes.push(ValueShape {
                number: *number,
                bytes: facts.bytes,
                // What tables refer to may be a destroyed tenant's.
                garbage: facts.bytes.saturating_sub(needed.min(facts.live_bytes)),
                expires: facts.expires,
            });
        }
        self.values = all;
        shapes
    }
}

fn gather(table: &Arc<Table>, keys: &FileKeys, settings: Known<'_>) -> Facts {
    let mut facts = Facts {
        all_dead: true,
        ..Facts::default()
    };
    for run in table.tenants() {
        if keys.is_live(run.tenant) {
            facts.all_dead = false;
            facts.deletes += run.deletes;
            facts.range_deletes += run.range_deletes;
            let (tenant, known) = (run.tenant, table.known());
            // What cannot be read is for the job to tell.
            let holds = |keyspace| begins(table, tenant, keyspace).map_or(true, |first| first.is_some());
            let unknown = settings.ends_first(tenant, known, holds);
            let first = facts.expires.into_iter().chain(run.expires).chain(unknown);
            facts.expires = first.min();
        } else {
            facts.dead_bytes += run.bytes;
        }
    }
    facts
}

fn gather_values(file: &ValueFile, keys: &FileKeys, settings: Known<'_>) -> ValueFacts {
    let mut facts = ValueFacts::default();
    for run in file.runs() {
        facts.bytes += run.bytes;
        if keys.is_live(run.tenant) {
            facts.live_bytes += run.bytes;
            // Whose keyspace a value is of only its key tells.
            let ends = settings.ends_first(run.tenant, file.known(), |_| true);
            facts.expires = facts.expires.into_iter().chain(ends).min();
        }
    }
    facts
}

fn table_shape(table: &Table, facts: Facts, dropped: bool) -> TableShape {
    let meta = table.meta();
    TableShape {
        number: meta.number,
        bytes: meta.bytes,
        tenant_min: meta.tenant_min,
        tenant_max: meta.tenant_max,
        entries: meta.entries,
        deletes: facts.deletes,
        range_deletes: facts.range_deletes,
        seqno_max: meta.seqno_max,
        dead_bytes: facts.dead_bytes,
        all_dead: facts.all_dead,
        dropped,
        expires: facts.expires,
        values: meta.values.iter().map(|(file, _)| *file).collect(),
    }
}

/// Whether `table` has entries or range deletes of the dropped keyspace.
pub(crate) fn holds(table: &Arc<Table>, drop: &DroppedKeyspace) -> Result<bool> {
    if table.run(drop.tenant).is_none_or(|run| run.seqno_min > drop.at) {
        return Ok(false);
    }
    let prefix = drop.keyspace.0.to_be_bytes();
    let of_it = |fragment: &Fragment| {
        let oldest = fragment.seqnos.last();
        fragment.start.starts_with(&prefix) && oldest.is_some_and(|oldest| *oldest <= drop.at)
    };
    let deletes = table.range_deletes(drop.tenant)?;
    let first = begins(table, drop.tenant, drop.keyspace)?;
    Ok(first.is_some_and(|first| first <= drop.at) || deletes.is_some_and(|all| all.iter().any(of_it)))
}

/// The version of a keyspace's first entry in `table`, if it has one there.
fn begins(table: &Arc<Table>, tenant: TenantId, keyspace: KeyspaceId) -> Result<Option<SeqNo>> {
    let prefix = keyspace.0.to_be_bytes();
    let mut cursor = table.cursor(tenant)?;
    cursor.seek(&prefix, SeqNo::MAX)?;
    let first = cursor.entry().filter(|entry| entry.key.starts_with(&prefix));
    Ok(first.map(|entry| entry.seqno))
}

/// Where the tables of a version begin and end.
pub(crate) struct VersionEdges(HashMap<u64, Arc<Table>>);

impl VersionEdges {
    /// Of the tables of `version`.
    pub fn new(version: &Version) -> VersionEdges {
        VersionEdges(
            version
                .tables()
                .map(|(_, table)| (table.meta().number, Arc::clone(table)))
                .collect(),
        )
    }
}

impl Edges for VersionEdges {
    fn first(&self, number: u64) -> Result<Option<Bytes>> {
        let Some(table) = self.0.get(&number) else {
            return Ok(None);
        };
        Ok(table.span(table.meta().tenant_min)?.map(|(first, _)| first))
    }

    fn end(&self, number: u64) -> Result<Option<Bytes>> {
        let Some(table) = self.0.get(&number) else {
            return Ok(None);
        };
        Ok(table.span(table.meta().tenant_max)?.map(|(_, end)| end))
    }
}
