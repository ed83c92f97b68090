//! Quotas: set near what a tenant takes, and judged at every write.

use strongroom::{Error, ErrorKind};

use super::run::{Done, Run, Wrong};
use crate::oracle::Op;
use crate::world::name_of_tenant;

/// What the engine adds to an operation in a memtable: keyspace id, and moments.
const ADDED_BYTES: usize = 4 + 16;

impl Run {
    /// Sets a quota so many bytes above what the tenant takes, or below; without `set` none.
    pub fn quota(&mut self, tenant: u64, set: u64, above: u64, below: u64) -> Done {
        let tenant = name_of_tenant(tenant);
        if !self.certain(&tenant) || self.world.known().oracle.failures() > 0 {
            return Ok(());
        }
        let has = self.world.engine().tenant(&tenant)?.usage()?.bytes();
        let quota = (set > 0).then_some((has + above).saturating_sub(below));
        self.world.set_quota(&tenant, quota)?;
        self.check()
    }

    /// Whether a batch was rightly refused, or taken.
    pub(super) fn judge_quota(&self, tenant: &str, ops: &[Op], result: &Result<(), Error>) -> Done {
        let handle = self.world.engine().tenant(tenant)?;
        let Some(quota) = handle.quota()? else {
            return match result {
                Err(e) if e.kind() == ErrorKind::QuotaExceeded => {
                    Err(Wrong::Failure("refused for a quota that is not there".into()))
                }
                _ => Ok(()),
            };
        };
        let has = handle.usage()?.bytes();
        // Only a job inside the commit takes anything away, and that comes first.
        let cost = |(_, key, value): &Op| key.len() + value.as_ref().map_or(0, |v| v.len()) + ADDED_BYTES;
        let most: usize = ops.iter().map(cost).sum();
        match result {
            Err(e) if e.kind() == ErrorKind::QuotaExceeded && has < quota => Err(Wrong::Failure(format!(
                "refused with {has} bytes of a quota of {quota}"
            ))),
            Err(e)
                if e.kind() == ErrorKind::QuotaExceeded && ops.iter().all(|(.., value)| value.is_none()) =>
            {
                // Unless a keyspace had to be made.
                match self.world.visible().get(tenant) {
                    Some(spaces) if ops.iter().all(|(space, ..)| spaces.contains_key(space)) => {
                        Err(Wrong::Failure("deletes were refused for a quota".into()))
                    }
                    _ => Ok(()),
                }
            }
            Ok(()) if ops.iter().any(|(.., value)| value.is_some()) && has >= quota + most as u64 => Err(
                Wrong::Failure(format!("taken with {has} bytes of a quota of {quota}")),
            ),
            _ => Ok(()),
        }
    }
}
