//! The engine's shared state, and the two things everyone does with it: take a view, publish a version.
//!
//! ```text
//! write  batch > commit > wal > memtable > flush > table > version > compaction
//! read   view = active memtable, immutable memtables, version; read at `visible` or a snapshot
//! ```
//!
//! Locks, in the order they are taken: `jobs` (one flush or compaction at a time), `catalog`, `commit`
//! (the log's tail and the next version), the turn that comes of it (`commit_lock`), `mem`, then leaves (`snapshots`,
//! `gate`, `pins`, ...).
//!
//! Invariants: entries enter the active memtable in the order of their versions, each batch in its turn; a view
//! is taken before the version it reads at, so whatever compaction dropped from it is older than
//! anything that read can ask for; `visible` never goes back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::commit_lock::CommitLock;
use crate::compaction::{Survey, keyspace_of};
use crate::error::{Error, ErrorKind, Result};
use crate::expiry::{self, ExpiryClock};
use crate::follower::Follower;
use crate::gate::Gate;
use crate::io::{DirLock, Io};
use crate::keystore::Keystore;
use crate::memtable::Memtable;
use crate::online::Online;
use crate::options::Options;
use crate::pace::Debt;
use crate::quota::{self, Accounts};
use crate::range_delete::order;
use crate::read::cursor::{EntryKind, Found};
use crate::read::range_cost::RangeCost;
use crate::seal::FileKeys;
use crate::settings::Settings;
use crate::stats::Counters;
use crate::status::Recovery;
use crate::table::BlockCache;
use crate::throttle::Throttle;
use crate::transaction::Watchers;
use crate::types::{Epoch, KeyspaceId, Lsn, SeqNo, TenantId};
use crate::version::{Version, VersionSet};
use crate::wal::Wal;
use crate::wal::format::{Op, OpKind};
use crate::wal::writer::Tail;

/// So many operations ahead of the one that is put down are expected.
const EXPECTED: usize = 8;

pub(crate) struct Inner {
    pub io: Io,
    pub dir: PathBuf,
    /// As opened with: for those that never change. The others are in `online`.
    pub options: Options,
    pub online: Online,
    pub keystore: Arc<Keystore>,
    pub keys: Arc<FileKeys>,
    pub cache: Arc<BlockCache>,
    pub versions: VersionSet,
    pub wal: Arc<Wal>,
    pub commit: CommitLock,
    pub mem: RwLock<MemState>,
    /// What reads read from: `mem` and the current version, put together again after each change of either.
    pub view: ArcSwap<View>,
    pub publishing: Mutex<()>,
    pub visible: AtomicU64,
    pub watchers: Watchers,
    /// What is set of tenants.
    pub settings: Settings,
    /// What tenants have in tables.
    pub accounts: Accounts,
    /// What time it is for values that expire.
    pub times: ExpiryClock,
    /// Earliest moment at which a value in the log expires, as far as it was written since the log was last begun
    /// anew for that; `NEVER` if none does.
    pub log_expires: AtomicU64,
    /// The same of tables, as background work last saw them.
    pub tables_expire: AtomicU64,
    /// When the last record was ordered that is applied, on a standby and while the log is replayed. `NEVER` on a node
    /// that orders.
    pub applied_time: AtomicU64,
    pub snapshots: Mutex<BTreeMap<SeqNo, usize>>,
    pub gate: Gate,
    /// Creating and deleting keyspaces.
    pub catalog: Mutex<()>,
    /// Keyspaces deleted since this process opened the database, and when: their handles are refused.
    pub dropped: RwLock<HashMap<(TenantId, KeyspaceId), SeqNo>>,
    /// Whether there are any; true before the deletion is visible.
    pub any_dropped: AtomicBool,
    pub pins: Arc<crate::pins::Pins>,
    pub jobs: Mutex<Survey>,
    pub counters: Counters,
    pub throttle: Throttle,
    pub background: Arc<Background>,
    pub lock: Mutex<Option<Box<dyn DirLock>>>,
    pub recovery: Recovery,
}

/// Under the commit lock.
pub(crate) struct CommitState {
    pub mode: Mode,
    pub tail: Tail,
    /// Newest version given out (primary) or received (standby).
    pub seqno: SeqNo,
    pub follower: Follower,
}

/// What commits are answered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Primary,
    Standby,
    /// A newer primary exists.
    Fenced(Epoch),
    /// Restored and not yet accepted.
    AwaitingAcceptance,
    Closed,
}

pub(crate) struct MemState {
    pub active: Arc<Memtable>,
    /// Full ones waiting for flush, oldest first.
    pub immutables: VecDeque<Immutable>,
}

#[derive(Clone)]
pub(crate) struct Immutable {
    pub memtable: Arc<Memtable>,
    /// It holds everything of the log up to here that no table holds.
    pub end: Lsn,
    /// Newest version inside.
    pub seqno: SeqNo,
}

