//! The clear parts of a value file, what the manifest keeps of them, and the reference to a value.
//!
//! ```text
//! value file = header (128) ‖ run per tenant, ids ascending ‖ directory ‖ footer (48)
//! run        = value ‖ …
//! value      = sealed piece of: codec u8 (2 as it is, 3 LZ4) ‖ the value, or its length u32 ‖ LZ4 block
//!
//! directory = one record of 56 bytes per tenant, little-endian:
//!   0  8  tenant
//!   8  4  DEK version      of the tenant's file key
//!  12  4  zero
//!  16 16  commitment       of the tenant's file key
//!  32  8  values
//!  40  8  start            of the run's first value
//!  48  8  bytes            of the run
//!
//! footer:
//!   0  8  directory offset
//!   8  8  tenants
//!  16  8  values
//!  24  8  known            newest change of tenants' retentions that the writer went by; 0 = none
//!  32  2  format           1
//!  34  2  zero
//!  36  4  crc32            IEEE, over the directory, then footer [0, 36)
//!  40  8  magic            "SRGVALUE"
//!
//! reference, 24 bytes, in a table's block where a put has its value:
//!   0  8  file             number of the value file
//!   8  8  offset           of the sealed piece
//!  16  4  bytes            of the sealed piece
//!  20  4  length           of the value
//! ```
//!
//! Valid if and only if: (1) magic, format, zeroes and crc hold; (2) directory and footer end the file; (3) tenants
//! ascend strictly; (4) runs follow each other from byte 128 to the directory without a gap; (5) the sums of the
//! records equal the footer's; (6) the SHA-256 over header ‖ directory ‖ footer equals the one in the manifest's
//! [`ValueMeta`].

use crate::seal::{FileHeader, SEAL_OVERHEAD};
use crate::table::format::{Fields, FooterError, Malformed, checksum};
use crate::types::{DekVersion, SeqNo, TenantId};

/// Encoded length of one directory record.
pub(super) const RUN_BYTES: usize = 56;
/// Encoded length of the footer.
pub(super) const FOOTER_BYTES: usize = 48;
const MAGIC: [u8; 8] = *b"SRGVALUE";
const FORMAT: u16 = 1;
pub(super) const CRC_OFFSET: usize = 36;
/// What a run has of each value at least.
const VALUE_BYTES_MIN: u64 = SEAL_OVERHEAD as u64 + 1;

const _: () = assert!(RUN_BYTES == 8 + 4 + 4 + 16 + 8 * 3);
const _: () = assert!(FOOTER_BYTES == 8 * 4 + 2 + 2 + 4 + 8);

/// Where a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reference {
    /// Number of the value file.
    pub file: u64,
    /// Of the sealed piece in it.
    pub offset: u64,
    /// Of the sealed piece.
    pub bytes: u32,
    /// Of the user's value.
    pub length: u32,
}

impl Reference {
    /// Encoded length.
    pub(crate) const BYTES: usize = 24;

    pub(crate) fn encode(&self) -> [u8; Reference::BYTES] {
        let mut out = [0; Reference::BYTES];
        out[..8].copy_from_slice(&self.file.to_le_bytes());
        out[8..16].copy_from_slice(&self.offset.to_le_bytes());
        out[16..20].copy_from_slice(&self.bytes.to_le_bytes());
        out[20..].copy_from_slice(&self.length.to_le_bytes());
        out
    }

    /// None unless it is exactly one.
    pub(crate) fn decode(stored: &[u8]) -> Option<Reference> {
        let mut fields = Fields(stored);
        let reference = Reference {
            file: fields.u64()?,
            offset: fields.u64()?,
            bytes: fields.u32()?,
            length: fields.u32()?,
        };
        fields.0.is_empty().then_some(reference)
    }
}

/// What the manifest records of a value file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ValueMeta {
    /// File number: names the file.
    pub number: u64,
    /// From the file's header.
    pub file_id: [u8; 16],
    /// File length.
    pub bytes: u64,
    /// Values of all tenants, needed or not.
    pub values: u64,
    /// SHA-256 over header ‖ directory ‖ footer.
    pub digest: [u8; 32],
}

impl ValueMeta {
    /// Encoded length.
    pub(crate) const BYTES: usize = 8 + 16 + 8 + 8 + 32;

    /// Appends the encoding: fields in order, little-endian.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.file_id);
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.values.to_le_bytes());
        out.extend_from_slice(&self.digest);
    }

    /// None unless it is exactly one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<ValueMeta> {
        let mut fields = Fields(bytes);
        let meta = ValueMeta {
            number: fields.u64()?,
            file_id: fields.array()?,
            bytes: fields.u64()?,
            values: fields.u64()?,
            digest: fields.array()?,
        };
        (fields.0.is_empty() && meta.values > 0).then_some(meta)
    }
}

