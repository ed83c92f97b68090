//! Reading and writing bases: one immutable file with every tenant's keys.
//!
//! Written under a temporary name, synced, renamed: a base with its final name is whole. So one that does
//! not verify is damage, and no older one is tried instead (it may hold keys that were destroyed since).
//!
//! Who vouches for what: the header's and the preamble's checksums find accidents; the provider refuses a
//! root whose header or preamble was altered; the chunks' tags bind ordinal, offset and end; the preamble
//! fixes the exact length of the file.

use std::path::Path;

use zeroize::Zeroizing;

use super::format::{self, CHUNK_BYTES, PREAMBLE_BYTES_MAX, Preamble, WRAPPED_BYTES_MAX};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{File, Io, durable};
use crate::keys::{KekVersion, KeyChanges, KeyProvider};
use crate::seal::{Aad, Dek, FileHeader, FileKey, FileKind, Nonces, Piece, SEAL_OVERHEAD};
use crate::types::{Chain, DekVersion, Epoch, TenantId};

/// The root is no tenant's key and has no versions: file keys derived from it say 0.
pub(super) const ROOT_VERSION: DekVersion = DekVersion(0);

/// What a base is made of, apart from its tenants.
pub(super) struct Plan<'a> {
    pub generation: u64,
    pub root: &'a Dek,
    pub kek: KekVersion,
    pub superseded: Option<KekVersion>,
    pub version: u64,
    pub next_tenant: u64,
    pub log_id: Option<[u8; 16]>,
    pub origin: [u8; 16],
}

/// The bytes of a base holding `plain`, an encoded full [`KeyChanges`], and where its chunks begin.
pub(super) fn encode(
    io: &Io,
    provider: &dyn KeyProvider,
    plan: &Plan<'_>,
    plain: &[u8],
) -> Result<(Vec<u8>, usize)> {
    let header = FileHeader::new(
        io,
        FileKind::Keystore,
        Epoch::ZERO,
        plan.generation,
        Chain::default(),
    )?;
    let preamble = Preamble {
        kek: plan.kek,
        superseded: plan.superseded,
        version: plan.version,
        next_tenant: plan.next_tenant,
        plain_bytes: plain.len() as u64,
        log_id: plan.log_id,
        origin: plan.origin,
    };
    let wrapped = provider.wrap(plan.kek, plan.root.expose(), &preamble.context(&header))?;
    if !(1..=WRAPPED_BYTES_MAX).contains(&wrapped.len()) {
        let message = "the key provider wrapped the root into too many bytes";
        return Err(Error::new(ErrorKind::KeyRefused, message));
    }
    let key = FileKey::derive(plan.root, &header, TenantId::SYSTEM, ROOT_VERSION);
    let nonces = Nonces::new(io.rng.clone());
    let mut out = preamble.encode(&header, &key.commitment(), &wrapped);
    let chunks_at = out.len();
    let chunks = plain.len().div_ceil(CHUNK_BYTES).max(1);
    out.reserve_exact(plain.len() + chunks * SEAL_OVERHEAD);
    for ordinal in 0..chunks {
        let from = ordinal * CHUNK_BYTES;
        let chunk = plain
            .get(from..plain.len().min(from + CHUNK_BYTES))
            .unwrap_or_default();
        let aad = chunk_aad(
            &header,
            out.len() as u64,
            chunk.len(),
            ordinal as u64,
            ordinal + 1 == chunks,
        );
        key.seal(&nonces, &aad, chunk, &mut out)?;
    }
    Ok((out, chunks_at))
}

/// A base, opened.
pub(super) struct Base {
    pub root: Dek,
    pub preamble: Preamble,
    pub changes: KeyChanges,
}

