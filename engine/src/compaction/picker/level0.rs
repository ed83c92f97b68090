//! Plans for level 0: all of it goes down, merged or as it is; also when ranges paid for it (`read::range_cost`).

use super::{Action, LEVEL_FACTOR, Picker, Plan, Reason, TableShape, plan};
use crate::error::Result;
use crate::hooks::rare;

impl Picker<'_> {
    /// All of level 0 into level 1.
    pub(super) fn level0(&self, reason: Reason, may_move: bool) -> Result<Option<Plan>> {
        let inputs: Vec<&TableShape> = self.tables(0).iter().collect();
        if inputs.is_empty() {
            return Ok(None);
        }
        if may_move && self.level0_fits(&inputs)? {
            rare!(Level0Moved);
            return Ok(Some(plan(Action::Move, &[(0, &inputs)], 1, reason)));
        }
        let stretch = self.stretch(&inputs)?;
        let below = self.overlapping(1, &stretch)?;
        let below = self.with_small(1, below, inputs.iter().map(|table| table.bytes).sum());
        Ok(Some(plan(Action::Merge, &[(0, &inputs), (1, &below)], 1, reason)))
    }

    /// Whether the tables of level 0 overlap neither each other nor level 1 and are worth keeping.
    fn level0_fits(&self, inputs: &[&TableShape]) -> Result<bool> {
        let small = |table: &&TableShape| table.bytes < self.limits.table_bytes / 4;
        if inputs.iter().any(small) {
            return Ok(false);
        }
        let mut stretches = Vec::new();
        for table in inputs {
            let stretch = self.stretch(&[table])?;
            if !self.overlapping(1, &stretch)?.is_empty() || !self.movable(table, &stretch, 1)? {
                return Ok(false);
            }
            stretches.push(stretch);
        }
        stretches.sort_by(|left, right| left.first.cmp(&right.first));
        Ok(stretches.is_sorted_by(|left, right| {
            left.end.0 < right.first.0
                || (left.end.0 == right.first.0
                    && matches!((&left.end.1, &right.first.1), (Some(end), Some(first)) if end <= first))
        }))
    }

    /// Level 0, if ranges paid its price. Not while it is so little beside what it overlaps that it would cost more than
    /// levels do otherwise.
    pub(super) fn paid_for(&self) -> Result<Option<Plan>> {
        let level0: u64 = self.tables(0).iter().map(|table| table.bytes).sum();
        if self.shape.ranges_paid < level0.max(1) {
            return Ok(None);
        }
        let Some(plan) = self.level0(Reason::Ranges, true)? else {
            return Ok(None);
        };
        let is_input = |level: usize, table: &TableShape| plan.inputs.contains(&(level, table.number));
        let below = self.tables(1).iter().filter(|table| is_input(1, table));
        let below: u64 = below.map(|table| table.bytes).sum();
        let worth = level0.saturating_mul(LEVEL_FACTOR) >= below;
        let paid = plan.action == Action::Move || self.shape.ranges_paid >= level0.saturating_add(below);
        if worth && paid {
            rare!(Level0PaidForByRanges);
        }
        Ok((worth && paid).then_some(plan))
    }
}
