//! One configuration: a TOML file, `STRONGROOM_` environment variables over it, flags over both.
//!
//! ```toml
//! [node]
//! name = "db1"
//! data_dir = "/var/lib/strongroom"
//!
//! [keys]
//! file = "/etc/strongroom/strongroom.key"
//!
//! [tenants]                                  # applications: TLS, bearer token
//! listen = "0.0.0.0:7300"
//! tls = { cert = "pki/db1/tenants.pem", key = "pki/db1/tenants.key" }
//!
//! [admin]                                    # operators: mutual TLS, role admin
//! listen = "127.0.0.1:7301"
//! tls = { cert = "pki/db1/admin.pem", key = "pki/db1/admin.key", client_ca = "pki/admin-ca.pem" }
//!
//! [replication]                              # the other node: mutual TLS, role replica
//! listen = "0.0.0.0:7302"
//! role = "primary"
//! peer = "db2:7302"
//! tls = { cert = "pki/db1/replication.pem", key = "pki/db1/replication.key", ca = "pki/replication-ca.pem" }
//!
//! [engine]
//! durability = "replicated"
//! ```
//!
//! Relative paths are relative to the file they stand in. In the environment, `__` separates table from key:
//! `STRONGROOM_TENANTS__LISTEN=127.0.0.1:7300`. Secrets are never values, only paths of files that hold them.
//! An unknown key is an error that names it, wherever it comes from. Nothing here is read again after start.

mod explain;
#[cfg(test)]
mod tests;
mod validate;
pub(crate) use validate::check_replicated_timeout;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};
use strongroom_replication::{ReplicationConfig, StartRole, TlsFiles};

use self::explain::explain;

/// Prefix of environment variables.
pub const ENV_PREFIX: &str = "STRONGROOM_";
/// Tables of the file.
const TABLES: [&str; 6] = ["node", "keys", "tenants", "admin", "replication", "engine"];

/// Whether a variable (without prefix) means a key. Others with the prefix belong to commands and tests, but one
/// that begins like a table was meant: it ends up as an unknown key.
fn is_setting(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let of_table = |table: &str| name.strip_prefix(table).is_some_and(|rest| rest.starts_with('_'));
    name != "node_file" && (name.contains("__") || TABLES.into_iter().any(of_table))
}

/// A configuration that cannot be used: what is wrong, where it came from, what would be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The configuration of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who this node is and where its data is.
    pub node: NodeConfig,
    /// Where the key-encryption key is.
    pub keys: KeysConfig,
    /// Listener of the key-value service.
    pub tenants: TenantsConfig,
    /// Listener of the administration service.
    pub admin: AdminListenConfig,
    /// The other node.
    #[serde(default)]
    pub replication: ReplicationSection,
    /// What the engine promises and costs.
    #[serde(default)]
    pub engine: EngineConfig,
}

/// `[node]`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Unique in its pair: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// The engine's directory. Created if missing.
    pub data_dir: PathBuf,
    /// The node's own directory (role, base copies). Default: `data_dir` + `.node`.
    #[serde(default)]
    pub side_dir: Option<PathBuf>,
    /// How long a shutdown waits for calls in flight before it cuts them off.
    #[serde(default = "defaults::shutdown_timeout_ms")]
    pub shutdown_timeout_ms: u64,
}

/// `[keys]`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysConfig {
    /// Key file of the file provider. Keep it off the disk that `data_dir` is on.
    pub file: PathBuf,
}

/// Certificate chain and private key a listener shows, PEM files.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// Chain, leaf first.
    pub cert: PathBuf,
    /// Private key of the leaf.
    pub key: PathBuf,
}

/// The same, and the authority that clients' certificates must come from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MutualTls {
    /// Chain, leaf first.
    pub cert: PathBuf,
    /// Private key of the leaf.
    pub key: PathBuf,
    /// Authorities of client certificates. Not the ones of another listener.
    pub client_ca: PathBuf,
}

