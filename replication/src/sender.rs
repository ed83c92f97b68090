//! The primary's side of a stream, driven: `core::primary` decides, this carries it out over a connection.
//!
//! ```text
//! thread   room -> cursor.read -> keystore version after the read -> core -> queue (bounded)
//! task     queue -> connection; heartbeat, watchdog -> core
//! task     acknowledgements -> core -> engine.confirm_replicated
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use strongroom::io::{Clock as _, OsClock};
use strongroom::{Engine, ErrorKind as EngineKind, WalCursor};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use crate::core::epoch::Hello;
use crate::core::message::{FromPrimary, FromStandby, Seen};
use crate::core::primary::{Action, Event, Limits};
use crate::error::Result;
use crate::options::ReplicationConfig;
use crate::signal::blocking;
use crate::standbys::{Reign, Session, Work};
use crate::wire::{self, CHUNK_BYTES_MAX, v1};

type Outbound = mpsc::Sender<std::result::Result<v1::PrimaryMessage, Status>>;
pub(crate) type Outgoing = ReceiverStream<std::result::Result<v1::PrimaryMessage, Status>>;

/// Messages queued for the connection; each up to 1 MiB.
const QUEUE_MESSAGES: usize = 8;
/// How often the reading thread looks whether it should stop.
const READ_WAIT: Duration = Duration::from_millis(250);

/// How often it looks where the WAL ends, which takes the lock that commits take.
const LOOK: Duration = Duration::from_millis(20);

/// The whole answer as one message, after which the stream ends.
pub(crate) fn refuse(message: FromPrimary) -> Outgoing {
    let (out, rx) = mpsc::channel(1);
    // Capacity for one: cannot be full.
    let _ = out.try_send(Ok(wire::encode_primary(message)));
    ReceiverStream::new(rx)
}

/// Begins shipping to a standby that may resume. The returned stream is the call's answer.
pub(crate) async fn ship(
    config: Arc<ReplicationConfig>,
    reign: Arc<Reign>,
    hello: Hello,
    inbound: Streaming<v1::StandbyMessage>,
) -> std::result::Result<Outgoing, Status> {
    let limits = Limits {
        window: config.window_bytes,
        chunk: CHUNK_BYTES_MAX,
        patience: config.timeouts.progress,
    };
    let Some(session) = reign.attach(&hello, limits) else {
        return Err(Status::resource_exhausted("too many standbys are connected"));
    };
    let start = hello.durable.start;
    let engine = reign.engine.clone();
    let opened = blocking(move || (engine.wal_cursor(start), engine.status())).await;
    let (cursor, status) = match opened {
        Ok((Ok(cursor), status)) => (cursor, status),
        Ok((Err(e), status)) if e.kind() == EngineKind::Gone => {
            session.end();
            return Ok(refuse(FromPrimary::TooFarBehind {
                oldest: status.wal_start,
            }));
        }
        Ok((Err(e), _)) => {
            session.end();
            return Err(Status::unavailable(format!("the WAL cannot be read: {}", e)));
        }
        Err(_) => {
            session.end();
            return Err(Status::unavailable("shutting down"));
        }
    };
    info!(node = %session.node, from = %start, "standby connected");
    let heartbeat = config.timeouts.heartbeat;
    let heartbeat_ms = u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX).max(1);
    let (out, rx) = mpsc::channel(QUEUE_MESSAGES);
    let ok = FromPrimary::Ok {
        epoch: reign.epoch,
        start,
        end: status.durable,
        window_bytes: config.window_bytes,
        heartbeat_ms,
        node: config.node.clone(),
    };
    // The channel is empty: cannot be full.
    let _ = out.try_send(Ok(wire::encode_primary(ok)));
    let (reads_in, reads) = mpsc::channel(QUEUE_MESSAGES);
    {
        let (session, engine) = (session.clone(), reign.engine.clone());
        let thread = std::thread::Builder::new().name("wal-sender".into());
        let spawned = thread.spawn(move || read_wal(&engine, cursor, &session, &reads_in));
        if let Err(e) = spawned {
            return Err(Status::unavailable(format!("no thread for the stream: {e}")));
        }
    }
    let over = EndWhenDropped(session.clone());
    tokio::spawn(async move {
        let _over = over;
        drive(config, reign, session, reads, out, inbound).await;
    });
    Ok(ReceiverStream::new(rx))
}

