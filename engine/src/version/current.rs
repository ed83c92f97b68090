//! `CURRENT`: which manifest counts, and whether the database was closed.
//!
//! ```text
//! offset  size  field     (little-endian)
//!      0   128  header    kind 6; number = number of the manifest
//!    128     1  flags     bit 0: closed
//!    129     7  zero      rejected unless zero
//!    136     8  length    of the manifest if closed, else 0
//!    144    32  digest    SHA-256 of the whole manifest if closed, else zero
//!    176    12  zero      rejected unless zero
//!    188     4  crc32     IEEE, over bytes [0, 188)
//! ```
//!
//! Valid if and only if: (1) it is exactly 192 bytes; (2) crc32 matches; (3) the header is valid;
//! (4) zero bytes and unknown flags are zero; (5) length and digest are zero unless closed.
//!
//! Replaced by writing `CURRENT.tmp`, syncing it, renaming it and syncing the directory: after a crash
//! there is the old one or the new one. It carries nothing secret and is not sealed; the manifest it
//! names is.
//!
//! A manifest that is still being written may end in a torn edit, and a cut at an edit's edge cannot
//! be told from a crash. A closed one can: its length and digest are here.

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::hooks::planted;
use crate::io::{Io, durable};
use crate::seal::{FileHeader, FileKind};
use crate::types::{Chain, Epoch};

const BYTES: usize = 192;
const FLAGS_AT: usize = FileHeader::BYTES;
const LENGTH_AT: usize = FLAGS_AT + 8;
const DIGEST_AT: usize = LENGTH_AT + 8;
const CRC_AT: usize = BYTES - 4;
const _: () = assert!(DIGEST_AT + 32 + 12 == CRC_AT);

const CLOSED: u8 = 1;

/// The content of `CURRENT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Current {
    /// Number of the manifest that counts.
    pub number: u64,
    /// Length and SHA-256 of that manifest, if the database was closed.
    pub closed: Option<(u64, [u8; 32])>,
}

/// Where `CURRENT` is.
pub(crate) fn path(db: &Path) -> PathBuf {
    db.join("CURRENT")
}

impl Current {
    /// Writes and syncs `CURRENT.tmp`. After an error the old `CURRENT` counts.
    pub fn stage(&self, io: &Io, db: &Path, epoch: Epoch) -> Result<()> {
        let header = FileHeader::new(io, FileKind::Current, epoch, self.number, Chain::default())?;
        let tmp = durable::tmp_name(&path(db));
        durable::remove_if_exists(io, &tmp)?;
        durable::write_file_new(io, &tmp, &self.encode(&header))
    }

    /// Makes the staged `CURRENT` the one that counts, durably. After an error either may count.
    pub fn publish(io: &Io, db: &Path) -> Result<()> {
        let path = path(db);
        if planted!(CurrentNameNotSynced) {
            let renamed = io.vfs.rename(&durable::tmp_name(&path), &path);
            return renamed.map_err(|e| Error::io("renaming the file", &path, e));
        }
        durable::publish(io, &durable::tmp_name(&path), &path)
    }

    /// Reads `CURRENT`; `Corruption` if it is missing or not valid, `Unsupported` if it is newer.
    pub fn read(io: &Io, db: &Path) -> Result<Current> {
        let path = path(db);
        let bytes = durable::read_file_bounded(io, &path, BYTES as u64).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::corruption(&path, 0, "CURRENT", "a file", "none"),
            _ => e,
        })?;
        Current::decode(&path, &bytes)
    }

    pub(super) fn encode(&self, header: &FileHeader) -> Vec<u8> {
        let (length, digest) = self.closed.unwrap_or_default();
        let mut out = Vec::with_capacity(BYTES);
        out.extend_from_slice(&header.encode());
        out.push(if self.closed.is_some() { CLOSED } else { 0 });
        out.extend_from_slice(&[0; 7]);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&digest);
        out.extend_from_slice(&[0; 12]);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(path: &Path, bytes: &[u8]) -> Result<Current> {
        let bad = |offset: usize, expected: &str, found: String| {
            Error::corruption(path, offset as u64, "CURRENT", expected, found)
        };
        let bytes: &[u8; BYTES] = bytes
            .try_into()
            .map_err(|_| bad(0, "192 bytes", format!("{} bytes", bytes.len())))?;
        let (covered, crc) = bytes.split_at(CRC_AT);
        let (head, body) = covered.split_at(FileHeader::BYTES);
        // The header first: a newer format is refused by name before its layout is assumed.
        let header = FileHeader::decode(path, head, FileKind::Current)?;
        let computed = crc32fast::hash(covered);
        if crc != computed.to_le_bytes() {
            return Err(bad(CRC_AT, "its checksum", format!("{computed:08x}")));
        }
        let (flags, rest) = body.split_at(LENGTH_AT - FLAGS_AT);
        let (length, rest) = rest.split_at(8);
        let (digest, zero) = rest.split_at(32);
        let closed = match flags {
            [0, 0, 0, 0, 0, 0, 0, 0] => false,
            [CLOSED, 0, 0, 0, 0, 0, 0, 0] => true,
            _ => return Err(bad(FLAGS_AT, "known flags", "others".into())),
        };
        let length = length
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte));
        let digest: [u8; 32] = digest.try_into().unwrap_or_default();
        if zero.iter().any(|byte| *byte != 0) || (!closed && (length != 0 || digest != [0; 32])) {
            return Err(bad(LENGTH_AT, "zeros", "something else".into()));
        }
        Ok(Current {
            number: header.number,
            closed: closed.then_some((length, digest)),
        })
    }
}
