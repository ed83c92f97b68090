//! The memtable: recent entries of all tenants, in memory, in the order of the tree.
//!
//! A lock-free skip list keyed by (tenant, tree key, SeqNo descending). Writers insert from several
//! threads; readers never wait. Nothing is ever removed: a full memtable becomes immutable, is
//! flushed to tables, and dropped whole.
//!
//! Each key carries its first 16 bytes as a number, so that most comparisons on the way down touch no
//! memory but the node's own.
//!
//! Invariants: an insert is complete when it returns; a cursor or `get` sees every insert that
//! returned before it was positioned, and may or may not see later ones. The commit path makes a
//! SeqNo readable only after its inserts returned, so that a reader at a snapshot misses nothing.

mod cursor;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicUsize};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;

use crate::read::cursor::{Cursor, Entry, EntryKind};
use crate::types::{SeqNo, TenantId};

/// What an entry takes beside its key and value: node, tower, two handles.
const ENTRY_BYTES: usize = 176;

/// What a place in the order is made of.
#[derive(Clone, Copy)]
struct Parts<'a> {
    tenant: u64,
    prefix: u128,
    key: &'a [u8],
    seqno: u64,
}

impl<'a> Parts<'a> {
    fn new(tenant: TenantId, key: &'a [u8], seqno: SeqNo) -> Parts<'a> {
        Parts {
            tenant: tenant.0,
            prefix: prefix(key),
            key,
            seqno: seqno.0,
        }
    }

    fn order(&self, other: &Parts<'_>) -> Ordering {
        self.tenant
            .cmp(&other.tenant)
            .then(self.prefix.cmp(&other.prefix))
            .then_with(|| self.key.cmp(other.key))
            .then(other.seqno.cmp(&self.seqno))
    }
}

/// The first 16 bytes, padded with zeroes, as a number that orders like them.
fn prefix(key: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let len = key.len().min(16);
    if let (Some(to), Some(from)) = (bytes.get_mut(..len), key.get(..len)) {
        to.copy_from_slice(from);
    }
    u128::from_be_bytes(bytes)
}

/// A place in the order: what lookups and nodes have in common, so that a lookup need not own a key.
trait Place {
    fn parts(&self) -> Parts<'_>;
}

impl Place for Parts<'_> {
    fn parts(&self) -> Parts<'_> {
        *self
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Place + '_ {}

impl PartialOrd for dyn Place + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Place + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().order(&other.parts())
    }
}

/// The key of a node.
struct Key {
    tenant: TenantId,
    prefix: u128,
    seqno: SeqNo,
    key: Bytes,
}

impl Place for Key {
    fn parts(&self) -> Parts<'_> {
        Parts {
            tenant: self.tenant.0,
            prefix: self.prefix,
            key: &self.key,
            seqno: self.seqno.0,
        }
    }
}

impl<'a> Borrow<dyn Place + 'a> for Key {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().order(&other.parts())
    }
}

/// The value of a node.
struct Version {
    kind: EntryKind,
    value: Bytes,
}

type Node<'a> = crossbeam_skiplist::map::Entry<'a, Key, Version>;

fn entry(node: &Node<'_>) -> Entry {
    let (key, version) = (node.key(), node.value());
    Entry {
        key: key.key.clone(),
        seqno: key.seqno,
        kind: version.kind,
        value: version.value.clone(),
    }
}

/// Recent entries of all tenants, in memory.
#[derive(Default)]
pub(crate) struct Memtable {
    map: SkipMap<Key, Version>,
    bytes: AtomicUsize,
}

impl Memtable {
    /// An empty one.
    pub(crate) fn new() -> Memtable {
        Memtable::default()
    }

    /// Adds a version of a tree key. Safe from several threads. The same place twice: the later
    /// insert wins (replay may bring a batch again).
    ///
    /// Key and value are kept as they are: slices of one batch keep the batch in memory.
    pub(crate) fn insert(&self, tenant: TenantId, key: Bytes, seqno: SeqNo, kind: EntryKind, value: Bytes) {
        let bytes = key.len() + value.len() + ENTRY_BYTES;
        let key = Key {
            tenant,
            prefix: prefix(&key),
            seqno,
            key,
        };
        self.map.insert(key, Version { kind, value });
        // A statistic: no other memory is ordered by it.
        self.bytes.fetch_add(bytes, atomic::Ordering::Relaxed);
    }

    /// The newest version of `key` (a tree key) at or below `at`, deletes included.
    pub(crate) fn get(&self, tenant: TenantId, key: &[u8], at: SeqNo) -> Option<Entry> {
        let node = self.lower(Parts::new(tenant, key, at), true)?;
        let found = node.key();
        (found.tenant == tenant && found.key == key).then(|| entry(&node))
    }

    /// The first node at (if `inclusive`) or after a place.
    fn lower(&self, place: Parts<'_>, inclusive: bool) -> Option<Node<'_>> {
        let place: &dyn Place = &place;
        self.map.lower_bound(if inclusive {
            Bound::Included(place)
        } else {
            Bound::Excluded(place)
        })
    }

    /// The last node before a place.
    fn before(&self, place: Parts<'_>) -> Option<Node<'_>> {
        let place: &dyn Place = &place;
        self.map.upper_bound(Bound::Excluded(place))
    }

    /// About how much memory it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(atomic::Ordering::Relaxed)
    }

    /// Whether nothing was inserted.
    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// A cursor over one tenant's entries; keeps the memtable alive.
    pub(crate) fn cursor(self: &Arc<Self>, tenant: TenantId) -> Box<dyn Cursor> {
        Box::new(cursor::MemtableCursor::new(self.clone(), tenant))
    }

    /// The tenants with entries, ascending. One search each.
    pub(crate) fn tenants(&self) -> Vec<TenantId> {
        let mut tenants = Vec::new();
        let mut next = self.map.front().map(|node| node.key().tenant);
        while let Some(tenant) = next {
            tenants.push(tenant);
            let after = tenant.0.checked_add(1).map(TenantId);
            next = after.and_then(|after| {
                self.lower(Parts::new(after, &[], SeqNo::MAX), true)
                    .map(|node| node.key().tenant)
            });
        }
        tenants
    }
}
