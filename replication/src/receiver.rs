//! The standby's side: dials its primary, for ever, and makes its WAL its own. `core::standby` and
//! `core::following` decide, this carries it out.
//!
//! ```text
//!          dial           Hello             HelloOk
//! idle ------------> connected --------> deciding ---------> streaming
//!   ^  backoff, jitter   |                  | Diverged,          | connection lost,
//!   +--------------------+------------------+ TooFarBehind:      | silence, damage
//!   |                                       v base copy          |
//!   +------------------------------------------------------------+
//!
//! streaming:   task    messages -> core -> queue
//!              thread  queue -> engine.standby_append ... -> engine.standby_sync -> newest progress
//!              task    newest progress -> core -> Ack
//!              task    key stream (`keystream::follow`) -> core -> Ack
//! ```
//!
//! When [`follow`] returns, no append and no key change is under way and none will follow: what promotion
//! relies on.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use strongroom::{Engine, Lsn, StandbyProgress};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::core::following::{Ended, Following, Next};
use crate::core::message::FromPrimary;
use crate::core::standby::{Action, Ending, Event, StandbySession, SyncDebt};
use crate::dial::{self, Client};
use crate::error::{Error, ErrorKind, Result};
use crate::keystream;
use crate::shared::Shared;
use crate::signal::{Signal, blocking};
use crate::wire::{self, status_error, v1};

/// WAL messages waiting for the disk. The primary's window bounds their bytes.
const QUEUE_MESSAGES: usize = 256;

/// What lasts longer than a session.
struct Follower {
    shared: Arc<Shared>,
    engine: Engine,
    following: Mutex<Following>,
}

