//! The clear header that begins every sealed file.
//!
//! ```text
//! offset size field     (little-endian)
//!      0    8 magic      "STRGROOM"
//!      8    2 format     1; a newer one is refused by name
//!     10    1 kind       1 wal, 2 table, 3 manifest, 4 keystore, 5 escrow, 6 current,
//!                        7 values
//!     11    1 suite      1 = AES-256-GCM with HKDF-SHA256; 255 = no cipher (null.rs), refused by all others
//!     12    4 crc32      IEEE, over bytes [0, 12) then [16, 128)
//!     16   16 file id    random
//!     32   32 salt       random
//!     64    8 epoch      of the writer; 0 in keystore files and escrows
//!     72    8 number     wal: start Lsn; table, values, manifest, current: file number; keystore: generation;
//!                        escrow: keystore version
//!     80    8 created    milliseconds since 1970
//!     88   16 chain      wal: chain up to the start; else zero
//!    104    4 chain key  wal: DEK version of the system tenant whose key makes the segment's chain; else zero
//!    108   16 chain after  wal: chain after this header; else zero
//!    124    4 zero       rejected unless zero
//! ```
//!
//! Valid if and only if: (1) 128 bytes are there; (2) the magic matches; (3) the checksum matches;
//! (4) format and suite are known; (5) the kind is the expected one; (6) zero bytes are zero.
//! Every later format keeps this size and the rules for magic and checksum: so damage (checksum) is told
//! from a newer format (checksum fine, format larger).
//!
//! A segment's header authenticates itself by the chain after it (wal/format.rs). Others do not: what matters of
//! them (kind, suite, file id, salt, epoch, number) goes into the file key, so a forged header yields keys whose
//! commitment does not match.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::hooks::planted;
use crate::io::Io;
use crate::types::{Chain, DekVersion, Epoch};

const MAGIC: [u8; 8] = *b"STRGROOM";
const FORMAT: u16 = 1;
/// AES-256-GCM with HKDF-SHA256.
#[cfg(not(strongroom_null_cipher))]
pub(super) const SUITE: u8 = 1;
/// No cipher: never in a release.
#[cfg(strongroom_null_cipher)]
pub(super) const SUITE: u8 = 255;

/// What a sealed file holds. 0 is never written, so zeroed media does not decode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub(crate) enum FileKind {
    /// A WAL segment.
    Wal = 1,
    /// A sorted table.
    Table = 2,
    /// A manifest.
    Manifest = 3,
    /// A keystore base or log.
    Keystore = 4,
    /// Keys sealed to a recipient.
    Escrow = 5,
    /// The file that names the manifest.
    Current = 6,
    /// Values that stand apart from tables.
    Values = 7,
}

impl FileKind {
    fn name(self) -> &'static str {
        match self {
            FileKind::Wal => "WAL segment",
            FileKind::Table => "table",
            FileKind::Manifest => "manifest",
            FileKind::Keystore => "keystore",
            FileKind::Escrow => "escrow",
            FileKind::Current => "CURRENT",
            FileKind::Values => "value file",
        }
    }
}

/// The decoded header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FileHeader {
    /// What the file holds.
    pub kind: FileKind,
    /// Random identity, bound into every sealed piece.
    pub file_id: [u8; 16],
    /// Random salt of the file's keys.
    pub salt: [u8; 32],
    /// Reign of the writer.
    pub epoch: Epoch,
    /// Number of the file; the start Lsn of a WAL segment.
    pub number: u64,
    /// Wall time of creation.
    pub created_ms: u64,
    /// Chain up to the start of a WAL segment.
    pub chain: Chain,
    /// Version of the system tenant's key that makes the chain of a WAL segment.
    pub chain_key: DekVersion,
    /// Chain after the header of a WAL segment.
    pub chain_after: Chain,
}

impl FileHeader {
    /// Encoded size.
    pub const BYTES: usize = 128;

