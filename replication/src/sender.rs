//! The primary's side of a stream: decides on a Hello, then ships WAL until something ends it.
//!
//! ```text
//! thread   cursor.read -> keystore version after the read -> queue (bounded)
//! task     queue -> wait until the standby acknowledged that keystore version -> connection
//! task     acks -> progress, pin, engine.confirm_replicated -> room for the thread
//! ```
//!
//! Rules. (1) A record never arrives before the keys it needs: whatever keys its tenants had were in the
//! keystore when its bytes were written, so a version read after reading the bytes covers them. (2) What is
//! sent and not durable there stays within the window, so a slow standby costs bounded memory. (3) Bytes
//! outstanding without a durable advance for `Timeouts::progress`: the connection is dropped, the standby
//! dials again. (4) Only an acknowledgement of this reign's own epoch confirms commits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use strongroom::io::{Clock as _, OsClock};
use strongroom::{Engine, ErrorKind as EngineKind, Lsn, WalCursor};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use crate::epoch::{ChainHere, Hello, Primary, Verdict, decide};
use crate::error::Result;
use crate::options::ReplicationConfig;
use crate::signal::blocking;
use crate::standbys::{Reign, Session};
use crate::wire::{self, CHUNK_BYTES_MAX, FromStandby, Seen, v1};

type Outbound = mpsc::Sender<std::result::Result<v1::PrimaryMessage, Status>>;
pub(crate) type Outgoing = ReceiverStream<std::result::Result<v1::PrimaryMessage, Status>>;

/// Messages queued for the connection; each up to 1 MiB.
const QUEUE_MESSAGES: usize = 8;
/// How often the reading thread looks whether it should stop.
const READ_WAIT: Duration = Duration::from_millis(250);

/// How often it looks where the WAL ends, which takes the lock that commits take.
const LOOK: Duration = Duration::from_millis(20);

/// What the reading thread hands over.
enum Read {
    Bytes {
        first: Lsn,
        bytes: Bytes,
        keystore: u64,
        seen: Seen,
    },
    Gone,
    Failed(strongroom::Error),
}

