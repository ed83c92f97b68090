//! Damage that no call reports: on a copy of the machine, which then is asked everything.
//!
//! What it may answer: the right data; an error that says what is damaged and names the file; and, when
//! the very end of a log is damaged, a state that lacks that end, as if the power had cut the write. Never
//! anything else: no wrong value, no hole, no key that is not found for its filter.

use std::path::{Path, PathBuf};

use strongroom::io::sim::{CrashMode, Misdeed, SimFs};
use strongroom::{Error, ErrorKind};

use super::run::{Done, Run, Wrong};
use super::strikes::{self, Purpose, purpose};
use crate::dice::Dice;
use crate::layers::counted;
use crate::oracle::read_all;
use crate::world::{DIR, World};

/// A segment of this length has no records.
const SEGMENT_HEADER_BYTES: usize = 128;

/// What an engine makes of damage.
enum Answer {
    Right,
    Refused(Error),
    LacksAnEnd,
    Wrong(String),
}

impl Run {
    /// The file that numbers choose.
    fn chosen(fs: &SimFs, what: u64, which: u64) -> Option<PathBuf> {
        let wanted = [Purpose::Table, Purpose::Wal, Purpose::Manifest, Purpose::Keystore][what as usize % 4];
        let files = fs.files();
        let of_kind = |path: &&PathBuf| path.starts_with(DIR) && purpose(path) == wanted;
        let paths: Vec<&PathBuf> = files.keys().filter(of_kind).collect();
        let at = which as usize % paths.len().max(1);
        paths.get(at).map(|path| (*path).clone())
    }

    /// Makes a sector of a file unreadable.
    pub fn spoil(&mut self, what: u64, which: u64, sector: u64) {
        if let Some(path) = Run::chosen(&self.world.fs, what, which) {
            let sectors = self
                .world
                .fs
                .content(&path)
                .map_or(1, |c| c.len() as u64 / 512 + 1);
            let start = sector % sectors * 512;
            self.world.fs.spoil(&path, start..start + 512);
        }
    }

    /// Damages a file on a copy of the machine.
    pub fn damage(&mut self, (what, which): (u64, u64), way: u64, seed: u64, live: u64) -> Done {
        if self.world.known().oracle.failures() > 0 {
            return Ok(());
        }
        let mut copy = self.world.fork();
        let closed = live == 2;
        if live > 0 {
            copy.open().map_err(|e| format!("a copy does not open: {e:?}"))?;
        }
        if closed {
            copy.close()
                .map_err(|e| format!("a copy does not close: {e:?}"))?;
        }
        let Some(path) = Run::chosen(&copy.fs, what, which) else {
            return Ok(());
        };
        let Some(done) = harm(&copy.fs, &path, way, seed, closed) else {
            return Ok(());
        };
        self.counters.add(counted::fault(done.0), 1);
        self.counters.add(counted::row(done.1), 1);
        let verified = match live {
            1 => None,
            _ => Some(copy.verified()),
        };
        let answer = ask_thoroughly(&mut copy, live == 1, seed);
        let overlooked = verified.is_some_and(|verified| match (verified, &answer) {
            (Ok(verified), Answer::Refused(_)) => verified.is_healthy(),
            // A torn end is none of the damages; it is counted.
            (Ok(verified), Answer::LacksAnEnd) => verified.is_healthy() && verified.torn_bytes == 0,
            _ => false,
        });
        if overlooked {
            let (what, path) = (done.0, path.display());
            let why = match &answer {
                Answer::Refused(e) => format!("{e:?}"),
                _ => "an end is missing".to_string(),
            };
            return Err(Wrong::Failure(format!(
                "{what} of {path}: verifying finds nothing, and then: {why}"
            )));
        }
        self.accept(answer, &format!("{} of {}", done.0, path.display()), !closed)
    }

