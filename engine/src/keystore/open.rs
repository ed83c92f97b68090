//! Making a keystore, and opening one: which base rules, what its log adds, what is left to clean up.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Condvar, Mutex, RwLock};

use super::replace::Root;
use super::tenants::{Take, Tenants};
use super::{Keystore, State, Writer, base, format, generate, log};
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::rare;
use crate::io::{Io, durable};
use crate::keys::{KekVersion, KeyChanges, KeyProvider};
use crate::types::TenantId;

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

    /// Destroys at the provider what the keystore in `dir` is wrapped under, before its files are removed: a copy
    /// of them elsewhere then opens no more.
    ///
    /// Fine if there is none. A version that no file names any more cannot be found. Errors: the provider's.
    pub fn give_up(dir: &Path, io: &Io, provider: &dyn KeyProvider) -> Result<()> {
        let Some(files) = list(io, dir)? else {
            return Ok(());
        };
        let bases = files
            .bases
            .iter()
            .map(|generation| format::base_path(dir, *generation));
        let temporaries = files.temporaries.iter().map(|name| dir.join(name));
        for path in bases.chain(temporaries) {
            if let Some(kek) = base::abandoned_kek(io, &path, &format::origin(dir), provider) {
                provider.destroy_version(kek)?;
            }
        }
        Ok(())
    }

    /// Opens the keystore in `dir`.
    ///
    /// Errors: `NotFound` if there is none; `Corruption` or `Unsupported`, naming the file; `KeyRefused`
    /// when the provider does not open it.
    pub fn open(dir: &Path, io: &Io, provider: Arc<dyn KeyProvider>) -> Result<Keystore> {
        let loaded = load(dir, io, &*provider)?;
        let (files, kek, generation) = (loaded.files, loaded.kek, loaded.writer.generation);
        let keystore = Keystore::new(dir, io, provider, loaded.tenants, loaded.writer);
        let mut writer = keystore.writer.lock();
        let used: Vec<KekVersion> = [Some(kek), writer.superseded].into_iter().flatten().collect();
        keystore.sweep_temporaries(&files.temporaries, &used)?;
        let unfinished = writer.superseded.is_some() || files.bases.len() > 1;
        if writer.dirty {
            rare!(KeystoreFolded);
        }
        if unfinished {
            rare!(KeystoreUnfinished);
        }
        if writer.dirty || unfinished {
            keystore.fold_at_open(&mut writer, unfinished)?;
        }
        if !unfinished || writer.generation != generation {
            // The base that rules is this process's own, or the only one: the others are dead.
            keystore.remove_others(&files, writer.generation);
        }
        keystore.make_reserve(writer.generation);
        drop(writer);
        Ok(keystore)
    }

    /// The keystore in `dir` as it is on disk: nothing is written, removed or destroyed, and it takes no
    /// changes. Also what was read. Errors as for [`open`](Keystore::open).
    pub fn read(dir: &Path, io: &Io, provider: Arc<dyn KeyProvider>) -> Result<(Keystore, FilesRead)> {
        let mut loaded = load(dir, io, &*provider)?;
        loaded.writer.state = State::Closed;
        let read = loaded.read;
        let keystore = Keystore::new(dir, io, provider, loaded.tenants, loaded.writer);
        Ok((keystore, read))
    }

    /// Reads the files again and compares them with what is known; changes wait meanwhile, reading does not.
    /// Returns what was read.
    pub fn check_files(&self) -> Result<FilesRead> {
        let writer = self.writer.lock();
        let loaded = load(&self.dir, &self.io, &*self.provider)?;
        let (known, found) = (self.version(), loaded.tenants.version());
        if known != found && !matches!(writer.state, State::Failed(_)) {
            let path = format::base_path(&self.dir, loaded.writer.generation);
            let expected = format!("version {known}");
            return Err(Error::corruption(
                &path,
                0,
                "keystore",
                expected,
                format!("version {found}"),
            ));
        }
        Ok(loaded.read)
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
            losses: AtomicU64::new(0),
        }
    }

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
        rare!(FoldPostponed);
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
        for name in names {
            // What the provider does not destroy now waits for the next replacement or open.
            let _ = self.sweep_temporary(&self.dir.join(name), used);
        }
        Ok(())
    }

    /// - `used`: versions that wrap what counts.
    /// - Errors: the provider's. Then the file stays: it is all that names the version.
    pub(super) fn sweep_temporary(&self, path: &Path, used: &[KekVersion]) -> Result<()> {
        if let Some(kek) = base::abandoned_kek(&self.io, path, &self.origin, &*self.provider)
            && !used.contains(&kek)
        {
            self.provider.destroy_version(kek).map_err(|e| e.at(path))?;
        }
        rare!(AbandonedBaseSwept);
        let _ = durable::remove_if_exists(&self.io, path);
        Ok(())
    }
}

/// The keystore's files; `None` if the directory does not exist.
fn list(io: &Io, dir: &Path) -> Result<Option<format::Files>> {
    match io.vfs.list(dir) {
        Ok(listing) => Ok(Some(format::Files::sort(&listing))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("listing the directory", dir, e)),
    }
}

/// A keystore's files, read.
struct Loaded {
    files: format::Files,
    tenants: Tenants,
    writer: Writer,
    /// Wraps the base.
    kek: KekVersion,
    read: FilesRead,
}

/// Which files of a keystore count: the base, and its log.
#[derive(Default)]
pub(crate) struct FilesRead {
    pub paths: Vec<PathBuf>,
    /// Bytes at the log's end that a crash left, and that count for nothing.
    pub torn_bytes: u64,
}

/// Reads what is there and changes nothing. Errors as for [`Keystore::open`].
fn load(dir: &Path, io: &Io, provider: &dyn KeyProvider) -> Result<Loaded> {
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
    let base = base::read(io, &path, generation, provider)?;
    let mut read = FilesRead {
        paths: vec![path],
        torn_bytes: 0,
    };
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
        read.paths.push(path);
        read.torn_bytes = replayed.torn_bytes;
    }
    Ok(Loaded {
        files,
        tenants,
        writer,
        kek: base.preamble.kek,
        read,
    })
}
