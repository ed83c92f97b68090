//! Skeleton of the public API. Bodies come with the engine.
#![allow(clippy::todo, unused_variables)]
use crate::error::Result;
use crate::io::Io;
use crate::keys::*;
use crate::options::Options;
use crate::types::*;
use bytes::Bytes;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the engine may do with its directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Orders writes.
    Primary,
    /// Follows: accepts WAL bytes through `standby_append` only; reads allowed.
    Standby,
}

/// Opens an engine.
pub struct Builder;
impl Builder {
    /// Key provider (required).
    pub fn keys(self, provider: impl KeyProvider + 'static) -> Builder { todo!() }
    /// Same, shared.
    pub fn shared_keys(self, provider: std::sync::Arc<dyn KeyProvider>) -> Builder { todo!() }
    /// Options.
    pub fn options(self, options: Options) -> Builder { todo!() }
    /// Role to open in; default Primary. Opening as Primary takes a new epoch.
    pub fn role(self, role: Role) -> Builder { todo!() }
    /// Machine seam; default the real one.
    pub fn io(self, io: Io) -> Builder { todo!() }
    /// Whether to create the database if the directory is empty or missing (default true).
    pub fn create_if_missing(self, yes: bool) -> Builder { todo!() }
    /// Opens: lock, keystore, manifest, WAL recovery.
    pub fn open(self) -> Result<Engine> { todo!() }
}

/// Per-tenant options (none yet).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TenantOptions {}

/// The database. Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine;

/// A tenant, listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantInfo {
    /// Id.
    pub id: TenantId,
    /// Name.
    pub name: String,
}

/// Outcome of `delete_tenant`.
#[derive(Clone, Debug)]
pub struct Deletion {
    /// Which tenant.
    pub tenant: TenantId,
    /// Keystore version that no longer has its keys: a standby that confirmed this version has shredded too.
    pub keystore_version: u64,
    /// What the provider said about the old root.
    pub root: Destruction,
}

/// Outcome of `checkpoint`.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Consistent at this position.
    pub position: Position,
    /// Files in it.
    pub files: u64,
    /// Their bytes (linked or copied).
    pub bytes: u64,
}

/// Outcome of `promote`.
#[derive(Clone, Debug)]
pub struct Promotion {
    /// The new reign.
    pub epoch: Epoch,
    /// Where it begins.
    pub start: Lsn,
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
    /// Applied to the memtable (standby), equals written on a primary.
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
    /// Bytes in tables, tables per level.
    pub table_bytes: u64,
    /// Tables per level.
    pub tables_per_level: Vec<u64>,
}

/// What recovery did at open.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Records replayed.
    pub records: u64,
    /// Bytes of torn tail cut.
    pub cut_bytes: u64,
    /// Whether the last close was clean.
    pub clean: bool,
}

impl Engine {
    /// Starts opening the database in `path`.
    pub fn builder(path: impl AsRef<Path>) -> Builder { todo!() }
    /// Creates a tenant; durable when it returns. `AlreadyExists`, `Invalid` name.
    pub fn create_tenant(&self, name: &str, options: TenantOptions) -> Result<Tenant> { todo!() }
    /// Creates many with one sync.
    pub fn create_tenants(&self, names: &[&str]) -> Result<Vec<Tenant>> { todo!() }
    /// Opens a tenant by name. `NotFound`.
    pub fn tenant(&self, name: &str) -> Result<Tenant> { todo!() }
    /// Opens a tenant by id. `NotFound`.
    pub fn tenant_by_id(&self, id: TenantId) -> Result<Tenant> { todo!() }
    /// The engine's own tenant (id 0): replicated, sealed, for the server's credentials.
    pub fn system(&self) -> Tenant { todo!() }
    /// Users' tenants in order of id.
    pub fn tenants(&self) -> Vec<TenantInfo> { todo!() }
    /// Destroys a tenant's keys and data. `NotFound`.
    pub fn delete_tenant(&self, name: &str) -> Result<Deletion> { todo!() }
    /// Consistent copy into the new directory `path` without stopping writes.
    pub fn checkpoint(&self, path: impl AsRef<Path>) -> Result<Checkpoint> { todo!() }
    /// All keys sealed to `recipient`: write it anywhere but beside the checkpoint.
    pub fn escrow(&self, recipient: &EscrowRecipient) -> Result<Vec<u8>> { todo!() }
    /// Status.
    pub fn status(&self) -> Status { todo!() }
    /// What recovery did.
    pub fn recovery(&self) -> Recovery { todo!() }
    /// Flushes memtables to tables.
    pub fn flush(&self) -> Result<()> { todo!() }
    /// Compacts until nothing is left to do; drops deleted data.
    pub fn compact(&self) -> Result<()> { todo!() }
    /// One background job (Background::Manual); false when idle.
    pub fn step(&self) -> Result<bool> { todo!() }
    /// Accepts a restored database: allows writes.
    pub fn accept_restored(&self) -> Result<()> { todo!() }
    /// Flushes, writes the clean-close marker, releases the lock. Other clones get `Closed`.
    pub fn close(&self) -> Result<()> { todo!() }

