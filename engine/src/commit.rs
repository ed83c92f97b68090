//! Committing a batch: the log, the memtable, the acknowledgement; in that order.
//!
//! ```text
//! 1 wait a little while flush and compaction are behind, and as long as they are too far behind (`throttle`)
//! 2 under the commit lock: may this node, and this tenant, write; moments of writing; the next version; seal and append;
//!   and in the turn that comes of it: memtable (`commit_lock`)
//! 3 wait for what the durability promises (group sync, standby)
//! 4 publish the version, return its position
//! ```
//!
//! 1, 2 and the sync here are [`Batch::submit`](crate::Batch::submit); what is left is a [`CommitTicket`],
//! which is waited for, or polled by callers that must not block.
//!
//! A commit that fails in 3 is in the log and not published: its outcome is `Unknown`. It becomes
//! visible if a later commit is acknowledged, since visible order is log order (docs/guarantees.md).

use std::time::Duration;

use bytes::Bytes;

use crate::compaction::keyspace_of;
use crate::condition::Condition;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::planted;
use crate::inner::{CommitState, Inner, Mode};
use crate::operation::{OpCounters, timed};
use crate::options::BATCH_BYTES_MAX;
use crate::types::{Durability, KeyspaceId, Lsn, Position, SeqNo, TenantId};
use crate::wal::format::{OP_HEAD_BYTES_MAX, Op, parse_ops};

impl CommitState {
    /// How far the log is in memtables, and the newest version there: on a standby, what came and is not applied may wait
    /// for keys.
    pub fn inserted_to(&self) -> (Lsn, SeqNo) {
        match self.mode {
            Mode::Standby => self.follower.applied(),
            _ => (self.tail.end, self.seqno),
        }
    }

    /// Ok while this node may order writes.
    pub fn check_writable(&self) -> Result<()> {
        match self.mode {
            Mode::Primary => Ok(()),
            Mode::Standby => Err(Error::new(
                ErrorKind::NotPrimary,
                "this node is a standby: write to the primary",
            )),
            Mode::Fenced(by) => Err(Error::new(
                ErrorKind::Fenced,
                format!("this node was fenced by epoch {by}"),
            )),
            Mode::AwaitingAcceptance => Err(Error::new(
                ErrorKind::ReadOnly,
                "this database was restored and awaits acceptance before it takes writes",
            )),
            Mode::Closed => Err(closed()),
        }
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database is closed")
}

/// A commit that is ordered, and durable on this node as far as its durability asks; for `Replicated` the
/// standby's confirmation may still be missing. Dropping it gives up the wait, not the write: what it
/// would have ended in is `Unknown`.
#[must_use = "the commit is not acknowledged before the ticket says so"]
pub struct CommitTicket {
    engine: Engine,
    position: Position,
    durability: Durability,
}

impl CommitTicket {
    pub(crate) fn new(engine: Engine, position: Position, durability: Durability) -> CommitTicket {
        CommitTicket {
            engine,
            position,
            durability,
        }
    }

    /// Where the commit stands in the log, acknowledged or not.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The outcome, if it is known: without waiting. `None`: no standby has confirmed it yet.
    ///
    /// - Errors: `Unknown` (fenced or closed meanwhile: no confirmation can come).
    pub fn poll(&self) -> Option<Result<Position>> {
        self.engine.inner().poll(self.position, self.durability)
    }

    /// Waits for the outcome, at most [`Options::replicated_timeout`](crate::Options::replicated_timeout).
    ///
    /// - Errors: `Unknown`, also when nobody confirmed in time.
    pub fn wait(self) -> Result<Position> {
        self.engine.inner().finish(self.position, self.durability)
    }
}

impl Inner {
    /// Commits `ops` encoded operations of one tenant.
    pub fn commit(
        &self,
        tenant: TenantId,
        plain: Vec<u8>,
        ops: u32,
        durability: Durability,
    ) -> Result<Position> {
        let position = self.submit(tenant, plain, ops, &[], durability)?;
        self.finish(position, durability)
    }

    /// Orders the operations and makes them as durable here as they are to be. All but a `Replicated` one
    /// are then acknowledged.
    pub fn submit(
        &self,
        tenant: TenantId,
        plain: Vec<u8>,
        ops: u32,
        conditions: &[Condition],
        durability: Durability,
    ) -> Result<Position> {
        self.throttle()?;
        if !conditions.is_empty() {
            // Who may not write is told that, not what would be compared.
            self.commit.lock().check_writable()?;
            self.check_conditions(tenant, conditions, SeqNo::MAX)?;
        }
        let plain = Bytes::from(plain);
        let parsed = parsed(&plain, ops)?;
        // What is sealed first takes longer than fetching what comes then.
        self.expect(tenant, &parsed);
        let position = {
            let waited = |counters: &mut OpCounters, time| counters.lock_wait += time;
            let mut commit = timed(self.clock(), waited, || {
                self.commit.lock_patiently(&*self.io.clock)
            });
            commit.check_writable()?;
            self.check_tenant(tenant)?;
            for op in &parsed {
                // A write behind a keyspace's deletion would be invisible and never reclaimed.
                if let Some(keyspace) = keyspace_of(&op.key) {
                    self.check_keyspace(tenant, keyspace, None)?;
                }
            }
            if conditions.is_empty() && !self.counts_when_in_memory(tenant, &parsed) {
                let ordered = self.append(&mut commit, tenant, (plain, parsed), durability)?;
                let _turn = self.commit.hand_over(commit);
                self.put_down(tenant, ordered, durability)
            } else {
                self.commit.settle(&commit);
                self.check_conditions(tenant, conditions, commit.seqno)?;
                self.order(&mut commit, tenant, (plain, parsed), durability)?
            }
        };
        self.make_durable(position, durability)?;
        Ok(position)
    }

