//! What the engine says of itself.

use std::sync::Arc;

use strongroom::io::sim::{Fault, SimFs, Times};
use strongroom::keys::MemoryKeys;
use strongroom::{Durability, Engine, ErrorKind, Tenant, TenantOptions};

use crate::uncompressed;

fn open() -> (SimFs, Engine, Tenant) {
    let fs = SimFs::new();
    let engine = Engine::builder("/db")
        .shared_keys(Arc::new(MemoryKeys::new()))
        .options(uncompressed())
        .io(fs.io(3))
        .open()
        .unwrap();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    (fs, engine, tenant)
}

#[test]
fn writes_then_counted_with_their_bytes_and_syncs() {
    let (_fs, engine, tenant) = open();
    let space = tenant.keyspace("a").unwrap();
    let before = engine.stats();
    space.put("key", [1; 10]).unwrap();
    let batch = tenant.batch().put(&space, "k2", "v").delete(&space, "key");
    batch.durability(Durability::Buffered).commit().unwrap();
    let after = engine.stats();
    let writes = |now: u64, then: u64| now - then;
    assert_eq!(writes(after.writes.commits, before.writes.commits), 2);
    assert_eq!(writes(after.writes.puts, before.writes.puts), 2);
    assert_eq!(writes(after.writes.deletes, before.writes.deletes), 1);
    assert_eq!(writes(after.writes.bytes, before.writes.bytes), 13 + 3 + 3);
    assert_eq!(writes(after.wal.syncs, before.wal.syncs), 1, "one was buffered");
    assert!(after.wal.durable < after.wal.written);
    assert!(after.memtables.active_bytes > before.memtables.active_bytes);
    assert_eq!(after.tenants, 1);
}

#[test]
fn flushes_and_compactions_then_counted_and_levels_add_up_with_the_status() {
    let (_fs, engine, tenant) = open();
    let gone = engine.create_tenant("gone", TenantOptions::default()).unwrap();
    let (space, of_gone) = (tenant.keyspace("a").unwrap(), gone.keyspace("a").unwrap());
    for round in 0..3u8 {
        for key in 0..100u32 {
            space.put(key.to_be_bytes(), [round; 50]).unwrap();
        }
        of_gone.put("key", [round; 3000]).unwrap();
        engine.flush().unwrap();
    }
    space.delete(7u32.to_be_bytes()).unwrap();
    engine.flush().unwrap();
    let flushed = engine.stats();
    let status = engine.status();
    let tables = |level: usize| flushed.levels[level].tables;
    assert_eq!(flushed.flushes.count, 4);
    assert_eq!((flushed.flushes.bytes_read, flushed.flushes.failed), (0, 0));
    assert_eq!(tables(0), 4);
    assert_eq!((flushed.levels[0].deletes, flushed.dead_bytes), (1, 0));
    assert_eq!(flushed.flushes.bytes_written, status.table_bytes);
    let in_levels: u64 = flushed.levels.iter().map(|level| level.bytes).sum();
    assert_eq!(in_levels + flushed.values.bytes, status.table_bytes);
    assert_eq!((flushed.values.values, flushed.values.garbage_bytes), (3, 0));
    engine.delete_tenant("gone").unwrap();
    assert!(engine.stats().dead_bytes > 9000, "until compaction comes by");
    engine.compact().unwrap();
    let compacted = engine.stats();
    assert!(compacted.compactions.count > 0);
    assert!(compacted.compactions.bytes_read >= in_levels);
    assert!(compacted.compactions.bytes_written > 0 && !compacted.job_running);
    let entries: u64 = compacted.levels.iter().map(|level| level.entries).sum();
    // 99 keys, and the catalog: next id, name.
    assert_eq!((entries, compacted.dead_bytes), (101, 0));
    assert_eq!(
        compacted.memtables.active_bytes + compacted.memtables.immutable_bytes,
        0
    );
}

