//! Tables as a whole, on a simulated disk: against the oracle, under damage, and with keys that come
//! and go.

mod damage;
mod golden;
mod keys;
mod range_deletes;
mod round_trip;
mod shown;
mod stretch;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::cache::CacheUsage;
use super::tenant_run::TenantRun;
use super::*;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Io;
use crate::io::sim::SimFs;
use crate::options::Compression;
use crate::read::cursor::{Cursor, Entry, EntryKind, Found};
use crate::read::testing::{Oracle, Random, check_cursor, put, random_entries};
use crate::seal::{Dek, FileHeader, FileKeys, FileKind, KeyLookup, KeySource};
use crate::types::{Chain, DekVersion, Epoch, SeqNo, TenantId};

/// Keys in a map: what the keystore is to tables.
#[derive(Default)]
struct Keys {
    /// Tenant to key version and first byte of the key; version 0 = destroyed.
    tenants: Mutex<BTreeMap<TenantId, (u32, u8)>>,
}

fn dek(tenant: TenantId, byte: u8) -> Dek {
    let mut bytes = [byte; 32];
    bytes[..8].copy_from_slice(&tenant.0.to_le_bytes());
    Dek::from_bytes(&bytes)
}

impl KeySource for Keys {
    fn current(&self, tenant: TenantId) -> Result<(DekVersion, Dek)> {
        match self.tenants.lock().get(&tenant) {
            Some((version, byte)) if *version > 0 => Ok((DekVersion(*version), dek(tenant, *byte))),
            _ => Err(Error::new(ErrorKind::NotFound, "no key")),
        }
    }

    fn find(&self, tenant: TenantId, version: DekVersion) -> KeyLookup {
        match self.tenants.lock().get(&tenant) {
            Some((0, _)) => KeyLookup::Destroyed,
            Some((current, byte)) if version.0 <= *current => KeyLookup::Live(dek(tenant, *byte)),
            _ => KeyLookup::Unknown,
        }
    }
}

/// A machine, keys for tenants 1 to 5, and a cache.
struct Place {
    fs: SimFs,
    io: Io,
    source: Arc<Keys>,
    keys: Arc<FileKeys>,
    cache: Arc<BlockCache>,
    number: AtomicU64,
}

/// How to build.
#[derive(Clone, Copy)]
struct Shape {
    block_bytes: usize,
    compression: Compression,
    filter_bits: usize,
    section_bytes: u64,
}

const SMALL: Shape = Shape {
    block_bytes: 256,
    compression: Compression::Lz4,
    filter_bits: 10,
    section_bytes: u64::MAX,
};

impl Place {
    fn new(cache_bytes: u64) -> Place {
        // Never the same random bytes twice in one process: the recorder of (key, nonce) pairs would
        // see repeats that no real machine produces. Contents do not depend on it.
        static MACHINES: AtomicU64 = AtomicU64::new(1 << 40);
        let fs = SimFs::new();
        let io = fs.io(MACHINES.fetch_add(1, Ordering::Relaxed));
        io.vfs.create_dir_all(Path::new("/tables")).unwrap();
        let source = Arc::new(Keys::default());
        for tenant in 1..=5 {
            source.tenants.lock().insert(TenantId(tenant), (1, 1));
        }
        let keys = Arc::new(FileKeys::new(source.clone(), 1000));
        let cache = Arc::new(BlockCache::new(cache_bytes));
        Place {
            fs,
            io,
            source,
            keys,
            cache,
            number: AtomicU64::new(1),
        }
    }

    fn path(number: u64) -> PathBuf {
        PathBuf::from(format!("/tables/{number:016x}.table"))
    }

    fn builder(&self, shape: Shape) -> TableBuilder {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let header =
            FileHeader::new(&self.io, FileKind::Table, Epoch::FIRST, number, Chain::default()).unwrap();
        let path = Place::path(number);
        let Shape {
            block_bytes,
            compression,
            filter_bits,
            section_bytes,
        } = shape;
        let (io, keys) = (&self.io, &self.keys);
        let mut builder =
            TableBuilder::new(io, &path, header, keys, block_bytes, compression, filter_bits).unwrap();
        builder.set_section_bytes(section_bytes);
        builder
    }

    fn build(&self, shape: Shape, content: &BTreeMap<TenantId, Oracle>) -> TableMeta {
        let mut builder = self.builder(shape);
        for (tenant, oracle) in content {
            for entry in oracle.entries() {
                builder.add(*tenant, entry.view()).unwrap();
            }
        }
        builder.finish().unwrap()
    }

    fn open(&self, meta: &TableMeta) -> Result<Arc<Table>> {
        let path = Place::path(meta.number);
        Table::open(
            &self.io,
            &path,
            meta.clone(),
            self.keys.clone(),
            self.cache.clone(),
        )
    }

    fn table(&self, shape: Shape, content: &BTreeMap<TenantId, Oracle>) -> Arc<Table> {
        self.open(&self.build(shape, content)).unwrap()
    }

    fn destroy(&self, tenant: TenantId) {
        self.source.tenants.lock().insert(tenant, (0, 0));
        self.keys.purge_if(|other| other == tenant);
        self.cache.purge_if(|other| other == tenant);
    }
}

/// All entries a cursor yields forwards.
fn collect(mut cursor: impl Cursor) -> Result<Vec<Entry>> {
    let mut out = Vec::new();
    cursor.seek_first()?;
    while let Some(entry) = cursor.owned() {
        out.push(entry);
        cursor.next()?;
    }
    Ok(out)
}

/// Opens a table and reads everything in it, in every way.
fn read_all(place: &Place, meta: &TableMeta) -> Result<Vec<(TenantId, Vec<Entry>)>> {
    place.cache.purge_if(|_| true);
    let table = place.open(meta)?;
    let mut out = Vec::new();
    for run in table.tenants() {
        let entries = collect(table.cursor(run.tenant)?)?;
        for entry in &entries {
            let found = table.get(run.tenant, &entry.key, entry.seqno)?;
            assert_eq!(found, Some(Found::from(entry)));
        }
        assert_eq!(collect(table.sweep(run.tenant)?)?, entries);
        table.span(run.tenant)?;
        out.push((run.tenant, entries));
    }
    Ok(out)
}

fn content(random: &mut Random, tenants: &[u64], count: usize, keys: u64) -> BTreeMap<TenantId, Oracle> {
    let tenants = tenants.iter().map(|tenant| TenantId(*tenant));
    tenants
        .map(|tenant| {
            let mut oracle = random_entries(random, count, keys, 50);
            oracle.settle_some(random);
            (tenant, oracle)
        })
        .collect()
}
