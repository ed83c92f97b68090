//! What compressing blocks costs and saves: the same data with and without, in turn.
//!
//! `cargo run --release -p strongroom-benches --example compression -- [ROUNDS] [ACTIVITY.ndjson]`
//!
//! Two sets of data: keys of 16 bytes with values of 100, half of them random; and, if its file is given,
//! real activity (one JSON object a line: ts, tenant, user, action, path), all of it in one tenant. Printed
//! for each: size of the tables, time to load, flush and compact, gets and a scan with a cache a tenth of
//! the data. Medians of the rounds.

#![allow(clippy::unwrap_used, reason = "a bench that fails may end")]

use std::time::Instant;

use strongroom::{Compression, Durability, Engine, Keyspace, Options, TenantOptions};
use strongroom_benches::{key, open};

const ENTRIES: u64 = 1_000_000;
const GETS: u64 = 200_000;
const NAMES: [&str; 5] = ["table MB", "load s", "compact s", "cold get us", "scan ns"];

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn main() {
    let mut args = std::env::args().skip(1);
    let rounds: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(3);
    let mut sets = vec![("half random", half_random())];
    if let Some(path) = args.next() {
        sets.push(("activity", activity(&std::fs::read_to_string(path).unwrap())));
    }
    for (name, entries) in &sets {
        let bytes: usize = entries.iter().map(|(k, v)| k.len() + v.len()).sum();
        println!("{name}: {} entries, {:.1} MB", entries.len(), bytes as f64 / 1e6);
        let kinds = [Compression::None, Compression::Lz4];
        let mut found = [const { Vec::new() }; 2];
        for _ in 0..rounds {
            for (kind, found) in kinds.iter().zip(&mut found) {
                found.push(measure(entries, bytes as u64, *kind));
            }
        }
        let [plain, packed] = found.map(medians);
        for (at, what) in NAMES.iter().enumerate() {
            let ratio = packed[at] / plain[at];
            println!(
                "  {what:<12} none {:>9.3}  lz4 {:>9.3}  ratio {ratio:.2}",
                plain[at], packed[at]
            );
        }
    }
}

fn medians(rounds: Vec<[f64; 5]>) -> [f64; 5] {
    std::array::from_fn(|at| {
        let mut values: Vec<f64> = rounds.iter().map(|round| round[at]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    })
}

fn measure(entries: &Entries, bytes: u64, compression: Compression) -> [f64; 5] {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.compression = compression;
    options.cache_bytes = bytes / 10;
    options.memtable_bytes = 16 << 20;
    let engine = open(dir.path(), options).unwrap();
    let keyspace = fill(&engine, entries);
    let start = Instant::now();
    engine.flush().unwrap();
    let load = keyspace.1 + start.elapsed().as_secs_f64();
    let keyspace = keyspace.0;
    let start = Instant::now();
    engine.compact().unwrap();
    let compact = start.elapsed().as_secs_f64();
    let table_bytes = engine.status().table_bytes as f64 / 1e6;

    let mut at = 7u64;
    let mut gets = |count: u64| {
        let start = Instant::now();
        for _ in 0..count {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (key, value) = &entries[(at >> 33) as usize % entries.len()];
            assert_eq!(keyspace.get(key).unwrap().unwrap().len(), value.len());
        }
        start.elapsed().as_secs_f64() * 1e6 / count as f64
    };
    gets(GETS / 4);
    let get = gets(GETS);
    let start = Instant::now();
    assert_eq!(keyspace.iter().count(), entries.len());
    let scan = start.elapsed().as_secs_f64() * 1e9 / entries.len() as f64;
    [table_bytes, load, compact, get, scan]
}

/// Writes all entries, and says how long that took.
fn fill(engine: &Engine, entries: &Entries) -> (Keyspace, f64) {
    let tenant = engine.create_tenant("bench", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    let start = Instant::now();
    for part in entries.chunks(100) {
        let mut batch = tenant.batch().durability(Durability::Buffered);
        for (key, value) in part {
            batch = batch.put(&keyspace, key, value);
        }
        batch.commit().unwrap();
    }
    (keyspace, start.elapsed().as_secs_f64())
}

fn half_random() -> Entries {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    let mut value = || -> Vec<u8> { (0..100).map(|i| if i < 50 { random() } else { b'v' }).collect() };
    (0..ENTRIES).map(|i| (key(i).to_vec(), value())).collect()
}

/// Key: tenant, user, time, a counter; value: the rest as JSON.
fn activity(text: &str) -> Entries {
    let entry = |(i, line): (usize, &str)| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| event[field].as_str().unwrap().to_string();
        let time = event["ts"].as_u64().unwrap();
        let mut key = format!("{}/{}/", text("tenant"), text("user")).into_bytes();
        key.extend_from_slice(&time.to_be_bytes());
        key.extend_from_slice(&(i as u32).to_be_bytes());
        let rest = serde_json::json!({ "action": event["action"], "path": event["path"] });
        (key, rest.to_string().into_bytes())
    };
    text.lines().enumerate().map(entry).collect()
}
