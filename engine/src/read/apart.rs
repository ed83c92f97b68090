//! The value of an entry, wherever it stands: in the entry, or in a value file of the version that the entry is of.

use std::path::Path;

use bytes::Bytes;

use super::cursor::EntryKind;
use crate::error::{Error, Result};
use crate::expiry;
use crate::table::{Owner, Reference, ValueFile};
use crate::version::{Version, values_name};

impl Version {
    /// The user's value of an entry that has one: of kind `kind`, with `stored` where the value stands. None if the
    /// tenant's key is destroyed.
    ///
    /// - Cost: for a value that stands apart, a look into the cache, or one read of a file.
    /// - Errors: `Corruption`, `KeyRefused`, `Io`.
    pub(crate) fn value(&self, owner: Owner<'_>, kind: EntryKind, stored: Bytes) -> Result<Option<Bytes>> {
        if kind != EntryKind::Separated {
            return Ok(Some(expiry::value(kind, stored)));
        }
        let (file, reference) = self.find_value(&stored)?;
        file.get(owner, &reference)
    }

    /// The file that a stored reference names.
    pub(crate) fn find_value(&self, stored: &[u8]) -> Result<(&ValueFile, Reference)> {
        let tables = Path::new("tables");
        let reference = Reference::decode(stored).ok_or_else(|| {
            let expected = format_args!("{} bytes", Reference::BYTES);
            Error::corruption(tables, 0, "reference to a value", expected, stored.len())
        })?;
        let file = self.values.get(&reference.file).ok_or_else(|| {
            let path = tables.join(values_name(reference.file));
            Error::corruption(
                &path,
                reference.offset,
                "value file",
                "one of the version",
                "none",
            )
        })?;
        Ok((file, reference))
    }
}
