//! Tenants and keyspaces that were deleted.

use strongroom::{Durability, Engine, ErrorKind, Options, TenantOptions};

use crate::{keys, open};

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
