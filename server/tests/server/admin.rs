//! The administration service, and what it changes for tenants.

use strongroom::keys::{EscrowSecret, KeyFile};
use strongroom_client::proto::admin as pb;
use strongroom_client::proto::kv;
use strongroom_client::proto::kv::kv_client::KvClient;
use strongroom_client::{Kind, RangeOptions};
use tonic::{Code, Request};

use crate::{TestNode, refused, within};

#[tokio::test(flavor = "multi_thread")]
async fn fresh_primary_then_its_status_says_so() {
    let node = TestNode::start("").await;
    let admin = node.admin().await;
    let before = admin.status().await.unwrap();
    assert_eq!((before.node.as_str(), before.state.as_str()), ("n1", "primary"));
    assert_eq!(before.summary, "primary, serving");
    assert_eq!(before.role(), pb::Role::Primary);
    assert!(before.serving && before.fenced_by.is_none() && before.read_only.is_none());
    assert_eq!((before.database_id.len(), before.tenants), (16, 0));
    assert!(before.epoch > 0 && before.epoch <= before.highest_epoch);
    let (client, _) = node.tenant("acme").await;
    client.put("k", "a", "1").await.unwrap();
    let after = admin.status().await.unwrap();
    assert_eq!(after.tenants, 1);
    assert!(after.durable_lsn > before.durable_lsn && after.visible_seqno > before.visible_seqno);
    assert!(after.keystore_version > before.keystore_version);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_created_then_listed_by_page_and_unique() {
    let node = TestNode::start("").await;
    let admin = node.admin().await;
    let mut ids = Vec::new();
    for name in ["c", "a", "b"] {
        ids.push(admin.create_tenant(name).await.unwrap().id);
    }
    refused(admin.create_tenant("a").await, Kind::AlreadyExists);
    let (tenants, more) = admin.list_tenants(0, 2).await.unwrap();
    let names: Vec<_> = tenants.iter().map(|t| t.name.as_str()).collect();
    assert_eq!((names, more), (vec!["c", "a"], true));
    let (tenants, more) = admin.list_tenants(ids[1], 0).await.unwrap();
    assert_eq!((tenants.len(), tenants[0].id, more), (1, ids[2], false));
}

#[tokio::test(flavor = "multi_thread")]
async fn token_wrong_in_any_way_then_one_answer() {
    let node = TestNode::start("").await;
    let (client, token) = node.tenant("acme").await;
    client.put("k", "a", "1").await.unwrap();
    let (id, secret) = token.split_once('.').unwrap();
    let flipped = if secret.starts_with('0') {
        secret.replacen('0', "1", 1)
    } else {
        format!("0{}", &secret[1..])
    };
    let other = node.tenant("other").await.1;
    let wrong = [
        String::new(),
        "x".into(),
        id.into(),
        format!("{id}."),
        format!(".{secret}"),
        format!("{id}.{flipped}"),
        format!("{}.{secret}", "0".repeat(16)),
        format!("{}.{secret}", other.split_once('.').unwrap().0),
        format!("{token}0"),
        format!("{token}.{token}"),
    ];
    let messages: Vec<String> = {
        let mut messages = Vec::new();
        for token in &wrong {
            let error = refused(node.client(token).await, Kind::Unauthenticated);
            messages.push(error.message().to_string());
        }
        messages
    };
    assert!(messages.iter().all(|m| *m == messages[0]), "{messages:?}");
    // No header, and two of them.
    let mut raw = KvClient::new(node.channel().await);
    for count in [0, 2] {
        let mut request = Request::new(kv::HelloRequest {});
        for _ in 0..count {
            request
                .metadata_mut()
                .append("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let status = raw.hello(request).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unauthenticated, messages[0].as_str())
        );
    }
    assert!(client.get("k", "a").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn token_revoked_then_refused_at_once_and_for_good() {
    let mut node = TestNode::start("").await;
    let (client, token) = node.tenant("acme").await;
    let admin = node.admin().await;
    let spare = admin.create_token("acme").await.unwrap();
    client.put("k", "a", "1").await.unwrap();
    let listed = admin.list_tokens(Some("acme")).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(
        listed
            .iter()
            .all(|t| token.starts_with(&t.token_id) || spare.token.starts_with(&t.token_id))
    );
    assert!(listed.iter().all(|t| t.created_ms > 1_600_000_000_000));

    let id = token.split_once('.').unwrap().0;
    admin.revoke_token(id).await.unwrap();
    refused(client.get("k", "a").await, Kind::Unauthenticated);
    refused(client.put("k", "a", "2").await, Kind::Unauthenticated);
    refused(admin.revoke_token(id).await, Kind::NotFound);
    refused(admin.revoke_token("nonsense").await, Kind::Invalid);
    refused(admin.create_token("nobody").await, Kind::NotFound);
    refused(admin.list_tokens(Some("nobody")).await, Kind::NotFound);
    let other = node.client(&spare.token).await.unwrap();
    assert_eq!(other.get("k", "a").await.unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(admin.list_tokens(None).await.unwrap().len(), 1);

    node.stop().await;
    node.reopen().await;
    refused(node.client(&token).await, Kind::Unauthenticated);
    let other = node.client(&spare.token).await.unwrap();
    assert_eq!(other.get("k", "a").await.unwrap().as_deref(), Some(&b"1"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn token_revoked_in_mid_range_then_the_range_ends_in_an_error() {
    let node = TestNode::start("").await;
    let (client, token) = node.tenant("acme").await;
    // Far more than all windows between here and the server hold.
    let large = bytes::Bytes::from(vec![1; 8 << 20]);
    for i in 0..8 {
        client.put("k", format!("{i}"), large.clone()).await.unwrap();
    }
    let mut entries = client.range("k", RangeOptions::all()).await.unwrap();
    entries.next().await.unwrap().unwrap();
    node.admin()
        .await
        .revoke_token(token.split_once('.').unwrap().0)
        .await
        .unwrap();
    let error = within("the end", async {
        loop {
            match entries.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the range ended as if it were complete"),
                Err(error) => return error,
            }
        }
    })
    .await;
    assert_eq!(error.kind(), Kind::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenant_deleted_then_data_and_tokens_die_with_it() {
    let mut node = TestNode::start("").await;
    let (client, token) = node.tenant("acme").await;
    let (other, other_token) = node.tenant("other").await;
    client.put("k", "a", "1").await.unwrap();
    other.put("k", "a", "1").await.unwrap();
    let snapshot = client.snapshot().await.unwrap();
    let admin = node.admin().await;
    let deleted = admin.delete_tenant("acme").await.unwrap();
    assert_eq!(
        deleted.root,
        Some(pb::delete_tenant_response::Root::Destroyed(true))
    );
    let nodes: Vec<_> = deleted
        .nodes
        .iter()
        .map(|n| (n.node.as_str(), n.confirmed))
        .collect();
    assert_eq!(nodes, [("n1", true)]);
    assert_eq!(
        admin.status().await.unwrap().keystore_version,
        deleted.keystore_version
    );
    refused(client.get("k", "a").await, Kind::Unauthenticated);
    refused(snapshot.get("k", "a").await, Kind::Unauthenticated);
    refused(admin.delete_tenant("acme").await, Kind::NotFound);
    assert_eq!(admin.list_tokens(None).await.unwrap().len(), 1);

    // The name is free again; nothing of the old tenant comes back with it.
    let (again, _) = node.tenant("acme").await;
    assert_eq!(again.get("k", "a").await.unwrap(), None);
    refused(node.client(&token).await, Kind::Unauthenticated);
    node.stop().await;
    node.reopen().await;
    refused(node.client(&token).await, Kind::Unauthenticated);
    assert!(
        node.client(&other_token)
            .await
            .unwrap()
            .get("k", "a")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn primary_fenced_then_no_service_but_status_says_by_whom() {
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    client.put("k", "a", "1").await.unwrap();
    let admin = node.admin().await;
    let epoch = admin.status().await.unwrap().epoch;
    refused(admin.fence(Some(epoch)).await, Kind::Invalid);
    client.put("k", "a", "2").await.unwrap();
    let fenced_by = admin.fence(None).await.unwrap().fenced_by;
    assert!(fenced_by > epoch);
    let kind = client.put("k", "a", "3").await.unwrap_err().kind();
    assert!(matches!(kind, Kind::Fenced | Kind::NotPrimary), "{kind:?}");
    assert!(client.get("k", "a").await.is_err());
    let status = admin.status().await.unwrap();
    assert_eq!(status.fenced_by, Some(fenced_by));
    assert!(!status.serving);
    refused(admin.create_tenant("late").await, kind);
}

#[tokio::test(flavor = "multi_thread")]
async fn promotion_of_a_primary_then_refused() {
    let node = TestNode::start("").await;
    let admin = node.admin().await;
    for dry_run in [true, false] {
        let request = pb::PromoteRequest {
            dry_run,
            ..Default::default()
        };
        refused(admin.promote(request).await, Kind::NotStandby);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_created_then_it_restores_with_its_escrow() {
    let node = TestNode::start("").await;
    let (client, token) = node.tenant("acme").await;
    client.put("k", "a", "1").await.unwrap();
    let admin = node.admin().await;
    let secret = EscrowSecret::generate().unwrap();
    let dir = node.dir.path();
    let text = |path: std::path::PathBuf| path.to_str().unwrap().to_string();
    let request = pb::CreateBackupRequest {
        directory: text(dir.join("backup")),
        escrow_recipient: secret.recipient().to_text(),
        escrow_path: text(dir.join("escrow")),
    };
    let bad = [
        pb::CreateBackupRequest {
            directory: "relative".into(),
            ..request.clone()
        },
        pb::CreateBackupRequest {
            directory: format!("{}/../x", text(dir.into())),
            ..request.clone()
        },
        pb::CreateBackupRequest {
            escrow_path: format!("{}/escrow", request.directory),
            ..request.clone()
        },
        pb::CreateBackupRequest {
            escrow_path: "".into(),
            ..request.clone()
        },
        pb::CreateBackupRequest {
            escrow_recipient: "srescrow1zz".into(),
            ..request.clone()
        },
    ];
    for bad in bad {
        refused(admin.create_backup(bad.clone()).await, Kind::Invalid);
        assert!(!dir.join("backup").exists() && !dir.join("escrow").exists());
    }
    let created = admin.create_backup(request.clone()).await.unwrap();
    assert!(created.files > 0 && created.bytes > 0 && created.seqno > 0);
    let escrow = std::fs::read(dir.join("escrow")).unwrap();
    assert_eq!(created.escrow_bytes, escrow.len() as u64);
    refused(admin.create_backup(request.clone()).await, Kind::AlreadyExists);
    client.put("k", "a", "after").await.unwrap();

    // What was restored answers reads, and takes writes only once accepted.
    let io = strongroom::io::Io::os();
    KeyFile::create(dir.join("key2")).unwrap();
    let keys = std::sync::Arc::new(KeyFile::open(dir.join("key2")).unwrap());
    strongroom::restore(dir.join("backup"), &escrow, &secret, dir.join("data2"), keys, &io).unwrap();
    let mut restored = node;
    restored.stop().await;
    std::fs::rename(
        restored.dir.path().join("data"),
        restored.dir.path().join("data1"),
    )
    .unwrap();
    std::fs::rename(
        restored.dir.path().join("data2"),
        restored.dir.path().join("data"),
    )
    .unwrap();
    std::fs::rename(restored.dir.path().join("key2"), restored.dir.path().join("key")).unwrap();
    let _ = std::fs::remove_dir_all(restored.dir.path().join("data.node"));
    restored.reopen().await;
    let admin = restored.admin().await;
    let status = admin.status().await.unwrap();
    assert!(status.awaiting_acceptance && !status.serving);
    assert_eq!(status.summary, "restored, awaiting acceptance");
    let client = restored.client(&token).await.unwrap();
    assert_eq!(client.get("k", "a").await.unwrap().as_deref(), Some(&b"1"[..]));
    refused(client.put("k", "b", "1").await, Kind::AwaitingAcceptance);
    admin.accept_restored().await.unwrap();
    client.put("k", "b", "1").await.unwrap();
    assert!(admin.status().await.unwrap().serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_and_compact_then_data_is_in_tables() {
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    for i in 0..100 {
        client.put("k", format!("{i:03}"), "v").await.unwrap();
    }
    let admin = node.admin().await;
    let before = admin.stats().await.unwrap();
    assert!(
        before.puts >= 100 && before.wal_syncs > 0 && before.memtable_bytes > 0,
        "{before:?}"
    );
    assert_eq!(
        (
            before.levels.iter().map(|level| level.tables).sum::<u64>(),
            before.tenants
        ),
        (0, 1)
    );
    admin.flush().await.unwrap();
    assert!(admin.status().await.unwrap().table_bytes > 0);
    admin.compact().await.unwrap();
    assert!(client.get("k", "042").await.unwrap().is_some());
    let after = admin.stats().await.unwrap();
    assert!(
        after.levels.iter().map(|level| level.entries).sum::<u64>() >= 100,
        "{after:?}"
    );
    assert_eq!(
        after.flushes.as_ref().map(|flushes| flushes.count),
        Some(1),
        "{after:?}"
    );
    assert_eq!((after.memtable_bytes, after.job_failure), (0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn options_set_then_in_force_until_the_engine_is_opened_again() {
    let mut node = TestNode::start("[engine]\nwal_keep_bytes = 1000\n").await;
    let (client, _) = node.tenant("acme").await;
    client.put("k", "a", "1").await.unwrap();
    let admin = node.admin().await;
    let none = pb::SetOptionsRequest::default();
    let opened = admin.set_options(none).await.unwrap();
    assert_eq!(
        (opened.wal_keep_bytes, opened.expiry_grace_ms),
        (1000, 24 * 3_600_000)
    );
    let now = admin
        .set_options(pb::SetOptionsRequest {
            cache_bytes: Some(1 << 20),
            expiry_grace_ms: Some(0),
            replicated_timeout_ms: Some(250),
            ..none
        })
        .await
        .unwrap();
    let expected = pb::SetOptionsResponse {
        cache_bytes: 1 << 20,
        wal_keep_bytes: 1000,
        expiry_grace_ms: 0,
        replicated_timeout_ms: 250,
    };
    assert_eq!(now, expected);
    assert!(admin.stats().await.unwrap().cache_bytes_max < 2 << 20);
    let wrong = [
        ("expiry_grace", None, Some(u64::MAX)),
        ("replicated_timeout", Some(0), None),
        // A call would end before it.
        ("tenants.call_timeout_ms", Some(3_600_000), None),
    ];
    for (says, replicated_timeout_ms, expiry_grace_ms) in wrong {
        let request = pb::SetOptionsRequest {
            cache_bytes: Some(1),
            replicated_timeout_ms,
            expiry_grace_ms,
            ..none
        };
        let error = admin.set_options(request).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(admin.set_options(none).await.unwrap(), expected, "{says}");
    }
    assert!(client.get("k", "a").await.unwrap().is_some());
    drop(client);
    node.stop().await;
    node.reopen().await;
    let admin = node.admin().await;
    assert_eq!(admin.set_options(none).await.unwrap(), opened);
}

#[tokio::test(flavor = "multi_thread")]
async fn options_asked_for_with_a_tenants_token_then_no_such_service() {
    let node = TestNode::start("").await;
    let (_, token) = node.tenant("acme").await;
    let mut stub = pb::admin_client::AdminClient::new(node.channel().await);
    let mut request = Request::new(pb::SetOptionsRequest {
        cache_bytes: Some(1),
        ..pb::SetOptionsRequest::default()
    });
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let refused = within("answer", stub.set_options(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let admin = node.admin().await;
    let now = admin.set_options(pb::SetOptionsRequest::default()).await.unwrap();
    assert!(now.cache_bytes > 1);
}
