//! The two nodes of a drill: certificates, key files, configurations, processes.
//!
//! ```text
//! <dir>/certs/…            three authorities, two nodes, one operator
//! <dir>/<node>/data/       the node's database
//! <dir>/<node>.key .toml   its key file and configuration
//! <dir>/<node>.out .err    everything it printed
//! <dir>/<node>.json        where it listens, once it is ready
//! ```

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use strongroom::keys::KeyFile;
use strongroom_client::{AdminClient, AdminConfig, Client, ClientConfig};

use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::pki::{Authorities, Trust};

/// Longest wait for a node to become ready, or the pair to be in sync.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often a state is looked at that cannot be awaited.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for a clean stop.
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// What a pair needs, on disk.
pub struct Site {
    dir: PathBuf,
    tenants_ca: Vec<u8>,
    admin_ca: Vec<u8>,
    operator: (Vec<u8>, Vec<u8>),
}

/// A node's process.
pub struct NodeProcess {
    /// Its name.
    pub name: &'static str,
    child: Child,
    /// Tenant listener, host:port.
    pub tenants: String,
    /// Administration listener, host:port.
    pub admin: String,
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(exit::at(path))
}

fn free_port() -> Outcome<u16> {
    let listener =
        TcpListener::bind(("127.0.0.1", 0)).map_err(|e| Failure::failed(format!("no free port: {e}")))?;
    let address = listener
        .local_addr()
        .map_err(|e| Failure::failed(format!("no free port: {e}")))?;
    Ok(address.port())
}

