//! Limits and options. Defaults are the constants; `validate` rejects what cannot work.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::types::Durability;

/// Longest user key. Keys have at least one byte.
pub const KEY_BYTES_MAX: usize = 16 << 10;
/// Longest value. Empty values are allowed.
pub const VALUE_BYTES_MAX: usize = 64 << 20;
/// Largest batch: the sum of its keys and values and 16 bytes for each operation.
pub const BATCH_BYTES_MAX: usize = 128 << 20;
/// Longest tenant or keyspace name, in bytes of UTF-8. Names have at least one byte.
pub const NAME_BYTES_MAX: usize = 255;

/// Whether values of so many bytes and more may be told to go apart; 0: none do.
pub(crate) fn can_separate_from(bytes: usize) -> bool {
    bytes == 0 || (64..=VALUE_BYTES_MAX).contains(&bytes)
}

/// Longest [`Options::expiry_grace`].
const EXPIRY_GRACE_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// What a put may ask for besides: see [`Keyspace::put_with`](crate::Keyspace::put_with).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PutOptions {
    ttl: Option<Duration>,
}

impl PutOptions {
    /// Nothing besides: a plain put.
    pub fn new() -> PutOptions {
        PutOptions::default()
    }

    /// How long the value lives, in whole milliseconds, rounded up, from the moment the put is added to its batch.
    /// From its end on the key is absent. Not zero; what would end after the year 584,000,000 never does.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> PutOptions {
        self.ttl = Some(ttl);
        self
    }

    /// When what is put `now` expires, if it does.
    pub(crate) fn expires(&self, now: impl FnOnce() -> u64) -> Result<Option<u64>> {
        let Some(ttl) = self.ttl else { return Ok(None) };
        if ttl.is_zero() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "a time to live of nothing: delete the key",
            ));
        }
        let ms = u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Ok(Some(now().saturating_add(ms)))
    }
}

/// Who runs flushes and compactions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Background {
    /// A thread of the engine's own.
    #[default]
    Thread,
    /// The caller, by [`Engine::step`](crate::Engine::step): for simulation and tests.
    Manual,
}

/// How blocks of tables are compressed before they are sealed. Each block by itself: nothing is shared
/// between blocks, least of all between tenants.
///
/// Tables are read whatever they were written with: a change counts for those written from then on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all. The sizes of a tenant's blocks then say how much it wrote, and nothing of what.
    None,
    /// LZ4, where it saves an eighth of a block at least.
    #[default]
    Lz4,
}

/// Engine options. The first group changes what is promised, the second what it costs. An [`OnlineOption`] can be
/// changed while the engine runs, the others by reopening.
///
/// [`OnlineOption`]: crate::OnlineOption
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Durability of a write that does not choose its own.
    pub durability: Durability,
    /// How long a `Replicated` commit waits for the standby before it ends in `Unknown`.
    pub replicated_timeout: Duration,
    /// Who runs flushes and compactions.
    pub background: Background,
    /// How long a value that expired, or is past its keyspace's retention, may stay on the disk, unreadable, before
    /// it is written out of tables and log for its own sake; at most 10 years. Less: gone sooner; tables with values
    /// that expire are rewritten up to once in this time. See docs/guarantees.md, "Expiry" and "Retention".
    pub expiry_grace: Duration,

    /// Memtable size that starts a flush, 64 KiB to 1 GiB. More: fewer, larger tables; longer recovery.
    pub memtable_bytes: usize,
    /// Full memtables waiting for flush, 1 to 16; at one more, writers stop. They are slowed down from half of the
    /// memory on. Memory: `memtable_bytes` times (this + 1).
    pub immutable_memtables_max: usize,
    /// WAL segment size, 4 KiB to 4 GiB. Less: WAL space returns sooner; more files.
    pub segment_bytes: u64,
    /// Whether `Buffered` writes are copied into the log by way of a memory map, where the file system is ext4, XFS or
    /// tmpfs, instead of by a system call each: about a third faster. If then the disk fails under the log, the process
    /// may die by SIGBUS where it would get an error. Other durabilities open no map, but what falls into one that is
    /// open is copied into it before its sync; and creating a tenant writes one buffered record.
    pub map_log: bool,
    /// How far back from its end the log may be kept for standbys that are behind; recovery may need more, and gets it.
    /// Past it they take a base copy.
    pub wal_keep_bytes: u64,
    /// Target size of a table's block before compression, 256 B to 1 MiB.
    pub block_bytes: usize,
    /// Compression of blocks. `None`: larger files, and sizes that tell less (docs/guarantees.md).
    pub compression: Compression,
    /// Target size of a table's file, and of a value file, 64 KiB to 4 GiB.
    pub table_bytes: u64,
    /// Values of so many bytes and more are kept in value files, apart from the tree, so that compaction moves
    /// references to them: 64 B to 64 MiB, or 0 for none. Less: cheaper writes; a range reads such values one by one.
    /// Values that expire, and those of keyspaces with a retention, stay in the tree. Values that are in tables
    /// already move when those are compacted. A keyspace may have its own:
    /// [`set_separate_bytes`](crate::Tenant::set_separate_bytes).
    pub separate_bytes: usize,
    /// Level-0 tables that start a compaction, 2 to 64.
    pub level0_tables: usize,
    /// Level-0 tables at which writers stop for compaction, at least twice `level0_tables`; they are slowed down from
    /// about that on.
    pub level0_tables_stop: usize,
    /// Size of level 1, at least `table_bytes`; each further level is ten times larger.
    pub level1_bytes: u64,
    /// Threads that one compaction is divided among by ranges of keys, 1 to 64, where it is large enough for each to
    /// write a table. More: it ends sooner, with as many cores taken from reads and writes, and up to a table's worth of
    /// filters and some megabytes of memory for each. The default is half of the cores, at most 4.
    pub compaction_threads: usize,
    /// Plaintext cache of blocks, section heads and values apart, 0 to turn it off. Shortcuts into it take up to 1.4 % beside it.
    pub cache_bytes: u64,
    /// Filter bits per entry, 0 to turn filters off, at most 30. 10 gives 1 % false positives.
    pub filter_bits: usize,
}

