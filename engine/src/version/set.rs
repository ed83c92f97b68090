//! The set of versions: the current one, and how the next becomes current.
//!
//! Order of a change: tables are written, synced and their names made durable (by the job); the edit
//! is appended to the manifest and synced; the new version is installed; tables it no longer has are
//! marked, and their files go when the last reader lets go. A crash anywhere leaves the version before
//! or after the edit; files of neither are swept at open.
//!
//! Invariants:
//! - A version is visible to readers only after its edit is durable.
//! - `CURRENT` names a manifest that is whole and durable, name included.
//! - A manifest is never appended to after a reopen or after a failed write. Open, close, and growth
//!   beyond [`manifest::replaced_beyond`] begin a new one.
//! - A failed sync is final ([`ErrorKind::ReadOnly`] until reopened): nobody knows what is on the disk.
//!   A full disk is not: the edit is void, its new tables go, and the next edit begins a new manifest.
//! - File numbers are never given out twice while a file of that number is there, not across a crash
//!   either. (A number whose file a crash took is free again: identity and keys come from the header.)

mod on_disk;
mod present;
mod replay;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::error::{Error, ErrorKind, Result};
use crate::hooks::{planted, rare};
use crate::io::{Io, durable};
use crate::seal::FileKeys;
use crate::table::{BlockCache, Table, TableMeta, ValueFile, ValueMeta};

use self::present::Present;
use self::replay::Replayed;
use super::current::Current;
use super::edit::{Edit, Full, ManifestState};
use super::manifest::{self, ManifestWriter};
use super::{Files, Version, table_path, tables_dir, values_path};
pub(crate) use on_disk::OnDisk;

/// What opening found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Opened {
    /// `CURRENT` said closed, and everything matched.
    pub clean: bool,
    /// Bytes of an unacknowledged edit cut from the manifest's end.
    pub cut_bytes: u64,
}

/// The current version and state, and the manifest that makes them durable.
pub(crate) struct VersionSet {
    db: PathBuf,
    io: Io,
    keys: Arc<FileKeys>,
    cache: Arc<BlockCache>,
    opened: Opened,
    /// Next file number.
    next_number: AtomicU64,
    /// Written only while `log` is held; read by everyone, briefly.
    installed: RwLock<Installed>,
    /// Serialises edits.
    log: Mutex<Log>,
}

/// What readers see; version and state always belong together.
#[derive(Clone)]
struct Installed {
    version: Arc<Version>,
    state: ManifestState,
}

/// The manifest being written.
enum Log {
    /// Takes edits.
    Open(Box<ManifestWriter>),
    /// Ended in a failed write on a full disk: the next edit needs a new manifest. Its number.
    Broken(u64),
    /// A sync failed: final.
    Failed,
    /// Closed by the user.
    Closed,
}

impl VersionSet {
    /// Makes the files of a new database in `db`: directory of tables, manifest, and `CURRENT` last.
    ///
    /// A crash before the end leaves no `CURRENT`; whoever decides that the directory is new calls this
    /// again. `AlreadyExists` if there is a `CURRENT` or a table.
    pub fn create(
        db: &Path,
        io: &Io,
        keys: Arc<FileKeys>,
        cache: Arc<BlockCache>,
        state: ManifestState,
    ) -> Result<VersionSet> {
        durable::create_dir_synced(io, &tables_dir(db))?;
        let present = Present::list(io, db)?;
        if present.current || !present.tables.is_empty() || !present.values.is_empty() {
            return Err(Error::new(ErrorKind::AlreadyExists, "there is a database here").at(db));
        }
        present.sweep(io, db, |_| false);
        let installed = Installed {
            version: Arc::new(Version::default()),
            state,
        };
        let next = present.next_number();
        VersionSet::start(
            db,
            io,
            keys,
            cache,
            installed,
            next,
            Opened {
                clean: true,
                cut_bytes: 0,
            },
        )
    }

