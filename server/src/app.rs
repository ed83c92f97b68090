//! A running node: owns the start and stop order.
//!
//! ```text
//! start   key file, certificates > bind tenants and admin > Node (replication, engine) > serve
//! role    Node tells of every change > health, leased snapshots
//! stop    health says no > listeners drain, up to the timeout > Node: tasks, engine
//! ```
//!
//! Services take the engine from the node for every call, so a fenced or replaced engine is never served by
//! accident. Administration answers in every role.

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use strongroom::keys::KeyFile;
use strongroom_client::MESSAGE_BYTES_MAX;
use strongroom_client::proto::admin::admin_server::AdminServer;
use strongroom_client::proto::kv::kv_server::KvServer;
use strongroom_client::proto::{admin, kv};
use strongroom_replication::{Node, NodeRole};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::admin_service::{AdminService, UpstreamName};
use crate::auth::{AdminGate, TenantGate};
use crate::budget::Budget;
use crate::config::Config;
use crate::kv_service::KvService;
use crate::listener::{Rules, accept};
use crate::snapshots::Snapshots;
use crate::tls;
use crate::token_store::TokenStore;

/// Request messages of the administration service are small.
const ADMIN_MESSAGE_BYTES_MAX: usize = 1 << 20;
/// HTTP/2 windows: a stream's and a connection's. hyper's 1 MiB halves the speed of large values over distance;
/// more than this buys nothing below 100 ms at 1 Gbit/s.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// A peer that does not answer a ping in time is gone; off by default in tonic.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Of all headers of a request.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Calls in flight per administrator's connection.
const ADMIN_STREAMS_MAX: u32 = 64;
/// How often ended leases are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often a standby asks its primary's name while it does not know it.
const NAME_EVERY: Duration = Duration::from_secs(1);

/// Where a running node listens, with real ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Addresses {
    /// Key-value service.
    pub tenants: SocketAddr,
    /// Administration service.
    pub admin: SocketAddr,
    /// Replication service, if any.
    pub replication: Option<SocketAddr>,
}

/// Why a node did not start or stop well.
#[derive(Debug)]
#[non_exhaustive]
pub enum AppError {
    /// The configuration, or a certificate or key file it names.
    Config(String),
    /// An address cannot be listened on.
    Listen(String),
    /// The engine: see its kind (`Locked`, `KeyRefused`, `Corruption`, ...).
    Engine(strongroom::Error),
    /// Replication: see its kind.
    Node(strongroom_replication::Error),
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppError::Config(message) | AppError::Listen(message) => f.write_str(message),
            AppError::Engine(error) => fmt::Display::fmt(error, f),
            AppError::Node(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for AppError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AppError::Config(_) | AppError::Listen(_) => None,
            // Displayed as itself: the chain goes on below it.
            AppError::Engine(error) => error.source(),
            AppError::Node(error) => error.source(),
        }
    }
}

impl From<strongroom_replication::Error> for AppError {
    fn from(error: strongroom_replication::Error) -> AppError {
        match error.engine() {
            Some(engine) => AppError::Engine(engine.duplicate()),
            None => AppError::Node(error),
        }
    }
}

/// A running node: engine, replication, listeners. Dropping it without [`stop`](App::stop) ends it as a crash
/// would: nothing acknowledged is lost, the next open recovers.
pub struct App {
    node: Node,
    name: String,
    addresses: Addresses,
    snapshots: Arc<Snapshots>,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
    background: Vec<JoinHandle<()>>,
    shutdown_timeout: Duration,
    signals: Mutex<Option<Signals>>,
}

/// What tells a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

impl Drop for App {
    fn drop(&mut self) {
        for task in self.servers.iter().chain(&self.background) {
            task.abort();
        }
    }
}

