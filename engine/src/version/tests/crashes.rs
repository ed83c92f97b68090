//! Crashes at every operation, full disks, writes and syncs that fail.

use std::path::Path;
use std::sync::Arc;

use super::super::current;
use super::super::edit::Edit;
use super::super::referenced_files;
use super::super::testing::{Machine, flushed, visible};
use super::{Look, filled, look};
use crate::error::ErrorKind;
use crate::io::sim::{CrashMode, Fault, Times};
use crate::table::TableMeta;
use crate::types::Lsn;

/// Runs a set of edits until one fails, on a machine that may fail: looks after each that was
/// acknowledged, and the look the next would have had.
fn run(machine: &Machine, close: bool) -> (Vec<Look>, Option<crate::error::Error>) {
    let mut looks = Vec::new();
    let result = (|| {
        let set = machine.create()?;
        looks.push(look(&set));
        let mut live: Vec<TableMeta> = Vec::new();
        for step in 0..4u64 {
            let table = machine.try_table(set.next_number(), &[(1, &format!("k{step}"), step + 1)])?;
            let mut edit = flushed(&[&table], step + 1);
            if step == 2 {
                edit.removed = live.iter().map(|table| (0, table.number)).collect();
                live.clear();
            }
            live.push(table);
            set.log_and_apply(edit)?;
            looks.push(look(&set));
        }
        if close {
            set.close()?;
        }
        Ok(())
    })();
    (looks, result.err())
}

/// Layouts differ in table numbers between runs only after a failure; before it they agree.
fn expected(close: bool) -> (Vec<Look>, u64) {
    let machine = Machine::new();
    let (looks, error) = run(&machine, close);
    assert!(error.is_none(), "{error:?}");
    (looks, machine.fs.ops())
}

#[test]
fn crash_at_any_moment_leaves_the_version_before_or_after() {
    let (all, ops) = expected(true);
    for op in 1..=ops + 1 {
        for half in [false, true] {
            let machine = Machine::new();
            machine.fs.crash_at(op, half);
            let (acked, error) = run(&machine, true);
            assert!(error.is_none() || op <= ops);
            assert_eq!(acked[..], all[..acked.len()]);
            machine.fs.crash_now();
            for (mode, seeds) in [
                (CrashMode::DropAll, 1),
                (CrashMode::KeepAll, 1),
                (CrashMode::KeepRandom, 12),
            ] {
                for seed in 0..seeds {
                    let after = machine.over(machine.fs.crashed_image(mode, seed));
                    let context = format!("crash at {op} (half {half}), {mode:?} seed {seed}");
                    let set = match after.open() {
                        Ok(set) => set,
                        Err(e) => {
                            // Only before the first CURRENT was durable is there none.
                            assert!(acked.is_empty(), "{context}: {e:?}");
                            assert!(
                                after.fs.content(current::path(&after.db)).is_none(),
                                "{context}: {e:?}"
                            );
                            continue;
                        }
                    };
                    let found = look(&set);
                    let next = &all[acked.len().min(all.len() - 1)];
                    assert!(
                        acked.last() == Some(&found) || *next == found,
                        "{context}: {found:?}"
                    );
                    let live: Vec<u64> = set
                        .current()
                        .tables()
                        .map(|(_, table)| table.meta().number)
                        .collect();
                    assert_eq!(after.table_files().len(), live.len(), "{context}");
                    // And the set goes on working.
                    set.log_and_apply(Edit {
                        reach: Some(Lsn(op)),
                        ..Edit::default()
                    })
                    .unwrap();
                }
            }
        }
    }
}

#[test]
fn full_disk_is_not_final_and_leaves_no_files_behind() {
    let (_, ops) = expected(false);
    for op in 1..=ops {
        let machine = Machine::new();
        let Ok(set) = machine.create() else { panic!() };
        let base = machine.fs.ops();
        machine.fs.fail(Fault::disk_full(base + op, Times::Forever));
        let mut acked = look(&set);
        for step in 0..6u64 {
            let table = machine.try_table(set.next_number(), &[(1, &format!("k{step}"), step + 1)]);
            let logged = table.and_then(|table| set.log_and_apply(flushed(&[&table], step + 1)));
            match logged {
                Ok(()) => acked = look(&set),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::NoSpace, "op {op} step {step}: {e:?}");
                    assert_eq!(look(&set), acked);
                }
            }
        }
        assert_eq!(machine.table_files().len(), acked.0.len(), "op {op}");
        let crashed = machine.over(machine.fs.crashed_image(CrashMode::KeepAll, 0));
        assert_eq!(look(&crashed.open().unwrap()), acked, "op {op}");
        machine.fs.clear_faults();
        let table = machine.table(set.next_number(), &[(1, "later", 50)]);
        set.log_and_apply(flushed(&[&table], 50)).unwrap();
        acked = look(&set);
        set.close().unwrap();
        drop(set);
        assert_eq!(look(&machine.open().unwrap()), acked, "op {op}");
    }
}

