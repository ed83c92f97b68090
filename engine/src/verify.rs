//! Verifying: every file of a database is read and checked, past the cache; nothing is changed, and damage is
//! counted and named instead of ending it.
//!
//! ```text
//! keystore   base and log: checksums, tags, the root's wrapping
//! CURRENT    and the manifest it names: checksums, tags, digest if closed; in a running engine also that they
//!            say what is in use
//! values     digest of the clear parts of value files
//! tables     digest of the clear parts; every piece of every tenant whose key lives (table/verify.rs); counts
//!            against the manifest; order within each level; every value that stands apart
//! log        every segment's header, every record's checksum, position and chain; every section's tag and
//!            operations, of tenants whose keys live
//! ```
//!
//! Invariants: what depends on a damaged file is left unread and `complete` says so; a torn end of the log of
//! a database that was not closed is no damage, by the rule of recovery; memory does not grow with the
//! database, but for the bounds of one level's tables.

mod log;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::inner::{Inner, Mode};
use crate::io::Io;
use crate::keys::KeyProvider;
use crate::keystore::Keystore;
use crate::seal::FileKeys;
use crate::table::{BlockCache, Table, TableMeta, ValueFile, ValueFiles, ValueMeta};
use crate::types::Lsn;
use crate::version::{LEVELS, NodeState, OnDisk, table_path, values_path};
use crate::wal::reader::{SegmentFile, list_segments};
use log::End;

/// Damages that are described; more are only counted.
const DAMAGES_MAX: usize = 1000;
/// Derived file keys kept ready.
const FILE_KEYS_MAX: usize = 1024;

/// Outcome of [`Engine::verify`](crate::Engine::verify) and [`Builder::verify`](crate::Builder::verify).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// Files read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Tables.
    pub tables: u64,
    /// Blocks of tables that opened and hold what they should.
    pub blocks: u64,
    /// Versions in them, deletes included.
    pub entries: u64,
    /// Value files.
    pub value_files: u64,
    /// Values in them that a table needs, and that opened.
    pub values: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Sections of records that opened and parse.
    pub sections: u64,
    /// Parts of tables and sections of records left unread because their tenants' keys are destroyed.
    pub skipped: u64,
    /// Bytes at the ends of the log, the manifest and the keystore's log that a crash left and opening will cut: no damage.
    pub torn_bytes: u64,
    /// False if a damaged file kept other files from being read at all.
    pub complete: bool,
    /// What is damaged, the first 1000.
    pub damages: Vec<Damage>,
    /// How much is damaged.
    pub damages_total: u64,
}

impl Verified {
    /// Whether everything was read and nothing is damaged.
    pub fn is_healthy(&self) -> bool {
        self.complete && self.damages_total == 0
    }
}

/// One damage: restore the file from the standby or a backup. Carries no key, value or name.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Damage {
    /// `Corruption`; `Unsupported`, `KeyRefused`; `Io` and other kinds for what could not be read.
    pub kind: ErrorKind,
    /// The file.
    pub file: Option<PathBuf>,
    /// Byte in the file, if known.
    pub offset: Option<u64>,
    /// What is damaged.
    pub structure: String,
    /// What was expected there.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl Damage {
    fn of(error: &Error) -> Damage {
        let (structure, expected, found) = match error.mismatch() {
            Some((structure, expected, found)) => (structure.into(), expected.into(), found.into()),
            None => (
                "file".into(),
                "to be readable".into(),
                error.duplicate().message().into(),
            ),
        };
        Damage {
            kind: error.kind(),
            file: error.path().map(Path::to_path_buf),
            offset: error.offset(),
            structure,
            expected,
            found,
        }
    }
}

/// A verification in progress.
struct Verifier<'a> {
    io: &'a Io,
    dir: &'a Path,
    keys: Arc<FileKeys>,
    values: ValueFiles,
    done: Verified,
}

/// First key of a table and where it ends, for the order of its level. None for a key of a destroyed tenant.
struct Bounds {
    meta: TableMeta,
    first: Option<Bytes>,
    end: Option<Bytes>,
}

