//! Nonces: `seq u32 big-endian ‖ 8 further bytes`.
//!
//! `seq` counts the seals of one open file, in memory only: it makes nonces of one writer differ without trusting
//! anything random. The other half makes nonces differ when the whole process is cloned with an open file (a snapshot of
//! a virtual machine), where key and `seq` are the same in both:
//!
//! - Of a piece of up to [`HASHED_BYTES_MAX`] it is the first 8 bytes of HMAC-SHA256(secret, `seq` ‖ associated data ‖
//!   plaintext). The secret is 32 bytes of the operating system's, drawn anew for every [`GROUP`] seals of the file. A
//!   clone has it as well, and yet pieces that differ get nonces that differ, but for one pair in 2^64; of those that do
//!   not, it makes the same bytes twice, which tells nothing.
//! - Of a larger one it is drawn from the operating system, as hashing all of it would take longer.
//!
//! So small pieces do not rest on the operating system's notice: a machine that is cloned without it costs nothing but that
//! equal bytes look equal, as long as nobody else knows the secret (decision 0032).
//!
//! Sources: nonces from a random key and the message are PASETO's (v1.local, v2.local), against a random source that fails;
//! the idea is that of RFC 6979, and of AES-GCM-SIV (RFC 8452), which would need a second cipher.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::NONCE_BYTES;
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::planted;
use crate::io::Rng;

/// The largest piece whose plaintext is hashed: 0.2 us for a put of 100 bytes, twice that for this by the number of blocks, about
/// what a call of the operating system takes (0.35 us, decision 0032).
const HASHED_BYTES_MAX: usize = 512;
/// Seals for which one secret is used.
const GROUP: u32 = 64;

/// The nonces of one file being written. Exactly one for each file and writer.
pub(crate) struct Nonces {
    rng: Arc<dyn Rng>,
    seq: AtomicU64,
    group: Mutex<Group>,
    #[cfg(any(test, feature = "sim"))]
    pub(super) writer: super::recorder::Writer,
}

/// A secret, as the state of its HMAC, which is wiped when dropped.
#[derive(Default)]
struct Group {
    secret: Option<Hmac<Sha256>>,
    used: u32,
}

impl Nonces {
    /// Starts at 0.
    pub fn new(rng: Arc<dyn Rng>) -> Nonces {
        Nonces {
            #[cfg(any(test, feature = "sim"))]
            writer: super::recorder::Writer::new(&rng),
            rng,
            seq: AtomicU64::new(0),
            group: Mutex::default(),
        }
    }

    /// The nonce for a piece. `ReadOnly` after 2^32 - 1: the caller must have begun a new file long before. `Io` without
    /// randomness.
    pub(super) fn next(&self, aad: &[u8], plain: &[u8]) -> Result<[u8; NONCE_BYTES]> {
        let seq = match u32::try_from(self.seq.fetch_add(1, Ordering::Relaxed)) {
            Ok(seq) if seq < u32::MAX => seq,
            _ => {
                return Err(Error::new(
                    ErrorKind::ReadOnly,
                    "the nonces of a file are used up: reopen",
                ));
            }
        };
        let mut nonce = [0u8; NONCE_BYTES];
        if planted!(NonceRepeats) {
            return Ok(nonce);
        }
        let (counter, rest) = nonce.split_at_mut(4);
        counter.copy_from_slice(&seq.to_be_bytes());
        if plain.len() > HASHED_BYTES_MAX {
            fill(&*self.rng, rest)?;
            return Ok(nonce);
        }
        let mut mac = self.secret()?;
        mac.update(counter);
        mac.update(aad);
        if !planted!(NonceWithoutPlaintext) {
            mac.update(plain);
        }
        let full = Zeroizing::new(<[u8; 32]>::from(mac.finalize().into_bytes()));
        for (to, from) in rest.iter_mut().zip(*full) {
            *to = from;
        }
        Ok(nonce)
    }

    /// The HMAC of this group, with nothing in it.
    fn secret(&self) -> Result<Hmac<Sha256>> {
        let mut group = self.group.lock();
        match &group.secret {
            Some(secret) if group.used < GROUP => {
                let secret = secret.clone();
                group.used += 1;
                Ok(secret)
            }
            _ => {
                // HMAC's key block: a key shorter than it is followed by zeros.
                let mut block = Zeroizing::new([0u8; 64]);
                fill(&*self.rng, &mut block[..32])?;
                let secret = Hmac::new((&*block).into());
                group.secret = Some(secret.clone());
                group.used = 1;
                Ok(secret)
            }
        }
    }

    /// As if `seals` pieces had been sealed.
    #[cfg(test)]
    pub fn skip(&self, seals: u64) {
        self.seq.fetch_add(seals, Ordering::Relaxed);
    }
}

/// Random bytes, or an `Io` error.
pub(crate) fn fill(rng: &dyn Rng, buf: &mut [u8]) -> Result<()> {
    rng.fill(buf)
        .map_err(|e| Error::new(ErrorKind::Io, "the operating system gave no random bytes").with_source(e))
}
