//! The tenants in memory: who exists, under which name, with which keys. Pure: no files, no provider.
//!
//! About 250 bytes a tenant with a short name. Keys lie in locked memory, once.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::TenantInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::planted;
use crate::keys::{KeyChanges, TenantEntry, TenantKeys};
use crate::seal::{Dek, KeyLookup};
use crate::types::{DekVersion, TenantId};

/// Ids remembered for [`Tenants::changes_since`]; a receiver further behind gets everything.
const STEP_IDS_MAX: usize = 10_000;

/// One tenant: its newest key in place, older ones (rare) apart.
struct Tenant {
    name: Arc<str>,
    version: DekVersion,
    dek: Dek,
    older: Option<Box<[(DekVersion, Dek)]>>,
}

/// What one version changed.
struct Step {
    version: u64,
    upserts: Box<[TenantId]>,
    deleted: Box<[TenantId]>,
}

/// All of them.
pub(super) struct Tenants {
    by_id: BTreeMap<TenantId, Tenant>,
    by_name: HashMap<Arc<str>, TenantId>,
    version: u64,
    next_tenant: u64,
    /// Steps of consecutive versions, the last leading to `version`.
    steps: VecDeque<Step>,
    step_ids: usize,
    /// The version before the first of `steps`.
    steps_from: u64,
}

impl Tenants {
    /// From a full set, which was validated.
    pub fn new(full: &KeyChanges) -> Tenants {
        let mut tenants = Tenants {
            by_id: BTreeMap::new(),
            by_name: HashMap::with_capacity(full.upserts.len()),
            version: full.version,
            next_tenant: full.next_tenant,
            steps: VecDeque::new(),
            step_ids: 0,
            steps_from: full.version,
        };
        tenants.insert_all(full);
        tenants
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn next_tenant(&self) -> u64 {
        self.next_tenant
    }

    /// Users' tenants; the system tenant does not count.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn id(&self, name: &str) -> Option<TenantId> {
        self.by_name.get(name).copied()
    }

