use super::*;
use crate::expiry;
use crate::options::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::read::level::{LevelCursor, table_for, tables_of};

#[test]
fn tables_agree_with_the_oracle() {
    for seed in 0..40u64 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let count = [1, 3, 60, 400, 1500][seed as usize % 5];
        let keys = [5, 60, 400][seed as usize % 3];
        let content = content(&mut random, &[1, 2, 4], count, keys);
        let shape = Shape {
            block_bytes: [64, 256, 4096][seed as usize % 3],
            compression: [Compression::None, Compression::Lz4][seed as usize % 2],
            filter_bits: [0, 10, 3][seed as usize % 3],
            section_bytes: [u64::MAX, 1000, 3000][seed as usize % 3],
        };
        let place = Place::new([0, 20_000, 1 << 24][(seed / 3) as usize % 3]);
        let table = place.table(shape, &content);
        for (tenant, oracle) in &content {
            let entries = oracle.entries();
            check_cursor(&mut table.cursor(*tenant).unwrap(), &entries, &mut random, 600);
            check_cursor(&mut table.sweep(*tenant).unwrap(), &entries, &mut random, 200);
            for _ in 0..300 {
                let (key, at) = (random.key(keys + 5), SeqNo(random.below(60)));
                assert_eq!(table.get(*tenant, &key, at).unwrap(), oracle.get(&key, at));
            }
            let (first, end) = table.span(*tenant).unwrap().unwrap();
            let behind = [&entries[entries.len() - 1].key[..], &[0]].concat();
            assert_eq!((&first[..], &end[..]), (&entries[0].key[..], &behind[..]));
        }
        check_cursor(&mut table.cursor(TenantId(3)).unwrap(), &[], &mut random, 10);
        assert_eq!(table.get(TenantId(5), b"\0\0\0\x001", SeqNo::MAX).unwrap(), None);
        assert!(table.span(TenantId(5)).unwrap().is_none());
    }
}

#[test]
fn directory_and_meta_say_what_is_inside() {
    let place = Place::new(1 << 20);
    let mut random = Random(1);
    let content = content(&mut random, &[2, 3, 5], 200, 40);
    let table = place.table(SMALL, &content);
    let runs: Vec<TenantRun> = table.tenants().collect();
    assert_eq!(
        runs.iter().map(|run| run.tenant).collect::<Vec<_>>(),
        [2, 3, 5].map(TenantId)
    );
    for run in &runs {
        let entries = content[&run.tenant].entries();
        assert_eq!(run.entries, entries.len() as u64);
        assert_eq!(
            run.deletes,
            entries.iter().filter(|e| e.kind == EntryKind::Delete).count() as u64
        );
        let moments = entries.iter().filter_map(|e| expiry::expires(e.kind, &e.value));
        assert_eq!(
            run.expires,
            moments.min().map(|at| at.max(1).div_ceil(1000) * 1000)
        );
        assert_eq!(Some(run.seqno_min), entries.iter().map(|e| e.seqno).min());
        assert_eq!(Some(run.seqno_max), entries.iter().map(|e| e.seqno).max());
        assert_eq!(table.run(run.tenant), Some(*run));
    }
    let meta = table.meta();
    assert_eq!(meta.entries, runs.iter().map(|run| run.entries).sum::<u64>());
    assert_eq!((meta.tenant_min, meta.tenant_max), (TenantId(2), TenantId(5)));
    assert_eq!(meta.bytes, place.fs.content(table.path()).unwrap().len() as u64);
    assert!(runs.iter().map(|run| run.bytes).sum::<u64>() < meta.bytes);

    let mut bytes = Vec::new();
    meta.encode(&mut bytes);
    assert_eq!(bytes.len(), TableMeta::BYTES);
    assert_eq!(TableMeta::decode(&bytes).as_ref(), Some(meta));
    for len in 0..bytes.len() {
        assert_eq!(TableMeta::decode(&bytes[..len]), None);
    }
    bytes.push(0);
    assert_eq!(TableMeta::decode(&bytes), None);
}

#[test]
fn versions_of_one_key_over_many_blocks_and_sections_are_found() {
    let place = Place::new(1 << 20);
    let mut oracle = Oracle::default();
    for seqno in 1..=2000 {
        oracle.add(put(b"\0\0\0\0hot", seqno, &[7; 30]));
    }
    oracle.add(put(b"\0\0\0\0hos", 5, b"before"));
    oracle.add(put(b"\0\0\0\0hou", 5, b"after"));
    let content = BTreeMap::from([(TenantId(1), oracle.clone())]);
    let table = place.table(
        Shape {
            section_bytes: 2000,
            compression: Compression::None,
            ..SMALL
        },
        &content,
    );
    for at in (0..=2001).map(SeqNo) {
        let found = table.get(TenantId(1), b"\0\0\0\0hot", at).unwrap();
        assert_eq!(found, oracle.get(b"\0\0\0\0hot", at));
    }
    for key in [b"\0\0\0\0hos", b"\0\0\0\0hou"] {
        assert_eq!(
            table.get(TenantId(1), key, SeqNo(9)).unwrap(),
            oracle.get(key, SeqNo(9))
        );
    }
    check_cursor(
        &mut table.cursor(TenantId(1)).unwrap(),
        &oracle.entries(),
        &mut Random(1),
        2000,
    );
}

