//! Conditions of batches, and optimistic transactions.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use strongroom::io::sim::SimFs;
use strongroom::keys::MemoryKeys;
use strongroom::*;

struct Db {
    engine: Engine,
    tenant: Tenant,
    keyspace: Keyspace,
}

fn db() -> Db {
    let engine = Engine::builder("/db")
        .shared_keys(Arc::new(MemoryKeys::new()))
        .options(Options::tiny())
        .io(SimFs::new().io(5))
        .open()
        .unwrap();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    Db {
        engine,
        tenant,
        keyspace,
    }
}

impl Db {
    fn set_if(&self, expected: Option<&str>, value: &str) -> Result<Position> {
        let batch = self.tenant.batch();
        let batch = batch.require(&self.keyspace, "key", expected.map(str::as_bytes));
        batch.put(&self.keyspace, "key", value).commit()
    }

    fn value(&self) -> Option<String> {
        let value = self.keyspace.get("key").unwrap();
        value.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }
}

fn conflict<T>(outcome: Result<T>) {
    assert_eq!(outcome.map(drop).unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn value_as_required_then_committed_and_otherwise_nothing_is_written() {
    let db = db();
    // In the memtable, in a table, and in a deeper level: the same.
    for place in 0..3 {
        conflict(db.set_if(Some("none yet"), "wrong"));
        db.set_if(None, "first").unwrap();
        conflict(db.set_if(None, "wrong"));
        match place {
            0 => {}
            1 => db.engine.flush().unwrap(),
            _ => db.engine.compact().unwrap(),
        }
        conflict(db.set_if(Some("firs"), "wrong"));
        assert_eq!(db.value().as_deref(), Some("first"));
        db.set_if(Some("first"), "second").unwrap();
        assert_eq!(db.value().as_deref(), Some("second"));
        db.keyspace.delete("key").unwrap();
    }
}

#[test]
fn one_condition_of_many_fails_then_no_operation_is_applied() {
    let db = db();
    db.keyspace.put("a", "1").unwrap();
    db.keyspace.put("b", "1").unwrap();
    let batch = db.tenant.batch().require(&db.keyspace, "a", Some(b"1"));
    let batch = batch.require(&db.keyspace, "b", Some(b"2"));
    conflict(
        batch
            .put(&db.keyspace, "a", "9")
            .delete(&db.keyspace, "b")
            .commit(),
    );
    assert_eq!(db.keyspace.get("a").unwrap().as_deref(), Some(&b"1"[..]));
    assert!(db.keyspace.get("b").unwrap().is_some());
}

#[test]
fn written_since_the_snapshot_then_conflict_even_if_the_value_is_the_same_again() {
    let db = db();
    db.keyspace.put("key", "v").unwrap();
    let since = db.tenant.snapshot();
    let unchanged = || db.tenant.batch().require_unchanged(&db.keyspace, "key", &since);
    unchanged().put(&db.keyspace, "other", "1").commit().unwrap();
    db.keyspace.put("key", "w").unwrap();
    db.keyspace.put("key", "v").unwrap();
    conflict(unchanged().put(&db.keyspace, "other", "2").commit());
    db.engine.compact().unwrap();
    conflict(unchanged().put(&db.keyspace, "other", "2").commit());
}

/// It stands before the batch in the log: a batch that did not see it would be committed on top of it.
#[test]
fn value_that_is_ordered_and_not_acknowledged_then_it_is_what_conditions_see() {
    let db = db();
    let first = db.tenant.batch().put(&db.keyspace, "key", "first");
    let ticket = first.durability(Durability::Replicated).submit().unwrap();
    assert_eq!(db.value(), None, "no standby has confirmed it");
    conflict(db.set_if(None, "second"));
    db.set_if(Some("first"), "second").unwrap();
    drop(ticket);
    assert_eq!(db.value().as_deref(), Some("second"));
}

#[test]
fn condition_on_a_strangers_key_or_beyond_a_limit_then_invalid() {
    let db = db();
    let other = db.engine.create_tenant("o", TenantOptions::default()).unwrap();
    let foreign = other.keyspace("k").unwrap();
    let since = other.snapshot();
    let put = |batch: Batch| batch.put(&db.keyspace, "a", "1").commit().unwrap_err().kind();
    assert_eq!(
        put(db.tenant.batch().require(&foreign, "a", None)),
        ErrorKind::Invalid
    );
    assert_eq!(
        put(db.tenant.batch().require(&db.keyspace, "", None)),
        ErrorKind::Invalid
    );
    assert_eq!(
        put(db.tenant.batch().require_unchanged(&db.keyspace, "a", &since)),
        ErrorKind::Invalid
    );
    let only = db.tenant.batch().require(&db.keyspace, "a", None);
    assert_eq!(
        only.commit().unwrap_err().kind(),
        ErrorKind::Invalid,
        "an empty batch"
    );
    assert!(db.keyspace.get("a").unwrap().is_none());
}

/// Its old entries are still in the tree: a condition on them held.
#[test]
fn condition_in_a_keyspace_or_of_a_tenant_that_was_deleted_then_not_found() {
    let db = db();
    let gone = db.tenant.keyspace("gone").unwrap();
    gone.put("a", "1").unwrap();
    db.tenant.delete_keyspace("gone").unwrap();
    let write = |value| {
        db.tenant
            .batch()
            .require(&gone, "a", value)
            .put(&db.keyspace, "b", "1")
            .commit()
    };
    assert_eq!(write(Some(&b"1"[..])).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(write(None).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(db.keyspace.get("b").unwrap().is_none());
    db.keyspace.put("key", "1").unwrap();
    db.engine.delete_tenant("t").unwrap();
    assert_eq!(db.set_if(Some("2"), "3").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn node_that_may_not_write_then_says_so_before_it_compares() {
    let db = db();
    db.keyspace.put("key", "1").unwrap();
    db.engine.fence(db.engine.status().epoch.promoted()).unwrap();
    assert_eq!(db.set_if(Some("2"), "3").unwrap_err().kind(), ErrorKind::Fenced);
}

#[test]
fn transaction_reads_its_own_writes_and_a_fixed_past() {
    let db = db();
    db.keyspace.put("a", "old").unwrap();
    let mut t = db.tenant.transaction();
    t.put(&db.keyspace, "b", "mine");
    db.keyspace.put("a", "new").unwrap();
    assert_eq!(t.get(&db.keyspace, "a").unwrap().as_deref(), Some(&b"old"[..]));
    assert_eq!(t.get(&db.keyspace, "b").unwrap().as_deref(), Some(&b"mine"[..]));
    t.delete(&db.keyspace, "b");
    assert_eq!(t.get(&db.keyspace, "b").unwrap(), None);
    conflict(t.commit());
    let mut reader = db.tenant.transaction();
    reader.get(&db.keyspace, "a").unwrap();
    db.keyspace.put("a", "newer").unwrap();
    assert_eq!(
        reader.commit().unwrap(),
        None,
        "what only reads has nothing to lose"
    );
}

/// Write skew: each reads both and writes one. Run alone, the second would have seen the first.
#[test]
fn two_transactions_that_read_what_the_other_writes_then_one_is_refused() {
    let db = db();
    let (mut one, mut two) = (db.tenant.transaction(), db.tenant.transaction());
    for t in [&mut one, &mut two] {
        assert!(t.get(&db.keyspace, "a").unwrap().is_none());
        assert!(t.get(&db.keyspace, "b").unwrap().is_none());
    }
    one.put(&db.keyspace, "a", "on call");
    two.put(&db.keyspace, "b", "on call");
    one.commit().unwrap();
    conflict(two.commit());
    assert!(db.keyspace.get("b").unwrap().is_none());
}

#[test]
fn many_threads_count_in_transactions_then_every_commit_counted_once() {
    const EACH: u64 = 50;
    let db = db();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..EACH {
                    loop {
                        let mut t = db.tenant.transaction();
                        t.durability(Durability::Buffered);
                        let count = t.get(&db.keyspace, "n").unwrap();
                        let count = count.map_or(0, |b| u64::from_le_bytes(b[..].try_into().unwrap()));
                        t.put(&db.keyspace, "n", (count + 1).to_le_bytes());
                        match t.commit() {
                            Ok(_) => break,
                            Err(e) => assert_eq!(e.kind(), ErrorKind::Conflict),
                        }
                    }
                }
            });
        }
    });
    let count = db.keyspace.get("n").unwrap().unwrap();
    assert_eq!(count[..], (4 * EACH).to_le_bytes());
}

fn add_one(db: &Db) -> Result<(u64, Option<Position>)> {
    db.tenant.transact(|tx| {
        let seen = tx.get(&db.keyspace, "count")?;
        let count = seen.map_or(0, |bytes| u64::from_le_bytes(bytes.as_ref().try_into().unwrap())) + 1;
        tx.put(&db.keyspace, "count", count.to_le_bytes());
        Ok(count)
    })
}

#[test]
fn many_threads_add_to_one_value_by_transact_then_every_addition_counts() {
    const THREADS: u64 = 4;
    const EACH: u64 = 50;
    let db = db();
    let mut all: Vec<u64> = std::thread::scope(|scope| {
        let adders: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| (0..EACH).map(|_| add_one(&db).unwrap().0).collect::<Vec<_>>()))
            .collect();
        adders
            .into_iter()
            .flat_map(|adder| adder.join().unwrap())
            .collect()
    });
    all.sort_unstable();
    assert!(
        all.into_iter().eq(1..=THREADS * EACH),
        "each count was returned once"
    );
    assert_eq!(add_one(&db).unwrap().0, THREADS * EACH + 1);
}

