//! Base copies: empty standbys, and standbys whose WAL no longer connects.

use strongroom::{Durability, Engine};
use strongroom_replication::NodeRole;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn empty_standby_of_a_primary_with_data_then_base_copy_and_follow() {
    let pair = Pair::new().await;
    let a = pair.start_a_alone().await;
    for i in 0..300 {
        put(
            &a,
            "acme",
            &format!("{i:04}"),
            vec![i as u8; 700],
            Durability::Local,
        )
        .await
        .unwrap();
    }
    let primary = engine(&a);
    blocking(move || primary.flush()).await.unwrap();
    put(&a, "acme", "in the log", "v", Durability::Local)
        .await
        .unwrap();
    let b = pair.start_b().await;
    assert!(matches!(b.state().role, NodeRole::Seeding | NodeRole::Standby));
    role(&b, NodeRole::Standby).await;
    put(&a, "acme", "after", "v", Durability::Replicated)
        .await
        .unwrap();
    assert_eq!(all(&a, "acme").await, all(&b, "acme").await);
    assert_eq!(engine(&a).status().database_id, engine(&b).status().database_id);
    until("the scratch checkpoint is removed", || {
        std::fs::read_dir(pair.a.side("scratch")).is_ok_and(|mut d| d.next().is_none())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn standby_behind_what_is_kept_then_base_copy_and_readable_meanwhile() {
    let mut pair = Pair::new().await;
    pair.engine.wal_keep_bytes = 16 << 10;
    let (a, b) = pair.start().await;
    put(&a, "acme", "old", "v", Durability::Replicated).await.unwrap();
    pair.to_a.cut();
    until("the primary notices", || {
        a.status().standbys.iter().all(|s| !s.connected)
    })
    .await;
    let behind = engine(&b).status().durable;
    for i in 0..400 {
        put(&a, "acme", &format!("{i:04}"), vec![1; 1000], Durability::Local)
            .await
            .unwrap();
        if i % 50 == 49 {
            let primary = engine(&a);
            blocking(move || primary.flush()).await.unwrap();
        }
    }
    until("retention passed the standby", || {
        engine(&a).status().wal_start > behind
    })
    .await;
    assert!(
        get(&b, "acme", "old").await.unwrap().is_some(),
        "a standby that is behind can be read"
    );
    let mut watch = b.watch();
    watch.mark_unchanged();
    pair.to_a.mend();
    put(&a, "acme", "new", "v", Durability::Replicated).await.unwrap();
    assert_eq!(all(&a, "acme").await, all(&b, "acme").await);
    assert!(!pair.b.side("quarantine").exists(), "nothing diverged");
    assert!(!pair.b.side("incoming").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn base_copy_cut_short_then_begins_again() {
    let pair = Pair::new().await;
    let a = pair.start_a_alone().await;
    for i in 0..40 {
        put(
            &a,
            "acme",
            &format!("{i:04}"),
            vec![i as u8; 500_000],
            Durability::Local,
        )
        .await
        .unwrap();
    }
    let b = pair.start_b().await;
    let copied = || b.status().upstream.and_then(|u| u.base_copy_bytes).unwrap_or(0);
    until("some of it arrived", || {
        copied() > 0 || b.state().role == NodeRole::Standby
    })
    .await;
    pair.to_a.cut();
    pair.to_a.mend();
    role(&b, NodeRole::Standby).await;
    put(&a, "acme", "after", "v", Durability::Replicated)
        .await
        .unwrap();
    assert_eq!(all(&b, "acme").await.len(), 41);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn standby_of_another_database_then_refused_and_left_alone() {
    let pair = Pair::new().await;
    let (data, keys, options) = (pair.b.data.clone(), pair.b.keys.clone(), pair.engine.clone());
    let stranger = blocking(move || {
        let engine = Engine::builder(&data)
            .shared_keys(keys)
            .options(options)
            .open()
            .unwrap();
        keyspace(&engine, "mine").put("k", "v").unwrap();
        let id = engine.status().database_id;
        engine.close().unwrap();
        id
    })
    .await;
    let a = pair.start_a_alone().await;
    let b = pair.start_b().await;
    until("the refusal is reported", || {
        b.status()
            .upstream
            .is_some_and(|u| u.error.is_some_and(|e| e.contains("another database")))
    })
    .await;
    assert_eq!(engine(&b).status().database_id, stranger);
    assert!(get(&b, "mine", "k").await.unwrap().is_some());
    assert!(a.status().standbys.is_empty());
}
