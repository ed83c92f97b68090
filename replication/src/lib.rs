//! Ships Strongroom's write-ahead log to a hot standby over gRPC, and promotes it.
#![forbid(unsafe_code)]

mod error;
mod node;
mod options;
mod status;

pub use error::{Error, ErrorKind, Result};
pub use node::Node;
pub use options::{NODE_NAME_BYTES_MAX, ReplicationConfig, StartRole, Timeouts, TlsFiles};
pub use status::{FencingStatus, NodeRole, NodeState, NodeStatus, PeerStatus, StandbyStatus, UpstreamStatus};
