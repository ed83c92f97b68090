//! Appending to the log: records of a primary, sealed here; records of a standby, verbatim.
//!
//! All calls hold the commit lock (they take the [`Tail`] that lives under it). Syncing does not: `progress`.

use std::path::PathBuf;
use std::sync::Arc;

use super::format::{
    RecordFields, RecordKind, finish_record, push_section_header, section_aad, segment_header, start_record,
};
use super::reader::chain_key;
use super::{Wal, segment_name};
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::{planted, rare};
use crate::io::{File, Rng};
use crate::seal::{ChainKey, FileHeader, Nonces, SEAL_OVERHEAD};
use crate::types::{Chain, Epoch, Lsn, SeqNo, TenantId};

/// The growing end of the log.
pub(crate) struct Tail {
    /// Position of the next byte.
    pub end: Lsn,
    /// Chain up to `end`.
    pub chain: Chain,
    /// Epoch of the newest segment (primary: the one being written).
    pub epoch: Epoch,
    segment: Option<Segment>,
    scratch: Vec<u8>,
    /// Part of a record that found no room may stand behind `end`: it goes before anything else comes.
    torn: bool,
}

struct Segment {
    header: FileHeader,
    chain: ChainKey,
    path: PathBuf,
    file: Arc<dyn File>,
    nonces: Nonces,
    /// How far the file goes: behind the end of the log stand zeros.
    room: u64,
    /// There was no space for more of them.
    cramped: bool,
    /// How far the operating system was told to begin writing out.
    begun: u64,
    /// How far the file is mapped; what is not synced one by one is cheap to write up to there.
    mapped: u64,
    /// It cannot be.
    unmappable: bool,
}

/// Bytes that nobody synced and that the operating system is told at once to begin with.
const WRITE_OUT_BYTES: u64 = 1 << 20;
/// Larger records are written by a call: for them a window, which holds few, costs more than it spares.
const MAPPED_RECORD_BYTES_MAX: u64 = 2 << 10;
/// Zeros written ahead of records, at most.
const ROOM_BYTES: u64 = 256 << 10;

impl Tail {
    pub fn new(end: Lsn, chain: Chain, epoch: Epoch) -> Tail {
        Tail {
            end,
            chain,
            epoch,
            segment: None,
            scratch: Vec::new(),
            torn: false,
        }
    }

    /// The key of the chain at `end`; None before the first segment.
    pub fn chain_key(&self) -> Option<&ChainKey> {
        self.segment.as_ref().map(|s| &s.chain)
    }

    /// Whether the segment it grows in holds more than its header. False before the first segment of this process.
    pub fn holds_records(&self) -> bool {
        self.segment_len()
            .is_some_and(|len| len > FileHeader::BYTES as u64)
    }

    fn segment_len(&self) -> Option<u64> {
        self.segment
            .as_ref()
            .map(|s| self.end.0.saturating_sub(s.header.number))
    }
}

impl Segment {
    fn new(
        header: FileHeader,
        chain: ChainKey,
        path: PathBuf,
        file: Arc<dyn File>,
        rng: Arc<dyn Rng>,
        len: u64,
    ) -> Segment {
        Segment {
            header,
            chain,
            path,
            file,
            nonces: Nonces::new(rng),
            room: len,
            cramped: false,
            begun: len,
            mapped: 0,
            unmappable: false,
        }
    }

    /// How much room to make at `end`: a part of a segment, so that short segments see the end of their room as well.
    fn ahead(end: u64, segment_bytes: u64) -> u64 {
        ROOM_BYTES
            .min(segment_bytes / 8)
            .min(segment_bytes.saturating_sub(end))
    }

    /// Once in a while has the operating system begin with what no sync asked for: else the sync before the next
    /// segment, which everybody waits for, would have a whole segment to write.
    fn write_out(&mut self, end: u64, durable: u64) {
        self.begun = self.begun.max(durable);
        if end.saturating_sub(self.begun) >= WRITE_OUT_BYTES {
            self.file.begin_sync(self.begun, end - self.begun);
            self.begun = end;
        }
    }

    /// Puts zeros behind the end of the file, up to `to`, so that the next syncs find its length and its blocks as
    /// they are, and have nothing to commit but bytes. Zeros, not a hole and not blocks that were only
    /// allocated: the first write to those changes metadata.
    ///
    /// A failure costs speed and nothing else: zeros behind the end mean nothing, however many there are.
    fn make_room(&mut self, end: u64, to: u64) {
        let from = self.room.max(end);
        if self.cramped || to <= from {
            return;
        }
        if self
            .file
            .write_all_at(&vec![0; (to - from) as usize], from)
            .is_ok()
        {
            self.room = to;
        } else {
            rare!(NoRoomAhead);
            self.cramped = true;
            // Nobody else shall miss the space.
            self.room = match self.cut(end) {
                Ok(()) => end,
                Err(_) => to,
            };
        }
    }