#[test]
fn largest_value_and_largest_keys_fit() {
    for compression in [Compression::None, Compression::Lz4] {
        largest_fit(compression);
    }
}

fn largest_fit(compression: Compression) {
    let place = Place::new(1 << 20);
    let mut builder = place.builder(Shape {
        block_bytes: 4096,
        compression,
        ..SMALL
    });
    let mut entries = Vec::new();
    // Keys of 16 KiB that differ in their last bytes only: written out they are 2000 times as large.
    for i in 0..40u32 {
        let mut key = vec![9; 4 + KEY_BYTES_MAX];
        key.splice(4 + KEY_BYTES_MAX - 4.., i.to_be_bytes());
        entries.push(put(&key, 1, b""));
    }
    entries.push(put(b"\x0a\0\0\0large", 2, &vec![0xab; VALUE_BYTES_MAX]));
    entries.push(put(b"\x0a\0\0\0small", 3, b"x"));
    for entry in &entries {
        builder.add(TenantId(1), entry.view()).unwrap();
    }
    let table = place.open(&builder.finish().unwrap()).unwrap();
    assert!(collect(table.cursor(TenantId(1)).unwrap()).unwrap() == entries);
    assert!(collect(table.sweep(TenantId(1)).unwrap()).unwrap() == entries);
    for entry in &entries {
        assert!(table.get(TenantId(1), &entry.key, SeqNo::MAX).unwrap() == Some(Found::from(entry)));
    }
    let usage = place.cache.usage();
    assert!(usage.bytes <= usage.bytes_max && usage.pieces > 0, "{usage:?}");
}

#[test]
fn filters_spare_most_reads_of_missing_keys() {
    let place = Place::new(0);
    let mut oracle = Oracle::default();
    for i in 0..5000u32 {
        oracle.add(put(&(2 * i).to_be_bytes(), 1, b"value"));
    }
    let content = BTreeMap::from([(TenantId(1), oracle)]);
    let table = place.table(SMALL, &content);
    let before = place.fs.reads();
    for i in 0..1000u32 {
        assert_eq!(
            table
                .get(TenantId(1), &(2 * i + 1).to_be_bytes(), SeqNo::MAX)
                .unwrap(),
            None
        );
    }
    // One read each for the head (nothing is cached here), and one for each false positive.
    let reads = place.fs.reads() - before;
    assert!((1000..1060).contains(&reads), "{reads} reads");
}

#[test]
fn levels_agree_with_the_oracle() {
    for seed in 0..20u64 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let place = Place::new([0, 1 << 22][seed as usize % 2]);
        let content = content(&mut random, &[1, 2, 4, 5], 300, 100);
        // Tables end at random places between two keys.
        let mut tables: Vec<Arc<Table>> = Vec::new();
        let mut builder = place.builder(SMALL);
        for (tenant, oracle) in &content {
            let mut last: Option<Bytes> = None;
            for entry in oracle.entries() {
                if last.as_ref() != Some(&entry.key) && builder.entries() > 0 && random.below(40) == 0 {
                    let full = std::mem::replace(&mut builder, place.builder(SMALL));
                    tables.push(place.open(&full.finish().unwrap()).unwrap());
                }
                last = Some(entry.key.clone());
                builder.add(*tenant, entry.view()).unwrap();
            }
        }
        tables.push(place.open(&builder.finish().unwrap()).unwrap());
        assert!(tables.len() > 4);
        for tenant in (0..=6).map(TenantId) {
            let oracle = content.get(&tenant).cloned().unwrap_or_default();
            let entries = oracle.entries();
            check_cursor(&mut LevelCursor::new(&tables, tenant), &entries, &mut random, 500);
            check_cursor(
                &mut LevelCursor::sweep(&tables, tenant),
                &entries,
                &mut random,
                100,
            );
            for _ in 0..200 {
                let (key, at) = (random.key(100), SeqNo(random.below(60)));
                let table = table_for(&tables, tenant, &key).unwrap();
                let found = table
                    .map_or(Ok(None), |table| table.get(tenant, &key, at))
                    .unwrap();
                assert_eq!(found, oracle.get(&key, at));
            }
        }
        assert!(tables_of(&tables, TenantId(6)).is_empty());
        place.destroy(TenantId(2));
        check_cursor(&mut LevelCursor::new(&tables, TenantId(2)), &[], &mut random, 50);
        assert!(
            table_for(&tables, TenantId(2), b"\0\0\0\x001")
                .unwrap()
                .is_none_or(|table| {
                    table
                        .get(TenantId(2), b"\0\0\0\x001", SeqNo::MAX)
                        .unwrap()
                        .is_none()
                })
        );
        check_cursor(
            &mut LevelCursor::new(&tables, TenantId(4)),
            &content[&TenantId(4)].entries(),
            &mut random,
            50,
        );
    }
}