impl App {
    /// Starts everything; returns when all listeners are bound and the engine is open (or known to be missing,
    /// on a standby). Call [`install_crypto_provider`](crate::install_crypto_provider) first. Needs a tokio
    /// runtime with time and I/O.
    pub async fn start(config: Config) -> Result<App, AppError> {
        config.validate().map_err(|e| AppError::Config(e.to_string()))?;
        let keys = KeyFile::open(&config.keys.file).map_err(AppError::Engine)?;
        let tenants_tls = match &config.tenants.tls {
            Some(files) => Some(tls::server(&files.cert, &files.key, None).map_err(in_table("tenants.tls"))?),
            None => None,
        };
        let admin_tls = match &config.admin.tls {
            Some(files) => Some(
                tls::server(&files.cert, &files.key, Some(&files.client_ca))
                    .map_err(in_table("admin.tls"))?,
            ),
            None => None,
        };
        let (tenants, tenants_addr) = bind("tenants", config.tenants.listen).await?;
        let (admin, admin_addr) = bind("admin", config.admin.listen).await?;
        let node = Node::start(config.replication(), Arc::new(keys)).await?;

        let (stop, stopping) = watch::channel(false);
        let tokens = Arc::new(TokenStore::default());
        let lease = Duration::from_millis(config.tenants.snapshot_lease_ms);
        let snapshots = Arc::new(Snapshots::new(config.tenants.snapshots_max, lease));
        let upstream = Arc::new(UpstreamName::default());
        let health = HealthReporter::new();
        for service in ["", KV, ADMIN] {
            health
                .set_service_status(service, ServingStatus::NotServing)
                .await;
        }

        let tenants = accept(
            tenants,
            Rules {
                name: "tenants",
                tls: tenants_tls,
                connections_max: config.tenants.connections_max,
                handshake_timeout: Duration::from_millis(config.tenants.handshake_timeout_ms),
            },
            stopping.clone(),
        );
        let call_timeout = Duration::from_millis(config.tenants.call_timeout_ms);
        let service = KvServer::new(KvService::new(
            snapshots.clone(),
            config.tenants.calls_max,
            call_timeout,
        ))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let budget = Budget::new(config.tenants.request_bytes_max);
        let tenants = transport(config.tenants.streams_max)
            .timeout(call_timeout)
            .add_service(TenantGate::new(service, node.clone(), tokens.clone(), budget))
            .add_service(tonic_health::pb::health_server::HealthServer::new(
                tonic_health::server::HealthService::from_health_reporter(health.clone()),
            ))
            .add_service(reflection(kv::DESCRIPTORS)?)
            .serve_with_incoming_shutdown(tenants, told(stopping.clone()));

        let admin = accept(
            admin,
            Rules {
                name: "admin",
                tls: admin_tls,
                connections_max: config.admin.connections_max,
                handshake_timeout: Duration::from_millis(config.admin.handshake_timeout_ms),
            },
            stopping.clone(),
        );
        let insecure = config.admin.insecure;
        let service = AdminServer::new(AdminService::new(
            node.clone(),
            tokens.clone(),
            snapshots.clone(),
            upstream.clone(),
            call_timeout,
        ))
        .max_decoding_message_size(ADMIN_MESSAGE_BYTES_MAX);
        let admin = transport(ADMIN_STREAMS_MAX)
            .add_service(AdminGate::new(service, insecure))
            .add_service(AdminGate::new(
                tonic_health::pb::health_server::HealthServer::new(
                    tonic_health::server::HealthService::from_health_reporter(health.clone()),
                ),
                insecure,
            ))
            .add_service(AdminGate::new(reflection(admin::DESCRIPTORS)?, insecure))
            .serve_with_incoming_shutdown(admin, told(stopping.clone()));

        let serve = |name, server: Result<(), tonic::transport::Error>| {
            if let Err(error) = server {
                tracing::error!(listener = name, %error, "listener failed");
            }
        };
        let servers = vec![
            tokio::spawn(async move { serve("tenants", tenants.await) }),
            tokio::spawn(async move { serve("admin", admin.await) }),
        ];
        let background = vec![
            tokio::spawn(follow(node.clone(), health, snapshots.clone(), stopping)),
            tokio::spawn(learn_name(node.clone(), upstream)),
            tokio::spawn(sweep(snapshots.clone())),
        ];
        let addresses = Addresses {
            tenants: tenants_addr,
            admin: admin_addr,
            replication: node.listen_addr(),
        };
        let shutdown_timeout = Duration::from_millis(config.node.shutdown_timeout_ms);
        let name = config.node.name;
        Ok(App {
            node,
            name,
            addresses,
            snapshots,
            stop,
            servers,
            background,
            shutdown_timeout,
            signals: Mutex::default(),
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The node inside.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Says that it is ready: one line on stderr, and, with `file`, a JSON object `{"schema":1,"node","pid",
    /// "tenants","admin","replication"}` that appears there whole (written aside, renamed). From here on
    /// SIGTERM and SIGINT are kept for [`wait`](App::wait).
    pub fn announce(&self, file: Option<&Path>) -> std::io::Result<()> {
        *self.signals.lock() = Some(Signals::new()?);
        let a = &self.addresses;
        if let Some(file) = file {
            let text = serde_json::json!({
                "schema": 1,
                "node": self.name,
                "pid": std::process::id(),
                "tenants": a.tenants,
                "admin": a.admin,
                "replication": a.replication,
            });
            let mut aside = file.as_os_str().to_owned();
            aside.push(".tmp");
            std::fs::write(&aside, format!("{text}\n"))?;
            std::fs::rename(&aside, file)?;
        }
        let replication = a
            .replication
            .map(|a| format!(" replication={a}"))
            .unwrap_or_default();
        writeln!(
            std::io::stderr(),
            "strongroom ready: node={} tenants={} admin={}{replication}",
            self.name,
            a.tenants,
            a.admin
        )
    }

    /// Returns at the first SIGTERM or SIGINT, or when the node cannot go on. The error: signals cannot be
    /// waited for.
    pub async fn wait(&self) -> std::io::Result<Ended> {
        let kept = self.signals.lock().take();
        let mut signals = match kept {
            Some(signals) => signals,
            None => Signals::new()?,
        };
        let mut state = self.node.watch();
        let stopped = state.wait_for(|state| state.role == NodeRole::Stopped);
        Ok(tokio::select! {
            _ = signals.terminate.recv() => Ended::Told,
            _ = signals.interrupt.recv() => Ended::Told,
            state = stopped => {
                Ended::ByItself(state.ok().and_then(|s| s.note.clone()).unwrap_or_default())
            }
        })
    }

    /// Takes no more calls, waits for those in flight up to `node.shutdown_timeout_ms`, closes the engine. What
    /// was acknowledged stays; calls cut off have an unknown outcome.
    pub async fn stop(mut self) -> Result<(), AppError> {
        let _ = self.stop.send(true);
        let deadline = tokio::time::Instant::now() + self.shutdown_timeout;
        for mut server in std::mem::take(&mut self.servers) {
            if tokio::time::timeout_at(deadline, &mut server).await.is_err() {
                tracing::warn!("calls in flight were cut off");
                server.abort();
            }
        }
        self.snapshots.keep_only(None);
        Ok(self.node.shutdown().await?)
    }
}

/// Why [`App::wait`] returned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// By a signal.
    Told,
    /// The node cannot go on: why.
    ByItself(String),
}

const KV: &str = "strongroom.kv.v1.Kv";
const ADMIN: &str = "strongroom.admin.v1.Admin";

fn in_table(table: &'static str) -> impl Fn(String) -> AppError {
    move |message| AppError::Config(format!("{table}: {message}"))
}

async fn bind(table: &str, listen: SocketAddr) -> Result<(TcpListener, SocketAddr), AppError> {
    let fail = |e| AppError::Listen(format!("{table}.listen: {listen}: {e}"));
    let listener = TcpListener::bind(listen).await.map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    Ok((listener, address))
}

/// tonic's server with its defaults changed (research: ecosystem 1, security 4).
fn transport(streams_max: u32) -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(streams_max)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
}

fn reflection(
    descriptors: &'static [u8],
) -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection>,
    AppError,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(descriptors)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| AppError::Config(format!("descriptors: {e}")))
}