/// See [`Engine::verify`](crate::Engine::verify).
pub(crate) fn verify(inner: &Inner) -> Result<Verified> {
    // Held while we read: neither the tables of `version` nor the log from here on may go.
    let pin = inner.pins.pin(inner.wal.start(), true);
    let (version, end) = {
        let commit = inner.commit.lock();
        if commit.mode == Mode::Closed {
            return Err(crate::commit::closed());
        }
        (inner.versions.current(), commit.inserted_to().0)
    };
    let mut verifier = Verifier::new(&inner.io, &inner.dir, inner.keys.clone());
    let keystore = inner.keystore.check_files();
    verifier.done.torn_bytes += keystore.as_ref().map_or(0, |read| read.torn_bytes);
    verifier.take(keystore.map(|read| read.paths));
    let manifest = inner.versions.check_files();
    verifier.take(manifest);
    verifier.value_files(version.values.values().map(|file| *file.meta()));
    for (level, tables) in version.levels.iter().enumerate() {
        verifier.level(level, tables.iter().map(|table| table.meta().clone()));
    }
    let mut segments = Vec::new();
    for start in inner.wal.segments() {
        let path = inner.wal.dir.join(crate::wal::segment_name(start));
        if start < end {
            segments.push(SegmentFile {
                start,
                path,
                len: end.0 - start.0,
            });
        }
    }
    verifier.log(&segments, &End::At(end));
    drop((version, pin));
    Ok(verifier.done)
}

/// See [`Builder::verify`](crate::Builder::verify). The caller holds the directory's lock.
pub(crate) fn verify_closed(io: &Io, dir: &Path, provider: Arc<dyn KeyProvider>) -> Result<Verified> {
    let keystore_dir = dir.join(crate::open::KEYSTORE_DIR);
    let mut damages = Vec::new();
    let keystore = match Keystore::read(&keystore_dir, io, provider) {
        Ok(read) => read,
        // A wrong key file is no damage.
        Err(e) if e.kind() == ErrorKind::KeyRefused => return Err(e),
        Err(e) => {
            let mut done = Verified::default();
            done.add(&e.at(&keystore_dir));
            return Ok(done);
        }
    };
    let (keystore, read) = (Arc::new(keystore.0), keystore.1);
    let keys = Arc::new(FileKeys::new(keystore.clone(), FILE_KEYS_MAX));
    let mut verifier = Verifier::new(io, dir, keys.clone());
    verifier.take(Ok(read.paths));
    verifier.done.torn_bytes += read.torn_bytes;
    let mut end = End::Crashed {
        flushed: Lsn::ZERO,
        reach: Lsn::ZERO,
        own_watermarks: true,
    };
    match OnDisk::read(io, dir, &keys) {
        Ok(mut found) => {
            verifier.take(Ok(std::mem::take(&mut found.paths)));
            verifier.done.torn_bytes += found.cut_bytes;
            let epoch_start = found.state.epochs.last().map_or(Lsn::ZERO, |epoch| epoch.start);
            end = End::Crashed {
                flushed: found.state.flushed,
                reach: found.state.reach.max(found.state.flushed).max(epoch_start),
                own_watermarks: found.state.state != NodeState::Following,
            };
            let newest = found.tables.iter().map(|(_, meta)| meta.tenant_max.0).max();
            let newest = newest.max(found.state.newest_tenant());
            if newest.is_some_and(|newest| newest >= keystore.next_tenant()) {
                let expected = "one that knows every tenant of tables and manifest";
                damages.push(Error::corruption(
                    &keystore_dir,
                    0,
                    "keystore",
                    expected,
                    "an older one",
                ));
            }
            verifier.value_files(found.values.iter().copied());
            for level in 0..LEVELS {
                let of_level = found.tables.iter().filter(|(l, _)| usize::from(*l) == level);
                verifier.level(level, of_level.map(|(_, meta)| meta.clone()));
            }
        }
        Err(e) => {
            verifier.done.complete = false;
            damages.push(e);
        }
    }
    match list_segments(io, &dir.join(crate::open::WAL_DIR)) {
        Ok(segments) => verifier.log(&segments, &end),
        Err(e) => {
            verifier.done.complete = false;
            damages.push(e);
        }
    }
    damages.iter().for_each(|e| verifier.done.add(e));
    Ok(verifier.done)
}