#[test]
fn disturbed_at_every_try_then_a_thousand_tries_end_in_conflict_and_nothing_is_written() {
    let db = db();
    let mut tries = 0u32;
    let outcome = db.tenant.transact(|tx| {
        tries += 1;
        tx.get(&db.keyspace, "key")?;
        tx.put(&db.keyspace, "mine", "1");
        db.keyspace.put("key", tries.to_le_bytes())?;
        Ok(())
    });
    conflict(outcome);
    assert_eq!(tries, 1000);
    assert_eq!(db.keyspace.get("mine").unwrap(), None);
}

#[test]
fn work_fails_then_it_is_not_run_again_and_nothing_is_written() {
    let db = db();
    for kind in [ErrorKind::Invalid, ErrorKind::Conflict] {
        let mut tries = 0;
        let outcome = db.tenant.transact(|tx| -> Result<()> {
            tries += 1;
            tx.put(&db.keyspace, "key", "1");
            Err(Error::new(kind, "no"))
        });
        assert_eq!((outcome.unwrap_err().kind(), tries), (kind, 1));
    }
    assert_eq!(db.value(), None);
    let (read, position) = db.tenant.transact(|tx| tx.get(&db.keyspace, "key")).unwrap();
    assert_eq!((read, position), (None, None), "what only reads is not committed");
}

/// Reading again would show the same as before, a thousand times in no time.
#[test]
fn what_is_in_the_way_becomes_visible_then_transact_goes_on_and_else_ends_in_conflict() {
    let engine = Engine::builder("/db")
        .shared_keys(Arc::new(MemoryKeys::new()))
        .options({
            let mut options = Options::tiny();
            options.replicated_timeout = std::time::Duration::from_millis(100);
            options
        })
        .io(SimFs::new().io(5))
        .open()
        .unwrap();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    let pending = tenant.batch().put(&keyspace, "key", "first");
    let ticket = pending.durability(Durability::Replicated).submit().unwrap();
    let append = || {
        tenant.transact(|tx| {
            let seen = tx.get(&keyspace, "key")?;
            tx.put(&keyspace, "key", "second");
            Ok(seen)
        })
    };
    conflict(append());
    let confirmed = ticket.position();
    let (seen, _) = std::thread::scope(|scope| {
        let appended = scope.spawn(append);
        engine.confirm_replicated(confirmed.epoch, confirmed.lsn);
        appended.join().unwrap().unwrap()
    });
    assert_eq!(seen.as_deref(), Some(&b"first"[..]));
    assert_eq!(ticket.wait().unwrap(), confirmed);
}
