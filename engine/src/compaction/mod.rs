//! Compaction: tables into tables, so that reads look at few and dropped data gives its space back.
//!
//! [`picker`] decides what to do from a [`picker::Shape`], [`job`] does it, in [`parts`] that cores share where there
//! are several, [`retention`] decides which versions survive, [`apart`] where values go; deciding is pure. [`range_deletes`]
//! carries those through. [`warm`] has the cache follow. Nothing here changes the database: a job writes and
//! syncs tables and returns an [`Edit`](crate::version::Edit), which
//! [`VersionSet::log_and_apply`](crate::version::VersionSet::log_and_apply) makes count.
//!
//! One compaction runs at a time, and is one edit, whatever it is cut into. Flushes may run beside it: they only add
//! tables to level 0 that are newer than all its inputs. Tables of destroyed tenants' data are never decrypted, only left out.

pub(crate) mod apart;
mod below;
pub(crate) mod job;
pub(crate) mod output;
pub(crate) mod parts;
pub(crate) mod picker;
pub(crate) mod range_deletes;
pub(crate) mod retention;
pub(crate) mod survey;
#[cfg(test)]
mod tests;
pub(crate) mod warm;

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::expiry;
use crate::hooks::{planted, rare};
use crate::io::Io;
use crate::options::Options;
use crate::read::cursor::EntryRef;
use crate::retention::Rule;
use crate::seal::FileKeys;
use crate::settings::Known;
use crate::types::{Epoch, KeyspaceId, SeqNo, TenantId};

use self::apart::Separation;
#[allow(unused_imports)] // The engine takes these from here.
pub(crate) use job::compact;
#[allow(unused_imports)]
pub(crate) use picker::{Limits, Plan, pick, pick_everything};
#[allow(unused_imports)]
pub(crate) use survey::{DroppedKeyspace, Survey};

/// What flushes and compactions work with. Plain arguments, so that a thread, a test or a simulator
/// can step them.
pub(crate) struct Work<'a> {
    /// The machine.
    pub io: &'a Io,
    /// Directory of the database.
    pub db: &'a Path,
    /// Sizes.
    pub options: &'a Options,
    /// Keys.
    pub keys: &'a Arc<FileKeys>,
    /// Epoch in the headers of new tables.
    pub epoch: Epoch,
    /// Live snapshots AND the version visible now, ascending. The visible one stands for snapshots that
    /// will be taken while the job runs. Empty means that only the newest versions matter.
    pub snapshots: &'a [SeqNo],
    /// What time it is, in milliseconds since 1970: values that have ended are left out.
    pub now: u64,
    /// What is set of tenants. Only of changes that are durable, as for `dropped`.
    pub settings: Known<'a>,
    /// The version at which a keyspace was dropped, if it was. Asked once per keyspace, tenant and part. Only
    /// of drops that are durable: what a job leaves out does not come back with a log that lost them.
    pub dropped: &'a (dyn Fn(TenantId, KeyspaceId) -> Result<Option<SeqNo>> + Sync),
    /// Gives numbers for new files: `VersionSet::next_number`.
    pub next_number: &'a (dyn Fn() -> u64 + Sync),
    /// Whether to give up: the job then ends in `Closed` and leaves nothing behind. A compaction asks at
    /// its start and about every 64 KiB of entries; a whole flush may be done and logged in between,
    /// inside this very call, so that one thread need not make writers wait for a long compaction. Called in the thread
    /// that began the job alone.
    pub cancelled: &'a dyn Fn() -> bool,
}

/// What a job knows of the keyspace whose entries it is at.
pub(crate) struct Terms {
    keyspace: KeyspaceId,
    /// The version at which it was dropped.
    pub dropped: Option<SeqNo>,
    rule: Option<Arc<Rule>>,
    /// From which length on its values go apart, if that was set of it.
    separate: Option<usize>,
}

impl Work<'_> {
    /// Of the keyspace of `key`; `last` if that is still the one.
    pub fn terms(&self, tenant: TenantId, key: &[u8], last: Option<Terms>) -> Result<Option<Terms>> {
        let Some(keyspace) = keyspace_of(key) else {
            return Ok(None);
        };
        if last.as_ref().is_some_and(|last| last.keyspace == keyspace) {
            return Ok(last);
        }
        Ok(Some(Terms {
            keyspace,
            dropped: (self.dropped)(tenant, keyspace)?,
            rule: self.settings.rule(tenant, keyspace),
            separate: self.settings.separate(tenant, keyspace),
        }))
    }
}

impl Terms {
    /// Which values of the keyspace go apart.
    pub fn separation(terms: Option<&Terms>, options: &Options) -> Separation {
        let catalog = terms.is_none_or(|terms| terms.keyspace == KeyspaceId::CATALOG);
        let ruled = terms.is_some_and(|terms| terms.rule.is_some()) && !planted!(RuledValuesApart);
        let own = terms
            .and_then(|terms| terms.separate)
            .filter(|_| !planted!(SeparationIgnored));
        if own.is_some_and(|own| own != options.separate_bytes) {
            rare!(SeparatedByKeyspace);
        }
        let from = own.unwrap_or(options.separate_bytes);
        Separation {
            from: (from > 0 && !catalog).then_some(from),
            ruled,
        }
    }

    /// When nothing but a delete is left of an entry of the keyspace.
    pub fn ends(terms: Option<&Terms>, entry: EntryRef<'_>) -> Option<u64> {
        expiry::ends(
            terms.and_then(|terms| terms.rule.as_deref()),
            entry.kind,
            entry.value,
        )
    }
}

/// The keyspace a tree key belongs to. None if it is too short to be one.
pub(crate) fn keyspace_of(key: &[u8]) -> Option<KeyspaceId> {
    key.first_chunk::<4>()
        .map(|id| KeyspaceId(u32::from_be_bytes(*id)))
}
