//! Damage to a closed database is noticed: whatever is done to any file, opening it and reading all of
//! it gives the very same data, or an error that names the file. Never other data, missing data, a
//! panic, or a fresh empty database.
//!
//! A database that was killed instead of closed differs in one point: the newest record of its log is
//! vouched for by nothing, so that damage to it is taken for a torn tail, and it is gone. Nothing else is.
//!
//! Tried on a small database with two tenants, several tables, a WAL and a keystore: every bit of
//! every file, every file cut to nothing, to half and by one byte, extended, removed, and exchanged
//! with every other of its kind. And the worked examples of docs/format.md are what the engine reads.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a surprise is a failure")]

mod examples;
mod forged;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use strongroom::io::sim::SimFs;
use strongroom::{Error, ErrorKind, Options};
use strongroom_tests::oracle::{Content, read_all};
use strongroom_tests::world::{Moment, World, name_of_tenant};

/// A database and what it holds.
struct Fixture {
    moment: Moment,
    content: Content,
    /// What it holds without the newest record, if it was killed.
    cut: Option<Content>,
}

impl Fixture {
    /// Closed in order.
    fn new() -> Fixture {
        let mut world = World::new(options());
        Fixture::fill(&mut world).unwrap();
        world.close().unwrap();
        let content = world.visible();
        assert!(content.values().all(|spaces| spaces.len() == 2));
        Fixture {
            moment: world.moment("closed"),
            content,
            cut: None,
        }
    }

    /// The same, killed.
    fn killed() -> Fixture {
        let mut world = World::new(options());
        Fixture::fill(&mut world).unwrap();
        let cut = Some(world.visible());
        world.put(&name_of_tenant(1), "a", 7, 20).unwrap();
        let content = world.visible();
        world.kill();
        Fixture {
            moment: world.moment("killed"),
            content,
            cut,
        }
    }

    fn fill(world: &mut World) -> Result<(), Error> {
        world.open()?;
        for n in 1..=2 {
            world.create_tenant(&name_of_tenant(n))?;
        }
        for round in 0..2 {
            for n in 1..=2 {
                world.put(&name_of_tenant(n), "a", round, 30)?;
                world.put(&name_of_tenant(n), "b", round, 10)?;
            }
            if round == 0 {
                world.flush()?;
            }
        }
        world.delete(&name_of_tenant(1), "a", 0)
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.moment.fs.files()
    }

    /// Opens and reads everything on a damaged disk.
    fn read(&self, fs: &SimFs) -> Result<Content, Error> {
        let mut world = self.moment.world_on(fs.clone());
        world.open()?;
        read_all(world.engine())
    }

    /// The rule. Returns whether the damage was noticed.
    fn check(&self, fs: &SimFs, path: &Path, what: &str) -> bool {
        match self.read(fs) {
            Ok(found) if found == self.content => false,
            Ok(found) if self.cut.as_ref() == Some(&found) => {
                let newest = path.extension().is_some_and(|e| e == "wal");
                assert!(newest, "{}: {what}: a record of the log is gone", path.display());
                true
            }
            Ok(found) => {
                let mut text = String::new();
                strongroom_tests::oracle::difference(&self.content, &found, &mut text);
                panic!("{}: {what}: reads other data:{text}", path.display());
            }
            Err(e) => {
                let kind = e.kind();
                let typed = matches!(
                    kind,
                    ErrorKind::Corruption
                        | ErrorKind::Unsupported
                        | ErrorKind::KeyRefused
                        | ErrorKind::NotFound
                );
                assert!(
                    typed,
                    "{}: {what}: an error of the wrong kind: {e:?}",
                    path.display()
                );
                assert!(
                    e.path().is_some(),
                    "{}: {what}: an error that names no file: {e:?}",
                    path.display()
                );
                assert!(
                    !strongroom_tests::canary::is_in(&format!("{e:?}")),
                    "{e:?} carries a name"
                );
                true
            }
        }
    }
}

fn options() -> Options {
    let mut options = Options::tiny();
    // Small files, so that every bit can be tried.
    options.segment_bytes = 4 << 10;
    options.wal_keep_bytes = 0;
    options
}

/// What kind of file it is: its directory, and its name without numbers.
fn kind_of(path: &Path) -> String {
    let name: String = path.file_name().unwrap().to_string_lossy().into_owned();
    let stem: String = name
        .split(['-', '.'])
        .filter(|part| !part.chars().all(|c| c.is_ascii_hexdigit()))
        .collect();
    format!("{}/{stem}", path.parent().unwrap().display())
}

