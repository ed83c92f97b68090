//! A table or value file that is being written, front to back.
//!
//! Invariant: one that was not completed is removed when it is dropped; if that fails, or the process ends before,
//! opening the database sweeps it up, since nobody refers to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::io::{File, Io};

/// Bytes collected before a write.
pub(super) const WRITE_BYTES: usize = 1 << 20;

/// See the module.
pub(super) struct OutFile {
    io: Io,
    path: PathBuf,
    file: Arc<dyn File>,
    /// Not yet written; begins at file offset `written`.
    pub bytes: Vec<u8>,
    written: u64,
    complete: bool,
}

impl OutFile {
    /// Creates the file, which begins with `bytes`; `AlreadyExists` from the file system if the name is taken.
    pub fn create(io: &Io, path: &Path, bytes: Vec<u8>) -> Result<OutFile> {
        let file = io
            .vfs
            .create(path)
            .map_err(|e| Error::io("creating a table or value file", path, e))?;
        Ok(OutFile {
            io: io.clone(),
            path: path.to_path_buf(),
            file,
            bytes,
            written: 0,
            complete: false,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The offset of the next byte.
    pub fn at(&self) -> u64 {
        self.written + self.bytes.len() as u64
    }

    /// Writes what was collected, if that is much.
    pub fn write_if_much(&mut self) -> Result<()> {
        match self.bytes.len() >= WRITE_BYTES {
            true => self.write(),
            false => Ok(()),
        }
    }

    fn write(&mut self) -> Result<()> {
        self.file
            .write_all_at(&self.bytes, self.written)
            .map_err(|e| Error::io("writing a table or value file", &self.path, e))?;
        self.written += self.bytes.len() as u64;
        self.bytes.clear();
        if self.bytes.capacity() > 4 * WRITE_BYTES {
            self.bytes = Vec::new();
        }
        Ok(())
    }

    /// Ends the file with its directory and footer; durable if `synced`, but for its name, which is once the caller has
    /// synced the directory it is in. How long it is.
    pub fn complete(mut self, directory: &[u8], footer: &[u8], synced: bool) -> Result<u64> {
        self.bytes.reserve(directory.len() + footer.len());
        self.bytes.extend_from_slice(directory);
        self.bytes.extend_from_slice(footer);
        self.write()?;
        if synced {
            self.file
                .sync()
                .map_err(|e| Error::io("syncing a table or value file", &self.path, e))?;
        }
        self.complete = true;
        Ok(self.written)
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if !self.complete {
            let _ = self.io.vfs.remove_file(&self.path);
        }
    }
}
