//! The memtable: recent entries of all tenants, in memory, in the order of the tree.
//!
//! ```text
//! items   every entry, written once: key and value in shared chunks        (append only)
//! tree    their order by (tenant, tree key, SeqNo descending): a B+-tree   (one writer)
//! newest  the newest of each key, by a hash: most gets need nothing else   (one writer)
//! range deletes, apart from them: see `range_delete`
//! ```
//!
//! Inserts come one at a time (the commit path has them in turns; a lock here makes sure). Readers
//! take no lock and wait for nobody: a reader that meets a change begins again, and only one that met
//! too many waits for the writer once. Nothing is ever removed: a full memtable becomes immutable, is
//! flushed to tables, and dropped whole.
//!
//! Invariants: an insert is complete when it returns; a cursor or `get` sees every insert that
//! returned before it was positioned, and may or may not see later ones. The commit path makes a
//! SeqNo readable only after its inserts returned, so that a reader at a snapshot misses nothing.
//!
//! Memory: `bytes` counts every item, node, bucket, key and value, and what is lost at the ends of chunks; not
//! counted is what is allocated ahead, at most one chunk of each, 64 KiB together.

mod arena;
mod cursor;
mod items;
mod newest;
mod range_deletes;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicUsize};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::hooks::{planted, rare};
use crate::range_delete::Fragments;
use crate::range_delete::order::Ranges;
use crate::read::cursor::{Cursor, EntryKind, Found};
use crate::types::{SeqNo, TenantId};
use items::{Item, ItemWriter, Items, Place};
use newest::{Known, Newest};
use range_deletes::RangeDeletes;
use tree::{Busy, Run, Tree, TreeWriter};

/// How often a reader begins again before it waits for the writer.
const TRIES: usize = 64;

/// Recent entries of all tenants, in memory.
pub(crate) struct Memtable {
    items: Items,
    tree: Tree,
    newest: Newest,
    bytes: AtomicUsize,
    /// Keys and values of each tenant.
    tenants: Mutex<HashMap<TenantId, u64>>,
    range_deletes: RangeDeletes,
    writer: Mutex<(ItemWriter, TreeWriter)>,
}

impl Memtable {
    /// An empty one, which is full at about `bytes`.
    pub(crate) fn new(bytes: usize) -> Memtable {
        Memtable {
            items: Items::new(),
            tree: Tree::new(),
            newest: Newest::new(bytes),
            bytes: AtomicUsize::new(0),
            tenants: Mutex::default(),
            range_deletes: RangeDeletes::default(),
            writer: Mutex::default(),
        }
    }

    /// Adds a version of a tree key. Safe from several threads. The same place twice: the later
    /// insert wins (replay may bring a batch again).
    ///
    /// Key and value are copied; a value above 64 KiB is kept as it is, and keeps its batch in memory.
    pub(crate) fn insert(&self, tenant: TenantId, key: Bytes, seqno: SeqNo, kind: EntryKind, value: Bytes) {
        let place = Place::new(tenant, &key, seqno);
        let mut writer = self.writer.lock();
        let (items, tree) = &mut *writer;
        let pushed = self.items.push(items, (tenant, seqno, kind), &key, value);
        let inserted = pushed.and_then(|(item, memory)| {
            let nodes = self.tree.insert(tree, &self.items, &place, item)?;
            let buckets = self.newest.set(newest::hash(tenant, &key), seqno, item);
            Some(memory + nodes + buckets)
        });
        match inserted {
            // A statistic: no other memory is ordered by it.
            Some(memory) => self.bytes.fetch_add(memory, atomic::Ordering::Relaxed),
            // 2^32 of them take 256 GiB; a memtable is full at 1 GiB.
            None => unreachable!("a memtable has room for another item"),
        };
    }

    /// An entry with this key comes soon: has fetched what nobody has near, so that nobody waits for it then.
    pub(crate) fn expect(&self, tenant: TenantId, key: &[u8]) {
        self.newest.prefetch(newest::hash(tenant, key));
    }

    /// Deletes ranges of tree keys at one version: what has a lower one.
    pub(crate) fn delete_ranges(&self, tenant: TenantId, ranges: Ranges, seqno: SeqNo) {
        let _one = self.writer.lock();
        self.range_deletes.add(tenant, ranges, seqno);
    }

    /// Whether there are any range deletes, of whatever tenant.
    pub(crate) fn deletes_ranges(&self) -> bool {
        !self.range_deletes.is_empty()
    }

