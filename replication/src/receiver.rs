//! The standby's side: dials its primary, for ever, and makes its WAL its own.
//!
//! ```text
//!          dial           Hello             HelloOk
//! idle ------------> connected --------> deciding ---------> streaming
//!   ^  backoff, jitter   |                  | Diverged,          | connection lost,
//!   +--------------------+------------------+ TooFarBehind:      | silence, damage
//!   |                                       v base copy          |
//!   +------------------------------------------------------------+
//!
//! streaming:   task    messages, checked -> queue
//!              thread  queue -> engine.standby_append ... -> engine.standby_sync -> newest progress
//!              task    newest progress -> Ack
//!              task    key stream (`keystream::follow`)
//! ```
//!
//! Rules. (1) Bytes are appended verbatim, in order, and only those of the primary's reign. (2) All that has
//! arrived is appended, then synced once, then acknowledged once; the thread never waits for more while it
//! owes an acknowledgement. (3) A primary below an epoch recorded here is refused, and told. (4) When
//! [`follow`] returns, no append and no key change is under way and none will follow: what promotion relies
//! on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use strongroom::{Engine, Epoch, EpochStart, ErrorKind as EngineKind, Lsn};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::dial::{self, Client};
use crate::epoch::Hello;
use crate::error::{Error, ErrorKind, Result};
use crate::keystream;
use crate::progress::Ack;
use crate::shared::Shared;
use crate::signal::{Signal, blocking};
use crate::wire::{self, FromPrimary, Seen, status_error, v1};

/// WAL messages waiting for the disk. The primary's window bounds their bytes.
const QUEUE_MESSAGES: usize = 256;
/// Most bytes appended before a sync.
const SYNC_BYTES_MAX: usize = 8 << 20;
/// Longest time of appending before a sync: half of what an acknowledgement may take.
const SYNC_AFTER: Duration = Duration::from_millis(5);
/// Failures of the engine to take bytes at one position before a base copy is taken.
const STRIKES_MAX: u32 = 3;
/// Marks remembered of where the primary's WAL ended when.
const MARKS_MAX: usize = 64;

/// Why following ended.
pub(crate) enum Ended {
    /// It was told to.
    Stopped,
    /// The WAL here no longer connects to the primary's.
    NeedBase {
        /// It holds something the primary's does not: keep it aside.
        diverged: bool,
        why: String,
    },
    /// The engine refuses to go on until it is reopened.
    Reopen(Error),
}

/// How one session ended.
enum Session {
    Ended(Ended),
    /// Try again.
    Lost(Error),
    /// The engine could not take the bytes sent: try again, but not for ever.
    Strike(Error),
    /// The peer is an old primary: tell it.
    PeerIsOld,
}

impl From<Error> for Session {
    fn from(error: Error) -> Session {
        match error.engine_kind() {
            None => Session::Lost(error),
            Some(EngineKind::Closed) => Session::Ended(Ended::Stopped),
            Some(EngineKind::Diverged) => Session::Ended(Ended::NeedBase {
                diverged: true,
                why: error.to_string(),
            }),
            Some(EngineKind::Fenced) => Session::PeerIsOld,
            Some(EngineKind::ReadOnly | EngineKind::Io) => Session::Ended(Ended::Reopen(error)),
            Some(EngineKind::NoSpace) => Session::Lost(error),
            Some(_) => Session::Strike(error),
        }
    }
}

/// What lasts longer than a session.
struct Follower {
    shared: Arc<Shared>,
    engine: Engine,
    /// Keystore version taken over from the primary, and the primary's epoch then.
    keys: Mutex<Option<(Epoch, u64)>>,
}

