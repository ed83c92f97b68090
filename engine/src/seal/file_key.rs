//! File keys: what actually seals.
//!
//! ```text
//! PRK            = HKDF-Extract-SHA256(salt = salt of the file header, ikm = DEK)
//! key[32]        = Expand(PRK, "strongroom/1/file"   ‖ CTX)
//! commitment[16] = Expand(PRK, "strongroom/1/commit" ‖ CTX)
//! CTX, 46 bytes  = kind u8 ‖ suite u8 ‖ tenant u64 ‖ dek version u32 ‖ file id 16 ‖ epoch u64 ‖ number u64
//!
//! sealed piece   = nonce[12] ‖ ciphertext ‖ tag[16]
//! AAD, 64 bytes  = "SRG1" ‖ piece u8 ‖ 0 0 0 ‖ tenant u64 ‖ file id 16 ‖ offset u64 ‖ plain_len u32 ‖ 0u32
//!                  ‖ a u64 ‖ b u64
//! ```
//!
//! All integers little-endian, all widths fixed, so no two inputs encode alike. GCM does not commit to a
//! key (a piece can be made that opens under two), hence the commitment: it is stored where the piece is
//! found and compared, in constant time, before anything is opened.

use std::ops::Range;

use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::header::SUITE;
use super::{
    Aead, COMMITMENT_BYTES, Dek, FileHeader, NONCE_BYTES, Nonces, OpenFailed, PieceAead, SEAL_OVERHEAD,
    TAG_BYTES,
};
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::planted;
use crate::types::{DekVersion, TenantId};

const CTX_BYTES: usize = 1 + 1 + 8 + 4 + 16 + 8 + 8;
const AAD_BYTES: usize = 64;
const _: () = assert!(AAD_BYTES == 4 + 1 + 3 + 8 + 16 + 8 + 4 + 4 + 8 + 8);

/// What a sealed piece is. 0 is never used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Piece {
    /// A tenant's part of a WAL record: offset = record Lsn, a = seqno, b = operations.
    Section = 1,
    /// A table's data block.
    Block = 2,
    /// A table's index.
    Index = 3,
    /// A table's filter.
    Filter = 4,
    /// A table's key bounds. Reserved: they are part of the index today.
    #[allow(dead_code)]
    Bounds = 5,
    /// A manifest edit: a = edit number, b = first 8 bytes of the previous piece's tag.
    Edit = 6,
    /// A keystore chunk or log frame: a = ordinal, b = 1 for the last chunk of a base.
    Keys = 7,
    /// A separated value: a = seqno, b = hash of the tree key.
    Value = 8,
}

/// Where a piece belongs: sealed pieces open there and nowhere else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Aad {
    /// What it is.
    pub piece: Piece,
    /// Whose it is.
    pub tenant: TenantId,
    /// Identity of the file it lies in.
    pub file: [u8; 16],
    /// Where in the file, or in the WAL stream.
    pub offset: u64,
    /// Length of the plaintext.
    pub plain_len: u32,
    /// By kind of piece.
    pub a: u64,
    /// By kind of piece.
    pub b: u64,
}

impl Aad {
    fn encode(&self) -> [u8; AAD_BYTES] {
        let mut out = [0u8; AAD_BYTES];
        out[0..4].copy_from_slice(b"SRG1");
        out[4] = self.piece as u8;
        out[8..16].copy_from_slice(&self.tenant.0.to_le_bytes());
        out[16..32].copy_from_slice(&self.file);
        if !planted!(OffsetNotBound) {
            out[32..40].copy_from_slice(&self.offset.to_le_bytes());
        }
        out[40..44].copy_from_slice(&self.plain_len.to_le_bytes());
        out[48..56].copy_from_slice(&self.a.to_le_bytes());
        out[56..64].copy_from_slice(&self.b.to_le_bytes());
        out
    }
}

/// The expanded key of one file for one tenant and key version, with its commitment.
pub(crate) struct FileKey {
    cipher: PieceAead,
    commitment: [u8; COMMITMENT_BYTES],
}

impl FileKey {
    /// Derives the key of `tenant` for the file that begins with `header`.
    pub fn derive(dek: &Dek, header: &FileHeader, tenant: TenantId, version: DekVersion) -> FileKey {
        let (key, commitment) = derive_bytes(dek, header, tenant, version);
        FileKey {
            cipher: PieceAead::new(&key),
            commitment,
        }
    }

    /// What a file stores so that a reader can tell whether it has the right key. Not secret.
    pub fn commitment(&self) -> [u8; COMMITMENT_BYTES] {
        self.commitment
    }

    /// Whether a stored commitment is this key's, in constant time. False: wrong key, or damaged header.
    pub fn matches(&self, commitment: &[u8]) -> bool {
        planted!(CommitmentNotChecked) || self.commitment.as_slice().ct_eq(commitment).into()
    }

