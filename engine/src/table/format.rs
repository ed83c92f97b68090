//! The clear parts of a table file: tenant directory and footer, and what the manifest keeps of both.
//!
//! ```text
//! table     = header (128) ‖ run per tenant, ids ascending ‖ directory ‖ footer (64)
//! run       = section ‖ … ‖ [index of sections, only if there are several]
//! section   = data blocks ‖ [filter] ‖ index of the blocks            every piece sealed
//!
//! directory = one record of 88 bytes per tenant, little-endian:
//!   0  8  tenant
//!   8  4  DEK version      of the tenant's file key
//!  12  4  filter bytes     0 = none (and always 0 when there are several sections)
//!  16 16  commitment       of the tenant's file key
//!  32  8  entries          versions, deletes included
//!  40  4  deletes          all ones = that many or more
//!  44  4  range deletes    fragments, each as often as it was deleted
//!  48  8  seqno min
//!  56  8  seqno max
//!  64  8  start            of the run's first block
//!  72  8  head             of the filter, or of the index where there is none: the start, in a run of range
//!                          deletes alone
//!  80  4  index bytes      the run ends after its index
//!  84  4  expires          earliest moment at which a value expires or is past its keyspace's retention, in
//!                          seconds since 1970, rounded up; 0 = none does, all ones = in 2106 or later
//!
//! footer:
//!   0  8  directory offset
//!   8  8  tenants
//!  16  8  entries
//!  24  8  seqno min
//!  32  8  seqno max
//!  40  8  known            newest change of tenants' retentions that the writer went by; 0 = none
//!  48  2  format           1
//!  50  2  zero
//!  52  4  crc32            IEEE, over the directory, then footer [0, 52)
//!  56  8  magic            "SRGTABLE"
//! ```
//!
//! Valid if and only if: (1) magic, format, zeroes and crc hold; (2) directory and footer end the file;
//! (3) tenants ascend strictly; (4) runs follow each other from byte 128 to the directory without a
//! gap, so that every byte of the file belongs to something verified; (5) the sums and extremes of
//! the records equal the footer's; (6) the SHA-256 over header ‖ directory ‖ footer equals the one in
//! the manifest's [`TableMeta`]. (6) is what authenticates the clear parts: the crc only lets a
//! reader without keys find damage.
//!
//! The directory stays in memory as the bytes it is: 88 a tenant, searched in place.

use sha2::{Digest, Sha256};

use crate::seal::{FileHeader, SEAL_OVERHEAD};
use crate::types::{DekVersion, SeqNo, TenantId};

/// Encoded length of one directory record.
pub(super) const RUN_BYTES: usize = 88;
/// Encoded length of the footer.
pub(super) const FOOTER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"SRGTABLE";
const FORMAT: u16 = 1;
const CRC_OFFSET: usize = 52;

const _: () = assert!(RUN_BYTES == 8 + 4 + 4 + 16 + 8 * 6 + 4 + 4);
const _: () = assert!(FOOTER_BYTES == 8 * 6 + 2 + 2 + 4 + 8);

/// Why bytes are not what they should be: what was expected. Becomes a corruption error that names
/// file and offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed(pub &'static str);

/// Takes little-endian fields off the front of a slice.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// What the manifest records of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TableMeta {
    /// File number: names the file.
    pub number: u64,
    /// From the file's header.
    pub file_id: [u8; 16],
    /// File length.
    pub bytes: u64,
    /// Versions of all tenants, deletes included; none in a table of range deletes alone.
    pub entries: u64,
    /// SHA-256 over header ‖ tenant directory ‖ footer.
    pub digest: [u8; 32],
    /// Smallest tenant inside.
    pub tenant_min: TenantId,
    /// Largest tenant inside.
    pub tenant_max: TenantId,
    /// Oldest version inside.
    pub seqno_min: SeqNo,
    /// Newest version inside.
    pub seqno_max: SeqNo,
    /// Value files that it refers to, by number, ascending, and how many sealed bytes of each.
    pub values: Vec<(u64, u64)>,
}

impl TableMeta {
    /// Encoded length, without `values`.
    pub(crate) const BYTES: usize = 8 + 16 + 8 + 8 + 32 + 8 * 4;

