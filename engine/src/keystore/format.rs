//! Names and clear structures of the keystore's files.
//!
//! ```text
//! keystore/base-<generation, 16 hex>       all tenants (base.rs)
//! keystore/log-<generation, 16 hex>        tenants created since (log.rs)
//! keystore/<either>.tmp                    not yet what it will be; swept at open
//! keystore/reserve                         room on a full disk, holds nothing (reserve.rs)
//!
//! base  offset size field            (little-endian)
//!            0  128 header            kind 4, number = generation
//!          128    8 KEK version       that wraps the root
//!          136    8 superseded        KEK version to destroy, 0 = none
//!          144    8 keystore version
//!          152    8 next tenant
//!          160    8 plain length      of the sealed chunks together
//!          168   16 log id            file id of the log that belongs here, zero = none
//!          184   16 origin            SHA-256 of the directory's path, cut
//!          200   16 commitment        of the key of the chunks
//!          216    4 wrapped length    1 ..= 4096
//!          220    … wrapped root      by the key provider, bound to bytes [0, 200)
//!            …    4 crc32             IEEE, over bytes [128, here)
//!            …      sealed chunks     of 64 KiB plain each but the last; a = ordinal, b = 1 for the last
//!
//! log        0  128 header            kind 4, number = generation
//!          128   16 commitment
//!          144      frames: magic "KOP1" ‖ length u32 ‖ crc32 u32 over length and piece ‖ sealed piece
//!                   (a = ordinal)
//! ```
//!
//! The plaintext of the chunks is a full [`KeyChanges`](crate::keys::KeyChanges), that of a frame an
//! incremental one without deletions.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::io::{DirEntry, durable};
use crate::keys::KekVersion;
use crate::seal::{COMMITMENT_BYTES, FileHeader, SEAL_OVERHEAD};

/// Plaintext of every chunk of a base but the last.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// Longest wrapped root a provider may return.
pub(super) const WRAPPED_BYTES_MAX: usize = 4096;
/// Longest log; a change that would make it longer writes a new base instead.
pub(super) const LOG_BYTES_MAX: u64 = 64 << 20;
/// First byte of a log's frames.
pub(super) const LOG_HEAD_BYTES: usize = FileHeader::BYTES + COMMITMENT_BYTES;
/// Magic, length, checksum.
pub(super) const FRAME_HEAD_BYTES: usize = 12;
const FRAME_MAGIC: [u8; 4] = *b"KOP1";
/// What a provider must bind to the wrapped root begins with this.
const CONTEXT: &[u8] = b"strongroom/1/root";
const FIELDS_BYTES: usize = 72;
/// Header, fields, commitment and wrapped length: what a base has at least.
pub(super) const PREAMBLE_BYTES_MIN: usize = FileHeader::BYTES + FIELDS_BYTES + COMMITMENT_BYTES + 4;
/// The longest preamble, checksum included.
pub(super) const PREAMBLE_BYTES_MAX: usize = PREAMBLE_BYTES_MIN + WRAPPED_BYTES_MAX + 4;

/// The keystore's files, sorted by what their names say.
#[derive(Default)]
pub(super) struct Files {
    /// Generations that have a base, ascending.
    pub bases: Vec<u64>,
    /// Generations that have a log, ascending.
    pub logs: Vec<u64>,
    /// Names of temporary files.
    pub temporaries: Vec<String>,
}

impl Files {
    /// Sorts a listing; names that are none of the keystore's are left alone.
    pub fn sort(listing: &[DirEntry]) -> Files {
        let mut files = Files::default();
        for entry in listing.iter().filter(|e| !e.is_dir) {
            let name = entry
                .name
                .strip_suffix(durable::TMP_SUFFIX)
                .unwrap_or(&entry.name);
            let base = name.strip_prefix("base-").and_then(generation);
            let log = name.strip_prefix("log-").and_then(generation);
            match (base, log) {
                (None, None) => {}
                _ if name != entry.name => files.temporaries.push(entry.name.clone()),
                (Some(generation), _) => files.bases.push(generation),
                (None, Some(generation)) => files.logs.push(generation),
            }
        }
        files
    }
}

