//! What is read of what was written, and at which limits writing ends.

use strongroom::{BATCH_BYTES_MAX, ErrorKind, KEY_BYTES_MAX, NAME_BYTES_MAX, TenantOptions, VALUE_BYTES_MAX};

use crate::{all, keys, open};

#[test]
fn what_was_put_is_read_back_and_what_was_deleted_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), &keys());
    let acme = engine.create_tenant("acme", TenantOptions::default()).unwrap();
    let events = acme.keyspace("activity").unwrap();
    events.put("a", "1").unwrap();
    events.put("b", "2").unwrap();
    events.put("c", "").unwrap();
    events.put("a", "3").unwrap();
    events.delete("b").unwrap();
    assert_eq!(events.get("a").unwrap().unwrap(), "3");
    assert_eq!(events.get("b").unwrap(), None);
    assert_eq!(events.get("c").unwrap().unwrap(), "");
    assert_eq!(
        all(&events),
        [(b"a".to_vec(), b"3".to_vec()), (b"c".to_vec(), b"".to_vec())]
    );
}

#[test]
fn content_survives_flush_compaction_close_and_crash_alike() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys();
    let mut engine = open(dir.path(), &keys);
    let mut expected = std::collections::BTreeMap::new();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    tenant.keyspace("k").unwrap();
    for round in 0..6u32 {
        let tenant = engine.tenant("t").unwrap();
        let keyspace = tenant.open_keyspace("k").unwrap();
        for i in 0..400u32 {
            let key = format!("{:05}", (i * 7919 + round * 13) % 1000).into_bytes();
            if i % 5 == round % 5 {
                keyspace.delete(&key).unwrap();
                expected.remove(&key);
            } else {
                let value = vec![round as u8; 50 + (i as usize % 300)];
                keyspace.put(&key, &value).unwrap();
                expected.insert(key, value);
            }
        }
        match round % 3 {
            0 => engine.flush().unwrap(),
            1 => engine.compact().unwrap(),
            _ => {}
        }
        let want: Vec<_> = expected.clone().into_iter().collect();
        assert_eq!(all(&keyspace), want, "round {round}");
        let mut backwards: Vec<_> = keyspace
            .iter()
            .rev()
            .map(|kv| kv.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap())
            .collect();
        backwards.reverse();
        assert_eq!(backwards, want, "backwards, round {round}");
        if round % 2 == 0 {
            engine.close().unwrap();
        }
        drop((keyspace, tenant, engine));
        engine = open(dir.path(), &keys);
        assert_eq!(engine.recovery().clean, round % 2 == 0);
        let keyspace = engine.tenant("t").unwrap().open_keyspace("k").unwrap();
        assert_eq!(all(&keyspace), want, "reopened after round {round}");
    }
}

#[test]
fn both_ends_of_a_range_meet_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), &keys());
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let (k, other) = (tenant.keyspace("k").unwrap(), tenant.keyspace("l").unwrap());
    for i in 0..10u8 {
        k.put([b'a' + i], [i]).unwrap();
        other.put([b'a' + i], [100]).unwrap();
    }
    let mut range = k.range("b".."i");
    let mut seen = Vec::new();
    while let Some(front) = range.next() {
        seen.push(front.unwrap().1[0]);
        if let Some(back) = range.next_back() {
            seen.push(back.unwrap().1[0]);
        }
    }
    assert_eq!(seen, [1, 7, 2, 6, 3, 5, 4]);
    assert!(range.next().is_none() && range.next_back().is_none());
    let mut range = k.range("b".."i");
    assert_eq!(range.next_ref().unwrap().unwrap(), (&b"b"[..], &[1][..]));
    assert_eq!(range.next().unwrap().unwrap().1[0], 2);
    assert_eq!(range.next_back_ref().unwrap().unwrap(), (&b"h"[..], &[7][..]));
    assert_eq!(range.next_back().unwrap().unwrap().1[0], 6);
    assert_eq!(
        range
            .by_ref()
            .map(|entry| entry.unwrap().1[0])
            .collect::<Vec<_>>(),
        [3, 4, 5]
    );
    assert!(range.next_ref().is_none() && range.next_back_ref().is_none());
    assert_eq!(k.range("d"..="f").count(), 3);
    assert_eq!(k.range("f".."d").count(), 0);
    assert_eq!(k.prefix("c").count(), 1);
    assert_eq!(k.range("i"..).rev().take(1).count(), 1);
}

