//! WAL records: the unit of durability and of replication. Pure encoding and checking, no I/O.
//!
//! ```text
//! segment = header (128 bytes, kind 1, number = Lsn of its first byte) record*
//!
//! record, little-endian
//! offset  size  field
//!      0     4  crc32     IEEE, over bytes [4, len)
//!      4     4  len       whole record, RECORD_HEADER_BYTES ..= RECORD_BYTES_MAX
//!      8     1  kind      1 batch, 2 close; 0 never written
//!      9     1  zero
//!     10     2  sections  their number: writers put 1 in a batch, 0 in a close
//!     12     4  zero
//!     16     8  lsn       stream position of this record's first byte
//!     24     8  epoch     of the primary that wrote it
//!     32     8  seqno     version of the batch's entries (close: the newest before)
//!     40     8  time      ms since 1970, as the primary believed
//!     48     8  durable   everything before this Lsn was on stable storage when this was written
//!     56    16  chain     keyed running hash of the stream, this record included
//!     72     -  sections
//!
//! section
//!      0     8  tenant
//!      8     4  dek version
//!     12     4  operations
//!     16    16  key commitment
//!     32     4  sealed length
//!     36     4  zero
//!     40     -  sealed operations: nonce 12, ciphertext, tag 16
//!
//! operation (inside the seal)
//!      0     1  kind      1 put, 2 delete, 3 put that expires, 4 dated put, 5 range delete
//!      1     2  key length (tree key: keyspace id, big-endian, then the user's key)
//!      3     4  value length, 0 for delete, 8 and more for a put that expires, 16 for a dated one
//!      7     -  tree key, value (of a put that expires: the moment, then the user's value; of a dated one: the
//!               moment of writing, the one at which it expires or all ones, then the user's value)
//! ```
//!
//! A range delete has the tree key at which it starts for a key, and the one before which it ends for a value.
//!
//! A record is valid if and only if: (1) len is in range and inside the bytes at hand; (2) crc32
//! matches; (3) lsn is the position it stands at; (4) kind is known; (5) zero bytes are zero;
//! (6) durable <= lsn; (7) the sections fill it exactly and are as many as it says, none in a close;
//! (8) its epoch is the segment's; (9) its chain is the one that [`Place`] computes.
//!
//! A crash leaves records that break (1) or (2) and no others: bytes of a segment are written once, at one
//! place. So what breaks one of the others was made by somebody, and is refused wherever it stands.
//!
//! Invariants: no record spans segments. The chain covers every byte of the stream: of a record the header but
//! for checksum and chain, each section's clear header, and each section's tag, which stands for its ciphertext
//! (the checksum covers that against accidents, and the tag is verified when the section is opened); of a
//! segment header all but checksum and chain after. No message of one kind is one of the other: a header
//! begins with its magic, a record with a length below it.

use bytes::Bytes;

use crate::codec::Reader;
use crate::error::Result as EngineResult;
use crate::expiry::{DATE_BYTES, STAMP_BYTES};
use crate::io::Io;
use crate::options::BATCH_BYTES_MAX;
use crate::range_delete::is_range;
use crate::read::cursor::EntryKind;
use crate::seal::{Aad, ChainKey, FileHeader, FileKind, Piece, SEAL_OVERHEAD, TAG_BYTES, same_chain};
use crate::types::{Chain, DekVersion, Epoch, Lsn, SeqNo, TenantId};

pub(crate) const RECORD_HEADER_BYTES: usize = 72;
const SECTION_HEADER_BYTES: usize = 40;
const CHAIN_AT: usize = 56;
pub(crate) const OP_HEADER_BYTES: usize = 7;
/// The kind of an operation that is no kind of entry.
const DELETE_RANGE: u8 = 5;
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
    pub epoch: Epoch,
    pub seqno: SeqNo,
    pub time_ms: u64,
    pub durable: Lsn,
    pub chain: Chain,
    pub bytes: &'a [u8],
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
    pub epoch: Epoch,
    /// Chain up to `lsn`.
    pub chain: Chain,
    pub key: &'a ChainKey,
}

/// Fields a writer chooses; lengths and checksum follow from the rest.
pub(crate) struct RecordFields {
    pub kind: RecordKind,
    pub lsn: Lsn,
    pub epoch: Epoch,
    pub seqno: SeqNo,
    pub time_ms: u64,
    pub durable: Lsn,
}

