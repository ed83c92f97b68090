//! A primary and its standby while nothing fails, and when the connection does.

use std::time::{Duration, Instant};

use strongroom::{Durability, ErrorKind, TenantOptions};
use strongroom_replication::NodeRole;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicated_write_then_durable_and_readable_on_the_standby() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    for i in 0..20 {
        let position = put(&a, "acme", &format!("k{i}"), "v", Durability::Replicated)
            .await
            .unwrap();
        let (primary, standby) = (engine(&a).status(), engine(&b).status());
        assert!(primary.replicated >= position.lsn);
        assert!(standby.durable >= position.lsn);
        assert_eq!(standby.epoch, position.epoch);
        assert_eq!(
            get(&b, "acme", &format!("k{i}")).await.unwrap(),
            Some(b"v".to_vec())
        );
    }
    let seen = connected(&a, "b").await;
    assert!(seen.applied <= seen.durable && seen.durable <= seen.received && seen.received <= seen.sent);
    let upstream = b.status().upstream.unwrap();
    assert!(upstream.connected && upstream.error.is_none());
    assert_eq!(upstream.node.as_deref(), Some("a"));
    assert_eq!(upstream.epoch, a.state().epoch);
    a.shutdown().await.unwrap();
    b.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn caught_up_standby_then_its_age_follows_the_primarys_clock() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    let first = put(&a, "acme", "k", "v", Durability::Replicated)
        .await
        .map(|_| now_ms())
        .unwrap();
    until("reads are as fresh as a later moment", || {
        b.status()
            .upstream
            .is_some_and(|u| u.primary_ms.is_some_and(|ms| ms >= first))
    })
    .await;
    drop((a, b));
}

fn now_ms() -> u64 {
    u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn standby_stopped_then_replicated_write_is_unknown_in_time_and_local_goes_on() {
    let mut pair = Pair::new().await;
    pair.engine.replicated_timeout = Duration::from_millis(300);
    let (a, b) = pair.start().await;
    put(&a, "acme", "before", "v", Durability::Replicated)
        .await
        .unwrap();
    b.shutdown().await.unwrap();
    let began = Instant::now();
    let error = put(&a, "acme", "after", "v", Durability::Replicated)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    assert!(began.elapsed() >= Duration::from_millis(300));
    put(&a, "acme", "local", "v", Durability::Local).await.unwrap();
    // The standby comes back and has all of it.
    let b = pair.start_b().await;
    put(&a, "acme", "again", "v", Durability::Replicated)
        .await
        .unwrap();
    for key in ["before", "after", "local", "again"] {
        assert!(get(&b, "acme", key).await.unwrap().is_some(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connection_cut_then_stream_resumes_without_a_base_copy() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    for round in 0..5 {
        pair.to_a.cut();
        for i in 0..50 {
            put(
                &a,
                "acme",
                &format!("{round}/{i}"),
                vec![7; 500],
                Durability::Local,
            )
            .await
            .unwrap();
        }
        pair.to_a.mend();
        put(&a, "acme", &format!("{round}/last"), "v", Durability::Replicated)
            .await
            .unwrap();
        assert_eq!(all(&a, "acme").await, all(&b, "acme").await);
    }
    assert!(!pair.b.side("install").exists() && !pair.b.side("quarantine").exists());
    assert_eq!(
        engine(&a).status().keystore_version,
        engine(&b).status().keystore_version
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn values_larger_than_a_message_then_arrive_whole() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    let value: Vec<u8> = (0..5_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    put(&a, "acme", "large", value.clone(), Durability::Replicated)
        .await
        .unwrap();
    assert!(get(&b, "acme", "large").await.unwrap() == Some(value));
}

/// The keys travel apart from the WAL. A standby stops at a record whose key it never got, so every round
/// that goes through shows that they came first.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tenants_created_and_written_at_once_then_never_arrive_before_their_keys() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    let writers = (0..4).map(|writer| {
        let engine = engine(&a);
        tokio::task::spawn_blocking(move || {
            for i in 0..25 {
                let tenant = engine
                    .create_tenant(&format!("t{writer}-{i}"), TenantOptions::default())
                    .unwrap();
                let keyspace = tenant.keyspace("data").unwrap();
                tenant
                    .batch()
                    .put(&keyspace, "k", "v")
                    .durability(Durability::Local)
                    .commit()
                    .unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        within("a writer", writer).await.unwrap();
    }
    put(&a, "last", "k", "v", Durability::Replicated).await.unwrap();
    for writer in 0..4 {
        for i in 0..25 {
            assert!(
                get(&b, &format!("t{writer}-{i}"), "k").await.unwrap().is_some(),
                "t{writer}-{i}"
            );
        }
    }
    assert_eq!(b.state().role, NodeRole::Standby);
    assert!(!pair.b.side("quarantine").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tenant_deleted_then_gone_on_the_standby_and_the_status_says_so() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    put(&a, "doomed", "k", "v", Durability::Replicated).await.unwrap();
    put(&a, "other", "k", "v", Durability::Replicated).await.unwrap();
    assert!(get(&b, "doomed", "k").await.unwrap().is_some());
    let primary = engine(&a);
    let deletion = blocking(move || primary.delete_tenant("doomed")).await.unwrap();
    until("the standby confirms the deletion", || {
        a.status()
            .standbys
            .iter()
            .any(|s| s.connected && s.keystore_version >= deletion.keystore_version)
    })
    .await;
    assert_eq!(
        get(&b, "doomed", "k").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(get(&b, "other", "k").await.unwrap().is_some());
    // A deletion while the standby is away reaches it when it is back.
    pair.to_a.cut();
    let primary = engine(&a);
    let deletion = blocking(move || primary.delete_tenant("other")).await.unwrap();
    pair.to_a.mend();
    until("the standby confirms the second deletion", || {
        a.status()
            .standbys
            .iter()
            .any(|s| s.connected && s.keystore_version >= deletion.keystore_version)
    })
    .await;
    assert_eq!(
        get(&b, "other", "k").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_then_every_replicated_write_is_on_the_standby() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    keyspace(&engine(&a), "acme");
    let writers = (0..8).map(|writer| {
        let engine = engine(&a);
        tokio::task::spawn_blocking(move || {
            let tenant = engine.tenant("acme").unwrap();
            let keyspace = tenant.open_keyspace("data").unwrap();
            for i in 0..50 {
                let batch = tenant
                    .batch()
                    .put(&keyspace, format!("{writer}/{i}"), vec![writer as u8; 300]);
                batch.durability(Durability::Replicated).commit().unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        within("a writer", writer).await.unwrap();
    }
    assert_eq!(all(&b, "acme").await.len(), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn standby_written_to_then_not_primary() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    put(&a, "acme", "k", "v", Durability::Replicated).await.unwrap();
    let error = put(&b, "acme", "k", "w", Durability::Local).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotPrimary);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn both_nodes_restarted_then_standby_resumes_without_a_base_copy() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    put(&a, "acme", "one", "v", Durability::Replicated).await.unwrap();
    let epoch = a.state().epoch;
    // The primary first: its mark of a clean close reaches the standby.
    a.shutdown().await.unwrap();
    b.shutdown().await.unwrap();
    let (a, b) = pair.start().await;
    assert_eq!(Some(a.state().epoch), epoch.reopened());
    put(&a, "acme", "two", "v", Durability::Replicated).await.unwrap();
    assert_eq!(all(&b, "acme").await.len(), 2);
    assert!(!pair.b.side("quarantine").exists());
}
