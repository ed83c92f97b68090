//! Disks that lie: a sync that returns Ok and does nothing is found out. It stands for an engine that
//! left that sync out, and for the drives there are.

use strongroom::io::sim::{Op, OpKind};
use strongroom_tests::enumerate::parts;

use super::scope;

#[test]
fn left_out_sync_is_found_out() {
    let planted: [Planted; 10] = [
        ("bytes of the log", |op| is_file(op, ".wal"), "write"),
        ("names of segments", |op| is_dir(op, "wal"), "rotate"),
        ("bytes of tables", |op| is_file(op, ".table"), "flush"),
        ("names of tables", |op| is_dir(op, "tables"), "flush"),
        ("bytes of the manifest", |op| is_file(op, "manifest-"), "flush"),
        ("bytes of CURRENT", |op| is_file(op, "CURRENT"), "recovery"),
        ("names of the database", |op| is_dir(op, "db"), "recovery"),
        (
            "bytes of the keystore's base",
            |op| is_file(op, "base-"),
            "create and delete tenants",
        ),
        (
            "bytes of the keystore's log",
            |op| is_file(op, "log-"),
            "create and delete tenants",
        ),
        (
            "names of the keystore",
            |op| is_dir(op, "keystore"),
            "create and delete tenants",
        ),
    ];
    for (what, lie, scenario) in planted {
        let name = format!("{scenario}: crash");
        let part = parts::named(&name).unwrap();
        let report = part.run_on(&scope(), true, &|fs| fs.lie_about_syncs(lie));
        let Some(failure) = report.failures.first() else {
            panic!("{scenario}: nobody notices that {what} are not synced");
        };
        println!("{what}: found after {} points: {failure}", report.points());
    }
}

/// What is not synced, which syncs lie, and the scenario that must notice.
type Planted = (&'static str, Lie, &'static str);
type Lie = fn(&Op) -> bool;

fn is_file(op: &Op, part: &str) -> bool {
    op.kind == OpKind::Sync
        && op
            .path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().contains(part))
}

fn is_dir(op: &Op, name: &str) -> bool {
    op.kind == OpKind::SyncDir && op.path.file_name().is_some_and(|n| n == name)
}
