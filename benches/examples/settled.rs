//! What entries take when nothing is left to compact, with their versions and without.
//! `cargo run --release -p strongroom-benches --example settled [keys]`: one put after the other, of
//! random keys of 16 bytes and values of 100, half of them random.

#![allow(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]

use std::time::Instant;

use strongroom::keys::KeyFile;
use strongroom::{Background, Durability, Engine, Options, TenantOptions};

fn random(state: &mut u64) -> [u8; 8] {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_be_bytes()
}

fn main() {
    let keys = std::env::args().nth(1).and_then(|arg| arg.parse().ok());
    let keys: u64 = keys.unwrap_or(3_000_000);
    for held in [true, false] {
        measure(keys, held);
    }
}

/// - `held`: a snapshot that sees none of it makes compaction keep the versions.
fn measure(keys: u64, held: bool) {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    drop(KeyFile::create(&key).unwrap());
    let mut options = Options::default();
    options.background = Background::Manual;
    let builder = Engine::builder(dir.path().join("db")).keys(KeyFile::open(&key).unwrap());
    let engine = builder.options(options).open().unwrap();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let space = tenant.keyspace("k").unwrap();
    let _held = held.then(|| tenant.snapshot());
    let (mut state, mut value) = (7, [7; 100]);
    let from = Instant::now();
    for at in 0..keys {
        let key = [random(&mut state), random(&mut state)].concat();
        for eight in value[..48].chunks_mut(8) {
            eight.copy_from_slice(&random(&mut state));
        }
        // Each has a version of its own, as batches of one have.
        let batch = tenant.batch().durability(Durability::Buffered);
        batch.put(&space, key, value).commit().unwrap();
        if at % 1000 == 0 {
            while engine.step().unwrap() {}
        }
    }
    engine.flush().unwrap();
    while engine.step().unwrap() {}
    let settled = from.elapsed().as_secs_f64();
    let show = |what: &str, seconds: f64| {
        let stats = engine.stats();
        let bytes: u64 = stats.levels.iter().map(|level| level.bytes).sum();
        let levels: Vec<String> = stats
            .levels
            .iter()
            .map(|level| format!("{:.1}", level.bytes as f64 / 1e6))
            .collect();
        println!(
            "{}, {what}: {bytes} bytes in tables, {:.2} a key; MB by level {}; {seconds:.1} s",
            ["versions left out", "versions kept"][usize::from(held)],
            bytes as f64 / keys as f64,
            levels.join(" "),
        );
    };
    show("settled", settled);
    let from = Instant::now();
    engine.compact().unwrap();
    show("compacted", from.elapsed().as_secs_f64());
}
