//! The gRPC service: who may call, what is called, nothing else. Decisions are in the modules it calls.
//!
//! Every call checks the peer's certificate for the replication role first and fails closed: no
//! certificate, no role, or one that cannot be read is PERMISSION_DENIED. (TLS has already refused peers of
//! another authority.)

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use strongroom::Epoch;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::transport::server::{Connected, Router, TcpIncoming};
use tonic::{Request, Response, Status, Streaming};
use tracing::{error, warn};

use crate::bootstrap;
use crate::core::epoch::Verdict;
use crate::core::message::{FenceOutcome, FromPrimary, FromStandby};
use crate::core::primary;
use crate::core::role::{Fencing, fencing};
use crate::dial::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use crate::error::{Error, ErrorKind, Result};
use crate::keystream;
use crate::sender;
use crate::shared::{Command, Shared};
use crate::signal::{Signal, blocking};
use crate::tls;
use crate::wire::v1::replication_server::{Replication, ReplicationServer};
use crate::wire::{self, MESSAGE_BYTES_MAX, Malformed, v1};

/// Streams of one connection: live WAL, keys, and a few calls.
const STREAMS_MAX: u32 = 32;

struct Service {
    shared: Arc<Shared>,
}

type Answer<T> = std::result::Result<Response<T>, Status>;

/// Binds the listener and serves until the node stops. The address, with its real port.
pub(crate) async fn listen(
    shared: Arc<Shared>,
    address: SocketAddr,
) -> Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    let config = shared.config.clone();
    let files = config
        .tls
        .as_ref()
        .ok_or_else(|| Error::new(ErrorKind::Invalid, "tls: not configured"))?;
    let tls = tls::server_config(files, &config.timeouts)?;
    let mut server = Server::builder()
        .tls_config(tls)
        .map_err(|e| Error::new(ErrorKind::Tls, "the certificates cannot be used").with_source(e))?
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(config.timeouts.keepalive_interval))
        .http2_keepalive_timeout(Some(config.timeouts.keepalive_timeout))
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(16 << 10);
    let failed = |e| {
        Error::new(
            ErrorKind::Io,
            format!("listening for replication on {address} failed"),
        )
        .with_source(e)
    };
    let stop = shared.stop.clone();
    let service = ReplicationServer::new(Service { shared })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let router = server.add_service(service);
    #[cfg(feature = "sim")]
    if let Some(network) = &config.network {
        let (bound, incoming) = network.listen(address).await.map_err(failed)?;
        return Ok((bound, tokio::spawn(serve(router, incoming, stop))));
    }
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let incoming = TcpIncoming::from(listener)
        .with_nodelay(Some(true))
        .with_keepalive(Some(Duration::from_secs(30)));
    Ok((bound, tokio::spawn(serve(router, incoming, stop))))
}

async fn serve<I, C>(router: Router, incoming: I, stop: Signal)
where
    I: Stream<Item = std::io::Result<C>>,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let served = router
        .serve_with_incoming_shutdown(incoming, async move { stop.raised().await })
        .await;
    if let Err(e) = served {
        error!(error = %e, "the replication listener failed");
    }
}

fn authorize<T>(request: &Request<T>) -> std::result::Result<(), Status> {
    let certs = request.peer_certs();
    let leaf = certs.as_ref().and_then(|certs| certs.first());
    let checked = match leaf {
        Some(leaf) => tls::check_role(leaf),
        None => Err("no client certificate"),
    };
    checked.map_err(|why| {
        warn!(peer = ?request.remote_addr(), why, "replication call refused");
        Status::permission_denied(why)
    })
}

/// The first message of a stream, in time.
async fn first<T>(shared: &Shared, inbound: &mut Streaming<T>) -> std::result::Result<T, Status> {
    match tokio::time::timeout(shared.config.timeouts.call, inbound.message()).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(Malformed("no first message").into()),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("no first message")),
    }
}

fn stopped(_: Error) -> Status {
    Status::unavailable("shutting down")
}

#[tonic::async_trait]
impl Replication for Service {
    type StreamStream = sender::Outgoing;
    type KeysStream = keystream::Outgoing;
    type FetchBaseStream = bootstrap::Outgoing;

