//! The shortest whole use: open, put, get, range, batch, snapshot, checkpoint, close.
//!
//! `cargo run -p strongroom --example quickstart`

use strongroom::keys::KeyFile;
use strongroom::{Durability, Engine, TenantOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let keys = KeyFile::create(dir.path().join("strongroom.key"))?;
    let engine = Engine::builder(dir.path().join("data")).keys(keys).open()?;

    let acme = engine.create_tenant("acme", TenantOptions::default())?;
    let events = acme.keyspace("activity")?;
    events.put("u42/2026-11-21", "saved report.txt")?; // durable when it returns
    events.put("u42/2026-11-22", "created plan.md")?;
    events.put("u7/2026-11-22", "deleted old.txt")?;

    println!("get: {:?}", events.get("u42/2026-11-21")?);
    for kv in events.range("u42/".."u42/~").rev().take(10) {
        let (key, value) = kv?;
        println!(
            "newest first: {} -> {}",
            String::from_utf8_lossy(&key),
            String::from_utf8_lossy(&value)
        );
    }

    let snapshot = acme.snapshot();
    let index = acme.keyspace("latest")?;
    let batch = acme
        .batch()
        .put(&index, "u42", "2026-11-22")
        .delete(&events, "u7/2026-11-22");
    let position = batch.durability(Durability::Local).commit()?; // both keyspaces or neither
    println!(
        "committed in epoch {} up to byte {} of the log",
        position.epoch, position.lsn
    );
    println!(
        "the snapshot still sees {} events, a read now {}",
        snapshot.range::<&str>(&events, ..).count(),
        events.iter().count()
    );

    let copy = engine.checkpoint(dir.path().join("copy"))?;
    println!(
        "checkpoint: {} files, {} bytes, no keys inside",
        copy.files, copy.bytes
    );
    engine.close()?;
    Ok(())
}
