//! Filling a directory with someone else's files: a base copy for a standby, or a restored backup.
//!
//! While it lasts the directory holds `INCOMPLETE`, which `open` refuses; it goes last. Interrupted at
//! any point, the directory is wiped by the next attempt and by nothing else.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::checkpoint_files;
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::{planted, rare};
use crate::io::{File, Io, durable};
use crate::keys::{EscrowSecret, KeyChanges, KeyProvider, open_escrow};
use crate::keystore::Keystore;
use crate::open::{CURRENT, INCOMPLETE, KEYSTORE_DIR, TABLES_DIR, WAL_DIR, check_tenants};
use crate::seal::FileKeys;
use crate::table::BlockCache;
use crate::types::Epoch;
use crate::version::{Edit, NodeState, VersionSet};

/// Bytes copied at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A standby's directory being filled from a base copy. Not openable before [`finish`](Self::finish).
pub struct BaseCopyReceiver {
    io: Io,
    dir: PathBuf,
    provider: Arc<dyn KeyProvider>,
    has_keys: bool,
    files: BTreeMap<String, (Arc<dyn File>, u64)>,
}

impl BaseCopyReceiver {
    /// Starts in `path`: missing, empty, or an unfinished copy, which is wiped. The key-encryption key that one's
    /// keystore was wrapped under is destroyed at the provider first.
    ///
    /// - Errors: `AlreadyExists` if anything else is there: move it away first; the provider's.
    pub fn start(path: impl AsRef<Path>, io: Io, provider: Arc<dyn KeyProvider>) -> Result<BaseCopyReceiver> {
        let dir = path.as_ref().to_path_buf();
        let marker = dir.join(INCOMPLETE);
        durable::create_dir_synced(&io, &dir)?;
        let entries = io
            .vfs
            .list(&dir)
            .map_err(|e| Error::io("listing a directory", &dir, e))?;
        let unfinished = entries.iter().any(|e| e.name == INCOMPLETE);
        if !unfinished && !entries.is_empty() {
            return Err(Error::new(ErrorKind::AlreadyExists, "the directory is not empty").at(&dir));
        }
        if !unfinished {
            durable::create_synced(&io, &marker)?;
        }
        if unfinished {
            rare!(CopyBegunAgain);
            Keystore::give_up(&dir.join(KEYSTORE_DIR), &io, &*provider)?;
        }
        wipe(&io, &dir, &[INCOMPLETE])?;
        for sub in [TABLES_DIR, WAL_DIR] {
            durable::create_dir_synced(&io, &dir.join(sub))?;
        }
        Ok(BaseCopyReceiver {
            io,
            dir,
            provider,
            has_keys: false,
            files: BTreeMap::new(),
        })
    }

    /// The full key set: makes this node's keystore, under its own root. Once, before `finish`.
    pub fn keys(&mut self, changes: &KeyChanges) -> Result<()> {
        if self.has_keys || !changes.full {
            return Err(Error::new(
                ErrorKind::Invalid,
                "a base copy takes one full key set",
            ));
        }
        let dir = self.dir.join(KEYSTORE_DIR);
        Keystore::create(&dir, &self.io, self.provider.clone(), Some(changes))?;
        self.has_keys = true;
        Ok(())
    }

    /// Bytes of a checkpoint's file, each file's in order. `name` as [`checkpoint_files`] gave it.
    ///
    /// - Errors: `Invalid` for a name outside the directory or bytes out of order.
    pub fn chunk(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        let path = self.place(name)?;
        if !self.files.contains_key(name) {
            let file = durable::create(&self.io, &path)?;
            self.files.insert(name.to_owned(), (file, 0));
        }
        let Some((file, len)) = self.files.get_mut(name) else {
            return Ok(());
        };
        if *len != offset {
            return Err(Error::new(ErrorKind::Invalid, "a base copy's bytes came out of order").at(&path));
        }
        file.write_all_at(bytes, offset)
            .map_err(|e| Error::io("writing a base copy", &path, e))?;
        *len = len.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// A peer names files: only those a checkpoint can hold, where a checkpoint holds them.
    fn place(&self, name: &str) -> Result<PathBuf> {
        let parts: Vec<Component<'_>> = Path::new(name).components().collect();
        let fine = match parts.as_slice() {
            [Component::Normal(file)] => {
                *file == CURRENT || file.to_str().is_some_and(|f| f.starts_with("manifest-"))
            }
            [Component::Normal(dir), Component::Normal(_)] => *dir == TABLES_DIR || *dir == WAL_DIR,
            _ => false,
        };
        if fine {
            Ok(self.dir.join(name))
        } else {
            Err(Error::new(
                ErrorKind::Invalid,
                "a base copy holds only a checkpoint's files",
            ))
        }
    }

    /// Syncs everything and makes the directory openable.
    pub fn finish(self) -> Result<()> {
        if !self.has_keys || !self.files.contains_key(CURRENT) {
            return Err(Error::new(ErrorKind::Invalid, "the base copy is not complete").at(&self.dir));
        }
        for (name, (file, _)) in &self.files {
            if planted!(BaseCopyNotSynced) {
                break;
            }
            file.sync()
                .map_err(|e| Error::io("sync of a base copy", &self.dir.join(name), e))?;
        }
        complete(&self.io, &self.dir)
    }
}

fn complete(io: &Io, dir: &Path) -> Result<()> {
    for sub in [TABLES_DIR, WAL_DIR] {
        durable::sync_dir(io, &dir.join(sub))?;
    }
    durable::sync_dir(io, dir)?;
    durable::remove_synced(io, &dir.join(INCOMPLETE))
}

/// Removes everything in `dir` but the files named in `keep`.
pub(crate) fn wipe(io: &Io, dir: &Path, keep: &[&str]) -> Result<()> {
    let entries = io
        .vfs
        .list(dir)
        .map_err(|e| Error::io("listing a directory", dir, e))?;
    for entry in entries.iter().filter(|e| !keep.contains(&e.name.as_str())) {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            durable::remove_tree(io, &path)?;
        } else {
            durable::remove_if_exists(io, &path)?;
        }
    }
    durable::sync_dir(io, dir)
}

