//! One stream to one standby, the primary's side.
//!
//! ```text
//! Hello ---judge---> refusal
//!            |
//!            v
//!        streaming:  room -> WAL read -> held until its keys are acknowledged -> sent
//!                    acknowledgement -> pin moves, commits are confirmed, room
//!                    tick -> watchdog
//! ```
//!
//! Rules. (1) A record is never sent before the keys it needs are acknowledged: whatever keys its tenants had
//! were in the keystore when its bytes were written, so a version read after reading the bytes covers them.
//! (2) What is sent and not durable there stays within the window. (3) Bytes outstanding without a durable
//! advance for `Limits::patience`: the stream ends, the standby dials again. (4) Only an acknowledgement of
//! this reign's own epoch confirms commits. (5) After [`Action::End`] nothing more happens.

use std::time::Duration;

use bytes::Bytes;
use strongroom::{Engine, Epoch, ErrorKind as EngineKind, Lsn};

use super::epoch::{ChainHere, Hello, Primary, Verdict, decide};
use super::message::{FromPrimary, Seen};
use super::progress::{Ack, AckRefused, Progress};
use crate::hooks::{planted, rare};

/// A window with less room than this is waited on: many small reads cost more than one pause.
const ROOM_BYTES_MIN: usize = 64 << 10;

/// Looks a Hello up in this primary's history. Blocks on reads of the WAL.
pub fn judge(engine: &Engine, hello: &Hello) -> Result<Verdict, strongroom::Error> {
    let status = engine.status();
    let history = engine.epoch_history();
    let primary = Primary {
        database_id: status.database_id,
        epoch: status.epoch,
        history: &history,
        oldest: status.wal_start,
        end: status.durable,
    };
    let mut failed = None;
    let verdict = decide(&primary, hello, |at| match engine.chain_at(at) {
        Ok(chain) => ChainHere::Is(chain),
        Err(e) if e.kind() == EngineKind::Gone => ChainHere::Gone,
        Err(e) if e.kind() == EngineKind::Diverged => ChainHere::NoBoundary,
        Err(e) => {
            failed = Some(e);
            ChainHere::Gone
        }
    });
    failed.map_or(Ok(verdict), Err)
}

/// The answer to a Hello that may not resume. `own`: the primary's epoch.
pub fn refusal(verdict: Verdict, own: Epoch) -> FromPrimary {
    match verdict {
        Verdict::Diverged { fork_epoch, fork } => FromPrimary::Diverged { fork_epoch, fork },
        Verdict::TooFarBehind { oldest } => FromPrimary::TooFarBehind { oldest },
        Verdict::Younger(_) => FromPrimary::Younger { epoch: own },
        Verdict::WrongDatabase => FromPrimary::WrongDatabase,
        // Granted, but nothing is served any more.
        Verdict::Resume(_) => FromPrimary::NotPrimary { epoch: own },
    }
}

/// Bounds of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes sent and not durable there.
    pub window: u64,
    /// Most bytes in one message.
    pub chunk: usize,
    /// Longest time without a durable advance while bytes are outstanding.
    pub patience: Duration,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Durable WAL was read, as much as [`PrimarySession::room`] allowed; the keystore's version was
    /// `keystore` after that.
    Read { first: Lsn, bytes: Bytes, keystore: u64 },
    /// Retention overtook the reading.
    Gone { oldest: Lsn },
    /// The WAL cannot be read.
    ReadFailed,
    /// Where the WAL ended.
    Looked(Seen),
    /// The standby acknowledged.
    Ack(Ack),
    /// The key stream begins: the standby has `since` of this very primary; the keystore is at `current`.
    KeysBegin { since: u64, current: u64 },
    /// A key change leading to this version was handed to the connection.
    KeysSent(u64),
    /// The standby made it durable.
    KeysAcked(u64),
    /// Time for a sign of life.
    Heartbeat,
    /// Time passed.
    Tick,
}

/// What is to be done, in order.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send it on the stream.
    Send(FromPrimary),
    /// Commits up to here are replicated.
    Confirm { epoch: Epoch, lsn: Lsn },
    /// WAL before this is not needed for this standby.
    Pin(Lsn),
    /// The stream is over; the reason is for logs.
    End(&'static str),
}

/// One stream.
#[derive(Debug)]
pub struct PrimarySession {
    epoch: Epoch,
    limits: Limits,
    progress: Progress,
    keys_acked: u64,
    keys_sent: u64,
    /// WAL whose keys are not acknowledged yet, and the keystore version it waits for.
    held: Option<(u64, FromPrimary)>,
    seen: Seen,
    heard: Duration,
    /// Since when bytes are outstanding without a durable advance.
    stuck_since: Option<Duration>,
    over: bool,
}

impl PrimarySession {
    /// A stream of reign `epoch` begins at `start`, the end of the standby's last whole record.
    pub fn new(epoch: Epoch, start: Lsn, limits: Limits, now: Duration) -> PrimarySession {
        PrimarySession {
            epoch,
            limits,
            progress: Progress::new(epoch, start),
            keys_acked: 0,
            keys_sent: 0,
            held: None,
            seen: Seen { end: start, ms: 0 },
            heard: now,
            stuck_since: None,
            over: false,
        }
    }

