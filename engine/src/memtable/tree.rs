//! The order of a memtable: a B+-tree of atomics that one writer changes while others read.
//!
//! A node holds up to 32 slots in order; a slot is a place's tenant and sixteen digits of its key as
//! numbers, the index of the item that has the rest, and above the leaves the child that begins there.
//! The digits begin behind what all keys between the node's bounds have in common, so that most
//! comparisons on the way down touch nothing but the node, however long that is. Which slots have the key of the slot
//! before them is noted beside, so that who reads past the versions of a key touches none of them.
//!
//! Reading is optimistic: a node carries a version that is odd while it is changed. A reader notes it,
//! reads, and begins again if it is another one then; before it leaves a node for a child it notes the
//! child's version and checks its own again, so that it never takes a child for a part of the order that
//! a split has moved. What it reads in between may be torn, and is harmless: every index that was ever
//! in a slot names an item or a node that stays (`arena`).
//!
//! Invariants: one writer at a time; a node is never emptied, removed or merged; slot 0 above the leaves
//! stands for everything before slot 1; the first `skip` bytes of every key that can be looked for in a
//! node, or be in it, are the same, and of one tenant if there are any; everything in `right` and its
//! subtree is above everything here; a node that changes is odd before anything in it changes, and all
//! nodes of a split until it is done.

use std::cmp::Ordering as Order;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

use super::arena::Arena;
use super::items::{Items, Place};
use crate::prefetch::prefetch;
use crate::read::digits::{common, sixteen};

pub(super) const SLOTS: usize = 32;
/// What stays behind when a full node is split at its end: keys that come in order leave full nodes
/// behind, keys that come backwards leave room.
const KEPT_AT_END: usize = 28;
/// More levels than indexes of 32 bits can fill: inner nodes have at least four children.
const HEIGHT_MAX: usize = 20;

#[derive(Default)]
struct Slot {
    tenant: AtomicU64,
    high: AtomicU64,
    low: AtomicU64,
    item: AtomicU32,
    child: AtomicU32,
}

/// What a slot points to.
#[derive(Clone, Copy)]
struct Target {
    item: u32,
    child: u32,
}

impl Slot {
    fn target(&self) -> Target {
        Target {
            item: self.item.load(Acquire),
            child: self.child.load(Acquire),
        }
    }

    fn set(&self, tenant: u64, (high, low): (u64, u64), target: Target) {
        self.tenant.store(tenant, Relaxed);
        self.high.store(high, Relaxed);
        self.low.store(low, Relaxed);
        // Whoever finds an index finds what it names.
        self.item.store(target.item, Release);
        self.child.store(target.child, Release);
    }

    fn copy(&self, from: &Slot) {
        let digits = (from.high.load(Relaxed), from.low.load(Relaxed));
        self.set(from.tenant.load(Relaxed), digits, from.target());
    }

    /// How the slot compares to `place`, whose digits are given.
    fn order(&self, items: &Items, place: &Place<'_>, (high, low): (u64, u64)) -> Order {
        let order = self.tenant.load(Relaxed).cmp(&place.tenant);
        let order = order.then_with(|| self.high.load(Relaxed).cmp(&high));
        let order = order.then_with(|| self.low.load(Relaxed).cmp(&low));
        order.then_with(|| match items.get(self.item.load(Acquire)) {
            Some(item) => item.order(place),
            None => Order::Equal,
        })
    }
}

#[derive(Default)]
pub(super) struct Node {
    /// Odd while it is changed.
    version: AtomicU32,
    len: AtomicU32,
    /// The next node of the level; 0 = none: the first node is nobody's.
    right: AtomicU32,
    /// Where in their keys the digits of its slots begin.
    skip: AtomicU32,
    /// 1: nothing before slot 0 belongs here. 0: it is the first node of its level.
    bounded: AtomicU32,
    /// A bit for each slot: it has tenant and key of the slot before. Not known of slot 0.
    repeats: AtomicU32,
    slots: [Slot; SLOTS],
}

impl Node {
    fn slot(&self, at: usize) -> Option<&Slot> {
        self.slots.get(at)
    }

    /// Has all lines of it fetched that a search may look at: they come side by side, where a search by halves would wait for
    /// one after the other.
    fn prefetch(&self) {
        for slot in self.slots.iter().step_by(2) {
            prefetch(slot);
        }
    }

