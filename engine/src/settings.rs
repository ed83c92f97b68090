//! What is set of tenants, apart from what they wrote: retentions of keyspaces, from which length on their values go apart, and
//! quotas. Kept as entries of the system tenant, so that log, standby, checkpoint and recovery carry it in the order of all else;
//! and all of it in memory. [`keyspaces`] sets what is set of one.
//!
//! ```text
//! key in the system tenant's keyspace 0          value    meaning
//! 0x03 tenant (u64 BE) keyspace (u32 BE)         rule     see `retention`
//! 0x04 tenant (u64 BE)                           u64      quota in bytes, see `quota`
//! 0x05 tenant (u64 BE) keyspace (u32 BE)         u32      values of so many bytes and more go apart; 0: none
//! ```
//!
//! A change counts on a node from when it is in its log, a moment before it is acknowledged. What background work
//! does by a rule is final, so jobs make the log durable up to it first, and a table says which changes it knew. Where values
//! go changes what is read by nothing: a job takes the newest it finds.
//!
//! Invariants: changes are applied under the commit lock, in the order of the log; who knows a version from `newest`
//! finds every change up to it. Nothing of a destroyed tenant is kept.

mod keyspaces;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::catalog::{CATALOG, after, catalog_key};
use crate::compaction::keyspace_of;
use crate::error::{Error, ErrorKind, Result};
use crate::expiry::{self, ExpiryClock, NEVER};
use crate::hooks::{planted, rare};
use crate::inner::{Inner, Seen, View};
use crate::options::can_separate_from;
use crate::read::cursor::EntryKind;
use crate::read::visible::{Bounds, VisibleCursor};
use crate::retention::Rule;
use crate::types::{KeyspaceId, SeqNo, TenantId};
use crate::wal::format::{Op, OpKind, push_dated, push_op, push_range_delete};

const RULE: u8 = 3;
const QUOTA: u8 = 4;
const SEPARATE: u8 = 5;

/// Of all tenants.
#[derive(Default)]
pub(crate) struct Settings {
    /// Version of the newest change of a rule. Written after the change itself.
    newest: AtomicU64,
    /// How many tenants have a quota.
    quotas: AtomicUsize,
    /// Whether a keyspace ever had a threshold of its own.
    any_apart: AtomicBool,
    tenants: RwLock<HashMap<TenantId, OfTenant>>,
}

/// Of one of them.
#[derive(Default)]
struct OfTenant {
    rules: Vec<(KeyspaceId, Arc<Rule>)>,
    quota: Option<u64>,
    /// From which length on values go apart.
    apart: Vec<(KeyspaceId, u32)>,
}

impl OfTenant {
    fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.quota.is_none() && self.apart.is_empty()
    }

    fn rule(&self, keyspace: KeyspaceId) -> Option<&Arc<Rule>> {
        let found = self.rules.iter().find(|(id, _)| *id == keyspace);
        found.map(|(_, rule)| rule)
    }
}

/// A setting that an entry of the system tenant holds.
enum Setting {
    Rule(TenantId, KeyspaceId, Option<Arc<Rule>>),
    Quota(TenantId, Option<u64>),
    Separate(TenantId, KeyspaceId, Option<u32>),
}

/// The tree key of a tenant's quota.
pub(crate) fn quota_key(tenant: TenantId) -> Vec<u8> {
    catalog_key(QUOTA, &tenant.0.to_be_bytes())
}

/// The tree key of what is set of a keyspace.
fn keyspace_key(tag: u8, tenant: TenantId, keyspace: KeyspaceId) -> Vec<u8> {
    catalog_key(
        tag,
        &[&tenant.0.to_be_bytes()[..], &keyspace.0.to_be_bytes()].concat(),
    )
}

impl Setting {
    fn tenant(&self) -> TenantId {
        match self {
            Setting::Rule(tenant, ..) | Setting::Quota(tenant, _) | Setting::Separate(tenant, ..) => *tenant,
        }
    }