/// Follows the configured peer until `stop` is raised or a base copy or a reopen is needed.
pub(crate) async fn follow(shared: Arc<Shared>, engine: Engine, stop: &Signal) -> Ended {
    let config = shared.config.clone();
    let seed = strongroom_seed();
    let mut backoff = Backoff::new(config.timeouts.backoff_min, config.timeouts.backoff_max, seed);
    let follower = Follower {
        shared,
        engine,
        following: Mutex::default(),
    };
    loop {
        let before = follower.engine.status().durable;
        let ending = follower.session(stop).await;
        let after = follower.engine.status().durable;
        if after > before {
            backoff.reset();
        }
        if stop.is_raised() {
            follower.disconnected(None);
            return Ended::Stopped;
        }
        if let Ending::Strike(error) = &ending {
            warn!(%error, "the primary's WAL cannot be taken");
        }
        let next = follower.following.lock().ended(ending, after);
        let error = match next {
            Next::Ended(ended) => {
                follower.disconnected(None);
                return ended;
            }
            Next::Retry(error) => error,
            Next::Tell => follower.tell().await,
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

/// A session that said Hello.
struct Session {
    client: Client,
    id: [u8; 16],
    database_id: [u8; 16],
    inbound: Streaming<v1::PrimaryMessage>,
    outbound: mpsc::Sender<v1::StandbyMessage>,
    core: Arc<Mutex<StandbySession>>,
    /// What times of the core count from.
    began: Instant,
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

    async fn session(&self, stop: &Signal) -> Ending {
        let connected = tokio::select! {
            connected = self.connect() => match connected {
                Ok(connected) => connected,
                Err(ending) => return ending,
            },
            () = stop.raised() => return Ending::Stopped,
        };
        let (session, granted) = connected;
        self.stream(session, granted, stop).await
    }

    /// Dials, says Hello, hears the verdict; the actions that begin the stream.
    async fn connect(&self) -> std::result::Result<(Session, Vec<Action>), Ending> {
        let config = &self.shared.config;
        let engine = self.engine.clone();
        // The sync makes the end of the last whole record durable: that is where a stream goes on.
        let (progress, status, history) = blocking(move || {
            let progress = engine.standby_sync()?;
            Ok::<_, Error>((progress, engine.status(), engine.epoch_history()))
        })
        .await??;
        let mut client = dial::dial(config).await?;
        let id = session_id()?;
        let hello = Following::hello(&config.node, id, &progress, &status, history);
        let (outbound, rx) = mpsc::channel(4);
        // The channel is empty: cannot be full.
        let _ = outbound.try_send(wire::encode_hello(&hello));
        let began = Instant::now();
        let mut core = StandbySession::new(&hello, &progress, config.timeouts.progress, began.elapsed());
        let mut inbound = dial::within(config, client.stream(ReceiverStream::new(rx)))
            .await?
            .into_inner();
        let first = dial::within(config, inbound.message()).await?;
        let first = first.ok_or_else(|| Error::new(ErrorKind::Unreachable, "the peer said nothing"))?;
        let mut actions = core.step(began.elapsed(), event(wire::decode_primary(first)));
        if matches!(actions.last(), Some(Action::End(_)))
            && let Some(Action::End(ending)) = actions.pop()
        {
            return Err(ending);
        }
        let session = Session {
            client,
            id,
            database_id: status.database_id,
            inbound,
            outbound,
            core: Arc::new(Mutex::new(core)),
            began,
        };
        info!(from = %progress.durable, "following the primary");
        Ok((session, actions))
    }

    /// Streams until something ends it. No append is under way when it returns.
    async fn stream(&self, session: Session, granted: Vec<Action>, stop: &Signal) -> Ending {
        let config = &self.shared.config;
        let (parts, queue) = mpsc::channel(QUEUE_MESSAGES);
        let (newest, progress) = watch::channel(None);
        let (done_in, mut done) = oneshot::channel();
        {
            let engine = self.engine.clone();
            let thread = std::thread::Builder::new().name("wal-receiver".into());
            let spawned = thread.spawn(move || {
                let outcome = apply(&engine, queue, &newest);
                let _ = done_in.send(outcome);
            });
            if let Err(e) = spawned {
                return Error::new(ErrorKind::Io, "no thread for the stream")
                    .with_source(e)
                    .into();
            }
        }
        let mut run = Run {
            follower: self,
            core: session.core,
            began: session.began,
            parts,
            outbound: session.outbound,
        };
        if let Err(ending) = run.carry_out(granted).await {
            return ending;
        }
        let epoch = run.core.lock().epoch().unwrap_or_default();
        let since = self.following.lock().keys_since(epoch);
        let hello = wire::encode_keys_hello(
            Some(session.database_id),
            Some(session.id),
            &config.node,
            since,
            epoch,
        );
        let busy = Arc::new(tokio::sync::Mutex::new(()));
        let takes = |since, version| self.following.lock().takes_keys(epoch, since, version);
        let on_applied = |version| {
            self.following.lock().keys_applied(epoch, version);
            let actions = run.step(Event::KeysApplied(version));
            actions.into_iter().find_map(|action| match action {
                Action::AcknowledgeKeys(version) => Some(version),
                _ => None,
            })
        };
        let ending = tokio::select! {
            ending = run.take(session.inbound) => ending,
            ending = run.acknowledge(progress) => ending,
            outcome = keystream::follow(session.client, config, &self.engine, hello, &busy, takes, on_applied) => {
                run.failed(match outcome {
                    Ok(()) => wire::Malformed("the key stream ended").into(),
                    Err(e) => e,
                })
            },
            applied = &mut done => {
                drop(busy.lock().await);
                return applied_outcome(applied);
            }
            () = stop.raised() => Ending::Stopped,
        };
        // The thread takes what has arrived, then ends; a key change under way is finished: only then is
        // this over.
        run.parts = mpsc::channel(1).0;
        drop(busy.lock().await);
        match applied_outcome(done.await) {
            Ending::Lost(_) => ending,
            worse => worse,
        }
    }
}

/// A stream under way: steps the core and carries out what it says.
struct Run<'a> {
    follower: &'a Follower,
    core: Arc<Mutex<StandbySession>>,
    began: Instant,
    parts: mpsc::Sender<Part>,
    outbound: mpsc::Sender<v1::StandbyMessage>,
}

impl Run<'_> {
    fn step(&self, event: Event) -> Vec<Action> {
        self.core.lock().step(self.began.elapsed(), event)
    }

    /// The core's word on a failure.
    fn failed(&self, error: Error) -> Ending {
        let actions = self.step(Event::Failed(error));
        let ending = actions.into_iter().find_map(|action| match action {
            Action::End(ending) => Some(ending),
            _ => None,
        });
        // Over before: whoever ended it says more.
        ending.unwrap_or(Ending::Stopped)
    }

    async fn carry_out(&self, actions: Vec<Action>) -> std::result::Result<(), Ending> {
        for action in actions {
            match action {
                Action::Begin { epoch, end, node } => {
                    info!(%epoch, "the primary granted the stream");
                    let mut upstream = self.follower.shared.upstream.lock();
                    upstream.connected = true;
                    upstream.error = None;
                    (upstream.epoch, upstream.end) = (epoch, end);
                    upstream.node = Some(node);
                    upstream.heard = Some(Instant::now());
                }
                Action::Append { first, bytes } => {
                    if self.parts.send(Part { first, bytes }).await.is_err() {
                        // The thread has ended, and says why.
                        return Err(Error::new(ErrorKind::Engine, "WAL cannot be taken").into());
                    }
                }
                Action::Acknowledge(ack) => {
                    if self.outbound.send(wire::encode_ack(&ack)).await.is_err() {
                        return Err(Error::new(ErrorKind::Unreachable, "the connection closed").into());
                    }
                }
                Action::Heard { end, current_at } => {
                    let mut upstream = self.follower.shared.upstream.lock();
                    upstream.heard = Some(Instant::now());
                    upstream.end = upstream.end.max(end);
                    upstream.primary_ms = upstream.primary_ms.max(current_at);
                }
                Action::Applied { current_at } => {
                    let mut upstream = self.follower.shared.upstream.lock();
                    upstream.primary_ms = upstream.primary_ms.max(Some(current_at));
                }
                // The key stream's task sends these itself.
                Action::AcknowledgeKeys(_) => {}
                Action::End(ending) => return Err(ending),
            }
        }
        Ok(())
    }

    /// Takes the primary's messages.
    async fn take(&self, mut inbound: Streaming<v1::PrimaryMessage>) -> Ending {
        let patience = self.follower.shared.config.timeouts.progress;
        loop {
            let event = match tokio::time::timeout(patience, inbound.message()).await {
                Ok(Ok(Some(message))) => event(wire::decode_primary(message)),
                Ok(Ok(None)) => {
                    Event::Failed(Error::new(ErrorKind::Unreachable, "the primary ended the stream"))
                }
                Ok(Err(status)) => Event::Failed(status_error(status)),
                Err(_) => Event::Tick,
            };
            if let Err(ending) = self.carry_out(self.step(event)).await {
                return ending;
            }
        }
    }

    /// Acknowledges the newest progress whenever there is some.
    async fn acknowledge(&self, mut progress: watch::Receiver<Option<StandbyProgress>>) -> Ending {
        loop {
            if progress.changed().await.is_err() {
                // The thread has ended; its outcome says more.
                std::future::pending::<()>().await;
            }
            let newest = *progress.borrow_and_update();
            let Some(newest) = newest else { continue };
            if let Err(ending) = self.carry_out(self.step(Event::Synced(newest))).await {
                return ending;
            }
        }
    }
}

fn event(decoded: std::result::Result<FromPrimary, wire::Malformed>) -> Event {
    match decoded {
        Ok(message) => Event::Message(message),
        Err(malformed) => Event::Failed(malformed.into()),
    }
}

/// The thread's word on how it ended. `Lost` when it ended well.
fn applied_outcome(
    outcome: std::result::Result<std::result::Result<(), strongroom::Error>, oneshot::error::RecvError>,
) -> Ending {
    match outcome {
        Ok(Ok(())) => Error::new(ErrorKind::Unreachable, "the stream ended").into(),
        Ok(Err(e)) => Error::from(e).into(),
        Err(_) => Ending::Reopen(Error::new(ErrorKind::Stopped, "the receiving thread died")),
    }
}

/// Appends, syncs, reports, until the queue ends or the engine refuses.
fn apply(
    engine: &Engine,
    mut queue: mpsc::Receiver<Part>,
    newest: &watch::Sender<Option<StandbyProgress>>,
) -> std::result::Result<(), strongroom::Error> {
    let began = Instant::now();
    let mut debt = SyncDebt::default();
    let mut waiting = None;
    while let Some(part) = waiting.take().or_else(|| queue.blocking_recv()) {
        // The time before: a long append counts.
        let now = began.elapsed();
        engine.standby_append(part.first, &part.bytes)?;
        debt.appended(part.bytes.len(), now);
        waiting = queue.try_recv().ok();
        if debt.due(waiting.is_some(), began.elapsed()) {
            newest.send_replace(Some(engine.standby_sync()?));
            debt.settled();
        }
    }
    Ok(())
}