fn generation(hex: &str) -> Option<u64> {
    let exact = hex.len() == 16 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    exact.then(|| u64::from_str_radix(hex, 16).ok())?
}

/// Where the base of a generation is.
pub(super) fn base_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("base-{generation:016x}"))
}

/// Where the log of a generation is.
pub(super) fn log_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("log-{generation:016x}"))
}

/// What a base says in clear between header and chunks.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Preamble {
    pub kek: KekVersion,
    pub superseded: Option<KekVersion>,
    pub version: u64,
    pub next_tenant: u64,
    pub plain_bytes: u64,
    pub log_id: Option<[u8; 16]>,
    pub origin: [u8; 16],
}

impl Preamble {
    fn fields(&self) -> [u8; FIELDS_BYTES] {
        let mut out = [0u8; FIELDS_BYTES];
        let superseded = self.superseded.map_or(0, |v| v.0);
        let numbers = [
            self.kek.0,
            superseded,
            self.version,
            self.next_tenant,
            self.plain_bytes,
        ];
        for (bytes, number) in out.chunks_exact_mut(8).zip(numbers) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        out[40..56].copy_from_slice(&self.log_id.unwrap_or_default());
        out[56..72].copy_from_slice(&self.origin);
        out
    }

    fn from_fields(raw: &[u8; FIELDS_BYTES]) -> Preamble {
        let mut numbers = [0u64; 5];
        for (number, bytes) in numbers.iter_mut().zip(raw.chunks_exact(8)) {
            *number = bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        }
        let [kek, superseded, version, next_tenant, plain_bytes] = numbers;
        let (mut log_id, mut origin) = ([0u8; 16], [0u8; 16]);
        log_id.copy_from_slice(&raw[40..56]);
        origin.copy_from_slice(&raw[56..72]);
        Preamble {
            kek: KekVersion(kek),
            superseded: (superseded != 0).then_some(KekVersion(superseded)),
            version,
            next_tenant,
            plain_bytes,
            log_id: (log_id != [0; 16]).then_some(log_id),
            origin,
        }
    }

    /// What the provider binds to the wrapped root: header and fields cannot be altered or exchanged.
    pub fn context(&self, header: &FileHeader) -> Vec<u8> {
        let mut hash = Sha256::new();
        hash.update(header.encode());
        hash.update(self.fields());
        [CONTEXT, &hash.finalize()].concat()
    }

    /// Header and preamble as they stand in the file.
    pub fn encode(
        &self,
        header: &FileHeader,
        commitment: &[u8; COMMITMENT_BYTES],
        wrapped: &[u8],
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(PREAMBLE_BYTES_MIN + wrapped.len() + 4);
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(&self.fields());
        out.extend_from_slice(commitment);
        out.extend_from_slice(&(wrapped.len() as u32).to_le_bytes());
        out.extend_from_slice(wrapped);
        let crc = crc32fast::hash(out.get(FileHeader::BYTES..).unwrap_or_default());
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the preamble that follows the header in `bytes`, the beginning of the base `path`. Returns it
    /// with the commitment, the wrapped root, and the offset of the first chunk.
    pub fn decode<'a>(path: &Path, bytes: &'a [u8]) -> Result<(Preamble, &'a [u8; 16], &'a [u8], usize)> {
        let short = || Error::corruption(path, 128, "keystore preamble", "more bytes", "the end");
        let rest = bytes.get(FileHeader::BYTES..).ok_or_else(short)?;
        let (fields, after) = rest.split_first_chunk::<FIELDS_BYTES>().ok_or_else(short)?;
        let (commitment, after) = after.split_first_chunk::<COMMITMENT_BYTES>().ok_or_else(short)?;
        let (length, after) = after.split_first_chunk::<4>().ok_or_else(short)?;
        let length = u32::from_le_bytes(*length) as usize;
        if !(1..=WRAPPED_BYTES_MAX).contains(&length) {
            let found = format!("{length} bytes");
            return Err(Error::corruption(
                path,
                216,
                "keystore preamble",
                "1 to 4096 bytes",
                found,
            ));
        }
        let (wrapped, after) = after.split_at_checked(length).ok_or_else(short)?;
        let crc = u32::from_le_bytes(*after.first_chunk::<4>().ok_or_else(short)?);
        let end = PREAMBLE_BYTES_MIN + length;
        let computed = crc32fast::hash(bytes.get(FileHeader::BYTES..end).ok_or_else(short)?);
        if crc != computed {
            let (expected, found) = (format!("crc {computed:08x}"), format!("{crc:08x}"));
            return Err(Error::corruption(
                path,
                end as u64,
                "keystore preamble",
                expected,
                found,
            ));
        }
        Ok((Preamble::from_fields(fields), commitment, wrapped, end + 4))
    }
}

