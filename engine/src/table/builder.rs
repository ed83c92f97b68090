//! Writes one table, front to back, each piece sealed under its tenant's file key.
//!
//! Entries arrive tenant by tenant, ids ascending, inside a tenant in internal order. A block closes
//! before it would grow past its target; a section closes at about 4 MiB; a run closes when the
//! tenant changes. Range deletes of a run are kept until it closes. The layout is in `format`, the pieces' in `block`, `filter` and `index`.
//!
//! Invariants: the file is written once and never touched again; nothing a tenant wrote stands in it
//! unsealed; a tenant whose key is gone adds nothing; a builder dropped before `finish` removes its
//! file.

use std::path::Path;
use std::sync::Arc;

use super::block::{BlockBuilder, TREE_KEY_BYTES_MAX};
use super::filter;
use super::format::{FOOTER_BYTES, Footer, RUN_BYTES, Run, TableMeta, digest};
use super::index::{Handle, IndexBuilder, Level, separator};
use super::out_file::OutFile;
use super::range_deletes;
use crate::error::{Error, ErrorKind, Result};
use crate::expiry;
use crate::hooks::planted;
use crate::io::Io;
use crate::options::{Compression, VALUE_BYTES_MAX};
use crate::range_delete::{Fragment, is_range};
use crate::read::cursor::{EntryKind, EntryRef};
use crate::seal::{Aad, FileHeader, FileKey, FileKeys, Nonces, Piece};
use crate::types::{SeqNo, TenantId};

/// A section closes when its blocks reach this…
const SECTION_BYTES: u64 = 4 << 20;
/// … or its index this …
const SECTION_INDEX_BYTES: usize = 64 << 10;
/// … or it has this many different keys: 40 KiB of filter at 10 bits.
const SECTION_KEYS: usize = 32 << 10;
/// A stored value may be this much longer than a user's: room for what the engine adds to it.
pub(super) const VALUE_MARGIN_BYTES: usize = 64 << 10;

/// Writes a table.
pub(crate) struct TableBuilder {
    out: OutFile,
    header: FileHeader,
    keys: Arc<FileKeys>,
    nonces: Nonces,
    block_bytes: usize,
    filter_bits: usize,
    filter_seed: u64,
    section_bytes: u64,
    /// The tenant being added.
    open: Option<OpenRun>,
    block: BlockBuilder,
    block_first: Vec<u8>,
    /// The index of the section being added, and over the sections already closed.
    blocks: IndexBuilder,
    sections: IndexBuilder,
    section_start: u64,
    hashes: Vec<u64>,
    /// Of the tenant being added, and their encoded length.
    range_deletes: Vec<Fragment>,
    range_delete_bytes: usize,
    directory: Vec<u8>,
    totals: Option<Totals>,
    known: SeqNo,
}

struct OpenRun {
    run: Run,
    key: Arc<FileKey>,
}

/// What the closed runs add up to.
struct Totals {
    entries: u64,
    tenant_min: TenantId,
    tenant_max: TenantId,
    seqno_min: SeqNo,
    seqno_max: SeqNo,
}

impl TableBuilder {
    /// Creates the file `path`; `AlreadyExists` from the file system if the name is taken.
    ///
    /// - `header`: of kind table, fresh for this file.
    /// - `block_bytes`: target of a block before compression, at most 1 MiB. A larger entry gets a block
    ///   of its own.
    /// - `filter_bits`: per key; 0 for none. Tenants with one block get no filter.
    pub(crate) fn new(
        io: &Io,
        path: &Path,
        header: FileHeader,
        keys: &Arc<FileKeys>,
        block_bytes: usize,
        compression: Compression,
        filter_bits: usize,
    ) -> Result<TableBuilder> {
        Ok(TableBuilder {
            out: OutFile::create(io, path, header.encode().to_vec())?,
            keys: keys.clone(),
            nonces: Nonces::new(io.rng.clone()),
            block_bytes: block_bytes.min(1 << 20),
            filter_bits,
            filter_seed: filter::seed(&header.file_id),
            section_bytes: SECTION_BYTES,
            header,
            open: None,
            block: BlockBuilder::new(compression),
            block_first: Vec::new(),
            blocks: IndexBuilder::default(),
            sections: IndexBuilder::default(),
            section_start: 0,
            hashes: Vec::new(),
            range_deletes: Vec::new(),
            range_delete_bytes: 0,
            directory: Vec::new(),
            totals: None,
            known: SeqNo::ZERO,
        })
    }

    #[cfg(test)]
    pub(super) fn set_section_bytes(&mut self, bytes: u64) {
        self.section_bytes = bytes;
    }

