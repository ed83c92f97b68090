//! How to reach a cluster.

use std::fmt;
use std::time::Duration;

/// How a [`Client`](crate::Client) reaches its cluster.
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Tenant listeners of all nodes, `https://host:port` (or `host:port`, the same). `http://` needs
    /// [`insecure`](ClientConfig::insecure).
    pub endpoints: Vec<String>,
    /// Certificates (PEM) that the servers' chain must end in. Required for `https`.
    pub ca_pem: Option<Vec<u8>>,
    /// Name the servers' certificates must carry, if it is not the host of the endpoint.
    pub server_name: Option<String>,
    /// `id.secret`. Sent with every call.
    pub token: String,
    /// Allows `http://` endpoints: the token crosses the wire in clear.
    pub insecure: bool,
    /// Longest time for one connection attempt. Default 3 s.
    pub connect_timeout: Duration,
    /// Longest time for one attempt of a call (streams: until the first message). Default 30 s.
    pub request_timeout: Duration,
    /// How long a call looks for the primary before it gives up. Default 15 s.
    pub failover_timeout: Duration,
}

impl ClientConfig {
    /// Defaults for these endpoints and this token.
    pub fn new<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        token: impl Into<String>,
    ) -> ClientConfig {
        ClientConfig {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            ca_pem: None,
            server_name: None,
            token: token.into(),
            insecure: false,
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(30),
            failover_timeout: Duration::from_secs(15),
        }
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}