#[test]
fn undamaged_fixture_reads_as_written() {
    let fixture = Fixture::new();
    assert_eq!(fixture.read(&fixture.moment.fs.fork()).unwrap(), fixture.content);
    for (path, bytes) in fixture.files() {
        println!("{:>6} {}", bytes.len(), path.display());
    }
}

#[test]
fn every_flipped_bit_is_noticed_or_harmless() {
    flip_every_bit(&Fixture::new());
}

#[test]
fn every_flipped_bit_of_a_killed_database_is_noticed_or_cuts_the_newest_record() {
    flip_every_bit(&Fixture::killed());
}

fn flip_every_bit(fixture: &Fixture) {
    let files: Vec<(PathBuf, Vec<u8>)> = fixture.files().into_iter().collect();
    // Two threads: the machine of the suite has two cores.
    std::thread::scope(|scope| {
        for half in 0..2 {
            let files = &files;
            scope.spawn(move || {
                for (path, bytes) in files {
                    let mut noticed = 0;
                    // The keystore's reserve holds nothing but room: a sample will do.
                    let step = if path.ends_with("keystore/reserve") {
                        8009
                    } else {
                        1
                    };
                    let bits = (0..bytes.len() * 8).step_by(step).filter(|bit| bit % 2 == half);
                    for bit in bits {
                        let fs = fixture.moment.fs.fork();
                        fs.corrupt(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
                        let what = format!("bit {} of byte {} flipped", bit % 8, bit / 8);
                        noticed += usize::from(fixture.check(&fs, path, &what));
                    }
                    println!(
                        "{}: {noticed} of {} flips noticed",
                        path.display(),
                        bytes.len() * 4
                    );
                }
            });
        }
    });
}

#[test]
fn every_cut_or_extended_file_is_noticed_or_harmless() {
    for fixture in [Fixture::new(), Fixture::killed()] {
        for (path, bytes) in fixture.files() {
            // Closed, any length is noticed; killed, the end of the newest segment may be torn.
            let lengths = [0, 1, 64, 127, 128, bytes.len() / 2, bytes.len().saturating_sub(1)];
            for len in lengths.into_iter().filter(|len| *len < bytes.len()) {
                let fs = fixture.moment.fs.fork();
                fs.corrupt(&path, |bytes| bytes.truncate(len));
                fixture.check(&fs, &path, &format!("cut from {} to {len} bytes", bytes.len()));
            }
            for more in [1, 4096] {
                let fs = fixture.moment.fs.fork();
                fs.corrupt(&path, |bytes| bytes.resize(bytes.len() + more, 0));
                fixture.check(&fs, &path, &format!("{more} zero bytes appended"));
            }
        }
    }
}

#[test]
fn every_missing_file_is_noticed_or_harmless() {
    for fixture in [Fixture::new(), Fixture::killed()] {
        for path in fixture.files().into_keys() {
            let fs = fixture.moment.fs.fork();
            assert!(fs.lose(&path));
            fixture.check(&fs, &path, "removed");
        }
    }
}

#[test]
fn every_exchange_of_files_of_one_kind_is_noticed_or_harmless() {
    let fixture = Fixture::new();
    let files: Vec<PathBuf> = fixture.files().into_keys().collect();
    for (i, a) in files.iter().enumerate() {
        for b in files[i + 1..].iter().filter(|b| kind_of(b) == kind_of(a)) {
            let fs = fixture.moment.fs.fork();
            assert!(fs.swap(a, b));
            fixture.check(&fs, a, &format!("exchanged with {}", b.display()));
            let fs = fixture.moment.fs.fork();
            let content = fs.content(b).unwrap();
            fs.corrupt(a, |bytes| *bytes = content);
            fixture.check(&fs, a, &format!("replaced by a copy of {}", b.display()));
        }
    }
}

/// A file of the same name and kind from another database, or from this one's past, is no substitute.
#[test]
fn every_file_of_another_database_is_noticed_or_harmless() {
    let (fixture, other) = (Fixture::new(), Fixture::new());
    for (path, bytes) in other.files() {
        let fs = fixture.moment.fs.fork();
        if fs.corrupt(&path, |own| *own = bytes) {
            fixture.check(&fs, &path, "replaced by that of another database");
        }
    }
}
