//! Which blocks were missed lately: one that is missed a second time gets a place in a full cache, one that is missed
//! once is read and forgotten.
//!
//! Keeping a block costs more than looking into it: it is checked whole, something else is evicted, memory of another
//! thread's is freed. Where data is much larger than the cache, most blocks that come would go before anybody asks
//! for them again. (The doorkeeper of TinyLFU: Einziger, Friedman, Manes, ACM TOS 2017; there it counts, here it
//! remembers.)
//!
//! A table of marks, about as many as the cache has room for blocks; a mark is overwritten by whatever falls onto its
//! place. So of data that is ten times the cache, with all of it asked for alike, one block in ten gets a place; and a block
//! that is missed more often than those with which it shares its place, the second time. Two blocks with one mark are taken for one:
//! one in 2^32, and all that follows is that a block is kept. Threads may overwrite each other's marks: likewise.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::hooks::rare;

/// One mark for so many bytes of cache: a block of the usual size.
const BLOCK_BYTES: u64 = 4 << 10;
const MARKS_MAX: u64 = 4 << 20;

pub(super) struct Doorkeeper {
    /// A power of two of them.
    marks: Box<[AtomicU32]>,
    /// The cache had to let go of something.
    full: AtomicBool,
}

impl Doorkeeper {
    /// Of a cache of so many bytes.
    pub(super) fn new(cache_bytes: u64) -> Doorkeeper {
        let marks = 1 << (cache_bytes / BLOCK_BYTES).clamp(64, MARKS_MAX).ilog2();
        Doorkeeper {
            marks: (0..marks).map(|_| AtomicU32::new(0)).collect(),
            full: AtomicBool::new(false),
        }
    }

    pub(super) fn cache_is_full(&self) {
        // Readers of the flag share its line of memory: it is written once.
        if !self.is_cache_full() {
            self.full.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_cache_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// It got larger: until it is full again, everything is admitted.
    pub(super) fn cache_has_room(&self) {
        self.full.store(false, Ordering::Relaxed);
    }

    /// Whether what was just missed at (`file`, `offset`) is to be kept; it is remembered.
    pub(super) fn admits(&self, (file, offset): (u64, u64)) -> bool {
        if !self.is_cache_full() {
            return true;
        }
        let mixed = xxh3_64_with_seed(&offset.to_le_bytes(), file);
        let mark = (mixed >> 32) as u32 | 1;
        let Some(place) = self.marks.get(mixed as usize & (self.marks.len() - 1)) else {
            return true;
        };
        if place.load(Ordering::Relaxed) == mark {
            rare!(BlockMissedTwice);
            return true;
        }
        place.store(mark, Ordering::Relaxed);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_admitted_until_the_cache_is_full_and_then_what_is_missed_twice() {
        let keeper = Doorkeeper::new(1 << 20);
        assert!(keeper.admits((1, 0)) && keeper.admits((1, 4096)));
        keeper.cache_is_full();
        assert!(!keeper.admits((1, 0)));
        assert!(!keeper.admits((2, 0)), "another file's block is another block");
        assert!(keeper.admits((1, 0)) && keeper.admits((2, 0)));
        keeper.cache_has_room();
        assert!(keeper.admits((3, 0)));
    }

    #[test]
    fn of_blocks_that_are_all_missed_in_turn_a_full_cache_gets_few_and_of_few_all() {
        let keeper = Doorkeeper::new(1 << 20);
        keeper.cache_is_full();
        let round = |blocks: u64| (0..blocks).filter(|i| keeper.admits((7, i * 4096))).count();
        // 256 blocks have room.
        round(10_000);
        assert!(round(10_000) < 100);
        round(64);
        assert!(round(64) > 32);
    }
}
