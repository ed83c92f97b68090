//! What a configuration must hold together before a node starts with it.

use std::net::SocketAddr;

use super::explain::section;
use super::{Config, ConfigError};

impl Config {
    /// Rejects what cannot work, naming the key. Reads no file.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let fail = |message: &str| Err(ConfigError(message.to_string()));
        listener(
            "tenants",
            self.tenants.listen,
            self.tenants.tls.is_some(),
            self.tenants.insecure,
        )?;
        listener(
            "admin",
            self.admin.listen,
            self.admin.tls.is_some(),
            self.admin.insecure,
        )?;
        if self.keys.file.as_os_str().is_empty() {
            return fail("keys.file: empty");
        }
        if self.keys.file.starts_with(&self.node.data_dir) {
            return fail("keys.file: must lie outside node.data_dir, or a copy of the data carries its key");
        }
        let ranges = [
            (
                "node.shutdown_timeout_ms",
                self.node.shutdown_timeout_ms,
                1,
                3_600_000,
            ),
            (
                "tenants.connections_max",
                self.tenants.connections_max as u64,
                1,
                1 << 20,
            ),
            (
                "tenants.streams_max",
                u64::from(self.tenants.streams_max),
                1,
                1 << 16,
            ),
            ("tenants.calls_max", self.tenants.calls_max as u64, 1, 512),
            (
                "tenants.request_bytes_max",
                self.tenants.request_bytes_max as u64,
                80 << 20,
                1 << 40,
            ),
            (
                "tenants.snapshots_max",
                self.tenants.snapshots_max as u64,
                0,
                1 << 16,
            ),
            (
                "tenants.snapshot_lease_ms",
                self.tenants.snapshot_lease_ms,
                100,
                3_600_000,
            ),
            (
                "tenants.handshake_timeout_ms",
                self.tenants.handshake_timeout_ms,
                100,
                60_000,
            ),
            (
                "tenants.call_timeout_ms",
                self.tenants.call_timeout_ms,
                100,
                3_600_000,
            ),
            (
                "admin.connections_max",
                self.admin.connections_max as u64,
                1,
                1 << 16,
            ),
            (
                "admin.handshake_timeout_ms",
                self.admin.handshake_timeout_ms,
                100,
                60_000,
            ),
        ];
        for (key, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return fail(&format!("{key}: {value} is outside {low} to {high}"));
            }
        }
        check_replicated_timeout(self.engine.replicated_timeout_ms, self.tenants.call_timeout_ms)?;
        let listens = [
            Some(self.tenants.listen),
            Some(self.admin.listen),
            self.replication.listen,
        ];
        for (i, a) in listens.iter().enumerate() {
            if a.is_some_and(|a| a.port() != 0) && listens.iter().skip(i + 1).any(|b| a == b) {
                return fail("tenants, admin and replication: two of them listen on the same address");
            }
        }
        self.replication()
            .validate()
            .map_err(|e| ConfigError(section(&e.to_string())))
    }
}

/// A commit gives its standby up before the call that it belongs to is given up.
pub(crate) fn check_replicated_timeout(timeout_ms: u64, call_timeout_ms: u64) -> Result<(), ConfigError> {
    if timeout_ms < call_timeout_ms {
        return Ok(());
    }
    let text = "engine.replicated_timeout_ms: must be below tenants.call_timeout_ms";
    Err(ConfigError(text.to_string()))
}

/// Plaintext only if asked for, and only on loopback.
fn listener(table: &str, listen: SocketAddr, tls: bool, insecure: bool) -> Result<(), ConfigError> {
    match (tls, insecure) {
        (true, false) => Ok(()),
        (true, true) => Err(ConfigError(format!(
            "{table}: tls and insecure exclude each other"
        ))),
        (false, false) => Err(ConfigError(format!(
            "{table}.tls: missing (plaintext needs insecure = true)"
        ))),
        (false, true) if listen.ip().is_loopback() => Ok(()),
        (false, true) => Err(ConfigError(format!(
            "{table}.insecure: only on a loopback address, not {listen}"
        ))),
    }
}
