//! What is known of a pair from outside: who ruled when, what was written, what was acknowledged. The oracle.
//!
//! Reigns form a tree: each begins at a position of its parent. A node's log is one path of it, so what a
//! node must hold at a position follows from its epoch alone: the writes of every reign on the path, up to
//! where the next one begins.
//!
//! What must hold:
//!
//! 1. No epoch is used twice.
//! 2. A write acknowledged at `Replicated` lies on the path of every later reign whose node confirmed it.
//!    An operator who promotes a node that never confirmed it gives it up, in so many words.
//! 3. A node's content is exactly the fold of its path, up to its position.
//! 4. Reads and `Replicated` writes at the newest reign are linearizable, key by key.

use std::collections::{BTreeMap, BTreeSet};

use strongroom::{CommitTicket, Epoch, EpochStart, Lsn, Position};

use super::mortal::{Change, Mortals};
use super::net::NodeId;
use crate::canary;
use crate::history::{self, Action, Operation};

/// A client's key: number of the tenant, number of the key.
pub type Key = (u64, u64);

/// What a client's write does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Puts a register: a key that only this changes.
    Register,
    /// Changes what is mortal.
    Mortal(Change),
}

/// How a write ended for its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// No answer yet.
    Open,
    /// Acknowledged.
    Ok,
    /// May or may not survive.
    Unknown,
    /// Certainly not there.
    Refused,
}

/// A client's write.
#[derive(Clone, Debug)]
pub struct Write {
    /// Unique; the value stored names it.
    pub id: u64,
    /// Which key.
    pub key: Key,
    /// What it does to it.
    pub what: What,
    /// Where it stands, if the engine said so.
    pub at: Option<Position>,
    /// Epoch of the primary it was sent to.
    pub epoch: Epoch,
    /// Acknowledged only when a standby has it.
    pub replicated: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// Nodes known to hold it durably when it was acknowledged.
    pub holders: BTreeSet<NodeId>,
    /// Given up by a promotion of a node that never confirmed it.
    pub given_up: bool,
    invoked: u64,
    returned: u64,
}

/// A reign.
#[derive(Clone, Copy, Debug)]
pub struct Reign {
    /// Who ruled.
    pub node: NodeId,
    /// The reign it goes on from.
    pub parent: Epoch,
    /// Where.
    pub start: Lsn,
}

/// A commit that waits for a standby.
pub struct Pending {
    /// Where it was written.
    pub node: NodeId,
    /// Which write.
    pub write: usize,
    /// Its ticket.
    pub ticket: CommitTicket,
    /// When its client gives up.
    pub until: u64,
}

/// What a node must hold.
#[derive(Default)]
pub struct Expected {
    /// The write that is there, by register.
    pub registers: BTreeMap<Key, u64>,
    /// What is mortal, by tenant.
    pub mortals: BTreeMap<u64, Mortals>,
}

/// All of it.
#[derive(Default)]
pub struct Ledger {
    /// Reigns by epoch.
    pub reigns: BTreeMap<Epoch, Reign>,
    /// Writes in order of invocation.
    pub writes: Vec<Write>,
    /// Commits without an outcome.
    pub pending: Vec<Pending>,
    /// Tenants whose deletion was asked for.
    pub deleted: BTreeSet<u64>,
    /// Tenants created so far.
    pub tenants: u64,
    /// How far each standby confirmed, by node and epoch.
    confirmed: BTreeMap<(NodeId, Epoch), Lsn>,
    /// How far each standby told that it has synced, by node and epoch.
    synced: BTreeMap<(NodeId, Epoch), Lsn>,
    /// Whole keystores by the primary's epoch and version, as it had them when it told of the version.
    keystores: BTreeMap<(Epoch, u64), Vec<u8>>,
    reads: Vec<Operation>,
    /// A promotion gave acknowledged writes up: histories are no longer judged.
    pub gave_up: bool,
    ticks: u64,
}

/// Name of a tenant.
pub fn tenant_name(tenant: u64) -> String {
    format!("{}-{tenant}", canary::TENANT)
}

/// Bytes of a key.
pub fn key_bytes(key: u64) -> String {
    format!("{}-{key}", canary::KEY)
}

/// Bytes of a value: names the write, and is as long as it is told.
pub fn value_bytes(id: u64, len: usize) -> String {
    format!("{}-{id}-{}", canary::VALUE, "x".repeat(len))
}

/// The write a value names.
pub fn id_of(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    text.strip_prefix(canary::VALUE)?.split('-').nth(1)?.parse().ok()
}

impl Ledger {
    fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    /// The newest reign.
    pub fn newest(&self) -> Epoch {
        self.reigns.keys().next_back().copied().unwrap_or_default()
    }

    /// The path that ends in `epoch`: each reign with where it ends, newest first.
    fn path(&self, epoch: Epoch) -> Vec<(Epoch, Lsn)> {
        let (mut path, mut at, mut end) = (Vec::new(), epoch, Lsn(u64::MAX));
        while let Some(reign) = self.reigns.get(&at) {
            path.push((at, end));
            end = end.min(reign.start);
            at = reign.parent;
        }
        path
    }

