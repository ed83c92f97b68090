//! Standbys that do not behave, spoken with the committed stubs.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use strongroom::Durability;
use strongroom_replication::{Node, NodeRole};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status, Streaming};

use crate::harness::*;
use crate::v1::replication_client::ReplicationClient;
use crate::v1::{self, primary_message::Message as FromPrimary, standby_message::Message as FromStandby};

/// A primary that has everything from the start of its WAL, and a client with a good certificate.
struct Stage {
    pair: Pair,
    a: Node,
    channel: Channel,
    client: ReplicationClient<Channel>,
}

async fn stage(change: impl FnOnce(&mut strongroom_replication::ReplicationConfig)) -> Stage {
    let pair = Pair::new().await;
    let mut config = pair.config_a();
    config.serve_without_peer = true;
    change(&mut config);
    let a = pair.start_a_with(config).await;
    role(&a, NodeRole::Primary).await;
    let read = |path: &std::path::Path| std::fs::read(path).unwrap();
    let tls = ClientTlsConfig::new()
        .domain_name("127.0.0.1")
        .ca_certificate(Certificate::from_pem(read(&pair.b.tls.ca)))
        .identity(Identity::from_pem(read(&pair.b.tls.cert), read(&pair.b.tls.key)));
    let endpoint = Endpoint::from_shared(format!("https://{}", a.listen_addr().unwrap())).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    Stage {
        pair,
        a,
        client: ReplicationClient::new(channel.clone()),
        channel,
    }
}

impl Stage {
    /// A standby that has the empty beginning of this primary's WAL.
    fn hello(&self) -> v1::Hello {
        let status = engine(&self.a).status();
        v1::Hello {
            protocol: 1,
            database_id: status.database_id.to_vec().into(),
            node: "b".into(),
            session: vec![9; 16].into(),
            epochs: Vec::new(),
            highest_epoch: status.epoch.0,
            durable_epoch: status.epoch.0,
            durable_lsn: 0,
            durable_chain: vec![0; 16].into(),
            keystore_version: 0,
        }
    }

    async fn open(
        &mut self,
        hello: v1::Hello,
    ) -> Result<(mpsc::Sender<v1::StandbyMessage>, Streaming<v1::PrimaryMessage>), Status> {
        let (out, rx) = mpsc::channel(16);
        out.send(v1::StandbyMessage {
            message: Some(FromStandby::Hello(hello)),
        })
        .await
        .unwrap();
        let inbound = within("an answer", self.client.stream(ReceiverStream::new(rx))).await?;
        Ok((out, inbound.into_inner()))
    }

    async fn open_keys(&mut self) -> (mpsc::Sender<v1::KeysMessage>, Streaming<v1::KeysChunk>) {
        let hello = v1::KeysHello {
            protocol: 1,
            database_id: Default::default(),
            session: vec![9; 16].into(),
            node: "b".into(),
            since: 0,
            epoch: self.a.state().epoch.0,
        };
        let (out, rx) = mpsc::channel(16);
        let message = v1::keys_message::Message::Hello(hello);
        out.send(v1::KeysMessage {
            message: Some(message),
        })
        .await
        .unwrap();
        let inbound = within("an answer", self.client.keys(ReceiverStream::new(rx)))
            .await
            .unwrap();
        (out, inbound.into_inner())
    }
}

fn keys_ack(version: u64) -> v1::KeysMessage {
    v1::KeysMessage {
        message: Some(v1::keys_message::Message::Ack(v1::KeysAck { version })),
    }
}

fn ack(epoch: u64, received: u64, durable: u64, applied: u64) -> v1::StandbyMessage {
    let ack = v1::Ack {
        epoch,
        received_lsn: received,
        durable_lsn: durable,
        applied_lsn: applied,
    };
    v1::StandbyMessage {
        message: Some(FromStandby::Ack(ack)),
    }
}

