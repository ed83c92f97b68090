//! A process that writes until it is killed, and what must be left of it.
//!
//! The child opens the database, and each of its threads commits numbered batches to one tenant:
//! three keys over two keyspaces, half of the rounds at `Local`, half at `Buffered`, which promises no
//! less when only the process dies. After each commit it prints the number. One more thread makes
//! tenants and deletes them ([`churn`]). The parent kills the child (SIGKILL) at a random moment,
//! reopens, and checks: every printed batch is there, every batch that is there is whole, and the batches
//! of a thread have no gap: they are those up to the last printed one, and at most one more.
//!
//! The disk is the real one, and loses nothing here: that is the simulator's part. What is real are
//! threads, signals, locks and files.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use strongroom::keys::KeyFile;
use strongroom::{Background, Durability, Engine, ErrorKind, Keyspace, Options, Tenant, TenantOptions};

use crate::dice::Dice;

pub mod churn;

use churn::Churn;

/// Threads of the child; two write to each tenant.
pub const THREADS: u64 = 4;
/// Argument that chooses the weaker durability.
const BUFFERED: &str = "buffered";
/// First argument that makes a binary the child.
pub const WRITER: &str = "writer";

/// What many rounds did.
#[derive(Clone, Default, Debug)]
pub struct Summary {
    /// Kills.
    pub rounds: u64,
    /// Batches whose number was printed.
    pub acknowledged: u64,
    /// Batches found beyond those: committed, killed before printing.
    pub unprinted: u64,
    /// Openings that replayed at least one record.
    pub replayed: u64,
    /// Openings that cut a torn tail.
    pub cut: u64,
    /// Kills before the first batch.
    pub early: u64,
    /// Rounds in which batches were `Buffered`.
    pub buffered: u64,
    /// Tenants whose deletion was reported.
    pub deleted: u64,
    /// Longest reopening.
    pub slowest_open: Duration,
}

/// Small, with its own background thread: flushes and compactions are always under way.
fn options() -> Options {
    let mut options = Options::tiny();
    options.background = Background::Thread;
    options
}

/// Opens the database of `dir`, made if missing.
pub fn open(dir: &Path) -> Result<Engine, strongroom::Error> {
    let path = dir.join("key");
    let key = if path.exists() {
        KeyFile::open(&path)?
    } else {
        KeyFile::create(&path)?
    };
    Engine::builder(dir.join("db"))
        .keys(key)
        .options(options())
        .open()
}

fn tenant_of(thread: u64) -> String {
    format!("tenant-{}", thread / 2)
}

fn keys_of(thread: u64, batch: u64) -> [String; 3] {
    ["a", "b", "c"].map(|part| format!("{thread}/{batch:08}/{part}"))
}

fn value_of(thread: u64, batch: u64) -> Vec<u8> {
    let mut dice = Dice::new(thread << 40 ^ batch);
    let len = 20 + dice.below(400) as usize;
    (0..len).map(|_| dice.roll() as u8).collect()
}

/// The child: `writer <dir> <buffered|local> <first tenant to make> <first batch of each thread>`. Returns
/// only if something fails.
pub fn write_for_ever(args: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [dir, durability, first_tenant, first @ ..] = args else {
        return Err("writer needs more arguments".into());
    };
    let durability = match durability.as_str() {
        BUFFERED => Durability::Buffered,
        _ => Durability::Local,
    };
    let first: Vec<u64> = first.iter().map(|a| a.parse()).collect::<Result<_, _>>()?;
    let first_tenant = first_tenant.parse()?;
    let engine = open(Path::new(dir))?;
    create_tenants(&engine)?;
    say("open");
    let failed = std::thread::scope(|scope| {
        let churning = scope.spawn(|| churn::for_ever(&engine, first_tenant, say));
        let mut failed = write_on_all_threads(&engine, &first, durability, |thread, number| {
            say(&format!("ack {thread} {number}"));
            true
        });
        failed.extend(churning.join().expect("the churning thread panicked").err());
        failed
    });
    failed.iter().for_each(|e| println!("failed {e:?}"));
    Ok(())
}

/// One write call for each line: a kill leaves whole lines or none.
fn say(line: &str) {
    std::io::stdout()
        .write_all(format!("{line}\n").as_bytes())
        .expect("the parent reads");
}