#[test]
fn snapshots_stalls_and_failures_then_they_show() {
    let (fs, engine, tenant) = open();
    let space = tenant.keyspace("a").unwrap();
    assert_eq!(
        (engine.stats().snapshots, engine.stats().oldest_snapshot),
        (0, None)
    );
    let (first, _second) = (tenant.snapshot(), {
        space.put("a", "1").unwrap();
        tenant.snapshot()
    });
    let stats = engine.stats();
    assert_eq!((stats.snapshots, stats.oldest_snapshot), (2, Some(first.seqno())));
    assert!(stats.visible > first.seqno());
    for key in 0..3000u32 {
        let batch = tenant.batch().put(&space, key.to_be_bytes(), [0; 300]);
        batch.durability(Durability::Buffered).commit().unwrap();
    }
    let stats = engine.stats();
    assert!(stats.writes.stalls > 0, "nobody else flushes");
    assert_eq!(
        (stats.writes.delays, stats.write_rate, stats.pressure),
        (0, None, None),
        "who does the work itself is not slowed down"
    );
    assert_eq!(engine.stats().read_only, None);
    fs.fail(Fault::io_error(fs.ops() + 1, Times::Forever));
    space.put("b", "2").unwrap_err();
    assert!(engine.stats().read_only.is_some());
}

#[test]
fn tenants_usage_then_its_own_alone_and_not_found_when_deleted() {
    let (_fs, engine, tenant) = open();
    let other = engine.create_tenant("o", TenantOptions::default()).unwrap();
    let fresh = tenant.usage().unwrap();
    assert_eq!(
        fresh,
        Default::default(),
        "a tenant costs nothing until it writes"
    );
    let (space, others) = (tenant.keyspace("a").unwrap(), other.keyspace("a").unwrap());
    for key in 0..200u32 {
        space.put(key.to_be_bytes(), [1; 100]).unwrap();
        others.put(key.to_be_bytes(), [2; 10]).unwrap();
    }
    let in_memory = tenant.usage().unwrap();
    assert_eq!((in_memory.entries, in_memory.table_bytes), (0, 0));
    // 4 bytes of keyspace before each key; the catalog has two entries more.
    assert_eq!(in_memory.memtables.entries, 202);
    assert!(in_memory.memtables.bytes >= 200 * 108);
    engine.compact().unwrap();
    space.delete(0u32.to_be_bytes()).unwrap();
    engine.flush().unwrap();
    let (mine, theirs) = (tenant.usage().unwrap(), other.usage().unwrap());
    assert_eq!((mine.entries, mine.deletes, mine.memtables.entries), (203, 1, 0));
    assert_eq!((theirs.entries, theirs.deletes), (202, 0));
    assert!(
        mine.table_bytes > 200 * 100 && theirs.table_bytes < 200 * 60,
        "{mine:?} {theirs:?}"
    );
    let tables: u64 = engine.stats().levels.iter().map(|level| level.bytes).sum();
    assert!(mine.table_bytes + theirs.table_bytes < tables);
    engine.delete_tenant("t").unwrap();
    assert_eq!(tenant.usage().unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn reads_then_counted_and_those_that_find_nothing_in_the_cache_with_their_bytes() {
    let (_fs, engine, tenant) = open();
    let space = tenant.keyspace("a").unwrap();
    for key in 0..100u32 {
        space.put(key.to_be_bytes(), [7; 100]).unwrap();
    }
    let reads = || engine.stats().reads;
    let began = reads();
    space.get(7u32.to_be_bytes()).unwrap().unwrap();
    space.multi_get([1u32, 2, 3].map(u32::to_be_bytes)).unwrap();
    assert!(space.get("none").unwrap().is_none());
    assert_eq!(space.iter().count(), 100);
    let in_memory = reads();
    assert_eq!(
        (in_memory.gets, in_memory.ranges),
        (began.gets + 5, began.ranges + 1)
    );
    assert_eq!((in_memory.pieces_read, in_memory.bytes_read), (0, 0));

    engine.flush().unwrap();
    assert_eq!(reads(), in_memory, "flush is no reader");
    space.get(7u32.to_be_bytes()).unwrap().unwrap();
    let once = reads();
    // The index and a block.
    assert_eq!(once.pieces_read, 2);
    assert!(once.bytes_read > 256 && once.bytes_read < engine.status().table_bytes);
    space.get(7u32.to_be_bytes()).unwrap().unwrap();
    assert_eq!(reads().pieces_read, 2, "now it is in the cache");
    assert_eq!(space.iter().count(), 100);
    let all = reads();
    assert!(all.pieces_read > 10 && all.bytes_read > 10_000, "{all:?}");
    engine.compact().unwrap();
    engine.verify().unwrap();
    assert_eq!(reads(), all, "nor are compaction and verifying");
}
