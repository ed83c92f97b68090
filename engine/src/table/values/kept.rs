//! A separated value that the cache keeps, and the way to it past the cache's map.
//!
//! A table of [shortcuts](crate::table::slot) as large as the cache's share of it, found by a hash of file and offset:
//! the first value that comes to a place has it until the cache lets go of that value. Others are looked for in the
//! cache as ever, so that it holds no more than a number of values, however many there are. What a get of one of 16 KiB
//! costs is else a third the map (decision 0031).
//!
//! Invariants: a shortcut keeps no value, so that one that the cache drops, for want of room or with its tenant, is found
//! by nobody; what stands in a place is compared with what was asked for, tenant included.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::prefetch::Whereabouts;
use crate::table::piece_memory::{PieceMemory, taken};
use crate::table::slot::Slot;
use crate::types::TenantId;

/// There is a shortcut for so many bytes of the cache: 0.2 % of it, at 16 bytes each; with the heads of values that are
/// gone, which a shortcut holds back until it is another's, up to 1.4 %.
const CACHE_BYTES_EACH: u64 = 8 << 10;
const SHORTCUTS_MAX: u64 = 1 << 24;
/// What is fetched of a value that is found: more of it the processor fetches by itself, once it is read.
const FETCHED: usize = 64;

/// Where a value is in which file.
type Place = (u64, u64);

/// See the module.
pub(in crate::table) struct KeptValue {
    place: Place,
    tenant: TenantId,
    bytes: Bytes,
}

impl KeptValue {
    /// A copy of `value` in `memory`, which wipes it when nobody has it any more.
    pub fn new(place: Place, tenant: TenantId, value: &Bytes, memory: &PieceMemory) -> Arc<KeptValue> {
        Arc::new(KeptValue {
            place,
            tenant,
            bytes: memory.keep(value.clone()),
        })
    }

    pub fn is(&self, place: Place, tenant: TenantId) -> bool {
        (self.place, self.tenant) == (place, tenant)
    }

    pub fn memory(&self) -> usize {
        taken(self.bytes.len()) + size_of::<KeptValue>()
    }

    /// Its bytes. An owner of their own each time: to count one more in the value's memory waits for that memory, to make
    /// an owner for nothing.
    pub fn lend(self: Arc<Self>) -> Bytes {
        Bytes::from_owner(Lent(self))
    }
}

struct Lent(Arc<KeptValue>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

/// See the module.
pub(in crate::table) struct ValueShortcuts {
    count: usize,
    /// Made for the first value that is found in the cache.
    all: OnceLock<Box<[Shortcut]>>,
}

struct Shortcut {
    slot: Slot<KeptValue>,
    start: Whereabouts,
}

impl ValueShortcuts {
    /// For a cache of so many bytes.
    pub fn for_cache(bytes: u64) -> ValueShortcuts {
        ValueShortcuts {
            count: (bytes / CACHE_BYTES_EACH).min(SHORTCUTS_MAX) as usize,
            all: OnceLock::new(),
        }
    }

    /// The value, if there is a shortcut to it and it is not time to ask the cache, which `has_room` or not.
    pub fn get(&self, place: Place, tenant: TenantId, has_room: bool) -> Option<Arc<KeptValue>> {
        let shortcut = self.all.get()?.get(self.index(place))?;
        shortcut.start.prefetch();
        let value = shortcut.slot.get(has_room)?;
        value.is(place, tenant).then_some(value)
    }

    /// Has the value found by a shortcut from now on, if its place is free.
    pub fn remember(&self, value: &Arc<KeptValue>) {
        let empty = || Shortcut {
            slot: Slot::empty(),
            start: Whereabouts::default(),
        };
        let all = self
            .all
            .get_or_init(|| (0..self.count).map(|_| empty()).collect());
        if let Some(shortcut) = all.get(self.index(value.place)).filter(|s| !s.slot.is_filled()) {
            shortcut.slot.set(value);
            let bytes = &value.bytes;
            shortcut.start.set(bytes.get(..FETCHED).unwrap_or(bytes));
        }
    }

    fn index(&self, (file, offset): Place) -> usize {
        // Fibonacci hashing (Knuth, TAOCP 6.4) of both, then a share of the table: Lemire, "Fast random integer
        // generation in an interval" (2019).
        let mixed = (offset ^ file.rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((u128::from(mixed) * self.count as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::slot::start_counting;

    const TENANT: TenantId = TenantId(7);

    fn kept(place: Place, value: &'static [u8]) -> Arc<KeptValue> {
        let memory = PieceMemory::for_cache(0);
        KeptValue::new(place, TENANT, &Bytes::from_static(value), &memory)
    }

    #[test]
    fn a_kept_value_is_found_until_it_is_let_go_and_only_by_its_tenant_at_its_place() {
        start_counting();
        let shortcuts = ValueShortcuts::for_cache(CACHE_BYTES_EACH);
        assert!(shortcuts.get((1, 2), TENANT, true).is_none());
        let value = kept((1, 2), b"value");
        shortcuts.remember(&value);
        let found = |place, tenant| shortcuts.get(place, tenant, true).map(KeptValue::lend);
        assert_eq!(found((1, 2), TENANT).as_deref(), Some(&b"value"[..]));
        // There is one place: all are looked for in it.
        assert_eq!(found((2, 2), TENANT), None);
        assert_eq!(found((1, 3), TENANT), None);
        assert_eq!(found((1, 2), TenantId(8)), None);
        // What was lent is still there; who asks then finds nothing once that is gone as well.
        let lent = found((1, 2), TENANT);
        drop(value);
        assert_eq!(lent.as_deref(), Some(&b"value"[..]));
        drop(lent);
        assert_eq!(found((1, 2), TENANT), None);
    }

    #[test]
    fn a_place_is_the_first_values_until_that_is_gone() {
        start_counting();
        let shortcuts = ValueShortcuts::for_cache(CACHE_BYTES_EACH);
        let (first, second) = (kept((1, 2), b"first"), kept((3, 4), b"second"));
        shortcuts.remember(&first);
        shortcuts.remember(&second);
        let found = |place| shortcuts.get(place, TENANT, true).is_some();
        assert!(found((1, 2)) && !found((3, 4)));
        drop(first);
        shortcuts.remember(&second);
        assert!(!found((1, 2)) && found((3, 4)));
    }

    #[test]
    fn values_that_follow_one_another_come_to_places_of_their_own() {
        let shortcuts = ValueShortcuts::for_cache(1000 * CACHE_BYTES_EACH);
        for file in [1, 2, 1 << 33] {
            for distance in [4096, 16_413, 1 << 20] {
                let mut places: Vec<usize> = (0..500)
                    .map(|at| shortcuts.index((file, at * distance)))
                    .collect();
                places.sort_unstable();
                places.dedup();
                assert!(places.iter().all(|at| *at < 1000));
                // By chance it would be 393 of 500.
                assert!(places.len() > 300, "{} for {file} {distance}", places.len());
            }
        }
    }

    #[test]
    fn a_cache_of_nothing_has_no_shortcuts_and_takes_none() {
        let shortcuts = ValueShortcuts::for_cache(0);
        let value = kept((1, 2), b"value");
        shortcuts.remember(&value);
        assert!(shortcuts.get((1, 2), TENANT, true).is_none());
    }
}
