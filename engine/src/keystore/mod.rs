//! The keystore: which tenants exist, and their data keys, wrapped. The only place on disk that has keys.
//!
//! ```text
//! KEK version v, at the provider
//!   └ root, wrapped in keystore/base-<generation>
//!       ├ base: every tenant with its keys                     replaced whole
//!       └ log-<generation>: tenants created since              appended, synced, acknowledged
//! ```
//!
//! **Creating** appends one frame to the log. **Deleting** writes a new base under a new root, wrapped by a
//! new KEK version, without the tenant; once that is durable the old KEK version is destroyed, and with it
//! the meaning of every older copy of these files, wherever it may be (S4).
//!
//! Order of a replacement, each step durable before the next: fresh log; new base under a temporary name;
//! its final name; (here the change is acknowledged in memory) old KEK version destroyed; old files removed.
//! A crash in between leaves, by step:
//! - before the final name: the old base rules. The next open finds the temporary base, destroys the KEK
//!   version that only it used, and removes it.
//! - after it: the new base rules. It names the KEK version it supersedes; the next open destroys that.
//!
//! Before it destroys or removes anything, an open that finds such traces writes yet another base: it cannot
//! know whether the name it sees was ever made durable.
//!
//! Invariants:
//! - The base with the highest generation is the truth. If it does not verify, nothing does.
//! - A base that names a log is never without it. What a log holds beyond its head is folded into a new base
//!   by the next process, and by `close`; after that any truncation is found.
//! - Locks: `writer` before `tenants`; readers take `tenants` only, and never wait for a disk.
//! - A failed sync or rename is final: changes are refused (`ReadOnly`) until reopened. Any other failure,
//!   a full disk above all, leaves everything as it was.

mod base;
mod format;
mod log;
mod tenants;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use zeroize::Zeroizing;

use crate::TenantInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Io, durable};
use crate::keys::{Destruction, KekVersion, KeyChanges, KeyProvider, TenantKeys};
use crate::options::NAME_BYTES_MAX;
use crate::seal::{Dek, KeyLookup, KeySource};
use crate::types::{DekVersion, TenantId};
use base::Plan;
use log::{AppendFailed, LogWriter};
use tenants::{Take, Tenants};

/// The keystore of one database. One process has it open: the engine's lock sees to that.
pub(crate) struct Keystore {
    dir: PathBuf,
    io: Io,
    provider: Arc<dyn KeyProvider>,
    origin: [u8; 16],
    writer: Mutex<Writer>,
    tenants: RwLock<Tenants>,
    /// The version, and whether the keystore is closed: what `wait` waits for.
    news: Mutex<(u64, bool)>,
    told: Condvar,
}

/// What the files are, as far as this process knows.
struct Writer {
    /// Of the base that rules; 0 before the first.
    generation: u64,
    /// The base's root and the KEK version that wraps it; none before the first base.
    root: Option<(KekVersion, Dek)>,
    /// This process wrote the base: its name is durable for certain.
    own: bool,
    /// Still to be destroyed at the provider.
    superseded: Option<KekVersion>,
    /// The base names a superseded version that is destroyed meanwhile: the next base will not.
    stale_mark: bool,
    /// The base's log, if this process may append to it.
    log: Option<LogWriter>,
    /// The log of the base holds something: `close` must fold it.
    dirty: bool,
    state: State,
}

enum State {
    Open,
    Closed,
    /// Why changes are refused.
    Failed(String),
}

/// Which root a new base is sealed under.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    Same,
    New,
}

