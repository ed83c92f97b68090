//! What tables and value files have in common: how they are opened, and which key opens a tenant's part.
//!
//! ```text
//! header   tenants' parts, one after the other   directory of these   footer of a fixed length
//! ```
//!
//! Invariant: a length is compared with the file's before memory is allocated for it.

use std::path::Path;
use std::sync::Arc;

use super::format::{FooterError, Malformed};
use super::reader::read;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{File, Io};
use crate::seal::{FileHeader, FileKey, FileKeys, FileKind, KeyAccess};
use crate::types::{DekVersion, TenantId};

/// How one of the two is called and cut.
pub(super) struct Shape {
    /// In errors.
    pub name: &'static str,
    pub kind: FileKind,
    /// Length of a record of the directory.
    pub run_bytes: usize,
    pub footer_bytes: usize,
}

/// One whose length is right and whose header is read; its footer is not looked at yet.
pub(super) struct SealedFile<'a> {
    shape: &'a Shape,
    path: &'a Path,
    pub file: Arc<dyn File>,
    pub header: FileHeader,
    pub header_bytes: Vec<u8>,
    pub footer_bytes: Vec<u8>,
    footer_at: u64,
}

impl<'a> SealedFile<'a> {
    /// Opens the file at `path`, which should have that many bytes.
    ///
    /// Errors: `Corruption` if it is missing or anything differs; `Io`.
    pub fn open(io: &Io, path: &'a Path, bytes: u64, shape: &'a Shape) -> Result<SealedFile<'a>> {
        let name = shape.name;
        let file = io.vfs.open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::corruption(path, 0, name, "a file", "none"),
            _ => Error::io("opening a table or value file", path, e),
        })?;
        let len = file
            .len()
            .map_err(|e| Error::io("measuring a table or value file", path, e))?;
        let wrong = |expected: &dyn std::fmt::Display| {
            Error::corruption(path, len, &format!("{name} length"), expected, len)
        };
        if len != bytes {
            return Err(wrong(&bytes));
        }
        let smallest = (FileHeader::BYTES + shape.run_bytes + shape.footer_bytes) as u64;
        if len < smallest {
            return Err(wrong(&format_args!("{smallest} at least")));
        }
        let header_bytes = read(&*file, path, 0, FileHeader::BYTES)?;
        let header = FileHeader::decode(path, &header_bytes, shape.kind)?;
        let footer_at = len - shape.footer_bytes as u64;
        let footer_bytes = read(&*file, path, footer_at, shape.footer_bytes)?;
        Ok(SealedFile {
            shape,
            path,
            file,
            header,
            header_bytes,
            footer_bytes,
            footer_at,
        })
    }

    /// The directory, which the footer says begins there and has that many tenants.
    pub fn directory(&self, start: u64, tenants: u64) -> Result<Vec<u8>> {
        let len = tenants.checked_mul(self.shape.run_bytes as u64);
        let end = len.and_then(|len| start.checked_add(len));
        if end != Some(self.footer_at) {
            return Err(self.malformed(Malformed("a directory just before it")));
        }
        // At most the file's own length, as was just checked.
        let len = (self.footer_at - start) as usize;
        read(&*self.file, self.path, start, len)
    }

    /// The footer is not what it should be.
    pub fn malformed(&self, Malformed(what): Malformed) -> Error {
        let structure = format!("{} footer", self.shape.name);
        Error::corruption(self.path, self.footer_at, &structure, what, "otherwise")
    }

    /// The footer does not decode.
    pub fn bad_footer(&self, error: FooterError) -> Error {
        match error {
            FooterError::Malformed(what) => self.malformed(what),
            FooterError::Newer(format) => {
                let name = self.shape.name;
                let message = format!("{name} format {format} is newer than this version reads");
                Error::new(ErrorKind::Unsupported, message).at(self.path)
            }
        }
    }
}

/// A tenant's part of such a file, as the directory tells of its key.
pub(super) struct Part<'a> {
    pub tenant: TenantId,
    pub dek: DekVersion,
    pub commitment: &'a [u8; 16],
    pub start: u64,
}

/// The key that opens a part of the file at `path`; None if it is destroyed. `name` is the file's in errors.
///
/// Errors: `KeyRefused` if the tenant's key is another than the one that sealed the part, `Corruption` if there is no
/// trace of it.
pub(super) fn key_of(
    keys: &FileKeys,
    header: &FileHeader,
    path: &Path,
    name: &str,
    part: &Part<'_>,
) -> Result<Option<Arc<FileKey>>> {
    let Part { tenant, dek, .. } = part;
    match keys.for_reading(header, *tenant, *dek) {
        KeyAccess::Live(key) if key.matches(part.commitment) => Ok(Some(key)),
        KeyAccess::Live(_) => {
            let message = format!(
                "the key of tenant {tenant} (version {dek}) is not the one that sealed this {name}: wrong keystore"
            );
            Err(Error::new(ErrorKind::KeyRefused, message).at(path))
        }
        KeyAccess::Destroyed => Ok(None),
        KeyAccess::Unknown => {
            let key = format_args!("a key of tenant {tenant} (version {dek})");
            Err(Error::corruption(
                path,
                part.start,
                "keystore",
                key,
                "no trace of it",
            ))
        }
    }
}
