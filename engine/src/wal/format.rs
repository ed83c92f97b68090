//! WAL records: the unit of durability and of replication. Pure encoding and checking, no I/O.
//!
//! ```text
//! segment = header (128 bytes, kind 1, number = Lsn of its first byte) record*
//!
//! record, little-endian
//! offset  size  field
//!      0     4  crc32     IEEE, over bytes [4, len)
//!      4     4  len       whole record, RECORD_BYTES_MIN ..= RECORD_BYTES_MAX
//!      8     8  lsn       stream position of this record's first byte
//!     16    16  chain     keyed running hash of the stream, this record included
//!     32     1  kind      1 batch, 2 close; 0 never written
//!     33     1  sections  their number: writers put 1 in a batch, 0 in a close
//!     34     6  time      ms since 1970, as the primary believed
//!     40     -  seqno     varint: version of the batch's entries (close: the newest before)
//!      -     -  unsynced  varint: everything before lsn - unsynced, the record's `durable`, was on stable storage when
//!                         this was written
//!      -     -  sections
//!
//! section
//!      0    16  key commitment
//!     16     -  tenant, dek version, operations, sealed length: varints
//!      -     -  sealed operations: nonce 12, ciphertext, tag 16
//!
//! operation (inside the seal)
//!      0     -  varint: value length << 3 | kind. Kinds: 1 put, 2 delete, 3 put that expires, 4 dated put, 5 range
//!               delete; the length is 0 for a delete, 8 and more for a put that expires, 16 for a dated one
//!      -     -  varint: key length (tree key: keyspace id, big-endian, then the user's key)
//!      -     -  tree key, value (of a put that expires: the moment, then the user's value; of a dated one: the
//!               moment of writing, the one at which it expires or all ones, then the user's value)
//! ```
//!
//! A range delete has the tree key at which it starts for a key, and the one before which it ends for a value.
//!
//! A record is valid if and only if: (1) len is in range and inside the bytes at hand; (2) crc32
//! matches; (3) lsn is the position it stands at; (4) kind is known; (5) varints are as short as can be;
//! (6) unsynced <= lsn; (7) the sections fill it exactly and are as many as it says, none in a close;
//! (8) its chain is the one that [`Place`] computes, which begins with the segment's header and its epoch.
//!
//! A crash leaves records that break (1) or (2) and no others: bytes of a segment are written once, at one
//! place. So what breaks one of the others was made by somebody, and is refused wherever it stands.
//!
//! What every record has costs every small write: the log's part of what is written for 100 bytes (decision 0021).
//!
//! Invariants: no record spans segments. The chain covers every byte of the stream: of a record the header but
//! for checksum and chain, each section's clear header, and each section's tag, which stands for its ciphertext
//! (the checksum covers that against accidents, and the tag is verified when the section is opened); of a
//! segment header all but checksum and chain after. No message of one kind is one of the other: a header
//! begins with its magic, a record with a length below it.

use bytes::Bytes;

use crate::codec::{Reader, push_varint};
use crate::error::Result as EngineResult;
use crate::expiry::{DATE_BYTES, STAMP_BYTES};
use crate::io::Io;
use crate::options::{BATCH_BYTES_MAX, KEY_BYTES_MAX};
use crate::range_delete::{BOUND_BYTES_MAX, is_range};
use crate::read::cursor::EntryKind;
use crate::seal::{Aad, ChainKey, FileHeader, FileKind, Piece, SEAL_OVERHEAD, TAG_BYTES, same_chain};
use crate::types::{Chain, DekVersion, Epoch, Lsn, SeqNo, TenantId};

