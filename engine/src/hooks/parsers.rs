//! Every parser of the engine as a plain function over bytes, for fuzzing (package `strongroom-fuzz`).
//!
//! A check parses and asserts: it must not panic on any bytes, must not allocate out of proportion to them,
//! and what it accepts must read back the same after it was written again. Parsers live in their modules,
//! beside what they check; this is the list.
//!
//! Samples are made by the encoders, from fixed seeds: the same bytes in every process until the format
//! changes. Sealed ones are made once per process, since nothing seals the same twice.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::io::Vfs;
use crate::io::sim::SimFs;
use crate::keys::MemoryKeys;

/// A parser with what a fuzzer needs of it.
#[derive(Clone, Copy)]
pub struct Parser {
    /// Of the target and its corpus.
    pub name: &'static str,
    /// Parses, and panics if a rule is broken. True: the bytes were accepted.
    pub check: fn(&[u8]) -> bool,
    /// Makes lengths and checksums fit again, so that changed bytes get past them.
    pub repair: fn(&mut [u8]),
    /// Valid inputs.
    pub samples: fn() -> Vec<Vec<u8>>,
    /// Memory one call may take, whatever its input.
    pub memory: usize,
    /// And for every byte of its input.
    pub memory_per_byte: usize,
}

impl Parser {
    /// What most parsers need in any case.
    pub const MEMORY: usize = 1 << 20;
    /// The same, for every byte of input.
    pub const MEMORY_PER_BYTE: usize = 64;

    /// For parsers whose input carries no checksum.
    pub fn no_repair(_: &mut [u8]) {}
}

/// The parsers of this crate.
pub fn all() -> Vec<Parser> {
    let lists: [&[Parser]; 9] = [
        crate::seal::parsers::PARSERS,
        crate::wal::parsers::PARSERS,
        crate::table::parsers::PARSERS,
        crate::table::values::parsers::PARSERS,
        crate::version::parsers::PARSERS,
        crate::keystore::parsers::PARSERS,
        crate::keys::parsers::PARSERS,
        crate::retention::parsers::PARSERS,
        &[BASE_COPY],
    ];
    lists.concat()
}

/// Overwrites a little-endian field, if it is there.
pub(crate) fn set_u32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(field) = bytes.get_mut(at..at.saturating_add(4)) {
        field.copy_from_slice(&value.to_le_bytes());
    }
}

/// The little-endian field at `at`, if it is there.
pub(crate) fn get_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*field))
}

/// A file system that holds `bytes` at `path`.
pub(crate) fn disk_with(path: &Path, bytes: &[u8]) -> SimFs {
    let fs = SimFs::new();
    let made = path.parent().map_or(Ok(()), |dir| fs.create_dir_all(dir));
    let written = made
        .and_then(|()| fs.create(path))
        .and_then(|file| file.write_all_at(bytes, 0));
    assert!(written.is_ok(), "the simulated disk takes a file");
    fs
}

const BASE_COPY: Parser = Parser {
    name: "base_copy_files",
    check: check_base_copy,
    repair: Parser::no_repair,
    samples: base_copy_samples,
    memory: Parser::MEMORY,
    memory_per_byte: Parser::MEMORY_PER_BYTE,
};

/// What a peer may send of a base copy: files by name, in pieces.
///
/// ```text
/// piece = name length u8, name, offset u16, length u8, bytes
/// ```
fn check_base_copy(bytes: &[u8]) -> bool {
    let fs = SimFs::new();
    let root = PathBuf::from("/db/incoming");
    let started = crate::BaseCopyReceiver::start(&root, fs.io(1), Arc::new(MemoryKeys::seeded(1)));
    let Ok(mut receiver) = started else {
        panic!("an empty directory takes a base copy");
    };
    let mut r = crate::codec::Reader::new(bytes);
    let mut piece = || {
        let name = r.u8()?;
        let name = r.take(usize::from(name))?;
        let offset = r.u16()?;
        let len = r.u8()?;
        let data = r.take(usize::from(len))?;
        Some((String::from_utf8_lossy(name), u64::from(offset), data))
    };
    let mut accepted = false;
    while let Some((name, offset, data)) = piece() {
        accepted |= receiver.chunk(&name, offset, data).is_ok();
    }
    // Nothing outside the directory, and nothing in it that no checkpoint holds.
    let names = |path: &str| -> Vec<String> {
        let listed = fs.list(Path::new(path)).unwrap_or_default();
        listed.into_iter().map(|entry| entry.name).collect()
    };
    assert_eq!(names("/"), ["db"], "a base copy left its directory");
    assert_eq!(names("/db"), ["incoming"], "a base copy left its directory");
    for name in names("/db/incoming") {
        let known = ["CURRENT", "INCOMPLETE", "tables", "wal"].contains(&name.as_str());
        assert!(
            known || name.starts_with("manifest-"),
            "a base copy made a strange file"
        );
    }
    accepted
}

fn base_copy_samples() -> Vec<Vec<u8>> {
    let piece = |name: &str, offset: u16, data: &[u8]| {
        let mut out = vec![name.len() as u8];
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        out.push(data.len() as u8);
        out.extend_from_slice(data);
        out
    };
    let whole = [
        piece("tables/0000000000000002.table", 0, b"table"),
        piece("tables/0000000000000004.values", 0, b"values"),
        piece("wal/0000000000000000.wal", 0, b"log"),
        piece("wal/0000000000000000.wal", 3, b"more"),
        piece("manifest-0000000000000003", 0, b"manifest"),
        piece("CURRENT", 0, b"current"),
    ];
    let hostile = [
        piece("CURRENT", 0, b""),
        piece("tables/../../x", 0, b"x"),
        piece("/x", 0, b"x"),
    ];
    vec![whole.concat(), hostile.concat()]
}