/// Certificates for replication: both nodes' come from one authority.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerTls {
    /// Chain, leaf first; URI name `strongroom://role/replica`.
    pub cert: PathBuf,
    /// Private key of the leaf.
    pub key: PathBuf,
    /// The authority.
    pub ca: PathBuf,
}

/// `[tenants]`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantsConfig {
    /// Address and port; port 0 picks one.
    pub listen: SocketAddr,
    /// Required unless `insecure`.
    #[serde(default)]
    pub tls: Option<ServerTls>,
    /// Plaintext. Refused unless `listen` is a loopback address.
    #[serde(default)]
    pub insecure: bool,
    /// Connections at once; one more is closed before its handshake.
    #[serde(default = "defaults::tenant_connections")]
    pub connections_max: usize,
    /// Calls in flight per connection.
    #[serde(default = "defaults::streams")]
    pub streams_max: u32,
    /// Engine calls at once, over all connections; further ones wait their turn.
    #[serde(default = "defaults::calls")]
    pub calls_max: usize,
    /// Bytes of request messages being held, over all connections. Bounds memory: a call waits until its share
    /// is free. At least 80 MiB.
    #[serde(default = "defaults::request_bytes")]
    pub request_bytes_max: usize,
    /// Open snapshots per tenant.
    #[serde(default = "defaults::snapshots")]
    pub snapshots_max: usize,
    /// A snapshot ends this long after its last use.
    #[serde(default = "defaults::snapshot_lease_ms")]
    pub snapshot_lease_ms: u64,
    /// Longest TLS handshake.
    #[serde(default = "defaults::handshake_timeout_ms")]
    pub handshake_timeout_ms: u64,
    /// Longest unary call; its outcome is then unknown to the client.
    #[serde(default = "defaults::call_timeout_ms")]
    pub call_timeout_ms: u64,
}

/// `[admin]`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminListenConfig {
    /// Address and port; port 0 picks one.
    pub listen: SocketAddr,
    /// Required unless `insecure`.
    #[serde(default)]
    pub tls: Option<MutualTls>,
    /// Plaintext, and anyone on this machine is an administrator. Refused unless `listen` is loopback.
    #[serde(default)]
    pub insecure: bool,
    /// Connections at once.
    #[serde(default = "defaults::admin_connections")]
    pub connections_max: usize,
    /// Longest TLS handshake.
    #[serde(default = "defaults::handshake_timeout_ms")]
    pub handshake_timeout_ms: u64,
}

/// Role at the first start. Later the role the node recorded wins: a promoted standby stays primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Orders writes.
    #[default]
    Primary,
    /// Follows `peer`.
    Standby,
}

/// `[replication]`. Left out: a single node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplicationSection {
    /// Role at the first start.
    pub role: Role,
    /// Where the other node reaches this one.
    pub listen: Option<SocketAddr>,
    /// The other node's replication address, `host:port`. Required for a standby; set it on the primary too, or it does
    /// not ask before it serves.
    pub peer: Option<String>,
    /// Name the peer's certificate must carry, if it is not the host in `peer`.
    pub peer_name: Option<String>,
    /// Required with `listen` or `peer`.
    pub tls: Option<PeerTls>,
    /// Serve as primary although the peer could not be asked. Two nodes that both use it can both serve.
    pub serve_without_peer: bool,
    /// Most WAL bytes sent and not yet durable at the standby, 1 MiB to 1 GiB.
    pub window_bytes: u64,
}

impl Default for ReplicationSection {
    fn default() -> ReplicationSection {
        ReplicationSection {
            role: Role::Primary,
            listen: None,
            peer: None,
            peer_name: None,
            tls: None,
            serve_without_peer: false,
            window_bytes: 64 << 20,
        }
    }
}

/// How durable a write is that does not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Survives a kill of the process.
    Buffered,
    /// On stable storage here.
    #[default]
    Local,
    /// On stable storage here and on the standby.
    Replicated,
}

impl From<Durability> for strongroom::Durability {
    fn from(durability: Durability) -> strongroom::Durability {
        match durability {
            Durability::Buffered => strongroom::Durability::Buffered,
            Durability::Local => strongroom::Durability::Local,
            Durability::Replicated => strongroom::Durability::Replicated,
        }
    }
}

