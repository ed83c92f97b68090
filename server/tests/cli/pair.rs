//! Verbs against a running pair, which `dev` provides.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Ran, Running, command, run, strongroom, text, until};

/// A pair made by `dev`, and its profile.
struct Dev {
    process: Running,
    /// Where it makes its directory: a test that fails leaves nothing behind.
    _temporary: tempfile::TempDir,
    dir: PathBuf,
    profile: String,
    nodes: Value,
}

impl Dev {
    fn start() -> Dev {
        let temporary = tempfile::tempdir().unwrap();
        let mut child = command(&["dev", "-o", "json"])
            .env("TMPDIR", temporary.path())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let mut process = Running(child);
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| {
            let mut why = String::new();
            // It has ended, or soon will: it said nothing of what it should.
            let _ = process.0.kill();
            if let Some(stderr) = &mut process.0.stderr {
                let _ = stderr.read_to_string(&mut why);
            }
            panic!("{e}: {line}{why}")
        });
        Dev {
            process,
            _temporary: temporary,
            dir: said["dir"].as_str().unwrap().into(),
            profile: said["profile"].as_str().unwrap().to_owned(),
            nodes: said["nodes"].clone(),
        }
    }

    fn run_with(&self, args: &[&str], input: Option<&[u8]>) -> Ran {
        run(command(args).env("STRONGROOM_PROFILE", &self.profile), input)
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, None)
    }

    /// Process id of a node.
    fn pid(&self, node: &str) -> i32 {
        let text = std::fs::read_to_string(self.dir.join(node).join("node.json")).unwrap();
        let ready: Value = serde_json::from_str(&text).unwrap();
        ready["pid"].as_i64().unwrap().try_into().unwrap()
    }

    fn entries(&self, keyspace: &str) -> Vec<Value> {
        let scanned = self.run(&["scan", keyspace, "-o", "json"]).exits(0).json();
        scanned["entries"].as_array().unwrap().clone()
    }
}

fn gone(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    until("a node to end", || {
        rustix::process::test_kill_process(pid).is_err().then_some(())
    });
}

#[test]
fn a_condition_that_does_not_hold_is_exit_16_and_a_time_to_live_is_kept() {
    let dev = Dev::start();
    dev.run(&["put", "ks", "lease", "me", "--if-absent", "--ttl", "3600"])
        .exits(0);
    dev.run(&["put", "ks", "lease", "you", "--if-absent"])
        .exits(16)
        .says("does not hold");
    dev.run(&["put", "ks", "lease", "you", "--if-value", "you"])
        .exits(16);
    dev.run(&["put", "ks", "lease", "still me", "--if-value", "me"])
        .exits(0);
    dev.run(&["del", "ks", "lease", "--if-value", "me"]).exits(16);
    assert_eq!(dev.run(&["get", "ks", "lease"]).exits(0).out, "still me");
    dev.run(&["del", "ks", "lease", "--if-value", "still me"])
        .exits(0);
    dev.run(&["get", "ks", "lease"]).exits(10);
    dev.run(&["put", "ks", "a", "1", "--ttl", "0.001"]).exits(0);
    until("a value to expire", || {
        (dev.run(&["get", "ks", "a"]).code == 10).then_some(())
    });
    dev.run(&["put", "ks", "a", "1", "--ttl", "0"]).exits(2);
    dev.run(&["put", "ks", "a", "1", "--ttl", "soon"]).exits(2);
    for key in ["u/1", "u/2", "v/1"] {
        dev.run(&["put", "ranges", key, "x"]).exits(0);
    }
    dev.run(&["del-range", "ranges"]).exits(2);
    dev.run(&["del-range", "ranges", "--prefix", ""]).exits(2);
    dev.run(&["del-range", "ranges", "--prefix", "u/"]).exits(0);
    let left = || dev.run(&["scan", "ranges", "--keys-only"]).exits(0).out;
    assert_eq!(left(), "v/1\n");
    dev.run(&["del-range", "ranges", "--from", "b", "--to", "a"])
        .exits(2);
    dev.run(&["del-range", "ranges", "--all"]).exits(0);
    assert_eq!(left(), "");
    dev.run(&["stats"]).exits(2).says("--node");
    let stats = dev.run(&["stats", "--node", "a", "-o", "json"]).exits(0).json();
    assert!(stats["commits"].as_u64() >= Some(4), "{stats}");
    assert!(stats["reads"]["gets"].as_u64() >= Some(3), "{stats}");
    assert!(stats["reads"]["ranges"].as_u64() >= Some(2), "{stats}");
    assert_eq!(
        (&stats["value_files"], &stats["value_garbage_bytes"]),
        (&0.into(), &0.into()),
        "{stats}"
    );
    assert!(
        dev.run(&["stats", "--node", "b"])
            .exits(0)
            .out
            .contains("writers slowed down")
    );
}

