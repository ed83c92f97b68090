//! Indexes: which piece of a run holds a key.
//!
//! ```text
//!  0  1  level      0 = the parts are data blocks, 1 = they are sections; and 2: range deletes follow
//!  1  4  parts      1 .., or 0 where there are range deletes alone: then first and last are empty
//!  5  2  length of the first tree key below, then the key
//!  …  2  length of the last tree key below, then the key
//! then per part, in order:
//!     2  length of the separator, then the separator
//!     8  offset     of the block; of the section's filter, or of its index where it has no filter
//!     4  bytes      of the sealed block; of the section's sealed index
//!     4  filter bytes  of the section's sealed filter; 0 = none, and for blocks
//!     4  entries
//! then, with 2, the range deletes of the run: see `range_deletes`
//! ```
//!
//! A separator is at or above every key of its part and below every key of the next; only where
//! versions of one key continue in the next part, it equals the next part's first key. It is shortened
//! where that is possible.
//!
//! Valid if and only if: the fields fill the index exactly; no key is longer than a tree key can be;
//! first <= last; separators do not descend from `first` on and end at or above `last` (at it in an
//! index of sections); no part is empty; blocks follow each other without a gap, sections in order, from
//! the start of the run or section to its head; entries add up to what the level above says; range deletes stand in
//! the index of a run and in none of a section.
//!
//! A large run is cut into sections of about 4 MiB, each with its own index and filter, so that no
//! cached piece grows with the size of a table and a cold read fetches about 100 KiB at most before
//! its block.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::block::TREE_KEY_BYTES_MAX;
use super::format::{Fields, Malformed};
use super::piece_memory::{PieceMemory, taken};
use super::range_deletes;
use crate::range_delete::{Fragment, Fragments};
use crate::read::digits::{Digits, common};

const HANDLE_BYTES: usize = 8 + 4 + 4 + 4;
/// Beside the level: range deletes follow the parts.
const RANGE_DELETES: u8 = 2;

/// What the parts of an index are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Level {
    Blocks = 0,
    Sections = 1,
}

/// Where a part is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Handle {
    pub offset: u64,
    pub bytes: u32,
    pub filter_bytes: u32,
    pub entries: u32,
}

impl Handle {
    /// Just past the part; None on overflow.
    pub(super) fn end(&self) -> Option<u64> {
        self.offset
            .checked_add(u64::from(self.filter_bytes))?
            .checked_add(u64::from(self.bytes))
    }
}

/// Makes `last` as short as it can be while staying at or above itself and below `next`.
pub(super) fn separator(last: &[u8], next: &[u8]) -> Vec<u8> {
    let shared = common(last, next);
    // Raise the first byte after the common prefix that can be raised, and cut after it. At the
    // first position the raised byte must also stay below `next`'s.
    for (index, byte) in last.iter().enumerate().skip(shared) {
        let Some(raised) = byte.checked_add(1) else {
            continue;
        };
        if index == shared && next.get(shared).is_none_or(|limit| raised >= *limit) {
            continue;
        }
        if index + 1 >= last.len() {
            break;
        }
        let mut out = last.get(..index).unwrap_or_default().to_vec();
        out.push(raised);
        return out;
    }
    last.to_vec()
}

/// Builds an index.
#[derive(Default)]
pub(super) struct IndexBuilder {
    parts: Vec<u8>,
    count: u32,
    entries: u64,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl IndexBuilder {
    /// Adds a part with its smallest and largest key. Keys are at most 16 KiB + 4 bytes.
    pub(super) fn add(&mut self, first: &[u8], last: &[u8], separator: &[u8], handle: Handle) {
        if self.count == 0 {
            self.first = first.to_vec();
        }
        self.last.clear();
        self.last.extend_from_slice(last);
        put_key(&mut self.parts, separator);
        self.parts.extend_from_slice(&handle.offset.to_le_bytes());
        self.parts.extend_from_slice(&handle.bytes.to_le_bytes());
        self.parts.extend_from_slice(&handle.filter_bytes.to_le_bytes());
        self.parts.extend_from_slice(&handle.entries.to_le_bytes());
        self.count += 1;
        self.entries += u64::from(handle.entries);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn parts(&self) -> u32 {
        self.count
    }

    /// Entries below.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Encoded size of the parts so far.
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    pub(super) fn first(&self) -> &[u8] {
        &self.first
    }

    pub(super) fn last(&self) -> &[u8] {
        &self.last
    }

    pub(super) fn finish(&self, level: Level, deletes: &[Fragment]) -> Vec<u8> {
        let mut out = Vec::with_capacity(9 + self.first.len() + self.last.len() + self.parts.len());
        let flag = if deletes.is_empty() { 0 } else { RANGE_DELETES };
        out.push(level as u8 | flag);
        out.extend_from_slice(&self.count.to_le_bytes());
        let (first, last): (&[u8], &[u8]) = match self.count {
            0 => (&[], &[]),
            _ => (&self.first, &self.last),
        };
        put_key(&mut out, first);
        put_key(&mut out, last);
        out.extend_from_slice(&self.parts);
        if !deletes.is_empty() {
            range_deletes::encode(deletes, &mut out);
        }
        out
    }

    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.count = 0;
        self.entries = 0;
    }
}

fn put_key(out: &mut Vec<u8>, key: &[u8]) {
    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
    out.extend_from_slice(key);
}

fn key<'a>(fields: &mut Fields<'a>) -> Option<&'a [u8]> {
    let len = usize::from(fields.u16()?);
    fields.take(len).filter(|key| key.len() <= TREE_KEY_BYTES_MAX)
}

