//! What to compact next. Pure: from the shape of a version to a plan.
//!
//! In this order:
//! 1. Tables of nothing but destroyed tenants are erased: no bytes are read.
//! 2. Level 0 at twice its trigger: writers are about to wait.
//! 3. Tables with much data of destroyed tenants, or any of dropped keyspaces, are written anew in
//!    their level (those of level 0 go down with all of it).
//! 4. Tables with values that expired longer than the grace ago are written anew in their level, the oldest first:
//!    before any of the work that never ends, so that it cannot put them off.
//! 5. Value files that are almost all garbage are emptied: tables that refer to them are written anew where they are.
//! 6. The level that is most over its size: level 0 by number of tables, level n by bytes, `level1_bytes`
//!    times 10^(n-1). Level 0 goes down whole; of another level the table that overlaps least below
//!    among the oldest few, which is cheap to tell and comes around to every table.
//! 7. Level 0, when ranges paid for it as much as its compaction costs (`read::range_cost`).
//! 8. Value files of which half is garbage.
//! 9. Tables that are mostly deletes, so that ranges of deleted keys do not slow down scans; and tables with range
//!    deletes, so that what those hide goes.
//!
//! Whatever is written anew takes along what it needs of value files that are worth emptying, or small.
//!
//! A table that overlaps nothing below moves without being written, unless something in it can be
//! dropped. Small tables beside the output are taken along, so that small tables grow.
//!
//! The first key of a table's first tenant and where its last one ends are sealed, so the picker asks for
//! them ([`Edges`]) only where two tables meet inside one tenant. If that tenant's key is destroyed a
//! table counts as covering all of the tenant: plans then take in more than needed, never less.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::error::Result;
use crate::hooks::{planted, rare};
use crate::types::TenantId;
use crate::version::LEVELS;

mod level0;
mod shape;
mod values;

pub(crate) use shape::{Edges, Limits, Shape, TableShape, ValueShape};

/// Growth from one level's target size to the next.
pub(crate) const LEVEL_FACTOR: u64 = 10;
/// A table is written anew when at least this share of it is destroyed tenants' data: 1 / 16.
const DEAD_SHARE: u64 = 16;
/// Tables considered when one is picked from a level over its size.
const CANDIDATES: usize = 8;
/// Largest plan of [`pick_everything`], in tables' target sizes.
const PLAN_TABLES: u64 = 25;

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    /// How.
    pub action: Action,
    /// Tables that leave, as (level, number). Those of one level >= 1 are neighbours.
    pub inputs: Vec<(usize, u64)>,
    /// The level that gets the result.
    pub output: usize,
    /// Why.
    pub reason: Reason,
    /// Value files, by number: what the results still need of them they take into others.
    pub emptied: Vec<u64>,
}

/// How a plan is carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Merge the inputs into new tables.
    Merge,
    /// Name the inputs in the output level, as they are.
    Move,
    /// Remove the inputs: all their tenants are destroyed.
    Erase,
}

/// Why something is compacted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    /// Data of destroyed tenants.
    Destroyed,
    /// Data of dropped keyspaces.
    Dropped,
    /// Values that expired.
    Expired,
    /// Too many tables in level 0.
    Level0,
    /// Ranges read past level 0 for longer than it is worth.
    Ranges,
    /// A level over its size.
    Size,
    /// Mostly deletes.
    Deletes,
    /// Much garbage in a value file.
    Values,
    /// The user asked.
    Asked,
}

/// What to do next, if anything.
pub(crate) fn pick(shape: &Shape, edges: &dyn Edges, limits: &Limits) -> Result<Option<Plan>> {
    let picker = Picker { shape, edges, limits };
    let plan = picker.pick()?;
    Ok(plan.map(|plan| picker.emptying(plan, |file| values::worth_emptying(file, shape.now, limits))))
}

/// What to do next so that in the end everything is in one level, and every table numbered below
/// `before` has been written anew: then no dropped data is left. None when that is reached.
pub(crate) fn pick_everything(
    shape: &Shape,
    edges: &dyn Edges,
    limits: &Limits,
    before: u64,
) -> Result<Option<Plan>> {
    let picker = Picker { shape, edges, limits };
    let plan = picker.pick_everything(before)?;
    Ok(plan.map(|plan| picker.emptying(plan, |file| file.number < before)))
}

