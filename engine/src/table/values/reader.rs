//! An open value file: its directory in memory, values read, verified and decrypted on demand, one read for each.
//!
//! Invariants: nothing is returned that did not verify at the place, of the key and version that ask; a tenant whose
//! key is destroyed has nothing, and nothing of it is decrypted or kept; a length is compared with the file's before
//! memory is allocated for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::format::{FOOTER_BYTES, Footer, RUN_BYTES, Reference, ValueMeta, ValueRun, check};
use super::{CODEC_BYTES, LZ4, Owner, STORED};
use crate::error::{Error, Result};
use crate::hooks::rare;
use crate::io::{File, Io};
use crate::operation::count;
use crate::seal::{FileHeader, FileKey, FileKeys, FileKind, SEAL_OVERHEAD};
use crate::table::cache::BlockCache;
use crate::table::compress::decompress;
use crate::table::format::{Malformed, digest};
use crate::table::reader::read;
use crate::table::sealed_file::{Part, SealedFile, Shape, key_of};
use crate::types::{SeqNo, TenantId};

const SHAPE: Shape = Shape {
    name: "value file",
    kind: FileKind::Values,
    run_bytes: RUN_BYTES,
    footer_bytes: FOOTER_BYTES,
};

/// An open, immutable value file.
pub(crate) struct ValueFile {
    io: Io,
    path: PathBuf,
    file: Arc<dyn File>,
    meta: ValueMeta,
    header: FileHeader,
    runs: Box<[ValueRun]>,
    known: SeqNo,
    keys: Arc<FileKeys>,
    cache: Arc<BlockCache>,
    obsolete: AtomicBool,
}

impl ValueFile {
    /// Opens the file that `meta` describes and checks length, header, footer, directory and digest.
    ///
    /// No tenant's key is needed. Memory: 56 bytes a tenant. Errors: `Corruption` naming the file if
    /// it is missing or anything differs; `Unsupported` if a newer version wrote it.
    pub(crate) fn open(
        io: &Io,
        path: &Path,
        meta: ValueMeta,
        keys: Arc<FileKeys>,
        cache: Arc<BlockCache>,
    ) -> Result<Arc<ValueFile>> {
        let sealed = SealedFile::open(io, path, meta.bytes, &SHAPE)?;
        let malformed = |what| sealed.malformed(what);
        let footer = Footer::decode(&sealed.footer_bytes).map_err(|e| sealed.bad_footer(e))?;
        let directory = sealed.directory(footer.directory, footer.tenants)?;
        let runs = check(&footer, &directory, &sealed.footer_bytes).map_err(malformed)?;
        if digest(&sealed.header_bytes, &directory, &sealed.footer_bytes) != meta.digest {
            let what = "header, directory and footer of the manifest's digest";
            return Err(malformed(Malformed(what)));
        }
        let header = &sealed.header;
        if (header.number, header.file_id, footer.values) != (meta.number, meta.file_id, meta.values) {
            return Err(malformed(Malformed("the value file the manifest describes")));
        }
        Ok(Arc::new(ValueFile {
            io: io.clone(),
            path: path.to_path_buf(),
            file: sealed.file,
            meta,
            header: sealed.header,
            runs,
            known: footer.known,
            keys,
            cache,
            obsolete: AtomicBool::new(false),
        }))
    }

    /// The value that `reference`, which names this file, stands for; by way of the cache. None if the tenant's key is
    /// destroyed.
    ///
    /// Errors: `Corruption` for damage, `KeyRefused` if the tenant's key is another than the one that sealed it.
    pub(crate) fn get(&self, owner: Owner<'_>, reference: &Reference) -> Result<Option<Bytes>> {
        let cached = self.cache.value(self.meta.number, reference.offset, owner.tenant);
        if let Some(value) = cached.filter(|value| value.len() == reference.length as usize) {
            return Ok(Some(value));
        }
        self.cache.count_read(u64::from(reference.bytes));
        let value = self.read(owner, reference)?;
        if let Some(value) = &value {
            let (cache, number) = (&self.cache, self.meta.number);
            cache.keep_value(number, reference.offset, owner.tenant, value);
            // The key may be destroyed, and the cache purged, between decrypting and keeping.
            if !self.keys.is_live(owner.tenant) {
                cache.forget(number, reference.offset);
            }
        }
        Ok(value)
    }