/// Follows the configured peer until `stop` is raised or a base copy or a reopen is needed. See rule 4.
pub(crate) async fn follow(shared: Arc<Shared>, engine: Engine, stop: &Signal) -> Ended {
    let config = shared.config.clone();
    let seed = strongroom_seed();
    let mut backoff = Backoff::new(config.timeouts.backoff_min, config.timeouts.backoff_max, seed);
    let follower = Follower {
        shared,
        engine,
        keys: Mutex::new(None),
    };
    let (mut strikes, mut struck_at) = (0, Lsn::ZERO);
    loop {
        let before = follower.engine.status().durable;
        let outcome = follower.session(stop).await;
        let after = follower.engine.status().durable;
        if after > before {
            backoff.reset();
        }
        if stop.is_raised() {
            follower.disconnected(None);
            return Ended::Stopped;
        }
        let error = match outcome {
            Session::Ended(ended) => {
                follower.disconnected(None);
                return ended;
            }
            Session::Lost(error) => error,
            Session::Strike(error) => {
                strikes = if struck_at == after { strikes + 1 } else { 1 };
                struck_at = after;
                warn!(%error, strikes, "the primary's WAL cannot be taken");
                if strikes >= STRIKES_MAX {
                    return Ended::NeedBase {
                        diverged: true,
                        why: error.to_string(),
                    };
                }
                error
            }
            Session::PeerIsOld => follower.tell().await,
        };
        debug!(%error, "following interrupted");
        follower.disconnected(Some(error.to_string()));
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            () = stop.raised() => {}
        }
    }
}

/// Spreads the waits of nodes apart; nothing else depends on it.
fn strongroom_seed() -> u64 {
    use strongroom::io::{OsRng, Rng as _};
    let mut seed = [0; 8];
    match OsRng.fill(&mut seed) {
        Ok(()) => u64::from_le_bytes(seed),
        Err(_) => u64::from(std::process::id()),
    }
}

fn session_id() -> Result<[u8; 16]> {
    use strongroom::io::{OsRng, Rng as _};
    let mut id = [0; 16];
    OsRng
        .fill(&mut id)
        .map_err(|e| Error::new(ErrorKind::Io, "drawing random bytes failed").with_source(e))?;
    Ok(id)
}

/// A session that was granted.
struct Granted {
    client: Client,
    session: [u8; 16],
    database_id: [u8; 16],
    inbound: Streaming<v1::PrimaryMessage>,
    outbound: mpsc::Sender<v1::StandbyMessage>,
    epoch: Epoch,
    start: Lsn,
    /// What it holds already. Acknowledged at once: a confirmation may have been lost with the connection
    /// before, and what came in a base copy was never acknowledged.
    holds: Ack,
}

/// Newest progress, and the time it was current at if known.
#[derive(Clone, Copy)]
struct Applied {
    ack: Ack,
    current_at: Option<u64>,
}

/// Bytes on their way to the engine.
struct Part {
    first: Lsn,
    bytes: Bytes,
}

impl Follower {
    fn disconnected(&self, error: Option<String>) {
        let mut upstream = self.shared.upstream.lock();
        upstream.connected = false;
        upstream.error = error;
    }

    /// Tells an old primary of the epoch recorded here.
    async fn tell(&self) -> Error {
        let status = self.engine.status();
        let highest = status.highest_epoch.max(status.epoch);
        match dial::tell(&self.shared.config, status.database_id, highest).await {
            Ok((outcome, _)) => {
                warn!(?outcome, epoch = %highest, "told an old primary of a newer epoch");
                Error::new(
                    ErrorKind::Refused,
                    format!("the peer is an old primary; told it of epoch {highest}"),
                )
            }
            Err(e) => e,
        }
    }

    async fn session(&self, stop: &Signal) -> Session {
        let granted = tokio::select! {
            granted = self.connect() => match granted {
                Ok(granted) => granted,
                Err(session) => return session,
            },
            () = stop.raised() => return Session::Ended(Ended::Stopped),
        };
        self.stream(granted, stop).await
    }