/// The tenants the threads write to; fine if they exist.
pub fn create_tenants(engine: &Engine) -> strongroom::Result<()> {
    for thread in (0..THREADS).step_by(2) {
        match engine.create_tenant(&tenant_of(thread), TenantOptions::default()) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Writes batches on [`THREADS`] threads, each from its number in `first` on, telling `acknowledged` of
/// each (thread, number) until it returns false; returns the errors that ended threads.
pub fn write_on_all_threads(
    engine: &Engine,
    first: &[u64],
    durability: Durability,
    acknowledged: impl Fn(u64, u64) -> bool + Sync,
) -> Vec<strongroom::Error> {
    let acknowledged = &acknowledged;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .zip(first)
            .map(|(thread, first)| {
                scope.spawn(move || write_batches(engine, thread, *first, durability, acknowledged))
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|t| t.join().expect("a writer panicked").err())
            .collect()
    })
}

fn write_batches(
    engine: &Engine,
    thread: u64,
    first: u64,
    durability: Durability,
    acknowledged: impl Fn(u64, u64) -> bool,
) -> strongroom::Result<()> {
    let series = Series::open(engine, thread)?;
    for number in first.. {
        series.commit(number, durability)?;
        if !acknowledged(thread, number) {
            break;
        }
    }
    Ok(())
}

/// The batches of one thread.
pub struct Series {
    thread: u64,
    tenant: Tenant,
    spaces: [Keyspace; 2],
}

impl Series {
    /// Their tenant must exist.
    pub fn open(engine: &Engine, thread: u64) -> strongroom::Result<Series> {
        let tenant = engine.tenant(&tenant_of(thread))?;
        let spaces = [tenant.keyspace("one")?, tenant.keyspace("two")?];
        Ok(Series {
            thread,
            tenant,
            spaces,
        })
    }

    /// Commits one; fine to repeat.
    pub fn commit(&self, number: u64, durability: Durability) -> strongroom::Result<()> {
        let value = value_of(self.thread, number);
        let [a, b, c] = keys_of(self.thread, number);
        let batch = self.tenant.batch();
        let batch = batch
            .put(&self.spaces[0], a, &value)
            .put(&self.spaces[1], b, &value);
        batch
            .put(&self.spaces[0], c, &value)
            .durability(durability)
            .commit()?;
        Ok(())
    }
}

/// Runs `rounds` kills of `writer` (a program that calls [`write_for_ever`] when its first argument
/// is [`WRITER`]) in the empty directory `dir`. `Err` names the round and what is wrong.
pub fn rounds(writer: &Path, dir: &Path, rounds: u64, seed: u64) -> Result<Summary, String> {
    let mut dice = Dice::new(seed);
    let mut summary = Summary::default();
    let mut next = [0u64; THREADS as usize];
    let mut churn = Churn::default();
    for round in 0..rounds {
        let delay = Duration::from_micros(match dice.below(4) {
            0 => dice.below(3_000),
            1 => dice.below(30_000),
            _ => dice.below(250_000),
        });
        // Now and then the kill comes before the database is open: recovery itself is interrupted.
        let early = dice.percent(15);
        let buffered = dice.percent(50);
        let args = [
            if buffered { BUFFERED } else { "local" }.to_owned(),
            churn.next().to_string(),
        ];
        let args = args
            .into_iter()
            .chain(next.iter().map(u64::to_string))
            .collect::<Vec<_>>();
        let printed = one_round(writer, dir, &args, &mut churn, delay, early)
            .map_err(|e| format!("round {round}: {e}"))?;
        summary.buffered += u64::from(buffered);
        for (thread, number) in printed.iter().copied() {
            next[thread as usize] = next[thread as usize].max(number + 1);
        }
        summary.rounds += 1;
        summary.acknowledged += printed.len() as u64;
        summary.early += u64::from(printed.is_empty());
        verify(dir, &mut next, &mut churn, &mut summary)
            .map_err(|e| format!("round {round}, seed {seed:#x}: {e}"))?;
    }
    summary.deleted = churn.deleted;
    Ok(summary)
}

/// Starts the child, kills it, and returns what it printed.
fn one_round(
    writer: &Path,
    dir: &Path,
    args: &[String],
    churn: &mut Churn,
    delay: Duration,
    early: bool,
) -> Result<Vec<(u64, u64)>, String> {
    let mut child = Command::new(writer)
        .arg(WRITER)
        .arg(dir)
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("starting {}: {e}", writer.display()))?;
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    if !early {
        match lines.next() {
            Some(Ok(line)) if line == "open" => {}
            other => return Err(format!("the writer did not open the database: {other:?}")),
        }
    }
    let reader = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<String>>());
    // A moment by chance, not an event: that is where a kill should fall.
    std::thread::sleep(delay);
    child.kill().map_err(|e| format!("killing: {e}"))?;
    child.wait().map_err(|e| format!("waiting: {e}"))?;
    let mut printed = Vec::new();
    for line in reader.join().expect("the reader does not panic") {
        if churn.hears(&line) {
            continue;
        }
        let mut words = line.split(' ');
        match (
            words.next(),
            words.next().map(str::parse),
            words.next().map(str::parse),
        ) {
            (Some("ack"), Some(Ok(thread)), Some(Ok(number))) => printed.push((thread, number)),
            (Some("open"), ..) => {}
            _ => return Err(format!("the writer said: {line}")),
        }
    }
    Ok(printed)
}

