//! The clear parts of Strongroom's files, read without keys and without the engine.
//!
//! ```text
//! header, 128 bytes, little-endian        every WAL segment, table, manifest, keystore file, escrow, CURRENT
//!   0  8 magic "STRGROOM"    8 2 format    10 1 kind     11 1 suite    12 4 crc32 over [0,12) and [16,128)
//!  16 16 file id   32 32 salt   64 8 epoch   72 8 number   80 8 created ms   88 16 chain
//! 104  4 chain key   108 16 chain after   124 4 zero; all from 88 on zero in files that are no segment
//!
//! Table: directory records of 88 bytes and a footer of 64 at the end; `wal` reads segments, `values` value files.
//! docs/format.md is the specification; this reader is a second witness of it, apart from the engine's own.
//! ```
//!
//! Damage is what a checksum, a length or a position shows; whether the seals hold only the keys can tell.
//! Bytes from a file never cause a panic, and no more is read at once than a record may have.

mod values;
mod wal;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::exit::{self, Failure, Outcome};

const MAGIC: &[u8; 8] = b"STRGROOM";
const HEADER_BYTES: usize = 128;
/// Newest format this version knows.
const FORMAT: u16 = 1;
const FOOTER_BYTES: usize = 64;
const RUN_BYTES: u64 = 88;
/// A directory longer than this is read in part only, and its checksum not verified.
const DIRECTORY_BYTES_MAX: u64 = 256 << 20;

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Segment of the write-ahead log.
    Wal,
    /// Sorted table.
    Table,
    /// Manifest.
    Manifest,
    /// Keystore base or log.
    Keystore,
    /// Keys of a backup.
    Escrow,
    /// Names the manifest.
    Current,
    /// Values apart from tables.
    Values,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Wal,
            2 => Kind::Table,
            3 => Kind::Manifest,
            4 => Kind::Keystore,
            5 => Kind::Escrow,
            6 => Kind::Current,
            7 => Kind::Values,
            _ => return None,
        })
    }

    /// For people and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Wal => "wal",
            Kind::Table => "table",
            Kind::Manifest => "manifest",
            Kind::Keystore => "keystore",
            Kind::Escrow => "escrow",
            Kind::Current => "current",
            Kind::Values => "values",
        }
    }
}

/// The common header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the file is.
    pub kind: Kind,
    /// Version of the format.
    pub format: u16,
    /// Algorithms.
    pub suite: u8,
    /// Random.
    pub file_id: [u8; 16],
    /// Of the writer.
    pub epoch: u64,
    /// WAL: position of the first byte; table, manifest: file number; keystore: generation.
    pub number: u64,
    /// Milliseconds since 1970, as the writer believed.
    pub created_ms: u64,
    /// WAL: chain up to the first byte.
    pub chain: [u8; 16],
}

/// A file, inspected.
pub struct Inspected {
    /// Its header.
    pub header: Header,
    /// Its length.
    pub bytes: u64,
    /// What it holds.
    pub detail: Detail,
    /// What is wrong with it beyond the header, if anything.
    pub damage: Option<String>,
}

/// What a file holds.
pub enum Detail {
    /// Nothing that is in clear.
    None,
    /// A log segment.
    Wal(wal::Wal),
    /// A table.
    Table(Table),
    /// A value file.
    Values(values::Values),
}

/// A table.
#[derive(Default)]
pub struct Table {
    /// Tenants in it.
    pub tenants: u64,
    /// Versions, deletes included.
    pub entries: u64,
    /// Oldest version.
    pub seqno_min: u64,
    /// Newest version.
    pub seqno_max: u64,
    /// The first tenants.
    pub shown: Vec<Run>,
}

/// A tenant's part of a table.
pub struct Run {
    /// Whose.
    pub tenant: u64,
    /// Version of its key.
    pub dek_version: u64,
    /// Versions, deletes included.
    pub entries: u64,
    /// Deletes.
    pub deletes: u64,
    /// Oldest version.
    pub seqno_min: u64,
    /// Newest version.
    pub seqno_max: u64,
    /// Where it begins.
    pub offset: u64,
}

/// Whether a file begins as ours do.
pub fn is_ours(path: &Path) -> bool {
    let mut magic = [0; 8];
    File::open(path).is_ok_and(|file| file.read_exact_at(&mut magic, 0).is_ok()) && &magic == MAGIC
}

