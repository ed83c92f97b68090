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
//! Order of a replacement, each step durable before the next: fresh log, and new base under a temporary name;
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
//! - A failed sync or rename is final: changes are refused (`ReadOnly`) until reopened. A full disk leaves
//!   everything as it was, and tenants can be deleted nevertheless (reserve.rs).

mod base;
mod format;
mod log;
mod open;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod parsers;
mod replace;
mod reserve;
mod tenants;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use zeroize::Zeroizing;

use crate::TenantInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Io;
use crate::keys::{Destruction, KekVersion, KeyChanges, KeyProvider, TenantKeys};
use crate::options::NAME_BYTES_MAX;
use crate::seal::{Dek, KeyLookup, KeySource};
use crate::types::{DekVersion, TenantId};
use log::LogWriter;
use replace::Root;
use tenants::{Take, Tenants};

/// The keystore of one database. One process has it open: the engine's lock sees to that.
pub(crate) struct Keystore {
    dir: PathBuf,
    io: Io,
    provider: Arc<dyn KeyProvider>,
    origin: [u8; 16],
    writer: Mutex<Writer>,
    tenants: RwLock<Tenants>,
    /// How often keys went; grows before anybody can see that they did.
    losses: AtomicU64,
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

impl Keystore {
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

    /// Changes whenever tenants are deleted: whoever saw one live after asking for this, and finds it
    /// unchanged, need not look again.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
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
    /// `Unknown` (a sync failed for want of room; final until reopened), `ReadOnly`, `Closed`.
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
            // Asked again, perhaps because the provider failed: what it was to destroy must be gone, too.
            Take::Nothing => self.destroy(&mut writer).map(drop),
            Take::Append => self.append(&mut writer, changes),
            Take::Replace { new_root } => {
                let root = if new_root { Root::New } else { Root::Same };
                self.replace(&mut writer, Some(changes), root, true).map(|_| ())
            }
        }
    }

    /// Whether a KEK version that wraps older copies of this keystore is still to be destroyed: until it is,
    /// deletions are not final.
    pub fn destruction_pending(&self) -> bool {
        self.writer.lock().superseded.is_some()
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

    /// Refuses changes from here on; passes the reason through. It is never `NoSpace`, which promises that
    /// nothing changed: after a failed sync the change may be there when the keystore is opened again.
    fn fail(&mut self, error: Error) -> Error {
        self.log = None;
        self.state = State::Failed(error.to_string());
        match error.kind() {
            ErrorKind::NoSpace => {
                let text =
                    "a sync of the keystore failed for want of room: the change may or may not survive";
                Error::new(ErrorKind::Unknown, text).with_source(error)
            }
            _ => error,
        }
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
