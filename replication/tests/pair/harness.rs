//! Certificates, links that can be cut, nodes, and waiting.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use strongroom::keys::MemoryKeys;
use strongroom::{Durability, Engine, Keyspace, TenantOptions};
use strongroom_replication::{
    Node, NodeRole, NodeState, REPLICA_ROLE, ReplicationConfig, StandbyStatus, StartRole, TlsFiles,
};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// No wait of a test that passes comes near it.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Awaits `event` or fails naming it.
pub async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(value) => value,
        Err(_) => panic!("deadline passed: {what}"),
    }
}

/// Awaits a condition that has no event of its own.
pub async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    within(what, async {
        while !met() {
            tick.tick().await;
        }
    })
    .await;
}

/// Awaits a state of a node.
pub async fn state(node: &Node, what: &str, mut met: impl FnMut(&NodeState) -> bool) -> NodeState {
    let mut watch = node.watch();
    let reached = tokio::time::timeout(DEADLINE, watch.wait_for(|state| met(state))).await;
    match reached {
        Ok(Ok(state)) => state.clone(),
        _ => panic!("deadline passed: {what}; {:?}", node.status()),
    }
}

pub async fn role(node: &Node, role: NodeRole) -> NodeState {
    state(node, &format!("role {role:?}"), |state| state.role == role).await
}

/// Runs a blocking call of the engine.
pub async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    within("an engine call", tokio::task::spawn_blocking(call))
        .await
        .unwrap()
}

// ---- certificates

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "replication test authority");
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for loopback with these URI names, in `dir`; trusting `trusted`.
    pub fn issue(&self, dir: &Path, name: &str, uris: &[&str], trusted: &Authority) -> TlsFiles {
        let mut params =
            CertificateParams::new(vec!["127.0.0.1".to_string(), "localhost".to_string()]).unwrap();
        for uri in uris {
            params
                .subject_alt_names
                .push(SanType::URI((*uri).try_into().unwrap()));
        }
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        let place = |what: &str| dir.join(format!("{name}.{what}.pem"));
        let files = TlsFiles {
            ca: place("ca"),
            cert: place("cert"),
            key: place("key"),
        };
        std::fs::write(&files.ca, trusted.0.pem()).unwrap();
        std::fs::write(&files.cert, cert.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

// ---- links

/// Forwards connections to where its target listens at the moment, until cut.
pub struct Link {
    pub address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    up: watch::Sender<bool>,
}

impl Link {
    pub async fn new() -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let up = watch::Sender::new(true);
        let state = up.subscribe();
        let target = Arc::new(Mutex::new(None));
        let to = target.clone();
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                let mut state = state.clone();
                let to: Option<SocketAddr> = *to.lock().unwrap();
                tokio::spawn(async move {
                    let mut from = from;
                    if !*state.borrow() {
                        return;
                    }
                    let Some(to) = to else { return };
                    let Ok(mut onward) = TcpStream::connect(to).await else {
                        return;
                    };
                    let _ = from.set_nodelay(true);
                    let _ = onward.set_nodelay(true);
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut from, &mut onward) => {}
                        _ = state.wait_for(|up| !up) => {}
                    }
                });
            }
        });
        Link { address, target, up }
    }

    /// Where to forward from now on.
    pub fn lead_to(&self, node: &Node) {
        *self.target.lock().unwrap() = node.listen_addr();
    }

    /// Breaks every connection and lets none through.
    pub fn cut(&self) {
        self.up.send_replace(false);
    }

    pub fn mend(&self) {
        self.up.send_replace(true);
    }
}

// ---- nodes

/// Where one node lives, across restarts.
pub struct Site {
    pub name: &'static str,
    pub tls: TlsFiles,
    pub keys: Arc<MemoryKeys>,
    pub data: PathBuf,
}

impl Site {
    fn new(root: &Path, name: &'static str, authority: &Authority) -> Site {
        Site {
            name,
            tls: authority.issue(root, name, &[REPLICA_ROLE], authority),
            keys: Arc::new(MemoryKeys::new()),
            data: root.join(name).join("db"),
        }
    }

    /// What its node keeps beside the data.
    pub fn side(&self, name: &str) -> PathBuf {
        self.data.with_file_name("db.node").join(name)
    }
}

/// Two sites and the links between them: `to_a` is how b dials a.
pub struct Pair {
    pub root: TempDir,
    pub authority: Authority,
    pub a: Site,
    pub b: Site,
    pub to_a: Link,
    pub to_b: Link,
    pub engine: strongroom::Options,
}

