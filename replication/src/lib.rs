//! Ships Strongroom's write-ahead log to a hot standby over gRPC, and promotes it.
//!
//! Two nodes make a pair: one orders writes, the other holds a byte-for-byte prefix of its log, applies it,
//! and can be read. Servers and applications embed a [`Node`]; everything else is behind it.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use strongroom::keys::KeyFile;
//! use strongroom_replication::{Node, ReplicationConfig, StartRole, TlsFiles};
//!
//! let mut config = ReplicationConfig::new("b", "/var/lib/strongroom", StartRole::Standby);
//! config.listen = Some("10.0.0.2:7300".parse()?);
//! config.peer = Some("db-a.example:7300".into());
//! config.tls = Some(TlsFiles { ca: "ca.pem".into(), cert: "b.pem".into(), key: "b.key".into() });
//! let node = Node::start(config, Arc::new(KeyFile::open("/etc/strongroom/b.kek")?)).await?;
//! // Take the engine anew for every request: a base copy replaces it.
//! if let Some(engine) = node.state().readable() {
//!     println!("readable up to {}", engine.status().applied);
//! }
//! // When the primary is gone, and somebody decided:
//! let promotion = node.promote().await?;
//! # Ok(()) }
//! ```
//!
//! # States
//!
//! ```text
//!                  peer knows nothing newer
//!   Waiting ----------------------------------------> Primary
//!    ^  |  \                                           ^   |
//!    |  |   `-- promote -------------------------------'   | told of a newer epoch
//!    |  | peer is the primary                          |   v
//!    |  v                              promote         | Fenced
//!    | Standby ----------------------------------------'   |
//!    |  |   ^                                              |
//!    |  v   | base copy                                    |
//!    | Seeding                                             |
//!    '-----------------------------------------------------'
//! ```
//!
//! A node records the role it settled on; the configuration only says what it is at first. A promoted
//! standby that restarts is the primary still, a deposed primary follows by itself. Where no rule decides
//! (the peer is silent, holds another database, knows more), a node waits and says why:
//! [`NodeState::note`]; a person decides, with [`Node::promote`].
//!
//! # Guarantees, and where each is kept
//!
//! - A standby's log is a prefix of its primary's, told by epoch, position and chain together
//!   (`core::epoch`).
//! - `Replicated` is acknowledged only after the standby synced the record, in the same epoch
//!   (`core::progress`, `core::standby`, and the engine's gate). No standby: the commit ends in `Unknown`, never in less.
//! - A record never arrives before the keys it needs (`core::primary`), and a deletion is confirmed per standby:
//!   [`StandbyStatus::keystore_version`].
//! - Promotion first makes a never-used epoch durable, then applies all durable log, then serves
//!   (`core::promotion`). From then on the new primary is the fence: the old one can complete no `Replicated`
//!   commit. It is also told, until it answers; `Local` commits it takes before it hears of it are lost
//!   with its tail, which is kept aside.
//! - A returning primary that has a peer configured serves nothing before it knows its epoch is current
//!   (`core::returning`).
//! - A dead or slow standby costs a bounded amount of memory ([`ReplicationConfig::window_bytes`]) and disk
//!   (`Options::wal_keep_bytes`); past it, it takes a base copy by itself (`bootstrap`).
//! - Only certificates with [`REPLICA_ROLE`], on both sides; no plaintext (`tls`).
//!
//! What this is not: it does not choose when to promote, and two people who promote both nodes of a pair
//! that cannot see each other get two primaries, until one hears of the other's higher epoch; if both
//! promotions took the same epoch, neither yields, and a person keeps one and empties the other. For the
//! disk space of a base copy, plan twice the database while a standby is being replaced.
//!
//! # Reading order
//!
//! `core` decides: events in, actions out, no sockets, clocks or threads. `wire` and
//! `proto/replication.proto` are the protocol's bytes; `sender`, `receiver`, `keystream`, `bootstrap` drive
//! the core over TLS; `promote` and `supervisor` change roles by its decisions.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod backoff;
mod bootstrap;
#[cfg(not(feature = "sim"))]
mod core;
#[cfg(feature = "sim")]
#[allow(missing_docs, reason = "public for the simulator only")]
pub mod core;
mod dial;
mod dirs;
mod error;
#[cfg(any(test, feature = "sim"))]
pub mod hooks;
#[cfg(not(any(test, feature = "sim")))]
mod hooks;
mod kek;
mod keystream;
#[cfg(feature = "sim")]
pub mod network;
mod node;
mod options;
#[cfg(feature = "sim")]
pub mod parsers;
mod promote;
mod receiver;
mod sender;
mod service;
mod shared;
mod signal;
mod standbys;
mod status;
mod supervisor;
mod tls;
mod wire;

pub use error::{Error, ErrorKind, Result};
pub use node::Node;
pub use options::{NODE_NAME_BYTES_MAX, ReplicationConfig, StartRole, Timeouts, TlsFiles};
pub use status::{FencingStatus, NodeRole, NodeState, NodeStatus, PeerStatus, StandbyStatus, UpstreamStatus};
pub use tls::REPLICA_ROLE;
