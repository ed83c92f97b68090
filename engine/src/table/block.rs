//! Data blocks: some consecutive entries of one tenant, the unit that is sealed, read and cached.
//!
//! ```text
//! head (5 bytes):
//!   0  1  codec        2 = stored as is, 3 = LZ4; 0 and 1 of old: `shortened`; larger refused
//!   1  4  entries      1 ..
//! then the entries; with codec 3 instead:
//!   5  4  length       of the entries
//!   9  …  LZ4 block    of the entries
//! per entry, in internal order:
//!   varint  seqno        0: settled, see `compaction::job`
//!   varint  value bytes << 3 | kind (1 put, 2 delete, 3 put that expires: the moment stands in front of the value; 4
//!           dated put: two do)
//!   varint  key bytes
//!   …       key
//!   …       value
//! ```
//!
//! Varints are LEB128: seven bits a byte, least significant first, at most ten bytes.
//!
//! Valid if and only if: codec is known; a compressed block gives exactly `length` bytes; the entries fill the
//! block exactly; no key is empty or longer than [`TREE_KEY_BYTES_MAX`]; places ascend strictly; deletes have no
//! value, puts that expire one of eight bytes at least, dated ones of sixteen, puts whose value stands apart one of
//! twenty-four: the reference to it.
//!
//! In memory, one allocation:
//!
//! ```text
//! entries   as above
//! places    of each, side by side:
//!             digits   eight bytes of its key, behind what all keys have in common    u64
//!             place    where it begins; the highest bit: its key is that of the one before    u32
//! ```
//!
//! A block is checked once, when it is read. After that nothing can fail, stepping backwards is stepping back one
//! place, a search compares numbers first and then touches the entry it finds, whose key and value stand side by
//! side. (Keys were once stored without what they share with the one before, and written out here: LZ4 takes that
//! away as well, and the writing out was a good part of a cold read. Decision 0014.) The numbers stand in front of the key:
//! those of settled neighbours are mostly the same, and make one run with what their keys share, long enough for LZ4.
//! Decision 0025.

mod shortened;
mod stretch;
mod varint;
mod walk;

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use self::varint::{behind_two, length, number_at, varint};
use super::compress::{Compressor, decompress};
use super::format::{Fields, Malformed};
use super::piece_memory::{PieceMemory, taken};
use crate::codec::push_varint;
use crate::options::{Compression, KEY_BYTES_MAX};
use crate::prefetch::prefetch;
use crate::read::cursor::{Entry, EntryKind, EntryRef, Found, internal_order};
use crate::read::digits::{self, common, eight};
use crate::types::SeqNo;

/// Longest tree key: a keyspace id and a user key.
pub(super) const TREE_KEY_BYTES_MAX: usize = 4 + KEY_BYTES_MAX;
/// Encoded length of a block's head.
pub(super) const HEAD_BYTES: usize = 5;
#[cfg(any(test, feature = "sim"))]
pub(super) use shortened::KEYS_BYTES_MAX;
pub(super) use stretch::AHEAD;
pub(crate) use stretch::Stretch;
pub(super) use walk::{Looked, walk};
/// Of entries whose keys are shortened by what they share: see [`shortened`].
const SHORTENED: u8 = 0;
const SHORTENED_LZ4: u8 = 1;
const STORED: u8 = 2;
const LZ4: u8 = 3;
const KIND_BITS: u32 = 3;
/// SeqNo, tag, key length, a byte of key.
const ENTRY_BYTES_MIN: usize = 4;
/// In memory, beside the entry.
const PLACE_BYTES: usize = DIGIT_BYTES + 4;
const DIGIT_BYTES: usize = 8;

/// Builds one block after another.
pub(super) struct BlockBuilder {
    bytes: Vec<u8>,
    compressor: Option<Compressor>,
    entries: u32,
    last: Vec<u8>,
    last_seqno: SeqNo,
}