/// Of a record what has the same size in all.
pub(crate) const RECORD_FRONT_BYTES: usize = 40;
const BATCH: u8 = RecordKind::Batch as u8;
const CLOSE: u8 = RecordKind::Close as u8;
/// What stands before the sealed bytes of a record's first section: varints of up to 10 and of up to 5 bytes.
pub(crate) const FRONT_BYTES_MAX: usize = RECORD_FRONT_BYTES + 2 * 10 + 16 + 10 + 3 * 5;
/// A close, its varints of one byte.
pub(crate) const RECORD_BYTES_MIN: usize = RECORD_FRONT_BYTES + 2;
pub(crate) const LSN_AT: usize = 8;
pub(crate) const CHAIN_AT: usize = 16;
const AFTER_CHAIN: usize = 32;
/// The latest moment that a record can name: in the year 10889.
const TIME_MS_MAX: u64 = (1 << 48) - 1;
/// What stands in front of an operation's tree key: varints of up to 5 bytes and of up to 3.
pub(crate) const OP_HEAD_BYTES_MAX: usize = 8;
const _: () = assert!(BATCH_BYTES_MAX <= (u32::MAX >> KIND_BITS) as usize && BOUND_BYTES_MAX < 1 << 21);
/// Two varints of one byte, and a keyspace.
const OP_BYTES_MIN: usize = 6;
/// Of an operation's first varint, below the length.
const KIND_BITS: u32 = 3;
const KIND_MASK: u32 = (1 << KIND_BITS) - 1;
/// The kind of an operation that is no kind of entry.
const DELETE_RANGE: u8 = 5;
const _: () = assert!(DELETE_RANGE as u32 <= KIND_MASK && EntryKind::Separated as u32 <= KIND_MASK);
/// A full batch and its frames; anything longer is damage and is not allocated for.
pub(crate) const RECORD_BYTES_MAX: usize = BATCH_BYTES_MAX + 4096;

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RecordKind {
    Batch = 1,
    Close = 2,
}

/// A valid record, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub kind: RecordKind,
    pub lsn: Lsn,
    pub seqno: SeqNo,
    pub time_ms: u64,
    pub durable: Lsn,
    pub chain: Chain,
    pub bytes: &'a [u8],
    /// Where its sections begin.
    sections_at: usize,
}

/// A section of a valid record.
#[derive(Clone, Copy)]
pub(crate) struct Section<'a> {
    pub tenant: TenantId,
    pub version: DekVersion,
    pub ops: u32,
    pub commitment: [u8; 16],
    pub sealed: &'a [u8],
}

/// Why bytes are not a valid record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Invalid {
    /// They end before the record does: more are needed.
    Short,
    /// Length or checksum does not hold: torn, or rotten.
    Damaged(&'static str),
    /// The checksum holds and another rule does not: no crash leaves that.
    Forged(Mismatch),
}

/// What of a record is not as it must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mismatch {
    pub field: &'static str,
    /// Offset of the field in the record.
    pub offset: u64,
    pub expected: String,
    pub found: String,
}

/// What a record's validity depends on apart from its bytes.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub lsn: Lsn,
    /// Chain up to `lsn`.
    pub chain: Chain,
    pub key: &'a ChainKey,
}

/// Fields a writer chooses; lengths and checksum follow from the rest.
pub(crate) struct RecordFields {
    pub kind: RecordKind,
    pub lsn: Lsn,
    pub seqno: SeqNo,
    pub time_ms: u64,
    /// At most `lsn`.
    pub durable: Lsn,
}

/// Starts a record in `out` (which must be empty); sections follow, then [`finish_record`].
pub(crate) fn start_record(fields: &RecordFields, sections: u8, out: &mut Vec<u8>) {
    debug_assert!(out.is_empty());
    out.extend_from_slice(&[0; LSN_AT]);
    out.extend_from_slice(&fields.lsn.0.to_le_bytes());
    out.extend_from_slice(&[0; AFTER_CHAIN - CHAIN_AT]);
    out.push(fields.kind as u8);
    out.push(sections);
    let time = fields.time_ms.min(TIME_MS_MAX).to_le_bytes();
    out.extend_from_slice(time.get(..6).unwrap_or_default());
    debug_assert_eq!(out.len(), RECORD_FRONT_BYTES);
    push_varint(fields.seqno.0, out);
    push_varint(fields.lsn.0.saturating_sub(fields.durable.0), out);
}

/// Appends a section's clear header; exactly `sealed_len` sealed bytes must follow.
pub(crate) fn push_section_header(
    tenant: TenantId,
    version: DekVersion,
    ops: u32,
    commitment: [u8; 16],
    sealed_len: u32,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&commitment);
    push_varint(tenant.0, out);
    push_varint(u64::from(version.0), out);
    push_varint(u64::from(ops), out);
    push_varint(u64::from(sealed_len), out);
}

/// Fills in length, chain and checksum; the chain after the record.
pub(crate) fn finish_record(before: Chain, key: &ChainKey, out: &mut [u8]) -> Chain {
    let len = out.len() as u32;
    if let Some(field) = out.get_mut(4..8) {
        field.copy_from_slice(&len.to_le_bytes());
    }
    let after = record_chain(before, key, out);
    if let Some(field) = out.get_mut(CHAIN_AT..AFTER_CHAIN) {
        field.copy_from_slice(&after.0);
    }
    let crc = crc32fast::hash(out.get(4..).unwrap_or_default());
    if let Some(field) = out.get_mut(..4) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
    after
}

