//! What this process and its database cost the machine, by /proc and the file system (Linux).

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

/// Bytes this process has written so far.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// By write calls. Nothing for pages changed through a map (LMDB).
    pub calls: u64,
    /// On their way to the device: pages made dirty by whatever means, and direct writes.
    pub device: u64,
}

impl Written {
    pub fn now() -> Result<Written> {
        let io = std::fs::read_to_string("/proc/self/io").context("reading /proc/self/io")?;
        Ok(Written {
            calls: field(&io, "wchar:")?,
            device: field(&io, "write_bytes:")?,
        })
    }
}

/// Highest resident memory of this process, mapped files included.
pub fn peak_resident() -> Result<u64> {
    Ok(status("VmHWM:")? << 10)
}

fn status(name: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    field(&status, name)
}

fn field(text: &str, name: &str) -> Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("no field {name}"))
}

/// Looks now and then at the memory that is this process's alone, and keeps the highest.
pub struct Watch {
    over: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    pub fn start() -> Watch {
        let (over, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, highest) = (over.clone(), peak.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                highest.fetch_max(status("RssAnon:").unwrap_or(0) << 10, Ordering::Relaxed);
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        Watch {
            over,
            peak,
            thread: Some(thread),
        }
    }

    /// Highest anonymous memory seen.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It cannot fail.
            let _ = thread.join();
        }
    }
}

/// Bytes that the files under `dir` take on the disk: blocks, not lengths, since some are sparse.
pub fn space(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(about) if about.is_dir() => bytes += space(&entry.path())?,
            Ok(about) => bytes += about.blocks() * 512,
            // Removed by the engine while we looked.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_a_file_shows_in_bytes_written_and_in_space() {
        let dir = tempfile::tempdir().unwrap();
        let before = Written::now().unwrap();
        std::fs::write(dir.path().join("a"), vec![1u8; 1 << 20]).unwrap();
        std::fs::File::open(dir.path().join("a"))
            .unwrap()
            .sync_all()
            .unwrap();
        let after = Written::now().unwrap();
        assert!(after.calls - before.calls >= 1 << 20);
        assert!(space(dir.path()).unwrap() >= 1 << 20);
        assert!(peak_resident().unwrap() > 0);
    }
}