    /// Verifies the files of the engine that runs: sound, but for what a fault keeps from being read.
    pub fn verify(&mut self) -> Done {
        let verified = self.world.engine().verify()?;
        if verified.is_healthy() {
            self.counters.add("blocks verified", verified.blocks);
            self.counters.add("values verified", verified.values);
            let stats = self.world.engine().stats();
            let tables: u64 = stats.levels.iter().map(|level| level.tables).sum();
            let counted = (tables, stats.values.files);
            return match counted == (verified.tables, verified.value_files) {
                true => Ok(()),
                false => Err(Wrong::Failure(
                    "statistics and verifying count different files".into(),
                )),
            };
        }
        let text = format!("{:?}", verified.damages);
        if crate::canary::is_in(&text) {
            return Err(Wrong::Failure("a damage carries a name".into()));
        }
        match verified.damages.first().map(|damage| damage.kind) {
            Some(kind) => Err(Wrong::Answer(Error::new(kind, text))),
            None => Err(Wrong::Failure(
                "verifying left something out and says not why".into(),
            )),
        }
    }

    /// A write goes wrong on a copy of the machine.
    pub fn misdo(&mut self, misdeed: u64, after: u64, seed: u64) -> Done {
        if self.world.known().oracle.failures() > 0 {
            return Ok(());
        }
        let mut dice = Dice::new(seed);
        let mut copy = self.world.fork();
        copy.open().map_err(|e| format!("a copy does not open: {e:?}"))?;
        let misdeed = match misdeed {
            0 => Misdeed::LoseWrite,
            1 => Misdeed::MisplaceWrite {
                sectors: 1 + dice.below(4),
            },
            2 => Misdeed::WriteElsewhere,
            3 => Misdeed::FlipInWrite {
                bit: dice.below(1 << 20),
            },
            _ => Misdeed::FlipInRead {
                bit: dice.below(1 << 20),
            },
        };
        let at = match misdeed {
            Misdeed::FlipInRead { .. } => copy.fs.reads() + 1 + after,
            _ => copy.fs.ops() + 1 + after,
        };
        copy.fs.misdo(at, misdeed);
        let worked = work(&mut copy, &mut dice);
        let strikes = copy.fs.take_strikes();
        let what = format!("{misdeed:?}: {strikes:?}");
        let flips = strikes.iter().filter(|s| s.what == "flip in a write").count();
        self.counters.add(counted::row(24), flips as u64);
        strikes::count(&mut self.counters, strikes);
        copy.fs.clear_faults();
        match worked {
            Ok(()) => {}
            Err(e) if names_damage(&e) => return Ok(()),
            Err(e) => return Err(Wrong::Failure(format!("{what}: {e:?}"))),
        }
        let answer = ask_thoroughly(&mut copy, dice.percent(50), seed);
        self.accept(answer, &what, true)
    }

    fn accept(&mut self, answer: Answer, what: &str, end_may_lack: bool) -> Done {
        match answer {
            Answer::Right => self.counters.add("damage that changed nothing", 1),
            Answer::Refused(e) if names_damage(&e) => {
                self.trace.text(&format!("{:?}", e.kind()));
                self.counters.add("damage detected", 1);
            }
            Answer::Refused(e) => {
                return Err(Wrong::Failure(format!(
                    "{what}: an error that names no damage: {e:?}"
                )));
            }
            Answer::LacksAnEnd if end_may_lack => self.counters.add("damage taken for a torn end", 1),
            Answer::LacksAnEnd => {
                self.counters.add(counted::UNDETECTED, 1);
                return Err(Wrong::Failure(format!(
                    "{what}: the end of a database that was closed is missing unseen"
                )));
            }
            Answer::Wrong(text) => {
                self.counters.add(counted::UNDETECTED, 1);
                return Err(Wrong::Failure(format!("{what}: {text}")));
            }
        }
        Ok(())
    }
}

/// Damage is told from other trouble by its kind, and says which file.
fn names_damage(e: &Error) -> bool {
    match e.kind() {
        // A file that is missing is met by the call that looks for it.
        ErrorKind::Corruption | ErrorKind::Unsupported | ErrorKind::Io => e.path().is_some(),
        ErrorKind::KeyRefused | ErrorKind::NotFound => true,
        // A failed read of damaged bytes may have stopped the log or the keystore for writing.
        ErrorKind::ReadOnly => true,
        _ => false,
    }
}

