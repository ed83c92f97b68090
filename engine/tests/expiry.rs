//! Values that expire: at their moment to the millisecond, for every reader, and from the disk within the grace.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod machine;

use std::time::Duration;

use machine::{Machine, keys, text};
use strongroom::*;

const GRACE: Duration = Duration::from_secs(60);

fn ttl(ms: u64) -> PutOptions {
    PutOptions::new().ttl(Duration::from_millis(ms))
}

fn fresh() -> Machine {
    Machine::with(|options| options.expiry_grace = GRACE)
}

fn conflict<T>(outcome: Result<T>) {
    assert_eq!(outcome.map(drop).unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn a_value_is_there_until_its_moment_and_nobody_finds_it_from_then_on() {
    // In the memtable, in a table, and further down.
    for place in 0..3 {
        let machine = fresh();
        let db = machine.open();
        db.keyspace.put("b", "older").unwrap();
        db.keyspace.put("a", "1").unwrap();
        db.keyspace.put("c", "3").unwrap();
        let before = db.tenant.snapshot();
        db.keyspace.put_with("b", "token", ttl(500)).unwrap();
        let with = db.tenant.snapshot();
        match place {
            0 => {}
            1 => db.engine.flush().unwrap(),
            _ => db.engine.compact().unwrap(),
        }
        machine.pass(499);
        assert_eq!(db.value("b").as_deref(), Some("token"));
        assert_eq!(
            text(with.get(&db.keyspace, "b").unwrap()).as_deref(),
            Some("token")
        );
        assert_eq!(keys(db.keyspace.iter().rev()), ["c", "b", "a"]);
        let value = db.keyspace.range("b".."c").next().unwrap().unwrap().1;
        assert_eq!(value, "token");
        machine.pass(1);
        for compacted in [false, true] {
            if compacted {
                db.engine.compact().unwrap();
            }
            assert_eq!(db.value("b"), None, "place {place}");
            assert_eq!(with.get(&db.keyspace, "b").unwrap(), None);
            assert_eq!(db.keys(), ["a", "c"]);
            assert_eq!(keys(with.range::<&str>(&db.keyspace, ..).rev()), ["c", "a"]);
            // What it overwrote is as old as it is, and does not come back but to those who saw it.
            assert_eq!(
                text(before.get(&db.keyspace, "b").unwrap()).as_deref(),
                Some("older")
            );
        }
        drop((before, with, db));
        assert_eq!(machine.open().value("b"), None);
    }
}

#[test]
fn a_range_leaves_out_what_expires_while_it_is_read() {
    for flushed in [false, true] {
        let machine = fresh();
        let db = machine.open();
        for key in ["a", "b", "c", "d"] {
            db.keyspace.put_with(key, "v", ttl(10)).unwrap();
        }
        db.keyspace.put("e", "v").unwrap();
        if flushed {
            db.engine.flush().unwrap();
        }
        let (mut forwards, mut backwards) = (db.keyspace.iter(), db.keyspace.iter().rev());
        let mut lent = db.keyspace.iter();
        for expected in ["a", "b"] {
            assert_eq!(forwards.next().unwrap().unwrap().0, expected);
            assert_eq!(lent.next_ref().unwrap().unwrap().0, expected.as_bytes());
        }
        assert_eq!(backwards.next().unwrap().unwrap().0, "e");
        assert_eq!(backwards.next().unwrap().unwrap().0, "d");
        machine.pass(10);
        assert_eq!(keys(forwards), ["e"]);
        assert_eq!(lent.next_ref().unwrap().unwrap().0, b"e");
        assert!(lent.next_ref().is_none() && backwards.next().is_none());
    }
}

#[test]
fn the_last_put_of_a_key_decides_whether_it_expires() {
    let machine = fresh();
    let db = machine.open();
    db.keyspace.put_with("k", "1", ttl(10)).unwrap();
    db.keyspace.put("k", "2").unwrap();
    machine.pass(10);
    assert_eq!(db.value("k").as_deref(), Some("2"));
    db.keyspace.put_with("k", "3", ttl(1000)).unwrap();
    db.keyspace.put_with("k", "4", ttl(10)).unwrap();
    machine.pass(10);
    assert_eq!(db.value("k"), None);
    db.keyspace.put_with("k", "", ttl(5)).unwrap();
    assert_eq!(db.value("k").as_deref(), Some(""));
}

#[test]
fn a_time_to_live_is_at_least_a_millisecond_and_at_most_for_ever() {
    let machine = fresh();
    let db = machine.open();
    let refused = db.keyspace.put_with("k", "v", ttl(0)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let (short, long) = (Duration::from_nanos(1), Duration::MAX);
    db.keyspace
        .put_with("short", "v", PutOptions::new().ttl(short))
        .unwrap();
    db.keyspace
        .put_with("long", "v", PutOptions::new().ttl(long))
        .unwrap();
    db.keyspace.put_with("plain", "v", PutOptions::new()).unwrap();
    assert_eq!(db.keys(), ["long", "plain", "short"]);
    machine.pass(1);
    db.engine.compact().unwrap();
    machine.pass(1 << 43);
    db.jobs();
    assert_eq!(db.keys(), ["long", "plain"]);
}

#[test]
fn an_expired_key_counts_as_absent_to_conditions() {
    let machine = fresh();
    let db = machine.open();
    let set_if = |expected: Option<&str>, value: &str| {
        let batch = db.tenant.batch();
        let batch = batch.require(&db.keyspace, "k", expected.map(str::as_bytes));
        batch.put_with(&db.keyspace, "k", value, ttl(20)).commit()
    };
    set_if(None, "1").unwrap();
    conflict(set_if(None, "wrong"));
    set_if(Some("1"), "2").unwrap();
    machine.pass(19);
    conflict(set_if(None, "wrong"));
    machine.pass(1);
    conflict(set_if(Some("2"), "wrong"));
    set_if(None, "3").unwrap();
    assert_eq!(db.value("k").as_deref(), Some("3"));
}

#[test]
fn a_transaction_conflicts_when_what_it_read_expired_before_its_commit() {
    let machine = fresh();
    let db = machine.open();
    for compacted in [false, true] {
        db.keyspace.put_with("lease", "mine", ttl(50)).unwrap();
        let mut late = db.tenant.transaction();
        let mut early = db.tenant.transaction();
        for transaction in [&mut late, &mut early] {
            assert!(transaction.get(&db.keyspace, "lease").unwrap().is_some());
            transaction.put(&db.keyspace, "done", "by the holder");
        }
        machine.pass(49);
        early.commit().unwrap();
        machine.pass(1);
        if compacted {
            // Nothing is left of the lease that could tell.
            db.engine.compact().unwrap();
        }
        conflict(late.commit());
        let mut after = db.tenant.transaction();
        assert_eq!(after.get(&db.keyspace, "lease").unwrap(), None);
        after.put_with(&db.keyspace, "lease", "next", ttl(5));
        after.commit().unwrap();
        assert_eq!(db.value("lease").as_deref(), Some("next"));
        machine.pass(5);
        assert_eq!(db.value("lease"), None);
    }
}

#[test]
fn the_clock_goes_back_and_nothing_reappears() {
    let machine = fresh();
    let db = machine.open();
    db.keyspace.put_with("k", "v", ttl(100)).unwrap();
    db.keyspace.put_with("l", "v", ttl(200)).unwrap();
    machine.pass(150);
    assert_eq!(db.keys(), ["l"]);
    machine.clock.step_back(Duration::from_millis(140));
    assert_eq!(db.keys(), ["l"]);
    // It waits until the clock is there again.
    machine.pass(140);
    assert_eq!(db.keys(), ["l"]);
    machine.pass(50);
    assert!(db.keys().is_empty());
}

#[test]
fn expired_values_leave_tables_and_log_when_the_grace_is_over() {
    let machine = fresh();
    let mut db = machine.open();
    machine.pass(GRACE.as_millis() as u64);
    db.jobs();
    for i in 0..20 {
        db.keyspace
            .put_with(format!("flushed {i}"), [7; 500], ttl(1000))
            .unwrap();
    }
    db.engine.compact().unwrap();
    for reopened in [false, true] {
        for i in 0..20 {
            db.keyspace
                .put_with(format!("in memory {i}"), [7; 500], ttl(1000))
                .unwrap();
        }
        let last = db.engine.wal_end().start;
        if reopened {
            // The log that is left belongs to another process; nothing is written after.
            db.engine.close().unwrap();
            drop(db);
            db = machine.open();
        }
        machine.pass(1000 + GRACE.as_millis() as u64 - 1);
        db.jobs();
        let status = db.engine.status();
        // Of a log that another process left nothing is known but that it may hold such values.
        if !reopened {
            assert!(status.wal_start < last, "the log is kept");
            assert!(status.table_bytes > 5000, "tables are kept");
        }
        // A directory counts seconds.
        machine.pass(1000);
        db.jobs();
        let status = db.engine.status();
        assert!(status.wal_start >= last, "{} of {last}", status.wal_start);
        assert!(status.table_bytes < 3000, "{} bytes are left", status.table_bytes);
        assert!(!db.engine.step().unwrap(), "and that is all");
        db.keyspace.put_with("table again", [7; 6000], ttl(1000)).unwrap();
        db.engine.flush().unwrap();
        db.engine.compact().unwrap();
    }
}

#[test]
fn a_pinned_log_goes_when_the_pin_does() {
    let machine = fresh();
    let db = machine.open();
    let pin = db.engine.pin_wal(db.engine.status().wal_start);
    db.keyspace.put_with("k", "v", ttl(1000)).unwrap();
    let last = db.engine.wal_end().start;
    machine.pass(2000 + GRACE.as_millis() as u64);
    db.jobs();
    assert!(db.engine.status().wal_start < last);
    drop(pin);
    db.jobs();
    assert!(db.engine.status().wal_start >= last);
}

#[test]
fn a_standby_goes_by_its_own_clock_and_so_does_the_node_it_is_promoted_to() {
    let (machine, other) = (fresh(), fresh());
    let db = machine.open();
    db.keyspace.put_with("old", "v", ttl(100)).unwrap();
    db.engine.checkpoint("/copy").unwrap();
    let mut receiver = BaseCopyReceiver::start("/db", other.io(), other.keys.clone()).unwrap();
    receiver.keys(&db.engine.key_changes(0)).unwrap();
    for (name, _) in checkpoint_files("/copy", &machine.io()).unwrap() {
        let bytes = machine.fs.content(format!("/copy/{name}")).unwrap();
        receiver.chunk(&name, 0, &bytes).unwrap();
    }
    receiver.finish().unwrap();
    let standby = other.builder().role(Role::Standby).open().unwrap();
    db.keyspace.put_with("new", [7; 5000], ttl(300)).unwrap();
    let at = standby.standby_progress().unwrap().received;
    let bytes = db
        .engine
        .wal_cursor(at)
        .unwrap()
        .read(1 << 20, Duration::ZERO)
        .unwrap();
    standby.standby_append(at, &bytes).unwrap();
    standby.standby_sync().unwrap();
    let keyspace = standby.tenant("t").unwrap().open_keyspace("k").unwrap();
    assert_eq!(keys(keyspace.iter()), ["new", "old"]);
    other.pass(100);
    assert_eq!(keys(keyspace.iter()), ["new"]);
    assert_eq!(db.keys(), ["new", "old"]);
    standby.promote().unwrap();
    assert_eq!(keys(keyspace.iter()), ["new"]);
    other.pass(200 + GRACE.as_millis() as u64 + 1000);
    while standby.step().unwrap() {}
    assert!(keys(keyspace.iter()).is_empty());
    assert!(standby.status().table_bytes < 1000);
}
