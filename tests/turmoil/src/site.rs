//! Where a node lives, and the host that runs it.
//!
//! A crash drops the node's runtime with everything on it; what the operating system already has stays, as
//! after a kill. (Loss of power is the crash suites' part.) Threads of the crashed life may hold the database
//! for a moment; the next life tries until it gets it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use strongroom::keys::MemoryKeys;
use strongroom::{Engine, Options, Promotion};
use strongroom_replication::{Node, REPLICA_ROLE, ReplicationConfig, StartRole, TlsFiles};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::net::SimulatedTcp;

/// Names of the two hosts.
pub const NAMES: [&str; 2] = ["a", "b"];
const PORT: u16 = 7300;

/// What an operator asks of a running node.
pub enum Order {
    /// Promote; the answer goes where it says.
    Promote(Arc<Mutex<Option<Result<Promotion, String>>>>),
    /// Shut down, and start again.
    Restart,
}

/// A running node and the way to give it orders.
struct Life {
    node: Node,
    orders: mpsc::UnboundedSender<Order>,
}

/// One node's place, across its lives. Clones are one site.
#[derive(Clone)]
pub struct Site(Arc<Inner>);

struct Inner {
    config: ReplicationConfig,
    keys: Arc<MemoryKeys>,
    life: Mutex<Option<Life>>,
    starts: AtomicU64,
    refused: Mutex<Option<String>>,
}

impl Site {
    /// The site of node `index`, in `root`.
    pub fn new(root: &Path, index: usize) -> Site {
        let (name, peer) = (NAMES[index], NAMES[1 - index]);
        let role = if index == 0 {
            StartRole::Primary
        } else {
            StartRole::Standby
        };
        let mut config = ReplicationConfig::new(name, root.join(name).join("db"), role);
        config.listen = Some(([0, 0, 0, 0], PORT).into());
        config.peer = Some(format!("{peer}:{PORT}"));
        config.tls = Some(certificates()[index].clone());
        config.network = Some(Arc::new(SimulatedTcp));
        config.window_bytes = 1 << 20;
        config.engine = options();
        let t = &mut config.timeouts;
        t.connect = Duration::from_secs(2);
        t.call = Duration::from_secs(4);
        t.keepalive_interval = Duration::from_secs(1);
        t.keepalive_timeout = Duration::from_secs(2);
        t.heartbeat = Duration::from_millis(500);
        t.progress = Duration::from_secs(6);
        t.backoff_min = Duration::from_millis(50);
        t.backoff_max = Duration::from_secs(1);
        Site(Arc::new(Inner {
            config,
            keys: Arc::new(MemoryKeys::new()),
            life: Mutex::new(None),
            starts: AtomicU64::new(0),
            refused: Mutex::new(None),
        }))
    }

    /// What the host runs: the node, until it is told to stop or crashes.
    pub async fn live(self) -> turmoil::Result {
        loop {
            let keys = self.0.keys.clone();
            match Node::start(self.0.config.clone(), keys).await {
                Ok(node) => self.serve(node).await,
                Err(error) => *self.0.refused.lock() = Some(error.to_string()),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn serve(&self, node: Node) {
        let (orders, mut inbox) = mpsc::unbounded_channel();
        *self.0.life.lock() = Some(Life {
            node: node.clone(),
            orders,
        });
        self.0.starts.fetch_add(1, Ordering::Relaxed);
        while let Some(order) = inbox.recv().await {
            match order {
                Order::Promote(answer) => {
                    let result = node.promote().await.map_err(|e| e.to_string());
                    *answer.lock() = Some(result);
                }
                Order::Restart => break,
            }
        }
        *self.0.life.lock() = None;
        let _ = node.shutdown().await;
    }

    /// Gives an order; false if nobody is there to take it.
    pub fn order(&self, order: Order) -> bool {
        let life = self.0.life.lock();
        life.as_ref().is_some_and(|life| life.orders.send(order).is_ok())
    }

    /// Lets go of the node; right before its host crashes.
    pub fn forget(&self) {
        *self.0.life.lock() = None;
    }

    /// The node, if it runs.
    pub fn node(&self) -> Option<Node> {
        self.0.life.lock().as_ref().map(|life| life.node.clone())
    }

    /// The engine that takes writes here, if there is one.
    pub fn primary(&self) -> Option<Engine> {
        self.node()?.state().primary().cloned()
    }

    /// How often a node started here.
    pub fn starts(&self) -> u64 {
        self.0.starts.load(Ordering::Relaxed)
    }

    /// For failures: what the node says of itself, or why there is none.
    pub fn describe(&self) -> String {
        match self.node() {
            Some(node) => format!("{:?}", node.status()),
            None => format!("down; last refused: {:?}", self.0.refused.lock()),
        }
    }
}

/// Small, so that a cut of seconds outlasts the log that is kept, and a standby needs a base copy.
fn options() -> Options {
    let mut options = Options::default();
    options.memtable_bytes = 64 << 10;
    options.segment_bytes = 32 << 10;
    options.wal_keep_bytes = 128 << 10;
    options.table_bytes = 256 << 10;
    options.cache_bytes = 1 << 20;
    // On the wall's clock, as all of the engine.
    options.replicated_timeout = Duration::from_millis(400);
    options
}

/// A directory in memory if there is one: syncs cost nothing there.
pub fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).expect("a temporary directory")
    } else {
        tempfile::tempdir().expect("a temporary directory")
    }
}

/// Certificates of the two nodes, made once per process.
fn certificates() -> &'static [TlsFiles; 2] {
    static MADE: OnceLock<(TempDir, [TlsFiles; 2])> = OnceLock::new();
    &MADE
        .get_or_init(|| {
            let dir = directory();
            let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            let files = NAMES.map(|name| issue(&authority, dir.path(), name));
            (dir, files)
        })
        .1
}

fn issue(authority: &CertifiedIssuer<'static, KeyPair>, dir: &Path, name: &str) -> TlsFiles {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params
        .subject_alt_names
        .push(SanType::URI(REPLICA_ROLE.try_into().unwrap()));
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, authority).unwrap();
    let place = |what: &str, text: String| -> PathBuf {
        let path = dir.join(format!("{name}.{what}.pem"));
        std::fs::write(&path, text).unwrap();
        path
    };
    TlsFiles {
        ca: place("ca", authority.pem()),
        cert: place("cert", cert.pem()),
        key: place("key", key.serialize_pem()),
    }
}
