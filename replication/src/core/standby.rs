//! One stream from a primary, the standby's side.
//!
//! ```text
//! deciding --- HelloOk ---> streaming   WAL -> append ... sync -> acknowledgement
//!     |                         |       key change -> applied -> acknowledgement
//!     `------- verdict ---------+---> ended
//! ```
//!
//! Rules. (1) Bytes are appended verbatim, in order, and only those of the granted reign. (2) Acknowledged is
//! what the engine reported after a sync, never what arrived. (3) A primary below an epoch recorded here is
//! refused, and told. (4) After [`Action::End`] nothing more happens.

use std::time::Duration;

use bytes::Bytes;
use strongroom::{Epoch, ErrorKind as EngineKind, Lsn, StandbyProgress};

use super::epoch::Hello;
use super::marks::Marks;
use super::message::{FromPrimary, Seen};
use super::progress::Ack;
use crate::error::{Error, ErrorKind};
use crate::hooks::{planted, rare};

/// Most bytes appended before a sync.
const SYNC_BYTES_MAX: usize = 8 << 20;
/// Longest time of appending before a sync: half of what an acknowledgement may take.
const SYNC_AFTER: Duration = Duration::from_millis(5);

/// How a stream ended.
#[derive(Debug)]
pub enum Ending {
    /// Try again.
    Lost(Error),
    /// The engine could not take the bytes sent: try again, but not for ever.
    Strike(Error),
    /// The peer is an old primary: tell it.
    PeerIsOld,
    /// The WAL here no longer connects to the primary's.
    NeedBase {
        /// It holds something the primary's does not: keep it aside.
        diverged: bool,
        /// For operators.
        why: String,
    },
    /// The engine refuses to go on until it is reopened.
    Reopen(Error),
    /// It was closed, or told to stop.
    Stopped,
}

impl From<Error> for Ending {
    fn from(error: Error) -> Ending {
        match error.engine_kind() {
            None => Ending::Lost(error),
            Some(EngineKind::Closed) => Ending::Stopped,
            Some(EngineKind::Diverged) => {
                rare!(DivergenceInStream);
                Ending::NeedBase {
                    diverged: true,
                    why: error.to_string(),
                }
            }
            Some(EngineKind::Fenced) => Ending::PeerIsOld,
            // A failed sync says `Unknown` once, and then `ReadOnly`: opening again writes the tail anew.
            Some(EngineKind::ReadOnly | EngineKind::Io | EngineKind::Unknown) => Ending::Reopen(error),
            Some(EngineKind::NoSpace) => Ending::Lost(error),
            Some(_) => Ending::Strike(error),
        }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The primary said something.
    Message(FromPrimary),
    /// Everything appended so far was synced.
    Synced(StandbyProgress),
    /// A key change is applied and durable.
    KeysApplied(u64),
    /// The engine or the connection failed.
    Failed(Error),
    /// Time passed.
    Tick,
}

/// What is to be done, in order.
#[derive(Debug)]
pub enum Action {
    /// The stream is granted: open the key stream; what follows are acknowledgements.
    Begin {
        /// Of the primary.
        epoch: Epoch,
        /// Of its WAL, when it answered.
        end: Lsn,
        /// Its name.
        node: String,
    },
    /// Hand these bytes to the engine, then sync when [`SyncDebt`] says so.
    Append { first: Lsn, bytes: Bytes },
    /// Send it.
    Acknowledge(Ack),
    /// Send it on the key stream.
    AcknowledgeKeys(u64),
    /// The primary is alive; its WAL reaches `end`; reads here are known to be as of `current_at`.
    Heard { end: Lsn, current_at: Option<u64> },
    /// More is applied: reads here are known to be as of `current_at`.
    Applied { current_at: u64 },
    /// The stream is over.
    End(Ending),
}

#[derive(Debug)]
enum State {
    /// Said Hello.
    Deciding {
        highest: Epoch,
        durable: Lsn,
    },
    /// Was granted.
    Streaming {
        epoch: Epoch,
        next: Lsn,
    },
    Over,
}

/// One stream.
pub struct StandbySession {
    state: State,
    /// What it holds already.
    holds: Ack,
    keys: Option<u64>,
    marks: Marks,
    heard: Duration,
    patience: Duration,
}

impl StandbySession {
    /// `hello` was said; `progress` is what it was made of.
    pub fn new(
        hello: &Hello,
        progress: &StandbyProgress,
        patience: Duration,
        now: Duration,
    ) -> StandbySession {
        let mut marks = Marks::default();
        marks.applied(progress.applied);
        StandbySession {
            state: State::Deciding {
                highest: hello.highest,
                durable: hello.durable.start,
            },
            // Part of a record that arrived before is sent again: it does not count.
            holds: Ack {
                epoch: progress.epoch,
                received: progress.durable,
                durable: progress.durable,
                applied: progress.applied,
            },
            keys: None,
            marks,
            heard: now,
            patience,
        }
    }

    /// The primary's epoch, once it granted the stream.
    pub fn epoch(&self) -> Option<Epoch> {
        match self.state {
            State::Streaming { epoch, .. } => Some(epoch),
            State::Deciding { .. } | State::Over => None,
        }
    }