fn handle(fields: &mut Fields<'_>) -> Option<Handle> {
    Some(Handle {
        offset: fields.u64()?,
        bytes: fields.u32()?,
        filter_bytes: fields.u32()?,
        entries: fields.u32()?,
    })
}

/// A decoded index.
pub(super) struct Index {
    bytes: Bytes,
    level: Level,
    first: Range<usize>,
    last: Range<usize>,
    /// Where each part's separator length is.
    parts: Box<[u32]>,
    /// Of the separators.
    digits: Digits,
    start: u64,
    entries: u64,
    /// Of the run; with how often its fragments were deleted.
    deletes: Option<(Arc<Fragments>, u64)>,
}

impl Index {
    /// Decodes and checks all of `plain`, which covers file bytes `span`.
    pub(super) fn decode(plain: Vec<u8>, span: Range<u64>) -> Result<Index, Malformed> {
        let short = Malformed("parts that fill the index");
        let total = plain.len();
        let mut fields = Fields(&plain);
        let byte = fields.u8().ok_or(short)?;
        let level = match byte & !RANGE_DELETES {
            0 => Level::Blocks,
            1 => Level::Sections,
            _ => return Err(Malformed("index level 0 or 1")),
        };
        let has_deletes = byte & RANGE_DELETES != 0;
        let count = fields.u32().ok_or(short)? as usize;
        let none = count == 0 && has_deletes && level == Level::Blocks;
        if (count == 0 && !none) || count > fields.0.len() / HANDLE_BYTES || u32::try_from(total).is_err() {
            return Err(short);
        }
        let first_key = key(&mut fields).ok_or(short)?;
        let first = total - fields.0.len() - first_key.len()..total - fields.0.len();
        let last_key = key(&mut fields).ok_or(short)?;
        let last = total - fields.0.len() - last_key.len()..total - fields.0.len();
        if first_key > last_key || (none && !last_key.is_empty()) {
            return Err(Malformed("first key <= last key"));
        }
        let mut parts = Vec::with_capacity(count);
        let (mut at, mut entries, mut previous) = (span.start, 0u64, first_key);
        for _ in 0..count {
            parts.push((total - fields.0.len()) as u32);
            let separator = key(&mut fields).ok_or(short)?;
            let handle = handle(&mut fields).ok_or(short)?;
            if separator < previous {
                return Err(Malformed("ascending separators"));
            }
            let follows = match level {
                Level::Blocks => handle.offset == at && handle.filter_bytes == 0,
                Level::Sections => handle.offset > at,
            };
            if !follows || handle.entries == 0 || handle.bytes == 0 {
                return Err(Malformed("parts that follow each other"));
            }
            at = handle
                .end()
                .filter(|end| *end <= span.end)
                .ok_or(Malformed("parts inside the run"))?;
            entries += u64::from(handle.entries);
            previous = separator;
        }
        if fields.0.is_empty() == has_deletes {
            return Err(short);
        }
        let deletes_at = total - fields.0.len();
        if at != span.end {
            return Err(Malformed("parts up to the head"));
        }
        if previous != last_key && level == Level::Sections || previous < last_key {
            return Err(Malformed("a last separator at the last key"));
        }
        let start = span.start;
        let digits = Digits::new(parts.len(), |at| separator_of(&plain, &parts, at));
        let bytes = Bytes::from(plain);
        let deletes = match has_deletes {
            true => {
                let deletes = range_deletes::decode(&bytes.slice(deletes_at..))?;
                let versions = deletes.versions() as u64;
                Some((Arc::new(deletes), versions))
            }
            false => None,
        };
        Ok(Index {
            digits,
            bytes,
            deletes,
            level,
            first,
            last,
            parts: parts.into_boxed_slice(),
            start,
            entries,
        })
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Entries below.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// The range deletes of the run that the index is over.
    pub(super) fn range_deletes(&self) -> Option<&Arc<Fragments>> {
        self.deletes.as_ref().map(|(deletes, _)| deletes)
    }

    /// Its fragments, each as often as it was deleted.
    pub(super) fn range_delete_versions(&self) -> u64 {
        self.deletes.as_ref().map_or(0, |(_, versions)| *versions)
    }

    /// The smallest tree key below, a slice of the index.
    pub(super) fn first(&self) -> Bytes {
        self.slice(&self.first)
    }

    /// The largest tree key below, a slice of the index.
    pub(super) fn last(&self) -> Bytes {
        self.slice(&self.last)
    }

    /// The largest tree key below, where it lies.
    pub(super) fn last_key(&self) -> &[u8] {
        self.bytes.get(self.last.clone()).unwrap_or_default()
    }

    fn slice(&self, range: &Range<usize>) -> Bytes {
        // Decoding made the ranges; the look keeps `slice` from ever panicking.
        match self.bytes.get(range.clone()) {
            Some(_) => self.bytes.slice(range.clone()),
            None => Bytes::new(),
        }
    }

    fn part(&self, index: usize) -> Option<(&[u8], Handle)> {
        let mut fields = Fields(self.bytes.get(*self.parts.get(index)? as usize..)?);
        Some((key(&mut fields)?, handle(&mut fields)?))
    }

    /// The separator after part `index`; empty past the end.
    pub(super) fn separator(&self, index: usize) -> &[u8] {
        separator_of(&self.bytes, &self.parts, index)
    }

    pub(super) fn handle(&self, index: usize) -> Option<Handle> {
        self.part(index).map(|(_, handle)| handle)
    }

    /// File bytes of section `index` up to its head, or of block `index`.
    pub(super) fn span(&self, index: usize) -> Option<Range<u64>> {
        let start = match index.checked_sub(1) {
            Some(before) => self.handle(before)?.end()?,
            None => self.start,
        };
        Some(start..self.handle(index)?.offset)
    }

    /// The first part that may hold `key` or a larger one; [`len`](Index::len) if there is none.
    pub(super) fn find(&self, key: &[u8]) -> usize {
        self.digits.rank(key, |at| self.separator(at) < key)
    }

    pub(super) fn memory(&self) -> usize {
        let parts = size_of_val(&*self.parts) + self.digits.memory();
        let deletes = self.deletes.as_ref().map_or(0, |(deletes, _)| deletes.memory());
        taken(self.bytes.len()) + parts + deletes + size_of::<Index>()
    }

    /// The same, in memory for what is kept.
    pub(super) fn kept_in(self, memory: &PieceMemory) -> Index {
        let bytes = match self.deletes {
            // They are parts of the same bytes, and stay there.
            Some(_) => self.bytes,
            None => memory.keep(self.bytes),
        };
        Index {
            bytes,
            digits: self.digits.moved(|digits| memory.keep(digits)),
            ..self
        }
    }
}

fn separator_of<'a>(bytes: &'a [u8], parts: &[u32], index: usize) -> &'a [u8] {
    let start = parts.get(index).map(|start| *start as usize);
    let rest = start.and_then(|start| bytes.get(start..));
    rest.and_then(|rest| key(&mut Fields(rest))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_lies_between_and_is_short() {
        let cases: [(&[u8], &[u8], &[u8]); 8] = [
            (b"abcdef", b"abzz", b"abd"),
            (b"abcdef", b"abd", b"abce"),
            (b"abc", b"abcd", b"abc"),
            (b"abc", b"abc", b"abc"),
            (b"a\xff\xff", b"b", b"a\xff\xff"),
            (b"a\xff\x01\x01", b"b", b"a\xff\x02"),
            (b"a", b"c", b"a"),
            (b"a1", b"c", b"b"),
        ];
        for (last, next, expected) in cases {
            let found = separator(last, next);
            assert_eq!(found, expected, "between {last:?} and {next:?}");
            assert!(last <= found.as_slice() && (found.as_slice() < next || last == next));
        }
    }
}
