//! Versions: which tables make up the database at one moment.
//!
//! A [`Version`] never changes; readers hold one by its `Arc` and so pin its tables. [`set::VersionSet`]
//! makes the next one from an [`edit::Edit`], after the edit is durable in the [`manifest`] that
//! [`current`] names.
//!
//! ```text
//! <db>/CURRENT                     names the manifest; says whether the database was closed
//! <db>/manifest-<number:016x>      sealed edits, the full state first
//! <db>/tables/<number:016x>.table  tables
//! <db>/tables/<number:016x>.values the large values of some of them
//! ```
//!
//! Invariants of a version:
//! 1. Level 0 is ordered by table number, newest first; its tables may overlap, and a newer table's
//!    versions of a key are newer.
//! 2. In every other level tables are ordered by (tenant, key) and disjoint, range deletes included: no two
//!    share a key, so all versions of a key in that level are in one table. A tenant may span several tables.
//! 3. A key's versions, and its range deletes, in a lower level number are newer than those in a higher one.
//! 4. Its value files are those that its tables refer to.
//!
//! Where tables meet inside one tenant their order needs the tenant's key. When that key is destroyed
//! the order inside the tenant no longer matters and is whatever it was.

pub(crate) mod current;
pub(crate) mod edit;
pub(crate) mod manifest;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod parsers;
pub(crate) mod set;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::hooks::planted;
use crate::table::{Table, TableMeta, ValueFile};

#[allow(unused_imports)] // The engine takes these from here.
pub(crate) use edit::{Edit, ManifestState, NodeState};
#[allow(unused_imports)]
pub(crate) use set::{OnDisk, VersionSet};

/// Levels of the tree. The last has room for everything: `level1_bytes` times 100,000.
pub(crate) const LEVELS: usize = 7;

/// The tables of one moment. Immutable.
#[derive(Clone, Default)]
pub(crate) struct Version {
    /// Level 0 newest first, the others in order and disjoint.
    pub levels: [Vec<Arc<Table>>; LEVELS],
    /// By number.
    pub values: BTreeMap<u64, Arc<ValueFile>>,
}

/// Files that were opened for a version to come, by number.
#[derive(Default)]
pub(crate) struct Files {
    pub tables: HashMap<u64, Arc<Table>>,
    pub values: HashMap<u64, Arc<ValueFile>>,
}

impl Version {
    /// All tables with their levels, level by level, each in its order.
    pub fn tables(&self) -> impl Iterator<Item = (usize, &Arc<Table>)> {
        self.levels
            .iter()
            .enumerate()
            .flat_map(|(level, tables)| tables.iter().map(move |t| (level, t)))
    }

    /// The version after `edit`. `opened` holds the files that are new; tables that only move
    /// between levels are taken from this version. Value files without a table that refers to them are left out.
    ///
    /// `Invalid` when the edit does not fit: it removes what is not there, adds what is there, or
    /// would make tables of one level overlap, or a table refer to no value file. Nothing has happened then.
    pub fn apply(&self, edit: &Edit, opened: &Files) -> Result<Version> {
        let mut next = self.clone();
        let mut taken = HashMap::new();
        for (level, number) in &edit.removed {
            let tables = next.level_mut(*level)?;
            let Some(at) = tables.iter().position(|table| table.meta().number == *number) else {
                return Err(misfit(format!("table {number} is not in level {level}")));
            };
            taken.insert(*number, tables.remove(at));
        }
        for (level, meta) in &edit.added {
            let table = opened
                .tables
                .get(&meta.number)
                .or_else(|| taken.get(&meta.number));
            let Some(table) = table.filter(|table| table.meta() == meta) else {
                return Err(misfit(format!(
                    "table {} is not the one that was opened",
                    meta.number
                )));
            };
            if next.tables().any(|(_, other)| other.meta().number == meta.number) {
                return Err(misfit(format!("table {} is there already", meta.number)));
            }
            let tables = next.level_mut(*level)?;
            if *level == 0 {
                let at = tables.partition_point(|other| other.meta().number > meta.number);
                tables.insert(at, Arc::clone(table));
            } else {
                insert_ordered(tables, table)?;
            }
        }
        for meta in &edit.values {
            let file = opened.values.get(&meta.number).filter(|file| file.meta() == meta);
            let Some(file) = file else {
                return Err(misfit(format!(
                    "value file {} is not the one that was opened",
                    meta.number
                )));
            };
            if next.values.insert(meta.number, Arc::clone(file)).is_some() {
                return Err(misfit(format!("value file {} is there already", meta.number)));
            }
        }
        let referred = next.referred();
        if let Some(file) = referred.keys().find(|file| !next.values.contains_key(file)) {
            return Err(misfit(format!(
                "a table refers to value file {file}, which is not there"
            )));
        }
        let lost = |number: &u64| {
            let of = |table: &Arc<Table>| table.meta().values.iter().any(|(file, _)| file == number);
            planted!(ValueFilesGoneEarly) && taken.values().any(of)
        };
        next.values
            .retain(|number, _| referred.contains_key(number) && !lost(number));
        Ok(next)
    }

