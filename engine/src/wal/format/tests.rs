//! Records and operations: valid as written, refused with any byte changed.

use super::*;

fn sample() -> Vec<u8> {
    let fields = RecordFields {
        kind: RecordKind::Batch,
        lsn: Lsn(128),
        seqno: SeqNo(7),
        time_ms: 1_700_000_000_000,
        durable: Lsn(100),
    };
    let mut out = Vec::new();
    start_record(&fields, 1, &mut out);
    push_section_header(TenantId(5), DekVersion(1), 2, [9; 16], 30, &mut out);
    out.extend_from_slice(&[0xaa; 30]);
    finish_record(BEFORE, &key(), &mut out);
    out
}

const BEFORE: Chain = Chain([3; 16]);

fn key() -> ChainKey {
    ChainKey::derive(&crate::seal::Dek::from_bytes(&[4; 32]), DekVersion(1))
}

/// Why `bytes` are no record at Lsn 128, behind the chain `before`.
fn check(bytes: &[u8], before: Chain) -> Result<Chain, Invalid> {
    let key = key();
    let place = Place {
        lsn: Lsn(128),
        chain: before,
        key: &key,
    };
    check_record(bytes, &place).map(|record| record.chain)
}

/// Changed as somebody without the key can: the checksum is mended.
fn forge(edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = sample();
    edit(&mut bytes);
    let len = (bytes.len() as u32).to_le_bytes();
    bytes[4..8].copy_from_slice(&len);
    let crc = crc32fast::hash(&bytes[4..]).to_le_bytes();
    bytes[..4].copy_from_slice(&crc);
    bytes
}

#[test]
fn a_record_holds_behind_the_chain_it_was_made_for_and_no_other() {
    let after = check(&sample(), BEFORE).unwrap();
    assert_ne!(after, BEFORE);
    let wrong = check(&sample(), Chain([2; 16])).unwrap_err();
    assert!(matches!(wrong, Invalid::Forged(m) if m.field == "record chain"));
}

#[test]
fn every_byte_of_the_frame_and_the_tag_changed_with_the_checksum_mended_is_forged() {
    // All but checksum and length (mended), and the sealed bytes before the tag: the tag is for them.
    let sealed = sample().len() - 30;
    let framed = (8..sealed).chain(sealed + 14..sealed + 30);
    for at in framed {
        for bit in 0..8 {
            let bytes = forge(|bytes| bytes[at] ^= 1 << bit);
            let found = check(&bytes, BEFORE);
            assert!(matches!(found, Err(Invalid::Forged(_))), "byte {at}: {found:?}");
        }
    }
    let longer = forge(|bytes| bytes.push(0));
    assert!(matches!(check(&longer, BEFORE), Err(Invalid::Forged(_))));
}

#[test]
fn the_expected_chain_is_told_to_nobody() {
    let expected = check(&sample(), BEFORE).unwrap();
    let bytes = forge(|bytes| bytes[20] ^= 1);
    let told = format!("{:?}", check(&bytes, BEFORE).unwrap_err());
    assert!(!told.contains(&expected.to_string()));
}

#[test]
fn a_changed_segment_header_is_not_authentic() {
    let io = crate::io::sim::SimFs::new().io(1);
    let header = segment_header(&io, Epoch::FIRST, Lsn(640), BEFORE, (DekVersion(1), &key())).unwrap();
    assert!(header_is_authentic(&header, &key()));
    let raw = header.encode();
    for at in (16..124).chain([8]) {
        let mut bad = raw;
        bad[at] ^= 1;
        let crc = crc32fast::hash(&[&bad[..12], &bad[16..]].concat());
        bad[12..16].copy_from_slice(&crc.to_le_bytes());
        let decoded = FileHeader::decode(std::path::Path::new("w"), &bad, FileKind::Wal);
        assert!(
            !decoded.is_ok_and(|header| header_is_authentic(&header, &key())),
            "byte {at}"
        );
    }
}

