//! The command line as a script sees it: exit codes, messages, JSON, and the drill.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use strongroom::keys::KeyFile;
use strongroom::{Engine, TenantOptions};

fn strongroom(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command
        .args(args)
        .env_remove("STRONGROOM_PROFILE")
        .env_remove("STRONGROOM_TOKEN");
    command
}

fn run(args: &[&str]) -> (i32, String, String) {
    told(strongroom(args).output().unwrap())
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A node alone, plaintext on loopback.
fn config(dir: &Path, extra: &str) -> String {
    let key = dir.join("node.key");
    if !key.exists() {
        KeyFile::create(&key).unwrap();
    }
    let path = dir.join("node.toml");
    let config = format!(
        "[node]\nname = \"n\"\ndata_dir = \"data\"\n{extra}\n[keys]\nfile = \"node.key\"\n\
         [tenants]\nlisten = \"127.0.0.1:0\"\ninsecure = true\n\
         [admin]\nlisten = \"127.0.0.1:0\"\ninsecure = true\n"
    );
    std::fs::write(&path, config).unwrap();
    text(&path).to_owned()
}

#[test]
fn drill_on_the_sample_loses_nothing_and_finds_nothing_in_clear() {
    let (code, out, err) = run(&["drill", "-o", "json", "--seed", "7"]);
    assert_eq!(code, 0, "{out}{err}");
    let figures: Value = serde_json::from_str(&out).unwrap();
    let number = |name: &str| {
        figures
            .get(name)
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("{name}: {out}"))
    };
    assert_eq!(figures.get("schema"), Some(&1.into()));
    assert_eq!(number("tenants"), 8);
    assert!(number("acknowledged_writes") > 1000);
    assert!(number("writes_per_second") > 0 && number("backup_bytes") > 0 && number("canaries") > 1000);
    assert!(figures.get("promote_ms").is_some() && number("first_write_after_kill_ms") > 0);
    assert_eq!(
        (
            number("lost_writes"),
            number("plaintext_found"),
            number("torn_batches")
        ),
        (0, 0, 0)
    );
    assert_eq!(figures.get("deleted_tenant_readable"), Some(&false.into()));
    assert_eq!(figures.get("restore_equal"), Some(&true.into()));
}

#[test]
fn wrong_usage_is_2_and_names_what_is_wrong() {
    assert_eq!(run(&["frobnicate"]).0, 2);
    let dir = tempfile::tempdir().unwrap();
    let unknown = config(dir.path(), "colour = \"blue\"");
    let (code, _, err) = run(&["serve", "--config", &unknown]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("colour"), "{err}");
}

#[test]
fn wrong_key_file_is_12_and_a_locked_directory_is_11() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "");
    let keys = KeyFile::open(dir.path().join("node.key")).unwrap();
    let engine = Engine::builder(dir.path().join("data"))
        .keys(keys)
        .open()
        .unwrap();
    engine.create_tenant("t", TenantOptions::default()).unwrap();
    let (code, _, err) = run(&["serve", "--config", &config]);
    assert_eq!(code, 11, "{err}");
    engine.close().unwrap();
    drop(engine);
    std::fs::remove_file(dir.path().join("node.key")).unwrap();
    KeyFile::create(dir.path().join("node.key")).unwrap();
    let (code, _, err) = run(&["serve", "--config", &config]);
    assert_eq!(code, 12, "{err}");
    let keys = KeyFile::open(dir.path().join("node.key")).unwrap();
    assert!(
        Engine::builder(dir.path().join("data"))
            .keys(keys)
            .open()
            .is_err(),
        "and nothing was made anew"
    );
}

#[test]
fn inspect_shows_headers_and_no_name_and_refuses_strangers() {
    let dir = tempfile::tempdir().unwrap();
    let keys = KeyFile::create(dir.path().join("k")).unwrap();
    let engine = Engine::builder(dir.path().join("data"))
        .keys(keys)
        .open()
        .unwrap();
    let tenant = engine
        .create_tenant("canary-tenant", TenantOptions::default())
        .unwrap();
    tenant
        .keyspace("canary-space")
        .unwrap()
        .put("canary-key", "canary-value")
        .unwrap();
    engine.close().unwrap();
    for file in std::fs::read_dir(dir.path().join("data").join("wal")).unwrap() {
        let (code, out, err) = run(&["inspect", text(&file.unwrap().path())]);
        assert_eq!(code, 0, "{err}");
        assert!(!out.contains("canary"), "{out}");
    }
    let stranger = dir.path().join("k");
    assert_ne!(run(&["inspect", text(&stranger)]).0, 0);
}

#[test]
fn broken_ndjson_line_is_named_by_number_and_nothing_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    // The pair of `dev`: it prints where its profile is.
    let mut dev = strongroom(&["dev"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(dev.stdout.take().unwrap()).lines();
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
    let verb = |args: &[&str]| {
        told(
            strongroom(args)
                .env("STRONGROOM_PROFILE", &profile)
                .output()
                .unwrap(),
        )
    };
    let input = dir.path().join("events.ndjson");
    let mut file = std::fs::File::create(&input).unwrap();
    writeln!(file, "{{\"user\":\"u1\",\"ts\":1,\"path\":\"a\"}}").unwrap();
    writeln!(file, "{{\"user\":\"u2\",\"ts\":2,\"path\":\"b\"}}").unwrap();
    writeln!(file, "{{\"user\":\"u3\",").unwrap();
    let load = [
        "load",
        "--keyspace",
        "activity",
        "--key-template",
        "{user}/{ts:be8}",
        text(&input),
    ];
    let (code, out, err) = verb(&load);
    assert!(code != 0 && err.contains('3'), "{code} {out}{err}");
    let (code, out, _) = verb(&["scan", "activity", "-o", "json"]);
    assert!(
        code == 10 || !out.contains("u1"),
        "nothing half-loaded: {code} {out}"
    );

    let good = dir.path().join("good.ndjson");
    std::fs::write(
        &good,
        "{\"user\":\"u1\",\"ts\":1,\"path\":\"a\"}\n{\"user\":\"u2\",\"ts\":2,\"path\":\"b\"}\n",
    )
    .unwrap();
    let (code, out, err) = verb(&[
        "load",
        "--keyspace",
        "activity",
        "--key-template",
        "{user}/{ts:be8}",
        text(&good),
    ]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = verb(&["put", "notes", "hello", "world"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = verb(&["get", "notes", "hello"]);
    assert_eq!((code, out.trim()), (0, "world"), "{err}");
    assert_eq!(verb(&["get", "notes", "absent"]).0, 10);
    let (code, out, err) = verb(&["status", "-o", "json"]);
    assert_eq!(code, 0, "{out}{err}");
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&dev),
        rustix::process::Signal::INT,
    )
    .unwrap();
    assert!(dev.wait().unwrap().success());
    assert!(!Path::new(&profile).exists(), "dev cleans up");
}