#[test]
fn options_are_shown_and_changed_at_one_node_until_it_is_opened_again() {
    let dev = Dev::start();
    dev.run(&["options"]).exits(2).says("--node");
    let show = |node| {
        dev.run(&["options", "--node", node, "-o", "json"])
            .exits(0)
            .json()
    };
    let (a, b) = (show("a"), show("b"));
    assert_eq!((&a["expiry_grace_ms"], &a), (&86_400_000.into(), &b));
    let set = |flags: &[&str]| dev.run(&[&["options", "--node", "b"][..], flags].concat());
    let changed = set(&["--cache-bytes", "1048576", "--expiry-grace-ms", "5000"]).exits(0);
    assert!(changed.out.contains("1048576"), "{}", changed.out);
    changed.says("Not remembered");
    let now = show("b");
    assert_eq!(
        (
            &now["cache_bytes"],
            &now["expiry_grace_ms"],
            &now["wal_keep_bytes"]
        ),
        (&1_048_576.into(), &5000.into(), &b["wal_keep_bytes"])
    );
    set(&["--cache-bytes", "1", "--replicated-timeout-ms", "0"])
        .exits(2)
        .says("replicated_timeout");
    set(&["--cache-bytes", "-1"]).exits(2);
    set(&["--cache-bytes", "much"]).exits(2).says("much");
    assert_eq!(show("b"), now, "a change that was refused");
    assert_eq!(show("a"), a, "the other node's");
}

#[test]
fn data_goes_in_and_comes_out() {
    let mut dev = Dev::start();
    dev.run(&["put", "ks", "a", "1"]).exits(0);
    dev.run(&["put", "ks", "b", "2", "--durability", "replicated", "-o", "json"])
        .exits(0)
        .json();
    dev.run(&[
        "put",
        "ks",
        "00ff",
        "c0de",
        "--key-format",
        "hex",
        "--value-format",
        "hex",
    ])
    .exits(0);
    dev.run_with(&["put", "ks", "c"], Some(b"from\0standard input"))
        .exits(0);
    assert_eq!(dev.run(&["get", "ks", "a"]).exits(0).out, "1");
    assert_eq!(dev.run(&["get", "ks", "c"]).exits(0).out, "from\0standard input");
    let got = dev
        .run(&[
            "get",
            "ks",
            "00ff",
            "--key-format",
            "hex",
            "--value-format",
            "hex",
            "-o",
            "json",
        ])
        .exits(0);
    assert_eq!(
        (&got.json()["found"], &got.json()["value"]),
        (&true.into(), &"c0de".into())
    );
    assert_eq!(
        dev.run(&["get", "ks", "none", "-o", "json"]).exits(10).json()["found"],
        false
    );
    dev.run(&["get", "no such keyspace", "a"]).exits(10);
    dev.run(&["scan", "ks", "-o", "json"])
        .exits(1)
        .says("--key-format hex");
    assert_eq!(
        dev.run(&["scan", "ks", "--from", "a", "--to", "c"]).exits(0).out,
        "a\t1\nb\t2\n"
    );
    assert_eq!(
        dev.run(&["scan", "ks", "--prefix", "b", "--keys-only"])
            .exits(0)
            .out,
        "b\n"
    );
    assert_eq!(
        dev.run(&["scan", "ks", "--reverse", "--limit", "1"])
            .exits(0)
            .out
            .split('\t')
            .next(),
        Some("c")
    );
    dev.run(&["del", "ks", "a"]).exits(0);
    dev.run(&["get", "ks", "a"]).exits(10);

    // Out by dump and in by load, whatever the bytes.
    let file = dev.dir.join("dump.ndjson");
    let hex = ["--key-format", "hex", "--value-format", "hex"];
    dev.run(&[&["dump", "ks", "--out", text(&file)][..], &hex].concat())
        .exits(0);
    dev.run(&["dump", "ks", "--out", text(&file)]).exits(1);
    let load = [
        "load",
        text(&file),
        "--keyspace",
        "copy",
        "--key-template",
        "{key:hex}",
        "--value",
        "hex:value",
    ];
    let done = dev.run(&[&load[..], &["-o", "json"]].concat()).exits(0).json();
    assert_eq!(
        (done["entries"].as_u64(), &done["complete"]),
        (Some(3), &true.into())
    );
    let dump = |keyspace| dev.run(&[&["dump", keyspace][..], &hex].concat()).exits(0).out;
    assert_eq!(dump("copy"), dump("ks"));
    assert_eq!(dump("copy").lines().count(), 3);

    let dir = dev.dir.clone();
    let pids = [dev.pid("a"), dev.pid("b")];
    assert_eq!(dev.process.terminate(), 0);
    pids.into_iter().for_each(gone);
    assert!(!dir.exists(), "dev left {} behind", dir.display());
}