/// Harms a file in one of the ways: which, and its row of the fault list.
///
/// - `closed`: the database was closed in order, so that no end of a log may be missing unseen.
fn harm(fs: &SimFs, path: &Path, way: u64, seed: u64, closed: bool) -> Option<(&'static str, u32)> {
    let mut dice = Dice::new(seed);
    let len = fs.content(path)?.len() as u64;
    let flips = match purpose(path) {
        Purpose::Wal => 25,
        Purpose::Table => 26,
        Purpose::Manifest => 28,
        _ => 29,
    };
    if len == 0 {
        return None;
    }
    let at = dice.below(len) as usize;
    let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 1 << (seed % 8);
    match way {
        0..=3 => fs.corrupt(path, flip).then_some(("flip at rest", flips)),
        4 => {
            let junk = |bytes: &mut Vec<u8>| bytes.extend_from_slice(&[0x5a; 40]);
            fs.corrupt(path, junk).then_some(("file appended to", 31))
        }
        5 => {
            let all = fs.files().into_keys();
            let mut like = all.filter(|other| other.starts_with(DIR) && purpose(other) == purpose(path));
            let other = like.rfind(|other| other != path)?;
            // A newest segment without records is what a power cut leaves of it (docs/format.md, S9).
            let (a, b) = (fs.content(path)?, fs.content(&other)?);
            let newest_gets = if is_last_segment(fs, path) { b } else { a };
            let at_stake = !closed && (is_last_segment(fs, path) || is_last_segment(fs, &other));
            if at_stake && newest_gets.len() <= SEGMENT_HEADER_BYTES {
                return None;
            }
            fs.swap(path, &other).then_some(("files swapped", 32))
        }
        // Whatever is wiped from the end of the newest segment may look like what the power cut.
        _ if !closed && is_last_segment(fs, path) => {
            fs.corrupt(path, flip).then_some(("flip at rest", flips))
        }
        6 => fs
            .corrupt(path, |bytes| bytes.truncate(at))
            .then_some(("file truncated", 31)),
        7 => fs.lose(path).then_some(("file missing", 31)),
        _ => {
            let zeros = |bytes: &mut Vec<u8>| {
                let end = bytes.len().min(at + 64);
                bytes[at..end].fill(0);
            };
            fs.corrupt(path, zeros).then_some(("zeros in a file", flips))
        }
    }
}

fn is_last_segment(fs: &SimFs, path: &Path) -> bool {
    let files = fs.files();
    let of_log = |p: &&PathBuf| p.starts_with(DIR) && purpose(p) == Purpose::Wal;
    files.keys().rfind(of_log).is_some_and(|last| last == path)
}

/// A stretch of work during which the misdeed happens; ends with a kill or a power cut.
fn work(world: &mut World, dice: &mut Dice) -> Result<(), Error> {
    let tenants = world.known().oracle.tenants();
    for n in 0..6 {
        for tenant in &tenants {
            match world.put(tenant, &dice.below(3).to_string(), dice.below(24), 40 + 300 * n) {
                // That one may not.
                Err(e) if e.kind() == ErrorKind::QuotaExceeded => {}
                done => done?,
            }
        }
        match dice.below(4) {
            0 => world.flush()?,
            1 => world.compact()?,
            _ => {}
        }
    }
    world.kill();
    if dice.percent(50) {
        world.fs = world.fs.crashed_image(CrashMode::KeepAll, 0);
    }
    Ok(())
}

/// Opens, reads everything, compacts, reads again, and opens and reads once more.
fn ask_thoroughly(world: &mut World, open: bool, seed: u64) -> Answer {
    if !(open && world.is_open()) {
        world.kill();
        if let Err(e) = world.open() {
            return Answer::Refused(e);
        }
    }
    let mut worst = Answer::Right;
    for step in 0..3 {
        match step {
            1 if seed.is_multiple_of(2) => {
                if let Err(e) = world.compact() {
                    return Answer::Refused(e);
                }
            }
            2 => {
                world.kill();
                if let Err(e) = world.open() {
                    return Answer::Refused(e);
                }
            }
            _ => {}
        }
        let found = match read_all(world.engine()) {
            Ok(found) => found,
            Err(e) => return Answer::Refused(e),
        };
        let known = world.known();
        match known.oracle.find(&found) {
            Some(_) => {}
            None if known.oracle.lacks_only_an_end(&found) => worst = Answer::LacksAnEnd,
            None => return Answer::Wrong(known.oracle.explain(&found)),
        }
    }
    worst
}
