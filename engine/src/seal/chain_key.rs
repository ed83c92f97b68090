//! The key of the log's chain: what proves that the records of the log are all there and as they were written.
//!
//! ```text
//! PRK     = HKDF-Extract-SHA256(salt = "strongroom/1/chain", ikm = DEK of the system tenant)
//! key[32] = HKDF-Expand(PRK, "strongroom/1/chain key" ‖ DEK version u32, 32)
//! chain   = first 16 bytes of HMAC-SHA256(key, chain before ‖ parts of the piece)
//! ```
//!
//! It depends on nothing but the system tenant's key, which a standby, a base copy and a restored database
//! have before they have a log: so it lives as long as the stream, and no user's tenant is needed to check it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Dek, hkdf_sha256};
use crate::types::{Chain, DekVersion};

/// Expanded key; cloning costs no derivation. Wiped when dropped.
#[derive(Clone)]
pub(crate) struct ChainKey(Hmac<Sha256>);

impl ChainKey {
    /// - `dek`: of the system tenant, at this version.
    pub fn derive(dek: &Dek, version: DekVersion) -> ChainKey {
        // HMAC's key block: a key shorter than it is followed by zeros.
        let mut block = Zeroizing::new([0u8; 64]);
        let info: [&[u8]; 2] = [b"strongroom/1/chain key", &version.0.to_le_bytes()];
        hkdf_sha256(b"strongroom/1/chain", dek.expose(), &info, &mut block[..32]);
        ChainKey(KeyInit::new((&*block).into()))
    }

    /// The chain after a piece made of `parts`.
    pub fn extend<'a>(&self, before: Chain, parts: impl IntoIterator<Item = &'a [u8]>) -> Chain {
        let mut mac = self.0.clone();
        mac.update(&before.0);
        parts.into_iter().for_each(|part| mac.update(part));
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        let mut out = Chain::default();
        for (to, from) in out.0.iter_mut().zip(full) {
            *to = from;
        }
        out
    }
}

/// Whether two chains are equal, in constant time: one of them may be a guess.
pub(crate) fn same_chain(a: Chain, b: Chain) -> bool {
    a.0.ct_eq(&b.0).into()
}
