//! Committing a batch: the log, the memtable, the acknowledgement; in that order.
//!
//! ```text
//! 1 wait while flush and compaction are too far behind
//! 2 under the commit lock: may this node write; the next version; seal and append; memtable
//! 3 wait for what the durability promises (group sync, standby)
//! 4 publish the version, return its position
//! ```
//!
//! A commit that fails in 3 is in the log and not published: its outcome is `Unknown`. It becomes
//! visible if a later commit is acknowledged, since visible order is log order (docs/guarantees.md).

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::hooks::{planted, rare};
use crate::inner::{CommitState, Inner, Mode};
use crate::options::Background;
use crate::types::{Durability, KeyspaceId, Position, TenantId};
use crate::wal::format::parse_ops;

impl CommitState {
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

impl Inner {
    /// Commits `ops` encoded operations of one tenant.
    pub fn commit(
        &self,
        tenant: TenantId,
        plain: Vec<u8>,
        ops: u32,
        durability: Durability,
    ) -> Result<Position> {
        self.throttle()?;
        let plain = Bytes::from(plain);
        let parsed = parse_ops(&plain, ops)
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "the batch does not encode its operations"))?;
        let position = {
            let mut commit = self.commit.lock();
            commit.check_writable()?;
            self.check_tenant(tenant)?;
            for op in &parsed {
                // A write behind a keyspace's deletion would be invisible and never reclaimed.
                if let Some(id) = op.key.first_chunk::<4>() {
                    self.check_keyspace(tenant, KeyspaceId(u32::from_be_bytes(*id)), None)?;
                }
            }
            let seqno = commit.seqno.next();
            let end = self
                .wal
                .append_batch(&mut commit.tail, tenant, &plain, ops, seqno)?;
            commit.seqno = seqno;
            let position = Position {
                epoch: commit.tail.epoch,
                lsn: end,
                seqno,
            };
            if durability == Durability::Replicated {
                self.gate.register(position);
            }
            self.insert(tenant, seqno, parsed);
            if self.rotate_memtable(end, seqno, false) {
                self.wake_background();
            }
            position
        };
        if durability >= Durability::Local && !planted!(AcknowledgeBeforeSync) {
            self.wal.sync_to(position.lsn)?;
        }
        if durability == Durability::Replicated {
            self.gate.wait(position, self.options.replicated_timeout)?;
        }
        self.publish(position.seqno);
        Ok(position)
    }

    /// Waits while flush and compaction are too far behind; does their work itself when nobody else will.
    fn throttle(&self) -> Result<()> {
        while self.behind() {
            rare!(WriterDidBackgroundWork);
            if self.options.background == Background::Manual {
                if !self.step()? {
                    return Ok(());
                }
                continue;
            }
            let mut background = self.background.state.lock();
            if background.stop {
                return Err(closed());
            }
            if let Some(error) = &background.failed {
                return Err(error.duplicate());
            }
            background.wake = true;
            self.background.changed.notify_all();
            self.background
                .changed
                .wait_for(&mut background, std::time::Duration::from_millis(50));
        }
        Ok(())
    }

    fn behind(&self) -> bool {
        self.mem.read().immutables.len() > self.options.immutable_memtables_max
            || self
                .versions
                .current()
                .levels
                .first()
                .is_some_and(|l0| l0.len() >= self.options.level0_tables_stop)
    }
}

/// Counts toward [`BATCH_BYTES_MAX`](crate::BATCH_BYTES_MAX): the operation and its framing.
pub(crate) fn op_cost(key: &[u8], value: &[u8]) -> usize {
    key.len().saturating_add(value.len()).saturating_add(16)
}
