//! A manifest's full state and its edits, folded into the version they lead to.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::table::{Table, TableMeta, ValueFile, ValueMeta};
use crate::version::edit::{Edit, Full, ManifestState};
use crate::version::{Files, LEVELS, Version, manifest};

/// The state after all edits of a manifest, its tables not opened yet.
pub(super) struct Replayed {
    pub state: ManifestState,
    pub next_number: u64,
    /// Per level the tables of the full state that are left, in order.
    pub ordered: [Vec<TableMeta>; LEVELS],
    /// Tables that edits added and that are left.
    pub added: Vec<(u8, TableMeta)>,
    /// All value files there ever were, by number.
    pub values: BTreeMap<u64, ValueMeta>,
}

impl Replayed {
    pub fn new(path: &Path, manifest: manifest::Manifest) -> Result<Replayed> {
        let bad = |offset: u64, found: String| {
            Error::corruption(
                path,
                offset,
                "manifest edit",
                "one that fits what came before",
                found,
            )
        };
        let Full {
            state,
            mut next_number,
            tables,
            values: full_values,
        } = manifest.full;
        let mut state = state;
        let mut ordered: [Vec<TableMeta>; LEVELS] = Default::default();
        let mut added: Vec<(u8, TableMeta)> = Vec::new();
        let mut numbers = HashSet::new();
        for (level, meta) in tables {
            let tables = ordered
                .get_mut(usize::from(level))
                .ok_or_else(|| bad(0, "a level too deep".into()))?;
            if !numbers.insert(meta.number) {
                return Err(bad(0, format!("table {} twice", meta.number)));
            }
            next_number = next_number.max(meta.number.saturating_add(1));
            tables.push(meta);
        }
        let mut values = BTreeMap::new();
        let mut add_values = |offset: u64, metas: Vec<ValueMeta>, next_number: &mut u64| {
            for meta in metas {
                *next_number = (*next_number).max(meta.number.saturating_add(1));
                if values.insert(meta.number, meta).is_some() {
                    return Err(bad(offset, format!("value file {} joining twice", meta.number)));
                }
            }
            Ok(())
        };
        add_values(0, full_values, &mut next_number)?;
        for (offset, mut edit) in manifest.edits {
            add_values(offset, std::mem::take(&mut edit.values), &mut next_number)?;
            state.apply(&edit).map_err(|rule| bad(offset, rule.into()))?;
            for (level, number) in &edit.removed {
                let tables = ordered
                    .get_mut(usize::from(*level))
                    .ok_or_else(|| bad(offset, "a level".into()))?;
                if let Some(at) = tables.iter().position(|meta| meta.number == *number) {
                    tables.remove(at);
                } else if let Some(at) = added
                    .iter()
                    .position(|(l, meta)| l == level && meta.number == *number)
                {
                    added.remove(at);
                } else {
                    return Err(bad(
                        offset,
                        format!("table {number} leaving a level it is not in"),
                    ));
                }
                numbers.remove(number);
            }
            for (level, meta) in edit.added {
                if !numbers.insert(meta.number) {
                    return Err(bad(offset, format!("table {} joining twice", meta.number)));
                }
                next_number = next_number.max(meta.number.saturating_add(1));
                added.push((level, meta));
            }
        }
        Ok(Replayed {
            state,
            next_number,
            ordered,
            added,
            values,
        })
    }

    /// The value files that the tables refer to.
    pub fn values_needed(&self, path: &Path) -> Result<Vec<ValueMeta>> {
        let added = self.added.iter().map(|(_, meta)| meta);
        let mut needed: Vec<u64> = self
            .ordered
            .iter()
            .flatten()
            .chain(added)
            .flat_map(|meta| meta.values.iter().map(|(file, _)| *file))
            .collect();
        needed.sort_unstable();
        needed.dedup();
        let known = |file: &u64| {
            self.values.get(file).copied().ok_or_else(|| {
                let found = format!("a table that refers to value file {file}, which it does not name");
                Error::corruption(path, 0, "manifest", "tables that fit together", found)
            })
        };
        needed.iter().map(known).collect()
    }

    /// Opens the tables. The full state's order is taken as it is (it is sealed), so that opening reads
    /// key bounds only for tables that edits added.
    pub fn version(
        &self,
        path: &Path,
        open: impl Fn(&TableMeta) -> Result<Arc<Table>>,
        open_values: impl Fn(&ValueMeta) -> Result<Arc<ValueFile>>,
    ) -> Result<Version> {
        let mut version = Version::default();
        for (number, (tables, metas)) in version.levels.iter_mut().zip(&self.ordered).enumerate() {
            let in_order = |left: &TableMeta, right: &TableMeta| match number {
                0 => left.number > right.number,
                _ => left.tenant_max <= right.tenant_min,
            };
            if !metas.is_sorted_by(in_order) {
                return Err(Error::corruption(
                    path,
                    0,
                    "manifest",
                    "tables in order",
                    "disorder",
                ));
            }
            for meta in metas {
                tables.push(open(meta)?);
            }
        }
        let mut opened = Files::default();
        for (_, meta) in &self.added {
            opened.tables.insert(meta.number, open(meta)?);
        }
        let values = self.values_needed(path)?;
        for meta in &values {
            opened.values.insert(meta.number, open_values(meta)?);
        }
        let rest = Edit {
            added: self.added.clone(),
            values,
            ..Edit::default()
        };
        version.apply(&rest, &opened).map_err(|e| match e.kind() {
            ErrorKind::Invalid => Error::corruption(path, 0, "manifest", "tables that fit together", e),
            _ => e,
        })
    }
}
