//! The standby's side of the log: bytes a primary sent, checked, written verbatim, synced, applied.
//!
//! ```text
//! append  received bytes -> whole records -> segment file        received
//! sync    fdatasync                                              durable
//! apply   open sections -> memtable -> visible                   applied
//! ```
//!
//! Invariants: `applied <= durable <= received`; what is on disk is a byte-for-byte prefix of the
//! primary's log (design R1): every record must stand at the next position and continue the chain;
//! nothing is sealed here, so writing on in a segment after a reopen repeats no nonce. A record of a
//! tenant whose key never arrived stops the standby; one whose key was destroyed is skipped.
//!
//! The last reign of the history is the one the log's end is in. A promotion that was recorded and failed, or
//! a segment that was announced and did not come, leaves a newer one without a byte: it is forgotten before
//! anything else is written where it would have begun. Its epoch stays recorded.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::expiry::NEVER;
use crate::hooks::{planted, rare};
use crate::inner::{CommitState, Inner, Mode};
use crate::seal::{FileHeader, FileKind};
use crate::types::{Chain, Epoch, EpochStart, Lsn, SeqNo, TenantId};
use crate::version::{Edit, NodeState};
use crate::wal::format::{Invalid, OpKind, Place, RecordKind, check_record, parse_record};
use crate::wal::reader::{chain_key, open_sections};
use crate::wal::segment_name;

/// First bytes of a segment header. As a record they would claim a length out of range.
const SEGMENT_MAGIC: &[u8; 8] = b"STRGROOM";

/// Where a standby stands; `applied <= durable <= received`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StandbyProgress {
    /// Epoch of the log at `durable`.
    pub epoch: Epoch,
    /// Bytes received.
    pub received: Lsn,
    /// Record boundary up to which a sync has put the log on stable storage.
    pub durable: Lsn,
    /// Last record applied.
    pub applied: Lsn,
    /// Chain of the log at `durable`.
    pub chain: Chain,
}

/// Outcome of [`Engine::promote`](crate::Engine::promote).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promotion {
    /// The new reign.
    pub epoch: Epoch,
    /// Where it begins: everything before was replicated.
    pub start: Lsn,
}

/// Under the commit lock.
pub(crate) struct Follower {
    /// Bytes behind the tail that are not a whole record yet.
    partial: Vec<u8>,
    /// Records written and not applied.
    queue: VecDeque<Queued>,
    /// The newest segment, which queued records belong to.
    segment: Option<Arc<(PathBuf, FileHeader)>>,
    applied: Lsn,
    /// Newest version applied.
    version: SeqNo,
    /// Up to where the log is known to be on stable storage: reign, boundary and chain belong together.
    durable: EpochStart,
    /// The manifest says that this directory follows.
    marked: bool,
    /// The history ends with the reign that the log's end is in.
    settled: bool,
}

struct Queued {
    segment: Arc<(PathBuf, FileHeader)>,
    lsn: Lsn,
    bytes: Bytes,
}

impl Follower {
    /// - `durable`: the end of the log, which is applied and on stable storage.
    /// - `version`: newest in it.
    pub fn new(
        durable: EpochStart,
        version: SeqNo,
        newest: Option<(PathBuf, FileHeader)>,
        marked: bool,
    ) -> Follower {
        Follower {
            partial: Vec::new(),
            queue: VecDeque::new(),
            segment: newest.map(Arc::new),
            applied: durable.start,
            version,
            durable,
            marked,
            settled: false,
        }
    }

    /// How far the log is applied, and the newest version that is.
    pub fn applied(&self) -> (Lsn, SeqNo) {
        (self.applied, self.version)
    }
}

