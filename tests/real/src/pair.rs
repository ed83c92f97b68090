//! A primary and a standby as child processes.
//!
//! `strongroom dev` prepares the directory, as it would for anyone: certificates, keys, configurations, a tenant and
//! its token. Then it is told to end, and the nodes are started from there one by one, each always at the same ports,
//! so that clients find them again. The ports lie below those the system gives to outgoing connections.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use strongroom_client::{AdminClient, AdminConfig, ClientConfig};
use strongroom_tests::dice::Dice;

/// Longest wait for anything that should take a moment.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Result whose error is a sentence.
pub type Outcome<T = ()> = Result<T, String>;

/// The binary: `STRONGROOM_BIN`, or built now, in release, as it is shipped.
pub fn binary() -> Outcome<PathBuf> {
    if let Some(path) = std::env::var_os("STRONGROOM_BIN") {
        return Ok(path.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--locked",
            "--bin",
            "strongroom",
            "--message-format=json",
        ])
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cargo: {e}"))?;
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|said| said["target"]["name"] == "strongroom")
        .find_map(|said| said["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| "cargo built no binary".to_owned())
}

/// One node.
pub struct Node {
    /// `a` or `b`.
    pub name: &'static str,
    /// Most file descriptors of the process, from its next start on; none: as many as this process may have.
    pub descriptors_max: Option<u64>,
    /// Tenants' listener, `host:port`.
    pub address: String,
    binary: PathBuf,
    home: PathBuf,
    arguments: Vec<String>,
    admin: String,
    child: Option<Child>,
}

/// The two, at first `a` the primary.
pub struct Pair {
    /// Node `a`, then node `b`.
    pub nodes: [Node; 2],
    dir: PathBuf,
}

impl Pair {
    /// Prepares both in the new directory `dir`; starts none. `settings`: `engine.memtable_bytes=65536`.
    pub fn prepare(binary: &Path, dir: &Path, settings: &[&str], dice: &mut Dice) -> Outcome<Pair> {
        let mut dev = command(binary, &["dev", "-o", "json", "--dir"])
            .arg(dir)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}", binary.display()))?;
        let mut ready = String::new();
        BufReader::new(dev.stdout.take().expect("piped"))
            .read_line(&mut ready)
            .map_err(|e| format!("dev: {e}"))?;
        signal(&dev, Signal::INT);
        let ended = dev.wait().map_err(|e| format!("dev: {e}"))?;
        if !ended.success() {
            return Err(format!("dev ended with {ended}"));
        }
        let ports: Vec<u16> = free_ports(6, dice);
        let node = |i: usize, name| {
            let at = |n: usize| format!("127.0.0.1:{}", ports[n]);
            let (mine, other) = (3 * i, 3 * (1 - i));
            let home = dir.join(name);
            let own = [
                format!("tenants.listen={}", at(mine)),
                format!("admin.listen={}", at(mine + 1)),
                format!("replication.listen={}", at(mine + 2)),
                format!("replication.peer={}", at(other + 2)),
            ];
            let arguments = own
                .into_iter()
                .chain(settings.iter().map(|s| (*s).to_owned()))
                .flat_map(|setting| ["--set".to_owned(), setting])
                .collect();
            Node {
                name,
                descriptors_max: None,
                address: at(mine),
                binary: binary.to_owned(),
                home,
                arguments,
                admin: format!("https://{}", at(mine + 1)),
                child: None,
            }
        };
        Ok(Pair {
            nodes: [node(0, "a"), node(1, "b")],
            dir: dir.to_owned(),
        })
    }

    fn read(&self, name: &str) -> Outcome<Vec<u8>> {
        let path = self.dir.join(name);
        std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// How a client of the tenant reaches both.
    pub fn client_config(&self) -> Outcome<ClientConfig> {
        let token = String::from_utf8_lossy(&self.read("tenant.token")?)
            .trim()
            .to_owned();
        let mut config = ClientConfig::new(self.nodes.iter().map(|node| node.address.clone()), token);
        config.ca_pem = Some(self.read("pki/tenants-ca.pem")?);
        Ok(config)
    }

    /// Connects to a node's administration service, as soon as it answers.
    pub async fn admin(&mut self, node: usize) -> Outcome<AdminClient> {
        let files = [
            "pki/admin-ca.pem",
            "pki/operator/admin.pem",
            "pki/operator/admin.key",
        ];
        let [ca, cert, key] = files.map(|name| self.read(name));
        let mut config = AdminConfig::new(self.nodes[node].admin.clone(), ca?, cert?, key?);
        config.request_timeout = Some(PATIENCE);
        let until = Instant::now() + PATIENCE;
        loop {
            match AdminClient::connect(config.clone()).await {
                Ok(client) => return Ok(client),
                Err(e) if Instant::now() > until => {
                    return Err(format!("node {} does not answer: {e}", self.nodes[node].name));
                }
                Err(_) => {
                    self.nodes[node].alive()?;
                    // A port that does not answer yet tells nobody when it will.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }

    /// Starts both and waits until the standby has all that the primary has.
    pub async fn start(&mut self) -> Outcome {
        self.nodes[0].spawn()?;
        self.nodes[1].spawn()?;
        let admin = self.admin(0).await?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            self.nodes.iter_mut().try_for_each(Node::alive)?;
            let status = admin.status().await.map_err(|e| format!("status: {e}"))?;
            if status.serving
                && status
                    .peers
                    .iter()
                    .any(|p| p.connected && p.durable_lsn == status.durable_lsn)
            {
                return Ok(());
            }
            // No call tells of a peer's progress: it is asked for.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err("the standby does not follow".to_owned())
    }
}

impl Node {
    /// Starts the process. It ends with this one.
    pub fn spawn(&mut self) -> Outcome {
        assert!(self.child.is_none(), "it runs already");
        let log = self.home.join("stderr.log");
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(|e| format!("log: {e}"))?;
        let verb = if self.name == "a" { "serve" } else { "standby" };
        let mut program = match self.descriptors_max {
            None => command(&self.binary, &[]),
            Some(most) => {
                let mut shell = command(Path::new("sh"), &["-c"]);
                shell
                    .arg(format!("ulimit -n {most}; exec \"$0\" \"$@\""))
                    .arg(&self.binary);
                shell
            }
        };
        let child = program
            .args([verb, "--until-stdin-closes", "--config"])
            .arg(self.home.join("node.toml"))
            .args(&self.arguments)
            .env("STRONGROOM_LOG", "info")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| format!("{}: {e}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("it runs")
    }

    /// An error, with the end of its log, if the process has ended.
    pub fn alive(&mut self) -> Outcome {
        match self.child().try_wait() {
            Ok(None) => Ok(()),
            other => Err(format!(
                "node {} ended ({other:?}):\n{}",
                self.name,
                self.log_end(8)
            )),
        }
    }

    /// What `/proc` has about the process.
    pub fn proc(&mut self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.child().id().to_string()).join(name)
    }

    /// Its open file descriptors.
    pub fn descriptors(&mut self) -> usize {
        std::fs::read_dir(self.proc("fd")).map_or(0, Iterator::count)
    }

    /// Clock ticks of processor time it has used.
    pub fn ticks(&mut self) -> u64 {
        let stat = std::fs::read_to_string(self.proc("stat")).expect("it runs");
        let after_name = stat.rsplit(')').next().expect("a name in brackets");
        let numbers: Vec<u64> = after_name.split(' ').filter_map(|n| n.parse().ok()).collect();
        // Fields 14 and 15; the state is no number, and field 4 may be the first one here.
        numbers[10] + numbers[11]
    }

    /// The last lines of its log.
    pub fn log_end(&self, lines: usize) -> String {
        let log = std::fs::read_to_string(self.home.join("stderr.log")).unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// SIGKILL; it is gone when this returns.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("our child");
        child.wait().expect("our child");
    }

    /// SIGSTOP.
    pub fn pause(&mut self) {
        signal(self.child(), Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        signal(self.child(), Signal::CONT);
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

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("our child");
}

/// The binary, not configured by whoever runs this process.
fn command(binary: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STRONGROOM_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Ports that nobody uses now and that the system gives to nobody by itself.
fn free_ports(count: usize, dice: &mut Dice) -> Vec<u16> {
    let mut held = Vec::new();
    while held.len() < count {
        let port = 10_000 + dice.below(20_000) as u16;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push(listener);
        }
    }
    held.iter()
        .map(|listener| listener.local_addr().expect("bound").port())
        .collect()
}
