//! Data blocks: some consecutive entries of one tenant, the unit that is sealed, read and cached.
//!
//! ```text
//! head (9 bytes):
//!   0  1  codec        0 = stored as is, 1 = LZ4; larger refused
//!   1  4  entries      1 ..
//!   5  4  key bytes    of all keys written out in full, at most 8 MiB
//! then the entries; with codec 1 instead:
//!   9  4  length       of the entries
//!  13  …  LZ4 block    of the entries
//! per entry, in internal order:
//!   varint  shared     leading bytes in common with the key before (0 for the first)
//!   varint  rest       further bytes of the key
//!   rest    key bytes
//!   varint  seqno
//!   varint  value bytes << 2 | kind (1 put, 2 delete, 3 put that expires: the moment stands in front of the value)
//!   …       value
//! ```
//!
//! Varints are LEB128: seven bits a byte, least significant first, at most ten bytes.
//!
//! Valid if and only if: codec is known; a compressed block gives exactly `length` bytes; the entries fill the block exactly; keys written out fill
//! `key bytes` exactly; no key is longer than [`TREE_KEY_BYTES_MAX`]; places ascend strictly; deletes
//! have no value, puts that expire one of eight bytes at least.
//!
//! A block is decoded once, when it is read: keys are written out side by side, with eight bytes a
//! entry to find key and value, and eight digits of each key to search by. After that nothing can fail, stepping backwards is stepping back one
//! slot, a search compares numbers first, and keys and values are handed out as slices of the block.
//! (Restart points would save the decoding, some 10 ns an entry beside about 50 ns for decrypting it,
//! and then cost it on every cached read.) The builder counts keys written out when it decides that a
//! block is full, so that long shared prefixes cannot make a small block large in memory.

use std::cmp::Ordering;

use bytes::Bytes;

use super::compress::{Compressor, decompress};
use super::format::{Fields, Malformed};
use crate::options::{Compression, KEY_BYTES_MAX};
use crate::read::cursor::{Entry, EntryKind, EntryRef, Found, internal_order};
use crate::read::digits::{Digits, common};
use crate::types::SeqNo;

