//! From which length on a keyspace has its values apart: set of it alone, kept as what is set of tenants is.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod machine;

use std::sync::Arc;

use machine::{Db, Machine, follow, standby_of};
use strongroom::keys::{EscrowSecret, KeyProvider, MemoryKeys};
use strongroom::*;

const LARGE: [u8; 700] = [7; 700];

/// None go apart but where a keyspace says so.
fn fresh() -> Machine {
    Machine::with(|options| options.separate_bytes = 0)
}

impl Db {
    fn separate(&self, bytes: impl Into<Option<usize>>) {
        self.tenant.set_separate_bytes(&self.keyspace, bytes).unwrap();
    }

    fn load(&self, keyspace: &Keyspace) {
        for key in 0..10u32 {
            keyspace.put(key.to_be_bytes(), LARGE).unwrap();
        }
    }

    fn threshold(&self) -> Option<usize> {
        self.tenant.separate_bytes(&self.keyspace).unwrap()
    }
}

fn apart(engine: &Engine) -> u64 {
    engine.stats().values.values
}

fn kind<T>(outcome: Result<T>) -> ErrorKind {
    outcome.map(drop).unwrap_err().kind()
}

#[test]
fn a_keyspace_with_a_threshold_of_its_own_has_its_values_apart_and_its_neighbour_does_not() {
    let machine = fresh();
    let db = machine.open();
    let beside = db.tenant.keyspace("beside").unwrap();
    assert_eq!(db.threshold(), None);
    db.separate(700);
    assert_eq!(db.threshold(), Some(700));
    assert_eq!(db.tenant.separate_bytes(&beside).unwrap(), None);
    db.load(&db.keyspace);
    db.load(&beside);
    db.keyspace.put("short", [7; 699]).unwrap();
    db.engine.flush().unwrap();
    assert_eq!(apart(&db.engine), 10);
    for keyspace in [&db.keyspace, &beside] {
        assert_eq!(keyspace.get(3u32.to_be_bytes()).unwrap().unwrap(), LARGE[..]);
    }
    assert!(db.engine.verify().unwrap().is_healthy());
}

#[test]
fn a_change_counts_for_what_is_there_when_it_is_next_written_anew() {
    let mut machine = fresh();
    machine.options.separate_bytes = 500;
    let db = machine.open();
    db.load(&db.keyspace);
    db.engine.compact().unwrap();
    assert_eq!(apart(&db.engine), 10, "by the option");
    for (bytes, expected) in [
        (Some(701), 0),
        (Some(64), 10),
        (Some(0), 0),
        (None, 10),
        (Some(0), 0),
    ] {
        let before = apart(&db.engine);
        db.separate(bytes);
        while db.engine.step().unwrap() {}
        assert_eq!(
            apart(&db.engine),
            before,
            "nothing is written anew for it: {bytes:?}"
        );
        db.engine.compact().unwrap();
        assert_eq!(apart(&db.engine), expected, "{bytes:?}");
        assert_eq!(db.keyspace.iter().map(Result::unwrap).count(), 10);
    }
}

#[test]
fn it_is_kept_over_flushes_reopenings_and_crashes() {
    let mut machine = fresh();
    let db = machine.open();
    db.separate(100);
    let db = machine.crash(db);
    assert_eq!(db.threshold(), Some(100), "from the log");
    db.separate(0);
    db.engine.compact().unwrap();
    db.engine.close().unwrap();
    drop(db);
    let db = machine.open();
    assert_eq!(db.threshold(), Some(0), "from tables");
    db.separate(None);
    db.engine.flush().unwrap();
    let db = machine.crash(db);
    assert_eq!(db.threshold(), None, "taken back");
    db.separate(200);
    db.engine.flush().unwrap();
    let mut db = machine.crash(db);
    db.load(&db.keyspace);
    db.engine.compact().unwrap();
    assert_eq!(apart(&db.engine), 10);
    db = machine.crash(db);
    assert_eq!((db.threshold(), apart(&db.engine)), (Some(200), 10));
}