    pub fn contains(&self, id: TenantId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub fn info(&self, id: TenantId) -> Option<TenantInfo> {
        self.by_id.get(&id).map(|t| TenantInfo {
            id,
            name: t.name.to_string(),
        })
    }

    /// Users' tenants in order of id.
    pub fn list(&self) -> Vec<TenantInfo> {
        let users = self.by_id.iter().filter(|(id, _)| **id != TenantId::SYSTEM);
        users
            .map(|(id, t)| TenantInfo {
                id: *id,
                name: t.name.to_string(),
            })
            .collect()
    }

    pub fn current(&self, id: TenantId) -> Option<(DekVersion, Dek)> {
        self.by_id.get(&id).map(|t| (t.version, t.dek.clone()))
    }

    pub fn find(&self, id: TenantId, version: DekVersion) -> KeyLookup {
        let Some(tenant) = self.by_id.get(&id) else {
            return if id.0 < self.next_tenant {
                KeyLookup::Destroyed
            } else {
                KeyLookup::Unknown
            };
        };
        tenant
            .dek(version)
            .map_or(KeyLookup::Unknown, |dek| KeyLookup::Live(dek.clone()))
    }

    /// What to do about changes from elsewhere, or why they cannot be taken.
    pub fn plan(&self, changes: &KeyChanges) -> Result<Take> {
        if changes.full {
            return Ok(self.plan_full(changes));
        }
        if changes.version <= self.version {
            return Ok(Take::Nothing);
        }
        let diverged = |why: &str| Err(Error::new(ErrorKind::Diverged, format!("key changes: {why}")));
        if changes.next_tenant < self.next_tenant {
            return diverged("fewer ids were given out there than here");
        }
        for tenant in &changes.upserts {
            match self.by_id.get(&tenant.id) {
                Some(here) if !here.equals(tenant) => return diverged("a tenant has other keys there"),
                None if tenant.id.0 < self.next_tenant => return diverged("a destroyed tenant is back"),
                _ => {}
            }
            let holder = self.by_name.get(tenant.name.as_str());
            if holder.is_some_and(|id| *id != tenant.id && changes.deleted.binary_search(id).is_err()) {
                return diverged("a name belongs to another tenant there");
            }
        }
        // The log only adds. Tenants that came and went before anything was heard of them need no new root.
        if !changes.deleted.is_empty() {
            let new_root = changes.deleted.iter().any(|id| self.contains(*id));
            return Ok(Take::Replace { new_root });
        }
        Ok(Take::Append)
    }

    fn plan_full(&self, full: &KeyChanges) -> Take {
        let mut there = full.upserts.iter().peekable();
        let (mut kept, mut lost) = (0, false);
        for (id, tenant) in &self.by_id {
            while there.next_if(|t| t.id < *id).is_some() {}
            match there.next_if(|t| t.id == *id) {
                Some(t) if tenant.equals(t) => kept += 1,
                _ => lost = true,
            }
        }
        let same = full.version == self.version && full.next_tenant == self.next_tenant;
        match lost {
            false if same && kept == full.upserts.len() => Take::Nothing,
            new_root => Take::Replace { new_root },
        }
    }

    /// Takes over validated changes: replaces all, or deletes and then adds.
    pub fn commit(&mut self, changes: &KeyChanges) {
        if changes.full {
            *self = Tenants::new(changes);
            return;
        }
        for id in &changes.deleted {
            if let Some(tenant) = self.by_id.remove(id) {
                self.by_name.remove(&tenant.name);
            }
        }
        self.insert_all(changes);
        self.next_tenant = self.next_tenant.max(changes.next_tenant);
        if changes.version == self.version + 1 {
            self.step_ids += changes.upserts.len() + changes.deleted.len();
            self.steps.push_back(Step {
                version: changes.version,
                upserts: changes.upserts.iter().map(|t| t.id).collect(),
                deleted: changes.deleted.as_slice().into(),
            });
        } else {
            // Several versions at once: a receiver between them cannot be served by steps.
            self.steps.clear();
            self.step_ids = 0;
            self.steps_from = changes.version;
        }
        self.version = changes.version;
        while self.step_ids > STEP_IDS_MAX {
            let Some(step) = self.steps.pop_front() else { break };
            self.step_ids -= step.upserts.len() + step.deleted.len();
            self.steps_from = step.version;
        }
    }

    fn insert_all(&mut self, changes: &KeyChanges) {
        for keys in &changes.upserts {
            let Some(((version, dek), older)) = keys.deks.split_last() else {
                continue;
            };
            let older = older
                .iter()
                .map(|(v, k)| (*v, Dek::from_bytes(k)))
                .collect::<Box<[_]>>();
            let name: Arc<str> = keys.name.as_str().into();
            if keys.id != TenantId::SYSTEM {
                self.by_name.insert(Arc::clone(&name), keys.id);
            }
            let older = (!older.is_empty()).then_some(older);
            let dek = Dek::from_bytes(dek);
            self.by_id.insert(
                keys.id,
                Tenant {
                    name,
                    version: *version,
                    dek,
                    older,
                },
            );
        }
    }

    /// What leads from version `since` to the present: everything if the steps are no longer known.
    pub fn changes_since(&self, since: u64) -> KeyChanges {
        if since == 0 || since < self.steps_from || since > self.version {
            return self.export();
        }
        let (mut upserts, mut deleted) = (BTreeSet::new(), BTreeSet::new());
        for step in self.steps.iter().filter(|s| s.version > since) {
            upserts.extend(step.upserts.iter().copied());
            deleted.extend(step.deleted.iter().copied());
        }
        let keys = |id: &TenantId| self.by_id.get(id).map(|t| t.keys(*id));
        KeyChanges {
            version: self.version,
            full: false,
            next_tenant: self.next_tenant,
            upserts: upserts.iter().filter_map(keys).collect(),
            deleted: deleted.into_iter().collect(),
        }
    }

    /// Everything.
    pub fn export(&self) -> KeyChanges {
        KeyChanges {
            version: self.version,
            full: true,
            next_tenant: self.next_tenant,
            upserts: self.by_id.iter().map(|(id, t)| t.keys(*id)).collect(),
            deleted: Vec::new(),
        }
    }

    /// The full set as it will be after `changes`, encoded without building it.
    pub fn encode_after(&self, changes: Option<&KeyChanges>) -> Zeroizing<Vec<u8>> {
        let mut entries: Vec<Entry<'_>> = Vec::with_capacity(self.by_id.len());
        let (version, next_tenant) = match changes {
            Some(c) if c.full => (c.version, c.next_tenant),
            Some(c) => (c.version, c.next_tenant.max(self.next_tenant)),
            None => (self.version, self.next_tenant),
        };
        let replaced = |id: &TenantId| match changes {
            None => false,
            Some(_) if planted!(DeletedKeyKept) => false,
            Some(c) if c.full => true,
            Some(c) => {
                c.deleted.binary_search(id).is_ok() || c.upserts.binary_search_by_key(id, |t| t.id).is_ok()
            }
        };
        let kept = self.by_id.iter().filter(|(id, _)| !replaced(id));
        entries.extend(kept.map(|(id, tenant)| Entry::Kept(*id, tenant)));
        if let Some(changes) = changes {
            entries.extend(changes.upserts.iter().map(Entry::New));
            entries.sort_unstable_by_key(TenantEntry::id);
        }
        crate::keys::encode_changes(version, true, next_tenant, entries.iter(), &[])
    }
}

impl Tenant {
    fn dek(&self, version: DekVersion) -> Option<&Dek> {
        if version == self.version {
            return Some(&self.dek);
        }
        self.older
            .iter()
            .flatten()
            .find(|(v, _)| *v == version)
            .map(|(_, dek)| dek)
    }