impl Inner {
    /// See [`Engine::standby_append`](crate::Engine::standby_append).
    pub fn follow(&self, first: Lsn, bytes: &[u8]) -> Result<Lsn> {
        let mut commit = self.commit.lock();
        let commit = &mut *commit;
        check_standby(commit)?;
        self.wal.check()?;
        if !commit.follower.marked {
            // Before the first byte of somebody else's: recovery must not take its watermarks for ours.
            self.wal.sync_to(commit.tail.end)?;
            self.versions.log_and_apply(Edit {
                state: Some(NodeState::Following),
                reach: Some(commit.tail.end),
                ..Edit::default()
            })?;
            commit.follower.marked = true;
        }
        if first == commit.tail.end {
            // A new connection starts at the last whole record again.
            commit.follower.partial.clear();
        }
        let expected = commit.tail.end.advance(commit.follower.partial.len() as u64);
        if first != expected {
            let text =
                format!("bytes for position {first} do not continue the log, which ends at {expected}");
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let mut pending = std::mem::take(&mut commit.follower.partial);
        pending.extend_from_slice(bytes);
        let mut pending = Bytes::from(pending);
        while let Some(len) = self.follow_one(commit, &pending)? {
            pending = pending.slice(len..);
        }
        let received = commit.tail.end.advance(pending.len() as u64);
        commit.follower.partial = pending.to_vec();
        Ok(received)
    }

    /// Takes one header or record off the front; its length, or None if more bytes are needed.
    fn follow_one(&self, commit: &mut CommitState, bytes: &Bytes) -> Result<Option<usize>> {
        let at = commit.tail.end;
        let path = self.wal.dir.join(segment_name(at));
        let diverged = |what: &str| {
            Error::new(
                ErrorKind::Diverged,
                format!("the primary's log parts from this one at {at}: {what}"),
            )
        };
        let Some(magic) = bytes.first_chunk::<8>() else {
            return Ok(None);
        };
        if magic == SEGMENT_MAGIC {
            let Some(header_bytes) = bytes.get(..FileHeader::BYTES) else {
                return Ok(None);
            };
            let header = FileHeader::decode(&path, header_bytes, FileKind::Wal)?;
            if header.number != at.0 || header.chain != commit.tail.chain {
                return Err(diverged("another segment"));
            }
            if header.epoch < commit.tail.epoch {
                return Err(diverged("an older epoch"));
            }
            let key = chain_key(&self.keys, &path, &header)?;
            self.settle_history(commit, header.epoch)?;
            if header.epoch > commit.tail.epoch {
                // Durable before any record of that reign is; and not before what it begins at.
                self.wal.sync_to(at)?;
                let epoch = EpochStart {
                    epoch: header.epoch,
                    start: at,
                    chain: commit.tail.chain,
                };
                self.record_reign(Edit {
                    epoch: Some(epoch),
                    ..Edit::default()
                })?;
            }
            self.wal
                .start_segment_verbatim(&mut commit.tail, header.clone(), key)?;
            commit.follower.segment = Some(Arc::new((path, header)));
            return Ok(Some(FileHeader::BYTES));
        }
        let (Some(segment), Some(key)) = (commit.follower.segment.clone(), commit.tail.chain_key()) else {
            return Err(diverged("a record before the first segment"));
        };
        let place = Place {
            lsn: at,
            chain: commit.tail.chain,
            key,
        };
        let checked = match check_record(bytes, &place) {
            Err(Invalid::Forged(_)) if planted!(ChainNotChecked) => parse_record(bytes, at),
            checked => checked,
        };
        let record = match checked {
            Ok(record) => record,
            Err(Invalid::Short) => return Ok(None),
            // Whole, and not the record that belongs here: the histories have parted, or somebody made it.
            Err(Invalid::Forged(mismatch)) => return Err(diverged(mismatch.field)),
            Err(Invalid::Damaged(what)) => {
                return Err(Error::corruption(
                    &path,
                    0,
                    "received record",
                    "a valid one",
                    what,
                ));
            }
        };
        let (len, seqno, kind, chain) = (record.bytes.len(), record.seqno, record.kind, record.chain);
        let bytes = bytes.slice(..len);
        self.settle_history(commit, commit.tail.epoch)?;
        self.wal.write_record(&mut commit.tail, &bytes, chain, true)?;
        commit.seqno = commit.seqno.max(seqno);
        if kind == RecordKind::Batch {
            commit.follower.queue.push_back(Queued {
                segment,
                lsn: at,
                bytes,
            });
        }
        Ok(Some(len))
    }

    /// Forgets a reign that began at the log's end and is not the one that goes on there, in `next`.
    fn settle_history(&self, commit: &mut CommitState, next: Epoch) -> Result<()> {
        if commit.follower.settled {
            return Ok(());
        }
        let history = self.versions.state().epochs;
        let of_tail = history.iter().find(|reign| reign.epoch == commit.tail.epoch);
        if let (Some(last), Some(of_tail)) = (history.last(), of_tail)
            && last.epoch > of_tail.epoch
            && last.epoch != next
        {
            rare!(EmptyReignForgotten);
            self.record_reign(Edit {
                epoch: Some(*of_tail),
                ..Edit::default()
            })?;
        }
        commit.follower.settled = true;
        Ok(())
    }

    /// Records what the history's end is. Where that failed for good nobody knows whether it is durable, and a
    /// log that went on meanwhile might not fit: nothing is taken any more until the engine is reopened.
    fn record_reign(&self, edit: Edit) -> Result<()> {
        self.versions.log_and_apply(edit).inspect_err(|error| {
            if self.versions.failed() {
                rare!(LogStoppedByManifest);
                self.wal.poison(error);
            }
        })
    }

    /// See [`Engine::standby_sync`](crate::Engine::standby_sync).
    pub fn follow_sync(&self) -> Result<StandbyProgress> {
        let target = {
            let commit = self.commit.lock();
            check_standby(&commit)?;
            EpochStart {
                epoch: commit.tail.epoch,
                start: commit.tail.end,
                chain: commit.tail.chain,
            }
        };
        self.wal.sync_to(target.start)?;
        let mut commit = self.commit.lock();
        if commit.follower.durable.start < target.start {
            commit.follower.durable = target;
        }
        let applied = self.apply_queue(&mut commit, target.start);
        let progress = progress(&commit);
        drop(commit);
        applied.map(|()| progress)
    }

    /// Applies queued records that end at or before `durable`, stopping at the first that cannot be.
    fn apply_queue(&self, commit: &mut CommitState, durable: Lsn) -> Result<()> {
        let mut newest = SeqNo::ZERO;
        let outcome = loop {
            let Some(queued) = commit.follower.queue.front() else {
                commit.follower.applied = commit.follower.applied.max(durable.min(commit.tail.end));
                break Ok(());
            };
            let end = queued.lsn.advance(queued.bytes.len() as u64);
            if end > durable {
                break Ok(());
            }
            let (path, header) = &*queued.segment;
            let Ok(record) = parse_record(&queued.bytes, queued.lsn) else {
                break Err(Error::corruption(
                    path,
                    0,
                    "queued record",
                    "a valid one",
                    "another",
                ));
            };
            let (seqno, time) = (record.seqno, record.time_ms);
            match open_sections(&self.keys, path, header, &record) {
                Ok(sections) => {
                    for (tenant, mut ops) in sections {
                        if planted!(FollowerSkipsRangeDeletes) {
                            ops.retain(|op| op.kind != OpKind::DeleteRange);
                        }
                        if tenant == TenantId::SYSTEM && planted!(FollowerSkipsSettings) {
                            continue;
                        }
                        self.insert(tenant, seqno, ops);
                    }
                }
                Err(e) => break Err(e),
            }
            self.applied_to(time);
            commit.follower.applied = end;
            commit.follower.version = commit.follower.version.max(seqno);
            commit.follower.queue.pop_front();
            newest = seqno;
            if self.rotate_memtable(end, seqno, false) {
                self.wake_background();
            }
        };
        self.publish(newest);
        outcome
    }

    /// All of the log is applied that was ordered up to this time, settings included.
    pub fn applied_to(&self, time: u64) {
        self.applied_time.store(time, Ordering::Release);
    }

    /// For background work: what has ended then is gone for good. A standby, and a node that replays its log, may not go
    /// by its clock alone: what is yet to be applied may hold a longer retention, which spares what has not ended when
    /// that was set.
    pub fn settled_time(&self) -> u64 {
        let now = self.times.now();
        if planted!(StandbyDropsByItsClock) {
            return now;
        }
        now.min(self.applied_time.load(Ordering::Acquire))
    }

    /// Where the standby stands, without waiting for anything.
    pub fn follow_progress(&self) -> Result<StandbyProgress> {
        let commit = self.commit.lock();
        check_standby(&commit)?;
        Ok(progress(&commit))
    }

    /// See [`Engine::promote`](crate::Engine::promote).
    pub fn promote(&self) -> Result<Promotion> {
        let mut commit = self.commit.lock();
        let commit = &mut *commit;
        check_standby(commit)?;
        commit.follower.partial.clear();
        let start = commit.tail.end;
        self.wal.sync_to(start)?;
        // First the epoch, durably: from here on this node acknowledges nothing for the old one.
        let epoch = self
            .versions
            .state()
            .highest_epoch
            .max(commit.tail.epoch)
            .promoted();
        if epoch == Epoch::LAST {
            return Err(Error::new(ErrorKind::Invalid, "no term is left to promote to"));
        }
        let begin = EpochStart {
            epoch,
            start,
            chain: commit.tail.chain,
        };
        if !planted!(PromotionNotDurable) {
            self.record_reign(Edit {
                epoch: Some(begin),
                fenced_by: Some(Epoch::ZERO),
                state: Some(NodeState::Serving),
                tenants: Some(self.keystore.next_tenant()),
                reach: Some(start),
                ..Edit::default()
            })?;
        }
        // Should the rest fail, the history is ahead of the log, and the manifest says that this directory serves.
        commit.follower.settled = false;
        commit.follower.marked = false;
        self.apply_queue(commit, start)?;
        let before = std::mem::replace(&mut commit.tail.epoch, epoch);
        if let Err(error) = self.wal.start_segment(&mut commit.tail) {
            commit.tail.epoch = before;
            return Err(error);
        }
        commit.follower = Follower::new(begin, commit.seqno, None, false);
        self.gate.begin(epoch);
        self.applied_to(NEVER);
        commit.mode = Mode::Primary;
        Ok(Promotion { epoch, start })
    }

    /// See [`Engine::fence`](crate::Engine::fence).
    pub fn fence(&self, by: Epoch) -> Result<()> {
        let mut commit = self.commit.lock();
        if commit.mode == Mode::Closed {
            return Err(crate::commit::closed());
        }
        let state = self.versions.state();
        if state.fenced_by.is_some_and(|known| known >= by) {
            return Ok(());
        }
        if by <= commit.tail.epoch || by < state.highest_epoch {
            let text = format!("epoch {by} is not newer than this node's {}", state.highest_epoch);
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        // Stop first: should the record fail, stopping was still right.
        if commit.mode != Mode::Standby {
            commit.mode = Mode::Fenced(by);
            self.gate.fence(by);
        }
        if planted!(FenceNotDurable) {
            return Ok(());
        }
        self.versions.log_and_apply(Edit {
            highest_epoch: Some(by),
            fenced_by: Some(by),
            ..Edit::default()
        })
    }
}

fn check_standby(commit: &CommitState) -> Result<()> {
    match commit.mode {
        Mode::Standby => Ok(()),
        Mode::Closed => Err(crate::commit::closed()),
        _ => Err(Error::new(ErrorKind::Invalid, "this node is not a standby")),
    }
}

fn progress(commit: &CommitState) -> StandbyProgress {
    let EpochStart { epoch, start, chain } = commit.follower.durable;
    StandbyProgress {
        epoch,
        received: commit.tail.end.advance(commit.follower.partial.len() as u64),
        durable: start,
        applied: commit.follower.applied,
        chain,
    }
}
