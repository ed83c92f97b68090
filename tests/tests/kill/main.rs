//! A real process is killed while it writes: nothing acknowledged is lost, no batch is torn.
//!
//! Twelve kills here; `kill_rounds` is the long form.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a surprise is a failure")]

use std::path::Path;

use strongroom_tests::kill;

#[test]
fn killed_writer_loses_nothing_it_acknowledged() {
    let seed = std::env::var("STRONGROOM_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(0x5eed);
    println!("REPRO: STRONGROOM_SEED={seed} cargo test -p strongroom-tests --test kill");
    let dir = tempfile::tempdir().unwrap();
    let writer = Path::new(env!("CARGO_BIN_EXE_kill_rounds"));
    let summary = kill::rounds(writer, dir.path(), 12, seed).unwrap_or_else(|e| panic!("{e}"));
    println!("{summary:?}");
    assert!(summary.acknowledged > 0, "the writer never got to write");
    assert!(summary.replayed > 0, "no opening had anything to recover");
}