async fn told(mut stopping: watch::Receiver<bool>) {
    // An error: the application is gone, which is as good as told.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Turns the node's role into health and ends what belongs to an earlier reign.
async fn follow(
    node: Node,
    health: HealthReporter,
    snapshots: Arc<Snapshots>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut states = node.watch();
    loop {
        let (serving, epoch) = {
            let state = states.borrow_and_update();
            (state.primary().is_some(), state.epoch)
        };
        let stop = *stopping.borrow_and_update();
        let status = |yes| {
            if yes && !stop {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            }
        };
        snapshots.keep_only(serving.then_some(epoch));
        health.set_service_status("", status(serving)).await;
        health.set_service_status(KV, status(serving)).await;
        health.set_service_status(ADMIN, status(true)).await;
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            changed = stopping.changed() => if changed.is_err() { return },
        }
    }
}

/// Learns the name of the primary that this standby follows, anew after every change of role or reign.
async fn learn_name(node: Node, upstream: Arc<UpstreamName>) {
    let mut states = node.watch();
    loop {
        let role = states.borrow_and_update().role;
        let mut known = !matches!(role, NodeRole::Standby | NodeRole::Seeding);
        while !known {
            if let Ok(peer) = node.peer_status().await
                && peer.role == NodeRole::Primary
            {
                upstream.set(peer.node);
                known = true;
                continue;
            }
            match tokio::time::timeout(NAME_EVERY, states.changed()).await {
                Ok(Ok(())) => break,
                Ok(Err(_)) => return,
                Err(_) => {}
            }
        }
        if known && states.changed().await.is_err() {
            return;
        }
    }
}

async fn sweep(snapshots: Arc<Snapshots>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        snapshots.sweep();
    }
}
