//! The clear parts of a segment of the log (docs/format.md 3): records of 40 bytes, two varints, and sections of 16 bytes,
//! four varints and what is sealed.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{Fields, HEADER_BYTES, Header};

/// Of a record what has one size in all.
const FRONT_BYTES: usize = 40;
/// The shortest record: two varints of one byte behind that.
const RECORD_BYTES_MIN: u64 = FRONT_BYTES as u64 + 2;
/// What a section begins with: the commitment.
const COMMITMENT_BYTES: usize = 16;
/// Longest record: the largest batch and its frames.
const RECORD_BYTES_MAX: u64 = (128 << 20) + 4096;

/// A log segment.
#[derive(Default)]
pub struct Wal {
    /// Whole records.
    pub records: u64,
    /// Position after the last of them.
    pub end: u64,
    /// Ends with the marker of a clean close.
    pub closed: bool,
    /// The first records.
    pub shown: Vec<Record>,
}

/// A record of the log.
pub struct Record {
    /// Position.
    pub lsn: u64,
    /// Reign.
    pub epoch: u64,
    /// Version of its entries.
    pub seqno: u64,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// Length.
    pub bytes: u64,
    /// The marker of a clean close.
    pub close: bool,
    /// One for each tenant in it.
    pub sections: Vec<Section>,
}

/// A tenant's part of a record.
pub struct Section {
    /// Whose.
    pub tenant: u64,
    /// Version of its key.
    pub dek_version: u32,
    /// Puts and deletes.
    pub operations: u32,
    /// Sealed length.
    pub sealed_bytes: u32,
}

/// Reads a segment of `bytes` bytes; lists at most `limit` records. What is wrong with it, if anything is.
pub(super) fn wal(file: &File, bytes: u64, header: &Header, limit: usize) -> (Wal, Option<String>) {
    let start = header.number;
    let mut wal = Wal {
        end: start.saturating_add(HEADER_BYTES as u64),
        ..Wal::default()
    };
    let mut at = HEADER_BYTES as u64;
    let mut body = Vec::new();
    while at < bytes {
        let stop = |why: &str| Some(format!("at byte {at}: {why}"));
        let mut front = [0; FRONT_BYTES];
        let whole = bytes - at >= RECORD_BYTES_MIN && file.read_exact_at(&mut front, at).is_ok();
        if !whole || front == [0; FRONT_BYTES] {
            let why = if whole { "zeroes" } else { "a record is cut short" };
            let room = zeroes_to_the_end(file, at, bytes);
            return (wal, if room { None } else { stop(why) });
        }
        let fields = Fields(&front);
        let length = u64::from(fields.u32(4));
        if !(RECORD_BYTES_MIN..=RECORD_BYTES_MAX).contains(&length) || length > bytes - at {
            return (wal, stop("a record is cut short or its length is damaged"));
        }
        body.resize(length as usize, 0);
        if file.read_exact_at(&mut body, at).is_err() {
            return (wal, stop("a record cannot be read"));
        }
        if body.get(4..).map(crc32fast::hash) != Some(fields.u32(0)) {
            return (wal, stop("a record's checksum does not match"));
        }
        if fields.u64(8) != start.saturating_add(at) {
            return (wal, stop("a record stands at another position than it says"));
        }
        let close = fields.array::<1>(32) == [2];
        if wal.shown.len() < limit {
            let [count] = fields.array(33);
            let mut rest = body.get(FRONT_BYTES..).unwrap_or_default();
            let (seqno, unsynced) = (varint(&mut rest), varint(&mut rest));
            let (Some(seqno), Some(_), Some(sections)) = (seqno, unsynced, sections(rest, count)) else {
                return (wal, stop("sections do not fill a record"));
            };
            let [a, b, c, d, e, f] = fields.array(34);
            wal.shown.push(Record {
                lsn: fields.u64(8),
                epoch: header.epoch,
                seqno,
                time_ms: u64::from_le_bytes([a, b, c, d, e, f, 0, 0]),
                bytes: length,
                close,
                sections,
            });
        }
        wal.records += 1;
        wal.closed = close;
        at += length;
        wal.end = start.saturating_add(at);
    }
    (wal, None)
}

/// The unused end of a segment that was given its space in advance.
fn zeroes_to_the_end(file: &File, mut at: u64, bytes: u64) -> bool {
    let mut chunk = vec![0; 64 << 10];
    while at < bytes {
        let take = (bytes - at).min(chunk.len() as u64) as usize;
        let Some(part) = chunk.get_mut(..take) else {
            return false;
        };
        if file.read_exact_at(part, at).is_err() || part.iter().any(|byte| *byte != 0) {
            return false;
        }
        at += take as u64;
    }
    true
}

/// Takes a varint off the front; None if it is cut short or too large.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let end = rest.iter().take(10).position(|byte| *byte < 0x80)?;
    let (digits, after) = rest.split_at_checked(end + 1)?;
    *rest = after;
    let mut digits = digits.iter().rev();
    digits.try_fold(0u64, |value, byte| {
        value.checked_mul(0x80)?.checked_add(u64::from(byte & 0x7f))
    })
}

fn sections(mut rest: &[u8], count: u8) -> Option<Vec<Section>> {
    let mut sections = Vec::new();
    for _ in 0..count {
        rest = rest.get(COMMITMENT_BYTES..)?;
        let tenant = varint(&mut rest)?;
        let mut number = || varint(&mut rest)?.try_into().ok();
        let (dek_version, operations) = (number()?, number()?);
        let sealed_bytes: u32 = number()?;
        sections.push(Section {
            tenant,
            dek_version,
            operations,
            sealed_bytes,
        });
        rest = rest.get(sealed_bytes as usize..)?;
    }
    rest.is_empty().then_some(sections)
}
