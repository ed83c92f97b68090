//! Which key-encryption keys a keystore of ours lives under.
//!
//! A base copy replaces a whole database, its keystore included, and makes a keystore under a
//! key-encryption key of its own. The one the replaced keystore was wrapped under must then be destroyed at
//! the provider: its files are gone from the directory, but perhaps not from the disk, and keys of a tenant
//! deleted later would be readable with it (design S4). The engine does not tell which version it uses, so
//! the provider is watched.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use strongroom::Result;
use strongroom::keys::{Destruction, KekVersion, KeyProvider};
use zeroize::Zeroizing;

/// A provider that remembers which versions are in use through it.
pub struct Watched {
    inner: Arc<dyn KeyProvider>,
    live: Mutex<BTreeSet<u64>>,
}

impl Watched {
    /// Watches `inner`.
    pub fn new(inner: Arc<dyn KeyProvider>) -> Arc<Watched> {
        Arc::new(Watched {
            inner,
            live: Mutex::new(BTreeSet::new()),
        })
    }

    /// Versions used and not destroyed.
    pub fn live(&self) -> BTreeSet<u64> {
        self.live.lock().clone()
    }

    /// Destroys what is still in use: the keystore made with it is given up.
    pub fn destroy_all(&self) -> Result<()> {
        self.live()
            .into_iter()
            .try_for_each(|version| self.destroy_version(KekVersion(version)).map(drop))
    }
}

impl KeyProvider for Watched {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn create_version(&self) -> Result<KekVersion> {
        let version = self.inner.create_version()?;
        self.live.lock().insert(version.0);
        Ok(version)
    }

    fn wrap(&self, version: KekVersion, root: &[u8; 32], context: &[u8]) -> Result<Vec<u8>> {
        self.inner.wrap(version, root, context)
    }

    fn unwrap(&self, version: KekVersion, wrapped: &[u8], context: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let root = self.inner.unwrap(version, wrapped, context)?;
        self.live.lock().insert(version.0);
        Ok(root)
    }

    fn destroy_version(&self, version: KekVersion) -> Result<Destruction> {
        let destruction = self.inner.destroy_version(version)?;
        self.live.lock().remove(&version.0);
        Ok(destruction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom::keys::MemoryKeys;

    #[test]
    fn versions_created_opened_and_destroyed_then_the_live_ones_are_known() {
        let keys: Arc<dyn KeyProvider> = Arc::new(MemoryKeys::new());
        let first = Watched::new(keys.clone());
        let (a, b) = (first.create_version().unwrap(), first.create_version().unwrap());
        let wrapped = first.wrap(a, &[7; 32], b"c").unwrap();
        first.destroy_version(b).unwrap();
        assert_eq!(first.live(), [a.0].into());
        let second = Watched::new(keys);
        assert!(second.live().is_empty());
        second.unwrap(a, &wrapped, b"c").unwrap();
        assert_eq!(second.live(), [a.0].into());
        second.destroy_all().unwrap();
        assert!(second.live().is_empty());
        first.unwrap(a, &wrapped, b"c").map(drop).unwrap_err();
    }
}
