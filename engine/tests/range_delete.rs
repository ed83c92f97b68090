//! Range deletes as users see them: in memory, in tables, over reopening, on a standby, in transactions.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use strongroom::io::sim::{CrashMode, SimFs};
use strongroom::keys::{KeyProvider, MemoryKeys};
use strongroom::*;

struct Db {
    fs: SimFs,
    keys: MemoryKeys,
    engine: Engine,
    tenant: Tenant,
    keyspace: Keyspace,
}

fn open(fs: &SimFs, dir: &str, keys: &MemoryKeys, role: Role, seed: u64) -> Engine {
    let builder = Engine::builder(dir).shared_keys(Arc::new(keys.clone()));
    let builder = builder.options(Options::tiny()).role(role);
    builder.io(fs.io(seed)).open().unwrap()
}

fn db() -> Db {
    let (fs, keys) = (SimFs::new(), MemoryKeys::new());
    let engine = open(&fs, "/db", &keys, Role::Primary, 5);
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    Db {
        fs,
        keys,
        engine,
        tenant,
        keyspace,
    }
}

impl Db {
    fn reopen(self, seed: u64) -> Db {
        let Db { fs, keys, engine, .. } = self;
        drop((self.tenant, self.keyspace, engine));
        let fs = fs.crashed_image(CrashMode::DropAll, seed);
        let engine = open(&fs, "/db", &keys, Role::Primary, seed);
        let tenant = engine.tenant("t").unwrap();
        let keyspace = tenant.open_keyspace("k").unwrap();
        Db {
            fs,
            keys,
            engine,
            tenant,
            keyspace,
        }
    }

    fn fill(&self, keys: &str) {
        for key in keys.chars() {
            self.keyspace.put(key.to_string(), key.to_string()).unwrap();
        }
    }

    /// Memtable, level 0, one deeper level, and after a crash.
    fn everywhere(mut self, check: impl Fn(&Db, &str)) {
        check(&self, "in memory");
        self = self.reopen(9);
        check(&self, "after a replay");
        self.engine.flush().unwrap();
        check(&self, "in level 0");
        self.engine.compact().unwrap();
        check(&self, "compacted");
        assert!(self.engine.verify().unwrap().is_healthy());
        self = self.reopen(10);
        check(&self, "reopened");
    }
}

fn names(range: Range) -> String {
    let names = range.map(|entry| String::from_utf8(entry.unwrap().0.to_vec()).unwrap());
    names.collect()
}

fn held(keyspace: &Keyspace) -> String {
    let forwards = names(keyspace.iter());
    let backwards: String = keyspace
        .iter()
        .rev()
        .map(|entry| String::from_utf8(entry.unwrap().0.to_vec()).unwrap())
        .collect();
    assert_eq!(forwards.chars().rev().collect::<String>(), backwards);
    for key in ('a'..='z').map(String::from) {
        assert_eq!(
            keyspace.get(&key).unwrap().is_some(),
            forwards.contains(&key),
            "{key}"
        );
    }
    let all: Vec<String> = ('a'..='z').map(String::from).collect();
    let many = keyspace.multi_get(&all).unwrap();
    assert_eq!(many.iter().flatten().count(), forwards.len());
    forwards
}

#[test]
fn keys_of_the_range_are_gone_for_every_read_and_the_others_are_there() {
    for (range, left) in [
        (("c", "f"), "abfgh"),
        (("c", "fa"), "abgh"),
        (("", "c"), "cdefgh"),
        (("bb", "bc"), "abcdefgh"),
        (("a", "zz"), ""),
    ] {
        let db = db();
        db.fill("abcdefgh");
        db.keyspace.delete_range(range.0..range.1).unwrap();
        db.everywhere(|db, place| assert_eq!(held(&db.keyspace), left, "{range:?} {place}"));
    }
}

