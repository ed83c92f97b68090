//! Recipes that make files and names durable. Every "sync, then sync the parent" lives here.
//!
//! A recipe that ends in `_synced`, and [`write_file_new`], [`write_file_atomic`] and [`publish`],
//! are durable when they return Ok. Of the others the last line of the comment says what is left to
//! the caller. An error leaves either the state before or the state after, and perhaps a `.tmp`
//! file, which the owner of the directory sweeps at the next open.
//!
//! Errors name the file and the action, never content.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{File, Io};
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::rare;

/// Ends the name of a file that is not yet what it will be. Swept at open.
pub(crate) const TMP_SUFFIX: &str = ".tmp";

/// Bytes moved at a time by [`copy_file`].
const COPY_BYTES: usize = 1 << 20;

/// The directory that holds the name `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// The temporary name beside `path`: `path` + `.tmp`.
pub(crate) fn tmp_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(TMP_SUFFIX);
    PathBuf::from(name)
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(io: &Io, dir: &Path) -> Result<()> {
    io.vfs
        .sync_dir(dir)
        .map_err(|e| Error::io("syncing the directory", dir, e))
}

/// Makes `path` and its missing parents, durably; fine if it exists.
///
/// A name whose parent could not be synced is taken back, so that a second attempt does not take it
/// for durable.
pub(crate) fn create_dir_synced(io: &Io, path: &Path) -> Result<()> {
    let mut missing = Vec::new();
    let mut at = path;
    while at != Path::new(".")
        && !io
            .vfs
            .exists(at)
            .map_err(|e| Error::io("looking up the directory", at, e))?
    {
        missing.push(at);
        at = parent(at);
    }
    for dir in missing.into_iter().rev() {
        io.vfs
            .create_dir_all(dir)
            .map_err(|e| Error::io("creating the directory", dir, e))?;
        if let Err(e) = sync_dir(io, parent(dir)) {
            let _ = io.vfs.remove_dir(dir);
            return Err(e);
        }
    }
    Ok(())
}

/// Makes an empty file with a durable name; `Io` (`AlreadyExists` inside) if the name is taken.
///
/// What is written to it later is durable by [`File::sync`] alone.
pub(crate) fn create_synced(io: &Io, path: &Path) -> Result<Arc<dyn File>> {
    let file = create(io, path)?;
    sync_dir(io, parent(path))?;
    Ok(file)
}

/// Makes an empty file. The caller syncs the directory.
pub(crate) fn create(io: &Io, path: &Path) -> Result<Arc<dyn File>> {
    io.vfs
        .create(path)
        .map_err(|e| Error::io("creating the file", path, e))
}

/// Writes a new file under a name that is not in use, for names that recovery ignores until
/// something else points at them. A crash before the end may leave any part of it.
pub(crate) fn write_file_new(io: &Io, path: &Path, bytes: &[u8]) -> Result<()> {
    write_content(io, path, bytes)?;
    sync_dir(io, parent(path))
}

/// Replaces or makes `path` so that any crash leaves the old file or the new one, whole: write
/// `path.tmp`, sync, rename, sync the directory.
pub(crate) fn write_file_atomic(io: &Io, path: &Path, bytes: &[u8]) -> Result<()> {
    write_file_whole(io, path, bytes)?;
    sync_dir(io, parent(path))
}

/// The same but for its last step: any crash leaves the old file or the new one, whole. The caller syncs the
/// directory.
pub(crate) fn write_file_whole(io: &Io, path: &Path, bytes: &[u8]) -> Result<()> {
    let tmp = tmp_name(path);
    remove_if_exists(io, &tmp)?;
    write_content(io, &tmp, bytes)?;
    rename(io, &tmp, path)
}

/// Gives a file that is already synced its final name, durably.
pub(crate) fn publish(io: &Io, tmp: &Path, path: &Path) -> Result<()> {
    rename(io, tmp, path)?;
    if parent(tmp) != parent(path) {
        sync_dir(io, parent(tmp))?;
    }
    sync_dir(io, parent(path))
}

