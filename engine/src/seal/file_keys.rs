//! Derived keys, cached: deriving costs a few microseconds, finding one well under one.
//!
//! Whether a key is alive is asked of the [`KeySource`] on every call, never of the cache: a destroyed
//! tenant is `Destroyed` from the moment the source says so, whatever is cached or being derived.
//!
//! Invariant: after [`FileKeys::purge`] of a tenant that the source no longer has, the cache holds none of
//! its keys, now or later. A derivation that raced with the destruction asks the source again after it
//! inserted: either that sees the destruction and removes the key, or the insert came before the purge.

use std::sync::Arc;

use quick_cache::sync::Cache;

use super::{ChainKey, Dek, FileHeader, FileKey, FileKind};
use crate::error::Result;
use crate::types::{DekVersion, Epoch, TenantId};

/// Where data keys come from: the keystore.
pub(crate) trait KeySource: Send + Sync {
    /// The key to write with. `NotFound` if the tenant is destroyed or unknown.
    fn current(&self, tenant: TenantId) -> Result<(DekVersion, Dek)>;
    /// The key to read with.
    fn find(&self, tenant: TenantId, version: DekVersion) -> KeyLookup;
    /// Whether the tenant has keys.
    fn is_live(&self, tenant: TenantId) -> bool {
        self.current(tenant).is_ok()
    }
}

/// What a [`KeySource`] knows of a key.
pub(crate) enum KeyLookup {
    /// Here it is.
    Live(Dek),
    /// The tenant existed and its keys are destroyed: its data is gone, and that is not an error.
    Destroyed,
    /// The id was never given out here, or never had this version: damage, or keys that lag behind.
    Unknown,
}

/// What [`FileKeys::for_reading`] found.
pub(crate) enum KeyAccess {
    /// Here it is.
    Live(Arc<FileKey>),
    /// As [`KeyLookup::Destroyed`].
    Destroyed,
    /// As [`KeyLookup::Unknown`].
    Unknown,
}

/// Everything the derivation depends on apart from the data key: a forged header never finds the key of
/// the genuine one.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Slot {
    file_id: [u8; 16],
    salt: [u8; 32],
    tenant: TenantId,
    version: DekVersion,
    kind: FileKind,
    epoch: Epoch,
    number: u64,
}

impl Slot {
    fn new(header: &FileHeader, tenant: TenantId, version: DekVersion) -> Slot {
        let FileHeader {
            kind,
            file_id,
            salt,
            epoch,
            number,
            ..
        } = *header;
        Slot {
            file_id,
            salt,
            tenant,
            version,
            kind,
            epoch,
            number,
        }
    }
}

/// File keys over a [`KeySource`], the most used of them cached.
pub(crate) struct FileKeys {
    source: Arc<dyn KeySource>,
    cache: Cache<Slot, Arc<FileKey>>,
}

impl FileKeys {
    /// - `capacity`: keys kept, at least 1; each is about 1 KiB.
    pub fn new(source: Arc<dyn KeySource>, capacity: usize) -> FileKeys {
        FileKeys {
            source,
            cache: Cache::new(capacity.max(1)),
        }
    }

    /// The tenant's current key for a file being written. `NotFound` if the tenant is destroyed or unknown.
    pub fn for_writing(&self, header: &FileHeader, tenant: TenantId) -> Result<(DekVersion, Arc<FileKey>)> {
        let (version, dek) = self.source.current(tenant)?;
        let slot = Slot::new(header, tenant, version);
        if let Some(key) = self.cache.get(&slot) {
            return Ok((version, key));
        }
        let key = Arc::new(FileKey::derive(&dek, header, tenant, version));
        self.cache.insert(slot.clone(), Arc::clone(&key));
        if let Err(gone) = self.source.current(tenant) {
            self.cache.remove(&slot);
            return Err(gone);
        }
        Ok((version, key))
    }

    /// The key a piece of the file was sealed with.
    pub fn for_reading(&self, header: &FileHeader, tenant: TenantId, version: DekVersion) -> KeyAccess {
        let dek = match self.source.find(tenant, version) {
            KeyLookup::Live(dek) => dek,
            KeyLookup::Destroyed => return KeyAccess::Destroyed,
            KeyLookup::Unknown => return KeyAccess::Unknown,
        };
        let slot = Slot::new(header, tenant, version);
        if let Some(key) = self.cache.get(&slot) {
            return KeyAccess::Live(key);
        }
        let key = Arc::new(FileKey::derive(&dek, header, tenant, version));
        self.cache.insert(slot.clone(), Arc::clone(&key));
        match self.source.find(tenant, version) {
            KeyLookup::Live(_) => return KeyAccess::Live(key),
            KeyLookup::Destroyed => {}
            KeyLookup::Unknown => {}
        }
        self.cache.remove(&slot);
        KeyAccess::Destroyed
    }

    /// The key that the chain of a new segment is made with.
    pub fn chain_for_writing(&self) -> Result<(DekVersion, ChainKey)> {
        let (version, dek) = self.source.current(TenantId::SYSTEM)?;
        Ok((version, ChainKey::derive(&dek, version)))
    }

    /// The key of a chain that was made under `version`; None if that was never given out here.
    pub fn chain_for_reading(&self, version: DekVersion) -> Option<ChainKey> {
        match self.source.find(TenantId::SYSTEM, version) {
            KeyLookup::Live(dek) => Some(ChainKey::derive(&dek, version)),
            KeyLookup::Destroyed | KeyLookup::Unknown => None,
        }
    }

    /// Forgets the keys of the tenants that `gone` names. Call after their destruction, before reporting it.
    pub fn purge_if(&self, gone: impl Fn(TenantId) -> bool) {
        self.cache.retain(|slot, _| !gone(slot.tenant));
    }

    /// Whether the tenant has keys.
    pub fn is_live(&self, tenant: TenantId) -> bool {
        self.source.is_live(tenant)
    }

    #[cfg(test)]
    pub fn cached(&self) -> usize {
        self.cache.len()
    }
}
