//! Large values, which stand apart from the tree: everything reads as if they did not.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod machine;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use machine::Machine;
use strongroom::keys::{EscrowSecret, KeyProvider, MemoryKeys};
use strongroom::*;

fn fresh() -> Machine {
    Machine::with(|options| {
        options.separate_bytes = 1000;
        options.expiry_grace = Duration::ZERO;
        options.compression = Options::tiny().compression;
    })
}

impl Machine {
    fn value_files(&self) -> Vec<PathBuf> {
        let files = self.fs.files().into_keys();
        files
            .filter(|path| path.extension().is_some_and(|ext| ext == "values"))
            .collect()
    }
}

/// Every second one is large.
fn value(key: u32) -> Vec<u8> {
    let len = if key.is_multiple_of(2) {
        3000 + key as usize
    } else {
        20
    };
    (0..len).map(|at| (at as u32 * 31 + key * 7) as u8).collect()
}

fn fill(keyspace: &Keyspace, keys: std::ops::Range<u32>) {
    for key in keys {
        keyspace.put(key.to_be_bytes(), value(key)).unwrap();
    }
}

fn check(keyspace: &Keyspace, keys: std::ops::Range<u32>) {
    for key in keys.clone() {
        assert_eq!(
            keyspace.get(key.to_be_bytes()).unwrap().unwrap(),
            value(key),
            "{key}"
        );
    }
    let all: Vec<_> = keyspace.iter().map(Result::unwrap).collect();
    let expected: Vec<_> = keys.map(|key| (key.to_be_bytes(), value(key))).collect();
    let same = |(found, expected): (&(_, _), &([u8; 4], Vec<u8>))| {
        let (key, value): &(bytes::Bytes, bytes::Bytes) = found;
        key[..] == expected.0 && value[..] == expected.1
    };
    assert_eq!(all.len(), expected.len());
    assert!(all.iter().zip(&expected).all(same), "forwards");
    let back: Vec<_> = keyspace.iter().rev().map(Result::unwrap).collect();
    assert!(back.iter().zip(expected.iter().rev()).all(same), "backwards");
    let mut lent = keyspace.iter();
    for (at, (key, value)) in expected.iter().enumerate() {
        assert_eq!(
            lent.next_ref().unwrap().unwrap(),
            (&key[..], &value[..]),
            "lent {at}"
        );
    }
    assert!(lent.next_ref().is_none());
    let mut lent = keyspace.iter();
    for (key, value) in expected.iter().rev() {
        assert_eq!(
            lent.next_back_ref().unwrap().unwrap(),
            (&key[..], &value[..]),
            "lent, backwards"
        );
    }
}

#[test]
fn large_values_read_the_same_from_memory_tables_compacted_reopened_and_without_a_cache() {
    let mut machine = fresh();
    let db = machine.open();
    fill(&db.keyspace, 0..60);
    check(&db.keyspace, 0..60);
    db.engine.flush().unwrap();
    assert!(!machine.value_files().is_empty());
    check(&db.keyspace, 0..60);
    db.engine.compact().unwrap();
    check(&db.keyspace, 0..60);
    let keys: Vec<[u8; 4]> = (0..60u32).rev().map(u32::to_be_bytes).collect();
    let many = db.keyspace.multi_get(&keys).unwrap();
    assert!(
        many.iter()
            .zip((0..60).rev())
            .all(|(found, key)| found.as_deref() == Some(&value(key)[..]))
    );
    assert!(db.engine.verify().unwrap().is_healthy());
    assert_eq!(db.engine.verify().unwrap().values, 30);
    db.engine.close().unwrap();
    machine.options.cache_bytes = 0;
    let db = machine.open();
    check(&db.keyspace, 0..60);
    drop(db);
    machine.options.separate_bytes = 0;
    let db = machine.open();
    check(&db.keyspace, 0..60);
    db.engine.compact().unwrap();
    check(&db.keyspace, 0..60);
    assert!(machine.value_files().is_empty(), "taken back into tables");
}