/// What the background thread waits on; it holds no engine while it waits.
#[derive(Default)]
pub(crate) struct Background {
    pub state: Mutex<BackgroundState>,
    pub changed: Condvar,
}

#[derive(Default)]
pub(crate) struct BackgroundState {
    /// The directory is being released: no job starts after this.
    pub stop: bool,
    /// The database is closing: a compaction gives up.
    pub closing: bool,
    /// There may be something to do.
    pub wake: bool,
    /// The last job failed; writers that would have to wait for it get this instead.
    pub failed: Option<Error>,
}

/// What a handle remembers.
#[derive(Default)]
pub(crate) struct Seen {
    /// Up to which deletion, whoever's, its tenant was live. 0 = not asked yet.
    live: AtomicU64,
    /// Up to which change of a setting, whosever, its keyspace had no rule; 0 = up to the first.
    pub unruled: AtomicU64,
}

/// What a read reads from: pinned while it lives.
pub(crate) struct View {
    pub active: Arc<Memtable>,
    /// Newest first.
    pub immutables: Vec<Arc<Memtable>>,
    pub version: Arc<Version>,
    /// What background work is behind with, but for the active memtable.
    pub debt: Debt,
    /// What ranges paid for all in it that is not settled.
    pub range_cost: RangeCost,
}

impl View {
    /// - `paid`: what ranges paid that is not spent.
    pub fn new(mem: &RwLock<MemState>, versions: &VersionSet, options: &Options, paid: u64) -> View {
        let (active, immutables) = {
            let mem = mem.read();
            (
                mem.active.clone(),
                mem.immutables
                    .iter()
                    .rev()
                    .map(|i| i.memtable.clone())
                    .collect::<Vec<_>>(),
            )
        };
        // After the memtables: a flush in between puts entries in both, never in neither.
        let version = versions.current();
        let memory = immutables.iter().map(|memtable| memtable.bytes() as u64).sum();
        let debt = Debt::of(memory, &version, options);
        let most = RangeCost::most(memory.saturating_add(active.bytes() as u64), &version, options);
        View {
            active,
            immutables,
            version,
            debt,
            range_cost: RangeCost::new(paid.min(most), options),
        }
    }
}

impl Inner {
    /// What is there to read, without a lock. Short: who keeps it keeps an [`Arc`].
    pub fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// Makes a change of the memtables or of the version seen by reads. One that is late shows what was before,
    /// all of it; only a new active memtable must be seen before anything is inserted into it.
    pub fn publish_view(&self) {
        // Who comes last sees all changes before.
        let _one = self.publishing.lock();
        let paid = self.view().range_cost.paid();
        let view = View::new(&self.mem, &self.versions, &self.options, paid);
        self.view.store(Arc::new(view));
    }

    pub fn visible(&self) -> SeqNo {
        SeqNo(self.visible.load(Ordering::Acquire))
    }

    pub fn publish(&self, seqno: SeqNo) {
        // Before the look for who waits: they announce themselves before they look at it.
        self.visible.fetch_max(seqno.0, Ordering::SeqCst);
        self.watchers.tell();
    }

    /// Whether reads and writes of the tenant make sense.
    pub fn check_tenant(&self, tenant: TenantId) -> Result<()> {
        if self.keys.is_live(tenant) {
            Ok(())
        } else {
            Err(Error::new(
                ErrorKind::NotFound,
                format!("tenant {tenant} does not exist"),
            ))
        }
    }

