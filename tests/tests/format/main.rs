//! Damage to a closed database is noticed: whatever is done to any file, opening it and reading all of
//! it gives the very same data, or an error that names the file. Never other data, missing data, a
//! panic, or a fresh empty database.
//!
//! A database that was killed instead of closed differs in one point: the newest record of its log is
//! vouched for by nothing, so that damage to it is taken for a torn tail, and it is gone. Nothing else is.
//!
//! Tried on a small database with two tenants, several tables, a value file, a WAL and a keystore: every bit of
//! every file, every file cut to nothing, to half and by one byte, extended, removed, and exchanged
//! with every other of its kind. And the worked examples of docs/format.md are what the engine reads.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a surprise is a failure")]

mod examples;
mod forged;

use std::path::{Path, PathBuf};

use strongroom::io::sim::SimFs;
use strongroom_tests::damage::{Came, Fixture, flip_every_bit, kind_of};

/// Panics where the rule is broken.
fn check(fixture: &Fixture, fs: &SimFs, path: &Path, what: &str) -> Came {
    let judged = fixture.judge(fs, path);
    judged.unwrap_or_else(|why| panic!("{}: {what}: {why}", path.display()))
}

#[test]
fn undamaged_fixture_reads_as_written() {
    let fixture = Fixture::closed();
    assert_eq!(fixture.read(&fixture.moment.fs.fork()).unwrap(), fixture.content);
    for (path, bytes) in fixture.files() {
        println!("{:>6} {}", bytes.len(), path.display());
    }
}

#[test]
fn every_flipped_bit_is_noticed_or_harmless() {
    flip(&Fixture::closed());
}

#[test]
fn every_flipped_bit_of_a_killed_database_is_noticed_or_cuts_the_newest_record() {
    flip(&Fixture::killed());
}

fn flip(fixture: &Fixture) {
    let flips = flip_every_bit(fixture);
    println!("{}", flips.table());
    assert!(flips.broken.is_empty(), "{}", flips.broken.join("\n"));
    // A fixture with something of everything in it: of the reserve, which holds nothing, few bits are counted.
    assert!(flips.bits() > 40_000, "{} bits", flips.bits());
}

#[test]
fn every_cut_or_extended_file_is_noticed_or_harmless() {
    for fixture in [Fixture::closed(), Fixture::killed()] {
        for (path, bytes) in fixture.files() {
            // Closed, any length is noticed; killed, the end of the newest segment may be torn.
            let lengths = [0, 1, 64, 127, 128, bytes.len() / 2, bytes.len().saturating_sub(1)];
            for len in lengths.into_iter().filter(|len| *len < bytes.len()) {
                let fs = fixture.moment.fs.fork();
                fs.corrupt(&path, |bytes| bytes.truncate(len));
                check(
                    &fixture,
                    &fs,
                    &path,
                    &format!("cut from {} to {len} bytes", bytes.len()),
                );
            }
            for more in [1, 4096] {
                let fs = fixture.moment.fs.fork();
                fs.corrupt(&path, |bytes| bytes.resize(bytes.len() + more, 0));
                check(&fixture, &fs, &path, &format!("{more} zero bytes appended"));
            }
        }
    }
}

#[test]
fn every_missing_file_is_noticed_or_harmless() {
    for fixture in [Fixture::closed(), Fixture::killed()] {
        for path in fixture.files().into_keys() {
            let fs = fixture.moment.fs.fork();
            assert!(fs.lose(&path));
            check(&fixture, &fs, &path, "removed");
        }
    }
}

#[test]
fn every_exchange_of_files_of_one_kind_is_noticed_or_harmless() {
    let fixture = Fixture::closed();
    let files: Vec<PathBuf> = fixture.files().into_keys().collect();
    for (i, a) in files.iter().enumerate() {
        for b in files[i + 1..].iter().filter(|b| kind_of(b) == kind_of(a)) {
            let fs = fixture.moment.fs.fork();
            assert!(fs.swap(a, b));
            check(&fixture, &fs, a, &format!("exchanged with {}", b.display()));
            let fs = fixture.moment.fs.fork();
            let content = fs.content(b).unwrap();
            fs.corrupt(a, |bytes| *bytes = content);
            check(
                &fixture,
                &fs,
                a,
                &format!("replaced by a copy of {}", b.display()),
            );
        }
    }
}

/// A file of the same name and kind from another database, or from this one's past, is no substitute.
#[test]
fn every_file_of_another_database_is_noticed_or_harmless() {
    let (fixture, other) = (Fixture::closed(), Fixture::closed());
    for (path, bytes) in other.files() {
        let fs = fixture.moment.fs.fork();
        if fs.corrupt(&path, |own| *own = bytes) {
            check(&fixture, &fs, &path, "replaced by that of another database");
        }
    }
}

/// Of every file that opening would refuse: which one it is, not only that there is one.
#[test]
fn flipped_bit_in_any_kind_of_file_then_verifying_names_that_file() {
    let fixture = Fixture::closed();
    let mut kinds = std::collections::BTreeSet::new();
    for (path, bytes) in fixture.files() {
        if path.ends_with("keystore/reserve") || path.ends_with("LOCK") {
            continue; // they hold nothing
        }
        kinds.insert(kind_of(&path));
        for bit in (0..bytes.len() * 8).step_by(101) {
            let fs = fixture.moment.fs.fork();
            fs.corrupt(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            assert!(
                fixture.verifying_names(&fs, &path),
                "{}: bit {bit}",
                path.display()
            );
        }
    }
    assert_eq!(
        kinds.len(),
        6,
        "CURRENT, manifest, keystore base, table, value file, log: {kinds:?}"
    );
}
