//! Several cursors of one tenant as one, in internal order.
//!
//! The sources that are positioned are kept in order, the one with the current entry first, each with sixteen digits of
//! the key that it stands on: a step moves the first source and puts it back among the others by comparing numbers, and
//! touches no other source's memory unless digits are equal. Of a range's keys the first bytes are mostly the same; the
//! digits begin shortly before the byte in which the first two sources' keys differ, and are taken anew when the merge
//! has come to where keys begin otherwise.
//!
//! What a table has in one block before the next source's key is lent as a stretch: where one source is much larger
//! than the others, most of its entries are gone over without a step of the merge.
//!
//! The same place (key and SeqNo) in two sources is the same entry (replay after a crash can leave a
//! batch in a memtable and in a table): both are yielded, the newer source's first going forwards.
//!
//! Invariants: going forwards, every source not on the current entry stands on its first entry after
//! it, or has none; going backwards, on its last entry before it, or has none. An error from a source
//! leaves the merge unpositioned. Digits order as keys do, or are equal; those of a single source say nothing.

use std::cmp::Ordering;

use crate::error::Result;
use crate::hooks::{planted, rare};
use crate::read::cursor::{Cursor, Entry, EntryRef};
use crate::read::digits::{common, sixteen};
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
    /// The positioned ones in the order of `direction`, by their entries.
    order: Vec<Standing>,
    direction: Direction,
    /// What keys begin with whose digits are read; the digits begin behind it.
    start: Vec<u8>,
}

/// A source that stands on an entry.
#[derive(Clone, Copy)]
struct Standing {
    /// Sixteen bytes of its key.
    digits: (u64, u64),
    /// How many bytes the key has from the first of them on; [`OUTSIDE`] if it does not begin with `start`.
    rest: usize,
    seqno: SeqNo,
    /// Its index.
    source: usize,
}

const OUTSIDE: usize = usize::MAX;

impl Standing {
    /// Of a source on `entry`, among others of which many have keys that begin with `start`.
    fn new(source: usize, entry: &EntryRef<'_>, start: &[u8]) -> Standing {
        let (digits, rest) = match order_by_start(entry.key, start) {
            Ordering::Less => ((0, 0), OUTSIDE),
            Ordering::Equal => (sixteen(entry.key, start.len()), entry.key.len() - start.len()),
            Ordering::Greater => ((u64::MAX, u64::MAX), OUTSIDE),
        };
        Standing {
            digits,
            rest,
            seqno: entry.seqno,
            source,
        }
    }

    /// Whether digits and length say all of the key.
    fn is_whole(&self) -> bool {
        self.rest <= 16
    }
}

/// So many bytes that two keys have in common count as digits: then keys may change in them, too, before digits are taken
/// anew.
const DIGITS_AHEAD: usize = 4;
/// `start` has whole words.
const WORD: usize = 8;

/// How `key` compares to keys that begin with `start`, as far as that says.
fn order_by_start(key: &[u8], start: &[u8]) -> Ordering {
    let (words, (expected, _)) = (key.as_chunks::<WORD>().0, start.as_chunks::<WORD>());
    let differ = expected.iter().zip(words).find(|(start, word)| start != word);
    match differ {
        Some((start, word)) => word.cmp(start),
        // What `start` goes on with, if it does, comes after the key.
        None if words.len() < expected.len() => key.cmp(start),
        None => Ordering::Equal,
    }
}

impl MergeCursor {
    /// Over `sources`, newest first, all of one tenant. Unpositioned.
    pub(crate) fn new(sources: Vec<Box<dyn Cursor>>) -> MergeCursor {
        MergeCursor {
            order: Vec::with_capacity(sources.len()),
            sources,
            direction: Direction::Forward,
            start: Vec::new(),
        }
    }

