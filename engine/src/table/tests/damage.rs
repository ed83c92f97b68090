use super::super::block::{Block, BlockBuilder};
use super::super::filter::{self, Filter};
use super::super::index::{Handle, Index, IndexBuilder, Level};
use super::*;
use crate::io::sim::{Fault, Times};

/// A small table of two tenants; several sections in one of them.
fn small(place: &Place) -> (TableMeta, Vec<(TenantId, Vec<Entry>)>) {
    let mut random = Random(11);
    let mut content = content(&mut random, &[1, 2], 8, 8);
    content.insert(TenantId(3), random_entries(&mut random, 40, 20, 9));
    let meta = place.build(
        Shape {
            block_bytes: 64,
            compression: Compression::None,
            filter_bits: 10,
            section_bytes: 400,
        },
        &content,
    );
    let read = read_all(place, &meta).unwrap();
    assert_eq!(read.len(), 3);
    (meta, read)
}

#[test]
fn every_flipped_bit_is_an_error() {
    let place = Place::new(1 << 20);
    let (meta, content) = small(&place);
    let path = Place::path(meta.number);
    for byte in 0..meta.bytes as usize {
        for bit in 0..8 {
            assert!(place.fs.corrupt(&path, |bytes| bytes[byte] ^= 1 << bit));
            match read_all(&place, &meta) {
                Err(error) => {
                    // A flip in the header's format says "newer version", in all else "damage".
                    let kind = error.kind();
                    assert!(
                        kind == ErrorKind::Corruption || kind == ErrorKind::Unsupported,
                        "byte {byte} bit {bit}: {error:?}"
                    );
                    assert_eq!(error.path(), Some(path.as_path()));
                }
                Ok(found) => panic!(
                    "byte {byte} bit {bit} unnoticed, same content: {}",
                    found == content
                ),
            }
            assert!(place.fs.corrupt(&path, |bytes| bytes[byte] ^= 1 << bit));
        }
    }
    assert_eq!(read_all(&place, &meta).unwrap(), content);
}

#[test]
fn every_truncation_and_extension_is_an_error() {
    let place = Place::new(1 << 20);
    let (meta, _) = small(&place);
    let path = Place::path(meta.number);
    let good = place.fs.content(&path).unwrap();
    for len in (0..good.len()).chain([good.len() + 1]) {
        place.fs.corrupt(&path, |bytes| {
            *bytes = good.clone();
            bytes.resize(len, 0);
        });
        assert_eq!(
            read_all(&place, &meta).unwrap_err().kind(),
            ErrorKind::Corruption,
            "at {len}"
        );
        // As if the manifest said that length.
        let shorter = TableMeta {
            bytes: len as u64,
            ..meta.clone()
        };
        assert!(place.open(&shorter).is_err(), "at {len}");
    }
    place.fs.lose(&path);
    let error = read_all(&place, &meta).unwrap_err();
    assert_eq!(
        (error.kind(), error.path()),
        (ErrorKind::Corruption, Some(path.as_path()))
    );
}

/// Equal entries for two tenants, so that their blocks have equal lengths.
fn twins(place: &Place) -> TableMeta {
    let mut oracle = Oracle::default();
    for i in 0..64u32 {
        oracle.add(put(
            &[b"\0\0\0\0key", &i.to_be_bytes()[..]].concat(),
            1,
            &[i as u8; 20],
        ));
    }
    place.build(
        Shape {
            compression: Compression::None,
            ..SMALL
        },
        &BTreeMap::from([(TenantId(1), oracle.clone()), (TenantId(2), oracle)]),
    )
}

/// Offsets and lengths of the blocks of a tenant.
fn blocks(place: &Place, meta: &TableMeta, tenant: TenantId) -> Vec<std::ops::Range<usize>> {
    let table = place.open(meta).unwrap();
    let top = super::super::run_reader::RunReader::new(&table, table.find(tenant).unwrap())
        .top()
        .unwrap()
        .unwrap();
    (0..top.index.len())
        .map(|i| top.index.handle(i).unwrap())
        .map(|handle| handle.offset as usize..handle.end().unwrap() as usize)
        .collect()
}

fn exchange(bytes: &mut [u8], a: &std::ops::Range<usize>, b: &std::ops::Range<usize>) {
    let (in_a, in_b) = (bytes[a.clone()].to_vec(), bytes[b.clone()].to_vec());
    bytes[a.clone()].copy_from_slice(&in_b);
    bytes[b.clone()].copy_from_slice(&in_a);
}