    /// Adds an entry that ends when it expires.
    #[cfg(test)]
    pub(crate) fn add(&mut self, tenant: TenantId, entry: EntryRef<'_>) -> Result<()> {
        self.add_until(tenant, entry, expiry::expires(entry.kind, entry.value))
    }

    /// The newest change of tenants' settings that the writer goes by.
    pub(crate) fn set_known(&mut self, known: SeqNo) {
        self.known = known;
    }

    /// Adds the next entry, of which at `ends` nothing but a delete is left: tenants ascending, inside one in internal order, each place once.
    ///
    /// `NotFound` when the tenant's key is gone: nothing was added and the builder is intact, go on
    /// with the next tenant. `Corruption` when the order is broken, `Invalid` for impossible entries,
    /// and after any other error: drop the builder.
    pub(crate) fn add_until(
        &mut self,
        tenant: TenantId,
        entry: EntryRef<'_>,
        ends: Option<u64>,
    ) -> Result<()> {
        self.check(tenant, entry)?;
        if !self.has_open(tenant) {
            self.open_run(tenant)?;
        } else if self.block_is_full(entry) {
            self.close_block(Some(entry.key))?;
        }
        if self.block.is_empty() {
            self.block_first.clear();
            self.block_first.extend_from_slice(entry.key);
        }
        if self.filter_bits > 0 && (self.hashes.is_empty() || self.block.last() != entry.key) {
            self.hashes.push(filter::hash(entry.key, self.filter_seed));
        }
        self.block.add(entry);
        if let Some(OpenRun { run, .. }) = &mut self.open {
            run.entries += 1;
            run.deletes += u64::from(entry.kind == EntryKind::Delete);
            if let Some(at) = ends.map(expiry::seconds) {
                run.expires = if run.expires == 0 { at } else { run.expires.min(at) };
            }
            run.seqno_min = run.seqno_min.min(entry.seqno);
            run.seqno_max = run.seqno_max.max(entry.seqno);
        }
        Ok(())
    }

    /// Adds a range delete: tenants as for [`add`](TableBuilder::add), inside one in order; before or after entries of
    /// any key. Errors as there.
    pub(crate) fn add_range_delete(&mut self, tenant: TenantId, fragment: Fragment) -> Result<()> {
        let (Some(newest), Some(oldest)) = (fragment.seqnos.first(), fragment.seqnos.last()) else {
            return Err(
                Error::new(ErrorKind::Invalid, "a range delete without a version").at(self.out.path())
            );
        };
        let (newest, oldest) = (*newest, *oldest);
        let here = self.has_open(tenant);
        let before = self.range_deletes.last().filter(|_| here);
        let ordered = before.is_none_or(|before| before.end <= fragment.start);
        let ascends = self.open.as_ref().is_none_or(|open| open.run.tenant <= tenant);
        if !ordered || !ascends || !is_range(&fragment.start, &fragment.end) {
            let (what, expected) = ("range deletes for a table", "ascending order");
            return Err(Error::corruption(
                self.out.path(),
                self.at(),
                what,
                expected,
                "a step back",
            ));
        }
        if !here {
            self.open_run(tenant)?;
        }
        if let Some(OpenRun { run, .. }) = &mut self.open {
            run.range_deletes = u32::try_from(fragment.seqnos.len())
                .ok()
                .and_then(|versions| run.range_deletes.checked_add(versions))
                .ok_or_else(|| Error::new(ErrorKind::Invalid, "more than 2^32 range deletes in a run"))?;
            run.seqno_min = run.seqno_min.min(oldest);
            run.seqno_max = run.seqno_max.max(newest);
        }
        self.range_delete_bytes += range_deletes::encoded_len(&fragment);
        self.range_deletes.push(fragment);
        Ok(())
    }

    fn has_open(&self, tenant: TenantId) -> bool {
        self.open.as_ref().is_some_and(|open| open.run.tenant == tenant)
    }

    fn open_run(&mut self, tenant: TenantId) -> Result<()> {
        let (dek, key) = self.keys.for_writing(&self.header, tenant)?;
        self.close_run()?;
        let start = self.at();
        let run = Run {
            tenant,
            dek,
            filter_bytes: 0,
            commitment: key.commitment(),
            entries: 0,
            deletes: 0,
            range_deletes: 0,
            seqno_min: SeqNo::MAX,
            seqno_max: SeqNo::ZERO,
            start,
            head: 0,
            index_bytes: 0,
            expires: 0,
        };
        self.open = Some(OpenRun { run, key });
        self.section_start = start;
        Ok(())
    }

