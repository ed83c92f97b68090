//! Reading segments back: used by recovery, which trusts nothing it has not checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::format::{
    FRONT_BYTES_MAX, Invalid, Mismatch, Op, Place, RECORD_BYTES_MIN, Record, check_record, front,
    header_is_authentic, parse_ops, parse_record, record_len, section_aad,
};
use super::{segment_name, segment_start};
use crate::error::{Error, Result};
use crate::hooks::rare;
use crate::io::{File, Io};
use crate::seal::{ChainKey, FileHeader, FileKeys, FileKind, KeyAccess, SEAL_OVERHEAD};
use crate::types::{Chain, Lsn, TenantId};

/// Bytes read at once while scanning.
const WINDOW_BYTES: usize = 256 << 10;

/// How many times the bytes searched for a later record may be checksummed. Records that were written stand side
/// by side, so those whose front is whole have together no more than is searched, and other bytes hardly ever look
/// like a front. Only a tail made of fronts needs more.
const CHECKED_TIMES_MAX: u64 = 4;

/// A segment as the directory lists it.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFile {
    pub start: Lsn,
    pub path: PathBuf,
    pub len: u64,
}

impl SegmentFile {
    /// The part of it that is log: what stands behind the next segment's start is a torn tail that was
    /// cut before that segment began, and came back because the cut was not durable.
    pub fn until(&self, next: Option<Lsn>) -> SegmentFile {
        let bound = next.map_or(u64::MAX, |next| next.0.saturating_sub(self.start.0));
        SegmentFile {
            len: self.len.min(bound),
            ..self.clone()
        }
    }
}

/// The segments in `dir`, in stream order. A file of any other name is damage or a stranger's.
pub(crate) fn list_segments(io: &Io, dir: &Path) -> Result<Vec<SegmentFile>> {
    let entries = io.vfs.list(dir).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::corruption(dir, 0, "write-ahead log", "a directory", "none"),
        _ => Error::io("listing the write-ahead log", dir, e),
    })?;
    let mut segments = Vec::with_capacity(entries.len());
    for entry in entries {
        let path = dir.join(&entry.name);
        let Some(start) = segment_start(&entry.name) else {
            return Err(Error::corruption(
                &path,
                0,
                "write-ahead log",
                "only segments",
                "another file",
            ));
        };
        segments.push(SegmentFile {
            start,
            path,
            len: entry.len,
        });
    }
    segments.sort_by_key(|s| s.start);
    Ok(segments)
}

/// One step through a segment.
pub(crate) enum Step {
    /// A valid record; its bytes.
    Record(Bytes),
    /// The file ends exactly after the last record.
    End,
    /// Length or checksum of a record does not hold; why.
    Damaged(&'static str),
}

/// Walks the records of one segment.
pub(crate) struct SegmentScan {
    pub path: PathBuf,
    pub header: FileHeader,
    file: Arc<dyn File>,
    len: u64,
    /// Offset of the next record.
    pub offset: u64,
    /// Chain up to the next record.
    pub chain: Chain,
    key: ChainKey,
    window: Bytes,
    window_at: u64,
    /// Bytes of what looked like later records.
    checked: u64,
}

/// The first bytes of a segment.
pub(crate) enum Opened {
    Scan(Box<SegmentScan>),
    /// No header was written whole there, or it has rotted since; the error if that is not acceptable.
    NoHeader(Error),
}

impl Opened {
    pub fn or_refuse(self) -> Result<SegmentScan> {
        match self {
            Opened::Scan(scan) => Ok(*scan),
            Opened::NoHeader(error) => Err(error),
        }
    }
}

impl SegmentScan {
    /// Opens a segment and checks its header: kind, version, checksum, that its name is its start, and that
    /// the chain after it was made with the key.
    ///
    /// - Errors: `Corruption`, `Unsupported` for a header that is whole and not what this segment's can be.
    pub fn open(io: &Io, keys: &FileKeys, segment: &SegmentFile) -> Result<Opened> {
        let path = &segment.path;
        let file = io
            .vfs
            .open(path)
            .map_err(|e| Error::io("opening a segment", path, e))?;
        let len = segment.len;
        if len < FileHeader::BYTES as u64 {
            let error = Error::corruption(path, 0, "segment header", FileHeader::BYTES, len);
            return Ok(Opened::NoHeader(error));
        }
        let mut bytes = [0; FileHeader::BYTES];
        file.read_exact_at(&mut bytes, 0)
            .map_err(|e| Error::io("reading a segment", path, e))?;
        let header = match FileHeader::decode(path, &bytes, FileKind::Wal) {
            Err(error) if !FileHeader::is_whole(&bytes) => return Ok(Opened::NoHeader(error)),
            other => other?,
        };
        if header.number != segment.start.0 {
            let expected = segment_name(segment.start);
            return Err(Error::corruption(
                path,
                72,
                "segment start",
                expected,
                segment_name(Lsn(header.number)),
            ));
        }
        let key = chain_key(keys, path, &header)?;
        Ok(Opened::Scan(Box::new(SegmentScan {
            path: path.clone(),
            chain: header.chain_after,
            key,
            header,
            file,
            len,
            offset: FileHeader::BYTES as u64,
            window: Bytes::new(),
            window_at: 0,
            checked: 0,
        })))
    }

