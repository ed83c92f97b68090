//! A network other than the machine's, for simulation: where listeners and connections come from when
//! `ReplicationConfig::network` is set. Everything above is the real thing: TLS, HTTP/2, gRPC.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::Stream;
use tonic::codegen::Service;
use tonic::transport::Uri;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// A future of a [`Network`].
pub type Later<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;
/// Connections as they arrive.
pub type Incoming = Pin<Box<dyn Stream<Item = io::Result<Connection>> + Send>>;

/// Makes listeners and connections.
pub trait Network: Send + Sync + Debug {
    /// Listens: the address, with its real port, and what arrives there until it is dropped.
    fn listen(&self, address: SocketAddr) -> Later<(SocketAddr, Incoming)>;
    /// Connects.
    fn connect(&self, host: String, port: u16) -> Later<Connection>;
}

/// What a [`Network`] carries bytes with.
pub trait Bytestream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytestream for T {}

/// A connection.
pub struct Connection {
    stream: Box<dyn Bytestream>,
    remote: SocketAddr,
}

impl Connection {
    /// Over `stream`, to or from `remote`.
    pub fn new(stream: impl Bytestream + 'static, remote: SocketAddr) -> Connection {
        Connection {
            stream: Box::new(stream),
            remote,
        }
    }
}

impl Connected for Connection {
    // The same as of the machine's connections, since that is where the service looks for certificates.
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo {
            local_addr: None,
            remote_addr: Some(self.remote),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}

/// Connects endpoints through a [`Network`].
pub(crate) struct Connector(pub(crate) Arc<dyn Network>);

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Later<TokioIo<Connection>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (host, port) = (uri.host().unwrap_or_default().to_owned(), uri.port_u16());
        let connecting = self.0.connect(host, port.unwrap_or_default());
        Box::pin(async move { Ok(TokioIo::new(connecting.await?)) })
    }
}
