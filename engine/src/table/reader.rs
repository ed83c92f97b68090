//! An open table: its directory in memory, everything else read, verified and decrypted on demand.
//!
//! A read finds the tenant in the directory, then the section (large runs only), then the block; each
//! of these pieces comes from the block cache or from the file. What comes from the file is opened
//! under the tenant's file key, whose commitment is compared first: a wrong key is told apart from a
//! damaged piece.
//!
//! Invariants: nothing is returned that did not verify; a tenant whose key is destroyed reads as
//! empty, and nothing of it is decrypted or kept; a length is compared with the file's before memory
//! is allocated for it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::block::Looked;
use super::cache::{BlockCache, Head};
use super::expectation;
use super::filter;
use super::format::{
    Directory, FOOTER_BYTES, Footer, Malformed, RUN_BYTES, Run, TableMeta, check_directory, digest,
};
use super::index::Level;
use super::iter::TableCursor;
use super::run_reader::RunReader;
use super::sealed_file::{Part, SealedFile, Shape, key_of};
use super::shown::Shelf;
use super::tenant_run::TenantRun;
use crate::error::{Error, Result};
use crate::hooks::{planted, rare};
use crate::io::{File, Io};
use crate::operation::count;
use crate::read::cursor::Found;
use crate::seal::{Aad, FileHeader, FileKey, FileKeys, FileKind, Piece, SEAL_OVERHEAD};
use crate::types::{SeqNo, TenantId};

const SHAPE: Shape = Shape {
    name: "table",
    kind: FileKind::Table,
    run_bytes: RUN_BYTES,
    footer_bytes: FOOTER_BYTES,
};

/// An open, immutable table.
pub(crate) struct Table {
    io: Io,
    path: PathBuf,
    file: Arc<dyn File>,
    pub(super) meta: TableMeta,
    header: FileHeader,
    directory: Directory,
    /// Of a table that has one tenant: all there is in the directory.
    only: Option<Run>,
    known: SeqNo,
    /// To the topmost head of each tenant, as in the directory.
    pub(super) top: Shelf,
    filter_seed: u64,
    /// Whether there are any, of whatever tenant.
    range_deletes: bool,
    pub(super) keys: Arc<FileKeys>,
    pub(super) cache: Arc<BlockCache>,
    obsolete: AtomicBool,
}

impl Table {
    /// Opens the file that `meta` describes and checks length, header, footer, directory and digest.
    ///
    /// No tenant's key is needed. Memory: 96 bytes a tenant. Errors: `Corruption` naming the file if
    /// it is missing or anything differs; `Unsupported` if a newer version wrote it.
    pub(crate) fn open(
        io: &Io,
        path: &Path,
        meta: TableMeta,
        keys: Arc<FileKeys>,
        cache: Arc<BlockCache>,
    ) -> Result<Arc<Table>> {
        let sealed = SealedFile::open(io, path, meta.bytes, &SHAPE)?;
        let malformed = |what| sealed.malformed(what);
        let footer = Footer::decode(&sealed.footer_bytes).map_err(|e| sealed.bad_footer(e))?;
        let directory_bytes = sealed.directory(footer.directory, footer.tenants)?;
        let found = digest(&sealed.header_bytes, &directory_bytes, &sealed.footer_bytes);
        let directory = check_directory(&footer, directory_bytes, &sealed.footer_bytes).map_err(malformed)?;
        if found != meta.digest {
            return Err(malformed(Malformed(
                "header, directory and footer of the manifest's digest",
            )));
        }
        let header = &sealed.header;
        let edge = |index: usize| directory.at(index).map(|run| run.tenant);
        let same = header.number == meta.number
            && header.file_id == meta.file_id
            && (footer.entries, footer.seqno_min, footer.seqno_max)
                == (meta.entries, meta.seqno_min, meta.seqno_max)
            && edge(0) == Some(meta.tenant_min)
            && edge(directory.len() - 1) == Some(meta.tenant_max);
        if !same {
            return Err(malformed(Malformed("the table the manifest describes")));
        }
        let range_deletes = directory.iter().any(|run| run.range_deletes > 0);
        Ok(Arc::new(Table {
            io: io.clone(),
            path: path.to_path_buf(),
            file: sealed.file,
            top: Shelf::new(directory.len()),
            filter_seed: filter::seed(&sealed.header.file_id),
            meta,
            header: sealed.header,
            range_deletes,
            only: directory.at(0).filter(|_| directory.len() == 1),
            directory,
            known: footer.known,
            keys,
            cache,
            obsolete: AtomicBool::new(false),
        }))
    }