    /// Opens the version `CURRENT` leads to: every table is opened and checked, a new manifest is begun
    /// and named by `CURRENT`, and what no version needs any more is removed.
    ///
    /// A database that was closed must be exactly what was closed.
    ///
    /// - `Corruption`: the file and offset are named. Restore from the standby or a backup.
    /// - `KeyRefused`: the keystore is not this database's.
    /// - `NoSpace`: opening needs room for a manifest; nothing was changed.
    pub fn open(db: &Path, io: &Io, keys: Arc<FileKeys>, cache: Arc<BlockCache>) -> Result<VersionSet> {
        let current = Current::read(io, db)?;
        let manifest = manifest::read(io, db, &current, &keys)?;
        let opened = Opened {
            clean: current.closed.is_some(),
            cut_bytes: manifest.cut_bytes,
        };
        let replayed = Replayed::new(&manifest::path(db, current.number), manifest)?;

        let open = |meta: &TableMeta| {
            let path = table_path(db, meta.number);
            Table::open(io, &path, meta.clone(), Arc::clone(&keys), Arc::clone(&cache))
        };
        let open_values = |meta: &ValueMeta| {
            let path = values_path(db, meta.number);
            ValueFile::open(io, &path, *meta, Arc::clone(&keys), Arc::clone(&cache))
        };
        let version = replayed.version(&manifest::path(db, current.number), open, open_values)?;
        let present = Present::list(io, db)?;
        let next = present
            .next_number()
            .max(replayed.next_number)
            .max(current.number.saturating_add(1));
        let installed = Installed {
            version: Arc::new(version),
            state: replayed.state,
        };
        let set = VersionSet::start(db, io, keys, cache, installed, next, opened)?;

        let version = set.current();
        let tables = version.tables().map(|(_, table)| table.meta().number);
        let live: HashSet<u64> = tables.chain(version.values.keys().copied()).collect();
        present.sweep(io, db, |file| live.contains(&file));
        Ok(set)
    }