#[test]
fn conditions_transactions_and_snapshots_see_large_values() {
    let machine = fresh();
    let db = machine.open();
    fill(&db.keyspace, 0..4);
    db.engine.compact().unwrap();
    let snapshot = db.tenant.snapshot();
    let key = 2u32.to_be_bytes();
    let batch = || db.tenant.batch().put(&db.keyspace, key, "new");
    let conflict = batch().require(&db.keyspace, key, Some(&value(0)[..])).commit();
    assert_eq!(conflict.unwrap_err().kind(), ErrorKind::Conflict);
    batch()
        .require(&db.keyspace, key, Some(&value(2)[..]))
        .commit()
        .unwrap();
    db.engine.compact().unwrap();
    assert_eq!(db.keyspace.get(key).unwrap().unwrap(), "new");
    assert_eq!(snapshot.get(&db.keyspace, key).unwrap().unwrap(), value(2));
    let sum = db.tenant.transact(|tx| {
        let read = tx
            .get(&db.keyspace, 0u32.to_be_bytes())?
            .map_or(0, |value| value.len());
        tx.put(&db.keyspace, "sum", read.to_string());
        Ok(())
    });
    sum.unwrap();
    assert_eq!(db.keyspace.get("sum").unwrap().unwrap(), "3000");
    drop(snapshot);
    db.engine.compact().unwrap();
    assert_eq!(db.engine.stats().values.values, 1);
}

#[test]
fn what_has_a_deadline_stays_in_the_tree() {
    let machine = fresh();
    let db = machine.open();
    let large = vec![7; 2000];
    let ttl = PutOptions::new().ttl(Duration::from_secs(60));
    db.keyspace.put_with("expires", &large, ttl).unwrap();
    let dated = db.tenant.keyspace("dated").unwrap();
    dated.put("before", &large).unwrap();
    db.tenant.set_retention(&dated, Retention::Days(1)).unwrap();
    dated.put("after", &large).unwrap();
    db.engine.compact().unwrap();
    assert!(machine.value_files().is_empty());
    db.tenant.set_retention(&dated, None).unwrap();
    db.engine.compact().unwrap();
    assert!(machine.value_files().is_empty(), "a retention leaves its mark");
    db.keyspace.put("stays", &large).unwrap();
    db.engine.compact().unwrap();
    assert_eq!(db.engine.stats().values.values, 1);
}

#[test]
fn a_later_retention_takes_values_back_or_out_within_its_deadline() {
    let machine = fresh();
    let db = machine.open();
    let old = db.tenant.keyspace("old").unwrap();
    let other = db.tenant.keyspace("other").unwrap();
    for key in 0..4u32 {
        old.put(key.to_be_bytes(), [1; 2000]).unwrap();
    }
    for key in 0..40u32 {
        other.put(key.to_be_bytes(), [2; 2000]).unwrap();
    }
    db.engine.compact().unwrap();
    assert_eq!(db.engine.stats().values.values, 44);
    db.tenant.set_retention(&old, Retention::Days(2)).unwrap();
    machine.clock.advance(Duration::from_secs(24 * 3600));
    while db.engine.step().unwrap() {}
    assert_eq!(old.iter().count(), 4);
    machine.clock.advance(Duration::from_secs(24 * 3600 + 2));
    assert_eq!(old.iter().count(), 0);
    while db.engine.step().unwrap() {}
    assert_eq!(
        db.engine.stats().values.values,
        40,
        "nothing that has ended is left"
    );
    assert_eq!(db.engine.status().first_expiry_ms, None);
    assert_eq!(other.iter().count(), 40);
}

#[test]
fn overwritten_values_leave_the_disk_as_their_files_fill_with_garbage() {
    let machine = fresh();
    let db = machine.open();
    for round in 0..30u32 {
        for key in 0..20u32 {
            db.keyspace
                .put(key.to_be_bytes(), vec![round as u8; 4000])
                .unwrap();
        }
        while db.engine.step().unwrap() {}
    }
    let stats = db.engine.stats();
    assert!(stats.values.bytes < 20 * 4000 * 4, "{:?}", stats.values);
    assert!(
        stats.values.garbage_bytes * 2 <= stats.values.bytes,
        "{:?}",
        stats.values
    );
    db.engine.compact().unwrap();
    let stats = db.engine.stats();
    assert_eq!((stats.values.values, stats.values.garbage_bytes), (20, 0));
}

