//! The administration service: parse, apply, respond. Nothing here reads a key or a value of a tenant.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use strongroom::{Engine, Epoch};
use strongroom_client::Kind;
use strongroom_client::proto::admin as pb;
use strongroom_client::proto::admin::admin_server::Admin;
use strongroom_replication::{Node, NodeRole, NodeStatus};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::backup;
use crate::blocking;
use crate::online;
use crate::promotion;
use crate::snapshots::Snapshots;
use crate::stats;
use crate::status;
use crate::tenant_info;
use crate::token_store::{TokenId, TokenStore};

/// Calls at once; a backup or a compaction holds one for as long as it runs.
const CALLS_MAX: usize = 16;
const PAGE_DEFAULT: usize = 1_000;
const PAGE_MAX: usize = 10_000;
/// How long a deletion waits for connected standbys to confirm it, and how often it looks.
const CONFIRM_WAIT: Duration = Duration::from_secs(3);
const CONFIRM_POLL: Duration = Duration::from_millis(20);

/// The service of one node.
pub struct AdminService {
    node: Node,
    tokens: Arc<TokenStore>,
    snapshots: Arc<Snapshots>,
    upstream: Arc<UpstreamName>,
    slots: Arc<Semaphore>,
    /// Of tenants.
    call_timeout: Duration,
    started: Instant,
}

/// The name of the primary that this standby follows, as it last said it. Kept because the moment it is asked
/// for is when the primary is gone.
#[derive(Default)]
pub struct UpstreamName(Mutex<String>);

impl UpstreamName {
    /// As last heard; empty if never.
    pub fn get(&self) -> String {
        self.0.lock().clone()
    }

    /// Heard.
    pub fn set(&self, name: String) {
        *self.0.lock() = name;
    }
}

impl AdminService {
    /// Over what the node, its tokens and its snapshots are; tenants' calls end after `call_timeout`.
    pub fn new(
        node: Node,
        tokens: Arc<TokenStore>,
        snapshots: Arc<Snapshots>,
        upstream: Arc<UpstreamName>,
        call_timeout: Duration,
    ) -> AdminService {
        let slots = Arc::new(Semaphore::new(CALLS_MAX));
        AdminService {
            node,
            tokens,
            snapshots,
            upstream,
            slots,
            call_timeout,
            started: Instant::now(),
        }
    }

    /// The engine that takes writes here, and its reign.
    fn primary(&self) -> Result<(Engine, Epoch), Status> {
        let state = self.node.state();
        match state.primary() {
            Some(engine) => Ok((engine.clone(), state.epoch)),
            None => Err(status::not_serving(&state)),
        }
    }

    /// The engine, if there is one to read.
    fn readable(&self) -> Result<Engine, Status> {
        let missing = || status::status(Kind::NotFound, "this node has no data yet");
        self.node.engine().ok_or_else(missing)
    }

