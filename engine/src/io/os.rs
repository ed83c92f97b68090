//! Skeleton.
use super::*;
/// Real files.
pub struct OsVfs;
/// Real time.
pub struct OsClock;
impl OsClock {
    /// A clock.
    pub fn new() -> OsClock { OsClock }
}
/// Real randomness.
pub struct OsRng;
impl Rng for OsRng { fn fill(&self, _: &mut [u8]) -> io::Result<()> { unimplemented!() } }
impl Clock for OsClock { fn now_ms(&self) -> u64 { unimplemented!() } fn monotonic(&self) -> Duration { unimplemented!() } }
impl Vfs for OsVfs {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> { unimplemented!() }
    fn create(&self, _: &Path) -> io::Result<Arc<dyn File>> { unimplemented!() }
    fn open(&self, _: &Path) -> io::Result<Arc<dyn File>> { unimplemented!() }
    fn open_rw(&self, _: &Path) -> io::Result<Arc<dyn File>> { unimplemented!() }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> { unimplemented!() }
    fn remove_file(&self, _: &Path) -> io::Result<()> { unimplemented!() }
    fn remove_dir(&self, _: &Path) -> io::Result<()> { unimplemented!() }
    fn hard_link(&self, _: &Path, _: &Path) -> io::Result<()> { unimplemented!() }
    fn list(&self, _: &Path) -> io::Result<Vec<DirEntry>> { unimplemented!() }
    fn sync_dir(&self, _: &Path) -> io::Result<()> { unimplemented!() }
    fn exists(&self, _: &Path) -> io::Result<bool> { unimplemented!() }
    fn lock(&self, _: &Path) -> io::Result<Box<dyn DirLock>> { unimplemented!() }
}