    /// Dials, says Hello, hears the verdict.
    async fn connect(&self) -> std::result::Result<Granted, Session> {
        let config = &self.shared.config;
        let engine = self.engine.clone();
        // The sync makes the end of the last whole record durable: that is where a stream goes on.
        let (progress, status, history) = blocking(move || {
            let progress = engine.standby_sync()?;
            Ok::<_, Error>((progress, engine.status(), engine.epoch_history()))
        })
        .await??;
        let mut client = dial::dial(config).await?;
        let session = session_id()?;
        let hello = Hello {
            database_id: status.database_id,
            node: config.node.clone(),
            session,
            history,
            highest: status.highest_epoch.max(progress.epoch),
            durable: EpochStart {
                epoch: progress.epoch,
                start: progress.durable,
                chain: progress.chain,
            },
            keystore_version: status.keystore_version,
        };
        let (outbound, rx) = mpsc::channel(4);
        // The channel is empty: cannot be full.
        let _ = outbound.try_send(wire::encode_hello(&hello));
        let mut inbound = dial::within(config, client.stream(ReceiverStream::new(rx)))
            .await?
            .into_inner();
        let first = dial::within(config, inbound.message()).await?;
        let first = first.ok_or_else(|| Error::new(ErrorKind::Unreachable, "the peer said nothing"))?;
        let (epoch, start, end, name) = match wire::decode_primary(first).map_err(Error::from)? {
            FromPrimary::Ok {
                epoch,
                start,
                end,
                node,
                ..
            } => (epoch, start, end, node),
            FromPrimary::Diverged { fork_epoch, fork } => {
                let why =
                    format!("this node's WAL parted from the primary's in epoch {fork_epoch} at {fork}");
                return Err(Session::Ended(Ended::NeedBase { diverged: true, why }));
            }
            FromPrimary::TooFarBehind { oldest } => return Err(too_far_behind(oldest)),
            FromPrimary::NotPrimary { epoch } => {
                let text = format!("the peer does not serve as primary (its epoch is {epoch})");
                return Err(Error::new(ErrorKind::Refused, text).into());
            }
            FromPrimary::Younger { epoch } => {
                let text = format!("the peer was the primary of epoch {epoch} and has stepped down");
                return Err(Error::new(ErrorKind::Refused, text).into());
            }
            FromPrimary::WrongDatabase => {
                return Err(Error::new(ErrorKind::WrongDatabase, "the peer holds another database").into());
            }
            FromPrimary::Wal { .. } | FromPrimary::Heartbeat { .. } => {
                return Err(broken("no answer to Hello"));
            }
        };
        if epoch < hello.highest {
            return Err(Session::PeerIsOld);
        }
        if start != hello.durable.start {
            return Err(broken("a stream that starts elsewhere"));
        }
        {
            let mut upstream = self.shared.upstream.lock();
            upstream.connected = true;
            upstream.error = None;
            (upstream.epoch, upstream.end) = (epoch, end);
            upstream.node = Some(name);
            upstream.heard = Some(Instant::now());
        }
        info!(%epoch, from = %start, "following the primary");
        let database_id = status.database_id;
        // Part of a record that arrived before is sent again: it does not count.
        let holds = Ack {
            epoch: progress.epoch,
            received: progress.durable,
            durable: progress.durable,
            applied: progress.applied,
        };
        Ok(Granted {
            client,
            session,
            database_id,
            inbound,
            outbound,
            epoch,
            start,
            holds,
        })
    }

    /// Streams until something ends it. No append is under way when it returns.
    async fn stream(&self, granted: Granted, stop: &Signal) -> Session {
        let Granted {
            client,
            session,
            database_id,
            inbound,
            outbound,
            epoch,
            start,
            holds,
        } = granted;
        let config = &self.shared.config;
        let (parts, queue) = mpsc::channel(QUEUE_MESSAGES);
        let (newest, progress) = watch::channel(Applied {
            ack: holds,
            current_at: None,
        });
        let marks = Arc::new(Mutex::new(Marks::default()));
        let (done_in, mut done) = oneshot::channel();
        {
            let (engine, marks) = (self.engine.clone(), marks.clone());
            let thread = std::thread::Builder::new().name("wal-receiver".into());
            let spawned = thread.spawn(move || {
                let outcome = apply(&engine, queue, &newest, &marks);
                let _ = done_in.send(outcome);
            });
            if let Err(e) = spawned {
                return Error::new(ErrorKind::Io, "no thread for the stream")
                    .with_source(e)
                    .into();
            }
        }
        let since = self
            .keys
            .lock()
            .filter(|(of, _)| *of == epoch)
            .map_or(0, |(_, version)| version);
        let hello = wire::encode_keys_hello(Some(database_id), Some(session), &config.node, since);
        let busy = Arc::new(tokio::sync::Mutex::new(()));
        let on_applied = |version| *self.keys.lock() = Some((epoch, version));
        let outcome = tokio::select! {
            outcome = self.take(inbound, epoch, start, holds.applied, parts.clone(), &marks) => outcome,
            outcome = self.acknowledge(progress, outbound) => outcome,
            outcome = keystream::follow(client, config, &self.engine, hello, &busy, on_applied) => match outcome {
                Ok(()) => broken("the key stream ended"),
                Err(e) => e.into(),
            },
            applied = &mut done => {
                drop(busy.lock().await);
                return applied_outcome(applied);
            }
            () = stop.raised() => Session::Ended(Ended::Stopped),
        };
        // The thread takes what has arrived, then ends; a key change under way is finished: only then is
        // this over.
        drop(parts);
        drop(busy.lock().await);
        match applied_outcome(done.await) {
            Session::Lost(_) => outcome,
            worse => worse,
        }
    }

