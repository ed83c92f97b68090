//! The engine through its public face: what a user sees, on real files.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests, on real files"
)]

use std::path::Path;
use std::sync::Arc;

use strongroom::io::Io;
use strongroom::keys::{EscrowSecret, KeyFile, KeyProvider, MemoryKeys};
use strongroom::{
    BATCH_BYTES_MAX, BaseCopyReceiver, Durability, Engine, ErrorKind, KEY_BYTES_MAX, NAME_BYTES_MAX, Options,
    Role, TenantOptions, VALUE_BYTES_MAX, checkpoint_files, restore,
};

fn keys() -> Arc<dyn KeyProvider> {
    Arc::new(MemoryKeys::new())
}

fn open(dir: &Path, keys: &Arc<dyn KeyProvider>) -> Engine {
    Engine::builder(dir)
        .shared_keys(keys.clone())
        .options(Options::tiny())
        .open()
        .unwrap()
}

fn all(keyspace: &strongroom::Keyspace) -> Vec<(Vec<u8>, Vec<u8>)> {
    keyspace
        .iter()
        .map(|kv| kv.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap())
        .collect()
}

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

#[test]
fn a_deleted_tenant_is_unreadable_at_once_and_its_space_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys();
    let engine = open(dir.path(), &keys);
    let (gone, stays) = (
        engine.create_tenant("gone", TenantOptions::default()).unwrap(),
        engine.create_tenant("stays", TenantOptions::default()).unwrap(),
    );
    let (g, s) = (gone.keyspace("k").unwrap(), stays.keyspace("k").unwrap());
    for i in 0..500u32 {
        g.put(i.to_be_bytes(), [1; 200]).unwrap();
        if i % 10 == 0 {
            s.put(i.to_be_bytes(), [2; 200]).unwrap();
        }
    }
    engine.compact().unwrap();
    let before = engine.status().table_bytes;
    let mut open_range = g.iter();
    assert!(open_range.next().unwrap().is_ok());
    let deletion = engine.delete_tenant("gone").unwrap();
    assert_eq!(deletion.tenant, gone.id());
    assert_eq!(g.get(5u32.to_be_bytes()).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(g.put("x", "y").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        open_range.next().unwrap().unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(engine.tenant("gone").err().unwrap().kind(), ErrorKind::NotFound);
    engine.compact().unwrap();
    assert!(
        engine.status().table_bytes < before / 4,
        "{} of {before}",
        engine.status().table_bytes
    );
    assert_eq!(s.iter().count(), 50);
    let again = engine.create_tenant("gone", TenantOptions::default()).unwrap();
    assert_ne!(again.id(), gone.id());
    assert_eq!(again.keyspace("k").unwrap().iter().count(), 0);
    drop((engine, gone, stays, g, s, again, open_range));
    let engine = open(dir.path(), &keys);
    assert_eq!(engine.tenants().len(), 2);
    assert_eq!(
        engine
            .tenant("stays")
            .unwrap()
            .open_keyspace("k")
            .unwrap()
            .iter()
            .count(),
        50
    );
}

#[test]
fn a_deleted_keyspace_is_gone_and_its_name_starts_empty_again() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys();
    let engine = open(dir.path(), &keys);
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let old = tenant.keyspace("k").unwrap();
    for i in 0..300u32 {
        old.put(i.to_be_bytes(), [1; 200]).unwrap();
    }
    engine.compact().unwrap();
    let full = engine.status().table_bytes;
    tenant.delete_keyspace("k").unwrap();
    assert_eq!(old.put("a", "b").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(old.get("a").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        tenant.open_keyspace("k").err().unwrap().kind(),
        ErrorKind::NotFound
    );
    let new = tenant.keyspace("k").unwrap();
    assert_eq!(new.iter().count(), 0);
    new.put("a", "b").unwrap();
    assert_eq!(tenant.keyspaces().unwrap(), ["k"]);
    engine.compact().unwrap();
    assert!(engine.status().table_bytes < full / 4);
    drop((engine, tenant, old, new));
    let engine = open(dir.path(), &keys);
    assert_eq!(
        engine
            .tenant("t")
            .unwrap()
            .open_keyspace("k")
            .unwrap()
            .iter()
            .count(),
        1
    );
}

#[test]
fn a_second_opener_gets_locked_and_a_wrong_key_gets_key_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, key) = (dir.path().join("data"), dir.path().join("k"));
    let engine = Engine::builder(&data)
        .keys(KeyFile::create(&key).unwrap())
        .open()
        .unwrap();
    let second = Engine::builder(&data).keys(KeyFile::open(&key).unwrap()).open();
    assert_eq!(second.err().unwrap().kind(), ErrorKind::Locked);
    engine.close().unwrap();
    assert_eq!(engine.tenant("x").err().unwrap().kind(), ErrorKind::NotFound);
    let wrong = KeyFile::create(dir.path().join("wrong")).unwrap();
    let refused = Engine::builder(&data).keys(wrong).open().err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::KeyRefused, "{refused:?}");
    Engine::builder(&data)
        .keys(KeyFile::open(&key).unwrap())
        .open()
        .unwrap();
}

