//! What the tests of versions, flush and compaction share: a simulated machine with keys that can be
//! destroyed, and tables written by hand.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::inner::View;
use crate::io::sim::{SimFs, SimRng};
use crate::io::{Io, Rng};
use crate::memtable::Memtable;
use crate::options::Compression;
use crate::pace::Debt;
use crate::read::cursor::{Entry, EntryKind, Found};
use crate::read::get::find;
use crate::read::range_cost::RangeCost;
use crate::read::testing::standing_at;
use crate::read::visible::VisibleCursor;
use crate::seal::{Dek, FileHeader, FileKeys, FileKind, KeyLookup, KeySource};
use crate::table::{BlockCache, Owner, TableBuilder, TableMeta};
use crate::types::{Chain, DekVersion, Epoch, EpochStart, Lsn, SeqNo, TenantId};

use super::edit::{Edit, ManifestState};
use super::set::VersionSet;
use super::{Version, table_path};

/// Simulated machines must not share a seed: they would repeat (key, nonce) pairs.
static SEED: AtomicU64 = AtomicU64::new(0x5eed_0000);

/// Seeded choices.
pub(crate) struct Dice(SimRng);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(SimRng::new(seed))
    }

    pub fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes).unwrap();
        u64::from_le_bytes(bytes) % bound
    }

    pub fn one_in(&self, cases: u64) -> bool {
        self.below(cases) == 0
    }
}

/// Keys of the system tenant and of those a test creates.
#[derive(Default)]
pub(crate) struct TestKeys(Mutex<HashMap<TenantId, Option<Dek>>>);

impl TestKeys {
    pub fn create(&self, tenant: u64) {
        let mut bytes = [tenant as u8; 32];
        bytes[..8].copy_from_slice(&SEED.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        self.0
            .lock()
            .entry(TenantId(tenant))
            .or_insert_with(|| Some(Dek::from_bytes(&bytes)));
    }

    pub fn destroy(&self, tenant: u64) {
        self.0.lock().insert(TenantId(tenant), None);
    }

    pub fn forget(&self, tenant: u64) {
        self.0.lock().remove(&TenantId(tenant));
    }
}

impl KeySource for TestKeys {
    fn current(&self, tenant: TenantId) -> Result<(DekVersion, Dek)> {
        match self.0.lock().get(&tenant) {
            Some(Some(dek)) => Ok((DekVersion(1), dek.clone())),
            _ => Err(Error::new(ErrorKind::NotFound, "no such tenant")),
        }
    }

    fn find(&self, tenant: TenantId, version: DekVersion) -> KeyLookup {
        match self.0.lock().get(&tenant) {
            Some(Some(dek)) if version == DekVersion(1) => KeyLookup::Live(dek.clone()),
            Some(None) => KeyLookup::Destroyed,
            _ => KeyLookup::Unknown,
        }
    }
}

/// A machine with a database directory.
pub(crate) struct Machine {
    pub fs: SimFs,
    pub io: Io,
    pub db: PathBuf,
    pub source: Arc<TestKeys>,
    pub keys: Arc<FileKeys>,
    pub cache: Arc<BlockCache>,
}

impl Machine {
    /// With the keys of the system tenant and of tenants 1 to 9.
    pub fn new() -> Machine {
        let source = Arc::new(TestKeys::default());
        (0..10).for_each(|tenant| source.create(tenant));
        Machine::on(SimFs::new(), source)
    }

    /// The same keys over other files.
    pub fn on(fs: SimFs, source: Arc<TestKeys>) -> Machine {
        let io = fs.io(SEED.fetch_add(1, Ordering::Relaxed));
        let keys = Arc::new(FileKeys::new(source.clone(), 1000));
        Machine {
            fs,
            io,
            db: PathBuf::from("/db"),
            source,
            keys,
            cache: Arc::new(BlockCache::new(1 << 20)),
        }
    }

    pub fn over(&self, fs: SimFs) -> Machine {
        Machine::on(fs, Arc::clone(&self.source))
    }

    pub fn create(&self) -> Result<VersionSet> {
        VersionSet::create(&self.db, &self.io, self.keys.clone(), self.cache.clone(), state())
    }

    pub fn open(&self) -> Result<VersionSet> {
        VersionSet::open(&self.db, &self.io, self.keys.clone(), self.cache.clone())
    }

    /// A table of `entries`, synced, its name too.
    pub fn table(&self, number: u64, entries: &[(u64, &str, u64)]) -> TableMeta {
        self.try_table(number, entries).unwrap()
    }

