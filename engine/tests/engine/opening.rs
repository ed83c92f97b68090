//! Opening: locks, keys, what is not there, what is not ours, what was restored.

use std::sync::Arc;

use strongroom::io::Io;
use strongroom::keys::{EscrowSecret, KeyFile, KeyProvider, MemoryKeys};
use strongroom::{Engine, ErrorKind, TenantOptions, restore};

use crate::{keys, open};

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
    assert!(checkpoint.files > 2 && checkpoint.bytes > engine.status().table_bytes);
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
