//! Opening a database: lock, keys, manifest, log, role; in that order, each trusting only those before.
//!
//! ```text
//! <dir>/LOCK        held while open
//!       CREATING    present only while a new database is being made: nothing was acknowledged yet
//!       INCOMPLETE  present only while a base copy or a restore fills the directory: refuses to open
//!       CURRENT     names the manifest; made last, so a directory without it is not a database
//!       manifest-*  keystore/  wal/  tables/
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};

use crate::background;
use crate::commit_lock::CommitLock;
use crate::compaction::Survey;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::expiry::{ExpiryClock, NEVER};
use crate::follower::Follower;
use crate::gate::Gate;
use crate::hooks::{planted, rare};
use crate::inner::{Background, CommitState, Inner, MemState, Mode, View};
use crate::io::{DirLock, Io, durable};
use crate::keys::KeyProvider;
use crate::keystore::Keystore;
use crate::memtable::Memtable;
use crate::online::Online;
use crate::options::Options;
use crate::pins::Pins;
use crate::quota::Accounts;
use crate::recovery::{self, Scan};
use crate::seal::FileKeys;
use crate::settings::Settings;
use crate::stats::Counters;
use crate::status::{Recovery, Role};
use crate::table::BlockCache;
use crate::throttle::Throttle;
use crate::transaction::Watchers;
use crate::types::{EpochStart, Lsn};
use crate::verify::Verified;
use crate::version::{Edit, ManifestState, NodeState, Version, VersionSet};
use crate::wal::format::OpKind;
use crate::wal::writer::Tail;
use crate::wal::{Wal, segment_name};

pub(crate) const CURRENT: &str = "CURRENT";
pub(crate) const INCOMPLETE: &str = "INCOMPLETE";
const CREATING: &str = "CREATING";
const LOCK: &str = "LOCK";
pub(crate) const KEYSTORE_DIR: &str = "keystore";
pub(crate) const WAL_DIR: &str = "wal";
pub(crate) const TABLES_DIR: &str = "tables";

/// Derived file keys kept ready: one for each (file, tenant) in use.
const FILE_KEYS_MAX: usize = 16 << 10;

/// Opens an engine: [`Engine::builder`].
pub struct Builder {
    path: PathBuf,
    provider: Option<Arc<dyn KeyProvider>>,
    options: Options,
    role: Role,
    io: Io,
    create: bool,
}

impl Builder {
    pub(crate) fn new(path: &Path) -> Builder {
        Builder {
            path: path.to_path_buf(),
            provider: None,
            options: Options::default(),
            role: Role::Primary,
            io: Io::os(),
            create: true,
        }
    }

    /// Where key-encryption keys live. Required.
    #[must_use]
    pub fn keys(self, provider: impl KeyProvider + 'static) -> Builder {
        self.shared_keys(Arc::new(provider))
    }

    /// The same, shared with others.
    #[must_use]
    pub fn shared_keys(mut self, provider: Arc<dyn KeyProvider>) -> Builder {
        self.provider = Some(provider);
        self
    }

    /// Options; the default is [`Options::default`].
    #[must_use]
    pub fn options(mut self, options: Options) -> Builder {
        self.options = options;
        self
    }

    /// Role to open in; the default is primary. Opening as primary takes a new epoch.
    #[must_use]
    pub fn role(mut self, role: Role) -> Builder {
        self.role = role;
        self
    }

    /// The machine; the default is the real one.
    #[must_use]
    pub fn io(mut self, io: Io) -> Builder {
        self.io = io;
        self
    }

    /// Whether to create the database where there is none; the default is yes.
    #[must_use]
    pub fn create_if_missing(mut self, yes: bool) -> Builder {
        self.create = yes;
        self
    }

    /// Opens the database, recovering what a crash left.
    ///
    /// - Cost: the keystore, the manifest, each table's directory, and the log since the last flush.
    /// - Errors: `Locked` (another process has it), `KeyRefused`, `Corruption` naming the file,
    ///   `Unsupported` (newer format), `NotFound` (nothing there and not to be created), `Invalid`.
    pub fn open(self) -> Result<Engine> {
        self.options.validate()?;
        let Some(provider) = self.provider else {
            return Err(Error::new(ErrorKind::Invalid, "no key provider was given"));
        };
        let (io, dir) = (self.io, self.path);
        if !self.create && !has(&io, &dir.join(CURRENT))? && !has(&io, &dir.join(KEYSTORE_DIR))? {
            return Err(Error::new(ErrorKind::NotFound, "there is no database here").at(&dir));
        }
        durable::create_dir_synced(&io, &dir)?;
        let lock = lock(&io, &dir)?;
        if has(&io, &dir.join(INCOMPLETE))? {
            rare!(UnfinishedCopyRefused);
            let text = "an unfinished base copy or restore: finish it or start it again";
            return Err(Error::new(ErrorKind::Invalid, text).at(&dir));
        }
        let opened = if is_fresh(&io, &dir)? {
            if !self.create {
                return Err(Error::new(ErrorKind::NotFound, "there is no database here").at(&dir));
            }
            if self.role == Role::Standby {
                let text = "there is no database here: a standby starts from a base copy";
                return Err(Error::new(ErrorKind::NotFound, text).at(&dir));
            }
            create(&io, &dir, provider, &self.options)?
        } else {
            open(&io, &dir, provider, &self.options)?
        };
        start(io, dir, self.options, self.role, lock, opened)
    }
}