#[test]
fn a_hundred_thousand_tenants_cost_little() {
    let place = Place::new(1 << 20);
    for tenant in 1..=100_000 {
        place.source.tenants.lock().insert(TenantId(tenant), (1, 1));
    }
    let entries: Vec<Entry> = ["a", "b", "c"]
        .iter()
        .map(|key| put(format!("\0\0\0\0{key}").as_bytes(), 1, b"a value"))
        .collect();
    #[expect(clippy::disallowed_methods, reason = "a bound on real time is what is tested")]
    let start = std::time::Instant::now();
    let mut builder = place.builder(SMALL);
    for tenant in 1..=100_000 {
        for entry in &entries {
            builder.add(TenantId(tenant), entry.view()).unwrap();
        }
    }
    let table = place.open(&builder.finish().unwrap()).unwrap();
    println!(
        "built and opened in {:?}, {} bytes",
        start.elapsed(),
        table.meta().bytes
    );
    assert!(table.memory() < 100 * 100_000, "{} bytes", table.memory());
    for tenant in (1..=100_000).step_by(997).map(TenantId) {
        assert_eq!(collect(table.cursor(tenant).unwrap()).unwrap(), entries);
        assert_eq!(
            table.get(tenant, &entries[1].key, SeqNo::MAX).unwrap(),
            Some(Found::from(&entries[1]))
        );
        assert_eq!(table.get(tenant, b"\0\0\0\0bb", SeqNo::MAX).unwrap(), None);
    }
    assert_eq!(table.tenants().count(), 100_000);
}

#[test]
fn a_sweep_reads_many_blocks_at_once_and_leaves_the_cache_alone() {
    let place = Place::new(1 << 24);
    let mut random = Random(3);
    let content = content(&mut random, &[1], 3000, 1000);
    let table = place.table(SMALL, &content);
    let blocks = place.fs.content(table.path()).unwrap().len() as u64 / 300;
    let before = place.fs.reads();
    assert_eq!(
        collect(table.sweep(TenantId(1)).unwrap()).unwrap(),
        content[&TenantId(1)].entries()
    );
    let reads = place.fs.reads() - before;
    assert!(reads < 6 && blocks > 100, "{reads} reads of {blocks} blocks");
    // The head only.
    assert_eq!(place.cache.usage().pieces, 1);
    assert_eq!(
        collect(table.cursor(TenantId(1)).unwrap()).unwrap().len(),
        content[&TenantId(1)].0.len()
    );
    assert!(place.cache.usage().pieces > blocks / 2);
    let before = place.fs.reads();
    assert_eq!(
        collect(table.cursor(TenantId(1)).unwrap()).unwrap().len(),
        content[&TenantId(1)].0.len()
    );
    assert_eq!(place.fs.reads(), before, "all from the cache");
}

#[test]
fn a_step_to_the_next_key_goes_past_a_version_that_was_zeroed_in_another_block() {
    let place = Place::new(1 << 20);
    let mut oracle = Oracle::default();
    // Two versions of a key fill a block: the last of five stands in one of its own.
    for seqno in [50, 40, 30, 20, 0] {
        oracle.add(put(b"\0\0\0\x01k", seqno, &[seqno as u8; 100]));
        oracle.add(put(b"\0\0\0\x01z", seqno, &[seqno as u8; 100]));
    }
    let shape = Shape {
        compression: Compression::None,
        ..SMALL
    };
    let table = place.table(shape, &BTreeMap::from([(TenantId(1), oracle.clone())]));
    let mut cursor = table.cursor(TenantId(1)).unwrap();
    for start in [50, 40, 30, 20, 0] {
        cursor.seek(b"\0\0\0\x01k", SeqNo(start)).unwrap();
        cursor.next_key().unwrap();
        let found = cursor.entry().map(|entry| (entry.key, entry.seqno));
        assert_eq!(found, Some((&b"\0\0\0\x01z"[..], SeqNo(50))), "from {start}");
        cursor.next_key().unwrap();
        assert!(cursor.entry().is_none(), "from {start}");
    }
    for at in [0, 19, 20, 49, 50] {
        let found = table.get(TenantId(1), b"\0\0\0\x01k", SeqNo(at)).unwrap();
        assert_eq!(found, oracle.get(b"\0\0\0\x01k", SeqNo(at)), "at {at}");
    }
}
