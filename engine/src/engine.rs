//! The engine handle: what applications, replication and the server call. Thin; the work is in modules.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::checkpoint;
use crate::commit::closed;
use crate::error::{Error, ErrorKind, Result};
use crate::expiry::NEVER;
use crate::follower::{Promotion, StandbyProgress};
use crate::hooks::planted;
use crate::inner::{Inner, Mode};
use crate::keys::{Destruction, EscrowRecipient, KeyChanges, seal_escrow};
use crate::online::OnlineOption;
use crate::open::Builder;
use crate::options::Options;
use crate::pins::WalPin;
use crate::stats::Stats;
use crate::status::{Checkpoint, Recovery, Role, Status, TenantInfo};
use crate::tenant::Tenant;
use crate::types::{Chain, Epoch, EpochStart, Lsn, TenantId};
use crate::verify::Verified;
use crate::version::{Edit, NodeState};
use crate::wal::cursor::WalCursor;

/// Per-tenant options: none yet; regions come here.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TenantOptions {}

/// Outcome of [`Engine::delete_tenant`].
#[derive(Clone, Debug)]
pub struct Deletion {
    /// Which tenant.
    pub tenant: TenantId,
    /// First keystore version without its keys: a standby that confirmed it has destroyed them too.
    pub keystore_version: u64,
    /// What the key provider said about the old root.
    pub root: Destruction,
}

/// A database. Cheap to clone; all clones, tenants, keyspaces and ranges are one engine.
///
/// Dropping the last of them releases the directory without a clean close: nothing acknowledged is
/// lost, the next open replays the log. [`Engine::close`] reports errors and makes that open fast.
#[derive(Clone)]
pub struct Engine {
    owner: Arc<Owner>,
}

/// Ends background work and releases the lock when the last handle goes.
struct Owner {
    inner: Arc<Inner>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.inner.commit.lock().mode = Mode::Closed;
        self.inner.release();
    }
}

impl Inner {
    fn release(&self) {
        self.wal.mark_closed();
        self.gate.close();
        self.stop_background();
        self.lock.lock().take();
    }
}

impl Engine {
    pub(crate) fn new(inner: Arc<Inner>) -> Engine {
        Engine {
            owner: Arc::new(Owner { inner }),
        }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.owner.inner
    }

    pub(crate) fn same(&self, other: &Engine) -> bool {
        Arc::ptr_eq(&self.owner, &other.owner)
    }

