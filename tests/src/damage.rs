//! A small database of which every bit is flipped, closed in order or killed, and the rule for what may come
//! of damage: the very same data, or an error that names the file. Never other data, missing data, a
//! panic, or a fresh empty database.
//!
//! A database that was killed instead of closed differs in one point: the newest record of its log is
//! vouched for by nothing, so that damage to it is taken for a torn tail, and it is gone. Nothing else is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use strongroom::io::sim::SimFs;
use strongroom::{Error, ErrorKind, Options, restore};

use crate::enumerate::caught;
use crate::oracle::{Content, difference, read_all};
use crate::world::{DIR, Moment, World, name_of_tenant, read_restored};

/// A database and what it holds.
pub struct Fixture {
    /// Disk and keys.
    pub moment: Moment,
    /// Its content.
    pub content: Content,
    /// What it holds without the newest record, if it was killed.
    pub cut: Option<Content>,
}

/// What came of one damage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Came {
    /// The same data as before.
    Same,
    /// An error that names the file.
    Refused,
    /// The newest record of a killed database is gone.
    NewestCut,
}

/// Small files, so that every bit can be tried.
pub fn options() -> Options {
    let mut options = Options::tiny();
    options.segment_bytes = 4 << 10;
    options.wal_keep_bytes = 0;
    // One value of the fixture.
    options.separate_bytes = 64;
    options
}

impl Fixture {
    /// Closed in order.
    pub fn closed() -> Fixture {
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
    pub fn killed() -> Fixture {
        let mut world = World::new(options());
        Fixture::fill(&mut world).unwrap();
        // Vouched for by the newest record, and by nothing else.
        world.put(&name_of_tenant(2), "a", 7, 20).unwrap();
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
        for round in 0..3 {
            for n in 1..=2 {
                for key in [round, 10 + round] {
                    world.put(&name_of_tenant(n), "a", key, 30)?;
                    world.put(&name_of_tenant(n), "b", key, 10)?;
                }
            }
            if round == 0 {
                world.put(&name_of_tenant(1), "a", 20, 70)?;
            }
            if round < 2 {
                world.flush()?;
            }
        }
        world.delete(&name_of_tenant(1), "a", 0)?;
        // The compaction notes how far the log is durable: else all of the newest segment, which begins at the last
        // flush, could pass for a torn tail.
        world.step(1)
    }

    /// Its files.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.moment.fs.files()
    }

    /// Opens and reads everything on a damaged disk.
    pub fn read(&self, fs: &SimFs) -> Result<Content, Error> {
        let mut world = self.moment.world_on(fs.clone());
        world.open()?;
        read_all(world.engine())
    }

    /// The rule, for damage to `path`. `Err` says how it is broken: by what is read, or by what verifying,
    /// which comes first and changes nothing, does not find.
    pub fn judge(&self, fs: &SimFs, path: &Path) -> Result<Came, String> {
        let files = || {
            let all = fs.files().into_iter();
            let content = all.filter(|(path, _)| !path.ends_with("LOCK"));
            content.collect::<BTreeMap<_, _>>()
        };
        let before = files();
        let verified = self.moment.world_on(fs.clone()).verified();
        if files() != before {
            return Err("verifying changed a file".to_string());
        }
        let came = self.judge_reading(fs, path)?;
        match (verified, came) {
            (Ok(verified), Came::Refused) if verified.is_healthy() => {
                Err("verifying finds nothing where opening is refused".to_string())
            }
            (Ok(verified), Came::NewestCut) if verified.torn_bytes == 0 => {
                Err("verifying sees no torn end where opening cuts one".to_string())
            }
            (Ok(verified), _) if crate::canary::is_in(&format!("{verified:?}")) => {
                Err("a damage carries a name".to_string())
            }
            (Err(e), Came::Same) => Err(format!("verifying ends where opening does not: {e:?}")),
            _ => Ok(came),
        }
    }

    /// Whether verifying names a file.
    pub fn verifying_names(&self, fs: &SimFs, path: &Path) -> bool {
        match self.moment.world_on(fs.clone()).verified() {
            Ok(verified) => {
                let mut files = verified.damages.iter().filter_map(|damage| damage.file.as_ref());
                files.any(|file| file == path)
            }
            Err(e) => e.path() == Some(path),
        }
    }

    fn judge_reading(&self, fs: &SimFs, path: &Path) -> Result<Came, String> {
        match self.read(fs) {
            Ok(found) if found == self.content => Ok(Came::Same),
            Ok(found) if self.cut.as_ref() == Some(&found) && is_log(path) => Ok(Came::NewestCut),
            Ok(found) => {
                let mut text = "reads other data:".to_string();
                difference(&self.content, &found, &mut text);
                Err(text)
            }
            Err(e) => {
                use ErrorKind as K;
                let typed = matches!(
                    e.kind(),
                    K::Corruption | K::Unsupported | K::KeyRefused | K::NotFound
                );
                if !typed {
                    return Err(format!("an error of the wrong kind: {e:?}"));
                }
                if e.path().is_none() {
                    return Err(format!("an error that names no file: {e:?}"));
                }
                if crate::canary::is_in(&format!("{e:?}")) {
                    return Err("an error carries a name".to_string());
                }
                Ok(Came::Refused)
            }
        }
    }

    /// One bit.
    fn flip(&self, path: &Path, bit: usize) -> Result<Came, String> {
        let fs = self.moment.fs.fork();
        fs.corrupt(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let mut came = Ok(Came::Same);
        let judged = caught(|| {
            came = self.judge(&fs, path);
            Ok(())
        });
        judged
            .and(came)
            .map_err(|why| format!("{}: bit {bit} flipped: {why}", path.display()))
    }
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "wal")
}

