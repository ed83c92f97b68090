//! A primary and a standby of this binary, as child processes on loopback, for `dev` and `drill`.
//!
//! ```text
//! DIR/pki/            authorities, certificates of nodes a and b and of the operator
//! DIR/keys/a.key …    key files: one a node, and what else the caller makes
//! DIR/a/ DIR/b/       node.toml, data/, data.node/, node.json, stdout.log, stderr.log
//! ```
//!
//! Tenants and administration listen on ports the system picks. The two replication ports must be known
//! to the other node beforehand: they are taken, noted and given back, and a node that finds its own
//! taken meanwhile does not start. So they are chosen by chance, of those that the system gives to nobody.
//! Children stop when this process ends, however it ends: they hold the other end of a pipe.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::Deserialize;
use strongroom::keys::KeyFile;
use strongroom_client::{AdminClient, AdminConfig};

use super::exit::{self, Failure, Outcome};
use super::files;
use super::pki::{Authorities, Trust};
use crate::drill::random::Random;

/// Where tenants' clients and operators find a running node.
#[derive(Clone, Debug, Deserialize)]
pub struct Addresses {
    /// Tenant listener.
    pub tenants: String,
    /// Administration listener.
    pub admin: String,
}

/// The two nodes, prepared and perhaps running.
pub struct Pair {
    /// Everything is in here.
    pub dir: PathBuf,
    /// Begins as primary.
    pub a: Node,
    /// Begins as standby.
    pub b: Node,
}

/// One of them.
pub struct Node {
    /// `a` or `b`.
    pub name: &'static str,
    /// Its directory.
    pub dir: PathBuf,
    verb: &'static str,
    child: Option<Child>,
    addresses: Option<Addresses>,
}

impl Pair {
    /// Makes certificates, key files and configurations in `dir`. `engine`: lines of `[engine]`.
    pub fn prepare(dir: &Path, engine: &str) -> Outcome<Pair> {
        let pki = dir.join("pki");
        let keys = dir.join("keys");
        std::fs::create_dir_all(&keys).map_err(exit::at(&keys))?;
        let authorities = Authorities::open(&pki, 7)?;
        authorities.operator("operator")?;
        // Both at once, or the system may hand out one port twice.
        let ports = [free_port()?, free_port()?];
        let mut nodes = Vec::new();
        for (i, (name, verb)) in [("a", "serve"), ("b", "standby")].into_iter().enumerate() {
            authorities.node(name, &["localhost".into(), "127.0.0.1".into()])?;
            KeyFile::create(keys.join(format!("{name}.key")))?;
            let home = dir.join(name);
            std::fs::create_dir_all(&home).map_err(exit::at(&home))?;
            let port = |i: usize| ports.get(i).map_or(0, |(port, _)| *port);
            let config = config(&pki, &keys, name, port(i), port(1 - i), engine);
            files::public(&home.join("node.toml"), config.as_bytes())?;
            nodes.push(Node {
                name,
                dir: home,
                verb,
                child: None,
                addresses: None,
            });
        }
        drop(ports);
        match (nodes.pop(), nodes.pop()) {
            (Some(b), Some(a)) => Ok(Pair {
                dir: dir.to_path_buf(),
                a,
                b,
            }),
            _ => Err(Failure::failed("a pair has two nodes")),
        }
    }

    /// Authority of the tenants' listeners.
    pub fn tenants_ca(&self) -> PathBuf {
        self.dir
            .join("pki")
            .join(format!("{}-ca.pem", Trust::Tenants.name()))
    }

    /// Authority of the administration listeners, and the operator's certificate and key.
    pub fn admin_files(&self) -> [PathBuf; 3] {
        let pki = self.dir.join("pki");
        [
            pki.join("admin-ca.pem"),
            pki.join("operator/admin.pem"),
            pki.join("operator/admin.key"),
        ]
    }

    /// Connects to a node's administration service.
    pub async fn admin(&self, node: &Node) -> Outcome<AdminClient> {
        let [ca, cert, key] = self.admin_files();
        let read = |path: PathBuf| std::fs::read(&path).map_err(exit::at(&path));
        let address = format!("https://{}", node.addresses()?.admin);
        let config = AdminConfig::new(address, read(ca)?, read(cert)?, read(key)?);
        Ok(AdminClient::connect(config).await?)
    }

