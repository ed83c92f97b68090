//! Reading a whole table, past the cache, to check every piece of it.
//!
//! Of each tenant whose key lives: that every piece opens under its key and decodes, that blocks ascend and
//! lie between their index's separators, that entries are as many as the levels above say, that the filter
//! knows every key, that values apart from it open, that range deletes are in order, and that the run's counts and versions are those of its record. A damaged piece is told
//! and left out; what cannot be found without it (a section without its index) is left out with it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::block::Block;
use super::cache::Head;
use super::filter;
use super::format::{Malformed, Run};
use super::index::Level;
use super::range_deletes::span_under;
use super::reader::Table;
use super::run_reader::RunReader;
use super::shown::Held;
use super::values::{Owner, Reference, ValueFile};
use crate::error::{Error, Result};
use crate::expiry;
use crate::hooks::planted;
use crate::read::cursor::{EntryKind, EntryRef, internal_order};
use crate::seal::FileKey;
use crate::types::{SeqNo, TenantId};

/// Bytes read at a time; a larger block is read alone.
const WINDOW_BYTES: u64 = 256 << 10;

/// What was checked.
#[derive(Default)]
pub(crate) struct Checked {
    /// Data blocks that opened and hold what they should.
    pub blocks: u64,
    /// Versions in them.
    pub entries: u64,
    /// Values apart that opened.
    pub values: u64,
    /// Tenants whose keys are destroyed, and their part therefore unread.
    pub skipped: u64,
    /// First key of the first tenant, and where the last one ends, if those live: copies. See [`Table::span`].
    pub first: Option<Bytes>,
    /// See `first`.
    pub end: Option<Bytes>,
    /// Sealed bytes that were referred to, by value file.
    refers: BTreeMap<u64, u64>,
    /// A piece was left out.
    partial: bool,
}

/// Value files that could be opened, by number.
pub(crate) type ValueFiles = BTreeMap<u64, Arc<ValueFile>>;

/// One run, walked.
struct Walk<'a> {
    tenant: TenantId,
    values: &'a ValueFiles,
    key: Arc<FileKey>,
    head: Arc<Head>,
    checked: &'a mut Checked,
    found: &'a mut dyn FnMut(Error),
    /// The entry before, to compare the next with.
    before: Option<(Bytes, SeqNo)>,
    entries: u64,
    deletes: u64,
    versions: Option<(SeqNo, SeqNo)>,
    /// As in the directory.
    expires: u32,
    /// No piece was left out.
    whole: bool,
}

impl Table {
    /// Checks everything; each damage goes to `found`. The table must have been opened for this, with a cache
    /// that is turned off. Memory: one section's index and filter, and one window of blocks.
    pub(crate) fn verify(&self, values: &ValueFiles, found: &mut dyn FnMut(Error)) -> Checked {
        let mut checked = Checked::default();
        let (first, last) = (self.meta().tenant_min, self.meta().tenant_max);
        for run in self.runs() {
            match self.verify_run(run, values, &mut checked, found) {
                Ok(Some((low, high))) => {
                    if run.tenant == first {
                        checked.first = Some(low);
                    }
                    if run.tenant == last {
                        checked.end = Some(high);
                    }
                }
                Ok(None) => checked.skipped += 1,
                Err(e) => {
                    checked.partial = true;
                    found(e);
                }
            }
        }
        let stated = self.meta().values.iter().copied();
        if !checked.partial && checked.skipped == 0 && !stated.eq(std::mem::take(&mut checked.refers)) {
            let what = Malformed("the references to value files that the manifest knows");
            found(self.damage(0, "table", what));
        }
        checked
    }

    /// First key, and where the run ends, by its index; None if the tenant's key is destroyed. An error ends the run.
    fn verify_run(
        &self,
        run: Run,
        values: &ValueFiles,
        checked: &mut Checked,
        found: &mut dyn FnMut(Error),
    ) -> Result<Option<(Bytes, Bytes)>> {
        let Some(key) = self.key(&run)? else {
            return Ok(None);
        };
        let mut reader = RunReader::with_key(self, run, Some(key.clone()));
        let Some(top) = reader.top()?.map(Held::into_arc) else {
            return Ok(None);
        };
        let mut walk = Walk {
            tenant: run.tenant,
            values,
            key,
            head: top.clone(),
            checked,
            found,
            before: None,
            entries: 0,
            deletes: 0,
            versions: None,
            expires: 0,
            whole: true,
        };
        match top.index.level() {
            Level::Blocks => walk.section(self, &reader),
            Level::Sections => {
                for section in 0..top.index.len() {
                    match reader.section(&top, section) {
                        Ok(Some(head)) => {
                            walk.head = head.into_arc();
                            walk.section(self, &reader);
                        }
                        Ok(None) => walk.whole = false,
                        Err(e) => walk.damaged(e),
                    }
                }
            }
        }
        // A retention, which only its writer knew, may end something earlier.
        let earlier = self.known() > SeqNo::ZERO && run.expires > 0;
        let expires = match earlier && (walk.expires == 0 || run.expires < walk.expires) {
            true => run.expires,
            false => walk.expires,
        };
        // The index was compared with the directory when it was read; of its range deletes versions are left.
        let deleted = top.index.range_deletes().and_then(|deletes| deletes.extremes());
        for seqno in deleted.into_iter().flat_map(|(oldest, newest)| [oldest, newest]) {
            walk.version(seqno);
        }
        // A directory counts no more deletes.
        let deletes = walk.deletes.min(u64::from(u32::MAX));
        let counted = (walk.entries, deletes, walk.versions, expires);
        let versions = Some((run.seqno_min, run.seqno_max));
        let stated = (run.entries, run.deletes, versions, run.expires);
        if walk.whole && counted != stated {
            let what = Malformed("the entries, deletes, versions and expiry of its record in the directory");
            walk.damaged(self.damage(run.start, "run of a tenant", what));
        }
        let copy = |key: Bytes| Bytes::copy_from_slice(&key);
        let (first, end) = span_under(&top, &run);
        Ok(Some((copy(first), copy(end))))
    }
}

