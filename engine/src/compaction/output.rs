//! New tables of a flush or a compaction, and value files beside them, cut to size.
//!
//! Cuts fall between keys, so that all versions of a key stay in one table, and range deletes are cut there too; and
//! rather between tenants than inside one, so that a large tenant has tables of its own. Until [`Complete::keep`] has synced
//! the directory everything is removed again on drop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::hooks::{planted, rare};
use crate::io::{Io, durable};
use crate::range_delete::Fragment;
use crate::read::cursor::{EntryKind, EntryRef};
use crate::seal::{FileHeader, FileKind};
use crate::table::{Owner, Reference, TableBuilder, TableMeta, ValueMeta, ValueWriter};
use crate::types::{Chain, TenantId};
use crate::version::{table_path, tables_dir, values_path};

use super::Work;
use super::range_deletes::RangeDeletes;

/// Encoded range deletes of a tenant at which a table is cut: they are read with the head of a run.
const RANGE_DELETE_BYTES: u64 = 256 << 10;

/// Tables being written.
pub(crate) struct Outputs<'a> {
    work: &'a Work<'a>,
    /// Size at which a table is cut. `u64::MAX`: never.
    table_bytes: u64,
    building: Option<Building>,
    values: Option<(PathBuf, ValueWriter)>,
    done: Complete,
}

/// A table that is not complete.
struct Building {
    path: PathBuf,
    builder: TableBuilder,
    /// Sealed bytes that it refers to, by value file.
    refers: BTreeMap<u64, u64>,
}

/// Files that are complete and durable, but for their names. Removed when dropped.
pub(crate) struct Complete {
    io: Io,
    tables: Vec<(PathBuf, TableMeta)>,
    values: Vec<(PathBuf, ValueMeta)>,
}

/// What was written.
pub(crate) struct Written {
    pub tables: Vec<TableMeta>,
    pub values: Vec<ValueMeta>,
}

impl<'a> Outputs<'a> {
    /// Tables of about `table_bytes`.
    pub fn new(work: &'a Work<'a>, table_bytes: u64) -> Outputs<'a> {
        Outputs {
            work,
            table_bytes,
            building: None,
            values: None,
            done: Complete::new(work.io),
        }
    }

    /// Adds the next entry, which ends then. False if the tenant's key was destroyed meanwhile: go on with the next.
    pub fn add(&mut self, tenant: TenantId, entry: EntryRef<'_>, ends: Option<u64>) -> Result<bool> {
        let reference = match entry.kind {
            EntryKind::Separated => Reference::decode(entry.value),
            _ => None,
        };
        let building = self.building()?;
        let there = is_there(building.builder.add_until(tenant, entry, ends))?;
        if let Some(reference) = reference.filter(|_| there) {
            *building.refers.entry(reference.file).or_default() += u64::from(reference.bytes);
        }
        Ok(there)
    }

    /// The same of an entry that has no end, with its value apart.
    pub fn add_apart(&mut self, tenant: TenantId, entry: EntryRef<'_>, value: &[u8]) -> Result<bool> {
        let owner = Owner {
            tenant,
            key: entry.key,
            seqno: entry.seqno,
        };
        let mut added = None;
        if !is_there(
            self.value_writer()?
                .add(owner, value)
                .map(|reference| added = Some(reference)),
        )? {
            return Ok(false);
        }
        let Some(reference) = added else { return Ok(false) };
        let stored = reference.encode();
        let entry = EntryRef {
            kind: EntryKind::Separated,
            value: &stored,
            ..entry
        };
        rare!(ValueSeparated);
        self.add(tenant, entry, None)
    }

    /// The open value file, or the next where that is full.
    fn value_writer(&mut self) -> Result<&mut ValueWriter> {
        let full = |(_, writer): &(PathBuf, ValueWriter)| writer.bytes() >= self.work.options.table_bytes;
        if self.values.as_ref().is_some_and(full) {
            rare!(ValueFileCut);
            self.cut_values()?;
        }
        let values = match self.values.take() {
            Some(values) => values,
            None => self.start_values()?,
        };
        Ok(&mut self.values.insert(values).1)
    }

    fn start_values(&self) -> Result<(PathBuf, ValueWriter)> {
        let Work {
            io, keys, options, ..
        } = *self.work;
        let number = (self.work.next_number)();
        let path = values_path(self.work.db, number);
        let header = FileHeader::new(io, FileKind::Values, self.work.epoch, number, Chain::default())?;
        let known = self.work.settings.newest;
        let writer = ValueWriter::new(io, &path, header, keys, options.compression, known)?;
        Ok((path, writer))
    }

    fn cut_values(&mut self) -> Result<()> {
        if let Some((path, writer)) = self.values.take()
            && let Some(meta) = writer.finish()?
        {
            self.done.values.push((path, meta));
        }
        Ok(())
    }

    /// The same for a range delete. Outputs that are cut at a size are cut before it if too many came together and
    /// it begins behind all entries.
    fn add_range_delete(&mut self, tenant: TenantId, fragment: Fragment) -> Result<bool> {
        let many = RANGE_DELETE_BYTES.min(self.table_bytes) as usize;
        if let Some(Building { builder, .. }) = &self.building
            && self.table_bytes != u64::MAX
            && builder.range_delete_bytes() >= many
            && builder.entries_before(tenant, &fragment.start)
        {
            rare!(CutBetweenRangeDeletes);
            self.cut()?;
        }
        is_there(self.building()?.builder.add_range_delete(tenant, fragment))
    }

    fn building(&mut self) -> Result<&mut Building> {
        let building = match self.building.take() {
            Some(building) => building,
            None => self.start()?,
        };
        Ok(self.building.insert(building))
    }

    /// The next entry is of another tenant, whose inputs have `bytes`.
    pub fn at_tenant(&mut self, bytes: u64) -> Result<()> {
        match &self.building {
            Some(Building { builder, .. })
                if cut_at_tenant(builder.bytes_estimate(), bytes, self.table_bytes) =>
            {
                rare!(CutBetweenTenants);
                self.cut()
            }
            _ => Ok(()),
        }
    }

    /// The next entry is of another key, `key`: range deletes before it are added. False as for
    /// [`add`](Outputs::add).
    pub fn at_key(&mut self, tenant: TenantId, key: &[u8], deletes: &mut RangeDeletes) -> Result<bool> {
        while let Some(fragment) = deletes.next_before(Some(key)) {
            if !self.add_range_delete(tenant, fragment)? {
                return Ok(false);
            }
        }
        match &self.building {
            Some(Building { builder, .. }) if builder.bytes_estimate() >= self.table_bytes => {}
            _ => return Ok(true),
        }
        rare!(CutInsideTenant);
        if let Some(fragment) = deletes.cut_at(key)
            && !self.add_range_delete(tenant, fragment)?
        {
            return Ok(false);
        }
        self.cut()?;
        Ok(true)
    }

    /// No entry of the tenant follows: what is left of its range deletes is added.
    pub fn end_tenant(&mut self, tenant: TenantId, deletes: &mut RangeDeletes) -> Result<()> {
        while let Some(fragment) = deletes.next_before(None) {
            if !self.add_range_delete(tenant, fragment)? {
                break;
            }
        }
        Ok(())
    }

    /// Completes the last files.
    pub fn finish(mut self) -> Result<Complete> {
        self.cut_values()?;
        self.cut()?;
        Ok(self.done)
    }

    fn start(&self) -> Result<Building> {
        let Work {
            io,
            keys,
            options,
            epoch,
            ..
        } = *self.work;
        let number = (self.work.next_number)();
        let path = table_path(self.work.db, number);
        let header = FileHeader::new(io, FileKind::Table, epoch, number, Chain::default())?;
        let mut builder = TableBuilder::new(
            io,
            &path,
            header,
            keys,
            options.block_bytes,
            options.compression,
            options.filter_bits,
        )?;
        builder.set_known(self.work.settings.newest);
        Ok(Building {
            path,
            builder,
            refers: BTreeMap::new(),
        })
    }

    fn cut(&mut self) -> Result<()> {
        if let Some(Building {
            path,
            builder,
            refers,
        }) = self.building.take()
            && !builder.is_empty()
        {
            let mut meta = builder.finish()?;
            meta.values = refers.into_iter().collect();
            self.done.tables.push((path, meta));
        }
        Ok(())
    }
}

