//! The parts that a compaction is carried out in, each by a thread of its own. Pure: no files, no keys, no threads.
//!
//! ```text
//! inputs      |----A----|--B--|---------------C---------------|     tenants, each with bytes in several tables
//! pieces      |    .    |     |   .    .     .    .    .   .  |     how much of a table lies between bounds (`weigh`)
//! parts       |<-------- 1 -------->|<----- 2 ----->|<-- 3 -->|     about equal bytes (`cut`), done apart (`run`)
//! ```
//!
//! Invariants: parts follow each other without a gap, from before everything to behind everything. A bound is a tenant
//! and a tree key without a version, so that all versions of a key are in one part. Wherever bounds are, the parts
//! together are the compaction: what pieces say decides how equal they are and nothing else.

mod run;
mod weigh;

use bytes::Bytes;

use crate::table::KeyRange;
use crate::types::TenantId;

pub(crate) use run::{DoPart, carry_out};
pub(crate) use weigh::parts_of;

/// A place between the keys of the tree.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bound {
    tenant: TenantId,
    /// Tree key; empty before all of the tenant's.
    key: Bytes,
}

impl Bound {
    /// Before all versions of `key`, which is a tree key or shorter than one, as separators are.
    fn at(tenant: TenantId, key: &[u8]) -> Bound {
        let mut key = key.to_vec();
        // No tree key lies in between; and a range delete that is cut here stays in its keyspace.
        key.resize(key.len().max(4), 0);
        Bound {
            tenant,
            key: key.into(),
        }
    }

    /// Before all of the tenant's.
    fn before(tenant: TenantId) -> Bound {
        Bound {
            tenant,
            key: Bytes::new(),
        }
    }

    /// Behind all of the tenant's.
    fn behind(tenant: TenantId) -> Bound {
        Bound::before(TenantId(tenant.0.saturating_add(1)))
    }
}

/// So many bytes of one table that lie somewhere from one bound up to another.
struct Piece {
    from: Bound,
    end: Bound,
    bytes: u64,
}

/// What lies from one bound up to another, exclusive. Without them: everything.
#[derive(Clone, Default)]
pub(crate) struct Part {
    from: Option<Bound>,
    to: Option<Bound>,
}

impl Part {
    /// What of `tenant` is in it; None if nothing can be.
    pub fn of(&self, tenant: TenantId) -> Option<KeyRange<'_>> {
        let lower = match &self.from {
            Some(from) if from.tenant > tenant => return None,
            Some(from) if from.tenant == tenant => &from.key[..],
            _ => &[],
        };
        let upper = match &self.to {
            Some(to) if to.tenant < tenant || (to.tenant == tenant && to.key.is_empty()) => return None,
            Some(to) if to.tenant == tenant => Some(&to.key[..]),
            _ => None,
        };
        Some(KeyRange { lower, upper })
    }
}

/// At most `most` parts of about equal bytes, none with less than about `least`. One if there is not enough for two.
fn cut(pieces: &[Piece], most: usize, least: u64) -> Vec<Part> {
    let mut bounds: Vec<&Bound> = pieces
        .iter()
        .flat_map(|piece| [&piece.from, &piece.end])
        .collect();
    bounds.sort_unstable();
    bounds.dedup();
    let between = spread(pieces, &bounds);
    let total: u64 = between.iter().sum();
    let wanted = (total / least.max(1)).min(most as u64).max(1);
    let mut parts = Vec::new();
    let mut from = None;
    let (mut before, mut since) = (0, 0);
    for (at, bytes) in between.iter().enumerate() {
        let done = parts.len() as u128 + 1;
        if done == u128::from(wanted) {
            break;
        }
        before += bytes;
        since += bytes;
        // Here if that is nearer to the target than at the next bound.
        let next = between.get(at + 1).unwrap_or(&0);
        let near = u128::from(before + next / 2) >= u128::from(total) * done / u128::from(wanted);
        if near
            && since.min(total - before) >= least.div_ceil(2)
            && let Some(bound) = bounds.get(at + 1)
        {
            let to = Some(Bound::clone(bound));
            parts.push(Part {
                from: std::mem::replace(&mut from, to.clone()),
                to,
            });
            since = 0;
        }
    }
    parts.push(Part { from, to: None });
    parts
}

/// How many bytes lie between each bound and the next. Those of a piece are taken to be spread evenly over what it
/// reaches across: bounds of other tables are dense where there is much. Counted whole at its end, a piece would be missed
/// by every cut before that, once for each of the tables that overlap.
fn spread(pieces: &[Piece], bounds: &[&Bound]) -> Vec<u64> {
    // How much more there is in each than in the one before.
    let mut changes = vec![0i128; bounds.len()];
    for piece in pieces {
        let (from, end) = (
            bounds.partition_point(|bound| **bound < piece.from),
            bounds.partition_point(|bound| **bound < piece.end),
        );
        let Some(across) = end.checked_sub(from).filter(|across| *across > 0) else {
            continue;
        };
        let each = i128::from(piece.bytes / across as u64);
        if let Some(change) = changes.get_mut(from) {
            *change += each;
        }
        if let Some(change) = changes.get_mut(end) {
            *change -= each;
        }
    }
    let mut here = 0i128;
    let sums = changes.iter().map(|change| {
        here += change;
        u64::try_from(here).unwrap_or(0)
    });
    sums.collect()
}

#[cfg(test)]
mod tests;