async fn next(inbound: &mut Streaming<v1::PrimaryMessage>) -> Option<FromPrimary> {
    within("a message", inbound.message())
        .await
        .unwrap()
        .map(|m| m.message.unwrap())
}

/// The next message that is no heartbeat; None at the end of the stream.
async fn next_but_heartbeats(inbound: &mut Streaming<v1::PrimaryMessage>) -> Option<FromPrimary> {
    loop {
        match within("a message", inbound.message()).await {
            Ok(Some(message)) => match message.message.unwrap() {
                FromPrimary::Heartbeat(_) => {}
                other => return Some(other),
            },
            Ok(None) | Err(_) => return None,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keys_not_acknowledged_then_no_wal_is_sent() {
    let mut stage = stage(|_| {}).await;
    put(&stage.a, "acme", "k", "v", Durability::Local).await.unwrap();
    let hello = stage.hello();
    let (_out, mut inbound) = stage.open(hello).await.unwrap();
    assert!(matches!(next(&mut inbound).await, Some(FromPrimary::HelloOk(_))));
    // Heartbeats tell that time passes and that the stream is not simply stuck.
    for _ in 0..5 {
        assert!(
            matches!(next(&mut inbound).await, Some(FromPrimary::Heartbeat(_))),
            "WAL before its keys"
        );
    }
    let (keys_out, mut keys) = stage.open_keys().await;
    let chunk = within("the keys", keys.message()).await.unwrap().unwrap();
    assert!(chunk.total_bytes > 0);
    // Sent is not yet acknowledged.
    for _ in 0..3 {
        assert!(
            matches!(next(&mut inbound).await, Some(FromPrimary::Heartbeat(_))),
            "WAL before its keys"
        );
    }
    keys_out.send(keys_ack(chunk.version)).await.unwrap();
    let Some(FromPrimary::Wal(wal)) = next_but_heartbeats(&mut inbound).await else {
        panic!("no WAL")
    };
    assert_eq!(wal.first_lsn, 0);
    assert_eq!(wal.crc32, crc32fast::hash(&wal.data));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn standby_that_never_acknowledges_then_dropped_and_window_respected() {
    let mut stage = stage(|config| {
        config.timeouts.progress = Duration::from_millis(500);
        config.window_bytes = 1 << 20;
    })
    .await;
    for i in 0..8 {
        put(
            &stage.a,
            "acme",
            &format!("{i}"),
            vec![1; 400_000],
            Durability::Local,
        )
        .await
        .unwrap();
    }
    let hello = stage.hello();
    let (_out, mut inbound) = stage.open(hello).await.unwrap();
    let (keys_out, mut keys) = stage.open_keys().await;
    let chunk = within("the keys", keys.message()).await.unwrap().unwrap();
    keys_out.send(keys_ack(chunk.version)).await.unwrap();
    let mut received = 0;
    while let Some(message) = next_but_heartbeats(&mut inbound).await {
        if let FromPrimary::Wal(wal) = message {
            received += wal.data.len();
        }
    }
    assert!(
        received > 0 && received <= 1 << 20,
        "{received} bytes without an acknowledgement"
    );
    until("the standby counts as gone", || {
        stage.a.status().standbys.iter().all(|s| !s.connected)
    })
    .await;
    put(&stage.a, "acme", "after", "v", Durability::Local)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn impossible_acknowledgements_then_stream_ended_and_nothing_confirmed() {
    let mut stage = stage(|config| config.engine.replicated_timeout = Duration::from_millis(300)).await;
    put(&stage.a, "acme", "k", "v", Durability::Local).await.unwrap();
    let epoch = stage.a.state().epoch.0;
    let table = [
        ("beyond what was sent", ack(epoch, u64::MAX, u64::MAX, u64::MAX)),
        ("durable before received", ack(epoch, 0, 100, 0)),
        ("applied before durable", ack(epoch, 100, 0, 100)),
        ("a newer epoch", ack(epoch + (1 << 32), 0, 0, 0)),
        (
            "a second hello",
            v1::StandbyMessage {
                message: Some(FromStandby::Hello(stage.hello())),
            },
        ),
        ("nothing", v1::StandbyMessage { message: None }),
    ];
    for (what, message) in table {
        let hello = stage.hello();
        let (out, mut inbound) = stage.open(hello).await.unwrap();
        let (keys_out, mut keys) = stage.open_keys().await;
        let chunk = within("the keys", keys.message()).await.unwrap().unwrap();
        keys_out.send(keys_ack(chunk.version)).await.unwrap();
        out.send(message).await.unwrap();
        while let Some(message) = next_but_heartbeats(&mut inbound).await {
            assert!(
                matches!(message, FromPrimary::HelloOk(_) | FromPrimary::Wal(_)),
                "{what}"
            );
        }
    }
    assert_eq!(engine(&stage.a).status().replicated.0, 0);
    let error = put(&stage.a, "acme", "k", "v", Durability::Replicated)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), strongroom::ErrorKind::Unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn key_acknowledgement_from_the_future_then_stream_ended() {
    let mut stage = stage(|_| {}).await;
    put(&stage.a, "acme", "k", "v", Durability::Local).await.unwrap();
    let hello = stage.hello();
    let (_out, mut inbound) = stage.open(hello).await.unwrap();
    let (keys_out, mut keys) = stage.open_keys().await;
    let _ = within("the keys", keys.message()).await.unwrap().unwrap();
    keys_out.send(keys_ack(u64::MAX)).await.unwrap();
    while let Some(message) = next_but_heartbeats(&mut inbound).await {
        assert!(matches!(message, FromPrimary::HelloOk(_)), "no WAL");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn second_stream_of_the_same_name_then_replaces_the_first() {
    let mut stage = stage(|_| {}).await;
    let hello = stage.hello();
    let (_out, mut first) = stage.open(hello).await.unwrap();
    assert!(matches!(next(&mut first).await, Some(FromPrimary::HelloOk(_))));
    let hello = stage.hello();
    let (_out, mut second) = stage.open(hello).await.unwrap();
    assert!(matches!(next(&mut second).await, Some(FromPrimary::HelloOk(_))));
    while next_but_heartbeats(&mut first).await.is_some() {}
    assert_eq!(stage.a.status().standbys.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hello_verdicts_over_the_wire() {
    let mut stage = stage(|_| {}).await;
    put(&stage.a, "acme", "k", "v", Durability::Local).await.unwrap();
    let end = engine(&stage.a).status().durable.0;
    let mut verdict = async |change: &dyn Fn(&mut v1::Hello)| {
        let mut hello = stage.hello();
        change(&mut hello);
        let (_out, mut inbound) = stage.open(hello).await?;
        Ok::<_, Status>(next(&mut inbound).await.unwrap())
    };
    assert!(matches!(verdict(&|_| {}).await, Ok(FromPrimary::HelloOk(_))));
    assert!(matches!(
        verdict(&|h| h.database_id = vec![1; 16].into()).await,
        Ok(FromPrimary::WrongDatabase(_))
    ));
    assert!(matches!(
        verdict(&|h| h.durable_chain = vec![1; 16].into()).await,
        Ok(FromPrimary::Diverged(_))
    ));
    assert!(matches!(
        verdict(&|h| h.durable_lsn = 1).await,
        Ok(FromPrimary::Diverged(_))
    ));
    assert!(matches!(
        verdict(&|h| h.durable_lsn = end + 1).await,
        Ok(FromPrimary::Diverged(_))
    ));
    assert!(matches!(
        verdict(&|h| h.durable_lsn = u64::MAX).await,
        Ok(FromPrimary::Diverged(_))
    ));
    assert!(matches!(
        verdict(&|h| h.durable_epoch = 0).await,
        Ok(FromPrimary::TooFarBehind(_))
    ));
    assert_eq!(
        verdict(&|h| h.protocol = 2).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    assert_eq!(
        verdict(&|h| h.node = "../a".into()).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        verdict(&|h| h.session = vec![1].into()).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    // Last, for it ends the reign.
    let newer = verdict(&|h| h.highest_epoch += 1 << 32).await;
    assert!(matches!(newer, Ok(FromPrimary::Younger(_))), "{newer:?}");
    state(&stage.a, "stepped down", |s| s.role != NodeRole::Primary).await;
    drop(stage.pair);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fence_calls_table() {
    let mut stage = stage(|_| {}).await;
    put(&stage.a, "acme", "k", "v", Durability::Local).await.unwrap();
    let status = engine(&stage.a).status();
    let good = v1::FenceRequest {
        protocol: 1,
        node: "b".into(),
        database_id: status.database_id.to_vec().into(),
        epoch: status.epoch.0 + (1 << 32),
    };
    let mut fence = async |change: &dyn Fn(&mut v1::FenceRequest)| {
        let mut request = good.clone();
        change(&mut request);
        let reply = within("an answer", stage.client.fence(request)).await?;
        Ok::<_, Status>(reply.into_inner().outcome())
    };
    use v1::fence_reply::Outcome;
    assert_eq!(
        fence(&|f| f.epoch = 0).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        fence(&|f| f.protocol = 9).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    assert_eq!(
        fence(&|f| f.database_id = vec![1; 16].into()).await.unwrap(),
        Outcome::WrongDatabase
    );
    assert_eq!(
        fence(&|f| f.epoch = status.epoch.0).await.unwrap(),
        Outcome::NotHigher
    );
    assert_eq!(fence(&|f| f.epoch = 1).await.unwrap(), Outcome::NotHigher);
    assert_eq!(stage.a.state().role, NodeRole::Primary);
    assert_eq!(fence(&|_| {}).await.unwrap(), Outcome::Recorded);
    state(&stage.a, "stepped down", |s| s.role == NodeRole::Waiting).await;
    assert_eq!(fence(&|_| {}).await.unwrap(), Outcome::Harmless);
    assert_eq!(
        fence(&|f| f.epoch = status.epoch.0).await.unwrap(),
        Outcome::NotHigher
    );
}

/// Every method, fed with bytes that are no message of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn garbage_frames_then_an_error_each_and_service_unharmed() {
    let mut stage = stage(|_| {}).await;
    put(&stage.a, "acme", "k", "v", Durability::Local).await.unwrap();
    let garbage: [&[u8]; 6] = [
        b"\xff",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x08\x01",
        &[0x80; 64],
        &[0x0a, 0x00],
        b"",
    ];
    for bytes in garbage {
        for method in ["Stream", "Keys", "FetchBase", "Fence", "Status"] {
            let call = raw_call(stage.channel.clone(), method, Bytes::copy_from_slice(bytes));
            let outcome = within("an answer", call).await;
            // Status asks for nothing but the protocol, which this message names.
            let fine = method == "Status" && bytes == b"\x08\x01";
            assert_eq!(outcome.is_ok(), fine, "{method} {bytes:?} {outcome:?}");
        }
    }
    let request = v1::StatusRequest {
        protocol: 1,
        node: "b".into(),
    };
    let reply = stage.client.status(request).await.unwrap().into_inner();
    assert_eq!(reply.role(), v1::status_reply::Role::Primary);
    put(&stage.a, "acme", "k", "v", Durability::Local).await.unwrap();
}

/// Sends `bytes` as the only message of `method`.
async fn raw_call(channel: Channel, method: &str, bytes: Bytes) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|e| Status::unavailable(e.to_string()))?;
    let path = format!("/strongroom.replication.v1.Replication/{method}")
        .parse()
        .unwrap();
    let request = tonic::Request::new(tokio_stream::once(bytes));
    let mut inbound = grpc.streaming(request, path, Raw).await?.into_inner();
    inbound.message().await.map(drop)
}

/// Bytes as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