    async fn run<T, F>(&self, call: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: FnOnce() -> strongroom::Result<T> + Send + 'static,
    {
        blocking::run(&self.slots, Kind::Unknown, call)
            .await?
            .map_err(|e| status::for_operator(&e))
    }

    /// Who has destroyed the keys that `version` of the keystore no longer has.
    fn confirmations(&self, version: u64) -> Vec<pb::Confirmation> {
        let status = self.node.status();
        let own = pb::Confirmation {
            node: status.node,
            confirmed: true,
        };
        let standbys = status.standbys.into_iter().map(|s| pb::Confirmation {
            confirmed: s.keystore_version >= version,
            node: s.node,
        });
        std::iter::once(own).chain(standbys).collect()
    }

    /// The same, once every connected standby has confirmed or had time to.
    async fn confirmed(&self, version: u64) -> Vec<pb::Confirmation> {
        let deadline = Instant::now() + CONFIRM_WAIT;
        while self
            .node
            .status()
            .standbys
            .iter()
            .any(|s| s.connected && s.keystore_version < version)
            && Instant::now() < deadline
        {
            tokio::time::sleep(CONFIRM_POLL).await;
        }
        self.confirmations(version)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// "fenced by epoch 3.0", "standby, following": one line for people.
fn summary(status: &NodeStatus) -> String {
    let fenced_by = status.engine.as_ref().and_then(|e| e.fenced_by);
    match (status.role, fenced_by) {
        (NodeRole::Fenced, Some(by)) => format!("fenced by epoch {by}"),
        (NodeRole::Fenced, None) => "fenced by a newer epoch".into(),
        (NodeRole::Waiting, _) => "waiting to serve".into(),
        (NodeRole::Seeding, _) => "standby, taking a base copy".into(),
        (NodeRole::Stopped, _) => "stopped".into(),
        (NodeRole::Standby, _) => match &status.upstream {
            Some(upstream) if upstream.connected => "standby, following".into(),
            _ => "standby, not connected".into(),
        },
        (NodeRole::Primary, _) => match &status.engine {
            Some(engine) if engine.awaiting_acceptance => "restored, awaiting acceptance".into(),
            Some(engine) if engine.read_only.is_some() => "primary, read only".into(),
            _ => "primary, serving".into(),
        },
    }
}

fn state_name(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Waiting => "waiting",
        NodeRole::Primary => "primary",
        NodeRole::Fenced => "fenced",
        NodeRole::Seeding => "seeding",
        NodeRole::Standby => "standby",
        NodeRole::Stopped => "stopped",
    }
}

/// The other nodes, as this one sees them.
fn peers(status: &NodeStatus, upstream_name: &str) -> Vec<pb::Peer> {
    let standby = |s: &strongroom_replication::StandbyStatus| pb::Peer {
        node: s.node.clone(),
        role: pb::Role::Standby.into(),
        connected: s.connected,
        received_lsn: s.received.0,
        durable_lsn: s.durable.0,
        applied_lsn: s.applied.0,
        keystore_version: s.keystore_version,
        last_heard_ms: Some(millis(s.heard)),
        ..pb::Peer::default()
    };
    let primary = |u: &strongroom_replication::UpstreamStatus| pb::Peer {
        node: upstream_name.to_string(),
        role: pb::Role::Primary.into(),
        connected: u.connected,
        epoch: u.epoch.0,
        durable_lsn: u.end.0,
        last_heard_ms: u.heard.map(millis),
        problem: u.error.clone().unwrap_or_default(),
        address: u.address.clone(),
        base_copy_bytes: u.base_copy_bytes,
        ..pb::Peer::default()
    };
    status
        .standbys
        .iter()
        .map(standby)
        .chain(status.upstream.iter().map(primary))
        .collect()
}

fn describe(status: NodeStatus, upstream_name: &str) -> pb::StatusResponse {
    let role = match status.role {
        NodeRole::Primary | NodeRole::Fenced | NodeRole::Waiting => pb::Role::Primary,
        NodeRole::Standby | NodeRole::Seeding => pb::Role::Standby,
        NodeRole::Stopped => pb::Role::Unspecified,
    };
    let mut response = pb::StatusResponse {
        version: env!("CARGO_PKG_VERSION").into(),
        role: role.into(),
        summary: summary(&status),
        state: state_name(status.role).into(),
        peers: peers(&status, upstream_name),
        fencing: status.fencing.as_ref().map(|f| pb::Fencing {
            epoch: f.epoch.0,
            attempts: f.attempts,
            done: f.done,
            error: f.error.clone().unwrap_or_default(),
        }),
        note: status.note.unwrap_or_default(),
        node: status.node,
        ..pb::StatusResponse::default()
    };
    if let Some(engine) = status.engine {
        let writes = engine.fenced_by.is_none() && !engine.awaiting_acceptance && engine.read_only.is_none();
        response.serving = status.role == NodeRole::Primary && writes;
        response.database_id = engine.database_id.to_vec().into();
        response.epoch = engine.epoch.0;
        response.highest_epoch = engine.highest_epoch.0;
        response.fenced_by = engine.fenced_by.map(|epoch| epoch.0);
        response.awaiting_acceptance = engine.awaiting_acceptance;
        response.read_only = engine.read_only;
        response.written_lsn = engine.written.0;
        response.durable_lsn = engine.durable.0;
        response.applied_lsn = engine.applied.0;
        response.replicated_lsn = engine.replicated.0;
        response.wal_start_lsn = engine.wal_start.0;
        response.visible_seqno = engine.visible.0;
        response.keystore_version = engine.keystore_version;
        response.tenants = engine.tenants;
        response.table_bytes = engine.table_bytes;
        response.tables_per_level = engine.tables_per_level;
    }
    response
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let mut response = describe(self.node.status(), &self.upstream.get());
        response.uptime_ms = millis(self.started.elapsed());
        response.snapshots = self.snapshots.count();
        Ok(Response::new(response))
    }

    async fn stats(&self, _: Request<pb::StatsRequest>) -> Result<Response<pb::StatsResponse>, Status> {
        let engine = self.readable()?;
        let stats = self.run(move || Ok(engine.stats())).await?;
        Ok(Response::new(stats::response(&stats)))
    }

    async fn set_options(
        &self,
        request: Request<pb::SetOptionsRequest>,
    ) -> Result<Response<pb::SetOptionsResponse>, Status> {
        let (engine, timeout) = (self.readable()?, self.call_timeout);
        let request = request.into_inner();
        let now = self.run(move || online::set(&engine, &request, timeout)).await?;
        Ok(Response::new(now))
    }

    async fn promote(
        &self,
        request: Request<pb::PromoteRequest>,
    ) -> Result<Response<pb::PromoteResponse>, Status> {
        let began = Instant::now();
        let request = request.into_inner();
        let primary = self.upstream.get();
        let status = self.node.status();
        let now = promotion::prospect(&status)?;
        promotion::allow(&request, &status, &primary, &now)?;
        let mut response = pb::PromoteResponse {
            dry_run: request.dry_run,
            epoch: now.epoch.0,
            start_lsn: now.start.0,
            loss_bytes: now.loss_bytes,
            last_heard_ms: now.last_heard.map(millis),
            primary_connected: now.connected,
            primary,
            took_ms: 0,
        };
        if !request.dry_run {
            // It runs on if this call is cut off: half a promotion helps nobody.
            let node = self.node.clone();
            let promoted = tokio::spawn(async move { node.promote().await }).await;
            let failed = |_| status::status(Kind::Internal, "the promotion failed inside the server");
            let promotion = promoted.map_err(failed)?.map_err(|e| status::for_node(&e))?;
            tracing::warn!(epoch = %promotion.epoch, start = %promotion.start, "promoted");
            response.epoch = promotion.epoch.0;
            response.start_lsn = promotion.start.0;
        }
        response.took_ms = millis(began.elapsed());
        Ok(Response::new(response))
    }

    async fn fence(&self, request: Request<pb::FenceRequest>) -> Result<Response<pb::FenceResponse>, Status> {
        let (engine, _) = self.primary()?;
        let epoch = match request.into_inner().epoch {
            Some(epoch) => Epoch(epoch),
            None => engine.status().highest_epoch.promoted(),
        };
        self.node.fence(epoch).await.map_err(|e| status::for_node(&e))?;
        tracing::warn!(by = %epoch, "fenced by an operator");
        Ok(Response::new(pb::FenceResponse { fenced_by: epoch.0 }))
    }

    async fn create_tenant(
        &self,
        request: Request<pb::CreateTenantRequest>,
    ) -> Result<Response<pb::CreateTenantResponse>, Status> {
        let name = request.into_inner().name;
        let (engine, _) = self.primary()?;
        let tenant = self.run(move || {
            let tenant = engine.create_tenant(&name, strongroom::TenantOptions::default())?;
            Ok(pb::Tenant {
                id: tenant.id().0,
                name,
            })
        });
        Ok(Response::new(pb::CreateTenantResponse {
            tenant: Some(tenant.await?),
        }))
    }

    async fn list_tenants(
        &self,
        request: Request<pb::ListTenantsRequest>,
    ) -> Result<Response<pb::ListTenantsResponse>, Status> {
        let request = request.into_inner();
        let engine = self.readable()?;
        let limit = match request.limit {
            0 => PAGE_DEFAULT,
            limit => usize::try_from(limit).unwrap_or(PAGE_MAX).min(PAGE_MAX),
        };
        let response = self.run(move || {
            let mut tenants: Vec<_> = engine
                .tenants()
                .into_iter()
                .filter(|tenant| tenant.id.0 > request.after_id)
                .take(limit + 1)
                .map(|tenant| pb::Tenant {
                    id: tenant.id.0,
                    name: tenant.name,
                })
                .collect();
            let more = tenants.len() > limit;
            tenants.truncate(limit);
            Ok(pb::ListTenantsResponse { tenants, more })
        });
        Ok(Response::new(response.await?))
    }

    async fn show_tenant(
        &self,
        request: Request<pb::ShowTenantRequest>,
    ) -> Result<Response<pb::ShowTenantResponse>, Status> {
        let (engine, name) = (self.readable()?, request.into_inner().name);
        let shown = self.run(move || tenant_info::show(&engine, &name)).await?;
        Ok(Response::new(shown))
    }

    async fn set_quota(
        &self,
        request: Request<pb::SetQuotaRequest>,
    ) -> Result<Response<pb::SetQuotaResponse>, Status> {
        let request = request.into_inner();
        let (engine, _) = self.primary()?;
        self.run(move || engine.tenant(&request.name)?.set_quota(request.bytes))
            .await?;
        Ok(Response::new(pb::SetQuotaResponse {}))
    }

    async fn set_retention(
        &self,
        request: Request<pb::SetRetentionRequest>,
    ) -> Result<Response<pb::SetRetentionResponse>, Status> {
        let (request, (engine, _)) = (request.into_inner(), self.primary()?);
        self.run(move || tenant_info::set_retention(&engine, &request))
            .await?;
        Ok(Response::new(pb::SetRetentionResponse {}))
    }

    async fn set_separate_bytes(
        &self,
        request: Request<pb::SetSeparateBytesRequest>,
    ) -> Result<Response<pb::SetSeparateBytesResponse>, Status> {
        let (request, (engine, _)) = (request.into_inner(), self.primary()?);
        self.run(move || tenant_info::set_separate_bytes(&engine, &request))
            .await?;
        Ok(Response::new(pb::SetSeparateBytesResponse {}))
    }

    async fn delete_tenant(
        &self,
        request: Request<pb::DeleteTenantRequest>,
    ) -> Result<Response<pb::DeleteTenantResponse>, Status> {
        let name = request.into_inner().name;
        let (engine, epoch) = self.primary()?;
        let (tokens, snapshots) = (self.tokens.clone(), self.snapshots.clone());
        let deletion = self.run(move || {
            let deletion = engine.delete_tenant(&name)?;
            snapshots.forget_tenant(deletion.tenant);
            // Its tokens are dead with it; their records are only swept up.
            if let Err(error) = tokens.forget_tenant(epoch, &engine, deletion.tenant) {
                tracing::warn!(tenant = %deletion.tenant, %error, "records of a deleted tenant's tokens remain");
            }
            Ok(deletion)
        });
        let deletion = deletion.await?;
        tracing::info!(tenant = %deletion.tenant, keystore = deletion.keystore_version, "tenant destroyed");
        let root = match deletion.root {
            strongroom::keys::Destruction::Destroyed => pb::delete_tenant_response::Root::Destroyed(true),
            strongroom::keys::Destruction::ScheduledAt(ms) => {
                pb::delete_tenant_response::Root::ScheduledAtMs(ms)
            }
        };
        Ok(Response::new(pb::DeleteTenantResponse {
            tenant_id: deletion.tenant.0,
            keystore_version: deletion.keystore_version,
            root: Some(root),
            nodes: self.confirmed(deletion.keystore_version).await,
        }))
    }

    async fn create_token(
        &self,
        request: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenResponse>, Status> {
        let name = request.into_inner().tenant;
        let (engine, _) = self.primary()?;
        let tokens = self.tokens.clone();
        let (token, id) = self
            .run(move || {
                let tenant = engine.tenant(&name)?;
                tokens.create(&engine, tenant.id(), now_ms())
            })
            .await?;
        tracing::info!(token = %id, "token issued");
        let token = token.as_str().to_string();
        Ok(Response::new(pb::CreateTokenResponse {
            token,
            token_id: id.to_string(),
        }))
    }

    async fn revoke_token(
        &self,
        request: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        let malformed = || status::status(Kind::Invalid, "a token's id has 16 hexadecimal digits");
        let id = TokenId::parse(&request.into_inner().token_id).ok_or_else(malformed)?;
        let (engine, epoch) = self.primary()?;
        let tokens = self.tokens.clone();
        self.run(move || tokens.revoke(epoch, &engine, id)).await?;
        tracing::info!(token = %id, "token revoked");
        Ok(Response::new(pb::RevokeTokenResponse {}))
    }

    async fn list_tokens(
        &self,
        request: Request<pb::ListTokensRequest>,
    ) -> Result<Response<pb::ListTokensResponse>, Status> {
        let name = request.into_inner().tenant;
        let engine = self.readable()?;
        let tokens = self.tokens.clone();
        let tokens = self.run(move || {
            let of = if name.is_empty() {
                None
            } else {
                Some(engine.tenant(&name)?.id())
            };
            let mut listed = tokens.list(&engine)?;
            listed.retain(|token| of.is_none_or(|of| token.tenant == of));
            Ok(listed)
        });
        let wire = |token: crate::token_store::TokenInfo| pb::Token {
            token_id: token.id.to_string(),
            tenant_id: token.tenant.0,
            created_ms: token.created_ms,
        };
        let tokens = tokens.await?.into_iter().map(wire).collect();
        Ok(Response::new(pb::ListTokensResponse { tokens }))
    }

    async fn create_backup(
        &self,
        request: Request<pb::CreateBackupRequest>,
    ) -> Result<Response<pb::CreateBackupResponse>, Status> {
        let request = request.into_inner();
        let engine = self.readable()?;
        let created = self.run(move || {
            backup::create(
                &engine,
                request.directory.as_ref(),
                &request.escrow_recipient,
                request.escrow_path.as_ref(),
            )
        });
        let created = created.await?;
        Ok(Response::new(pb::CreateBackupResponse {
            epoch: created.checkpoint.position.epoch.0,
            lsn: created.checkpoint.position.lsn.0,
            seqno: created.checkpoint.position.seqno.0,
            files: created.checkpoint.files,
            bytes: created.checkpoint.bytes,
            escrow_bytes: created.escrow_bytes,
        }))
    }

    async fn accept_restored(
        &self,
        _: Request<pb::AcceptRestoredRequest>,
    ) -> Result<Response<pb::AcceptRestoredResponse>, Status> {
        let (engine, _) = self.primary()?;
        self.run(move || engine.accept_restored()).await?;
        Ok(Response::new(pb::AcceptRestoredResponse {}))
    }

    async fn flush(&self, _: Request<pb::FlushRequest>) -> Result<Response<pb::FlushResponse>, Status> {
        let engine = self.readable()?;
        self.run(move || engine.flush()).await?;
        Ok(Response::new(pb::FlushResponse {}))
    }

    async fn compact(&self, _: Request<pb::CompactRequest>) -> Result<Response<pb::CompactResponse>, Status> {
        let engine = self.readable()?;
        self.run(move || engine.compact()).await?;
        Ok(Response::new(pb::CompactResponse {}))
    }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    millis(since)
}
