//! The newest item of each key, by a hash of tenant and key: what a get asks before it goes down the tree.
//!
//! ```text
//! bucket   64 bytes, a line of memory: sixteen slots
//!   slot     mark (8 bits of the hash) | index of the item + 1 (24 bits); 0: empty
//! ```
//!
//! Down the tree of a full memtable a get touches some ten lines of memory that nobody has near; here it touches one, and
//! mostly that says that the key is not in the memtable at all. There is room for as many keys as can come into a
//! memtable of its size, and a key that finds its bucket full is left to the tree. (RocksDB has a Bloom filter for this,
//! `memtable_whole_key_filtering`: it says no as well as this, and a yes costs the whole way down.) Decision 0028.
//!
//! Invariants: one writer at a time; slots are filled in order and never emptied; a key has at most one, of the item
//! that came last; so that where a bucket has an empty slot, a key that is in none of its slots is not in the memtable.
//! That the item that came last is the newest holds while versions come in order: if ever they do not, or an item cannot
//! be named in a slot, nothing is answered any more. Two keys with one bucket and mark take turns with one slot: who
//! asks compares the key, and goes down the tree if it is another.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::arena::Arena;
use crate::hooks::{planted, rare};
use crate::prefetch::prefetch;
use crate::types::{SeqNo, TenantId};

const SLOTS: usize = 16;
/// Made together: 4 KiB.
const CHUNK: usize = 64;
/// No entry takes less of a memtable, so that there is a slot for each.
const ENTRY_BYTES: usize = 128;

/// A line of memory.
#[derive(Default)]
#[repr(align(64))]
struct Bucket([AtomicU32; SLOTS]);

/// Of a slot, what names the item.
const INDEX_BITS: u32 = 24;
const INDEX: u32 = (1 << INDEX_BITS) - 1;

/// What is known of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    /// It is not in the memtable.
    Absent,
    /// If it is the key of this item, that is the newest; otherwise nothing is known.
    Item(u32),
    Nothing,
}

pub(super) struct Newest {
    buckets: Arena<Bucket, CHUNK>,
    /// A power of two less one.
    mask: u32,
    /// The newest version that came, for the writer.
    last: AtomicU64,
    /// A version came after a newer one, or could not be named.
    out_of_order: AtomicBool,
}

pub(super) fn hash(tenant: TenantId, key: &[u8]) -> u32 {
    // Its upper bits are the mark, its lower ones name the bucket.
    (xxh3_64_with_seed(key, tenant.0) >> 32) as u32
}

impl Newest {
    /// Of a memtable that is full at so many bytes.
    pub(super) fn new(memtable_bytes: usize) -> Newest {
        let buckets = (memtable_bytes / (ENTRY_BYTES * SLOTS)).clamp(1, 1 << INDEX_BITS);
        Newest {
            buckets: Arena::new(),
            mask: (1 << buckets.ilog2()) - 1,
            last: AtomicU64::new(0),
            out_of_order: AtomicBool::new(false),
        }
    }

    /// The item is of the key with that hash, and came last. Returns the memory that this took.
    pub(super) fn set(&self, hash: u32, seqno: SeqNo, item: u32) -> usize {
        if seqno.0 < self.last.load(Relaxed) {
            // Before anybody can have heard that it is in.
            self.out_of_order.store(true, Relaxed);
        }
        self.last.store(seqno.0, Relaxed);
        let at = hash & self.mask;
        let memory = match self.buckets.get(at) {
            Some(_) => 0,
            None => CHUNK * size_of::<Bucket>(),
        };
        let value = item.checked_add(1).filter(|value| *value <= INDEX);
        let (Some(bucket), Some(value)) = (self.buckets.make(at), value) else {
            // More items than a memtable has room for: this one cannot be named.
            self.out_of_order.store(true, Relaxed);
            return memory;
        };
        let marked = hash & !INDEX;
        for slot in &bucket.0 {
            let there = slot.load(Relaxed);
            if there == 0 || there & !INDEX == marked {
                if there == 0 || !planted!(NewestItemStays) {
                    // Whoever finds an index finds what it names.
                    slot.store(marked | value, Release);
                }
                return memory;
            }
        }
        rare!(NewestItemHasNoSlot);
        memory
    }

    /// Has what `set` and `get` look at fetched.
    pub(super) fn prefetch(&self, hash: u32) {
        if let Some(bucket) = self.buckets.get(hash & self.mask) {
            prefetch(bucket);
        }
    }

    pub(super) fn get(&self, hash: u32) -> Known {
        if self.out_of_order.load(Relaxed) {
            return Known::Nothing;
        }
        let Some(bucket) = self.buckets.get(hash & self.mask) else {
            return Known::Absent;
        };
        for slot in &bucket.0 {
            let there = slot.load(Acquire);
            match (there & INDEX).checked_sub(1) {
                None => return Known::Absent,
                Some(item) if there & !INDEX == hash & !INDEX => return Known::Item(item),
                Some(_) => {}
            }
        }
        Known::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_item_that_came_last_and_one_that_never_came_is_absent() {
        let newest = Newest::new(1 << 20);
        let buckets = newest.mask as usize + 1;
        assert_eq!(buckets, 512);
        assert_eq!(newest.get(7), Known::Absent);
        assert_eq!(newest.set(7, SeqNo(1), 0), CHUNK * 64, "a chunk was made");
        assert_eq!(newest.set(8, SeqNo(1), 1), 0, "in the same");
        assert_eq!(newest.set(7, SeqNo(2), 2), 0);
        assert_eq!((newest.get(7), newest.get(8)), (Known::Item(2), Known::Item(1)));
        // Another of the same bucket.
        assert_eq!(newest.get(7 + (1 << INDEX_BITS)), Known::Absent);
    }

    #[test]
    fn a_key_that_found_its_bucket_full_is_not_taken_for_absent() {
        let newest = Newest::new(1 << 20);
        let hash = |key: u32| 5 + (key << INDEX_BITS);
        for key in 0..SLOTS as u32 {
            assert_eq!(newest.get(hash(key)), Known::Absent);
            newest.set(hash(key), SeqNo(1), key);
        }
        newest.set(hash(100), SeqNo(1), 100);
        assert_eq!(newest.get(hash(100)), Known::Nothing);
        assert_eq!(newest.get(hash(101)), Known::Nothing);
        assert_eq!(newest.get(hash(3)), Known::Item(3));
        newest.set(hash(3), SeqNo(2), 200);
        assert_eq!(newest.get(hash(3)), Known::Item(200));
    }

    #[test]
    fn a_version_after_a_newer_one_ends_all_answers() {
        let newest = Newest::new(1 << 20);
        newest.set(7, SeqNo(5), 0);
        newest.set(7, SeqNo(5), 1);
        assert_eq!(newest.get(7), Known::Item(1));
        newest.set(8, SeqNo(4), 2);
        assert_eq!((newest.get(7), newest.get(9)), (Known::Nothing, Known::Nothing));
    }

    #[test]
    fn the_smallest_memtable_has_one_bucket() {
        for bytes in [0, 1, 4000] {
            assert_eq!(Newest::new(bytes).mask, 0);
        }
        assert_eq!(Newest::new(64 << 20).mask, (1 << 15) - 1);
    }
}
