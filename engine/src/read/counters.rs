//! How many reads there were, counted where nobody waits for anybody: a get takes less than half a microsecond, and
//! two threads that add to one number take a good part of that from each other.
//!
//! A few copies of each number, each in memory of its own; a thread always adds to the same one. Nothing is ordered by
//! them.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::stats::ReadStats;

/// Copies: more threads than that share some.
const SHARDS: usize = 32;

/// What readers did, since opening.
#[derive(Default)]
pub(crate) struct ReadCounters([Shard; SHARDS]);

/// As far apart as processors fetch memory.
#[derive(Default)]
#[repr(align(128))]
struct Shard {
    gets: AtomicU64,
    ranges: AtomicU64,
    pieces_read: AtomicU64,
    bytes_read: AtomicU64,
}

thread_local! {
    static SHARD: Cell<usize> = Cell::new(next_shard());
}

fn next_shard() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS
}

impl ReadCounters {
    fn add(&self, to: fn(&Shard) -> &AtomicU64, more: u64) {
        if let Some(shard) = self.0.get(SHARD.get()) {
            to(shard).fetch_add(more, Ordering::Relaxed);
        }
    }

    /// A key was looked up.
    pub fn got(&self) {
        self.add(|shard| &shard.gets, 1);
    }

    /// A range was begun.
    pub fn ranged(&self) {
        self.add(|shard| &shard.ranges, 1);
    }

    /// A piece was not in the cache.
    pub fn missed(&self) {
        self.add(|shard| &shard.pieces_read, 1);
    }

    /// So much was read from a file.
    pub fn read(&self, bytes: u64) {
        self.add(|shard| &shard.bytes_read, bytes);
    }

    /// Of all threads.
    pub fn stats(&self) -> ReadStats {
        let sum = |of: fn(&Shard) -> &AtomicU64| {
            let each = self.0.iter().map(|shard| of(shard).load(Ordering::Relaxed));
            each.sum()
        };
        ReadStats {
            gets: sum(|shard| &shard.gets),
            ranges: sum(|shard| &shard.ranges),
            pieces_read: sum(|shard| &shard.pieces_read),
            bytes_read: sum(|shard| &shard.bytes_read),
        }
    }
}
