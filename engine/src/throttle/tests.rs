use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;

use super::*;
use crate::compaction::Survey;
use crate::error::{Error, ErrorKind};
use crate::io::Io;
use crate::io::sim::{SimClock, SimFs, SimRng};
use crate::keys::MemoryKeys;
use crate::{Durability, Engine, Keyspace, Options, TenantOptions};

struct Db {
    engine: Engine,
    flood: Keyspace,
    trickle: Keyspace,
}

/// With a thread for background work, and a clock that stands.
fn open() -> Db {
    let mut options = Options::tiny();
    options.background = Background::Thread;
    options.durability = Durability::Buffered;
    let io = Io {
        vfs: Arc::new(SimFs::new()),
        clock: Arc::new(SimClock::with_step(Duration::ZERO)),
        rng: Arc::new(SimRng::new(1)),
    };
    let builder = Engine::builder("/db").shared_keys(Arc::new(MemoryKeys::new()));
    let engine = builder.options(options).io(io).open().unwrap();
    let space = |name| {
        let tenant = engine.create_tenant(name, TenantOptions::default()).unwrap();
        tenant.keyspace("k").unwrap()
    };
    let (flood, trickle) = (space("flood"), space("trickle"));
    Db {
        engine,
        flood,
        trickle,
    }
}

/// No background work from here on, and so many bytes in memtables.
fn fill(db: &Db, until: u64) -> MutexGuard<'_, Survey> {
    let no_work = db.engine.inner().jobs.lock();
    for key in 0u32.. {
        let stats = db.engine.stats();
        if stats.memtables.active_bytes + stats.memtables.immutable_bytes >= until {
            break;
        }
        db.flood.put(key.to_be_bytes(), [1; 3000]).unwrap();
    }
    no_work
}

#[test]
fn a_tenant_that_floods_is_slowed_down_and_one_that_writes_little_beside_it_is_not() {
    let db = open();
    let no_work = fill(&db, 170 << 10);
    let before = db.engine.stats();
    assert_eq!(before.pressure, Some(Pressure::Memtables));
    assert!(
        before.write_rate.is_some_and(|rate| rate < 16 << 20),
        "{before:?}"
    );
    assert!(
        before.writes.delays > 0 && before.writes.stalls == 0,
        "{before:?}"
    );
    for key in 0..10u32 {
        db.trickle.put(key.to_be_bytes(), "v").unwrap();
    }
    assert_eq!(db.engine.stats().writes, {
        let mut same = before.writes;
        (same.commits, same.puts, same.bytes) = (same.commits + 10, same.puts + 10, same.bytes + 50);
        same
    });
    db.flood.put("more", [1; 3000]).unwrap();
    assert_eq!(db.engine.stats().writes.delays, before.writes.delays + 1);
    drop(no_work);
    db.engine.compact().unwrap();
    let after = db.engine.stats();
    assert_eq!((after.write_rate, after.pressure), (None, None));
    let inner = db.engine.inner();
    inner.pace(db.flood.tenant_id(), 1 << 40).unwrap();
    db.flood.put("free", [1; 3000]).unwrap();
    assert_eq!(db.engine.stats().writes.delays, after.writes.delays);
    assert_eq!(inner.throttle.shares.lock().tenants(), 0, "all is forgiven");
}

#[test]
fn what_the_engine_writes_for_itself_is_not_slowed_down_behind_a_flood() {
    let db = open();
    let no_work = fill(&db, 170 << 10);
    let flooding = db.engine.tenant("flood").unwrap();
    db.engine.inner().pace(flooding.id(), 1 << 40).unwrap();
    let before = db.engine.stats().writes;
    flooding
        .set_retention(&db.flood, crate::Retention::Days(1))
        .unwrap();
    flooding.set_quota(1 << 40).unwrap();
    flooding.keyspace("another").unwrap();
    flooding.delete_keyspace("another").unwrap();
    db.engine.create_tenant("more", TenantOptions::default()).unwrap();
    db.engine.delete_tenant("more").unwrap();
    let after = db.engine.stats().writes;
    assert_eq!((after.delays, after.stalls), (before.delays, 0));
    drop(no_work);
}

#[test]
fn closing_ends_the_wait_of_a_writer_and_a_failure_lets_it_go_on_to_the_stop() {
    let db = open();
    let no_work = fill(&db, 170 << 10);
    let inner = db.engine.inner();
    let tenant = db.flood.tenant_id();
    inner.pace(tenant, 1 << 40).unwrap();
    let failure = || Error::new(ErrorKind::NoSpace, "the disk is full");
    inner.background.state.lock().failed = Some(failure());
    inner.pace(tenant, 1).unwrap();
    inner.throttle().unwrap();
    loop {
        if let Err(error) = db.flood.put("key", [1; 3000]) {
            assert_eq!(error.kind(), ErrorKind::NoSpace);
            break;
        }
    }
    let stats = db.engine.stats();
    assert!(
        stats.memtables.immutables == 3 && stats.writes.stalls == 1,
        "{stats:?}"
    );
    inner.background.state.lock().failed = None;
    inner.background.state.lock().stop = true;
    assert_eq!(inner.pace(tenant, 1).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(inner.throttle().unwrap_err().kind(), ErrorKind::Closed);
    drop(no_work);
}
