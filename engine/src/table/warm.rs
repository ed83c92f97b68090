//! What the cache holds of a table, for who replaces the table: by which keys, brought in for others, let go.
//!
//! A compaction writes what readers have in the cache to another place, under which nobody finds it there: without more,
//! the reads that come next would all go to the file. So it asks the tables that it replaces which blocks the
//! cache has, and brings in the blocks of the new ones that lie over them (`compaction::warm`). RocksDB can keep what
//! a flush writes (`prepopulate_block_cache`); here it is what was in use that is kept.
//!
//! Asking is done by the shortcuts of heads that are in the cache (`slot`): no lookup for a block. And a block that was brought
//! in has no shortcut before a reader finds it: what nobody reads any more is brought in once, not by every compaction
//! after that.

use super::cache::Head;
use super::format::Run;
use super::index::Level;
use super::reader::Table;
use super::run_reader::RunReader;
use crate::error::Result;
use crate::hooks::rare;
use crate::types::TenantId;

impl Table {
    /// Calls `visit` with every stretch of keys that the cache has: tenant by tenant, and in each ascending, the first
    /// key that may be there and the last.
    pub(crate) fn cached(&self, mut visit: impl FnMut(TenantId, &[u8], &[u8])) {
        let mut first = Vec::new();
        for run in self.runs() {
            self.walk_cached_heads(&run, |head, _| {
                for part in (0..head.index.len()).filter(|part| head.has_at_hand(*part)) {
                    first.clear();
                    match part.checked_sub(1) {
                        // The least key behind it.
                        Some(before) => {
                            first.extend_from_slice(head.index.separator(before));
                            first.push(0);
                        }
                        None => first.extend_from_slice(&head.index.first()),
                    }
                    visit(run.tenant, &first, head.index.separator(part));
                }
            });
        }
    }

    /// Has the cache take, as blocks that are in use, those with keys of `tenant` from `from` to `to`, unless it has
    /// them. How many it took. What it costs: a read and a block decoded for each.
    ///
    /// - Errors: as of [`get`](Table::get).
    pub(crate) fn warm(&self, tenant: TenantId, from: &[u8], to: &[u8]) -> Result<u64> {
        let Some(run) = self.find(tenant) else {
            return Ok(0);
        };
        let mut reader = RunReader::new(self, run).uncounted();
        let Some(top) = reader.top()? else { return Ok(0) };
        let mut taken = 0;
        if top.index.level() == Level::Blocks {
            warm_under(&mut reader, &top, from, to, &mut taken)?;
            return Ok(taken);
        }
        for section in top.index.find(from)..top.index.len() {
            let Some(head) = reader.section(&top, section)? else {
                break;
            };
            if !warm_under(&mut reader, &head, from, to, &mut taken)? {
                break;
            }
        }
        Ok(taken)
    }

    /// Has the cache let go of what it has of this table, as far as its heads there tell. Who still reads it reads the file,
    /// and may bring back what it reads.
    pub(crate) fn let_go(&self) {
        let number = self.meta().number;
        for run in self.runs() {
            self.walk_cached_heads(&run, |head, offset| {
                rare!(CacheLetGoOfReplaced);
                if head.index.level() == Level::Blocks {
                    let blocks = (0..head.index.len()).filter_map(|part| head.index.handle(part));
                    blocks.for_each(|handle| self.cache.forget(number, handle.offset));
                }
                self.cache.forget(number, offset);
            });
        }
    }

    /// Visits the heads of a run that the cache has, with their offsets, that of the run last.
    fn walk_cached_heads(&self, run: &Run, mut visit: impl FnMut(&Head, u64)) {
        let cached = |offset: u64| self.cache.peek_head(self.meta().number, offset);
        let Some(top) = cached(run.head) else { return };
        if top.index.level() == Level::Sections {
            let ends = (0..top.index.len()).filter_map(|section| top.index.span(section));
            for offset in ends.map(|span| span.end) {
                if let Some(head) = cached(offset) {
                    visit(&head, offset);
                }
            }
        }
        visit(&top, run.head);
    }
}

/// The blocks under one head; whether keys up to `to` may go on under the next.
fn warm_under(
    reader: &mut RunReader<'_>,
    head: &Head,
    from: &[u8],
    to: &[u8],
    taken: &mut u64,
) -> Result<bool> {
    for part in head.index.find(from)..head.index.len() {
        if !head.has_at_hand(part) && reader.take_in(head, part)? {
            *taken += 1;
        }
        if head.index.separator(part) >= to {
            return Ok(false);
        }
    }
    Ok(true)
}