    /// The newest version of `key` (a tree key) at or below `at`, deletes included, range deletes not.
    ///
    /// None also for a tenant whose key is destroyed, as soon as the block cache was purged of it.
    /// Errors: `Corruption` for damage, `KeyRefused` if the tenant's key is another than the one that
    /// sealed this table.
    pub(crate) fn get(&self, tenant: TenantId, key: &[u8], at: SeqNo) -> Result<Option<Found>> {
        self.look::<false>(tenant, key, at)
    }

    /// The same; `COUNT`: it is measured (`operation`).
    pub(crate) fn look<const COUNT: bool>(
        &self,
        tenant: TenantId,
        key: &[u8],
        at: SeqNo,
    ) -> Result<Option<Found>> {
        let Some(run) = self.find(tenant).filter(|run| run.seqno_min <= at) else {
            return Ok(None);
        };
        let mut reader = RunReader::new(self, run);
        let Some(top) = reader.top()? else { return Ok(None) };
        let mut hash = None;
        let mut section = if top.index.level() == Level::Sections {
            top.index.find(key)
        } else {
            0
        };
        loop {
            let of_section;
            let head: &Head = match top.index.level() {
                Level::Blocks if section == 0 => &top,
                Level::Blocks => return Ok(None),
                Level::Sections => {
                    of_section = reader.section(&top, section)?;
                    let Some(head) = &of_section else { return Ok(None) };
                    head
                }
            };
            // Where it was looked for before the filter was asked, and is not at hand.
            let mut missing = None;
            if !COUNT && expectation::is_found() {
                let part = head.index.find(key);
                match reader.look_at_hand(head, part, key, at) {
                    Some(Looked::Version(found)) => return Ok(Some(found)),
                    Some(Looked::OtherKey) => {
                        rare!(GuessErred);
                        expectation::learn(false);
                        return Ok(None);
                    }
                    Some(Looked::PastEnd) if planted!(GuessEndsWithBlock) => return Ok(None),
                    // It may go on in the next block.
                    Some(Looked::PastEnd) => {}
                    None => missing = Some(part),
                }
            }
            if let Some(filter) = &head.filter {
                let hash = *hash.get_or_insert_with(|| filter::hash(key, self.filter_seed));
                let denied = !filter.may_hold(hash);
                if COUNT {
                    count(|counters| {
                        counters.filters += 1;
                        counters.filters_denied += u64::from(denied);
                    });
                }
                if denied {
                    rare!(FilterSaidNo);
                    expectation::learn(false);
                    return Ok(None);
                }
            }
            let mut part = missing.unwrap_or_else(|| head.index.find(key));
            while part < head.index.len() {
                if COUNT {
                    count(|counters| counters.blocks += 1);
                }
                match reader.look(head, part, (key, at), missing == Some(part))? {
                    None => return Ok(None),
                    Some(Looked::Version(found)) => {
                        expectation::learn(true);
                        return Ok(Some(found));
                    }
                    Some(Looked::OtherKey) => {
                        if head.filter.is_some() {
                            rare!(FilterErred);
                        }
                        return Ok(None);
                    }
                    Some(Looked::PastEnd) => {}
                }
                // Older versions of the key go on in the next part only if it is the separator.
                if head.index.separator(part) != key {
                    return Ok(None);
                }
                rare!(VersionsGoOnInNextBlock);
                part += 1;
            }
            section += 1;
        }
    }

    /// A cursor over one tenant's entries that reads through the cache. Empty for a tenant that has
    /// none here or whose key is destroyed.
    pub(crate) fn cursor(self: &Arc<Self>, tenant: TenantId) -> Result<TableCursor> {
        TableCursor::new(self.clone(), tenant, false)
    }

    /// The same for compaction: blocks are read past the cache, many at a time.
    pub(crate) fn sweep(self: &Arc<Self>, tenant: TenantId) -> Result<TableCursor> {
        TableCursor::new(self.clone(), tenant, true)
    }

    /// The newest change of tenants' settings that its writer went by.
    pub(crate) fn known(&self) -> SeqNo {
        self.known
    }

    /// Whether the table has entries of `tenant`.
    pub(crate) fn contains(&self, tenant: TenantId) -> bool {
        self.find(tenant).is_some()
    }

    /// `tenant`'s share.
    pub(crate) fn run(&self, tenant: TenantId) -> Option<TenantRun> {
        self.find(tenant).map(TenantRun::from)
    }