#[test]
fn every_kind_of_bound_is_the_one_of_ranges() {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    for (range, left) in [
        ((Included("c"), Included("e")), "abf"),
        ((Excluded("c"), Excluded("e")), "abcef"),
        ((Unbounded, Included("b")), "cdef"),
        ((Excluded("b"), Unbounded), "ab"),
        ((Unbounded, Unbounded), ""),
    ] {
        let db = db();
        db.fill("abcdef");
        let other = db.tenant.keyspace("other").unwrap();
        other.put("c", "stays").unwrap();
        db.keyspace.delete_range::<&str>(range).unwrap();
        db.everywhere(|db, place| {
            assert_eq!(held(&db.keyspace), left, "{range:?} {place}");
            let other = db.tenant.open_keyspace("other").unwrap();
            assert_eq!(held(&other), "c", "another keyspace, {place}");
        });
    }
}

#[test]
fn what_is_put_later_is_there_and_what_was_deleted_twice_is_not() {
    let db = db();
    db.fill("abcdef");
    db.engine.compact().unwrap();
    db.keyspace.delete_range("b".."e").unwrap();
    db.fill("c");
    db.keyspace.delete_range("a".."c").unwrap();
    db.fill("b");
    db.everywhere(|db, place| assert_eq!(held(&db.keyspace), "bcef", "{place}"));
}

#[test]
fn of_one_batch_the_later_operation_wins() {
    let db = db();
    db.fill("abcdef");
    let batch = db.tenant.batch();
    let batch = batch
        .put(&db.keyspace, "g", "undone")
        .put(&db.keyspace, "z", "stays");
    let batch = batch.delete_range(&db.keyspace, "a".."h");
    let batch = batch.put(&db.keyspace, "c", "new").delete(&db.keyspace, "z");
    let batch = batch.delete_range(&db.keyspace, "x".."y");
    assert_eq!(batch.len(), 6);
    batch.commit().unwrap();
    db.everywhere(|db, place| {
        assert_eq!(held(&db.keyspace), "c", "{place}");
        assert_eq!(
            db.keyspace.get("c").unwrap(),
            Some(Bytes::from_static(b"new")),
            "{place}"
        );
    });
}

#[test]
fn a_snapshot_from_before_goes_on_seeing_what_was_there() {
    let db = db();
    db.fill("abcdef");
    let before = db.tenant.snapshot();
    db.keyspace.delete_range("b".."e").unwrap();
    let between = db.tenant.snapshot();
    db.fill("c");
    for step in 0..4 {
        match step {
            0 => {}
            1 => db.engine.flush().unwrap(),
            _ => db.engine.compact().unwrap(),
        }
        assert_eq!(names(before.range::<&str>(&db.keyspace, ..)), "abcdef", "{step}");
        assert_eq!(names(between.range::<&str>(&db.keyspace, ..)), "aef", "{step}");
        assert_eq!(held(&db.keyspace), "acef", "{step}");
        for (snapshot, there) in [(&before, true), (&between, false)] {
            let value = snapshot.get(&db.keyspace, "c").unwrap();
            assert_eq!(value.is_some(), there, "{step}");
        }
    }
    drop((before, between));
    db.engine.compact().unwrap();
    let usage = db.tenant.usage().unwrap();
    // Four keys, and three of the catalog.
    assert!(usage.entries <= 4 + 3 && usage.deletes == 0, "{usage:?}");
}

#[test]
fn a_range_that_is_being_read_is_not_cut_short() {
    let db = db();
    db.fill("abcdef");
    let mut range = db.keyspace.iter();
    assert!(range.next().is_some());
    db.keyspace.delete_range::<&str>(..).unwrap();
    db.engine.compact().unwrap();
    assert_eq!(names(range), "bcdef");
    assert_eq!(held(&db.keyspace), "");
}

#[test]
fn conditions_see_a_range_delete_as_a_write_to_all_its_keys() {
    let db = db();
    db.fill("ab");
    let since = db.tenant.snapshot();
    db.keyspace.delete_range("a".."b").unwrap();
    let put_if = |key: &str| {
        let batch = db.tenant.batch().require_unchanged(&db.keyspace, key, &since);
        batch.put(&db.keyspace, "z", "1").commit().map(drop)
    };
    for _ in 0..2 {
        assert_eq!(put_if("a").unwrap_err().kind(), ErrorKind::Conflict);
        // Was not there before, and was deleted all the same.
        assert_eq!(put_if("aa").unwrap_err().kind(), ErrorKind::Conflict);
        put_if("b").unwrap();
        db.engine.compact().unwrap();
    }
    let batch = db.tenant.batch().require(&db.keyspace, "a", None);
    batch.put(&db.keyspace, "a", "again").commit().unwrap();
}

