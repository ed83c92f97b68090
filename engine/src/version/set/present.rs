//! The files of a database's directory: which numbers are in use, and which files nobody needs.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::hooks::rare;
use crate::io::{Io, durable};
use crate::version::{manifest, parse_table_name, parse_values_name, table_path, tables_dir, values_path};

/// What is in the directory.
#[derive(Default)]
pub(super) struct Present {
    pub current: bool,
    pub manifests: Vec<u64>,
    pub tables: Vec<u64>,
    pub values: Vec<u64>,
    /// Left by interrupted replacements.
    pub temporary: Vec<PathBuf>,
}

impl Present {
    pub fn list(io: &Io, db: &Path) -> Result<Present> {
        let mut present = Present::default();
        for name in list(io, db)? {
            if name == "CURRENT" {
                present.current = true;
            } else if let Some(number) = manifest::parse_name(&name) {
                present.manifests.push(number);
            } else if name.ends_with(durable::TMP_SUFFIX) {
                present.temporary.push(db.join(name));
            }
        }
        for name in list(io, &tables_dir(db))? {
            if let Some(number) = parse_table_name(&name) {
                present.tables.push(number);
            } else if let Some(number) = parse_values_name(&name) {
                present.values.push(number);
            } else if name.ends_with(durable::TMP_SUFFIX) {
                present.temporary.push(tables_dir(db).join(name));
            }
        }
        Ok(present)
    }

    /// Above every number in use.
    pub fn next_number(&self) -> u64 {
        let highest = self
            .manifests
            .iter()
            .chain(&self.tables)
            .chain(&self.values)
            .max();
        highest.map_or(1, |number| number.saturating_add(1))
    }

    /// Removes all but the tables and value files that `live` names. What cannot be removed waits for the next open.
    pub fn sweep(&self, io: &Io, db: &Path, live: impl Fn(u64) -> bool) {
        let manifests = self.manifests.iter().map(|n| manifest::path(db, *n));
        let tables = self.tables.iter().filter(|n| !live(**n)).map(|n| {
            rare!(OrphanSwept);
            table_path(db, *n)
        });
        let values = self.values.iter().filter(|n| !live(**n)).map(|n| {
            rare!(OrphanSwept);
            values_path(db, *n)
        });
        for path in manifests
            .chain(tables)
            .chain(values)
            .chain(self.temporary.iter().cloned())
        {
            let _ = durable::remove_if_exists(io, &path);
        }
    }
}

/// Names of the files in a directory; none if it is missing.
fn list(io: &Io, dir: &Path) -> Result<Vec<String>> {
    match io.vfs.list(dir) {
        Ok(entries) => Ok(entries
            .into_iter()
            .filter(|entry| !entry.is_dir)
            .map(|entry| entry.name)
            .collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io("listing the directory", dir, e)),
    }
}