#[test]
fn blocks_that_change_places_are_errors() {
    let place = Place::new(1 << 20);
    let meta = twins(&place);
    let path = Place::path(meta.number);
    let (one, two) = (
        blocks(&place, &meta, TenantId(1)),
        blocks(&place, &meta, TenantId(2)),
    );
    assert!(one.len() > 4 && one[1].len() == one[2].len() && one[1].len() == two[1].len());
    read_all(&place, &meta).unwrap();
    for (a, b) in [(&one[1], &one[2]), (&one[1], &two[1]), (&one[0], &two[0])] {
        place.fs.corrupt(&path, |bytes| exchange(bytes, a, b));
        let error = read_all(&place, &meta).unwrap_err();
        assert_eq!(
            (error.kind(), error.path()),
            (ErrorKind::Corruption, Some(path.as_path()))
        );
        assert!([a.start, b.start].contains(&(error.offset().unwrap() as usize)));
        place.fs.corrupt(&path, |bytes| exchange(bytes, a, b));
    }
    // One block over another: the same content twice.
    place
        .fs
        .corrupt(&path, |bytes| bytes.copy_within(one[1].clone(), one[2].start));
    assert_eq!(read_all(&place, &meta).unwrap_err().kind(), ErrorKind::Corruption);
}

#[test]
fn files_and_their_parts_that_change_places_are_errors() {
    let place = Place::new(1 << 20);
    let (one, two) = (twins(&place), twins(&place));
    assert_eq!(one.bytes, two.bytes);
    let (path_one, path_two) = (Place::path(one.number), Place::path(two.number));
    place.fs.swap(&path_one, &path_two);
    for meta in [&one, &two] {
        assert_eq!(read_all(&place, meta).unwrap_err().kind(), ErrorKind::Corruption);
    }
    place.fs.swap(&path_one, &path_two);
    read_all(&place, &one).unwrap();
    // A block of the other file at the same offset, of the same tenant and with the same content.
    let block = &blocks(&place, &one, TenantId(1))[1];
    let other = place.fs.content(&path_two).unwrap();
    place.fs.corrupt(&path_one, |bytes| {
        bytes[block.clone()].copy_from_slice(&other[block.clone()])
    });
    assert_eq!(read_all(&place, &one).unwrap_err().kind(), ErrorKind::Corruption);
    // Header of one, rest of the other.
    place
        .fs
        .corrupt(&path_one, |bytes| bytes[128..].copy_from_slice(&other[128..]));
    assert_eq!(read_all(&place, &one).unwrap_err().kind(), ErrorKind::Corruption);
    assert_eq!(
        read_all(
            &place,
            &TableMeta {
                digest: two.digest,
                ..one.clone()
            }
        )
        .unwrap_err()
        .kind(),
        ErrorKind::Corruption
    );
}

#[test]
fn a_failed_read_is_returned_and_leaves_the_cursor_unpositioned() {
    let place = Place::new(0);
    let mut random = Random(2);
    let content = content(&mut random, &[1], 300, 200);
    let table = place.table(SMALL, &content);
    let entries = content[&TenantId(1)].entries();
    let mut cursor = table.cursor(TenantId(1)).unwrap();
    let (mut failures, mut walks_failed) = (0, 0);
    for _ in 0..200 {
        let entry = &entries[random.below(entries.len() as u64) as usize];
        if random.below(3) == 0 {
            place.fs.fail(Fault::read_error(
                place.fs.reads() + 1 + random.below(2),
                Times::Once,
            ));
        }
        let steps = [cursor.seek(&entry.key, entry.seqno), cursor.next(), cursor.prev()];
        place.fs.clear_faults();
        match steps {
            [Ok(()), Ok(()), Ok(())] => {}
            steps => {
                failures += 1;
                let error = steps.into_iter().find_map(|step| step.err()).unwrap();
                assert_eq!(error.kind(), ErrorKind::Io);
            }
        }
        cursor.seek(&entry.key, entry.seqno).unwrap();
        assert_eq!(cursor.owned().as_ref(), Some(entry));
        place
            .fs
            .fail(Fault::read_error(place.fs.reads() + 1, Times::Once));
        let mut result = Ok(());
        while result.is_ok() && cursor.entry().is_some() {
            result = cursor.next();
        }
        assert!(cursor.entry().is_none());
        walks_failed += u32::from(result.is_err());
        place.fs.clear_faults();
    }
    assert!(failures > 10 && walks_failed > 100, "{failures}, {walks_failed}");
}