    /// Before `len` bytes come to `end` that no sync follows: has the system take them, and those after them, without
    /// a call for each.
    fn map(&mut self, end: u64, len: u64, segment_bytes: u64) {
        let ahead = Segment::ahead(end, segment_bytes);
        let large = len > ahead.min(MAPPED_RECORD_BYTES_MAX);
        if large || self.unmappable || end.saturating_add(len) <= self.mapped {
            return;
        }
        self.make_room(end, end + ahead);
        if self.room < end + ahead {
            return;
        }
        if self.file.map(end, ahead) {
            rare!(LogMapped);
            self.mapped = end + ahead;
        } else {
            self.unmappable = true;
        }
    }

    /// Ends the file at `len`.
    fn cut(&mut self, len: u64) -> std::io::Result<()> {
        self.mapped = 0;
        self.file.set_len(len)
    }
}

impl Wal {
    /// Seals `plain` (operations of one tenant) as the next record. Returns the position past it.
    ///
    /// - `synced`: a sync follows at once.
    /// - Errors: `ReadOnly` (poisoned), `NoSpace` (nothing was written; retry when space is back),
    ///   `NotFound` (the tenant's key is destroyed), `Io` (final).
    pub fn append_batch(
        &self,
        tail: &mut Tail,
        tenant: TenantId,
        plain: &[u8],
        ops: u32,
        seqno: SeqNo,
        synced: bool,
    ) -> Result<Lsn> {
        self.check()?;
        if tail.segment_len().is_none_or(|len| len >= self.segment_bytes) {
            self.start_segment(tail)?;
        }
        let mut bytes = std::mem::take(&mut tail.scratch);
        bytes.clear();
        let outcome = self.encode_batch(tail, tenant, plain, ops, seqno, &mut bytes);
        let outcome = outcome.and_then(|after| self.write_record(tail, &bytes, after, synced));
        if bytes.capacity() <= 1 << 20 {
            tail.scratch = bytes;
        }
        outcome.map(|()| tail.end)
    }

    fn encode_batch(
        &self,
        tail: &Tail,
        tenant: TenantId,
        plain: &[u8],
        ops: u32,
        seqno: SeqNo,
        bytes: &mut Vec<u8>,
    ) -> Result<Chain> {
        let Some(segment) = &tail.segment else {
            return Err(Error::new(ErrorKind::Io, "no segment is open"));
        };
        let (version, key) = self.keys.for_writing(&segment.header, tenant)?;
        start_record(&self.fields(tail, RecordKind::Batch, seqno), 1, bytes);
        let sealed_len = (plain.len() + SEAL_OVERHEAD) as u32;
        push_section_header(tenant, version, ops, key.commitment(), sealed_len, bytes);
        let aad = section_aad(
            tenant,
            segment.header.file_id,
            tail.end,
            plain.len() as u32,
            seqno,
            ops,
        );
        key.seal(&segment.nonces, &aad, plain, bytes)?;
        Ok(finish_record(tail.chain, &segment.chain, bytes))
    }

    /// Appends the clean-close marker.
    pub fn append_close(&self, tail: &mut Tail, seqno: SeqNo) -> Result<()> {
        self.check()?;
        if tail.segment.is_none() {
            self.start_segment(tail)?;
        }
        let Some(segment) = &tail.segment else {
            return Err(Error::new(ErrorKind::Io, "no segment is open"));
        };
        let mut bytes = Vec::new();
        start_record(&self.fields(tail, RecordKind::Close, seqno), 0, &mut bytes);
        let after = finish_record(tail.chain, &segment.chain, &mut bytes);
        // Trimming and a sync follow.
        self.write_record(tail, &bytes, after, true)
    }

    fn fields(&self, tail: &Tail, kind: RecordKind, seqno: SeqNo) -> RecordFields {
        RecordFields {
            kind,
            lsn: tail.end,
            seqno,
            time_ms: self.io.clock.now_ms(),
            durable: self.durable(),
        }
    }

    /// Starts a segment of this process's own at the tail, under a fresh salt.
    pub fn start_segment(&self, tail: &mut Tail) -> Result<()> {
        self.check()?;
        let (version, key) = self.keys.chain_for_writing()?;
        let header = segment_header(&self.io, tail.epoch, tail.end, tail.chain, (version, &key))?;
        self.install_segment(tail, header, key)
    }

    /// Starts the segment whose header a primary sent. The caller has checked it against the tail, and that
    /// it is authentic under `key`.
    pub fn start_segment_verbatim(&self, tail: &mut Tail, header: FileHeader, key: ChainKey) -> Result<()> {
        self.check()?;
        tail.epoch = header.epoch;
        self.install_segment(tail, header, key)
    }

    /// Goes on writing into the newest segment after a reopen: only for a standby, which adds bytes
    /// that were sealed elsewhere and so can repeat no nonce.
    pub fn resume_segment_verbatim(&self, tail: &mut Tail, header: FileHeader) -> Result<()> {
        let path = self.dir.join(segment_name(Lsn(header.number)));
        let chain = chain_key(&self.keys, &path, &header)?;
        let file = self
            .io
            .vfs
            .open_rw(&path)
            .map_err(|e| Error::io("opening a segment", &path, e))?;
        self.progress.begin_segment(file.clone(), tail.end);
        tail.epoch = header.epoch;
        let len = tail.end.0.saturating_sub(header.number);
        tail.segment = Some(Segment::new(header, chain, path, file, self.io.rng.clone(), len));
        Ok(())
    }

