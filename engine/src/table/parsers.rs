//! Blocks, indexes, filters, directory and footer, for fuzzing: as they are after their seals were opened.

use bytes::Bytes;

use super::TableMeta;
use super::block::{Block, BlockBuilder, KEYS_BYTES_MAX};
use super::filter::{self, Filter};
use super::format::{FOOTER_BYTES, Footer, RUN_BYTES, Run, check_directory, checksum};
use super::index::{Handle, Index, IndexBuilder, Level};
use crate::hooks::parsers::{Parser, set_u32};
use crate::options::Compression;
use crate::range_delete::Fragment;
use crate::read::cursor::{Entry, EntryKind};
use crate::seal::FileHeader;
use crate::types::{DekVersion, SeqNo, TenantId};

pub(crate) const PARSERS: &[Parser] = &[
    Parser {
        name: "table_block",
        check: check_block,
        repair: Parser::no_repair,
        samples: block_samples,
        // Twice: written out, and with places.
        memory: 2 * KEYS_BYTES_MAX + Parser::MEMORY,
        // A byte of an LZ4 block may stand for 255 of entries.
        memory_per_byte: 255 * 16,
    },
    Parser {
        name: "table_index",
        check: check_index,
        repair: Parser::no_repair,
        samples: index_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
    Parser {
        name: "table_filter",
        check: check_filter,
        repair: Parser::no_repair,
        samples: filter_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
    Parser {
        name: "table_footer",
        check: check_footer,
        repair: repair_footer,
        samples: footer_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
    Parser {
        name: "table_meta",
        check: check_meta,
        repair: Parser::no_repair,
        samples: meta_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
];

fn check_block(bytes: &[u8]) -> bool {
    let Ok(block) = Block::decode_plain(bytes) else {
        return false;
    };
    // Numbers may be written in several ways; the entries are what must read back.
    let mut builder = BlockBuilder::new(Compression::Lz4);
    for index in 0..block.len() {
        let Some(entry) = block.entry(index) else {
            panic!("a decoded block lacks an entry");
        };
        assert_eq!(
            block.lower_bound(&entry.key, entry.seqno),
            index,
            "a search misses its entry"
        );
        builder.add(entry.view());
    }
    assert!(block.entry(block.len()).is_none());
    let Ok(again) = Block::decode_plain(builder.finish()) else {
        panic!("a block that was written again is refused");
    };
    assert_eq!(again.len(), block.len());
    assert!(
        (0..block.len()).all(|i| again.entry(i) == block.entry(i)),
        "entries read back otherwise"
    );
    true
}

/// Start and end of the span, then the index.
fn check_index(bytes: &[u8]) -> bool {
    let Some((start, rest)) = bytes.split_first_chunk::<8>() else {
        return false;
    };
    let Some((end, plain)) = rest.split_first_chunk::<8>() else {
        return false;
    };
    let span = u64::from_le_bytes(*start)..u64::from_le_bytes(*end);
    let Ok(index) = Index::decode(plain.to_vec(), span.clone()) else {
        return false;
    };
    let mut builder = IndexBuilder::default();
    for part in 0..index.len() {
        let (Some(handle), Some(inside)) = (index.handle(part), index.span(part)) else {
            panic!("a decoded index lacks a part");
        };
        let separator = index.separator(part);
        assert!(inside.start <= inside.end && span.start <= inside.start && inside.end <= span.end);
        assert!(index.find(separator) <= part, "a search goes past its part");
        builder.add(&index.first(), &index.last(), separator, handle);
    }
    let found = index.find(&index.last());
    assert!(index.handle(index.len()).is_none() && (found < index.len() || index.len() == 0));
    let deletes: Vec<Fragment> = index
        .range_deletes()
        .map_or_else(Vec::new, |deletes| deletes.iter().cloned().collect());
    for fragment in &deletes {
        let newest = fragment.seqnos.first().copied();
        let look = |key: &[u8]| index.range_deletes().and_then(|all| all.newest(key, SeqNo::MAX));
        assert_eq!(look(&fragment.start), newest, "a search misses its fragment");
    }
    assert_eq!(builder.entries(), index.entries());
    assert!(
        builder.finish(index.level(), &deletes) == plain,
        "an index reads back as other bytes"
    );
    true
}

fn check_filter(bytes: &[u8]) -> bool {
    let Ok(filter) = Filter::decode(bytes.to_vec()) else {
        return false;
    };
    for hash in [0, u64::MAX, 1 << 63, 0x0123_4567_89ab_cdef] {
        let answer = filter.may_hold(hash);
        assert_eq!(answer, filter.may_hold(hash));
    }
    true
}

/// Directory, then footer.
fn check_footer(bytes: &[u8]) -> bool {
    let Some(at) = bytes.len().checked_sub(FOOTER_BYTES) else {
        return false;
    };
    let (directory, footer_bytes) = bytes.split_at(at);
    let Ok(footer) = Footer::decode(footer_bytes) else {
        return false;
    };
    let Ok(checked) = check_directory(&footer, directory.to_vec(), footer_bytes) else {
        return false;
    };
    let mut again = Vec::new();
    for run in checked.iter() {
        assert_eq!(checked.find(run.tenant), Some(run), "a search misses its tenant");
        run.encode(&mut again);
    }
    // A tail that is no whole record would be bytes that nothing vouches for.
    assert!(again == directory, "a directory reads back as other bytes");
    assert!(
        footer.encode(directory) == footer_bytes,
        "a footer reads back as other bytes"
    );
    true
}

fn check_meta(bytes: &[u8]) -> bool {
    let Some(meta) = TableMeta::decode(bytes) else {
        return false;
    };
    let mut again = Vec::new();
    meta.encode(&mut again);
    assert!(again == bytes, "a table's meta reads back as other bytes");
    true
}

fn repair_footer(bytes: &mut [u8]) {
    if let Some(at) = bytes.len().checked_sub(FOOTER_BYTES) {
        let (directory, footer) = bytes.split_at(at);
        let crc = checksum(directory, footer.get(..52).unwrap_or_default());
        set_u32(bytes, at + 52, crc);
    }
}

/// As blocks once were: "k1" twice and "k2", of keyspace 1.
const SHORTENED: &[u8] =
    b"\0\x03\0\0\0\x12\0\0\0\0\x06\0\0\0\x01k1\x09\x05v\x06\0\x08\x02\x05\x01\x32\x07\x0545";

fn block_samples() -> Vec<Vec<u8>> {
    let entry = |key: &str, seqno: u64, value: Option<&str>| Entry {
        key: Bytes::copy_from_slice(&[b"\0\0\0\x01", key.as_bytes()].concat()),
        seqno: SeqNo(seqno),
        kind: if value.is_some() {
            EntryKind::Put
        } else {
            EntryKind::Delete
        },
        value: Bytes::copy_from_slice(value.unwrap_or_default().as_bytes()),
    };
    let block = |entries: &[Entry], compression| {
        let mut builder = BlockBuilder::new(compression);
        entries.iter().for_each(|entry| builder.add(entry.view()));
        builder.finish().to_vec()
    };
    let long = "v".repeat(700);
    let several = [
        entry("user/1/name", 900, Some("new")),
        entry("user/1/name", 12, Some("old")),
        entry("user/1/path", 1 << 40, None),
        entry("user/2", 3, Some(&long)),
    ];
    vec![
        block(&[entry("a", 1, Some("value"))], Compression::None),
        block(&several, Compression::None),
        block(
            &[
                Entry {
                    kind: EntryKind::Dated,
                    ..entry("s/0", 9, Some("\u{1}\0\0\0\0\0\0\0\u{2}\0\0\0\0\0\0\0event"))
                },
                Entry {
                    kind: EntryKind::Expiring,
                    ..entry("s/1", 8, Some("\u{1}\0\0\0\0\0\0\0token"))
                },
                entry("s/1", 7, Some("before")),
            ],
            Compression::None,
        ),
        block(&several, Compression::Lz4),
        SHORTENED.to_vec(),
    ]
}

fn index_samples() -> Vec<Vec<u8>> {
    let handle = |offset, bytes, filter_bytes| Handle {
        offset,
        bytes,
        filter_bytes,
        entries: 5,
    };
    let with_span = |end: u64, index: Vec<u8>| {
        [128u64.to_le_bytes().to_vec(), end.to_le_bytes().to_vec(), index].concat()
    };
    let fragment = |start: &'static [u8], end: &'static [u8], seqnos: &[u64]| Fragment {
        start: Bytes::from_static(start),
        end: Bytes::from_static(end),
        seqnos: seqnos.iter().map(|seqno| SeqNo(*seqno)).collect(),
    };
    let deletes = [
        fragment(b"\0\0\0\x01", b"\0\0\0\x01b", &[9]),
        fragment(b"\0\0\0\x01b", b"\0\0\0\x02", &[1 << 40, 9, 3]),
    ];
    let mut blocks = IndexBuilder::default();
    blocks.add(
        b"\0\0\0\x01a",
        b"\0\0\0\x01c",
        b"\0\0\0\x01d",
        handle(128, 1000, 0),
    );
    blocks.add(
        b"\0\0\0\x01e",
        b"\0\0\0\x01k",
        b"\0\0\0\x01k",
        handle(1128, 400, 0),
    );
    let mut sections = IndexBuilder::default();
    sections.add(
        b"\0\0\0\x01a",
        b"\0\0\0\x01c",
        b"\0\0\0\x01d",
        handle(1000, 60, 100),
    );
    sections.add(
        b"\0\0\0\x01e",
        b"\0\0\0\x01k",
        b"\0\0\0\x01k",
        handle(4000, 80, 0),
    );
    vec![
        with_span(1528, blocks.finish(Level::Blocks, &[])),
        with_span(4080, sections.finish(Level::Sections, &[])),
        with_span(1528, blocks.finish(Level::Blocks, &deletes)),
        with_span(4080, sections.finish(Level::Sections, &deletes)),
        with_span(128, IndexBuilder::default().finish(Level::Blocks, &deletes)),
    ]
}

fn filter_samples() -> Vec<Vec<u8>> {
    let hashes: Vec<u64> = (0..200u64).map(|i| filter::hash(&i.to_le_bytes(), 9)).collect();
    vec![filter::build(&hashes, 10), filter::build(&[], 1)]
}

fn footer_samples() -> Vec<Vec<u8>> {
    let run = |tenant, start, len| Run {
        tenant: TenantId(tenant),
        dek: DekVersion(1),
        filter_bytes: 100,
        commitment: [tenant as u8; 16],
        entries: 10,
        deletes: 3,
        range_deletes: tenant as u32 / 2,
        seqno_min: SeqNo(tenant),
        seqno_max: SeqNo(100),
        start,
        head: start + len,
        index_bytes: 80,
        expires: tenant as u32 - 1,
    };
    let table = |runs: &[Run]| {
        let mut directory = Vec::new();
        runs.iter().for_each(|run| run.encode(&mut directory));
        let footer = Footer {
            directory: runs.last().and_then(Run::end).unwrap_or_default(),
            tenants: (directory.len() / RUN_BYTES) as u64,
            entries: runs.iter().map(|run| run.entries).sum(),
            seqno_min: SeqNo(1),
            seqno_max: SeqNo(100),
            known: SeqNo(directory.len() as u64 / RUN_BYTES as u64 - 1),
        };
        let footer = footer.encode(&directory);
        [directory, footer.to_vec()].concat()
    };
    let first = FileHeader::BYTES as u64;
    let one = run(1, first, 500);
    let two = run(5, one.end().unwrap_or_default(), 900);
    let mut bare = run(1, first, 0);
    (bare.entries, bare.deletes, bare.filter_bytes, bare.range_deletes) = (0, 0, 0, 4);
    vec![table(&[one]), table(&[one, two]), table(&[bare])]
}

fn meta_samples() -> Vec<Vec<u8>> {
    let meta = TableMeta {
        number: 9,
        file_id: [1; 16],
        bytes: 5000,
        entries: 40,
        digest: [2; 32],
        tenant_min: TenantId(0),
        tenant_max: TenantId(7),
        seqno_min: SeqNo(1),
        seqno_max: SeqNo(90),
        values: Vec::new(),
    };
    let mut out = Vec::new();
    meta.encode(&mut out);
    vec![out]
}
