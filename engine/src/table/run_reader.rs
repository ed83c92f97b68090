//! The pieces of one tenant's run of a table: heads and blocks, found shown, in the cache, or in the file.
//!
//! Invariants: as of the table (`reader`): what comes from the file is verified and compared with what stands above it
//! before anybody sees it; what was decrypted while its tenant's key was destroyed does not stay in the cache.

use std::ops::Range;
use std::sync::Arc;

use super::block::{Block, Looked, room, walk};
use super::cache::Head;
use super::filter::Filter;
use super::format::{Malformed, Run};
use super::index::{Handle, Index, Level};
use super::reader::Table;
use super::shown::{Held, Shelf};
use crate::error::Result;
use crate::hooks::rare;
use crate::seal::{FileKey, Piece};
use crate::types::SeqNo;

/// Loads the pieces of one run, by way of the cache. Asks for the key only when one must be decrypted.
pub(super) struct RunReader<'a> {
    table: &'a Table,
    run: Run,
    key: Option<Arc<FileKey>>,
    /// Somebody's read, which counts.
    counts: bool,
}

impl<'a> RunReader<'a> {
    pub(super) fn new(table: &'a Table, run: Run) -> RunReader<'a> {
        RunReader {
            table,
            run,
            key: None,
            counts: true,
        }
    }

    /// For work that is nobody's read.
    pub(super) fn uncounted(self) -> RunReader<'a> {
        RunReader {
            counts: false,
            ..self
        }
    }

    /// With a key that was fetched before.
    pub(super) fn with_key(table: &'a Table, run: Run, key: Option<Arc<FileKey>>) -> RunReader<'a> {
        RunReader {
            key,
            ..RunReader::new(table, run)
        }
    }

    /// The key, if it was needed.
    pub(super) fn into_key(self) -> Option<Arc<FileKey>> {
        self.key
    }

    fn key(&mut self) -> Result<Option<Arc<FileKey>>> {
        if self.key.is_none() {
            self.key = self.table.key(&self.run)?;
        }
        Ok(self.key.clone())
    }

    /// The head of the run: of its only section, or over its sections. None if the key is destroyed.
    #[inline(always)]
    pub(super) fn top(&mut self) -> Result<Option<Held>> {
        let place = self.table.top_place(self.run.tenant);
        if let Some(top) = self.table.top.get(place) {
            return Ok(Some(top));
        }
        Ok(self.load_top()?.map(Held::Own))
    }

    #[cold]
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
        let shown = (&self.table.top, self.table.top_place(self.run.tenant));
        let loaded = self.head(start..head, filter_bytes, index_bytes, entries, None, Some(shown))?;
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
    #[inline(always)]
    pub(super) fn section(&mut self, top: &Head, index: usize) -> Result<Option<Held>> {
        match top.sections().and_then(|shelf| shelf.get(index)) {
            Some(head) => Ok(Some(head)),
            None => Ok(self.load_section(top, index)?.map(Held::Own)),
        }
    }

    #[cold]
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
        self.count_read(u64::from(filter_bytes) + u64::from(index_bytes));
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
        let memory = &table.cache.memory;
        let filter = filter.map(|filter| filter.kept_in(memory));
        let head = Arc::new(Head::new(index.kept_in(memory), filter));
        keep(&head);
        self.forget_if_dead(offset);
        Ok(Some(head))
    }

    /// Block `index` of the section under `head`; None past the last, or if the key is destroyed.
    pub(super) fn block(&mut self, head: &Head, index: usize) -> Result<Option<Arc<Block>>> {
        if let Some(block) = self.cached_block(head, index) {
            return Ok(Some(block));
        }
        let Some((key, handle)) = self.needed(head, index)? else {
            return Ok(None);
        };
        let block = self.load(&key, head, index, &handle)?;
        Ok(Some(self.keep_if_asked_for_again(head, index, block)))
    }

    /// The first version of `key` at or below `at` in block `index` of the section under `head`; None past the last
    /// block, or if the key is destroyed. `missing`: the cache was asked a moment ago, and has no such block.
    pub(super) fn look(
        &mut self,
        head: &Head,
        index: usize,
        (key, at): (&[u8], SeqNo),
        missing: bool,
    ) -> Result<Option<Looked>> {
        let looked = match missing {
            true => None,
            false => self.look_at_hand(head, index, key, at),
        };
        if looked.is_some() {
            return Ok(looked);
        }
        let Some((file_key, handle)) = self.needed(head, index)? else {
            return Ok(None);
        };
        if self.is_asked_for_again(handle.offset) {
            let block = self.load(&file_key, head, index, &handle)?;
            let block = self.keep(head, index, block);
            return Ok(Some(block.look(key, at)));
        }
        rare!(BlockWalkedThrough);
        let table = self.table;
        let mut sealed = self.sealed(&handle, |_| 0)?;
        let plain = table.open_piece(&file_key, &self.run, Piece::Block, handle.offset, &mut sealed)?;
        let damage = |what| table.damage(handle.offset, "table block", what);
        let (looked, entries) = walk(sealed, plain, key, at).map_err(damage)?;
        if entries != handle.entries {
            return Err(damage(Malformed("the entries stated by the index")));
        }
        Ok(Some(looked))
    }

