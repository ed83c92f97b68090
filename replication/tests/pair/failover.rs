//! Promotion, fencing, return.

use std::time::Duration;

use strongroom::{Durability, ErrorKind};
use strongroom_replication::{ErrorKind as NodeErrorKind, Node, NodeRole};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn primary_unreachable_then_promoted_standby_has_every_replicated_write() {
    let mut pair = Pair::new().await;
    pair.engine.replicated_timeout = Duration::from_millis(300);
    let (a, b) = pair.start().await;
    for i in 0..50 {
        put(&a, "acme", &format!("{i:03}"), "v", Durability::Replicated)
            .await
            .unwrap();
    }
    let old = a.state().epoch;
    pair.cut();
    let promotion = within("promotion", b.promote()).await.unwrap();
    assert_eq!(promotion.epoch, old.promoted());
    assert_eq!(b.state().role, NodeRole::Primary);
    assert_eq!(b.state().epoch, promotion.epoch);
    assert_eq!(all(&b, "acme").await.len(), 50);
    put(&b, "acme", "new", "v", Durability::Local).await.unwrap();
    // The old primary does not know yet, and yet can acknowledge nothing replicated.
    let error = put(&a, "acme", "split", "v", Durability::Replicated)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    let fencing = b.status().fencing.unwrap();
    assert!(!fencing.done);
    assert_eq!(fencing.epoch, promotion.epoch);
    assert_eq!(b.promote().await.unwrap_err().kind(), NodeErrorKind::NotStandby);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn old_primary_reachable_again_then_fenced_rewound_and_following_with_its_tail_kept() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    put(&a, "acme", "common", "v", Durability::Replicated)
        .await
        .unwrap();
    pair.cut();
    put(&a, "acme", "only here", "v", Durability::Local)
        .await
        .unwrap();
    let former = engine(&a);
    within("promotion", b.promote()).await.unwrap();
    put(&b, "acme", "new", "v", Durability::Local).await.unwrap();
    pair.mend();
    state(&a, "the old primary follows", |s| s.role == NodeRole::Standby).await;
    until("the old primary is told", || {
        b.status().fencing.is_some_and(|f| f.done)
    })
    .await;
    // A handle of the old reign acknowledges nothing any more.
    let error = blocking(move || keyspace(&former, "acme").put("late", "v")).await;
    drop(error);
    put(&b, "acme", "both", "v", Durability::Replicated)
        .await
        .unwrap();
    assert_eq!(all(&a, "acme").await, all(&b, "acme").await);
    assert_eq!(get(&a, "acme", "only here").await.unwrap(), None);
    let kept: Vec<_> = std::fs::read_dir(pair.a.side("quarantine")).unwrap().collect();
    assert_eq!(kept.len(), 1);
    // The keystore it replaced lived under a key that is destroyed; only the new one's is left.
    assert_eq!(pair.a.keys.versions().len(), 1);
    let wal = kept.into_iter().next().unwrap().unwrap().path().join("wal");
    assert!(std::fs::read_dir(wal).unwrap().next().is_some());
    assert_eq!(
        put(&a, "acme", "k", "v", Durability::Local)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NotPrimary
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn primary_told_of_a_newer_epoch_then_refuses_writes() {
    let pair = Pair::new().await;
    let (a, _b) = pair.start().await;
    put(&a, "acme", "k", "v", Durability::Replicated).await.unwrap();
    let (engine, epoch) = (engine(&a), a.state().epoch);
    pair.cut();
    assert_eq!(
        a.fence(epoch).await.unwrap_err().engine_kind(),
        Some(ErrorKind::Invalid)
    );
    assert_eq!(a.state().role, NodeRole::Primary);
    a.fence(epoch.promoted()).await.unwrap();
    let error = blocking(move || engine.tenant("acme")?.keyspace("data")?.put("k", "w"))
        .await
        .unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Closed),
        "{error:?}"
    );
    let waiting = state(&a, "waiting", |s| {
        s.role == NodeRole::Waiting && s.note.as_ref().is_some_and(|n| n.contains("newer primary"))
    })
    .await;
    assert!(waiting.primary().is_none() && waiting.readable().is_none());
    // Restarting does not make it forget, whatever the override says.
    a.shutdown().await.unwrap();
    let mut config = pair.config_a();
    config.serve_without_peer = true;
    let a = pair.start_a_with(config).await;
    state(&a, "still waiting", |s| {
        s.role == NodeRole::Waiting && s.note.as_ref().is_some_and(|n| n.contains("newer primary"))
    })
    .await;
    // A person decides: promotion takes an epoch above the one it was fenced by.
    let promotion = within("promotion", a.promote()).await.unwrap();
    assert!(promotion.epoch > epoch.promoted());
    put(&a, "acme", "k", "w", Durability::Local).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn old_primary_started_again_then_follows_the_promoted_one() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    put(&a, "acme", "common", "v", Durability::Replicated)
        .await
        .unwrap();
    pair.to_a.cut();
    put(&a, "acme", "tail", "v", Durability::Local).await.unwrap();
    a.shutdown().await.unwrap();
    within("promotion", b.promote()).await.unwrap();
    pair.to_a.mend();
    let a = pair.start_a().await;
    role(&a, NodeRole::Standby).await;
    put(&b, "acme", "new", "v", Durability::Replicated).await.unwrap();
    assert_eq!(all(&a, "acme").await, all(&b, "acme").await);
    // And back: the roles of the configuration are restored by promotion, not by restarts.
    within("promotion", a.promote()).await.unwrap();
    role(&b, NodeRole::Standby).await;
    put(&a, "acme", "back", "v", Durability::Replicated)
        .await
        .unwrap();
    assert_eq!(all(&a, "acme").await, all(&b, "acme").await);
    assert_eq!(all(&a, "acme").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn promoted_standby_restarted_then_still_primary() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    put(&a, "acme", "k", "v", Durability::Replicated).await.unwrap();
    a.shutdown().await.unwrap();
    let promotion = within("promotion", b.promote()).await.unwrap();
    put(&b, "acme", "k2", "v", Durability::Local).await.unwrap();
    b.shutdown().await.unwrap();
    // Both come back at once, each with the configuration it always had.
    let (a, b) = (pair.start_a().await, pair.start_b().await);
    let served = role(&b, NodeRole::Primary).await;
    assert_eq!(Some(served.epoch), promotion.epoch.reopened());
    role(&a, NodeRole::Standby).await;
    put(&b, "acme", "k3", "v", Durability::Replicated).await.unwrap();
    assert_eq!(all(&a, "acme").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn planned_switchover_then_old_primary_follows_without_a_base_copy() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    put(&a, "acme", "k", "v", Durability::Replicated).await.unwrap();
    a.shutdown().await.unwrap();
    within("promotion", b.promote()).await.unwrap();
    let a = pair.start_a().await;
    role(&a, NodeRole::Standby).await;
    put(&b, "acme", "k2", "v", Durability::Replicated).await.unwrap();
    assert_eq!(all(&a, "acme").await, all(&b, "acme").await);
    assert!(!pair.a.side("quarantine").exists(), "its WAL was a prefix");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn peer_unreachable_then_primary_waits_and_the_override_serves() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    put(&a, "acme", "k", "v", Durability::Replicated).await.unwrap();
    a.shutdown().await.unwrap();
    b.shutdown().await.unwrap();
    let a = pair.start_a().await;
    let waiting = state(&a, "waiting with a reason", |s| {
        s.note
            .as_ref()
            .is_some_and(|n| n.contains("the peer does not answer"))
    })
    .await;
    assert_eq!(waiting.role, NodeRole::Waiting);
    assert!(waiting.primary().is_none());
    let error = put(&a, "acme", "k", "w", Durability::Local).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotPrimary);
    // Its standby comes: now it serves.
    let b = pair.start_b().await;
    role(&a, NodeRole::Primary).await;
    put(&a, "acme", "k", "w", Durability::Replicated).await.unwrap();
    a.shutdown().await.unwrap();
    b.shutdown().await.unwrap();
    let a = pair.start_a_alone().await;
    put(&a, "acme", "k", "x", Durability::Local).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn emptied_primary_then_never_replaces_a_standby_with_data() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    put(&a, "acme", "k", "v", Durability::Replicated).await.unwrap();
    a.shutdown().await.unwrap();
    std::fs::remove_dir_all(&pair.a.data).unwrap();
    let a = pair.start_a().await;
    state(&a, "waiting with a reason", |s| {
        s.note.as_ref().is_some_and(|n| n.contains("promote the peer"))
    })
    .await;
    assert_eq!(a.promote().await.unwrap_err().kind(), NodeErrorKind::NotStandby);
    within("promotion", b.promote()).await.unwrap();
    role(&a, NodeRole::Standby).await;
    assert!(get(&a, "acme", "k").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn standby_with_a_newer_epoch_then_old_primary_is_told_and_steps_down() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    put(&a, "acme", "k", "v", Durability::Replicated).await.unwrap();
    let epoch = a.state().epoch;
    // The standby heard of a newer reign from elsewhere, then dials its old primary.
    pair.to_a.cut();
    b.fence(epoch.promoted()).await.unwrap();
    pair.to_a.mend();
    state(&a, "no longer primary", |s| s.role != NodeRole::Primary).await;
    until("it recorded the epoch", || {
        a.engine()
            .is_some_and(|e| e.status().fenced_by == Some(epoch.promoted()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn node_asked_for_its_peer_then_told() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    put(&a, "acme", "k", "v", Durability::Replicated).await.unwrap();
    let (seen_a, seen_b) = (b.peer_status().await.unwrap(), a.peer_status().await.unwrap());
    assert_eq!((seen_a.node.as_str(), seen_a.role), ("a", NodeRole::Primary));
    assert_eq!((seen_b.node.as_str(), seen_b.role), ("b", NodeRole::Standby));
    assert_eq!(seen_a.database_id, seen_b.database_id);
    assert_eq!(seen_a.epoch, seen_b.epoch);
    assert!(seen_b.durable <= seen_a.durable);
    pair.to_b.cut();
    assert_eq!(
        a.peer_status().await.unwrap_err().kind(),
        NodeErrorKind::Unreachable
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn shutdown_twice_then_fine_and_the_directory_is_free() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    a.shutdown().await.unwrap();
    a.shutdown().await.unwrap();
    assert_eq!(a.state().role, NodeRole::Stopped);
    drop(b);
    let a = pair.start_a().await;
    assert_eq!(a.state().role, NodeRole::Waiting);
}

/// What a promotion leaves when the process dies in the middle of it: the record of step 2, and the engine
/// with or without its new epoch.
async fn promotion_cut_short(durable: bool) -> (Pair, strongroom::Epoch) {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    put(&a, "acme", "k", "v", Durability::Replicated).await.unwrap();
    let epoch = a.state().epoch;
    pair.cut();
    b.shutdown().await.unwrap();
    if durable {
        let (data, keys, options) = (pair.b.data.clone(), pair.b.keys.clone(), pair.engine.clone());
        blocking(move || {
            let builder = strongroom::Engine::builder(data)
                .shared_keys(keys)
                .options(options);
            builder
                .role(strongroom::Role::Standby)
                .open()
                .unwrap()
                .promote()
                .unwrap();
        })
        .await;
    }
    let record = format!("strongroom node role, format 1\npromoting from {}\n", epoch.0);
    std::fs::write(pair.b.side("role"), record).unwrap();
    pair.mend();
    // The old primary has gone on all the time.
    let b = pair.start_b().await;
    if durable {
        let served = role(&b, NodeRole::Primary).await;
        assert_eq!(Some(served.epoch), epoch.promoted().reopened());
        role(&a, NodeRole::Standby).await;
        put(&b, "acme", "k2", "v", Durability::Replicated).await.unwrap();
    } else {
        role(&b, NodeRole::Standby).await;
        put(&a, "acme", "k2", "v", Durability::Replicated).await.unwrap();
        assert_eq!(a.state().epoch, epoch);
    }
    assert_eq!(all(&a, "acme").await, all(&b, "acme").await);
    (pair, epoch)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn promotion_cut_short_before_its_epoch_was_durable_then_still_a_standby() {
    promotion_cut_short(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn promotion_cut_short_after_its_epoch_was_durable_then_primary_and_the_old_one_follows() {
    promotion_cut_short(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn standbys_directory_started_as_primary_then_waits_for_a_person() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    put(&a, "acme", "k", "v", Durability::Replicated).await.unwrap();
    let epoch = a.state().epoch;
    a.shutdown().await.unwrap();
    b.shutdown().await.unwrap();
    // Somebody moves the standby's data elsewhere and configures it as primary, with and without a peer.
    std::fs::remove_dir_all(pair.b.side("")).unwrap();
    for peer in [true, false] {
        let mut config = pair.config_b();
        config.role = strongroom_replication::StartRole::Primary;
        config.serve_without_peer = true;
        if !peer {
            config.peer = None;
        }
        let b = Node::start(config, pair.b.keys.clone()).await.unwrap();
        // Not the epoch the old primary would take next: that would be one number for two reigns.
        state(&b, "waiting", |s| {
            s.role == NodeRole::Waiting && s.note.as_ref().is_some_and(|n| n.contains("followed a primary"))
        })
        .await;
        if !peer {
            let promotion = within("promotion", b.promote()).await.unwrap();
            assert_eq!(promotion.epoch, epoch.promoted());
            assert!(get(&b, "acme", "k").await.unwrap().is_some());
            put(&b, "acme", "k", "w", Durability::Local).await.unwrap();
        }
        b.shutdown().await.unwrap();
    }
}