impl Site {
    /// Makes everything for the nodes `names` in `dir`.
    pub fn build(dir: &Path, names: [&'static str; 2]) -> Outcome<Site> {
        let authorities = Authorities::open(&dir.join("certs"), 1)?;
        let operator = authorities.operator("operator")?;
        // The nodes must know each other's address before either listens.
        let ports = [free_port()?, free_port()?];
        for (i, name) in names.into_iter().enumerate() {
            let pairs = authorities.node(name, &["127.0.0.1".into()])?;
            let pair = |trust: Trust| {
                let found = pairs.iter().find(|(other, _)| *other == trust);
                let (cert, key) = found.map(|(_, p)| (p.cert.display(), p.key.display())).unzip();
                (
                    cert.map(|c| c.to_string()).unwrap_or_default(),
                    key.map(|k| k.to_string()).unwrap_or_default(),
                )
            };
            let key_file = dir.join(format!("{name}.key"));
            KeyFile::create(&key_file)?;
            let (tenants, admin, replica) =
                (pair(Trust::Tenants), pair(Trust::Admin), pair(Trust::Replication));
            let [own, other] = if i == 0 { ports } else { [ports[1], ports[0]] };
            let role = if i == 0 { "primary" } else { "standby" };
            let config = format!(
                "[node]\nname = {name:?}\ndata_dir = {data:?}\n\n[keys]\nfile = {key_file:?}\n\n\
                 [tenants]\nlisten = \"127.0.0.1:0\"\ntls = {{ cert = {tc:?}, key = {tk:?} }}\n\n\
                 [admin]\nlisten = \"127.0.0.1:0\"\ntls = {{ cert = {ac:?}, key = {ak:?}, client_ca = {aca:?} }}\n\n\
                 [replication]\nlisten = \"127.0.0.1:{own}\"\nrole = {role:?}\npeer = \"127.0.0.1:{other}\"\n\
                 tls = {{ cert = {rc:?}, key = {rk:?}, ca = {rca:?} }}\n",
                data = dir.join(name).join("data"),
                tc = tenants.0,
                tk = tenants.1,
                ac = admin.0,
                ak = admin.1,
                aca = authorities.root(Trust::Admin),
                rc = replica.0,
                rk = replica.1,
                rca = authorities.root(Trust::Replication),
            );
            let path = dir.join(format!("{name}.toml"));
            std::fs::write(&path, config).map_err(exit::at(&path))?;
        }
        Ok(Site {
            tenants_ca: read(&authorities.root(Trust::Tenants))?,
            admin_ca: read(&authorities.root(Trust::Admin))?,
            operator: (read(&operator.cert)?, read(&operator.key)?),
            dir: dir.to_path_buf(),
        })
    }

    /// Starts a node (`verb`: `serve` or `standby`) and waits until it listens.
    pub async fn start(&self, name: &'static str, verb: &str) -> Outcome<NodeProcess> {
        let program = std::env::current_exe().map_err(|e| Failure::failed(format!("own program: {e}")))?;
        let file = |ending: &str| self.dir.join(format!("{name}.{ending}"));
        let log = |ending: &str| File::create(file(ending)).map_err(exit::at(&file(ending)));
        let mut child = Command::new(program)
            .args([verb, "--config"])
            .arg(file("toml"))
            .arg("--node-file")
            .arg(file("json"))
            .arg("--until-stdin-closes")
            .stdin(Stdio::piped())
            .stdout(log("out")?)
            .stderr(log("err")?)
            .spawn()
            .map_err(|e| Failure::failed(format!("starting {name}: {e}")))?;
        let since = Instant::now();
        let told = loop {
            if let Ok(text) = std::fs::read(file("json")) {
                break text;
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(Failure::failed(format!(
                    "{name} ended at once ({status}); it said: {}",
                    self.said(name)
                )));
            }
            if since.elapsed() > READY_WITHIN {
                let _ = child.kill();
                return Err(Failure::failed(format!(
                    "{name} was not ready within {} s",
                    READY_WITHIN.as_secs()
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let told: Value =
            serde_json::from_slice(&told).map_err(|e| Failure::failed(format!("{name}: {e}")))?;
        let address = |key: &str| {
            told.get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        Ok(NodeProcess {
            name,
            child,
            tenants: address("tenants"),
            admin: address("admin"),
        })
    }

    /// The end of what a node printed on standard error.
    pub fn said(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.dir.join(format!("{name}.err"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(5)..)
            .unwrap_or_default()
            .join(" / ")
    }

    /// A tenant's connection to one node.
    pub async fn client(&self, node: &NodeProcess, token: &str) -> Outcome<Client> {
        let mut config = ClientConfig::new([node.tenants.clone()], token);
        config.ca_pem = Some(self.tenants_ca.clone());
        // A killed node does not come back in this drill.
        config.failover_timeout = Duration::from_millis(500);
        Ok(Client::connect(config).await?)
    }

    /// The operator's connection to one node.
    pub async fn admin(&self, node: &NodeProcess) -> Outcome<AdminClient> {
        let (cert, key) = self.operator.clone();
        let config = AdminConfig::new(node.admin.clone(), self.admin_ca.clone(), cert, key);
        Ok(AdminClient::connect(config).await?)
    }

    /// Waits until the primary has a standby that holds everything.
    pub async fn in_sync(&self, primary: &AdminClient) -> Outcome<Duration> {
        let since = Instant::now();
        loop {
            let status = primary.status().await?;
            let caught_up = |peer: &strongroom_client::proto::admin::Peer| {
                peer.connected
                    && peer.durable_lsn >= status.durable_lsn
                    && peer.keystore_version >= status.keystore_version
            };
            if status.serving && status.peers.iter().any(caught_up) {
                return Ok(since.elapsed());
            }
            if since.elapsed() > READY_WITHIN {
                return Err(Failure::failed(format!(
                    "the standby was not in sync: {}",
                    status.summary
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl NodeProcess {
    /// SIGKILL, and the moment it was sent.
    pub fn kill(&mut self) -> Outcome<Instant> {
        let at = Instant::now();
        self.child
            .kill()
            .map_err(|e| Failure::failed(format!("killing {}: {e}", self.name)))?;
        // The process is gone when it is waited for, not before.
        self.child
            .wait()
            .map_err(|e| Failure::failed(format!("waiting for {}: {e}", self.name)))?;
        Ok(at)
    }

    /// Asks the node to stop and waits until it has.
    pub async fn stop(mut self) -> Outcome {
        drop(self.child.stdin.take());
        let since = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(Failure::failed(format!("{} stopped badly: {status}", self.name)));
                }
                Ok(None) if since.elapsed() < STOP_WITHIN => tokio::time::sleep(LOOK_EVERY).await,
                Ok(None) => return Err(Failure::failed(format!("{} did not stop", self.name))),
                Err(e) => return Err(Failure::failed(format!("waiting for {}: {e}", self.name))),
            }
        }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
