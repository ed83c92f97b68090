//! Tails the log for standbys and archives: the public, read-only view of the stream.
//!
//! Serves only bytes on stable storage here, so a standby's log is always a prefix of this node's
//! durable log within an epoch (design section 1). Bytes come as they are on disk, still sealed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Wal, segment_name};
use crate::error::{Error, ErrorKind, Result};
use crate::io::File;
use crate::types::Lsn;

/// Tails the WAL: bytes exactly as they are on the primary's disk.
pub struct WalCursor {
    wal: Arc<Wal>,
    at: Lsn,
    open: Option<(Lsn, Arc<dyn File>)>,
}

impl WalCursor {
    pub(crate) fn new(wal: Arc<Wal>, from: Lsn) -> Result<WalCursor> {
        if from < wal.start() {
            return Err(gone(from, wal.start()));
        }
        if from > wal.written() {
            return Err(Error::new(
                ErrorKind::Diverged,
                format!("position {from} is beyond the end of the log, {}", wal.written()),
            ));
        }
        Ok(WalCursor {
            wal,
            at: from,
            open: None,
        })
    }

    /// Position of the next byte.
    pub fn position(&self) -> Lsn {
        self.at
    }

    /// Up to `bytes_max` durable stream bytes, cut anywhere but never across two segments. Waits up to
    /// `timeout` for some; empty if there are none.
    ///
    /// - Errors: `Gone` if retention overtook the cursor (take a base copy), `Io`.
    pub fn read(&mut self, bytes_max: usize, timeout: Duration) -> Result<Bytes> {
        let durable = self.wal.wait_durable(self.at, timeout);
        if durable <= self.at {
            return Ok(Bytes::new());
        }
        let Some((start, next)) = self.wal.segment_of(self.at) else {
            return Err(gone(self.at, self.wal.start()));
        };
        let end = next.unwrap_or(durable).min(durable);
        let len = (end.0.saturating_sub(self.at.0)).min(bytes_max as u64) as usize;
        let file = self.segment(start)?;
        let mut bytes = vec![0; len];
        let offset = self.at.0.saturating_sub(start.0);
        let path = || self.wal.dir.join(segment_name(start));
        file.read_exact_at(&mut bytes, offset)
            .map_err(|e| Error::io("reading a segment", &path(), e))?;
        self.at = self.at.advance(len as u64);
        Ok(bytes.into())
    }

    fn segment(&mut self, start: Lsn) -> Result<Arc<dyn File>> {
        if let Some((open, file)) = &self.open
            && *open == start
        {
            return Ok(file.clone());
        }
        let path = self.wal.dir.join(segment_name(start));
        let file = self.wal.io.vfs.open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => gone(self.at, self.wal.start()),
            _ => Error::io("opening a segment", &path, e),
        })?;
        self.open = Some((start, file.clone()));
        Ok(file)
    }
}

fn gone(at: Lsn, start: Lsn) -> Error {
    Error::new(
        ErrorKind::Gone,
        format!("position {at} is no longer kept; the log starts at {start}"),
    )
}
