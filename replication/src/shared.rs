//! What the parts of one node share: configuration, the published state, the reign, what is known of the
//! peer. Owned by `node`; the supervisor alone changes state and reign.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use strongroom::keys::KeyProvider;
use strongroom::{Engine, Epoch, Lsn, Promotion};
use tokio::sync::{mpsc, oneshot, watch};

use crate::core::role;
use crate::dirs::Dirs;
use crate::error::Result;
use crate::kek::Watched;
use crate::options::ReplicationConfig;
use crate::signal::Signal;
use crate::standbys::Reign;
use crate::status::{FencingStatus, NodeRole, NodeState, PeerStatus, UpstreamStatus};

/// What others ask of the supervisor.
pub(crate) enum Command {
    /// Make this standby the primary.
    Promote(oneshot::Sender<Result<Promotion>>),
    /// The engine was fenced, durably: the reign is over.
    Fenced,
    /// Stop everything.
    Shutdown(oneshot::Sender<Result<()>>),
}

pub(crate) struct Shared {
    pub(crate) config: Arc<ReplicationConfig>,
    pub(crate) keys: Arc<dyn KeyProvider>,
    pub(crate) dirs: Dirs,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    /// Raised once, when the node stops for good.
    pub(crate) stop: Signal,
    state: watch::Sender<NodeState>,
    reign: Mutex<Option<Arc<Reign>>>,
    /// Key-encryption keys the database in place lives under.
    pub(crate) keks: Mutex<Option<Arc<Watched>>>,
    pub(crate) upstream: Mutex<Upstream>,
    pub(crate) fencing: Mutex<Option<FencingStatus>>,
}

/// What a standby knows of its primary.
#[derive(Default)]
pub(crate) struct Upstream {
    pub(crate) node: Option<String>,
    pub(crate) connected: bool,
    pub(crate) error: Option<String>,
    pub(crate) epoch: Epoch,
    pub(crate) end: Lsn,
    pub(crate) heard: Option<Instant>,
    pub(crate) primary_ms: Option<u64>,
    pub(crate) base_copy_bytes: Option<u64>,
}

impl Shared {
    pub(crate) fn new(
        config: ReplicationConfig,
        keys: Arc<dyn KeyProvider>,
        dirs: Dirs,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Shared {
        let state = NodeState {
            role: NodeRole::Waiting,
            engine: None,
            epoch: Epoch::ZERO,
            note: None,
        };
        Shared {
            config: Arc::new(config),
            keys,
            dirs,
            commands,
            stop: Signal::new(),
            state: watch::Sender::new(state),
            reign: Mutex::new(None),
            keks: Mutex::new(None),
            upstream: Mutex::new(Upstream::default()),
            fencing: Mutex::new(None),
        }
    }

    pub(crate) fn state(&self) -> NodeState {
        self.state.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<NodeState> {
        self.state.subscribe()
    }

    /// Tells everybody.
    pub(crate) fn publish(&self, role: NodeRole, engine: Option<Engine>, epoch: Epoch, note: Option<String>) {
        self.state.send_replace(NodeState {
            role,
            engine,
            epoch,
            note,
        });
    }

    /// Changes the note only; watchers wake if it changed.
    pub(crate) fn note(&self, note: Option<String>) {
        self.state.send_if_modified(|state| {
            let changed = state.note != note;
            state.note = note;
            changed
        });
    }

    pub(crate) fn reign(&self) -> Option<Arc<Reign>> {
        self.reign.lock().clone()
    }

    pub(crate) fn begin_reign(&self, reign: Arc<Reign>) {
        *self.reign.lock() = Some(reign);
    }

    /// Ends the reign, if one lasts; no stream goes on.
    pub(crate) fn end_reign(&self) {
        let reign = self.reign.lock().take();
        if let Some(reign) = reign {
            reign.end();
        }
    }

    /// What this node answers when asked who it is. Takes engine locks.
    pub(crate) fn who(&self) -> PeerStatus {
        let state = self.state();
        role::who(&self.config.node, state.role, state.engine.as_ref())
    }

    pub(crate) fn upstream_status(&self) -> UpstreamStatus {
        let upstream = self.upstream.lock();
        UpstreamStatus {
            address: self.config.peer.clone().unwrap_or_default(),
            node: upstream.node.clone(),
            connected: upstream.connected,
            error: upstream.error.clone(),
            epoch: upstream.epoch,
            end: upstream.end,
            heard: upstream.heard.map(|at| at.elapsed()),
            primary_ms: upstream.primary_ms,
            base_copy_bytes: upstream.base_copy_bytes,
        }
    }
}
