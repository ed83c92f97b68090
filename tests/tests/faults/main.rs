//! Real faults done to a real process on a real file system.
//!
//! The simulated disk does far more of them; what is real here are the kernel's errors, the C library, file locks,
//! and a disk that is full. Rows are those of the reliability research, section 2.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a surprise is a failure")]

mod injected;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use strongroom::ErrorKind;
use strongroom_tests::faults::{available, run};
use strongroom_tests::kill;

pub const CHILD: &str = env!("CARGO_BIN_EXE_fault_child");

pub fn child(args: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(CHILD);
    command.arg(args[0]).arg(dir).args(&args[1..]);
    command
}

/// Row 14.
#[test]
fn full_disk_then_writes_end_in_no_space_and_go_on_when_there_is_room_without_a_restart() {
    let mount = |dir: &Path, then: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]);
        command.arg(format!("mount -t tmpfs -o size=6m none \"$0\" && {then}"));
        command.arg(dir).arg(CHILD);
        command
    };
    let dir = tempfile::tempdir().unwrap();
    if !available("mounting a small file system", &mut mount(dir.path(), "true")) {
        return;
    }
    let said = run(&mut mount(dir.path(), "exec \"$1\" full \"$0\""));
    assert!(said.has("end"), "{said:?}");
}

/// Row 21.
#[test]
fn second_opener_is_refused_at_once_and_the_lock_dies_with_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = child(&["hold"], dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(holder.stdout.take().unwrap())
        .read_line(&mut said)
        .unwrap();
    assert_eq!(said, "open\n");
    for _ in 0..3 {
        assert_eq!(
            kill::open(dir.path()).err().map(|e| e.kind()),
            Some(ErrorKind::Locked)
        );
    }
    let second = run(&mut child(&["work", "1", "0"], dir.path()));
    assert_eq!(second.0, ["failed Locked"]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    kill::open(dir.path()).unwrap().close().unwrap();
}

/// Row 16: the process may open so few files that opening the database, or a table later, fails.
#[test]
fn few_file_descriptors_then_errors_are_typed_and_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = [0; kill::THREADS as usize];
    let (mut whole, mut starved) = (0, 0);
    for limit in [5, 8, 10, 12, 14, 17, 20, 40, 200] {
        let first = next.iter().min().unwrap().to_string();
        let mut limited = Command::new("sh");
        limited.args([
            "-c",
            &format!("ulimit -n {limit}; exec \"$0\" \"$@\""),
            CHILD,
            "work",
        ]);
        let said = run(limited.arg(dir.path()).args(["60", &first]));
        for kind in said.after("failed") {
            assert!(
                ["Io", "ReadOnly", "Unknown", "NoSpace", "KeyRefused"].contains(&kind),
                "limit {limit}: {said:?}"
            );
        }
        starved += usize::from(said.after("failed").count() > 0);
        whole += usize::from(said.has("closed") && said.after("failed").count() == 0);
        said.acknowledged(&mut next);
        let engine = kill::open(dir.path()).unwrap_or_else(|e| panic!("limit {limit}: {e:?}"));
        kill::check_batches(&engine, &mut next).unwrap_or_else(|e| panic!("limit {limit}: {e}"));
    }
    assert!(starved > 1 && whole > 1, "{starved} starved, {whole} whole");
}

/// Resources are back at the baseline: descriptors after many openings.
#[test]
fn opened_and_closed_a_hundred_times_then_no_descriptor_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let said = run(&mut child(&["cycles", "100"], dir.path()));
    let counts = said
        .after("descriptors")
        .next()
        .unwrap_or_else(|| panic!("{said:?}"));
    let (before, after) = counts.split_once(' ').unwrap();
    assert_eq!(before, after);
    assert_eq!(said.after("failed").count(), 0, "{said:?}");
}
