//! Peers that must not get in: no role, no authority, no TLS, no manners.

use std::sync::Arc;

use strongroom::Durability;
use strongroom::keys::MemoryKeys;
use strongroom_replication::{
    ErrorKind, Node, NodeRole, REPLICA_ROLE, ReplicationConfig, StartRole, TlsFiles,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;

/// A node that dials `a` with these certificates.
async fn intruder(pair: &Pair, tls: TlsFiles) -> Node {
    let mut config = ReplicationConfig::new(
        "intruder",
        pair.root.path().join("intruder/db"),
        StartRole::Standby,
    );
    config.peer = Some(pair.to_a.address.to_string());
    config.tls = Some(tls);
    impatient(&mut config);
    Node::start(config, Arc::new(MemoryKeys::new())).await.unwrap()
}

async fn alone(pair: &Pair) -> Node {
    let a = pair.start_a_alone().await;
    put(&a, "acme", "k", "v", Durability::Local).await.unwrap();
    a
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn certificate_without_the_role_then_refused() {
    let pair = Pair::new().await;
    let a = alone(&pair).await;
    for uris in [
        &[][..],
        &["strongroom://role/tenant"],
        &["strongroom://role/admin"],
    ] {
        let tls = pair
            .authority
            .issue(pair.root.path(), "intruder", uris, &pair.authority);
        let node = intruder(&pair, tls).await;
        let error = node.peer_status().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        until("the base copy is refused", || {
            node.status()
                .upstream
                .is_some_and(|u| u.error.is_some_and(|e| e.contains("PermissionDenied")))
        })
        .await;
        assert_eq!(node.state().role, NodeRole::Seeding);
        node.shutdown().await.unwrap();
    }
    assert!(a.status().standbys.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn certificate_of_another_authority_then_refused() {
    let pair = Pair::new().await;
    let _a = alone(&pair).await;
    let other = Authority::new();
    // It trusts the right authority, but is signed by another one.
    let tls = other.issue(pair.root.path(), "intruder", &[REPLICA_ROLE], &pair.authority);
    let node = intruder(&pair, tls).await;
    node.peer_status().await.unwrap_err();
    until("an error is reported", || {
        node.status().upstream.is_some_and(|u| u.error.is_some())
    })
    .await;
    assert_eq!(node.state().role, NodeRole::Seeding);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn primary_that_cannot_prove_itself_then_not_followed() {
    let pair = Pair::new().await;
    let mut config = pair.config_a();
    config.serve_without_peer = true;
    // Right authority and address, no replication role: a tenant's certificate, say.
    let tls = pair.authority.issue(
        pair.root.path(),
        "fake",
        &["strongroom://role/tenant"],
        &pair.authority,
    );
    config.tls = Some(tls);
    let a = pair.start_a_with(config).await;
    role(&a, NodeRole::Primary).await;
    let b = pair.start_b().await;
    let error = b.peer_status().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    a.shutdown().await.unwrap();
    // Another authority altogether.
    let other = Authority::new();
    let mut config = pair.config_a();
    config.serve_without_peer = true;
    config.tls = Some(other.issue(pair.root.path(), "fake", &[REPLICA_ROLE], &other));
    let _a = pair.start_a_with(config).await;
    let error = b.peer_status().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert_eq!(b.state().role, NodeRole::Seeding);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn name_in_the_certificate_differs_then_not_followed() {
    let pair = Pair::new().await;
    let _a = alone(&pair).await;
    let mut config = pair.config_b();
    config.peer_name = Some("elsewhere.example".into());
    let b = Node::start(config, pair.b.keys.clone()).await.unwrap();
    assert_eq!(b.peer_status().await.unwrap_err().kind(), ErrorKind::Refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn plaintext_and_noise_then_connection_closed_and_service_unharmed() {
    let pair = Pair::new().await;
    let (a, b) = pair.start().await;
    let mut noise = vec![0u8; 100_000];
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    for byte in &mut noise {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        *byte = x as u8;
    }
    let openings: [&[u8]; 4] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\xff\xff\x01\x00\x00",
        &noise,
    ];
    for opening in openings {
        let mut socket = TcpStream::connect(a.listen_addr().unwrap()).await.unwrap();
        // The other side may hang up while we still write.
        let _ = socket.write_all(opening).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ = within("the connection is closed", socket.read_to_end(&mut answer)).await;
        assert!(answer.len() < 100, "nothing but an alert");
    }
    put(&a, "acme", "k", "v", Durability::Replicated).await.unwrap();
    assert!(get(&b, "acme", "k").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn missing_certificates_then_the_node_does_not_start() {
    let pair = Pair::new().await;
    let mut config = pair.config_a();
    config.tls = Some(TlsFiles {
        ca: "/nowhere".into(),
        cert: "/nowhere".into(),
        key: "/nowhere".into(),
    });
    let Err(error) = Node::start(config, pair.a.keys.clone()).await else {
        panic!("started")
    };
    assert_eq!(error.kind(), ErrorKind::Tls);
    let mut config = pair.config_a();
    config.tls = None;
    let Err(error) = Node::start(config, pair.a.keys.clone()).await else {
        panic!("started")
    };
    assert_eq!(error.kind(), ErrorKind::Invalid);
}