#[test]
fn a_missing_database_is_not_created_when_not_wanted_and_stray_files_are_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Engine::builder(dir.path().join("no"))
        .shared_keys(keys())
        .create_if_missing(false)
        .open();
    assert_eq!(missing.err().unwrap().kind(), ErrorKind::NotFound);
    std::fs::write(dir.path().join("photo.jpg"), "precious").unwrap();
    let stray = Engine::builder(dir.path())
        .shared_keys(keys())
        .open()
        .err()
        .unwrap();
    assert_eq!(stray.kind(), ErrorKind::Corruption);
    assert_eq!(std::fs::read(dir.path().join("photo.jpg")).unwrap(), b"precious");
}

#[test]
fn a_checkpoint_with_its_escrow_restores_to_a_fenced_database_with_a_new_identity() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys();
    let engine = open(&dir.path().join("data"), &keys);
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    for i in 0..300u32 {
        keyspace.put(i.to_be_bytes(), [3; 100]).unwrap();
    }
    engine.flush().unwrap();
    keyspace.put("tail", "in the log only").unwrap();
    let checkpoint = engine.checkpoint(dir.path().join("copy")).unwrap();
    assert!(checkpoint.files > 2 && checkpoint.bytes > 30_000);
    keyspace.put("later", "not in the copy").unwrap();
    let secret = EscrowSecret::generate().unwrap();
    let escrow = engine.escrow(&secret.recipient()).unwrap();

    let to = dir.path().join("restored");
    let other = EscrowSecret::generate().unwrap();
    let refused = restore(
        dir.path().join("copy"),
        &escrow,
        &other,
        &to,
        keys.clone(),
        &Io::os(),
    );
    assert_eq!(refused.err().unwrap().kind(), ErrorKind::KeyRefused);
    let fresh_keys: Arc<dyn KeyProvider> = Arc::new(MemoryKeys::new());
    restore(
        dir.path().join("copy"),
        &escrow,
        &secret,
        &to,
        fresh_keys.clone(),
        &Io::os(),
    )
    .unwrap();
    let restored = open(&to, &fresh_keys);
    assert_ne!(restored.status().database_id, engine.status().database_id);
    assert!(restored.status().epoch > engine.status().epoch);
    assert!(restored.status().awaiting_acceptance);
    let copy = restored.tenant("t").unwrap().open_keyspace("k").unwrap();
    assert_eq!(copy.iter().count(), 301);
    assert_eq!(copy.get("later").unwrap(), None);
    assert_eq!(copy.put("x", "y").unwrap_err().kind(), ErrorKind::ReadOnly);
    restored.accept_restored().unwrap();
    copy.put("x", "y").unwrap();
    drop((restored, copy));
    let restored = open(&to, &fresh_keys);
    assert!(!restored.status().awaiting_acceptance);
    assert_eq!(keyspace.iter().count(), 302, "the original is untouched");
}

/// Moves what the primary's log has to the standby, keys first, as replication does.
fn ship(primary: &Engine, standby: &Engine) {
    let at = standby.standby_progress().unwrap().received;
    let mut cursor = primary.wal_cursor(at).unwrap();
    loop {
        let from = cursor.position();
        let bytes = cursor.read(777, std::time::Duration::ZERO).unwrap();
        if bytes.is_empty() {
            break;
        }
        if primary.keystore_version() != standby.keystore_version() {
            standby
                .apply_key_changes(&primary.key_changes(standby.keystore_version()))
                .unwrap();
        }
        standby.standby_append(from, &bytes).unwrap();
    }
    let progress = standby.standby_sync().unwrap();
    primary.confirm_replicated(primary.status().epoch, progress.durable);
}

fn standby_of(primary: &Engine, dir: &Path, keys: &Arc<dyn KeyProvider>) -> Engine {
    let copy = dir.join("base");
    primary.checkpoint(&copy).unwrap();
    let mut receiver = BaseCopyReceiver::start(dir.join("standby"), Io::os(), keys.clone()).unwrap();
    receiver.keys(&primary.key_changes(0)).unwrap();
    for (name, _) in checkpoint_files(&copy, &Io::os()).unwrap() {
        receiver
            .chunk(&name, 0, &std::fs::read(copy.join(&name)).unwrap())
            .unwrap();
    }
    let refused = Engine::builder(dir.join("standby"))
        .shared_keys(keys.clone())
        .role(Role::Standby)
        .open();
    assert_eq!(
        refused.err().unwrap().kind(),
        ErrorKind::Invalid,
        "an unfinished base copy does not open"
    );
    receiver.finish().unwrap();
    reopen_standby(dir, keys)
}

