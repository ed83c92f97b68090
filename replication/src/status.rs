//! What a node says of itself: plain data for servers, operators and tests.

use std::net::SocketAddr;
use std::time::Duration;

use strongroom::{Engine, Epoch, Lsn};

/// What a node is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeRole {
    /// To be primary, but not yet sure that nobody else is: serves nothing. [`NodeState::note`] says
    /// what it waits for.
    Waiting,
    /// Orders writes.
    Primary,
    /// Was primary; a newer epoch exists. Acknowledges nothing, and is turning into a standby.
    Fenced,
    /// An empty or replaced standby taking a base copy; has no readable data.
    Seeding,
    /// Follows (or tries to: see [`UpstreamStatus::connected`]); its engine may be read.
    Standby,
    /// Shut down, or unable to go on: [`NodeState::note`] says why.
    Stopped,
}

/// A node's role and engine at one moment; [`Node::watch`](crate::Node::watch) tells of every change.
#[derive(Clone)]
pub struct NodeState {
    /// What the node is doing.
    pub role: NodeRole,
    /// The engine behind it. Changes when a base copy replaced the data: take it from here for every
    /// request, do not keep it. `None` while there is none to read.
    pub engine: Option<Engine>,
    /// Epoch served in (primary) or followed (standby).
    pub epoch: Epoch,
    /// Why the role is what it is, for operators. Never data of a tenant.
    pub note: Option<String>,
}

impl NodeState {
    /// The engine, if it takes writes here.
    pub fn primary(&self) -> Option<&Engine> {
        self.engine.as_ref().filter(|_| self.role == NodeRole::Primary)
    }

    /// The engine, if it may be read here.
    pub fn readable(&self) -> Option<&Engine> {
        self.engine
            .as_ref()
            .filter(|_| matches!(self.role, NodeRole::Primary | NodeRole::Standby))
    }
}

/// Everything an operator asks of a node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Its name.
    pub node: String,
    /// What it is doing.
    pub role: NodeRole,
    /// Why.
    pub note: Option<String>,
    /// Where its replication service listens.
    pub listen: Option<SocketAddr>,
    /// The engine's own status.
    pub engine: Option<strongroom::Status>,
    /// On a primary: its standbys, connected or remembered.
    pub standbys: Vec<StandbyStatus>,
    /// On a standby: the primary it follows.
    pub upstream: Option<UpstreamStatus>,
    /// After a promotion: what became of the old primary.
    pub fencing: Option<FencingStatus>,
}

/// A standby as its primary sees it. `applied <= durable <= received <= sent`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StandbyStatus {
    /// Its name.
    pub node: String,
    /// Whether its WAL stream is up.
    pub connected: bool,
    /// WAL handed to the connection.
    pub sent: Lsn,
    /// WAL it has in memory or better.
    pub received: Lsn,
    /// WAL it has on stable storage.
    pub durable: Lsn,
    /// WAL it shows to readers.
    pub applied: Lsn,
    /// Keystore version it has made durable: a tenant deleted at or below it is shredded there.
    pub keystore_version: u64,
    /// Time since its last message.
    pub heard: Duration,
}

/// The primary as its standby sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct UpstreamStatus {
    /// Its address.
    pub address: String,
    /// Its name, once it was heard.
    pub node: Option<String>,
    /// Whether the WAL stream is up.
    pub connected: bool,
    /// Why not, if not.
    pub error: Option<String>,
    /// Its epoch, last heard.
    pub epoch: Epoch,
    /// End of its durable WAL, last heard: what lies between it and this node's durable end could be
    /// lost by a promotion now.
    pub end: Lsn,
    /// Time since its last message; `None` before the first.
    pub heard: Option<Duration>,
    /// Milliseconds since 1970, the primary's clock, of the newest WAL received: the age of reads here.
    pub primary_ms: Option<u64>,
    /// Bytes of a base copy received so far, while one runs.
    pub base_copy_bytes: Option<u64>,
}

/// How far the old primary has been told.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FencingStatus {
    /// The epoch it is told of.
    pub epoch: Epoch,
    /// Attempts so far.
    pub attempts: u64,
    /// Whether it answered that it recorded the epoch. Until then the standby's refusal is the only
    /// fence: nothing `Replicated` can be acknowledged there.
    pub done: bool,
    /// Last failure.
    pub error: Option<String>,
}

/// What a peer answers when asked who it is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Its name.
    pub node: String,
    /// What it is doing.
    pub role: NodeRole,
    /// Its database; `None` while it has none.
    pub database_id: Option<[u8; 16]>,
    /// Epoch it serves in or follows.
    pub epoch: Epoch,
    /// Highest epoch it recorded.
    pub highest_epoch: Epoch,
    /// Newer epoch it was fenced by.
    pub fenced_by: Option<Epoch>,
    /// End of its WAL on stable storage.
    pub durable: Lsn,
    /// What its readers see.
    pub applied: Lsn,
    /// Its keystore version.
    pub keystore_version: u64,
}
