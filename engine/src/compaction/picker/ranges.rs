//! Level 0 as ranges see it: what each of them merges, and pays for (`read::range_cost`).

use super::{Action, LEVEL_FACTOR, Picker, Plan, Reason, TableShape};
use crate::error::Result;
use crate::hooks::rare;

impl Picker<'_> {
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
