//! Retention: entries end at their exact age, for every reader, and leave the disk within the grace; whenever the
//! retention was set, and whatever happens to the database meanwhile.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod machine;

use std::time::Duration;

use machine::{Db, Machine, follow, keys, standby_of, text};
use strongroom::io::Clock;
use strongroom::*;

const DAY: u64 = 24 * 3600 * 1000;
const GRACE: u64 = 60_000;

fn fresh() -> Machine {
    Machine::with(|options| options.expiry_grace = Duration::from_millis(GRACE))
}

impl Db {
    fn keep(&self, retention: impl Into<Option<Retention>>) {
        self.tenant.set_retention(&self.keyspace, retention).unwrap();
    }

    fn put(&self, key: &str, value: &str) {
        self.keyspace.put(key, value).unwrap();
    }
}

fn kind<T>(outcome: Result<T>) -> ErrorKind {
    outcome.map(drop).unwrap_err().kind()
}

#[test]
fn an_entry_is_there_until_its_age_and_nobody_finds_it_from_then_on() {
    // In the memtable, in a table, and further down; dated, and from before.
    for place in 0..3 {
        for dated in [false, true] {
            let machine = fresh();
            let db = machine.open();
            let beside = db.tenant.keyspace("beside").unwrap();
            beside.put("b", "stays").unwrap();
            if dated {
                db.keep(Retention::Days(3));
                machine.pass(DAY);
            }
            db.put("b", "older");
            db.put("b", "newer");
            let with = db.tenant.snapshot();
            if !dated {
                machine.pass(5 * DAY);
                db.keep(Retention::Days(3));
            }
            match place {
                0 => {}
                1 => db.engine.flush().unwrap(),
                _ => db.engine.compact().unwrap(),
            }
            machine.pass(3 * DAY - 1);
            assert_eq!(db.value("b").as_deref(), Some("newer"), "{place} {dated}");
            assert_eq!(
                text(with.get(&db.keyspace, "b").unwrap()).as_deref(),
                Some("newer")
            );
            assert_eq!(
                db.keyspace.multi_get(["b"]).unwrap()[0].as_deref(),
                Some(&b"newer"[..])
            );
            assert_eq!(db.keys(), ["b"]);
            machine.pass(1);
            for compacted in [false, true] {
                if compacted {
                    db.engine.compact().unwrap();
                }
                assert_eq!(db.value("b"), None, "{place} {dated}");
                assert_eq!(with.get(&db.keyspace, "b").unwrap(), None);
                assert_eq!(db.keyspace.multi_get(["b"]).unwrap(), [None]);
                assert!(db.keys().is_empty());
                assert!(keys(with.range::<&str>(&db.keyspace, ..)).is_empty());
                assert_eq!(beside.get("b").unwrap().as_deref(), Some(&b"stays"[..]));
            }
            drop((with, beside, db));
            assert_eq!(machine.open().value("b"), None);
        }
    }
}

#[test]
fn a_range_leaves_out_what_ends_by_a_retention_that_is_set_while_it_is_read() {
    let machine = fresh();
    let db = machine.open();
    for key in ["a", "b", "c", "d", "e"] {
        db.put(key, "v");
    }
    db.engine.flush().unwrap();
    let (mut lent, mut taken) = (db.keyspace.iter(), db.keyspace.iter());
    let mut next = || {
        let (key, _) = taken.next()?.unwrap();
        assert_eq!(lent.next_ref()?.unwrap().0, key);
        Some(key)
    };
    assert_eq!((next().unwrap(), next().unwrap()), ("a".into(), "b".into()));
    db.keep(Retention::Days(3));
    machine.pass(3 * DAY - 1);
    assert_eq!(next().unwrap(), "c");
    machine.pass(1);
    assert_eq!(next(), None);
}

