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
//!     56    16  chain     running hash of the stream up to lsn
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
//!      0     1  kind      1 put, 2 delete
//!      1     2  key length (tree key: keyspace id, big-endian, then the user's key)
//!      3     4  value length, 0 for delete
//!      7     -  tree key, value
//! ```
//!
//! A record is valid if and only if: (1) len is in range and inside the bytes at hand; (2) crc32
//! matches; (3) lsn is the position it stands at; (4) kind is known; (5) zero bytes are zero;
//! (6) durable <= lsn; (7) the sections fill it exactly and are as many as it says, none in a close. Whoever
//! walks a segment also checks (8) its epoch against the header's and (9) its chain against the one before.
//!
//! Invariants: no record spans segments; the chain after a piece of stream is
//! SHA-256(chain before ‖ piece)[..16], over segment headers and records alike.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::codec::Reader;
use crate::options::BATCH_BYTES_MAX;
use crate::read::cursor::EntryKind;
use crate::seal::{Aad, Piece};
use crate::types::{Chain, DekVersion, Epoch, Lsn, SeqNo, TenantId};

pub(crate) const RECORD_HEADER_BYTES: usize = 72;
pub(crate) const OP_HEADER_BYTES: usize = 7;
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Invalid {
    /// They end before the record does: more are needed.
    Short,
    /// They are not a record; which rule they break.
    Damaged(&'static str),
}

/// Fields a writer chooses; lengths and checksum follow from the rest.
pub(crate) struct RecordFields {
    pub kind: RecordKind,
    pub lsn: Lsn,
    pub epoch: Epoch,
    pub seqno: SeqNo,
    pub time_ms: u64,
    pub durable: Lsn,
    pub chain: Chain,
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
    out.extend_from_slice(&fields.chain.0);
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

/// Fills in length and checksum.
pub(crate) fn finish_record(out: &mut [u8]) {
    let len = out.len() as u32;
    if let Some(field) = out.get_mut(4..8) {
        field.copy_from_slice(&len.to_le_bytes());
    }
    let crc = crc32fast::hash(out.get(4..).unwrap_or_default());
    if let Some(field) = out.get_mut(..4) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
}

/// The record at the start of `bytes`, which stand at `at` in the stream.
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
        let _time = r.u64()?;
        let durable = Lsn(r.u64()?);
        let chain = Chain(r.array()?);
        Some((
            crc, kind, zero, sections, zeros, lsn, epoch, seqno, durable, chain,
        ))
    };
    let Some((crc, kind, zero, sections, zeros, lsn, epoch, seqno, durable, chain)) = parse() else {
        return Err(Invalid::Short);
    };
    if crc32fast::hash(record.get(4..).unwrap_or_default()) != crc {
        return Err(Invalid::Damaged("checksum"));
    }
    if lsn != at {
        return Err(Invalid::Damaged("position"));
    }
    let kind = match kind {
        1 => RecordKind::Batch,
        2 => RecordKind::Close,
        _ => return Err(Invalid::Damaged("kind")),
    };
    if zero != 0 || zeros != 0 {
        return Err(Invalid::Damaged("reserved bytes"));
    }
    if durable > lsn {
        return Err(Invalid::Damaged("durable watermark"));
    }
    let record = Record {
        kind,
        lsn,
        epoch,
        seqno,
        durable,
        chain,
        bytes: record,
    };
    let mut count = 0u16;
    let mut rest = Reader::new(record.bytes.get(RECORD_HEADER_BYTES..).unwrap_or_default());
    while rest.remaining() > 0 {
        next_section(&mut rest).ok_or(Invalid::Damaged("section"))?;
        count = count.saturating_add(1);
    }
    if count != sections || (kind == RecordKind::Batch) == (count == 0) {
        return Err(Invalid::Damaged("section count"));
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
    let sealed = r.take(sealed_len)?;
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

/// The chain after `piece` of the stream.
pub(crate) fn extend_chain(chain: Chain, piece: &[u8]) -> Chain {
    let mut hash = Sha256::new();
    hash.update(chain.0);
    hash.update(piece);
    let digest: [u8; 32] = hash.finalize().into();
    let mut out = Chain::default();
    for (to, from) in out.0.iter_mut().zip(digest) {
        *to = from;
    }
    out
}

/// Appends one operation to a section's plaintext. The caller has checked the lengths.
pub(crate) fn push_op(kind: EntryKind, keyspace: [u8; 4], key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(OP_HEADER_BYTES + 4 + key.len() + value.len());
    out.push(kind as u8);
    out.extend_from_slice(&((4 + key.len()) as u16).to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(&keyspace);
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

/// One operation of an opened section: slices of the section's bytes, not copies.
pub(crate) struct Op {
    pub kind: EntryKind,
    pub key: Bytes,
    pub value: Bytes,
}

/// The operations of an opened section; None if they do not parse or are not `count`.
pub(crate) fn parse_ops(plain: &Bytes, count: u32) -> Option<Vec<Op>> {
    // A count may lie; the bytes at hand bound what is reserved.
    let mut ops = Vec::with_capacity((count as usize).min(plain.len() / OP_HEADER_BYTES));
    let mut r = Reader::new(plain);
    while r.remaining() > 0 {
        let kind = match r.u8()? {
            1 => EntryKind::Put,
            2 => EntryKind::Delete,
            _ => return None,
        };
        let key_len = r.u16()? as usize;
        let value_len = r.u32()? as usize;
        if key_len < 4 {
            return None;
        }
        let key = plain.slice_ref(r.take(key_len)?);
        let value = plain.slice_ref(r.take(value_len)?);
        ops.push(Op { kind, key, value });
    }
    (ops.len() == count as usize).then_some(ops)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let fields = RecordFields {
            kind: RecordKind::Batch,
            lsn: Lsn(128),
            epoch: Epoch::FIRST,
            seqno: SeqNo(7),
            time_ms: 1_700_000_000_000,
            durable: Lsn(100),
            chain: Chain([3; 16]),
        };
        let mut out = Vec::new();
        start_record(&fields, 1, &mut out);
        push_section_header(TenantId(5), DekVersion(1), 2, [9; 16], 30, &mut out);
        out.extend_from_slice(&[0xaa; 30]);
        finish_record(&mut out);
        out
    }

    #[test]
    fn a_record_reads_back_with_its_section() {
        let bytes = sample();
        let record = parse_record(&bytes, Lsn(128)).unwrap();
        assert_eq!(
            (record.seqno, record.durable, record.epoch),
            (SeqNo(7), Lsn(100), Epoch::FIRST)
        );
        assert_eq!(record.end(), Lsn(128 + bytes.len() as u64));
        let sections: Vec<_> = record.sections().collect();
        assert_eq!(sections.len(), 1);
        assert_eq!(
            (sections[0].tenant, sections[0].ops, sections[0].sealed),
            (TenantId(5), 2, &[0xaa; 30][..])
        );
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        let bytes = sample();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_record(&bad, Lsn(128)).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(
                parse_record(&bytes[..len], Lsn(128)).unwrap_err(),
                Invalid::Short,
                "length {len}"
            );
        }
        assert_eq!(
            parse_record(&bytes, Lsn(129)).unwrap_err(),
            Invalid::Damaged("position")
        );
    }

    #[test]
    fn operations_read_back_and_a_wrong_count_is_refused() {
        let mut plain = Vec::new();
        push_op(EntryKind::Put, [0, 0, 0, 1], b"k", b"value", &mut plain);
        push_op(EntryKind::Delete, [0, 0, 0, 2], b"gone", b"", &mut plain);
        let plain = Bytes::from(plain);
        let ops = parse_ops(&plain, 2).unwrap();
        assert_eq!(&ops[0].key[..], b"\0\0\0\x01k");
        assert_eq!(&ops[0].value[..], b"value");
        assert!(ops[1].kind == EntryKind::Delete && ops[1].value.is_empty());
        assert!(parse_ops(&plain, 1).is_none() && parse_ops(&plain, 3).is_none());
        assert!(parse_ops(&plain.slice(..plain.len() - 1), 2).is_none());
    }
}