    /// Starts both and waits until the standby has everything the primary has. Returns how long that took.
    pub async fn start(&mut self, log: &str, patience: Duration) -> Outcome<Duration> {
        let started = Instant::now();
        let until = started + patience;
        self.a.spawn(log)?;
        self.b.spawn(log)?;
        self.a.ready(until).await?;
        self.b.ready(until).await?;
        let admin = self.admin(&self.a).await?;
        loop {
            self.a.alive()?;
            self.b.alive()?;
            let status = admin.status().await?;
            let synced = |peer: &strongroom_client::proto::admin::Peer| {
                peer.connected
                    && peer.durable_lsn == status.durable_lsn
                    && peer.keystore_version == status.keystore_version
            };
            if status.serving && status.peers.iter().any(synced) {
                return Ok(started.elapsed());
            }
            pause(until, || {
                format!("the standby is not in sync: {}", status.summary)
            })
            .await?;
        }
    }
}

impl Node {
    /// Where it listens. Fails before it is ready.
    pub fn addresses(&self) -> Outcome<&Addresses> {
        self.addresses
            .as_ref()
            .ok_or_else(|| Failure::failed(format!("node {} is not running", self.name)))
    }

    /// Its tenants' endpoint.
    pub fn endpoint(&self) -> Outcome<String> {
        Ok(format!("https://{}", self.addresses()?.tenants))
    }

    /// Starts the process, with all it prints appended to files.
    pub fn spawn(&mut self, log: &str) -> Outcome {
        let ready = self.dir.join("node.json");
        let _ = std::fs::remove_file(&ready);
        let output = |name: &str| {
            let path = self.dir.join(name);
            File::options()
                .create(true)
                .append(true)
                .open(&path)
                .map_err(exit::at(&path))
        };
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in std::env::vars_os() {
            // Whatever configures this process must not configure its children.
            if name.to_string_lossy().starts_with("STRONGROOM_") {
                command.env_remove(name);
            }
        }
        command
            .arg(self.verb)
            .arg("--config")
            .arg(self.dir.join("node.toml"))
            .arg("--node-file")
            .arg(&ready)
            .arg("--until-stdin-closes")
            .env("STRONGROOM_LOG", log)
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(output("stdout.log")?)
            .stderr(output("stderr.log")?)
            // Ctrl-C is for the parent: it stops its children in order.
            .process_group(0);
        self.addresses = None;
        self.child = Some(
            command
                .spawn()
                .map_err(|error| Failure::from(error).during("starting a node"))?,
        );
        Ok(())
    }

    /// Waits until it says where it listens.
    pub async fn ready(&mut self, until: Instant) -> Outcome {
        let path = self.dir.join("node.json");
        loop {
            if let Ok(text) = std::fs::read_to_string(&path) {
                let addresses = serde_json::from_str(&text)
                    .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
                self.addresses = Some(addresses);
                return Ok(());
            }
            self.alive()?;
            pause(until, || format!("node {} is not ready", self.name)).await?;
        }
    }

    /// Fails, with the end of what it printed, if the process has ended.
    pub fn alive(&mut self) -> Outcome {
        let ended = match &mut self.child {
            Some(child) => child.try_wait()?,
            None => return Err(Failure::failed(format!("node {} was not started", self.name))),
        };
        match ended {
            None => Ok(()),
            Some(status) => Err(self.ended(status)),
        }
    }

    fn ended(&self, status: ExitStatus) -> Failure {
        let printed = std::fs::read_to_string(self.dir.join("stderr.log")).unwrap_or_default();
        let lines: Vec<&str> = printed.lines().collect();
        let last = lines
            .get(lines.len().saturating_sub(5)..)
            .unwrap_or_default()
            .join("\n  ");
        Failure::failed(format!("node {} ended ({status}):\n  {last}", self.name))
    }

