//! An engine whose entries have lost their versions: what users do with it goes on as before.

use std::sync::Arc;

use crate::error::Result;
use crate::io::sim::{CrashMode, SimFs};
use crate::keys::MemoryKeys;
use crate::read::cursor::Cursor;
use crate::types::{KeyspaceId, SeqNo, TenantId};
use crate::{Engine, ErrorKind, Keyspace, Options, Retention, Tenant, TenantOptions};

struct Db {
    keys: Arc<MemoryKeys>,
    engine: Engine,
    tenant: Tenant,
    keyspace: Keyspace,
}

fn open(fs: &SimFs, keys: &Arc<MemoryKeys>, seed: u64) -> Engine {
    let builder = Engine::builder("/db").shared_keys(keys.clone());
    builder.options(Options::tiny()).io(fs.io(seed)).open().unwrap()
}

fn opened(fs: &SimFs, keys: Arc<MemoryKeys>, seed: u64) -> Db {
    let engine = open(fs, &keys, seed);
    let tenant = engine.tenant("t").unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    Db {
        keys,
        engine,
        tenant,
        keyspace,
    }
}

/// Keys a to h with the value 1, without their versions.
fn settled(fs: &SimFs, seed: u64) -> Db {
    let keys = Arc::new(MemoryKeys::new());
    let engine = open(fs, &keys, seed);
    engine.create_tenant("t", TenantOptions::default()).unwrap();
    engine.close().unwrap();
    let db = opened(fs, keys, seed + 1);
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        db.keyspace.put(key, "1").unwrap();
    }
    db.engine.compact().unwrap();
    assert_eq!(db.seqnos(db.tenant.id(), db.keyspace.id()), [0; 8]);
    db
}

impl Db {
    /// The versions of what a keyspace has in tables.
    fn seqnos(&self, tenant: TenantId, keyspace: KeyspaceId) -> Vec<u64> {
        let version = self.engine.inner().versions.current();
        let mut found = Vec::new();
        for (_, table) in version.tables() {
            let mut cursor = table.sweep(tenant).unwrap();
            cursor.seek_first().unwrap();
            while let Some(entry) = cursor.entry() {
                if entry.key.starts_with(&keyspace.0.to_be_bytes()) {
                    found.push(entry.seqno.0);
                }
                cursor.next().unwrap();
            }
        }
        found
    }

    /// All entries, as `key=value`, which gets and ranges both ways agree on.
    fn all(&self) -> String {
        let pair = |entry: Result<(bytes::Bytes, bytes::Bytes)>| {
            let (key, value) = entry.unwrap();
            assert_eq!(self.keyspace.get(&key).unwrap().as_ref(), Some(&value));
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            format!("{}={}", text(&key), text(&value))
        };
        let forwards: Vec<String> = self.keyspace.iter().map(pair).collect();
        let mut backwards: Vec<String> = self.keyspace.iter().rev().map(pair).collect();
        backwards.reverse();
        assert_eq!(forwards, backwards);
        forwards.join(" ")
    }
}