impl Builder {
    /// Verifies the database without opening it: nothing is recovered, written or removed, and damage does not
    /// end it. See [`Verified`].
    ///
    /// - Cost: every byte is read and decrypted once. Memory: a few MiB and the key bounds of a level's tables.
    /// - Errors: `Locked` (another process has it: ask [`Engine::verify`] there), `KeyRefused`, `NotFound`,
    ///   `Invalid` (an unfinished copy). What cannot be read is a [`Damage`](crate::Damage).
    pub fn verify(self) -> Result<Verified> {
        let Some(provider) = self.provider else {
            return Err(Error::new(ErrorKind::Invalid, "no key provider was given"));
        };
        let (io, dir) = (self.io, self.path);
        let current = has(&io, &dir.join(CURRENT))?;
        let begun = has(&io, &dir.join(CREATING))? || !has(&io, &dir.join(KEYSTORE_DIR))?;
        if !current && begun {
            return Err(Error::new(ErrorKind::NotFound, "there is no database here").at(&dir));
        }
        let lock = lock(&io, &dir)?;
        if has(&io, &dir.join(INCOMPLETE))? {
            let text = "an unfinished base copy or restore: finish it or start it again";
            return Err(Error::new(ErrorKind::Invalid, text).at(&dir));
        }
        let verified = crate::verify::verify_closed(&io, &dir, provider);
        drop(lock);
        verified
    }
}

struct Opened {
    keystore: Arc<Keystore>,
    keys: Arc<FileKeys>,
    cache: Arc<BlockCache>,
    versions: VersionSet,
}

fn has(io: &Io, path: &Path) -> Result<bool> {
    io.vfs
        .exists(path)
        .map_err(|e| Error::io("looking for a file", path, e))
}

fn lock(io: &Io, dir: &Path) -> Result<Box<dyn DirLock>> {
    let path = dir.join(LOCK);
    io.vfs.lock(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => {
            rare!(SecondOpenerRefused);
            Error::new(ErrorKind::Locked, "another process has the database open")
                .at(dir)
                .with_source(e)
        }
        _ => Error::io("locking the database", &path, e),
    })
}

/// Whether a database is to be made here. Anything that looks like the rest of one, without its
/// `CURRENT`, is damage and never overwritten.
fn is_fresh(io: &Io, dir: &Path) -> Result<bool> {
    if has(io, &dir.join(CURRENT))? {
        return Ok(false);
    }
    if has(io, &dir.join(CREATING))? {
        // A crash in the middle of creation: nothing was ever acknowledged here.
        rare!(CreationBegunAgain);
        crate::base_copy::wipe(io, dir, &[LOCK, CREATING])?;
        return Ok(true);
    }
    let entries = io
        .vfs
        .list(dir)
        .map_err(|e| Error::io("listing the database", dir, e))?;
    match entries.iter().find(|e| e.name != LOCK) {
        None => Ok(true),
        Some(stray) => {
            rare!(CurrentMissing);
            let found = format!("none, beside {}", stray.name);
            Err(Error::corruption(
                &dir.join(CURRENT),
                0,
                "database",
                "a CURRENT file",
                found,
            ))
        }
    }
}

fn caches(keystore: &Arc<Keystore>, options: &Options) -> (Arc<FileKeys>, Arc<BlockCache>) {
    (
        Arc::new(FileKeys::new(keystore.clone(), FILE_KEYS_MAX)),
        Arc::new(BlockCache::new(options.cache_bytes)),
    )
}