impl Complete {
    /// None yet.
    pub fn new(io: &Io) -> Complete {
        Complete {
            io: io.clone(),
            tables: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Takes over files of the same directory that come behind these in key order.
    pub fn append(&mut self, mut behind: Complete) {
        self.tables.append(&mut behind.tables);
        self.values.append(&mut behind.values);
    }

    /// Makes the names durable, in the database `db`: they all stay from then on.
    pub fn keep(mut self, db: &Path) -> Result<Written> {
        let anything = !self.tables.is_empty() || !self.values.is_empty();
        if anything && !planted!(TableNameNotSynced) {
            durable::sync_dir(&self.io, &tables_dir(db))?;
        }
        Ok(Written {
            tables: std::mem::take(&mut self.tables)
                .into_iter()
                .map(|(_, meta)| meta)
                .collect(),
            values: std::mem::take(&mut self.values)
                .into_iter()
                .map(|(_, meta)| meta)
                .collect(),
        })
    }
}

impl Drop for Complete {
    fn drop(&mut self) {
        let values = self.values.iter().map(|(path, _)| path);
        for path in self.tables.iter().map(|(path, _)| path).chain(values) {
            rare!(FinishedTablesRemoved);
            // The job failed. If this does too, the next open removes the file.
            let _ = durable::remove_if_exists(&self.io, path);
        }
    }
}

/// Whether the tenant still is.
fn is_there(added: Result<()>) -> Result<bool> {
    match added {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether to cut before a tenant with `next` bytes when the table has `have`: it is half full, and the
/// tenant would be cut in two.
fn cut_at_tenant(have: u64, next: u64, table_bytes: u64) -> bool {
    have >= table_bytes / 2 && have.saturating_add(next) > table_bytes
}

/// The job was told to stop.
pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::Closed, "the job was told to stop")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_cut_between_tenants_when_half_full_and_the_next_does_not_fit() {
        for (have, next, cut) in [
            (0, 1000, false),
            (49, 1000, false),
            (50, 50, false),
            (50, 51, true),
            (99, 1, false),
            (99, 2, true),
            (200, 0, true),
            (60, u64::MAX, true),
        ] {
            assert_eq!(cut_at_tenant(have, next, 100), cut, "{have} {next}");
        }
    }
}
