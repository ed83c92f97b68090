//! Conditions of a batch: what must hold of the newest versions for it to be committed.
//!
//! They are judged under the commit lock, against the newest version that is in the log, acknowledged or not: a
//! batch that is committed then stands directly behind what it was compared with, and is lost with it if that is
//! lost. Judged once before the lock as well, which fails early and brings what is on disk into the cache.

use bytes::Bytes;

use crate::compaction::keyspace_of;
use crate::error::{Error, ErrorKind, Result};
use crate::expiry;
use crate::hooks::{planted, rare};
use crate::inner::Inner;
use crate::read::cursor::Found;
use crate::table::Owner;
use crate::tenant::Snapshot;
use crate::types::{SeqNo, TenantId};

/// One of them.
pub(crate) struct Condition {
    /// Keyspace and key.
    pub tree_key: Vec<u8>,
    pub holds: Holds,
}

/// What must be so. A value that has expired counts as none.
pub(crate) enum Holds {
    /// The key has this value; `None`: it has none.
    Value(Option<Bytes>),
    /// Nothing was written to the key since the snapshot, which lives as long as this, nor its keyspace's retention
    /// changed; and what was read did not end: its moment, if it has one.
    Unchanged { since: Snapshot, until: Option<u64> },
}

impl Inner {
    /// Ok if all hold for the newest versions at or below `at`.
    ///
    /// - Errors: `Conflict`; `NotFound` (tenant or keyspace gone); `Corruption`, `Io` when they cannot be read.
    pub fn check_conditions(&self, tenant: TenantId, conditions: &[Condition], at: SeqNo) -> Result<()> {
        if conditions.is_empty() || planted!(ConditionsIgnored) {
            return Ok(());
        }
        self.check_tenant(tenant)?;
        let view = self.view();
        for condition in conditions {
            let mut rule = None;
            if let Some(keyspace) = keyspace_of(&condition.tree_key) {
                self.check_keyspace(tenant, keyspace, None)?;
                rule = self.settings.rule(tenant, keyspace);
            }
            let newest = self.find(&view, tenant, &condition.tree_key, at)?;
            let holds = match &condition.holds {
                Holds::Value(expected) => {
                    let times = self.times.by(rule.as_deref());
                    let shows = |e: &Found| times.shows(e.kind, &e.value);
                    let value = match newest.filter(shows) {
                        Some(e) => {
                            let owner = Owner {
                                tenant,
                                key: &condition.tree_key,
                                seqno: e.seqno,
                            };
                            view.version.value(owner, e.kind, e.value)?
                        }
                        None => None,
                    };
                    value == *expected
                }
                Holds::Unchanged { since, until } => {
                    // What expired may be gone from the tables as well: only who read it knows.
                    let expired = until.is_some_and(|at| expiry::is_past(at, self.times.now()))
                        && !planted!(ReadMomentsForgotten);
                    if expired {
                        rare!(ReadExpiredBeforeCommit);
                    }
                    // By another retention another moment counts.
                    let ruled_anew = rule.is_some_and(|rule| rule.changed > since.seqno());
                    if ruled_anew {
                        rare!(RetentionChangedBeforeCommit);
                    }
                    !expired && !ruled_anew && newest.is_none_or(|e| e.seqno <= since.seqno())
                }
            };
            if !holds {
                rare!(ConditionFailed);
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "a condition of the batch does not hold: read again, and try again",
                ));
            }
        }
        Ok(())
    }
}
