//! The object servers embed: one node of a pair.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use strongroom::io::Io;
use strongroom::keys::KeyProvider;
use strongroom::{Engine, Epoch, ErrorKind as EngineKind, Promotion, Role};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::dial;
use crate::dirs::{Dirs, Recorded, settle};
use crate::error::{Error, ErrorKind, Result};
use crate::options::{ReplicationConfig, StartRole};
use crate::service;
use crate::shared::{Command, Shared};
use crate::signal::blocking;
use crate::status::{NodeRole, NodeState, NodeStatus, PeerStatus};
use crate::supervisor::{self, Phase};

/// How long a shutdown waits for open connections before it drops them.
const GRACE: Duration = Duration::from_secs(1);

/// One node of a pair: owns the engine, its role, the listener and every task. Cheap to clone; all clones
/// are one node. Dropping the last clone stops the tasks without waiting; call [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    listen: Option<SocketAddr>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stop.raise();
    }
}

impl Node {
    /// Starts the node: binds the listener, opens the engine if there is a database, starts the tasks.
    ///
    /// Returns once the listener is bound and the local engine is open (or known to be missing). The role
    /// may still be `Waiting` or `Seeding`: see [`watch`](Self::watch). Needs a tokio runtime with time and
    /// I/O.
    ///
    /// Errors: `Invalid` configuration, `Tls` files, `Io` (address in use), `Engine` (see its kind).
    pub async fn start(config: ReplicationConfig, keys: Arc<dyn KeyProvider>) -> Result<Node> {
        config.validate()?;
        let (commands, inbox) = mpsc::unbounded_channel();
        let (data, side, listen) = (config.data_dir.clone(), config.side_dir(), config.listen);
        let (dirs, recorded) = blocking(move || {
            let dirs = Dirs::open(&Io::os(), &data, &side)?;
            dirs.resume_install()?;
            let recorded = dirs.recorded()?;
            Ok::<_, Error>((dirs, recorded))
        })
        .await??;
        let shared = Arc::new(Shared::new(config, keys, dirs, commands));
        supervisor::destroy_keks(&shared).await;
        let phase = first_phase(&shared, recorded).await?;
        let mut tasks = Vec::new();
        let mut bound = None;
        if let Some(address) = listen {
            // What the listener answers before the supervisor runs: waiting.
            match service::listen(shared.clone(), address).await {
                Ok((address, task)) => {
                    bound = Some(address);
                    tasks.push(task);
                }
                Err(e) => {
                    release(phase).await;
                    return Err(e);
                }
            }
        }
        // Whoever asks for the state right after this call finds the first phase's.
        let mut watch = shared.watch();
        watch.mark_unchanged();
        tasks.push(tokio::spawn(supervisor::run(shared.clone(), inbox, phase)));
        // Every phase publishes first of all; the node lives in `shared`, so this cannot fail.
        let _ = watch.changed().await;
        Ok(Node {
            inner: Arc::new(Inner {
                shared,
                listen: bound,
                tasks: Mutex::new(tasks),
            }),
        })
    }

    /// Role and engine now.
    pub fn state(&self) -> NodeState {
        self.inner.shared.state()
    }

    /// Every change of role or engine; the current state is there at once.
    pub fn watch(&self) -> watch::Receiver<NodeState> {
        self.inner.shared.watch()
    }

    /// The engine now, whatever the role; `None` while there is none. Servers take it from
    /// [`state`](Self::state), with the role that says what it may be used for.
    pub fn engine(&self) -> Option<Engine> {
        self.state().engine
    }

    /// Everything an operator asks. Takes short locks of the engine.
    pub fn status(&self) -> NodeStatus {
        let shared = &self.inner.shared;
        let state = shared.state();
        let following = matches!(state.role, NodeRole::Standby | NodeRole::Seeding);
        NodeStatus {
            node: shared.config.node.clone(),
            role: state.role,
            note: state.note,
            listen: self.inner.listen,
            engine: state.engine.map(|engine| engine.status()),
            standbys: shared.reign().map(|reign| reign.statuses()).unwrap_or_default(),
            upstream: following.then(|| shared.upstream_status()),
            fencing: shared.fencing.lock().clone(),
        }
    }

