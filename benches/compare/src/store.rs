//! What every engine must offer to be measured: the same six calls, with the same meaning of durable.

use std::path::Path;

use anyhow::Result;

/// What a store is opened with. The same for all.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Cache, in bytes. LMDB has none of its own: it uses the page cache, whatever this says.
    pub cache_bytes: u64,
    /// Memory for writes not yet in tables, in bytes, where the engine has such a thing.
    pub write_buffer_bytes: usize,
}

/// An entry to be written.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Which way a scan goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Forward,
    Backward,
}

/// An open database.
pub trait Store: Send + Sync {
    /// Writes one entry. With `sync` it is on stable storage when this returns; without, it survives a kill
    /// of the process as far as the engine promises that at all.
    fn put(&self, key: &[u8], value: &[u8], sync: bool) -> Result<()>;
    /// Writes many entries at once, without sync.
    fn put_many(&self, entries: &[Entry]) -> Result<()>;
    /// Reads one entry; the length of its value, which was copied or touched.
    fn get(&self, key: &[u8]) -> Result<Option<usize>>;
    /// Reads up to `count` entries from `from` (forward: from it on; backward: from before it down; empty:
    /// from the end that the direction begins at). How many there were.
    fn scan(&self, from: &[u8], count: usize, direction: Direction) -> Result<usize>;
    /// Makes everything written unreadable, as when one customer of many goes: by deleting key after key, or by
    /// whatever the engine has for it.
    fn delete_all(&self, keys: &mut dyn Iterator<Item = [u8; 16]>) -> Result<()>;
    /// Brings everything to rest: flushes, and compacts where there is such a thing.
    fn settle(&self) -> Result<()>;
}

/// An engine that can be measured.
#[derive(Clone, Copy)]
pub struct Engine {
    /// Its name in reports.
    pub name: &'static str,
    /// Opens or creates a database in a directory.
    pub open: fn(&Path, &Budget) -> Result<Box<dyn Store>>,
}
