//! Sealing: everything a tenant wrote leaves memory through here, and comes back through here.
//!
//! ```text
//! Dek (secret.rs)  +  FileHeader (header.rs: salt, file id, epoch, number)
//!   └ FileKey (file_key.rs: HKDF-SHA256, one per file, tenant and key version, with a commitment)
//!       └ sealed piece = nonce[12] ‖ ciphertext ‖ tag[16]   (aead.rs: AES-256-GCM; nonce.rs)
//! Dek of the system tenant
//!   └ ChainKey (chain_key.rs: HMAC-SHA256 over the log's frame)
//! ```
//!
//! Invariants:
//! - S1: a (key, nonce) pair never repeats. Every file has a fresh random salt and so its own keys; a
//!   file is written through one [`Nonces`] and never appended to after a reopen. In tests `recorder`
//!   panics on any repeat.
//! - S2: the associated data ([`Aad`]) binds kind of piece, tenant, file, position and length, so that a
//!   piece is good in one place only. The commitment is compared before anything is decrypted, which
//!   tells a wrong key from damaged bytes.
//! - S6: keys are wiped when dropped and have no `Debug`.

mod aead;
mod chain_key;
mod file_key;
mod file_keys;
mod header;
mod nonce;
#[cfg(strongroom_null_cipher)]
mod null;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod parsers;
#[cfg(any(test, feature = "sim"))]
mod recorder;
mod secret;
#[cfg(test)]
mod tests;

/// What seals pieces of files.
#[cfg(not(strongroom_null_cipher))]
use aead::DefaultAead as PieceAead;
pub(crate) use aead::OpenFailed;
pub(crate) use aead::{Aead, DefaultAead};
pub(crate) use chain_key::{ChainKey, same_chain};
pub(crate) use file_key::{Aad, FileKey, Piece, hkdf_sha256};
pub(crate) use file_keys::{FileKeys, KeyAccess, KeyLookup, KeySource};
pub(crate) use header::{FileHeader, FileKind};
pub(crate) use nonce::{Nonces, fill};
/// What seals pieces of files.
#[cfg(strongroom_null_cipher)]
use null::Null as PieceAead;
#[cfg(any(test, feature = "sim"))]
pub use recorder::recorder_pairs;
pub(crate) use secret::Dek;
#[cfg(all(test, target_os = "linux"))]
pub(crate) use secret::flags_of_mapping;

/// What sealing adds to a plaintext: nonce and tag.
pub(crate) const SEAL_OVERHEAD: usize = NONCE_BYTES + TAG_BYTES;
/// Bytes of a nonce.
pub(crate) const NONCE_BYTES: usize = 12;
/// Bytes of an authentication tag.
pub(crate) const TAG_BYTES: usize = 16;
/// Bytes of a key commitment.
pub(crate) const COMMITMENT_BYTES: usize = 16;