    fn deks(&self) -> impl Iterator<Item = (DekVersion, &Dek)> {
        self.older
            .iter()
            .flatten()
            .map(|(v, d)| (*v, d))
            .chain([(self.version, &self.dek)])
    }

    fn keys(&self, id: TenantId) -> TenantKeys {
        let deks = self
            .deks()
            .map(|(v, d)| (v, Zeroizing::new(*d.expose())))
            .collect();
        TenantKeys {
            id,
            name: self.name.to_string(),
            deks,
        }
    }

    fn equals(&self, keys: &TenantKeys) -> bool {
        *self.name == *keys.name
            && self
                .deks()
                .map(|(v, d)| (v, d.expose()))
                .eq(keys.deks.iter().map(|(v, k)| (*v, &**k)))
    }
}

/// A tenant to be written.
enum Entry<'a> {
    Kept(TenantId, &'a Tenant),
    New(&'a TenantKeys),
}

impl TenantEntry for Entry<'_> {
    fn id(&self) -> TenantId {
        match self {
            Entry::Kept(id, _) => *id,
            Entry::New(keys) => keys.id,
        }
    }

    fn name(&self) -> &str {
        match self {
            Entry::Kept(_, tenant) => &tenant.name,
            Entry::New(keys) => &keys.name,
        }
    }

    fn for_each_dek(&self, visit: &mut dyn FnMut(DekVersion, &[u8; 32])) {
        match self {
            Entry::Kept(_, tenant) => tenant.deks().for_each(|(v, dek)| visit(v, dek.expose())),
            Entry::New(keys) => keys.for_each_dek(visit),
        }
    }
}

/// How to take over changes from elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Take {
    /// They are here already.
    Nothing,
    /// Only additions: a frame of the log.
    Append,
    /// A new base; with a new root if keys die by it.
    Replace { new_root: bool },
}