#[test]
fn a_standby_keeps_it_and_so_does_the_node_it_is_promoted_to() {
    let (machine, other) = (fresh(), fresh());
    let db = machine.open();
    db.separate(300);
    let standby = standby_of(&db, &machine, &other);
    let tenant = standby.tenant("t").unwrap();
    let keyspace = tenant.open_keyspace("k").unwrap();
    assert_eq!(
        tenant.separate_bytes(&keyspace).unwrap(),
        Some(300),
        "by the copy"
    );
    db.separate(600);
    db.load(&db.keyspace);
    follow(&db, &standby);
    assert_eq!(tenant.separate_bytes(&keyspace).unwrap(), Some(600), "by the log");
    standby.flush().unwrap();
    assert_eq!(apart(&standby), 10);
    assert_eq!(
        kind(tenant.set_separate_bytes(&keyspace, None)),
        ErrorKind::NotPrimary
    );
    standby.promote().unwrap();
    tenant.set_separate_bytes(&keyspace, 0).unwrap();
    standby.compact().unwrap();
    assert_eq!(apart(&standby), 0);
}

#[test]
fn a_restored_database_has_it() {
    let machine = fresh();
    let db = machine.open();
    db.separate(500);
    db.engine.checkpoint("/copy").unwrap();
    let secret = EscrowSecret::generate().unwrap();
    let escrow = db.engine.escrow(&secret.recipient()).unwrap();
    let keys: Arc<dyn KeyProvider> = Arc::new(MemoryKeys::new());
    restore(
        "/copy",
        &escrow,
        &secret,
        "/restored",
        keys.clone(),
        &machine.io(),
    )
    .unwrap();
    let builder = Engine::builder("/restored").shared_keys(keys);
    let restored = builder
        .options(machine.options.clone())
        .io(machine.io())
        .open()
        .unwrap();
    let tenant = restored.tenant("t").unwrap();
    let keyspace = tenant.open_keyspace("k").unwrap();
    assert_eq!(tenant.separate_bytes(&keyspace).unwrap(), Some(500));
}

#[test]
fn what_has_a_deadline_stays_in_the_tree_whatever_is_set() {
    let machine = fresh();
    let db = machine.open();
    db.separate(64);
    db.tenant.set_retention(&db.keyspace, Retention::Days(1)).unwrap();
    db.load(&db.keyspace);
    db.engine.compact().unwrap();
    assert_eq!(apart(&db.engine), 0);
}

#[test]
fn refused_are_lengths_out_of_range_foreign_keyspaces_and_those_that_are_gone() {
    let machine = fresh();
    let db = machine.open();
    for wrong in [1, 63, VALUE_BYTES_MAX + 1, usize::MAX] {
        let refused = db.tenant.set_separate_bytes(&db.keyspace, wrong);
        assert_eq!(kind(refused), ErrorKind::Invalid, "{wrong}");
    }
    for right in [0, 64, VALUE_BYTES_MAX] {
        db.separate(right);
        assert_eq!(db.threshold(), Some(right));
    }
    let other = db.engine.create_tenant("o", TenantOptions::default()).unwrap();
    assert_eq!(
        kind(other.set_separate_bytes(&db.keyspace, 64)),
        ErrorKind::Invalid
    );
    assert_eq!(kind(other.separate_bytes(&db.keyspace)), ErrorKind::Invalid);
    db.tenant.delete_keyspace("k").unwrap();
    assert_eq!(
        kind(db.tenant.set_separate_bytes(&db.keyspace, 64)),
        ErrorKind::NotFound
    );
    assert_eq!(kind(db.tenant.separate_bytes(&db.keyspace)), ErrorKind::NotFound);
}

#[test]
fn of_a_deleted_tenant_or_keyspace_nothing_counts_for_the_next_of_its_name() {
    let machine = fresh();
    let db = machine.open();
    db.separate(64);
    db.tenant.delete_keyspace("k").unwrap();
    let again = db.tenant.keyspace("k").unwrap();
    assert_eq!(db.tenant.separate_bytes(&again).unwrap(), None);
    db.tenant.set_separate_bytes(&again, 64).unwrap();
    db.engine.delete_tenant("t").unwrap();
    let tenant = db.engine.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    assert_eq!(tenant.separate_bytes(&keyspace).unwrap(), None);
    db.load(&keyspace);
    db.engine.compact().unwrap();
    assert_eq!(apart(&db.engine), 0);
    drop((db, tenant, keyspace, again));
    let db = machine.open();
    assert_eq!(db.threshold(), None);
}