    /// Appends the encoding, [`BYTES`](TableMeta::BYTES) long, fields in order, little-endian, without `values`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(TableMeta::BYTES);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.file_id);
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.entries.to_le_bytes());
        out.extend_from_slice(&self.digest);
        out.extend_from_slice(&self.tenant_min.0.to_le_bytes());
        out.extend_from_slice(&self.tenant_max.0.to_le_bytes());
        out.extend_from_slice(&self.seqno_min.0.to_le_bytes());
        out.extend_from_slice(&self.seqno_max.0.to_le_bytes());
    }

    /// Decodes exactly [`BYTES`](TableMeta::BYTES) bytes; None if they are not a table's.
    pub(crate) fn decode(bytes: &[u8]) -> Option<TableMeta> {
        let mut fields = Fields(bytes);
        let meta = TableMeta {
            number: fields.u64()?,
            file_id: fields.array()?,
            bytes: fields.u64()?,
            entries: fields.u64()?,
            digest: fields.array()?,
            tenant_min: TenantId(fields.u64()?),
            tenant_max: TenantId(fields.u64()?),
            seqno_min: SeqNo(fields.u64()?),
            seqno_max: SeqNo(fields.u64()?),
            values: Vec::new(),
        };
        let sane =
            fields.0.is_empty() && meta.tenant_min <= meta.tenant_max && meta.seqno_min <= meta.seqno_max;
        sane.then_some(meta)
    }
}

/// One tenant's record in the directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub tenant: TenantId,
    pub dek: DekVersion,
    pub filter_bytes: u32,
    pub commitment: [u8; 16],
    pub entries: u64,
    /// No more than all ones of 32 bits are told.
    pub deletes: u64,
    pub range_deletes: u32,
    pub seqno_min: SeqNo,
    pub seqno_max: SeqNo,
    pub start: u64,
    pub head: u64,
    pub index_bytes: u32,
    /// See `expiry::seconds`; 0 = no value ends.
    pub expires: u32,
}

impl Run {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.tenant.0.to_le_bytes());
        out.extend_from_slice(&self.dek.0.to_le_bytes());
        out.extend_from_slice(&self.filter_bytes.to_le_bytes());
        out.extend_from_slice(&self.commitment);
        out.extend_from_slice(&self.entries.to_le_bytes());
        let deletes = u32::try_from(self.deletes).unwrap_or(u32::MAX);
        out.extend_from_slice(&deletes.to_le_bytes());
        out.extend_from_slice(&self.range_deletes.to_le_bytes());
        for field in [self.seqno_min.0, self.seqno_max.0, self.start, self.head] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.index_bytes.to_le_bytes());
        out.extend_from_slice(&self.expires.to_le_bytes());
    }

    /// None if too short; nothing else is checked.
    fn decode(bytes: &[u8]) -> Option<Run> {
        let mut fields = Fields(bytes);
        Some(Run {
            tenant: TenantId(fields.u64()?),
            dek: DekVersion(fields.u32()?),
            filter_bytes: fields.u32()?,
            commitment: fields.array()?,
            entries: fields.u64()?,
            deletes: u64::from(fields.u32()?),
            range_deletes: fields.u32()?,
            seqno_min: SeqNo(fields.u64()?),
            seqno_max: SeqNo(fields.u64()?),
            start: fields.u64()?,
            head: fields.u64()?,
            index_bytes: fields.u32()?,
            expires: fields.u32()?,
        })
    }

    /// Just past the run's last byte; None on overflow.
    pub(super) fn end(&self) -> Option<u64> {
        self.head
            .checked_add(u64::from(self.filter_bytes))?
            .checked_add(u64::from(self.index_bytes))
    }

    /// Bytes of the run in the file.
    pub(super) fn bytes(&self) -> u64 {
        self.end().unwrap_or(self.start).saturating_sub(self.start)
    }
}

/// The tenant directory: validated records, kept encoded.
pub(super) struct Directory(Box<[u8]>);

impl Directory {
    pub(super) fn len(&self) -> usize {
        self.0.len() / RUN_BYTES
    }

    pub(super) fn at(&self, index: usize) -> Option<Run> {
        let start = index.checked_mul(RUN_BYTES)?;
        Run::decode(self.0.get(start..start.checked_add(RUN_BYTES)?)?)
    }

    fn tenant_at(&self, index: usize) -> Option<TenantId> {
        let start = index.checked_mul(RUN_BYTES)?;
        Some(TenantId(u64::from_le_bytes(*self.0.get(start..)?.first_chunk()?)))
    }

    /// The record of `tenant`.
    pub(super) fn find(&self, tenant: TenantId) -> Option<Run> {
        self.at(self.position(tenant)?)
    }

    /// Where that is, by binary search.
    pub(super) fn position(&self, tenant: TenantId) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.tenant_at(middle)?.cmp(&tenant) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Run> + '_ {
        (0..self.len()).map_while(|index| self.at(index))
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.0.len()
    }
}

/// The footer's totals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Footer {
    pub directory: u64,
    pub tenants: u64,
    pub entries: u64,
    pub seqno_min: SeqNo,
    pub seqno_max: SeqNo,
    pub known: SeqNo,
}