/// The chain after a record that has its lengths.
fn record_chain(before: Chain, key: &ChainKey, record: &[u8]) -> Chain {
    let front = record.get(4..CHAIN_AT).unwrap_or_default();
    let after = record.get(AFTER_CHAIN..).unwrap_or_default();
    let mut rest = Reader::new(record.get(RECORD_FRONT_BYTES..).unwrap_or_default());
    let _ = rest.varint().and_then(|_| rest.varint());
    let header = after.get(..after.len() - rest.remaining()).unwrap_or_default();
    let sections = std::iter::from_fn(|| {
        let before = rest;
        let section = next_section(&mut rest)?;
        let clear = before.remaining() - rest.remaining() - section.sealed.len();
        let mut before = before;
        Some([before.take(clear)?, section.sealed.last_chunk::<TAG_BYTES>()?])
    });
    key.extend(before, [front, header].into_iter().chain(sections.flatten()))
}

/// The header of a new segment, chained to what is before it.
pub(crate) fn segment_header(
    io: &Io,
    epoch: Epoch,
    start: Lsn,
    before: Chain,
    (version, key): (DekVersion, &ChainKey),
) -> EngineResult<FileHeader> {
    let mut header = FileHeader::new(io, FileKind::Wal, epoch, start.0, before)?;
    header.chain_key = version;
    header.chain_after = header_chain(&header, key);
    Ok(header)
}

/// Whether a segment's header is the work of who holds the key.
pub(crate) fn header_is_authentic(header: &FileHeader, key: &ChainKey) -> bool {
    same_chain(header_chain(header, key), header.chain_after)
}

fn header_chain(header: &FileHeader, key: &ChainKey) -> Chain {
    key.extend(header.chain, FileHeader::chained_parts(&header.encode()))
}

/// The record at the start of `bytes`, which stand at `place` in the stream: valid in every respect.
pub(crate) fn check_record<'a>(bytes: &'a [u8], place: &Place<'_>) -> Result<Record<'a>, Invalid> {
    let record = parse_record(bytes, place.lsn)?;
    // What it should be is not told: whoever reads it could put it there.
    if !same_chain(record_chain(place.chain, place.key, record.bytes), record.chain) {
        return Err(forged(
            "record chain",
            CHAIN_AT as u64,
            "that of the log before it and of this record",
            record.chain,
        ));
    }
    Ok(record)
}

fn forged(field: &'static str, offset: u64, expected: impl ToString, found: impl ToString) -> Invalid {
    Invalid::Forged(Mismatch {
        field,
        offset,
        expected: expected.to_string(),
        found: found.to_string(),
    })
}

/// The record at the start of `bytes`, which stand at `at` in the stream, but for its chain.
pub(crate) fn parse_record(bytes: &[u8], at: Lsn) -> Result<Record<'_>, Invalid> {
    let len = record_len(bytes)?;
    let record = bytes.get(..len).ok_or(Invalid::Short)?;
    let mut r = Reader::new(record);
    let mut front = || {
        let (crc, _len) = (r.u32()?, r.u32()?);
        let lsn = Lsn(r.u64()?);
        let chain = Chain(r.array()?);
        let (kind, sections) = (r.u8()?, r.u8()?);
        let [a, b, c, d, e, f] = r.array()?;
        let time_ms = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        Some((crc, lsn, chain, kind, sections, time_ms))
    };
    let Some((crc, lsn, chain, kind, sections, time_ms)) = front() else {
        return Err(Invalid::Short);
    };
    if crc32fast::hash(record.get(4..).unwrap_or_default()) != crc {
        return Err(Invalid::Damaged("checksum"));
    }
    if lsn != at {
        return Err(forged("record position", LSN_AT as u64, at, lsn));
    }
    let kind = match kind {
        1 => RecordKind::Batch,
        2 => RecordKind::Close,
        other => return Err(forged("record kind", 32, "1 or 2", other)),
    };
    let varints = r.varint().zip(r.varint());
    let Some((seqno, unsynced)) = varints else {
        let at = RECORD_FRONT_BYTES as u64;
        return Err(forged(
            "varints of a record",
            at,
            "two, as short as can be",
            "others",
        ));
    };
    let Some(durable) = lsn.0.checked_sub(unsynced) else {
        let at = RECORD_FRONT_BYTES as u64;
        let expected = format!("at most {lsn}");
        return Err(forged("unsynced bytes of a record", at, expected, unsynced));
    };
    let record = Record {
        kind,
        lsn,
        seqno: SeqNo(seqno),
        time_ms,
        durable: Lsn(durable),
        chain,
        bytes: record,
        sections_at: record.len() - r.remaining(),
    };
    let mut count = 0u8;
    let mut rest = r;
    while rest.remaining() > 0 {
        let at = record.bytes.len() - rest.remaining();
        let counted = next_section(&mut rest).and_then(|_| count.checked_add(1));
        count =
            counted.ok_or_else(|| forged("section of a record", at as u64, "one that fits", "another"))?;
    }
    if count != sections || (kind == RecordKind::Batch) == (count == 0) {
        return Err(forged("sections of a record", 33, sections, count));
    }
    Ok(record)
}

