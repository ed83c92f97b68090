//! Commits that wait for a standby.

use strongroom::{Durability, Engine, ErrorKind, Options, TenantOptions};

use crate::{keys, open};

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
fn a_tenants_creation_does_not_publish_what_waits_for_a_standby() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), &keys());
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    let batch = tenant.batch().put(&keyspace, "a", "1");
    let waiting = batch.durability(Durability::Replicated).submit().unwrap();
    let other = engine.create_tenant("other", TenantOptions::default()).unwrap();
    assert_eq!(keyspace.get("a").unwrap(), None, "a failover may still lose it");
    // A write that waits for nobody publishes all before it: that is what its writer asked for.
    other.keyspace("k").unwrap().put("b", "2").unwrap();
    engine.confirm_replicated(engine.status().epoch, waiting.position().lsn);
    assert!(waiting.poll().unwrap().is_ok());
    assert_eq!(keyspace.get("a").unwrap().unwrap(), "1");
}

/// An engine that waits for a standby, this long, with everything.
fn waits(dir: &std::path::Path, timeout: std::time::Duration) -> Engine {
    let mut options = Options::tiny();
    options.durability = Durability::Replicated;
    options.replicated_timeout = timeout;
    let builder = Engine::builder(dir).shared_keys(keys());
    builder.options(options).open().unwrap()
}

#[test]
fn a_keyspace_whose_creation_or_deletion_nobody_confirmed_is_not_told_as_created_or_deleted_by_asking_again()
{
    let dir = tempfile::tempdir().unwrap();
    let engine = waits(dir.path(), std::time::Duration::from_millis(20));
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let confirm = || engine.confirm_replicated(engine.status().epoch, engine.wal_end().start);
    for _ in 0..2 {
        let created = tenant.keyspace("k").map(drop);
        assert_eq!(created.unwrap_err().kind(), ErrorKind::Unknown);
        assert_eq!(
            tenant.open_keyspace("k").map(drop).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
    confirm();
    let commits = engine.stats().writes.commits;
    tenant.keyspace("k").unwrap();
    assert_eq!(
        engine.stats().writes.commits,
        commits,
        "it is there, and acknowledged"
    );
    for _ in 0..2 {
        assert_eq!(
            tenant.delete_keyspace("k").unwrap_err().kind(),
            ErrorKind::Unknown
        );
        tenant.open_keyspace("k").unwrap();
    }
    confirm();
    assert_eq!(
        tenant.delete_keyspace("k").unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn a_keyspaces_creation_that_waits_for_a_standby_holds_up_no_other_tenants() {
    let dir = tempfile::tempdir().unwrap();
    let engine = waits(dir.path(), std::time::Duration::from_secs(20));
    let tenants = ["a", "b", "c"].map(|name| engine.create_tenant(name, TenantOptions::default()).unwrap());
    let before = engine.stats().writes.commits;
    std::thread::scope(|threads| {
        let created: Vec<_> = tenants
            .iter()
            .map(|tenant| threads.spawn(|| tenant.keyspace("k").map(drop)))
            .collect();
        // All three are in the log while nobody has confirmed any.
        while engine.stats().writes.commits < before + 3 && !created.iter().any(|one| one.is_finished()) {
            std::thread::yield_now();
        }
        assert_eq!(engine.stats().writes.commits, before + 3);
        let (epoch, end) = (engine.status().epoch, engine.wal_end().start);
        while created.iter().any(|one| !one.is_finished()) {
            engine.confirm_replicated(epoch, end);
            std::thread::yield_now();
        }
        for one in created {
            one.join().unwrap().unwrap();
        }
    });
}
