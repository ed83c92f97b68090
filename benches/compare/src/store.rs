//! What every engine must offer to be measured: the same calls, with the same meaning of durable.
//!
//! Tenants are ours alone. For an engine without them a tenant is a prefix of four bytes before every key,
//! which is what a service on such an engine would do; the default methods do it.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What a store is opened with. The same for all.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
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

/// What an engine has for the end of one customer of many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drops {
    /// Nothing: its keys are deleted, a thousand in a batch.
    #[cfg_attr(not(feature = "fjall"), allow(dead_code))]
    Nothing,
    /// A delete of a range of keys, one call.
    #[cfg_attr(
        not(any(feature = "lmdb", feature = "redb", feature = "rocksdb")),
        allow(dead_code)
    )]
    Range,
    /// The tenant's deletion.
    Tenant,
}

/// An open database.
pub trait Store: Send + Sync {
    /// Writes one entry. With `sync` it is on stable storage when this returns; without, it survives a kill
    /// of the process as far as the engine promises that at all.
    fn put(&self, key: &[u8], value: &[u8], sync: bool) -> Result<()>;
    /// Writes many entries at once, without sync.
    fn put_many(&self, entries: &[Entry]) -> Result<()>;
    /// Deletes many entries at once, without sync.
    fn delete_many(&self, keys: &[Vec<u8>]) -> Result<()>;
    /// Reads one entry; the length of its value, which was touched.
    fn get(&self, key: &[u8]) -> Result<Option<usize>>;
    /// Reads up to `count` entries from `from` (forward: from it on; backward: from before it down; empty:
    /// from the end that the direction begins at), touching each value. How many there were.
    fn scan(&self, from: &[u8], count: usize, direction: Direction) -> Result<usize>;
    /// Reads all entries whose keys begin with `prefix`, touching each value. How many there were.
    fn prefix(&self, prefix: &[u8]) -> Result<usize>;
    /// Brings everything to rest: flushes, and compacts where there is such a thing.
    fn settle(&self) -> Result<()>;
    /// A consistent copy in a new directory; false if the engine has no such call.
    fn checkpoint(&self, _to: &Path) -> Result<bool> {
        Ok(false)
    }

    /// Makes or opens tenants `0..count`, before any of the calls below, once.
    fn prepare_tenants(&self, _count: u32) -> Result<()> {
        Ok(())
    }
    /// Writes one entry of a tenant, without sync.
    fn tenant_put(&self, tenant: u32, key: &[u8], value: &[u8]) -> Result<()> {
        self.put(&prefixed(tenant, key), value, false)
    }
    /// Writes many entries of a tenant at once, without sync.
    fn tenant_put_many(&self, tenant: u32, entries: &[Entry]) -> Result<()> {
        let entries: Vec<Entry> = entries
            .iter()
            .map(|(key, value)| (prefixed(tenant, key), value.clone()))
            .collect();
        self.put_many(&entries)
    }
    /// As [`Store::get`], of a tenant.
    fn tenant_get(&self, tenant: u32, key: &[u8]) -> Result<Option<usize>> {
        self.get(&prefixed(tenant, key))
    }
    /// As [`Store::prefix`], of a tenant; empty: all it has.
    fn tenant_prefix(&self, tenant: u32, prefix: &[u8]) -> Result<usize> {
        self.prefix(&prefixed(tenant, prefix))
    }
    /// As [`Store::delete_many`], of a tenant.
    fn tenant_delete_many(&self, tenant: u32, keys: &[Vec<u8>]) -> Result<()> {
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| prefixed(tenant, key)).collect();
        self.delete_many(&keys)
    }
    /// Makes a tenant unreadable by what [`Engine::drops`] says; never called for [`Drops::Nothing`].
    fn drop_tenant(&self, _tenant: u32) -> Result<()> {
        anyhow::bail!("this engine has no deletion of a tenant")
    }
}

/// An engine that can be measured.
#[derive(Clone, Copy)]
pub struct Engine {
    /// Its name in reports.
    pub name: &'static str,
    /// What it has for the end of a tenant.
    pub drops: Drops,
    /// Opens or creates a database in a directory.
    pub open: fn(&Path, &Budget) -> Result<Box<dyn Store>>,
}

/// A tenant's key where there are no tenants.
pub fn prefixed(tenant: u32, key: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(4 + key.len());
    whole.extend_from_slice(&tenant.to_be_bytes());
    whole.extend_from_slice(key);
    whole
}

/// Looks at a value, as whoever asked for it would: its last byte is read, whatever the compiler thinks of it.
pub fn touch(value: &[u8]) -> usize {
    std::hint::black_box(value.last().copied());
    value.len()
}

/// Takes up to `count` entries of an iterator, touching each; how many there were.
#[cfg_attr(
    not(any(feature = "fjall", feature = "lmdb", feature = "redb")),
    allow(dead_code)
)]
pub fn count<I, E>(entries: I, count: usize, mut visit: impl FnMut(I::Item) -> Result<(), E>) -> Result<usize>
where
    I: Iterator,
    anyhow::Error: From<E>,
{
    let mut found = 0;
    for entry in entries.take(count) {
        visit(entry)?;
        found += 1;
    }
    Ok(found)
}

/// The first key behind all that begin with `prefix`; none if there is no such key.
#[cfg_attr(
    not(any(feature = "lmdb", feature = "redb", feature = "rocksdb")),
    allow(dead_code)
)]
pub fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix.get(..=keep)?.to_vec();
    if let Some(last) = next.last_mut() {
        *last += 1;
    }
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::behind;

    #[test]
    fn what_is_behind_a_prefix_is_the_next_key_that_does_not_begin_so() {
        assert_eq!(behind(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(behind(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(behind(b"\xff"), None);
        assert_eq!(behind(b""), None);
    }
}