    /// Stream position of the next record.
    pub fn position(&self) -> Lsn {
        Lsn(self.header.number.saturating_add(self.offset))
    }

    /// The next record, or how the walk ends. After `Damaged` it does not advance.
    ///
    /// - Errors: `Corruption` for a record whose checksum holds and which is not the one that belongs here.
    pub fn step(&mut self) -> Result<Step> {
        if self.offset == self.len {
            return Ok(Step::End);
        }
        let found = self.record_at(self.offset)?;
        let place = Place {
            lsn: self.position(),
            chain: self.chain,
            key: &self.key,
        };
        let checked = found.and_then(|bytes| {
            let chain = check_record(&bytes, &place)?.chain;
            Ok((bytes, chain))
        });
        match checked {
            Ok((bytes, chain)) => {
                self.chain = chain;
                self.offset += bytes.len() as u64;
                Ok(Step::Record(bytes))
            }
            Err(Invalid::Short) => Ok(Step::Damaged("end of file inside a record")),
            Err(Invalid::Damaged(what)) => Ok(Step::Damaged(what)),
            Err(Invalid::Forged(mismatch)) => Err(mismatch.refuse(&self.path, self.offset)),
        }
    }

    /// The newest durable watermark in any whole record behind the damage at the current offset: proof
    /// that what stands before it was once on stable storage. Also in one that stands at another place than
    /// it says, which a misdirected write leaves, perhaps on top of what it should have followed.
    ///
    /// - Errors: `Corruption` when more looks like records than a log has: no crash leaves that.
    pub fn later_watermark(&mut self) -> Result<Option<Lsn>> {
        let mut newest = None;
        let mut offset = self.offset.saturating_add(1);
        let least = RECORD_BYTES_MIN as u64;
        let most = self
            .len
            .saturating_sub(self.offset)
            .saturating_mul(CHECKED_TIMES_MAX);
        self.checked = 0;
        while offset.saturating_add(least) <= self.len {
            let Some((lsn, len)) = self.front_at(offset)? else {
                offset += 1;
                continue;
            };
            // Before it is read: that costs, too.
            let checked = self.checked.saturating_add(len as u64);
            if checked > most {
                let expected = format!("a torn tail, or records: at most {most} bytes that look like them");
                return Err(Error::corruption(
                    &self.path,
                    self.offset,
                    "log behind a damaged record",
                    expected,
                    format!("more, up to byte {offset}"),
                ));
            }
            self.checked = checked;
            let record = self.load(offset, len)?;
            match parse_record(&record, lsn) {
                Ok(parsed) => {
                    newest = newest.max(Some(parsed.durable));
                    offset += len as u64;
                }
                Err(_) => offset += 1,
            }
        }
        Ok(newest)
    }

    /// What a record at `offset` says of itself, its position and length, if that can be one behind the damage at
    /// the current offset.
    fn front_at(&mut self, offset: u64) -> Result<Option<(Lsn, usize)>> {
        let left = self.len.saturating_sub(offset);
        let bytes = self.load(offset, FRONT_BYTES_MAX.min(left as usize))?;
        // Records of this segment from here on; older ones could be stale blocks of the disk.
        let (damage, end) = (self.position(), Lsn(self.header.number.saturating_add(self.len)));
        // Almost every offset where none begins fails here.
        Ok(front(&bytes).filter(|(lsn, len)| damage < *lsn && *lsn <= end && *len as u64 <= left))
    }

    /// Bytes that the last search for a later record checksummed.
    #[cfg(test)]
    pub fn checked(&self) -> u64 {
        self.checked
    }

