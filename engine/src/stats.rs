//! What an operator asks at three in the morning: how much there is where, what was done, and what is in the
//! way. Sizes are of this moment; counts are since opening. Nothing here carries a key, a value or a name.
//!
//! Counters are relaxed atomics that nobody orders anything by, and are written where other work costs far
//! more: under the commit lock, at a sync, at a job's end, beside a read of a file. Of what readers find in memory only
//! its number is counted (`read::counters`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::background::Done;
use crate::inner::Inner;
use crate::pace::Pressure;
use crate::read::cursor::EntryKind;
use crate::types::{Lsn, SeqNo};
use crate::wal::format::{Op, OpKind};

/// See [`Engine::stats`](crate::Engine::stats).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Tables, level by level; the last level is the oldest data.
    pub levels: Vec<LevelStats>,
    /// Values that stand apart from tables.
    pub values: ValueStats,
    /// Sealed bytes of destroyed tenants in tables and value files, until compaction drops them.
    pub dead_bytes: u64,
    /// Memtables.
    pub memtables: MemtableStats,
    /// Plaintext blocks, indexes, filters and separated values in memory: bytes held, and allowed.
    pub cache_bytes: u64,
    /// See `cache_bytes`.
    pub cache_bytes_max: u64,
    /// Reads since opening, and what they had to read from files.
    pub reads: ReadStats,
    /// The write-ahead log.
    pub wal: WalStats,
    /// Memtables written to tables.
    pub flushes: JobStats,
    /// Tables merged into tables.
    pub compactions: JobStats,
    /// Whether a flush or compaction is going on now.
    pub job_running: bool,
    /// Why the last flush or compaction failed, if it did: writers will be held up, then refused.
    pub job_failure: Option<String>,
    /// Commits since opening, and the operations in them.
    pub writes: WriteStats,
    /// What all writers together may write in a second, in bytes, while they are slowed down; None: any.
    pub write_rate: Option<u64>,
    /// Why they are slowed down.
    pub pressure: Option<Pressure>,
    /// Versions that live snapshots read at; compaction keeps what they see.
    pub snapshots: u64,
    /// The oldest of these.
    pub oldest_snapshot: Option<SeqNo>,
    /// Newest visible version: how far the oldest snapshot is behind.
    pub visible: SeqNo,
    /// Live tenants.
    pub tenants: u64,
    /// Why the engine no longer writes, if so: reopen it.
    pub read_only: Option<String>,
}

/// One level of tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct LevelStats {
    /// Tables.
    pub tables: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Versions in them, deletes included.
    pub entries: u64,
    /// Deletes.
    pub deletes: u64,
}

/// The value files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ValueStats {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Values in them.
    pub values: u64,
    /// Sealed bytes that no table needs any more, until compaction empties their file.
    pub garbage_bytes: u64,
}

/// The memtables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct MemtableStats {
    /// Bytes of the one that takes writes.
    pub active_bytes: u64,
    /// How many wait for flush.
    pub immutables: u64,
    /// Their bytes.
    pub immutable_bytes: u64,
    /// At most this in all before writers stop.
    pub bytes_max: u64,
}

/// The write-ahead log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct WalStats {
    /// Segments on disk.
    pub segments: u64,
    /// Oldest position kept.
    pub start: Lsn,
    /// Everything before this is in tables.
    pub flushed: Lsn,
    /// End on stable storage.
    pub durable: Lsn,
    /// End as written.
    pub written: Lsn,
    /// Syncs by commits and cursors since opening; commits by syncs is the size of a group.
    pub syncs: u64,
}

/// Reads since opening, of callers. What flush, compaction and verifying read past the cache does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ReadStats {
    /// Keys that were looked up.
    pub gets: u64,
    /// Ranges that were begun, from either end.
    pub ranges: u64,
    /// Blocks, indexes with their filters, and separated values that were not in the cache. By gets and ranges: how
    /// well the cache serves.
    pub pieces_read: u64,
    /// Their sealed bytes, with what was read ahead.
    pub bytes_read: u64,
}

