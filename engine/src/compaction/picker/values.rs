//! Value files: which are worth emptying, and which tables to write anew for that.
//!
//! A value file cannot shrink. It is emptied: tables that refer to it are written anew, what they need of it goes into
//! another file, and it goes with the last of them.

use std::collections::HashMap;

use super::{Action, Limits, Picker, Plan, Reason, ValueShape};
use crate::error::Result;
use crate::hooks::{planted, rare};

/// Garbage from which on a file is emptied, when nothing else is to be done.
pub(super) const GARBAGE_PERCENT: u64 = 50;
/// Garbage from which on a file is emptied before levels are brought to their sizes.
pub(super) const URGENT_PERCENT: u64 = 75;
/// A file of less than this part of a table's target size is small.
const SMALL_PART: u64 = 4;

fn has_garbage(file: &ValueShape, percent: u64) -> bool {
    let share = u128::from(file.garbage) * 100;
    file.garbage > 0 && share >= u128::from(file.bytes) * u128::from(percent)
}

/// When it has to be emptied for what has ended in it.
fn due(file: &ValueShape, limits: &Limits) -> Option<u64> {
    let due = file.expires?.checked_add(limits.expiry_grace)?;
    (!planted!(ValueFilesForgotten)).then_some(due)
}

/// Whether a table that is written anyway should take along what it needs of the file.
pub(super) fn worth_emptying(file: &ValueShape, now: u64, limits: &Limits) -> bool {
    has_garbage(file, GARBAGE_PERCENT)
        || file.bytes < limits.table_bytes / SMALL_PART
        || due(file, limits).is_some_and(|due| due <= now)
}

impl Picker<'_> {
    /// `plan`, which empties the files that `emptied` names.
    pub(super) fn emptying(&self, mut plan: Plan, emptied: impl Fn(&ValueShape) -> bool) -> Plan {
        if plan.action == Action::Merge {
            let files = self.shape.values.iter().filter(|file| emptied(file));
            plan.emptied = files.map(|file| file.number).collect();
        }
        plan
    }

    /// The files that are overdue, and since when.
    pub(super) fn values_due(&self) -> HashMap<u64, u64> {
        let files = self.shape.values.iter();
        files
            .filter_map(|file| Some((file.number, due(file, self.limits)?)))
            .filter(|(_, due)| *due <= self.shape.now)
            .collect()
    }

    /// A table that refers to the file with the largest share of garbage, if that is so many percent at least.
    pub(super) fn values(&self, percent: u64) -> Result<Option<Plan>> {
        if planted!(ValueGarbageKept) {
            return Ok(None);
        }
        let files = self.shape.values.iter().filter(|file| has_garbage(file, percent));
        let share = |file: &&ValueShape| u128::from(file.garbage) * 1000 / u128::from(file.bytes.max(1));
        let Some(worst) = files.max_by_key(share) else {
            return Ok(None);
        };
        // Deep tables first: those of level 0 go down soon.
        for (level, tables) in self.shape.levels.iter().enumerate().rev() {
            let refers = |table: &super::TableShape| table.values.contains(&worst.number);
            let Some(at) = tables.iter().position(refers) else {
                continue;
            };
            rare!(ValueFileEmptied);
            return match level {
                0 => self.level0(Reason::Values, false),
                _ => Ok(Some(self.rewrite(level, at, Reason::Values))),
            };
        }
        Ok(None)
    }
}