    /// Value files that tables refer to, and how many bytes of each they need.
    pub fn referred(&self) -> HashMap<u64, u64> {
        let mut referred: HashMap<u64, u64> = HashMap::new();
        for (_, table) in self.tables() {
            for (file, bytes) in &table.meta().values {
                let needed = referred.entry(*file).or_default();
                *needed = needed.saturating_add(*bytes);
            }
        }
        referred
    }

    fn level_mut(&mut self, level: u8) -> Result<&mut Vec<Arc<Table>>> {
        self.levels
            .get_mut(usize::from(level))
            .ok_or_else(|| misfit(format!("there is no level {level}")))
    }
}

/// Inserts into an ordered, disjoint level.
fn insert_ordered(tables: &mut Vec<Arc<Table>>, table: &Arc<Table>) -> Result<()> {
    let (mut low, mut high) = (0, tables.len());
    while low < high {
        let middle = low + (high - low) / 2;
        match tables.get(middle) {
            Some(other) if order(other, table)? == Ordering::Less => low = middle + 1,
            _ => high = middle,
        }
    }
    let before = low.checked_sub(1).and_then(|at| tables.get(at));
    for (left, right) in [(before, Some(table)), (Some(table), tables.get(low))] {
        if let (Some(left), Some(right)) = (left, right)
            && surely_overlap(left, right)?
        {
            let (left, right) = (left.meta().number, right.meta().number);
            return Err(misfit(format!("tables {left} and {right} of one level overlap")));
        }
    }
    tables.insert(low, Arc::clone(table));
    Ok(())
}

/// Order of two tables of one level. Disjoint tables that begin with the same tenant: one that ends
/// with it too comes before one that goes on; two that hold only this tenant are told apart by key,
/// if the key still exists.
fn order(left: &Arc<Table>, right: &Arc<Table>) -> Result<Ordering> {
    let (l, r) = (left.meta(), right.meta());
    let by_tenant = (l.tenant_min, l.tenant_max).cmp(&(r.tenant_min, r.tenant_max));
    if by_tenant != Ordering::Equal || l.tenant_min != l.tenant_max {
        return Ok(by_tenant);
    }
    match (left.span(l.tenant_min)?, right.span(r.tenant_min)?) {
        (Some((l, _)), Some((r, _))) => Ok(l.cmp(&r)),
        _ => Ok(Ordering::Equal),
    }
}

/// Whether `left` ends at or after the start of `right`, as far as existing keys can tell.
fn surely_overlap(left: &Arc<Table>, right: &Arc<Table>) -> Result<bool> {
    let (end, start) = (left.meta().tenant_max, right.meta().tenant_min);
    if end != start {
        return Ok(end > start);
    }
    match (left.span(end)?, right.span(start)?) {
        (Some((_, end)), Some((first, _))) => Ok(end > first),
        _ => Ok(false),
    }
}

fn misfit(message: String) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("edit does not fit the version: {message}"),
    )
}

/// The directory of the tables.
pub(crate) fn tables_dir(db: &Path) -> PathBuf {
    db.join("tables")
}

/// File name of a table inside [`tables_dir`].
pub(crate) fn table_name(number: u64) -> String {
    format!("{number:016x}.table")
}

/// Where table `number` of the database in `db` is.
pub(crate) fn table_path(db: &Path, number: u64) -> PathBuf {
    tables_dir(db).join(table_name(number))
}

/// Where value file `number` of the database in `db` is.
pub(crate) fn values_path(db: &Path, number: u64) -> PathBuf {
    tables_dir(db).join(values_name(number))
}

/// File name of a value file inside [`tables_dir`].
pub(crate) fn values_name(number: u64) -> String {
    format!("{number:016x}.values")
}

/// The number in a value file's name. None if it is no such name.
pub(crate) fn parse_values_name(name: &str) -> Option<u64> {
    parse_number(name.strip_suffix(".values")?)
}

/// The number in a table's file name. None if it is no such name.
pub(crate) fn parse_table_name(name: &str) -> Option<u64> {
    parse_number(name.strip_suffix(".table")?)
}

/// Sixteen lower-case hexadecimal digits, exactly as written by `{:016x}`. Numbers of the upper half
/// are not ours: a stray file cannot use up the numbers.
fn parse_number(digits: &str) -> Option<u64> {
    let number = u64::from_str_radix(digits, 16).ok()?;
    (format!("{number:016x}") == digits && number < 1 << 63).then_some(number)
}

/// The tables and value files of `version`, as names relative to the database directory with '/', and lengths.
pub(crate) fn referenced_files(version: &Version) -> Vec<(String, u64)> {
    let name = |meta: &TableMeta| (format!("tables/{}", table_name(meta.number)), meta.bytes);
    let tables = version.tables().map(|(_, table)| name(table.meta()));
    if planted!(ValuesNotCopied) {
        return tables.collect();
    }
    let values = version.values.values().map(|file| file.meta());
    let values = values.map(|meta| (format!("tables/{}", values_name(meta.number)), meta.bytes));
    tables.chain(values).collect()
}