/// Length a record claims, if in range: lets a streaming reader know how much to wait for.
pub(crate) fn record_len(bytes: &[u8]) -> Result<usize, Invalid> {
    let mut r = Reader::new(bytes);
    let (Some(_crc), Some(len)) = (r.u32(), r.u32()) else {
        return Err(Invalid::Short);
    };
    let len = len as usize;
    if (RECORD_BYTES_MIN..=RECORD_BYTES_MAX).contains(&len) {
        Ok(len)
    } else {
        Err(Invalid::Damaged("length"))
    }
}

/// Position and length that a record says it has, if what else stands at its front fits them: what
/// [`parse_record`] asks of it up to the clear header of its first section, but for the checksum.
///
/// - `bytes`: its first [`FRONT_BYTES_MAX`], or all there are.
pub(crate) fn front(bytes: &[u8]) -> Option<(Lsn, usize)> {
    let len = record_len(bytes).ok()?;
    let bytes = bytes.get(..bytes.len().min(len))?;
    let mut r = Reader::new(bytes);
    let (_crc, _len) = (r.u32()?, r.u32()?);
    let lsn = r.u64()?;
    let _chain = r.array::<16>()?;
    let (kind, sections) = (r.u8()?, r.u8()?);
    let _time = r.array::<6>()?;
    let (_seqno, unsynced) = (r.varint()?, r.varint()?);
    let first = match (kind, sections) {
        (BATCH, 1..) => {
            let _commitment = r.array::<16>()?;
            let _names = (r.varint()?, r.varint_u32()?, r.varint_u32()?);
            Some(r.varint_u32()? as usize).filter(|sealed| *sealed >= SEAL_OVERHEAD)?
        }
        (CLOSE, 0) => 0,
        _ => return None,
    };
    let end = (bytes.len() - r.remaining()).checked_add(first)?;
    let fits = if sections > 1 { end < len } else { end == len };
    (fits && unsynced <= lsn).then_some((Lsn(lsn), len))
}

fn next_section<'a>(r: &mut Reader<'a>) -> Option<Section<'a>> {
    let commitment = r.array()?;
    let tenant = TenantId(r.varint()?);
    let version = DekVersion(r.varint_u32()?);
    let ops = r.varint_u32()?;
    let sealed_len = r.varint_u32()? as usize;
    let sealed = r
        .take(sealed_len)
        .filter(|sealed| sealed.len() >= SEAL_OVERHEAD)?;
    Some(Section {
        tenant,
        version,
        ops,
        commitment,
        sealed,
    })
}

impl<'a> Record<'a> {
    /// Position just past the record.
    pub fn end(&self) -> Lsn {
        self.lsn.advance(self.bytes.len() as u64)
    }

    /// Its sections, in order.
    pub fn sections(&self) -> impl Iterator<Item = Section<'a>> + use<'a> {
        let mut rest = Reader::new(self.bytes.get(self.sections_at..).unwrap_or_default());
        std::iter::from_fn(move || next_section(&mut rest))
    }
}

/// What binds a section to its place.
pub(crate) fn section_aad(
    tenant: TenantId,
    file: [u8; 16],
    lsn: Lsn,
    plain_len: u32,
    seqno: SeqNo,
    ops: u32,
) -> Aad {
    Aad {
        piece: Piece::Section,
        tenant,
        file,
        offset: lsn.0,
        plain_len,
        a: seqno.0,
        b: u64::from(ops),
    }
}

/// Appends one operation to a section's plaintext. The caller has checked the lengths.
pub(crate) fn push_op(kind: EntryKind, keyspace: [u8; 4], key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    push_parts(kind, keyspace, key, [&[], value], out);
}