/// Flushes or compactions since opening.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct JobStats {
    /// That were completed.
    pub count: u64,
    /// That failed; they are tried again.
    pub failed: u64,
    /// Bytes of tables read: 0 for flushes, and for tables that only changed their level.
    pub bytes_read: u64,
    /// Bytes of tables and value files written.
    pub bytes_written: u64,
    /// Time they took, with failed ones.
    pub time: Duration,
}

/// Writes since opening, of this node itself: not what a standby received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct WriteStats {
    /// Batches that were ordered, acknowledged or not.
    pub commits: u64,
    /// Puts in them.
    pub puts: u64,
    /// Deletes in them; a range delete counts once.
    pub deletes: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Times that a writer was slowed down because flush or compaction was behind.
    pub delays: u64,
    /// How long, added up.
    pub delayed: DelayStats,
    /// Times that a writer had to stop until flush or compaction had caught up.
    pub stalls: u64,
    /// How long writers were stopped, added up.
    pub stalled: Duration,
}

/// How long writers were slowed down, by why: all of a delay counts for what it began for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct DelayStats {
    /// Memtables waited for flush.
    pub memtables: Duration,
    /// Level 0 waited for compaction.
    pub level0: Duration,
    /// Lower levels were far over their size.
    pub levels: Duration,
}

impl DelayStats {
    /// Of all causes.
    pub fn total(&self) -> Duration {
        self.memtables + self.level0 + self.levels
    }
}

/// The counters behind it.
#[derive(Default)]
pub(crate) struct Counters {
    commits: AtomicU64,
    puts: AtomicU64,
    deletes: AtomicU64,
    bytes: AtomicU64,
    delays: AtomicU64,
    delayed_nanos: [AtomicU64; 3],
    stalls: AtomicU64,
    stalled_nanos: AtomicU64,
    pub flushes: JobCounters,
    pub compactions: JobCounters,
}

/// Of one kind of job.
#[derive(Default)]
pub(crate) struct JobCounters {
    count: AtomicU64,
    failed: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    nanos: AtomicU64,
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Counters {
    /// A batch was ordered.
    pub fn committed(&self, ops: &[Op]) {
        let is_put = |op: &&Op| !matches!(op.kind, OpKind::DeleteRange | OpKind::Entry(EntryKind::Delete));
        let puts = ops.iter().filter(is_put).count() as u64;
        let bytes: usize = ops.iter().map(|op| op.key.len() - 4 + op.value.len()).sum();
        add(&self.commits, 1);
        add(&self.puts, puts);
        add(&self.deletes, ops.len() as u64 - puts);
        add(&self.bytes, bytes as u64);
    }

    /// A writer begins to be slowed down.
    pub fn delays(&self) {
        add(&self.delays, 1);
    }

    /// It was, for this long.
    pub fn delayed(&self, why: Pressure, time: Duration) {
        let [memtables, level0, levels] = &self.delayed_nanos;
        let counter = match why {
            Pressure::Memtables => memtables,
            Pressure::Level0 => level0,
            Pressure::Levels => levels,
        };
        add(counter, nanos(time));
    }

    /// A writer had to stop.
    pub fn stalled(&self, time: Duration) {
        add(&self.stalls, 1);
        add(&self.stalled_nanos, nanos(time));
    }

    fn writes(&self) -> WriteStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [memtables, level0, levels] = self.delayed_nanos.each_ref();
        let time = |counter| Duration::from_nanos(get(counter));
        WriteStats {
            delays: get(&self.delays),
            delayed: DelayStats {
                memtables: time(memtables),
                level0: time(level0),
                levels: time(levels),
            },
            commits: get(&self.commits),
            puts: get(&self.puts),
            deletes: get(&self.deletes),
            bytes: get(&self.bytes),
            stalls: get(&self.stalls),
            stalled: Duration::from_nanos(get(&self.stalled_nanos)),
        }
    }
}

