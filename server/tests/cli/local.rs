//! Verbs and failures that need one machine and at most one node.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Running, command, run, strongroom, text, until};

/// A single node's directory with certificates, key file and configuration, made by the verbs themselves.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Home {
        let home = Home {
            dir: tempfile::tempdir().unwrap(),
        };
        let pki = home.path("pki");
        strongroom(&[
            "certs",
            "--dir",
            text(&pki),
            "--node",
            "n=localhost,127.0.0.1",
            "--operator",
            "ops",
        ])
        .exits(0);
        strongroom(&["keys", "init", text(&home.path("n.key"))]).exits(0);
        home.config("n.key", "");
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self, key: &str, more: &str) {
        let config = format!(
            r#"[node]
name = "n"
data_dir = "data"
[keys]
file = "{key}"
[tenants]
listen = "127.0.0.1:0"
tls = {{ cert = "pki/n/tenants.pem", key = "pki/n/tenants.key" }}
[admin]
listen = "127.0.0.1:0"
tls = {{ cert = "pki/n/admin.pem", key = "pki/n/admin.key", client_ca = "pki/admin-ca.pem" }}
{more}"#
        );
        std::fs::write(self.path("node.toml"), config).unwrap();
    }

    /// Starts it, and waits until it is ready.
    fn serve(&self) -> (Running, serde_json::Value) {
        let ready = self.path("node.json");
        let _ = std::fs::remove_file(&ready);
        let config = self.path("node.toml");
        let child = command(&["serve", "--config", text(&config), "--node-file", text(&ready)])
            .spawn()
            .unwrap();
        let running = Running(child);
        let text = until("the node", || std::fs::read_to_string(&ready).ok());
        (running, serde_json::from_str(&text).unwrap())
    }

    fn admin(&self, node: &serde_json::Value, args: &[&str]) -> super::Ran {
        let pki = |name: &str| self.path("pki").join(name);
        let mut command = command(args);
        command.args([
            "--addr",
            node["admin"].as_str().unwrap(),
            "--ca",
            text(&pki("admin-ca.pem")),
        ]);
        command.args([
            "--cert",
            text(&pki("ops/admin.pem")),
            "--key",
            text(&pki("ops/admin.key")),
        ]);
        run(&mut command, None)
    }
}

#[test]
fn wrong_usage_is_exit_2_and_help_is_0() {
    strongroom(&[]).exits(2);
    strongroom(&["no-such-verb"]).exits(2).says("no-such-verb");
    strongroom(&["get", "--no-such-flag"])
        .exits(2)
        .says("--no-such-flag");
    strongroom(&["get", "k"]).exits(2).says("<KEY>");
    strongroom(&["drill", "--clients", "0"]).exits(2);
    strongroom(&["get", "ks", "key", "--key-format", "hex"])
        .exits(2)
        .says("key:");
    strongroom(&["get", "ks", "key"]).exits(2).says("--addr");
    strongroom(&["status"]).exits(2).says("--addr");
    strongroom(&["doctor"]).exits(2).says("nothing to check");
    let help = strongroom(&["--help"]).exits(0);
    for verb in [
        "drill",
        "dev",
        "serve",
        "standby",
        "status",
        "stats",
        "options",
        "promote",
        "tenant",
        "token",
        "get",
        "put",
        "del",
        "del-range",
        "scan",
        "load",
        "dump",
        "backup",
        "restore",
        "accept",
        "doctor",
        "inspect",
        "verify",
        "keys",
        "certs",
    ] {
        assert!(help.out.contains(&format!("\n  {verb} ")), "{verb}");
        strongroom(&[verb, "--help"]).exits(0);
    }
    assert!(help.out.contains("Exit codes"));
}

#[test]
fn a_token_is_never_looked_for_in_vain() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("token");
    std::fs::write(&empty, "\n").unwrap();
    let at = ["get", "ks", "key", "--addr", "127.0.0.1:1", "--ca", "/dev/null"];
    strongroom(&at).exits(12).says("STRONGROOM_TOKEN");
    let with = |path: &Path| strongroom(&[&at[..], &["--token-file", text(path)]].concat());
    with(&empty).exits(12).says("holds no token");
    with(&dir.path().join("none")).exits(10);
}

