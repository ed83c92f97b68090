//! Bytes that must never change without a new format number.

use super::super::block::{Block, BlockBuilder};
use super::super::filter;
use super::super::format::{Footer, Run};
use super::super::index::{Handle, Index, IndexBuilder, Level};
use super::*;
use crate::read::testing::{dated, expiring};

#[test]
fn block_is_as_specified() {
    let mut block = BlockBuilder::new(Compression::None);
    block.add(put(b"\0\0\0\x01apple", 300, b"red").view());
    block.add(put(b"\0\0\0\x01apple", 2, b"").view());
    let deleted = Entry {
        kind: EntryKind::Delete,
        ..put(b"\0\0\0\x01apricot", 7, b"")
    };
    block.add(deleted.view());
    block.add(expiring(b"\0\0\0\x01apricots", 1, b"x", 0x0203).view());
    let expected = concat!(
        "02",       // codec
        "04000000", // entries
        "ac02",     // seqno 300
        "19",       // 3 << 3 | put
        "09",
        "000000016170706c65",
        "726564",
        "02",
        "01",
        "09",
        "000000016170706c65",
        "07",
        "02", // delete
        "0b",
        "0000000161707269636f74",
        "01",
        "4b", // 9 << 3 | put that expires
        "0c",
        "0000000161707269636f7473",
        "0302000000000000",
        "78",
    );
    assert_eq!(hex::encode(block.finish()), expected);
    assert_eq!(
        Block::decode_plain(&hex::decode(expected).unwrap())
            .unwrap()
            .len(),
        4
    );
}

#[test]
fn dated_entry_of_a_block_has_two_moments() {
    let mut block = BlockBuilder::new(Compression::None);
    block.add(dated(b"\0\0\0\x01d", 9, b"x", (0x0203, u64::MAX)).view());
    let expected = concat!(
        "0201000000", // codec, 1 entry
        "09",
        "8c01", // 17 << 3 | dated put
        "05",
        "0000000164",
        "0302000000000000",
        "ffffffffffffffff",
        "78",
    );
    assert_eq!(hex::encode(block.finish()), expected);
    let read = Block::decode_plain(&hex::decode(expected).unwrap()).unwrap();
    assert_eq!(read.entry(0).unwrap().kind, EntryKind::Dated);
}

#[test]
fn entries_come_back_whatever_the_lengths_of_their_numbers() {
    // One, two, three bytes and more; and the longest there is.
    let numbers = [0, 127, 128, 1 << 14, 1 << 21, 1 << 40, u64::MAX];
    let (values, keys) = ([0, 15, 16, 2047, 2048, 300_000], [1, 127, 128, 16_388]);
    let mut entries = Vec::new();
    for key in keys {
        for value in values {
            // Of one key, the newest first.
            let name = [vec![b'k'; key - 1], vec![entries.len() as u8 + 1]].concat();
            let versions = numbers.iter().rev();
            entries.extend(versions.map(|seqno| put(&name, *seqno, &vec![7; value])));
        }
    }
    entries.sort_by(|a, b| a.key.cmp(&b.key).then(b.seqno.cmp(&a.seqno)));
    for some in [&entries[..], &entries[..1], &entries[3..4]] {
        let mut block = BlockBuilder::new(Compression::None);
        some.iter().for_each(|entry| block.add(entry.view()));
        let read = Block::decode_plain(block.finish()).unwrap();
        for (index, entry) in some.iter().enumerate() {
            assert_eq!(read.entry(index).as_ref(), Some(entry), "{index}");
            assert_eq!(read.key(index), entry.key, "{index}");
            assert_eq!(read.lower_bound(&entry.key, entry.seqno), index);
        }
    }
}

/// How it is packed is free; what it unpacks to is not.
#[test]
fn compressed_block_is_as_specified() {
    let packed = concat!(
        "03",             // codec: LZ4
        "02000000",       // entries
        "38000000",       // 56 bytes of entries
        "cf",             // 12 literals, then a match of 15 or more
        "018902",         // seqno 1; tag: 33 << 3 | put
        "06000000016b31", // 6 bytes of key: keyspace 1, "k1"
        "6161",           // "aa"
        "0100",           // the match is one byte back
        "0c",             // and has 4 + 15 + 12 bytes
        "d0",             // 13 literals, the last
        "0221",           // seqno 2; tag: 4 << 3 | put
        "06000000016b32", // keyspace 1, "k2"
        "62626262",
    );
    let block = Block::decode_plain(&hex::decode(packed).unwrap()).unwrap();
    let entries: Vec<Entry> = (0..block.len()).map(|i| block.entry(i).unwrap()).collect();
    let expected = [
        put(b"\0\0\0\x01k1", 1, &[b'a'; 33]),
        put(b"\0\0\0\x01k2", 2, b"bbbb"),
    ];
    assert_eq!(entries, expected);
}

