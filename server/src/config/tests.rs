use super::*;

const GOOD: &str = r#"
[node]
name = "db1"
data_dir = "data"
[keys]
file = "keys/strongroom.key"
[tenants]
listen = "0.0.0.0:7300"
tls = { cert = "t.crt", key = "/abs/t.pem" }
[admin]
listen = "127.0.0.1:7301"
tls = { cert = "a.crt", key = "a.pem", client_ca = "a-ca.crt" }
[replication]
listen = "0.0.0.0:7302"
peer = "db2:7302"
tls = { cert = "r.crt", key = "r.pem", ca = "r-ca.crt" }
[engine]
durability = "replicated"
"#;

fn load(text: &str) -> Result<Config, ConfigError> {
    Config::from_toml(text, "test.toml", Some(Path::new("/etc/sr")), None, None)
}

#[test]
fn complete_file_then_paths_are_relative_to_it() {
    let config = load(GOOD).unwrap();
    assert_eq!(config.node.data_dir, Path::new("/etc/sr/data"));
    let tls = config.tenants.tls.clone().unwrap();
    assert_eq!(
        (tls.cert, tls.key),
        (PathBuf::from("/etc/sr/t.crt"), PathBuf::from("/abs/t.pem"))
    );
    let replication = config.replication();
    assert_eq!(replication.engine.durability, strongroom::Durability::Replicated);
    assert_eq!(replication.tls.unwrap().ca, Path::new("/etc/sr/r-ca.crt"));
}

#[test]
fn compression_then_as_named() {
    for (name, expected) in [
        ("none", strongroom::Compression::None),
        ("lz4", strongroom::Compression::Lz4),
    ] {
        let config = load(&format!("{GOOD}compression = \"{name}\"\n")).unwrap();
        assert_eq!(config.replication().engine.compression, expected);
    }
}

#[test]
fn defaults_then_the_engines() {
    assert_eq!(
        format!("{:?}", EngineConfig::default().options()),
        format!("{:?}", strongroom::Options::default())
    );
}

#[test]
fn unknown_key_then_error_names_it_and_the_nearest() {
    let error = load(&GOOD.replace("peer =", "pear =")).unwrap_err().0;
    assert_eq!(
        error,
        "test.toml: unknown key `replication.pear`; did you mean `peer`?"
    );
    let error = load(&format!("{GOOD}\n[surprise]\nx = 1\n")).unwrap_err().0;
    assert!(
        error.starts_with("test.toml: unknown key `surprise`; known here: node"),
        "{error}"
    );
    let error = load(&GOOD.replace("client_ca", "cleint_ca")).unwrap_err().0;
    assert!(
        error.contains("unknown key `admin.tls.cleint_ca`; did you mean `client_ca`?"),
        "{error}"
    );
}

#[test]
fn missing_key_then_error_names_it() {
    let error = load(&GOOD.replace("name = \"db1\"", "")).unwrap_err().0;
    assert_eq!(error, "test.toml: missing key `node.name`");
}

#[test]
fn overrides_then_they_win_and_their_mistakes_are_named() {
    let table = |text: &str| match serde_json::from_str(text).unwrap() {
        serde_json::Value::Object(table) => table,
        _ => unreachable!(),
    };
    let overrides = table(r#"{"tenants": {"listen": "127.0.0.1:0"}}"#);
    let config = Config::from_toml(GOOD, "t", None, None, Some(&overrides)).unwrap();
    assert_eq!(config.tenants.listen, "127.0.0.1:0".parse().unwrap());
    let overrides = table(r#"{"tenants": {"lisen": "127.0.0.1:0"}}"#);
    let error = Config::from_toml(GOOD, "t", None, None, Some(&overrides))
        .unwrap_err()
        .0;
    assert!(
        error.contains("unknown key `tenants.lisen`; did you mean `listen`?"),
        "{error}"
    );
}

#[test]
fn each_rule_broken_then_key_named() {
    let cases = [
        ("name = \"db1\"", "name = \"db 1\"", "node.name"),
        ("keys/strongroom.key", "data/strongroom.key", "keys.file"),
        (
            "tls = { cert = \"t.crt\", key = \"/abs/t.pem\" }",
            "insecure = true",
            "tenants.insecure",
        ),
        (
            "tls = { cert = \"t.crt\", key = \"/abs/t.pem\" }",
            "",
            "tenants.tls",
        ),
        (
            "listen = \"0.0.0.0:7302\"",
            "listen = \"0.0.0.0:7300\"",
            "tenants, admin and replication",
        ),
        ("peer = \"db2:7302\"", "role = \"standby\"", "replication.peer"),
        (
            "peer = \"db2:7302\"",
            "window_bytes = 1",
            "replication.window_bytes",
        ),
        (
            "durability = \"replicated\"",
            "replicated_timeout_ms = 60000",
            "engine.replicated_timeout_ms",
        ),
        (
            "durability = \"replicated\"",
            "filter_bits = 31",
            "engine: option filter_bits",
        ),
        (
            "durability = \"replicated\"",
            "compaction_threads = 65",
            "engine: option compaction_threads",
        ),
        (
            "durability = \"replicated\"",
            "compression = \"zip\"",
            "test.toml: engine.compression",
        ),
        (
            "durability = \"replicated\"",
            "durability = \"paper\"",
            "test.toml: engine.durability",
        ),
    ];
    for (old, new, expect) in cases {
        assert!(GOOD.contains(old), "{old}");
        let error = load(&GOOD.replace(old, new)).unwrap_err().0;
        assert!(error.starts_with(expect), "{old} -> {new}: {error}");
    }
}

/// What the environment makes of [`GOOD`]; run by the test below in a process of its own.
#[test]
#[ignore = "reads its environment: run by environment_set_then_it_wins_and_its_mistakes_are_named"]
fn child() {
    match Config::from_toml(GOOD, "t", None, Some(ENV_PREFIX), None) {
        Ok(config) => println!(
            "listen {} cache {}",
            config.tenants.listen, config.engine.cache_bytes
        ),
        Err(error) => println!("error {error}"),
    }
}

#[test]
fn environment_set_then_it_wins_and_its_mistakes_are_named() {
    let run = |name: &str, value: &str| {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "config::tests::child", "--ignored", "--nocapture"])
            .env(name, value)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let cases = [
        (
            "STRONGROOM_TENANTS__LISTEN",
            "127.0.0.1:7",
            "listen 127.0.0.1:7 cache 134217728",
        ),
        (
            "STRONGROOM_ENGINE__CACHE_BYTES",
            "4096",
            "listen 0.0.0.0:7300 cache 4096",
        ),
        ("STRONGROOM_SEED", "5", "listen 0.0.0.0:7300"),
        ("STRONGROOM_NODE_FILE", "x", "listen 0.0.0.0:7300"),
        ("STRONGROOM_TENANTS", "5", "listen 0.0.0.0:7300"),
        (
            "STRONGROOM_TENANTS__LISEN",
            "x",
            "error environment: unknown key `tenants.lisen`; did you mean `listen`?",
        ),
        (
            "STRONGROOM_TENANTS_LISTEN",
            "x",
            "error environment: unknown key `tenants_listen`",
        ),
        (
            "STRONGROOM_TENANT__LISTEN",
            "x",
            "error environment: unknown key `tenant`; did you mean `tenants`?",
        ),
        (
            "STRONGROOM_ENGINE__CACHE_BYTES",
            "much",
            "error environment: engine.cache_bytes: ",
        ),
    ];
    for (name, value, expect) in cases {
        let output = run(name, value);
        assert!(output.contains(expect), "{name}={value}: {output}");
    }
}
