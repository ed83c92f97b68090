//! A process on the real machine that real faults are done to: what it does, and how to start it.
//!
//! ```text
//! work <dir> <batches> <first of each thread>   commits, tells each outcome, reads all back, closes
//! full <dir>                                    on a small disk: fills it, goes on, makes room, goes on
//! cycles <dir> <n>                              opens and closes n times, tells its descriptors before and after
//! hold <dir>                                    opens, says so, waits to be killed
//! ```
//!
//! `work` says `open`, then `ack <thread> <number>` or `failed <kind>` for every commit, then `read` if all it was
//! acknowledged reads back, then `closed`. It commits from its first thread alone, so that the k-th system call of
//! that thread is the same in every run, and goes on after a failure until the engine says that it will not write
//! any more.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use strongroom::{Durability, Engine, ErrorKind, TenantOptions};

use crate::kill::{self, Series, THREADS};

/// Attempts at one batch.
const ATTEMPTS: u32 = 3;

/// The process: `args` without its name.
pub fn child(args: &[String]) -> Result<(), String> {
    let text = |i: usize| args.get(i).ok_or("too few arguments");
    let number = |i: usize| text(i)?.parse::<u64>().map_err(|_| "not a number");
    let dir = Path::new(text(1)?);
    match text(0)?.as_str() {
        "work" => work(dir, number(2)?, number(3)?),
        "full" => full(dir),
        "cycles" => cycles(dir, number(2)?),
        "hold" => hold(dir),
        other => Err(format!("unknown: {other}")),
    }
}

fn kind(e: strongroom::Error) -> String {
    format!("{:?}", e.kind())
}

fn work(dir: &Path, batches: u64, first: u64) -> Result<(), String> {
    let engine = kill::open(dir).map_err(kind)?;
    println!("open");
    let prepare = || -> strongroom::Result<Vec<Series>> {
        kill::create_tenants(&engine)?;
        (0..THREADS).map(|thread| Series::open(&engine, thread)).collect()
    };
    // What failed once may well succeed now.
    let series = prepare().or_else(|e| {
        println!("failed {:?}", e.kind());
        prepare()
    });
    let series = series.map_err(kind)?;
    let mut acknowledged = [first; THREADS as usize];
    'writing: for number in first..first + batches {
        for (thread, series) in series.iter().enumerate() {
            let mut attempt = 1;
            while let Err(e) = series.commit(number, Durability::Local) {
                println!("failed {:?}", e.kind());
                let last = matches!(e.kind(), ErrorKind::ReadOnly | ErrorKind::Unknown);
                if attempt == ATTEMPTS || last {
                    break 'writing;
                }
                attempt += 1;
            }
            println!("ack {thread} {number}");
            acknowledged[thread] = number + 1;
        }
    }
    // Reads go on, whatever happened to writes.
    match kill::check_batches(&engine, &mut acknowledged) {
        Ok(_) => println!("read"),
        Err(e) => println!("misread {e}"),
    }
    match engine.close() {
        Ok(()) => println!("closed"),
        Err(e) => println!("unclosed {}", kind(e)),
    }
    Ok(())
}

/// On a file system of few megabytes with nothing else on it.
fn full(dir: &Path) -> Result<(), String> {
    let engine = kill::open(dir).map_err(kind)?;
    kill::create_tenants(&engine).map_err(kind)?;
    engine
        .create_tenant("doomed", TenantOptions::default())
        .map_err(kind)?;
    let doomed = engine.tenant("doomed").map_err(kind)?;
    doomed
        .keyspace("k")
        .and_then(|k| k.put("key", [7; 1000]))
        .map_err(kind)?;
    let series = (0..THREADS)
        .map(|thread| Series::open(&engine, thread))
        .collect::<strongroom::Result<Vec<_>>>()
        .map_err(kind)?;
    let mut next = [0; THREADS as usize];
    for round in 0..3 {
        let ballast = dir.join("ballast");
        fill(&ballast, 300 << 10)?;
        let refused = write_until_refused(&series, &mut next)?;
        if refused != ErrorKind::NoSpace {
            return Err(format!("round {round}: the full disk was {refused:?}"));
        }
        // Reads go on, and so does the deletion of tenants.
        kill::check_batches(&engine, &mut next)?;
        if round == 1 {
            engine
                .delete_tenant("doomed")
                .map_err(|e| format!("deleting a tenant: {e:?}"))?;
        }
        std::fs::remove_file(&ballast).map_err(|e| e.to_string())?;
        // Without reopening; a flush that failed is tried again within a second.
        let patience = Instant::now() + Duration::from_secs(20);
        for (thread, series) in series.iter().enumerate() {
            for _ in 0..20 {
                while let Err(e) = series.commit(next[thread], Durability::Local) {
                    if e.kind() != ErrorKind::NoSpace || Instant::now() > patience {
                        return Err(format!("round {round}: there is room again: {e:?}"));
                    }
                    std::thread::yield_now();
                }
                next[thread] += 1;
            }
        }
        println!("round {round}");
    }
    engine.close().map_err(|e| format!("closing: {e:?}"))?;
    let engine = kill::open(dir).map_err(|e| format!("reopening: {e:?}"))?;
    kill::check_batches(&engine, &mut next)?;
    if engine.tenant("doomed").is_ok() {
        return Err("the deleted tenant is back".to_owned());
    }
    println!("end");
    Ok(())
}

