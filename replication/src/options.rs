//! What a node is told at start. Defaults are the constants; [`ReplicationConfig::validate`] rejects what
//! cannot work, naming the field.
//!
//! Two groups: the first says who the node is and whom it trusts, the second how patient it is.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// The role a node takes at its first start. Later the role it recorded itself wins (a promoted standby
/// stays the primary across restarts, whatever the configuration says).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartRole {
    /// Orders writes. With a peer configured it asks that peer first.
    Primary,
    /// Follows its peer; takes a base copy if its directory is empty.
    Standby,
}

/// Certificates of a node, PEM files. Read again for every connection dialled, once for the listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The one authority both nodes' certificates come from.
    pub ca: PathBuf,
    /// This node's chain, leaf first. The leaf carries the URI name `strongroom://role/replica`, and
    /// the host name or address the peer dials.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How long the node waits for what. Zero is rejected everywhere.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Timeouts {
    /// A connection, TLS handshake included.
    pub connect: Duration,
    /// The answer to a unary call, and the first message of a stream.
    pub call: Duration,
    /// HTTP/2 ping interval, also while idle.
    pub keepalive_interval: Duration,
    /// A ping unanswered this long drops the connection.
    pub keepalive_timeout: Duration,
    /// A primary with nothing to send says so this often.
    pub heartbeat: Duration,
    /// WAL bytes outstanding and no durable advance for this long: the primary drops the connection.
    /// Also the bound on a standby that hears nothing, not even a heartbeat.
    pub progress: Duration,
    /// First wait before dialling again; doubles, with jitter, up to `backoff_max`.
    pub backoff_min: Duration,
    /// Longest wait before dialling again.
    pub backoff_max: Duration,
    /// How long the WAL behind a finished base copy stays pinned for the standby that took it.
    pub base_copy_grace: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(5),
            call: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(10),
            heartbeat: Duration::from_secs(1),
            progress: Duration::from_secs(15),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            base_copy_grace: Duration::from_secs(300),
        }
    }
}

/// Configuration of a [`Node`](crate::Node).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReplicationConfig {
    /// This node's name, unique in its pair: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub node: String,
    /// The engine's directory.
    pub data_dir: PathBuf,
    /// The node's own directory: recorded role, incoming base copy, scratch checkpoints, quarantine.
    /// Must be on the file system of `data_dir` and outside it. Default: `data_dir` + `.node`.
    pub side_dir: Option<PathBuf>,
    /// Role at the first start.
    pub role: StartRole,
    /// Where the replication service listens; `None`: nowhere. Port 0 picks one, see
    /// [`Node::listen_addr`](crate::Node::listen_addr).
    pub listen: Option<SocketAddr>,
    /// The other node's replication address, `host:port`. Required for a standby. A primary with a peer
    /// asks it before serving, unless [`serve_without_peer`](Self::serve_without_peer).
    pub peer: Option<String>,
    /// The name the peer's certificate must carry, if it is not the host in `peer`.
    pub peer_name: Option<String>,
    /// Certificates. Required when `listen` or `peer` is set: there is no plaintext replication.
    pub tls: Option<TlsFiles>,
    /// Options of the engine.
    pub engine: strongroom::Options,
    /// Serve as primary although the peer could not be asked. The explicit override of "wait": two nodes
    /// that both use it at once can both serve.
    pub serve_without_peer: bool,
    /// Most WAL bytes sent to a standby and not yet durable there, 1 MiB to 1 GiB.
    pub window_bytes: u64,
    /// Patience.
    pub timeouts: Timeouts,
    /// Where connections come from, if not from this machine's network.
    #[cfg(feature = "sim")]
    pub network: Option<std::sync::Arc<dyn crate::network::Network>>,
}

/// Longest node name.
pub const NODE_NAME_BYTES_MAX: usize = 64;

impl ReplicationConfig {
    /// A node with default options: no listener, no peer.
    pub fn new(node: impl Into<String>, data_dir: impl AsRef<Path>, role: StartRole) -> ReplicationConfig {
        ReplicationConfig {
            node: node.into(),
            data_dir: data_dir.as_ref().to_path_buf(),
            side_dir: None,
            role,
            listen: None,
            peer: None,
            peer_name: None,
            tls: None,
            engine: strongroom::Options::default(),
            serve_without_peer: false,
            window_bytes: 64 << 20,
            timeouts: Timeouts::default(),
            #[cfg(feature = "sim")]
            network: None,
        }
    }

    /// The node's own directory, given or derived.
    pub fn side_dir(&self) -> PathBuf {
        self.side_dir.clone().unwrap_or_else(|| {
            let mut name = self.data_dir.clone().into_os_string();
            name.push(".node");
            PathBuf::from(name)
        })
    }

