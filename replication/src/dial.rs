//! Connections to the peer: the one place that makes endpoints, with every default that matters set.
//!
//! What tonic and hyper would do by themselves, and what is done instead: windows of 2 and 5 MiB (16 and
//! 32: a gigabit at 80 ms needs 10), no keepalive at all (5 s, answered within 10, also while idle), no
//! connect timeout. Certificates are read for every attempt, so that renewed ones are used without a
//! restart.

use std::error::Error as _;

use strongroom::Epoch;
use tonic::transport::{Channel, Endpoint};

use crate::core::message::FenceOutcome;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{ReplicationConfig, split_host_port};
use crate::status::PeerStatus;
use crate::tls;
use crate::wire::v1::replication_client::ReplicationClient;
use crate::wire::{self, MESSAGE_BYTES_MAX, status_error};

/// HTTP/2 flow control of one stream, both sides.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 16 << 20;
/// HTTP/2 flow control of one connection, both sides.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

pub(crate) type Client = ReplicationClient<Channel>;

/// Dials the configured peer. `Invalid` without one, `Tls`, `Unreachable`, `Refused` (its certificate).
pub(crate) async fn dial(config: &ReplicationConfig) -> Result<Client> {
    let peer = config
        .peer
        .as_deref()
        .ok_or_else(|| Error::new(ErrorKind::Invalid, "peer: not configured"))?;
    let files = config
        .tls
        .as_ref()
        .ok_or_else(|| Error::new(ErrorKind::Invalid, "tls: not configured"))?;
    let (host, port) = split_host_port(peer)?;
    let name = config.peer_name.as_deref().unwrap_or(&host);
    let (tls, verifier) = tls::client_config(files, name, &config.timeouts)?;
    let authority = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let t = &config.timeouts;
    let endpoint = Endpoint::from_shared(format!("https://{authority}"))
        .and_then(|e| e.tls_config_with_verifier(tls, verifier))
        .map_err(|e| Error::new(ErrorKind::Tls, "the connection cannot be configured").with_source(e))?
        .connect_timeout(t.connect)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(t.keepalive_interval)
        .keep_alive_timeout(t.keepalive_timeout)
        .keep_alive_while_idle(true);
    let connect = async {
        #[cfg(feature = "sim")]
        if let Some(network) = config.network.clone() {
            let connector = crate::network::Connector(network);
            return endpoint.connect_with_connector(connector).await;
        }
        endpoint.connect().await
    };
    let channel = match tokio::time::timeout(t.connect.saturating_mul(2), connect).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(e)) => return Err(connect_error(e)),
        Err(_) => {
            return Err(Error::new(
                ErrorKind::Unreachable,
                "no connection to the peer in time",
            ));
        }
    };
    Ok(ReplicationClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX))
}

/// Tells a refused certificate from a peer that is not there, and says the innermost reason.
fn connect_error(error: tonic::transport::Error) -> Error {
    let (mut kind, mut reason) = (ErrorKind::Unreachable, error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        let io = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        if cause.is::<rustls::Error>() || io.is_some_and(|inner| inner.is::<rustls::Error>()) {
            kind = ErrorKind::Refused;
        }
        reason = cause.to_string();
        source = cause.source();
    }
    Error::new(kind, format!("no connection to the peer: {reason}")).with_source(error)
}

/// Bounds a call by `Timeouts::call`.
pub(crate) async fn within<T>(
    config: &ReplicationConfig,
    call: impl Future<Output = std::result::Result<T, tonic::Status>>,
) -> Result<T> {
    match tokio::time::timeout(config.timeouts.call, call).await {
        Ok(answer) => answer.map_err(status_error),
        Err(_) => Err(Error::new(
            ErrorKind::Unreachable,
            "no answer from the peer in time",
        )),
    }
}

/// Asks the peer who it is.
pub(crate) async fn ask(config: &ReplicationConfig) -> Result<PeerStatus> {
    let mut client = dial(config).await?;
    let reply = within(config, client.status(wire::encode_status_request(&config.node))).await?;
    Ok(wire::decode_status(reply.into_inner())?)
}

/// Tells the peer that `epoch` exists; its answer and its highest epoch.
pub(crate) async fn tell(
    config: &ReplicationConfig,
    database_id: [u8; 16],
    epoch: Epoch,
) -> Result<(FenceOutcome, Epoch)> {
    let mut client = dial(config).await?;
    let request = wire::encode_fence(&config.node, database_id, epoch);
    let reply = within(config, client.fence(request)).await?;
    Ok(wire::decode_fence_reply(&reply.into_inner())?)
}