    fn skip(&self) -> usize {
        self.skip.load(Relaxed) as usize
    }

    fn len(&self) -> usize {
        (self.len.load(Relaxed) as usize).min(SLOTS)
    }

    /// How many slots come before `place` (None: the end of all), or at it if `through`.
    fn rank(&self, items: &Items, place: Option<&Place<'_>>, through: bool) -> usize {
        let slots = self.slots.get(..self.len()).unwrap_or_default();
        let Some(place) = place else { return slots.len() };
        let digits = sixteen(place.key, self.skip());
        let before = |slot: &Slot| match slot.order(items, place, digits) {
            Order::Less => true,
            Order::Equal => through,
            Order::Greater => false,
        };
        // Keys that come in order belong at the very end.
        if self.right.load(Relaxed) == 0 && slots.last().is_some_and(before) {
            return slots.len();
        }
        slots.partition_point(before)
    }

    /// The slot of the child that `place` belongs to; of the one before, if `before` and a child begins
    /// exactly there.
    fn child_at(&self, items: &Items, place: Option<&Place<'_>>, before: bool) -> usize {
        self.rank(items, place, !before).saturating_sub(1)
    }

    /// The version to compare with later; None while it is changed.
    fn begin_read(&self) -> Option<u32> {
        let version = self.version.load(Acquire);
        version.is_multiple_of(2).then_some(version)
    }

    /// Whether nothing has changed since `version` was noted.
    fn unchanged(&self, version: u32) -> bool {
        fence(Acquire);
        self.version.load(Relaxed) == version
    }

    fn begin_change(&self) {
        self.version.fetch_add(1, Relaxed);
        fence(Release);
    }

    fn end_change(&self) {
        self.version.fetch_add(1, Release);
    }

    /// Puts what points to `target` at `at`, moving what is there. The node has room.
    fn put(&self, items: &Items, at: usize, target: Target) -> Option<()> {
        let item = items.get(target.item)?;
        let len = self.len();
        for to in (at + 1..=len).rev() {
            self.slot(to)?.copy(self.slot(to - 1)?);
        }
        self.slot(at)?
            .set(item.tenant.0, sixteen(item.key(), self.skip()), target);
        self.len.store(len as u32 + 1, Relaxed);
        let (known, before) = (self.repeats.load(Relaxed), (1 << at) - 1);
        let mut repeats = known & before | (known & !before) << 1;
        for beside in [at, at + 1].into_iter().filter(|beside| *beside <= len) {
            let bit = 1 << beside;
            repeats = match self.is_repeated(items, beside) {
                Some(true) => repeats | bit,
                _ => repeats & !bit,
            };
        }
        self.repeats.store(repeats, Relaxed);
        Some(())
    }

    /// Whether slot `at` has the key of the slot before.
    fn is_repeated(&self, items: &Items, at: usize) -> Option<bool> {
        let (before, slot) = (self.slot(at.checked_sub(1)?)?, self.slot(at)?);
        if slot.low.load(Relaxed) != before.low.load(Relaxed)
            || slot.high.load(Relaxed) != before.high.load(Relaxed)
        {
            return Some(false);
        }
        let before = items.get(before.item.load(Relaxed))?;
        let item = items.get(slot.item.load(Relaxed))?;
        Some(item.tenant == before.tenant && item.key() == before.key())
    }

    /// Lets the digits begin further on, if so far eight of them are the same in all slots and the keys
    /// of the node and its `right` neighbour, between which all of its keys are, have more in common.
    fn raise_skip(&self, items: &Items, right: &Node) -> Option<()> {
        let (first, last) = (self.slot(0)?, self.slot(self.len().checked_sub(1)?)?);
        let same = first.high.load(Relaxed) == last.high.load(Relaxed);
        if !same || self.bounded.load(Relaxed) == 0 {
            return Some(());
        }
        let low = items.get(first.item.load(Relaxed))?;
        let high = items.get(right.slot(0)?.item.load(Relaxed))?;
        let common = common(low.key(), high.key());
        if low.tenant != high.tenant || common <= self.skip() {
            return Some(());
        }
        self.skip.store(common as u32, Relaxed);
        for slot in self.slots.get(..self.len())? {
            let target = slot.target();
            let key = items.get(target.item)?.key();
            slot.set(low.tenant.0, sixteen(key, common), target);
        }
        Some(())
    }