    /// Whether a write lies on the path of `epoch`.
    fn on_path(&self, write: &Write, epoch: Epoch) -> bool {
        let Some(at) = write.at else { return false };
        self.path(epoch)
            .iter()
            .any(|(of, end)| *of == at.epoch && at.lsn <= *end)
    }

    /// A reign begins. `parent` and `start` as the engine told them.
    pub fn begin(&mut self, epoch: Epoch, node: NodeId, parent: Epoch, start: Lsn) -> Result<(), String> {
        if let Some(old) = self.reigns.get(&epoch) {
            return Err(format!(
                "epoch {epoch} is used by node {node} and was by node {}",
                old.node
            ));
        }
        self.reigns.insert(epoch, Reign { node, parent, start });
        for i in 0..self.writes.len() {
            let write = &self.writes[i];
            let acknowledged = write.replicated && write.outcome == Outcome::Ok && !write.given_up;
            if !acknowledged || self.on_path(write, epoch) {
                continue;
            }
            if write.holders.contains(&node) {
                return Err(format!(
                    "write {} at {} of {}, confirmed by {:?}, is lost in reign {epoch} of node {node}, which begins at {start} of {parent}",
                    write.id,
                    write.at.unwrap_or_default().lsn,
                    write.epoch,
                    write.holders
                ));
            }
            self.writes[i].given_up = true;
            self.gave_up = true;
        }
        Ok(())
    }

    /// Reigns of a log that were never served: a promotion that became durable and went no further.
    pub fn learn(&mut self, history: &[EpochStart], node: NodeId) -> Result<(), String> {
        let mut parent = Epoch::ZERO;
        for reign in history {
            if !self.reigns.contains_key(&reign.epoch) {
                self.begin(reign.epoch, node, parent, reign.start)?;
            }
            parent = reign.epoch;
        }
        Ok(())
    }

    /// A standby has the log of `epoch` up to `lsn` on stable storage.
    pub fn synced(&mut self, standby: NodeId, epoch: Epoch, lsn: Lsn) {
        let known = self.synced.entry((standby, epoch)).or_default();
        *known = (*known).max(lsn);
    }

    /// A standby's acknowledgement confirmed commits of `epoch` up to `lsn`: it must have synced them.
    pub fn confirm(&mut self, standby: NodeId, epoch: Epoch, lsn: Lsn) -> Result<(), String> {
        let synced = self.synced.get(&(standby, epoch)).copied().unwrap_or_default();
        if lsn > synced {
            return Err(format!(
                "commits of {epoch} up to {lsn} are confirmed, node {standby} synced up to {synced}"
            ));
        }
        let known = self.confirmed.entry((standby, epoch)).or_default();
        *known = (*known).max(lsn);
        Ok(())
    }

    /// The primary of `epoch` tells of its keystore's `version`; `all` is the whole of it.
    pub fn told_keys(&mut self, epoch: Epoch, version: u64, all: Vec<u8>) {
        self.keystores.insert((epoch, version), all);
    }

    /// A standby took everything up to `version` of the primary of `epoch`: it must have the same keystore.
    pub fn took_keys(&self, standby: NodeId, epoch: Epoch, version: u64, all: &[u8]) -> Result<(), String> {
        match self.keystores.get(&(epoch, version)) {
            Some(told) if told == all => Ok(()),
            Some(_) => Err(format!(
                "node {standby} has other keys at version {version} than the primary of {epoch}"
            )),
            None => Err(format!("nobody told of version {version} in {epoch}")),
        }
    }

    // ---- clients ----

    /// A write is about to be sent to the primary of `epoch`.
    pub fn invoke(&mut self, key: Key, what: What, epoch: Epoch, replicated: bool) -> usize {
        let invoked = self.tick();
        let id = self.writes.len() as u64 + 1;
        self.writes.push(Write {
            id,
            key,
            what,
            at: None,
            epoch,
            replicated,
            outcome: Outcome::Open,
            holders: BTreeSet::new(),
            given_up: false,
            invoked,
            returned: u64::MAX,
        });
        self.writes.len() - 1
    }

    /// It ended. `Ok`: what was acknowledged must be held by a standby, if it was asked for.
    pub fn ended(&mut self, write: usize, outcome: Outcome) -> Result<(), String> {
        let tick = self.tick();
        let at = self.writes[write].at;
        let holders: BTreeSet<NodeId> = match at {
            Some(at) => self
                .confirmed
                .iter()
                .filter(|((_, epoch), lsn)| *epoch == at.epoch && **lsn >= at.lsn)
                .map(|((node, _), _)| *node)
                .chain(self.reigns.get(&at.epoch).map(|reign| reign.node))
                .collect(),
            None => BTreeSet::new(),
        };
        let record = &mut self.writes[write];
        record.outcome = outcome;
        record.returned = tick;
        record.holders = holders;
        if outcome != Outcome::Ok || !record.replicated {
            return Ok(());
        }
        let record = self.writes[write].clone();
        if record.holders.len() < 2 {
            return Err(format!(
                "write {} of {} was acknowledged and no standby confirmed it",
                record.id, record.epoch
            ));
        }
        // Acknowledged late, behind a promotion: then that one must have it.
        for (epoch, reign) in self.reigns.range(Epoch(record.epoch.0 + 1)..) {
            let lost = !self.on_path(&record, *epoch);
            if lost && record.holders.contains(&reign.node) {
                return Err(format!(
                    "write {} of {} was acknowledged, and reign {epoch} of node {} went on without it",
                    record.id, record.epoch, reign.node
                ));
            }
            if lost {
                self.writes[write].given_up = true;
                self.gave_up = true;
                break;
            }
        }
        Ok(())
    }

