//! Nonces: `seq u32 big-endian ‖ 8 random bytes`.
//!
//! `seq` counts the seals of one open file, in memory only: it makes nonces of one writer differ without
//! trusting the random bits. The random bits come from the operating system for every seal: they make
//! nonces differ when the whole process is cloned with an open file (a snapshot of a virtual machine),
//! where key and `seq` are the same in both. A user-space pool would be cloned along, so there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::NONCE_BYTES;
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::planted;
use crate::io::Rng;

/// The nonces of one file being written. Exactly one for each file and writer.
pub(crate) struct Nonces {
    rng: Arc<dyn Rng>,
    seq: AtomicU64,
    #[cfg(any(test, feature = "sim"))]
    pub(super) writer: super::recorder::Writer,
}

impl Nonces {
    /// Starts at 0.
    pub fn new(rng: Arc<dyn Rng>) -> Nonces {
        Nonces {
            #[cfg(any(test, feature = "sim"))]
            writer: super::recorder::Writer::new(&rng),
            rng,
            seq: AtomicU64::new(0),
        }
    }

    /// The next nonce. `ReadOnly` after 2^32 - 1: the caller must have begun a new file long before.
    pub(super) fn next(&self) -> Result<[u8; NONCE_BYTES]> {
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
        let (counter, random) = nonce.split_at_mut(4);
        counter.copy_from_slice(&seq.to_be_bytes());
        fill(&*self.rng, random)?;
        Ok(nonce)
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
