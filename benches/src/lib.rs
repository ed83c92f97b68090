//! What the benches share: a database in a temporary directory, a standby beside it, seeded keys.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use strongroom::io::Io;
use strongroom::keys::{KeyFile, KeyProvider};
use strongroom::{BaseCopyReceiver, Engine, Options, Result, Role, checkpoint_files};

/// Opens a database in `dir` with a development key file beside it.
pub fn open(dir: &Path, options: Options) -> Result<Engine> {
    Engine::builder(dir.join("data"))
        .shared_keys(provider(dir)?)
        .options(options)
        .open()
}

/// The key file in `dir`, made if it is missing.
pub fn provider(dir: &Path) -> Result<Arc<dyn KeyProvider>> {
    let path = dir.join("bench.key");
    Ok(Arc::new(if path.exists() {
        KeyFile::open(&path)?
    } else {
        KeyFile::create(&path)?
    }))
}

/// A standby in the same process: a thread moves the log from one engine's cursor to the other's
/// segments, syncs and confirms; what `Replicated` costs without the network.
pub struct LocalStandby {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

impl LocalStandby {
    /// Takes a base copy of `primary` into `dir` and follows it.
    pub fn follow(primary: &Engine, dir: &Path) -> Result<LocalStandby> {
        let copy = dir.join("copy");
        let checkpoint = primary.checkpoint(&copy)?;
        let provider = provider(dir)?;
        let mut receiver = BaseCopyReceiver::start(dir.join("standby"), Io::os(), provider.clone())?;
        receiver.keys(&primary.key_changes(0))?;
        for (name, _) in checkpoint_files(&copy, &Io::os())? {
            let bytes = std::fs::read(copy.join(&name)).map_err(|e| {
                strongroom::Error::new(strongroom::ErrorKind::Io, "reading the base copy").with_source(e)
            })?;
            receiver.chunk(&name, 0, &bytes)?;
        }
        receiver.finish()?;
        let standby = Engine::builder(dir.join("standby"))
            .shared_keys(provider)
            .role(Role::Standby)
            .open()?;
        let mut cursor = primary.wal_cursor(checkpoint.position.lsn)?;
        let (stop, primary) = (Arc::new(AtomicBool::new(false)), primary.clone());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut keys = standby.keystore_version();
            while !stopped.load(Ordering::Relaxed) {
                let from = cursor.position();
                let bytes = cursor.read(1 << 20, Duration::from_millis(50))?;
                if bytes.is_empty() {
                    continue;
                }
                if primary.keystore_version() != keys {
                    standby.apply_key_changes(&primary.key_changes(keys))?;
                    keys = standby.keystore_version();
                }
                standby.standby_append(from, &bytes)?;
                let progress = standby.standby_sync()?;
                primary.confirm_replicated(primary.status().epoch, progress.durable);
            }
            Ok(())
        });
        Ok(LocalStandby {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for LocalStandby {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A failure shows as commits that time out; nothing to add here.
            let _ = thread.join();
        }
    }
}

/// A 16-byte key: the number, spread over the key space by a fixed mixer.
pub fn key(i: u64) -> [u8; 16] {
    let mut x = i.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let mut key = [0; 16];
    for (to, from) in key
        .iter_mut()
        .zip((x ^ (x >> 31)).to_le_bytes().into_iter().chain(i.to_le_bytes()))
    {
        *to = from;
    }
    key
}

/// Resident memory of this process in KiB, where Linux tells.
pub fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:"));
    line.and_then(|l| l.split_whitespace().nth(1))
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}
