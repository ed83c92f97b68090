//! Ships Strongroom's write-ahead log to a hot standby over gRPC, and promotes it.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod backoff;
mod bootstrap;
mod dial;
mod dirs;
mod epoch;
mod error;
mod keystream;
mod node;
mod options;
mod progress;
mod promote;
mod receiver;
mod returning;
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
