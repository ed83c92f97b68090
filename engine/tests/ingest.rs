//! Bulk loading: sorted entries in large batches, durable at the end; what is there is a prefix at every moment.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod machine;

use std::time::Duration;

use machine::{Db, Machine};
use strongroom::*;

const ENTRIES: u64 = 8000;
const VALUE: [u8; 400] = [7; 400];

fn fresh() -> Machine {
    Machine::with(|options| options.memtable_bytes = 8 << 20)
}

/// All of them: more than three batches.
fn load(db: &Db) -> Ingest {
    let mut ingest = db.keyspace.ingest();
    for n in 0..ENTRIES {
        ingest.push(n.to_be_bytes(), VALUE).unwrap();
    }
    ingest
}

/// How many of them are there: a prefix, as whole batches.
fn prefix(db: &Db) -> u64 {
    let mut expected = 0;
    for entry in db.keyspace.iter() {
        let (key, value) = entry.unwrap();
        assert_eq!(
            (&key[..], &value[..]),
            (&u64::to_be_bytes(expected)[..], &VALUE[..])
        );
        expected += 1;
    }
    expected
}

fn invalid(refused: Result<()>, number: u64) {
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let text = refused.to_string();
    assert!(text.contains(&format!("entry {number} of the ingest")), "{text}");
}

#[test]
fn sorted_entries_then_all_are_there_durable_by_few_batches_and_one_sync() {
    let mut machine = fresh();
    let db = machine.open();
    let before = db.engine.stats();
    let mut ingest = load(&db);
    let position = ingest.finish().unwrap().unwrap();
    assert_eq!(ingest.committed(), ENTRIES);
    let after = db.engine.stats();
    assert_eq!(after.writes.puts - before.writes.puts, ENTRIES);
    assert_eq!(after.writes.commits - before.writes.commits, 4);
    assert!(after.wal.durable >= position.lsn);
    assert_eq!(after.wal.durable, after.wal.written);
    assert_eq!(
        ingest.finish().unwrap(),
        Some(position),
        "there is nothing more to do"
    );
    assert_eq!(prefix(&db), ENTRIES);
    let db = machine.crash(db);
    assert_eq!(prefix(&db), ENTRIES);
}

#[test]
fn not_finished_then_a_crash_leaves_a_prefix_and_doing_it_again_is_harmless() {
    let mut machine = fresh();
    let db = machine.open();
    let ingest = load(&db);
    let committed = ingest.committed();
    assert!(committed > 0 && committed < ENTRIES, "{committed}");
    assert_eq!(prefix(&db), committed, "readers see what is committed");
    drop(ingest);
    assert_eq!(prefix(&db), committed, "what was not is given up");
    let db = machine.crash(db);
    assert!(prefix(&db) <= committed);
    load(&db).finish().unwrap();
    assert_eq!(prefix(&db), ENTRIES);
    load(&db).finish().unwrap();
    let db = machine.crash(db);
    assert_eq!(prefix(&db), ENTRIES);
}

#[test]
fn two_of_the_largest_values_come_one_after_the_other() {
    let machine = fresh();
    let db = machine.open();
    let mut ingest = db.keyspace.ingest();
    for key in ["a", "b"] {
        ingest.push(key, vec![7; VALUE_BYTES_MAX]).unwrap();
    }
    ingest.finish().unwrap();
    let len = |key| db.keyspace.get(key).unwrap().map(|value| value.len());
    assert_eq!([len("a"), len("b")], [Some(VALUE_BYTES_MAX); 2]);
}

#[test]
fn keys_out_of_order_and_beyond_limits_are_refused_by_number_and_the_rest_goes_on() {
    let machine = fresh();
    let db = machine.open();
    let mut ingest = db.keyspace.ingest();
    invalid(ingest.push("", "v"), 0);
    ingest.push("b", "1").unwrap();
    invalid(ingest.push("b", "2"), 1);
    invalid(ingest.push("a", "2"), 1);
    invalid(ingest.push(vec![b'c'; KEY_BYTES_MAX + 1], "2"), 1);
    invalid(ingest.push("c", vec![0; VALUE_BYTES_MAX + 1]), 1);
    ingest.push("c", "2").unwrap();
    let refused = ingest.push("secret", "3").and_then(|()| ingest.push("sec", "3"));
    let refused = refused.unwrap_err().to_string();
    assert!(!refused.contains("sec"), "{refused}");
    ingest.finish().unwrap();
    assert_eq!(db.keys(), ["b", "c", "secret"]);
    assert_eq!(db.value("b").as_deref(), Some("1"));
}