    /// The newest range delete of `key` at or below `at`.
    pub(crate) fn deleted(&self, tenant: TenantId, key: &[u8], at: SeqNo) -> Option<SeqNo> {
        self.range_deletes.newest(tenant, key, at)
    }

    /// All range deletes of one tenant, in several lists.
    pub(crate) fn range_deletes(&self, tenant: TenantId) -> Vec<Arc<Fragments>> {
        self.range_deletes.lists(tenant)
    }

    /// The newest version of `key` (a tree key) at or below `at`, deletes included, range deletes not.
    pub(crate) fn get(&self, tenant: TenantId, key: &[u8], at: SeqNo) -> Option<Found> {
        if self.tree.is_empty() {
            return None;
        }
        let is_asked = |item: &&Item| item.tenant == tenant && item.key() == key;
        match self.newest.get(newest::hash(tenant, key)) {
            Known::Absent if !planted!(MemtableAnswerUnchecked) => return None,
            Known::Item(index) => {
                let newest = self.item(index).filter(is_asked);
                let visible = |item: &&Item| item.seqno <= at || planted!(NewestItemForAll);
                if let Some(item) = newest.filter(visible) {
                    return Some(item.found());
                }
                rare!(NewestItemNotAsked);
            }
            Known::Absent | Known::Nothing => {}
        }
        let item = self.item(self.from(&Place::new(tenant, key, at))?.get(0)?)?;
        (is_asked(&item) || planted!(MemtableAnswerUnchecked)).then(|| item.found())
    }

    /// The first items at and after `place`: at least one, unless there is none.
    fn from(&self, place: &Place<'_>) -> Option<Run> {
        let look = || {
            self.tree
                .look(&self.items, Some(place), false, |leaf, at| leaf.items_from(at))
        };
        let run = self.settled(look)?;
        if run.len == 0 { self.after(&run) } else { Some(run) }
    }

    /// The leaf that holds the last item before `place` (None: of all), and where in it; None if there is none.
    fn before(&self, place: Option<&Place<'_>>) -> Option<(Run, usize)> {
        let look = || {
            self.tree
                .look(&self.items, place, true, |leaf, at| (leaf.items_from(0), at))
        };
        let (run, at) = self.settled(look)?;
        Some((run, at.checked_sub(1)?))
    }

    /// The items of the leaf after a run's. No leaf is ever empty.
    fn after(&self, run: &Run) -> Option<Run> {
        (run.right != 0).then(|| self.settled(|| self.tree.leaf(run.right)))
    }

    fn item(&self, index: u32) -> Option<&Item> {
        self.items.get(index)
    }

    /// Looks until no change was in the way.
    fn settled<R>(&self, look: impl Fn() -> Result<R, Busy>) -> R {
        for _ in 0..TRIES {
            if let Ok(found) = look() {
                return found;
            }
            std::hint::spin_loop();
        }
        let _nothing_changes = self.writer.lock();
        loop {
            if let Ok(found) = look() {
                return found;
            }
        }
    }

    /// How much memory it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(atomic::Ordering::Relaxed) + self.range_deletes.memory()
    }

    /// So many bytes of keys and values come in.
    pub(crate) fn count(&self, tenant: TenantId, bytes: u64) {
        *self.tenants.lock().entry(tenant).or_default() += bytes;
    }

    /// Keys and values of a tenant that were counted, in bytes.
    pub(crate) fn bytes_of(&self, tenant: TenantId) -> u64 {
        self.tenants.lock().get(&tenant).copied().unwrap_or(0)
    }

    /// Whether nothing was inserted.
    pub(crate) fn is_empty(&self) -> bool {
        self.tree.is_empty() && self.range_deletes.is_empty()
    }

    /// A cursor over one tenant's entries; keeps the memtable alive.
    pub(crate) fn cursor(self: &Arc<Self>, tenant: TenantId) -> Box<dyn Cursor> {
        Box::new(cursor::MemtableCursor::new(self.clone(), tenant))
    }

    /// The tenants with entries or range deletes, ascending. One search each.
    pub(crate) fn tenants(&self) -> Vec<TenantId> {
        let mut tenants: BTreeSet<_> = self.range_deletes.tenants().into_iter().collect();
        let mut next = Some(TenantId(0));
        while let Some(tenant) = next {
            let run = self.from(&Place::new(tenant, &[], SeqNo::MAX));
            let item = run.and_then(|run| self.item(run.get(0)?));
            next = item.and_then(|item| {
                tenants.insert(item.tenant);
                item.tenant.0.checked_add(1).map(TenantId)
            });
        }
        tenants.into_iter().collect()
    }
}