    /// Items from slot `at` on.
    pub(super) fn items_from(&self, at: usize) -> Run {
        let mut run = Run::default();
        let slots = self.slots.get(at..self.len()).unwrap_or_default();
        for (to, slot) in run.items.iter_mut().zip(slots) {
            *to = slot.item.load(Acquire);
        }
        run.len = slots.len();
        run.repeats = self.repeats.load(Relaxed) >> at.min(SLOTS - 1);
        run.right = self.right.load(Acquire);
        run
    }
}

/// Consecutive items of one leaf, in order, and the leaf after it.
#[derive(Clone, Copy, Default)]
pub(super) struct Run {
    items: [u32; SLOTS],
    /// As of the leaf; not known of the first.
    repeats: u32,
    pub len: usize,
    pub right: u32,
}

impl Run {
    pub(super) fn get(&self, at: usize) -> Option<u32> {
        self.items.get(..self.len)?.get(at).copied()
    }

    /// Up to `count` items from `at` on.
    pub(super) fn between(&self, at: usize, count: usize) -> &[u32] {
        let items = self.items.get(..self.len).and_then(|items| items.get(at..));
        let items = items.unwrap_or_default();
        items.get(..count).unwrap_or(items)
    }

    /// Where the next key is after that of the item at `at`; [`len`](Run::len) or more if not here.
    pub(super) fn next_key(&self, at: usize) -> usize {
        let behind = self.repeats.checked_shr(at as u32 + 1).unwrap_or_default();
        at + 1 + behind.trailing_ones() as usize
    }

    /// Whether the item at `at`, not the first, has the key of the one before it.
    pub(super) fn is_repeated(&self, at: usize) -> bool {
        self.repeats.checked_shr(at as u32).unwrap_or_default() & 1 == 1
    }
}

/// A change was in the way: look again.
#[derive(Debug)]
pub(super) struct Busy;

#[derive(Default)]
pub(super) struct TreeWriter {
    nodes: u32,
}

pub(super) struct Tree {
    nodes: Arena<Node, 8>,
    /// Index of the root, and in the upper half the levels: 0 = empty.
    root: AtomicU64,
}

fn unpack(root: u64) -> (u32, usize) {
    (root as u32, (root >> 32) as usize)
}

