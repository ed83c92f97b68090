//! A standby that is sent what a primary writes.

use std::path::Path;
use std::sync::Arc;

use strongroom::io::Io;
use strongroom::keys::KeyProvider;
use strongroom::{
    BaseCopyReceiver, Durability, Engine, ErrorKind, Options, Role, TenantOptions, checkpoint_files,
};

use crate::{all, keys, open};

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