fn rename(io: &Io, from: &Path, to: &Path) -> Result<()> {
    io.vfs
        .rename(from, to)
        .map_err(|e| Error::io("renaming the file", from, e))
}

/// Removes a name, durably; fine if it is gone already.
pub(crate) fn remove_synced(io: &Io, path: &Path) -> Result<()> {
    remove_if_exists(io, path)?;
    sync_dir(io, parent(path))
}

/// Removes a name; false if there was none. The caller syncs the directory, if it must.
pub(crate) fn remove_if_exists(io: &Io, path: &Path) -> Result<bool> {
    match io.vfs.remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("removing the file", path, e)),
    }
}

/// Removes a directory and all below it; fine if there is none. The caller syncs its parent.
pub(crate) fn remove_tree(io: &Io, dir: &Path) -> Result<()> {
    let entries = match io.vfs.list(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("listing the directory", dir, e)),
    };
    for entry in entries {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            remove_tree(io, &path)?;
        } else {
            remove_if_exists(io, &path)?;
        }
    }
    io.vfs
        .remove_dir(dir)
        .map_err(|e| Error::io("removing the directory", dir, e))
}

/// Copies a file under a new name and syncs its bytes; returns their number. The caller syncs the
/// directory.
pub(crate) fn copy_file(io: &Io, from: &Path, to: &Path) -> Result<u64> {
    let source = io
        .vfs
        .open(from)
        .map_err(|e| Error::io("opening the file", from, e))?;
    let len = source
        .len()
        .map_err(|e| Error::io("reading the length", from, e))?;
    copy_range(io, source.as_ref(), from, to, len)?;
    Ok(len)
}

/// Copies the first `len` bytes of an open file under a new name and syncs them; `Corruption` if it
/// is shorter. The caller syncs the directory.
pub(crate) fn copy_prefix(io: &Io, from: &Path, to: &Path, len: u64) -> Result<()> {
    let source = io
        .vfs
        .open(from)
        .map_err(|e| Error::io("opening the file", from, e))?;
    copy_range(io, source.as_ref(), from, to, len)
}

/// Gives an immutable, synced file a second name, or copies it where the file system cannot; returns
/// its length. The caller syncs the directory.
pub(crate) fn link_or_copy(io: &Io, from: &Path, to: &Path) -> Result<u64> {
    use std::io::ErrorKind as K;
    match io.vfs.hard_link(from, to) {
        Ok(()) => {
            let file = io
                .vfs
                .open(to)
                .map_err(|e| Error::io("opening the file", to, e))?;
            file.len().map_err(|e| Error::io("reading the length", to, e))
        }
        // File systems without links answer Unsupported or (Linux, FAT) PermissionDenied.
        Err(e)
            if matches!(
                e.kind(),
                K::CrossesDevices | K::Unsupported | K::PermissionDenied | K::TooManyLinks
            ) =>
        {
            rare!(CopiedWhereLinksFail);
            copy_file(io, from, to)
        }
        Err(e) => Err(Error::io("linking the file", from, e)),
    }
}

/// The whole content of a file of at most `bytes_max` bytes; `Corruption` if it is longer. A missing
/// file is `NotFound`.
pub(crate) fn read_file_bounded(io: &Io, path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let file = open(io, path)?;
    let len = file.len().map_err(|e| Error::io("reading the length", path, e))?;
    if len > bytes_max {
        return Err(Error::corruption(
            path,
            0,
            "file length",
            format!("at most {bytes_max}"),
            len,
        ));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, 0)
        .map_err(|e| Error::io("reading the file", path, e))?;
    Ok(bytes)
}

/// Opens a file for reading; a missing one is `NotFound`, naming it.
pub(crate) fn open(io: &Io, path: &Path) -> Result<Arc<dyn File>> {
    io.vfs.open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "the file does not exist")
            .at(path)
            .with_source(e),
        _ => Error::io("opening the file", path, e),
    })
}

fn write_content(io: &Io, path: &Path, bytes: &[u8]) -> Result<()> {
    let file = create(io, path)?;
    file.write_all_at(bytes, 0)
        .map_err(|e| Error::io("writing the file", path, e))?;
    file.sync().map_err(|e| Error::io("syncing the file", path, e))
}