impl Verified {
    fn add(&mut self, error: &Error) {
        self.damages_total += 1;
        if self.damages.len() < DAMAGES_MAX {
            self.damages.push(Damage::of(error));
        }
    }
}

impl<'a> Verifier<'a> {
    fn new(io: &'a Io, dir: &'a Path, keys: Arc<FileKeys>) -> Verifier<'a> {
        let done = Verified {
            complete: true,
            ..Verified::default()
        };
        Verifier {
            io,
            dir,
            keys,
            values: ValueFiles::new(),
            done,
        }
    }

    /// Counts files that were read whole, or says what is wrong with one.
    fn take(&mut self, read: Result<Vec<PathBuf>>) {
        match read {
            Ok(paths) => {
                for path in paths {
                    let len = self.io.vfs.open(&path).and_then(|file| file.len());
                    self.count(len.unwrap_or(0));
                }
            }
            Err(e) => self.done.add(&e),
        }
    }

    fn count(&mut self, bytes: u64) {
        self.done.files += 1;
        self.done.bytes += bytes;
    }

    /// Opens value files anew. Their values are read from tables.
    fn value_files(&mut self, metas: impl Iterator<Item = ValueMeta>) {
        for meta in metas {
            self.count(meta.bytes);
            self.done.value_files += 1;
            let path = values_path(self.dir, meta.number);
            let no_cache = Arc::new(BlockCache::new(0));
            match ValueFile::open(self.io, &path, meta, self.keys.clone(), no_cache) {
                Ok(file) => {
                    self.values.insert(meta.number, file);
                }
                Err(e) => self.done.add(&e),
            }
        }
    }

    /// The tables of one level, each and against each other.
    fn level(&mut self, level: usize, metas: impl Iterator<Item = TableMeta>) {
        let mut bounds: Vec<Bounds> = metas.filter_map(|meta| self.table(meta)).collect();
        if level == 0 {
            return;
        }
        // As the version orders them: a table that ends with the tenant it shares comes first.
        bounds.sort_by(|a, b| {
            let tenants = |bounds: &Bounds| (bounds.meta.tenant_min, bounds.meta.tenant_max);
            tenants(a).cmp(&tenants(b)).then_with(|| a.first.cmp(&b.first))
        });
        for pair in bounds.windows(2) {
            let [left, right] = pair else { continue };
            let overlap = match left.meta.tenant_max.cmp(&right.meta.tenant_min) {
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Greater => true,
                std::cmp::Ordering::Equal => match (&left.end, &right.first) {
                    (Some(end), Some(first)) => end > first,
                    _ => false,
                },
            };
            if overlap {
                let path = table_path(self.dir, right.meta.number);
                let expected = format!("keys above those of table {:016x}", left.meta.number);
                let error = Error::corruption(&path, 0, "order of a level", expected, "keys that overlap");
                self.done.add(&error);
            }
        }
    }

    /// Opens the file anew and reads all of it. None if not even that was possible.
    fn table(&mut self, meta: TableMeta) -> Option<Bounds> {
        self.count(meta.bytes);
        self.done.tables += 1;
        let path = table_path(self.dir, meta.number);
        let no_cache = Arc::new(BlockCache::new(0));
        let table = match Table::open(self.io, &path, meta.clone(), self.keys.clone(), no_cache) {
            Ok(table) => table,
            Err(e) => {
                self.done.add(&e);
                return None;
            }
        };
        let done = &mut self.done;
        let checked = table.verify(&self.values, &mut |e| done.add(&e));
        done.blocks += checked.blocks;
        done.entries += checked.entries;
        done.values += checked.values;
        done.skipped += checked.skipped;
        Some(Bounds {
            meta,
            first: checked.first,
            end: checked.end,
        })
    }
}
