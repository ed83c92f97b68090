//! Several cursors of one tenant as one, in internal order.
//!
//! A binary heap of the sources that are positioned, smallest entry first while going forwards,
//! largest first while going backwards. Where one source supplies many keys in a row, as a table does whose
//! newer sources have little in its range, a step compares with the one key at which another comes first; and what
//! the source has in one block before that key is lent as a stretch, unless such stretches turned out to be short.
//!
//! The same place (key and SeqNo) in two sources is the same entry (replay after a crash can leave a
//! batch in a memtable and in a table): both are yielded, the newer source's first going forwards.
//!
//! Invariants: going forwards, every source not on the current entry stands on its first entry after
//! it, or has none; going backwards, on its last entry before it, or has none. An error from a source
//! leaves the merge unpositioned. `lead` is set only while going forwards, and then the key of the source on
//! top is below it and below every other source's.

use std::cmp::Ordering;

use crate::error::Result;
use crate::hooks::{planted, rare};
use crate::read::cursor::{Cursor, Entry, EntryRef};
use crate::table::Stretch;
use crate::types::SeqNo;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// Several cursors of one tenant as one.
pub(crate) struct MergeCursor {
    /// Newest first.
    sources: Vec<Box<dyn Cursor>>,
    /// Indexes of positioned sources, a binary heap in the order of `direction`.
    heap: Vec<usize>,
    direction: Direction,
    /// Memory for the key that a step leaves.
    left: Vec<u8>,
    /// How far the source on top may go on without a look at the others.
    lead: Lead,
    /// The key that `lead` speaks of.
    bound: Vec<u8>,
    /// Steps of the source that leads.
    led: u32,
    /// So many of them there are before a stretch is lent.
    patience: u32,
}

/// A stretch with fewer entries is not worth the making.
const STRETCH_MIN: usize = 3;
/// Who lent one of those does not lend the next before so many steps.
const PATIENCE: u32 = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lead {
    /// Not known.
    None,
    /// Below `bound`, the smallest key of the others.
    Below,
    /// For ever: the others have nothing left.
    Alone,
}

impl MergeCursor {
    /// Over `sources`, newest first, all of one tenant. Unpositioned.
    pub(crate) fn new(sources: Vec<Box<dyn Cursor>>) -> MergeCursor {
        let heap = Vec::with_capacity(sources.len());
        MergeCursor {
            sources,
            heap,
            direction: Direction::Forward,
            left: Vec::new(),
            lead: Lead::None,
            bound: Vec::new(),
            led: 0,
            patience: 0,
        }
    }

