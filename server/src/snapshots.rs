//! Snapshots that tenants' clients hold, by lease.
//!
//! A snapshot keeps old versions from being compacted away, so none may outlive its client: it ends when it was
//! not used for the length of its lease, when its tenant or its reign ends, and with the process. Each tenant
//! has a bounded number. Ids are random: one tenant's are worth nothing to another, which is looked up under its
//! own tenant anyway.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use strongroom::{Epoch, Snapshot, Tenant, TenantId};
use strongroom_client::Kind;
use tokio::time::Instant;
use tonic::Status;

use crate::status;

/// All leased snapshots.
pub struct Snapshots {
    per_tenant: usize,
    lease: Duration,
    open: Mutex<HashMap<TenantId, HashMap<u64, Leased>>>,
}

struct Leased {
    snapshot: Snapshot,
    epoch: Epoch,
    ends: Instant,
}

impl Snapshots {
    /// None open; `per_tenant` may be, each until `lease` after its last use.
    pub fn new(per_tenant: usize, lease: Duration) -> Snapshots {
        Snapshots {
            per_tenant,
            lease,
            open: Mutex::default(),
        }
    }

    /// How long one lives after its last use.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Takes a snapshot: id and version. `Busy` when the tenant has too many.
    pub fn open(&self, tenant: &Tenant, epoch: Epoch) -> Result<(u64, u64), Status> {
        let mut id = [0; 8];
        let failed = |_| status::status(Kind::Io, "the system gave no randomness");
        getrandom::fill(&mut id).map_err(failed)?;
        let id = u64::from_le_bytes(id).max(1);
        let now = Instant::now();
        let mut open = self.open.lock();
        let of_tenant = open.entry(tenant.id()).or_default();
        of_tenant.retain(|_, leased| leased.ends > now && leased.epoch == epoch);
        if of_tenant.len() >= self.per_tenant {
            let text = format!(
                "this tenant has {} snapshots open, the most there may be",
                of_tenant.len()
            );
            return Err(status::status(Kind::Busy, text));
        }
        let snapshot = tenant.snapshot();
        let seqno = snapshot.seqno().0;
        of_tenant.insert(
            id,
            Leased {
                snapshot,
                epoch,
                ends: now + self.lease,
            },
        );
        Ok((id, seqno))
    }

    /// The tenant's snapshot, its lease renewed. `Gone`.
    pub fn get(&self, tenant: TenantId, epoch: Epoch, id: u64) -> Result<Snapshot, Status> {
        let now = Instant::now();
        let mut open = self.open.lock();
        match open.get_mut(&tenant).and_then(|of_tenant| of_tenant.get_mut(&id)) {
            Some(leased) if leased.ends > now && leased.epoch == epoch => {
                leased.ends = now + self.lease;
                Ok(leased.snapshot.clone())
            }
            _ => Err(status::status(
                Kind::Gone,
                "there is no such snapshot: its lease ended, or it never was",
            )),
        }
    }

    /// Ends one; fine if it is gone.
    pub fn release(&self, tenant: TenantId, id: u64) {
        let mut open = self.open.lock();
        if let Some(of_tenant) = open.get_mut(&tenant) {
            of_tenant.remove(&id);
            if of_tenant.is_empty() {
                open.remove(&tenant);
            }
        }
    }

    /// Ends all of a tenant.
    pub fn forget_tenant(&self, tenant: TenantId) {
        self.open.lock().remove(&tenant);
    }

    /// Ends those whose lease is over.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.open.lock().retain(|_, of_tenant| {
            of_tenant.retain(|_, leased| leased.ends > now);
            !of_tenant.is_empty()
        });
    }

    /// Ends those of other reigns than `epoch`; `None`: all.
    pub fn keep_only(&self, epoch: Option<Epoch>) {
        self.open.lock().retain(|_, of_tenant| {
            of_tenant.retain(|_, leased| Some(leased.epoch) == epoch);
            !of_tenant.is_empty()
        });
    }

    /// How many are open.
    pub fn count(&self) -> u64 {
        self.open
            .lock()
            .values()
            .map(|of_tenant| of_tenant.len() as u64)
            .sum()
    }
}
