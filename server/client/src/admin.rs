//! Administration of one node.
use std::fmt;
use std::time::Duration;

use crate::error::Result;
use crate::proto::admin as pb;

/// How an [`AdminClient`] reaches one node.
#[derive(Clone)]
#[non_exhaustive]
pub struct AdminConfig {
    /// Administration listener, `https://host:port` (or `host:port`, the same).
    pub endpoint: String,
    /// Certificates (PEM) that the server's chain must end in.
    pub ca_pem: Vec<u8>,
    /// Own certificate chain (PEM) with the URI `strongroom://role/admin`.
    pub cert_pem: Vec<u8>,
    /// Its private key (PEM).
    pub key_pem: Vec<u8>,
    /// Name the server's certificate must carry, if it is not the host of the endpoint.
    pub server_name: Option<String>,
    /// Allows an `http://` endpoint.
    pub insecure: bool,
    /// Longest time for a connection attempt. Default 3 s.
    pub connect_timeout: Duration,
    /// Longest time for a call. Default none: backups and compactions take as long as they take.
    pub request_timeout: Option<Duration>,
}

impl AdminConfig {
    /// Defaults.
    pub fn new(endpoint: impl Into<String>, ca_pem: Vec<u8>, cert_pem: Vec<u8>, key_pem: Vec<u8>) -> AdminConfig {
        AdminConfig {
            endpoint: endpoint.into(),
            ca_pem,
            cert_pem,
            key_pem,
            server_name: None,
            insecure: false,
            connect_timeout: Duration::from_secs(3),
            request_timeout: None,
        }
    }
}

impl fmt::Debug for AdminConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminConfig").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Administers one node. Cheap to clone. Calls are never retried by themselves.
#[derive(Clone)]
pub struct AdminClient {}

#[allow(clippy::todo, unused_variables)]
impl AdminClient {
    /// Connects.
    pub async fn connect(config: AdminConfig) -> Result<AdminClient> { todo!() }
    /// The node now.
    pub async fn status(&self) -> Result<pb::StatusResponse> { todo!() }
    /// Makes a standby the primary.
    pub async fn promote(&self, request: pb::PromoteRequest) -> Result<pb::PromoteResponse> { todo!() }
    /// Fences a primary; `None`: by the next term.
    pub async fn fence(&self, epoch: Option<u64>) -> Result<pb::FenceResponse> { todo!() }
    /// Creates a tenant.
    pub async fn create_tenant(&self, name: &str) -> Result<pb::Tenant> { todo!() }
    /// One page of tenants: `(tenants, more)`.
    pub async fn list_tenants(&self, after_id: u64, limit: u32) -> Result<(Vec<pb::Tenant>, bool)> { todo!() }
    /// Destroys a tenant.
    pub async fn delete_tenant(&self, name: &str) -> Result<pb::DeleteTenantResponse> { todo!() }
    /// Issues a token.
    pub async fn create_token(&self, tenant: &str) -> Result<pb::CreateTokenResponse> { todo!() }
    /// Revokes a token.
    pub async fn revoke_token(&self, token_id: &str) -> Result<()> { todo!() }
    /// Tokens of one tenant, or of all.
    pub async fn list_tokens(&self, tenant: Option<&str>) -> Result<Vec<pb::Token>> { todo!() }
    /// Copies the database into a directory of the server's machine.
    pub async fn create_backup(&self, request: pb::CreateBackupRequest) -> Result<pb::CreateBackupResponse> { todo!() }
    /// Lets a restored database serve.
    pub async fn accept_restored(&self) -> Result<()> { todo!() }
    /// Flushes.
    pub async fn flush(&self) -> Result<()> { todo!() }
    /// Compacts.
    pub async fn compact(&self) -> Result<()> { todo!() }
}
