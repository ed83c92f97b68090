//! An application that embeds the standby of `embed_primary`; see there for how to run the two together.
//!
//! Commands on standard input: `status`, `read`, `promote`, `quit`. After `promote` this process is the
//! primary and takes what `embed_primary` wrote; the other one, when it is back, follows.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use strongroom::Engine;
use strongroom::keys::KeyFile;
use strongroom_replication::{Node, ReplicationConfig, StartRole, TlsFiles};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let place = PathBuf::from(
        std::env::args()
            .nth(1)
            .ok_or("usage: embed_standby <directory>")?,
    );
    let mut config = ReplicationConfig::new("b", place.join("b"), StartRole::Standby);
    config.listen = Some("127.0.0.1:7302".parse()?);
    config.peer = Some("127.0.0.1:7301".into());
    config.tls = Some(TlsFiles {
        ca: place.join("ca.pem"),
        cert: place.join("b.pem"),
        key: place.join("b.key.pem"),
    });
    let key_file = place.join("b.kek");
    let keys = if key_file.exists() {
        KeyFile::open(&key_file)?
    } else {
        KeyFile::create(&key_file)?
    };
    let node = Node::start(config, Arc::new(keys)).await?;

    let (commands, mut typed) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if commands.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let mut watch = node.watch();
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            changed = watch.changed() => {
                changed?;
                let state = watch.borrow_and_update().clone();
                println!("role {:?}, epoch {}: {}", state.role, state.epoch, state.note.unwrap_or_default());
            }
            Some(line) = typed.recv() => match line.trim() {
                "status" => println!("{:#?}", node.status()),
                "read" => match node.state().readable().cloned() {
                    Some(engine) => {
                        let count = tokio::task::spawn_blocking(move || count(&engine)).await?;
                        println!("{count:?} lines here");
                    }
                    None => println!("nothing to read yet"),
                },
                "promote" => match node.promote().await {
                    Ok(promotion) => println!("primary of epoch {} from {} on", promotion.epoch, promotion.start),
                    Err(e) => println!("not promoted: {e}"),
                },
                "quit" => break,
                _ => println!("status, read, promote or quit"),
            },
        }
    }
    node.shutdown().await?;
    Ok(())
}

fn count(engine: &Engine) -> strongroom::Result<usize> {
    let lines = engine.tenant("acme")?.open_keyspace("lines")?;
    lines.iter().try_fold(0, |count, entry| entry.map(|_| count + 1))
}