impl Keystore {
    /// Makes a keystore in `dir`, which is made too.
    ///
    /// - `initial`: a full set (base copy, restore). None: a fresh one with the system tenant alone.
    /// - Errors: `AlreadyExists`; `Invalid` when `initial` is not full; the provider's.
    pub fn create(
        dir: &Path,
        io: &Io,
        provider: Arc<dyn KeyProvider>,
        initial: Option<&KeyChanges>,
    ) -> Result<Keystore> {
        durable::create_dir_synced(io, dir)?;
        let files = list(io, dir)?.unwrap_or_default();
        if !files.bases.is_empty() || !files.logs.is_empty() {
            return Err(Error::new(ErrorKind::AlreadyExists, "there is a keystore already").at(dir));
        }
        let fresh;
        let full = match initial {
            Some(full) if !full.full => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    "a keystore begins with a full set of keys",
                ));
            }
            Some(full) => {
                full.validate()?;
                full
            }
            None => {
                let system = generate(io, TenantId::SYSTEM, "")?;
                let upserts = vec![system];
                fresh = KeyChanges {
                    version: 1,
                    full: true,
                    next_tenant: 1,
                    upserts,
                    deleted: Vec::new(),
                };
                &fresh
            }
        };
        let keystore = Keystore::new(dir, io, provider, Tenants::new(full), Writer::new(0, None));
        keystore.sweep_temporaries(&files.temporaries, &[])?;
        let mut writer = keystore.writer.lock();
        keystore.replace(&mut writer, Some(full), Root::New, false)?;
        drop(writer);
        Ok(keystore)
    }

    /// Opens the keystore in `dir`.
    ///
    /// Errors: `NotFound` if there is none; `Corruption` or `Unsupported`, naming the file; `KeyRefused`
    /// when the provider does not open it.
    pub fn open(dir: &Path, io: &Io, provider: Arc<dyn KeyProvider>) -> Result<Keystore> {
        let files = list(io, dir)?.unwrap_or_default();
        let Some(&generation) = files.bases.last() else {
            return Err(match files.logs.last() {
                Some(log) => {
                    let path = format::base_path(dir, *log);
                    Error::corruption(&path, 0, "keystore", "a base beside its log", "none")
                }
                None => Error::new(ErrorKind::NotFound, "there is no keystore").at(dir),
            });
        };
        let path = format::base_path(dir, generation);
        let base = base::read(io, &path, generation, &*provider)?;
        let mut tenants = Tenants::new(&base.changes);
        let mut writer = Writer::new(generation, Some((base.preamble.kek, base.root.clone())));
        writer.superseded = base.preamble.superseded;
        if let Some(file_id) = base.preamble.log_id {
            let path = format::log_path(dir, generation);
            let replayed = log::replay(io, &path, generation, file_id, &base.root)?;
            for changes in &replayed.changes {
                let adds_only = !changes.full && changes.deleted.is_empty();
                if !adds_only || !matches!(tenants.plan(changes), Ok(Take::Append)) {
                    let (expected, found) = ("a change that continues the base", "another");
                    return Err(Error::corruption(&path, 0, "keystore log", expected, found));
                }
                tenants.commit(changes);
            }
            writer.dirty = replayed.used;
        }
        let keystore = Keystore::new(dir, io, provider, tenants, writer);
        let mut writer = keystore.writer.lock();
        let used: Vec<KekVersion> = [Some(base.preamble.kek), writer.superseded]
            .into_iter()
            .flatten()
            .collect();
        keystore.sweep_temporaries(&files.temporaries, &used)?;
        let unfinished = writer.superseded.is_some() || files.bases.len() > 1;
        if writer.dirty || unfinished {
            keystore.fold_at_open(&mut writer, unfinished)?;
        }
        if !unfinished || writer.generation != generation {
            // The base that rules is this process's own, or the only one: the others are dead.
            keystore.remove_others(&files, writer.generation);
        }
        drop(writer);
        Ok(keystore)
    }

    fn new(
        dir: &Path,
        io: &Io,
        provider: Arc<dyn KeyProvider>,
        tenants: Tenants,
        writer: Writer,
    ) -> Keystore {
        Keystore {
            dir: dir.to_path_buf(),
            io: io.clone(),
            provider,
            origin: format::origin(dir),
            writer: Mutex::new(writer),
            news: Mutex::new((tenants.version(), false)),
            told: Condvar::new(),
            tenants: RwLock::new(tenants),
        }
    }

    // ---- reading ----

    /// The tenant of this name.
    pub fn id(&self, name: &str) -> Option<TenantId> {
        self.tenants.read().id(name)
    }

    /// The tenant of this id; the system tenant has an empty name.
    pub fn info(&self, id: TenantId) -> Option<TenantInfo> {
        self.tenants.read().info(id)
    }

    /// Users' tenants in order of id.
    pub fn list(&self) -> Vec<TenantInfo> {
        self.tenants.read().list()
    }

    /// Number of users' tenants.
    pub fn len(&self) -> usize {
        self.tenants.read().len()
    }

    /// Grows with every durable change; at least 1.
    pub fn version(&self) -> u64 {
        self.tenants.read().version()
    }

    /// The id the next tenant gets: all below were given out.
    pub fn next_tenant(&self) -> u64 {
        self.tenants.read().next_tenant()
    }

    /// Waits until the version differs from `seen`, the keystore is closed, or `timeout` passes; returns the
    /// version.
    pub fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        let mut news = self.news.lock();
        self.told.wait_while_for(
            &mut news,
            |(version, closed)| *version == seen && !*closed,
            timeout,
        );
        news.0
    }

    /// What leads from version `since` to the present; the full set if the steps are no longer known, and
    /// for 0.
    pub fn changes_since(&self, since: u64) -> KeyChanges {
        self.tenants.read().changes_since(since)
    }

    /// The full set.
    pub fn export(&self) -> KeyChanges {
        self.tenants.read().export()
    }

    // ---- changing ----

    /// Makes tenants, all or none; durable when it returns. One append and one sync.
    ///
    /// Errors: `Invalid` name; `AlreadyExists`, also within the call; `NoSpace` (nothing changed, try again);
    /// `ReadOnly`, `Closed`.
    pub fn create_tenants(&self, names: &[&str]) -> Result<Vec<TenantId>> {
        let mut writer = self.writable()?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let (version, first) = {
            let tenants = self.tenants.read();
            let mut seen = std::collections::HashSet::with_capacity(names.len());
            for name in names {
                if name.is_empty() || name.len() > NAME_BYTES_MAX {
                    let message = format!("a tenant's name has 1 to {NAME_BYTES_MAX} bytes");
                    return Err(Error::new(ErrorKind::Invalid, message));
                }
                if tenants.id(name).is_some() || !seen.insert(*name) {
                    return Err(Error::new(
                        ErrorKind::AlreadyExists,
                        "there is a tenant of this name",
                    ));
                }
            }
            (tenants.version() + 1, tenants.next_tenant())
        };
        let ids = first..first.saturating_add(names.len() as u64);
        let upserts = ids
            .clone()
            .zip(names)
            .map(|(id, name)| generate(&self.io, TenantId(id), name))
            .collect::<Result<Vec<_>>>()?;
        let changes = KeyChanges {
            version,
            full: false,
            next_tenant: ids.end,
            upserts,
            deleted: Vec::new(),
        };
        self.append(&mut writer, &changes)?;
        Ok(ids.map(TenantId).collect())
    }

    /// Destroys the keys of tenants, all or none, for good.
    ///
    /// Returns the version without them and what the provider says of the old key. Errors: `NotFound`;
    /// `Invalid` for the system tenant or none at all; `NoSpace` (nothing changed). If the provider fails to
    /// destroy the old key, its error is returned although the tenants are gone from here: [`Keystore::info`]
    /// tells. The destruction is tried again by `destroy_superseded`, the next deletion, close and open.
    pub fn delete_tenants(&self, ids: &[TenantId]) -> Result<(u64, Destruction)> {
        let mut writer = self.writable()?;
        let changes = {
            let tenants = self.tenants.read();
            if ids.is_empty() || ids.contains(&TenantId::SYSTEM) {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    "only users' tenants can be deleted",
                ));
            }
            if ids.iter().any(|id| !tenants.contains(*id)) {
                return Err(Error::new(ErrorKind::NotFound, "there is no such tenant"));
            }
            let mut deleted = ids.to_vec();
            deleted.sort_unstable();
            deleted.dedup();
            let (version, next_tenant) = (tenants.version() + 1, tenants.next_tenant());
            KeyChanges {
                version,
                full: false,
                next_tenant,
                upserts: Vec::new(),
                deleted,
            }
        };
        let destruction = self.replace(&mut writer, Some(&changes), Root::New, true)?;
        Ok((changes.version, destruction.unwrap_or(Destruction::Destroyed)))
    }

    /// Takes over changes of another keystore; durable when it returns. Changes that are here already are
    /// fine.
    ///
    /// Errors: `Corruption` if they break the rules of [`KeyChanges`]; `Diverged` if they do not continue
    /// what is here (ask for the full set); otherwise as [`create_tenants`](Keystore::create_tenants) and
    /// [`delete_tenants`](Keystore::delete_tenants).
    pub fn apply(&self, changes: &KeyChanges) -> Result<()> {
        changes.validate()?;
        let mut writer = self.writable()?;
        let take = self.tenants.read().plan(changes)?;
        match take {
            Take::Nothing => Ok(()),
            Take::Append => self.append(&mut writer, changes),
            Take::Replace { new_root } => {
                let root = if new_root { Root::New } else { Root::Same };
                self.replace(&mut writer, Some(changes), root, true).map(|_| ())
            }
        }
    }

    /// Tries again to destroy a superseded KEK version; `None` if there is none.
    pub fn destroy_superseded(&self) -> Result<Option<Destruction>> {
        let mut writer = self.writable()?;
        self.destroy(&mut writer)
    }

    /// Folds the log into the base, so that any later truncation is found; durable when it returns. Changes
    /// then fail with `Closed`; reading goes on.
    pub fn close(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        match &writer.state {
            State::Closed => return Ok(()),
            State::Failed(why) => return Err(failed(why)),
            State::Open => {}
        }
        // Best effort: the base names what is left to destroy.
        let _ = self.destroy(&mut writer);
        if writer.dirty || writer.stale_mark {
            self.replace(&mut writer, None, Root::Same, false)?;
        }
        writer.log = None;
        writer.state = State::Closed;
        self.news.lock().1 = true;
        self.told.notify_all();
        Ok(())
    }

    fn writable(&self) -> Result<MutexGuard<'_, Writer>> {
        let writer = self.writer.lock();
        match &writer.state {
            State::Open => {}
            State::Closed => return Err(Error::new(ErrorKind::Closed, "the keystore is closed")),
            State::Failed(why) => return Err(failed(why)),
        }
        Ok(writer)
    }

    /// Commits additions: by a frame of the log, or with a new base where there is no log to append to.
    fn append(&self, writer: &mut Writer, changes: &KeyChanges) -> Result<()> {
        let plain = changes.encode();
        let Some(log) = writer.log.as_mut().filter(|log| log.has_room(plain.len())) else {
            return self.replace(writer, Some(changes), Root::Same, true).map(|_| ());
        };
        writer.dirty = true;
        match log.append(&plain) {
            Ok(()) => {
                self.commit(changes);
                Ok(())
            }
            Err(AppendFailed::Write(error)) => {
                // Part of a frame may be there. A new base will replace the log.
                writer.log = None;
                Err(error)
            }
            Err(AppendFailed::Sync(error)) => Err(writer.fail(error)),
        }
    }

    /// Writes a new base with `changes` taken in, makes it rule, commits. Returns what the provider said of
    /// the KEK version it superseded, if any.
    fn replace(
        &self,
        writer: &mut Writer,
        changes: Option<&KeyChanges>,
        root: Root,
        with_log: bool,
    ) -> Result<Option<Destruction>> {
        let (kek, key, superseded) = match (&writer.root, root) {
            (Some((kek, key)), Root::Same) => (*kek, key.clone(), writer.superseded),
            _ => {
                // A base names one superseded version: the one before must be gone first.
                self.destroy(writer)?;
                let key = Dek::generate(&*self.io.rng)?;
                (
                    self.provider.create_version()?,
                    key,
                    writer.root.as_ref().map(|(kek, _)| *kek),
                )
            }
        };
        let ruling = writer.root.as_ref().map(|(kek, _)| *kek);
        let next = Next {
            generation: writer.generation + 1,
            kek,
            root: key,
            superseded,
            ruling,
            with_log,
        };
        let log = match self.write_base(&next, changes) {
            Ok(log) => log,
            Err(Failure::Harmless(error)) => {
                if next.has_fresh_kek() {
                    // Nothing that counts was wrapped by it. If this fails too, it guards nothing.
                    let _ = self.provider.destroy_version(kek);
                }
                return Err(error);
            }
            Err(Failure::Final(error)) => return Err(writer.fail(error)),
        };
        let old = std::mem::replace(&mut writer.generation, next.generation);
        writer.root = Some((kek, next.root));
        writer.own = true;
        writer.superseded = superseded;
        writer.stale_mark = false;
        writer.log = log;
        writer.dirty = false;
        if let Some(changes) = changes {
            self.commit(changes);
        }
        let destroyed = self.destroy(writer);
        if old != 0 {
            // What is left of the old generation opens nothing; the next open sweeps what stays.
            let _ = durable::remove_if_exists(&self.io, &format::base_path(&self.dir, old));
            let _ = durable::remove_if_exists(&self.io, &format::log_path(&self.dir, old));
        }
        destroyed
    }

    /// The disk's part of `replace`.
    fn write_base(
        &self,
        next: &Next,
        changes: Option<&KeyChanges>,
    ) -> std::result::Result<Option<LogWriter>, Failure> {
        let (plain, version, next_tenant) = {
            let tenants = self.tenants.read();
            let plain = tenants.encode_after(changes);
            match changes {
                Some(c) if c.full => (plain, c.version, c.next_tenant),
                Some(c) => (plain, c.version, c.next_tenant.max(tenants.next_tenant())),
                None => (plain, tenants.version(), tenants.next_tenant()),
            }
        };
        let Next {
            generation,
            kek,
            ref root,
            superseded,
            ruling,
            with_log,
        } = *next;
        let log = match with_log {
            true => Some(LogWriter::create(&self.io, &self.dir, generation, root).map_err(harmless_if_full)?),
            false => None,
        };
        let log_id = log.as_ref().map(LogWriter::file_id);
        let origin = self.origin;
        let plan = Plan {
            generation,
            root,
            kek,
            superseded,
            version,
            next_tenant,
            log_id,
            origin,
        };
        let (bytes, chunks_at) =
            base::encode(&self.io, &*self.provider, &plan, &plain).map_err(Failure::Harmless)?;
        drop(plain);

        let path = format::base_path(&self.dir, generation);
        let tmp = durable::tmp_name(&path);
        if self.io.vfs.exists(&tmp).unwrap_or(true) {
            let used: Vec<KekVersion> = [Some(kek), superseded, ruling].into_iter().flatten().collect();
            self.sweep_temporary(&tmp, &used);
        }
        let file = durable::create(&self.io, &tmp).map_err(Failure::Harmless)?;
        // Under a new KEK version, the file that names it is durable before anything it guards is: whatever
        // a crash leaves of the chunks, the next open finds the version and destroys it.
        let cut = if next.has_fresh_kek() { chunks_at } else { 0 };
        let (head, chunks) = bytes.split_at_checked(cut).unwrap_or_default();
        let failure = |action, e| harmless_if_full(Error::io(action, &tmp, e));
        let write = || {
            if !head.is_empty() {
                file.write_all_at(head, 0)
                    .map_err(|e| Failure::Harmless(Error::io("writing", &tmp, e)))?;
                file.sync().map_err(|e| failure("syncing the file", e))?;
                durable::sync_dir(&self.io, &self.dir).map_err(Failure::Final)?;
            }
            file.write_all_at(chunks, head.len() as u64)
                .map_err(|e| Failure::Harmless(Error::io("writing", &tmp, e)))?;
            file.sync().map_err(|e| failure("syncing the file", e))
        };
        match write() {
            Ok(()) => {}
            Err(Failure::Harmless(error)) => {
                let _ = durable::remove_if_exists(&self.io, &tmp);
                return Err(Failure::Harmless(error));
            }
            // The file stays: it names the KEK version for the next open.
            Err(last) => return Err(last),
        }
        if let Err(error) = durable::publish(&self.io, &tmp, &path) {
            // Take the name back: a second attempt must not take it for durable. If only that reaches the
            // disk, the next open sweeps the file; if only the first name does, the file is a good base.
            let _ = self.io.vfs.rename(&path, &tmp);
            return Err(Failure::Final(error));
        }
        Ok(log)
    }

    /// Makes a durable change visible.
    fn commit(&self, changes: &KeyChanges) {
        self.tenants.write().commit(changes);
        self.news.lock().0 = changes.version;
        self.told.notify_all();
    }

    /// Destroys the superseded KEK version, if any, once the base that rules is durable for certain.
    fn destroy(&self, writer: &mut Writer) -> Result<Option<Destruction>> {
        let Some(version) = writer.superseded else {
            return Ok(None);
        };
        if !writer.own {
            // Comes back here when it has written a base.
            return self.replace(writer, None, Root::Same, true);
        }
        let destruction = self.provider.destroy_version(version)?;
        writer.superseded = None;
        writer.stale_mark = true;
        Ok(Some(destruction))
    }

    // ---- opening ----

    /// Writes what an earlier process left in a log, or unfinished, into a base of this process's own, whose
    /// name is durable for certain. On a full disk the files are good as they are, but nothing is destroyed
    /// or removed: that is left to a later change.
    fn fold_at_open(&self, writer: &mut Writer, unfinished: bool) -> Result<()> {
        let inherited = writer.generation;
        let Err(error) = self.replace(writer, None, Root::Same, true) else {
            return Ok(());
        };
        if writer.generation != inherited {
            // The base is written; only the provider failed to destroy. Tried again later.
            return Ok(());
        }
        if error.kind() != ErrorKind::NoSpace || !matches!(writer.state, State::Open) {
            return Err(error);
        }
        if writer.dirty {
            // What the log holds was perhaps never synced, but will be relied upon.
            let path = format::log_path(&self.dir, inherited);
            let file = self
                .io
                .vfs
                .open_rw(&path)
                .map_err(|e| Error::io("opening the file", &path, e))?;
            file.sync().map_err(|e| Error::io("syncing the file", &path, e))?;
        }
        // Closing must write a base also when there was no log to fold.
        writer.dirty |= unfinished;
        durable::sync_dir(&self.io, &self.dir)
    }

    /// Removes bases and logs of other generations. Best effort: they are orphans, whatever remains.
    fn remove_others(&self, files: &format::Files, rules: u64) {
        let bases = files
            .bases
            .iter()
            .filter(|g| **g != rules)
            .map(|g| format::base_path(&self.dir, *g));
        let logs = files
            .logs
            .iter()
            .filter(|g| **g != rules)
            .map(|g| format::log_path(&self.dir, *g));
        for path in bases.chain(logs) {
            let _ = durable::remove_if_exists(&self.io, &path);
        }
    }

    /// Removes what interrupted replacements left, and destroys the KEK versions that only they used.
    fn sweep_temporaries(&self, names: &[String], used: &[KekVersion]) -> Result<()> {
        if !names.is_empty() {
            // A name may have been taken back from a base (see `write_base`): durably so, from here on.
            durable::sync_dir(&self.io, &self.dir)?;
        }
        names
            .iter()
            .for_each(|name| self.sweep_temporary(&self.dir.join(name), used));
        Ok(())
    }

    /// - `used`: versions that wrap what counts.
    fn sweep_temporary(&self, path: &Path, used: &[KekVersion]) {
        if let Some(kek) = base::abandoned_kek(&self.io, path, &self.origin, &*self.provider)
            && !used.contains(&kek)
            && self.provider.destroy_version(kek).is_err()
        {
            // Keep the file: it is all that names the version.
            return;
        }
        let _ = durable::remove_if_exists(&self.io, path);
    }
}