    /// A header for a new file, with a fresh identity and salt from `io.rng`.
    pub fn new(io: &Io, kind: FileKind, epoch: Epoch, number: u64, chain: Chain) -> Result<FileHeader> {
        let (mut file_id, mut salt) = ([0u8; 16], [0u8; 32]);
        if !planted!(SaltReused) {
            super::nonce::fill(&*io.rng, &mut file_id)?;
            super::nonce::fill(&*io.rng, &mut salt)?;
        }
        Ok(FileHeader {
            kind,
            file_id,
            salt,
            epoch,
            number,
            created_ms: io.clock.now_ms(),
            chain,
            chain_key: DekVersion::default(),
            chain_after: Chain::default(),
        })
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0u8; Self::BYTES];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        out[10] = self.kind as u8;
        out[11] = SUITE;
        out[16..32].copy_from_slice(&self.file_id);
        out[32..64].copy_from_slice(&self.salt);
        out[64..72].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[72..80].copy_from_slice(&self.number.to_le_bytes());
        out[80..88].copy_from_slice(&self.created_ms.to_le_bytes());
        out[88..104].copy_from_slice(&self.chain.0);
        out[104..108].copy_from_slice(&self.chain_key.0.to_le_bytes());
        out[108..124].copy_from_slice(&self.chain_after.0);
        let crc = checksum(&out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The parts of an encoded header that the chain is made of: all but the checksum and the chain after it.
    pub fn chained_parts(raw: &[u8; Self::BYTES]) -> [&[u8]; 2] {
        [&raw[..12], &raw[16..108]]
    }

    /// Whether `bytes` begin with a header that was written whole: one that is not was torn, or has rotted.
    pub fn is_whole(bytes: &[u8]) -> bool {
        let raw = bytes.first_chunk::<{ Self::BYTES }>();
        raw.is_some_and(|raw| raw[0..8] == MAGIC && u32::from_le_bytes(array(raw, 12)) == checksum(raw))
    }

    /// Reads the header at the start of `bytes` (the rest is ignored) of the file `path`.
    ///
    /// Errors: `Corruption` naming the file; `Unsupported` when a newer version wrote it.
    pub fn decode(path: &Path, bytes: &[u8], kind: FileKind) -> Result<FileHeader> {
        let damaged = |offset: u64, what: &str, expected: String, found: String| {
            Err(Error::corruption(path, offset, what, expected, found))
        };
        let Some(raw) = bytes.first_chunk::<{ Self::BYTES }>() else {
            return damaged(
                0,
                "file header",
                "128 bytes".into(),
                format!("{} bytes", bytes.len()),
            );
        };
        if raw[0..8] != MAGIC {
            return damaged(0, "file header", "magic STRGROOM".into(), "other bytes".into());
        }
        let (stored, computed) = (u32::from_le_bytes(array(raw, 12)), checksum(raw));
        if stored != computed {
            let (expected, found) = (format!("crc {computed:08x}"), format!("{stored:08x}"));
            return damaged(12, "file header", expected, found);
        }
        let format = u16::from_le_bytes(array(raw, 8));
        if format != FORMAT {
            let message = format!("file format {format} is not known to this version, which knows {FORMAT}");
            return Err(Error::new(ErrorKind::Unsupported, message).at(path));
        }
        if raw[11] != SUITE {
            let message = format!("cipher suite {} is not known to this version", raw[11]);
            return Err(Error::new(ErrorKind::Unsupported, message).at(path));
        }
        if raw[10] != kind as u8 {
            let found = format!("kind {}", raw[10]);
            return damaged(
                10,
                "file header",
                format!("kind {} ({})", kind as u8, kind.name()),
                found,
            );
        }
        let zero_from = if kind == FileKind::Wal { 124 } else { 88 };
        if raw[zero_from..].iter().any(|byte| *byte != 0) {
            return damaged(
                zero_from as u64,
                "file header",
                "zero bytes".into(),
                "others".into(),
            );
        }
        Ok(FileHeader {
            kind,
            file_id: array(raw, 16),
            salt: array(raw, 32),
            epoch: Epoch(u64::from_le_bytes(array(raw, 64))),
            number: u64::from_le_bytes(array(raw, 72)),
            created_ms: u64::from_le_bytes(array(raw, 80)),
            chain: Chain(array(raw, 88)),
            chain_key: DekVersion(u32::from_le_bytes(array(raw, 104))),
            chain_after: Chain(array(raw, 108)),
        })
    }
}

/// `N` bytes of the header from `offset`. Only called with constants that lie inside 128 bytes.
fn array<const N: usize>(raw: &[u8; FileHeader::BYTES], offset: usize) -> [u8; N] {
    let mut out = [0u8; N];
    out.copy_from_slice(&raw[offset..offset + N]);
    out
}

pub(super) fn checksum(raw: &[u8; FileHeader::BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&raw[..12]);
    hasher.update(&raw[16..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> FileHeader {
        FileHeader {
            kind: FileKind::Table,
            file_id: *b"0123456789abcdef",
            salt: [7; 32],
            epoch: Epoch::FIRST,
            number: 42,
            created_ms: 1_700_000_000_000,
            chain: Chain::default(),
            chain_key: DekVersion::default(),
            chain_after: Chain::default(),
        }
    }

    #[test]
    fn header_survives_encoding() {
        let header = sample();
        let path = Path::new("t");
        assert_eq!(
            FileHeader::decode(path, &header.encode(), FileKind::Table).unwrap(),
            header
        );
        let segment = FileHeader {
            kind: FileKind::Wal,
            chain: Chain([9; 16]),
            chain_key: DekVersion(3),
            chain_after: Chain([8; 16]),
            ..header
        };
        assert_eq!(
            FileHeader::decode(path, &segment.encode(), FileKind::Wal).unwrap(),
            segment
        );
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_corruption() {
        let good = sample().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = FileHeader::decode(Path::new("t"), &bad, FileKind::Table).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption, "bit {bit}");
            assert_eq!(error.path(), Some(Path::new("t")), "bit {bit}");
        }
    }

    #[test]
    fn truncated_header_is_corruption() {
        let good = sample().encode();
        for len in 0..good.len() {
            let error = FileHeader::decode(Path::new("t"), &good[..len], FileKind::Table).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption);
        }
    }

    #[test]
    fn newer_format_or_suite_is_unsupported_and_other_kind_is_corruption() {
        let edit = |at: usize, value: u8| {
            let mut raw = sample().encode();
            raw[at] = value;
            let crc = checksum(&raw);
            raw[12..16].copy_from_slice(&crc.to_le_bytes());
            FileHeader::decode(Path::new("t"), &raw, FileKind::Table)
                .unwrap_err()
                .kind()
        };
        assert_eq!(edit(8, 2), ErrorKind::Unsupported);
        assert_eq!(edit(11, 2), ErrorKind::Unsupported);
        // What a bench without a cipher wrote.
        assert_eq!(edit(11, 255), ErrorKind::Unsupported);
        assert_eq!(edit(10, 1), ErrorKind::Corruption);
        assert_eq!(edit(88, 1), ErrorKind::Corruption);
        assert_eq!(edit(110, 1), ErrorKind::Corruption);
        assert_eq!(edit(127, 1), ErrorKind::Corruption);
    }

    #[test]
    fn header_bytes_are_as_documented() {
        let hex = "53545247524f4f4d01000201e3d6f8d0";
        let raw = sample().encode();
        assert_eq!(hex::encode(&raw[..12]), hex[..24]);
        assert_eq!(&raw[16..32], b"0123456789abcdef");
        assert_eq!(raw[64..72], (1u64 << 32).to_le_bytes());
        assert_eq!(raw[72], 42);
    }
}