#[test]
fn usage_and_quota_count_what_stands_apart() {
    let mut machine = fresh();
    machine.options.compression = Compression::None;
    let db = machine.open();
    fill(&db.keyspace, 0..40);
    db.engine.compact().unwrap();
    let usage = db.tenant.usage().unwrap();
    assert!(
        usage.value_bytes > 20 * 3000 && usage.table_bytes < 20_000,
        "{usage:?}"
    );
    let size = db.keyspace.approximate_size::<&[u8]>(..).unwrap();
    assert!(
        size.bytes >= usage.value_bytes && size.bytes < usage.bytes(),
        "{size:?} {usage:?}"
    );
    let half = db
        .keyspace
        .approximate_size(0u32.to_be_bytes()..20u32.to_be_bytes())
        .unwrap();
    assert!(
        half.bytes > usage.value_bytes / 3 && half.bytes < usage.value_bytes,
        "{half:?}"
    );
    db.tenant.set_quota(usage.bytes()).unwrap();
    let refused = db.keyspace.put("more", "x").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded);
    db.engine.close().unwrap();
    let db = machine.open();
    assert_eq!(db.tenant.usage().unwrap().value_bytes, usage.value_bytes);
    let refused = db.keyspace.put("more", "x").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded);
    for key in 0..40u32 {
        db.keyspace.delete(key.to_be_bytes()).unwrap();
    }
    db.engine.compact().unwrap();
    assert_eq!(db.tenant.usage().unwrap().value_bytes, 0);
    db.keyspace.put("more", "x").unwrap();
}

#[test]
fn a_checkpoint_carries_the_value_files_and_restores() {
    let machine = fresh();
    let db = machine.open();
    fill(&db.keyspace, 0..40);
    db.engine.flush().unwrap();
    fill(&db.keyspace, 40..50);
    db.engine.checkpoint("/copy").unwrap();
    let secret = EscrowSecret::generate().unwrap();
    let escrow = db.engine.escrow(&secret.recipient()).unwrap();
    // What goes here stays there.
    db.keyspace.delete_range([0u8]..[255u8]).unwrap();
    db.engine.compact().unwrap();
    assert!(machine.value_files().iter().all(|path| path.starts_with("/copy")));
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
    let restored = Engine::builder("/restored")
        .shared_keys(keys)
        .options(machine.options.clone());
    let restored = restored.io(machine.io()).open().unwrap();
    let keyspace = restored.tenant("t").unwrap().open_keyspace("k").unwrap();
    check(&keyspace, 0..50);
    assert!(restored.verify().unwrap().is_healthy());
}

#[test]
fn a_deleted_tenants_values_are_gone_after_compaction_and_are_never_read() {
    let mut machine = fresh();
    machine.options.compression = Compression::None;
    let db = machine.open();
    fill(&db.keyspace, 0..20);
    let gone = db.engine.create_tenant("gone", TenantOptions::default()).unwrap();
    fill(&gone.keyspace("k").unwrap(), 0..20);
    db.engine.compact().unwrap();
    let mut range = gone.keyspace("k").unwrap().iter();
    range.next().unwrap().unwrap();
    db.engine.delete_tenant("gone").unwrap();
    assert_eq!(range.next().unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    assert!(db.engine.stats().dead_bytes > 20 * 1000);
    drop(range);
    while db.engine.step().unwrap() {}
    db.engine.compact().unwrap();
    assert_eq!(
        (db.engine.stats().values.values, db.engine.stats().dead_bytes),
        (10, 0)
    );
    check(&db.keyspace, 0..20);
}

#[test]
fn damage_to_a_value_is_named_and_hides_no_other() {
    let mut machine = fresh();
    machine.options.cache_bytes = 0;
    machine.options.compression = Compression::None;
    let db = machine.open();
    fill(&db.keyspace, 0..20);
    db.engine.compact().unwrap();
    let path = machine.value_files().pop().unwrap();
    // Past the header, in the first value.
    machine.fs.corrupt(&path, |bytes| bytes[1000] ^= 1);
    let error = db.keyspace.get(0u32.to_be_bytes()).unwrap_err();
    assert_eq!(
        (error.kind(), error.path(), error.offset()),
        (ErrorKind::Corruption, Some(&*path), Some(128))
    );
    for key in 1..20 {
        assert_eq!(
            db.keyspace.get(u32::to_be_bytes(key)).unwrap().unwrap(),
            value(key)
        );
    }
    let mut range = db.keyspace.iter();
    assert_eq!(range.next().unwrap().unwrap_err().kind(), ErrorKind::Corruption);
    assert!(range.next().is_none());
    let verified = db.engine.verify().unwrap();
    assert_eq!((verified.damages_total, verified.values), (1, 9), "{verified:?}");
    assert_eq!(verified.damages[0].file.as_deref(), Some(&*path));
    assert_eq!(db.engine.compact().unwrap_err().kind(), ErrorKind::Corruption);
    drop((range, db));
    machine.fs.lose(&path);
    let error = machine.builder().open().err().unwrap();
    assert_eq!(
        (error.kind(), error.path()),
        (ErrorKind::Corruption, Some(&*path))
    );
}