/// Starts a record in `out` (which must be empty); sections follow, then [`finish_record`].
pub(crate) fn start_record(fields: &RecordFields, sections: u16, out: &mut Vec<u8>) {
    debug_assert!(out.is_empty());
    out.extend_from_slice(&[0; 8]);
    out.push(fields.kind as u8);
    out.push(0);
    out.extend_from_slice(&sections.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&fields.lsn.0.to_le_bytes());
    out.extend_from_slice(&fields.epoch.0.to_le_bytes());
    out.extend_from_slice(&fields.seqno.0.to_le_bytes());
    out.extend_from_slice(&fields.time_ms.to_le_bytes());
    out.extend_from_slice(&fields.durable.0.to_le_bytes());
    out.extend_from_slice(&[0; 16]);
    debug_assert_eq!(out.len(), RECORD_HEADER_BYTES);
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
    out.extend_from_slice(&tenant.0.to_le_bytes());
    out.extend_from_slice(&version.0.to_le_bytes());
    out.extend_from_slice(&ops.to_le_bytes());
    out.extend_from_slice(&commitment);
    out.extend_from_slice(&sealed_len.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
}

/// Fills in length, chain and checksum; the chain after the record.
pub(crate) fn finish_record(before: Chain, key: &ChainKey, out: &mut [u8]) -> Chain {
    let len = out.len() as u32;
    if let Some(field) = out.get_mut(4..8) {
        field.copy_from_slice(&len.to_le_bytes());
    }
    let after = record_chain(before, key, out);
    if let Some(field) = out.get_mut(CHAIN_AT..RECORD_HEADER_BYTES) {
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
    let head = record.get(4..CHAIN_AT).unwrap_or_default();
    let mut rest = Reader::new(record.get(RECORD_HEADER_BYTES..).unwrap_or_default());
    let sections = std::iter::from_fn(|| {
        let header = rest.take(SECTION_HEADER_BYTES)?;
        let sealed_len = header.get(32..36)?.try_into().map(u32::from_le_bytes).ok()?;
        let sealed = rest.take(sealed_len as usize)?;
        Some([header, sealed.last_chunk::<TAG_BYTES>()?])
    });
    key.extend(before, std::iter::once(head).chain(sections.flatten()))
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
    if record.epoch != place.epoch {
        return Err(forged("record epoch", 24, place.epoch, record.epoch));
    }
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

/// The record at the start of `bytes`, which stand at `at` in the stream, but for epoch and chain.
pub(crate) fn parse_record(bytes: &[u8], at: Lsn) -> Result<Record<'_>, Invalid> {
    let len = record_len(bytes)?;
    let record = bytes.get(..len).ok_or(Invalid::Short)?;
    let mut r = Reader::new(record);
    let mut parse = || {
        let crc = r.u32()?;
        let _len = r.u32()?;
        let kind = r.u8()?;
        let zero = r.u8()?;
        let sections = r.u16()?;
        let zeros = r.u32()?;
        let lsn = Lsn(r.u64()?);
        let epoch = Epoch(r.u64()?);
        let seqno = SeqNo(r.u64()?);
        let time_ms = r.u64()?;
        let durable = Lsn(r.u64()?);
        let chain = Chain(r.array()?);
        Some((
            crc, kind, zero, sections, zeros, lsn, epoch, seqno, time_ms, durable, chain,
        ))
    };
    let Some((crc, kind, zero, sections, zeros, lsn, epoch, seqno, time_ms, durable, chain)) = parse() else {
        return Err(Invalid::Short);
    };
    if crc32fast::hash(record.get(4..).unwrap_or_default()) != crc {
        return Err(Invalid::Damaged("checksum"));
    }
    if lsn != at {
        return Err(forged("record position", 16, at, lsn));
    }
    let kind = match kind {
        1 => RecordKind::Batch,
        2 => RecordKind::Close,
        other => return Err(forged("record kind", 8, "1 or 2", other)),
    };
    if zero != 0 || zeros != 0 {
        return Err(forged("reserved bytes of a record", 9, "zeros", "others"));
    }
    if durable > lsn {
        let expected = format!("at most {lsn}");
        return Err(forged("durable watermark of a record", 48, expected, durable));
    }
    let record = Record {
        kind,
        lsn,
        epoch,
        seqno,
        time_ms,
        durable,
        chain,
        bytes: record,
    };
    let mut count = 0u16;
    let mut rest = Reader::new(record.bytes.get(RECORD_HEADER_BYTES..).unwrap_or_default());
    while rest.remaining() > 0 {
        let at = record.bytes.len() - rest.remaining();
        next_section(&mut rest)
            .ok_or_else(|| forged("section of a record", at as u64, "one that fits", "another"))?;
        count = count.saturating_add(1);
    }
    if count != sections || (kind == RecordKind::Batch) == (count == 0) {
        return Err(forged("sections of a record", 10, sections, count));
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
    if (RECORD_HEADER_BYTES..=RECORD_BYTES_MAX).contains(&len) {
        Ok(len)
    } else {
        Err(Invalid::Damaged("length"))
    }
}

fn next_section<'a>(r: &mut Reader<'a>) -> Option<Section<'a>> {
    let tenant = TenantId(r.u64()?);
    let version = DekVersion(r.u32()?);
    let ops = r.u32()?;
    let commitment = r.array()?;
    let sealed_len = r.u32()? as usize;
    r.zeros(4)?;
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
        let mut rest = Reader::new(self.bytes.get(RECORD_HEADER_BYTES..).unwrap_or_default());
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
    out.reserve(OP_HEADER_BYTES + start.len() + end.len());
    out.push(DELETE_RANGE);
    out.extend_from_slice(&(start.len() as u16).to_le_bytes());
    out.extend_from_slice(&(end.len() as u32).to_le_bytes());
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
    out.reserve(OP_HEADER_BYTES + 4 + key.len() + value_len);
    out.push(kind as u8);
    out.extend_from_slice(&((4 + key.len()) as u16).to_le_bytes());
    out.extend_from_slice(&(value_len as u32).to_le_bytes());
    out.extend_from_slice(&keyspace);
    out.extend_from_slice(key);
    value.iter().for_each(|part| out.extend_from_slice(part));
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
    let mut ops = Vec::with_capacity((count as usize).min(plain.len() / OP_HEADER_BYTES));
    let mut r = Reader::new(plain);
    while r.remaining() > 0 {
        let kind = OpKind::from_byte(r.u8()?)?;
        let key_len = r.u16()? as usize;
        let value_len = r.u32()? as usize;
        if key_len < 4 || value_len < kind.stamp_bytes() {
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