fn create(io: &Io, dir: &Path, provider: Arc<dyn KeyProvider>, options: &Options) -> Result<Opened> {
    let marker = dir.join(CREATING);
    if !has(io, &marker)? {
        durable::create_synced(io, &marker)?;
    }
    for sub in [WAL_DIR, TABLES_DIR] {
        let path = dir.join(sub);
        io.vfs
            .create_dir_all(&path)
            .map_err(|e| Error::io("creating a directory", &path, e))?;
    }
    let keystore = Arc::new(Keystore::create(&dir.join(KEYSTORE_DIR), io, provider, None)?);
    let (keys, cache) = caches(&keystore, options);
    let mut database_id = [0; 16];
    io.rng
        .fill(&mut database_id)
        .map_err(|e| Error::io("drawing random bytes", dir, e))?;
    let state = ManifestState {
        database_id,
        state: NodeState::Serving,
        ..ManifestState::default()
    };
    let versions = VersionSet::create(dir, io, keys.clone(), cache.clone(), state)?;
    io.vfs
        .sync_dir(dir)
        .map_err(|e| Error::io("sync of the database directory", dir, e))?;
    durable::remove_synced(io, &marker)?;
    Ok(Opened {
        keystore,
        keys,
        cache,
        versions,
    })
}

fn open(io: &Io, dir: &Path, provider: Arc<dyn KeyProvider>, options: &Options) -> Result<Opened> {
    let marker = dir.join(CREATING);
    if has(io, &marker)? {
        durable::remove_synced(io, &marker)?;
    }
    let keystore = Arc::new(Keystore::open(&dir.join(KEYSTORE_DIR), io, provider)?);
    let (keys, cache) = caches(&keystore, options);
    let versions = VersionSet::open(dir, io, keys.clone(), cache.clone())?;
    check_tenants(dir, &keystore, &versions)?;
    Ok(Opened {
        keystore,
        keys,
        cache,
        versions,
    })
}

/// The keystore must be at least as new as tables and manifest: an older one would give their tenants' ids away again.
pub(crate) fn check_tenants(dir: &Path, keystore: &Keystore, versions: &VersionSet) -> Result<()> {
    let version = versions.current();
    let newest = version
        .levels
        .iter()
        .flatten()
        .map(|table| table.meta().tenant_max.0)
        .max();
    // The manifest knows tenants without entries, too.
    let newest = newest.max(versions.state().newest_tenant());
    match newest {
        Some(newest) if newest >= keystore.next_tenant() => {
            rare!(OlderKeystoreRefused);
            let expected = format!("one that knows tenant {newest}");
            let found = format!("one that ends before tenant {}", keystore.next_tenant());
            Err(Error::corruption(
                &dir.join(KEYSTORE_DIR),
                0,
                "keystore",
                expected,
                found,
            ))
        }
        _ => Ok(()),
    }
}

/// Recovers the log, takes the role, starts background work.
fn start(
    io: Io,
    dir: PathBuf,
    options: Options,
    role: Role,
    lock: Box<dyn DirLock>,
    opened: Opened,
) -> Result<Engine> {
    let Opened {
        keystore,
        keys,
        cache,
        versions,
    } = opened;
    let wal_dir = dir.join(WAL_DIR);
    let state = versions.state();
    let epoch_start = state.epochs.last().map_or(Lsn::ZERO, |e| e.start);
    let reach = state.reach.max(state.flushed).max(epoch_start);
    let own_watermarks = state.state != NodeState::Following;
    let scan = recovery::scan(&io, &keys, &wal_dir, state.flushed, reach, own_watermarks)?;
    scan.cut(&io, &wal_dir)?;
    let seqno = state.seqno.max(scan.seqno);
    let wal = Wal::new(
        &io,
        &wal_dir,
        keys.clone(),
        (options.segment_bytes, options.map_log),
        scan.end,
        scan.segments.clone(),
    );
    let tail = Tail::new(scan.end, scan.chain, scan.epoch);
    let recovery = Recovery {
        records: 0,
        cut_bytes: scan.cut_bytes,
        clean: scan.clean,
    };
    let mem = RwLock::new(MemState {
        active: Arc::new(Memtable::new(options.memtable_bytes)),
        immutables: VecDeque::new(),
    });
    let times = ExpiryClock::new(io.clock.clone());
    let mut inner = Inner {
        view: ArcSwap::from_pointee(View::new(&mem, &versions, &options, 0)),
        publishing: Mutex::new(()),
        io,
        dir,
        online: Online::new(&options),
        options,
        keystore,
        keys,
        cache,
        versions,
        wal: Arc::new(wal),
        commit: CommitLock::new(CommitState {
            mode: Mode::Closed,
            tail,
            seqno: if planted!(SequenceReused) {
                state.seqno
            } else {
                seqno
            },
            follower: Follower::new(scan.end_of_log(), seqno, None, false),
        }),
        mem,
        visible: AtomicU64::new(seqno.0),
        watchers: Watchers::default(),
        settings: Settings::default(),
        accounts: Accounts::default(),
        // What the last process left in the log may have expired long ago: nothing tells.
        log_expires: AtomicU64::new(times.now()),
        applied_time: AtomicU64::new(0),
        tables_expire: AtomicU64::new(NEVER),
        times,
        snapshots: Mutex::new(BTreeMap::new()),
        gate: Gate::new(),
        catalog: Mutex::new(()),
        dropped: RwLock::new(HashMap::new()),
        any_dropped: AtomicBool::new(false),
        pins: Arc::new(Pins::default()),
        jobs: Mutex::new(Survey::default()),
        counters: Counters::default(),
        throttle: Throttle::default(),
        background: Arc::new(Background::default()),
        lock: Mutex::new(Some(lock)),
        recovery,
    };
    let is_live = |tenant| inner.keys.is_live(tenant);
    inner
        .accounts
        .follow(&Version::default(), &inner.versions.current());
    if role == Role::Primary || !planted!(StandbyForgetsSettings) {
        inner.settings.load(&inner.view(), &inner.times, is_live)?;
    }
    inner.recovery.records = replay(&inner, &scan, state.flushed, role)?;
    if role == Role::Primary {
        inner.applied_to(NEVER);
    }
    inner.settings.forget(|tenant| !inner.keys.is_live(tenant));
    take_role(&inner, &scan, role)?;
    inner.publish_view();
    let inner = Arc::new(inner);
    background::start(&inner)?;
    Ok(Engine::new(inner))
}

