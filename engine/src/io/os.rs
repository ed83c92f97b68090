//! The real machine: files by the standard library, `fdatasync`, `flock`, the kernel's random bytes.
//!
//! The only file of the engine, with `window`, that may call the operating system (clippy.toml forbids it elsewhere).
//! Files are made with mode 0600 and directories with 0700: what they hold is sealed, but sizes and
//! times are nobody else's business either.
//!
//! Interrupted calls and short reads and writes are retried here, by [`fill`] and [`drain`]; interrupted
//! syncs by the standard library. A failed `fdatasync` is passed on as it is and never retried: Linux drops
//! the error with the dirty pages, so that a second call would report success for lost bytes
//! (Rebello et al., ATC'20).
//!
//! The lock is `flock` on a file that is never removed: removing it would let two processes hold
//! locks on two files of one name. It holds the owner's process id, for the message of the loser.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the one place that touches the machine"
)]

use std::fs::{DirBuilder, File as StdFile, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[cfg(target_os = "linux")]
use super::window::Window;
use super::{Clock, DirEntry, DirLock, File, Rng, Vfs};

const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
/// More than any process id needs; what a lock file holds beyond it is not ours.
const PID_BYTES_MAX: usize = 20;

/// Reads all of `buf` by calls of `read` that may give less or be interrupted.
fn fill(
    mut buf: &mut [u8],
    mut offset: u64,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<()> {
    while !buf.is_empty() {
        match read(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buf = buf.get_mut(n..).unwrap_or_default();
                offset = offset.saturating_add(n as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Writes all of `bytes` by calls of `write` that may take less or be interrupted. A call that takes
/// nothing would be repeated for ever: it is an error.
fn drain(
    mut bytes: &[u8],
    mut offset: u64,
    mut write: impl FnMut(&[u8], u64) -> io::Result<usize>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = bytes.get(n..).unwrap_or_default();
                offset = offset.saturating_add(n as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

struct OsFile {
    file: StdFile,
    /// Where writes are copies.
    #[cfg(target_os = "linux")]
    window: parking_lot::Mutex<Option<Window>>,
}

impl OsFile {
    fn new(file: StdFile) -> OsFile {
        OsFile {
            file,
            #[cfg(target_os = "linux")]
            window: parking_lot::Mutex::new(None),
        }
    }
}

impl File for OsFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        fill(buf, offset, |part, at| self.file.read_at(part, at))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Some(window) = &mut *self.window.lock()
            && window.write(bytes, offset)
        {
            return Ok(());
        }
        drain(bytes, offset, |part, at| self.file.write_at(part, at))
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    #[cfg(target_os = "linux")]
    fn map(&self, offset: u64, len: u64) -> bool {
        let mut window = self.window.lock();
        // The one before goes first: there is one at a time.
        *window = None;
        let exist = |file: u64| offset.checked_add(len).is_some_and(|end| end <= file);
        if self.len().is_ok_and(exist) {
            *window = Window::over(&self.file, offset, len);
        }
        window.is_some()
    }

    fn begin_sync(&self, offset: u64, len: u64) {
        // Linux starts to write dirty pages of the range before it drops its clean ones. It is advice: an
        // error means that it was not taken.
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{Advice, fadvise};
            let _ = fadvise(
                &self.file,
                offset,
                std::num::NonZeroU64::new(len),
                Advice::DontNeed,
            );
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // A window must not reach beyond the end; nor may one be opened until the end is where it will be.
        #[cfg(target_os = "linux")]
        let mut window = self.window.lock();
        #[cfg(target_os = "linux")]
        {
            *window = None;
        }
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsVfs;

/// `flock` on an open file: released when the file is closed, also by the death of the process.
struct OsLock(#[expect(dead_code, reason = "held for its drop")] StdFile);

impl DirLock for OsLock {}

impl Vfs for OsVfs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(path)?;
        Ok(Arc::new(OsFile::new(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(OsFile::new(StdFile::open(path)?)))
    }

    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(OsFile::new(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed since it was listed.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let is_dir = metadata.is_dir();
            entries.push(DirEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                len: if is_dir { 0 } else { metadata.len() },
                is_dir,
            });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        StdFile::open(path)?.sync_all()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        // Not truncated on opening: until the lock is ours, the content is its holder's.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = match holder(&file) {
                    Some(pid) => format!("held by process {pid}"),
                    None => "held by another process".to_string(),
                };
                return Err(io::Error::new(io::ErrorKind::WouldBlock, holder));
            }
            Err(TryLockError::Error(e)) => return Err(e),
        }
        // Of one length whoever writes it: cutting off what was there would be a change of metadata, which costs more
        // than the lock.
        let pid = format!("{:<1$}\n", std::process::id(), PID_BYTES_MAX - 1);
        file.write_all_at(pid.as_bytes(), 0)?;
        Ok(Box::new(OsLock(file)))
    }
}

/// The process id in a lock file, if it is one.
fn holder(file: &StdFile) -> Option<u32> {
    let mut buf = [0; PID_BYTES_MAX];
    let read = file.read_at(&mut buf, 0).ok()?;
    std::str::from_utf8(buf.get(..read)?).ok()?.trim().parse().ok()
}

/// The operating system's time.
#[derive(Clone, Copy, Debug)]
pub struct OsClock {
    start: Instant,
}

impl OsClock {
    /// A clock whose monotonic time counts from now.
    pub fn new() -> OsClock {
        OsClock {
            start: Instant::now(),
        }
    }
}

impl Default for OsClock {
    fn default() -> OsClock {
        OsClock::new()
    }
}

impl Clock for OsClock {
    fn now_ms(&self) -> u64 {
        // A clock set before 1970 reads as 1970.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The kernel's random bytes, asked for anew each time: a cloned virtual machine shares no pool of ours.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRng;

impl Rng for OsRng {
    fn fill(&self, buf: &mut [u8]) -> io::Result<()> {
        getrandom::fill(buf).map_err(|e| io::Error::other(format!("the system's random source: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn new_files_and_directories_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        OsVfs.create_dir_all(&deep).unwrap();
        OsVfs.create_dir_all(&deep).unwrap();
        OsVfs.create(&deep.join("f")).unwrap();
        assert_eq!(mode(&dir.path().join("a")), DIR_MODE);
        assert_eq!(mode(&deep), DIR_MODE);
        assert_eq!(mode(&deep.join("f")), FILE_MODE);
    }

    #[test]
    fn written_bytes_are_read_back_at_their_offset() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = OsVfs.create(&path).unwrap();
        file.write_all_at(b"world", 5).unwrap();
        file.write_all_at(b"hello", 0).unwrap();
        file.sync().unwrap();
        assert_eq!(file.len().unwrap(), 10);
        let mut buf = [0; 10];
        OsVfs.open(&path).unwrap().read_exact_at(&mut buf, 0).unwrap();
        assert_eq!(&buf, b"helloworld");
        let past = OsVfs.open(&path).unwrap().read_exact_at(&mut buf, 1).unwrap_err();
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
        file.set_len(3).unwrap();
        assert_eq!(file.len().unwrap(), 3);
        assert_eq!(
            OsVfs.create(&path).err().unwrap().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(
            OsVfs.open(&dir.path().join("none")).err().unwrap().kind(),
            io::ErrorKind::NotFound
        );
    }

    /// Answers of a call in turn: so many bytes, or an error.
    fn answers<const N: usize>(of: [io::Result<usize>; N]) -> impl FnMut(usize) -> io::Result<usize> {
        let mut next = of.into_iter();
        move |most| match next.next() {
            Some(Ok(n)) => Ok(n.min(most)),
            Some(Err(e)) => Err(e),
            None => Ok(most),
        }
    }

    fn interrupted() -> io::Result<usize> {
        Err(io::ErrorKind::Interrupted.into())
    }

    #[test]
    fn short_and_interrupted_reads_go_on_where_they_stopped() {
        let disk: Vec<u8> = (0..100).collect();
        let mut answer = answers([interrupted(), Ok(1), Ok(7), interrupted(), interrupted(), Ok(30)]);
        let mut buf = [0; 60];
        fill(&mut buf, 20, |part, at| {
            let n = answer(part.len())?;
            part[..n].copy_from_slice(&disk[at as usize..at as usize + n]);
            Ok(n)
        })
        .unwrap();
        assert_eq!(buf, disk[20..80]);
        fill(&mut [], 0, |_, _| panic!("nothing to read")).unwrap();
    }

    #[test]
    fn read_past_the_end_and_failed_read_are_errors() {
        let mut answer = answers([Ok(3), interrupted(), Ok(0)]);
        let ended = fill(&mut [0; 8], 0, |part, _| answer(part.len())).unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
        let mut answer = answers([Ok(3), Err(io::ErrorKind::Other.into())]);
        let failed = fill(&mut [0; 8], 0, |part, _| answer(part.len())).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::Other);
    }

    #[test]
    fn short_and_interrupted_writes_go_on_where_they_stopped() {
        let mut disk = [0; 100];
        let bytes: Vec<u8> = (1..61).collect();
        let mut answer = answers([Ok(2), interrupted(), Ok(1), Ok(40), interrupted()]);
        drain(&bytes, 20, |part, at| {
            let n = answer(part.len())?;
            disk[at as usize..at as usize + n].copy_from_slice(&part[..n]);
            Ok(n)
        })
        .unwrap();
        assert_eq!(disk[20..80], bytes);
        assert!(disk[..20].iter().chain(&disk[80..]).all(|b| *b == 0));
        drain(&[], 0, |_, _| panic!("nothing to write")).unwrap();
    }

    #[test]
    fn write_that_takes_nothing_and_failed_write_are_errors() {
        let mut answer = answers([Ok(3), Ok(0)]);
        let stuck = drain(&[0; 8], 0, |part, _| answer(part.len())).unwrap_err();
        assert_eq!(stuck.kind(), io::ErrorKind::WriteZero);
        let mut answer = answers([interrupted(), Err(io::ErrorKind::StorageFull.into())]);
        let failed = drain(&[0; 8], 0, |part, _| answer(part.len())).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn listing_is_in_order_of_name_with_lengths() {
        let dir = tempfile::tempdir().unwrap();
        OsVfs
            .create(&dir.path().join("b"))
            .unwrap()
            .write_all_at(b"123", 0)
            .unwrap();
        OsVfs.create(&dir.path().join("c")).unwrap();
        OsVfs.create_dir_all(&dir.path().join("a")).unwrap();
        OsVfs
            .rename(&dir.path().join("c"), &dir.path().join("d"))
            .unwrap();
        OsVfs
            .hard_link(&dir.path().join("b"), &dir.path().join("e"))
            .unwrap();
        OsVfs.sync_dir(dir.path()).unwrap();
        let entries = OsVfs.list(dir.path()).unwrap();
        let seen: Vec<_> = entries
            .iter()
            .map(|e| (e.name.as_str(), e.len, e.is_dir))
            .collect();
        assert_eq!(
            seen,
            [("a", 0, true), ("b", 3, false), ("d", 0, false), ("e", 3, false)]
        );
        OsVfs.remove_file(&dir.path().join("b")).unwrap();
        OsVfs.remove_dir(&dir.path().join("a")).unwrap();
        assert!(!OsVfs.exists(&dir.path().join("b")).unwrap());
        assert!(OsVfs.exists(&dir.path().join("e")).unwrap());
    }

    #[test]
    fn second_lock_is_refused_naming_the_holder_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = OsVfs.lock(&path).unwrap();
        let refused = OsVfs.lock(&path).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(
            refused.to_string().contains(&std::process::id().to_string()),
            "{refused}"
        );
        drop(held);
        OsVfs.lock(&path).unwrap();
    }

    #[test]
    fn clock_and_randomness_move() {
        let clock = OsClock::new();
        let (a, b) = (clock.monotonic(), clock.monotonic());
        assert!(a <= b);
        assert!(clock.now_ms() > 1_500_000_000_000);
        let (mut x, mut y) = ([0; 32], [0; 32]);
        OsRng.fill(&mut x).unwrap();
        OsRng.fill(&mut y).unwrap();
        assert_ne!(x, y);
    }
}
