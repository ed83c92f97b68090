//! An application that embeds a primary. Run it together with `embed_standby`:
//!
//! ```text
//! cargo run -p strongroom-replication --example make_certificates -- /tmp/pair
//! cargo run -p strongroom-replication --example embed_primary -- /tmp/pair     # terminal 1
//! cargo run -p strongroom-replication --example embed_standby -- /tmp/pair     # terminal 2
//! ```
//!
//! The primary waits until its standby answers, then writes a line a second with `Durability::Replicated`:
//! each line printed as stored is on two disks. Stop the standby, and lines end in "unknown" after the
//! timeout instead of being silently less than promised. Stop this one, type `promote` at the standby,
//! start this one again: it follows the standby by itself.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use strongroom::keys::KeyFile;
use strongroom::{Durability, Engine, ErrorKind, TenantOptions};
use strongroom_replication::{Node, NodeRole, ReplicationConfig, StartRole, TlsFiles};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let place = PathBuf::from(
        std::env::args()
            .nth(1)
            .ok_or("usage: embed_primary <directory>")?,
    );
    let mut config = ReplicationConfig::new("a", place.join("a"), StartRole::Primary);
    config.listen = Some("127.0.0.1:7301".parse()?);
    config.peer = Some("127.0.0.1:7302".into());
    config.tls = Some(TlsFiles {
        ca: place.join("ca.pem"),
        cert: place.join("a.pem"),
        key: place.join("a.key.pem"),
    });
    config.engine.replicated_timeout = Duration::from_secs(3);
    let key_file = place.join("a.kek");
    let keys = if key_file.exists() {
        KeyFile::open(&key_file)?
    } else {
        KeyFile::create(&key_file)?
    };
    let node = Node::start(config, Arc::new(keys)).await?;

    let mut watch = node.watch();
    let mut number = 0u64;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            changed = watch.changed() => {
                changed?;
                let state = watch.borrow_and_update().clone();
                println!("role {:?}, epoch {}: {}", state.role, state.epoch, state.note.unwrap_or_default());
            }
            _ = tick.tick() => {
                let state = node.state();
                // The engine changes when a base copy replaces it: take it anew for every use.
                if let Some(engine) = state.primary().cloned() {
                    number += 1;
                    // Engine calls block: off the async threads with them.
                    match tokio::task::spawn_blocking(move || write(&engine, number)).await? {
                        Ok(position) => println!("line {number} is on both disks, at {}", position.lsn),
                        Err(e) if e.kind() == ErrorKind::Unknown => println!("line {number}: unknown: {e}"),
                        Err(e) => println!("line {number}: {e}"),
                    }
                } else if state.role == NodeRole::Standby {
                    println!("following; promoted elsewhere");
                }
            }
        }
    }
    node.shutdown().await?;
    Ok(())
}

fn write(engine: &Engine, number: u64) -> strongroom::Result<strongroom::Position> {
    let tenant = match engine.tenant("acme") {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            engine.create_tenant("acme", TenantOptions::default())?
        }
        tenant => tenant?,
    };
    let lines = tenant.keyspace("lines")?;
    let batch = tenant
        .batch()
        .put(&lines, format!("{number:08}"), format!("line {number}"));
    batch.durability(Durability::Replicated).commit()
}