    fn entry_of(&self, standing: &Standing) -> Option<EntryRef<'_>> {
        self.sources
            .get(standing.source)
            .and_then(|cursor| cursor.entry())
    }

    /// The order of two sources' entries, in the direction.
    fn compare(&self, a: &Standing, b: &Standing) -> Ordering {
        let order = a.digits.cmp(&b.digits);
        let order = order.then_with(|| self.compare_keys(a, b));
        let order = order.then_with(|| b.seqno.cmp(&a.seqno).then(a.source.cmp(&b.source)));
        match self.direction {
            Direction::Forward => order,
            Direction::Backward => order.reverse(),
        }
    }

    /// The order of two keys with the same digits.
    fn compare_keys(&self, a: &Standing, b: &Standing) -> Ordering {
        if a.is_whole() && b.is_whole() {
            return a.rest.cmp(&b.rest);
        }
        match (self.entry_of(a), self.entry_of(b)) {
            (Some(a), Some(b)) => a.key.cmp(b.key),
            // All of them stand on one.
            _ => Ordering::Equal,
        }
    }

    /// How many sources stand on the current entry's key: the first ones of all.
    fn repeats(&self) -> usize {
        let mut order = self.order.iter();
        let Some(first) = order.next() else { return 0 };
        let same =
            |other: &&Standing| other.digits == first.digits && self.compare_keys(first, other).is_eq();
        1 + order.take_while(same).count()
    }

    /// Positions all sources with `place` and puts them in order.
    fn rebuild(
        &mut self,
        direction: Direction,
        mut place: impl FnMut(usize, &mut dyn Cursor) -> Result<()>,
    ) -> Result<()> {
        self.order.clear();
        self.direction = direction;
        for (index, source) in self.sources.iter_mut().enumerate() {
            place(index, source.as_mut())?;
        }
        for (index, source) in self.sources.iter().enumerate() {
            let standing = source.entry().map(|entry| Standing::new(index, &entry, &[]));
            self.order.extend(standing);
        }
        let mut order = std::mem::take(&mut self.order);
        order.sort_unstable_by(|a, b| self.compare(a, b));
        self.order = order;
        self.take_digits();
        Ok(())
    }

    /// Takes the digits of all sources from where the keys of the first two begin to differ, about.
    fn take_digits(&mut self) {
        let (Some(first), Some(second)) = (self.order.first(), self.order.get(1)) else {
            return;
        };
        let mut start = std::mem::take(&mut self.start);
        start.clear();
        if let (Some(first), Some(second)) = (self.entry_of(first), self.entry_of(second)) {
            let len = common(first.key, second.key).saturating_sub(DIGITS_AHEAD) / WORD * WORD;
            start.extend_from_slice(first.key.get(..len).unwrap_or_default());
        }
        for standing in &mut self.order {
            let source = self.sources.get(standing.source);
            if let Some(entry) = source.and_then(|source| source.entry()) {
                *standing = Standing::new(standing.source, &entry, &start);
            }
        }
        self.start = start;
    }

    /// Moves the first source with `step`, which goes in the current direction, and puts it where it belongs.
    fn step(&mut self, step: impl FnOnce(&mut dyn Cursor) -> Result<()>) -> Result<()> {
        let Some(first) = self.order.first_mut() else {
            return Ok(());
        };
        let Some(source) = self.sources.get_mut(first.source) else {
            return Ok(());
        };
        if let Err(error) = step(source.as_mut()) {
            self.order.clear();
            return Err(error);
        }
        match source.entry() {
            Some(entry) if self.order.len() > 1 => {
                if let Some(first) = self.order.first_mut() {
                    *first = Standing::new(first.source, &entry, &self.start);
                }
                let mut at = 0;
                while let (Some(moved), Some(next)) = (self.order.get(at), self.order.get(at + 1))
                    && self.compare(next, moved).is_lt()
                {
                    self.order.swap(at, at + 1);
                    at += 1;
                }
            }
            Some(_) => return Ok(()),
            None => {
                self.order.remove(0);
            }
        }
        if let [first, _, ..] = &self.order[..]
            && first.rest == OUTSIDE
        {
            rare!(DigitsTakenAnew);
            self.take_digits();
        }
        Ok(())
    }

    /// Turns around at the current entry, and takes one step.
    fn turn(&mut self, direction: Direction) -> Result<()> {
        let Some(first) = self.order.first().copied() else {
            return Ok(());
        };
        let Some((key, seqno)) = self
            .entry_of(&first)
            .map(|entry| (entry.key.to_vec(), entry.seqno))
        else {
            return Ok(());
        };
        self.rebuild(direction, |index, source| {
            // In the merged order, an equal place in a newer source comes before, in an older after.
            match (direction, index.cmp(&first.source)) {
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
            Direction::Forward => self.step(|source| source.next()),
            Direction::Backward => self.turn(Direction::Forward),
        }
    }

    fn next_key(&mut self) -> Result<()> {
        if self.direction == Direction::Backward {
            let left = self.entry().map(|entry| entry.key.to_vec());
            self.turn(Direction::Forward)?;
            if left.is_none() || self.entry().map(|entry| entry.key) != left.as_deref() {
                return Ok(());
            }
        }
        // Those that follow the first one come to be the first.
        let sources = match planted!(MergeLeavesKeyInOne) {
            true => 1,
            false => self.repeats(),
        };
        for _ in 0..sources {
            self.step(|source| source.next_key())?;
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        match self.direction {
            Direction::Backward => self.step(|source| source.prev()),
            Direction::Forward => self.turn(Direction::Backward),
        }
    }

    fn entry(&self) -> Option<EntryRef<'_>> {
        self.order.first().and_then(|first| self.entry_of(first))
    }

    fn owned(&self) -> Option<Entry> {
        let first = self.order.first()?;
        self.sources.get(first.source).and_then(|source| source.owned())
    }

    fn is_newest(&self) -> bool {
        // Going backwards, a source that has a newer version stands on it.
        let alone =
            self.direction == Direction::Backward && (self.repeats() == 1 || planted!(NewestInItsSource));
        let first = self.order.first().filter(|_| alone);
        let source = first.and_then(|first| self.sources.get(first.source));
        source.is_some_and(|source| source.is_newest())
    }

    fn stretch(&mut self, below: Option<&[u8]>, spare: &mut Option<Stretch>) -> Option<Stretch> {
        if self.direction == Direction::Backward || self.repeats() > 1 {
            return None;
        }
        let (first, others) = self.order.split_first()?;
        let Some(second) = others.first() else {
            return self.sources.get_mut(first.source)?.stretch(below, spare);
        };
        // Two sources are looked at: the one that lends, and the other for its key.
        let (low, high) = (first.source.min(second.source), first.source.max(second.source));
        let (lower, upper) = self.sources.split_at_mut_checked(high)?;
        let (lower, upper) = (lower.get_mut(low)?, upper.first_mut()?);
        let (lender, other) = match first.source < second.source {
            true => (lower, upper),
            false => (upper, lower),
        };
        let next = other.entry()?.key;
        let behind = planted!(StretchTakesEqualKeys).then(|| [next, &[0]].concat());
        let next = behind.as_deref().unwrap_or(next);
        lender.stretch(Some(below.map_or(next, |below| below.min(next))), spare)
    }

    fn leave(&mut self, stretch: &Stretch) -> Result<()> {
        self.step(|source| source.leave(stretch))
    }
}