impl JobCounters {
    /// A job ended; None: it failed.
    pub fn ended(&self, done: Option<Done>, time: Duration) {
        add(&self.nanos, nanos(time));
        match done {
            None => add(&self.failed, 1),
            Some(done) => {
                add(&self.count, 1);
                add(&self.bytes_read, done.bytes_read);
                add(&self.bytes_written, done.bytes_written);
            }
        }
    }

    fn stats(&self) -> JobStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        JobStats {
            count: get(&self.count),
            failed: get(&self.failed),
            bytes_read: get(&self.bytes_read),
            bytes_written: get(&self.bytes_written),
            time: Duration::from_nanos(get(&self.nanos)),
        }
    }
}

/// See [`Engine::stats`](crate::Engine::stats).
pub(crate) fn stats(inner: &Inner) -> Stats {
    let (version, state) = inner.versions.view();
    let mut dead_bytes = 0;
    let mut levels = Vec::with_capacity(version.levels.len());
    for tables in &version.levels {
        let mut level = LevelStats::default();
        for table in tables {
            level.tables += 1;
            level.bytes += table.meta().bytes;
            level.entries += table.meta().entries;
            for run in table.tenants() {
                level.deletes += run.deletes;
                if !inner.keys.is_live(run.tenant) {
                    dead_bytes += run.bytes;
                }
            }
        }
        levels.push(level);
    }
    let referred = version.referred();
    let mut values = ValueStats::default();
    for (number, file) in &version.values {
        values.files += 1;
        values.bytes += file.meta().bytes;
        values.values += file.meta().values;
        let needed = referred.get(number).copied().unwrap_or(0);
        let has: u64 = file.runs().iter().map(|run| run.bytes).sum();
        values.garbage_bytes += has.saturating_sub(needed);
        let dead = file.runs().iter().filter(|run| !inner.keys.is_live(run.tenant));
        dead_bytes += dead.map(|run| run.bytes).sum::<u64>();
    }
    let memtables = {
        let mem = inner.mem.read();
        let most = inner.options.immutable_memtables_max as u64 + 1;
        MemtableStats {
            active_bytes: mem.active.bytes() as u64,
            immutables: mem.immutables.len() as u64,
            immutable_bytes: mem.immutables.iter().map(|i| i.memtable.bytes() as u64).sum(),
            bytes_max: most.saturating_mul(inner.options.memtable_bytes as u64),
        }
    };
    let cache = inner.cache.usage();
    let (snapshots, oldest_snapshot) = {
        let snapshots = inner.snapshots.lock();
        (snapshots.len() as u64, snapshots.keys().next().copied())
    };
    let job_failure = inner
        .background
        .state
        .lock()
        .failed
        .as_ref()
        .map(|e| e.to_string());
    let slowed = inner.write_rate();
    Stats {
        levels,
        values,
        dead_bytes,
        memtables,
        cache_bytes: cache.bytes,
        cache_bytes_max: cache.bytes_max,
        reads: inner.cache.reads.stats(),
        wal: WalStats {
            segments: inner.wal.segments().len() as u64,
            start: inner.wal.start(),
            flushed: state.flushed,
            durable: inner.wal.durable(),
            written: inner.wal.written(),
            syncs: inner.wal.syncs(),
        },
        flushes: inner.counters.flushes.stats(),
        compactions: inner.counters.compactions.stats(),
        job_running: inner.jobs.is_locked(),
        job_failure,
        writes: inner.counters.writes(),
        write_rate: slowed.map(|(rate, _)| rate),
        pressure: slowed.map(|(_, why)| why),
        snapshots,
        oldest_snapshot,
        visible: inner.visible(),
        tenants: inner.keystore.len() as u64,
        read_only: inner.wal.failure(),
    }
}
