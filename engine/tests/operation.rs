//! What one operation cost, as `measure` tells it.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod machine;

use std::time::Duration;

use machine::{Db, Machine};
use strongroom::*;

/// Two hundred entries, in many blocks of one table at the bottom.
fn filled(machine: &Machine) -> Db {
    let db = machine.open();
    for n in 0..200u32 {
        db.keyspace.put(n.to_be_bytes(), [7; 100]).unwrap();
    }
    db.engine.compact().unwrap();
    db
}

fn key(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

#[test]
fn a_get_tells_where_it_looked_and_what_it_read() {
    let machine = Machine::with(|_| {});
    let db = filled(&machine);
    let (_, first) = measure(|| db.keyspace.get(key(7)).unwrap().unwrap());
    assert_eq!((first.memtables, first.tables), (1, 1));
    assert_eq!((first.filters, first.filters_denied), (1, 0));
    assert!(first.pieces_read >= 1 && first.bytes_read > 100, "{first:?}");
    assert!(
        first.bytes_decrypted > 100 && first.bytes_decrypted < first.bytes_read,
        "{first:?}"
    );
    db.keyspace.get(key(7)).unwrap();
    let (_, again) = measure(|| db.keyspace.get(key(7)).unwrap().unwrap());
    assert_eq!((again.blocks, again.pieces_read), (1, 0), "{again:?}");
    assert_eq!((again.bytes_read, again.bytes_decrypted), (0, 0));
    let (found, absent) = measure(|| db.keyspace.get(b"absent").unwrap());
    assert_eq!(found, None);
    assert_eq!((absent.filters, absent.filters_denied, absent.blocks), (1, 1, 0));
    db.keyspace.put(key(7), "newer").unwrap();
    let (_, newer) = measure(|| db.keyspace.get(key(7)).unwrap());
    assert_eq!((newer.memtables, newer.tables), (1, 0));
}

#[test]
fn a_range_tells_the_entries_it_went_past_and_those_it_did_not_show() {
    let machine = Machine::with(|_| {});
    let db = filled(&machine);
    let walk = || measure(|| db.keyspace.range(key(50)..key(150)).count());
    let (shown, plain) = walk();
    assert!(plain.blocks > 10 && plain.blocks < 100, "{plain:?}");
    assert_eq!(
        (shown as u64, plain.entries, plain.hidden),
        (100, 100, 0),
        "{plain:?}"
    );
    let snapshot = db.tenant.snapshot();
    for n in 60..80 {
        db.keyspace.delete(key(n)).unwrap();
    }
    let ttl = PutOptions::new().ttl(Duration::from_secs(1));
    db.keyspace.put_with(key(100), "short", ttl).unwrap();
    let hides = |what: &str| {
        let (shown, cost) = walk();
        assert_eq!(shown, 79, "{what}");
        assert_eq!(cost.entries - cost.hidden, 79, "{what}: {cost:?}");
        assert!(cost.hidden >= 21, "{what}: {cost:?}");
    };
    machine.pass(2000);
    hides("in memory");
    db.engine.flush().unwrap();
    hides("in tables");
    db.engine.compact().unwrap();
    hides("in one table, for a snapshot");
    drop(snapshot);
    db.engine.compact().unwrap();
    let (shown, cost) = walk();
    assert_eq!((shown as u64, cost.entries, cost.hidden), (79, 79, 0), "{cost:?}");
}

#[test]
fn a_write_tells_its_syncs() {
    let machine = Machine::with(|_| {});
    let db = machine.open();
    let put = |durability| {
        let batch = db.tenant.batch().put(&db.keyspace, "k", "v");
        measure(|| batch.durability(durability).commit().unwrap()).1
    };
    assert_eq!(put(Durability::Local).syncs, 1);
    let buffered = put(Durability::Buffered);
    assert_eq!((buffered.syncs, buffered.sync_wait), (0, Duration::ZERO));
    let before = put(Durability::Local);
    assert_eq!(before.throttled, Duration::ZERO);
    assert_eq!(measure(|| ()).1, OpCounters::default());
}

#[test]
fn a_large_value_counts_as_a_piece_that_is_read_and_decrypted() {
    let machine = Machine::with(|options| options.separate_bytes = 1000);
    let db = machine.open();
    db.keyspace.put("large", [7; 50_000]).unwrap();
    db.engine.compact().unwrap();
    db.engine.close().unwrap();
    drop(db);
    let db = machine.open();
    let (_, cost) = measure(|| db.keyspace.get("large").unwrap().unwrap());
    assert!(
        cost.bytes_decrypted > 50_000 && cost.bytes_read > 50_000,
        "{cost:?}"
    );
}