    async fn stream(&self, request: Request<Streaming<v1::StandbyMessage>>) -> Answer<Self::StreamStream> {
        authorize(&request)?;
        let mut inbound = request.into_inner();
        let FromStandby::Hello(hello) = wire::decode_standby(first(&self.shared, &mut inbound).await?)?
        else {
            return Err(Malformed("first message is no Hello").into());
        };
        let Some(reign) = self.shared.reign() else {
            let shared = self.shared.clone();
            let who = blocking(move || shared.who()).await.map_err(stopped)?;
            return Ok(Response::new(sender::refuse(FromPrimary::NotPrimary {
                epoch: who.highest_epoch,
            })));
        };
        let (engine, asked) = (reign.engine.clone(), hello.clone());
        let verdict = blocking(move || primary::judge(&engine, &asked))
            .await
            .map_err(stopped)?
            .map_err(|e| Status::unavailable(format!("the WAL cannot be read: {e}")))?;
        match verdict {
            Verdict::Resume(_) => {
                let stream = sender::ship(self.shared.config.clone(), reign, hello, inbound).await?;
                return Ok(Response::new(stream));
            }
            Verdict::Younger(by) => {
                warn!(node = %hello.node, epoch = %by, "a standby recorded a newer epoch: stepping down");
                let fenced = sender::fence_self(reign.engine.clone(), by).await;
                if let Err(e) = fenced {
                    return Err(Status::unavailable(format!("stepping down failed: {e}")));
                }
                let _ = self.shared.commands.send(Command::Fenced);
            }
            _ => warn!(node = %hello.node, ?verdict, "a standby cannot resume"),
        }
        Ok(Response::new(sender::refuse(primary::refusal(
            verdict,
            reign.epoch,
        ))))
    }

    async fn keys(&self, request: Request<Streaming<v1::KeysMessage>>) -> Answer<Self::KeysStream> {
        authorize(&request)?;
        let mut inbound = request.into_inner();
        let hello = wire::decode_keys_standby(first(&self.shared, &mut inbound).await?)?;
        let reign = self.shared.reign().ok_or_else(not_primary)?;
        Ok(Response::new(
            keystream::serve(self.shared.config.timeouts.progress, reign, hello, inbound).await?,
        ))
    }

    async fn fetch_base(&self, request: Request<v1::BaseRequest>) -> Answer<Self::FetchBaseStream> {
        authorize(&request)?;
        let (node, database_id) = wire::decode_base_request(request.into_inner())?;
        let reign = self.shared.reign().ok_or_else(not_primary)?;
        let stream = bootstrap::serve(&self.shared.config, &self.shared.dirs, reign, node, database_id)?;
        Ok(Response::new(stream))
    }

    async fn fence(&self, request: Request<v1::FenceRequest>) -> Answer<v1::FenceReply> {
        authorize(&request)?;
        let (node, database_id, told) = wire::decode_fence(request.into_inner())?;
        let shared = self.shared.clone();
        let reply = blocking(move || fence(&shared, &node, database_id, told))
            .await
            .map_err(stopped)?;
        Ok(Response::new(reply))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::StatusReply> {
        authorize(&request)?;
        wire::check_protocol(request.into_inner().protocol)?;
        let shared = self.shared.clone();
        let who = blocking(move || shared.who()).await.map_err(stopped)?;
        Ok(Response::new(wire::encode_status(&who)))
    }
}

fn not_primary() -> Status {
    Status::failed_precondition("this node does not serve as primary")
}

/// Told of a newer epoch: records it if this node serves or means to.
fn fence(shared: &Shared, node: &str, database_id: [u8; 16], told: Epoch) -> v1::FenceReply {
    let who = shared.who();
    let outcome = match fencing(&who, database_id, told) {
        Fencing::Answer(outcome) => outcome,
        Fencing::Record => {
            warn!(caller = node, epoch = %told, "told of a newer primary: stepping down");
            match shared.state().engine.map(|engine| engine.fence(told)) {
                Some(Ok(())) => {
                    let _ = shared.commands.send(Command::Fenced);
                    FenceOutcome::Recorded
                }
                Some(Err(e)) => {
                    warn!(error = %e, "stepping down failed");
                    FenceOutcome::Undecided
                }
                None => FenceOutcome::Undecided,
            }
        }
    };
    let who = shared.who();
    wire::encode_fence_reply(outcome, who.highest_epoch, who.durable)
}