fn reopen_standby(dir: &Path, keys: &Arc<dyn KeyProvider>) -> Engine {
    Engine::builder(dir.join("standby"))
        .shared_keys(keys.clone())
        .options(Options::tiny())
        .role(Role::Standby)
        .open()
        .unwrap()
}

#[test]
fn a_standby_follows_reopens_deletes_with_the_primary_and_is_promoted_with_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, standby_keys) = (keys(), keys());
    let mut options = Options::tiny();
    options.wal_keep_bytes = 1 << 20;
    let builder = Engine::builder(dir.path().join("primary"))
        .shared_keys(keys.clone())
        .options(options);
    let primary = builder.open().unwrap();
    let _pin = primary.pin_wal(primary.wal_end().start);
    let tenant = primary.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    keyspace.put("before", "base copy").unwrap();
    let mut standby = standby_of(&primary, dir.path(), &standby_keys);
    for round in 0..8u32 {
        let name = format!("n{round}");
        let new = primary
            .create_tenant(&name, TenantOptions::default())
            .unwrap()
            .keyspace("k")
            .unwrap();
        for i in 0..200u32 {
            keyspace
                .put([round, i].map(u32::to_be_bytes).concat(), [1; 100])
                .unwrap();
        }
        new.put("x", "y").unwrap();
        if round == 5 {
            primary.delete_tenant("n3").unwrap();
        }
        ship(&primary, &standby);
        assert_eq!(standby.wal_end(), primary.wal_end(), "one history, round {round}");
        if round % 3 == 2 {
            drop(standby);
            standby = reopen_standby(dir.path(), &standby_keys);
            assert_eq!(standby.wal_end(), primary.wal_end());
        }
    }
    let copy = standby.tenant("t").unwrap().open_keyspace("k").unwrap();
    assert_eq!(all(&copy), all(&keyspace));
    assert_eq!(copy.put("a", "b").unwrap_err().kind(), ErrorKind::NotPrimary);
    assert_eq!(standby.tenant("n3").err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(standby.tenants(), primary.tenants());

    let waits = std::thread::spawn({
        let (tenant, keyspace) = (tenant.clone(), keyspace.clone());
        move || {
            tenant
                .batch()
                .put(&keyspace, "acked", "1")
                .durability(Durability::Replicated)
                .commit()
        }
    });
    while !waits.is_finished() {
        ship(&primary, &standby);
    }
    waits.join().unwrap().unwrap();
    keyspace.put("unshipped", "1").unwrap();

    let promotion = standby.promote().unwrap();
    assert!(promotion.epoch > primary.status().epoch);
    assert_eq!(copy.get("acked").unwrap().unwrap(), "1");
    assert_eq!(copy.get("unshipped").unwrap(), None);
    copy.put("new", "reign").unwrap();

    primary.fence(promotion.epoch).unwrap();
    assert_eq!(keyspace.put("a", "b").unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(primary.status().fenced_by, Some(promotion.epoch));
    let stale = primary.fence(promotion.epoch);
    assert!(stale.is_ok(), "telling it twice is fine");
    drop((primary, tenant, keyspace));
    let primary = open(&dir.path().join("primary"), &keys);
    let keyspace = primary.tenant("t").unwrap().open_keyspace("k").unwrap();
    assert_eq!(
        keyspace.put("a", "b").unwrap_err().kind(),
        ErrorKind::Fenced,
        "also after a reopen"
    );
}

#[test]
fn a_standby_refuses_bytes_of_another_history_and_records_whose_key_never_came() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, standby_keys) = (keys(), keys());
    let primary = open(&dir.path().join("primary"), &keys);
    let tenant = primary.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    let standby = standby_of(&primary, dir.path(), &standby_keys);
    let at = standby.standby_progress().unwrap().received;
    let mut cursor = primary.wal_cursor(at).unwrap();

    let late = primary.create_tenant("late", TenantOptions::default()).unwrap();
    late.keyspace("k").unwrap();
    let bytes = cursor.read(1 << 20, std::time::Duration::ZERO).unwrap();
    assert_eq!(
        standby.standby_append(at.advance(1), &bytes).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    let mut bad = bytes.to_vec();
    bad[30] ^= 1;
    assert_eq!(
        standby.standby_append(at, &bad).unwrap_err().kind(),
        ErrorKind::Corruption
    );
    standby.standby_append(at, &bytes).unwrap();
    assert_eq!(standby.standby_sync().unwrap_err().kind(), ErrorKind::Corruption);
    standby
        .apply_key_changes(&primary.key_changes(standby.keystore_version()))
        .unwrap();
    let progress = standby.standby_sync().unwrap();
    assert_eq!(progress.applied, primary.wal_end().start);
    assert_eq!(standby.tenant("late").unwrap().keyspaces().unwrap(), ["k"]);

    // A reopened primary writes another history at the same positions.
    keyspace.put("lost", "tail").unwrap();
    let mut stranger = primary.wal_cursor(progress.received).unwrap();
    let parts = stranger.read(1 << 20, std::time::Duration::ZERO).unwrap();
    let promotion = standby.promote().unwrap();
    assert_eq!(promotion.start, progress.received);
    assert_eq!(
        standby
            .standby_append(progress.received, &parts)
            .unwrap_err()
            .kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn a_replicated_commit_without_a_standby_ends_unknown_and_is_never_downgraded() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::tiny();
    options.replicated_timeout = std::time::Duration::from_millis(20);
    let engine = Engine::builder(dir.path())
        .shared_keys(keys())
        .options(options)
        .open()
        .unwrap();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    let write = || {
        tenant
            .batch()
            .put(&keyspace, "a", "1")
            .durability(Durability::Replicated)
            .commit()
    };
    assert_eq!(write().unwrap_err().kind(), ErrorKind::Unknown);
    assert_eq!(keyspace.get("a").unwrap(), None, "not published");
    engine.confirm_replicated(engine.status().epoch, engine.wal_end().start);
    assert_eq!(
        keyspace.get("a").unwrap().unwrap(),
        "1",
        "published by a late confirmation"
    );
}

#[test]
fn a_ticket_tells_its_position_at_once_and_its_outcome_when_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), &keys());
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    let submit = |key: &str, durability| {
        let batch = tenant.batch().put(&keyspace, key, "1").durability(durability);
        batch.submit().unwrap()
    };
    let local = submit("local", Durability::Local);
    assert_eq!(local.poll().unwrap().unwrap(), local.position());
    assert!(keyspace.get("local").unwrap().is_some(), "acknowledged at once");

    let (first, second) = (
        submit("first", Durability::Replicated),
        submit("second", Durability::Replicated),
    );
    assert!(second.position().lsn > first.position().lsn);
    assert!(engine.status().durable >= second.position().lsn, "durable here");
    assert!(first.poll().is_none(), "nobody has confirmed it");
    assert_eq!(
        keyspace.get("first").unwrap(),
        None,
        "not acknowledged, not visible"
    );
    engine.confirm_replicated(engine.status().epoch, first.position().lsn);
    assert_eq!(first.poll().unwrap().unwrap(), first.position());
    assert!(second.poll().is_none(), "it stands behind what was confirmed");
    assert_eq!(first.wait().unwrap().epoch, engine.status().epoch);

    engine.fence(engine.status().epoch.promoted()).unwrap();
    assert_eq!(second.poll().unwrap().unwrap_err().kind(), ErrorKind::Unknown);
}

