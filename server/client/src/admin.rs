//! Administration of one node.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::channel::{self, Dial};
use crate::error::{ClientError, Kind, Result};
use crate::proto::admin as pb;
use crate::proto::admin::admin_client::AdminClient as Stub;

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
    pub fn new(
        endpoint: impl Into<String>,
        ca_pem: Vec<u8>,
        cert_pem: Vec<u8>,
        key_pem: Vec<u8>,
    ) -> AdminConfig {
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
        f.debug_struct("AdminConfig")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// Administers one node. Cheap to clone. Calls are never repeated by themselves.
///
/// Errors: the node's own [`Kind`], `Unavailable` if the call never left, `Unknown` if a call that changes
/// something broke off: ask for the status.
#[derive(Clone)]
pub struct AdminClient {
    stub: Stub<Channel>,
    request_timeout: Option<Duration>,
}

impl AdminClient {
    /// Connects. `Invalid` configuration, `Unavailable`, `Unauthenticated` (a certificate was refused).
    pub async fn connect(config: AdminConfig) -> Result<AdminClient> {
        let endpoint = Dial {
            endpoint: &config.endpoint,
            insecure: config.insecure,
            ca_pem: Some(&config.ca_pem),
            identity: Some((&config.cert_pem, &config.key_pem)),
            server_name: config.server_name.as_deref(),
            connect_timeout: config.connect_timeout,
        }
        .endpoint()?;
        let channel = channel::connect(&endpoint, config.connect_timeout).await?;
        // Lists of tenants and tokens may be long.
        let stub = Stub::new(channel).max_decoding_message_size(crate::MESSAGE_BYTES_MAX);
        Ok(AdminClient {
            stub,
            request_timeout: config.request_timeout,
        })
    }

    async fn call<Q, T, F, Fut>(&self, write: bool, message: Q, call: F) -> Result<T>
    where
        F: FnOnce(Stub<Channel>, Request<Q>) -> Fut,
        Fut: Future<Output = std::result::Result<Response<T>, Status>>,
    {
        let mut request = Request::new(message);
        if let Some(timeout) = self.request_timeout {
            request.set_timeout(timeout);
        }
        match call(self.stub.clone(), request).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(ClientError::from_status(&status, write)),
        }
    }

    /// The node now.
    pub async fn status(&self) -> Result<pb::StatusResponse> {
        self.call(false, pb::StatusRequest {}, async |mut s, r| s.status(r).await)
            .await
    }

    /// Makes a standby the primary. `NotStandby`, `ExpectationFailed`, `WouldLose`.
    pub async fn promote(&self, request: pb::PromoteRequest) -> Result<pb::PromoteResponse> {
        self.call(!request.dry_run, request, async |mut s, r| s.promote(r).await)
            .await
    }

    /// Fences a primary; `None`: by the next term. `NotPrimary`, `Invalid` (not above the node's highest).
    pub async fn fence(&self, epoch: Option<u64>) -> Result<pb::FenceResponse> {
        self.call(true, pb::FenceRequest { epoch }, async |mut s, r| {
            s.fence(r).await
        })
        .await
    }

    /// Creates a tenant. `AlreadyExists`, `Invalid`, `NotPrimary`.
    pub async fn create_tenant(&self, name: &str) -> Result<pb::Tenant> {
        let request = pb::CreateTenantRequest { name: name.into() };
        let response = self
            .call(true, request, async |mut s, r| s.create_tenant(r).await)
            .await?;
        response
            .tenant
            .ok_or_else(|| ClientError::new(Kind::Internal, "the answer names no tenant"))
    }

    /// One page of tenants with ids above `after_id`: `(tenants, more)`.
    pub async fn list_tenants(&self, after_id: u64, limit: u32) -> Result<(Vec<pb::Tenant>, bool)> {
        let request = pb::ListTenantsRequest { after_id, limit };
        let response = self
            .call(false, request, async |mut s, r| s.list_tenants(r).await)
            .await?;
        Ok((response.tenants, response.more))
    }

    /// Destroys a tenant: keys, data, tokens. `NotFound`, `NotPrimary`.
    pub async fn delete_tenant(&self, name: &str) -> Result<pb::DeleteTenantResponse> {
        let request = pb::DeleteTenantRequest { name: name.into() };
        self.call(true, request, async |mut s, r| s.delete_tenant(r).await)
            .await
    }

    /// Issues a token; the answer is the only place it is ever shown. `NotFound`, `NotPrimary`.
    pub async fn create_token(&self, tenant: &str) -> Result<pb::CreateTokenResponse> {
        let request = pb::CreateTokenRequest {
            tenant: tenant.into(),
        };
        self.call(true, request, async |mut s, r| s.create_token(r).await)
            .await
    }

    /// Revokes a token; no call with it succeeds after this returns. `NotFound`, `NotPrimary`.
    pub async fn revoke_token(&self, token_id: &str) -> Result<()> {
        let request = pb::RevokeTokenRequest {
            token_id: token_id.into(),
        };
        self.call(true, request, async |mut s, r| s.revoke_token(r).await)
            .await?;
        Ok(())
    }

    /// Ids of the tokens of one tenant, or of all.
    pub async fn list_tokens(&self, tenant: Option<&str>) -> Result<Vec<pb::Token>> {
        let request = pb::ListTokensRequest {
            tenant: tenant.unwrap_or_default().into(),
        };
        Ok(self
            .call(false, request, async |mut s, r| s.list_tokens(r).await)
            .await?
            .tokens)
    }

    /// Copies the database into a directory of the server's machine, and its keys, sealed, elsewhere.
    pub async fn create_backup(&self, request: pb::CreateBackupRequest) -> Result<pb::CreateBackupResponse> {
        self.call(true, request, async |mut s, r| s.create_backup(r).await)
            .await
    }

    /// What the node's engine holds and does. `NotFound` while the node has no data.
    pub async fn stats(&self) -> Result<pb::StatsResponse> {
        self.call(false, pb::StatsRequest {}, async |mut s, r| s.stats(r).await)
            .await
    }

    /// Changes the given options of the node's engine, all or none, until it is opened again; the answer is what is in
    /// force. `Invalid` (a value outside its range), `NotFound` while the node has no data.
    pub async fn set_options(&self, request: pb::SetOptionsRequest) -> Result<pb::SetOptionsResponse> {
        let changes = request != pb::SetOptionsRequest::default();
        self.call(changes, request, async |mut s, r| s.set_options(r).await)
            .await
    }

    /// What a tenant takes, its quota, and its keyspaces with what is set of them.
    pub async fn show_tenant(&self, tenant: &str) -> Result<pb::ShowTenantResponse> {
        let request = pb::ShowTenantRequest { name: tenant.into() };
        self.call(false, request, async |mut s, r| s.show_tenant(r).await)
            .await
    }

    /// Sets how many bytes a tenant may take before its puts are refused; `None`: any number.
    pub async fn set_quota(&self, tenant: &str, bytes: Option<u64>) -> Result<()> {
        let request = pb::SetQuotaRequest {
            name: tenant.into(),
            bytes,
        };
        self.call(true, request, async |mut s, r| s.set_quota(r).await)
            .await?;
        Ok(())
    }

    /// Sets how long a keyspace of a tenant keeps what is put into it; `None`: for ever.
    pub async fn set_retention(
        &self,
        tenant: &str,
        keyspace: &str,
        keep: Option<pb::set_retention_request::Keep>,
    ) -> Result<()> {
        let request = pb::SetRetentionRequest {
            name: tenant.into(),
            keyspace: keyspace.into(),
            keep,
        };
        self.call(true, request, async |mut s, r| s.set_retention(r).await)
            .await?;
        Ok(())
    }

    /// Sets from which length on values of a keyspace of a tenant are kept apart from the tree, 0: none are; `None`: as the
    /// node's configuration says.
    pub async fn set_separate_bytes(&self, tenant: &str, keyspace: &str, bytes: Option<u64>) -> Result<()> {
        let request = pb::SetSeparateBytesRequest {
            name: tenant.into(),
            keyspace: keyspace.into(),
            bytes,
        };
        self.call(true, request, async |mut s, r| s.set_separate_bytes(r).await)
            .await?;
        Ok(())
    }

    /// Lets a restored database serve.
    pub async fn accept_restored(&self) -> Result<()> {
        let request = pb::AcceptRestoredRequest {};
        self.call(true, request, async |mut s, r| s.accept_restored(r).await)
            .await?;
        Ok(())
    }

    /// Writes memtables to tables.
    pub async fn flush(&self) -> Result<()> {
        self.call(true, pb::FlushRequest {}, async |mut s, r| s.flush(r).await)
            .await?;
        Ok(())
    }

    /// Compacts until nothing is left to do.
    pub async fn compact(&self) -> Result<()> {
        self.call(true, pb::CompactRequest {}, async |mut s, r| s.compact(r).await)
            .await?;
        Ok(())
    }
}