/// Reads what is in clear; lists at most `limit` records or tenants.
pub fn inspect(path: &Path, limit: usize) -> Outcome<Inspected> {
    let file = File::open(path).map_err(exit::at(path))?;
    let bytes = file.metadata().map_err(exit::at(path))?.len();
    let bad = |why: &str| Failure::failed(format!("{}: {why}", path.display()));
    let mut raw = [0; HEADER_BYTES];
    file.read_exact_at(&mut raw, 0)
        .map_err(|_| bad("too short for a Strongroom file"))?;
    let header = header(&raw).map_err(|why| bad(&why))?;
    let (detail, damage) = match header.kind {
        Kind::Wal => {
            let (wal, damage) = wal::wal(&file, bytes, &header, limit);
            (Detail::Wal(wal), damage)
        }
        Kind::Table => match table(&file, bytes, limit) {
            Ok(table) => (Detail::Table(table), None),
            Err(why) => (Detail::None, Some(why)),
        },
        Kind::Values => match values::values(&file, bytes, limit) {
            Ok(values) => (Detail::Values(values), None),
            Err(why) => (Detail::None, Some(why)),
        },
        _ => (Detail::None, None),
    };
    Ok(Inspected {
        header,
        bytes,
        detail,
        damage,
    })
}

/// Reads a header. The error says what is wrong.
pub fn header(raw: &[u8; HEADER_BYTES]) -> Result<Header, String> {
    let fields = Fields(raw);
    if fields.array::<8>(0) != *MAGIC {
        return Err("not a Strongroom file".to_owned());
    }
    let format = u16::from_le_bytes(fields.array(8));
    if format > FORMAT {
        return Err(format!(
            "format {format}, written by a newer version (this one knows {FORMAT})"
        ));
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(fields.slice(0, 12));
    hasher.update(fields.slice(16, HEADER_BYTES));
    if hasher.finalize() != fields.u32(12) {
        return Err("the header's checksum does not match".to_owned());
    }
    let [kind, suite] = fields.array(10);
    let kind = Kind::of(kind).ok_or_else(|| format!("kind {kind} is not known"))?;
    let zero_from = if kind == Kind::Wal { 124 } else { 88 };
    if format == 0
        || fields
            .slice(zero_from, HEADER_BYTES)
            .iter()
            .any(|byte| *byte != 0)
    {
        return Err("the header has values that nothing writes".to_owned());
    }
    Ok(Header {
        kind,
        format,
        suite,
        file_id: fields.array(16),
        epoch: fields.u64(64),
        number: fields.u64(72),
        created_ms: fields.u64(80),
        chain: fields.array(88),
    })
}

/// A directory of tenants' parts, as the footer behind it tells.
struct Directory<'a> {
    offset: u64,
    tenants: u64,
    run_bytes: u64,
    footer: &'a [u8],
    /// Where in the footer the checksum is, over the directory and the footer up to here.
    crc: usize,
}

impl Directory<'_> {
    /// Its records, or the first ones of a very long one, whose checksum is then not compared; it ends `at` the footer.
    /// None if the file is too short.
    fn read(&self, file: &File, at: u64, limit: usize) -> Option<Result<Vec<u8>, String>> {
        let length = self.tenants.checked_mul(self.run_bytes);
        let length = length.filter(|length| self.offset.checked_add(*length) == Some(at));
        let Some(length) = length else {
            return Some(Err("the directory does not end at the footer".to_owned()));
        };
        let take = match length <= DIRECTORY_BYTES_MAX {
            true => length,
            false => self.run_bytes.saturating_mul(limit as u64).min(length),
        };
        let mut directory = vec![0; usize::try_from(take).ok()?];
        file.read_exact_at(&mut directory, self.offset).ok()?;
        if take == length {
            let fields = Fields(self.footer);
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&directory);
            hasher.update(fields.slice(0, self.crc));
            if hasher.finalize() != fields.u32(self.crc) {
                return Some(Err("the directory's checksum does not match".to_owned()));
            }
        }
        Some(Ok(directory))
    }
}

fn table(file: &File, bytes: u64, limit: usize) -> Result<Table, String> {
    let short = || "too short for a table".to_owned();
    let at = bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(short)?;
    let mut footer = [0; FOOTER_BYTES];
    file.read_exact_at(&mut footer, at).map_err(|_| short())?;
    let fields = Fields(&footer);
    if fields.array::<8>(56) != *b"SRGTABLE" {
        return Err("the footer is missing".to_owned());
    }
    let (offset, tenants) = (fields.u64(0), fields.u64(8));
    let directory = Directory {
        offset,
        tenants,
        run_bytes: RUN_BYTES,
        footer: &footer,
        crc: 52,
    };
    let directory = directory.read(file, at, limit).ok_or_else(short)??;
    let runs = directory.chunks_exact(RUN_BYTES as usize).take(limit).map(|run| {
        let fields = Fields(run);
        Run {
            tenant: fields.u64(0),
            dek_version: u64::from(fields.u32(8)),
            entries: fields.u64(32),
            deletes: fields.u64(40),
            seqno_min: fields.u64(48),
            seqno_max: fields.u64(56),
            offset: fields.u64(64),
        }
    });
    let shown = runs.collect();
    Ok(Table {
        tenants,
        entries: fields.u64(16),
        seqno_min: fields.u64(24),
        seqno_max: fields.u64(32),
        shown,
    })
}