    // ---- replication, primary side ----
    /// Epochs this node's WAL went through, oldest first, at least those covering the retained WAL.
    pub fn epoch_history(&self) -> Vec<EpochStart> { todo!() }
    /// End of durable WAL with its chain: (epoch, lsn, chain).
    pub fn wal_end(&self) -> EpochStart { todo!() }
    /// Chain up to `lsn`, which must be a record boundary in the retained WAL. `Gone` if older, `Diverged` if no boundary or beyond the durable end.
    pub fn chain_at(&self, lsn: Lsn) -> Result<Chain> { todo!() }
    /// Tails durable WAL bytes from `from`. `Gone` if no longer kept.
    pub fn wal_cursor(&self, from: Lsn) -> Result<WalCursor> { todo!() }
    /// Keeps WAL from `from` on while the pin lives and moves; subject to `Options::wal_keep_bytes`.
    pub fn pin_wal(&self, from: Lsn) -> WalPin { todo!() }
    /// A standby has `lsn` durable in `epoch`: wakes `Replicated` commits. Ignored for other epochs.
    pub fn confirm_replicated(&self, epoch: Epoch, lsn: Lsn) { todo!() }
    /// A higher epoch exists: durably stop acknowledging. Err(Invalid) if `epoch` is not higher.
    pub fn fence(&self, epoch: Epoch) -> Result<()> { todo!() }
    /// Keystore version now (changes with every create/delete).
    pub fn keystore_version(&self) -> u64 { todo!() }
    /// Waits until the keystore version differs from `seen` or the timeout passes; returns it.
    pub fn wait_keystore(&self, seen: u64, timeout: Duration) -> u64 { todo!() }
    /// Changes after `since`; full if the engine no longer has the steps (or since == 0).
    pub fn key_changes(&self, since: u64) -> KeyChanges { todo!() }

    // ---- replication, standby side (Role::Standby) ----
    /// Takes over keystore changes; durable when it returns.
    pub fn apply_key_changes(&self, changes: &KeyChanges) -> Result<()> { todo!() }
    /// Appends WAL bytes that begin at `first`, which must equal the received end. Any cut is fine. Checks frames, positions, epoch, chain: `Diverged`, `Corruption`, `Fenced` (epoch below the highest recorded).
    pub fn standby_append(&self, first: Lsn, bytes: &[u8]) -> Result<Lsn> { todo!() }
    /// Syncs what was appended and applies it to the memtable; returns the durable record boundary. The `Ack`.
    pub fn standby_sync(&self) -> Result<StandbyProgress> { todo!() }
    /// Makes a never-used epoch durable, applies all durable WAL, becomes primary.
    pub fn promote(&self) -> Result<Promotion> { todo!() }
}

/// Where a standby stands; `applied <= durable <= received`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StandbyProgress {
    /// Epoch of the last record.
    pub epoch: Epoch,
    /// Bytes received.
    pub received: Lsn,
    /// Last record boundary on stable storage.
    pub durable: Lsn,
    /// Last record applied.
    pub applied: Lsn,
    /// Chain at `durable`.
    pub chain: Chain,
}

/// Tails the WAL: bytes exactly as they are on the primary's disk.
pub struct WalCursor;
impl WalCursor {
    /// Up to `bytes_max` (cut anywhere) durable stream bytes at the cursor, waiting up to `timeout` for some; empty on timeout. `Gone` if retention overtook it.
    pub fn read(&mut self, bytes_max: usize, timeout: Duration) -> Result<Bytes> { todo!() }
    /// Position of the next byte.
    pub fn position(&self) -> Lsn { todo!() }
}

/// Keeps WAL while it lives.
pub struct WalPin;
impl WalPin {
    /// Releases WAL before `lsn`.
    pub fn advance(&self, lsn: Lsn) { todo!() }
}