    fn source_entry(&self, source: usize) -> Option<EntryRef<'_>> {
        self.sources.get(source).and_then(|cursor| cursor.entry())
    }

    /// Whether source `a` comes before source `b` in the order of the direction.
    fn before(&self, a: usize, b: usize) -> bool {
        let order = match (self.source_entry(a), self.source_entry(b)) {
            (Some(a), Some(b)) => a.order(b.key, b.seqno),
            // The heap holds positioned sources only.
            (Some(_), None) => return true,
            (None, _) => return false,
        };
        let order = order.then(a.cmp(&b));
        match self.direction {
            Direction::Forward => order == Ordering::Less,
            Direction::Backward => order == Ordering::Greater,
        }
    }

    fn node_before(&self, a: usize, b: usize) -> bool {
        match (self.heap.get(a), self.heap.get(b)) {
            (Some(a), Some(b)) => self.before(*a, *b),
            _ => false,
        }
    }

    fn sift_down(&mut self, mut node: usize) {
        loop {
            let left = 2 * node + 1;
            if left >= self.heap.len() {
                return;
            }
            let right = left + 1;
            let child = if self.node_before(right, left) {
                right
            } else {
                left
            };
            if !self.node_before(child, node) {
                return;
            }
            self.heap.swap(child, node);
            node = child;
        }
    }

    /// Positions all sources with `place` and builds the heap.
    fn rebuild(
        &mut self,
        direction: Direction,
        mut place: impl FnMut(usize, &mut dyn Cursor) -> Result<()>,
    ) -> Result<()> {
        self.heap.clear();
        self.direction = direction;
        (self.lead, self.led) = (Lead::None, 0);
        for (index, source) in self.sources.iter_mut().enumerate() {
            place(index, source.as_mut())?;
        }
        let positioned = self
            .sources
            .iter()
            .enumerate()
            .filter(|(_, source)| source.entry().is_some());
        self.heap.extend(positioned.map(|(index, _)| index));
        for node in (0..self.heap.len() / 2).rev() {
            self.sift_down(node);
        }
        Ok(())
    }

    /// Moves the source on top with `step`, which goes in the current direction.
    fn step(&mut self, step: fn(&mut dyn Cursor) -> Result<()>) -> Result<()> {
        let Some(top) = self.heap.first().copied() else {
            return Ok(());
        };
        let Some(source) = self.sources.get_mut(top) else {
            return Ok(());
        };
        (self.lead, self.led) = (Lead::None, 0);
        let result = step(source.as_mut());
        let positioned = source.entry().is_some();
        if let Err(error) = result {
            self.heap.clear();
            return Err(error);
        }
        if !positioned {
            self.heap.swap_remove(0);
        }
        self.sift_down(0);
        // The same one twice: it may be so for long.
        if self.direction == Direction::Forward && self.heap.first() == Some(&top) {
            self.find_lead();
        }
        Ok(())
    }

    /// Finds out how far the source on top may go on alone.
    fn find_lead(&mut self) {
        let next = match (self.heap.get(1), self.heap.get(2)) {
            (Some(one), Some(other)) if self.before(*other, *one) => *other,
            (Some(one), _) => *one,
            (None, _) => {
                self.lead = Lead::Alone;
                return;
            }
        };
        let mut bound = std::mem::take(&mut self.bound);
        if let (Some(top), Some(next)) = (self.entry(), self.source_entry(next))
            && top.key < next.key
        {
            bound.clear();
            bound.extend_from_slice(next.key);
            self.lead = Lead::Below;
        }
        self.bound = bound;
    }

    /// Moves the source on top, which leads, with `step`.
    fn lead_on(&mut self, step: impl FnOnce(&mut dyn Cursor) -> Result<()>) -> Result<()> {
        let source = self.heap.first().and_then(|top| self.sources.get_mut(*top));
        let Some(source) = source else { return Ok(()) };
        if let Err(error) = step(source.as_mut()) {
            self.heap.clear();
            self.lead = Lead::None;
            return Err(error);
        }
        let leads = source.entry().is_some_and(|entry| match self.lead {
            Lead::None => false,
            Lead::Below if planted!(LeadTakesEqualKeys) => *entry.key <= self.bound[..],
            Lead::Below => *entry.key < self.bound[..],
            Lead::Alone => true,
        });
        if leads {
            self.led = self.led.saturating_add(1);
            return Ok(());
        }
        rare!(LeadLost);
        // It has moved: what is left is to put it in its place.
        self.step(|_| Ok(()))
    }

    /// Turns around at the current entry, and takes one step.
    fn turn(&mut self, direction: Direction) -> Result<()> {
        let Some(top) = self.heap.first().copied() else {
            return Ok(());
        };
        let Some((key, seqno)) = self
            .source_entry(top)
            .map(|entry| (entry.key.to_vec(), entry.seqno))
        else {
            return Ok(());
        };
        self.rebuild(direction, |index, source| {
            // In the merged order, an equal place in a newer source comes before, in an older after.
            match (direction, index.cmp(&top)) {
                (Direction::Forward, Ordering::Equal) => source.next(),
                (Direction::Backward, Ordering::Equal) => source.prev(),
                (Direction::Forward, side) => {
                    source.seek(&key, seqno)?;
                    if side == Ordering::Less && is_at(source, &key, seqno) {
                        source.next()
                    } else {
                        Ok(())
                    }
                }
                (Direction::Backward, side) => {
                    source.seek(&key, seqno)?;
                    if source.entry().is_none() {
                        source.seek_last()
                    } else if side == Ordering::Less && is_at(source, &key, seqno) {
                        Ok(())
                    } else {
                        source.prev()
                    }
                }
            }
        })
    }
}