/// Checks everything and moves `next` past what is there.
fn verify(dir: &Path, next: &mut [u64], churn: &mut Churn, summary: &mut Summary) -> Result<(), String> {
    if !dir.join("db").exists() {
        return Ok(());
    }
    let before = Instant::now();
    let engine = open(dir).map_err(|e| format!("does not open: {e:?}"))?;
    summary.slowest_open = summary.slowest_open.max(before.elapsed());
    summary.replayed += u64::from(engine.recovery().records > 0);
    summary.cut += u64::from(engine.recovery().cut_bytes > 0);
    summary.unprinted += check_batches(&engine, next)?;
    churn.check(&engine)?;
    // Half of the time the next child finds a closed database, else one that was killed once more.
    if summary.rounds.is_multiple_of(2) {
        engine.close().map_err(|e| format!("does not close: {e:?}"))
    } else {
        Ok(())
    }
}

/// Checks that each thread's batches are whole, without a gap, at least those below its number in
/// `next` and at most one more; moves `next` past them. Returns how many there were beyond `next`.
pub fn check_batches(engine: &Engine, next: &mut [u64]) -> Result<u64, String> {
    let mut beyond = 0;
    for thread in 0..THREADS {
        let found = batches_of(engine, thread).map_err(|e| format!("thread {thread}: {e}"))?;
        let acknowledged = next[thread as usize];
        if found < acknowledged {
            return Err(format!(
                "thread {thread}: {acknowledged} batches acknowledged, {found} found"
            ));
        }
        if found > acknowledged + 1 {
            return Err(format!(
                "thread {thread}: {found} batches found, but only {acknowledged} were reported"
            ));
        }
        beyond += found - acknowledged;
        next[thread as usize] = found;
    }
    Ok(beyond)
}

/// Number of batches of a thread, all whole and without a gap.
fn batches_of(engine: &Engine, thread: u64) -> Result<u64, String> {
    let missing = |e: &strongroom::Error| e.kind() == ErrorKind::NotFound;
    let text = |e: strongroom::Error| format!("{e:?}");
    let tenant = match engine.tenant(&tenant_of(thread)) {
        Err(e) if missing(&e) => return Ok(0),
        other => other.map_err(text)?,
    };
    let mut found: [Vec<(String, Vec<u8>)>; 2] = Default::default();
    for (space, found) in ["one", "two"].into_iter().zip(&mut found) {
        let space = match tenant.open_keyspace(space) {
            Err(e) if missing(&e) => continue,
            other => other.map_err(text)?,
        };
        for entry in space.prefix(format!("{thread}/")) {
            let (key, value) = entry.map_err(text)?;
            found.push((String::from_utf8_lossy(&key).into_owned(), value.to_vec()));
        }
    }
    let count = found[1].len() as u64;
    if found[0].len() as u64 != 2 * count {
        return Err(format!("torn batches: {} and {count} entries", found[0].len()));
    }
    for number in 0..count {
        let [a, b, c] = keys_of(thread, number);
        let value = value_of(thread, number);
        let i = number as usize;
        for (expected, (key, found)) in [
            (a, &found[0][2 * i]),
            (c, &found[0][2 * i + 1]),
            (b, &found[1][i]),
        ] {
            if *key != expected {
                return Err(format!("batch {number}: expected key {expected}, found {key}"));
            }
            if *found != value {
                return Err(format!("batch {number}: wrong value of {key}"));
            }
        }
    }
    Ok(count)
}