/// Takes all space but `left` bytes.
fn fill(path: &Path, left: u64) -> Result<(), String> {
    use std::io::Write;
    let mut file = std::fs::File::create(path).map_err(|e| e.to_string())?;
    let mut size = 0;
    while file.write_all(&[0; 16 << 10]).is_ok() {
        size += 16 << 10;
    }
    file.set_len(u64::saturating_sub(size, left))
        .map_err(|e| e.to_string())
}

fn write_until_refused(series: &[Series], next: &mut [u64]) -> Result<ErrorKind, String> {
    for _ in 0..100_000 {
        for (thread, series) in series.iter().enumerate() {
            match series.commit(next[thread], Durability::Local) {
                Ok(()) => next[thread] += 1,
                Err(e) => return Ok(e.kind()),
            }
        }
    }
    Err("the disk does not fill".to_owned())
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn cycles(dir: &Path, count: u64) -> Result<(), String> {
    let once = |number| -> strongroom::Result<Engine> {
        let engine = kill::open(dir)?;
        kill::create_tenants(&engine)?;
        for thread in 0..THREADS {
            Series::open(&engine, thread)?.commit(number, Durability::Local)?;
        }
        Ok(engine)
    };
    once(0).and_then(|engine| engine.close()).map_err(kind)?;
    let before = descriptors();
    for number in 1..=count {
        let engine = once(number).map_err(kind)?;
        // Half of them are dropped without closing.
        if number % 2 == 0 {
            engine.close().map_err(kind)?;
        }
    }
    println!("descriptors {before} {}", descriptors());
    let engine = kill::open(dir).map_err(kind)?;
    kill::check_batches(&engine, &mut [count + 1; THREADS as usize])?;
    Ok(())
}

fn hold(dir: &Path) -> Result<(), String> {
    let _engine = kill::open(dir).map_err(kind)?;
    println!("open");
    loop {
        std::thread::park();
    }
}

/// What a run of the child said.
#[derive(Debug)]
pub struct Said(pub Vec<String>);

impl Said {
    /// Whether a line is exactly this.
    pub fn has(&self, line: &str) -> bool {
        self.0.iter().any(|said| said == line)
    }

    /// What follows this word in the lines that begin with it.
    pub fn after<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter_map(move |said| said.strip_prefix(word)?.strip_prefix(' '))
    }

    /// Moves `next` past every acknowledged batch.
    pub fn acknowledged(&self, next: &mut [u64]) {
        for ack in self.after("ack") {
            let (thread, number) = ack.split_once(' ').expect("a thread and a number");
            let thread: usize = thread.parse().expect("a number");
            next[thread] = next[thread].max(number.parse::<u64>().expect("a number") + 1);
        }
    }
}

/// Runs a command to its end and returns the lines of its standard output.
pub fn run(command: &mut Command) -> Said {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let said = lines.map_while(Result::ok).collect();
    child.wait().expect("our child");
    Said(said)
}

/// Whether a tool works here. If not: says SKIPPED, or fails where everything must be there
/// (`STRONGROOM_REQUIRE_EXTERNAL=1`).
pub fn available(what: &str, probe: &mut Command) -> bool {
    let works = probe
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !works {
        let required = std::env::var_os("STRONGROOM_REQUIRE_EXTERNAL").is_some_and(|v| v == "1");
        assert!(!required, "{what} is required and does not work here");
        println!("SKIPPED: {what} does not work here");
    }
    works
}
