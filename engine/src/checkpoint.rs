//! Checkpoints: a consistent copy of the database at one position, without stopping writes.
//!
//! ```text
//! <path>/tables/*   hard links (immutable files), or copies where the file system cannot link
//!        wal/*      complete segments linked; the newest copied up to the position
//!        manifest-* CURRENT   written last: without it the directory is not a database
//! ```
//!
//! No keys: they travel apart, as the keystore's changes to a standby or as an escrow file to whoever
//! may restore. `reach` in the copy's manifest is the position: a copy that lost log refuses to open.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::hooks::{planted, rare};
use crate::inner::{Inner, Mode};
use crate::io::{Io, durable};
use crate::open::{CURRENT, TABLES_DIR, WAL_DIR};
use crate::status::Checkpoint;
use crate::types::{Chain, Lsn, Position};
use crate::version::{NodeState, referenced_files};
use crate::wal::reader::{SegmentFile, SegmentScan, Step};
use crate::wal::segment_name;

/// See [`Engine::checkpoint`](crate::Engine::checkpoint).
pub(crate) fn checkpoint(inner: &Inner, path: &Path) -> Result<Checkpoint> {
    let io = &inner.io;
    if io.vfs.list(path).is_ok_and(|entries| !entries.is_empty()) {
        return Err(Error::new(ErrorKind::AlreadyExists, "the directory is not empty").at(path));
    }
    // Held while we copy: neither the tables of `version` nor the log behind `flushed` may go.
    let pin = inner.pins.pin(inner.wal.start(), true);
    let (version, mut state, position, durable_now) = {
        // Under the commit lock: a promotion comes before all of these or after all of them.
        let commit = inner.commit.lock();
        if commit.mode == Mode::Closed {
            return Err(crate::commit::closed());
        }
        let (version, state) = inner.versions.view();
        let position = Position {
            epoch: commit.tail.epoch,
            lsn: commit.tail.end,
            seqno: commit.seqno,
        };
        (version, state, position, inner.wal.durable())
    };
    if durable_now < position.lsn {
        rare!(CheckpointSyncedLog);
        inner.wal.sync_to(position.lsn)?;
    }
    for dir in [path.to_path_buf(), path.join(TABLES_DIR), path.join(WAL_DIR)] {
        durable::create_dir_synced(io, &dir)?;
    }
    let mut copied = Copied::default();
    for (name, _) in referenced_files(&version) {
        copied.add(durable::link_or_copy(
            io,
            &inner.dir.join(&name),
            &path.join(&name),
        )?);
    }
    copied.add_wal(inner, path, state.flushed, position.lsn)?;
    for dir in [path.join(TABLES_DIR), path.join(WAL_DIR)] {
        if !planted!(CheckpointNamesNotSynced) {
            durable::sync_dir(io, &dir)?;
        }
    }
    state.reach = position.lsn;
    // The keys of a copy come from elsewhere.
    state.tenants = 0;
    if state.state == NodeState::Following {
        // The copy's log is complete; whoever opens it follows nobody yet.
        state.state = NodeState::Serving;
    }
    inner.versions.write_snapshot(path, &version, &state)?;
    drop(pin);
    for (name, len) in checkpoint_files(path, io)? {
        if !name.contains('/') {
            copied.files += 1;
            copied.bytes += len;
        }
    }
    Ok(Checkpoint {
        position,
        files: copied.files,
        bytes: copied.bytes,
    })
}

#[derive(Default)]
struct Copied {
    files: u64,
    bytes: u64,
}

impl Copied {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }

    /// The log from the segment that recovery starts in, up to `end`.
    fn add_wal(&mut self, inner: &Inner, path: &Path, flushed: Lsn, end: Lsn) -> Result<()> {
        let starts = inner.wal.segments();
        let first = starts.iter().rposition(|s| *s < flushed).unwrap_or(0);
        let wanted = starts.get(first..).unwrap_or_default();
        for (i, start) in wanted.iter().enumerate() {
            if *start >= end {
                break;
            }
            let name = segment_name(*start);
            let (from, to) = (inner.wal.dir.join(&name), path.join(WAL_DIR).join(&name));
            match wanted.get(i + 1) {
                Some(next) if *next <= end => self.add(durable::link_or_copy(&inner.io, &from, &to)?),
                _ => {
                    let len = end.0.saturating_sub(start.0);
                    durable::copy_prefix(&inner.io, &from, &to, len)?;
                    self.add(len);
                }
            }
        }
        Ok(())
    }
}

/// Files of a checkpoint directory: names relative to it with `/`, and lengths; the one that makes it a
/// database comes last, so that a copy made in this order is complete or not a database.
pub fn checkpoint_files(path: impl AsRef<Path>, io: &Io) -> Result<Vec<(String, u64)>> {
    let path = path.as_ref();
    let list = |dir: &Path| {
        io.vfs
            .list(dir)
            .map_err(|e| Error::io("listing a checkpoint", dir, e))
    };
    let mut files = Vec::new();
    for entry in list(path)? {
        if !entry.is_dir {
            files.push((entry.name, entry.len));
            continue;
        }
        let sub = list(&path.join(&entry.name))?;
        files.extend(
            sub.into_iter()
                .map(|file| (format!("{}/{}", entry.name, file.name), file.len)),
        );
    }
    files.sort_by_key(|(name, _)| (name == CURRENT, name.clone()));
    if files.last().is_none_or(|(name, _)| name != CURRENT) {
        return Err(Error::corruption(
            &path.join(CURRENT),
            0,
            "checkpoint",
            "a CURRENT file",
            "none",
        ));
    }
    Ok(files)
}

/// See [`Engine::chain_at`](crate::Engine::chain_at).
pub(crate) fn chain_at(inner: &Inner, lsn: Lsn) -> Result<Chain> {
    let diverged = || {
        Error::new(
            ErrorKind::Diverged,
            format!("position {lsn} is no boundary of this log"),
        )
    };
    {
        let commit = inner.commit.lock();
        if lsn == commit.tail.end {
            return Ok(commit.tail.chain);
        }
        if lsn > commit.tail.end {
            return Err(diverged());
        }
    }
    if lsn == Lsn::ZERO {
        return Ok(Chain::default());
    }
    let Some((start, _)) = inner.wal.segment_of(lsn) else {
        return Err(Error::new(
            ErrorKind::Gone,
            format!("position {lsn} is no longer kept"),
        ));
    };
    let path = inner.wal.dir.join(segment_name(start));
    let file = durable::open(&inner.io, &path)?;
    let len = file
        .len()
        .map_err(|e| Error::io("reading a segment's length", &path, e))?;
    let segment = SegmentFile { start, path, len };
    let mut scan = SegmentScan::open(&inner.io, &inner.keys, &segment)?.or_refuse()?;
    if lsn == start {
        return Ok(scan.header.chain);
    }
    // A walk from the segment's start proves that it is a boundary; resuming is rare.
    while scan.position() < lsn {
        match scan.step()? {
            Step::Record(_) => {}
            Step::End | Step::Damaged(_) => return Err(diverged()),
        }
    }
    if scan.position() == lsn {
        Ok(scan.chain)
    } else {
        Err(diverged())
    }
}
