//! What jobs leave behind for the next opening.

use std::path::Path;
use std::sync::Arc;

use crate::io::sim::SimFs;
use crate::keys::MemoryKeys;
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