/// At least one; more than a few would only be in each other's way at the disk.
fn half_of_the_cores() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, 4)
}

impl Default for Options {
    fn default() -> Options {
        Options {
            durability: Durability::Local,
            replicated_timeout: Duration::from_secs(10),
            background: Background::Thread,
            expiry_grace: Duration::from_secs(24 * 3600),
            memtable_bytes: 64 << 20,
            immutable_memtables_max: 2,
            segment_bytes: 64 << 20,
            map_log: true,
            wal_keep_bytes: 1 << 30,
            block_bytes: 4 << 10,
            compression: Compression::Lz4,
            table_bytes: 64 << 20,
            separate_bytes: 8 << 10,
            level0_tables: 4,
            level0_tables_stop: 28,
            level1_bytes: 256 << 20,
            compaction_threads: half_of_the_cores(),
            cache_bytes: 128 << 20,
            filter_bits: 10,
        }
    }
}

impl Options {
    /// Rejects values outside the documented ranges, naming the option.
    pub fn validate(&self) -> Result<()> {
        let checks = [
            (
                "memtable_bytes",
                (64 << 10..=1 << 30).contains(&self.memtable_bytes),
            ),
            (
                "immutable_memtables_max",
                (1..=16).contains(&self.immutable_memtables_max),
            ),
            ("segment_bytes", (4 << 10..=4 << 30).contains(&self.segment_bytes)),
            ("block_bytes", (256..=1 << 20).contains(&self.block_bytes)),
            ("table_bytes", (64 << 10..=4 << 30).contains(&self.table_bytes)),
            ("separate_bytes", can_separate_from(self.separate_bytes)),
            ("level0_tables", (2..=64).contains(&self.level0_tables)),
            (
                "level0_tables_stop",
                self.level0_tables_stop >= 2 * self.level0_tables,
            ),
            ("level1_bytes", self.level1_bytes >= self.table_bytes),
            ("compaction_threads", (1..=64).contains(&self.compaction_threads)),
            ("filter_bits", self.filter_bits <= 30),
            ("replicated_timeout", self.replicated_timeout > Duration::ZERO),
            ("expiry_grace", self.expiry_grace <= EXPIRY_GRACE_MAX),
        ];
        match checks.iter().find(|(_, ok)| !ok) {
            Some((name, _)) => Err(Error::new(
                ErrorKind::Invalid,
                format!("option {name} is outside its range"),
            )),
            None => Ok(()),
        }
    }

    /// Shrunk limits that make every rare path common: for simulation and tests.
    pub fn tiny() -> Options {
        Options {
            background: Background::Manual,
            memtable_bytes: 64 << 10,
            segment_bytes: 16 << 10,
            block_bytes: 256,
            table_bytes: 64 << 10,
            separate_bytes: 512,
            level0_tables: 2,
            level0_tables_stop: 4,
            level1_bytes: 128 << 10,
            compaction_threads: 2,
            cache_bytes: 256 << 10,
            wal_keep_bytes: 64 << 10,
            ..Options::default()
        }
    }
}
