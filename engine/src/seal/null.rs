//! No cipher: what benches/compare builds to measure what sealing costs. Nothing sealed by this is secret.
//!
//! Not a cargo feature: features unite across a dependency graph, and a stranger's would unseal a database.
//! It takes two flags to the compiler, of which the second says what they do; without it nothing compiles.
//! Files carry a suite of their own (`header::SUITE`), which other builds refuse, as this one refuses theirs.
//! Keys are wrapped by the real cipher all the same (keys/wrap.rs).

use super::aead::{Aead, OpenFailed, SealFailed};
use super::{NONCE_BYTES, TAG_BYTES};

#[cfg(not(strongroom_unsealed_for_benchmarks_only))]
compile_error!(
    "strongroom_null_cipher leaves all data in clear. It is for measuring what sealing costs, nothing else; \
     who means it also sets --cfg strongroom_unsealed_for_benchmarks_only"
);
#[cfg(any(test, feature = "sim"))]
compile_error!("nothing is tested without a cipher: drop --cfg strongroom_null_cipher");

/// Leaves the text as it is.
pub(crate) struct Null;

const TAG: [u8; TAG_BYTES] = *b"NOT SEALED AT AL";

impl Aead for Null {
    fn new(_key: &[u8; 32]) -> Null {
        Null
    }

    fn seal(
        &self,
        _nonce: &[u8; NONCE_BYTES],
        _aad: &[u8],
        _text: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], SealFailed> {
        Ok(TAG)
    }

    fn open(
        &self,
        _nonce: &[u8; NONCE_BYTES],
        _aad: &[u8],
        _text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), OpenFailed> {
        if *tag == TAG { Ok(()) } else { Err(OpenFailed) }
    }
}