    /// Takes an event; `now` is the time since any fixed moment.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        if matches!(self.state, State::Over) {
            return Vec::new();
        }
        let actions = self
            .react(now, event)
            .unwrap_or_else(|ending| vec![Action::End(ending)]);
        if actions.iter().any(|action| matches!(action, Action::End(_))) {
            self.state = State::Over;
        }
        actions
    }

    fn react(&mut self, now: Duration, event: Event) -> Result<Vec<Action>, Ending> {
        match event {
            Event::Message(message) => {
                self.heard = now;
                match self.state {
                    State::Deciding { highest, durable } => self.verdict(message, highest, durable),
                    State::Streaming { epoch, next } => self.take(message, epoch, next),
                    State::Over => Ok(Vec::new()),
                }
            }
            Event::Synced(progress) => {
                let current_at = self.marks.applied(progress.applied);
                let ack = Ack {
                    epoch: progress.epoch,
                    received: progress.received,
                    durable: progress.durable,
                    applied: progress.applied,
                };
                let applied = current_at.map(|current_at| Action::Applied { current_at });
                Ok([Action::Acknowledge(ack)].into_iter().chain(applied).collect())
            }
            Event::KeysApplied(version) => {
                self.keys = self.keys.max(Some(version));
                Ok(vec![Action::AcknowledgeKeys(version)])
            }
            Event::Failed(error) => Err(error.into()),
            Event::Tick if now.saturating_sub(self.heard) >= self.patience => {
                rare!(PrimarySilent);
                Err(Error::new(ErrorKind::Unreachable, "the primary fell silent").into())
            }
            Event::Tick => Ok(Vec::new()),
        }
    }

    /// Hears what became of the Hello.
    fn verdict(&mut self, message: FromPrimary, highest: Epoch, durable: Lsn) -> Result<Vec<Action>, Ending> {
        let refused = |text: String| Err(Error::new(ErrorKind::Refused, text).into());
        match message {
            FromPrimary::Ok {
                epoch,
                start,
                end,
                node,
                ..
            } => {
                if epoch < highest {
                    rare!(OldPrimaryFound);
                    return Err(Ending::PeerIsOld);
                }
                if start != durable {
                    return Err(broken("a stream that starts elsewhere"));
                }
                self.state = State::Streaming { epoch, next: start };
                // At once: a confirmation may have been lost with the connection before, and what came in a
                // base copy was never acknowledged.
                let begin = Action::Begin { epoch, end, node };
                Ok(vec![begin, Action::Acknowledge(self.holds)])
            }
            FromPrimary::Diverged { fork_epoch, fork } => Err(Ending::NeedBase {
                diverged: true,
                why: format!("this node's WAL parted from the primary's in epoch {fork_epoch} at {fork}"),
            }),
            FromPrimary::TooFarBehind { oldest } => Err(too_far_behind(oldest)),
            FromPrimary::NotPrimary { epoch } => refused(format!(
                "the peer does not serve as primary (its epoch is {epoch})"
            )),
            FromPrimary::Younger { epoch } => refused(format!(
                "the peer was the primary of epoch {epoch} and has stepped down"
            )),
            FromPrimary::WrongDatabase => {
                Err(Error::new(ErrorKind::WrongDatabase, "the peer holds another database").into())
            }
            FromPrimary::Wal { .. } | FromPrimary::Heartbeat { .. } => Err(broken("no answer to Hello")),
        }
    }

    /// Takes a message of a granted stream.
    fn take(&mut self, message: FromPrimary, epoch: Epoch, next: Lsn) -> Result<Vec<Action>, Ending> {
        match message {
            FromPrimary::Wal {
                epoch: of,
                first,
                bytes,
                seen,
            } => {
                if of != epoch || first != next {
                    rare!(WalOutOfOrder);
                    return Err(broken("WAL out of order"));
                }
                let next = first.advance(bytes.len() as u64);
                self.state = State::Streaming { epoch, next };
                let mut actions = vec![Action::Append { first, bytes }, self.heard(seen, next)];
                if planted!(AcknowledgeOnArrival) {
                    actions.push(Action::Acknowledge(Ack {
                        epoch,
                        received: next,
                        durable: next,
                        applied: self.holds.applied,
                    }));
                }
                Ok(actions)
            }
            FromPrimary::Heartbeat { epoch: of, seen } if of == epoch => Ok(vec![self.heard(seen, next)]),
            FromPrimary::TooFarBehind { oldest } => Err(too_far_behind(oldest)),
            _ => Err(broken("a message out of place")),
        }
    }

    fn heard(&mut self, seen: Seen, next: Lsn) -> Action {
        Action::Heard {
            end: seen.end.max(next),
            current_at: self.marks.seen(seen),
        }
    }
}

fn broken(what: &'static str) -> Ending {
    Error::new(
        ErrorKind::Protocol,
        format!("the peer broke the protocol: {what}"),
    )
    .into()
}

fn too_far_behind(oldest: Lsn) -> Ending {
    Ending::NeedBase {
        diverged: false,
        why: format!("the primary keeps WAL from {oldest} on only"),
    }
}

/// When what was appended is to be synced: all that has arrived is appended, then synced once, then
/// acknowledged once; nothing waits for more while an acknowledgement is owed.
#[derive(Clone, Copy, Debug, Default)]
pub struct SyncDebt {
    bytes: usize,
    since: Option<Duration>,
}

impl SyncDebt {
    /// Bytes were appended.
    pub fn appended(&mut self, bytes: usize, now: Duration) {
        self.bytes += bytes;
        self.since.get_or_insert(now);
    }

    /// Whether to sync now. `more`: something else has arrived and could be appended first.
    pub fn due(&self, more: bool, now: Duration) -> bool {
        let Some(since) = self.since else { return false };
        !more || self.bytes >= SYNC_BYTES_MAX || now.saturating_sub(since) >= SYNC_AFTER
    }

    /// A sync covered it all.
    pub fn settled(&mut self) {
        *self = SyncDebt::default();
    }
}

#[cfg(test)]
#[path = "standby/tests.rs"]
mod tests;