/// A stretch of the tree, its end excluded. A None key stands for all of the tenant.
struct Stretch {
    first: (TenantId, Option<Bytes>),
    end: (TenantId, Option<Bytes>),
}

struct Picker<'a> {
    shape: &'a Shape,
    edges: &'a dyn Edges,
    limits: &'a Limits,
}

impl Picker<'_> {
    fn pick(&self) -> Result<Option<Plan>> {
        if let Some(plan) = self.erase() {
            return Ok(Some(plan));
        }
        let level0 = self.tables(0).len();
        if level0 >= self.limits.level0_tables.saturating_mul(2) {
            return self.level0(Reason::Level0, true);
        }
        if let Some(plan) = self.garbage()? {
            return Ok(Some(plan));
        }
        if let Some(plan) = self.expired()? {
            return Ok(Some(plan));
        }
        if let Some(plan) = self.values(values::URGENT_PERCENT)? {
            return Ok(Some(plan));
        }
        match self.fullest() {
            Some(0) => return self.level0(Reason::Level0, true),
            Some(level) => return self.level(level),
            None => {}
        }
        if let Some(plan) = self.paid_for()? {
            return Ok(Some(plan));
        }
        match self.values(values::GARBAGE_PERCENT)? {
            Some(plan) => Ok(Some(plan)),
            None => self.deletes(),
        }
    }

    fn pick_everything(&self, before: u64) -> Result<Option<Plan>> {
        if let Some(plan) = self.erase() {
            return Ok(Some(plan));
        }
        if self.tables(0).iter().any(|table| table.number < before) {
            return self.level0(Reason::Asked, false);
        }
        let mut filled = (1..LEVELS).filter(|level| !self.tables(*level).is_empty());
        match (filled.next(), filled.next()) {
            (Some(level), Some(_)) => self.push(level),
            (Some(level), None) => Ok(self.rewrite_old(level, before)),
            _ => Ok(None),
        }
    }

    fn tables(&self, level: usize) -> &[TableShape] {
        self.shape.levels.get(level).map_or(&[], Vec::as_slice)
    }

    fn erase(&self) -> Option<Plan> {
        let levels = self.shape.levels.iter().enumerate();
        let dead = levels.flat_map(|(level, tables)| tables.iter().map(move |table| (level, table)));
        let inputs: Vec<_> = dead
            .filter(|(_, table)| table.all_dead)
            .map(|(level, table)| (level, table.number))
            .collect();
        if !inputs.is_empty() {
            rare!(DeadTablesErased);
        }
        let output = LEVELS - 1;
        (!inputs.is_empty()).then_some(Plan {
            action: Action::Erase,
            inputs,
            output,
            reason: Reason::Destroyed,
            emptied: Vec::new(),
        })
    }

    /// Whether nothing in the table could be dropped on the way to `output`, where it overlaps nothing.
    fn movable(&self, table: &TableShape, stretch: &Stretch, output: usize) -> Result<bool> {
        if table.dead_bytes > 0 || table.dropped || table.expires.is_some_and(|at| at <= self.shape.now) {
            return Ok(false);
        }
        Ok(table.deletes + table.range_deletes == 0 || self.overlaps_below(output, stretch)?)
    }

    fn overlaps_below(&self, level: usize, stretch: &Stretch) -> Result<bool> {
        for below in level + 1..LEVELS {
            if !self.overlapping(below, stretch)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The table of levels >= 1 with the largest share of droppable data, written anew where it is.
    fn garbage(&self) -> Result<Option<Plan>> {
        let share = |table: &TableShape| match table {
            _ if table.dead_bytes.saturating_mul(DEAD_SHARE) >= table.bytes.max(1) => {
                table.dead_bytes.saturating_mul(100) / table.bytes.max(1) + 1
            }
            _ => u64::from(table.dropped),
        };
        let mut worst: Option<(u64, usize, usize)> = None;
        for level in 0..LEVELS {
            for (at, table) in self.tables(level).iter().enumerate() {
                let share = share(table);
                if share > 0 && worst.is_none_or(|(worst, _, _)| share > worst) {
                    worst = Some((share, level, at));
                }
            }
        }
        let Some((_, level, at)) = worst else {
            return Ok(None);
        };
        let Some(table) = self.tables(level).get(at) else {
            return Ok(None);
        };
        let reason = if table.dead_bytes > 0 {
            rare!(DestroyedTenantWrittenOut);
            Reason::Destroyed
        } else {
            Reason::Dropped
        };
        if level == 0 {
            return self.level0(reason, false);
        }
        Ok(Some(self.rewrite(level, at, reason)))
    }

    /// The table whose values have waited longest since they expired, if longer than they may. The job leaves out all
    /// that has expired when it begins, so that the same table is not picked again.
    fn expired(&self) -> Result<Option<Plan>> {
        let due = |table: &TableShape| {
            let due = table.expires?.checked_add(self.limits.expiry_grace)?;
            (due <= self.shape.now && !planted!(ExpiredTablesForgotten)).then_some(due)
        };
        let values = self.values_due();
        let due = |table: &TableShape| {
            let of_values = table.values.iter().filter_map(|file| values.get(file).copied());
            due(table).into_iter().chain(of_values).min()
        };
        let levels = self.shape.levels.iter().enumerate();
        let tables = levels.flat_map(|(level, tables)| {
            tables
                .iter()
                .enumerate()
                .map(move |(at, table)| (level, at, table))
        });
        let Some((_, level, at)) = tables
            .filter_map(|(level, at, table)| Some((due(table)?, level, at)))
            .min()
        else {
            return Ok(None);
        };
        rare!(ExpiredWrittenOut);
        if level == 0 {
            return self.level0(Reason::Expired, false);
        }
        Ok(Some(self.rewrite(level, at, Reason::Expired)))
    }

    /// One table written anew in its level, small neighbours with it.
    fn rewrite(&self, level: usize, at: usize, reason: Reason) -> Plan {
        let inputs = self.with_small(level, Slice { from: at, to: at + 1 }, 0);
        plan(Action::Merge, &[(level, &inputs)], level, reason)
    }

    /// The level most over its target.
    fn fullest(&self) -> Option<usize> {
        let mut target = self.limits.level1_bytes.max(1);
        let mut fullest = None;
        for level in 0..LEVELS - 1 {
            let score = if level == 0 {
                (self.tables(0).len() as u64).saturating_mul(100) / (self.limits.level0_tables.max(1) as u64)
            } else {
                let bytes: u64 = self.tables(level).iter().map(|table| table.bytes).sum();
                let over = u64::from(bytes > target);
                let score = (u128::from(bytes) * 100 / u128::from(target)).min(u128::from(u64::MAX)) as u64;
                target = target.saturating_mul(LEVEL_FACTOR);
                score.max(100) * over
            };
            if score >= 100 && fullest.is_none_or(|(best, _)| score > best) {
                fullest = Some((score, level));
            }
        }
        fullest.map(|(_, level)| level)
    }

    /// One table of a level over its size, one level down.
    fn level(&self, level: usize) -> Result<Option<Plan>> {
        let mut oldest: Vec<&TableShape> = self.tables(level).iter().collect();
        oldest.sort_by_key(|table| table.number);
        oldest.truncate(CANDIDATES);
        let mut best: Option<(u64, &TableShape)> = None;
        for table in oldest {
            let below = self.overlapping(level + 1, &self.stretch(&[table])?)?;
            let bytes: u64 = self.slice(level + 1, below).iter().map(|table| table.bytes).sum();
            let cost =
                (u128::from(bytes) * 1000 / u128::from(table.bytes.max(1))).min(u128::from(u64::MAX)) as u64;
            if best.is_none_or(|(best, _)| cost < best) {
                best = Some((cost, table));
            }
        }
        match best {
            Some((_, table)) => {
                rare!(LevelOverSize);
                self.down(level, table, Reason::Size).map(Some)
            }
            None => Ok(None),
        }
    }

    /// `table` one level down.
    fn down(&self, level: usize, table: &TableShape, reason: Reason) -> Result<Plan> {
        let stretch = self.stretch(&[table])?;
        let below = self.overlapping(level + 1, &stretch)?;
        if below.is_empty() && self.movable(table, &stretch, level + 1)? {
            rare!(TableMovedDown);
            return Ok(plan(Action::Move, &[(level, &[table])], level + 1, reason));
        }
        let below = self.with_small(level + 1, below, table.bytes);
        Ok(plan(
            Action::Merge,
            &[(level, &[table]), (level + 1, &below)],
            level + 1,
            reason,
        ))
    }

    /// A table that is mostly deletes every snapshot sees, or has range deletes that they all see: down to what it deletes, or written anew
    /// where there is nothing below. Either way the same table is not picked twice for it.
    fn deletes(&self) -> Result<Option<Plan>> {
        for level in 1..LEVELS {
            for (at, table) in self.tables(level).iter().enumerate() {
                let mostly = table.deletes > 0 && table.deletes.saturating_mul(2) >= table.entries;
                if !(mostly || table.range_deletes > 0) || table.seqno_max > self.shape.oldest_snapshot {
                    continue;
                }
                rare!(MostlyDeletesWrittenAnew);
                if self.overlaps_below(level, &self.stretch(&[table])?)? {
                    return self.down(level, table, Reason::Deletes).map(Some);
                }
                return Ok(Some(self.rewrite(level, at, Reason::Deletes)));
            }
        }
        Ok(None)
    }

    /// The first tables of a level, as many as make a bearable plan, one level down.
    fn push(&self, level: usize) -> Result<Option<Plan>> {
        let most = self.limits.table_bytes.saturating_mul(PLAN_TABLES);
        let mut chosen = None;
        let mut inputs: Vec<&TableShape> = Vec::new();
        for table in self.tables(level) {
            inputs.push(table);
            let below = self.slice(level + 1, self.overlapping(level + 1, &self.stretch(&inputs)?)?);
            let bytes: u64 = inputs.iter().copied().chain(below).map(|table| table.bytes).sum();
            if chosen.is_some() && bytes > most {
                break;
            }
            chosen = Some((inputs.clone(), below));
        }
        Ok(chosen.map(|(inputs, below)| {
            let action = if below.is_empty() {
                Action::Move
            } else {
                Action::Merge
            };
            let below: Vec<&TableShape> = below.iter().collect();
            plan(
                action,
                &[(level, &inputs), (level + 1, &below)],
                level + 1,
                Reason::Asked,
            )
        }))
    }

    /// The first neighbours of a level that are numbered below `before`, written anew where they are.
    fn rewrite_old(&self, level: usize, before: u64) -> Option<Plan> {
        let most = self.limits.table_bytes.saturating_mul(PLAN_TABLES);
        let old = self
            .tables(level)
            .iter()
            .skip_while(|table| table.number >= before);
        let mut bytes = 0u64;
        let inputs: Vec<&TableShape> = old
            .take_while(|table| {
                let first = bytes == 0;
                bytes = bytes.saturating_add(table.bytes.max(1));
                table.number < before && (first || bytes <= most)
            })
            .collect();
        (!inputs.is_empty()).then(|| plan(Action::Merge, &[(level, &inputs)], level, Reason::Asked))
    }

    /// From the first key of the tables to where they end.
    fn stretch(&self, tables: &[&TableShape]) -> Result<Stretch> {
        let first_tenant = tables
            .iter()
            .map(|table| table.tenant_min)
            .min()
            .unwrap_or_default();
        let last_tenant = tables
            .iter()
            .map(|table| table.tenant_max)
            .max()
            .unwrap_or_default();
        let mut first: Option<Option<Bytes>> = None;
        let mut end: Option<Option<Bytes>> = None;
        for table in tables {
            if table.tenant_min == first_tenant {
                let key = self.edges.first(table.number)?;
                // None, all of the tenant, is the smallest.
                first = Some(first.map_or(key.clone(), |first| first.min(key)));
            }
            if table.tenant_max == last_tenant {
                let key = self.edges.end(table.number)?;
                end = Some(match (end, key) {
                    (None, key) => key,
                    (Some(Some(end)), Some(key)) => Some(end.max(key)),
                    _ => None,
                });
            }
        }
        Ok(Stretch {
            first: (first_tenant, first.flatten()),
            end: (last_tenant, end.flatten()),
        })
    }

    /// The tables of a level >= 1 that overlap the stretch: neighbours.
    fn overlapping(&self, level: usize, stretch: &Stretch) -> Result<Slice> {
        let tables = self.tables(level);
        let from = partition(tables, |table| self.ends_before(table, &stretch.first))?;
        let to = partition(tables, |table| Ok(!self.starts_after(table, &stretch.end)?))?;
        Ok(Slice {
            from,
            to: to.max(from),
        })
    }

    fn ends_before(&self, table: &TableShape, first: &(TenantId, Option<Bytes>)) -> Result<bool> {
        match table.tenant_max.cmp(&first.0) {
            Ordering::Less => Ok(true),
            Ordering::Greater => Ok(false),
            Ordering::Equal => match &first.1 {
                Some(first) => Ok(self.edges.end(table.number)?.is_some_and(|end| end <= *first)),
                None => Ok(false),
            },
        }
    }

    fn starts_after(&self, table: &TableShape, end: &(TenantId, Option<Bytes>)) -> Result<bool> {
        match table.tenant_min.cmp(&end.0) {
            Ordering::Greater => Ok(true),
            Ordering::Less => Ok(false),
            Ordering::Equal => match &end.1 {
                Some(end) => Ok(self.edges.first(table.number)?.is_some_and(|first| first >= *end)),
                None => Ok(false),
            },
        }
    }

    fn slice(&self, level: usize, slice: Slice) -> &[TableShape] {
        self.tables(level).get(slice.from..slice.to).unwrap_or_default()
    }

    /// The slice with neighbours that are below half a table's size, as long as none is larger than all
    /// of the plan before it: so a small table doubles each time it is written.
    fn with_small(&self, level: usize, slice: Slice, others: u64) -> Vec<&TableShape> {
        let tables = self.tables(level);
        let Slice { mut from, mut to } = slice;
        let mut bytes: u64 = others
            + self
                .slice(level, slice)
                .iter()
                .map(|table| table.bytes)
                .sum::<u64>();
        let fits = |table: Option<&TableShape>, bytes: u64| {
            let small =
                |table: &&TableShape| table.bytes < self.limits.table_bytes / 2 && table.bytes <= bytes;
            table.filter(small).map(|table| table.bytes)
        };
        while let Some(more) = fits(from.checked_sub(1).and_then(|at| tables.get(at)), bytes) {
            from -= 1;
            bytes += more;
        }
        while let Some(more) = fits(tables.get(to), bytes) {
            to += 1;
            bytes += more;
        }
        self.slice(level, Slice { from, to }).iter().collect()
    }
}

/// Neighbouring tables of a level, by index.
#[derive(Clone, Copy)]
struct Slice {
    from: usize,
    to: usize,
}

impl Slice {
    fn is_empty(self) -> bool {
        self.from == self.to
    }
}

fn plan(action: Action, inputs: &[(usize, &[&TableShape])], output: usize, reason: Reason) -> Plan {
    let inputs = inputs
        .iter()
        .flat_map(|(level, tables)| tables.iter().map(|table| (*level, table.number)));
    Plan {
        action,
        inputs: inputs.collect(),
        output,
        reason,
        emptied: Vec::new(),
    }
}

/// Index of the first table for which `before` no longer holds. It holds for a prefix of the level.
fn partition(tables: &[TableShape], before: impl Fn(&TableShape) -> Result<bool>) -> Result<usize> {
    let (mut low, mut high) = (0, tables.len());
    while low < high {
        let middle = low + (high - low) / 2;
        match tables.get(middle) {
            Some(table) if before(table)? => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests;
