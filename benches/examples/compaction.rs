//! What dividing a compaction among threads brings: all of level 0 into one level, with one thread and more, in turn.
//! `cargo run --release -p strongroom-benches --example compaction [keys] [threads]`.
//!
//! Beside the time it prints how much a processor worked, and how much of that for the calling thread, which does the first of
//! the parts: on a machine that has other work, threads may get no more of it than one would, and that tells what free cores bring.

#![allow(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]

use std::path::Path;
use std::time::Instant;

use strongroom::keys::KeyFile;
use strongroom::{Durability, Engine, Options, TenantOptions};

const VALUE_BYTES: usize = 100;
const ROUNDS: usize = 3;

fn value(seed: u64) -> [u8; VALUE_BYTES] {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = [7; VALUE_BYTES];
    // Two to one, as in benches/compare.
    for byte in &mut bytes[..VALUE_BYTES / 2] {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    bytes
}

fn open(dir: &Path, key: &Path, threads: usize) -> Engine {
    let mut options = Options::default();
    // Nothing is compacted before it is asked for.
    options.level0_tables = 64;
    options.level0_tables_stop = 128;
    options.compaction_threads = threads;
    let builder = Engine::builder(dir).keys(KeyFile::open(key).unwrap());
    builder.options(options).open().unwrap()
}

/// Seconds of processor time of this process, ended threads included, and of this thread (Linux).
fn processor_time() -> (f64, f64) {
    let numbers = |path: &str, skip: usize| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let words = text.split_whitespace().skip(skip);
        words.map_while(|word| word.parse().ok()).collect::<Vec<f64>>()
    };
    // User and system time, in hundredths.
    let process = numbers("/proc/self/stat", 13);
    let thread = numbers("/proc/thread-self/schedstat", 0);
    (
        process.iter().take(2).sum::<f64>() / 100.0,
        thread.first().unwrap_or(&0.0) / 1e9,
    )
}

/// Of files and one level of directories: the keys come along, as they do not with a checkpoint.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(std::fs::copy(&path, &target).unwrap()),
        }
    }
}

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let keys: u64 = args.next().unwrap_or(3_000_000);
    let most = args.next().unwrap_or(2) as usize;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    drop(KeyFile::create(&key).unwrap());
    let loaded = dir.path().join("loaded");
    let engine = open(&loaded, &key, 1);
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let space = tenant.keyspace("k").unwrap();
    for at in 0..keys {
        // An odd factor visits every key of a power of two, in no order.
        let key = format!("{:016x}", at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let batch = tenant.batch().durability(Durability::Buffered);
        batch.put(&space, key, value(at)).commit().unwrap();
    }
    drop((space, tenant));
    engine.close().unwrap();
    for round in 0..ROUNDS {
        for threads in 1..=most {
            let there = dir.path().join(format!("{round}-{threads}"));
            copy(&loaded, &there);
            let engine = open(&there, &key, threads);
            let (from, before) = (Instant::now(), processor_time());
            engine.compact().unwrap();
            let (seconds, after) = (from.elapsed().as_secs_f64(), processor_time());
            let done = engine.stats().compactions;
            println!(
                "round {round}, {threads} threads: {seconds:.2} s; processor {:.2} s, {:.2} s of it in the first part; {:.0} MB read, {:.0} MB written",
                after.0 - before.0,
                after.1 - before.1,
                done.bytes_read as f64 / 1e6,
                done.bytes_written as f64 / 1e6,
            );
            engine.close().unwrap();
            std::fs::remove_dir_all(there).unwrap();
        }
    }
}