    /// Offset behind the last byte that is not zero, the current one at least: what follows is room.
    pub fn written_end(&mut self) -> Result<u64> {
        let mut end = self.len;
        while end > self.offset {
            let start = end.saturating_sub(WINDOW_BYTES as u64).max(self.offset);
            let part = self.load(start, (end - start) as usize)?;
            if let Some(last) = part.iter().rposition(|byte| *byte != 0) {
                return Ok(start + last as u64 + 1);
            }
            end = start;
        }
        Ok(self.offset)
    }

    /// As many bytes as the record at `offset` says it has.
    fn record_at(&mut self, offset: u64) -> Result<std::result::Result<Bytes, Invalid>> {
        let left = self.len.saturating_sub(offset);
        let head = self.load(offset, RECORD_BYTES_MIN.min(left as usize))?;
        let len = match record_len(&head) {
            Ok(len) if len as u64 <= left => len,
            Ok(_) => return Ok(Err(Invalid::Short)),
            Err(invalid) => return Ok(Err(invalid)),
        };
        self.load(offset, len).map(Ok)
    }

    /// `len` bytes at `offset`, which lie inside the file.
    fn load(&mut self, offset: u64, len: usize) -> Result<Bytes> {
        let start = offset.wrapping_sub(self.window_at);
        let end = start.wrapping_add(len as u64);
        if offset < self.window_at || end > self.window.len() as u64 {
            let left = self.len.saturating_sub(offset);
            let want = (len.max(WINDOW_BYTES) as u64).min(left) as usize;
            let mut bytes = vec![0; want];
            self.file
                .read_exact_at(&mut bytes, offset)
                .map_err(|e| Error::io("reading a segment", &self.path, e))?;
            self.window = bytes.into();
            self.window_at = offset;
            return Ok(self.window.slice(..len.min(want)));
        }
        Ok(self.window.slice(start as usize..end as usize))
    }
}

impl Mismatch {
    /// As an error; `at` is the record's offset in the file.
    pub fn refuse(self, path: &Path, at: u64) -> Error {
        let offset = at.saturating_add(self.offset);
        Error::corruption(path, offset, self.field, self.expected, self.found)
    }
}

/// The key of the segment's chain, by which its header proves to be authentic.
pub(crate) fn chain_key(keys: &FileKeys, path: &Path, header: &FileHeader) -> Result<ChainKey> {
    let Some(key) = keys.chain_for_reading(header.chain_key) else {
        let expected = "a version of the system tenant's key";
        return Err(Error::corruption(
            path,
            104,
            "segment header",
            expected,
            header.chain_key,
        ));
    };
    if header_is_authentic(header, &key) {
        Ok(key)
    } else {
        let expected = "that of the log before it and of this header";
        Err(Error::corruption(
            path,
            108,
            "chain after a segment header",
            expected,
            header.chain_after,
        ))
    }
}

/// Opens the sections of a record: the operations of each tenant whose key still exists.
///
/// - A tenant whose key was destroyed is skipped, undecrypted (design S3).
/// - Errors: `Corruption` for a key this node was never given, a wrong key, a failed tag.
pub(crate) fn open_sections(
    keys: &FileKeys,
    path: &Path,
    header: &FileHeader,
    record: &Record<'_>,
) -> Result<Vec<(TenantId, Vec<Op>)>> {
    let mut opened = Vec::new();
    let offset = record.lsn.0.saturating_sub(header.number);
    let damage = |expected: &str, found: &str| Error::corruption(path, offset, "section", expected, found);
    for section in record.sections() {
        let key = match keys.for_reading(header, section.tenant, section.version) {
            KeyAccess::Live(key) => key,
            KeyAccess::Destroyed => {
                rare!(DestroyedTenantSkipped);
                continue;
            }
            KeyAccess::Unknown => {
                return Err(damage("a tenant of this keystore", "an unknown tenant or key"));
            }
        };
        if !key.matches(&section.commitment) {
            return Err(damage("the commitment of the tenant's key", "another key's"));
        }
        let plain_len = section.sealed.len().saturating_sub(SEAL_OVERHEAD) as u32;
        let aad = section_aad(
            section.tenant,
            header.file_id,
            record.lsn,
            plain_len,
            record.seqno,
            section.ops,
        );
        let plain = key
            .open(&aad, section.sealed)
            .map_err(|_| damage("an authentic section", "a failed tag"))?;
        let ops = parse_ops(&Bytes::from(plain), section.ops)
            .ok_or_else(|| damage("well-formed operations", "others"))?;
        opened.push((section.tenant, ops));
    }
    Ok(opened)
}