/// Outcome of [`restore`].
#[derive(Clone, Debug)]
pub struct Restored {
    /// The new database's identity.
    pub database_id: [u8; 16],
    /// Files copied.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Restores a checkpoint with the escrow of its keys into the new directory `to`.
///
/// The result is a database of its own: new identity, a new term, salts of its own from its first
/// write on, and fenced: it opens, reads, and refuses writes until
/// [`accept_restored`](crate::Engine::accept_restored). The checkpoint is not changed.
///
/// - Errors: `KeyRefused` (the escrow is not for `secret`), `AlreadyExists` (`to` is in use),
///   `Corruption` (the checkpoint is damaged), `NoSpace`.
pub fn restore(
    from: impl AsRef<Path>,
    escrow: &[u8],
    secret: &EscrowSecret,
    to: impl AsRef<Path>,
    provider: Arc<dyn KeyProvider>,
    io: &Io,
) -> Result<Restored> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let keys = open_escrow(escrow, secret)?;
    let files = checkpoint_files(from, io)?;
    let mut receiver = BaseCopyReceiver::start(to, io.clone(), provider.clone())?;
    receiver.keys(&keys)?;
    let mut bytes = 0;
    for (name, len) in &files {
        copy_in(io, from, name, *len, &mut receiver)?;
        bytes += len;
    }
    let BaseCopyReceiver { files: copied, .. } = &receiver;
    for (name, (file, _)) in copied {
        file.sync()
            .map_err(|e| Error::io("sync of a restored file", &to.join(name), e))?;
    }
    let database_id = take_identity(io, to, provider)?;
    complete(io, to)?;
    Ok(Restored {
        database_id,
        files: files.len() as u64,
        bytes,
    })
}

fn copy_in(io: &Io, from: &Path, name: &str, len: u64, receiver: &mut BaseCopyReceiver) -> Result<()> {
    let path = from.join(name);
    let file = durable::open(io, &path)?;
    let mut buffer = vec![0; CHUNK_BYTES.min(len as usize).max(1)];
    let mut offset = 0;
    while offset < len {
        let take = (len - offset).min(buffer.len() as u64) as usize;
        let Some(part) = buffer.get_mut(..take) else { break };
        file.read_exact_at(part, offset)
            .map_err(|e| Error::io("reading a checkpoint", &path, e))?;
        receiver.chunk(name, offset, part)?;
        offset += take as u64;
    }
    if len == 0 {
        receiver.chunk(name, 0, &[])?;
    }
    Ok(())
}

/// Gives the copy in `dir` an identity, an epoch above the original's, and the fence.
fn take_identity(io: &Io, dir: &Path, provider: Arc<dyn KeyProvider>) -> Result<[u8; 16]> {
    let keystore = Arc::new(Keystore::open(&dir.join(KEYSTORE_DIR), io, provider)?);
    let keys = Arc::new(FileKeys::new(keystore.clone(), 64));
    let versions = VersionSet::open(dir, io, keys, Arc::new(BlockCache::new(0)))?;
    check_tenants(dir, &keystore, &versions)?;
    let mut database_id = [0; 16];
    io.rng
        .fill(&mut database_id)
        .map_err(|e| Error::io("drawing random bytes", dir, e))?;
    let epoch: Epoch = versions.state().highest_epoch.promoted();
    if epoch == Epoch::LAST {
        return Err(Error::new(ErrorKind::Invalid, "no term is left to restore to").at(dir));
    }
    versions.log_and_apply(Edit {
        database_id: Some(database_id),
        state: (!planted!(RestoreServesAtOnce)).then_some(NodeState::AwaitingAcceptance),
        highest_epoch: Some(epoch),
        fenced_by: Some(Epoch::ZERO),
        ..Edit::default()
    })?;
    keystore.close()?;
    versions.close()?;
    Ok(database_id)
}
