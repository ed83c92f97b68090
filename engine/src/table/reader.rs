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

use super::block::{Block, room};
use super::cache::{BlockCache, Head};
use super::filter::{self, Filter};
use super::format::{
    Directory, FOOTER_BYTES, Footer, FooterError, Malformed, RUN_BYTES, Run, TableMeta, check_directory,
    digest,
};
use super::index::{Index, Level};
use super::iter::TableCursor;
use super::shown::{Held, Shelf};
use super::tenant_run::TenantRun;
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::rare;
use crate::io::{File, Io};
use crate::read::cursor::Found;
use crate::seal::{Aad, FileHeader, FileKey, FileKeys, FileKind, KeyAccess, Piece, SEAL_OVERHEAD};
use crate::types::{SeqNo, TenantId};

/// An open, immutable table.
pub(crate) struct Table {
    io: Io,
    path: PathBuf,
    file: Arc<dyn File>,
    meta: TableMeta,
    header: FileHeader,
    directory: Directory,
    /// Of a table that has one tenant: all there is in the directory.
    only: Option<Run>,
    known: SeqNo,
    /// To the only head of a table that has one tenant.
    top: Option<Shelf>,
    filter_seed: u64,
    /// Whether there are any, of whatever tenant.
    range_deletes: bool,
    keys: Arc<FileKeys>,
    cache: Arc<BlockCache>,
    obsolete: AtomicBool,
}