    /// Where the replication service listens, with the real port.
    pub fn listen_addr(&self) -> Option<SocketAddr> {
        self.inner.listen
    }

    /// Asks the configured peer who it is. `Invalid` without a peer, `Unreachable`, `Refused`, `Tls`.
    pub async fn peer_status(&self) -> Result<PeerStatus> {
        dial::ask(&self.inner.shared.config).await
    }

    /// Makes this standby the primary: stops following, takes a never-used epoch durably, applies all
    /// durable WAL, serves; then tells the old primary in the background until it answers.
    ///
    /// Also the way to let a node serve that waits because no rule decides. `NotStandby` on a primary, and
    /// on a node without data. Can be repeated after an error.
    pub async fn promote(&self) -> Result<Promotion> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Promote(reply))?;
        answer.await.map_err(|_| stopped())?
    }

    /// Tells this node that `epoch` exists elsewhere: it acknowledges nothing from now on, and follows
    /// its peer once that serves. `Engine`/`Invalid` if `epoch` is not higher than its own.
    pub async fn fence(&self, epoch: Epoch) -> Result<()> {
        let engine = self
            .engine()
            .ok_or_else(|| Error::new(ErrorKind::NotStandby, "this node has no data"))?;
        blocking(move || engine.fence(epoch)).await??;
        self.send(Command::Fenced)
    }

    /// Stops tasks and listener, closes the engine. Fine to call twice.
    ///
    /// A primary closes its engine first and gives connected standbys a moment (2 s) to take its last
    /// bytes, so that they can resume, or be promoted, without a base copy.
    pub async fn shutdown(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let outcome = match self.send(Command::Shutdown(reply)) {
            Ok(()) => answer.await.unwrap_or(Ok(())),
            Err(_) => Ok(()),
        };
        self.inner.shared.stop.raise();
        let tasks = std::mem::take(&mut *self.inner.tasks.lock());
        for mut task in tasks {
            if tokio::time::timeout(GRACE, &mut task).await.is_err() {
                task.abort();
            }
        }
        outcome
    }

    fn send(&self, command: Command) -> Result<()> {
        self.inner.shared.commands.send(command).map_err(|_| stopped())
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Stopped, "the node was shut down")
}

/// Opens what is there and says what to begin with.
async fn first_phase(shared: &Arc<Shared>, recorded: Option<Recorded>) -> Result<Phase> {
    let configured = shared.config.role;
    let alone = shared.config.peer.is_none();
    if alone && matches!(settle(recorded, configured, None), StartRole::Primary) {
        // Nobody to ask.
        match supervisor::open(shared, Role::Primary, true).await {
            Ok(Some(engine)) => {
                shared.dirs.record(Recorded::Primary)?;
                return Ok(Phase::Serve {
                    engine,
                    tell_peer: false,
                });
            }
            Ok(None) => return Err(Error::new(ErrorKind::Engine, "the database did not open")),
            // Copied from a standby: waits for somebody to promote it.
            Err(e) if e.engine_kind() == Some(EngineKind::NotPrimary) => {
                let engine = supervisor::open(shared, Role::Standby, false).await?;
                return Ok(Phase::Decide {
                    engine,
                    followed: true,
                });
            }
            Err(e) => return Err(e),
        }
    }
    // A look without taking an epoch.
    let engine = supervisor::open(shared, Role::Standby, false).await?;
    let highest = engine.as_ref().map(|engine| engine.status().highest_epoch);
    match settle(recorded, configured, highest) {
        StartRole::Primary => Ok(Phase::Decide {
            engine,
            followed: false,
        }),
        StartRole::Standby if alone => Err(Error::new(
            ErrorKind::Invalid,
            "this node recorded that it is a standby: configure its peer, or promote that one",
        )),
        StartRole::Standby => Ok(Phase::Follow(engine)),
    }
}

/// Lets go of what was opened when the start fails after all.
async fn release(phase: Phase) {
    let engine = match phase {
        Phase::Decide { engine, .. } | Phase::Follow(engine) => engine,
        Phase::Serve { engine, .. } => Some(engine),
        Phase::Failed(_) | Phase::End { .. } => None,
    };
    if let Some(engine) = engine {
        let _ = blocking(move || engine.close()).await;
    }
}
