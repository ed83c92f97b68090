//! Records and operations: valid as written, refused with any byte changed.

use super::*;
use crate::options::VALUE_BYTES_MAX;

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

const KINDS: [OpKind; 5] = [
    OpKind::Entry(EntryKind::Put),
    OpKind::Entry(EntryKind::Delete),
    OpKind::Entry(EntryKind::Expiring),
    OpKind::Entry(EntryKind::Dated),
    OpKind::DeleteRange,
];

/// Kind, key length and value length as a head says them.
fn head(kind: u64, key_len: u64, value_len: u64) -> Vec<u8> {
    let mut out = Vec::new();
    push_varint(value_len << 3 | kind, &mut out);
    push_varint(key_len, &mut out);
    out
}

/// An operation with a tree key and a value of so many bytes; of a range delete they are one range. None where one of
/// the kind cannot have them.
fn operation(kind: OpKind, key_len: usize, value_len: usize) -> Option<Vec<u8>> {
    let filled = |first: &[u8], len: usize| [first, &vec![1; len]].concat();
    let mut out = Vec::new();
    match kind {
        OpKind::Entry(kind) => {
            value_len.checked_sub(kind.stamp_bytes())?;
            let key = filled(&[], key_len.checked_sub(4)?);
            push_op(kind, [0, 0, 0, 1], &key, &filled(&[], value_len), &mut out);
        }
        OpKind::DeleteRange if value_len <= BOUND_BYTES_MAX => {
            let start = filled(&[0, 0, 0, 1], key_len.checked_sub(4)?);
            let end = filled(&[0, 0, 0, 1, 2], value_len.checked_sub(5)?);
            push_range_delete(&start, &end, &mut out);
        }
        OpKind::DeleteRange => return None,
    }
    Some(out)
}

fn reads(plain: &[u8]) -> bool {
    parse_ops(&Bytes::copy_from_slice(plain), 1).is_some()
}

#[test]
fn every_kind_of_operation_reads_back_around_the_steps_of_its_varints_and_no_cut_of_it_does() {
    let keys = [
        (4, 1),
        (5, 1),
        (20, 1),
        (127, 1),
        (128, 2),
        (16_383, 2),
        (16_384, 3),
    ];
    let values = [
        (0, 1),
        (1, 1),
        (15, 1),
        (16, 2),
        (17, 2),
        (2047, 2),
        (2048, 3),
        (BOUND_BYTES_MAX, 3),
    ];
    let longest = KINDS.map(|kind| (kind, (kind.key_bytes_max(), 3)));
    let all = KINDS.iter().flat_map(|kind| keys.map(|key| (*kind, key)));
    for (kind, (key_len, key_bytes)) in all.chain(longest) {
        for (value_len, value_bytes) in values {
            let Some(plain) = operation(kind, key_len, value_len) else {
                continue;
            };
            let what = format!("{kind:?}, {key_len} and {value_len} bytes");
            assert_eq!(
                plain.len(),
                key_bytes + value_bytes + key_len + value_len,
                "{what}"
            );
            let plain = Bytes::from(plain);
            let ops = parse_ops(&plain, 1).unwrap_or_else(|| panic!("{what}"));
            assert_eq!(ops[0].kind, kind, "{what}");
            assert_eq!(
                (ops[0].key.len(), ops[0].value.len()),
                (key_len, value_len),
                "{what}"
            );
            assert!(
                [&ops[0].key[..], &ops[0].value].concat() == plain[key_bytes + value_bytes..],
                "{what}"
            );
            for len in 0..plain.len() {
                assert!(
                    parse_ops(&plain.slice(..len), 1).is_none(),
                    "{what}, cut at {len}"
                );
            }
        }
    }
}