    /// The same for a handle that asks often: looks again only after a tenant was deleted.
    #[inline]
    pub fn check_tenant_again(&self, tenant: TenantId, seen: &Seen) -> Result<()> {
        // First the count, then the look: a deletion in between shows in the next count.
        let losses = self.keystore.losses().saturating_add(1);
        if seen.live.load(Ordering::Relaxed) == losses {
            return Ok(());
        }
        self.check_tenant(tenant)?;
        seen.live.store(losses, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a handle need not look again at its tenant, and at its keyspace's rule, of which it had none.
    #[inline]
    pub fn is_unchanged(&self, seen: &Seen) -> bool {
        seen.live.load(Ordering::Relaxed) == self.keystore.losses().saturating_add(1)
            && seen.unruled.load(Ordering::Relaxed) == self.settings.newest().0
    }

    /// Whether a read at `at` finds the keyspace; None asks for a write, which comes after everything.
    #[inline]
    pub fn check_keyspace(&self, tenant: TenantId, keyspace: KeyspaceId, at: Option<SeqNo>) -> Result<()> {
        if !self.any_dropped.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.dropped.read().get(&(tenant, keyspace)) {
            Some(deletion) if at.is_none_or(|at| *deletion <= at) => Err(Error::new(
                ErrorKind::NotFound,
                format!("keyspace {keyspace} was deleted"),
            )),
            _ => Ok(()),
        }
    }

    /// Operations that will come into the active memtable, in a while.
    pub fn expect(&self, tenant: TenantId, ops: &[Op]) {
        let view = self.view();
        for op in ops.iter().take(EXPECTED) {
            view.active.expect(tenant, &op.key);
        }
    }

    /// Puts a record's operations into the active memtable. In log order: in the batch's turn, or under the commit lock,
    /// settled.
    pub fn insert(&self, tenant: TenantId, seqno: SeqNo, ops: Vec<Op>) {
        let view = self.view();
        view.active.count(tenant, ops.iter().map(quota::cost).sum());
        for op in &ops {
            if let Some(keyspace) = crate::catalog::drop_marker(op) {
                self.dropped.write().insert((tenant, keyspace), seqno);
                self.any_dropped.store(true, Ordering::Release);
            }
            if tenant == TenantId::SYSTEM
                && let Some(rule) = self.settings.apply(seqno, op)
            {
                // For what the log holds from before.
                let first = rule.ends_first().unwrap_or(expiry::NEVER);
                self.log_expires.fetch_min(first, Ordering::AcqRel);
            }
            // Also of one that its batch undoes: it is in the log.
            if let Some(at) = self.ends(tenant, op) {
                self.log_expires.fetch_min(at, Ordering::AcqRel);
            }
        }
        let (ops, deleted) = order::settle(ops);
        if !deleted.is_empty() {
            view.active.delete_ranges(tenant, deleted, seqno);
        }
        let mut ops = ops.into_iter();
        while let Some(op) = ops.next() {
            if let Some(soon) = ops.as_slice().get(EXPECTED) {
                view.active.expect(tenant, &soon.key);
            }
            if let OpKind::Entry(kind) = op.kind {
                view.active.insert(tenant, op.key, seqno, kind, op.value);
            }
        }
    }

    /// When an entry ends that carries a moment.
    fn ends(&self, tenant: TenantId, op: &Op) -> Option<u64> {
        let OpKind::Entry(kind) = op.kind else { return None };
        let rule = match kind {
            EntryKind::Dated => keyspace_of(&op.key).and_then(|id| self.settings.rule(tenant, id)),
            _ => None,
        };
        expiry::ends(rule.as_deref(), kind, &op.value)
    }

    /// Starts a new memtable if the active one is full (or `force` and not empty). As [`insert`](Inner::insert).
    pub fn rotate_memtable(&self, end: Lsn, seqno: SeqNo, force: bool) -> bool {
        let full = || self.view().active.bytes() >= self.options.memtable_bytes;
        if !force && !full() {
            return false;
        }
        // Nobody else inserts or rotates: it is still full.
        let mut mem = self.mem.write();
        if mem.active.is_empty() {
            return false;
        }
        let memtable = std::mem::replace(
            &mut mem.active,
            Arc::new(Memtable::new(self.options.memtable_bytes)),
        );
        mem.immutables.push_back(Immutable { memtable, end, seqno });
        drop(mem);
        self.publish_view();
        true
    }

    /// Newest version of a tree key at or below `at`, deletes included.
    pub fn find(&self, view: &View, tenant: TenantId, key: &[u8], at: SeqNo) -> Result<Option<Found>> {
        crate::read::get::find(view, tenant, key, at)
    }

    pub fn wake_background(&self) {
        self.background.state.lock().wake = true;
        self.background.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::{SimClock, SimFs, SimRng};
    use crate::keys::MemoryKeys;
    use crate::{Engine, TenantOptions};

    #[test]
    fn what_reads_are_shown_follows_every_rotation_flush_and_compaction() {
        let io = Io {
            vfs: Arc::new(SimFs::new()),
            clock: Arc::new(SimClock::new()),
            rng: Arc::new(SimRng::new(1)),
        };
        let builder = Engine::builder("/db").shared_keys(Arc::new(MemoryKeys::new()));
        let engine = builder.options(Options::tiny()).io(io).open().unwrap();
        let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
        let keyspace = tenant.keyspace("k").unwrap();
        let inner = engine.inner();
        let check = |what: &str| {
            let (shown, mem) = (inner.view(), inner.mem.read());
            assert!(Arc::ptr_eq(&shown.active, &mem.active), "{what}");
            let immutables = mem.immutables.iter().rev().map(|i| Arc::as_ptr(&i.memtable));
            assert!(shown.immutables.iter().map(Arc::as_ptr).eq(immutables), "{what}");
            assert!(Arc::ptr_eq(&shown.version, &inner.versions.current()), "{what}");
        };
        let (mut rotated, mut worked) = (0, 0);
        for i in 0..4000u32 {
            let before = Arc::as_ptr(&inner.view().active);
            keyspace.put(i.to_be_bytes(), [7; 100]).unwrap();
            rotated += usize::from(Arc::as_ptr(&inner.view().active) != before);
            check("after a put");
            if i % 20 == 0 && engine.step().unwrap() {
                worked += 1;
                check("after a job");
            }
        }
        assert!(rotated > 3 && worked > 3, "{rotated} {worked}");
    }
}