    /// What opening found.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the engine's account of its recovery")
    )]
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// The current version.
    pub fn current(&self) -> Arc<Version> {
        Arc::clone(&self.installed.read().version)
    }

    /// The current state.
    pub fn state(&self) -> ManifestState {
        self.installed.read().state.clone()
    }

    /// Version and state of one moment.
    pub fn view(&self) -> (Arc<Version>, ManifestState) {
        let Installed { version, state } = self.installed.read().clone();
        (version, state)
    }

    /// A number for a new file, never given out before.
    pub fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether an edit failed for good: then the last one may be durable or not, and only reopening tells.
    pub fn failed(&self) -> bool {
        matches!(*self.log.lock(), Log::Failed)
    }

    /// Makes `edit` durable and installs its version. Added tables must be synced, names included.
    ///
    /// Blocks other edits, not readers, for one append and one sync. After any error the edit is void
    /// and its tables are not to be used again; a retry makes new ones.
    ///
    /// - `Invalid`: the edit does not fit the current version or state. Nothing was written.
    /// - `Corruption`: a new table does not verify. Nothing was written.
    /// - `NoSpace`: its new tables were removed. Retry with a new edit once there is room.
    /// - `ReadOnly`: a sync failed now or before. Reopen.
    /// - `Closed`.
    pub fn log_and_apply(&self, edit: Edit) -> Result<()> {
        let mut log = self.log.lock();
        let before = self.installed.read().clone();
        let opened = self.open_added(&before.version, &edit)?;
        let result = self.log_edit(&mut log, &before, &edit, &opened);
        if matches!(*log, Log::Failed) {
            rare!(ManifestStopped);
        }
        if result.is_err() && !matches!(*log, Log::Failed) {
            rare!(NewTablesVoid);
            opened.tables.values().for_each(|table| table.mark_obsolete());
            opened.values.values().for_each(|file| file.mark_obsolete());
        }
        result
    }

    /// Writes a complete, closed manifest of `version` and `state` and its `CURRENT` into the directory
    /// `dir`, everything synced, `CURRENT` last. The tables are the caller's: see `referenced_files`.
    pub fn write_snapshot(&self, dir: &Path, version: &Version, state: &ManifestState) -> Result<()> {
        let installed = Installed {
            version: Arc::new(version.clone()),
            state: state.clone(),
        };
        let writer = self.new_manifest(dir, &installed)?;
        let current = Current {
            number: writer.number(),
            closed: Some(writer.fingerprint()),
        };
        current.stage(&self.io, dir, state.highest_epoch)?;
        Current::publish(&self.io, dir)
    }

    /// Ends the manifest in a way that any later change to it is noticed. Edits fail with `Closed`
    /// afterwards; reads go on.
    ///
    /// `ReadOnly` if a sync failed before: then the next open recovers as after a crash. `NoSpace` may
    /// be retried. Closing twice is fine.
    pub fn close(&self) -> Result<()> {
        let mut log = self.log.lock();
        match *log {
            Log::Closed => return Ok(()),
            Log::Failed => return Err(read_only()),
            Log::Open(_) | Log::Broken(_) => {}
        }
        let installed = self.installed.read().clone();
        let writer = self.switch(&mut log, &installed, true)?;
        drop(writer);
        *log = Log::Closed;
        Ok(())
    }

    /// A set with a new manifest named by `CURRENT`.
    fn start(
        db: &Path,
        io: &Io,
        keys: Arc<FileKeys>,
        cache: Arc<BlockCache>,
        installed: Installed,
        next_number: u64,
        opened: Opened,
    ) -> Result<VersionSet> {
        let set = VersionSet {
            db: db.to_path_buf(),
            io: io.clone(),
            keys,
            cache,
            opened,
            next_number: AtomicU64::new(next_number),
            installed: RwLock::new(installed),
            log: Mutex::new(Log::Failed),
        };
        {
            let installed = set.installed.read().clone();
            let writer = set.new_manifest(db, &installed)?;
            set.point_at(&writer, installed.state.highest_epoch, false)?;
            *set.log.lock() = Log::Open(Box::new(writer));
        }
        Ok(set)
    }

    /// Opens the files of `edit` that `version` does not have.
    fn open_added(&self, version: &Version, edit: &Edit) -> Result<Files> {
        let mut opened = Files::default();
        for (_, meta) in &edit.added {
            if version
                .tables()
                .any(|(_, table)| table.meta().number == meta.number)
            {
                continue;
            }
            let path = table_path(&self.db, meta.number);
            let (keys, cache) = (Arc::clone(&self.keys), Arc::clone(&self.cache));
            opened.tables.insert(
                meta.number,
                Table::open(&self.io, &path, meta.clone(), keys, cache)?,
            );
        }
        for meta in &edit.values {
            let path = values_path(&self.db, meta.number);
            let (keys, cache) = (Arc::clone(&self.keys), Arc::clone(&self.cache));
            opened
                .values
                .insert(meta.number, ValueFile::open(&self.io, &path, *meta, keys, cache)?);
        }
        Ok(opened)
    }

    fn log_edit(&self, log: &mut Log, before: &Installed, edit: &Edit, opened: &Files) -> Result<()> {
        match log {
            Log::Closed => return Err(Error::new(ErrorKind::Closed, "the database is closed")),
            Log::Failed => return Err(read_only()),
            Log::Open(_) | Log::Broken(_) => {}
        }
        let version = Arc::new(before.version.apply(edit, opened)?);
        let mut state = before.state.clone();
        state
            .apply(edit)
            .map_err(|rule| Error::new(ErrorKind::Invalid, format!("edit: {rule}")))?;
        let after = Installed { version, state };
        self.make_durable(log, &after, edit)?;

        let kept: HashSet<u64> = edit.added.iter().map(|(_, meta)| meta.number).collect();
        let gone = edit
            .removed
            .iter()
            .map(|(_, number)| *number)
            .filter(|number| !kept.contains(number));
        let gone: HashSet<u64> = gone.collect();
        // New ones that no table refers to are not needed either.
        let values = before.version.values.values().chain(opened.values.values());
        let unneeded: Vec<Arc<ValueFile>> = values
            .filter(|file| !after.version.values.contains_key(&file.meta().number))
            .cloned()
            .collect();
        *self.installed.write() = after;
        for file in unneeded {
            rare!(ValueFileGone);
            file.mark_obsolete();
        }
        let tables = before
            .version
            .tables()
            .filter(|(_, table)| gone.contains(&table.meta().number));
        tables.for_each(|(_, table)| table.mark_obsolete());
        Ok(())
    }

    /// Appends and syncs the edit, or begins a new manifest that holds its outcome.
    fn make_durable(&self, log: &mut Log, after: &Installed, edit: &Edit) -> Result<()> {
        let long = |writer: &ManifestWriter| writer.bytes() > manifest::replaced_beyond(writer.full_bytes());
        if !matches!(log, Log::Open(writer) if !long(writer)) {
            match self.switch(log, after, false) {
                Ok(writer) => {
                    *log = Log::Open(Box::new(writer));
                    return Ok(());
                }
                // No room for a new manifest: the old one may still have some.
                Err(e) if e.kind() == ErrorKind::NoSpace && matches!(log, Log::Open(_)) => {}
                Err(e) => return Err(e),
            }
        }
        let Log::Open(writer) = log else {
            return Err(read_only());
        };
        match writer.append(edit) {
            Ok(()) if planted!(EditNotSynced) => Ok(()),
            Ok(()) if planted!(ManifestFailureForgotten) => writer.sync(),
            Ok(()) => writer.sync().inspect_err(|_| *log = Log::Failed),
            Err(e) => {
                let number = writer.number();
                *log = if e.kind() == ErrorKind::NoSpace {
                    rare!(ManifestFull);
                    Log::Broken(number)
                } else {
                    Log::Failed
                };
                Err(e)
            }
        }
    }

    /// Begins a new manifest with all of `installed` and makes `CURRENT` name it. `log` is changed only
    /// if that fails for good.
    fn switch(&self, log: &mut Log, installed: &Installed, closed: bool) -> Result<ManifestWriter> {
        let old = match log {
            Log::Open(writer) => Some(writer.number()),
            Log::Broken(number) => {
                rare!(ManifestBegunAnew);
                Some(*number)
            }
            Log::Failed | Log::Closed => None,
        };
        let staged = self.new_manifest(&self.db, installed).and_then(|writer| {
            let current = Current {
                number: writer.number(),
                closed: closed.then(|| writer.fingerprint()),
            };
            current.stage(&self.io, &self.db, installed.state.highest_epoch)?;
            Ok(writer)
        });
        let writer = staged.inspect_err(|e| {
            // Not yet named: what was is still so, unless the disk does more than refuse.
            if e.kind() != ErrorKind::NoSpace {
                *log = Log::Failed;
            }
        })?;
        Current::publish(&self.io, &self.db).inspect_err(|_| *log = Log::Failed)?;
        if let Some(old) = old {
            // If it stays, the next open removes it.
            let _ = durable::remove_if_exists(&self.io, &manifest::path(&self.db, old));
        }
        Ok(writer)
    }

    /// Writes a manifest with all of `installed` into `dir`: synced, its name durable.
    fn new_manifest(&self, dir: &Path, installed: &Installed) -> Result<ManifestWriter> {
        let number = self.next_number();
        let tables = installed.version.tables();
        let full = Full {
            state: installed.state.clone(),
            next_number: self.next_number.load(Ordering::Relaxed),
            tables: tables
                .map(|(level, table)| (level as u8, table.meta().clone()))
                .collect(),
            values: installed
                .version
                .values
                .values()
                .map(|file| *file.meta())
                .collect(),
        };
        let epoch = installed.state.highest_epoch;
        let written = ManifestWriter::create(&self.io, dir, number, epoch, &self.keys, &full);
        let written = written.and_then(|writer| {
            writer.sync()?;
            durable::sync_dir(&self.io, dir)?;
            Ok(writer)
        });
        written.inspect_err(|_| {
            let _ = durable::remove_if_exists(&self.io, &manifest::path(dir, number));
        })
    }

    fn point_at(&self, writer: &ManifestWriter, epoch: crate::types::Epoch, closed: bool) -> Result<()> {
        let current = Current {
            number: writer.number(),
            closed: closed.then(|| writer.fingerprint()),
        };
        current.stage(&self.io, &self.db, epoch)?;
        Current::publish(&self.io, &self.db)
    }
}

fn read_only() -> Error {
    Error::new(
        ErrorKind::ReadOnly,
        "a write to the manifest failed for good: reopen the database",
    )
}