#[test]
fn a_record_reads_back_with_its_section() {
    let bytes = sample();
    let record = parse_record(&bytes, Lsn(128)).unwrap();
    assert_eq!(
        (record.seqno, record.durable, record.time_ms),
        (SeqNo(7), Lsn(100), 1_700_000_000_000)
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
    let elsewhere = parse_record(&bytes, Lsn(129)).unwrap_err();
    assert!(matches!(elsewhere, Invalid::Forged(m) if m.field == "record position"));
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
    assert!(ops[1].kind == OpKind::Entry(EntryKind::Delete) && ops[1].value.is_empty());
    assert!(parse_ops(&plain, 1).is_none() && parse_ops(&plain, 3).is_none());
    assert!(parse_ops(&plain.slice(..plain.len() - 1), 2).is_none());
}

#[test]
fn a_dated_operation_has_two_moments_in_front_and_none_without() {
    let mut plain = Vec::new();
    push_dated([0, 0, 0, 1], b"k", b"v", (0x0102, u64::MAX), &mut plain);
    assert_eq!(
        plain,
        b"\x04\x05\0\x11\0\0\0\0\0\0\x01k\x02\x01\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xffv"
    );
    for (len, fits) in [(0, false), (15, false), (16, true)] {
        let mut plain = Vec::new();
        push_op(EntryKind::Dated, [0; 4], b"k", &[1; 16][..len], &mut plain);
        assert_eq!(parse_ops(&Bytes::from(plain), 1).is_some(), fits, "{len} bytes");
    }
}

#[test]
fn an_operation_that_expires_has_its_moment_in_front_and_none_without() {
    let mut plain = Vec::new();
    push_expiring([0, 0, 0, 1], b"k", b"v", 0x0102, &mut plain);
    assert_eq!(plain, b"\x03\x05\0\x09\0\0\0\0\0\0\x01k\x02\x01\0\0\0\0\0\0v");
    let ops = parse_ops(&Bytes::from(plain), 1).unwrap();
    assert!(ops[0].kind == OpKind::Entry(EntryKind::Expiring) && &ops[0].key[..] == b"\0\0\0\x01k");
    for (len, fits) in [(0, false), (7, false), (8, true)] {
        let mut plain = Vec::new();
        push_op(EntryKind::Expiring, [0; 4], b"k", &[1; 8][..len], &mut plain);
        assert_eq!(parse_ops(&Bytes::from(plain), 1).is_some(), fits, "{len} bytes");
    }
}

#[test]
fn a_range_delete_has_both_ends_in_one_keyspace() {
    let mut plain = Vec::new();
    push_range_delete(b"\0\0\0\x01a", b"\0\0\0\x01b", &mut plain);
    assert_eq!(plain, b"\x05\x05\0\x05\0\0\0\0\0\0\x01a\0\0\0\x01b");
    let ops = parse_ops(&Bytes::from(plain), 1).unwrap();
    assert!(ops[0].kind == OpKind::DeleteRange);
    assert_eq!(
        (&ops[0].key[..], &ops[0].value[..]),
        (&b"\0\0\0\x01a"[..], &b"\0\0\0\x01b"[..])
    );
    for (start, end) in [
        (&b"\0\0\0\x01b"[..], &b"\0\0\0\x01a"[..]),
        (b"\0\0\0\x01a", b"\0\0\0\x01a"),
        (b"\0\0\0\x01a", b"\0\0\0\x03"),
        (b"\0\0\0\x01a", b"\0\0"),
    ] {
        let mut plain = Vec::new();
        push_range_delete(start, end, &mut plain);
        assert!(parse_ops(&Bytes::from(plain), 1).is_none(), "{start:?} {end:?}");
    }
}

/// A peer must not make a node look for a value in files of its own.
#[test]
fn a_reference_to_a_value_file_is_no_operation() {
    let mut plain = Vec::new();
    push_op(EntryKind::Put, [0, 0, 0, 1], b"key", &[1; 24], &mut plain);
    assert!(parse_ops(&Bytes::from(plain.clone()), 1).is_some());
    plain[0] = EntryKind::Separated as u8;
    assert!(parse_ops(&Bytes::from(plain), 1).is_none());
}
