//! What the picker decides from: plain data.

use bytes::Bytes;

use crate::error::Result;
use crate::options::Options;
use crate::types::{SeqNo, TenantId};
use crate::version::LEVELS;

/// The options that matter here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    /// Tables in level 0 that start a compaction.
    pub level0_tables: usize,
    /// Target size of level 1.
    pub level1_bytes: u64,
    /// Target size of a table.
    pub table_bytes: u64,
    /// How long values that expired may wait, in milliseconds.
    pub expiry_grace: u64,
}

impl From<&Options> for Limits {
    fn from(options: &Options) -> Limits {
        Limits {
            level0_tables: options.level0_tables,
            level1_bytes: options.level1_bytes,
            table_bytes: options.table_bytes,
            expiry_grace: options.expiry_grace.as_millis().try_into().unwrap_or(u64::MAX),
        }
    }
}

/// A table as the picker sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct TableShape {
    /// Its number.
    pub number: u64,
    /// Its length.
    pub bytes: u64,
    /// Smallest tenant inside.
    pub tenant_min: TenantId,
    /// Largest tenant inside.
    pub tenant_max: TenantId,
    /// Entries.
    pub entries: u64,
    /// Deletes among them, of living tenants.
    pub deletes: u64,
    /// Range deletes beside them, of living tenants.
    pub range_deletes: u64,
    /// Newest version inside.
    pub seqno_max: SeqNo,
    /// Bytes of destroyed tenants.
    pub dead_bytes: u64,
    /// All its tenants are destroyed.
    pub all_dead: bool,
    /// It has entries of a dropped keyspace that no snapshot sees.
    pub dropped: bool,
    /// Earliest moment at which one of its values ends: up to a second after it, and before it where a retention was
    /// changed since the table was written.
    pub expires: Option<u64>,
    /// Value files that it refers to.
    pub values: Vec<u64>,
}

/// A value file as the picker sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ValueShape {
    /// Its number.
    pub number: u64,
    /// Sealed bytes of values in it.
    pub bytes: u64,
    /// Those of them that no table needs, or a destroyed tenant's.
    pub garbage: u64,
    /// When the first of what it has, from before a retention that came later, can be past that.
    pub expires: Option<u64>,
}

/// A version as the picker sees it. Levels are ordered as in the version.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Shape {
    /// The tables.
    pub levels: [Vec<TableShape>; LEVELS],
    /// The value files, by number.
    pub values: Vec<ValueShape>,
    /// Versions at or below it are seen by all snapshots.
    pub oldest_snapshot: SeqNo,
    /// Milliseconds since 1970.
    pub now: u64,
    /// What ranges paid for level 0 and memtables, in bytes of a compaction's input.
    pub ranges_paid: u64,
}

/// Tells where tables begin and end. None: the tenant's key is destroyed.
pub(crate) trait Edges {
    /// First tree key of the table's first tenant.
    fn first(&self, number: u64) -> Result<Option<Bytes>>;
    /// Where the table's last tenant ends: no tree key of it is this one or a larger one.
    fn end(&self, number: u64) -> Result<Option<Bytes>>;
}