#[test]
fn failed_write_or_sync_is_final_until_reopened() {
    let (all, ops) = expected(true);
    for op in 1..=ops {
        let machine = Machine::new();
        machine.fs.fail(Fault::io_error(op, Times::Once));
        let Ok(set) = machine.create() else { continue };
        let mut acked = look(&set);
        let mut failed = false;
        for step in 0..4u64 {
            let Ok(table) = machine.try_table(set.next_number(), &[(1, &format!("k{step}"), step + 1)])
            else {
                continue;
            };
            match set.log_and_apply(flushed(&[&table], step + 1)) {
                Ok(()) => {
                    assert!(!failed, "op {op}: acknowledged after a failure");
                    acked = look(&set);
                }
                Err(e) => {
                    let kind = if failed {
                        ErrorKind::ReadOnly
                    } else {
                        ErrorKind::Io
                    };
                    assert_eq!(e.kind(), kind, "op {op} step {step}");
                    failed = true;
                }
            }
            assert_eq!(look(&set), acked);
        }
        if failed {
            assert_eq!(set.close().unwrap_err().kind(), ErrorKind::ReadOnly);
        }
        let reader: Arc<super::super::Version> = set.current();
        assert_eq!(
            visible(&reader, 1, 100).unwrap().len(),
            acked.0.len(),
            "reads go on"
        );
        drop((set, reader));
        for (mode, seed) in [
            (CrashMode::DropAll, 0),
            (CrashMode::KeepAll, 0),
            (CrashMode::KeepRandom, op),
        ] {
            let after = machine.over(machine.fs.crashed_image(mode, seed));
            let found = look(&after.open().unwrap());
            let grew = found.0.len() == acked.0.len() + 1 && failed;
            assert!(found == acked || grew, "op {op} {mode:?}");
        }
    }
    assert!(all.len() == 5);
}

#[test]
fn crash_at_any_moment_of_opening_or_closing_changes_nothing() {
    for close in [false, true] {
        let machine = Machine::new();
        let set = filled(&machine);
        let before = look(&set);
        if close {
            set.close().unwrap();
        }
        drop(set);
        let orphan = machine.table(200, &[(1, "orphan", 1)]);
        assert_eq!(orphan.number, 200);
        let base = machine.fs.fork();
        let reopened = |machine: &Machine| machine.open().and_then(|set| set.close()).map_err(|e| e.kind());
        let ops = {
            let machine = machine.over(base.fork());
            let start = machine.fs.ops();
            assert_eq!(reopened(&machine), Ok(()));
            machine.fs.ops() - start
        };
        for op in 1..=ops {
            let machine = machine.over(base.fork());
            machine.fs.crash_at(machine.fs.ops() + op, op % 2 == 0);
            let _ = reopened(&machine);
            machine.fs.crash_now();
            for (mode, seed) in [(CrashMode::DropAll, 0), (CrashMode::KeepAll, 0)]
                .into_iter()
                .chain((0..12).map(|seed| (CrashMode::KeepRandom, seed)))
            {
                let after = machine.over(machine.fs.crashed_image(mode, seed));
                let context = format!("closed {close}, crash at {op}, {mode:?} seed {seed}");
                let set = after.open().unwrap_or_else(|e| panic!("{context}: {e:?}"));
                assert_eq!(look(&set), before, "{context}");
                assert_eq!(after.manifests().len(), 1, "{context}");
                assert_eq!(after.table_files().len(), before.0.len(), "{context}");
            }
        }
    }
}

#[test]
fn crash_while_a_snapshot_is_written_leaves_none_or_all_of_it() {
    let machine = Machine::new();
    let set = filled(&machine);
    let (version, state) = (set.current(), set.state());
    let copy = Path::new("/copy");
    crate::io::durable::create_dir_synced(&machine.io, &copy.join("tables")).unwrap();
    for (name, _) in referenced_files(&version) {
        crate::io::durable::link_or_copy(&machine.io, &machine.db.join(&name), &copy.join(&name)).unwrap();
    }
    crate::io::durable::sync_dir(&machine.io, &copy.join("tables")).unwrap();
    // Every moment of one run, by a copy of the disk before each operation.
    let moments = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = Arc::clone(&moments);
    machine.fs.probe(move |_, fs| seen.lock().push(fs.clone()));
    set.write_snapshot(copy, &version, &state).unwrap();
    machine.fs.clear_probe();
    let mut moments = std::mem::take(&mut *moments.lock());
    moments.push(machine.fs.fork());
    let (mut none, mut whole) = (0, 0);
    for (at, moment) in moments.iter().enumerate() {
        for seed in 0..20 {
            let mut after = machine.over(moment.crashed_image(CrashMode::KeepRandom, seed));
            after.db = copy.to_path_buf();
            if after.fs.content(current::path(copy)).is_none() {
                none += 1;
                continue;
            }
            let opened = after
                .open()
                .unwrap_or_else(|e| panic!("moment {at} seed {seed}: {e:?}"));
            assert_eq!(
                (look(&opened), opened.opened().clean),
                (look(&set), true),
                "moment {at} seed {seed}"
            );
            whole += 1;
        }
    }
    assert!(none > 0 && whole > 20, "{none} {whole}");
}
