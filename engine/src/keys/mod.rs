//! Keys as the caller sees them: where key-encryption keys live, and keys on their way out.
//!
//! ```text
//! provider.rs   KeyProvider: wraps and destroys key-encryption keys (KEKs)
//! key_file.rs   KeyFile: a file of KEKs, for development
//! memory.rs     MemoryKeys: for tests and simulation
//! wrap.rs       how the two wrap
//! changes.rs    KeyChanges: tenants' keys to a standby, into an escrow
//! escrow.rs     KeyChanges sealed to the holder of a secret (HPKE)
//! ```
//!
//! Wrapped data keys live in the keystore and in escrows, nowhere else (S4). Nothing here has a `Debug`
//! that could print a key.

mod changes;
mod escrow;
mod key_file;
#[cfg(any(test, feature = "sim"))]
mod memory;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod parsers;
mod provider;
mod wrap;

pub use changes::{KeyChanges, TenantKeys};
pub(crate) use changes::{TenantEntry, encode as encode_changes};
pub use escrow::{EscrowRecipient, EscrowSecret};
pub(crate) use escrow::{open_escrow, seal_escrow};
pub use key_file::KeyFile;
#[cfg(any(test, feature = "sim"))]
pub use memory::MemoryKeys;
pub use provider::{Destruction, KekVersion, KeyProvider};
