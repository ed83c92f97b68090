//! What keeping large values apart from the tree costs and brings: load, get and overwriting of 16 KiB values, with and
//! without. `cargo run --release -p strongroom-benches --example values [keys]`.

#![allow(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]

use std::time::Instant;

use strongroom::keys::KeyFile;
use strongroom::{Durability, Engine, Options, TenantOptions};

const VALUE_BYTES: usize = 16 << 10;
/// Two to one, as in benches/compare.
const RANDOM_PART: usize = 2;

fn value(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let random = (0..VALUE_BYTES / RANDOM_PART).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    let mut bytes: Vec<u8> = random.collect();
    bytes.resize(VALUE_BYTES, 7);
    bytes
}

fn run(keys: u64, separate_bytes: usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.separate_bytes = separate_bytes;
    let engine = Engine::builder(dir.path().join("db"))
        .keys(KeyFile::create(dir.path().join("key")).unwrap())
        .options(options)
        .open()
        .unwrap();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let space = tenant.keyspace("k").unwrap();
    let put = |key: u64, seed: u64| {
        let batch = tenant.batch().durability(Durability::Buffered);
        batch
            .put(&space, key.to_be_bytes(), value(seed))
            .commit()
            .unwrap();
    };
    // An odd step visits every key of a power of two, in no order.
    let key = |at: u64| (at.wrapping_mul(0x5851_f42d_4c95_7f2d) >> 20) % keys;
    let rate = |what: &str, count: u64, work: &dyn Fn(u64)| {
        let from = Instant::now();
        (0..count).for_each(work);
        let seconds = from.elapsed().as_secs_f64();
        println!("  {what:<24}{:>10.0} /s", count as f64 / seconds);
    };
    println!("separate_bytes {separate_bytes}");
    rate("load", keys, &|at| put(at, at));
    engine.flush().unwrap();
    rate("get", keys, &|at| {
        assert!(space.get(key(at).to_be_bytes()).unwrap().is_some())
    });
    let before = engine.stats();
    rate("overwrite", 3 * keys, &|at| put(key(at), at + keys));
    let after = engine.stats();
    let written = |stats: &strongroom::Stats| stats.flushes.bytes_written + stats.compactions.bytes_written;
    let bytes = 3 * keys * VALUE_BYTES as u64;
    println!(
        "  flushed and compacted {:.2} bytes for each byte put; {} MB in tables, {} MB in {} value files, {} MB garbage",
        (written(&after) - written(&before)) as f64 / bytes as f64,
        after.levels.iter().map(|level| level.bytes).sum::<u64>() / 1_000_000,
        after.values.bytes / 1_000_000,
        after.values.files,
        after.values.garbage_bytes / 1_000_000,
    );
    rate("get", keys, &|at| {
        assert!(space.get(key(at).to_be_bytes()).unwrap().is_some())
    });
    let from = Instant::now();
    let bytes: usize = space.iter().map(|entry| entry.unwrap().1.len()).sum();
    let count = bytes / VALUE_BYTES;
    println!(
        "  scan                    {:>10.0} /s",
        count as f64 / from.elapsed().as_secs_f64()
    );
}

fn main() {
    let keys = std::env::args()
        .nth(1)
        .and_then(|keys| keys.parse().ok())
        .unwrap_or(20_000);
    for separate_bytes in [0, 8 << 10] {
        run(keys, separate_bytes);
    }
}