    /// Appends `nonce ‖ ciphertext ‖ tag` of `plain` to `out`; leaves `out` as it was on error.
    ///
    /// Requires: `nonces` belongs to the file `aad.file`, and `aad.plain_len` is the length of `plain`
    /// (`Invalid` otherwise). Errors: `ReadOnly` when nonces are used up, `Io` without randomness.
    pub fn seal(&self, nonces: &Nonces, aad: &Aad, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if u32::try_from(plain.len()) != Ok(aad.plain_len) {
            return Err(Error::new(
                ErrorKind::Invalid,
                "associated data gives another length",
            ));
        }
        let encoded = aad.encode();
        let nonce = nonces.next(&encoded, plain)?;
        #[cfg(any(test, feature = "sim"))]
        super::recorder::record(&nonces.writer, &self.commitment, &nonce);
        self.seal_under(&nonce, &encoded, plain, out)
    }

    /// Seals under a chosen nonce: golden bytes in tests.
    #[cfg(test)]
    pub fn seal_fixed(&self, nonce: &[u8; NONCE_BYTES], aad: &Aad, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.seal_under(nonce, &aad.encode(), plain, &mut out).unwrap();
        out
    }

    fn seal_under(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8; AAD_BYTES],
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let start = out.len();
        // One reservation: growing later would leave a copy of the plaintext behind.
        out.reserve(plain.len() + SEAL_OVERHEAD);
        out.extend_from_slice(nonce);
        out.extend_from_slice(plain);
        let sealed = match out.get_mut(start + NONCE_BYTES..) {
            Some(text) => self.cipher.seal(nonce, aad, text).ok(),
            None => None,
        };
        match sealed {
            Some(tag) => {
                out.extend_from_slice(&tag);
                Ok(())
            }
            None => {
                out.truncate(start);
                Err(Error::new(
                    ErrorKind::Invalid,
                    "a piece is too long for the cipher",
                ))
            }
        }
    }

    /// Opens what [`seal`](FileKey::seal) made for the same place. Fails for any other bytes or place.
    pub fn open(&self, aad: &Aad, sealed: &[u8]) -> std::result::Result<Vec<u8>, OpenFailed> {
        let mut held = sealed.to_vec();
        let plain = self.open_in_place(aad, &mut held)?;
        held.truncate(plain.end);
        held.drain(..plain.start);
        Ok(held)
    }

    /// The same where `sealed` lies; the plaintext stands in the returned part of it. After a failure nothing in
    /// `sealed` is plaintext.
    pub fn open_in_place(
        &self,
        aad: &Aad,
        sealed: &mut [u8],
    ) -> std::result::Result<Range<usize>, OpenFailed> {
        let (nonce, rest) = sealed.split_first_chunk_mut::<NONCE_BYTES>().ok_or(OpenFailed)?;
        let (text, tag) = rest.split_last_chunk_mut::<TAG_BYTES>().ok_or(OpenFailed)?;
        if u32::try_from(text.len()) != Ok(aad.plain_len) {
            return Err(OpenFailed);
        }
        self.cipher.open(nonce, &aad.encode(), text, tag)?;
        Ok(NONCE_BYTES..NONCE_BYTES + text.len())
    }
}

fn derive_bytes(
    dek: &Dek,
    header: &FileHeader,
    tenant: TenantId,
    version: DekVersion,
) -> (Zeroizing<[u8; 32]>, [u8; COMMITMENT_BYTES]) {
    let mut ctx = [0u8; CTX_BYTES];
    ctx[0] = header.kind as u8;
    ctx[1] = SUITE;
    ctx[2..10].copy_from_slice(&tenant.0.to_le_bytes());
    ctx[10..14].copy_from_slice(&version.0.to_le_bytes());
    ctx[14..30].copy_from_slice(&header.file_id);
    ctx[30..38].copy_from_slice(&header.epoch.0.to_le_bytes());
    ctx[38..46].copy_from_slice(&header.number.to_le_bytes());
    let mut key = Zeroizing::new([0u8; 32]);
    let mut commitment = [0u8; COMMITMENT_BYTES];
    let prk = extract(&header.salt, dek.expose());
    expand(&prk, &[b"strongroom/1/file", &ctx], key.as_mut());
    expand(&prk, &[b"strongroom/1/commit", &ctx], &mut commitment);
    (key, commitment)
}

/// HKDF-SHA256, extract and expand, into at most 255 * 32 bytes.
pub(crate) fn hkdf_sha256(salt: &[u8], ikm: &[u8], info: &[&[u8]], out: &mut [u8]) {
    expand(&extract(salt, ikm), info, out);
}

fn extract(salt: &[u8], ikm: &[u8]) -> Hkdf<Sha256> {
    let (mut prk, hkdf) = Hkdf::<Sha256>::extract(Some(salt), ikm);
    prk.as_mut_slice().zeroize();
    hkdf
}

fn expand(prk: &Hkdf<Sha256>, info: &[&[u8]], out: &mut [u8]) {
    if prk.expand_multi_info(info, out).is_err() {
        unreachable!("outputs are at most 32 bytes");
    }
}

#[cfg(test)]
pub(super) fn derived_for_test(
    dek: &Dek,
    header: &FileHeader,
    tenant: TenantId,
    version: DekVersion,
) -> [u8; 32] {
    *derive_bytes(dek, header, tenant, version).0
}
