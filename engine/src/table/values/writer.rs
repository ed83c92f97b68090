//! Writes one value file, front to back.
//!
//! Values arrive tenant by tenant, ids ascending; a run closes when the tenant changes. A writer dropped before
//! `finish` removes its file.

use std::path::Path;
use std::sync::Arc;

use super::format::{Footer, RUN_BYTES, Reference, ValueMeta, ValueRun};
use super::{CODEC_BYTES, LZ4, Owner, STORED};
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::planted;
use crate::io::Io;
use crate::options::{Compression, VALUE_BYTES_MAX};
use crate::seal::{FileHeader, FileKey, FileKeys, Nonces};
use crate::table::compress::Compressor;
use crate::table::format::digest;
use crate::table::out_file::{OutFile, WRITE_BYTES};
use crate::types::{SeqNo, TenantId};

/// Writes a value file.
pub(crate) struct ValueWriter {
    out: OutFile,
    header: FileHeader,
    keys: Arc<FileKeys>,
    nonces: Nonces,
    compressor: Option<Compressor>,
    /// A value that is not compressed, behind its codec.
    plain: Vec<u8>,
    open: Option<(ValueRun, Arc<FileKey>)>,
    directory: Vec<u8>,
    values: u64,
    known: SeqNo,
}

impl ValueWriter {
    /// Creates the file `path`; `AlreadyExists` from the file system if the name is taken.
    ///
    /// - `header`: of kind values, fresh for this file.
    /// - `known`: the newest change of tenants' settings that the writer goes by.
    pub(crate) fn new(
        io: &Io,
        path: &Path,
        header: FileHeader,
        keys: &Arc<FileKeys>,
        compression: Compression,
        known: SeqNo,
    ) -> Result<ValueWriter> {
        Ok(ValueWriter {
            out: OutFile::create(io, path, header.encode().to_vec())?,
            keys: keys.clone(),
            nonces: Nonces::new(io.rng.clone()),
            compressor: match compression {
                Compression::None => None,
                Compression::Lz4 => Some(Compressor::new()),
            },
            plain: Vec::new(),
            header,
            open: None,
            directory: Vec::new(),
            values: 0,
            known,
        })
    }

    /// Adds a value: tenants ascending.
    ///
    /// `NotFound` when the tenant's key is gone: nothing was added, go on with the next tenant. After any other error
    /// drop the writer.
    pub(crate) fn add(&mut self, owner: Owner<'_>, value: &[u8]) -> Result<Reference> {
        let length = u32::try_from(value.len())
            .ok()
            .filter(|_| value.len() <= VALUE_BYTES_MAX);
        let Some(length) = length else {
            return Err(
                Error::new(ErrorKind::Invalid, "a value that no value file can hold").at(self.out.path()),
            );
        };
        if self
            .open
            .as_ref()
            .is_none_or(|(run, _)| run.tenant != owner.tenant)
        {
            self.open_run(owner.tenant)?;
        }
        let offset = self.bytes();
        let Some((run, key)) = &mut self.open else {
            return Err(Error::new(ErrorKind::Invalid, "a value of no tenant").at(self.out.path()));
        };
        let packed = self
            .compressor
            .as_mut()
            .and_then(|compressor| compressor.pack(&[LZ4], value));
        let plain = match packed {
            Some(packed) => packed,
            None => {
                self.plain.clear();
                self.plain.push(STORED);
                self.plain.extend_from_slice(value);
                &self.plain
            }
        };
        let plain_len = u32::try_from(plain.len())
            .map_err(|_| Error::new(ErrorKind::Invalid, "a value of 4 GiB").at(self.out.path()))?;
        let before = self.out.bytes.len();
        let aad = owner.aad(self.header.file_id, offset, plain_len);
        key.seal(&self.nonces, &aad, plain, &mut self.out.bytes)?;
        let bytes = (self.out.bytes.len() - before) as u64;
        run.values += 1;
        run.bytes += bytes;
        self.values += 1;
        if self.plain.capacity() > 4 * WRITE_BYTES {
            self.plain = Vec::with_capacity(CODEC_BYTES);
        }
        self.out.write_if_much()?;
        Ok(Reference {
            file: self.header.number,
            offset,
            // A value and what sealing adds to it are far below 4 GiB.
            bytes: bytes as u32,
            length,
        })
    }

    fn open_run(&mut self, tenant: TenantId) -> Result<()> {
        if self.open.as_ref().is_some_and(|(run, _)| run.tenant > tenant) {
            let (what, expected) = ("values for a value file", "ascending tenants");
            return Err(Error::corruption(
                self.out.path(),
                self.bytes(),
                what,
                expected,
                "a step back",
            ));
        }
        let (dek, key) = self.keys.for_writing(&self.header, tenant)?;
        self.close_run();
        let run = ValueRun {
            tenant,
            dek,
            commitment: key.commitment(),
            values: 0,
            start: self.bytes(),
            bytes: 0,
        };
        self.open = Some((run, key));
        Ok(())
    }

    fn close_run(&mut self) {
        if let Some((run, _)) = self.open.take()
            && run.values > 0
        {
            run.encode(&mut self.directory);
        }
    }

    /// Bytes so far, without directory and footer.
    pub(crate) fn bytes(&self) -> u64 {
        self.out.at()
    }

    /// Completes the file and makes its bytes durable; its name is durable once the caller has synced the directory.
    /// None, and no file, if nothing was added. On any error the file is removed.
    pub(crate) fn finish(mut self) -> Result<Option<ValueMeta>> {
        self.close_run();
        if self.values == 0 {
            return Ok(None);
        }
        let directory = std::mem::take(&mut self.directory);
        let footer = Footer {
            directory: self.bytes(),
            tenants: (directory.len() / RUN_BYTES) as u64,
            values: self.values,
            known: self.known,
        }
        .encode(&directory);
        let bytes = self
            .out
            .complete(&directory, &footer, !planted!(ValuesNotSynced))?;
        Ok(Some(ValueMeta {
            number: self.header.number,
            file_id: self.header.file_id,
            bytes,
            values: self.values,
            digest: digest(&self.header.encode(), &directory, &footer),
        }))
    }
}