fn copy_range(io: &Io, source: &dyn File, from: &Path, to: &Path, len: u64) -> Result<()> {
    let target = create(io, to)?;
    let mut buf = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(COPY_BYTES)];
    let mut done = 0;
    while done < len {
        let step = usize::try_from(len - done).unwrap_or(usize::MAX).min(COPY_BYTES);
        let Some(part) = buf.get_mut(..step) else { break };
        source.read_exact_at(part, done).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::corruption(from, done, "file length", format!("at least {len}"), "less")
            }
            _ => Error::io("reading the file", from, e),
        })?;
        target
            .write_all_at(part, done)
            .map_err(|e| Error::io("writing the file", to, e))?;
        done += step as u64;
    }
    target.sync().map_err(|e| Error::io("syncing the file", to, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(io: &Io, path: &Path) -> Vec<u8> {
        read_file_bounded(io, path, 1 << 30).unwrap()
    }

    #[test]
    fn atomic_write_replaces_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let (io, path) = (Io::os(), dir.path().join("f"));
        write_file_new(&io, &tmp_name(&path), b"left by a crash").unwrap();
        write_file_atomic(&io, &path, b"one").unwrap();
        write_file_atomic(&io, &path, b"two").unwrap();
        assert_eq!(content(&io, &path), b"two");
        assert!(!io.vfs.exists(&tmp_name(&path)).unwrap());
        assert_eq!(
            write_file_new(&io, &path, b"x").unwrap_err().kind(),
            ErrorKind::Io
        );
    }

    #[test]
    fn deep_directories_are_made_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let io = Io::os();
        let deep = dir.path().join("a/b/c");
        create_dir_synced(&io, &deep).unwrap();
        create_dir_synced(&io, &deep).unwrap();
        create_synced(&io, &deep.join("f")).unwrap();
        remove_tree(&io, &dir.path().join("a")).unwrap();
        remove_tree(&io, &dir.path().join("a")).unwrap();
        assert!(!io.vfs.exists(&dir.path().join("a")).unwrap());
    }

    #[test]
    fn copies_and_links_carry_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let (io, from) = (Io::os(), dir.path().join("from"));
        let bytes: Vec<u8> = (0..COPY_BYTES as u32 + 7).map(|i| i as u8).collect();
        write_file_new(&io, &from, &bytes).unwrap();
        assert_eq!(
            copy_file(&io, &from, &dir.path().join("copy")).unwrap(),
            bytes.len() as u64
        );
        assert_eq!(
            link_or_copy(&io, &from, &dir.path().join("link")).unwrap(),
            bytes.len() as u64
        );
        copy_prefix(&io, &from, &dir.path().join("prefix"), 100).unwrap();
        assert_eq!(content(&io, &dir.path().join("copy")), bytes);
        assert_eq!(content(&io, &dir.path().join("link")), bytes);
        assert_eq!(content(&io, &dir.path().join("prefix")), bytes[..100]);
        let long = copy_prefix(&io, &from, &dir.path().join("long"), u64::MAX).unwrap_err();
        assert_eq!(
            (long.kind(), long.path()),
            (ErrorKind::Corruption, Some(from.as_path()))
        );
    }

    #[test]
    fn file_over_the_bound_is_refused_before_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (io, path) = (Io::os(), dir.path().join("f"));
        write_file_new(&io, &path, b"four").unwrap();
        assert_eq!(read_file_bounded(&io, &path, 4).unwrap(), b"four");
        assert_eq!(
            read_file_bounded(&io, &path, 3).unwrap_err().kind(),
            ErrorKind::Corruption
        );
        let none = read_file_bounded(&io, &dir.path().join("none"), 3).unwrap_err();
        assert_eq!(none.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn removal_is_repeatable() {
        let dir = tempfile::tempdir().unwrap();
        let (io, path) = (Io::os(), dir.path().join("f"));
        create_synced(&io, &path).unwrap();
        remove_synced(&io, &path).unwrap();
        remove_synced(&io, &path).unwrap();
        assert!(!remove_if_exists(&io, &path).unwrap());
    }
}