    /// A read at the newest reign, of which everything visible is confirmed.
    pub fn read(&mut self, key: Key, value: Option<u64>) {
        let (invoked, returned) = (self.tick(), self.tick());
        self.reads.push(Operation {
            key: key.0 << 32 | key.1,
            invoked,
            returned,
            action: Action::Get { value },
        });
    }

    /// Whether the log of `epoch` may hold a `Replicated` write behind what is confirmed. That its client gave up
    /// does not take it out.
    pub fn unconfirmed(&self, epoch: Epoch, confirmed: Lsn) -> bool {
        self.writes.iter().any(|write| {
            let behind = write.at.is_none_or(|at| at.lsn > confirmed);
            write.epoch == epoch && write.replicated && write.outcome != Outcome::Refused && behind
        })
    }

    // ---- judging ----

    /// Content of a node on the path of `epoch` up to `upto`, by key; the write that is there.
    pub fn expected(&self, epoch: Epoch, upto: impl Fn(Position) -> bool) -> Expected {
        let mut expected = Expected::default();
        for (of, end) in self.path(epoch).iter().rev() {
            for write in &self.writes {
                let Some(at) = write.at else { continue };
                if at.epoch != *of || at.lsn > *end || !upto(at) {
                    continue;
                }
                match write.what {
                    What::Register => drop(expected.registers.insert(write.key, write.id)),
                    What::Mortal(change) => {
                        let (tenant, key) = write.key;
                        expected
                            .mortals
                            .entry(tenant)
                            .or_default()
                            .apply(write.id, key, change);
                    }
                }
            }
        }
        expected
    }

    /// Whether what is mortal of a tenant cannot be told: a change failed without a position.
    pub fn doubtful(&self, tenant: u64, epoch: Epoch) -> bool {
        let path = self.path(epoch);
        self.writes.iter().any(|write| {
            write.key.0 == tenant
                && write.what != What::Register
                && write.at.is_none()
                && write.outcome == Outcome::Unknown
                && path.iter().any(|(of, _)| *of == write.epoch)
        })
    }

    /// Whether a value that is not expected can be explained: a write whose call failed without a position.
    pub fn may_be(&self, key: Key, id: Option<u64>, epoch: Epoch) -> bool {
        let path = self.path(epoch);
        let unplaced = |write: &&Write| {
            write.key == key
                && write.what == What::Register
                && write.at.is_none()
                && write.outcome == Outcome::Unknown
                && path.iter().any(|(of, _)| *of == write.epoch)
        };
        self.writes
            .iter()
            .filter(unplaced)
            .any(|write| Some(write.id) == id)
    }

    /// Acknowledged writes that the reign `epoch` does not have.
    pub fn lost(&self, epoch: Epoch) -> Vec<u64> {
        let acknowledged =
            |w: &&Write| w.replicated && w.outcome == Outcome::Ok && !w.given_up && !self.on_path(w, epoch);
        self.writes.iter().filter(acknowledged).map(|w| w.id).collect()
    }

    /// Whether clients could have seen one register for each key.
    pub fn linearizable(&self) -> Result<(), String> {
        if self.gave_up {
            return Ok(());
        }
        let registers = self.writes.iter().filter(|write| write.what == What::Register);
        let puts = registers.map(|write| Operation {
            key: write.key.0 << 32 | write.key.1,
            invoked: write.invoked,
            returned: write.returned,
            action: Action::Put {
                value: write.id,
                outcome: match write.outcome {
                    Outcome::Ok => history::Outcome::Ok,
                    Outcome::Open | Outcome::Unknown => history::Outcome::Unknown,
                    Outcome::Refused => history::Outcome::Failed,
                },
            },
        });
        let operations: Vec<_> = puts.chain(self.reads.iter().copied()).collect();
        let verdict = history::check(&operations);
        match verdict.violations.first() {
            None => Ok(()),
            Some(violation) => Err(format!("clients saw no register: {violation}")),
        }
    }

    /// Reads recorded.
    pub fn reads(&self) -> u64 {
        self.reads.len() as u64
    }

    /// Writes of which an acknowledgement was given.
    pub fn acknowledged(&self) -> u64 {
        let ok = |w: &&Write| w.outcome == Outcome::Ok;
        self.writes.iter().filter(ok).count() as u64
    }
}
