//! The clear parts of a value file: directory records of 56 bytes and a footer of 48 at the end (docs/format.md 4.6).

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{Directory, Fields};

const FOOTER_BYTES: usize = 48;
const RUN_BYTES: u64 = 56;

/// A value file.
pub struct Values {
    /// Tenants in it.
    pub tenants: u64,
    /// Values, needed or not.
    pub values: u64,
    /// The first tenants.
    pub shown: Vec<ValueRun>,
}

/// A tenant's part of a value file.
pub struct ValueRun {
    /// Whose.
    pub tenant: u64,
    /// Version of its key.
    pub dek_version: u64,
    /// Values.
    pub values: u64,
    /// Their sealed bytes.
    pub bytes: u64,
    /// Where it begins.
    pub offset: u64,
}

pub(super) fn values(file: &File, bytes: u64, limit: usize) -> Result<Values, String> {
    let short = || "too short for a value file".to_owned();
    let at = bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(short)?;
    let mut footer = [0; FOOTER_BYTES];
    file.read_exact_at(&mut footer, at).map_err(|_| short())?;
    let fields = Fields(&footer);
    if fields.array::<8>(40) != *b"SRGVALUE" {
        return Err("the footer is missing".to_owned());
    }
    let (offset, tenants) = (fields.u64(0), fields.u64(8));
    let directory = Directory {
        offset,
        tenants,
        run_bytes: RUN_BYTES,
        footer: &footer,
        crc: 36,
    };
    let directory = directory.read(file, at, limit).ok_or_else(short)??;
    let runs = directory.chunks_exact(RUN_BYTES as usize).take(limit).map(|run| {
        let fields = Fields(run);
        ValueRun {
            tenant: fields.u64(0),
            dek_version: u64::from(fields.u32(8)),
            values: fields.u64(32),
            bytes: fields.u64(48),
            offset: fields.u64(40),
        }
    });
    let shown = runs.collect();
    Ok(Values {
        tenants,
        values: fields.u64(16),
        shown,
    })
}
