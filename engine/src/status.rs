//! What an operator sees: plain data, no names, no keys, no values.

use crate::types::{Epoch, Lsn, Position, SeqNo, TenantId};

/// What the engine may do with its directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Orders writes.
    Primary,
    /// Follows: takes WAL bytes by `standby_append` only; reads allowed.
    Standby,
}

/// A moment's view for operators.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Database identity: changes at restore.
    pub database_id: [u8; 16],
    /// Primary or standby.
    pub role: Role,
    /// Epoch being written (primary) or last received (standby).
    pub epoch: Epoch,
    /// Highest epoch durably recorded here.
    pub highest_epoch: Epoch,
    /// Set when a newer primary is known: this node acknowledges nothing.
    pub fenced_by: Option<Epoch>,
    /// Restored and not yet accepted: refuses writes.
    pub awaiting_acceptance: bool,
    /// End of the WAL as written.
    pub written: Lsn,
    /// End of the WAL on stable storage here.
    pub durable: Lsn,
    /// Applied to the memtable (standby); equals written on a primary.
    pub applied: Lsn,
    /// Highest position a standby confirmed durable in this epoch.
    pub replicated: Lsn,
    /// Newest visible version.
    pub visible: SeqNo,
    /// Keystore version.
    pub keystore_version: u64,
    /// Live tenants.
    pub tenants: u64,
    /// Why the engine no longer writes, if so.
    pub read_only: Option<String>,
    /// Oldest WAL position still kept.
    pub wal_start: Lsn,
    /// Bytes in tables, and in the value files beside them.
    pub table_bytes: u64,
    /// Tables in each level.
    pub tables_per_level: Vec<u64>,
    /// Earliest moment at which a value in tables expires, or has expired, in ms since 1970, up to a second late; as
    /// background work last saw it. When it is longer ago than [`Options::expiry_grace`](crate::Options::expiry_grace),
    /// background work is behind.
    pub first_expiry_ms: Option<u64>,
    /// Bytes in memtables.
    pub memtable_bytes: u64,
    /// Bytes of plaintext blocks, indexes, filters and separated values in the cache.
    pub cache_bytes: u64,
}

/// What recovery did at open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Records replayed from the WAL.
    pub records: u64,
    /// Bytes of torn tail cut.
    pub cut_bytes: u64,
    /// Whether the last close was clean.
    pub clean: bool,
}

/// A tenant, listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantInfo {
    /// Id.
    pub id: TenantId,
    /// Name.
    pub name: String,
}

/// Outcome of `checkpoint`.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Consistent at this position.
    pub position: Position,
    /// Files in it.
    pub files: u64,
    /// Their bytes, linked or copied.
    pub bytes: u64,
}