/// Longest tree key: a keyspace id and a user key.
pub(super) const TREE_KEY_BYTES_MAX: usize = 4 + KEY_BYTES_MAX;
/// Keys of one block, written out. The largest block option is 1 MiB, which the builder stretches
/// four times at most.
pub(super) const KEYS_BYTES_MAX: usize = 8 << 20;
/// Encoded length of a block's head.
pub(super) const HEAD_BYTES: usize = 9;
const STORED: u8 = 0;
const LZ4: u8 = 1;
const KIND_BITS: u32 = 2;

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint(fields: &mut Fields<'_>) -> Option<u64> {
    let first = fields.u8()?;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    let mut value = u64::from(first & 0x7f);
    for shift in (7..64).step_by(7) {
        let byte = fields.u8()?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn length(fields: &mut Fields<'_>) -> Option<usize> {
    usize::try_from(varint(fields)?).ok()
}

/// Builds one block after another.
pub(super) struct BlockBuilder {
    bytes: Vec<u8>,
    compressor: Option<Compressor>,
    entries: u32,
    key_bytes: usize,
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
            key_bytes: 0,
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

    /// Bytes of all keys written out.
    pub(super) fn key_bytes(&self) -> usize {
        self.key_bytes
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
        let shared = if self.is_empty() {
            0
        } else {
            common(&self.last, entry.key)
        };
        let rest = entry.key.get(shared..).unwrap_or_default();
        put_varint(&mut self.bytes, shared as u64);
        put_varint(&mut self.bytes, rest.len() as u64);
        self.bytes.extend_from_slice(rest);
        put_varint(&mut self.bytes, entry.seqno.0);
        put_varint(
            &mut self.bytes,
            (entry.value.len() as u64) << KIND_BITS | entry.kind as u64,
        );
        self.bytes.extend_from_slice(entry.value);
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
        self.last_seqno = entry.seqno;
        self.entries += 1;
        self.key_bytes += entry.key.len();
    }

    /// The finished block; valid until [`clear`](BlockBuilder::clear).
    pub(super) fn finish(&mut self) -> &[u8] {
        let [a, b, c, d] = self.entries.to_le_bytes();
        let [e, f, g, h] = (self.key_bytes as u32).to_le_bytes();
        let head = |codec| [codec, a, b, c, d, e, f, g, h];
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
        self.key_bytes = 0;
    }

    /// Starts the first block of a tenant.
    pub(super) fn reset(&mut self) {
        self.clear();
        self.last.clear();
        self.last_seqno = SeqNo::MAX;
    }
}

/// Where an entry's parts begin.
#[derive(Clone, Copy)]
struct Slot {
    /// Of the key, in `keys`; it ends where the next begins. Keys take less than 2^31 bytes: the highest bit
    /// says that the entry before has the same key.
    key: u32,
    /// Of the seqno, in `bytes`.
    rest: u32,
}

const SAME_KEY: u32 = 1 << 31;

impl Slot {
    fn key(&self) -> usize {
        (self.key & !SAME_KEY) as usize
    }
}

/// An entry's parts inside its block.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    key: (usize, usize),
    seqno: SeqNo,
    kind: EntryKind,
    value: (usize, usize),
}

/// A decoded block.
pub(super) struct Block {
    /// The entries; before them what stood before them.
    bytes: Bytes,
    keys: Bytes,
    slots: Box<[Slot]>,
    digits: Digits,
}

impl Block {
    /// Decodes and checks all of `plain`. Allocates at most 8 MiB and six times the length of its entries,
    /// which have at most 255 times the length of `plain`.
    pub(super) fn decode(plain: Vec<u8>) -> Result<Block, Malformed> {
        let short = Malformed("entries that fill the block");
        let mut fields = Fields(&plain);
        let codec = fields.u8().ok_or(short)?;
        let entries = fields.u32().ok_or(short)? as usize;
        let key_bytes = fields.u32().ok_or(short)? as usize;
        let (bytes, start) = match codec {
            STORED => (plain, HEAD_BYTES),
            LZ4 => (decompress(fields.0)?, 0),
            _ => return Err(Malformed("codec 0 or 1")),
        };
        let total = bytes.len();
        let mut fields = Fields(bytes.get(start..).unwrap_or_default());
        // An entry takes four bytes at least: this bounds what a hostile count can allocate.
        if entries == 0 || entries > fields.0.len() / 4 || u32::try_from(total).is_err() {
            return Err(short);
        }
        if key_bytes > KEYS_BYTES_MAX {
            return Err(Malformed("at most 8 MiB of keys"));
        }
        let mut keys: Vec<u8> = Vec::with_capacity(key_bytes);
        let mut slots = Vec::with_capacity(entries);
        let (mut previous, mut previous_seqno) = (0, SeqNo::ZERO);
        for index in 0..entries {
            let shared = length(&mut fields).ok_or(short)?;
            let rest = length(&mut fields).ok_or(short)?;
            let rest = fields.take(rest).ok_or(short)?;
            let start = keys.len();
            if shared > start - previous || shared.saturating_add(rest.len()) > TREE_KEY_BYTES_MAX {
                return Err(Malformed("a key made of the one before"));
            }
            if start + shared + rest.len() > key_bytes {
                return Err(Malformed("keys of the stated length"));
            }
            let order = if index == 0 {
                Ordering::Less
            } else {
                keys.get(previous + shared..).unwrap_or_default().cmp(rest)
            };
            keys.extend_from_within(previous..previous + shared);
            keys.extend_from_slice(rest);
            let rest = (total - fields.0.len()) as u32;
            let seqno = SeqNo(varint(&mut fields).ok_or(short)?);
            if order.then(seqno.cmp(&previous_seqno)) != Ordering::Less {
                return Err(Malformed("ascending entries"));
            }
            let tag = varint(&mut fields).ok_or(short)?;
            let value = usize::try_from(tag >> KIND_BITS)
                .ok()
                .and_then(|len| fields.take(len))
                .ok_or(short)?;
            match kind(tag) {
                Some(kind) if kind.admits(value.len()) => {}
                _ => return Err(Malformed("a kind with a value that befits it")),
            }
            let same = index > 0 && order == Ordering::Equal;
            slots.push(Slot {
                key: start as u32 | if same { SAME_KEY } else { 0 },
                rest,
            });
            (previous, previous_seqno) = (start, seqno);
        }
        if !fields.0.is_empty() {
            return Err(short);
        }
        if keys.len() != key_bytes {
            return Err(Malformed("keys of the stated length"));
        }
        let digits = Digits::new(slots.len(), |at| key_of(&keys, &slots, at));
        Ok(Block {
            bytes: bytes.into(),
            keys: keys.into(),
            slots: slots.into_boxed_slice(),
            digits,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The tree key of entry `index`; empty past the end.
    pub(super) fn key(&self, index: usize) -> &[u8] {
        key_of(&self.keys, &self.slots, index)
    }

    fn rest(&self, index: usize) -> Option<(SeqNo, u64, usize)> {
        let start = self.slots.get(index)?.rest as usize;
        let mut fields = Fields(self.bytes.get(start..)?);
        let seqno = SeqNo(varint(&mut fields)?);
        let tag = varint(&mut fields)?;
        Some((seqno, tag, self.bytes.len() - fields.0.len()))
    }

    /// Whether entry `index` has the same key as the one before it; false past the end.
    pub(super) fn same_key(&self, index: usize) -> bool {
        self.slots.get(index).is_some_and(|slot| slot.key & SAME_KEY != 0)
    }

    /// Where entry `index` is; None past the end.
    pub(super) fn parts(&self, index: usize) -> Option<Parts> {
        let (seqno, tag, value) = self.rest(index)?;
        let key = key_range(&self.slots, index, self.keys.len())?;
        Some(Parts {
            key: (key.start, key.end),
            seqno,
            kind: kind(tag)?,
            value: (value, value.checked_add(usize::try_from(tag >> KIND_BITS).ok()?)?),
        })
    }

    /// The entry that has `parts` here.
    pub(super) fn view(&self, parts: &Parts) -> EntryRef<'_> {
        // Decoding checked all ranges.
        EntryRef {
            key: self.keys.get(parts.key.0..parts.key.1).unwrap_or_default(),
            seqno: parts.seqno,
            kind: parts.kind,
            value: self.bytes.get(parts.value.0..parts.value.1).unwrap_or_default(),
        }
    }

    /// The same, taken out.
    pub(super) fn owned(&self, parts: &Parts) -> Entry {
        Entry {
            key: slice(&self.keys, parts.key),
            seqno: parts.seqno,
            kind: parts.kind,
            value: slice(&self.bytes, parts.value),
        }
    }

    /// Entry `index` without its key; None past the end.
    pub(super) fn found(&self, index: usize) -> Option<Found> {
        let parts = self.parts(index)?;
        Some(Found {
            seqno: parts.seqno,
            kind: parts.kind,
            value: slice(&self.bytes, parts.value),
        })
    }

    /// Entry `index`, taken out; None past the end.
    pub(super) fn entry(&self, index: usize) -> Option<Entry> {
        self.parts(index).map(|parts| self.owned(&parts))
    }

    /// The index of the first entry at or after (`key`, `seqno`); [`len`](Block::len) if there is none.
    pub(super) fn lower_bound(&self, key: &[u8], seqno: SeqNo) -> usize {
        self.digits.rank(key, self.key(0), |at| {
            let order = self.key(at).cmp(key).then_with(|| {
                let found = self.rest(at).map_or(SeqNo::ZERO, |(seqno, ..)| seqno);
                seqno.cmp(&found)
            });
            order == Ordering::Less
        })
    }

    pub(super) fn memory(&self) -> usize {
        let entries = size_of_val(&*self.slots) + self.digits.memory();
        self.bytes.len() + self.keys.len() + entries + size_of::<Block>()
    }
}

/// Part of `bytes`. Decoding made the range; the look keeps `slice` from ever panicking.
fn slice(bytes: &Bytes, (start, end): (usize, usize)) -> Bytes {
    match bytes.get(start..end) {
        Some([]) | None => Bytes::new(),
        Some(_) => bytes.slice(start..end),
    }
}

/// Where key `index` is among keys of `len` bytes.
fn key_range(slots: &[Slot], index: usize, len: usize) -> Option<std::ops::Range<usize>> {
    let start = slots.get(index)?.key();
    let end = slots.get(index + 1).map_or(len, Slot::key);
    Some(start..end)
}

fn key_of<'a>(keys: &'a [u8], slots: &[Slot], index: usize) -> &'a [u8] {
    key_range(slots, index, keys.len())
        .and_then(|range| keys.get(range))
        .unwrap_or_default()
}

fn kind(tag: u64) -> Option<EntryKind> {
    EntryKind::from_byte((tag & ((1 << KIND_BITS) - 1)) as u8)
}
