//! Accepts connections: counts them, hurries their handshakes, and knows who is at the other end.
//!
//! tonic's own acceptor has no limit on connections or handshakes, no handshake timeout, and hides peers behind
//! wrapped streams. So this one stands in front of it:
//!
//! ```text
//! accept > one of `connections_max` > TLS handshake, in time > tonic (HTTP/2) > first bytes, in time
//! ```
//!
//! A connection over the limit is closed at once; it costs its peer a reconnect and this process nothing.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::auth::{Peer, roles};

/// After a failed accept (no file descriptors left, most likely): do not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a listener treats connections.
pub struct Rules {
    /// For logs: "tenants", "admin".
    pub name: &'static str,
    /// `None`: plaintext.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Connections at once.
    pub connections_max: usize,
    /// Longest handshake, and longest silence after it.
    pub handshake_timeout: Duration,
}

/// Accepts until `stop` turns true or is gone; yields connections whose handshake succeeded. Handshakes under way
/// are cut off then.
pub fn accept(
    listener: TcpListener,
    rules: Rules,
    mut stop: watch::Receiver<bool>,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(16);
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(rules.connections_max));
        let acceptor = rules.tls.map(TlsAcceptor::from);
        let mut handshakes = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                _ = ready.closed() => break,
                Some(_) = handshakes.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let (tcp, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(listener = rules.name, %error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else {
                tracing::warn!(listener = rules.name, %address, "too many connections, one closed");
                continue;
            };
            let (acceptor, ready) = (acceptor.clone(), ready.clone());
            handshakes.spawn(async move {
                let greeted = greet(tcp, address, acceptor, slot, rules.handshake_timeout);
                match tokio::time::timeout(rules.handshake_timeout, greeted).await {
                    // Fails only while stopping.
                    Ok(Ok(connection)) => drop(ready.send(Ok(connection)).await),
                    Ok(Err(error)) => {
                        tracing::info!(listener = rules.name, %address, %error, "handshake refused");
                    }
                    Err(_) => tracing::info!(listener = rules.name, %address, "handshake took too long"),
                }
            });
        }
    });
    ReceiverStream::new(connections)
}

async fn greet(
    tcp: TcpStream,
    address: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    slot: OwnedSemaphorePermit,
    patience: Duration,
) -> io::Result<Connection> {
    tcp.set_nodelay(true)?;
    let (stream, roles) = match acceptor {
        None => (Stream::Plain(tcp), Vec::new()),
        Some(acceptor) => {
            let tls = acceptor.accept(tcp).await?;
            let (_, session) = tls.get_ref();
            let roles = session
                .peer_certificates()
                .and_then(|chain| chain.first())
                .map(|leaf| roles(leaf));
            (Stream::Tls(Box::new(tls)), roles.unwrap_or_default())
        }
    };
    Ok(Connection {
        stream,
        peer: Peer {
            address,
            roles: roles.into(),
        },
        silent: Some(Box::pin(tokio::time::sleep(patience))),
        _slot: slot,
    })
}

/// One accepted connection; gives its slot back when dropped.
pub struct Connection {
    stream: Stream,
    peer: Peer,
    /// Runs until the first byte after the handshake: a peer that never speaks does not keep a slot.
    silent: Option<Pin<Box<Sleep>>>,
    _slot: OwnedSemaphorePermit,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(silent) = &mut self.silent
            && silent.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let read = match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        };
        ready!(read)?;
        self.silent = None;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Stream::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(tcp) => tcp.is_write_vectored(),
            Stream::Tls(tls) => tls.is_write_vectored(),
        }
    }
}