    /// The same, if the cache has the block. Whoever finds the key there is spared the filter, whose line of memory is as
    /// far away as any of the block's.
    pub(super) fn look_at_hand(&self, head: &Head, index: usize, key: &[u8], at: SeqNo) -> Option<Looked> {
        self.cached_block(head, index).map(|block| block.look(key, at))
    }

    /// What it takes to read block `index` of the section under `head`; None past the last, or if the key is
    /// destroyed.
    fn needed(&mut self, head: &Head, index: usize) -> Result<Option<(Arc<FileKey>, Handle)>> {
        let Some(handle) = head.index.handle(index) else {
            return Ok(None);
        };
        Ok(self.key()?.map(|key| (key, handle)))
    }

    /// Reads block `index`, which `handle` names, and decodes it.
    fn load(&self, key: &FileKey, head: &Head, index: usize, handle: &Handle) -> Result<Block> {
        let sealed = self.sealed(handle, |len| room(len, handle.entries))?;
        self.decode(key, head, index, sealed)
    }

    fn sealed(&self, handle: &Handle, room: impl FnOnce(usize) -> usize) -> Result<Vec<u8>> {
        let end = handle.offset.saturating_add(u64::from(handle.bytes));
        self.count_read(u64::from(handle.bytes));
        self.table.read_with_room(&(handle.offset..end), room)
    }

    /// Block `index` of the section under `head`, out of its sealed bytes: as [`decode`](RunReader::decode); None if the
    /// key is destroyed.
    pub(super) fn decode_block(
        &mut self,
        head: &Head,
        index: usize,
        sealed: Vec<u8>,
    ) -> Result<Option<Block>> {
        let Some(key) = self.key()? else { return Ok(None) };
        self.decode(&key, head, index, sealed).map(Some)
    }

    /// Counts bytes that were read for a piece which the cache did not have.
    pub(super) fn count_read(&self, bytes: u64) {
        if self.counts {
            self.table.cache.count_read(bytes);
        }
    }

    /// Whether a block that is not in the cache is worth a place there.
    fn is_asked_for_again(&self, offset: u64) -> bool {
        self.table
            .cache
            .is_asked_for_again(self.table.meta.number, offset)
    }

    /// Keeps a block that was read, if it is worth it.
    pub(super) fn keep_if_asked_for_again(&self, head: &Head, index: usize, block: Block) -> Arc<Block> {
        let handle = head.index.handle(index);
        match handle.is_some_and(|handle| self.is_asked_for_again(handle.offset)) {
            true => self.keep(head, index, block),
            false => Arc::new(block),
        }
    }

    /// Block `index` of the section under `head`, if the cache has it.
    pub(super) fn cached_block(&self, head: &Head, index: usize) -> Option<Arc<Block>> {
        if let Some(block) = head.block(index, &self.table.cache) {
            return Some(block);
        }
        let offset = head.index.handle(index)?.offset;
        let block = self.table.cache.block(self.table.meta.number, offset)?;
        head.remember(index, &block);
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
    ) -> Result<Block> {
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
        Ok(block)
    }

    /// A key may be destroyed, and the cache purged, between decrypting a piece and keeping it.
    fn forget_if_dead(&self, offset: u64) {
        if !self.table.keys.is_live(self.run.tenant) {
            self.table.cache.forget(self.table.meta.number, offset);
        }
    }

    /// Brings block `index` of the section under `head` into the cache, as one that was asked for there; false if it is there,
    /// and if the key is destroyed. It has no shortcut before a reader finds it.
    pub(super) fn take_in(&mut self, head: &Head, index: usize) -> Result<bool> {
        let Some((key, handle)) = self.needed(head, index)? else {
            return Ok(false);
        };
        let asked = || self.table.cache.block(self.table.meta.number, handle.offset);
        if asked().is_some() {
            return Ok(false);
        }
        let block = self.load(&key, head, index, &handle)?;
        self.insert(&handle, block);
        // A block that is asked for again stays longer than one that just came.
        let _ = asked();
        Ok(true)
    }

    /// Keeps block `index` of the section under `head`.
    fn keep(&self, head: &Head, index: usize, block: Block) -> Arc<Block> {
        let Some(handle) = head.index.handle(index) else {
            return Arc::new(block);
        };
        let block = self.insert(&handle, block);
        head.remember(index, &block);
        block
    }

    fn insert(&self, handle: &Handle, block: Block) -> Arc<Block> {
        let cache = &self.table.cache;
        let block = Arc::new(block.kept_in(&cache.memory));
        cache.keep_block(self.table.meta.number, handle.offset, self.run.tenant, &block);
        self.forget_if_dead(handle.offset);
        block
    }
}