    /// SIGKILL, and the process is gone when this returns.
    pub fn kill(&mut self) -> Outcome {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            let status = child.wait()?;
            if status.signal() != Some(9) {
                return Err(self.ended(status));
            }
        }
        Ok(())
    }

    /// SIGTERM, and waits for a clean end.
    pub async fn stop(&mut self, patience: Duration) -> Outcome {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            // The process may have ended by itself: the wait tells.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + patience;
        loop {
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.ended(status)),
                None if Instant::now() >= until => {
                    child.kill()?;
                    child.wait()?;
                    return Err(Failure::failed(format!(
                        "node {} did not stop when told",
                        self.name
                    )));
                }
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A short wait between two looks, until patience ends.
pub async fn pause(until: Instant, why: impl FnOnce() -> String) -> Outcome {
    if Instant::now() >= until {
        return Err(Failure::failed(format!("waited too long: {}", why())));
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    Ok(())
}

/// Below what systems give to who asks for any port, clients included: Linux begins at 32,768, others at 49,152.
const PORTS: RangeInclusive<u64> = 10_240..=32_767;
/// How many may be in use before the system is asked for one.
const PORTS_TRIED: usize = 100;

/// A port nobody uses now. The listener holds it until dropped.
fn free_port() -> Outcome<(u16, TcpListener)> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|e| Failure::failed(format!("no random bytes: {e}")))?;
    let mut random = Random::new(u64::from_le_bytes(seed));
    let mut any = || {
        let port = u16::try_from(random.between(*PORTS.start(), *PORTS.end())).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
    };
    let found = (0..PORTS_TRIED).find_map(|_| any());
    let listener = match found {
        Some(listener) => listener,
        None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
    };
    Ok((listener.local_addr()?.port(), listener))
}

fn config(pki: &Path, keys: &Path, name: &str, port: u16, peer: u16, engine: &str) -> String {
    // JSON's strings are TOML's basic strings.
    let text = |path: PathBuf| serde_json::Value::from(path.to_string_lossy()).to_string();
    let cert = |trust: &str| text(pki.join(name).join(format!("{trust}.pem")));
    let private = |trust: &str| text(pki.join(name).join(format!("{trust}.key")));
    let ca = |trust: &str| text(pki.join(format!("{trust}-ca.pem")));
    let role = if name == "a" { "primary" } else { "standby" };
    format!(
        "[node]\nname = \"{name}\"\ndata_dir = \"data\"\n\n\
         [keys]\nfile = {}\n\n\
         [tenants]\nlisten = \"127.0.0.1:0\"\ntls = {{ cert = {}, key = {} }}\n\n\
         [admin]\nlisten = \"127.0.0.1:0\"\ntls = {{ cert = {}, key = {}, client_ca = {} }}\n\n\
         [replication]\nrole = \"{role}\"\nlisten = \"127.0.0.1:{port}\"\npeer = \"127.0.0.1:{peer}\"\n\
         tls = {{ cert = {}, key = {}, ca = {} }}\n\n\
         [engine]\n{engine}\n",
        text(keys.join(format!("{name}.key"))),
        cert("tenants"),
        private("tenants"),
        cert("admin"),
        private("admin"),
        ca("admin"),
        cert("replication"),
        private("replication"),
        ca("replication"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_server::config::{Config, Role};

    #[test]
    fn the_configurations_mean_what_is_meant() {
        let dir = tempfile::Builder::new()
            .prefix("pair \"quoted\" \\ ")
            .tempdir()
            .unwrap();
        let pair = Pair::prepare(dir.path(), "memtable_bytes = 65536").unwrap();
        let a = Config::load(&pair.a.dir.join("node.toml"), None).unwrap();
        let b = Config::load(&pair.b.dir.join("node.toml"), None).unwrap();
        assert_eq!(
            (a.replication.role, b.replication.role),
            (Role::Primary, Role::Standby)
        );
        assert_eq!(
            a.replication.peer,
            b.replication.listen.map(|address| address.to_string())
        );
        assert_eq!(
            b.replication.peer,
            a.replication.listen.map(|address| address.to_string())
        );
        assert_eq!(a.engine.memtable_bytes, 65536);
        assert!(a.keys.file.exists() && a.admin.tls.unwrap().client_ca.exists());
    }

    #[test]
    fn ports_noted_for_later_are_none_that_the_system_gives_to_others() {
        let held: Vec<(u16, TcpListener)> = (0..20).map(|_| free_port().unwrap()).collect();
        assert!(held.iter().all(|(port, _)| PORTS.contains(&u64::from(*port))));
        let mut ports: Vec<u16> = held.iter().map(|(port, _)| *port).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20, "one that is held is not found again");
    }
}
