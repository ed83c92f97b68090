//! How the providers of this crate wrap a root.
//!
//! ```text
//! offset size field
//!      0    4 magic       "SRW1"
//!      4   16 provider    identity of the key file
//!     20    8 version     of the KEK, little-endian
//!     28   32 salt        random
//!     60   32 ciphertext
//!     92   16 tag
//! ```
//!
//! Key = HKDF-SHA256(salt, KEK, "strongroom/1/wrap"): fresh for every wrap, so the nonce is zero. AAD is
//! the first 60 bytes and then the context.

use zeroize::Zeroizing;

use super::provider::KekVersion;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Rng;
use crate::seal::{Aead, DefaultAead, NONCE_BYTES, hkdf_sha256};

const MAGIC: [u8; 4] = *b"SRW1";
const CLEAR_BYTES: usize = 60;

/// Wraps `root` under `kek`.
pub(super) fn wrap(
    rng: &dyn Rng,
    provider: &[u8; 16],
    version: KekVersion,
    kek: &[u8; 32],
    root: &[u8; 32],
    context: &[u8],
) -> Result<Vec<u8>> {
    let mut salt = [0u8; 32];
    crate::seal::fill(rng, &mut salt)?;
    let mut out = Vec::with_capacity(CLEAR_BYTES + 48);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(provider);
    out.extend_from_slice(&version.0.to_le_bytes());
    out.extend_from_slice(&salt);
    let mut text = Zeroizing::new(*root);
    let tag = cipher(kek, &salt)
        .seal(&[0; NONCE_BYTES], &[&out, context].concat(), text.as_mut())
        .map_err(|_| refused("the key provider cannot wrap"))?;
    out.extend_from_slice(text.as_ref());
    out.extend_from_slice(&tag);
    Ok(out)
}

/// Which provider and version wrapped this; `None` if it is no such thing.
pub(super) fn wrapped_by(wrapped: &[u8]) -> Option<([u8; 16], KekVersion)> {
    let rest = wrapped.strip_prefix(&MAGIC)?;
    let (provider, rest) = rest.split_first_chunk::<16>()?;
    let (version, _) = rest.split_first_chunk::<8>()?;
    Some((*provider, KekVersion(u64::from_le_bytes(*version))))
}

/// Unwraps what [`wrap`] made with the same key and context; `KeyRefused` for anything else.
pub(super) fn unwrap(kek: &[u8; 32], wrapped: &[u8], context: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
    let (clear, rest) = wrapped.split_first_chunk::<CLEAR_BYTES>().ok_or_else(malformed)?;
    let (text, tag) = rest.split_first_chunk::<32>().ok_or_else(malformed)?;
    let tag: &[u8; 16] = tag.try_into().map_err(|_| malformed())?;
    let salt = clear.last_chunk::<32>().ok_or_else(malformed)?;
    let mut root = Zeroizing::new(*text);
    cipher(kek, salt)
        .open(&[0; NONCE_BYTES], &[clear, context].concat(), root.as_mut(), tag)
        .map_err(|_| refused("the key does not open this keystore: wrong key, or altered bytes"))?;
    Ok(root)
}

/// A `KeyRefused` error.
pub(super) fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::KeyRefused, message)
}

fn malformed() -> Error {
    refused("the wrapped root is not one of this provider's")
}

fn cipher(kek: &[u8; 32], salt: &[u8; 32]) -> DefaultAead {
    let mut key = Zeroizing::new([0u8; 32]);
    hkdf_sha256(salt, kek, &[b"strongroom/1/wrap"], key.as_mut());
    DefaultAead::new(&key)
}