/// Written by nobody any more, and read for as long as format 1 is.
#[test]
fn blocks_with_shortened_keys_read_as_ever() {
    let stored = concat!(
        "00",       // codec
        "04000000", // entries
        "29000000", // 41 bytes of keys: 9 + 9 + 11 + 12
        "00",       // nothing shared
        "09",
        "000000016170706c65",
        "ac02", // seqno 300
        "0d",   // 3 << 2 | put
        "726564",
        "09", // all shared
        "00",
        "02",
        "01",
        "06", // "\0\0\0\x01ap"
        "05",
        "7269636f74",
        "07",
        "02", // delete
        "0b", // "\0\0\0\x01apricot"
        "01",
        "73",
        "01",
        "27", // 9 << 2 | put that expires
        "0302000000000000",
        "78",
    );
    let packed = concat!(
        "01",               // codec: LZ4
        "02000000",         // entries
        "0c000000",         // 12 bytes of keys: 6 + 6
        "35000000",         // 53 bytes of entries
        "cf",               // 12 literals, then a match of 15 or more
        "0006000000016b31", // nothing shared, 6 more: keyspace 1, "k1"
        "018501",           // seqno 1; tag: 33 << 2 | put
        "61",               // "a"
        "0100",             // the match is one byte back
        "0d",               // and has 4 + 15 + 13 bytes
        "90",               // 9 literals, the last
        "050132",           // 5 shared, 1 more: keyspace 1, "k2"
        "0211",             // seqno 2; tag: 4 << 2 | put
        "62626262",
    );
    let entries = |hex: &str| -> Vec<Entry> {
        let block = Block::decode_plain(&hex::decode(hex).unwrap()).unwrap();
        (0..block.len()).map(|i| block.entry(i).unwrap()).collect()
    };
    let deleted = Entry {
        kind: EntryKind::Delete,
        ..put(b"\0\0\0\x01apricot", 7, b"")
    };
    let expected = [
        put(b"\0\0\0\x01apple", 300, b"red"),
        put(b"\0\0\0\x01apple", 2, b""),
        deleted,
        expiring(b"\0\0\0\x01apricots", 1, b"x", 0x0203),
    ];
    assert_eq!(entries(stored), expected);
    let expected = [
        put(b"\0\0\0\x01k1", 1, &[b'a'; 33]),
        put(b"\0\0\0\x01k2", 2, b"bbbb"),
    ];
    assert_eq!(entries(packed), expected);
}

#[test]
fn index_is_as_specified() {
    let mut index = IndexBuilder::default();
    let handle = Handle {
        offset: 128,
        bytes: 100,
        filter_bytes: 0,
        entries: 5,
    };
    index.add(b"a", b"bb", b"c", handle);
    index.add(
        b"d",
        b"e",
        b"e",
        Handle {
            offset: 228,
            ..handle
        },
    );
    let expected = concat!(
        "00",
        "02000000",
        "0100",
        "61",
        "0100",
        "65",
        "0100",
        "63",
        "8000000000000000",
        "64000000",
        "00000000",
        "05000000",
        "0100",
        "65",
        "e400000000000000",
        "64000000",
        "00000000",
        "05000000",
    );
    assert_eq!(hex::encode(index.finish(Level::Blocks, &[])), expected);
    let index = Index::decode(hex::decode(expected).unwrap(), 128..328).unwrap();
    assert_eq!((index.len(), index.entries()), (2, 10));
    assert_eq!((&index.first()[..], &index.last()[..]), (&b"a"[..], &b"e"[..]));
}

#[test]
fn filter_is_as_specified() {
    let seed = filter::seed(&[7; 16]);
    let hashes = [
        filter::hash(b"\0\0\0\x01apple", seed),
        filter::hash(b"\0\0\0\x01pear", seed),
    ];
    let bytes = filter::build(&hashes, 10);
    assert_eq!(hex::encode(&bytes[..8]), "0600000001000000");
    assert_eq!(bytes.len(), 8 + 64);
    let set: Vec<usize> = (0..512)
        .filter(|bit| bytes[8 + bit / 8] & (1 << (bit % 8)) != 0)
        .collect();
    assert_eq!(set, FILTER_BITS, "of hashes {hashes:x?}");
}

/// Six each; recomputed outside from the two hashes.
const FILTER_BITS: [usize; 12] = [3, 20, 22, 88, 104, 107, 217, 239, 267, 273, 417, 432];

#[test]
fn directory_record_and_footer_are_as_specified() {
    let run = Run {
        tenant: TenantId(1),
        dek: DekVersion(2),
        filter_bytes: 3,
        commitment: [4; 16],
        entries: 5,
        deletes: 6,
        range_deletes: 0,
        seqno_min: SeqNo(7),
        seqno_max: SeqNo(8),
        start: 9,
        head: 10,
        index_bytes: 11,
        expires: 12,
    };
    let mut bytes = Vec::new();
    run.encode(&mut bytes);
    let expected = concat!(
        "0100000000000000",
        "02000000",
        "03000000",
        "04040404040404040404040404040404",
        "0500000000000000",
        "0600000000000000",
        "0700000000000000",
        "0800000000000000",
        "0900000000000000",
        "0a00000000000000",
        "0b000000",
        "0c000000",
    );
    assert_eq!(hex::encode(&bytes), expected);
    let footer = Footer {
        known: SeqNo(0),
        directory: 1,
        tenants: 2,
        entries: 3,
        seqno_min: SeqNo(4),
        seqno_max: SeqNo(5),
    };
    let expected = concat!(
        "0100000000000000",
        "0200000000000000",
        "0300000000000000",
        "0400000000000000",
        "0500000000000000",
        "0000000000000000",
        "0100",
        "0000",
        "4a0e276a",
        "5352475441424c45",
    );
    assert_eq!(hex::encode(footer.encode(&bytes)), expected);
}