#[test]
fn the_longest_operation_has_the_longest_head() {
    let value = VALUE_BYTES_MAX + DATE_BYTES;
    let plain = operation(OpKind::Entry(EntryKind::Dated), 4 + KEY_BYTES_MAX, value).unwrap();
    assert_eq!(plain.len(), OP_HEAD_BYTES_MAX + 4 + KEY_BYTES_MAX + value);
    let plain = Bytes::from(plain);
    assert_eq!(parse_ops(&plain, 1).unwrap()[0].value.len(), value);
    let cuts = [0, 1, 4, 5, 7, 8, plain.len() - 1];
    assert!(
        cuts.iter()
            .all(|len| parse_ops(&plain.slice(..*len), 1).is_none())
    );
}

#[test]
fn a_longer_varint_in_front_of_an_operation_is_refused() {
    for kind in KINDS {
        for (key_len, value_len) in [(4, 5), (5, 16), (127, 17), (128, 2047), (16_384, 2048)] {
            let Some(plain) = operation(kind, key_len, value_len) else {
                continue;
            };
            assert!(reads(&plain));
            let ends = plain.iter().enumerate().filter(|(_, byte)| **byte < 0x80);
            for end in ends.map(|(at, _)| at).take(2) {
                for more in 1..=10 {
                    let mut longer = plain.clone();
                    longer[end] |= 0x80;
                    longer.splice(end + 1..end + 1, vec![0x80; more - 1].into_iter().chain([0]));
                    assert!(!reads(&longer), "{kind:?}, {more} bytes more at {end}");
                }
            }
        }
    }
}

#[test]
fn kinds_and_lengths_that_no_operation_has_are_refused() {
    let tail = [0; 4 + KEY_BYTES_MAX + 8];
    let with_head = |kind: u64, key_len: u64, value_len: u64| {
        let all = (key_len.saturating_add(value_len) as usize).min(tail.len());
        [&head(kind, key_len, value_len)[..], &tail[..all]].concat()
    };
    for kind in 0..8 {
        assert_eq!(
            reads(&with_head(kind, 5, 0)),
            kind == 1 || kind == 2,
            "kind {kind}"
        );
    }
    let longest = 4 + KEY_BYTES_MAX as u64;
    for (len, is) in [
        (0, false),
        (3, false),
        (4, true),
        (longest, true),
        (longest + 1, false),
    ] {
        assert_eq!(reads(&with_head(1, len, 1)), is, "a key of {len} bytes");
    }
    // Longer than what is there, than 32 bits hold, and than 64 do with the kind beside it.
    for len in [1 << 27, u64::from(u32::MAX) >> 3, 1 << 29, 1 << 32, u64::MAX >> 3] {
        assert!(!reads(&with_head(1, 5, len)), "a value of {len} bytes");
        assert!(!reads(&with_head(1, len, 5)), "a key of {len} bytes");
    }
    let start = [&[0, 0, 0, 1][..], &vec![1; BOUND_BYTES_MAX - 3]].concat();
    for (start, end) in [(&start[..], &b"\0\0\0\x01\x02"[..]), (b"\0\0\0\x01", &start)] {
        let mut plain = Vec::new();
        push_range_delete(start, end, &mut plain);
        assert!(!reads(&plain), "{} and {} bytes", start.len(), end.len());
    }
}

#[test]
fn a_dated_operation_has_two_moments_in_front_and_none_without() {
    let mut plain = Vec::new();
    push_dated([0, 0, 0, 1], b"k", b"v", (0x0102, u64::MAX), &mut plain);
    assert_eq!(
        plain,
        b"\x8c\x01\x05\0\0\0\x01k\x02\x01\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xffv"
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
    assert_eq!(plain, b"\x4b\x05\0\0\0\x01k\x02\x01\0\0\0\0\0\0v");
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
    assert_eq!(plain, b"\x2d\x05\0\0\0\x01a\0\0\0\x01b");
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
    plain[0] ^= EntryKind::Put as u8 ^ EntryKind::Separated as u8;
    assert!(parse_ops(&Bytes::from(plain), 1).is_none());
}