impl Footer {
    /// The footer's bytes for `directory`, which precedes it.
    pub(super) fn encode(&self, directory: &[u8]) -> [u8; FOOTER_BYTES] {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        for field in [
            self.directory,
            self.tenants,
            self.entries,
            self.seqno_min.0,
            self.seqno_max.0,
            self.known.0,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        let crc = checksum(directory, &out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        let mut bytes = [0; FOOTER_BYTES];
        bytes.copy_from_slice(&out);
        bytes
    }

    /// Checks magic, format and zeroes (validity 1 without the crc).
    pub(super) fn decode(bytes: &[u8]) -> Result<Footer, FooterError> {
        let malformed = |what| FooterError::Malformed(Malformed(what));
        let short = || FooterError::Malformed(Malformed("64 bytes of footer"));
        let mut fields = Fields(bytes);
        let footer = Footer {
            directory: fields.u64().ok_or_else(short)?,
            tenants: fields.u64().ok_or_else(short)?,
            entries: fields.u64().ok_or_else(short)?,
            seqno_min: SeqNo(fields.u64().ok_or_else(short)?),
            seqno_max: SeqNo(fields.u64().ok_or_else(short)?),
            known: SeqNo(fields.u64().ok_or_else(short)?),
        };
        let format = fields.u16().ok_or_else(short)?;
        let zero = fields.u16().ok_or_else(short)?;
        let _crc = fields.u32().ok_or_else(short)?;
        if fields.0 != MAGIC {
            return Err(malformed("the footer's magic"));
        }
        if format > FORMAT {
            return Err(FooterError::Newer(format));
        }
        if format != FORMAT || zero != 0 {
            return Err(malformed("format 1 and zeroes"));
        }
        Ok(footer)
    }
}

/// What is wrong with a footer.
pub(super) enum FooterError {
    Malformed(Malformed),
    /// Written by a newer version.
    Newer(u16),
}

pub(super) fn checksum(directory: &[u8], footer: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(directory);
    crc.update(footer);
    crc.finalize()
}

/// Checks (1, the crc), (3), (4) and (5) of the module head and keeps the directory.
pub(super) fn check_directory(
    footer: &Footer,
    directory: Vec<u8>,
    footer_bytes: &[u8],
) -> Result<Directory, Malformed> {
    let covered = footer_bytes
        .get(..CRC_OFFSET)
        .ok_or(Malformed("64 bytes of footer"))?;
    let stored = footer_bytes
        .get(CRC_OFFSET..)
        .and_then(|rest| rest.first_chunk())
        .copied();
    if stored.map(u32::from_le_bytes) != Some(checksum(&directory, covered)) {
        return Err(Malformed("the checksum of directory and footer"));
    }
    let whole = directory.len().is_multiple_of(RUN_BYTES);
    let directory = Directory(directory.into_boxed_slice());
    if !whole || directory.len() as u64 != footer.tenants || footer.tenants == 0 {
        return Err(Malformed("as many records as the footer says"));
    }
    let mut at = FileHeader::BYTES as u64;
    let (mut entries, mut seqno_min, mut seqno_max) = (0u64, SeqNo::MAX, SeqNo::ZERO);
    let mut previous = None;
    for index in 0..directory.len() {
        let run = directory.at(index).ok_or(Malformed("a whole directory record"))?;
        if previous.is_some_and(|previous| previous >= run.tenant) {
            return Err(Malformed("ascending tenants"));
        }
        let smallest = SEAL_OVERHEAD as u64;
        let fits = run.start == at
            && (run.head >= run.start.saturating_add(smallest)) == (run.entries > 0)
            && (run.entries > 0 || (run.head, run.filter_bytes) == (run.start, 0))
            && u64::from(run.index_bytes) > smallest
            && (run.filter_bytes == 0 || u64::from(run.filter_bytes) > smallest);
        let end = run.end().filter(|end| fits && *end <= footer.directory);
        at = end.ok_or(Malformed("runs that follow each other"))?;
        if (run.entries == 0 && run.range_deletes == 0)
            || run.deletes > run.entries
            || run.seqno_min > run.seqno_max
        {
            return Err(Malformed("possible counts"));
        }
        entries = entries
            .checked_add(run.entries)
            .ok_or(Malformed("possible counts"))?;
        seqno_min = seqno_min.min(run.seqno_min);
        seqno_max = seqno_max.max(run.seqno_max);
        previous = Some(run.tenant);
    }
    if at != footer.directory {
        return Err(Malformed("runs up to the directory"));
    }
    if (entries, seqno_min, seqno_max) != (footer.entries, footer.seqno_min, footer.seqno_max) {
        return Err(Malformed("records that add up to the footer"));
    }
    Ok(directory)
}

/// What [`TableMeta::digest`] holds.
pub(super) fn digest(header: &[u8], directory: &[u8], footer: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(header);
    hash.update(directory);
    hash.update(footer);
    hash.finalize().into()
}