/// Little-endian fields at offsets. What lies outside reads as zero; lengths were checked before.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn slice(&self, from: usize, to: usize) -> &[u8] {
        self.0.get(from..to).unwrap_or_default()
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.slice(at, at + N).try_into().unwrap_or([0; N])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom::keys::KeyFile;
    use strongroom::{Engine, TenantOptions};

    /// A small closed database with something in its tables and in its log.
    fn database(dir: &Path) -> Vec<std::path::PathBuf> {
        let keys = KeyFile::create(dir.join("key")).unwrap();
        let engine = Engine::builder(dir.join("db")).keys(keys).open().unwrap();
        for name in ["a", "b"] {
            let keyspace = engine
                .create_tenant(name, TenantOptions::default())
                .unwrap()
                .keyspace("things")
                .unwrap();
            for i in 0..50 {
                keyspace.put(format!("key {i}"), "value").unwrap();
            }
            keyspace.put("large", vec![b'v'; 100_000]).unwrap();
            engine.flush().unwrap();
            keyspace.put("after", "flush").unwrap();
        }
        engine.close().unwrap();
        let mut files = Vec::new();
        let mut open = vec![dir.join("db")];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path)
                } else {
                    files.push(path)
                }
            }
        }
        files.sort();
        files
    }

    #[test]
    fn every_file_the_engine_writes_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (mut kinds, mut entries, mut records) = (Vec::new(), 0, 0);
        for path in database(dir.path()) {
            // The lock, and space set aside for deleting when the disk is full: no content.
            if path
                .file_name()
                .is_some_and(|name| name == "LOCK" || name == "reserve")
            {
                assert!(!is_ours(&path));
                continue;
            }
            let file = inspect(&path, 10).unwrap();
            assert_eq!(file.damage, None, "{}", path.display());
            match &file.detail {
                Detail::Wal(wal) => {
                    records += wal.records;
                    let sections = wal.shown.iter().flat_map(|record| &record.sections);
                    assert!(
                        sections
                            .into_iter()
                            .all(|section| section.operations > 0 && section.tenant < 3)
                    );
                }
                Detail::Table(table) => entries += table.entries,
                Detail::Values(values) => {
                    let of_tenants: u64 = values.shown.iter().map(|run| run.values).sum();
                    assert_eq!((values.values, of_tenants), (1, 1));
                }
                Detail::None => {}
            }
            kinds.push(file.header.kind.name());
        }
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(
            kinds,
            ["current", "keystore", "manifest", "table", "values", "wal"]
        );
        assert!(
            entries >= 100 && records >= 1,
            "{entries} entries, {records} records"
        );
    }

    #[test]
    fn any_flipped_bit_in_clear_parts_is_seen_and_never_panics() {
        let dir = tempfile::tempdir().unwrap();
        for path in database(dir.path()) {
            let good = std::fs::read(&path).unwrap();
            let Ok(file) = inspect(&path, 10) else { continue };
            let clear = match file.detail {
                Detail::None | Detail::Table(_) | Detail::Values(_) => HEADER_BYTES,
                Detail::Wal(_) => good.len(),
            };
            let copy = dir.path().join("copy");
            for byte in (0..clear).filter(|byte| *byte < HEADER_BYTES + 200 || byte % 13 == 0) {
                let mut bad = good.clone();
                bad[byte] ^= 1 << (byte % 8);
                std::fs::write(&copy, &bad).unwrap();
                let seen = inspect(&copy, 10).map_or(true, |file| file.damage.is_some());
                assert!(seen, "{} byte {byte}", path.display());
            }
            for length in [0, 7, 100, HEADER_BYTES + 3] {
                std::fs::write(&copy, &good[..length.min(good.len())]).unwrap();
                let _ = inspect(&copy, 10);
            }
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut raw = [0; HEADER_BYTES];
        raw[..8].copy_from_slice(MAGIC);
        raw[8] = 2;
        assert!(header(&raw).unwrap_err().contains("newer version"));
    }
}