#[test]
fn a_snapshot_reads_the_same_whatever_happens_after() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), &keys());
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    for i in 0..50u8 {
        keyspace.put([i], [1]).unwrap();
    }
    let snapshot = tenant.snapshot();
    for i in 0..50u8 {
        if i % 2 == 0 {
            keyspace.put([i], [2]).unwrap()
        } else {
            keyspace.delete([i]).unwrap()
        };
    }
    engine.compact().unwrap();
    assert_eq!(
        snapshot
            .range::<&[u8]>(&keyspace, ..)
            .map(|kv| kv.unwrap().1[0])
            .sum::<u8>(),
        50
    );
    assert_eq!(snapshot.get(&keyspace, [3]).unwrap().unwrap()[0], 1);
    assert_eq!(keyspace.iter().count(), 25);
    drop(snapshot);
    engine.compact().unwrap();
    assert_eq!(keyspace.iter().count(), 25);
}

#[test]
fn a_batch_applies_whole_across_keyspaces_and_its_last_word_on_a_key_counts() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), &keys());
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let (a, b) = (tenant.keyspace("a").unwrap(), tenant.keyspace("b").unwrap());
    tenant
        .batch()
        .put(&a, "k", "1")
        .put(&b, "k", "2")
        .delete(&a, "k")
        .put(&a, "k", "3")
        .commit()
        .unwrap();
    assert_eq!(
        (a.get("k").unwrap().unwrap(), b.get("k").unwrap().unwrap()),
        ("3".into(), "2".into())
    );
    let other = engine
        .create_tenant("o", TenantOptions::default())
        .unwrap()
        .keyspace("a")
        .unwrap();
    let foreign = tenant.batch().put(&a, "x", "1").put(&other, "x", "1").commit();
    assert_eq!(foreign.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(a.get("x").unwrap(), None, "nothing of a refused batch is applied");
    assert_eq!(tenant.batch().commit().unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn limits_hold_at_their_edges_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), &keys());
    let tenant = engine
        .create_tenant(&"n".repeat(NAME_BYTES_MAX), TenantOptions::default())
        .unwrap();
    let keyspace = tenant.keyspace(&"k".repeat(NAME_BYTES_MAX)).unwrap();
    let invalid = |r: strongroom::Result<_>| r.map(|_: strongroom::Position| ()).unwrap_err().kind();
    for bad in [String::new(), "n".repeat(NAME_BYTES_MAX + 1)] {
        let refused = engine
            .create_tenant(&bad, TenantOptions::default())
            .err()
            .unwrap();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        assert_eq!(tenant.keyspace(&bad).err().unwrap().kind(), ErrorKind::Invalid);
    }
    let key = vec![7; KEY_BYTES_MAX];
    keyspace.put(&key, "v").unwrap();
    assert_eq!(keyspace.get(&key).unwrap().unwrap(), "v");
    assert_eq!(
        invalid(keyspace.put(vec![7; KEY_BYTES_MAX + 1], "v")),
        ErrorKind::Invalid
    );
    assert_eq!(invalid(keyspace.put("", "v")), ErrorKind::Invalid);
    assert_eq!(keyspace.get("").unwrap_err().kind(), ErrorKind::Invalid);
    let value = vec![9; VALUE_BYTES_MAX];
    keyspace.put("big", &value).unwrap();
    assert_eq!(
        invalid(keyspace.put("big", vec![9; VALUE_BYTES_MAX + 1])),
        ErrorKind::Invalid
    );
    let fits = BATCH_BYTES_MAX - 2 * (3 + 16) - VALUE_BYTES_MAX;
    let batch = |rest: usize| {
        tenant
            .batch()
            .put(&keyspace, "b/1", &value)
            .put(&keyspace, "b/2", vec![1; rest])
    };
    assert!(fits <= VALUE_BYTES_MAX);
    batch(fits).commit().unwrap();
    assert_eq!(invalid(batch(fits + 1).commit()), ErrorKind::Invalid);
    engine.flush().unwrap();
    assert!(keyspace.get("big").unwrap().unwrap() == value);
    assert_eq!(keyspace.get("b/2").unwrap().unwrap().len(), fits);
}
