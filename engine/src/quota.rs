//! Quotas: how much a tenant may take before its commits are refused.
//!
//! Compared is what [`Usage::bytes`](crate::Usage::bytes) tells: the tenant's sealed bytes in tables and value files and
//! its keys and values in memtables. Tables are counted when the version changes, run by run of those that came or went;
//! memtables count what is put into them. So a commit looks up two or three numbers, and walks nothing.
//!
//! Invariants: the numbers are those of the current version and of the memtables that are not in it; between the two
//! steps in which a flush is installed they may lack what it wrote. Only a primary compares: what is in the log
//! is applied everywhere.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::catalog::{CATALOG, after, drop_marker};
use crate::commit::parsed;
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::{planted, rare};
use crate::inner::{Inner, View};
use crate::read::cursor::EntryKind;
use crate::settings::quota_key;
use crate::tenant::Tenant;
use crate::types::{Position, TenantId};
use crate::version::Version;
use crate::wal::format::{Op, OpKind, push_op};

/// Bytes that tenants have in tables and value files.
#[derive(Default)]
pub(crate) struct Accounts(Mutex<HashMap<TenantId, u64>>);

impl Accounts {
    /// The version has changed.
    pub fn follow(&self, before: &Version, now: &Version) {
        let numbers = |version: &Version| -> HashSet<u64> {
            version.tables().map(|(_, table)| table.meta().number).collect()
        };
        let (old, new) = (numbers(before), numbers(now));
        let mut bytes = self.0.lock();
        for (tenant, more) in shares_beyond(now, before, &old) {
            *bytes.entry(tenant).or_default() += more;
        }
        for (tenant, less) in shares_beyond(before, now, &new) {
            if let Some(has) = bytes.get_mut(&tenant) {
                *has = has.saturating_sub(less);
                if *has == 0 {
                    bytes.remove(&tenant);
                }
            }
        }
    }

    fn of(&self, tenant: TenantId) -> u64 {
        self.0.lock().get(&tenant).copied().unwrap_or(0)
    }
}

/// What tenants have in the files of `version` that `other`, which has the tables `tables`, lacks.
fn shares_beyond<'a>(
    version: &'a Version,
    other: &'a Version,
    tables: &'a HashSet<u64>,
) -> impl Iterator<Item = (TenantId, u64)> + 'a {
    let in_tables = version
        .tables()
        .filter(|(_, table)| !tables.contains(&table.meta().number))
        .flat_map(|(_, table)| table.tenants().map(|run| (run.tenant, run.bytes)));
    let apart = version
        .values
        .iter()
        .filter(|(number, _)| !other.values.contains_key(number) && !planted!(ValuesNotCounted))
        .flat_map(|(_, file)| file.runs().iter().map(|run| (run.tenant, run.bytes)));
    in_tables.chain(apart)
}

/// Keys and values of a tenant in memtables.
pub(crate) fn in_memory(view: &View, tenant: TenantId) -> u64 {
    let immutables = view.immutables.iter().map(|memtable| memtable.bytes_of(tenant));
    immutables.chain([view.active.bytes_of(tenant)]).sum()
}

/// What an operation takes in a memtable, as far as it counts.
pub(crate) fn cost(op: &Op) -> u64 {
    (op.key.len() + op.value.len()) as u64
}

/// Whether an operation takes room to stay: a value, but not the mark of a deleted keyspace.
fn adds(op: &Op) -> bool {
    match op.kind {
        OpKind::Entry(EntryKind::Delete) | OpKind::DeleteRange => planted!(QuotaRefusesDeletes),
        OpKind::Entry(_) => drop_marker(op).is_none(),
    }
}

impl Inner {
    /// Ok if a tenant may commit these operations: they add nothing, or it has less than its quota. Under the commit
    /// lock.
    pub fn check_quota(&self, tenant: TenantId, ops: &[Op]) -> Result<()> {
        let Some(quota) = self.settings.quota(tenant) else {
            return Ok(());
        };
        if planted!(QuotaIgnored) || !ops.iter().any(adds) {
            return Ok(());
        }
        let has = self.accounts.of(tenant) + in_memory(&self.view(), tenant);
        if has < quota {
            return Ok(());
        }
        rare!(QuotaReached);
        Err(Error::new(
            ErrorKind::QuotaExceeded,
            format!(
                "the tenant has {has} bytes of a quota of {quota}: delete data, which gives room as compaction comes by, or \
                 raise the quota"
            ),
        ))
    }
}

impl Tenant {
    /// Sets how many bytes the tenant may take; `None`: any number. Durable as a commit at the engine's durability.
    ///
    /// A commit with a put, or that creates a keyspace, is refused (`QuotaExceeded`) while
    /// [`Usage::bytes`](crate::Usage::bytes) is at or above the quota, so that a tenant exceeds it by one batch at most.
    /// Batches of deletes alone always pass, and so does deleting a keyspace. They give
    /// room when compaction drops what they delete: deletes, and values that newer ones hide or that ended, count
    /// until then.
    ///
    /// - Cost: one commit; for each commit of the tenant a look at two numbers and one for each memtable.
    /// - Errors: `Invalid` (the system tenant, which has none), `NotFound`, and those of a write.
    ///
    /// ```no_run
    /// # use strongroom::{Engine, keys::KeyFile};
    /// # let engine = Engine::builder("./data").keys(KeyFile::open("strongroom.key")?).open()?;
    /// let acme = engine.tenant("acme")?;
    /// acme.set_quota(10 << 30)?;
    /// let left = (10u64 << 30).saturating_sub(acme.usage()?.bytes());
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    pub fn set_quota(&self, bytes: impl Into<Option<u64>>) -> Result<Position> {
        if self.id == TenantId::SYSTEM {
            let text = "the system tenant has no quota: what it holds keeps the others working";
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let inner = self.engine.inner();
        let key = quota_key(self.id);
        let mut plain = Vec::new();
        match bytes.into() {
            Some(bytes) => push_op(
                EntryKind::Put,
                CATALOG,
                after(&key),
                &bytes.to_le_bytes(),
                &mut plain,
            ),
            None => push_op(EntryKind::Delete, CATALOG, after(&key), &[], &mut plain),
        }
        let plain = Bytes::from(plain);
        let ops = parsed(&plain, 1)?;
        inner.throttle()?;
        let durability = inner.options.durability;
        let position = {
            let mut commit = inner.commit.lock();
            commit.check_writable()?;
            inner.check_tenant(self.id)?;
            inner.order(&mut commit, TenantId::SYSTEM, (plain, ops), durability)?
        };
        inner.make_durable(position, durability)?;
        inner.finish(position, durability)
    }

    /// The quota in bytes, if the tenant has one: to be compared with [`Usage::bytes`](crate::Usage::bytes). `NotFound`.
    pub fn quota(&self) -> Result<Option<u64>> {
        let inner = self.engine.inner();
        inner.check_tenant(self.id)?;
        Ok(inner.settings.quota(self.id))
    }
}