/// A standby's directory being filled from a base copy. Not openable before `finish`.
pub struct BaseCopyReceiver;
impl BaseCopyReceiver {
    /// Starts in `path`: missing, empty or an unfinished base copy (which is wiped).
    pub fn start(path: impl AsRef<Path>, io: Io, provider: std::sync::Arc<dyn KeyProvider>) -> Result<BaseCopyReceiver> { todo!() }
    /// The full key set: creates this node's keystore. Once, before `finish`.
    pub fn keys(&mut self, changes: &KeyChanges) -> Result<()> { todo!() }
    /// Bytes of a file of the checkpoint, in order. `name` relative, as `checkpoint_files` gave it; refused if it leaves the directory.
    pub fn chunk(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<()> { todo!() }
    /// Syncs everything and makes the directory openable.
    pub fn finish(self) -> Result<()> { todo!() }
}

/// Files of a checkpoint directory, relative names with '/', the one that makes it openable last.
pub fn checkpoint_files(path: impl AsRef<Path>, io: &Io) -> Result<Vec<(String, u64)>> { todo!() }

/// Restores a checkpoint with its escrow into a new directory: new identity, new epoch, fenced until `accept_restored`.
pub fn restore(from: impl AsRef<Path>, escrow: &[u8], secret: &EscrowSecret, to: impl AsRef<Path>, provider: std::sync::Arc<dyn KeyProvider>, io: &Io) -> Result<Restored> { todo!() }

/// Outcome of `restore`.
#[derive(Clone, Debug)]
pub struct Restored {
    /// New identity.
    pub database_id: [u8; 16],
    /// Files copied.
    pub files: u64,
    /// Bytes copied.
    pub bytes: u64,
}

/// A tenant. Cheap to clone.
#[derive(Clone)]
pub struct Tenant;
impl Tenant {
    /// Id.
    pub fn id(&self) -> TenantId { todo!() }
    /// Name.
    pub fn name(&self) -> String { todo!() }
    /// Opens a keyspace, creating it if missing (on a primary).
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> { todo!() }
    /// Opens a keyspace; `NotFound`.
    pub fn open_keyspace(&self, name: &str) -> Result<Keyspace> { todo!() }
    /// Names, in order.
    pub fn keyspaces(&self) -> Result<Vec<String>> { todo!() }
    /// Deletes a keyspace and its data.
    pub fn delete_keyspace(&self, name: &str) -> Result<()> { todo!() }
    /// Starts an atomic batch.
    pub fn batch(&self) -> Batch { todo!() }
    /// A repeatable view.
    pub fn snapshot(&self) -> Snapshot { todo!() }
}

/// A keyspace. Cheap to clone, Send + Sync.
#[derive(Clone)]
pub struct Keyspace;
impl Keyspace {
    /// Stores a value; as durable as the engine's default when it returns.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Position> { todo!() }
    /// Removes a key.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<Position> { todo!() }
    /// Newest visible value.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> { todo!() }
    /// Entries in key order; double-ended.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Range { todo!() }
    /// Entries whose key starts with `prefix`.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Range { todo!() }
    /// Everything.
    pub fn iter(&self) -> Range { todo!() }
    /// Name.
    pub fn name(&self) -> &str { todo!() }
}

/// Iterates entries, both ways.
pub struct Range;
impl Iterator for Range {
    type Item = Result<(Bytes, Bytes)>;
    fn next(&mut self) -> Option<Self::Item> { todo!() }
}
impl DoubleEndedIterator for Range {
    fn next_back(&mut self) -> Option<Self::Item> { todo!() }
}

/// An atomic batch over keyspaces of one tenant.
pub struct Batch;
impl Batch {
    /// Adds a put.
    #[must_use]
    pub fn put(self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Batch { todo!() }
    /// Adds a delete.
    #[must_use]
    pub fn delete(self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Batch { todo!() }
    /// Overrides the durability.
    #[must_use]
    pub fn durability(self, durability: Durability) -> Batch { todo!() }
    /// Commits. First rule broken by an added operation is reported here.
    pub fn commit(self) -> Result<Position> { todo!() }
}

/// A repeatable view of a tenant.
#[derive(Clone)]
pub struct Snapshot;
impl Snapshot {
    /// The version it reads at.
    pub fn seqno(&self) -> SeqNo { todo!() }
    /// Value at the snapshot.
    pub fn get(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> { todo!() }
    /// Range at the snapshot.
    pub fn range<K: AsRef<[u8]>>(&self, keyspace: &Keyspace, range: impl RangeBounds<K>) -> Range { todo!() }
}
#[allow(dead_code)]
fn _unused(_: PathBuf) {}