/// Bytes that `plain` bytes take as sealed chunks. At least one chunk, so that the end is always sealed.
pub(super) fn chunks_bytes(plain: u64) -> Option<u64> {
    let chunks = plain.div_ceil(CHUNK_BYTES as u64).max(1);
    chunks.checked_mul(SEAL_OVERHEAD as u64)?.checked_add(plain)
}

/// Tells temporary files of this directory from ones that were carried here.
pub(super) fn origin(dir: &Path) -> [u8; 16] {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    let hash = Sha256::digest(absolute.as_os_str().as_encoded_bytes());
    let mut out = [0u8; 16];
    out.copy_from_slice(&hash[..16]);
    out
}

/// The clear head of a frame around `sealed`.
pub(super) fn frame_head(sealed: &[u8]) -> [u8; FRAME_HEAD_BYTES] {
    let length = (sealed.len() as u32).to_le_bytes();
    let mut out = [0u8; FRAME_HEAD_BYTES];
    out[0..4].copy_from_slice(&FRAME_MAGIC);
    out[4..8].copy_from_slice(&length);
    out[8..12].copy_from_slice(&frame_crc(&length, sealed).to_le_bytes());
    out
}

fn frame_crc(length: &[u8; 4], sealed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(sealed);
    hasher.finalize()
}

/// What lies at an offset of a log.
pub(super) enum Frame<'a> {
    /// A frame whose checksum matches: its sealed piece, and the offset after it.
    Whole(&'a [u8], usize),
    /// No such frame, and none after it: what a crash leaves of an append that was never acknowledged.
    Torn,
    /// No such frame here, but one further on, at the given offset: damage.
    Damaged(usize),
    /// The end.
    End,
}

/// Reads the frame at `offset` of a log. Pure: the one place where a torn tail is told from damage.
///
/// Frames are synced one by one before they are acknowledged, so only the last can be torn.
pub(super) fn frame_at(log: &[u8], offset: usize) -> Frame<'_> {
    let rest = log.get(offset..).unwrap_or_default();
    if rest.is_empty() {
        return Frame::End;
    }
    if let Some(sealed) = shaped_frame(rest).filter(|_| checks(rest)) {
        return Frame::Whole(sealed, offset + FRAME_HEAD_BYTES + sealed.len());
    }
    // Any whole frame further on proves that this one was synced once. The budget bounds the work for
    // forged logs that are full of beginnings; no crash leaves such.
    let mut budget = log.len().saturating_mul(16);
    for at in 1..rest.len() {
        let tail = rest.get(at..).unwrap_or_default();
        let Some(sealed) = shaped_frame(tail) else {
            continue;
        };
        let left = budget.checked_sub(sealed.len());
        if left.is_none() || checks(tail) {
            return Frame::Damaged(offset + at);
        }
        budget = left.unwrap_or_default();
    }
    Frame::Torn
}

/// The sealed piece of what looks like a frame at the start of `bytes`.
fn shaped_frame(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.strip_prefix(&FRAME_MAGIC)?.split_first_chunk::<4>()?;
    let sealed = rest.get(4..)?.get(..u32::from_le_bytes(*length) as usize)?;
    (sealed.len() >= SEAL_OVERHEAD).then_some(sealed)
}

/// Whether the checksum of the frame at the start of `bytes` fits.
fn checks(bytes: &[u8]) -> bool {
    let Some(sealed) = shaped_frame(bytes) else {
        return false;
    };
    bytes.starts_with(&frame_head(sealed))
}