#[test]
fn calendar_months_end_on_the_last_day_of_a_short_month() {
    // 31 January 2031, 09:30 UTC: the simulated clock stands before.
    const WRITTEN: u64 = 1_927_618_200_000;
    // 28 February 2031, 09:30.
    const ENDS: u64 = 1_930_037_400_000;
    let machine = fresh();
    assert!(machine.clock.now_ms() < WRITTEN);
    machine.pass(WRITTEN - machine.clock.now_ms());
    let db = machine.open();
    db.keep(Retention::Months(1));
    db.put("k", "v");
    machine.pass(ENDS - WRITTEN - 1);
    assert_eq!(db.value("k").as_deref(), Some("v"));
    machine.pass(1);
    assert_eq!(db.value("k"), None);
}

#[test]
fn of_a_time_to_live_and_a_retention_the_earlier_moment_counts() {
    let machine = fresh();
    let db = machine.open();
    let ttl = |ms| PutOptions::new().ttl(Duration::from_millis(ms));
    // From before the retention, too.
    db.keyspace.put_with("old short", "v", ttl(DAY)).unwrap();
    db.keyspace.put_with("old long", "v", ttl(9 * DAY)).unwrap();
    db.keep(Retention::Days(2));
    db.keyspace.put_with("short", "v", ttl(DAY)).unwrap();
    db.keyspace.put_with("long", "v", ttl(9 * DAY)).unwrap();
    db.put("without", "v");
    machine.pass(DAY);
    assert_eq!(db.keys(), ["long", "old long", "without"]);
    machine.pass(DAY);
    assert!(db.keys().is_empty());
    // With the retention gone a time to live counts alone.
    db.keep(None);
    db.keyspace.put_with("long", "v", ttl(9 * DAY)).unwrap();
    machine.pass(8 * DAY);
    assert_eq!(db.keys(), ["long"]);
    machine.pass(DAY);
    assert!(db.keys().is_empty());
}

#[test]
fn a_change_counts_for_what_is_there_and_uncovers_nothing() {
    for compacted in [false, true] {
        let machine = fresh();
        let db = machine.open();
        db.keep(Retention::Days(10));
        for day in 0..5 {
            db.put(&format!("day {day}"), "v");
            machine.pass(DAY);
        }
        if compacted {
            db.engine.compact().unwrap();
        }
        assert_eq!(db.keys().len(), 5);
        db.keep(Retention::Days(2));
        assert_eq!(db.keys(), ["day 4"]);
        assert_eq!(
            db.tenant.retention(&db.keyspace).unwrap(),
            Some(Retention::Days(2))
        );
        // Longer: what has ended stays gone, what has not goes on.
        db.keep(Retention::Days(30));
        assert_eq!(db.keys(), ["day 4"]);
        machine.pass(5 * DAY);
        db.keep(None);
        assert_eq!(db.keys(), ["day 4"]);
        assert_eq!(db.tenant.retention(&db.keyspace).unwrap(), None);
        machine.pass(1000 * DAY);
        assert_eq!(db.keys(), ["day 4"]);
        drop(db);
        let db = machine.open();
        assert_eq!(db.keys(), ["day 4"]);
        db.jobs();
        db.engine.compact().unwrap();
        assert_eq!(db.keys(), ["day 4"]);
        db.keep(Retention::Months(1));
        assert!(db.keys().is_empty());
    }
}

#[test]
fn a_transaction_conflicts_when_what_it_read_ends_or_its_retention_changes() {
    let machine = fresh();
    let db = machine.open();
    db.keep(Retention::Days(2));
    let begin = || {
        db.put("lease", "mine");
        let mut transaction = db.tenant.transaction();
        assert!(transaction.get(&db.keyspace, "lease").unwrap().is_some());
        transaction.put(&db.keyspace, "done", "by the holder");
        transaction
    };
    let (early, late) = (begin(), begin());
    machine.pass(2 * DAY - 1);
    drop(early);
    machine.pass(1);
    db.engine.compact().unwrap();
    assert_eq!(kind(late.commit()), ErrorKind::Conflict);
    let in_time = begin();
    machine.pass(2 * DAY - 1);
    in_time.commit().unwrap();
    let shortened = begin();
    machine.pass(DAY);
    db.keep(Retention::Days(1));
    assert_eq!(kind(shortened.commit()), ErrorKind::Conflict);
    assert_eq!(db.value("lease"), None);
    let require_absent = db.tenant.batch().require(&db.keyspace, "lease", None);
    require_absent
        .put(&db.keyspace, "lease", "next")
        .commit()
        .unwrap();
    assert_eq!(db.value("lease").as_deref(), Some("next"));
}