    /// Rejects values outside the documented ranges, naming the field. `Invalid`.
    pub fn validate(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::new(ErrorKind::Invalid, message));
        if !valid_node_name(&self.node) {
            return invalid(format!(
                "node: 1 to {NODE_NAME_BYTES_MAX} of letters, digits, '.', '_' and '-' needed"
            ));
        }
        if self.data_dir.as_os_str().is_empty() || self.data_dir.file_name().is_none() {
            return invalid("data_dir: a directory with a name is needed".into());
        }
        if self.side_dir().starts_with(&self.data_dir) {
            return invalid("side_dir: must be outside data_dir".into());
        }
        if self.role == StartRole::Standby && self.peer.is_none() {
            return invalid("peer: a standby needs the address of its primary".into());
        }
        if (self.listen.is_some() || self.peer.is_some()) && self.tls.is_none() {
            return invalid("tls: certificates are needed, replication has no plaintext".into());
        }
        if let Some(peer) = &self.peer {
            split_host_port(peer)?;
        }
        if !(1 << 20..=1 << 30).contains(&self.window_bytes) {
            return invalid("window_bytes: outside 1 MiB to 1 GiB".into());
        }
        let t = &self.timeouts;
        let durations = [
            ("connect", t.connect),
            ("call", t.call),
            ("keepalive_interval", t.keepalive_interval),
            ("keepalive_timeout", t.keepalive_timeout),
            ("heartbeat", t.heartbeat),
            ("progress", t.progress),
            ("backoff_min", t.backoff_min),
            ("backoff_max", t.backoff_max),
            ("base_copy_grace", t.base_copy_grace),
        ];
        if let Some((name, _)) = durations.iter().find(|(_, d)| d.is_zero()) {
            return invalid(format!("timeouts.{name}: zero"));
        }
        if t.backoff_min > t.backoff_max {
            return invalid("timeouts.backoff_min: above backoff_max".into());
        }
        if t.heartbeat >= t.progress {
            return invalid("timeouts.heartbeat: not below progress".into());
        }
        self.engine.validate()?;
        Ok(())
    }
}

/// Whether `name` is 1 to 64 of the allowed characters. Names appear in logs, statuses and file names.
pub(crate) fn valid_node_name(name: &str) -> bool {
    (1..=NODE_NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Splits `host:port`; the host of `[::1]:7000` is `::1`.
pub(crate) fn split_host_port(address: &str) -> Result<(String, u16)> {
    let bad = || Error::new(ErrorKind::Invalid, "peer: host:port needed");
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(|_| bad())?;
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    if host.is_empty() || port == 0 || host.contains('/') {
        return Err(bad());
    }
    Ok((host.to_string(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standby() -> ReplicationConfig {
        let mut config = ReplicationConfig::new("b", "/data/db", StartRole::Standby);
        config.peer = Some("127.0.0.1:7001".into());
        config.tls = Some(TlsFiles {
            ca: "ca".into(),
            cert: "c".into(),
            key: "k".into(),
        });
        config
    }

    #[test]
    fn defaults_then_valid() {
        standby().validate().unwrap();
        ReplicationConfig::new("a", "/data/db", StartRole::Primary)
            .validate()
            .unwrap();
    }

    #[test]
    fn each_field_out_of_range_then_named() {
        type Spoil = fn(&mut ReplicationConfig);
        let table: &[(&str, Spoil)] = &[
            ("node", |c| c.node = String::new()),
            ("node", |c| c.node = "a/b".into()),
            ("node", |c| c.node = "x".repeat(65)),
            ("data_dir", |c| c.data_dir = PathBuf::new()),
            ("data_dir", |c| c.data_dir = "/".into()),
            ("side_dir", |c| c.side_dir = Some("/data/db/side".into())),
            ("peer", |c| c.peer = None),
            ("peer", |c| c.peer = Some("nowhere".into())),
            ("peer", |c| c.peer = Some("h:0".into())),
            ("peer", |c| c.peer = Some("https://h:1".into())),
            ("tls", |c| c.tls = None),
            ("window_bytes", |c| c.window_bytes = 1),
            ("timeouts.connect", |c| c.timeouts.connect = Duration::ZERO),
            ("timeouts.backoff_min", |c| {
                c.timeouts.backoff_min = Duration::from_secs(60)
            }),
            ("timeouts.heartbeat", |c| {
                c.timeouts.heartbeat = Duration::from_secs(60)
            }),
        ];
        for (field, spoil) in table {
            let mut config = standby();
            spoil(&mut config);
            let error = config.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{field}");
            assert!(error.to_string().starts_with(field), "{field}: {error}");
        }
    }

    #[test]
    fn side_dir_not_given_then_beside_the_data() {
        assert_eq!(standby().side_dir(), PathBuf::from("/data/db.node"));
    }

    #[test]
    fn addresses_then_split() {
        assert_eq!(split_host_port("db-1:7000").unwrap(), ("db-1".into(), 7000));
        assert_eq!(split_host_port("[::1]:7000").unwrap(), ("::1".into(), 7000));
        assert!(split_host_port(":7000").is_err());
        assert!(split_host_port("h:70000").is_err());
    }
}