fn is_at(source: &dyn Cursor, key: &[u8], seqno: SeqNo) -> bool {
    source
        .entry()
        .is_some_and(|entry| entry.order(key, seqno).is_eq())
}

impl Cursor for MergeCursor {
    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.rebuild(Direction::Forward, |_, source| source.seek(key, seqno))
    }

    fn seek_first(&mut self) -> Result<()> {
        self.rebuild(Direction::Forward, |_, source| source.seek_first())
    }

    fn seek_last(&mut self) -> Result<()> {
        self.rebuild(Direction::Backward, |_, source| source.seek_last())
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.rebuild(Direction::Backward, |_, source| source.seek_before(key))
    }

    fn next(&mut self) -> Result<()> {
        match self.direction {
            Direction::Forward if self.lead != Lead::None => self.lead_on(|source| source.next()),
            Direction::Forward => self.step(|source| source.next()),
            Direction::Backward => self.turn(Direction::Forward),
        }
    }

    fn next_key(&mut self) -> Result<()> {
        if self.lead != Lead::None {
            return self.lead_on(|source| source.next_key());
        }
        let mut left = std::mem::take(&mut self.left);
        left.clear();
        left.extend_from_slice(self.entry().map_or(&[], |entry| entry.key));
        let mut outcome = Ok(());
        if self.direction == Direction::Backward {
            outcome = self.turn(Direction::Forward);
        }
        while outcome.is_ok() && self.entry().is_some_and(|entry| entry.key == left) {
            outcome = self.step(|source| source.next_key());
        }
        self.left = left;
        outcome
    }

    fn prev(&mut self) -> Result<()> {
        match self.direction {
            Direction::Backward => self.step(|source| source.prev()),
            Direction::Forward => self.turn(Direction::Backward),
        }
    }

    fn entry(&self) -> Option<EntryRef<'_>> {
        self.heap.first().and_then(|top| self.source_entry(*top))
    }

    fn owned(&self) -> Option<Entry> {
        let top = self.heap.first().and_then(|top| self.sources.get(*top));
        top.and_then(|source| source.owned())
    }

    fn is_newest(&self) -> bool {
        match (&self.heap[..], self.direction) {
            // Of the others none has an entry before this one.
            ([only], Direction::Backward) => {
                let source = self.sources.get(*only);
                source.is_some_and(|source| source.is_newest())
            }
            _ => false,
        }
    }

    fn stretch(&mut self) -> Option<Stretch> {
        if self.led < self.patience {
            return None;
        }
        let top = self.heap.first().copied()?;
        let stretch = self.sources.get_mut(top)?.stretch()?;
        if self.lead == Lead::None && self.direction == Direction::Forward {
            self.find_lead();
        }
        let all = stretch.len();
        let stretch = match self.lead {
            Lead::None => return None,
            Lead::Below if planted!(StretchTakesEqualKeys) => {
                stretch.below(&[&self.bound[..], &[0]].concat())
            }
            Lead::Below => stretch.below(&self.bound),
            Lead::Alone => stretch,
        };
        // Sources that take turns would be searched for each of their entries.
        self.patience = 0;
        if stretch.len() < STRETCH_MIN.min(all) {
            rare!(StretchTooShort);
            self.patience = PATIENCE;
        }
        Some(stretch)
    }

    fn leave(&mut self, stretch: &Stretch) -> Result<()> {
        self.lead_on(|source| source.leave(stretch))
    }
}