fn conflict<T>(outcome: Result<T>) {
    assert_eq!(outcome.map(drop).unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn the_catalog_keeps_its_versions_so_that_deletions_and_retentions_count_after_opening_anew() {
    let fs = SimFs::new();
    let db = settled(&fs, 1);
    let gone = db.tenant.keyspace("gone").unwrap();
    gone.put("a", "1").unwrap();
    db.engine.compact().unwrap();
    assert_eq!(db.seqnos(db.tenant.id(), gone.id()), [0]);
    db.tenant.set_retention(&db.keyspace, Retention::Days(3)).unwrap();
    db.tenant.delete_keyspace("gone").unwrap();
    // Both in tables, and nothing in the log.
    db.engine.compact().unwrap();
    assert_eq!(db.seqnos(db.tenant.id(), gone.id()), [0; 0], "it was deleted");
    for tenant in [TenantId::SYSTEM, db.tenant.id()] {
        let catalog = db.seqnos(tenant, KeyspaceId::CATALOG);
        assert!(!catalog.is_empty() && !catalog.contains(&0), "{catalog:?}");
    }
    let (id, changed) = (gone.id(), db.engine.inner().settings.newest());
    let marked = |db: &Db| crate::catalog::dropped_at(&db.engine.inner().view(), db.tenant.id(), id).unwrap();
    let dropped = marked(&db);
    assert!(changed > SeqNo::ZERO && dropped > Some(changed));
    db.engine.close().unwrap();
    let db = opened(&fs, db.keys.clone(), 9);
    assert_eq!(
        (db.engine.inner().settings.newest(), marked(&db)),
        (changed, dropped)
    );
    // Of the keyspace that has a retention now, too.
    assert_eq!(db.seqnos(db.tenant.id(), db.keyspace.id()), [0; 8]);
    assert_eq!(db.all(), "a=1 b=1 c=1 d=1 e=1 f=1 g=1 h=1");
    assert_eq!(db.tenant.keyspaces().unwrap(), ["k"]);
}

#[test]
fn a_transaction_conflicts_with_what_came_after_it_began_wherever_compaction_has_taken_that() {
    let db = settled(&SimFs::new(), 21);
    let mut undisturbed = db.tenant.transaction();
    assert!(undisturbed.get(&db.keyspace, "a").unwrap().is_some());
    let mut changed = db.tenant.transaction();
    assert!(changed.get(&db.keyspace, "b").unwrap().is_some());
    let mut created = db.tenant.transaction();
    assert_eq!(created.get(&db.keyspace, "new").unwrap(), None);
    let mut deleted = db.tenant.transaction();
    assert!(deleted.get(&db.keyspace, "c").unwrap().is_some());
    db.keyspace.put("b", "2").unwrap();
    db.keyspace.put("new", "2").unwrap();
    db.keyspace.delete_range("c".."d").unwrap();
    db.engine.compact().unwrap();
    for transaction in [&mut undisturbed, &mut changed, &mut created, &mut deleted] {
        transaction.put(&db.keyspace, "z", "3");
    }
    conflict(changed.commit());
    conflict(created.commit());
    conflict(deleted.commit());
    undisturbed.commit().unwrap();
    db.engine.compact().unwrap();
    assert_eq!(db.seqnos(db.tenant.id(), db.keyspace.id()), [0; 9]);
    // One that begins after all that.
    let mut later = db.tenant.transaction();
    assert!(later.get(&db.keyspace, "b").unwrap().is_some());
    later.put(&db.keyspace, "z", "4");
    later.commit().unwrap();
    assert_eq!(db.all(), "a=1 b=2 d=1 e=1 f=1 g=1 h=1 new=2 z=4");
}

#[test]
fn a_condition_compares_the_value_of_a_zeroed_entry_and_what_replaced_it() {
    let db = settled(&SimFs::new(), 31);
    let set_if = |expected: &str, value: &str| {
        let batch = db.tenant.batch();
        let batch = batch.require(&db.keyspace, "a", Some(expected.as_bytes()));
        batch.put(&db.keyspace, "a", value).commit()
    };
    conflict(set_if("2", "wrong"));
    set_if("1", "2").unwrap();
    conflict(set_if("1", "wrong"));
    db.engine.compact().unwrap();
    conflict(set_if("1", "wrong"));
    set_if("2", "3").unwrap();
    db.keyspace.delete("a").unwrap();
    let absent = db.tenant.batch().require(&db.keyspace, "a", None);
    absent.put(&db.keyspace, "a", "4").commit().unwrap();
    assert_eq!(db.keyspace.get("a").unwrap().as_deref(), Some(&b"4"[..]));
}

#[test]
fn what_is_replayed_over_zeroed_entries_hides_them_and_new_versions_are_never_used_again() {
    let fs = SimFs::new();
    let db = settled(&fs, 41);
    let snapshot = db.tenant.snapshot();
    db.keyspace.put("a", "2").unwrap();
    db.keyspace.delete("b").unwrap();
    db.keyspace.delete_range("c".."e").unwrap();
    let newest = db.keyspace.put("d", "2").unwrap().seqno;
    let now = "a=2 d=2 e=1 f=1 g=1 h=1";
    assert_eq!(db.all(), now);
    let before: Vec<_> = snapshot
        .range::<&str>(&db.keyspace, ..)
        .map(|e| e.unwrap().1)
        .collect();
    assert_eq!(before, ["1"; 8]);
    for (n, crash) in [CrashMode::DropAll, CrashMode::KeepAll].into_iter().enumerate() {
        let after = fs.crashed_image(crash, 7);
        let seed = 50 + 10 * n as u64;
        let db = opened(&after, db.keys.clone(), seed);
        assert_eq!(db.all(), now);
        db.engine.flush().unwrap();
        assert_eq!(db.all(), now);
        db.engine.compact().unwrap();
        assert_eq!(db.all(), now);
        assert_eq!(db.seqnos(db.tenant.id(), db.keyspace.id()), [0; 6]);
        db.engine.close().unwrap();
        // Nothing in tables or log tells it but the manifest.
        let db = opened(&after, db.keys.clone(), seed + 1);
        assert!(db.keyspace.put("a", "3").unwrap().seqno > newest);
    }
}