    /// Starts opening the database in `path`.
    ///
    /// ```no_run
    /// use strongroom::{Engine, keys::KeyFile};
    /// let engine = Engine::builder("./data").keys(KeyFile::open("strongroom.key")?).open()?;
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path.as_ref())
    }

    // ---- tenants ----

    /// Creates a tenant with keys of its own; durable when it returns.
    ///
    /// - `name`: 1 to 255 bytes. Errors: `Invalid`, `AlreadyExists`, and those of a write.
    pub fn create_tenant(&self, name: &str, _options: TenantOptions) -> Result<Tenant> {
        let mut tenants = self.create_tenants(&[name])?;
        tenants
            .pop()
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "no tenant was created"))
    }

    /// Creates many tenants with one sync: all or none. Errors as for [`Engine::create_tenant`].
    pub fn create_tenants(&self, names: &[&str]) -> Result<Vec<Tenant>> {
        for name in names {
            crate::catalog::check_name(name)?;
        }
        // Under the commit lock: a fence that comes now waits, and no write is ordered before its keys.
        let inner = self.inner();
        let mut commit = inner.commit.lock();
        commit.check_writable()?;
        let ids = inner.keystore.create_tenants(names)?;
        let newest = ids.last().filter(|_| !planted!(TenantNotNoted));
        let noted = newest.map(|id| inner.note_tenant(&mut commit, *id));
        drop(commit);
        if let Some(Ok(_)) = noted {
            // Not published: with it would be what stands before it in the log and may wait for a standby. It shows
            // nothing, and the next commit that is published passes it.
            inner.wal.left_unsynced();
        }
        Ok(ids
            .into_iter()
            .map(|id| Tenant {
                engine: self.clone(),
                id,
            })
            .collect())
    }

    /// Opens a tenant by name. `NotFound`.
    pub fn tenant(&self, name: &str) -> Result<Tenant> {
        match self.inner().keystore.id(name) {
            Some(id) => Ok(Tenant {
                engine: self.clone(),
                id,
            }),
            None => Err(Error::new(ErrorKind::NotFound, "there is no tenant of that name")),
        }
    }

    /// Opens a tenant by id. `NotFound`.
    pub fn tenant_by_id(&self, id: TenantId) -> Result<Tenant> {
        self.inner().check_tenant(id)?;
        Ok(Tenant {
            engine: self.clone(),
            id,
        })
    }

    /// The engine's own tenant: replicated and sealed like any other, for the server's credentials.
    pub fn system(&self) -> Tenant {
        Tenant {
            engine: self.clone(),
            id: TenantId::SYSTEM,
        }
    }

    /// Users' tenants in order of id.
    pub fn tenants(&self) -> Vec<TenantInfo> {
        self.inner().keystore.list()
    }

    /// Destroys a tenant's keys: its data is unreadable at once, here and in every copy that needs these
    /// keys, and its space is reclaimed in the background.
    ///
    /// - Cost: rewrites the keystore under a new root (46 bytes and the name for each tenant), five syncs and what the
    ///   key provider takes (`KeyFile`: four).
    /// - Errors: `NotFound`, and those of a write. After an error the tenant may be gone or not: repeat.
    pub fn delete_tenant(&self, name: &str) -> Result<Deletion> {
        let inner = self.inner();
        let Some(tenant) = inner.keystore.id(name) else {
            return Err(Error::new(ErrorKind::NotFound, "there is no tenant of that name"));
        };
        let deleted = {
            let commit = inner.commit.lock();
            commit.check_writable()?;
            inner.keystore.delete_tenants(&[tenant])
        };
        // Also when the provider failed to destroy the old root, which is tried again: the keys are gone.
        if inner.keystore.info(tenant).is_none() {
            inner.forget(|other| other == tenant);
            inner.unset(tenant);
        }
        let (keystore_version, root) = deleted?;
        Ok(Deletion {
            tenant,
            keystore_version,
            root,
        })
    }

    // ---- copies ----

    /// Makes a consistent copy in the new directory `path` without stopping writes: tables and complete
    /// segments as hard links where the file system allows, the rest copied. It holds no keys.
    ///
    /// - Errors: `AlreadyExists` (the directory is not empty), `NoSpace`, `Io`.
    pub fn checkpoint(&self, path: impl AsRef<Path>) -> Result<Checkpoint> {
        checkpoint::checkpoint(self.inner(), path.as_ref())
    }

    /// All live keys, sealed to `recipient`: what a checkpoint needs to be readable. Keep it apart.
    pub fn escrow(&self, recipient: &EscrowRecipient) -> Result<Vec<u8>> {
        seal_escrow(&self.inner().keystore.export(), recipient, &self.inner().io)
    }

    /// Reads and checks every file of the database, past the cache and beside everything else that goes on:
    /// see [`Verified`]. Damage does not end it. On a standby, the log as far as it is applied.
    ///
    /// - Cost: every byte is read and decrypted once. Memory: a few MiB and the key bounds of a level's tables.
    /// - Keeps tables and log that would be removed meanwhile until it ends; creating and deleting tenants, and
    ///   ends of flushes, wait while the keystore and the manifest are read.
    /// - Errors: `Closed`. What cannot be read is a [`Damage`](crate::Damage).
    pub fn verify(&self) -> Result<Verified> {
        crate::verify::verify(self.inner())
    }

    // ---- life ----

    /// A moment's view for operators. Cheap.
    pub fn status(&self) -> Status {
        let inner = self.inner();
        let (mode, epoch, applied) = {
            let commit = inner.commit.lock();
            (commit.mode, commit.tail.epoch, commit.inserted_to().0)
        };
        let state = inner.versions.state();
        let version = inner.versions.current();
        let tables = || version.levels.iter().flatten();
        let mem = inner.mem.read();
        Status {
            database_id: state.database_id,
            role: if mode == Mode::Standby {
                Role::Standby
            } else {
                Role::Primary
            },
            epoch,
            highest_epoch: state.highest_epoch,
            fenced_by: state.fenced_by,
            awaiting_acceptance: state.state == NodeState::AwaitingAcceptance,
            written: inner.wal.written(),
            durable: inner.wal.durable(),
            applied,
            replicated: inner.gate.confirmed(),
            visible: inner.visible(),
            keystore_version: inner.keystore.version(),
            tenants: inner.keystore.len() as u64,
            read_only: inner.wal.failure(),
            wal_start: inner.wal.start(),
            table_bytes: tables().map(|t| t.meta().bytes).sum::<u64>()
                + version.values.values().map(|file| file.meta().bytes).sum::<u64>(),
            tables_per_level: version.levels.iter().map(|l| l.len() as u64).collect(),
            first_expiry_ms: Some(inner.tables_expire.load(Ordering::Acquire)).filter(|at| *at != NEVER),
            memtable_bytes: (mem.active.bytes()
                + mem.immutables.iter().map(|i| i.memtable.bytes()).sum::<usize>())
                as u64,
            cache_bytes: inner.cache.usage().bytes,
        }
    }

    /// Everything that tells how it is and what it does: see [`Stats`].
    ///
    /// - Cost: a look at each tenant in each table's directory, which is in memory: some 20 ns each. For every few
    ///   seconds, not for every call.
    pub fn stats(&self) -> Stats {
        crate::stats::stats(self.inner())
    }

    /// The options in force.
    pub fn options(&self) -> Options {
        Options::clone(&self.inner().online.options())
    }

    /// Changes options while the engine runs: all of `changes` (the last of those of one option), or none. Nothing
    /// remembers them: the next open goes by the options that it is given.
    ///
    /// ```no_run
    /// # use strongroom::{Engine, OnlineOption, keys::KeyFile};
    /// # let engine = Engine::builder("./data").keys(KeyFile::open("strongroom.key")?).open()?;
    /// engine.set_options(&[OnlineOption::CacheBytes(64 << 20)])?;
    /// assert_eq!(engine.options().cache_bytes, 64 << 20);
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    ///
    /// - Cost: a smaller cache lets go of what is too much before this returns; its readers wait for parts of that.
    /// - Errors: `Invalid` (a value outside its range as at opening, named; a cache where there is none), `Closed`.
    pub fn set_options(&self, changes: &[OnlineOption]) -> Result<()> {
        self.inner().set_options(changes)
    }

    /// What recovery did at open.
    pub fn recovery(&self) -> Recovery {
        self.inner().recovery.clone()
    }

    /// Empties the memtables into tables.
    pub fn flush(&self) -> Result<()> {
        self.inner().flush()
    }

    /// Flushes, and compacts until nothing is left to do: data of deleted tenants is gone after.
    pub fn compact(&self) -> Result<()> {
        self.inner().compact()
    }

    /// One background job, for [`Background::Manual`](crate::Background::Manual); false when there is none.
    pub fn step(&self) -> Result<bool> {
        self.inner().step()
    }

    /// Accepts a restored database: it takes writes from now on. Fine if it was accepted before.
    pub fn accept_restored(&self) -> Result<()> {
        let inner = self.inner();
        let mut commit = inner.commit.lock();
        if commit.mode != Mode::AwaitingAcceptance {
            return commit.check_writable();
        }
        inner.versions.log_and_apply(Edit {
            state: Some(NodeState::Serving),
            ..Edit::default()
        })?;
        commit.mode = Mode::Primary;
        Ok(())
    }

    /// Flushes, marks the log cleanly closed, and releases the directory. Writes and maintenance by other handles get
    /// `Closed`. Reads by handles and ranges that are kept go on from what was there at the close: drop them.
    ///
    /// After an error the directory is released all the same; the next open recovers as after a crash.
    pub fn close(&self) -> Result<()> {
        let outcome = self.close_cleanly();
        self.inner().release();
        outcome
    }

    fn close_cleanly(&self) -> Result<()> {
        let inner = self.inner();
        let was = {
            let mut commit = inner.commit.lock();
            std::mem::replace(&mut commit.mode, Mode::Closed)
        };
        if was == Mode::Closed {
            return Err(closed());
        }
        inner.background.state.lock().closing = true;
        let mut commit = inner.commit.lock();
        let commit = &mut *commit;
        let (flushed, seqno) = match was {
            // Records received but not applied stay in the log for the next open.
            Mode::Standby => commit.follower.applied(),
            _ => (commit.tail.end, commit.seqno),
        };
        inner.rotate_memtable(flushed, seqno, true);
        inner.flush_immutables()?;
        if matches!(was, Mode::Primary | Mode::AwaitingAcceptance) {
            inner.wal.append_close(&mut commit.tail, commit.seqno)?;
        }
        let reach = commit.tail.end;
        inner.wal.sync_to(reach)?;
        inner.wal.trim(&mut commit.tail)?;
        inner.versions.log_and_apply(Edit {
            reach: Some(reach),
            flushed: Some(flushed.max(inner.versions.state().flushed)),
            tenants: inner.tenants_given_out(),
            ..Edit::default()
        })?;
        inner.keystore.close()?;
        inner.versions.close()
    }

    // ---- replication, primary side ----

    /// Reigns this node's log went through, oldest first.
    pub fn epoch_history(&self) -> Vec<EpochStart> {
        self.inner().versions.state().epochs
    }

    /// End of the log as written here, with its epoch and chain.
    pub fn wal_end(&self) -> EpochStart {
        let commit = self.inner().commit.lock();
        EpochStart {
            epoch: commit.tail.epoch,
            start: commit.tail.end,
            chain: commit.tail.chain,
        }
    }

    /// Chain of the log up to `lsn`, which must be a record boundary.
    ///
    /// - Errors: `Gone` (no longer kept), `Diverged` (not a boundary of this log, or beyond its end).
    pub fn chain_at(&self, lsn: Lsn) -> Result<Chain> {
        checkpoint::chain_at(self.inner(), lsn)
    }

    /// Tails the log's durable bytes from `from`. `Gone` if they are no longer kept.
    pub fn wal_cursor(&self, from: Lsn) -> Result<WalCursor> {
        WalCursor::new(self.inner().wal.clone(), from)
    }

    /// Keeps the log from `from` on while the pin lives, within `Options::wal_keep_bytes`.
    pub fn pin_wal(&self, from: Lsn) -> WalPin {
        self.inner().pins.pin(from, false)
    }

    /// A standby has everything before `lsn` on stable storage, in `epoch`. Ignored for other epochs.
    pub fn confirm_replicated(&self, epoch: Epoch, lsn: Lsn) {
        if let Some(seqno) = self.inner().gate.confirm(epoch, lsn) {
            self.inner().publish(seqno);
        }
    }

    /// A newer primary exists: durably stops acknowledging. `Invalid` if `epoch` is not newer.
    pub fn fence(&self, epoch: Epoch) -> Result<()> {
        self.inner().fence(epoch)
    }

    /// The keystore's version: grows with every creation and deletion of a tenant.
    pub fn keystore_version(&self) -> u64 {
        self.inner().keystore.version()
    }

    /// Waits until the keystore's version differs from `seen`, or `timeout`; returns it.
    pub fn wait_keystore(&self, seen: u64, timeout: Duration) -> u64 {
        self.inner().keystore.wait(seen, timeout)
    }

    /// Keystore changes after version `since`; the full set if the steps are no longer known.
    pub fn key_changes(&self, since: u64) -> KeyChanges {
        self.inner().keystore.changes_since(since)
    }

    // ---- replication, standby side ----

    /// Takes over keystore changes from the primary; durable when it returns. Keys that are deleted are
    /// destroyed here as on the primary.
    pub fn apply_key_changes(&self, changes: &KeyChanges) -> Result<()> {
        let inner = self.inner();
        let applied = inner.keystore.apply(changes);
        // A full set may bring other keys for an id: what was derived from any old one goes.
        inner.forget(|tenant| changes.full || !inner.keys.is_live(tenant));
        inner.settings.forget(|tenant| !inner.keys.is_live(tenant));
        applied
    }

    /// Appends log bytes that begin at `first`, which must be where the received bytes end, or the last
    /// whole record's end to begin again after a broken connection. They may be cut anywhere.
    ///
    /// - Errors: `Diverged` (they continue another history), `Corruption`, `Invalid` (wrong position).
    pub fn standby_append(&self, first: Lsn, bytes: &[u8]) -> Result<Lsn> {
        self.inner().follow(first, bytes)
    }

    /// Syncs what was appended and applies it. What comes back may be acknowledged to the primary.
    ///
    /// - Errors: `Corruption` for a record whose tenant's key never arrived (nothing is skipped: apply
    ///   the key changes and call again), `Unknown` after a failed sync.
    pub fn standby_sync(&self) -> Result<StandbyProgress> {
        self.inner().follow_sync()
    }

    /// Where the standby stands, without waiting.
    pub fn standby_progress(&self) -> Result<StandbyProgress> {
        self.inner().follow_progress()
    }

    /// Becomes primary: records a never-used epoch, applies all durable log, then takes writes.
    ///
    /// After an error nothing was served in the new epoch; call it again.
    pub fn promote(&self) -> Result<Promotion> {
        self.inner().promote()
    }
}

impl Inner {
    /// After keys are gone: what memory still holds of those tenants goes too, and their space is next.
    fn forget(&self, gone: impl Fn(TenantId) -> bool) {
        self.keys.purge_if(&gone);
        self.cache.purge_if(&gone);
        self.wake_background();
    }
}
