//! A set of versions and a map in memory that must hold the same.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::super::survey::VersionEdges;
use super::super::*;
use crate::expiry;
use crate::flush::flush;
use crate::memtable::Memtable;
use crate::options::Compression;
use crate::read::cursor::EntryKind;
use crate::settings::Settings;
use crate::table::Owner;
use crate::types::Lsn;
use crate::version::testing::{Machine, get, layout, visible_at};
use crate::version::{Version, VersionSet};

pub fn tree_key(keyspace: u32, key: &str) -> Bytes {
    [&keyspace.to_be_bytes(), key.as_bytes()].concat().into()
}

/// Versions of a key, oldest first; None is a delete.
pub type History = Vec<(u64, Option<Bytes>)>;

/// A database without WAL, and what should be in it.
pub struct Model {
    pub machine: Machine,
    pub options: Options,
    pub set: VersionSet,
    pub survey: Survey,
    pub memtable: Arc<Memtable>,
    pub seqno: u64,
    pub oracle: BTreeMap<(u64, Bytes), History>,
    pub snapshots: BTreeSet<u64>,
    pub destroyed: BTreeSet<u64>,
    pub drops: Vec<DroppedKeyspace>,
    /// When versions expire.
    pub expires: BTreeMap<u64, u64>,
    /// What time it is.
    pub now: u64,
    pub settings: Settings,
    /// That worked since somebody looked.
    pub threads: Mutex<HashSet<ThreadId>>,
}

impl Model {
    pub fn new() -> Model {
        let machine = Machine::new();
        // Four levels with a megabyte.
        let options = Options {
            table_bytes: 4 << 10,
            level1_bytes: 8 << 10,
            block_bytes: 256,
            expiry_grace: Duration::from_secs(5),
            compression: Compression::None,
            ..Options::tiny()
        };
        Model {
            set: machine.create().unwrap(),
            machine,
            options,
            survey: Survey::default(),
            memtable: Arc::new(Memtable::new(64 << 10)),
            seqno: 0,
            oracle: BTreeMap::new(),
            snapshots: BTreeSet::new(),
            destroyed: BTreeSet::new(),
            drops: Vec::new(),
            expires: BTreeMap::new(),
            now: 1,
            settings: Settings::default(),
            threads: Mutex::default(),
        }
    }

    /// A put that expires.
    pub fn write_until(&mut self, tenant: u64, keyspace: u32, key: &str, value: Bytes, at: u64) {
        self.seqno += 1;
        let key = tree_key(keyspace, key);
        let stored = Bytes::from([&at.to_le_bytes(), &value[..]].concat());
        self.memtable.insert(
            TenantId(tenant),
            key.clone(),
            SeqNo(self.seqno),
            EntryKind::Expiring,
            stored,
        );
        self.expires.insert(self.seqno, at);
        let history = self.oracle.entry((tenant, key)).or_default();
        history.push((self.seqno, Some(value)));
    }

    fn is_gone(&self, entry: &crate::read::cursor::Found) -> bool {
        let ends = expiry::ends(None, entry.kind, &entry.value);
        expiry::is_gone(entry.kind, ends, self.now)
    }

    /// What a version of a key reads as now.
    pub fn reads(&self, (seqno, value): &(u64, Option<Bytes>)) -> Option<Bytes> {
        let past = self.expires.get(seqno).is_some_and(|at| *at <= self.now);
        value.clone().filter(|_| !past)
    }

    pub fn write(&mut self, tenant: u64, keyspace: u32, key: &str, value: Option<Bytes>) {
        self.seqno += 1;
        let key = tree_key(keyspace, key);
        let kind = if value.is_some() {
            EntryKind::Put
        } else {
            EntryKind::Delete
        };
        let bytes = value.clone().unwrap_or_default();
        self.memtable
            .insert(TenantId(tenant), key.clone(), SeqNo(self.seqno), kind, bytes);
        self.oracle
            .entry((tenant, key))
            .or_default()
            .push((self.seqno, value));
    }

    /// Keys of one keyspace: all histories go on with a delete.
    pub fn delete_range(&mut self, tenant: u64, keyspace: u32, from: &str, to: &str) {
        self.seqno += 1;
        let range = (tree_key(keyspace, from), tree_key(keyspace, to));
        for ((of, key), history) in &mut self.oracle {
            if *of == tenant && range.0 <= *key && *key < range.1 {
                history.push((self.seqno, None));
            }
        }
        self.memtable
            .delete_ranges(TenantId(tenant), vec![range], SeqNo(self.seqno));
    }

