//! System calls made to fail by strace: the k-th of each thread, for many k.

use std::path::Path;
use std::process::Command;

use strongroom_tests::faults::{Said, available, run};
use strongroom_tests::kill;

use super::CHILD;

/// Which calls of each thread fail.
const CALLS: [u32; 12] = [1, 2, 3, 4, 6, 9, 14, 22, 35, 60, 100, 160];
const BATCHES: &str = "25";

/// Runs the child with the k-th call of each thread failing. What it said, and strace's trace.
fn inject(dir: &Path, first: u64, calls: &str, fault: &str) -> (Said, String) {
    let trace = dir.join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "--seccomp-bpf", "-o"]).arg(&trace);
    strace.args(["-e", "trace=fdatasync,fsync,pwrite64,pread64,openat,write"]);
    strace.args(["-e", &format!("inject={calls}:{fault}")]);
    strace
        .arg(CHILD)
        .arg("work")
        .arg(dir.join("home"))
        .args([BATCHES, &first.to_string()]);
    let said = run(&mut strace);
    (said, std::fs::read_to_string(trace).unwrap())
}

/// For every k: the faults that were injected, and the kinds of error seen. Nothing acknowledged may be lost.
fn every(calls: &str, error: &str, expected: &[&str], each: impl Fn(&Said, &str)) {
    if !available(
        "strace",
        Command::new("strace").args(["-f", "--seccomp-bpf", "-o", "/dev/null", "true"]),
    ) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("home")).unwrap();
    let mut next = [0; kill::THREADS as usize];
    let mut injected = 0;
    for k in CALLS {
        let what = format!("{calls} {error} at {k}");
        let first = *next.iter().min().unwrap();
        let (said, trace) = inject(dir.path(), first, calls, &format!("error={error}:when={k}"));
        injected += trace.matches("(INJECTED)").count();
        for kind in said.after("failed") {
            assert!(expected.contains(&kind), "{what}: {kind}: {said:?}");
        }
        if let Some(misread) = said.after("misread").next() {
            assert!(
                calls == "pread64" && misread.contains("Io: "),
                "{what}: {misread}"
            );
        }
        each(&said, &trace);
        said.acknowledged(&mut next);
        let engine = kill::open(&dir.path().join("home")).unwrap_or_else(|e| panic!("{what}: {e:?}"));
        kill::check_batches(&engine, &mut next).unwrap_or_else(|e| panic!("{what}: {e}"));
        engine.close().unwrap();
    }
    println!("{calls} {error}: {injected} injected");
    assert!(
        injected >= CALLS.len() / 2,
        "{calls} {error}: only {injected} injected"
    );
}

/// In the committing thread, nothing may be acknowledged once a sync failed. Lines of a trace begin with the thread.
fn no_acknowledgement_after_a_failed_sync(_: &Said, trace: &str) {
    let Some(main) = trace.split_whitespace().next() else {
        return;
    };
    let mut failed = false;
    for line in trace.lines().filter(|line| line.starts_with(main)) {
        failed |= line.contains("sync(") && line.contains("(INJECTED)");
        assert!(
            !(failed && line.contains("write(1, \"ack ")),
            "acknowledged after a failed sync:\n{line}"
        );
    }
}

/// Row 11.
#[test]
fn sync_of_data_fails_then_nothing_is_acknowledged_after_it_and_reopening_has_all() {
    every(
        "fdatasync",
        "EIO",
        &["Io", "ReadOnly", "Unknown"],
        no_acknowledgement_after_a_failed_sync,
    );
}

/// Row 11, for directories.
#[test]
fn sync_of_a_directory_fails_then_nothing_acknowledged_is_lost() {
    every("fsync", "EIO", &["Io", "ReadOnly", "Unknown"], |_, _| {});
}

/// Row 12.
#[test]
fn write_fails_then_its_batch_is_not_acknowledged_and_reopening_has_all() {
    every("pwrite64", "EIO", &["Io", "ReadOnly", "Unknown"], |_, _| {});
}

/// Row 14, from the kernel's side.
#[test]
fn no_space_at_one_write_then_the_error_says_so_and_writing_goes_on() {
    every(
        "pwrite64",
        "ENOSPC",
        &["NoSpace", "Io", "ReadOnly", "Unknown"],
        |said, _| {
            let failed = said.after("failed").count();
            assert!(
                failed == 0 || said.after("ack").count() > 0 || !said.has("open"),
                "{said:?}"
            );
        },
    );
}

/// Row 13. A key file that cannot be read is `KeyRefused`, with the reason.
#[test]
fn read_fails_then_the_call_fails_and_nothing_is_lost() {
    every(
        "pread64",
        "EIO",
        &["Io", "ReadOnly", "Unknown", "KeyRefused"],
        |_, _| {},
    );
}

/// Row 16, once: the next opening works again. A key file that cannot be opened is `KeyRefused`, with the reason.
#[test]
fn no_descriptor_at_one_opening_then_the_error_is_typed_and_nothing_is_lost() {
    every(
        "openat",
        "EMFILE",
        &["Io", "ReadOnly", "Unknown", "KeyRefused"],
        |_, _| {},
    );
}

/// Row 15: the retry is invisible.
#[test]
fn interrupted_calls_are_invisible() {
    for call in ["pwrite64", "pread64", "fdatasync", "fsync", "openat"] {
        every(call, "EINTR", &[], |said, _| {
            assert!(said.has("closed") || !said.has("open"), "{said:?}");
        });
    }
}
