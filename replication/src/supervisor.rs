//! The one task that changes what a node is. Everything else asks it.
//!
//! ```text
//!               +--------------------- fenced ----------------------+
//!               v                                                   |
//! start --> deciding --- peer knows nothing newer ------------> serving
//!   |           |                                                   ^
//!   |           | peer is the primary                               |
//!   |           v                                                   |
//!   +-----> following ----------------- promote ---------------------+
//!            |     ^
//!            v     |
//!           base copy
//! ```
//!
//! One phase at a time, each a function that returns the next. A phase that is interrupted first ends what
//! it started, so no two phases ever touch the engine together.

use std::sync::Arc;
use std::time::Duration;

use strongroom::keys::KekVersion;
use strongroom::{Builder, Engine, ErrorKind as EngineKind, Promotion, Role};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::bootstrap;
use crate::core::returning::Decision;
use crate::core::role::{self, AfterFollowing, Replaced, Waiting};
use crate::dial;
use crate::dirs::Recorded;
use crate::error::{Error, ErrorKind, Result};
use crate::kek::Watched;
use crate::promote;
use crate::receiver;
use crate::shared::{Command, Shared};
use crate::signal::{Signal, blocking};
use crate::standbys::Reign;
use crate::status::NodeRole;

/// How long a primary that shuts down waits for connected standbys to have all of its WAL.
const DRAIN: Duration = Duration::from_secs(2);
const DRAIN_STEP: Duration = Duration::from_millis(5);

type Commands = mpsc::UnboundedReceiver<Command>;

/// What the node does next.
pub(crate) enum Phase {
    /// Find out whether this node may serve. `followed`: the engine says that its data followed a primary
    /// and was never promoted, so only a person can let it serve.
    Decide { engine: Option<Engine>, followed: bool },
    /// Serve with an engine that is primary; `tell_peer`: it may not know.
    Serve { engine: Engine, tell_peer: bool },
    /// Follow the peer; without an engine, take a base copy first.
    Follow(Option<Engine>),
    /// Nothing can be done without a person.
    Failed(String),
    /// Close and end.
    End {
        engine: Option<Engine>,
        reply: Option<oneshot::Sender<Result<()>>>,
    },
}

/// Why a phase's work was cut short.
enum Interrupt {
    Promote(oneshot::Sender<Result<Promotion>>),
    Fenced,
    End(Option<oneshot::Sender<Result<()>>>),
}