impl Table {
    /// Opens the file that `meta` describes and checks length, header, footer, directory and digest.
    ///
    /// No tenant's key is needed. Memory: 88 bytes a tenant. Errors: `Corruption` naming the file if
    /// it is missing or anything differs; `Unsupported` if a newer version wrote it.
    pub(crate) fn open(
        io: &Io,
        path: &Path,
        meta: TableMeta,
        keys: Arc<FileKeys>,
        cache: Arc<BlockCache>,
    ) -> Result<Arc<Table>> {
        let file = io.vfs.open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::corruption(path, 0, "table", "a file", "none"),
            _ => Error::io("opening a table", path, e),
        })?;
        let len = file.len().map_err(|e| Error::io("measuring a table", path, e))?;
        if len != meta.bytes {
            return Err(Error::corruption(path, len, "table length", meta.bytes, len));
        }
        let smallest = (FileHeader::BYTES + RUN_BYTES + FOOTER_BYTES) as u64;
        if len < smallest {
            return Err(Error::corruption(
                path,
                len,
                "table length",
                format_args!("{smallest} at least"),
                len,
            ));
        }
        let header_bytes = read(&*file, path, 0, FileHeader::BYTES)?;
        let header = FileHeader::decode(path, &header_bytes, FileKind::Table)?;
        let footer_at = len - FOOTER_BYTES as u64;
        let footer_bytes = read(&*file, path, footer_at, FOOTER_BYTES)?;
        let malformed =
            |Malformed(what)| Error::corruption(path, footer_at, "table footer", what, "otherwise");
        let footer = Footer::decode(&footer_bytes).map_err(|e| match e {
            FooterError::Malformed(what) => malformed(what),
            FooterError::Newer(format) => {
                let message = format!("table format {format} is newer than this version reads");
                Error::new(ErrorKind::Unsupported, message).at(path)
            }
        })?;
        let directory_len = footer.tenants.checked_mul(RUN_BYTES as u64);
        let directory_end = directory_len.and_then(|len| footer.directory.checked_add(len));
        if directory_end != Some(footer_at) {
            return Err(malformed(Malformed("a directory just before it")));
        }
        // At most the file's own length, as was just checked.
        let directory_bytes = read(
            &*file,
            path,
            footer.directory,
            (footer_at - footer.directory) as usize,
        )?;
        let found = digest(&header_bytes, &directory_bytes, &footer_bytes);
        let directory = check_directory(&footer, directory_bytes, &footer_bytes).map_err(malformed)?;
        if found != meta.digest {
            return Err(malformed(Malformed(
                "header, directory and footer of the manifest's digest",
            )));
        }
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
            file,
            top: (meta.tenant_min == meta.tenant_max).then(|| Shelf::new(1)),
            filter_seed: filter::seed(&header.file_id),
            meta,
            header,
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
            if let Some(filter) = &head.filter {
                let hash = *hash.get_or_insert_with(|| filter::hash(key, self.filter_seed));
                if !filter.may_hold(hash) {
                    rare!(FilterSaidNo);
                    return Ok(None);
                }
            }
            let mut part = head.index.find(key);
            while part < head.index.len() {
                let Some(block) = reader.block(head, part)? else {
                    return Ok(None);
                };
                let found = block.lower_bound(key, at);
                if found < block.len() {
                    let hit = block.key(found) == key;
                    if !hit && head.filter.is_some() {
                        rare!(FilterErred);
                    }
                    return Ok(if hit { block.found(found) } else { None });
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

    /// The head that readers find without asking the cache.
    #[cfg(test)]
    pub(super) fn shown_top(&self) -> Option<Arc<Head>> {
        self.top.as_ref()?.peek(0)
    }

    /// Where it is shown, for a table of one tenant.
    #[cfg(test)]
    pub(super) fn top_shelf(&self) -> &Shelf {
        self.top.as_ref().unwrap()
    }

    /// Where the file is.
    #[cfg(test)]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Memory held outside the cache, in bytes.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.directory.memory() + size_of::<Table>()
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

    /// The key that opens `run`; None if it is destroyed.
    pub(super) fn key(&self, run: &Run) -> Result<Option<Arc<FileKey>>> {
        match self.keys.for_reading(&self.header, run.tenant, run.dek) {
            KeyAccess::Live(key) if key.matches(&run.commitment) => Ok(Some(key)),
            KeyAccess::Live(_) => {
                let message = format!(
                    "the key of tenant {} (version {}) is not the one that sealed this table: wrong keystore",
                    run.tenant, run.dek
                );
                Err(Error::new(ErrorKind::KeyRefused, message).at(&self.path))
            }
            KeyAccess::Destroyed => Ok(None),
            KeyAccess::Unknown => {
                let key = format_args!("a key of tenant {} (version {})", run.tenant, run.dek);
                Err(Error::corruption(
                    &self.path,
                    run.start,
                    "keystore",
                    key,
                    "no trace of it",
                ))
            }
        }
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

/// Loads the pieces of one run, by way of the cache. Asks for the key only when one must be decrypted.
pub(super) struct RunReader<'a> {
    table: &'a Table,
    run: Run,
    key: Option<Arc<FileKey>>,
}

impl<'a> RunReader<'a> {
    pub(super) fn new(table: &'a Table, run: Run) -> RunReader<'a> {
        RunReader {
            table,
            run,
            key: None,
        }
    }

    /// With a key that was fetched before.
    pub(super) fn with_key(table: &'a Table, run: Run, key: Arc<FileKey>) -> RunReader<'a> {
        RunReader {
            table,
            run,
            key: Some(key),
        }
    }

    fn key(&mut self) -> Result<Option<Arc<FileKey>>> {
        if self.key.is_none() {
            self.key = self.table.key(&self.run)?;
        }
        Ok(self.key.clone())
    }

    /// The head of the run: of its only section, or over its sections. None if the key is destroyed.
    pub(super) fn top(&mut self) -> Result<Option<Held>> {
        if let Some(top) = self.table.top.as_ref().and_then(|shelf| shelf.get(0)) {
            return Ok(Some(top));
        }
        Ok(self.load_top()?.map(Held::Own))
    }

    fn load_top(&mut self) -> Result<Option<Arc<Head>>> {
        let Run {
            start,
            head,
            filter_bytes,
            index_bytes,
            entries,
            range_deletes,
            ..
        } = self.run;
        let shown = self.table.top.as_ref().map(|shelf| (shelf, 0));
        let loaded = self.head(start..head, filter_bytes, index_bytes, entries, None, shown)?;
        match &loaded {
            Some(top) if top.index.level() == Level::Sections && filter_bytes != 0 => {
                Err(self
                    .table
                    .damage(head, "table index", Malformed("no filter over sections")))
            }
            Some(top) if top.index.range_delete_versions() != u64::from(range_deletes) => {
                let what = Malformed("as many range deletes as the directory says");
                Err(self.table.damage(head, "table index", what))
            }
            _ => Ok(loaded),
        }
    }

    /// The head of section `index` under `top`; None past the last, or if the key is destroyed.
    pub(super) fn section(&mut self, top: &Head, index: usize) -> Result<Option<Held>> {
        match top.sections().and_then(|shelf| shelf.get(index)) {
            Some(head) => Ok(Some(head)),
            None => Ok(self.load_section(top, index)?.map(Held::Own)),
        }
    }

    fn load_section(&mut self, top: &Head, index: usize) -> Result<Option<Arc<Head>>> {
        let (Some(span), Some(handle)) = (top.index.span(index), top.index.handle(index)) else {
            return Ok(None);
        };
        let offset = span.end;
        let before = index
            .checked_sub(1)
            .map_or(&[][..], |before| top.index.separator(before));
        let within = Some((before, top.index.separator(index)));
        let entries = u64::from(handle.entries);
        let shown = top.sections().map(|shelf| (shelf, index));
        let loaded = self.head(span, handle.filter_bytes, handle.bytes, entries, within, shown)?;
        match &loaded {
            Some(head) if head.index.level() != Level::Blocks || head.index.range_deletes().is_some() => {
                Err(self
                    .table
                    .damage(offset, "table index", Malformed("an index of blocks")))
            }
            _ => Ok(loaded),
        }
    }

    /// Where the head of section `index` is.
    #[cfg(test)]
    pub(super) fn section_offset(&self, top: &Head, index: usize) -> Option<u64> {
        top.index.span(index).map(|span| span.end)
    }

    /// Loads the filter and index at `span.end`, which cover the file bytes `span` and hold keys
    /// `within` two separators. It is shown in the place given, while the cache has it.
    fn head(
        &mut self,
        span: Range<u64>,
        filter_bytes: u32,
        index_bytes: u32,
        entries: u64,
        within: Option<(&[u8], &[u8])>,
        shown: Option<(&Shelf, usize)>,
    ) -> Result<Option<Arc<Head>>> {
        let (table, tenant) = (self.table, self.run.tenant);
        let offset = span.end;
        let at = (table.meta.number, offset);
        let is_live = || table.keys.is_live(tenant);
        let keep = |head: &Arc<Head>| {
            table.cache.keep_head(at, tenant, head, shown, is_live);
        };
        if let Some(kept) = table.cache.head(at.0, at.1) {
            let head = kept.head.clone();
            match shown {
                // The shelf it was shown on may have gone with the head over it.
                Some(here) if !kept.is_shown_on(here) => {
                    keep(&head);
                    self.forget_if_dead(offset);
                }
                // Two who loaded it at once may each have taken back what the other showed.
                Some((shelf, index)) if !shelf.shows(index, &head) => {
                    table.cache.show_head(at, &head, (shelf, index), is_live);
                }
                _ => {}
            }
            return Ok(Some(head));
        }
        let Some(key) = self.key()? else { return Ok(None) };
        let index_at = offset.saturating_add(u64::from(filter_bytes));
        let mut sealed = table.read(&(offset..index_at.saturating_add(u64::from(index_bytes))))?;
        let short = || table.damage(offset, "table index", Malformed("bytes inside the file"));
        let (filter, index) = sealed
            .split_at_mut_checked(filter_bytes as usize)
            .ok_or_else(short)?;
        let filter = if filter.is_empty() {
            None
        } else {
            let plain = table.open_piece(&key, &self.run, Piece::Filter, offset, filter)?;
            let plain = filter.get(plain).unwrap_or_default().to_vec();
            Some(Filter::decode(plain).map_err(|what| table.damage(offset, "table filter", what))?)
        };
        let plain = table.open_piece(&key, &self.run, Piece::Index, index_at, index)?;
        let plain = index.get(plain).unwrap_or_default().to_vec();
        let index = Index::decode(plain, span).map_err(|what| table.damage(index_at, "table index", what))?;
        if index.entries() != entries {
            return Err(table.damage(index_at, "table index", Malformed("the entries stated above it")));
        }
        if within.is_some_and(|(low, high)| index.first() < low || index.last() > high) {
            return Err(table.damage(index_at, "table index", Malformed("keys between separators")));
        }
        let head = Arc::new(Head::new(index, filter));
        keep(&head);
        self.forget_if_dead(offset);
        Ok(Some(head))
    }

    /// Block `index` of the section under `head`; None past the last, or if the key is destroyed.
    pub(super) fn block(&mut self, head: &Head, index: usize) -> Result<Option<Arc<Block>>> {
        if let Some(block) = self.cached_block(head, index) {
            return Ok(Some(block));
        }
        let Some(handle) = head.index.handle(index) else {
            return Ok(None);
        };
        let Some(key) = self.key()? else { return Ok(None) };
        let end = handle.offset.saturating_add(u64::from(handle.bytes));
        let sealed = self
            .table
            .read_with_room(&(handle.offset..end), |len| room(len, handle.entries))?;
        let block = self.decode(&key, head, index, sealed)?;
        self.keep(head, index, &block);
        Ok(Some(block))
    }

    /// Block `index` of the section under `head`, if the cache has it.
    pub(super) fn cached_block(&self, head: &Head, index: usize) -> Option<Arc<Block>> {
        let slot = head.block(index)?;
        if let Some(block) = slot.get() {
            return Some(block);
        }
        let offset = head.index.handle(index)?.offset;
        let block = self.table.cache.block(self.table.meta.number, offset)?;
        slot.set(&block);
        Some(block)
    }

    /// Decrypts and checks block `index` of the section under `head`, where it lies. `sealed` should have
    /// [`room`].
    pub(super) fn decode(
        &self,
        key: &FileKey,
        head: &Head,
        index: usize,
        mut sealed: Vec<u8>,
    ) -> Result<Arc<Block>> {
        let table = self.table;
        let Some(handle) = head.index.handle(index) else {
            return Err(table.damage(self.run.head, "table index", Malformed("a further block")));
        };
        let damage = |what| table.damage(handle.offset, "table block", what);
        let plain = table.open_piece(key, &self.run, Piece::Block, handle.offset, &mut sealed)?;
        let block = Block::decode(sealed, plain).map_err(damage)?;
        if block.len() as u64 != u64::from(handle.entries) {
            return Err(damage(Malformed("the entries stated by the index")));
        }
        let after = index
            .checked_sub(1)
            .map_or(&[][..], |before| head.index.separator(before));
        let bounds = (head.index.first(), head.index.last());
        let (first, last) = (block.key(0), block.key(block.len() - 1));
        let inside = after <= first && last <= head.index.separator(index);
        if !inside || first < bounds.0.as_ref() || last > bounds.1.as_ref() {
            return Err(damage(Malformed("keys between the index's separators")));
        }
        Ok(Arc::new(block))
    }

    /// A key may be destroyed, and the cache purged, between decrypting a piece and keeping it.
    fn forget_if_dead(&self, offset: u64) {
        if !self.table.keys.is_live(self.run.tenant) {
            self.table.cache.forget(self.table.meta.number, offset);
        }
    }

    /// Keeps block `index` of the section under `head`.
    pub(super) fn keep(&self, head: &Head, index: usize, block: &Arc<Block>) {
        let Some(handle) = head.index.handle(index) else {
            return;
        };
        let cache = &self.table.cache;
        cache.keep_block(self.table.meta.number, handle.offset, self.run.tenant, block);
        if let Some(slot) = head.block(index) {
            slot.set(block);
        }
        self.forget_if_dead(handle.offset);
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
