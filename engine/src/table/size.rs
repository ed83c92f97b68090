//! How much of a table lies in a range of keys, and where, told by indexes alone.

use bytes::Bytes;

use super::cache::Head;
use super::index::{Index, Level};
use super::reader::Table;
use super::run_reader::RunReader;
use crate::error::Result;
use crate::types::TenantId;

/// Versions and sealed bytes of data blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Share {
    pub entries: u64,
    pub bytes: u64,
}

impl Share {
    fn add(&mut self, entries: u64, bytes: u64) {
        self.entries += entries;
        self.bytes += bytes;
    }
}

/// Tree keys: `lower` inclusive, `upper` exclusive; None is the tenant's end.
#[derive(Clone, Copy)]
pub(crate) struct KeyRange<'a> {
    pub lower: &'a [u8],
    pub upper: Option<&'a [u8]>,
}

impl KeyRange<'_> {
    /// All of a tenant.
    pub(crate) const ALL: KeyRange<'static> = KeyRange {
        lower: &[],
        upper: None,
    };

    /// Whether `key` lies behind it.
    pub(crate) fn ends_at_or_before(&self, key: &[u8]) -> bool {
        self.upper.is_some_and(|upper| upper <= key)
    }

    /// Parts of `index` that may hold keys of the range, and for each whether all its keys are.
    fn parts<'a>(&'a self, index: &'a Index) -> impl Iterator<Item = (usize, bool)> + 'a {
        let nothing = self.ends_at_or_before(&index.first());
        let start = if nothing {
            index.len()
        } else {
            index.find(self.lower)
        };
        let parts = (start..index.len())
            .take_while(move |part| *part == start || !self.ends_at_or_before(index.separator(part - 1)));
        parts.map(move |part| {
            // Keys of a part are at or above the separator before it, and at or below its own.
            let from_lower = match part.checked_sub(1) {
                Some(before) => index.separator(before) >= self.lower,
                None => index.first() >= self.lower,
            };
            (part, from_lower && !self.ends_at_or_before(index.separator(part)))
        })
    }
}

impl Table {
    /// What of `tenant` may lie in the range: never too little, and at most two blocks too much. Nothing if its
    /// key is destroyed. Reads the top of the tenant's index, and those of the two sections at the edges.
    pub(crate) fn share(&self, tenant: TenantId, range: KeyRange<'_>) -> Result<Share> {
        let mut share = Share::default();
        let Some(run) = self.find(tenant) else {
            return Ok(share);
        };
        let mut reader = RunReader::new(self, run);
        let Some(top) = reader.top()? else {
            return Ok(share);
        };
        if top.index.level() == Level::Blocks {
            add_blocks(&mut share, &top, range);
            return Ok(share);
        }
        for (section, whole) in range.parts(&top.index) {
            if !whole {
                if let Some(head) = reader.section(&top, section)? {
                    add_blocks(&mut share, &head, range);
                }
            } else if let (Some(span), Some(handle)) = (top.index.span(section), top.index.handle(section)) {
                share.add(u64::from(handle.entries), span.end - span.start);
            }
        }
        Ok(share)
    }

    /// Sealed bytes of `tenant`'s data blocks in pieces of about `grain`: each with a tree key up to which it reaches, from
    /// that of the one before on. The first is empty, at the first key. Nothing if the tenant's key is destroyed. Reads the
    /// top of the tenant's index, and of those below it what is over more than a piece.
    pub(crate) fn pieces(&self, tenant: TenantId, grain: u64) -> Result<Vec<(Bytes, u64)>> {
        let mut pieces = Vec::new();
        let Some(run) = self.find(tenant) else {
            return Ok(pieces);
        };
        let mut reader = RunReader::new(self, run);
        let Some(top) = reader.top()? else {
            return Ok(pieces);
        };
        pieces.push((top.index.first(), 0));
        let mut piece = 0u64;
        let mut add = |bytes: u64, separator: &[u8]| {
            piece += bytes;
            if piece >= grain {
                pieces.push((Bytes::copy_from_slice(separator), std::mem::take(&mut piece)));
            }
        };
        for part in 0..top.index.len() {
            if top.index.level() == Level::Blocks {
                add(block_bytes(&top.index, part), top.index.separator(part));
                continue;
            }
            let whole = top.index.span(part).map_or(0, |span| span.end - span.start);
            let section = match whole > grain {
                true => reader.section(&top, part)?,
                false => None,
            };
            match section {
                Some(head) => (0..head.index.len())
                    .for_each(|part| add(block_bytes(&head.index, part), head.index.separator(part))),
                None => add(whole, top.index.separator(part)),
            }
        }
        pieces.push((Bytes::from([top.index.last_key(), &[0]].concat()), piece));
        Ok(pieces)
    }
}

fn block_bytes(index: &Index, block: usize) -> u64 {
    index.handle(block).map_or(0, |handle| u64::from(handle.bytes))
}

fn add_blocks(share: &mut Share, head: &Head, range: KeyRange<'_>) {
    for (part, _) in range.parts(&head.index) {
        if let Some(handle) = head.index.handle(part) {
            share.add(u64::from(handle.entries), u64::from(handle.bytes));
        }
    }
}