    /// None: another entry. An error: a malformed one.
    fn parse(key: &[u8], kind: EntryKind, value: &[u8], at: SeqNo) -> Result<Option<Setting>> {
        let Some((tag, rest)) = key.strip_prefix(&CATALOG).and_then(<[u8]>::split_first) else {
            return Ok(None);
        };
        if !(RULE..=SEPARATE).contains(tag) {
            return Ok(None);
        }
        let malformed = || Error::new(ErrorKind::Corruption, "a setting in the catalog is malformed");
        let value = Some(value).filter(|_| kind != EntryKind::Delete);
        let (tenant, rest) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
        let tenant = TenantId(u64::from_be_bytes(*tenant));
        if *tag == QUOTA {
            let quota = value.map(|value| value.try_into().map(u64::from_le_bytes));
            let quota = quota.transpose().map_err(|_| malformed())?;
            let whole = rest.is_empty().then_some(Setting::Quota(tenant, quota));
            return whole.map(Some).ok_or_else(malformed);
        }
        let keyspace = rest.try_into().map_err(|_| malformed())?;
        let keyspace = KeyspaceId(u32::from_be_bytes(keyspace));
        if *tag == SEPARATE {
            let bytes = value.map(|value| value.try_into().map(u32::from_le_bytes));
            let bytes = bytes.transpose().map_err(|_| malformed())?;
            let fits = bytes.is_none_or(|bytes| can_separate_from(bytes as usize));
            let separate = fits.then_some(Setting::Separate(tenant, keyspace, bytes));
            return separate.map(Some).ok_or_else(malformed);
        }
        let rule = value.map(|value| Rule::decode(at, value).map(Arc::new).ok_or_else(malformed));
        Ok(Some(Setting::Rule(tenant, keyspace, rule.transpose()?)))
    }
}

impl Settings {
    /// What tables hold; the log is applied after.
    ///
    /// - Cost: a scan of the settings, if there are any.
    /// - Errors: `Corruption`, `Io`.
    pub fn load(&self, view: &View, times: &ExpiryClock, is_live: impl Fn(TenantId) -> bool) -> Result<()> {
        if planted!(RetentionForgotten) {
            return Ok(());
        }
        let source = view.cursor(TenantId::SYSTEM, SeqNo::MAX)?;
        let bounds = Arc::new(Bounds {
            lower: catalog_key(RULE, &[]),
            upper: Some(catalog_key(SEPARATE + 1, &[])),
        });
        let mut cursor = VisibleCursor::bounded(source, SeqNo::MAX, bounds.clone());
        cursor.seek(&times.by(None), &bounds.lower)?;
        while let Some(entry) = cursor.entry() {
            let setting = Setting::parse(entry.key, entry.kind, entry.value, entry.seqno)?;
            let live = |setting: &Setting| match setting {
                Setting::Quota(..) if planted!(QuotaForgotten) => false,
                Setting::Separate(..) if planted!(SeparationForgotten) => false,
                setting => is_live(setting.tenant()),
            };
            self.set(entry.seqno, setting.filter(live));
            cursor.next(&times.by(None))?;
        }
        Ok(())
    }

    /// Takes over what an operation of the system tenant sets, if anything. Under the commit lock, in log order.
    /// Returns the rule, if it is one.
    pub fn apply(&self, at: SeqNo, op: &Op) -> Option<Arc<Rule>> {
        // What is malformed the next opening refuses.
        let OpKind::Entry(kind) = op.kind else { return None };
        let setting = Setting::parse(&op.key, kind, &op.value, at).ok().flatten()?;
        let rule = match &setting {
            Setting::Rule(_, _, rule) => rule.clone(),
            Setting::Quota(..) | Setting::Separate(..) => None,
        };
        self.set(at, Some(setting));
        rule
    }