/// Bytes that verified may still be anything: mutations of every structure must give errors or
/// something harmless, never a panic.
#[test]
fn hostile_plaintexts_never_panic() {
    let mut packed = 0;
    for seed in 0..300u64 {
        let mut random = Random(seed);
        let oracle = random_entries(&mut random, 30, 20, 30);
        let compression = [Compression::None, Compression::Lz4][seed as usize % 2];
        let mut block = BlockBuilder::new(compression);
        let mut index = IndexBuilder::default();
        for (i, mut entry) in oracle.entries().into_iter().enumerate() {
            if compression == Compression::Lz4 && entry.kind == EntryKind::Put {
                entry.value = vec![i as u8; 40].into();
            }
            block.add(entry.view());
            let handle = Handle {
                offset: 128 + 50 * i as u64,
                bytes: 50,
                filter_bytes: 0,
                entries: 1,
            };
            index.add(&entry.key, &entry.key, &entry.key, handle);
        }
        let span = 128..128 + 50 * oracle.0.len() as u64;
        let block = block.finish().to_vec();
        let index = index.finish(Level::Blocks, &[]);
        let filter = filter::build(&[1, 2, 3], 10);
        packed += u32::from(block[0]);
        assert_eq!(Block::decode_plain(&block).unwrap().len(), oracle.0.len());
        assert_eq!(
            Index::decode(index.clone(), span.clone()).unwrap().len(),
            oracle.0.len()
        );
        for len in 0..block.len() {
            assert!(Block::decode_plain(&block[..len]).is_err());
        }
        for len in 0..index.len() {
            assert!(Index::decode(index[..len].to_vec(), span.clone()).is_err());
        }
        let mut mutate = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff, random.next() as u8][random.below(6) as usize];
            }
            bytes
        };
        for _ in 0..300 {
            if let Ok(block) = Block::decode_plain(&mutate(&block)) {
                let entries: Vec<Entry> = (0..block.len()).map(|i| block.entry(i).unwrap()).collect();
                assert!(
                    entries
                        .windows(2)
                        .all(|pair| pair[0].view().order(&pair[1].key, pair[1].seqno).is_lt())
                );
                for (i, entry) in entries.iter().enumerate() {
                    assert_eq!(block.lower_bound(&entry.key, entry.seqno), i);
                }
                assert_eq!(block.entry(block.len()), None);
            }
            if let Ok(index) = Index::decode(mutate(&index), span.clone()) {
                for i in 0..=index.len() {
                    let _ = (index.find(index.separator(i)), index.handle(i), index.span(i));
                }
                let _ = (index.first(), index.last());
            }
            if let Ok(filter) = Filter::decode(mutate(&filter)) {
                let _ = filter.may_hold(12345);
            }
        }
    }
    assert!(packed > 100, "{packed} blocks of 150 were compressed");
}

#[test]
fn a_failed_write_or_sync_is_returned_and_leaves_no_file() {
    let mut failures = 0;
    for at in 0.. {
        let place = Place::new(0);
        let mut random = Random(2);
        let content = content(&mut random, &[1, 2], 200, 100);
        let fault = if at % 2 == 0 {
            Fault::disk_full(place.fs.ops() + 1 + at, Times::Once)
        } else {
            Fault::io_error(place.fs.ops() + 1 + at, Times::Once)
        };
        place.fs.fail(fault);
        let number = place.number.fetch_add(1, Ordering::Relaxed);
        let header =
            FileHeader::new(&place.io, FileKind::Table, Epoch::FIRST, number, Chain::default()).unwrap();
        let path = Place::path(number);
        let build = || -> Result<TableMeta> {
            let mut builder =
                TableBuilder::new(&place.io, &path, header, &place.keys, 256, Compression::Lz4, 10)?;
            for (tenant, oracle) in &content {
                for entry in oracle.entries() {
                    builder.add(*tenant, entry.view())?;
                }
            }
            builder.finish()
        };
        match build() {
            Ok(meta) => {
                place.fs.clear_faults();
                read_all(&place, &meta).unwrap();
                break;
            }
            Err(error) => {
                failures += 1;
                let kind = if at % 2 == 0 {
                    ErrorKind::NoSpace
                } else {
                    ErrorKind::Io
                };
                assert_eq!((error.kind(), error.path()), (kind, Some(path.as_path())));
                assert_eq!(place.fs.content(&path), None);
            }
        }
    }
    // Creating, writing, syncing.
    assert_eq!(failures, 3);
}