impl BlockBuilder {
    pub(super) fn new(compression: Compression) -> BlockBuilder {
        BlockBuilder {
            bytes: vec![0; HEAD_BYTES],
            compressor: match compression {
                Compression::None => None,
                Compression::Lz4 => Some(Compressor::new()),
            },
            entries: 0,
            last: Vec::new(),
            last_seqno: SeqNo::MAX,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    pub(super) fn entries(&self) -> u32 {
        self.entries
    }

    /// Encoded bytes so far, before compression.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The key added last.
    pub(super) fn last(&self) -> &[u8] {
        &self.last
    }

    /// How the last entry added compares to the next one.
    pub(super) fn order(&self, next: EntryRef<'_>) -> Ordering {
        internal_order(&self.last, self.last_seqno, next.key, next.seqno)
    }

    /// Adds an entry whose order, key and value lengths the caller has checked.
    pub(super) fn add(&mut self, entry: EntryRef<'_>) {
        push_varint(entry.seqno.0, &mut self.bytes);
        push_varint(
            (entry.value.len() as u64) << KIND_BITS | entry.kind as u64,
            &mut self.bytes,
        );
        push_varint(entry.key.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(entry.key);
        self.bytes.extend_from_slice(entry.value);
        self.last.clear();
        self.last.extend_from_slice(entry.key);
        self.last_seqno = entry.seqno;
        self.entries += 1;
    }

    /// The finished block; valid until [`clear`](BlockBuilder::clear).
    pub(super) fn finish(&mut self) -> &[u8] {
        let [a, b, c, d] = self.entries.to_le_bytes();
        let head = |codec| [codec, a, b, c, d];
        let entries = self.bytes.get(HEAD_BYTES..).unwrap_or_default();
        if let Some(compressor) = &mut self.compressor
            && let Some(packed) = compressor.pack(&head(LZ4), entries)
        {
            return packed;
        }
        if let Some(place) = self.bytes.first_chunk_mut() {
            *place = head(STORED);
        }
        &self.bytes
    }

    /// Starts the next block of the same tenant: the last place is kept for the order check.
    pub(super) fn clear(&mut self) {
        // A block with a huge value must not keep its memory for the rest of the table.
        if self.bytes.capacity() > 4 << 20 {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.bytes.resize(HEAD_BYTES, 0);
        self.entries = 0;
    }

    /// Starts the first block of a tenant.
    pub(super) fn reset(&mut self) {
        self.clear();
        self.last.clear();
        self.last_seqno = SeqNo::MAX;
    }
}

const SAME_KEY: u32 = 1 << 31;
/// Values of this length are copied to who gets one.
const COPIED_BYTES_MAX: usize = 256;

/// An entry's parts inside its block.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    key: Part,
    value: Part,
    seqno: SeqNo,
    kind: EntryKind,
}

/// From where to where; a block is shorter than `SAME_KEY`.
type Part = (u32, u32);

/// A checked block.
pub(super) struct Block {
    bytes: Bytes,
    /// Where in `bytes` the digits and places of entries begin: of each both, side by side, since who finds one
    /// by its digits goes to its place.
    places: usize,
    entries: usize,
    /// Where in their keys the digits begin.
    skip: usize,
}

/// Room behind `bytes` of entries for what is kept of each; as many as there can be of the `entries` that are said
/// to be.
pub(super) fn room(bytes: usize, entries: u32) -> usize {
    (entries as usize).min(bytes / ENTRY_BYTES_MIN) * PLACE_BYTES
}

impl Block {
    /// Checks all of `held[plain]`; what stands around that does not count. Takes over `held`, which should have
    /// [`room`], or what it unpacks to. Allocates at most five times the length of the entries, which are at most
    /// 255 times as long as `plain`, and of keys that were shortened 8 MiB.
    pub(super) fn decode(held: Vec<u8>, plain: Range<usize>) -> Result<Block, Malformed> {
        let Unpacked {
            mut held,
            start,
            entries,
        } = unpacked(held, plain)?;
        let (total, entries) = (held.len(), entries as usize);
        let mut fields = Fields(held.get(start..).unwrap_or_default());
        if entries == 0 || entries > fields.0.len() / ENTRY_BYTES_MIN || total >= SAME_KEY as usize {
            return Err(SHORT);
        }
        // Most blocks have fewer: then this takes no memory of its own.
        let mut places: SmallVec<[u32; 128]> = SmallVec::with_capacity(entries);
        let (mut first, mut last, mut last_seqno): (&[u8], &[u8], _) = (&[], &[], SeqNo::ZERO);
        for index in 0..entries {
            let place = (total - fields.0.len()) as u32;
            let EntryRef { key, seqno, .. } = next_entry(&mut fields)?;
            let order = if index == 0 {
                first = key;
                Ordering::Less
            } else {
                last.cmp(key)
            };
            if order.then(seqno.cmp(&last_seqno)) != Ordering::Less {
                return Err(Malformed("ascending entries"));
            }
            let same = if order == Ordering::Equal { SAME_KEY } else { 0 };
            places.push(place | same);
            (last, last_seqno) = (key, seqno);
        }
        if !fields.0.is_empty() {
            return Err(SHORT);
        }
        let skip = common(first, last);
        held.reserve_exact(entries * PLACE_BYTES);
        for place in &places {
            let digits = eight(key_at(&held, *place), skip);
            held.extend_from_slice(&digits.to_le_bytes());
            held.extend_from_slice(&place.to_le_bytes());
        }
        Ok(Block {
            bytes: held.into(),
            places: total,
            entries,
            skip,
        })
    }

    /// The same of bytes with nothing around.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn decode_plain(plain: &[u8]) -> Result<Block, Malformed> {
        Block::decode(plain.to_vec(), 0..plain.len())
    }

    pub(super) fn len(&self) -> usize {
        self.entries
    }

    /// Where entry `index` begins, and whether its key is that of the one before; None past the end.
    #[inline]
    fn place(&self, index: usize) -> Option<u32> {
        let start = self.places + index * PLACE_BYTES + DIGIT_BYTES;
        let place = self.bytes.get(start..)?.first_chunk()?;
        Some(u32::from_le_bytes(*place))
    }

    /// Entry `index` will be looked at soon.
    #[inline]
    pub(super) fn expect(&self, index: usize) {
        let place = self.place(index).map(|place| (place & !SAME_KEY) as usize);
        if let Some(first) = place.and_then(|place| self.bytes.get(place)) {
            prefetch(first);
        }
    }

    fn places(&self) -> &[[u8; PLACE_BYTES]] {
        self.searched_first().as_chunks().0
    }

    /// What a search goes through before it looks at an entry.
    pub(super) fn searched_first(&self) -> &[u8] {
        self.bytes.get(self.places..).unwrap_or_default()
    }

    /// The tree key of entry `index`; empty past the end.
    pub(super) fn key(&self, index: usize) -> &[u8] {
        self.place(index).map_or(&[], |place| key_at(&self.bytes, place))
    }

    /// Whether entry `index` has the same key as the one before it; false past the end.
    pub(super) fn same_key(&self, index: usize) -> bool {
        self.place(index).is_some_and(|place| place & SAME_KEY != 0)
    }

    /// The first entry from `index` on whose key is not that of the one before it, and where it is.
    pub(super) fn next_key(&self, index: usize) -> Option<(usize, Parts)> {
        let next = self.place(index)?;
        if next & SAME_KEY == 0 {
            return Some((index, self.parts_at(next)?));
        }
        let places = self.places().get(index..)?.iter();
        let mut places = places.filter_map(place_of).enumerate();
        let (further, place) = places.find(|(_, place)| place & SAME_KEY == 0)?;
        Some((index + further, self.parts_at(place)?))
    }

    /// Where entry `index` is; None past the end.
    pub(super) fn parts(&self, index: usize) -> Option<Parts> {
        self.parts_at(self.place(index)?)
    }

    #[inline(always)]
    fn parts_at(&self, place: u32) -> Option<Parts> {
        let bytes = &self.bytes[..];
        let head = head_at(bytes, (place & !SAME_KEY) as usize);
        // Decoding checked all of it.
        let value = head.key + head.key_len as usize;
        let value_end = value + (head.tag >> KIND_BITS) as usize;
        Some(Parts {
            key: (head.key as u32, value as u32),
            value: (value as u32, value_end as u32),
            seqno: SeqNo(head.seqno),
            kind: kind(head.tag)?,
        })
    }

    /// The entry that has `parts` here.
    #[inline]
    pub(super) fn view(&self, parts: &Parts) -> EntryRef<'_> {
        EntryRef {
            key: part(&self.bytes, parts.key),
            seqno: parts.seqno,
            kind: parts.kind,
            value: part(&self.bytes, parts.value),
        }
    }

    /// The same, taken out.
    pub(super) fn owned(&self, parts: &Parts) -> Entry {
        Entry {
            key: slice(&self.bytes, parts.key),
            seqno: parts.seqno,
            kind: parts.kind,
            value: slice(&self.bytes, parts.value),
        }
    }

    /// Entry `index` without its key; None past the end. A small value is copied: that touches no memory that others
    /// who read the block change, and who keeps it keeps no block.
    pub(super) fn found(&self, index: usize) -> Option<Found> {
        let parts = self.parts(index)?;
        let (start, end) = parts.value;
        let value = value_of(&self.bytes, start as usize..end as usize);
        let value = value.unwrap_or_else(|| slice(&self.bytes, parts.value));
        Some(Found {
            seqno: parts.seqno,
            kind: parts.kind,
            value,
        })
    }

    /// Entry `index`, taken out; None past the end.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn entry(&self, index: usize) -> Option<Entry> {
        self.parts(index).map(|parts| self.owned(&parts))
    }