/// Reads durable WAL while there is room for it. Ends with the session, or when the receiver is gone.
fn read_wal(engine: &Engine, mut cursor: WalCursor, session: &Session, queue: &mpsc::Sender<Action>) {
    let clock = OsClock::new();
    let mut looked: Option<Instant> = None;
    while !session.over.is_raised() {
        if looked.is_none_or(|at| at.elapsed() >= LOOK) {
            // The time first: the end seen is never older than it.
            let ms = clock.now_ms();
            let end = engine.wal_end().start;
            session.step(Event::Looked(Seen { end, ms }));
            looked = Some(Instant::now());
        }
        let actions = match session.work(READ_WAIT) {
            Work::Wait => continue,
            Work::Send(message) => vec![Action::Send(message)],
            Work::Read(room) => match read(engine, &mut cursor, room) {
                Some(event) => session.step(event),
                None => continue,
            },
        };
        for action in actions {
            let last = matches!(action, Action::End(_));
            if queue.blocking_send(action).is_err() || last {
                return;
            }
        }
    }
}

/// Reads once; None if there is nothing yet.
fn read(engine: &Engine, cursor: &mut WalCursor, room: usize) -> Option<Event> {
    let first = cursor.position();
    let asked = Instant::now();
    match cursor.read(room, READ_WAIT) {
        Ok(bytes) if bytes.is_empty() => {
            if asked.elapsed() < READ_WAIT / 2 {
                // A closed engine does not wait; the session's end is near.
                std::thread::sleep(READ_WAIT / 10);
            }
            None
        }
        Ok(bytes) => Some(Event::Read {
            first,
            bytes,
            // After the read: covers every key these bytes need.
            keystore: engine.keystore_version(),
        }),
        Err(e) if e.kind() == EngineKind::Gone => Some(Event::Gone {
            oldest: engine.status().wal_start,
        }),
        Err(e) => {
            warn!(error = %e, "reading WAL for a standby failed");
            Some(Event::ReadFailed)
        }
    }
}

/// Ends a session with the task that runs it, also when that is dropped in the middle because its runtime goes:
/// the reading thread holds the engine, and so the directory, until the session is over.
struct EndWhenDropped(Arc<Session>);

impl Drop for EndWhenDropped {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Runs the stream to its end.
async fn drive(
    config: Arc<ReplicationConfig>,
    reign: Arc<Reign>,
    session: Arc<Session>,
    reads: mpsc::Receiver<Action>,
    out: Outbound,
    inbound: Streaming<v1::StandbyMessage>,
) {
    let reason = tokio::select! {
        reason = send(&config, &session, reads, &out) => reason,
        reason = take_acks(&reign, &session, inbound) => reason,
        reason = watch_progress(&config, &session) => reason,
        () = out.closed() => "the standby closed the connection",
        () = session.over.raised() => "ended here",
    };
    session.end();
    info!(node = %session.node, reason, "standby disconnected");
    // Dropping `out` ends the call.
}

async fn send(
    config: &ReplicationConfig,
    session: &Session,
    mut reads: mpsc::Receiver<Action>,
    out: &Outbound,
) -> &'static str {
    let mut heartbeat = tokio::time::interval(config.timeouts.heartbeat);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let actions = tokio::select! {
            read = reads.recv() => match read {
                Some(action) => vec![action],
                None => return "ended here",
            },
            _ = heartbeat.tick() => session.step(Event::Heartbeat),
        };
        for action in actions {
            match action {
                Action::Send(message) => {
                    if out.send(Ok(wire::encode_primary(message))).await.is_err() {
                        return "the standby closed the connection";
                    }
                }
                Action::End(reason) => return reason,
                Action::Confirm { .. } | Action::Pin(_) => {}
            }
        }
    }
}

async fn take_acks(
    reign: &Reign,
    session: &Session,
    mut inbound: Streaming<v1::StandbyMessage>,
) -> &'static str {
    loop {
        let message = match inbound.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return "the standby ended the stream",
            Err(status) => {
                debug!(node = %session.node, %status, "stream broken");
                return "the connection broke";
            }
        };
        let Ok(FromStandby::Ack(ack)) = wire::decode_standby(message) else {
            return "a message that is no acknowledgement";
        };
        for action in session.step(Event::Ack(ack)) {
            match action {
                Action::Confirm { epoch, lsn } => reign.engine.confirm_replicated(epoch, lsn),
                Action::End(reason) => return reason,
                Action::Send(_) | Action::Pin(_) => {}
            }
        }
    }
}

async fn watch_progress(config: &ReplicationConfig, session: &Session) -> &'static str {
    let limit = config.timeouts.progress;
    let mut tick = tokio::time::interval(limit / 4);
    loop {
        tick.tick().await;
        if let Some(reason) = session.ends(Event::Tick) {
            return reason;
        }
    }
}

/// Fences this node because a standby recorded a newer epoch. Durable when it returns.
pub(crate) async fn fence_self(engine: Engine, by: strongroom::Epoch) -> Result<()> {
    blocking(move || engine.fence(by)).await??;
    Ok(())
}
