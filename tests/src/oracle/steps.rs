//! Operations of a batch that also deletes ranges: in order, each on what the ones before it left.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, RangeBounds};

use bytes::Bytes;

use super::Op;
use super::space::{Kept, Space};

/// One of them.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// A put or a delete.
    Key(Op),
    /// Deletes a range of a keyspace.
    Range(String, (Bound<Bytes>, Bound<Bytes>)),
}

impl Step {
    /// The keyspace.
    pub fn space(&self) -> &String {
        match self {
            Step::Key((space, ..)) | Step::Range(space, _) => space,
        }
    }

    /// Keyspace and key, of one that is about a key.
    pub(super) fn key(&self) -> Option<(&String, &Bytes)> {
        match self {
            Step::Key((space, key, _)) => Some((space, key)),
            Step::Range(..) => None,
        }
    }
}

/// Does them.
pub(super) fn apply(spaces: &mut BTreeMap<String, Space>, steps: &[Step], now: u64) {
    for step in steps {
        let entries = &mut spaces.entry(step.space().clone()).or_default().entries;
        match step {
            Step::Key((_, key, Some(value))) => {
                let kept = Kept {
                    value: value.clone(),
                    expires: None,
                    written: now,
                };
                entries.insert(key.clone(), kept);
            }
            Step::Key((_, key, None)) => drop(entries.remove(key)),
            Step::Range(_, range) => entries.retain(|key, _| !range.contains(key)),
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |bound: &Bound<Bytes>| match bound {
            Bound::Unbounded => "..".to_string(),
            Bound::Included(key) => format!("={}", key.escape_ascii()),
            Bound::Excluded(key) => format!("<>{}", key.escape_ascii()),
        };
        match self {
            Step::Key((space, key, value)) => {
                write!(
                    f,
                    "{space}/{}={:?}",
                    key.escape_ascii(),
                    value.as_ref().map(Bytes::len)
                )
            }
            Step::Range(space, (from, to)) => write!(f, "{space}: {} to {} deleted", shown(from), shown(to)),
        }
    }
}