    /// The index of the first entry at or after (`key`, `seqno`); [`len`](Block::len) if there is none.
    pub(super) fn lower_bound(&self, key: &[u8], seqno: SeqNo) -> usize {
        digits::rank(
            self.places(),
            self.skip,
            key,
            |at| self.key(at),
            |at| {
                let order = self.key(at).cmp(key).then_with(|| {
                    let found = self.parts(at).map_or(SeqNo::ZERO, |parts| parts.seqno);
                    seqno.cmp(&found)
                });
                order == Ordering::Less
            },
        )
    }

    pub(super) fn memory(&self) -> usize {
        taken(self.bytes.len()) + size_of::<Block>()
    }

    /// The same, in memory for what is kept.
    pub(super) fn kept_in(self, memory: &PieceMemory) -> Block {
        Block {
            bytes: memory.keep(self.bytes),
            ..self
        }
    }
}

const SHORT: Malformed = Malformed("entries that fill the block");

/// A block's entries, no longer compressed, behind what stood in front of them.
struct Unpacked {
    held: Vec<u8>,
    start: usize,
    entries: u32,
}

/// Of `held[plain]`. With [`room`] for what is kept of each.
fn unpacked(mut held: Vec<u8>, plain: Range<usize>) -> Result<Unpacked, Malformed> {
    held.truncate(plain.end);
    let mut fields = Fields(held.get(plain.start..).ok_or(SHORT)?);
    let codec = fields.u8().ok_or(SHORT)?;
    let entries = fields.u32().ok_or(SHORT)?;
    let start = match codec {
        STORED => held.len() - fields.0.len(),
        LZ4 => {
            held = decompress(fields.0, entries)?;
            0
        }
        SHORTENED | SHORTENED_LZ4 => {
            let key_bytes = fields.u32().ok_or(SHORT)?;
            let unpacked = match codec {
                SHORTENED => None,
                _ => Some(decompress(fields.0, 0)?),
            };
            let shortened = Fields(unpacked.as_deref().unwrap_or(fields.0));
            held = shortened::written_out(shortened, entries, key_bytes)?;
            0
        }
        _ => return Err(Malformed("codec 0 to 3")),
    };
    Ok(Unpacked { held, start, entries })
}