    fn set(&self, at: SeqNo, setting: Option<Setting>) {
        let Some(setting) = setting else { return };
        let ruled = matches!(setting, Setting::Rule(..));
        let mut tenants = self.tenants.write();
        let tenant = setting.tenant();
        let of_tenant = tenants.entry(tenant).or_default();
        match setting {
            Setting::Rule(_, keyspace, rule) => {
                of_tenant.rules.retain(|(id, _)| *id != keyspace);
                of_tenant.rules.extend(rule.map(|rule| (keyspace, rule)));
            }
            Setting::Quota(_, quota) => {
                self.quotas
                    .fetch_add(usize::from(quota.is_some()), Ordering::Relaxed);
                self.quotas
                    .fetch_sub(usize::from(of_tenant.quota.is_some()), Ordering::Relaxed);
                of_tenant.quota = quota;
            }
            Setting::Separate(_, keyspace, bytes) => {
                of_tenant.apart.retain(|(id, _)| *id != keyspace);
                of_tenant.apart.extend(bytes.map(|bytes| (keyspace, bytes)));
                self.any_apart.store(true, Ordering::Relaxed);
            }
        }
        if of_tenant.is_empty() {
            tenants.remove(&tenant);
        }
        drop(tenants);
        if ruled {
            self.newest.fetch_max(at.0, Ordering::AcqRel);
        }
    }

    /// Forgets destroyed tenants.
    pub fn forget(&self, gone: impl Fn(TenantId) -> bool) {
        self.tenants.write().retain(|tenant, of| {
            let gone = gone(*tenant);
            let had = usize::from(gone && of.quota.is_some());
            self.quotas.fetch_sub(had, Ordering::Relaxed);
            !gone
        });
    }

    /// A tenant's quota in bytes, if it has one.
    pub fn quota(&self, tenant: TenantId) -> Option<u64> {
        if self.quotas.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.tenants.read().get(&tenant)?.quota
    }

    /// From which length on a keyspace's values go apart, if it has a threshold of its own; 0: none does.
    pub fn separate(&self, tenant: TenantId, keyspace: KeyspaceId) -> Option<usize> {
        if !self.any_apart.load(Ordering::Relaxed) {
            return None;
        }
        let tenants = self.tenants.read();
        let mut apart = tenants.get(&tenant)?.apart.iter();
        apart.find_map(|(id, bytes)| (*id == keyspace).then_some(*bytes as usize))
    }

    /// Version of the newest change of a rule; `ZERO` if none was ever set.
    pub fn newest(&self) -> SeqNo {
        SeqNo(self.newest.load(Ordering::Acquire))
    }

    /// The rule of a keyspace, if it has one.
    pub fn rule(&self, tenant: TenantId, keyspace: KeyspaceId) -> Option<Arc<Rule>> {
        self.tenants.read().get(&tenant)?.rule(keyspace).cloned()
    }

    /// The same for a handle that asks often and most often has none: looks again only after a change, whosever.
    #[inline]
    pub fn rule_again(&self, tenant: TenantId, keyspace: KeyspaceId, seen: &Seen) -> Option<Arc<Rule>> {
        // First the version, then the look: a change in between shows in the next version.
        let newest = self.newest().0;
        if seen.unruled.load(Ordering::Relaxed) == newest {
            return None;
        }
        let rule = self.rule(tenant, keyspace);
        if rule.is_none() {
            seen.unruled.store(newest, Ordering::Relaxed);
        }
        rule
    }

    /// Tree keys of all that is set of a tenant.
    fn keys(&self, tenant: TenantId) -> Vec<Vec<u8>> {
        let tenants = self.tenants.read();
        let Some(of) = tenants.get(&tenant) else {
            return Vec::new();
        };
        let rules = of.rules.iter().map(|(id, _)| keyspace_key(RULE, tenant, *id));
        let apart = of.apart.iter().map(|(id, _)| keyspace_key(SEPARATE, tenant, *id));
        rules
            .chain(apart)
            .chain(of.quota.map(|_| quota_key(tenant)))
            .collect()
    }

    /// The rules of a tenant.
    fn rules(&self, tenant: TenantId) -> Vec<(KeyspaceId, Arc<Rule>)> {
        let tenants = self.tenants.read();
        tenants.get(&tenant).map_or_else(Vec::new, |of| of.rules.clone())
    }

