//! turmoil's TCP as the network of nodes.

use std::io;
use std::net::SocketAddr;

use strongroom_replication::network::{Connection, Incoming, Later, Network};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use turmoil::net::{TcpListener, TcpStream};

/// Inside a turmoil host, its network.
#[derive(Debug)]
pub struct SimulatedTcp;

impl Network for SimulatedTcp {
    fn listen(&self, address: SocketAddr) -> Later<(SocketAddr, Incoming)> {
        Box::pin(async move {
            let listener = TcpListener::bind(address).await?;
            let bound = listener.local_addr()?;
            let (sender, receiver) = mpsc::channel::<io::Result<Connection>>(16);
            tokio::spawn(async move {
                loop {
                    let accepted = tokio::select! {
                        () = sender.closed() => return,
                        accepted = listener.accept() => accepted,
                    };
                    let connection = accepted.map(|(stream, from)| Connection::new(stream, from));
                    if sender.send(connection).await.is_err() {
                        return;
                    }
                }
            });
            let incoming: Incoming = Box::pin(ReceiverStream::new(receiver));
            Ok((bound, incoming))
        })
    }

    fn connect(&self, host: String, port: u16) -> Later<Connection> {
        Box::pin(async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            let remote = stream.peer_addr()?;
            Ok(Connection::new(stream, remote))
        })
    }
}