#[test]
fn a_batch_that_was_built_before_the_retention_was_set_is_dated_when_it_is_ordered() {
    let machine = fresh();
    let db = machine.open();
    let other = db.tenant.keyspace("other").unwrap();
    let batch = db
        .tenant
        .batch()
        .put(&db.keyspace, "k", "v")
        .put(&other, "k", "v");
    let batch = batch.delete(&db.keyspace, "gone");
    db.keep(Retention::Days(2));
    machine.pass(5 * DAY);
    batch.commit().unwrap();
    machine.pass(2 * DAY - 1);
    assert_eq!(db.keys(), ["k"]);
    machine.pass(1);
    assert!(db.keys().is_empty());
    assert!(other.get("k").unwrap().is_some());
}

#[test]
fn retention_is_kept_over_reopening_crashes_and_flushes() {
    let mut machine = fresh();
    let mut db = machine.open();
    db.put("old", "v");
    db.keep(Retention::Days(3));
    for round in 0..4 {
        db.put(&format!("round {round}"), "v");
        match round {
            0 => {}
            1 => db.engine.flush().unwrap(),
            _ => db.engine.compact().unwrap(),
        }
        db = machine.crash(db);
        assert_eq!(
            db.tenant.retention(&db.keyspace).unwrap(),
            Some(Retention::Days(3))
        );
        machine.pass(DAY / 2);
        if round == 2 {
            db.engine.close().unwrap();
            drop(db);
            db = machine.open();
        }
    }
    machine.pass(DAY);
    // Two and a half, and two days.
    assert_eq!(db.keys(), ["round 1", "round 2", "round 3"]);
}

#[test]
fn entries_leave_tables_and_log_when_the_grace_is_over() {
    for dated in [false, true] {
        let machine = fresh();
        let mut db = machine.open();
        machine.pass(GRACE);
        db.jobs();
        if dated {
            db.keep(Retention::Days(3));
        }
        let value = "x".repeat(500);
        for i in 0..20 {
            db.put(&format!("flushed {i}"), &value);
        }
        db.engine.compact().unwrap();
        for i in 0..20 {
            db.put(&format!("in memory {i}"), &value);
        }
        if !dated {
            // Tables do not know of it, nor does the log.
            db.keep(Retention::Days(3));
        }
        let last = db.engine.wal_end().start;
        machine.pass(3 * DAY + GRACE - 1);
        db.jobs();
        let status = db.engine.status();
        assert!(status.wal_start < last, "the log is kept");
        assert!(status.table_bytes > 5000, "tables are kept");
        if dated {
            // Another process finds in the tables what is due.
            db.engine.close().unwrap();
            drop(db);
            db = machine.open();
        }
        // A directory counts seconds.
        machine.pass(1000);
        db.jobs();
        if dated {
            machine.pass(GRACE);
            db.jobs();
        }
        let status = db.engine.status();
        assert!(status.wal_start >= last, "{} of {last}", status.wal_start);
        assert!(status.table_bytes < 3500, "{} bytes are left", status.table_bytes);
        assert!(!db.engine.step().unwrap(), "and that is all");
        assert!(db.engine.verify().unwrap().damages.is_empty());
    }
}

#[test]
fn tables_from_before_a_change_are_looked_for_also_after_a_reopening() {
    for reopened in [false, true] {
        let machine = fresh();
        let mut db = machine.open();
        db.keep(Retention::Days(100));
        let value = "x".repeat(500);
        for i in 0..20 {
            db.put(&format!("{i}"), &value);
        }
        let beside = db.tenant.keyspace("beside").unwrap();
        beside.put("stays", [7; 5000]).unwrap();
        db.engine.compact().unwrap();
        machine.pass(9 * DAY);
        db.keep(Retention::Days(9));
        if reopened {
            db.engine.close().unwrap();
            drop((db, beside));
            db = machine.open();
        }
        db.jobs();
        assert!(db.engine.status().table_bytes > 15_000, "the grace is not over");
        machine.pass(GRACE);
        db.jobs();
        let left = db.engine.status().table_bytes;
        assert!((5000..9000).contains(&left), "{left} bytes are left");
        assert!(!db.engine.step().unwrap());
    }
}