/// One tenant's record in the directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ValueRun {
    /// The tenant.
    pub tenant: TenantId,
    pub(super) dek: DekVersion,
    pub(super) commitment: [u8; 16],
    /// Values of it, needed or not.
    pub values: u64,
    pub(super) start: u64,
    /// Sealed bytes of them.
    pub bytes: u64,
}

impl ValueRun {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.tenant.0.to_le_bytes());
        out.extend_from_slice(&self.dek.0.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.commitment);
        for field in [self.values, self.start, self.bytes] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }

    fn decode(fields: &mut Fields<'_>) -> Option<ValueRun> {
        let (tenant, dek) = (TenantId(fields.u64()?), DekVersion(fields.u32()?));
        if fields.u32()? != 0 {
            return None;
        }
        Some(ValueRun {
            tenant,
            dek,
            commitment: fields.array()?,
            values: fields.u64()?,
            start: fields.u64()?,
            bytes: fields.u64()?,
        })
    }

    /// Whether a piece lies inside the run.
    pub(super) fn holds(&self, offset: u64, bytes: u32) -> bool {
        let end = offset.checked_add(u64::from(bytes));
        offset >= self.start && end.is_some_and(|end| end <= self.start.saturating_add(self.bytes))
    }
}

/// The footer's totals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Footer {
    pub directory: u64,
    pub tenants: u64,
    pub values: u64,
    pub known: SeqNo,
}

impl Footer {
    /// The footer's bytes for `directory`, which precedes it.
    pub(super) fn encode(&self, directory: &[u8]) -> [u8; FOOTER_BYTES] {
        let mut out = [0; FOOTER_BYTES];
        let fields = [self.directory, self.tenants, self.values, self.known.0];
        for (place, field) in out.as_chunks_mut().0.iter_mut().zip(fields) {
            *place = field.to_le_bytes();
        }
        out[32..34].copy_from_slice(&FORMAT.to_le_bytes());
        let crc = checksum(directory, &out[..CRC_OFFSET]);
        out[CRC_OFFSET..40].copy_from_slice(&crc.to_le_bytes());
        out[40..].copy_from_slice(&MAGIC);
        out
    }

    /// Checks magic, format and zeroes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Footer, FooterError> {
        let read = || {
            let mut fields = Fields(bytes);
            let footer = Footer {
                directory: fields.u64()?,
                tenants: fields.u64()?,
                values: fields.u64()?,
                known: SeqNo(fields.u64()?),
            };
            Some((
                footer,
                fields.u16()?,
                fields.u16()?,
                fields.u32()?,
                fields.array()?,
            ))
        };
        let malformed = |what| Err(FooterError::Malformed(Malformed(what)));
        match read() {
            None => malformed("48 bytes of footer"),
            Some((.., magic)) if magic != MAGIC => malformed("the footer's magic"),
            Some((_, format, ..)) if format > FORMAT => Err(FooterError::Newer(format)),
            Some((footer, FORMAT, 0, ..)) => Ok(footer),
            Some(_) => malformed("format 1 and zeroes"),
        }
    }
}

/// Checks (1, the crc), (3), (4) and (5) of the module head.
pub(super) fn check(
    footer: &Footer,
    directory: &[u8],
    footer_bytes: &[u8],
) -> Result<Box<[ValueRun]>, Malformed> {
    let (covered, rest) = footer_bytes
        .split_at_checked(CRC_OFFSET)
        .ok_or(Malformed("48 bytes of footer"))?;
    let stored = rest.first_chunk().copied().map(u32::from_le_bytes);
    if stored != Some(checksum(directory, covered)) {
        return Err(Malformed("the checksum of directory and footer"));
    }
    let tenants = directory.len() / RUN_BYTES;
    if !directory.len().is_multiple_of(RUN_BYTES) || tenants as u64 != footer.tenants || tenants == 0 {
        return Err(Malformed("as many records as the footer says"));
    }
    let mut fields = Fields(directory);
    let mut runs: Vec<ValueRun> = Vec::with_capacity(tenants);
    let (mut at, mut values) = (FileHeader::BYTES as u64, 0u64);
    while !fields.0.is_empty() {
        let run = ValueRun::decode(&mut fields).ok_or(Malformed("a directory record"))?;
        if runs.last().is_some_and(|before| before.tenant >= run.tenant) {
            return Err(Malformed("ascending tenants"));
        }
        let least = run.values.checked_mul(VALUE_BYTES_MIN);
        if run.values == 0 || least.is_none_or(|least| run.bytes < least) {
            return Err(Malformed("possible counts"));
        }
        let end = at.checked_add(run.bytes).filter(|_| run.start == at);
        at = end
            .filter(|end| *end <= footer.directory)
            .ok_or(Malformed("runs that follow each other"))?;
        values = values
            .checked_add(run.values)
            .ok_or(Malformed("possible counts"))?;
        runs.push(run);
    }
    if at != footer.directory {
        return Err(Malformed("runs up to the directory"));
    }
    if values != footer.values {
        return Err(Malformed("records that add up to the footer"));
    }
    Ok(runs.into())
}
