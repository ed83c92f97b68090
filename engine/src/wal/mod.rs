//! The write-ahead log: one stream of bytes for all tenants, cut into segments.
//!
//! ```text
//! wal/0000000000000000.wal   stream bytes [0, a)        header, records
//! wal/000000000000a.....wal  stream bytes [a, b)        header, records
//! ```
//!
//! `format` is the bytes, `writer` appends, `progress` syncs for all who wait, `reader` checks segments at
//! open, `cursor` tails for standbys. Normative: docs/format.md section 3.
//!
//! Invariants: segments are contiguous; a segment is durable in full before the next one exists; a
//! segment's seals come from one open of one process (a reopen starts a new segment under a new salt,
//! so no (key, nonce) pair repeats); `durable <= written`.

pub(crate) mod cursor;
pub(crate) mod format;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod parsers;
mod progress;
pub(crate) mod reader;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::io::Io;
use crate::seal::FileKeys;
use crate::types::Lsn;
use progress::Progress;

/// File name of the segment that starts at `start`.
pub(crate) fn segment_name(start: Lsn) -> String {
    format!("{:016x}.wal", start.0)
}

/// The reverse of [`segment_name`].
pub(crate) fn segment_start(name: &str) -> Option<Lsn> {
    let hex = name.strip_suffix(".wal")?;
    let start = u64::from_str_radix(hex, 16).ok()?;
    (segment_name(Lsn(start)) == name).then_some(Lsn(start))
}

/// What committers, the cursor and the sync leader share. The tail itself is under the commit lock.
pub(crate) struct Wal {
    pub(crate) io: Io,
    pub(crate) dir: PathBuf,
    pub(crate) keys: Arc<FileKeys>,
    pub(crate) segment_bytes: u64,
    /// Whether what is not synced one by one may be written by way of a map.
    mapped: bool,
    progress: Progress,
    /// Starts of the segments on disk.
    segments: Mutex<BTreeSet<Lsn>>,
}

impl Wal {
    /// A log whose bytes up to `end` are on stable storage, in the segments that start at `segments`.
    pub fn new(
        io: &Io,
        dir: &Path,
        keys: Arc<FileKeys>,
        (segment_bytes, mapped): (u64, bool),
        end: Lsn,
        segments: BTreeSet<Lsn>,
    ) -> Wal {
        Wal {
            io: io.clone(),
            dir: dir.to_path_buf(),
            keys,
            segment_bytes,
            mapped,
            progress: Progress::new(dir, io.clock.clone(), end),
            segments: Mutex::new(segments),
        }
    }

    pub fn written(&self) -> Lsn {
        self.progress.written()
    }

    /// Syncs so far, of commits and cursors.
    pub fn syncs(&self) -> u64 {
        self.progress.syncs()
    }

    pub fn durable(&self) -> Lsn {
        self.progress.durable()
    }

    /// Oldest stream position on disk.
    pub fn start(&self) -> Lsn {
        self.segments
            .lock()
            .first()
            .copied()
            .unwrap_or_else(|| self.written())
    }

    /// Start of the segment holding `at`, and of the one after it.
    pub fn segment_of(&self, at: Lsn) -> Option<(Lsn, Option<Lsn>)> {
        let segments = self.segments.lock();
        let start = segments.range(..=at).next_back().copied()?;
        let next = segments.range(Lsn(at.0.saturating_add(1))..).next().copied();
        Some((start, next))
    }

    pub fn segments(&self) -> Vec<Lsn> {
        self.segments.lock().iter().copied().collect()
    }

    /// Ok while writing is allowed.
    pub fn check(&self) -> Result<()> {
        self.progress.check()
    }

    /// Why writing stopped, if it did.
    pub fn failure(&self) -> Option<String> {
        self.progress.failure()
    }

    /// Stops writing for good: nothing is acknowledged after this.
    pub fn poison(&self, error: &Error) {
        self.progress.poison(error);
    }

    /// Wakes tailing cursors for good.
    pub fn mark_closed(&self) {
        self.progress.mark_closed();
    }

    /// Returns once everything before `lsn` is on stable storage. `Unknown` after a failed sync, for good.
    pub fn sync_to(&self, lsn: Lsn) -> Result<()> {
        self.progress.sync_to(lsn)
    }

    /// To be called after a write that nobody will call [`sync_to`](Wal::sync_to) for: tailing cursors do.
    pub fn left_unsynced(&self) {
        self.progress.left_unsynced();
    }

    /// Waits until something after `at` is durable, syncing buffered writes itself if nobody else
    /// does; returns the durable end, which is `at` or less after `timeout`, failure or close.
    pub fn wait_durable(&self, at: Lsn, timeout: Duration) -> Lsn {
        self.progress.wait_durable(at, timeout)
    }

    /// Removes segments that end at or before `before`; the newest stays whatever happens.
    pub fn purge(&self, before: Lsn) -> Result<u64> {
        let doomed: Vec<Lsn> = {
            let segments = self.segments.lock();
            let starts: Vec<Lsn> = segments.iter().copied().collect();
            starts
                .windows(2)
                .filter_map(|w| match w {
                    [a, b] if *b <= before => Some(*a),
                    _ => None,
                })
                .collect()
        };
        // Oldest first, so that a crash in between leaves a contiguous log.
        for start in &doomed {
            let path = self.dir.join(segment_name(*start));
            self.segments.lock().remove(start);
            self.io
                .vfs
                .remove_file(&path)
                .map_err(|e| Error::io("removing an old segment", &path, e))?;
        }
        Ok(doomed.len() as u64)
    }
}