    /// Takes back what a full disk left behind the end.
    fn mend(&self, tail: &mut Tail) -> Result<()> {
        if let (true, Some(segment)) = (tail.torn, &mut tail.segment) {
            let offset = tail.end.0.saturating_sub(segment.header.number);
            rare!(TornAppendTakenBack);
            let cut = segment.cut(offset);
            cut.map_err(|e| Error::io("taking back a torn append", &segment.path, e))?;
            segment.room = offset;
        }
        tail.torn = false;
        Ok(())
    }

    /// Takes back the room behind the end, durably: a segment that another one follows has none, nor has the
    /// log of a closed database.
    pub fn trim(&self, tail: &mut Tail) -> Result<()> {
        let end = tail.segment_len().unwrap_or_default();
        let Some(segment) = tail.segment.as_mut().filter(|segment| segment.room > end) else {
            return Ok(());
        };
        rare!(RoomTakenBack);
        let cut = segment.cut(end);
        cut.map_err(|e| Error::io("taking back the room of a segment", &segment.path, e))?;
        segment.room = end;
        segment.file.sync().map_err(|e| {
            let error = Error::io("sync of a segment that is complete", &segment.path, e);
            self.poison(&error);
            error
        })
    }

    fn install_segment(&self, tail: &mut Tail, header: FileHeader, chain: ChainKey) -> Result<()> {
        self.mend(tail)?;
        if tail.segment.is_some() && !planted!(RotateWithoutSync) {
            // Everything in the old segment is durable before the new one exists: a gap between
            // segments can then never be a torn tail.
            rare!(SegmentRotated);
            self.sync_to(tail.end)?;
        }
        self.trim(tail)?;
        let path = self.dir.join(segment_name(tail.end));
        let vfs = &self.io.vfs;
        let created = match vfs.create(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                // Left by an attempt that failed before anything was written behind it.
                rare!(SegmentLeftOver);
                vfs.remove_file(&path).and_then(|()| vfs.create(&path))
            }
            other => other,
        };
        let file = created.map_err(|e| Error::io("creating a segment", &path, e))?;
        let bytes = header.encode();
        if let Err(e) = file.write_all_at(&bytes, 0) {
            rare!(SegmentHeaderTakenBack);
            let error = Error::io("writing a segment header", &path, e);
            // The old segment is still written to, at the latest by a close: a name left behind, now or by a
            // crash, would end the log before that.
            let gone = vfs.remove_file(&path).and_then(|()| vfs.sync_dir(&self.dir));
            if gone.is_err() {
                self.poison(&error);
            }
            return Err(error);
        }
        let named = || match planted!(SegmentNameNotSynced) {
            true => Ok(()),
            false => vfs.sync_dir(&self.dir),
        };
        if let Err(e) = file.sync().and_then(|()| named()) {
            rare!(LogStoppedByNewSegment);
            let error = Error::io("sync of a new segment", &path, e);
            self.poison(&error);
            return Err(error);
        }
        self.segments.lock().insert(tail.end);
        tail.chain = header.chain_after;
        tail.end = tail.end.advance(bytes.len() as u64);
        self.progress.begin_segment(file.clone(), tail.end);
        let len = bytes.len() as u64;
        tail.segment = Some(Segment::new(header, chain, path, file, self.io.rng.clone(), len));
        Ok(())
    }

    /// Appends one whole valid record as it is; the chain after it is `after`.
    ///
    /// - `synced`: a sync follows at once.
    pub fn write_record(&self, tail: &mut Tail, bytes: &[u8], after: Chain, synced: bool) -> Result<()> {
        self.mend(tail)?;
        let Some(segment) = &mut tail.segment else {
            return Err(Error::new(ErrorKind::Io, "no segment is open"));
        };
        let mut offset = tail.end.0.saturating_sub(segment.header.number);
        if planted!(TornAppendLeft) {
            offset = segment.file.len().unwrap_or(offset);
        }
        if self.mapped && !synced {
            segment.map(offset, bytes.len() as u64, self.segment_bytes);
        }
        if let Err(e) = segment.file.write_all_at(bytes, offset) {
            let full = matches!(
                e.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            );
            let error = Error::io("appending to the write-ahead log", &segment.path, e);
            // A full disk is not final: the torn part is taken back, now or before the next append.
            if full {
                rare!(AppendFoundDiskFull);
                tail.torn = !planted!(TornAppendLeft) && segment.cut(offset).is_err();
                segment.room = offset;
            } else {
                rare!(LogStoppedByWrite);
                self.poison(&error);
            }
            return Err(error);
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if end > segment.room {
            segment.room = end;
            if synced {
                segment.make_room(end, end + Segment::ahead(end, self.segment_bytes));
            }
        }
        if !synced {
            let durable = self.durable().0.saturating_sub(segment.header.number);
            segment.write_out(end, durable);
        }
        tail.chain = after;
        tail.end = tail.end.advance(bytes.len() as u64);
        self.progress.wrote(tail.end);
        Ok(())
    }
}