    /// Whether who orders the next batch must find this one in the memtable, or the memtable must have all before it: it
    /// changes what others may write, or is counted against a quota.
    fn counts_when_in_memory(&self, tenant: TenantId, ops: &[Op]) -> bool {
        let in_catalog =
            |op: &Op| keyspace_of(&op.key).is_none_or(|keyspace| keyspace == KeyspaceId::CATALOG);
        tenant == TenantId::SYSTEM || self.settings.quota(tenant).is_some() || ops.iter().any(in_catalog)
    }

    /// Gives a batch that may be committed its place: the next version, log, memtable. Under the commit lock, settled, by a
    /// node that may write.
    pub fn order(
        &self,
        commit: &mut CommitState,
        tenant: TenantId,
        batch: (Bytes, Vec<Op>),
        durability: Durability,
    ) -> Result<Position> {
        self.check_quota(tenant, &batch.1)?;
        let ordered = self.append(commit, tenant, batch, durability)?;
        Ok(self.put_down(tenant, ordered, durability))
    }

    /// Gives a batch the next version and its place in the log. Under the commit lock.
    fn append(
        &self,
        commit: &mut CommitState,
        tenant: TenantId,
        (mut plain, mut ops): (Bytes, Vec<Op>),
        durability: Durability,
    ) -> Result<(Position, Vec<Op>)> {
        let count = ops.len() as u32;
        if let Some(dated) = self.settings.dated(tenant, &ops, || self.times.now()) {
            if dated.len() > BATCH_BYTES_MAX {
                let text = format!("with its entries' moments a batch has up to {BATCH_BYTES_MAX} bytes");
                return Err(Error::new(ErrorKind::Invalid, text));
            }
            plain = Bytes::from(dated);
            ops = parsed(&plain, count)?;
        }
        let seqno = commit.seqno.next();
        let synced = durability >= Durability::Local;
        let end = self
            .wal
            .append_batch(&mut commit.tail, tenant, &plain, count, seqno, synced)?;
        commit.seqno = seqno;
        self.counters.committed(&ops);
        let position = Position {
            epoch: commit.tail.epoch,
            lsn: end,
            seqno,
        };
        Ok((position, ops))
    }

    /// Puts a batch that has its place into the memtable: in its turn, or under the commit lock, settled. Only then can a
    /// standby's confirmation, which may have come already, make it visible.
    fn put_down(
        &self,
        tenant: TenantId,
        (position, ops): (Position, Vec<Op>),
        durability: Durability,
    ) -> Position {
        self.insert(tenant, position.seqno, ops);
        if durability == Durability::Replicated && self.gate.register(position) {
            self.publish(position.seqno);
        }
        if self.rotate_memtable(position.lsn, position.seqno, false) {
            self.wake_background();
        }
        position
    }

    /// Has the log know of a new tenant, by a batch of nothing: should the keystore's own log be cut between two
    /// frames, recovery finds a tenant here that is not there, and refuses. What was flushed is known to the
    /// manifest (`ManifestState::tenants`).
    ///
    /// The keys are durable: an error takes nothing from the tenant but this.
    pub fn note_tenant(&self, commit: &mut CommitState, newest: TenantId) -> Result<Position> {
        self.order(commit, newest, (Bytes::new(), Vec::new()), Durability::Buffered)
    }

    /// Syncs what the durability asks for, and publishes all but a `Replicated` batch.
    pub fn make_durable(&self, position: Position, durability: Durability) -> Result<()> {
        if durability >= Durability::Local && !planted!(AcknowledgeBeforeSync) {
            let waited = |counters: &mut OpCounters, time| {
                counters.syncs += 1;
                counters.sync_wait += time;
            };
            timed(self.clock(), waited, || self.wal.sync_to(position.lsn))?;
        } else {
            self.wal.left_unsynced();
        }
        if durability < Durability::Replicated {
            self.publish(position.seqno);
        }
        Ok(())
    }

    /// For what is measured.
    fn clock(&self) -> impl Fn() -> Duration {
        || self.io.clock.monotonic()
    }

    /// Waits for what [`submit`](Inner::submit) left open.
    pub fn finish(&self, position: Position, durability: Durability) -> Result<Position> {
        if durability == Durability::Replicated {
            self.gate
                .wait(position, self.online.options().replicated_timeout)?;
            self.publish(position.seqno);
        }
        Ok(position)
    }

    /// The same without waiting; `None` while it is open.
    fn poll(&self, position: Position, durability: Durability) -> Option<Result<Position>> {
        if durability == Durability::Replicated {
            if let Err(error) = self.gate.outcome(position)? {
                return Some(Err(error));
            }
            self.publish(position.seqno);
        }
        Some(Ok(position))
    }
}

/// The operations of a batch.
pub(crate) fn parsed(plain: &Bytes, ops: u32) -> Result<Vec<Op>> {
    parse_ops(plain, ops)
        .ok_or_else(|| Error::new(ErrorKind::Invalid, "the batch does not encode its operations"))
}

/// Of an operation's cost what is neither key nor value: no less than the log puts in front of them.
const OP_COST_BYTES: usize = 16;
const _: () = assert!(
    OP_HEAD_BYTES_MAX + 4 <= OP_COST_BYTES,
    "a batch with room fits in a record"
);

/// Counts toward [`BATCH_BYTES_MAX`](crate::BATCH_BYTES_MAX): the operation and its framing.
pub(crate) fn op_cost(key: &[u8], value: &[u8]) -> usize {
    key.len()
        .saturating_add(value.len())
        .saturating_add(OP_COST_BYTES)
}

#[cfg(test)]
mod tests;
