//! Options that are changed while the engine runs: in force at once, all or none, and until the next open.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod machine;

use std::time::Duration;

use machine::{Db, Machine};
use strongroom::*;

const KIB: u64 = 1 << 10;

/// With a cache of so many bytes, and blocks that hold ten values.
fn machine(cache_bytes: u64) -> Machine {
    Machine::with(|options| {
        options.cache_bytes = cache_bytes;
        options.block_bytes = 4 << 10;
    })
}

/// Some 300 KiB in tables, each value its own.
fn filled(machine: &Machine) -> Db {
    let db = machine.open();
    for i in 0..1000u32 {
        let value = [i.to_be_bytes(); 75].concat();
        db.keyspace.put(i.to_be_bytes(), value).unwrap();
    }
    db.engine.compact().unwrap();
    db
}

/// Reads it all; how many pieces came from files.
fn read(db: &Db) -> u64 {
    let before = db.engine.stats().reads.pieces_read;
    for i in 0..1000u32 {
        let value = db.keyspace.get(i.to_be_bytes()).unwrap().unwrap();
        assert_eq!(value, [i.to_be_bytes(); 75].concat(), "{i}");
    }
    assert_eq!(db.keyspace.iter().count(), 1000);
    db.engine.stats().reads.pieces_read - before
}

