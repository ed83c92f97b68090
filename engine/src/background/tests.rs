//! What jobs leave behind for the next opening.

use std::path::Path;
use std::sync::Arc;

use crate::io::sim::SimFs;
use crate::keys::MemoryKeys;
use crate::read::testing::Random;
use crate::{Durability, Engine, ErrorKind, Options, TenantOptions};

#[test]
fn damage_to_the_deletion_of_a_keyspace_whose_data_was_dropped_for_it_is_refused() {
    let (fs, keys) = (SimFs::new(), Arc::new(MemoryKeys::new()));
    let open = |seed| {
        let mut options = Options::tiny();
        options.durability = Durability::Buffered;
        // So that the file ends with the newest record.
        options.map_log = false;
        let builder = Engine::builder("/db").shared_keys(keys.clone());
        builder.options(options).io(fs.io(seed)).open()
    };
    let engine = open(1).unwrap();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    tenant.keyspace("k").unwrap().put("key", "value").unwrap();
    engine.close().unwrap();

    let engine = open(2).unwrap();
    let begin = engine.status().written.0;
    engine.tenant("t").unwrap().delete_keyspace("k").unwrap();
    while engine.step().unwrap() {}
    drop((engine, tenant));
    let segment = Path::new("/db/wal").join(crate::wal::segment_name(crate::Lsn(begin - 128)));
    // The newest record: no later one vouches for it, and a torn one would be cut.
    assert!(fs.corrupt(&segment, |bytes| *bytes.last_mut().unwrap() ^= 1));
    let error = open(3).map(drop).unwrap_err();
    assert_eq!(
        (error.kind(), error.path()),
        (ErrorKind::Corruption, Some(&*segment))
    );
}

#[test]
fn after_a_flush_the_log_holds_nothing_that_tables_hold() {
    let fs = SimFs::new();
    let builder = Engine::builder("/db").shared_keys(Arc::new(MemoryKeys::new()));
    let engine = builder.options(Options::tiny()).io(fs.io(1)).open().unwrap();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    for round in 0..3 {
        keyspace.put("key", [round; 100]).unwrap();
        engine.flush().unwrap();
        let status = engine.status();
        // One segment, and of that the header.
        assert_eq!(status.written.0 - engine.inner().wal.start().0, 128, "{round}");
        // With nothing new there is nothing to leave behind.
        engine.flush().unwrap();
        assert_eq!(engine.status().written, status.written);
    }
    drop((keyspace, tenant));
    engine.close().unwrap();
}

#[test]
fn a_tenants_deletion_makes_room_for_a_flush_that_a_full_disk_has_none_for() {
    let fs = SimFs::new();
    let mut options = Options::tiny();
    options.durability = Durability::Buffered;
    // A flush needs more than a deletion gives up of the keystore's reserve.
    options.memtable_bytes = 512 << 10;
    let builder = Engine::builder("/db").shared_keys(Arc::new(MemoryKeys::new()));
    let engine = builder.options(options).io(fs.io(1)).open().unwrap();
    let [large, small] = ["large", "small"].map(|name| {
        let tenant = engine.create_tenant(name, TenantOptions::default()).unwrap();
        tenant.keyspace("k").unwrap()
    });
    // Nothing that compresses.
    let value = |n: u32| -> Vec<u8> {
        let mut random = Random(u64::from(n) + 1);
        (0..400).map(|_| random.next() as u8).collect()
    };
    for n in 0..3000u32 {
        large.put(n.to_be_bytes(), value(n)).unwrap();
    }
    engine.compact().unwrap();
    let mut n = 0;
    while engine.stats().memtables.immutables == 0 {
        small.put(u32::to_be_bytes(n), value(n)).unwrap();
        n += 1;
    }
    // Tables that are gone already make no room.
    engine.inner().give_back();
    fs.set_capacity(Some(fs.used() + (24 << 10)));
    // What can be done without the flush is done first.
    let full = loop {
        match engine.step() {
            Ok(more) => assert!(more, "it had room"),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::NoSpace);
    assert_eq!(engine.stats().memtables.immutables, 1);
    engine.delete_tenant("large").unwrap();
    while engine.step().unwrap() {}
    assert_eq!(engine.stats().memtables.immutables, 0, "it is flushed");
    for n in 0..n {
        assert_eq!(
            small.get(n.to_be_bytes()).unwrap().as_deref(),
            Some(&value(n)[..])
        );
    }

    // The same where the user asks for it.
    let tenant = engine.create_tenant("another", TenantOptions::default());
    let keyspace = tenant.unwrap().keyspace("k").unwrap();
    fs.set_capacity(None);
    for n in 0..3000u32 {
        keyspace.put(n.to_be_bytes(), value(n)).unwrap();
    }
    engine.compact().unwrap();
    for n in 0..600 {
        small.put(u32::to_be_bytes(n), value(n + 1)).unwrap();
    }
    // Tables that are gone already make no room.
    engine.inner().give_back();
    fs.set_capacity(Some(fs.used() + (24 << 10)));
    assert_eq!(engine.compact().unwrap_err().kind(), ErrorKind::NoSpace);
    engine.delete_tenant("another").unwrap();
    let before = engine.stats().dead_bytes;
    let _ = engine.compact();
    let after = engine.stats().dead_bytes;
    // All but what lies in a table with others.
    assert!(before > 1_000_000 && after < 100_000, "{before} {after}");
}
