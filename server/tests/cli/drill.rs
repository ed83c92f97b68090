//! The drill itself.

use super::{Running, command, strongroom, text, until};

#[test]
fn the_sample_drill_ends_well_and_reports_every_figure() {
    let ran = strongroom(&["drill", "-o", "json", "--clients", "3"]).exits(0);
    let report = ran.json();
    let count = |field: &str| {
        report[field]
            .as_u64()
            .unwrap_or_else(|| panic!("{field} in {report}"))
    };
    let figure = |field: &str| {
        report[field]
            .as_f64()
            .unwrap_or_else(|| panic!("{field} in {report}"))
    };
    assert_eq!(report["ok"], true);
    assert_eq!(report["faults"], serde_json::json!([]));
    assert_eq!(
        (count("tenants"), count("events"), count("clients")),
        (8, 5000, 3)
    );
    assert_eq!(count("acknowledged_writes"), 5000);
    assert!(
        (2000..5000).contains(&count("acknowledged_before_kill")),
        "{report}"
    );
    for none in ["lost_writes", "torn_batches", "wrong_values", "plaintext_found"] {
        assert_eq!(count(none), 0, "{none}");
    }
    assert!(count("unknown_writes_there") <= count("unknown_writes"));
    for some in [
        "writes_per_second",
        "sync_ms",
        "promote_ms",
        "first_write_after_kill_ms",
        "seconds",
    ] {
        assert!(figure(some) > 0.0, "{some}");
    }
    assert!(figure("first_write_after_kill_ms") >= figure("promote_ms"));
    assert_eq!(report["deleted_tenant_readable"], false);
    assert_eq!(
        (&report["restore_equal"], &report["restore_fenced"]),
        (&true.into(), &true.into())
    );
    assert!(count("promote_loss_bytes") < 1 << 20);
    assert!(count("backup_bytes") > 50_000 && count("backup_bytes") < 5_000_000);
    assert!(count("canaries") > 10_000 && count("planted_found") >= 8);
    assert!(count("files_searched") > 50 && count("bytes_searched") > 1_000_000);
    assert!(report["seed"].is_u64() && report["kept"].is_null());
}

#[test]
fn kept_on_request_the_directory_holds_what_was_searched() {
    let report = strongroom(&["drill", "-o", "json", "--keep", "--seed", "1"])
        .exits(0)
        .json();
    let dir = std::path::PathBuf::from(report["kept"].as_str().unwrap());
    for name in [
        "a/data/CURRENT",
        "b/stderr.log",
        "backup/CURRENT",
        "restored-backup/CURRENT",
        "pki/tenants-ca.pem",
    ] {
        assert!(dir.join(name).exists(), "{name}");
    }
    assert_eq!(report["seed"], 1);
    // Headers only, of thousands of sealed entries: nothing of them shows.
    let ran = strongroom(&["inspect", "--records", text(&dir)]).exits(0);
    for kind in ["wal", "table", "manifest", "keystore", "escrow", "current"] {
        assert!(ran.out.contains(kind), "{kind}");
    }
    for canary in ["rocksdb", "activity", "u1592b61d", "src/"] {
        assert!(!ran.out.contains(canary), "{canary}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn data_the_drill_cannot_use_is_named_by_line_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.ndjson");
    std::fs::write(&path, "{\"ts\":1,\"tenant\":\"a\",\"user\":\"u\"}\n{\"ts\":1,\n").unwrap();
    strongroom(&["drill", "--data", text(&path)])
        .exits(2)
        .says("line 2: not JSON");
    std::fs::write(&path, "{\"ts\":1,\"tenant\":\"a\",\"user\":\"u\"}\n").unwrap();
    strongroom(&["drill", "--data", text(&path)])
        .exits(2)
        .says("at least two tenants");
    strongroom(&["drill", "--data", text(&dir.path().join("none"))]).exits(10);
    strongroom(&["drill", "--clients", "26"])
        .exits(2)
        .says("too few for 26 clients");
}

#[test]
fn a_user_whose_name_stands_in_a_file_is_found_and_named() {
    // The nodes' configurations hold this text, as a leak would. So many that on a busy machine, too, the primary dies before
    // the last of them is written.
    let (dir, mut lines) = (tempfile::tempdir().unwrap(), String::new());
    for i in 0..6000 {
        let (tenant, user) = if i % 3 == 0 {
            ("a", "127.0.0.1:0")
        } else {
            ("b", "someone 0815")
        };
        lines.push_str(&format!(
            "{{\"ts\":{i},\"tenant\":\"{tenant}\",\"user\":\"{user}\",\"v\":{i}}}\n"
        ));
    }
    let path = dir.path().join("events.ndjson");
    std::fs::write(&path, lines).unwrap();
    let args = ["drill", "--data", text(&path), "--clients", "3"];
    let ran = strongroom(&args).exits(1).says("canaries were found in clear");
    assert!(
        ran.out.contains("IN CLEAR: a user in") && ran.out.contains("a/node.toml"),
        "{}",
        ran.out
    );
    let kept = ran
        .out
        .lines()
        .find_map(|line| line.strip_prefix("Everything is kept in "))
        .unwrap();
    assert!(std::path::Path::new(kept).join("b/node.toml").exists());
    std::fs::remove_dir_all(kept).unwrap();
    let json = strongroom(&[&args[..], &["-o", "json"]].concat()).exits(1).json();
    assert_eq!(
        (&json["ok"], &json["lost_writes"], &json["restore_equal"]),
        (&false.into(), &0.into(), &true.into())
    );
    assert!(json["plaintext_found"].as_u64().unwrap() >= 4);
    std::fs::remove_dir_all(json["kept"].as_str().unwrap()).unwrap();
}

#[test]
fn an_interrupted_drill_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = command(&["drill"]);
    child.env("TMPDIR", dir.path());
    let mut running = Running(child.spawn().unwrap());
    let node = until("the first node", || {
        let drill = std::fs::read_dir(dir.path()).unwrap().next()?.unwrap().path();
        std::fs::read_to_string(drill.join("b/node.json")).ok()
    });
    let node: serde_json::Value = serde_json::from_str(&node).unwrap();
    let code = running.terminate();
    assert_eq!(code, 130);
    let pid = rustix::process::Pid::from_raw(node["pid"].as_i64().unwrap() as i32).unwrap();
    until("the node to end", || {
        rustix::process::test_kill_process(pid).is_err().then_some(())
    });
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