/// What kind of file it is: its place in the database, and its name without numbers.
pub fn kind_of(path: &Path) -> String {
    let inside = path.strip_prefix(DIR).unwrap_or(path);
    let name = inside
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let stem: String = name
        .split(['-', '.'])
        .filter(|part| !part.chars().all(|c| c.is_ascii_hexdigit()))
        .collect();
    inside.with_file_name(stem).display().to_string()
}

/// What came of the bits of each kind of file.
#[derive(Clone, Default, Debug)]
pub struct Flips {
    /// By kind of file and outcome.
    pub came: BTreeMap<(String, Came), u64>,
    /// Where the rule is broken.
    pub broken: Vec<String>,
}

impl Flips {
    fn merge(&mut self, other: Flips) {
        for (key, count) in other.came {
            *self.came.entry(key).or_default() += count;
        }
        self.broken.extend(other.broken);
    }

    /// Bits tried.
    pub fn bits(&self) -> u64 {
        self.came.values().sum()
    }

    /// One line for each kind of file.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<24}{:>10}{:>12}{:>12}{:>14}\n",
            "kind of file", "bits", "same data", "typed error", "newest cut"
        );
        let mut kinds: Vec<&String> = self.came.keys().map(|(kind, _)| kind).collect();
        kinds.dedup();
        for kind in kinds {
            let of = |came| self.came.get(&(kind.clone(), came)).copied().unwrap_or(0);
            let (same, refused, cut) = (of(Came::Same), of(Came::Refused), of(Came::NewestCut));
            let bits = same + refused + cut;
            text += &format!("{kind:<24}{bits:>10}{same:>12}{refused:>12}{cut:>14}\n");
        }
        text
    }
}

/// Flips every bit of every file, one at a time, on two threads. Of the keystore's reserve, which holds
/// nothing but room, a sample will do.
pub fn flip_every_bit(fixture: &Fixture) -> Flips {
    let files: Vec<(PathBuf, Vec<u8>)> = fixture.files().into_iter().collect();
    let half = |half: usize| {
        let mut flips = Flips::default();
        for (path, bytes) in &files {
            let step = match path.ends_with("keystore/reserve") {
                true => 8009,
                false => 1,
            };
            let bits = (0..bytes.len() * 8).step_by(step);
            for bit in bits.filter(|bit| bit % 2 == half) {
                match fixture.flip(path, bit) {
                    Ok(came) => *flips.came.entry((kind_of(path), came)).or_default() += 1,
                    Err(why) => flips.broken.push(why),
                }
            }
        }
        flips
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        let mut flips = half(0);
        flips.merge(other.join().expect("panics are caught inside"));
        flips
    })
}

/// Bits of the log that [`sample_of_the_log`] flips at most.
pub const LOG_SAMPLE: u64 = 3000;

/// Flips one bit in so many of the logs of both databases; how many until the rule was broken, and how.
pub fn sample_of_the_log() -> Option<(u64, String)> {
    let mut tried = 0;
    for fixture in [Fixture::killed(), Fixture::closed()] {
        for (path, bytes) in fixture.files().into_iter().filter(|(path, _)| is_log(path)) {
            let bits = bytes.len() * 8;
            for bit in (0..bits).step_by(61) {
                tried += 1;
                if let Err(why) = fixture.flip(&path, bit) {
                    return Some((tried, why));
                }
            }
        }
    }
    assert!(tried <= LOG_SAMPLE, "{tried} bits");
    None
}

/// Flips bits of the log in a copy whose newest records are in no table, one in so many, and restores it;
/// how many until something else was restored, and what.
pub fn sample_of_a_copys_log() -> Option<(u64, String)> {
    let mut world = World::new(options());
    Fixture::fill(&mut world).unwrap();
    world.checkpoint("/srv/copy").unwrap();
    world.close().unwrap();
    let known = world.known();
    let copy = known.copies.last().expect("just taken");
    let files = world.fs.files();
    let logs = files
        .iter()
        .filter(|(path, _)| path.starts_with(&copy.path) && is_log(path));
    let mut tried = 0;
    for (path, bytes) in logs {
        for bit in (0..bytes.len() * 8).step_by(61) {
            tried += 1;
            let fs = world.fs.fork();
            fs.corrupt(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let (keys, to) = (crate::keys::SimKeys::new(), Path::new("/srv/new"));
            let io = fs.io(crate::dice::fresh_seed());
            let found = restore(&copy.path, &copy.escrow, &world.secret, to, keys.provider(), &io)
                .and_then(|_| read_restored(to, &keys, fs.io(crate::dice::fresh_seed()), &world.options));
            match found {
                Ok(found) if found == copy.content => {}
                Err(e) if e.kind() == ErrorKind::Corruption => {}
                Ok(_) => return Some((tried, format!("bit {bit} flipped: restores other data"))),
                Err(e) => return Some((tried, format!("bit {bit} flipped: {e:?}"))),
            }
        }
    }
    assert!(tried <= LOG_SAMPLE, "{tried} bits");
    None
}

/// `sim damage`: flips every bit of both databases and prints what came of it.
pub fn command(_: &[String]) -> Result<(), String> {
    let mut broken = 0;
    for (name, fixture) in [("closed", Fixture::closed()), ("killed", Fixture::killed())] {
        let flips = flip_every_bit(&fixture);
        println!(
            "a database that was {name}, {} bits\n{}",
            flips.bits(),
            flips.table()
        );
        flips.broken.iter().for_each(|why| eprintln!("{why}"));
        broken += flips.broken.len();
    }
    match broken {
        0 => Ok(()),
        n => Err(format!("{n} flips break the rule")),
    }
}