    /// For a job; the log must be durable up to the newest change before its work counts.
    pub fn known(&self) -> Known<'_> {
        Known {
            settings: self,
            newest: self.newest(),
        }
    }

    /// A batch whose puts to keyspaces with a rule carry the moment at which they are written; None if it has none.
    pub fn dated(&self, tenant: TenantId, ops: &[Op], now: impl FnOnce() -> u64) -> Option<Vec<u8>> {
        if self.newest() == SeqNo::ZERO {
            return None;
        }
        let tenants = self.tenants.read();
        let of_tenant = tenants.get(&tenant)?;
        let rule = |op: &Op| {
            of_tenant
                .rule(keyspace_of(&op.key)?)
                .filter(|_| !matches!(op.kind, OpKind::Entry(EntryKind::Delete) | OpKind::DeleteRange))
        };
        if !ops.iter().any(|op| rule(op).is_some()) {
            return None;
        }
        let now = now();
        let mut plain = Vec::new();
        for op in ops {
            let Some((keyspace, key)) = op.key.split_first_chunk::<4>() else {
                continue;
            };
            match (op.kind, rule(op)) {
                (OpKind::DeleteRange, _) => push_range_delete(&op.key, &op.value, &mut plain),
                (OpKind::Entry(kind), Some(rule)) => {
                    let written = now.max(rule.since);
                    let expires = expiry::expires(kind, &op.value).unwrap_or(NEVER);
                    let value = op.value.get(kind.stamp_bytes()..).unwrap_or_default();
                    push_dated(*keyspace, key, value, (written, expires), &mut plain);
                }
                (OpKind::Entry(kind), None) => push_op(kind, *keyspace, key, &op.value, &mut plain),
            }
        }
        Some(plain)
    }
}

/// The settings as far as they count for a job: up to a change that is durable before the job's work is.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    settings: &'a Settings,
    /// That change.
    pub newest: SeqNo,
}

impl Known<'_> {
    /// See [`Settings::rule`].
    pub fn rule(&self, tenant: TenantId, keyspace: KeyspaceId) -> Option<Arc<Rule>> {
        if self.newest == SeqNo::ZERO {
            return None;
        }
        let rule = self.settings.rule(tenant, keyspace);
        // Of one that was changed since, nothing earlier is known: its keyspace is left as it is.
        rule.filter(|rule| rule.changed <= self.newest)
    }

    /// See [`Settings::separate`]. The newest: whatever a job does by it can be read.
    pub fn separate(&self, tenant: TenantId, keyspace: KeyspaceId) -> Option<usize> {
        self.settings.separate(tenant, keyspace)
    }

    /// The earliest moment at which something ends in what `run` holds of a table whose writer knew the settings up to
    /// `known`, as far as that writer could not tell. `holds` says whether there is anything of a keyspace.
    pub fn ends_first(
        &self,
        tenant: TenantId,
        known: SeqNo,
        holds: impl Fn(KeyspaceId) -> bool,
    ) -> Option<u64> {
        if known >= self.newest || planted!(RetentionTablesForgotten) {
            return None;
        }
        let rules = self.settings.rules(tenant);
        let changed = rules
            .iter()
            .filter(|(_, rule)| known < rule.changed && rule.changed <= self.newest);
        let first = changed
            .filter_map(|(keyspace, rule)| Some((rule.ends_first()?, *keyspace)))
            .filter(|(_, keyspace)| holds(*keyspace));
        first.map(|(ends, _)| ends).min()
    }
}

impl Inner {
    /// Takes what was set of a destroyed tenant out of the tree. What stays if that fails is never looked at.
    pub fn unset(&self, tenant: TenantId) {
        let keys = self.settings.keys(tenant);
        self.settings.forget(|other| other == tenant);
        if keys.is_empty() {
            return;
        }
        let mut plain = Vec::new();
        for key in &keys {
            push_op(EntryKind::Delete, CATALOG, after(key), &[], &mut plain);
        }
        rare!(SettingsOfDeletedTenant);
        let _ = self.commit(
            TenantId::SYSTEM,
            plain,
            keys.len() as u32,
            self.options.durability,
        );
    }
}