    /// Takes the primary's messages.
    async fn take(
        &self,
        mut inbound: Streaming<v1::PrimaryMessage>,
        epoch: Epoch,
        start: Lsn,
        applied: Lsn,
        parts: mpsc::Sender<Part>,
        marks: &Mutex<Marks>,
    ) -> Session {
        let patience = self.shared.config.timeouts.progress;
        let mut next = start;
        marks.lock().applied = applied;
        loop {
            let message = match tokio::time::timeout(patience, inbound.message()).await {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => {
                    return Error::new(ErrorKind::Unreachable, "the primary ended the stream").into();
                }
                Ok(Err(status)) => return status_error(status).into(),
                Err(_) => return Error::new(ErrorKind::Unreachable, "the primary fell silent").into(),
            };
            let seen = match wire::decode_primary(message) {
                Ok(FromPrimary::Wal {
                    epoch: of,
                    first,
                    bytes,
                    seen,
                }) => {
                    if of != epoch || first != next {
                        return broken("WAL out of order");
                    }
                    next = first.advance(bytes.len() as u64);
                    if parts.send(Part { first, bytes }).await.is_err() {
                        // The thread has ended, and says why.
                        return Error::new(ErrorKind::Engine, "WAL cannot be taken").into();
                    }
                    seen
                }
                Ok(FromPrimary::Heartbeat { epoch: of, seen }) if of == epoch => seen,
                Ok(FromPrimary::TooFarBehind { oldest }) => return too_far_behind(oldest),
                Ok(_) => return broken("a message out of place"),
                Err(malformed) => return Error::from(malformed).into(),
            };
            let current_at = marks.lock().seen(seen);
            let mut upstream = self.shared.upstream.lock();
            upstream.heard = Some(Instant::now());
            upstream.end = upstream.end.max(seen.end).max(next);
            upstream.primary_ms = upstream.primary_ms.max(current_at);
        }
    }

    /// Acknowledges what is held, then the newest progress whenever there is some.
    async fn acknowledge(
        &self,
        mut progress: watch::Receiver<Applied>,
        out: mpsc::Sender<v1::StandbyMessage>,
    ) -> Session {
        loop {
            let applied = *progress.borrow_and_update();
            if out.send(wire::encode_ack(&applied.ack)).await.is_err() {
                return Error::new(ErrorKind::Unreachable, "the connection closed").into();
            }
            {
                let mut upstream = self.shared.upstream.lock();
                upstream.primary_ms = upstream.primary_ms.max(applied.current_at);
            }
            if progress.changed().await.is_err() {
                // The thread has ended; its outcome says more.
                std::future::pending::<()>().await;
            }
        }
    }
}

fn broken(what: &'static str) -> Session {
    Error::from(wire::Malformed(what)).into()
}

fn too_far_behind(oldest: Lsn) -> Session {
    let why = format!("the primary keeps WAL from {oldest} on only");
    Session::Ended(Ended::NeedBase { diverged: false, why })
}

/// The thread's word on how it ended. `Lost` when it ended well.
fn applied_outcome(
    outcome: std::result::Result<std::result::Result<(), strongroom::Error>, oneshot::error::RecvError>,
) -> Session {
    match outcome {
        Ok(Ok(())) => Error::new(ErrorKind::Unreachable, "the stream ended").into(),
        Ok(Err(e)) => Error::from(e).into(),
        Err(_) => Session::Ended(Ended::Reopen(Error::new(
            ErrorKind::Stopped,
            "the receiving thread died",
        ))),
    }
}