impl KeySource for Keystore {
    fn current(&self, tenant: TenantId) -> Result<(DekVersion, Dek)> {
        let found = self.tenants.read().current(tenant);
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such tenant"))
    }

    fn find(&self, tenant: TenantId, version: DekVersion) -> KeyLookup {
        self.tenants.read().find(tenant, version)
    }

    fn is_live(&self, tenant: TenantId) -> bool {
        self.tenants.read().contains(tenant)
    }
}

impl Writer {
    fn new(generation: u64, root: Option<(KekVersion, Dek)>) -> Writer {
        Writer {
            generation,
            root,
            own: false,
            superseded: None,
            stale_mark: false,
            log: None,
            dirty: false,
            state: State::Open,
        }
    }

    /// Refuses changes from here on; passes the reason through.
    fn fail(&mut self, error: Error) -> Error {
        self.log = None;
        self.state = State::Failed(error.to_string());
        error
    }
}

/// The base to be written.
struct Next {
    generation: u64,
    kek: KekVersion,
    root: Dek,
    superseded: Option<KekVersion>,
    /// Wraps the base that rules now.
    ruling: Option<KekVersion>,
    with_log: bool,
}

impl Next {
    fn has_fresh_kek(&self) -> bool {
        self.ruling != Some(self.kek)
    }
}

/// How writing a base failed.
enum Failure {
    /// All is as it was.
    Harmless(Error),
    /// Which base rules after a crash is not known.
    Final(Error),
}

/// A full disk leaves all as it was, also when only the sync found out: the file was nothing yet.
fn harmless_if_full(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::NoSpace => Failure::Harmless(error),
        _ => Failure::Final(error),
    }
}

fn failed(why: &str) -> Error {
    Error::new(
        ErrorKind::ReadOnly,
        format!("the keystore refuses changes until reopened: {why}"),
    )
}

/// A tenant with a fresh key.
fn generate(io: &Io, id: TenantId, name: &str) -> Result<TenantKeys> {
    let mut key = Zeroizing::new([0u8; 32]);
    crate::seal::fill(&*io.rng, key.as_mut())?;
    Ok(TenantKeys {
        id,
        name: name.to_owned(),
        deks: vec![(DekVersion(1), key)],
    })
}

/// The keystore's files; `None` if the directory does not exist.
fn list(io: &Io, dir: &Path) -> Result<Option<format::Files>> {
    match io.vfs.list(dir) {
        Ok(listing) => Ok(Some(format::Files::sort(&listing))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("listing the directory", dir, e)),
    }
}