impl Walk<'_> {
    fn version(&mut self, seqno: SeqNo) {
        let (low, high) = self.versions.unwrap_or((seqno, seqno));
        self.versions = Some((low.min(seqno), high.max(seqno)));
    }

    fn damaged(&mut self, e: Error) {
        self.whole = false;
        self.checked.partial = true;
        (self.found)(e);
    }

    /// The value that stands apart from `entry`. What its file lacks of itself was told when that was opened.
    fn value(&mut self, table: &Table, offset: u64, entry: EntryRef<'_>) {
        let Some(reference) = Reference::decode(entry.value) else {
            return;
        };
        *self.checked.refers.entry(reference.file).or_default() += u64::from(reference.bytes);
        let Some(file) = self.values.get(&reference.file) else {
            if !table
                .meta()
                .values
                .iter()
                .any(|(file, _)| *file == reference.file)
            {
                let what = Malformed("references to value files that the manifest knows");
                self.damaged(table.damage(offset, "table block", what));
            }
            return;
        };
        let owner = Owner {
            tenant: self.tenant,
            key: entry.key,
            seqno: entry.seqno,
        };
        match file.read(owner, &reference) {
            Ok(Some(_)) => self.checked.values += 1,
            Ok(None) => {}
            // The table itself is whole.
            Err(e) => (self.found)(e),
        }
    }

    /// All blocks under `head`, in windows of neighbours.
    fn section(&mut self, table: &Table, reader: &RunReader<'_>) {
        let head = self.head.clone();
        let span = |part: usize| {
            let handle = head.index.handle(part)?;
            Some(handle.offset..handle.end()?)
        };
        let mut part = 0;
        while let Some(first) = span(part).filter(|_| !planted!(VerifySkipsBlocks)) {
            let (mut window, mut until) = (first.clone(), part + 1);
            while let Some(next) = span(until).filter(|next| next.end - first.start <= WINDOW_BYTES) {
                window.end = next.end;
                until += 1;
            }
            let bytes = table.read(&window);
            for at in part..until {
                let Some(span) = span(at) else { continue };
                let block = match &bytes {
                    Ok(bytes) => self.decode(reader, at, slice(bytes, &window, &span).to_vec()),
                    // One that cannot be read must not hide its neighbours.
                    Err(_) => table.read(&span).and_then(|bytes| self.decode(reader, at, bytes)),
                };
                match block {
                    Ok(block) => self.block(table, span.start, &block),
                    Err(e) => self.damaged(e),
                }
            }
            part = until;
        }
    }

    fn decode(&self, reader: &RunReader<'_>, part: usize, sealed: Vec<u8>) -> Result<Block> {
        reader.decode(&self.key, &self.head, part, sealed)
    }

    /// A block that verified by itself: does it follow the one before it, does the filter know its keys.
    fn block(&mut self, table: &Table, offset: u64, block: &Block) {
        self.checked.blocks += 1;
        for index in 0..block.len() {
            let Some(parts) = block.parts(index) else { continue };
            let entry = block.view(&parts);
            self.checked.entries += 1;
            self.entries += 1;
            self.deletes += u64::from(entry.kind == EntryKind::Delete);
            self.version(entry.seqno);
            if entry.kind == EntryKind::Separated && !planted!(VerifySkipsValues) {
                self.value(table, offset, entry);
            }
            if let Some(at) = expiry::expires(entry.kind, entry.value).map(expiry::seconds) {
                self.expires = if self.expires == 0 {
                    at
                } else {
                    self.expires.min(at)
                };
            }
            let ascends = index > 0
                || self
                    .before
                    .as_ref()
                    .is_none_or(|(key, seqno)| internal_order(key, *seqno, entry.key, entry.seqno).is_lt());
            if !ascends {
                let what = Malformed("entries above those of the block before");
                self.damaged(table.damage(offset, "table block", what));
            }
            let known = self
                .head
                .filter
                .as_ref()
                .is_none_or(|filter| filter.may_hold(filter::hash(entry.key, table.filter_seed())));
            if !known {
                let what = Malformed("a filter that knows every key of the block");
                self.damaged(table.damage(offset, "table filter", what));
            }
            if index + 1 == block.len() {
                self.before = Some((Bytes::copy_from_slice(entry.key), entry.seqno));
            }
        }
    }
}

/// The part of `window`'s bytes that is `span`, which lies inside.
fn slice<'a>(bytes: &'a [u8], window: &Range<u64>, span: &Range<u64>) -> &'a [u8] {
    let at = |offset: u64| offset.saturating_sub(window.start) as usize;
    bytes.get(at(span.start)..at(span.end)).unwrap_or_default()
}
