//! The object servers embed. Signatures first; bodies follow.
#![allow(clippy::todo, unused_variables)]

use std::net::SocketAddr;
use std::sync::Arc;

use strongroom::keys::KeyProvider;
use strongroom::{Engine, Epoch, Promotion};
use tokio::sync::watch;

use crate::error::Result;
use crate::options::ReplicationConfig;
use crate::status::{NodeState, NodeStatus, PeerStatus};

/// One node of a pair: owns the engine, its role, the listener and every task. Cheap to clone; all clones
/// are one node. Dropping the last clone stops the tasks without waiting; call [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Node;

impl Node {
    /// Starts the node: binds the listener, opens the engine if there is a database, starts the tasks.
    ///
    /// Returns once the listener is bound and the local engine is open (or known to be missing on a
    /// standby). The role may still be `Waiting` or `Seeding`: see [`watch`](Self::watch). Needs a tokio
    /// runtime with time and I/O.
    ///
    /// Errors: `Invalid` configuration, `Tls` files, `Io` (address in use), `Engine` (see its kind).
    pub async fn start(config: ReplicationConfig, keys: Arc<dyn KeyProvider>) -> Result<Node> {
        todo!()
    }

    /// Role and engine now.
    pub fn state(&self) -> NodeState {
        todo!()
    }

    /// Every change of role or engine; the current state is there at once.
    pub fn watch(&self) -> watch::Receiver<NodeState> {
        todo!()
    }

    /// The engine now, whatever the role; `None` while there is none.
    pub fn engine(&self) -> Option<Engine> {
        todo!()
    }

    /// Everything an operator asks.
    pub fn status(&self) -> NodeStatus {
        todo!()
    }

    /// Where the replication service listens, with the real port.
    pub fn listen_addr(&self) -> Option<SocketAddr> {
        todo!()
    }

    /// Asks the configured peer who it is. `Invalid` without a peer, `Unreachable`, `Refused`, `Tls`.
    pub async fn peer_status(&self) -> Result<PeerStatus> {
        todo!()
    }

    /// Makes this standby the primary: stops following, takes a never-used epoch durably, applies all
    /// durable WAL, serves; then tells the old primary in the background until it answers.
    ///
    /// `NotStandby` on a primary, and on a standby that has no data yet. Can be repeated after an error.
    pub async fn promote(&self) -> Result<Promotion> {
        todo!()
    }

    /// Tells this node that `epoch` exists elsewhere: it acknowledges nothing from now on, and follows
    /// its peer once that serves. `Engine`/`Invalid` if `epoch` is not higher than its own.
    pub async fn fence(&self, epoch: Epoch) -> Result<()> {
        todo!()
    }

    /// Stops tasks and listener, closes the engine. Fine to call twice.
    pub async fn shutdown(&self) -> Result<()> {
        todo!()
    }
}