fn refused(engine: &Engine, changes: &[OnlineOption]) -> String {
    let before = format!("{:?}", engine.options());
    let error = engine.set_options(changes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(
        format!("{:?}", engine.options()),
        before,
        "a change that is refused"
    );
    error.to_string()
}

#[test]
fn a_smaller_cache_lets_go_at_once_and_a_larger_one_fills_up() {
    let machine = machine(512 * KIB);
    let db = filled(&machine);
    let set = |bytes| {
        db.engine.set_options(&[OnlineOption::CacheBytes(bytes)]).unwrap();
        assert_eq!(db.engine.options().cache_bytes, bytes);
        assert_eq!(db.engine.stats().cache_bytes_max, bytes);
    };
    read(&db);
    assert_eq!(read(&db), 0, "all of it has room");
    assert!(db.engine.status().cache_bytes > 300 * KIB);
    for bytes in [100 * KIB, 10 * KIB, 0] {
        set(bytes);
        assert!(db.engine.status().cache_bytes <= bytes);
        assert!(read(&db) > 100, "with {bytes}");
        assert!(db.engine.status().cache_bytes <= bytes);
    }
    set(1 << 20);
    read(&db);
    assert_eq!(read(&db), 0, "it has room again");
    assert!(db.engine.status().cache_bytes > 300 * KIB);
}

#[test]
fn a_value_outside_its_range_is_refused_as_at_opening_and_nothing_is_changed() {
    let machine = machine(512 * KIB);
    let db = filled(&machine);
    read(&db);
    let cached = db.engine.status().cache_bytes;
    let long = Duration::from_secs(11 * 366 * 24 * 3600);
    let at_opening = |change: fn(&mut Options, Duration)| {
        let mut options = Options::tiny();
        change(&mut options, long);
        options.validate().unwrap_err().to_string()
    };
    assert_eq!(
        refused(
            &db.engine,
            &[
                OnlineOption::CacheBytes(1),
                OnlineOption::WalKeepBytes(1),
                OnlineOption::ExpiryGrace(long),
            ],
        ),
        at_opening(|options, long| options.expiry_grace = long)
    );
    assert_eq!(
        refused(&db.engine, &[OnlineOption::ReplicatedTimeout(Duration::ZERO)]),
        at_opening(|options, _| options.replicated_timeout = Duration::ZERO)
    );
    assert_eq!(db.engine.status().cache_bytes, cached);
    assert_eq!(read(&db), 0, "the cache serves");
}

#[test]
fn an_engine_opened_without_a_cache_says_that_it_must_be_reopened_for_one() {
    let machine = Machine::with(|options| options.cache_bytes = 0);
    let db = filled(&machine);
    let changes = [OnlineOption::WalKeepBytes(1), OnlineOption::CacheBytes(KIB)];
    assert!(refused(&db.engine, &changes).contains("reopen"));
    // What is so already is no change.
    db.engine.set_options(&[OnlineOption::CacheBytes(0)]).unwrap();
    read(&db);
}

#[test]
fn of_one_option_the_last_value_counts_and_a_reopened_engine_has_its_own_again() {
    let machine = Machine::with(|_| {});
    let mut db = filled(&machine);
    for close in [true, false] {
        let hour = Duration::from_secs(3600);
        db.engine
            .set_options(&[
                OnlineOption::CacheBytes(KIB),
                OnlineOption::WalKeepBytes(7),
                OnlineOption::ExpiryGrace(hour),
                OnlineOption::ReplicatedTimeout(hour),
                OnlineOption::CacheBytes(20 * KIB),
            ])
            .unwrap();
        let now = db.engine.options();
        assert_eq!((now.cache_bytes, now.wal_keep_bytes), (20 * KIB, 7));
        assert_eq!((now.expiry_grace, now.replicated_timeout), (hour, hour));
        if close {
            db.engine.close().unwrap();
        }
        drop(db);
        db = machine.open();
        assert_eq!(
            format!("{:?}", db.engine.options()),
            format!("{:?}", machine.options)
        );
        assert_eq!(db.engine.stats().cache_bytes_max, machine.options.cache_bytes);
        assert!(read(&db) > 0);
    }
}

#[test]
fn with_a_shorter_grace_what_has_ended_leaves_tables_and_log_without_another_write() {
    let machine = Machine::with(|options| options.expiry_grace = Duration::from_secs(24 * 3600));
    let db = machine.open();
    // What an earlier log held is not known: that is over first.
    machine.pass(24 * 3600 * 1000);
    db.jobs();
    let put = |key: &str| {
        let options = PutOptions::new().ttl(Duration::from_secs(1));
        db.keyspace.put_with(key, [7; 5000], options).unwrap();
    };
    put("in a table");
    db.engine.compact().unwrap();
    put("in memory");
    let last = db.engine.wal_end().start;
    let holds = || {
        db.jobs();
        let status = db.engine.status();
        (status.table_bytes > 5000, status.wal_start < last)
    };
    machine.pass(62_000);
    assert_eq!(holds(), (true, true), "its grace is a day");
    let grace = |seconds| OnlineOption::ExpiryGrace(Duration::from_secs(seconds));
    db.engine.set_options(&[grace(100)]).unwrap();
    assert_eq!(holds(), (true, true), "not due by this one either");
    db.engine.set_options(&[grace(60)]).unwrap();
    assert_eq!(holds(), (false, false));
}

#[test]
fn less_log_to_keep_frees_what_a_standby_pinned_without_another_write() {
    let machine = Machine::with(|options| options.wal_keep_bytes = 1 << 30);
    let db = machine.open();
    let _pin = db.engine.pin_wal(db.engine.status().wal_start);
    for i in 0..300u32 {
        db.keyspace.put(i.to_be_bytes(), [7; 1000]).unwrap();
    }
    db.engine.flush().unwrap();
    let kept = || {
        db.jobs();
        let status = db.engine.status();
        status.durable.0 - status.wal_start.0
    };
    assert!(kept() > 300_000);
    let mut before = kept();
    for keep in [100_000, 40_000, 0] {
        db.engine
            .set_options(&[OnlineOption::WalKeepBytes(keep)])
            .unwrap();
        let now = kept();
        // Whole segments go.
        assert!(
            now < before && now < keep + machine.options.segment_bytes + 2000,
            "{now} for {keep}"
        );
        before = now;
    }
}

#[test]
fn a_replicated_timeout_counts_for_the_waits_that_begin_after_it() {
    let machine = Machine::with(|options| options.replicated_timeout = Duration::from_secs(3600));
    let db = machine.open();
    let submit = |key: &str| {
        let batch = db.tenant.batch().put(&db.keyspace, key, "1");
        batch.durability(Durability::Replicated).submit().unwrap()
    };
    let soon = OnlineOption::ReplicatedTimeout(Duration::from_millis(1));
    let (first, second) = (submit("first"), submit("second"));
    db.engine.set_options(&[soon]).unwrap();
    let refused = first.wait().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unknown);
    assert!(refused.to_string().contains("within 1 ms"), "{refused}");
    // So do those of transactions for what is in their way.
    let conflict = db.tenant.transact(|transaction| {
        transaction.get(&db.keyspace, "second")?;
        transaction.put(&db.keyspace, "second", "2");
        Ok(())
    });
    assert_eq!(conflict.unwrap_err().kind(), ErrorKind::Conflict);
    let long = OnlineOption::ReplicatedTimeout(Duration::from_secs(3600));
    db.engine.set_options(&[long]).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| second.wait());
        let end = db.engine.wal_end();
        db.engine.confirm_replicated(end.epoch, end.start);
        waits.join().unwrap().unwrap();
    });
}
