//! The contract with whatever keeps key-encryption keys.
//!
//! The keystore wraps one secret, its root, under the newest KEK version. Deleting a tenant makes a new
//! version and a new root, and destroys the old version: then no copy of the old keystore file opens, on
//! whatever disk it may still be. So what a provider promises of `destroy_version` is what deletion
//! promises.

use zeroize::Zeroizing;

use crate::error::Result;

/// Version of a key-encryption key at its provider.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KekVersion(pub u64);

/// What a provider says of a destroyed version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destruction {
    /// Gone, irrevocably as far as the provider can promise.
    Destroyed,
    /// Will be gone at this time (ms since 1970).
    ScheduledAt(u64),
}

/// Where key-encryption keys live. Several databases may share one.
pub trait KeyProvider: Send + Sync {
    /// Short name for status and errors: "file", "pkcs11".
    fn name(&self) -> &str;

    /// Makes a fresh key-encryption key, durable when it returns. Version numbers are from 1 and are never
    /// used again.
    fn create_version(&self) -> Result<KekVersion>;

    /// Wraps 32 bytes under a version, bound to `context`. The result has at most 4096 bytes.
    fn wrap(&self, version: KekVersion, root: &[u8; 32], context: &[u8]) -> Result<Vec<u8>>;

    /// The reverse; `KeyRefused` if the version is gone, the key is wrong or the context differs.
    fn unwrap(&self, version: KekVersion, wrapped: &[u8], context: &[u8]) -> Result<Zeroizing<[u8; 32]>>;

    /// Destroys a version, durably when it returns; fine if it is gone already.
    fn destroy_version(&self, version: KekVersion) -> Result<Destruction>;
}