#[test]
fn a_refused_batch_ends_it_and_says_what_is_committed() {
    let machine = fresh();
    let db = machine.open();
    db.tenant.set_quota(1 << 20).unwrap();
    let mut ingest = db.keyspace.ingest();
    let refused = (0..ENTRIES).find_map(|n| ingest.push(n.to_be_bytes(), VALUE).err());
    let refused = refused.unwrap();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded);
    let committed = ingest.committed();
    assert!(committed > 0 && committed < ENTRIES);
    let told = format!("with {committed} entries committed");
    assert!(refused.to_string().contains(&told), "{refused}");
    assert_eq!(prefix(&db), committed);
    db.tenant.set_quota(None).unwrap();
    let again = ingest.push(u64::MAX.to_be_bytes(), VALUE).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::QuotaExceeded, "nothing is left out");
    assert_eq!(
        ingest.finish().map(drop).unwrap_err().kind(),
        ErrorKind::QuotaExceeded
    );
    assert_eq!(prefix(&db), committed);
    let mut rest = db.keyspace.ingest();
    for n in committed..ENTRIES {
        rest.push(n.to_be_bytes(), VALUE).unwrap();
    }
    rest.finish().unwrap();
    assert_eq!(prefix(&db), ENTRIES);
}

#[test]
fn nothing_pushed_then_nothing_is_written_and_more_may_be_pushed_after_the_end() {
    let machine = fresh();
    let db = machine.open();
    let before = db.engine.stats().writes;
    let mut ingest = db.keyspace.ingest();
    assert_eq!(ingest.finish().unwrap(), None);
    assert_eq!(db.engine.stats().writes, before);
    ingest.push("a", "1").unwrap();
    let first = ingest.finish().unwrap().unwrap();
    invalid(ingest.push("a", "2"), 1);
    ingest.push("b", "2").unwrap();
    let second = ingest.finish().unwrap().unwrap();
    assert!(second.lsn > first.lsn);
    assert_eq!(db.keys(), ["a", "b"]);
}

#[test]
fn values_larger_than_a_batch_go_each_by_itself() {
    let machine = fresh();
    let db = machine.open();
    let before = db.engine.stats().writes.commits;
    let mut ingest = db.keyspace.ingest();
    for n in 0..3u8 {
        ingest.push([n], vec![n; 3 << 20]).unwrap();
    }
    ingest.finish().unwrap();
    assert_eq!(db.engine.stats().writes.commits - before, 3);
    let lengths: Vec<usize> = db.keyspace.iter().map(|kv| kv.unwrap().1.len()).collect();
    assert_eq!(lengths, [3 << 20; 3]);
}

#[test]
fn replicated_then_it_is_finished_when_the_standby_has_confirmed_the_last() {
    let machine = Machine::with(|options| {
        options.durability = Durability::Replicated;
        options.replicated_timeout = Duration::from_secs(3600);
    });
    let db = machine.builder().open().unwrap();
    let tenant = db.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = std::thread::scope(|scope| {
        let made = scope.spawn(|| tenant.keyspace("k").unwrap());
        confirm_until(&db, || made.is_finished());
        made.join().unwrap()
    });
    let mut ingest = keyspace.ingest();
    for n in 0..ENTRIES {
        ingest.push(n.to_be_bytes(), VALUE).unwrap();
    }
    assert!(ingest.committed() > 0, "nobody was waited for so far");
    let position = std::thread::scope(|scope| {
        let finished = scope.spawn(|| ingest.finish().unwrap().unwrap());
        confirm_until(&db, || finished.is_finished());
        finished.join().unwrap()
    });
    assert_eq!(keyspace.iter().count() as u64, ENTRIES);
    assert!(db.stats().wal.durable >= position.lsn);
    let soon = OnlineOption::ReplicatedTimeout(Duration::from_millis(1));
    db.set_options(&[soon]).unwrap();
    ingest.push(u64::MAX.to_be_bytes(), VALUE).unwrap();
    let unconfirmed = ingest.finish().unwrap_err();
    assert_eq!(unconfirmed.kind(), ErrorKind::Unknown);
}

/// A standby that confirms whatever there is.
fn confirm_until(db: &Engine, done: impl Fn() -> bool) {
    while !done() {
        db.confirm_replicated(db.wal_end().epoch, db.stats().wal.durable);
        std::thread::yield_now();
    }
}