#[test]
fn a_transaction_reads_its_own_range_deletes_and_writes_them_first() {
    let db = db();
    db.fill("abcdef");
    let (kept, position) = db
        .tenant
        .transact(|tx| {
            tx.put(&db.keyspace, "c", "undone");
            tx.delete_range(&db.keyspace, "b".."e");
            assert_eq!(tx.get(&db.keyspace, "c")?, None);
            assert_eq!(tx.get(&db.keyspace, "b")?, None);
            tx.put(&db.keyspace, "d", "new");
            Ok((tx.get(&db.keyspace, "d")?, tx.get(&db.keyspace, "a")?))
        })
        .unwrap();
    assert_eq!(
        kept,
        (Some(Bytes::from_static(b"new")), Some(Bytes::from_static(b"a")))
    );
    assert!(position.is_some());
    assert_eq!(held(&db.keyspace), "adef");
    // One that reads what a range delete of another takes away conflicts.
    let mut tx = db.tenant.transaction();
    tx.get(&db.keyspace, "f").unwrap();
    tx.put(&db.keyspace, "g", "1");
    db.keyspace.delete_range("f"..).unwrap();
    assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Conflict);
    // A range delete alone is a write.
    let mut tx = db.tenant.transaction();
    tx.delete_range::<&str>(&db.keyspace, ..);
    assert!(tx.commit().unwrap().is_some());
    assert_eq!(held(&db.keyspace), "");
}

#[test]
fn ranges_without_a_key_and_bounds_over_the_limit_are_refused() {
    let db = db();
    let long = vec![7; KEY_BYTES_MAX + 1];
    let invalid = |outcome: Result<Position>| assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Invalid);
    invalid(db.keyspace.delete_range("b".."b"));
    invalid(db.keyspace.delete_range("c".."b"));
    invalid(db.keyspace.delete_range(long.clone()..));
    invalid(db.keyspace.delete_range(..long));
    let stranger = db.engine.create_tenant("u", TenantOptions::default()).unwrap();
    let foreign = stranger.keyspace("k").unwrap();
    invalid(db.tenant.batch().delete_range::<&str>(&foreign, ..).commit());
    let mut tx = db.tenant.transaction();
    tx.delete_range(&db.keyspace, "c".."b");
    assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Invalid);
    // The longest bounds there are.
    use std::ops::Bound::{Excluded, Included};
    let longest = vec![7; KEY_BYTES_MAX];
    let mut below = longest.clone();
    below[KEY_BYTES_MAX - 1] = 6;
    db.keyspace.put(&longest, "last").unwrap();
    db.keyspace.put(&below, "stays").unwrap();
    db.keyspace
        .delete_range((Excluded(below.clone()), Included(longest.clone())))
        .unwrap();
    db.everywhere(|db, place| {
        assert_eq!(db.keyspace.get(&longest).unwrap(), None, "{place}");
        assert!(db.keyspace.get(&below).unwrap().is_some(), "{place}");
    });
}

#[test]
fn a_keyspace_with_a_retention_dates_what_is_put_beside_a_range_delete() {
    let db = db();
    db.fill("abc");
    db.tenant
        .set_retention(&db.keyspace, Some(Retention::Days(30)))
        .unwrap();
    let batch = db.tenant.batch().put(&db.keyspace, "d", "undone");
    let batch = batch
        .delete_range(&db.keyspace, "b"..)
        .put(&db.keyspace, "e", "new");
    batch.commit().unwrap();
    db.everywhere(|db, place| {
        assert_eq!(held(&db.keyspace), "ae", "{place}");
        assert_eq!(
            db.keyspace.get("e").unwrap(),
            Some(Bytes::from_static(b"new")),
            "{place}"
        );
    });
}