    /// The shares of all tenants, ids ascending. Needs no keys.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = TenantRun> + '_ {
        self.directory.iter().map(TenantRun::from)
    }

    /// What the manifest records.
    pub(crate) fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// The first tenant's head that readers find without asking the cache.
    #[cfg(test)]
    pub(super) fn shown_top(&self) -> Option<Arc<Head>> {
        self.top.peek(0)
    }

    /// Where it is shown.
    #[cfg(test)]
    pub(super) fn top_shelf(&self) -> &Shelf {
        &self.top
    }

    /// Where the file is.
    #[cfg(test)]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Memory held outside the cache, in bytes.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.directory.memory() + self.top.len() * Shelf::PLACE_BYTES + size_of::<Table>()
    }

    /// The file is removed when the last handle to the table drops.
    pub(crate) fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.directory.iter()
    }

    pub(crate) fn deletes_ranges(&self) -> bool {
        self.range_deletes
    }

    pub(super) fn filter_seed(&self) -> u64 {
        self.filter_seed
    }

    pub(super) fn find(&self, tenant: TenantId) -> Option<Run> {
        match self.only {
            Some(only) => Some(only).filter(|run| run.tenant == tenant),
            None => self.directory.find(tenant),
        }
    }

    /// Where on the shelf the topmost head of a tenant is that the table has.
    pub(super) fn top_place(&self, tenant: TenantId) -> usize {
        match self.only {
            Some(_) => 0,
            None => self.directory.position(tenant).unwrap_or(self.top.len()),
        }
    }

    /// The key that opens `run`; None if it is destroyed.
    pub(super) fn key(&self, run: &Run) -> Result<Option<Arc<FileKey>>> {
        let part = Part {
            tenant: run.tenant,
            dek: run.dek,
            commitment: &run.commitment,
            start: run.start,
        };
        key_of(&self.keys, &self.header, &self.path, SHAPE.name, &part)
    }

    /// Reads sealed bytes of the file.
    pub(super) fn read(&self, span: &Range<u64>) -> Result<Vec<u8>> {
        self.read_with_room(span, |_| 0)
    }

    /// The same, into memory that has room for as many further bytes as `room` says for those that are read.
    pub(super) fn read_with_room(
        &self,
        span: &Range<u64>,
        room: impl FnOnce(usize) -> usize,
    ) -> Result<Vec<u8>> {
        let len = span
            .end
            .checked_sub(span.start)
            .filter(|_| span.end <= self.meta.bytes);
        let len = len.and_then(|len| usize::try_from(len).ok());
        let Some(len) = len else {
            return Err(self.damage(span.start, "sealed piece", Malformed("bytes inside the file")));
        };
        let mut bytes = Vec::with_capacity(len + room(len));
        read_into(&*self.file, &self.path, span.start, len, &mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn damage(&self, offset: u64, structure: &str, Malformed(what): Malformed) -> Error {
        Error::corruption(&self.path, offset, structure, what, "otherwise")
    }

    /// Opens a sealed piece where it lies; the part of `sealed` that has the plaintext.
    pub(super) fn open_piece(
        &self,
        key: &FileKey,
        run: &Run,
        piece: Piece,
        offset: u64,
        sealed: &mut [u8],
    ) -> Result<Range<usize>> {
        let structure = match piece {
            Piece::Block => "table block",
            Piece::Filter => "table filter",
            _ => "table index",
        };
        let plain_len = sealed
            .len()
            .checked_sub(SEAL_OVERHEAD)
            .and_then(|len| u32::try_from(len).ok());
        let plain_len =
            plain_len.ok_or_else(|| self.damage(offset, structure, Malformed("room for nonce and tag")))?;
        let aad = Aad {
            piece,
            tenant: run.tenant,
            file: self.meta.file_id,
            offset,
            plain_len,
            a: 0,
            b: 0,
        };
        count(|counters| counters.bytes_decrypted += u64::from(plain_len));
        key.open_in_place(&aad, sealed).map_err(|_| {
            self.damage(
                offset,
                structure,
                Malformed("bytes that verify under the tenant's key"),
            )
        })
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            // If this fails, opening the database sweeps the file up.
            let _ = self.io.vfs.remove_file(&self.path);
        }
    }
}

pub(super) fn read(file: &dyn File, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len);
    read_into(file, path, offset, len, &mut bytes)?;
    Ok(bytes)
}

/// Reads `len` bytes into `bytes`, which is empty.
fn read_into(file: &dyn File, path: &Path, offset: u64, len: usize, bytes: &mut Vec<u8>) -> Result<()> {
    bytes.resize(len, 0);
    file.read_exact_at(bytes, offset).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::corruption(
            path,
            offset,
            "table",
            format_args!("{len} bytes"),
            "the end of the file",
        ),
        _ => Error::io("reading a table", path, e),
    })
}
