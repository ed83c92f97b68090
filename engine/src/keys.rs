//! Skeleton, replaced by seal/provider + keystore.
use crate::error::Result;
use crate::types::*;
use std::path::Path;
use zeroize::Zeroizing;

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

/// Where key-encryption keys live.
pub trait KeyProvider: Send + Sync {
    /// Short name for status and errors: "file", "pkcs11".
    fn name(&self) -> &str;
    /// Makes a fresh key-encryption key.
    fn create_version(&self) -> Result<KekVersion>;
    /// Wraps 32 bytes under a version, bound to `context`.
    fn wrap(&self, version: KekVersion, root: &[u8; 32], context: &[u8]) -> Result<Vec<u8>>;
    /// The reverse; `KeyRefused` if the version is gone, the key is wrong or the context differs.
    fn unwrap(&self, version: KekVersion, wrapped: &[u8], context: &[u8]) -> Result<Zeroizing<[u8; 32]>>;
    /// Destroys a version; fine if it is gone already.
    fn destroy_version(&self, version: KekVersion) -> Result<Destruction>;
}

/// File provider for development.
pub struct KeyFile;
impl KeyFile {
    /// Makes a new key file (mode 0600); `AlreadyExists` if there is one.
    pub fn create(_path: impl AsRef<Path>) -> Result<KeyFile> { unimplemented!() }
    /// Opens a key file; `KeyRefused` with the reason if it is missing or malformed.
    pub fn open(_path: impl AsRef<Path>) -> Result<KeyFile> { unimplemented!() }
}
impl KeyProvider for KeyFile {
    fn name(&self) -> &str { "file" }
    fn create_version(&self) -> Result<KekVersion> { unimplemented!() }
    fn wrap(&self, _: KekVersion, _: &[u8; 32], _: &[u8]) -> Result<Vec<u8>> { unimplemented!() }
    fn unwrap(&self, _: KekVersion, _: &[u8], _: &[u8]) -> Result<Zeroizing<[u8; 32]>> { unimplemented!() }
    fn destroy_version(&self, _: KekVersion) -> Result<Destruction> { unimplemented!() }
}

/// Keystore changes on their way to a standby or into an escrow. Holds keys: zeroized, no Debug.
#[derive(Clone)]
pub struct KeyChanges {
    /// The keystore version these changes lead to.
    pub version: u64,
    /// Replaces everything (true) or adds to what the receiver has (false).
    pub full: bool,
    /// Ids below this were given out; one that is absent was destroyed.
    pub next_tenant: u64,
    /// Tenants to add, with their keys. Includes TenantId::SYSTEM when full.
    pub upserts: Vec<TenantKeys>,
    /// Tenants to destroy.
    pub deleted: Vec<TenantId>,
}
/// One tenant in the keystore.
#[derive(Clone)]
pub struct TenantKeys {
    /// Id.
    pub id: TenantId,
    /// Name; empty for the system tenant.
    pub name: String,
    /// Its data keys by version, oldest first.
    pub deks: Vec<(DekVersion, Zeroizing<[u8; 32]>)>,
}

/// Public half of an escrow key pair (X25519): whoever holds the secret half may restore.
#[derive(Clone)]
pub struct EscrowRecipient;
/// Secret half.
pub struct EscrowSecret;
impl EscrowSecret {
    /// New random key pair.
    pub fn generate() -> Result<EscrowSecret> { unimplemented!() }
    /// Writes the secret file (mode 0600).
    pub fn save(&self, _path: impl AsRef<Path>) -> Result<()> { unimplemented!() }
    /// Reads the secret file.
    pub fn load(_path: impl AsRef<Path>) -> Result<EscrowSecret> { unimplemented!() }
    /// Public half.
    pub fn recipient(&self) -> EscrowRecipient { unimplemented!() }
}
impl EscrowRecipient {
    /// Text form: "srescrow1" + hex.
    pub fn to_text(&self) -> String { unimplemented!() }
    /// Reads the text form.
    pub fn parse(_text: &str) -> Result<EscrowRecipient> { unimplemented!() }
}
