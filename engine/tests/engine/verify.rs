//! Verifying a database that runs.

use std::path::PathBuf;
use std::sync::Arc;

use strongroom::io::sim::SimFs;
use strongroom::keys::MemoryKeys;
use strongroom::{Background, Engine, ErrorKind, Options, Tenant, TenantOptions, Verified};

use crate::uncompressed;

fn open(fs: &SimFs) -> (Engine, Tenant) {
    let engine = Engine::builder("/db")
        .shared_keys(Arc::new(MemoryKeys::new()))
        .options(uncompressed())
        .io(fs.io(7))
        .open()
        .unwrap();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    (engine, tenant)
}

fn fill(tenant: &Tenant, keys: std::ops::Range<u32>) {
    let space = tenant.keyspace("a").unwrap();
    for key in keys {
        space.put(key.to_be_bytes(), [key as u8; 200]).unwrap();
    }
}

fn of_kind(fs: &SimFs, ending: &str) -> Vec<PathBuf> {
    let files = fs.files().into_keys();
    files
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect()
}

fn healthy(verified: &Verified) {
    assert!(verified.is_healthy(), "{verified:?}");
}

#[test]
fn sound_database_then_everything_is_counted_and_nothing_is_kept_in_the_cache() {
    let fs = SimFs::new();
    let (engine, tenant) = open(&fs);
    let gone = engine.create_tenant("gone", TenantOptions::default()).unwrap();
    fill(&tenant, 0..600);
    fill(&gone, 0..50);
    engine.compact().unwrap();
    fill(&tenant, 600..650);
    engine.delete_tenant("gone").unwrap();
    let cached = engine.status().cache_bytes;
    let verified = engine.verify().unwrap();
    healthy(&verified);
    assert_eq!(engine.status().cache_bytes, cached);
    assert!(
        verified.entries >= 600 && verified.records >= 50 && verified.sections >= 50,
        "{verified:?}"
    );
    assert!(
        verified.skipped > 0,
        "a destroyed tenant's part is not read: {verified:?}"
    );
    let tables: u64 = engine.status().tables_per_level.iter().sum();
    assert_eq!((verified.tables, verified.torn_bytes), (tables, 0));
    // Tables, segments; keystore base and log, CURRENT, manifest.
    assert_eq!(verified.files, tables + verified.segments + 4);
    engine.close().unwrap();
    assert_eq!(engine.verify().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn two_blocks_and_a_record_are_damaged_then_each_is_named_and_the_rest_is_read() {
    let fs = SimFs::new();
    let (engine, tenant) = open(&fs);
    fill(&tenant, 0..150);
    engine.flush().unwrap();
    fill(&tenant, 150..400);
    let sound = engine.verify().unwrap();
    healthy(&sound);
    let (table, log) = (of_kind(&fs, ".table"), of_kind(&fs, ".wal"));
    assert!(table.len() == 1 && log.len() > 2, "{table:?} {log:?}");
    fs.corrupt(&table[0], |bytes| bytes[1000] ^= 1);
    fs.corrupt(&table[0], |bytes| bytes[9000] ^= 1);
    fs.corrupt(&log[log.len() - 2], |bytes| bytes[400] ^= 1);
    let verified = engine.verify().unwrap();
    assert_eq!(
        (verified.damages_total, verified.complete),
        (3, true),
        "{verified:?}"
    );
    let named: Vec<_> = verified
        .damages
        .iter()
        .map(|damage| damage.file.clone().unwrap())
        .collect();
    assert_eq!(
        named,
        [table[0].clone(), table[0].clone(), log[log.len() - 2].clone()]
    );
    let first = &verified.damages[0];
    assert_eq!(
        (first.kind, first.structure.as_str()),
        (ErrorKind::Corruption, "table block")
    );
    assert!(first.offset.is_some_and(|offset| offset <= 1000 && offset > 128));
    assert_eq!(verified.blocks, sound.blocks - 2);
    assert_eq!(verified.segments, sound.segments);
    assert!(verified.records < sound.records);
    // It was asked of the files, not of memory, and memory serves on.
    assert!(
        tenant
            .keyspace("a")
            .unwrap()
            .get(399u32.to_be_bytes())
            .unwrap()
            .is_some()
    );
}

#[test]
fn part_of_a_table_cannot_be_read_then_its_neighbours_are() {
    let fs = SimFs::new();
    let (engine, tenant) = open(&fs);
    fill(&tenant, 0..150);
    engine.flush().unwrap();
    let sound = engine.verify().unwrap();
    fs.spoil(&of_kind(&fs, ".table")[0], 2048..2560);
    let verified = engine.verify().unwrap();
    let unread = sound.blocks - verified.blocks;
    assert!((1..=4).contains(&unread), "{unread} of {} blocks", sound.blocks);
    assert_eq!(verified.damages_total, unread, "{verified:?}");
    assert!(
        verified
            .damages
            .iter()
            .all(|damage| damage.kind == ErrorKind::Io && damage.file.is_some())
    );
}

#[test]
fn writes_flushes_and_compactions_beside_it_then_it_is_healthy_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::tiny();
    options.background = Background::Thread;
    let engine = Engine::builder(dir.path())
        .shared_keys(Arc::new(MemoryKeys::new()))
        .options(options)
        .open()
        .unwrap();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let space = tenant.keyspace("a").unwrap();
            for key in 0..6000u32 {
                let batch = tenant
                    .batch()
                    .put(&space, (key % 900).to_be_bytes(), [key as u8; 200]);
                batch
                    .durability(strongroom::Durability::Buffered)
                    .commit()
                    .unwrap();
            }
        });
        let mut rounds = 0;
        while !writer.is_finished() || rounds < 3 {
            healthy(&engine.verify().unwrap());
            rounds += 1;
        }
        writer.join().unwrap();
    });
}
