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

#[cfg(test)]
mod tests {
    use strongroom::keys::KeyFile;
    use strongroom::{Engine, TenantOptions};

    use super::*;

    fn engine(dir: &std::path::Path) -> Engine {
        KeyFile::create(dir.join("key")).unwrap();
        Engine::builder(dir.join("db"))
            .keys(KeyFile::open(dir.join("key")).unwrap())
            .open()
            .unwrap()
    }

    const LEASE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn snapshot_used_then_its_lease_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let tenant = engine(dir.path())
            .create_tenant("a", TenantOptions::default())
            .unwrap();
        let snapshots = Snapshots::new(1, LEASE);
        let epoch = Epoch::FIRST;
        let (id, _) = snapshots.open(&tenant, epoch).unwrap();
        for _ in 0..3 {
            tokio::time::advance(LEASE * 9 / 10).await;
            snapshots.sweep();
            snapshots.get(tenant.id(), epoch, id).unwrap();
            assert!(snapshots.open(&tenant, epoch).is_err(), "one too many");
        }
        tokio::time::advance(LEASE).await;
        assert!(snapshots.get(tenant.id(), epoch, id).is_err());
        // Its place is free before any sweep.
        snapshots.open(&tenant, epoch).unwrap();
        assert_eq!(snapshots.count(), 1);
        tokio::time::advance(LEASE).await;
        snapshots.sweep();
        assert_eq!(snapshots.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn reign_or_tenant_ended_then_its_snapshots_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let a = engine.create_tenant("a", TenantOptions::default()).unwrap();
        let b = engine.create_tenant("b", TenantOptions::default()).unwrap();
        let snapshots = Snapshots::new(8, LEASE);
        let epoch = Epoch::FIRST;
        let (of_a, _) = snapshots.open(&a, epoch).unwrap();
        let (of_b, _) = snapshots.open(&b, epoch).unwrap();
        assert!(snapshots.get(b.id(), epoch, of_a).is_err(), "another tenant's");
        assert!(
            snapshots.get(a.id(), epoch.promoted(), of_a).is_err(),
            "another reign's"
        );
        snapshots.forget_tenant(a.id());
        assert!(snapshots.get(a.id(), epoch, of_a).is_err());
        snapshots.keep_only(Some(epoch));
        snapshots.get(b.id(), epoch, of_b).unwrap();
        snapshots.keep_only(Some(epoch.promoted()));
        assert_eq!(snapshots.count(), 0);
    }
}
