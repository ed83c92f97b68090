//! The parts that a compaction is carried out in, each by a thread of its own. Pure: no files, no keys, no threads.
//!
//! ```text
//! inputs      |----A----|--B--|---------------C---------------|     tenants, each with bytes in several tables
//! pieces      |    .    |     |   .    .     .    .    .   .  |     how much lies before which bound (`weigh`)
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

    /// Behind all of the tenant's.
    fn behind(tenant: TenantId) -> Bound {
        Bound {
            tenant: TenantId(tenant.0.saturating_add(1)),
            key: Bytes::new(),
        }
    }
}

/// So many bytes of one table that lie before `end`, and behind the table's piece before.
struct Piece {
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
fn cut(mut pieces: Vec<Piece>, most: usize, least: u64) -> Vec<Part> {
    let total = pieces
        .iter()
        .fold(0u64, |sum, piece| sum.saturating_add(piece.bytes));
    let wanted = (total / least.max(1)).min(most as u64).max(1);
    pieces.sort_unstable_by(|a, b| a.end.cmp(&b.end));
    let mut parts = Vec::new();
    let mut from = None;
    let (mut before, mut since) = (0u64, 0u64);
    for together in pieces.chunk_by(|a, b| a.end == b.end) {
        let done = parts.len() as u128 + 1;
        if done == u128::from(wanted) {
            break;
        }
        for piece in together {
            before = before.saturating_add(piece.bytes);
            since = since.saturating_add(piece.bytes);
        }
        let target = u128::from(total) * done / u128::from(wanted);
        let enough = since.min(total - before) >= least.div_ceil(2);
        if u128::from(before) >= target
            && enough
            && let Some(piece) = together.first()
        {
            let to = Some(piece.end.clone());
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

#[cfg(test)]
mod tests;
