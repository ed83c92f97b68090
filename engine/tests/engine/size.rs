//! How much lies in a range, told without reading it.

use std::ops::Bound;

use strongroom::{Compression, Durability, Engine, ErrorKind, Keyspace, Options, TenantOptions};

use crate::{keys, open, uncompressed};

/// More than a block of 256 bytes can hold.
const BLOCK_ENTRIES: u64 = 40;

fn key(number: u64) -> Vec<u8> {
    format!("key-{number:06}").into_bytes()
}

fn put(space: &Keyspace, keys: impl Iterator<Item = u64>) {
    for number in keys {
        space.put(key(number), [7; 30]).unwrap();
    }
}

fn tables(engine: &Engine) -> u64 {
    engine.status().tables_per_level.iter().sum()
}

#[test]
fn range_of_tables_then_never_too_little_and_two_blocks_a_table_too_much_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::builder(dir.path())
        .shared_keys(keys())
        .options(uncompressed())
        .open()
        .unwrap();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let other = engine.create_tenant("o", TenantOptions::default()).unwrap();
    let (space, beside) = (tenant.keyspace("a").unwrap(), tenant.keyspace("b").unwrap());
    put(&space, 0..3000);
    put(&beside, 0..500);
    put(&other.keyspace("a").unwrap(), 0..500);
    engine.compact().unwrap();
    assert!(tables(&engine) > 2, "{} tables", tables(&engine));
    for (from, to) in [
        (0, 3000),
        (10, 11),
        (100, 1700),
        (2999, 9000),
        (5000, 6000),
        (7, 7),
    ] {
        let size = space.approximate_size(key(from)..key(to)).unwrap();
        let there = 3000u64.min(to).saturating_sub(from.min(3000));
        let most = there + 2 * BLOCK_ENTRIES * tables(&engine);
        assert!((there..=most).contains(&size.entries), "{from}..{to}: {size:?}");
        // A value is 30 bytes, keys are shortened, and sealing a block takes 28.
        let bytes = 30 * there..=most * 80;
        assert!(bytes.contains(&size.bytes), "{from}..{to}: {size:?}");
    }
    let whole = space.approximate_size::<&[u8]>(..).unwrap().entries;
    assert!(
        (3000..=3000 + 2 * BLOCK_ENTRIES).contains(&whole),
        "beside another keyspace: {whole}"
    );
    let nothing = (Bound::Excluded(key(9)), Bound::Included(key(3)));
    assert_eq!(space.approximate_size(nothing).unwrap(), Default::default());
    let (all, low, high) = (
        space.approximate_size::<Vec<u8>>(..).unwrap(),
        space.approximate_size(..key(1500)).unwrap(),
        space.approximate_size(key(1500)..).unwrap(),
    );
    assert!(low.bytes + high.bytes >= all.bytes, "parts cover the whole");
}

/// Runs above 4 MiB have an index of sections; those inside the range are not opened.
#[test]
fn large_run_then_its_sections_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.durability = Durability::Buffered;
    options.compression = Compression::None;
    let engine = Engine::builder(dir.path())
        .shared_keys(keys())
        .options(options)
        .open()
        .unwrap();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let space = tenant.keyspace("a").unwrap();
    for number in 0..16_000u64 {
        space.put(key(number), [number as u8; 1000]).unwrap();
    }
    engine.compact().unwrap();
    for (from, to) in [(0, 16_000), (1, 15_999), (100, 101), (3000, 13_000), (8000, 9000)] {
        let size = space.approximate_size(key(from)..key(to)).unwrap();
        let there = to - from;
        assert!(
            (there..=there + 16).contains(&size.entries),
            "{from}..{to}: {size:?}"
        );
        let bytes = there * 1000..=(there + 16) * 1030;
        assert!(bytes.contains(&size.bytes), "{from}..{to}: {size:?}");
    }
}

#[test]
fn entries_in_memory_then_counted_with_all_their_versions() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), &keys());
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let space = tenant.keyspace("a").unwrap();
    put(&space, 0..20);
    put(&space, 5..10);
    space.delete(key(6)).unwrap();
    let size = space.approximate_size(key(5)..key(10)).unwrap();
    assert_eq!((size.entries, size.bytes), (11, 10 * (4 + 10 + 30) + 14));
    engine.flush().unwrap();
    assert!(space.approximate_size(key(5)..key(10)).unwrap().entries >= 5);
    engine.delete_tenant("t").unwrap();
    let gone = space.approximate_size::<Vec<u8>>(..).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}