/// The entry that `fields` begin with.
fn next_entry<'a>(fields: &mut Fields<'a>) -> Result<EntryRef<'a>, Malformed> {
    let seqno = SeqNo(varint(fields).ok_or(SHORT)?);
    let tag = varint(fields).ok_or(SHORT)?;
    let key = length(fields).and_then(|len| fields.take(len)).ok_or(SHORT)?;
    if key.is_empty() || key.len() > TREE_KEY_BYTES_MAX {
        return Err(Malformed("a key of 1 to 16388 bytes"));
    }
    let len = usize::try_from(tag >> KIND_BITS).ok();
    let value = len.and_then(|len| fields.take(len)).ok_or(SHORT)?;
    match kind(tag) {
        Some(kind) if kind.admits(value.len()) => Ok(EntryRef {
            key,
            seqno,
            kind,
            value,
        }),
        _ => Err(Malformed("a kind with a value that befits it")),
    }
}

/// The value there, copied, if it is small.
fn value_of(bytes: &[u8], value: Range<usize>) -> Option<Bytes> {
    let small = bytes.get(value).filter(|value| value.len() <= COPIED_BYTES_MAX);
    small.map(Bytes::copy_from_slice)
}

/// Part of `bytes`, where decoding found it.
#[inline]
fn part(bytes: &[u8], (start, end): Part) -> &[u8] {
    bytes.get(start as usize..end as usize).unwrap_or_default()
}