/// How blocks of tables are compressed before they are sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4.
    #[default]
    Lz4,
}

impl From<Compression> for strongroom::Compression {
    fn from(compression: Compression) -> strongroom::Compression {
        match compression {
            Compression::None => strongroom::Compression::None,
            Compression::Lz4 => strongroom::Compression::Lz4,
        }
    }
}

/// `[engine]`: the options of `strongroom::Options`, same names, ranges and defaults; times end in `_ms`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Durability of a write that does not choose its own.
    pub durability: Durability,
    /// How long a `Replicated` commit waits for the standby before its outcome is unknown.
    pub replicated_timeout_ms: u64,
    /// How long a value that expired may stay on the disk before it is written out for its own sake.
    pub expiry_grace_ms: u64,
    /// Memtable size that starts a flush.
    pub memtable_bytes: usize,
    /// Full memtables waiting for flush before writers wait.
    pub immutable_memtables_max: usize,
    /// WAL segment size.
    pub segment_bytes: u64,
    /// Whether buffered writes reach the log by way of a memory map.
    pub map_log: bool,
    /// WAL kept for a standby that is behind.
    pub wal_keep_bytes: u64,
    /// Target size of a table's block before compression.
    pub block_bytes: usize,
    /// Compression of blocks.
    pub compression: Compression,
    /// Target size of a table.
    pub table_bytes: u64,
    /// Values of so many bytes and more are kept apart from the tree; 0: none.
    pub separate_bytes: usize,
    /// Level-0 tables that start a compaction.
    pub level0_tables: usize,
    /// Level-0 tables at which writers wait.
    pub level0_tables_stop: usize,
    /// Size of level 1.
    pub level1_bytes: u64,
    /// Threads that one compaction is divided among, 1 to 64.
    pub compaction_threads: usize,
    /// Plaintext block cache.
    pub cache_bytes: u64,
    /// Filter bits per entry.
    pub filter_bits: usize,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        let o = strongroom::Options::default();
        EngineConfig {
            durability: Durability::Local,
            replicated_timeout_ms: u64::try_from(o.replicated_timeout.as_millis()).unwrap_or(u64::MAX),
            expiry_grace_ms: u64::try_from(o.expiry_grace.as_millis()).unwrap_or(u64::MAX),
            memtable_bytes: o.memtable_bytes,
            immutable_memtables_max: o.immutable_memtables_max,
            segment_bytes: o.segment_bytes,
            map_log: o.map_log,
            wal_keep_bytes: o.wal_keep_bytes,
            block_bytes: o.block_bytes,
            compression: Compression::default(),
            table_bytes: o.table_bytes,
            separate_bytes: o.separate_bytes,
            level0_tables: o.level0_tables,
            level0_tables_stop: o.level0_tables_stop,
            level1_bytes: o.level1_bytes,
            compaction_threads: o.compaction_threads,
            cache_bytes: o.cache_bytes,
            filter_bits: o.filter_bits,
        }
    }
}

impl EngineConfig {
    /// As the engine takes them.
    pub fn options(&self) -> strongroom::Options {
        let mut o = strongroom::Options::default();
        o.durability = self.durability.into();
        o.replicated_timeout = Duration::from_millis(self.replicated_timeout_ms);
        o.expiry_grace = Duration::from_millis(self.expiry_grace_ms);
        o.memtable_bytes = self.memtable_bytes;
        o.immutable_memtables_max = self.immutable_memtables_max;
        o.segment_bytes = self.segment_bytes;
        o.map_log = self.map_log;
        o.wal_keep_bytes = self.wal_keep_bytes;
        o.block_bytes = self.block_bytes;
        o.compression = self.compression.into();
        o.table_bytes = self.table_bytes;
        o.separate_bytes = self.separate_bytes;
        o.level0_tables = self.level0_tables;
        o.level0_tables_stop = self.level0_tables_stop;
        o.level1_bytes = self.level1_bytes;
        o.compaction_threads = self.compaction_threads;
        o.cache_bytes = self.cache_bytes;
        o.filter_bits = self.filter_bits;
        o
    }
}

