//! Changes of the WAL log, and what each makes of a state.

use std::fmt;

use bytes::Bytes;
use strongroom::Retention;

use super::content::{self, SETTINGS};
use super::space::Kept;
use super::{Op, State, Step, TenantNumber, steps};

/// A change of the WAL log.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// A batch.
    Batch(TenantNumber, Vec<Op>),
    /// A batch of operations on keys and on ranges, in order.
    Steps(TenantNumber, Vec<Step>),
    /// A batch whose puts expire then.
    Expiring(TenantNumber, Vec<Op>, u64),
    /// A keyspace keeps its entries so long from now on.
    Retain(TenantNumber, String, Option<Retention>),
    /// Values of a keyspace go apart from so many bytes on.
    Separate(TenantNumber, String, Option<usize>),
    /// A tenant may take so many bytes.
    Quota(TenantNumber, Option<u64>),
    /// A keyspace came to be.
    Create(TenantNumber, String),
    /// A keyspace went, with its entries.
    Delete(TenantNumber, String),
}

/// The state after a change that was submitted then.
pub(super) fn apply(state: &mut State, change: &Change, now: u64) {
    let expires = match change {
        Change::Expiring(_, _, at) => Some(*at),
        _ => None,
    };
    match change {
        Change::Batch(number, ops) | Change::Expiring(number, ops, _) => {
            let spaces = state.entry(*number).or_default();
            for (space, key, value) in ops {
                let entries = &mut spaces.entry(space.clone()).or_default().entries;
                match value {
                    Some(value) => {
                        let kept = Kept {
                            value: value.clone(),
                            expires,
                            written: now,
                        };
                        entries.insert(key.clone(), kept);
                    }
                    None => drop(entries.remove(key)),
                }
            }
        }
        Change::Steps(number, steps) => steps::apply(state.entry(*number).or_default(), steps, now),
        Change::Retain(number, space, keep) => {
            let spaces = state.entry(*number).or_default();
            spaces.entry(space.clone()).or_default().retain(*keep, now);
        }
        Change::Separate(number, space, bytes) => {
            let spaces = state.entry(*number).or_default();
            spaces.entry(space.clone()).or_default().separate = *bytes;
        }
        Change::Quota(number, quota) => {
            let spaces = state.entry(*number).or_default();
            spaces.remove(SETTINGS);
            if let Some((key, value)) = quota.map(content::quota) {
                let kept = Kept {
                    value,
                    expires: None,
                    written: now,
                };
                let settings = spaces.entry(SETTINGS.to_string()).or_default();
                settings.entries.insert(key, kept);
            }
        }
        Change::Create(number, space) => {
            state
                .entry(*number)
                .or_default()
                .entry(space.clone())
                .or_default();
        }
        Change::Delete(number, space) => drop(state.entry(*number).or_default().remove(space)),
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Batch(number, ops) | Change::Expiring(number, ops, _) => {
                write!(f, "batch of tenant {number}:")?;
                if let Change::Expiring(_, _, at) = self {
                    write!(f, " until {at}:")?;
                }
                ops.iter().take(3).try_for_each(|(space, key, value)| {
                    write!(
                        f,
                        " {space}/{}={:?}",
                        key.escape_ascii(),
                        value.as_ref().map(Bytes::len)
                    )
                })?;
                write!(f, " ({} operations)", ops.len())
            }
            Change::Retain(number, space, keep) => {
                write!(f, "keyspace {space} of tenant {number} keeps {keep:?}")
            }
            Change::Separate(number, space, bytes) => {
                write!(
                    f,
                    "values of keyspace {space} of tenant {number} go apart from {bytes:?}"
                )
            }
            Change::Quota(number, quota) => write!(f, "tenant {number} may take {quota:?}"),
            Change::Steps(number, steps) => write!(f, "batch of tenant {number}: {steps:?}"),
            Change::Create(number, space) => write!(f, "create keyspace {space} of tenant {number}"),
            Change::Delete(number, space) => write!(f, "delete keyspace {space} of tenant {number}"),
        }
    }
}