/// Looks a Hello up in this primary's history. Blocks on reads of the WAL.
pub(crate) fn judge(engine: &Engine, hello: &Hello) -> std::result::Result<Verdict, strongroom::Error> {
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

/// The whole answer as one message, after which the stream ends.
pub(crate) fn refuse(message: v1::PrimaryMessage) -> Outgoing {
    let (out, rx) = mpsc::channel(1);
    // Capacity for one: cannot be full.
    let _ = out.try_send(Ok(message));
    ReceiverStream::new(rx)
}

/// Begins shipping to a standby that may resume. The returned stream is the call's answer.
pub(crate) async fn ship(
    config: Arc<ReplicationConfig>,
    reign: Arc<Reign>,
    hello: Hello,
    inbound: Streaming<v1::StandbyMessage>,
) -> std::result::Result<Outgoing, Status> {
    let Some(session) = reign.attach(&hello) else {
        return Err(Status::resource_exhausted("too many standbys are connected"));
    };
    let start = hello.durable.start;
    let engine = reign.engine.clone();
    let opened = blocking(move || (engine.wal_cursor(start), engine.status())).await;
    let (cursor, status) = match opened {
        Ok((Ok(cursor), status)) => (cursor, status),
        Ok((Err(e), status)) if e.kind() == EngineKind::Gone => {
            session.end();
            let verdict = Verdict::TooFarBehind {
                oldest: status.wal_start,
            };
            return Ok(refuse(wire::encode_refusal(verdict, reign.epoch)));
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
    let ok = wire::encode_ok(
        reign.epoch,
        start,
        status.durable,
        config.window_bytes,
        heartbeat_ms,
        &config.node,
    );
    // The channel is empty: cannot be full.
    let _ = out.try_send(Ok(ok));
    let (reads_in, reads) = mpsc::channel(QUEUE_MESSAGES);
    {
        let (session, engine, window) = (session.clone(), reign.engine.clone(), config.window_bytes);
        let thread = std::thread::Builder::new().name("wal-sender".into());
        let spawned = thread.spawn(move || read_wal(&engine, cursor, &session, &reads_in, window));
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
fn read_wal(
    engine: &Engine,
    mut cursor: WalCursor,
    session: &Session,
    reads: &mpsc::Sender<Read>,
    window: u64,
) {
    let clock = OsClock::new();
    let mut looked: Option<Instant> = None;
    while !session.over.is_raised() {
        if looked.is_none_or(|at| at.elapsed() >= LOOK) {
            // The time first: the end seen is never older than it.
            let ms = clock.now_ms();
            let end = engine.wal_end().start;
            *session.seen.lock() = Seen { end, ms };
            looked = Some(Instant::now());
        }
        let room = session.wait_room(window, CHUNK_BYTES_MAX, READ_WAIT);
        if room == 0 {
            continue;
        }
        let first = cursor.position();
        let asked = Instant::now();
        let read = match cursor.read(room, READ_WAIT) {
            Ok(bytes) if bytes.is_empty() => {
                if asked.elapsed() < READ_WAIT / 2 {
                    // A closed engine does not wait; the session's end is near.
                    std::thread::sleep(READ_WAIT / 10);
                }
                continue;
            }
            Ok(bytes) => {
                // After the read: covers every key these bytes need.
                let keystore = engine.keystore_version();
                let end = first.advance(bytes.len() as u64);
                session.sent(end);
                let seen = *session.seen.lock();
                Read::Bytes {
                    first,
                    bytes,
                    keystore,
                    seen,
                }
            }
            Err(e) if e.kind() == EngineKind::Gone => Read::Gone,
            Err(e) => Read::Failed(e),
        };
        let last = !matches!(read, Read::Bytes { .. });
        if reads.blocking_send(read).is_err() || last {
            return;
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
    reads: mpsc::Receiver<Read>,
    out: Outbound,
    inbound: Streaming<v1::StandbyMessage>,
) {
    let reason = tokio::select! {
        reason = send(&config, &reign, &session, reads, &out) => reason,
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
    reign: &Reign,
    session: &Session,
    mut reads: mpsc::Receiver<Read>,
    out: &Outbound,
) -> &'static str {
    let mut keys = session.keys.subscribe();
    let mut heartbeat = tokio::time::interval(config.timeouts.heartbeat);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // WAL whose keys are not yet acknowledged, and the keystore version it waits for.
    let mut held: Option<(u64, v1::PrimaryMessage)> = None;
    loop {
        let needed = held.as_ref().map_or(0, |(keystore, _)| *keystore);
        let message = tokio::select! {
            () = keys_known(&mut keys, needed), if held.is_some() => match held.take() {
                Some((_, wal)) => wal,
                None => continue,
            },
            read = reads.recv(), if held.is_none() => match read {
                Some(Read::Bytes { first, bytes, keystore, seen }) => {
                    let wal = wire::encode_wal(reign.epoch, first, bytes, seen);
                    if *session.keys.borrow() < keystore {
                        held = Some((keystore, wal));
                        continue;
                    }
                    wal
                }
                Some(Read::Gone) => {
                    let oldest = reign.engine.status().wal_start;
                    let verdict = Verdict::TooFarBehind { oldest };
                    let _ = out.send(Ok(wire::encode_refusal(verdict, reign.epoch))).await;
                    return "retention overtook it";
                }
                Some(Read::Failed(e)) => {
                    warn!(node = %session.node, error = %e, "reading WAL for a standby failed");
                    return "reading WAL failed";
                }
                None => return "ended here",
            },
            _ = heartbeat.tick() => {
                let seen = *session.seen.lock();
                wire::encode_heartbeat(reign.epoch, seen)
            }
        };
        if out.send(Ok(message)).await.is_err() {
            return "the standby closed the connection";
        }
    }
}

async fn keys_known(keys: &mut watch::Receiver<u64>, needed: u64) {
    // The sender lives in the session: waiting cannot fail.
    let _ = keys.wait_for(|known| *known >= needed).await;
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
        match session.acknowledged(ack) {
            Ok(accepted) => {
                if let Some(lsn) = accepted.confirms {
                    reign.engine.confirm_replicated(ack.epoch, lsn);
                }
            }
            Err(refused) => {
                warn!(node = %session.node, ?refused, "acknowledgement refused");
                return "an acknowledgement that cannot be";
            }
        }
    }
}

async fn watch_progress(config: &ReplicationConfig, session: &Session) -> &'static str {
    let limit = config.timeouts.progress;
    let mut tick = tokio::time::interval(limit / 4);
    loop {
        tick.tick().await;
        if session.stuck_for() > limit {
            return "no durable progress";
        }
    }
}

/// Fences this node because a standby recorded a newer epoch. Durable when it returns.
pub(crate) async fn fence_self(engine: Engine, by: strongroom::Epoch) -> Result<()> {
    blocking(move || engine.fence(by)).await??;
    Ok(())
}