mod defaults {
    pub fn shutdown_timeout_ms() -> u64 {
        10_000
    }
    pub fn tenant_connections() -> usize {
        1024
    }
    pub fn admin_connections() -> usize {
        32
    }
    pub fn streams() -> u32 {
        256
    }
    pub fn calls() -> usize {
        128
    }
    pub fn request_bytes() -> usize {
        512 << 20
    }
    pub fn snapshots() -> usize {
        64
    }
    pub fn snapshot_lease_ms() -> u64 {
        60_000
    }
    pub fn handshake_timeout_ms() -> u64 {
        5_000
    }
    pub fn call_timeout_ms() -> u64 {
        60_000
    }
}

impl Config {
    /// Reads the file, then the environment, then `overrides` (from flags: a nested table with any of the keys),
    /// later ones winning; then [`validate`](Config::validate)s.
    pub fn load(file: &Path, overrides: Option<&toml_table::Table>) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|e| ConfigError(format!("configuration {}: {e}", file.display())))?;
        Config::from_toml(
            &text,
            &file.display().to_string(),
            file.parent(),
            Some(ENV_PREFIX),
            overrides,
        )
    }

    /// The same from a string; `source` names it in errors, relative paths are relative to `base`.
    pub fn from_toml(
        text: &str,
        source: &str,
        base: Option<&Path>,
        env_prefix: Option<&str>,
        overrides: Option<&toml_table::Table>,
    ) -> Result<Config, ConfigError> {
        let mut figment = Figment::from(Toml::string(text));
        if let Some(prefix) = env_prefix {
            figment = figment.merge(
                Env::prefixed(prefix)
                    .filter(|name| is_setting(name.as_str()))
                    .split("__"),
            );
        }
        if let Some(table) = overrides {
            figment = figment.merge(Serialized::globals(table));
        }
        let mut config: Config = figment.extract().map_err(|e| ConfigError(explain(e, source)))?;
        if let Some(base) = base {
            config.resolve(base);
        }
        config.validate()?;
        Ok(config)
    }

    /// Relative paths become relative to `base`.
    fn resolve(&mut self, base: &Path) {
        let mut paths = vec![&mut self.node.data_dir, &mut self.keys.file];
        paths.extend(self.node.side_dir.as_mut());
        if let Some(tls) = &mut self.tenants.tls {
            paths.extend([&mut tls.cert, &mut tls.key]);
        }
        if let Some(tls) = &mut self.admin.tls {
            paths.extend([&mut tls.cert, &mut tls.key, &mut tls.client_ca]);
        }
        if let Some(tls) = &mut self.replication.tls {
            paths.extend([&mut tls.cert, &mut tls.key, &mut tls.ca]);
        }
        for path in paths {
            if path.is_relative() && !path.as_os_str().is_empty() {
                *path = base.join(&*path);
            }
        }
    }

    /// What replication takes from it.
    pub fn replication(&self) -> ReplicationConfig {
        let role = match self.replication.role {
            Role::Primary => StartRole::Primary,
            Role::Standby => StartRole::Standby,
        };
        let mut config = ReplicationConfig::new(&self.node.name, &self.node.data_dir, role);
        config.side_dir = self.node.side_dir.clone();
        config.listen = self.replication.listen;
        config.peer = self.replication.peer.clone();
        config.peer_name = self.replication.peer_name.clone();
        config.tls = self.replication.tls.as_ref().map(|tls| TlsFiles {
            ca: tls.ca.clone(),
            cert: tls.cert.clone(),
            key: tls.key.clone(),
        });
        config.engine = self.engine.options();
        config.serve_without_peer = self.replication.serve_without_peer;
        config.window_bytes = self.replication.window_bytes;
        config
    }
}

/// The shape overrides come in.
pub mod toml_table {
    /// Nested tables and values: `{"tenants": {"listen": "127.0.0.1:0"}}`.
    pub type Table = serde_json::Map<String, serde_json::Value>;
}