    /// Live snapshots and the visible version.
    pub fn snapshots(&self) -> Vec<SeqNo> {
        self.snapshots
            .iter()
            .chain([&self.seqno])
            .map(|seqno| SeqNo(*seqno))
            .collect()
    }

    pub fn working<T>(&self, cancelled: &dyn Fn() -> bool, job: impl FnOnce(&Work<'_>) -> T) -> T {
        self.working_on(&self.machine, &self.set, cancelled, job)
    }

    /// On another machine with the same tables.
    pub fn working_on<T>(
        &self,
        machine: &Machine,
        set: &VersionSet,
        cancelled: &dyn Fn() -> bool,
        job: impl FnOnce(&Work<'_>) -> T,
    ) -> T {
        let snapshots = self.snapshots();
        let dropped = |tenant, keyspace| {
            self.threads.lock().insert(std::thread::current().id());
            let drop = self
                .drops
                .iter()
                .find(|drop| drop.tenant == tenant && drop.keyspace == keyspace);
            Ok(drop.map(|drop| drop.at))
        };
        job(&Work {
            io: &machine.io,
            db: &machine.db,
            options: &self.options,
            keys: &machine.keys,
            epoch: Epoch::FIRST,
            snapshots: &snapshots,
            now: self.now,
            settings: self.settings.known(),
            dropped: &dropped,
            next_number: &|| set.next_number(),
            cancelled,
        })
    }

    pub fn flush(&mut self) -> Result<()> {
        let lsn = Lsn(self.seqno);
        let edit = self.working(&|| false, |work| {
            flush(work, &self.memtable, lsn, SeqNo(self.seqno))
        })?;
        self.set.log_and_apply(edit)?;
        self.memtable = Arc::new(Memtable::new(64 << 10));
        Ok(())
    }

    pub fn plan(&mut self, everything_before: Option<u64>) -> Option<Plan> {
        let version = self.set.current();
        let (snapshots, generation) = (self.snapshots(), self.destroyed.len() as u64);
        let shape = self
            .survey
            .shape(
                &version,
                &self.machine.keys,
                generation,
                &self.drops,
                (&snapshots, self.now),
                self.settings.known(),
            )
            .unwrap();
        let (edges, limits) = (VersionEdges::new(&version), Limits::from(&self.options));
        match everything_before {
            Some(before) => pick_everything(&shape, &edges, &limits, before).unwrap(),
            None => pick(&shape, &edges, &limits).unwrap(),
        }
    }

    pub fn carry_out(&self, plan: &Plan) -> Result<()> {
        let version = self.set.current();
        self.working(&|| false, |work| {
            let edit = compact(work, &version, plan)?;
            let apply = |edit| self.set.log_and_apply(edit);
            warm::follow(work, &self.machine.cache, &version, edit, apply)
        })
    }

    /// One compaction; false if there is none to do.
    pub fn step(&mut self) -> Result<bool> {
        match self.plan(None) {
            Some(plan) => self.carry_out(&plan).map(|()| true),
            None => Ok(false),
        }
    }

    pub fn settle(&mut self) -> u64 {
        for steps in 0..1000 {
            if !self.step().unwrap() {
                return steps;
            }
        }
        panic!("compaction does not end");
    }

    pub fn compact_everything(&mut self) {
        let before = self.set.next_number();
        for _ in 0..1000 {
            match self.plan(Some(before)) {
                Some(plan) => self.carry_out(&plan).unwrap(),
                None => return,
            }
        }
        panic!("compaction does not end");
    }

    pub fn reopen(&mut self) {
        // Tables of one destroyed tenant have no order that a reopen could find again.
        let sorted = |set: &VersionSet| {
            let mut layout = layout(&set.current());
            layout.sort_unstable();
            layout
        };
        let before = sorted(&self.set);
        self.set = self.machine.open().unwrap();
        assert_eq!(sorted(&self.set), before);
    }

    pub fn destroy(&mut self, tenant: u64) {
        self.machine.source.destroy(tenant);
        self.machine.keys.purge_if(|other| other == TenantId(tenant));
        self.machine.cache.purge_if(|other| other == TenantId(tenant));
        self.destroyed.insert(tenant);
    }

    pub fn drop_keyspace(&mut self, tenant: u64, keyspace: u32) {
        self.seqno += 1;
        let (tenant, keyspace) = (TenantId(tenant), KeyspaceId(keyspace));
        self.drops.push(DroppedKeyspace {
            tenant,
            keyspace,
            at: SeqNo(self.seqno),
        });
    }

    pub fn is_dropped(&self, tenant: u64, key: &[u8]) -> bool {
        let keyspace = keyspace_of(key).unwrap();
        self.drops
            .iter()
            .any(|drop| drop.tenant.0 == tenant && drop.keyspace == keyspace)
    }

    /// Tables against the oracle at every live snapshot and now. The memtable must be empty.
    pub fn check(&self, context: &str) {
        assert!(self.memtable.is_empty());
        let version = self.set.current();
        check_levels(&version, &self.destroyed);
        for at in self.snapshots.iter().chain([&self.seqno]) {
            for tenant in (1..6).filter(|tenant| !self.destroyed.contains(tenant)) {
                let mut found = visible_at(&version, tenant, *at, self.now).unwrap();
                let mut expected = BTreeMap::new();
                for ((_, key), history) in self.oracle.iter().filter(|((t, _), _)| *t == tenant) {
                    let newest = history.iter().rev().find(|(seqno, _)| seqno <= at);
                    let expected_value = newest.and_then(|newest| self.reads(newest));
                    if let Some(value) = &expected_value {
                        expected.insert(key.clone(), value.clone());
                    }
                    let got = get(&version, tenant, key, *at).unwrap();
                    let got = got.filter(|entry| !self.is_gone(entry)).and_then(|entry| {
                        let owner = Owner {
                            tenant: TenantId(tenant),
                            key,
                            seqno: entry.seqno,
                        };
                        version.value(owner, entry.kind, entry.value).unwrap()
                    });
                    if !self.is_dropped(tenant, key) {
                        assert_eq!(got, expected_value, "{context} at {at}");
                    }
                }
                found.retain(|key, _| !self.is_dropped(tenant, key));
                expected.retain(|key, _| !self.is_dropped(tenant, key));
                assert_eq!(found.len(), expected.len(), "{context} tenant {tenant} at {at}");
                assert!(found == expected, "{context} tenant {tenant} at {at}");
            }
        }
        let live: BTreeSet<u64> = version.tables().map(|(_, table)| table.meta().number).collect();
        let files: BTreeSet<u64> = self.machine.table_files().into_iter().collect();
        assert_eq!(live, files, "{context}");
        let values: Vec<u64> = version.values.keys().copied().collect();
        let mut files = self.machine.value_files();
        files.sort_unstable();
        assert_eq!(values, files, "{context}");
        let mut referred: Vec<u64> = version.referred().into_keys().collect();
        referred.sort_unstable();
        assert_eq!(values, referred, "{context}");
        for (file, garbage) in self.garbage() {
            assert!(
                garbage >= 0,
                "{context}: value file {file} is referred to for more than it has"
            );
        }
    }

    /// Of each value file how many bytes no table needs.
    pub fn garbage(&self) -> Vec<(u64, i64)> {
        let version = self.set.current();
        let referred = version.referred();
        let of = |(number, file): (&u64, &Arc<crate::table::ValueFile>)| {
            let has: u64 = file.runs().iter().map(|run| run.bytes).sum();
            (*number, has as i64 - referred[number] as i64)
        };
        version.values.iter().map(of).collect()
    }
}

/// Every level below 0 is ordered and disjoint, tenant by tenant.
pub fn check_levels(version: &Version, destroyed: &BTreeSet<u64>) {
    for tables in &version.levels[1..] {
        let mut last: Option<(TenantId, Bytes)> = None;
        for table in tables {
            for run in table.tenants().filter(|run| !destroyed.contains(&run.tenant.0)) {
                let (first_key, end) = table.span(run.tenant).unwrap().unwrap();
                assert!(
                    last.is_none_or(|last| last <= (run.tenant, first_key)),
                    "tables overlap"
                );
                last = Some((run.tenant, end));
            }
        }
    }
}
