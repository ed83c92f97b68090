//! The range deletes of a run: at the end of the index over it, so that they are read and kept with it.
//!
//! ```text
//!  0  4  fragments  1 ..
//! then per fragment, ascending:
//!     2  length of the tree key at which it starts, then the key
//!     2  length of the tree key before which it ends, then the key
//!     4  versions   1 ..
//!   8 ×  seqno      descending
//! ```
//!
//! Valid if and only if: they fill the rest of the index exactly; fragments are not empty and do not overlap; both
//! ends lie in one keyspace; versions descend strictly.
//!
//! A run of range deletes alone has no block, and an index without parts.

use std::sync::Arc;

use bytes::Bytes;

use super::cache::Head;
use super::format::{Fields, Malformed, Run};
use super::reader::Table;
use super::run_reader::RunReader;
use crate::error::Result;
use crate::hooks::planted;
use crate::range_delete::{Fragment, Fragments, Seqnos, is_range};
use crate::types::{SeqNo, TenantId};

/// Smallest encoding of a fragment.
const FRAGMENT_BYTES: usize = 2 + 4 + 2 + 4 + 4 + 8;

/// Encoded length of a fragment.
pub(super) fn encoded_len(fragment: &Fragment) -> usize {
    2 + fragment.start.len() + 2 + fragment.end.len() + 4 + 8 * fragment.seqnos.len()
}

/// Appends the fragments; ends are at most 16 KiB and 5 bytes.
pub(super) fn encode(fragments: &[Fragment], out: &mut Vec<u8>) {
    out.extend_from_slice(&(fragments.len() as u32).to_le_bytes());
    for fragment in fragments {
        for key in [&fragment.start, &fragment.end] {
            out.extend_from_slice(&(key.len() as u16).to_le_bytes());
            out.extend_from_slice(key);
        }
        out.extend_from_slice(&(fragment.seqnos.len() as u32).to_le_bytes());
        for seqno in &fragment.seqnos {
            out.extend_from_slice(&seqno.0.to_le_bytes());
        }
    }
}

/// Decodes and checks all of `plain`; keys are slices of it. Allocates at most six times its length.
pub(super) fn decode(plain: &Bytes) -> std::result::Result<Fragments, Malformed> {
    let short = Malformed("range deletes that fill the index");
    let mut fields = Fields(plain);
    let count = fields.u32().ok_or(short)? as usize;
    if count == 0 || count > fields.0.len() / FRAGMENT_BYTES {
        return Err(short);
    }
    let mut fragments = Vec::with_capacity(count);
    for _ in 0..count {
        let mut key = || {
            let len = usize::from(fields.u16()?);
            fields.take(len).map(|key| plain.slice_ref(key))
        };
        let (start, end) = (key().ok_or(short)?, key().ok_or(short)?);
        let versions = fields.u32().ok_or(short)? as usize;
        if !is_range(&start, &end) {
            return Err(Malformed("a range of one keyspace"));
        }
        if versions > fields.0.len() / 8 {
            return Err(short);
        }
        let mut seqnos = Seqnos::with_capacity(versions);
        for _ in 0..versions {
            seqnos.push(SeqNo(fields.u64().ok_or(short)?));
        }
        fragments.push(Fragment { start, end, seqnos });
    }
    if !fields.0.is_empty() {
        return Err(short);
    }
    Fragments::in_order(fragments).ok_or(Malformed("range deletes in order"))
}

/// See [`Table::span`].
pub(super) fn span_under(top: &Head, run: &Run) -> (Bytes, Bytes) {
    let deletes = deletes_that_count(top);
    if run.entries == 0 {
        let none = (Bytes::new(), Bytes::new());
        return deletes.map_or(none, |(start, end)| (start.clone(), end.clone()));
    }
    let first = top.index.first();
    let end = Bytes::from([top.index.last_key(), &[0]].concat());
    match deletes {
        Some((start, last)) => (first.min(start.clone()), end.max(last.clone())),
        None => (first, end),
    }
}

fn deletes_that_count(top: &Head) -> Option<(&Bytes, &Bytes)> {
    let deletes = top.index.range_deletes()?;
    if planted!(SpanOfEntriesAlone) && top.index.len() > 0 {
        return None;
    }
    deletes.span()
}

impl Table {
    /// The range deletes of `tenant`. None if it has none here, or its key is destroyed.
    pub(crate) fn range_deletes(&self, tenant: TenantId) -> Result<Option<Arc<Fragments>>> {
        if !self.deletes_ranges() {
            return Ok(None);
        }
        let Some(run) = self.find(tenant).filter(|run| run.range_deletes > 0) else {
            return Ok(None);
        };
        let top = RunReader::new(self, run).top()?;
        Ok(top.and_then(|top| top.index.range_deletes().cloned()))
    }

    /// Whether there are any of `tenant`.
    pub(crate) fn deletes_ranges_of(&self, tenant: TenantId) -> bool {
        self.deletes_ranges() && self.find(tenant).is_some_and(|run| run.range_deletes > 0)
    }

    /// The newest range delete of `key` (a tree key) at or below `at`.
    pub(crate) fn deleted(&self, tenant: TenantId, key: &[u8], at: SeqNo) -> Result<Option<SeqNo>> {
        let fragments = self.range_deletes(tenant)?;
        Ok(fragments.and_then(|fragments| fragments.newest(key, at)))
    }

    /// What of the tree `tenant`'s entries and range deletes here speak of: from the first key up to where none
    /// follows, exclusive. None if it has none here, or its key is destroyed.
    pub(crate) fn span(&self, tenant: TenantId) -> Result<Option<(Bytes, Bytes)>> {
        let Some(run) = self.find(tenant) else {
            return Ok(None);
        };
        let top = RunReader::new(self, run).top()?;
        Ok(top.map(|top| span_under(&top, &run)))
    }

    /// Whether all that `tenant` has here ends before `key`. So it does if that is nothing, or its key is destroyed.
    pub(crate) fn ends_before(&self, tenant: TenantId, key: &[u8]) -> Result<bool> {
        let Some(run) = self.find(tenant) else {
            return Ok(true);
        };
        let Some(top) = RunReader::new(self, run).top()? else {
            return Ok(true);
        };
        let deletes = deletes_that_count(&top);
        Ok(top.index.last_key() < key && deletes.is_none_or(|(_, end)| end <= key))
    }
}