impl Tree {
    pub(super) fn new() -> Tree {
        Tree {
            nodes: Arena::new(),
            root: AtomicU64::new(0),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.root.load(Acquire) == 0
    }

    /// Shows `look` the leaf where `place` (None: the end of all) belongs and the number of its
    /// slots before `place`. Where a leaf begins exactly there, `before` chooses the one before it.
    pub(super) fn look<R>(
        &self,
        items: &Items,
        place: Option<&Place<'_>>,
        before: bool,
        look: impl FnOnce(&Node, usize) -> R,
    ) -> Result<Option<R>, Busy> {
        let root = self.root.load(Acquire);
        let (index, mut levels) = unpack(root);
        if levels == 0 {
            return Ok(None);
        }
        let mut node = self.nodes.get(index).ok_or(Busy)?;
        let mut version = node.begin_read().ok_or(Busy)?;
        // A root that was split became the left half of the tree.
        if self.root.load(Relaxed) != root {
            return Err(Busy);
        }
        while levels > 1 {
            let at = node.child_at(items, place, before);
            let child = node.slot(at).ok_or(Busy)?.child.load(Acquire);
            let child = self.nodes.get(child).ok_or(Busy)?;
            child.prefetch();
            let child_version = child.begin_read().ok_or(Busy)?;
            if !node.unchanged(version) {
                return Err(Busy);
            }
            (node, version) = (child, child_version);
            levels -= 1;
        }
        let found = look(node, node.rank(items, place, false));
        if node.unchanged(version) {
            Ok(Some(found))
        } else {
            Err(Busy)
        }
    }

    /// The items of leaf `index`.
    pub(super) fn leaf(&self, index: u32) -> Result<Run, Busy> {
        let node = self.nodes.get(index).ok_or(Busy)?;
        let version = node.begin_read().ok_or(Busy)?;
        let run = node.items_from(0);
        if node.unchanged(version) {
            Ok(run)
        } else {
            Err(Busy)
        }
    }

    /// Adds `item` at `place`, which is its place; what is there already is replaced. Returns the memory
    /// of nodes that were made, or None when all indexes are given out.
    pub(super) fn insert(
        &self,
        writer: &mut TreeWriter,
        items: &Items,
        place: &Place<'_>,
        item: u32,
    ) -> Option<usize> {
        let before = writer.nodes;
        let target = Target { item, child: 0 };
        let (root, levels) = unpack(self.root.load(Relaxed));
        if levels == 0 {
            self.make(writer)?.1.put(items, 0, target)?;
            self.root.store(1 << 32, Release);
            return Some(size_of::<Node>());
        }
        // The way down, and where on it something is to be put.
        let mut path: [Option<(&Node, usize)>; HEIGHT_MAX] = [None; HEIGHT_MAX];
        let mut node = self.nodes.get(root)?;
        for level in (1..levels).rev() {
            let at = node.child_at(items, Some(place), false);
            *path.get_mut(level)? = Some((node, at + 1));
            node = self.nodes.get(node.slot(at)?.child.load(Relaxed))?;
            node.prefetch();
        }
        let at = node.rank(items, Some(place), false);
        if let Some(slot) = node.slot(at).filter(|_| at < node.len())
            && slot.order(items, place, sixteen(place.key, node.skip())) == Order::Equal
        {
            slot.item.store(item, Release);
            return Some(0);
        }
        *path.get_mut(0)? = Some((node, at));
        let changed = path.get(..levels)?.iter().flatten();
        let full = changed
            .clone()
            .take_while(|(node, _)| node.len() == SLOTS)
            .count();
        let changed = path.get(..(full + 1).min(levels))?.iter().flatten();
        changed.clone().for_each(|(node, _)| node.begin_change());
        let done = self.put_upwards(writer, items, (root, levels), changed.clone().copied(), target);
        changed.for_each(|(node, _)| node.end_change());
        done?;
        Some((writer.nodes - before) as usize * size_of::<Node>())
    }

    /// Puts what points to `target` into the first node of a way up, and for each node that is split for it
    /// what points to the new one into the next; into a new root at last.
    fn put_upwards<'a>(
        &'a self,
        writer: &mut TreeWriter,
        items: &Items,
        (root, levels): (u32, usize),
        path: impl Iterator<Item = (&'a Node, usize)>,
        mut target: Target,
    ) -> Option<()> {
        for (node, at) in path {
            if node.len() < SLOTS {
                return node.put(items, at, target);
            }
            target = self.split(writer, items, node, at, target)?;
        }
        let (index, top) = self.make(writer)?;
        let first = self.nodes.get(root)?.slot(0)?.target();
        top.put(items, 0, Target { child: root, ..first })?;
        top.put(items, 1, target)?;
        self.root
            .store((levels as u64 + 1) << 32 | u64::from(index), Release);
        Some(())
    }

    /// Moves the upper slots of `node`, which is full, to a new one and puts what points to `target` where
    /// it belongs. What points to the new node.
    fn split(
        &self,
        writer: &mut TreeWriter,
        items: &Items,
        node: &Node,
        at: usize,
        target: Target,
    ) -> Option<Target> {
        let kept = if at == SLOTS { KEPT_AT_END } else { SLOTS / 2 };
        let (index, new) = self.make(writer)?;
        for (to, from) in new.slots.iter().zip(node.slots.get(kept..)?) {
            to.copy(from);
        }
        let right = node.right.load(Relaxed);
        let repeats = node.repeats.load(Relaxed);
        new.repeats.store(repeats >> kept, Relaxed);
        node.repeats.store(repeats & ((1 << kept) - 1), Relaxed);
        new.len.store((SLOTS - kept) as u32, Relaxed);
        new.right.store(right, Relaxed);
        new.skip.store(node.skip.load(Relaxed), Relaxed);
        new.bounded.store(1, Relaxed);
        node.len.store(kept as u32, Relaxed);
        node.right.store(index, Release);
        if at <= kept {
            node.put(items, at, target)?;
        } else {
            new.put(items, at - kept, target)?;
        }
        node.raise_skip(items, new)?;
        if right != 0 {
            new.raise_skip(items, self.nodes.get(right)?)?;
        }
        Some(Target {
            child: index,
            ..new.slot(0)?.target()
        })
    }

    fn make(&self, writer: &mut TreeWriter) -> Option<(u32, &Node)> {
        let index = writer.nodes;
        let node = self.nodes.make(index)?;
        writer.nodes = index.checked_add(1)?;
        Some((index, node))
    }
}
