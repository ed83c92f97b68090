//! A primary that was stopped (SIGSTOP) over the promotion of its standby, in real processes over real TLS.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn strongroom(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command
        .args(args)
        .env_remove("STRONGROOM_PROFILE")
        .env_remove("STRONGROOM_TOKEN");
    command
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A pair started by `dev`; interrupted when dropped.
struct Dev {
    child: std::process::Child,
    profile: String,
    /// Kept open: a closed pipe would end it.
    _says: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Dev {
    fn start() -> Dev {
        let mut child = strongroom(&["dev"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = String::new();
        let profile = loop {
            let line = lines
                .next()
                .unwrap_or_else(|| panic!("dev ended: {said}"))
                .unwrap();
            said.push_str(&line);
            said.push('\n');
            if let Some(at) = line.find("STRONGROOM_PROFILE=") {
                let rest = line.get(at + "STRONGROOM_PROFILE=".len()..).unwrap_or_default();
                break rest
                    .split_whitespace()
                    .next()
                    .unwrap()
                    .trim_matches(['\'', '"'])
                    .to_owned();
            }
        };
        Dev {
            child,
            profile,
            _says: lines,
        }
    }

    fn verb(&self, args: &[&str]) -> (i32, String, String) {
        told(
            strongroom(args)
                .env("STRONGROOM_PROFILE", &self.profile)
                .output()
                .unwrap(),
        )
    }

    fn node(&self, name: &str) -> Value {
        let file = Path::new(&self.profile).with_file_name(name).join("node.json");
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    }

    fn log(&self, name: &str) -> String {
        let file = Path::new(&self.profile).with_file_name(name).join("stderr.log");
        std::fs::read_to_string(file).unwrap()
    }

    fn signal(&self, node: &str, signal: rustix::process::Signal) {
        let pid = self.node(node).get("pid").and_then(Value::as_i64).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn end(mut self) {
        let dev = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(dev, rustix::process::Signal::INT).unwrap();
        assert!(self.child.wait().unwrap().success());
        assert!(!Path::new(&self.profile).exists(), "dev cleans up");
    }
}

#[test]
fn a_primary_stopped_over_a_promotion_acknowledges_nothing_after_and_says_it_was_fenced() {
    use rustix::process::Signal;
    let dev = Dev::start();
    let (code, _, err) = dev.verb(&["put", "k", "before", "v", "--durability", "replicated"]);
    assert_eq!(code, 0, "{err}");
    dev.signal("a", Signal::STOP);
    let (code, out, err) = dev.verb(&["promote", "--node", "b", "--yes"]);
    assert_eq!(code, 0, "{out}{err}");
    dev.signal("a", Signal::CONT);
    let old = dev
        .node("a")
        .get("tenants")
        .and_then(Value::as_str)
        .unwrap()
        .to_owned();
    let since = std::time::Instant::now();
    // Until it has learned, and for a while after: never an acknowledgement, never a silent downgrade.
    let mut refused_as_old = false;
    while !refused_as_old {
        let address = format!("https://{old}");
        let (code, out, err) = dev.verb(&[
            "put",
            "k",
            "after",
            "v",
            "--durability",
            "replicated",
            "--addr",
            &address,
        ]);
        assert!(code != 0, "acknowledged by the old primary: {out}{err}");
        refused_as_old = code == 13;
        assert!(since.elapsed().as_secs() < 120, "it never learned: {err}");
    }
    let log = dev.log("a");
    assert!(log.contains("no longer primary"), "it says so: {log}");
    let (code, out, err) = dev.verb(&["get", "k", "before"]);
    assert_eq!((code, out.trim()), (0, "v"), "{err}");
    assert_eq!(
        dev.verb(&["get", "k", "after"]).0,
        10,
        "nothing of the old reign is there"
    );
    // It follows by itself, and the pair replicates again.
    loop {
        let (code, ..) = dev.verb(&["put", "k", "together", "v", "--durability", "replicated"]);
        if code == 0 {
            break;
        }
        assert!(since.elapsed().as_secs() < 120, "it never followed");
    }
    dev.end();
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Its nodes stop with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