/// Refills the memtable, within its limit.
fn replay(inner: &Inner, scan: &Scan, flushed: Lsn, role: Role) -> Result<u64> {
    scan.replay(&inner.io, &inner.keys, flushed, |end, seqno, time, sections| {
        for (tenant, mut ops) in sections {
            if role == Role::Standby && planted!(StandbyReplaysNoRangeDeletes) {
                ops.retain(|op| op.kind != OpKind::DeleteRange);
            }
            inner.insert(tenant, seqno, ops);
        }
        // What is still to come may hold a longer retention, on whatever node.
        inner.applied_to(time);
        if inner.rotate_memtable(end, seqno, false) {
            rare!(FlushedDuringReplay);
            inner.flush_immutables()?;
        }
        Ok(())
    })
}

fn take_role(inner: &Inner, scan: &Scan, role: Role) -> Result<()> {
    let mut commit = inner.commit.lock();
    let commit = &mut *commit;
    let state = inner.versions.state();
    match role {
        Role::Standby => {
            let newest = scan.newest.as_ref().map(|header| {
                (
                    inner.wal.dir.join(segment_name(Lsn(header.number))),
                    header.clone(),
                )
            });
            if let Some((_, header)) = &newest {
                inner
                    .wal
                    .resume_segment_verbatim(&mut commit.tail, header.clone())?;
            }
            let following = state.state == NodeState::Following;
            // All of it was made durable a moment ago: from now on damage there is damage.
            let reach = (following && state.reach < scan.end).then_some(scan.end);
            // What was given out here may not be what its primary gave out.
            let tenants = (state.tenants > 0).then_some(0);
            if reach.is_some() || tenants.is_some() {
                inner.versions.log_and_apply(Edit {
                    reach,
                    tenants,
                    ..Edit::default()
                })?;
            }
            commit.follower = Follower::new(scan.end_of_log(), commit.seqno, newest, following);
            commit.mode = Mode::Standby;
        }
        Role::Primary => {
            if state.state == NodeState::Following {
                let text = "this database follows a primary: open it as a standby, and promote it";
                return Err(Error::new(ErrorKind::NotPrimary, text).at(&inner.dir));
            }
            if let Some(by) = state.fenced_by {
                rare!(OpenedFenced);
                commit.mode = Mode::Fenced(by);
                return Ok(());
            }
            let newest = state.highest_epoch.max(scan.epoch);
            let Some(epoch) = newest.reopened() else {
                let text =
                    format!("epoch {newest} is the last of its term: promote a standby, or restore a copy");
                return Err(Error::new(ErrorKind::Invalid, text).at(&inner.dir));
            };
            let begin = EpochStart {
                epoch,
                start: scan.end,
                chain: scan.chain,
            };
            inner.versions.log_and_apply(Edit {
                epoch: Some(begin),
                tenants: Some(inner.keystore.next_tenant()),
                ..Edit::default()
            })?;
            commit.tail.epoch = epoch;
            match &scan.newest {
                Some(header) if planted!(SegmentReused) => inner
                    .wal
                    .resume_segment_verbatim(&mut commit.tail, header.clone())?,
                _ => inner.wal.start_segment(&mut commit.tail)?,
            }
            inner.gate.begin(epoch);
            commit.mode = match state.state {
                NodeState::Serving | NodeState::Following => Mode::Primary,
                NodeState::AwaitingAcceptance => Mode::AwaitingAcceptance,
            };
        }
    }
    Ok(())
}