#[test]
fn a_broken_line_leaves_nothing_or_says_what_it_left() {
    let dev = Dev::start();
    let mut lines: String = (0..1000)
        .map(|i| format!("{{\"k\":\"{i:04}\",\"v\":{i}}}\n"))
        .collect();
    lines.push_str("{\"k\":\"x\" \"v\"}\n{\"k\":\"after\"}\n");
    let file = dev.dir.join("broken.ndjson");
    std::fs::write(&file, &lines).unwrap();
    let load = |source: &str, keyspace: &str, input: Option<&[u8]>| {
        let args = [
            "load",
            source,
            "--keyspace",
            keyspace,
            "--key-template",
            "{k}",
            "--batch",
            "7",
            "-o",
            "json",
        ];
        dev.run_with(&args, input)
    };
    let ran = load(text(&file), "from-file", None)
        .exits(2)
        .says("line 1001")
        .says("Nothing was loaded");
    assert_eq!(ran.json()["broken_line"], 1001);
    assert!(dev.entries("from-file").is_empty());

    let ran = load("-", "from-pipe", Some(lines.as_bytes()))
        .exits(2)
        .says("line 1001");
    let ran = ran.says("Lines 1 to 1000 are loaded (1,000 entries); nothing after them is.");
    let report = ran.json();
    assert_eq!(
        (report["loaded_through_line"].as_u64(), report["entries"].as_u64()),
        (Some(1000), Some(1000))
    );
    let entries = dev.entries("from-pipe");
    assert_eq!((entries.len(), &entries[999]["key"]), (1000, &"0999".into()));
    assert_eq!(entries[7]["value"], "{\"v\":7}");

    // The last of lines with one key wins, with any number of lanes; numbers count from the file's start.
    let same: String = (0..500)
        .map(|i| format!("{{\"k\":\"{}\",\"v\":{i}}}\n", i % 3))
        .collect();
    let args = [
        "load",
        "--keyspace",
        "same",
        "--key-template",
        "{k}",
        "--batch",
        "2",
        "--concurrency",
        "8",
    ];
    dev.run_with(&args, Some(same.as_bytes())).exits(0);
    let values: Vec<Value> = dev
        .entries("same")
        .iter()
        .map(|entry| entry["value"].clone())
        .collect();
    assert_eq!(values, ["{\"v\":498}", "{\"v\":499}", "{\"v\":497}"]);
    let args = [
        "load",
        "--keyspace",
        "rest",
        "--key-template",
        "{#}",
        "--from-line",
        "499",
        "--value",
        "line",
    ];
    dev.run_with(&args, Some(same.as_bytes())).exits(0);
    assert_eq!(
        dev.entries("rest")
            .iter()
            .map(|e| e["key"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["499", "500"]
    );
}

#[test]
fn tenants_and_tokens_come_and_go_at_once() {
    let dev = Dev::start();
    let id = dev
        .run(&["tenant", "create", "acme", "-o", "json"])
        .exits(0)
        .json()["tenant_id"]
        .as_u64();
    assert!(id.is_some_and(|id| id > 1));
    dev.run(&["tenant", "create", "acme"])
        .exits(1)
        .says("already_exists");
    assert!(dev.run(&["tenant", "list"]).exits(0).out.contains("acme"));
    let file = dev.dir.join("acme.token");
    let made = dev
        .run(&["token", "create", "acme", "--out", text(&file), "-o", "json"])
        .exits(0)
        .json();
    assert!(
        made.get("token").is_none(),
        "a token in a file is not printed too"
    );
    dev.run(&["token", "create", "nobody"]).exits(10);
    let as_acme = |args: &[&str]| dev.run(&[args, &["--token-file", text(&file)]].concat());
    as_acme(&["put", "ks", "k", "acme's"]).exits(0);
    dev.run(&["get", "ks", "k"]).exits(10);
    let listed = dev
        .run(&["token", "list", "--tenant", "acme", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(listed["tokens"][0]["token_id"], made["token_id"]);
    dev.run(&["token", "revoke", made["token_id"].as_str().unwrap()])
        .exits(0);
    as_acme(&["get", "ks", "k"]).exits(12);
    dev.run(&["token", "revoke", "0123456789abcdef"]).exits(10);
    dev.run(&["tenant", "delete", "acme"]).exits(2).says("--yes");
    let gone = dev
        .run(&["tenant", "delete", "acme", "--yes", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(
        (gone["tenant_id"].as_u64(), &gone["root_destroyed"]),
        (id, &true.into())
    );
    dev.run(&["tenant", "delete", "acme", "--yes"]).exits(10);
    assert!(!dev.run(&["tenant", "list"]).exits(0).out.contains("acme"));
}

#[test]
fn a_standby_takes_over_and_the_old_primary_is_missed() {
    let dev = Dev::start();
    let status = dev.run(&["status", "-o", "json"]).exits(0).json();
    assert_eq!(
        (status["nodes"].as_array().unwrap().len(), &status["healthy"]),
        (2, &true.into())
    );
    dev.run(&["put", "ks", "k", "v", "--durability", "replicated"])
        .exits(0);
    // Writes are for the primary.
    let standby = dev.nodes[1]["tenants"].as_str().unwrap();
    dev.run(&["put", "ks", "k", "v", "--addr", standby]).exits(13);
    dev.run(&["promote", "--node", "c"]).exits(10);
    dev.run(&["promote", "--yes"]).exits(2).says("--node");
    dev.run(&["promote", "--node", "a", "--yes"])
        .exits(1)
        .says("not_standby");
    dev.run(&["promote", "--node", "b", "--yes", "--expect-primary", "z"])
        .exits(1)
        .says("expectation_failed");
    let plan = dev
        .run(&["promote", "--node", "b", "--dry-run", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(
        (&plan["promoted"], &plan["primary_connected"]),
        (&false.into(), &true.into())
    );
    dev.run(&["promote", "--node", "b"])
        .exits(2)
        .says("--yes")
        .says("ALIVE");

    let primary = rustix::process::Pid::from_raw(dev.pid("a")).unwrap();
    rustix::process::kill_process(primary, rustix::process::Signal::KILL).unwrap();
    let ran = until("the standby to miss its primary", || {
        let plan = dev
            .run(&["promote", "--node", "b", "--dry-run", "-o", "json"])
            .exits(0)
            .json();
        (plan["primary_connected"] == false).then_some(plan)
    });
    assert_eq!(
        (ran["primary"].as_str(), ran["loss_bytes"].as_u64()),
        (Some("a"), Some(0))
    );
    dev.run(&["status"]).exits(3);
    let args = [
        "promote",
        "--node",
        "b",
        "--yes",
        "--expect-primary",
        "a",
        "--max-loss",
        "0",
        "-o",
        "json",
    ];
    assert_eq!(dev.run(&args).exits(0).json()["promoted"], true);
    // The profile names both: the client finds the new primary by itself.
    assert_eq!(dev.run(&["get", "ks", "k"]).exits(0).out, "v");
    dev.run(&["put", "ks", "k", "w"]).exits(0);
    dev.run(&["status"]).exits(3);
    dev.run(&["status", "--node", "b"]).exits(0);
}

#[test]
fn nodes_end_with_whoever_started_them_even_if_it_was_killed() {
    let mut dev = Dev::start();
    let pids = [dev.pid("a"), dev.pid("b")];
    dev.process.0.kill().unwrap();
    dev.process.0.wait().unwrap();
    pids.into_iter().for_each(gone);
    std::fs::remove_dir_all(&dev.dir).unwrap();
}

#[test]
fn wrong_credentials_are_refused() {
    let dev = Dev::start();
    let wrong = dev.dir.join("wrong.token");
    std::fs::write(&wrong, "0123456789abcdef.0000").unwrap();
    dev.run(&["get", "ks", "k", "--token-file", text(&wrong)])
        .exits(12);
    // A replica's certificate is no administrator's, an unknown authority's neither.
    let pki = dev.dir.join("pki");
    let admin = dev.nodes[0]["admin"].as_str().unwrap();
    let status = |cert: &Path, key: &Path| {
        let ca = pki.join("admin-ca.pem");
        strongroom(&[
            "status",
            "--addr",
            admin,
            "--ca",
            text(&ca),
            "--cert",
            text(cert),
            "--key",
            text(key),
        ])
    };
    status(&pki.join("operator/admin.pem"), &pki.join("operator/admin.key")).exits(0);
    status(&pki.join("a/replication.pem"), &pki.join("a/replication.key"))
        .exits(12)
        .says("refused the certificate");
    status(&pki.join("a/admin.pem"), &pki.join("a/admin.key"))
        .exits(12)
        .says("refused the certificate");
}