/// Opens the local database. `None` if there is none and it is not to be created.
pub(crate) async fn open(shared: &Arc<Shared>, role: Role, create: bool) -> Result<Option<Engine>> {
    let keks = Watched::new(shared.keys.clone());
    *shared.keks.lock() = Some(keks.clone());
    let builder: Builder = Engine::builder(shared.dirs.data())
        .shared_keys(keks)
        .options(shared.config.engine.clone())
        .role(role)
        .create_if_missing(create);
    match blocking(move || builder.open()).await? {
        Ok(engine) => Ok(Some(engine)),
        Err(e) if e.kind() == EngineKind::NotFound && !create => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Runs phases until the node ends.
pub(crate) async fn run(shared: Arc<Shared>, mut commands: Commands, start: Phase) {
    let mut phase = start;
    loop {
        phase = match phase {
            Phase::Decide { engine, followed } => decide(&shared, &mut commands, engine, followed).await,
            Phase::Serve { engine, tell_peer } => serve(&shared, &mut commands, engine, tell_peer).await,
            Phase::Follow(engine) => follow(&shared, &mut commands, engine).await,
            Phase::Failed(why) => failed(&shared, &mut commands, why).await,
            Phase::End { engine, reply } => {
                end(&shared, engine, reply).await;
                return;
            }
        };
    }
}

/// Waits for something to happen while `work` runs; `work` must end soon after `stop` is raised. Commands
/// that mean nothing in this phase are answered by `refuse`.
async fn guarded<T>(
    shared: &Shared,
    commands: &mut Commands,
    stop: &Signal,
    refuse_promotion: Option<&'static str>,
    work: impl Future<Output = T>,
) -> (Option<Interrupt>, T) {
    let mut work = std::pin::pin!(work);
    let interrupt = loop {
        tokio::select! {
            done = &mut work => return (None, done),
            command = commands.recv() => match (command, refuse_promotion) {
                (Some(Command::Promote(reply)), Some(why)) => {
                    let _ = reply.send(Err(Error::new(ErrorKind::NotStandby, why)));
                }
                (Some(Command::Promote(reply)), None) => break Interrupt::Promote(reply),
                (Some(Command::Fenced), _) => break Interrupt::Fenced,
                (Some(Command::Shutdown(reply)), _) => break Interrupt::End(Some(reply)),
                (None, _) => break Interrupt::End(None),
            },
            () = shared.stop.raised() => break Interrupt::End(None),
        }
    };
    stop.raise();
    (Some(interrupt), work.await)
}

/// A pause that commands can cut short.
async fn pause(
    shared: &Shared,
    commands: &mut Commands,
    wait: Duration,
    can_promote: bool,
) -> Option<Interrupt> {
    let stop = Signal::new();
    let refuse = (!can_promote).then_some("this node has no data");
    let work = async {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.raised() => {}
        }
    };
    guarded(shared, commands, &stop, refuse, work).await.0
}

async fn decide(
    shared: &Arc<Shared>,
    commands: &mut Commands,
    engine: Option<Engine>,
    followed: bool,
) -> Phase {
    let timeouts = &shared.config.timeouts;
    let mut backoff = Backoff::new(timeouts.backoff_min, timeouts.backoff_max, 1);
    let waiting = Waiting {
        followed,
        has_peer: shared.config.peer.is_some(),
        serve_without_peer: shared.config.serve_without_peer,
    };
    let own = engine.as_ref().map(role::own);
    let epoch = own.as_ref().map_or_else(Default::default, |own| own.epoch);
    shared.publish(
        NodeRole::Waiting,
        engine.clone(),
        epoch,
        Some("asking the peer".into()),
    );
    loop {
        let refuse = engine.is_none().then_some("this node has no data");
        let stop = Signal::new();
        let ask = async {
            tokio::select! {
                answer = dial::ask(&shared.config) => Some(answer),
                () = stop.raised() => None,
            }
        };
        let (interrupt, answer) = guarded(shared, commands, &stop, refuse, ask).await;
        let interrupt = match (interrupt, answer) {
            (None, Some(answer)) => {
                // Again: it may have been fenced while asking.
                let own = engine.as_ref().map(role::own);
                match waiting.answered(own.as_ref(), answer.as_ref().ok()) {
                    Decision::Serve { tell_peer } => {
                        info!(tell_peer, "to serve as primary");
                        return become_primary(shared, engine, tell_peer).await;
                    }
                    Decision::Follow => {
                        info!("the peer is the primary: to follow it");
                        return match shared.dirs.record(Recorded::Standby) {
                            Ok(()) => Phase::Follow(engine),
                            Err(e) => Phase::Failed(e.to_string()),
                        };
                    }
                    Decision::Wait(why) => {
                        let note = match answer {
                            Err(e) => format!("{why}: {e}"),
                            Ok(_) => why.to_string(),
                        };
                        shared.note(Some(note));
                    }
                }
                pause(shared, commands, backoff.next(), engine.is_some()).await
            }
            (interrupt, _) => interrupt,
        };
        match (interrupt, &engine) {
            (Some(Interrupt::Promote(reply)), Some(engine)) => {
                if let Some(phase) = promoted(shared, engine, reply).await {
                    return phase;
                }
            }
            (Some(Interrupt::End(reply)), _) => return Phase::End { engine, reply },
            // Fenced: ask again at once; the answer of the engine changed.
            (Some(Interrupt::Fenced), _) => backoff.reset(),
            (Some(Interrupt::Promote(_)) | None, _) => {}
        }
    }
}

/// From an engine that only looked to one that is primary.
async fn become_primary(shared: &Arc<Shared>, engine: Option<Engine>, tell_peer: bool) -> Phase {
    if let Err(e) = close(engine).await {
        return Phase::Failed(format!("closing the database failed: {e}"));
    }
    let failed = |e: &Error| Phase::Failed(format!("opening the database failed: {e}"));
    match open(shared, Role::Primary, true).await {
        Ok(Some(engine)) => match shared.dirs.record(Recorded::Primary) {
            Ok(()) => Phase::Serve { engine, tell_peer },
            Err(e) => {
                let _ = close(Some(engine)).await;
                failed(&e)
            }
        },
        Ok(None) => Phase::Failed("the database disappeared".into()),
        Err(e) if e.engine_kind() == Some(EngineKind::NotPrimary) => {
            match open(shared, Role::Standby, false).await {
                Ok(engine) => Phase::Decide {
                    engine,
                    followed: true,
                },
                Err(e) => failed(&e),
            }
        }
        Err(e) => failed(&e),
    }
}

async fn close(engine: Option<Engine>) -> Result<()> {
    let Some(engine) = engine else { return Ok(()) };
    match blocking(move || engine.close()).await? {
        Err(e) if e.kind() != EngineKind::Closed => Err(e.into()),
        _ => Ok(()),
    }
}

/// The engine is promoted; None if that failed and the phase goes on.
async fn promoted(
    shared: &Arc<Shared>,
    engine: &Engine,
    reply: oneshot::Sender<Result<Promotion>>,
) -> Option<Phase> {
    match promote::promote(shared, engine).await {
        Ok(promotion) => {
            // The reign begins before the caller hears of it: what it does next finds a primary.
            let engine = engine.clone();
            begin(shared, &engine, true);
            let _ = reply.send(Ok(promotion));
            Some(Phase::Serve {
                engine,
                tell_peer: true,
            })
        }
        Err(e) => {
            warn!(error = %e, "promotion failed");
            let _ = reply.send(Err(e));
            None
        }
    }
}

/// Begins a reign, unless it has begun.
fn begin(shared: &Arc<Shared>, engine: &Engine, tell_peer: bool) {
    if shared.reign().is_some() {
        return;
    }
    *shared.upstream.lock() = Default::default();
    *shared.fencing.lock() = None;
    let reign = Arc::new(Reign::new(engine.clone(), shared.config.timeouts.base_copy_grace));
    let epoch = reign.epoch;
    info!(%epoch, "serving as primary");
    if tell_peer && shared.config.peer.is_some() {
        tokio::spawn(promote::notify(
            shared.clone(),
            reign.database_id,
            epoch,
            reign.over.clone(),
        ));
    }
    shared.begin_reign(reign);
    shared.publish(NodeRole::Primary, Some(engine.clone()), epoch, None);
}

async fn serve(shared: &Arc<Shared>, commands: &mut Commands, engine: Engine, tell_peer: bool) -> Phase {
    if engine.status().fenced_by.is_none() {
        begin(shared, &engine, tell_peer);
        let stop = Signal::new();
        let refuse = Some("this node is the primary already");
        let (interrupt, ()) = guarded(shared, commands, &stop, refuse, stop.raised()).await;
        if let Some(Interrupt::End(reply)) = interrupt {
            return Phase::End {
                engine: Some(engine),
                reply,
            };
        }
    }
    let status = engine.status();
    shared.end_reign();
    *shared.fencing.lock() = None;
    let by = status.fenced_by.unwrap_or(status.highest_epoch);
    let note = format!("fenced by epoch {by}");
    warn!(epoch = %status.epoch, %by, "no longer primary");
    shared.publish(
        NodeRole::Fenced,
        Some(engine.clone()),
        status.epoch,
        Some(note.clone()),
    );
    if shared.config.peer.is_none() {
        // Nobody to follow: stays readable for whoever holds the engine, acknowledges nothing.
        let stop = Signal::new();
        let refuse = Some("this node is fenced and has no peer");
        loop {
            let (interrupt, ()) = guarded(shared, commands, &stop, refuse, stop.raised()).await;
            if let Some(Interrupt::End(reply)) = interrupt {
                return Phase::End {
                    engine: Some(engine),
                    reply,
                };
            }
        }
    }
    if let Err(e) = close(Some(engine)).await {
        // What a fenced engine could not flush is in its WAL.
        warn!(error = %e, "closing the fenced database failed");
    }
    match open(shared, Role::Standby, false).await {
        Ok(engine) => Phase::Decide {
            engine,
            followed: false,
        },
        Err(e) => Phase::Failed(format!("opening the fenced database failed: {e}")),
    }
}

async fn follow(shared: &Arc<Shared>, commands: &mut Commands, engine: Option<Engine>) -> Phase {
    let Some(engine) = engine else {
        let why = "empty: taking a base copy".to_string();
        return seed(shared, commands, None, None, why).await;
    };
    let epoch = engine.status().epoch;
    shared.publish(NodeRole::Standby, Some(engine.clone()), epoch, None);
    let stop = Signal::new();
    let work = receiver::follow(shared.clone(), engine.clone(), &stop);
    let (interrupt, ended) = guarded(shared, commands, &stop, None, work).await;
    match interrupt {
        Some(Interrupt::Promote(reply)) => {
            return promoted(shared, &engine, reply)
                .await
                .unwrap_or(Phase::Follow(Some(engine)));
        }
        Some(Interrupt::End(reply)) => {
            return Phase::End {
                engine: Some(engine),
                reply,
            };
        }
        Some(Interrupt::Fenced) => return Phase::Follow(Some(engine)),
        None => {}
    }
    match role::after_following(ended, &engine.status()) {
        AfterFollowing::Fail(why) => Phase::Failed(why.into()),
        AfterFollowing::Seed {
            replaced,
            readable: false,
            why,
        } => {
            warn!(why, "this node's data diverged: taking a base copy");
            shared.publish(NodeRole::Seeding, None, engine.status().epoch, Some(why.clone()));
            if let Err(e) = close(Some(engine)).await {
                warn!(error = %e, "closing diverged data failed");
            }
            seed(shared, commands, None, Some(replaced), why).await
        }
        AfterFollowing::Seed {
            replaced,
            readable: true,
            why,
        } => {
            warn!(why, "too far behind: taking a base copy");
            shared.note(Some(format!("taking a base copy: {why}")));
            seed(shared, commands, Some(engine), Some(replaced), why).await
        }
        AfterFollowing::Reopen(e) => {
            error!(error = %e, "the standby's engine must be reopened");
            shared.publish(NodeRole::Seeding, None, epoch, Some(format!("reopening: {e}")));
            if let Err(e) = close(Some(engine)).await {
                warn!(error = %e, "closing the standby's database failed");
            }
            reopen(shared, commands).await
        }
    }
}

/// Opens the standby's database again, as often as it takes.
async fn reopen(shared: &Arc<Shared>, commands: &mut Commands) -> Phase {
    let timeouts = &shared.config.timeouts;
    let mut backoff = Backoff::new(timeouts.backoff_min, timeouts.backoff_max, 2);
    loop {
        match open(shared, Role::Standby, false).await {
            Ok(engine) => return Phase::Follow(engine),
            Err(e) => {
                error!(error = %e, "the standby's database does not open");
                shared.note(Some(format!("reopening: {e}")));
            }
        }
        if let Some(Interrupt::End(reply)) = pause(shared, commands, backoff.next(), false).await {
            return Phase::End { engine: None, reply };
        }
    }
}

/// Takes a base copy, as often as it takes, and puts it in place. With an engine (a standby that fell
/// behind), that goes on being readable and promotable meanwhile.
async fn seed(
    shared: &Arc<Shared>,
    commands: &mut Commands,
    engine: Option<Engine>,
    replaced: Option<Replaced>,
    why: String,
) -> Phase {
    if engine.is_none() {
        let epoch = shared.state().epoch;
        shared.publish(NodeRole::Seeding, None, epoch, Some(why));
    }
    let config = &shared.config;
    let mut backoff = Backoff::new(config.timeouts.backoff_min, config.timeouts.backoff_max, 3);
    let refuse = engine.is_none().then_some("this node has no data yet");
    loop {
        let stop = Signal::new();
        let progress = |bytes| shared.upstream.lock().base_copy_bytes = Some(bytes);
        let expected = replaced.map(|r| (r.database_id, r.epoch));
        let keks = Watched::new(shared.keys.clone());
        let fetch = bootstrap::fetch(config, &shared.dirs, &keks, expected, &stop, progress);
        let (interrupt, fetched) = guarded(shared, commands, &stop, refuse, fetch).await;
        shared.upstream.lock().base_copy_bytes = None;
        let mut interrupt = interrupt;
        if interrupt.is_none() {
            match fetched {
                Ok(Some(received)) => {
                    info!(epoch = %received.epoch, lsn = %received.lsn, bytes = received.bytes, "base copy received");
                    return install(shared, engine, replaced, &keks).await;
                }
                Ok(None) => {}
                Err(e) => {
                    warn!(error = %e, "base copy failed");
                    shared.upstream.lock().error = Some(e.to_string());
                    interrupt = pause(shared, commands, backoff.next(), engine.is_some()).await;
                }
            }
        }
        match (interrupt, engine.as_ref()) {
            (Some(Interrupt::End(reply)), _) => return Phase::End { engine, reply },
            (Some(Interrupt::Promote(reply)), Some(old)) => {
                if let Some(phase) = promoted(shared, old, reply).await {
                    return phase;
                }
            }
            _ => {}
        }
    }
}

/// Puts a received base copy in the place of the old data and opens it.
async fn install(
    shared: &Arc<Shared>,
    old: Option<Engine>,
    replaced: Option<Replaced>,
    new: &Watched,
) -> Phase {
    let epoch = shared.state().epoch;
    let note = "putting the base copy in place".to_string();
    shared.publish(NodeRole::Seeding, None, epoch, Some(note));
    if let Err(e) = close(old).await {
        warn!(error = %e, "closing the replaced database failed");
    }
    // What the replaced keystore was under; never what the new one is under.
    let mut keks = shared
        .keks
        .lock()
        .take()
        .map(|keks| keks.live())
        .unwrap_or_default();
    keks.retain(|version| !new.live().contains(version));
    let keep = replaced.filter(|r| r.keep_wal).map(|r| (r.epoch, now_ms()));
    let dirs = shared.dirs.clone();
    let installed = blocking(move || dirs.install(keep, &keks)).await;
    let installed = installed.and_then(|installed| installed);
    destroy_keks(shared).await;
    match installed {
        Ok(Some(kept)) => warn!(path = %kept.display(), "the replaced WAL is kept for inspection"),
        Ok(None) => {}
        Err(e) => return Phase::Failed(format!("putting the base copy in place failed: {e}")),
    }
    match open(shared, Role::Standby, false).await {
        Ok(Some(engine)) => Phase::Follow(Some(engine)),
        Ok(None) => Phase::Failed("the base copy disappeared".into()),
        Err(e) => Phase::Failed(format!("the base copy does not open: {e}")),
    }
}

/// Destroys the key-encryption keys of replaced keystores. What fails is tried again at the next start.
pub(crate) async fn destroy_keks(shared: &Arc<Shared>) {
    let shared = shared.clone();
    let destroyed = blocking(move || {
        for version in shared.dirs.keks_to_destroy()? {
            shared.keys.destroy_version(KekVersion(version))?;
        }
        shared.dirs.keks_destroyed()
    });
    if let Err(e) = destroyed.await.and_then(|destroyed| destroyed) {
        warn!(error = %e, "the key of a replaced keystore is not destroyed yet");
    }
}

fn now_ms() -> u64 {
    use strongroom::io::{Clock as _, OsClock};
    OsClock::new().now_ms()
}

async fn failed(shared: &Arc<Shared>, commands: &mut Commands, why: String) -> Phase {
    error!(why, "the node cannot go on");
    shared.end_reign();
    shared.publish(NodeRole::Stopped, None, shared.state().epoch, Some(why));
    let stop = Signal::new();
    let refuse = Some("this node has stopped");
    loop {
        let (interrupt, ()) = guarded(shared, commands, &stop, refuse, stop.raised()).await;
        if let Some(Interrupt::End(reply)) = interrupt {
            return Phase::End { engine: None, reply };
        }
    }
}

/// Closes the engine. A primary does so while its streams still run, so that standbys get the last bytes
/// (the mark of a clean close among them) and can resume, whoever is primary next.
async fn end(shared: &Arc<Shared>, engine: Option<Engine>, reply: Option<oneshot::Sender<Result<()>>>) {
    shared.publish(
        NodeRole::Stopped,
        None,
        shared.state().epoch,
        Some("shut down".into()),
    );
    let closed = close(engine.clone()).await;
    if let (Some(reign), Some(engine)) = (shared.reign(), engine) {
        let end = engine.wal_end().start;
        let drained = async {
            while !reign.all_durable(end) {
                tokio::time::sleep(DRAIN_STEP).await;
            }
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            warn!("shut down before every standby had all of the WAL");
        }
    }
    shared.end_reign();
    shared.stop.raise();
    if let Some(reply) = reply {
        let _ = reply.send(closed);
    }
}
