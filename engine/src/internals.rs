//! Pieces of the inside for benches, behind the feature `internals`. No promise of stability.

use crate::error::{Error, ErrorKind, Result};
use crate::io::Io;
use crate::seal::{Aad, Dek, FileHeader, FileKey, FileKind, Nonces, Piece};
use crate::types::{Chain, DekVersion, Epoch, TenantId};

/// Seals and opens one piece of a fixed length, as tables and the log do.
pub struct SealBench {
    key: FileKey,
    nonces: Nonces,
    aad: Aad,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl SealBench {
    /// For pieces of `len` bytes.
    pub fn new(len: usize) -> Result<SealBench> {
        let io = Io::os();
        let header = FileHeader::new(&io, FileKind::Table, Epoch::FIRST, 1, Chain::default())?;
        let key = FileKey::derive(&Dek::generate(&*io.rng)?, &header, TenantId(1), DekVersion(1));
        let aad = Aad {
            piece: Piece::Block,
            tenant: TenantId(1),
            file: header.file_id,
            offset: 128,
            plain_len: len as u32,
            a: 0,
            b: 0,
        };
        let mut bench = SealBench {
            key,
            nonces: Nonces::new(io.rng),
            aad,
            plain: vec![0x5a; len],
            sealed: Vec::new(),
        };
        bench.seal()?;
        Ok(bench)
    }

    /// Seals once; the sealed length.
    pub fn seal(&mut self) -> Result<usize> {
        self.sealed.clear();
        self.key
            .seal(&self.nonces, &self.aad, &self.plain, &mut self.sealed)?;
        Ok(self.sealed.len())
    }

    /// Opens what was sealed last; the plain length.
    pub fn open(&mut self) -> Result<usize> {
        match self.key.open(&self.aad, &self.sealed) {
            Ok(plain) => Ok(plain.len()),
            Err(_) => Err(Error::new(ErrorKind::Corruption, "the piece did not open")),
        }
    }
}
