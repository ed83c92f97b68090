//! A backup on demand: a checkpoint in one place, its keys, sealed, in another.
//!
//! Order: the recipient is understood and both places are free, before anything is written; the checkpoint; the
//! escrow, which then holds a key for every tenant in the checkpoint that was not destroyed meanwhile. If the
//! escrow fails, the checkpoint is removed again: without keys it is nothing but bytes.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use strongroom::keys::EscrowRecipient;
use strongroom::{Checkpoint, Engine, Error, ErrorKind, Result};

/// What was made.
pub struct Created {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Length of the escrow file.
    pub escrow_bytes: u64,
}

/// Copies the database into the new directory `directory`, and its keys, sealed to `recipient`, into the new
/// file `escrow_path`.
///
/// Errors: `Invalid` (recipient, a path that is relative or has `..`, the escrow inside the directory),
/// `AlreadyExists`, `NoSpace`, `Io`.
pub fn create(engine: &Engine, directory: &Path, recipient: &str, escrow_path: &Path) -> Result<Created> {
    let recipient = EscrowRecipient::parse(recipient)?;
    for (what, path) in [("directory", directory), ("escrow path", escrow_path)] {
        let plain = path
            .components()
            .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
        if !path.is_absolute() || !plain || path.file_name().is_none() {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the {what} must be an absolute path without .."),
            ));
        }
        // Also a dangling link: something is there.
        if path.symlink_metadata().is_ok() {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("the {what} exists")).at(path));
        }
    }
    let together = || {
        let text = "the escrow must lie outside the backup: whoever finds one must not find the other";
        Error::new(ErrorKind::Invalid, text)
    };
    if escrow_path.starts_with(directory) {
        return Err(together());
    }
    // As the file system sees them: a link may lead one into the other.
    let parent = |path: &Path| {
        let parent = path.parent().unwrap_or(path);
        parent
            .canonicalize()
            .map_err(|e| Error::io("find directory", parent, e))
    };
    let target = parent(directory)?.join(directory.file_name().unwrap_or_default());
    if parent(escrow_path)?.starts_with(&target) {
        return Err(together());
    }
    let checkpoint = engine.checkpoint(directory)?;
    let escrow = engine.escrow(&recipient).and_then(|sealed| {
        write_new(escrow_path, &sealed)?;
        Ok(sealed.len() as u64)
    });
    match escrow {
        Ok(escrow_bytes) => Ok(Created {
            checkpoint,
            escrow_bytes,
        }),
        Err(error) => {
            if let Err(left) = std::fs::remove_dir_all(directory) {
                tracing::warn!(error = %left, "a checkpoint without escrow remains");
            }
            Err(error)
        }
    }
}

/// Writes a file that did not exist, readable by its owner only, and makes it last.
fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|e| Error::io("write escrow", path, e))?;
    let parent = path.parent().unwrap_or(path);
    let synced = std::fs::File::open(parent).and_then(|directory| directory.sync_all());
    synced.map_err(|e| Error::io("sync directory", parent, e))
}