    pub fn try_table(&self, number: u64, entries: &[(u64, &str, u64)]) -> Result<TableMeta> {
        let path = table_path(&self.db, number);
        let header = FileHeader::new(&self.io, FileKind::Table, Epoch::FIRST, number, Chain::default())?;
        let mut builder = TableBuilder::new(&self.io, &path, header, &self.keys, 256, Compression::Lz4, 10)?;
        for (tenant, key, seqno) in entries {
            builder.add(TenantId(*tenant), put(key, *seqno).view())?;
        }
        let meta = builder.finish()?;
        crate::io::durable::sync_dir(&self.io, path.parent().unwrap())?;
        Ok(meta)
    }

    /// Numbers of the table files there are.
    pub fn table_files(&self) -> Vec<u64> {
        self.numbers("tables", super::parse_table_name)
    }

    /// Numbers of the value files there are.
    pub fn value_files(&self) -> Vec<u64> {
        self.numbers("tables", super::parse_values_name)
    }

    /// Numbers of the manifests there are.
    pub fn manifests(&self) -> Vec<u64> {
        self.numbers("", super::manifest::parse_name)
    }

    fn numbers(&self, dir: &str, parse: fn(&str) -> Option<u64>) -> Vec<u64> {
        let dir = self.db.join(dir);
        let inside = |path: &Path| path.strip_prefix(&dir).ok()?.to_str().and_then(parse);
        self.fs.files().keys().filter_map(|path| inside(path)).collect()
    }
}

/// Keyspace 1.
pub(crate) fn put(key: &str, seqno: u64) -> Entry {
    let key = [&1u32.to_be_bytes(), key.as_bytes()].concat();
    let value = Bytes::from(format!("value of {seqno}"));
    Entry {
        key: key.into(),
        seqno: SeqNo(seqno),
        kind: EntryKind::Put,
        value,
    }
}

/// The state of a new database.
pub(crate) fn state() -> ManifestState {
    ManifestState {
        database_id: [7; 16],
        epochs: vec![EpochStart {
            epoch: Epoch::FIRST,
            start: Lsn(0),
            chain: Chain([1; 16]),
        }],
        highest_epoch: Epoch::FIRST,
        ..ManifestState::default()
    }
}

/// Adds tables to level 0, as a flush does.
pub(crate) fn flushed(tables: &[&TableMeta], lsn: u64) -> Edit {
    Edit {
        added: tables.iter().map(|meta| (0, (*meta).clone())).collect(),
        flushed: Some(Lsn(lsn)),
        ..Edit::default()
    }
}

/// (level, table number) of all tables, in order.
pub(crate) fn layout(version: &Version) -> Vec<(usize, u64)> {
    version
        .tables()
        .map(|(level, table)| (level, table.meta().number))
        .collect()
}

/// Bytes of all tables.
pub(crate) fn bytes(version: &Version) -> u64 {
    version.tables().map(|(_, table)| table.meta().bytes).sum()
}

/// The tables as the engine reads them, without memtables.
fn view(version: &Version) -> View {
    let (active, version) = (Arc::new(Memtable::new(64 << 10)), Arc::new(version.clone()));
    View {
        active,
        immutables: Vec::new(),
        version,
        debt: Debt::default(),
        range_cost: RangeCost::default(),
    }
}

/// The newest version of a tree key at or below `at`.
pub(crate) fn get(version: &Version, tenant: u64, key: &[u8], at: u64) -> Result<Option<Found>> {
    find(&view(version), TenantId(tenant), key, SeqNo(at))
}

/// Everything a tenant sees at a version, in 1970, read through cursors.
pub(crate) fn visible(version: &Version, tenant: u64, at: u64) -> Result<BTreeMap<Bytes, Bytes>> {
    visible_at(version, tenant, at, 0)
}

/// The same at another time.
pub(crate) fn visible_at(
    version: &Version,
    tenant: u64,
    at: u64,
    now: u64,
) -> Result<BTreeMap<Bytes, Bytes>> {
    let clock = standing_at(now);
    let times = clock.by(None);
    let mut cursor = VisibleCursor::new(view(version).cursor(TenantId(tenant), SeqNo(at))?, SeqNo(at));
    let mut found = BTreeMap::new();
    cursor.seek_first(&times)?;
    while let Some(entry) = cursor.owned() {
        let owner = Owner {
            tenant: TenantId(tenant),
            key: &entry.key,
            seqno: entry.seqno,
        };
        if let Some(value) = version.value(owner, entry.kind, entry.value)? {
            found.insert(entry.key, value);
        }
        cursor.next(&times)?;
    }
    cursor.seek_last(&times)?;
    for key in found.keys().rev() {
        assert_eq!(cursor.entry().map(|entry| entry.key), Some(&key[..]), "backwards");
        cursor.prev(&times)?;
    }
    assert!(cursor.entry().is_none(), "backwards");
    Ok(found)
}