    fn check(&self, tenant: TenantId, entry: EntryRef<'_>) -> Result<()> {
        let fits = (1..=TREE_KEY_BYTES_MAX).contains(&entry.key.len())
            && entry.value.len() <= VALUE_BYTES_MAX + VALUE_MARGIN_BYTES
            && entry.kind.admits(entry.value.len());
        if !fits {
            return Err(Error::new(ErrorKind::Invalid, "an entry that no table can hold").at(self.out.path()));
        }
        let ordered = self
            .open
            .as_ref()
            .is_none_or(|open| match open.run.tenant.cmp(&tenant) {
                std::cmp::Ordering::Less => true,
                std::cmp::Ordering::Equal => self.block.order(entry).is_lt(),
                std::cmp::Ordering::Greater => false,
            });
        if ordered {
            return Ok(());
        }
        // Not an assertion: blocks that verify may still hold what a buggy or hostile writer put there.
        Err(Error::corruption(
            self.out.path(),
            self.at(),
            "entries for a table",
            "ascending order",
            "a step back",
        ))
    }

    fn block_is_full(&self, next: EntryRef<'_>) -> bool {
        !self.block.is_empty() && self.block.len() + next.key.len() + next.value.len() > self.block_bytes
    }

    /// The file offset of the next byte.
    fn at(&self) -> u64 {
        self.out.at()
    }

    /// About how long the file would be if it were finished now: what is sealed already as it is, and the
    /// open block as if it were not compressed.
    pub(crate) fn bytes_estimate(&self) -> u64 {
        let filter = self.hashes.len() * self.filter_bits / 8;
        let open = self.block.len() + self.blocks.len() + filter + self.range_delete_bytes;
        self.at() + (open + self.directory.len() + RUN_BYTES + FOOTER_BYTES) as u64
    }

