//! The log beside a base: tenants created since it was written, one frame for each change.
//!
//! A log belongs to one base, which names its file id, and is there before that base is: a base that names
//! a log without one is damage. It is appended to by the process that made it, and by no other (S1): a
//! later process folds it into a new base. Every append is synced before it is acknowledged.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::base::ROOT_VERSION;
use super::format::{self, FRAME_HEAD_BYTES, Frame, LOG_BYTES_MAX, LOG_HEAD_BYTES};
use crate::error::{Error, Result};
use crate::hooks::{planted, rare};
use crate::io::{File, Io, durable};
use crate::keys::KeyChanges;
use crate::seal::{Aad, Dek, FileHeader, FileKey, FileKind, Nonces, Piece, SEAL_OVERHEAD};
use crate::types::{Chain, Epoch, TenantId};

/// A log being written.
pub(super) struct LogWriter {
    path: PathBuf,
    file: Arc<dyn File>,
    header: FileHeader,
    key: FileKey,
    nonces: Nonces,
    /// Where the next frame goes.
    end: u64,
    ordinal: u64,
}

/// How an append failed.
pub(super) enum AppendFailed {
    /// The write: the log is useless from here on, but nothing is lost. A new base replaces it.
    Write(Error),
    /// The sync: nothing is known any more.
    Sync(Error),
}

impl LogWriter {
    /// Makes an empty log; replaces one that no base ever named. The caller syncs the directory before a base names it.
    pub fn create(io: &Io, dir: &Path, generation: u64, root: &Dek) -> Result<LogWriter> {
        let path = format::log_path(dir, generation);
        let header = FileHeader::new(io, FileKind::Keystore, Epoch::ZERO, generation, Chain::default())?;
        let key = FileKey::derive(root, &header, TenantId::SYSTEM, ROOT_VERSION);
        let head = [header.encode().as_slice(), &key.commitment()].concat();
        durable::write_file_whole(io, &path, &head)?;
        let file = io
            .vfs
            .open_rw(&path)
            .map_err(|e| Error::io("opening the file", &path, e))?;
        let nonces = Nonces::new(io.rng.clone());
        Ok(LogWriter {
            path,
            file,
            header,
            key,
            nonces,
            end: LOG_HEAD_BYTES as u64,
            ordinal: 0,
        })
    }

    /// The log's identity, for the base.
    pub fn file_id(&self) -> [u8; 16] {
        self.header.file_id
    }

    /// Whether a change of `plain` bytes still fits.
    pub fn has_room(&self, plain: usize) -> bool {
        let frame = (plain + SEAL_OVERHEAD + FRAME_HEAD_BYTES) as u64;
        self.end.saturating_add(frame) <= LOG_BYTES_MAX
    }

    /// Appends `plain`, an encoded [`KeyChanges`]; durable when it returns. After an error the log must not
    /// be appended to.
    pub fn append(&mut self, plain: &[u8]) -> std::result::Result<(), AppendFailed> {
        let aad = frame_aad(&self.header, self.end, plain.len(), self.ordinal);
        let mut frame = vec![0u8; FRAME_HEAD_BYTES];
        self.key
            .seal(&self.nonces, &aad, plain, &mut frame)
            .map_err(AppendFailed::Write)?;
        if let Some((head, sealed)) = frame.split_first_chunk_mut::<FRAME_HEAD_BYTES>() {
            *head = format::frame_head(sealed);
        }
        let io = |action, e| Error::io(action, &self.path, e);
        self.file
            .write_all_at(&frame, self.end)
            .map_err(|e| AppendFailed::Write(io("writing the file", e)))?;
        if !planted!(KeyLogNotSynced) {
            self.file
                .sync()
                .map_err(|e| AppendFailed::Sync(io("syncing the file", e)))?;
        }
        self.end += frame.len() as u64;
        self.ordinal += 1;
        Ok(())
    }
}

/// What a log of an earlier process held.
pub(super) struct Replayed {
    /// Its changes, oldest first.
    pub changes: Vec<KeyChanges>,
    /// Whether anything follows its head, whole or torn: it must be folded.
    pub used: bool,
    /// Bytes at its end that a crash left, and that count for nothing.
    pub torn_bytes: u64,
}

/// Reads the log of `generation`, which the base says has identity `file_id`. A torn tail is left out.
/// Errors: `Corruption` naming the file.
pub(super) fn replay(
    io: &Io,
    path: &Path,
    generation: u64,
    file_id: [u8; 16],
    root: &Dek,
) -> Result<Replayed> {
    let exists = io
        .vfs
        .exists(path)
        .map_err(|e| Error::io("looking for the file", path, e))?;
    if !exists {
        return Err(Error::corruption(
            path,
            0,
            "keystore log",
            "the file its base names",
            "none",
        ));
    }
    let bytes = durable::read_file_bounded(io, path, LOG_BYTES_MAX)?;
    let header = FileHeader::decode(path, &bytes, FileKind::Keystore)?;
    if header.number != generation || header.file_id != file_id {
        return Err(Error::corruption(
            path,
            16,
            "keystore log",
            "the log its base names",
            "another",
        ));
    }
    let key = FileKey::derive(root, &header, TenantId::SYSTEM, ROOT_VERSION);
    if !bytes
        .get(FileHeader::BYTES..LOG_HEAD_BYTES)
        .is_some_and(|c| key.matches(c))
    {
        let (expected, found) = ("the commitment of its key", "another");
        return Err(Error::corruption(
            path,
            FileHeader::BYTES as u64,
            "keystore log",
            expected,
            found,
        ));
    }
    let (mut offset, mut changes) = (LOG_HEAD_BYTES, Vec::new());
    loop {
        let at = offset as u64;
        match format::frame_at(&bytes, offset) {
            Frame::End => break,
            Frame::Torn => {
                rare!(KeystoreFrameTorn);
                break;
            }
            Frame::Damaged(next) => {
                let found = format!("damage, and a frame after it at byte {next}");
                return Err(Error::corruption(
                    path,
                    at,
                    "keystore log frame",
                    "a frame",
                    found,
                ));
            }
            Frame::Whole(sealed, next) => {
                let plain_len = sealed.len() - SEAL_OVERHEAD;
                let aad = frame_aad(&header, at, plain_len, changes.len() as u64);
                let plain = key
                    .open(&aad, sealed)
                    .map(zeroize::Zeroizing::new)
                    .map_err(|failed| {
                        Error::corruption(path, at, "keystore log frame", "a tag that matches", failed)
                    })?;
                changes.push(KeyChanges::decode(&plain).map_err(|e| e.at(path))?);
                offset = next;
            }
        }
    }
    Ok(Replayed {
        changes,
        used: bytes.len() > LOG_HEAD_BYTES,
        torn_bytes: bytes.len().saturating_sub(offset) as u64,
    })
}

fn frame_aad(header: &FileHeader, offset: u64, plain_len: usize, ordinal: u64) -> Aad {
    Aad {
        piece: Piece::Keys,
        tenant: TenantId::SYSTEM,
        file: header.file_id,
        offset,
        plain_len: plain_len as u32,
        a: ordinal,
        b: 0,
    }
}