impl Pair {
    pub async fn new() -> Pair {
        // RUST_LOG=strongroom_replication=debug shows what the nodes do.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let root = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let (a, b) = (
            Site::new(root.path(), "a", &authority),
            Site::new(root.path(), "b", &authority),
        );
        let (to_a, to_b) = (Link::new().await, Link::new().await);
        Pair {
            root,
            authority,
            a,
            b,
            to_a,
            to_b,
            engine: options(),
        }
    }

    pub fn config_a(&self) -> ReplicationConfig {
        self.config(&self.a, StartRole::Primary, &self.to_b)
    }

    pub fn config_b(&self) -> ReplicationConfig {
        self.config(&self.b, StartRole::Standby, &self.to_a)
    }

    fn config(&self, site: &Site, role: StartRole, peer: &Link) -> ReplicationConfig {
        let mut config = ReplicationConfig::new(site.name, &site.data, role);
        config.listen = Some(([127, 0, 0, 1], 0).into());
        config.peer = Some(peer.address.to_string());
        config.tls = Some(site.tls.clone());
        config.engine = self.engine.clone();
        impatient(&mut config);
        config
    }

    pub async fn start_a(&self) -> Node {
        self.start_a_with(self.config_a()).await
    }

    pub async fn start_a_with(&self, config: ReplicationConfig) -> Node {
        let node = Node::start(config, self.a.keys.clone()).await.unwrap();
        self.to_a.lead_to(&node);
        node
    }

    /// As primary, whoever answers.
    pub async fn start_a_alone(&self) -> Node {
        let mut config = self.config_a();
        config.serve_without_peer = true;
        let node = self.start_a_with(config).await;
        role(&node, NodeRole::Primary).await;
        node
    }

    pub async fn start_b(&self) -> Node {
        let node = Node::start(self.config_b(), self.b.keys.clone()).await.unwrap();
        self.to_b.lead_to(&node);
        node
    }

    /// Neither reaches the other.
    pub fn cut(&self) {
        self.to_a.cut();
        self.to_b.cut();
    }

    pub fn mend(&self) {
        self.to_a.mend();
        self.to_b.mend();
    }

    /// Both, following.
    pub async fn start(&self) -> (Node, Node) {
        let (a, b) = (self.start_a().await, self.start_b().await);
        role(&a, NodeRole::Primary).await;
        role(&b, NodeRole::Standby).await;
        connected(&a, "b").await;
        (a, b)
    }
}

pub fn options() -> strongroom::Options {
    let mut options = strongroom::Options::tiny();
    options.background = strongroom::Background::Thread;
    options.wal_keep_bytes = 64 << 20;
    options
}

pub fn impatient(config: &mut ReplicationConfig) {
    let t = &mut config.timeouts;
    t.backoff_min = Duration::from_millis(5);
    t.backoff_max = Duration::from_millis(100);
    t.heartbeat = Duration::from_millis(50);
}

/// The standby `name` streams from `primary`.
pub async fn connected(primary: &Node, name: &str) -> StandbyStatus {
    let mut found = None;
    until("a standby connects", || {
        found = primary
            .status()
            .standbys
            .into_iter()
            .find(|s| s.node == name && s.connected);
        found.is_some()
    })
    .await;
    found.unwrap()
}

// ---- data

pub fn engine(node: &Node) -> Engine {
    node.engine().expect("an engine")
}

pub fn keyspace(engine: &Engine, tenant: &str) -> Keyspace {
    let tenant = match engine.tenant(tenant) {
        Ok(tenant) => tenant,
        Err(_) => engine.create_tenant(tenant, TenantOptions::default()).unwrap(),
    };
    tenant.keyspace("data").unwrap()
}

/// Writes one entry with a durability; the outcome.
pub async fn put(
    node: &Node,
    tenant: &str,
    key: &str,
    value: impl Into<Vec<u8>>,
    durability: Durability,
) -> strongroom::Result<strongroom::Position> {
    let (engine, tenant, key, value) = (engine(node), tenant.to_string(), key.to_string(), value.into());
    blocking(move || {
        let tenant = match engine.tenant(&tenant) {
            Ok(tenant) => tenant,
            Err(_) => engine.create_tenant(&tenant, TenantOptions::default())?,
        };
        let keyspace = tenant.keyspace("data")?;
        tenant
            .batch()
            .put(&keyspace, &key, &value)
            .durability(durability)
            .commit()
    })
    .await
}

/// Reads one entry.
pub async fn get(node: &Node, tenant: &str, key: &str) -> strongroom::Result<Option<Vec<u8>>> {
    let (engine, tenant, key) = (engine(node), tenant.to_string(), key.to_string());
    blocking(move || {
        let keyspace = engine.tenant(&tenant)?.open_keyspace("data")?;
        Ok(keyspace.get(&key)?.map(|value| value.to_vec()))
    })
    .await
}

/// Everything a tenant has.
pub async fn all(node: &Node, tenant: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (engine, tenant) = (engine(node), tenant.to_string());
    blocking(move || {
        let keyspace = engine.tenant(&tenant).unwrap().open_keyspace("data").unwrap();
        keyspace
            .iter()
            .map(|kv| kv.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap())
            .collect()
    })
    .await
}
