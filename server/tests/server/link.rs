//! A link between two nodes that can be broken: a TCP proxy on loopback.
//!
//! Bytes that may not pass are kept, as the network's senders would keep them: after healing they arrive, in
//! order, once. A cut link resets its connections and refuses new ones.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What a link does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Bytes pass.
    Whole,
    /// Nothing the dialling node sends arrives; what it is sent does.
    HoldsDialler,
    /// Nothing reaches the dialling node; what it sends arrives.
    HoldsDialled,
    /// Nothing passes, and nobody is told.
    HoldsBoth,
    /// Connections are reset, new ones closed at once.
    Cut,
}

impl Mode {
    fn holds(self, from_dialler: bool) -> bool {
        match self {
            Mode::Whole | Mode::Cut => false,
            Mode::HoldsDialler => from_dialler,
            Mode::HoldsDialled => !from_dialler,
            Mode::HoldsBoth => true,
        }
    }
}

/// The link. Gone when dropped.
pub struct Link {
    /// Dial this instead.
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
}

impl Link {
    /// To the node that listens at `target`.
    pub async fn to(target: SocketAddr) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Whole);
        tokio::spawn(async move {
            let mut gone = modes.clone();
            let accepting = async {
                loop {
                    let Ok((dialler, _)) = listener.accept().await else {
                        return;
                    };
                    if *modes.borrow() != Mode::Cut {
                        tokio::spawn(connection(dialler, target, modes.clone()));
                    }
                }
            };
            tokio::select! {
                () = accepting => {}
                _ = gone.wait_for(|_| false) => {}
            }
        });
        Link { address, mode }
    }

    /// From now on.
    pub fn becomes(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn connection(dialler: TcpStream, target: SocketAddr, modes: watch::Receiver<Mode>) {
    let Ok(dialled) = TcpStream::connect(target).await else {
        return;
    };
    let mut cut = modes.clone();
    let ((a_in, a_out), (b_in, b_out)) = (dialler.into_split(), dialled.into_split());
    tokio::select! {
        () = pump(a_in, b_out, true, modes.clone()) => {}
        () = pump(b_in, a_out, false, modes) => {}
        // Also when the link is dropped.
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

/// Until one end closes.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    from_dialler: bool,
    mut modes: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if modes.wait_for(|mode| !mode.holds(from_dialler)).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