/// The same of a range delete; both ends are tree keys.
pub(crate) fn push_range_delete(start: &[u8], end: &[u8], out: &mut Vec<u8>) {
    push_op_head(DELETE_RANGE, start.len(), end.len(), out);
    out.extend_from_slice(start);
    out.extend_from_slice(end);
}

/// The same of a put that expires at `at`, in milliseconds since 1970.
pub(crate) fn push_expiring(keyspace: [u8; 4], key: &[u8], value: &[u8], at: u64, out: &mut Vec<u8>) {
    push_parts(
        EntryKind::Expiring,
        keyspace,
        key,
        [&at.to_le_bytes(), value],
        out,
    );
}

/// The same of a put to a keyspace with a retention: when it is written, and when it expires or
/// [`NEVER`](crate::expiry::NEVER).
pub(crate) fn push_dated(
    keyspace: [u8; 4],
    key: &[u8],
    value: &[u8],
    (written, expires): (u64, u64),
    out: &mut Vec<u8>,
) {
    let mut moments = [0; DATE_BYTES];
    let (front, back) = moments.split_at_mut(STAMP_BYTES);
    front.copy_from_slice(&written.to_le_bytes());
    back.copy_from_slice(&expires.to_le_bytes());
    push_parts(EntryKind::Dated, keyspace, key, [&moments, value], out);
}

fn push_parts(kind: EntryKind, keyspace: [u8; 4], key: &[u8], value: [&[u8]; 2], out: &mut Vec<u8>) {
    let value_len = value.iter().map(|part| part.len()).sum::<usize>();
    push_op_head(kind as u8, 4 + key.len(), value_len, out);
    out.extend_from_slice(&keyspace);
    out.extend_from_slice(key);
    value.iter().for_each(|part| out.extend_from_slice(part));
}

/// Makes room for the whole operation, and appends what stands in front of its key.
fn push_op_head(kind: u8, key_len: usize, value_len: usize, out: &mut Vec<u8>) {
    out.reserve(OP_HEAD_BYTES_MAX + key_len + value_len);
    push_varint((value_len as u64) << KIND_BITS | u64::from(kind), out);
    push_varint(key_len as u64, out);
}

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OpKind {
    /// Adds a version of its key.
    Entry(EntryKind),
    /// Deletes all keys from its key up to the one that stands for its value.
    DeleteRange,
}

impl OpKind {
    fn from_byte(byte: u8) -> Option<OpKind> {
        match byte {
            DELETE_RANGE => Some(OpKind::DeleteRange),
            // A reference means something in the tables of one node alone.
            other => EntryKind::from_byte(other)
                .filter(|kind| *kind != EntryKind::Separated)
                .map(OpKind::Entry),
        }
    }

    /// What stands in front of the user's value.
    fn stamp_bytes(self) -> usize {
        match self {
            OpKind::Entry(kind) => kind.stamp_bytes(),
            OpKind::DeleteRange => 0,
        }
    }

    /// Longest tree key.
    fn key_bytes_max(self) -> usize {
        match self {
            OpKind::Entry(_) => 4 + KEY_BYTES_MAX,
            OpKind::DeleteRange => BOUND_BYTES_MAX,
        }
    }
}

/// One operation of an opened section: slices of the section's bytes, not copies.
pub(crate) struct Op {
    pub kind: OpKind,
    pub key: Bytes,
    pub value: Bytes,
}

/// The operations of an opened section; None if they do not parse or are not `count`.
pub(crate) fn parse_ops(plain: &Bytes, count: u32) -> Option<Vec<Op>> {
    // A count may lie; the bytes at hand bound what is reserved.
    let mut ops = Vec::with_capacity((count as usize).min(plain.len() / OP_BYTES_MIN));
    let mut r = Reader::new(plain);
    while r.remaining() > 0 {
        let head = r.varint_u32()?;
        let kind = OpKind::from_byte((head & KIND_MASK) as u8)?;
        let value_len = (head >> KIND_BITS) as usize;
        let key_len = r.varint_u32()? as usize;
        if !(4..=kind.key_bytes_max()).contains(&key_len) || value_len < kind.stamp_bytes() {
            return None;
        }
        let key = plain.slice_ref(r.take(key_len)?);
        let value = plain.slice_ref(r.take(value_len)?);
        if kind == OpKind::DeleteRange && !is_range(&key, &value) {
            return None;
        }
        ops.push(Op { kind, key, value });
    }
    (ops.len() == count as usize).then_some(ops)
}

#[cfg(test)]
mod tests;
