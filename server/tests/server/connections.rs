//! Who may connect, and what happens to those who speak nonsense.

use std::net::SocketAddr;

use strongroom_client::proto::admin as pb;
use strongroom_client::{AdminClient, AdminConfig, Client, ClientConfig, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Request;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::link::{Link, Mode};
use crate::pki::Authority;
use crate::{TestNode, refused, within};

#[tokio::test(flavor = "multi_thread")]
async fn certificate_of_another_role_or_authority_then_no_administration() {
    let node = TestNode::start("").await;
    for role in [None, Some("replica"), Some("Admin"), Some("admin/x"), Some("")] {
        let pair = node.admin_ca.issue("wrong", role);
        let admin = node.admin_as(&pair).await.unwrap();
        refused(admin.status().await, Kind::PermissionDenied);
        refused(admin.create_tenant("x").await, Kind::PermissionDenied);
        let smaller = pb::SetOptionsRequest {
            cache_bytes: Some(1),
            ..pb::SetOptionsRequest::default()
        };
        refused(admin.set_options(smaller).await, Kind::PermissionDenied);
    }
    // Right role, wrong authority: the tenants' own.
    let foreign = node.tenants_ca.issue("operator", Some("admin"));
    // TLS 1.3 tells a client that its certificate was refused only after its first bytes.
    match node.admin_as(&foreign).await {
        Err(error) => assert!(
            matches!(error.kind(), Kind::Unauthenticated | Kind::Unavailable),
            "{error:?}"
        ),
        Ok(admin) => {
            let kind = admin.status().await.unwrap_err().kind();
            assert!(
                matches!(kind, Kind::Unavailable | Kind::Unauthenticated),
                "{kind:?}"
            );
        }
    }
    assert!(node.admin().await.list_tenants(0, 0).await.unwrap().0.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn client_without_a_certificate_then_no_administration() {
    let node = TestNode::start("").await;
    let tls = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(node.admin_ca.pem()));
    let endpoint = tonic::transport::Endpoint::from_shared(node.admin_endpoint())
        .unwrap()
        .tls_config(tls)
        .unwrap();
    if let Ok(channel) = within("connection", endpoint.connect()).await {
        let mut stub = pb::admin_client::AdminClient::new(channel.clone());
        assert!(within("answer", stub.status(pb::StatusRequest {})).await.is_err());
        let mut health = HealthClient::new(channel);
        assert!(
            within(
                "answer",
                health.check(HealthCheckRequest {
                    service: String::new()
                })
            )
            .await
            .is_err()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_of_another_authority_then_the_client_refuses_it() {
    let node = TestNode::start("").await;
    let (_, token) = node.tenant("acme").await;
    let stranger = Authority::new(node.dir.path(), "stranger");
    let mut config = node.client_config(&token);
    config.ca_pem = Some(stranger.pem());
    refused(
        within("refusal", Client::connect(config)).await,
        Kind::Unauthenticated,
    );
    let config = AdminConfig::new(
        node.admin_endpoint(),
        stranger.pem(),
        node.operator.cert_pem(),
        node.operator.key_pem(),
    );
    refused(
        within("refusal", AdminClient::connect(config)).await.map(drop),
        Kind::Unauthenticated,
    );
}

/// Sends bytes; the server must close the connection without an answer that could be taken for one of a service.
async fn shut_out(address: SocketAddr, bytes: &[u8]) {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    // The server may close before it has read everything.
    let _ = tcp.write_all(bytes).await;
    let _ = tcp.shutdown().await;
    let mut answer = Vec::new();
    let _ = within("the connection to close", tcp.read_to_end(&mut answer)).await;
    // At most a TLS alert: content type 21.
    assert!(answer.first().is_none_or(|first| *first == 21), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_plaintext_on_tls_ports_then_shut_out_and_others_served() {
    let node = TestNode::start("").await;
    let (client, token) = node.tenant("acme").await;
    let addresses = node.app().addresses();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = vec![0; 64 << 10];
    for byte in &mut noise {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
    let mut hello_cut = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    hello_cut.extend_from_slice(&noise[..100]);
    for address in [addresses.tenants, addresses.admin] {
        for bytes in [
            &b""[..],
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
            &preface,
            &noise,
            &hello_cut,
        ] {
            shut_out(address, bytes).await;
        }
    }
    let mut config = ClientConfig::new([format!("http://{}", addresses.tenants)], token);
    config.insecure = true;
    config.failover_timeout = std::time::Duration::from_millis(200);
    refused(
        within("refusal", Client::connect(config)).await,
        Kind::Unavailable,
    );
    client.put("k", "a", "1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_inside_tls_then_shut_out_and_others_served() {
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    let frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x01\xff\0\0\0\x01";
    for bytes in [&b"hello"[..], b"GET / HTTP/1.1\r\n\r\n", frames, &[0; 40_000]] {
        let mut tls = node.tls().await;
        let _ = tls.write_all(bytes).await;
        let _ = tls.shutdown().await;
        let mut answer = Vec::new();
        let _ = within("the connection to close", tls.read_to_end(&mut answer)).await;
    }
    client.put("k", "a", "1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_most_then_closed_until_one_leaves() {
    let node = TestNode::start("connections_max = 2\nhandshake_timeout_ms = 60000\n").await;
    let address = node.app().addresses().tenants;
    let first = TcpStream::connect(address).await.unwrap();
    let _second = TcpStream::connect(address).await.unwrap();
    // The third may be accepted before the first two are counted; then one of those two was closed instead.
    shut_out(address, b"").await;
    drop(first);
    within("a free slot", async {
        loop {
            let tls = tonic::transport::ClientTlsConfig::new()
                .ca_certificate(tonic::transport::Certificate::from_pem(node.tenants_ca.pem()));
            let endpoint = tonic::transport::Endpoint::from_shared(node.tenants())
                .unwrap()
                .tls_config(tls)
                .unwrap();
            if endpoint.connect().await.is_ok() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_stopped_answering_then_the_next_read_goes_to_another_endpoint() {
    let node = TestNode::start("").await;
    let (other, token) = node.tenant("acme").await;
    other.put("k", "a", "1").await.unwrap();
    let link = Link::to(node.app().addresses().tenants).await;
    let mut config = node.client_config(&token);
    config.endpoints.insert(0, format!("https://{}", link.address));
    config.request_timeout = std::time::Duration::from_millis(300);
    let client = within("connection", Client::connect(config)).await.unwrap();
    link.becomes(Mode::HoldsBoth);
    refused(client.get("k", "a").await, Kind::Timeout);
    assert_eq!(client.get("k", "a").await.unwrap().unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_then_closed_in_time() {
    let node = TestNode::start("handshake_timeout_ms = 200\n").await;
    // No handshake at all.
    let mut tcp = TcpStream::connect(node.app().addresses().tenants).await.unwrap();
    let mut answer = Vec::new();
    let _ = within("the connection to close", tcp.read_to_end(&mut answer)).await;
    assert!(answer.is_empty());
    // A handshake, then nothing.
    let mut tls = node.tls().await;
    let _ = within("the connection to close", tls.read_to_end(&mut Vec::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_asked_then_it_follows_the_role() {
    let node = TestNode::start("").await;
    let mut health = HealthClient::new(node.channel().await);
    let check = |service: &str| HealthCheckRequest {
        service: service.into(),
    };
    // Each watch tells the present state first, then every change.
    let mut watch = health
        .watch(check("strongroom.kv.v1.Kv"))
        .await
        .unwrap()
        .into_inner();
    within("serving", async {
        while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    })
    .await;
    assert_eq!(
        health.check(check("")).await.unwrap().into_inner().status(),
        ServingStatus::Serving
    );
    assert_eq!(
        health.check(check("nothing")).await.unwrap_err().code(),
        tonic::Code::NotFound
    );
    node.admin().await.fence(None).await.unwrap();
    within("not serving", async {
        while watch.message().await.unwrap().unwrap().status() != ServingStatus::NotServing {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_asked_then_the_services_are_named() {
    let node = TestNode::start("").await;
    let mut reflection = ServerReflectionClient::new(node.channel().await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = reflection
        .server_reflection_info(Request::new(tokio_stream::once(ask)))
        .await
        .unwrap()
        .into_inner();
    let answer = within("answer", answers.message()).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = list.service.iter().map(|s| s.name.as_str()).collect();
    assert!(
        names.contains(&"strongroom.kv.v1.Kv") && names.contains(&"grpc.health.v1.Health"),
        "{names:?}"
    );
    assert!(!names.contains(&"strongroom.admin.v1.Admin"), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn administration_asked_on_the_tenants_listener_then_unknown() {
    let node = TestNode::start("").await;
    let mut stub = pb::admin_client::AdminClient::new(node.channel().await);
    let status = stub.status(pb::StatusRequest {}).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}
