//! How a change becomes durable: a frame of the log, or a new base in place of the old.
//!
//! The order of steps is in the head of the module above; every step here that can fail says whether the
//! failure leaves all as it was ([`Failure::Harmless`]) or nobody knows ([`Failure::Final`]).

use std::sync::atomic::Ordering;

use super::base::{self, Plan};
use super::format;
use super::log::{AppendFailed, LogWriter};
use super::{Keystore, State, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::{planted, rare};
use crate::io::durable;
use crate::keys::{Destruction, KekVersion, KeyChanges};
use crate::seal::Dek;

/// Which root a new base is sealed under.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    Same,
    New,
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
    /// All is as it was, and no tenant's key was written under the root.
    Harmless(Error),
    /// All is as it was but for the temporary file, which names the KEK version: to be taken back.
    Begun(Error),
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

impl Keystore {
    /// Commits additions: by a frame of the log, or with a new base where there is no log to append to.
    pub(super) fn append(&self, writer: &mut Writer, changes: &KeyChanges) -> Result<()> {
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
                rare!(KeystoreAppendFailed);
                writer.log = None;
                Err(error)
            }
            Err(AppendFailed::Sync(error)) => Err(writer.fail(error)),
        }
    }

    /// Writes a new base with `changes` taken in, makes it rule, commits. Returns what the provider said of
    /// the KEK version it superseded, if any.
    ///
    /// An error after the new base rules (the generation has moved on) is the provider's, who did not destroy.
    pub(super) fn replace(
        &self,
        writer: &mut Writer,
        changes: Option<&KeyChanges>,
        root: Root,
        with_log: bool,
    ) -> Result<Option<Destruction>> {
        let before = writer.generation;
        let mut result = self.replace_once(writer, changes, root, with_log);
        let full = result.as_ref().is_err_and(|e| e.kind() == ErrorKind::NoSpace);
        // Creating must not use up what deleting needs; all else gives the room back with the old base.
        let entitled = changes.is_none() || root == Root::New;
        if full && entitled && matches!(writer.state, State::Open) && self.release_reserve() {
            rare!(ReserveUsed);
            result = match writer.generation == before {
                true => self.replace_once(writer, changes, root, with_log),
                false => self.destroy(writer),
            };
        }
        if writer.generation != before {
            self.make_reserve(writer.generation);
        }
        result
    }

    fn replace_once(
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
                rare!(ReplacementTakenBack);
                if next.has_fresh_kek() {
                    // If this fails too, it guards nothing.
                    let _ = self.provider.destroy_version(kek);
                }
                return Err(error);
            }
            Err(Failure::Begun(error)) => {
                rare!(ReplacementTakenBack);
                self.take_back(&next);
                return Err(error);
            }
            Err(Failure::Final(error)) => {
                rare!(KeystoreStopped);
                return Err(writer.fail(error));
            }
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

    /// Undoes a base that did not get its final name. A fresh KEK version goes before the file that names it: the
    /// sectors that its chunks gave back hold keys of tenants that live on.
    fn take_back(&self, next: &Next) {
        if next.has_fresh_kek() && self.provider.destroy_version(next.kek).is_err() {
            // Keep the file: it is all that names the version. The next replacement or open sweeps it.
            return;
        }
        let tmp = durable::tmp_name(&format::base_path(&self.dir, next.generation));
        let _ = durable::remove_if_exists(&self.io, &tmp);
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
            self.sweep_temporary(&tmp, &used).map_err(Failure::Harmless)?;
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
            }
            // And the log's name, before a base of a final name names it.
            if log.is_some() || !head.is_empty() {
                let kind = match head.is_empty() {
                    true => harmless_if_full,
                    false => Failure::Final,
                };
                durable::sync_dir(&self.io, &self.dir).map_err(kind)?;
            }
            file.write_all_at(chunks, head.len() as u64)
                .map_err(|e| Failure::Harmless(Error::io("writing", &tmp, e)))?;
            if planted!(KeystoreBaseNotSynced) {
                return Ok(());
            }
            file.sync().map_err(|e| failure("syncing the file", e))
        };
        match write() {
            Ok(()) => {}
            Err(Failure::Harmless(error)) => {
                // Gives the room back, and leaves what names the KEK version.
                if file.len().is_ok_and(|len| len > head.len() as u64) {
                    let _ = file.set_len(head.len() as u64);
                }
                return Err(Failure::Begun(error));
            }
            // The file stays: it names the KEK version for the next open.
            Err(last) => return Err(last),
        }
        if planted!(KeystoreNameNotSynced) {
            let renamed = self.io.vfs.rename(&tmp, &path);
            return renamed.map(|()| log).map_err(|e| failure("renaming", e));
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
        let mut tenants = self.tenants.write();
        tenants.commit(changes);
        if changes.full || !changes.deleted.is_empty() {
            // Before the lock is let go: who sees them gone sees this, too.
            self.losses.fetch_add(1, Ordering::Release);
        }
        drop(tenants);
        self.news.lock().0 = changes.version;
        self.told.notify_all();
    }

    /// Destroys the superseded KEK version, if any, once the base that rules is durable for certain.
    pub(super) fn destroy(&self, writer: &mut Writer) -> Result<Option<Destruction>> {
        let Some(version) = writer.superseded else {
            return Ok(None);
        };
        if !writer.own {
            // Comes back here when it has written a base.
            return self.replace(writer, None, Root::Same, true);
        }
        let destruction = match planted!(OldRootKept) {
            true => Destruction::Destroyed,
            false => self.provider.destroy_version(version)?,
        };
        writer.superseded = None;
        writer.stale_mark = true;
        Ok(Some(destruction))
    }
}