    /// How many bytes may be read and handed over now; 0: not yet.
    pub fn room(&self) -> usize {
        if self.over || self.held.is_some() {
            return 0;
        }
        let room = self.progress.may_send(self.limits.window, self.limits.chunk);
        if room < ROOM_BYTES_MIN.min(self.limits.chunk) {
            rare!(WindowFull);
            return 0;
        }
        room
    }

    /// Takes an event; `now` is the time since any fixed moment.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        if self.over {
            return Vec::new();
        }
        let actions = self.react(now, event);
        self.over = actions.iter().any(|action| matches!(action, Action::End(_)));
        actions
    }

    fn react(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let end = |reason| vec![Action::End(reason)];
        match event {
            Event::Read {
                first,
                bytes,
                keystore,
            } => self.read(now, first, bytes, keystore),
            Event::Gone { oldest } => {
                rare!(RetentionOvertook);
                let gone = FromPrimary::TooFarBehind { oldest };
                vec![Action::Send(gone), Action::End("retention overtook it")]
            }
            Event::ReadFailed => end("reading WAL failed"),
            Event::Looked(seen) => {
                self.seen = seen;
                Vec::new()
            }
            Event::Ack(ack) => self.acknowledged(now, ack),
            Event::KeysBegin { since, current } => {
                if since > current {
                    return end("a keystore version from the future");
                }
                self.keys_sent = since;
                self.keys_acknowledged(now, since)
            }
            Event::KeysSent(version) => {
                self.keys_sent = self.keys_sent.max(version);
                Vec::new()
            }
            Event::KeysAcked(version) if version > self.keys_sent => {
                end("a key acknowledgement that cannot be")
            }
            Event::KeysAcked(version) => self.keys_acknowledged(now, version),
            Event::Heartbeat => vec![Action::Send(FromPrimary::Heartbeat {
                epoch: self.epoch,
                seen: self.seen,
            })],
            Event::Tick if self.stuck_for(now) > self.limits.patience => {
                rare!(WatchdogStruck);
                end("no durable progress")
            }
            Event::Tick => Vec::new(),
        }
    }

    fn read(&mut self, now: Duration, first: Lsn, bytes: Bytes, keystore: u64) -> Vec<Action> {
        self.progress.on_sent(first.advance(bytes.len() as u64));
        if self.progress.outstanding() > 0 && self.stuck_since.is_none() {
            self.stuck_since = Some(now);
        }
        let wal = FromPrimary::Wal {
            epoch: self.epoch,
            first,
            bytes,
            seen: self.seen,
        };
        if self.keys_acked < keystore && !planted!(SendBeforeKeys) {
            rare!(KeysHeldWalBack);
            self.held = Some((keystore, wal));
            return Vec::new();
        }
        let mut actions = vec![Action::Send(wal)];
        if planted!(ConfirmOnSend) {
            actions.push(Action::Confirm {
                epoch: self.epoch,
                lsn: self.progress.sent(),
            });
        }
        actions
    }

    fn acknowledged(&mut self, now: Duration, ack: Ack) -> Vec<Action> {
        let accepted = match self.progress.on_ack(ack) {
            Ok(accepted) => accepted,
            Err(refused) => {
                rare!(AckRefused);
                return vec![Action::End(match refused {
                    AckRefused::Disordered => "an acknowledgement out of order",
                    AckRefused::WentBack => "an acknowledgement that went back",
                    AckRefused::NewerEpoch => "an acknowledgement of a newer epoch",
                })];
            }
        };
        self.heard = now;
        let mut actions = Vec::new();
        if accepted.advanced {
            self.stuck_since = (self.progress.outstanding() > 0).then_some(now);
            actions.push(Action::Pin(self.progress.durable()));
        }
        if let Some(lsn) = accepted.confirms {
            actions.push(Action::Confirm {
                epoch: self.epoch,
                lsn,
            });
        }
        actions
    }

    fn keys_acknowledged(&mut self, now: Duration, version: u64) -> Vec<Action> {
        self.heard = now;
        self.keys_acked = self.keys_acked.max(version);
        match self.held.take() {
            Some((needed, wal)) if needed <= self.keys_acked => vec![Action::Send(wal)],
            held => {
                self.held = held;
                Vec::new()
            }
        }
    }

    /// How long bytes have been outstanding without a durable advance.
    fn stuck_for(&self, now: Duration) -> Duration {
        self.stuck_since
            .map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// Its positions.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Highest keystore version acknowledged.
    pub fn keys_acked(&self) -> u64 {
        self.keys_acked
    }

    /// When the standby was last heard.
    pub fn heard(&self) -> Duration {
        self.heard
    }
}

#[cfg(test)]
#[path = "primary/tests.rs"]
mod tests;