#[test]
fn a_longer_retention_does_not_make_background_work_come_again_and_again() {
    let machine = fresh();
    let db = machine.open();
    db.keep(Retention::Days(2));
    for i in 0..20 {
        db.put(&format!("{i}"), &"x".repeat(500));
    }
    db.engine.compact().unwrap();
    db.keep(Retention::Days(50));
    machine.pass(3 * DAY);
    for _ in 0..100 {
        if !db.engine.step().unwrap() {
            break;
        }
    }
    assert!(!db.engine.step().unwrap());
    assert_eq!(db.keys().len(), 20);
    machine.pass(47 * DAY + GRACE + 1000);
    db.jobs();
    assert!(db.engine.status().table_bytes < 3500);
}

#[test]
fn the_clock_goes_back_and_nothing_reappears() {
    let machine = fresh();
    let db = machine.open();
    db.keep(Retention::Days(2));
    db.put("k", "v");
    machine.pass(2 * DAY);
    assert!(db.keys().is_empty());
    machine.clock.step_back(Duration::from_millis(DAY));
    assert!(db.keys().is_empty());
    // What is written behind the time is as old as it seems.
    db.put("l", "v");
    machine.pass(DAY + 2 * DAY - 1);
    assert_eq!(db.keys(), ["l"]);
    machine.pass(1);
    assert!(db.keys().is_empty());
}

#[test]
fn copies_and_restored_databases_keep_the_retention() {
    let machine = fresh();
    let db = machine.open();
    db.keep(Retention::Days(2));
    db.put("k", "v");
    db.engine.checkpoint("/copy").unwrap();
    let secret = keys::EscrowSecret::generate().unwrap();
    let escrow = db.engine.escrow(&secret.recipient()).unwrap();
    let restored = fresh();
    let io = restored.io();
    for (name, _) in checkpoint_files("/copy", &machine.io()).unwrap() {
        let bytes = machine.fs.content(format!("/copy/{name}")).unwrap();
        let path = std::path::Path::new("/copy").join(&name);
        io.vfs.create_dir_all(path.parent().unwrap()).unwrap();
        io.vfs.create(&path).unwrap().write_all_at(&bytes, 0).unwrap();
    }
    let now = machine.clock.now_ms();
    restored.pass(now.saturating_sub(restored.clock.now_ms()));
    restore("/copy", &escrow, &secret, "/db", restored.keys.clone(), &io).unwrap();
    let engine = restored.builder().open().unwrap();
    let keyspace = engine.tenant("t").unwrap().open_keyspace("k").unwrap();
    assert_eq!(keys(keyspace.iter()), ["k"]);
    restored.pass(2 * DAY);
    assert!(keys(keyspace.iter()).is_empty());
    engine.accept_restored().unwrap();
    keyspace.put("l", "v").unwrap();
    restored.pass(2 * DAY - 1);
    assert_eq!(keys(keyspace.iter()), ["l"]);
    restored.pass(1);
    assert!(keys(keyspace.iter()).is_empty());
}

#[test]
fn a_standby_keeps_the_retention_and_so_does_the_node_it_is_promoted_to() {
    let (machine, other) = (fresh(), fresh());
    let db = machine.open();
    db.put("old", "v");
    let standby = standby_of(&db, &machine, &other);
    let keyspace = standby.tenant("t").unwrap().open_keyspace("k").unwrap();
    db.keep(Retention::Days(2));
    machine.pass(DAY);
    other.pass(DAY);
    db.put("new", "v");
    follow(&db, &standby);
    assert_eq!(keys(keyspace.iter()), ["new", "old"]);
    other.pass(DAY);
    assert_eq!(keys(keyspace.iter()), ["new"]);
    let refused = standby.tenant("t").unwrap().set_retention(&keyspace, None);
    assert_eq!(kind(refused), ErrorKind::NotPrimary);
    standby.promote().unwrap();
    keyspace.put("newest", "v").unwrap();
    other.pass(DAY);
    assert_eq!(keys(keyspace.iter()), ["newest"]);
    other.pass(DAY + GRACE + 1000);
    while standby.step().unwrap() {}
    assert!(keys(keyspace.iter()).is_empty());
    assert!(standby.status().table_bytes < 1500);
}