#[test]
fn an_unknown_configuration_key_is_named_with_its_neighbour() {
    let home = Home::new();
    home.config("n.key", "connection_max = 3\n");
    let config = home.path("node.toml");
    let serve = ["serve", "--config", text(&config)];
    strongroom(&serve)
        .exits(2)
        .says("connection_max")
        .says("connections_max");
    home.config("n.key", "");
    let set = |value: &str| strongroom(&[&serve[..], &["--set", value]].concat());
    set("tenants.lisen=127.0.0.1:0").exits(2).says("lisen");
    set("tenants.listen=nowhere").exits(2).says("listen");
    set("nothing").exits(2).says("KEY=VALUE");
    strongroom(&["serve", "--config", "/no/such/file.toml"])
        .exits(2)
        .says("/no/such/file.toml");
    let mut spoiled = command(&serve);
    spoiled.env("STRONGROOM_TENANTS__LISEN", "127.0.0.1:0");
    run(&mut spoiled, None).exits(2).says("environment");
    assert!(
        !home.path("data").exists(),
        "a refused configuration left something behind"
    );
}

#[test]
fn a_wrong_key_file_is_refused_and_the_right_one_still_opens() {
    let home = Home::new();
    let (mut node, _) = home.serve();
    assert_eq!(node.terminate(), 0);
    strongroom(&["keys", "init", text(&home.path("other.key"))]).exits(0);
    let config = home.path("node.toml");
    let serve = ["serve", "--config", text(&config)];
    home.config("other.key", "");
    strongroom(&serve).exits(12).says("key file");
    home.config("missing.key", "");
    strongroom(&serve).exits(12).says("missing.key");
    std::fs::write(home.path("broken.key"), "not a key file\n").unwrap();
    home.config("broken.key", "");
    strongroom(&serve).exits(12).says("malformed");
    home.config("n.key", "");
    let (mut node, _) = home.serve();
    assert_eq!(node.terminate(), 0);
}

#[test]
fn a_second_process_on_the_directory_is_locked_out_and_told_by_whom() {
    let home = Home::new();
    let (mut node, ready) = home.serve();
    let config = home.path("node.toml");
    let pid = node.0.id().to_string();
    strongroom(&["serve", "--config", text(&config)])
        .exits(11)
        .says(&pid);
    // The doctor sees it, and disturbs nobody.
    let doctor = strongroom(&["doctor", "-o", "json", "--config", text(&config)])
        .exits(0)
        .json();
    let findings = doctor["findings"].as_array().unwrap();
    let lock = findings
        .iter()
        .find(|finding| finding["check"] == "lock")
        .unwrap();
    assert!(lock["text"].as_str().unwrap().contains(&pid), "{lock}");
    let status = home.admin(&ready, &["status", "-o", "json"]).exits(0).json();
    assert_eq!(
        (&status["healthy"], &status["nodes"][0]["node"]),
        (&true.into(), &"n".into())
    );
    assert_eq!(node.terminate(), 0);
    home.admin(&ready, &["status"]).exits(1).says("127.0.0.1");
}