/// Appends, syncs, reports, until the queue ends or the engine refuses.
fn apply(
    engine: &Engine,
    mut queue: mpsc::Receiver<Part>,
    newest: &watch::Sender<Applied>,
    marks: &Mutex<Marks>,
) -> std::result::Result<(), strongroom::Error> {
    while let Some(part) = queue.blocking_recv() {
        let began = Instant::now();
        let mut bytes = part.bytes.len();
        engine.standby_append(part.first, &part.bytes)?;
        while bytes < SYNC_BYTES_MAX && began.elapsed() < SYNC_AFTER {
            let Ok(part) = queue.try_recv() else { break };
            bytes += part.bytes.len();
            engine.standby_append(part.first, &part.bytes)?;
        }
        let progress = engine.standby_sync()?;
        let current_at = marks.lock().applied(progress.applied);
        let ack = Ack {
            epoch: progress.epoch,
            received: progress.received,
            durable: progress.durable,
            applied: progress.applied,
        };
        newest.send_replace(Applied { ack, current_at });
    }
    Ok(())
}

/// Where the primary's WAL ended when: tells at what time of the primary's clock readers here were current.
#[derive(Default)]
struct Marks {
    applied: Lsn,
    marks: VecDeque<Seen>,
}

impl Marks {
    /// The primary's end was seen. The time this node is now known to have been current at.
    fn seen(&mut self, seen: Seen) -> Option<u64> {
        if self.marks.len() >= MARKS_MAX {
            // Between two others it adds little.
            self.marks.remove(MARKS_MAX / 2);
        }
        self.marks.push_back(seen);
        self.current()
    }

    /// Readers here see everything before `lsn`.
    fn applied(&mut self, lsn: Lsn) -> Option<u64> {
        self.applied = self.applied.max(lsn);
        self.current()
    }

    fn current(&mut self) -> Option<u64> {
        let mut newest = None;
        while let Some(mark) = self.marks.front().filter(|mark| mark.end <= self.applied) {
            newest = newest.max(Some(mark.ms));
            self.marks.pop_front();
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(end: u64, ms: u64) -> Seen {
        Seen { end: Lsn(end), ms }
    }

    #[test]
    fn marks_then_current_at_the_newest_that_is_covered() {
        let mut marks = Marks::default();
        assert_eq!(marks.seen(seen(0, 5)), Some(5));
        assert_eq!(marks.seen(seen(100, 10)), None);
        assert_eq!(marks.seen(seen(200, 20)), None);
        assert_eq!(marks.applied(Lsn(99)), None);
        assert_eq!(marks.applied(Lsn(150)), Some(10));
        assert_eq!(marks.applied(Lsn(300)), Some(20));
        assert_eq!(marks.seen(seen(250, 30)), Some(30), "already applied");
    }

    #[test]
    fn far_behind_then_marks_stay_bounded() {
        let mut marks = Marks::default();
        for i in 0..10_000 {
            marks.seen(seen(1000 + i, i));
        }
        assert!(marks.marks.len() <= MARKS_MAX);
        assert_eq!(marks.applied(Lsn(20_000)), Some(9_999));
    }

    #[test]
    fn engine_errors_table() {
        let outcome = |kind| {
            let session: Session = Error::from(strongroom::Error::new(kind, "x")).into();
            match session {
                Session::Ended(Ended::Stopped) => "stopped",
                Session::Ended(Ended::NeedBase { diverged: true, .. }) => "diverged",
                Session::Ended(Ended::NeedBase { diverged: false, .. }) => "behind",
                Session::Ended(Ended::Reopen(_)) => "reopen",
                Session::Lost(_) => "again",
                Session::Strike(_) => "strike",
                Session::PeerIsOld => "old",
            }
        };
        let table = [
            (EngineKind::Closed, "stopped"),
            (EngineKind::Diverged, "diverged"),
            (EngineKind::Fenced, "old"),
            (EngineKind::ReadOnly, "reopen"),
            (EngineKind::Io, "reopen"),
            (EngineKind::NoSpace, "again"),
            (EngineKind::Corruption, "strike"),
            (EngineKind::Invalid, "strike"),
            (EngineKind::KeyRefused, "strike"),
        ];
        for (kind, expected) in table {
            assert_eq!(outcome(kind), expected, "{kind:?}");
        }
    }
}