#[test]
fn a_deleted_keyspace_takes_its_range_deletes_with_it() {
    let db = db();
    db.fill("abc");
    db.keyspace.delete_range("b"..).unwrap();
    db.engine.flush().unwrap();
    db.tenant.delete_keyspace("k").unwrap();
    let refused = db.keyspace.delete_range("a"..).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    db.engine.compact().unwrap();
    let again = db.tenant.keyspace("k").unwrap();
    assert_eq!(held(&again), "");
    again.put("b", "new").unwrap();
    assert_eq!(held(&again), "b");
}

#[test]
fn a_standby_and_a_restored_checkpoint_have_the_range_deletes() {
    let db = db();
    db.fill("abcdef");
    db.engine.flush().unwrap();
    db.keyspace.delete_range("a".."c").unwrap();
    db.engine.flush().unwrap();
    db.keyspace.delete_range("d".."e").unwrap();
    // Some of it in tables, some in the log that comes with the copy.
    let start = db.engine.checkpoint("/copy").unwrap().position.lsn;
    let (io, standby_fs, standby_keys) = (db.fs.io(20), SimFs::new(), MemoryKeys::new());
    let provider: Arc<dyn KeyProvider> = Arc::new(standby_keys.clone());
    let mut receiver = BaseCopyReceiver::start("/sb", standby_fs.io(21), provider).unwrap();
    receiver.keys(&db.engine.key_changes(0)).unwrap();
    for (name, len) in checkpoint_files("/copy", &io).unwrap() {
        let file = io.vfs.open(&Path::new("/copy").join(&name)).unwrap();
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        receiver.chunk(&name, 0, &bytes).unwrap();
    }
    receiver.finish().unwrap();
    let standby = open(&standby_fs, "/sb", &standby_keys, Role::Standby, 22);
    let copied = |engine: &Engine| held(&engine.tenant("t").unwrap().open_keyspace("k").unwrap());
    assert_eq!(copied(&standby), "cef");
    // And one that is shipped.
    let batch = db.tenant.batch().put(&db.keyspace, "e", "undone");
    let batch = batch
        .delete_range(&db.keyspace, "e".."f")
        .put(&db.keyspace, "d", "new");
    batch.commit().unwrap();
    let end = db.engine.status().durable;
    let mut cursor = db.engine.wal_cursor(start).unwrap();
    while cursor.position() < end {
        let at = cursor.position();
        let bytes = cursor.read(1 << 20, Duration::from_secs(1)).unwrap();
        standby.standby_append(at, &bytes).unwrap();
    }
    standby.standby_sync().unwrap();
    assert_eq!(copied(&standby), "cdf");
    standby.promote().unwrap();
    standby.compact().unwrap();
    assert_eq!(copied(&standby), "cdf");
    assert!(standby.verify().unwrap().is_healthy());
}

#[test]
fn a_million_keys_cost_one_operation_of_the_log() {
    let db = db();
    for n in 0..2000u32 {
        db.tenant
            .batch()
            .put(&db.keyspace, n.to_be_bytes(), [7; 100])
            .durability(Durability::Buffered)
            .commit()
            .unwrap();
    }
    db.engine.compact().unwrap();
    let before = db.engine.status().durable;
    db.keyspace.delete_range::<&[u8]>(..).unwrap();
    let written = db.engine.status().durable.0 - before.0;
    assert!(written < 300, "{written} bytes of log");
    assert_eq!(db.keyspace.iter().count(), 0);
    db.engine.compact().unwrap();
    let left = db.keyspace.approximate_size::<&[u8]>(..).unwrap();
    assert_eq!((left.entries, left.bytes), (0, 0));
}

#[test]
fn bounds_are_sealed_like_keys() {
    let db = db();
    let secret = "a-bound-that-nobody-may-see";
    db.keyspace.put("a", "1").unwrap();
    let end = format!("{secret}~");
    db.keyspace.delete_range(secret..&end).unwrap();
    db.engine.flush().unwrap();
    let inverted = db.keyspace.delete_range(&*end..secret).unwrap_err();
    assert!(!format!("{inverted:?} {inverted}").contains(secret));
    for (path, bytes) in db.fs.files() {
        let found = bytes
            .windows(secret.len())
            .any(|window| window == secret.as_bytes());
        assert!(!found, "{}", path.display());
    }
}
