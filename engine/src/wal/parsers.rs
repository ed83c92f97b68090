//! Records, the operations of a section, and whole segments, for fuzzing.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{
    CHAIN_AT, FRONT_BYTES_MAX, OpKind, RECORD_BYTES_MIN, RecordFields, RecordKind, finish_record, front,
    parse_ops, parse_record, push_dated, push_expiring, push_op, push_range_delete, push_section_header,
    record_len, start_record,
};
use super::reader::{Opened, SegmentFile, SegmentScan, Step};
use super::segment_name;
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::parsers::{Parser, disk_with, get_u32};
use crate::read::cursor::EntryKind;
use crate::seal::parsers::repair_header;
use crate::seal::{ChainKey, Dek, FileHeader, FileKeys, FileKind, KeyLookup, KeySource};
use crate::types::{Chain, DekVersion, Epoch, Lsn, SeqNo, TenantId};

pub(crate) const PARSERS: &[Parser] = &[
    Parser {
        name: "wal_record",
        check: check_record,
        repair: repair_record,
        samples: record_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
    Parser {
        name: "wal_operations",
        check: check_operations,
        repair: Parser::no_repair,
        samples: operation_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
    Parser {
        name: "wal_segment",
        check: check_segment,
        repair: repair_segment,
        samples: segment_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
];

/// Where the records of samples stand: behind a header.
const START: Lsn = Lsn(FileHeader::BYTES as u64);

/// The system tenant's key and no other.
struct SystemKey;

impl SystemKey {
    const VERSION: DekVersion = DekVersion(1);

    fn dek() -> Dek {
        Dek::from_bytes(&[6; 32])
    }
}

impl KeySource for SystemKey {
    fn current(&self, tenant: TenantId) -> Result<(DekVersion, Dek)> {
        match self.find(tenant, SystemKey::VERSION) {
            KeyLookup::Live(dek) => Ok((SystemKey::VERSION, dek)),
            _ => Err(Error::new(ErrorKind::NotFound, "no such tenant")),
        }
    }

    fn find(&self, tenant: TenantId, version: DekVersion) -> KeyLookup {
        match (tenant, version) {
            (TenantId::SYSTEM, SystemKey::VERSION) => KeyLookup::Live(SystemKey::dek()),
            _ => KeyLookup::Unknown,
        }
    }
}

fn chain_key() -> ChainKey {
    ChainKey::derive(&SystemKey::dek(), SystemKey::VERSION)
}

fn check_record(bytes: &[u8]) -> bool {
    let Ok(record) = parse_record(bytes, START) else {
        return false;
    };
    assert_eq!(
        record_len(bytes),
        Ok(record.bytes.len()),
        "two lengths of one record"
    );
    assert_eq!(record.end(), START.advance(record.bytes.len() as u64));
    let most = record.bytes.len().min(FRONT_BYTES_MAX);
    assert_eq!(
        bytes.get(..most).and_then(front),
        Some((START, record.bytes.len())),
        "a record whose front is none"
    );
    let again = {
        let sections: Vec<_> = record.sections().collect();
        let fields = RecordFields {
            kind: record.kind,
            lsn: record.lsn,
            seqno: record.seqno,
            time_ms: record.time_ms,
            durable: record.durable,
        };
        let mut out = Vec::new();
        start_record(&fields, sections.len() as u8, &mut out);
        for s in &sections {
            push_section_header(
                s.tenant,
                s.version,
                s.ops,
                s.commitment,
                s.sealed.len() as u32,
                &mut out,
            );
            out.extend_from_slice(s.sealed);
        }
        finish_record(Chain::default(), &chain_key(), &mut out);
        out
    };
    // Checksum and chain depend on what stands before: parsing has checked the one and leaves the other.
    for part in [4..CHAIN_AT, CHAIN_AT + 16..record.bytes.len()] {
        assert!(
            again.get(part.clone()) == record.bytes.get(part),
            "a record reads back as other bytes"
        );
    }
    true
}

fn check_operations(bytes: &[u8]) -> bool {
    let Some((count, plain)) = bytes.split_first_chunk::<4>() else {
        return false;
    };
    let count = u32::from_le_bytes(*count);
    let Some(ops) = parse_ops(&Bytes::copy_from_slice(plain), count) else {
        return false;
    };
    let mut again = Vec::new();
    for op in &ops {
        match (op.kind, op.key.split_first_chunk::<4>()) {
            (OpKind::Entry(kind), Some((keyspace, key))) => {
                push_op(kind, *keyspace, key, &op.value, &mut again);
            }
            (OpKind::DeleteRange, _) => push_range_delete(&op.key, &op.value, &mut again),
            (_, None) => panic!("an operation without a keyspace"),
        }
    }
    assert!(again == plain, "operations read back as other bytes");
    true
}

fn check_segment(bytes: &[u8]) -> bool {
    let path = PathBuf::from("/wal").join(segment_name(Lsn::ZERO));
    let io = disk_with(&path, bytes).io(1);
    let segment = SegmentFile {
        start: Lsn::ZERO,
        path,
        len: bytes.len() as u64,
    };
    let keys = FileKeys::new(Arc::new(SystemKey), 1);
    let Ok(Opened::Scan(mut scan)) = SegmentScan::open(&io, &keys, &segment) else {
        return false;
    };
    let mut records = 0u32;
    let damaged = loop {
        let before = scan.position();
        match scan.step() {
            Ok(Step::Record(record)) => {
                assert_eq!(scan.position(), before.advance(record.len() as u64));
                records += 1;
            }
            Ok(Step::End) => break false,
            Ok(Step::Damaged(_)) => break true,
            Err(e) if e.kind() == ErrorKind::Corruption => return false,
            Err(e) => panic!("the disk does not fail: {e}"),
        }
    };
    assert_eq!(
        damaged,
        scan.position() != Lsn(bytes.len() as u64),
        "an end that is none"
    );
    if damaged {
        match scan.later_watermark() {
            Ok(_) => {}
            // Made of fronts of records.
            Err(e) if e.kind() == ErrorKind::Corruption => return false,
            Err(e) => panic!("the disk does not fail: {e}"),
        }
    }
    records > 0 && !damaged
}

fn repair_record(bytes: &mut [u8]) {
    if (RECORD_BYTES_MIN..1 << 20).contains(&bytes.len()) {
        finish_record(Chain::default(), &chain_key(), bytes);
    }
}

/// Goes from record to record by their lengths, and makes checksum and chain fit.
fn repair_segment(bytes: &mut [u8]) {
    repair_header(bytes);
    let Some((header, mut rest)) = bytes.split_at_mut_checked(FileHeader::BYTES) else {
        return;
    };
    let key = chain_key();
    if let Some(version) = header.get_mut(104..108) {
        version.copy_from_slice(&SystemKey::VERSION.0.to_le_bytes());
    }
    let Some(raw) = header.first_chunk::<{ FileHeader::BYTES }>() else {
        return;
    };
    let before = raw.get(88..).and_then(|rest| rest.first_chunk::<16>());
    let before = Chain(before.copied().unwrap_or_default());
    let mut chain = key.extend(before, FileHeader::chained_parts(raw));
    if let Some(after) = header.get_mut(108..124) {
        after.copy_from_slice(&chain.0);
    }
    repair_header(header);
    while let Some(len) = get_u32(rest, 4).map(|len| len as usize) {
        if len < RECORD_BYTES_MIN {
            return;
        }
        let Some((record, after)) = std::mem::take(&mut rest).split_at_mut_checked(len) else {
            return;
        };
        chain = finish_record(chain, &key, record);
        rest = after;
    }
}

fn record(kind: RecordKind, at: Lsn, chain: Chain, sections: &[&[u8]]) -> Vec<u8> {
    let fields = RecordFields {
        kind,
        lsn: at,
        seqno: SeqNo(7),
        time_ms: 1_700_000_000_000,
        durable: START,
    };
    let mut out = Vec::new();
    start_record(&fields, sections.len() as u8, &mut out);
    for (index, sealed) in sections.iter().enumerate() {
        let tenant = TenantId(index as u64 + 1);
        push_section_header(tenant, DekVersion(1), 2, [9; 16], sealed.len() as u32, &mut out);
        out.extend_from_slice(sealed);
    }
    finish_record(chain, &chain_key(), &mut out);
    out
}

fn record_samples() -> Vec<Vec<u8>> {
    vec![
        record(RecordKind::Batch, START, Chain([3; 16]), &[&[0xaa; 30]]),
        record(
            RecordKind::Batch,
            START,
            Chain([3; 16]),
            &[&[1; 40], &[3; 28], &[2; 200]],
        ),
        record(RecordKind::Close, START, Chain([4; 16]), &[]),
    ]
}

fn operation_samples() -> Vec<Vec<u8>> {
    let mut out = 3u32.to_le_bytes().to_vec();
    push_op(EntryKind::Put, [0, 0, 0, 1], b"key", b"value", &mut out);
    push_op(EntryKind::Delete, [0, 0, 0, 2], b"gone", b"", &mut out);
    push_op(EntryKind::Put, [0; 4], b"", &[5; 300], &mut out);
    let mut expiring = 2u32.to_le_bytes().to_vec();
    push_expiring([0, 0, 0, 1], b"s", b"value", 1_767_225_600_000, &mut expiring);
    push_expiring([0, 0, 0, 1], b"t", b"", u64::MAX, &mut expiring);
    let mut dated = 1u32.to_le_bytes().to_vec();
    let moments = (1_767_225_600_000, u64::MAX);
    push_dated([0, 0, 0, 1], b"d", b"value", moments, &mut dated);
    let mut ranges = 3u32.to_le_bytes().to_vec();
    push_range_delete(b"\0\0\0\x01a", b"\0\0\0\x01b", &mut ranges);
    push_op(EntryKind::Put, [0, 0, 0, 1], b"aa", b"value", &mut ranges);
    push_range_delete(b"\0\0\0\x01", b"\0\0\0\x02", &mut ranges);
    vec![out, 0u32.to_le_bytes().to_vec(), expiring, dated, ranges]
}

fn segment_samples() -> Vec<Vec<u8>> {
    let header = FileHeader {
        kind: FileKind::Wal,
        file_id: [1; 16],
        salt: [2; 32],
        epoch: Epoch::FIRST,
        number: 0,
        created_ms: 1_700_000_000_000,
        chain: Chain::default(),
        chain_key: SystemKey::VERSION,
        chain_after: Chain::default(),
    };
    let mut out = header.encode().to_vec();
    repair_segment(&mut out);
    let after = out.get(108..).and_then(|rest| rest.first_chunk::<16>());
    let mut chain = Chain(after.copied().unwrap_or_default());
    for (kind, sections) in [
        (RecordKind::Batch, &[&[0xbb; 60][..]][..]),
        (RecordKind::Batch, &[&[0xcc; 600], &[1; 28]]),
        (RecordKind::Close, &[]),
    ] {
        let record = record(kind, Lsn(out.len() as u64), chain, sections);
        let after = record.get(CHAIN_AT..).and_then(|rest| rest.first_chunk::<16>());
        chain = Chain(after.copied().unwrap_or_default());
        out.extend_from_slice(&record);
    }
    let torn = out.get(..out.len() - 40).unwrap_or_default().to_vec();
    vec![out, torn]
}