#[test]
fn a_standby_that_is_behind_loses_nothing_that_a_longer_retention_spared_meanwhile() {
    let (machine, other) = (fresh(), fresh());
    let db = machine.open();
    db.keep(Retention::Days(2));
    db.put("spared", &"v".repeat(3000));
    let standby = standby_of(&db, &machine, &other);
    let keyspace = standby.tenant("t").unwrap().open_keyspace("k").unwrap();
    machine.pass(DAY);
    db.keep(Retention::Days(9));
    // It has not heard of that when the two days are over.
    other.pass(3 * DAY);
    assert!(keys(keyspace.iter()).is_empty());
    standby.flush().unwrap();
    standby.compact().unwrap();
    while standby.step().unwrap() {}
    follow(&db, &standby);
    assert_eq!(keys(keyspace.iter()), ["spared"]);
    // What has ended when the last record was ordered goes without a promotion.
    machine.pass(9 * DAY);
    other.pass(7 * DAY + GRACE);
    db.put("new", "v");
    follow(&db, &standby);
    standby.compact().unwrap();
    assert_eq!(keys(keyspace.iter()), ["new"]);
    assert!(standby.status().table_bytes < 1500, "{:?}", standby.status());
}

#[test]
fn a_log_that_is_flushed_while_it_is_replayed_loses_nothing_that_a_longer_retention_in_it_spares() {
    let mut machine = fresh();
    let mut db = machine.open();
    db.keep(Retention::Days(2));
    // More than memtables hold, so that the replay flushes before it comes to the change.
    let large = "v".repeat(3000);
    let names: Vec<String> = (10..40).map(|n| format!("k{n}")).collect();
    names.iter().for_each(|name| db.put(name, &large));
    machine.pass(DAY);
    db.keep(Retention::Days(9));
    assert!(
        db.engine.stats().levels.iter().all(|level| level.tables == 0),
        "all is in the log"
    );
    machine.pass(3 * DAY);
    db = machine.crash(db);
    assert_eq!(db.keys(), names);
}

#[test]
fn refused_are_nothing_foreign_keyspaces_and_those_that_are_gone() {
    let machine = fresh();
    let db = machine.open();
    for nothing in [Retention::Days(0), Retention::Months(0)] {
        let refused = db.tenant.set_retention(&db.keyspace, nothing);
        assert_eq!(kind(refused), ErrorKind::Invalid);
    }
    let other = db.engine.create_tenant("o", TenantOptions::default()).unwrap();
    let refused = other.set_retention(&db.keyspace, Retention::Days(1));
    assert_eq!(kind(refused), ErrorKind::Invalid);
    db.tenant.delete_keyspace("k").unwrap();
    let refused = db.tenant.set_retention(&db.keyspace, Retention::Days(1));
    assert_eq!(kind(refused), ErrorKind::NotFound);
}

#[test]
fn of_a_deleted_tenant_or_keyspace_nothing_counts_for_the_next_of_its_name() {
    let machine = fresh();
    let db = machine.open();
    db.keep(Retention::Days(1));
    db.tenant.delete_keyspace("k").unwrap();
    let again = db.tenant.keyspace("k").unwrap();
    assert_eq!(db.tenant.retention(&again).unwrap(), None);
    again.put("k", "v").unwrap();
    machine.pass(2 * DAY);
    assert!(again.get("k").unwrap().is_some());
    db.tenant.set_retention(&again, Retention::Days(1)).unwrap();
    db.engine.delete_tenant("t").unwrap();
    let tenant = db.engine.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    assert_eq!(tenant.retention(&keyspace).unwrap(), None);
    keyspace.put("k", "v").unwrap();
    db.engine.compact().unwrap();
    machine.pass(2 * DAY);
    assert!(keyspace.get("k").unwrap().is_some());
    drop((db, tenant, keyspace, again));
    let db = machine.open();
    assert!(db.keyspace.get("k").unwrap().is_some());
}
