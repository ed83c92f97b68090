//! Skeleton; bodies follow.
#![allow(clippy::todo, unused_variables)]
use std::net::SocketAddr;
use std::path::Path;

use strongroom_replication::Node;

use crate::config::Config;

/// Where a running node listens, with real ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Addresses {
    /// Key-value service.
    pub tenants: SocketAddr,
    /// Administration service.
    pub admin: SocketAddr,
    /// Replication service, if any.
    pub replication: Option<SocketAddr>,
}

/// Why a node did not start or stop well.
#[derive(Debug)]
#[non_exhaustive]
pub enum AppError {
    /// The configuration, or a certificate or key file it names.
    Config(String),
    /// An address cannot be listened on.
    Listen(String),
    /// The engine: see its kind (`Locked`, `KeyRefused`, `Corruption`, ...).
    Engine(strongroom::Error),
    /// Replication: see its kind.
    Node(strongroom_replication::Error),
}

/// A running node: engine, replication, listeners. Dropping it without [`stop`](App::stop) is a crash.
pub struct App {}

impl App {
    /// Starts everything; returns when all listeners are bound and the engine is open (or known to be missing,
    /// on a standby). Call `install_crypto_provider` first. Needs a multi-threaded tokio runtime.
    pub async fn start(config: Config) -> Result<App, AppError> { todo!() }
    /// Where it listens.
    pub fn addresses(&self) -> Addresses { todo!() }
    /// The node inside.
    pub fn node(&self) -> &Node { todo!() }
    /// Says that it is ready: one line on stderr, and, with `file`, a JSON object `{"schema":1,"node","pid",
    /// "tenants","admin","replication"}` that appears there whole (written aside, renamed).
    pub fn announce(&self, file: Option<&Path>) -> std::io::Result<()> { todo!() }
    /// Returns at the first SIGTERM or SIGINT, or when the node cannot go on.
    pub async fn wait(&self) { todo!() }
    /// Stops taking calls, waits for those in flight up to `node.shutdown_timeout_ms`, closes the engine.
    pub async fn stop(self) -> Result<(), AppError> { todo!() }
}