    /// The same past the cache: for compaction and verifying.
    pub(crate) fn read(&self, owner: Owner<'_>, reference: &Reference) -> Result<Option<Bytes>> {
        let Reference { offset, bytes, .. } = *reference;
        let damage = |what| self.damage(offset, what);
        let run = self.runs.binary_search_by_key(&owner.tenant, |run| run.tenant);
        let run = run.ok().and_then(|at| self.runs.get(at));
        let Some(run) = run.filter(|run| run.holds(offset, bytes)) else {
            return Err(damage("a value inside its tenant's part"));
        };
        let Some(key) = self.key(run)? else {
            return Ok(None);
        };
        let mut sealed = read(&*self.file, &self.path, offset, bytes as usize)?;
        let plain_len = sealed
            .len()
            .checked_sub(SEAL_OVERHEAD)
            .filter(|len| *len >= CODEC_BYTES);
        let plain_len = plain_len.and_then(|len| u32::try_from(len).ok());
        let plain_len = plain_len.ok_or_else(|| damage("room for nonce, tag and codec"))?;
        let aad = owner.aad(self.meta.file_id, offset, plain_len);
        count(|counters| counters.bytes_decrypted += u64::from(plain_len));
        let plain = key
            .open_in_place(&aad, &mut sealed)
            .map_err(|_| damage("bytes that verify under the tenant's key"))?;
        let (codec, rest) = sealed
            .get(plain.clone())
            .and_then(<[u8]>::split_first)
            .ok_or_else(|| damage("room for nonce, tag and codec"))?;
        let value = match *codec {
            STORED => {
                let (start, end) = (plain.start + CODEC_BYTES, plain.end);
                let sealed = Bytes::from(sealed);
                match sealed.get(start..end) {
                    Some([]) | None => Bytes::new(),
                    Some(_) => sealed.slice(start..end),
                }
            }
            LZ4 => decompress(rest, 0)
                .map_err(|Malformed(what)| damage(what))?
                .into(),
            _ => return Err(damage("codec 2 or 3")),
        };
        if value.len() as u64 != u64::from(reference.length) {
            return Err(damage("a value of the length that its reference states"));
        }
        rare!(SeparatedValueRead);
        Ok(Some(value))
    }

    fn key(&self, run: &ValueRun) -> Result<Option<Arc<FileKey>>> {
        let part = Part {
            tenant: run.tenant,
            dek: run.dek,
            commitment: &run.commitment,
            start: run.start,
        };
        key_of(&self.keys, &self.header, &self.path, SHAPE.name, &part)
    }

    fn damage(&self, offset: u64, expected: &str) -> Error {
        Error::corruption(&self.path, offset, "separated value", expected, "otherwise")
    }

    /// What the manifest records.
    pub(crate) fn meta(&self) -> &ValueMeta {
        &self.meta
    }

    /// The newest change of tenants' settings that its writer went by.
    pub(crate) fn known(&self) -> SeqNo {
        self.known
    }

    /// The shares of all tenants, ids ascending. Needs no keys.
    pub(crate) fn runs(&self) -> &[ValueRun] {
        &self.runs
    }

    /// `tenant`'s share.
    pub(crate) fn run(&self, tenant: TenantId) -> Option<&ValueRun> {
        let at = self.runs.binary_search_by_key(&tenant, |run| run.tenant).ok()?;
        self.runs.get(at)
    }

    /// The file is removed when the last handle to it drops.
    pub(crate) fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

impl Drop for ValueFile {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            // If this fails, opening the database sweeps the file up.
            let _ = self.io.vfs.remove_file(&self.path);
        }
    }
}