/// Reads and verifies the base of `generation`. Errors: `Corruption`, `Unsupported`, naming the file;
/// `KeyRefused` when the provider does not open it.
pub(super) fn read(io: &Io, path: &Path, generation: u64, provider: &dyn KeyProvider) -> Result<Base> {
    let file = durable::open(io, path)?;
    let len = file.len().map_err(|e| Error::io("reading the length", path, e))?;
    let head = read_head(&*file, path, len)?;
    let header = FileHeader::decode(path, &head, FileKind::Keystore)?;
    if header.number != generation {
        let (expected, found) = (format!("generation {generation}"), header.number.to_string());
        return Err(Error::corruption(path, 72, "keystore base", expected, found));
    }
    let (preamble, commitment, wrapped, start) = Preamble::decode(path, &head)?;
    let expected = format::chunks_bytes(preamble.plain_bytes).and_then(|n| n.checked_add(start as u64));
    if expected != Some(len) {
        let expected = expected.map_or("a possible length".to_owned(), |n| format!("{n} bytes"));
        return Err(Error::corruption(
            path,
            160,
            "keystore base",
            expected,
            format!("{len} bytes"),
        ));
    }
    let root = provider
        .unwrap(preamble.kek, wrapped, &preamble.context(&header))
        .map_err(|e| e.at(path))?;
    let root = Dek::from_bytes(&root);
    let key = FileKey::derive(&root, &header, TenantId::SYSTEM, ROOT_VERSION);
    if !key.matches(commitment) {
        let (expected, found) = ("the commitment of its key", "another");
        return Err(Error::corruption(path, 200, "keystore base", expected, found));
    }
    let plain = read_chunks(&*file, path, &header, &key, start as u64, preamble.plain_bytes)?;
    let changes = KeyChanges::decode(&plain).map_err(|e| e.at(path))?;
    let same = changes.version == preamble.version && changes.next_tenant == preamble.next_tenant;
    if !changes.full || !same {
        let (expected, found) = ("the full key set that the preamble tells of", "another");
        return Err(Error::corruption(
            path,
            start as u64,
            "keystore base",
            expected,
            found,
        ));
    }
    Ok(Base {
        root,
        preamble,
        changes,
    })
}

/// The KEK version of a base that counts no more (it never got its final name, or is given up), if this provider wrapped its root in the
/// directory `origin`; `None` for anything less, or damaged.
pub(super) fn abandoned_kek(
    io: &Io,
    path: &Path,
    origin: &[u8; 16],
    provider: &dyn KeyProvider,
) -> Option<KekVersion> {
    let file = durable::open(io, path).ok()?;
    let head = read_head(&*file, path, file.len().ok()?).ok()?;
    let header = FileHeader::decode(path, &head, FileKind::Keystore).ok()?;
    let (preamble, _, wrapped, _) = Preamble::decode(path, &head).ok()?;
    if preamble.origin != *origin {
        return None;
    }
    // Only a version that really wrapped this: nobody gets a foreign one destroyed by planting a file.
    provider
        .unwrap(preamble.kek, wrapped, &preamble.context(&header))
        .ok()?;
    Some(preamble.kek)
}

fn read_head(file: &dyn File, path: &Path, len: u64) -> Result<Vec<u8>> {
    let mut head = vec![0u8; usize::try_from(len).unwrap_or(usize::MAX).min(PREAMBLE_BYTES_MAX)];
    file.read_exact_at(&mut head, 0)
        .map_err(|e| Error::io("reading the file", path, e))?;
    Ok(head)
}

/// The plaintext of all chunks. `total` is authentic: memory is taken for what was really written.
fn read_chunks(
    file: &dyn File,
    path: &Path,
    header: &FileHeader,
    key: &FileKey,
    start: u64,
    total: u64,
) -> Result<Zeroizing<Vec<u8>>> {
    let too_long = |_| Error::corruption(path, 160, "keystore base", "a length that fits memory", total);
    let mut plain = Zeroizing::new(Vec::with_capacity(usize::try_from(total).map_err(too_long)?));
    let chunks = total.div_ceil(CHUNK_BYTES as u64).max(1);
    let mut offset = start;
    for ordinal in 0..chunks {
        let left = total - ordinal * CHUNK_BYTES as u64;
        let plain_len = left.min(CHUNK_BYTES as u64) as usize;
        let mut sealed = vec![0u8; plain_len + SEAL_OVERHEAD];
        file.read_exact_at(&mut sealed, offset)
            .map_err(|e| Error::io("reading the file", path, e))?;
        let aad = chunk_aad(header, offset, plain_len, ordinal, ordinal + 1 == chunks);
        let chunk = key.open(&aad, &sealed).map(Zeroizing::new).map_err(|failed| {
            Error::corruption(path, offset, "keystore chunk", "a tag that matches", failed)
        })?;
        plain.extend_from_slice(&chunk);
        offset += sealed.len() as u64;
    }
    Ok(plain)
}

fn chunk_aad(header: &FileHeader, offset: u64, plain_len: usize, ordinal: u64, last: bool) -> Aad {
    Aad {
        piece: Piece::Keys,
        tenant: TenantId::SYSTEM,
        file: header.file_id,
        offset,
        plain_len: plain_len as u32,
        a: ordinal,
        b: u64::from(last),
    }
}
