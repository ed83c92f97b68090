//! What is set of tenants and keyspaces: with the oracle knowing when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use strongroom::io::sim::Op as DiskOp;
use strongroom::{Result, Retention};

use super::{UNIQUE_BYTES, World, outcome};
use crate::oracle::{Change, Op};

/// While it lives, syncs take no time: what is written then is dated as the oracle knows it.
pub(super) struct Standing(Arc<AtomicUsize>);

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl World {
    /// Every sync takes so long, until the power is cut; but not those of what is dated.
    pub fn hang_syncs(&self, by: Duration) {
        let (clock, standing) = (self.clock.clone(), self.standing.clone());
        self.fs.before_syncs(move |_: &DiskOp| {
            if standing.load(Ordering::Relaxed) == 0 {
                clock.advance(by);
            }
        });
    }

    /// Where entries end, no two puts may look the same: which of them a crash left could not be told.
    pub fn told_apart(&mut self, ops: Vec<Op>) -> Vec<Op> {
        if !self.known().oracle.ages() {
            return ops;
        }
        let unique = |(space, key, value): Op| match value {
            Some(short) if short.len() < UNIQUE_BYTES => (space, key, Some(self.value(UNIQUE_BYTES))),
            other => (space, key, other),
        };
        ops.into_iter().map(unique).collect()
    }

    pub(super) fn stand(&self) -> Standing {
        self.standing.fetch_add(1, Ordering::Relaxed);
        Standing(self.standing.clone())
    }

    /// If one of the keyspaces is dated.
    pub(super) fn stand_for<'a>(
        &self,
        tenant: &str,
        mut spaces: impl Iterator<Item = &'a String>,
    ) -> Option<Standing> {
        let dated = spaces.any(|space| self.known().oracle.is_dated(tenant, space));
        dated.then(|| self.stand())
    }

    /// Sets a tenant's quota.
    pub fn set_quota(&mut self, tenant: &str, quota: Option<u64>) -> Result<()> {
        let handle = self.engine().tenant(tenant)?;
        let number = self.known().oracle.tenant(tenant);
        let number = number.expect("the oracle knows the tenant");
        let ticket = self.known().oracle.submit(Change::Quota(number, quota));
        let result = handle.set_quota(quota);
        self.done(ticket, outcome(&result, self.options.durability));
        result.map(drop)
    }

    /// Sets from which length on values of a keyspace, which exists, go apart.
    pub fn set_separate_bytes(&mut self, tenant: &str, space: &str, bytes: Option<usize>) -> Result<()> {
        let handle = self.engine().tenant(tenant)?;
        let keyspace = handle.open_keyspace(space)?;
        let number = self.known().oracle.tenant(tenant);
        let number = number.expect("the oracle knows the tenant");
        let change = Change::Separate(number, space.to_string(), bytes);
        let ticket = self.known().oracle.submit(change);
        let result = handle.set_separate_bytes(&keyspace, bytes);
        self.done(ticket, outcome(&result, self.options.durability));
        result.map(drop)
    }

    /// Sets the retention of a keyspace, which exists.
    pub fn set_retention(&mut self, tenant: &str, space: &str, keep: Option<Retention>) -> Result<()> {
        let handle = self.engine().tenant(tenant)?;
        let keyspace = handle.open_keyspace(space)?;
        let number = self.known().oracle.tenant(tenant);
        let number = number.expect("the oracle knows the tenant");
        let _standing = self.stand();
        let change = Change::Retain(number, space.to_string(), keep);
        let ticket = self.known().oracle.submit(change);
        let result = handle.set_retention(&keyspace, keep);
        self.done(ticket, outcome(&result, self.options.durability));
        result.map(drop)
    }
}
