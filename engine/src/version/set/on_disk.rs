//! A version's files as they are on disk: read and checked, and changed by nothing.

use std::path::{Path, PathBuf};

use super::{Log, VersionSet};
use crate::error::{Error, Result};
use crate::io::Io;
use crate::seal::FileKeys;
use crate::table::{TableMeta, ValueMeta};
use crate::version::current::{self, Current};
use crate::version::edit::ManifestState;
use crate::version::manifest;
use crate::version::set::replay::Replayed;

/// What `CURRENT` and its manifest say.
pub(crate) struct OnDisk {
    pub state: ManifestState,
    /// Level and table, in no order.
    pub tables: Vec<(u8, TableMeta)>,
    /// Those that tables refer to, by number.
    pub values: Vec<ValueMeta>,
    /// Bytes at the manifest's end that are an edit whose sync never returned.
    pub cut_bytes: u64,
    /// What was read.
    pub paths: Vec<PathBuf>,
}

impl OnDisk {
    /// Reads them. `CURRENT` alone is read without keys.
    ///
    /// - Errors: `Corruption`, `Unsupported`, naming file and offset; `KeyRefused`.
    pub fn read(io: &Io, db: &Path, keys: &FileKeys) -> Result<OnDisk> {
        let current = Current::read(io, db)?;
        let path = manifest::path(db, current.number);
        let manifest = manifest::read(io, db, &current, keys)?;
        let cut_bytes = manifest.cut_bytes;
        let replayed = Replayed::new(&path, manifest)?;
        let values = replayed.values_needed(&path)?;
        let ordered = (0u8..).zip(replayed.ordered);
        let ordered = ordered.flat_map(|(level, metas)| metas.into_iter().map(move |meta| (level, meta)));
        Ok(OnDisk {
            state: replayed.state,
            tables: ordered.chain(replayed.added).collect(),
            values,
            cut_bytes,
            paths: vec![current::path(db), path],
        })
    }
}

impl VersionSet {
    /// Reads the files again and compares them with what is installed; edits wait meanwhile, reading does not.
    /// Returns what was read. Errors as for [`OnDisk::read`].
    pub fn check_files(&self) -> Result<Vec<PathBuf>> {
        let log = self.log.lock();
        let found = OnDisk::read(&self.io, &self.db, &self.keys)?;
        // After a failed sync nobody knows which of two states is on disk.
        if matches!(*log, Log::Failed) {
            return Ok(found.paths);
        }
        let installed = self.installed.read().clone();
        let by_number = |tables: &mut Vec<(u8, TableMeta)>| tables.sort_by_key(|(_, meta)| meta.number);
        let tables = installed.version.tables();
        let mut expected: Vec<_> = tables
            .map(|(level, table)| (level as u8, table.meta().clone()))
            .collect();
        let mut on_disk = found.tables;
        by_number(&mut expected);
        by_number(&mut on_disk);
        let values = installed.version.values.values().map(|file| *file.meta());
        if expected != on_disk || !values.eq(found.values) || installed.state != found.state {
            let path = found.paths.last().cloned().unwrap_or_default();
            let expected = "the files and positions in use";
            return Err(Error::corruption(&path, 0, "manifest", expected, "others"));
        }
        Ok(found.paths)
    }
}
