//! The seam to the machine: files, clock, random bytes. Nothing else in the engine touches them.
//!
//! `os` is the real one; `sim` (feature `sim`) is a file system in memory that loses what was not
//! synced. The durability rules the engine relies on, and both implement:
//!
//! 1. Bytes written are durable after `File::sync` returned Ok; before, any subset of them may be.
//! 2. A name created, renamed or removed is durable after `Vfs::sync_dir` of its directory returned
//!    Ok; before, each such change may or may not be. Syncing a file does not make its name durable.
//! 3. A rename is atomic: after a crash the target name holds the old file or the new one.
//! 4. After a failed sync nothing is known about the bytes since the last good one. It is not retried.

pub(crate) mod durable;
mod os;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
#[cfg(target_os = "linux")]
mod window;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use os::{OsClock, OsRng, OsVfs};

/// An open file. Reads and writes name their offset; there is no cursor to share.
#[expect(
    clippy::len_without_is_empty,
    reason = "the length is a system call that can fail"
)]
pub trait File: Send + Sync {
    /// Fills `buf` from `offset`; `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, growing the file as needed. Retries short writes and EINTR.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes bytes and length durable (fdatasync). Final when it fails: never call it again after.
    fn sync(&self) -> io::Result<()>;
    /// Begins to write these bytes out and does not wait: the next sync has less to do. A hint that promises
    /// nothing and may do nothing; what fails shows at that sync.
    fn begin_sync(&self, _offset: u64, _len: u64) {}
    /// Prepares `len` bytes from `offset` on, which exist, for many small writes: from now on
    /// [`write_all_at`](File::write_all_at) may copy what lies wholly inside them to where the system keeps the file's
    /// pages, without a call. Same durability, same order. Ends with the next call, and by `set_len`.
    ///
    /// False: not on this file system; such writes go on as they were.
    fn map(&self, _offset: u64, _len: u64) -> bool {
        false
    }
    /// Cuts or zero-extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Current length in bytes.
    fn len(&self) -> io::Result<u64>;
}

/// What [`Vfs::list`] tells of one directory entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// File name without its directory.
    pub name: String,
    /// Length in bytes; 0 for directories.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Released when dropped, and by the operating system when the process dies.
pub trait DirLock: Send + Sync {}

/// A file system.
pub trait Vfs: Send + Sync {
    /// Creates a directory and its parents; fine if it exists.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Creates a file for reading and writing (mode 0600); `AlreadyExists` if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading and writing.
    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Renames a file, replacing the target. Atomic; durable after `sync_dir` of both parents.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name. Open handles go on working.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Gives a file a second name. `CrossesDevices` or `Unsupported` where it cannot.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// The entries of a directory, in order of name; `NotFound` if it does not exist.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Makes names in `path` durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Whether anything has this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Takes the exclusive lock file `path`, creating it; `WouldBlock` if another holder has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>>;
}

/// Time. Wall time goes into records; monotonic time only into waits and statistics.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970, as the machine believes.
    fn now_ms(&self) -> u64;
    /// Time since some fixed moment, never going back.
    fn monotonic(&self) -> Duration;
}

/// Random bytes, unpredictable and never from a pool in user space that a clone would share.
pub trait Rng: Send + Sync {
    /// Fills `buf`.
    fn fill(&self, buf: &mut [u8]) -> io::Result<()>;
}

/// The machine, as one cheap handle.
#[derive(Clone)]
pub struct Io {
    /// Files.
    pub vfs: Arc<dyn Vfs>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
}

impl Io {
    /// The real machine.
    pub fn os() -> Io {
        Io {
            vfs: Arc::new(OsVfs),
            clock: Arc::new(OsClock::new()),
            rng: Arc::new(OsRng),
        }
    }
}

impl Default for Io {
    fn default() -> Io {
        Io::os()
    }
}