    /// Entries added.
    #[cfg(test)]
    pub(super) fn entries(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |open| open.run.entries);
        self.totals.as_ref().map_or(0, |totals| totals.entries) + open
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.totals.is_none() && self.open.is_none()
    }

    /// Encoded bytes of the range deletes of the tenant being added.
    pub(crate) fn range_delete_bytes(&self) -> usize {
        self.range_delete_bytes
    }

    /// Whether all entries of `tenant` that were added come before `key`.
    pub(crate) fn entries_before(&self, tenant: TenantId, key: &[u8]) -> bool {
        !self.has_open(tenant) || self.block.last() < key
    }

    /// Closes the block. `next` is the key that follows in the same run, None at its end.
    fn close_block(&mut self, next: Option<&[u8]>) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let entries = self.block.entries();
        let last = self.block.last();
        let separator = next.map_or_else(|| last.to_vec(), |next| separator(last, next));
        let offset = self.out.at();
        let before = self.out.bytes.len();
        if let Some(open) = &self.open {
            let plain = self.block.finish();
            seal(
                &self.header,
                &self.nonces,
                open,
                Piece::Block,
                offset,
                plain,
                &mut self.out.bytes,
            )?;
        }
        let bytes = piece_bytes(self.out.bytes.len() - before)?;
        let handle = Handle {
            offset,
            bytes,
            filter_bytes: 0,
            entries,
        };
        self.blocks
            .add(&self.block_first, self.block.last(), &separator, handle);
        self.block.clear();
        let full = self.at() - self.section_start >= self.section_bytes
            || self.blocks.len() >= SECTION_INDEX_BYTES
            || self.hashes.len() >= SECTION_KEYS;
        if full && next.is_some() {
            self.close_section(&separator)?;
        }
        self.out.write_if_much()?;
        Ok(())
    }

    /// Writes filter and index of the section, or of a run with one, and returns where they are.
    fn write_head(&mut self, deletes: &[Fragment]) -> Result<Handle> {
        let offset = self.at();
        let entries = u32::try_from(self.blocks.entries())
            .map_err(|_| Error::new(ErrorKind::Invalid, "more than 2^32 entries in a section"))?;
        let before = self.out.bytes.len();
        if let Some(open) = &self.open {
            // One block needs no filter: reading it costs about what reading the filter would.
            if !self.hashes.is_empty() && self.blocks.parts() > 1 {
                let plain = filter::build(&self.hashes, self.filter_bits);
                seal(
                    &self.header,
                    &self.nonces,
                    open,
                    Piece::Filter,
                    offset,
                    &plain,
                    &mut self.out.bytes,
                )?;
            }
        }
        let filter_bytes = piece_bytes(self.out.bytes.len() - before)?;
        let plain = self.blocks.finish(Level::Blocks, deletes);
        let bytes = self.write_index(&plain)?;
        self.hashes.clear();
        Ok(Handle {
            offset,
            bytes,
            filter_bytes,
            entries,
        })
    }

    fn write_index(&mut self, plain: &[u8]) -> Result<u32> {
        let (offset, before) = (self.at(), self.out.bytes.len());
        if let Some(open) = &self.open {
            seal(
                &self.header,
                &self.nonces,
                open,
                Piece::Index,
                offset,
                plain,
                &mut self.out.bytes,
            )?;
        }
        piece_bytes(self.out.bytes.len() - before)
    }

    fn close_section(&mut self, separator: &[u8]) -> Result<()> {
        let handle = self.write_head(&[])?;
        self.sections
            .add(self.blocks.first(), self.blocks.last(), separator, handle);
        self.blocks.clear();
        self.section_start = self.at();
        Ok(())
    }

    /// Closes the run of the tenant being added, if any, and records it in the directory.
    fn close_run(&mut self) -> Result<()> {
        self.close_block(None)?;
        if self.open.is_none() {
            return Ok(());
        }
        let deletes = std::mem::take(&mut self.range_deletes);
        self.range_delete_bytes = 0;
        let (head, filter_bytes, index_bytes) = if self.sections.is_empty() {
            let handle = self.write_head(&deletes)?;
            (handle.offset, handle.filter_bytes, handle.bytes)
        } else {
            if !self.blocks.is_empty() {
                let last = self.block.last().to_vec();
                self.close_section(&last)?;
            }
            let head = self.at();
            let plain = self.sections.finish(Level::Sections, &deletes);
            (head, 0, self.write_index(&plain)?)
        };
        let Some(OpenRun { mut run, .. }) = self.open.take() else {
            return Ok(());
        };
        (run.head, run.filter_bytes, run.index_bytes) = (head, filter_bytes, index_bytes);
        run.encode(&mut self.directory);
        self.blocks.clear();
        self.sections.clear();
        self.block.reset();
        let totals = self.totals.get_or_insert(Totals {
            entries: 0,
            tenant_min: run.tenant,
            tenant_max: run.tenant,
            seqno_min: run.seqno_min,
            seqno_max: run.seqno_max,
        });
        totals.entries += run.entries;
        totals.tenant_max = run.tenant;
        totals.seqno_min = totals.seqno_min.min(run.seqno_min);
        totals.seqno_max = totals.seqno_max.max(run.seqno_max);
        self.out.write_if_much()?;
        Ok(())
    }

    /// Completes the file and makes its bytes durable; its name is durable once the caller has synced
    /// the directory. `Invalid` if nothing was added. On any error the file is removed.
    pub(crate) fn finish(mut self) -> Result<TableMeta> {
        self.close_run()?;
        let Some(totals) = self.totals.take() else {
            return Err(Error::new(ErrorKind::Invalid, "a table with nothing in it").at(self.out.path()));
        };
        let directory = std::mem::take(&mut self.directory);
        let footer = Footer {
            directory: self.at(),
            tenants: (directory.len() / RUN_BYTES) as u64,
            entries: totals.entries,
            seqno_min: totals.seqno_min,
            seqno_max: totals.seqno_max,
            known: self.known,
        }
        .encode(&directory);
        let bytes = self
            .out
            .complete(&directory, &footer, !planted!(TableNotSynced))?;
        Ok(TableMeta {
            number: self.header.number,
            file_id: self.header.file_id,
            bytes,
            entries: totals.entries,
            digest: digest(&self.header.encode(), &directory, &footer),
            tenant_min: totals.tenant_min,
            tenant_max: totals.tenant_max,
            seqno_min: totals.seqno_min,
            seqno_max: totals.seqno_max,
            values: Vec::new(),
        })
    }
}

fn piece_bytes(len: usize) -> Result<u32> {
    u32::try_from(len).map_err(|_| Error::new(ErrorKind::Invalid, "a sealed piece of 4 GiB"))
}

/// Appends the sealed `plain`, which will stand at file offset `offset`.
fn seal(
    header: &FileHeader,
    nonces: &Nonces,
    open: &OpenRun,
    piece: Piece,
    offset: u64,
    plain: &[u8],
    out: &mut Vec<u8>,
) -> Result<()> {
    let aad = Aad {
        piece,
        tenant: open.run.tenant,
        file: header.file_id,
        offset,
        plain_len: piece_bytes(plain.len())?,
        a: 0,
        b: 0,
    };
    open.key.seal(nonces, &aad, plain, out)
}