#[test]
fn a_deleted_keyspaces_data_outlives_a_deletion_that_a_crash_took_back() {
    use strongroom::io::sim::{CrashMode, SimFs};
    let (fs, keys) = (SimFs::new(), keys());
    let open = |fs: &SimFs| {
        let builder = Engine::builder("/db")
            .shared_keys(keys.clone())
            .options(Options::tiny());
        builder.io(fs.io(7)).open().unwrap()
    };
    let engine = open(&fs);
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    for i in 0..100u32 {
        keyspace.put(i.to_be_bytes(), [1; 100]).unwrap();
    }
    engine.flush().unwrap();
    drop((engine, tenant, keyspace));
    let mut options = Options::tiny();
    options.durability = Durability::Buffered;
    let builder = Engine::builder("/db").shared_keys(keys.clone()).options(options);
    let engine = builder.io(fs.io(8)).open().unwrap();
    engine.tenant("t").unwrap().delete_keyspace("k").unwrap();
    while engine.step().unwrap() {}
    let after = fs.crashed_image(CrashMode::DropAll, 0);
    let engine = open(&after);
    match engine.tenant("t").unwrap().open_keyspace("k") {
        Ok(keyspace) => assert_eq!(
            keyspace.iter().count(),
            100,
            "the deletion was lost, the data must not be"
        ),
        Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "the deletion survived"),
    }
}