#[test]
fn the_doctor_finds_what_is_wrong() {
    let home = Home::new();
    let config = home.path("node.toml");
    let args = ["doctor", "-o", "json", "--config", text(&config)];
    let well = strongroom(&args).exits(0).json();
    assert_eq!(well["healthy"], true);
    let checks: Vec<&str> = well["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["check"].as_str().unwrap())
        .collect();
    for check in [
        "configuration",
        "sync",
        "lock",
        "key file",
        "certificate",
        "private key",
    ] {
        assert!(checks.contains(&check), "{check} in {checks:?}");
    }
    std::fs::set_permissions(home.path("n.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(home.path("pki/n/tenants.pem"), "nothing\n").unwrap();
    let ill = strongroom(&args).exits(3).says("2 checks failed").json();
    assert_eq!(ill["healthy"], false);
    strongroom(&["doctor", "--config", "/no/such/file.toml"]).exits(3);
    let in_memory = Path::new("/dev/shm");
    if in_memory.is_dir() {
        strongroom(&["doctor", "--data-dir", text(in_memory)]).exits(3);
    }
}

#[test]
fn inspect_tells_our_files_from_others_and_damage_from_health() {
    let home = Home::new();
    let (mut node, ready) = home.serve();
    home.admin(&ready, &["tenant", "create", "a tenant's own name"])
        .exits(0);
    assert_eq!(node.terminate(), 0);
    let data = home.path("data");
    let ran = strongroom(&["inspect", "-o", "json", "--records", text(&data)]).exits(0);
    assert!(!ran.out.contains("a tenant's own name"));
    let files = ran.json()["files"].as_array().unwrap().clone();
    let kinds: Vec<&str> = files.iter().map(|file| file["kind"].as_str().unwrap()).collect();
    for kind in ["wal", "manifest", "keystore", "current"] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
    strongroom(&["inspect", text(&home.path("node.toml"))])
        .exits(1)
        .says("not a Strongroom file");
    strongroom(&["inspect", "/no/such/file"]).exits(10);
    let wal = files.iter().find(|file| file["kind"] == "wal").unwrap()["path"]
        .as_str()
        .unwrap();
    let mut bytes = std::fs::read(wal).unwrap();
    bytes[70] ^= 1;
    std::fs::write(wal, bytes).unwrap();
    strongroom(&["inspect", text(&data)])
        .exits(1)
        .says("checksum")
        .says(wal);
}

#[test]
fn keys_are_never_overwritten() {
    let home = Home::new();
    let key = home.path("n.key");
    let before = std::fs::read(&key).unwrap();
    strongroom(&["keys", "init", text(&key)]).exits(14);
    assert_eq!(std::fs::read(&key).unwrap(), before);
    let secret = home.path("secret");
    let made = strongroom(&["keys", "escrow", "-o", "json", "--secret", text(&secret)])
        .exits(0)
        .json();
    assert!(made["recipient"].as_str().unwrap().starts_with("srescrow1"));
    assert_eq!(
        std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777,
        0o600
    );
    strongroom(&["keys", "escrow", "--secret", text(&secret)]).exits(14);
    let again = strongroom(&["keys", "recipient", "-o", "json", "--secret", text(&secret)])
        .exits(0)
        .json();
    assert_eq!(again["recipient"], made["recipient"]);
    strongroom(&["keys", "recipient", "--secret", text(&key)]).exits(12);
}

#[test]
fn certificates_are_renewed_and_bad_orders_refused() {
    let home = Home::new();
    let pki = home.path("pki");
    let root = std::fs::read(pki.join("admin-ca.pem")).unwrap();
    let leaf = std::fs::read(pki.join("n/admin.pem")).unwrap();
    let renew = [
        "certs",
        "--dir",
        text(&pki),
        "--node",
        "n=localhost",
        "-o",
        "json",
        "--days",
        "30",
    ];
    let made = strongroom(&renew).exits(0).json();
    assert_eq!(made["certificates"].as_array().unwrap().len(), 6);
    assert_eq!(std::fs::read(pki.join("admin-ca.pem")).unwrap(), root);
    assert_ne!(std::fs::read(pki.join("n/admin.pem")).unwrap(), leaf);
    strongroom(&["certs", "--dir", text(&pki), "--node", "nameless"])
        .exits(2)
        .says("NAME=HOST");
    strongroom(&["certs", "--dir", text(&pki), "--node", "../x=h"]).exits(2);
    strongroom(&["certs", "--dir", text(&pki), "--node", "x="]).exits(2);
    strongroom(&["certs", "--dir", text(&pki), "--days", "0"]).exits(2);
}

#[test]
fn a_file_is_checked_whole_before_a_server_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines");
    let load = |more: &[&str]| {
        let base = ["load", text(&path), "--keyspace", "ks", "--key-template"];
        strongroom(&[&base[..], more].concat())
    };
    std::fs::write(&path, "{\"k\":\"a\"}\n\n{\"k\":\"b\"}\n{\"k\":7,\n").unwrap();
    load(&["{k}"])
        .exits(2)
        .says("line 4: not JSON")
        .says("Nothing was loaded");
    std::fs::write(&path, "{\"k\":\"a\"}\n\n{\"k\":\"b\",\"v\":1}\n").unwrap();
    let checked = load(&["{k}", "--check", "-o", "json"]).exits(0).json();
    assert_eq!(
        (checked["lines"].as_u64(), checked["entries"].as_u64()),
        (Some(3), Some(2))
    );
    load(&["{v:be4}", "--check"]).exits(2).says("line 1: field \"v\"");
    load(&["constant", "--check"]).exits(2).says("same key");
    load(&["{k}", "--check", "--value", "field:v"])
        .exits(2)
        .says("line 1");
    load(&["{k}", "--check", "--value", "nonsense"])
        .exits(2)
        .says("--value");
    load(&["{k}", "--check", "--where", "k=b"]).exits(0);
    strongroom(&[
        "load",
        "/no/such/file",
        "--keyspace",
        "ks",
        "--key-template",
        "{k}",
        "--check",
    ])
    .exits(10);
}

#[test]
fn a_restore_needs_all_its_parts_and_a_new_place() {
    let home = Home::new();
    let (mut node, ready) = home.serve();
    home.admin(&ready, &["tenant", "create", "t"]).exits(0);
    let (copy, sealed, secret) = (home.path("copy"), home.path("sealed"), home.path("secret"));
    let made = strongroom(&["keys", "escrow", "-o", "json", "--secret", text(&secret)])
        .exits(0)
        .json();
    let recipient = made["recipient"].as_str().unwrap();
    let backup = [
        "backup",
        "create",
        "--directory",
        text(&copy),
        "--escrow",
        text(&sealed),
        "--recipient",
        recipient,
    ];
    let done = home
        .admin(&ready, &[&backup[..], &["-o", "json"]].concat())
        .exits(0)
        .json();
    assert!(done["bytes"].as_u64().unwrap() > 0 && done["escrow_bytes"].as_u64().unwrap() > 0);
    home.admin(&ready, &backup).exits(1).says("already_exists");
    assert_eq!(node.terminate(), 0);

    let restore = |from: &Path, secret: &Path, to: &str, key: &str| {
        let (to, key) = (home.path(to), home.path(key));
        let parts = [
            "--from",
            text(from),
            "--escrow",
            text(&sealed),
            "--secret",
            text(secret),
        ];
        strongroom(
            &[
                &["restore"][..],
                &parts,
                &["--to", text(&to), "--key-file", text(&key), "--accept"],
            ]
            .concat(),
        )
    };
    let other = home.path("other-secret");
    strongroom(&["keys", "escrow", "--secret", text(&other)]).exits(0);
    strongroom(&["keys", "init", text(&home.path("new.key"))]).exits(0);
    restore(&home.path("none"), &secret, "new", "new.key").exits(10);
    restore(&copy, &other, "new", "new.key")
        .exits(12)
        .says("another recipient");
    restore(&copy, &secret, "new", "missing.key").exits(12);
    restore(&copy, &secret, "data", "new.key")
        .exits(14)
        .says("would overwrite");
    let ran = restore(&copy, &secret, "new", "new.key").exits(0);
    assert!(ran.out.contains("takes writes"), "{}", ran.out);
    restore(&copy, &secret, "new", "new.key").exits(14);
}

#[test]
fn bit_of_a_table_is_flipped_then_verify_exits_3_and_names_it_and_sound_data_is_0() {
    let home = Home::new();
    let (data, key) = (home.path("data"), home.path("n.key"));
    let open = || {
        let keys = strongroom::keys::KeyFile::open(&key).unwrap();
        strongroom::Engine::builder(&data).keys(keys).open().unwrap()
    };
    let engine = open();
    let tenant = engine
        .create_tenant("t", strongroom::TenantOptions::default())
        .unwrap();
    tenant
        .keyspace("k")
        .unwrap()
        .put("secret-key", vec![1; 500])
        .unwrap();
    let at = ["verify", "--data-dir", text(&data), "--key-file", text(&key)];
    strongroom(&at).exits(11);
    engine.close().unwrap();
    let config = home.path("node.toml");
    let sound = strongroom(&["verify", "--config", text(&config), "-o", "json"]).exits(0);
    let sound: serde_json::Value = serde_json::from_str(&sound.out).unwrap();
    assert_eq!((&sound["healthy"], &sound["tables"]), (&true.into(), &1.into()));
    let tables = std::fs::read_dir(data.join("tables")).unwrap();
    let table = tables.map(|entry| entry.unwrap().path()).next().unwrap();
    let mut bytes = std::fs::read(&table).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&table, bytes).unwrap();
    strongroom(&at).exits(3).says("restore");
    let damaged = strongroom(&[&at[..], &["-o", "json"]].concat()).exits(3);
    let damaged: serde_json::Value = serde_json::from_str(&damaged.out).unwrap();
    let damage = &damaged["damages"][0];
    assert_eq!(damage["file"], text(&table));
    assert_eq!(damage["structure"], "table block");
    assert!(!damaged.to_string().contains("secret"));
    strongroom(&[
        "verify",
        "--data-dir",
        text(&home.path("none")),
        "--key-file",
        text(&key),
    ])
    .exits(10);
    strongroom(&["verify"]).exits(2);
}