/// The same, taken out. The look keeps `slice` from ever panicking.
fn slice(bytes: &Bytes, range: Part) -> Bytes {
    match part(bytes, range) {
        [] => Bytes::new(),
        _ => bytes.slice(range.0 as usize..range.1 as usize),
    }
}

/// What stands behind the digits.
fn place_of(place: &[u8; PLACE_BYTES]) -> Option<u32> {
    place.last_chunk().map(|place| u32::from_le_bytes(*place))
}

/// The numbers an entry begins with, and where its key does.
struct Head {
    seqno: u64,
    tag: u64,
    key_len: u64,
    key: usize,
}

/// What the entry at `at` begins with. Most are settled, and have a value of 16 bytes to 2 KiB and a key below 128: a byte, two and
/// one, which one look at four tells.
#[inline(always)]
fn head_at(bytes: &[u8], at: usize) -> Head {
    if let Some(four) = four_at(bytes, at)
        && four & GOES_ON == SECOND_GOES_ON
    {
        return Head {
            seqno: u64::from(four & 0x7f),
            tag: u64::from(four >> 8 & 0x7f | four >> 9 & 0x3f80),
            key_len: u64::from(four >> 24),
            key: at + 4,
        };
    }
    let (seqno, tag) = number_at(bytes, at);
    let (tag, key) = number_at(bytes, tag);
    let (key_len, key) = number_at(bytes, key);
    Head {
        seqno,
        tag,
        key_len,
        key,
    }
}

/// Of each byte of four whether its varint goes on.
const GOES_ON: u32 = 0x8080_8080;
/// That only the second does.
const SECOND_GOES_ON: u32 = 0x0000_8000;

#[inline(always)]
fn four_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*four))
}

/// The key of the entry at `place`.
#[inline]
fn key_at(bytes: &[u8], place: u32) -> &[u8] {
    let at = (place & !SAME_KEY) as usize;
    let (len, key) = match four_at(bytes, at) {
        Some(four) if four & GOES_ON == SECOND_GOES_ON => ((four >> 24) as usize, at + 4),
        _ => {
            let (len, key) = number_at(bytes, behind_two(bytes, at));
            (len as usize, key)
        }
    };
    bytes.get(key..key.saturating_add(len)).unwrap_or_default()
}

fn kind(tag: u64) -> Option<EntryKind> {
    EntryKind::from_byte((tag & ((1 << KIND_BITS) - 1)) as u8)
}
