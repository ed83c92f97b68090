//! Recovery: what the log means after the process ended, however it ended.
//!
//! Deciding is apart from doing: [`judge_damage`] is the decision table of docs/format.md section 7 as a
//! pure function, tested over the document's rows; [`scan`] finds the facts, [`Scan::cut`] acts on the
//! verdict, [`Scan::replay`] hands the surviving records to the engine.
//!
//! Invariant: the log is never cut below a position that anything claims was on stable storage: the
//! manifest (`reach`: flushed tables, a checkpoint's end, a clean close, an epoch's start) or the
//! durable watermark in a later record. Such damage refuses to open.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::hooks::{planted, rare};
use crate::io::Io;
use crate::seal::{FileHeader, FileKeys};
use crate::types::{Chain, Epoch, EpochStart, Lsn, SeqNo};
use crate::wal::format::{Op, RecordKind, parse_record};
use crate::wal::reader::{Opened, SegmentFile, SegmentScan, Step, list_segments, open_sections};
use crate::wal::segment_name;

/// Bytes rewritten at a time.
const REWRITE_BYTES: usize = 1 << 20;

/// Facts about the first record whose length or checksum does not hold. One whose checksum holds and which is
/// not the one that belongs there was made by somebody: it is refused before anything is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Damage {
    /// Where they stand.
    pub at: Lsn,
    /// Whether their segment is the newest.
    pub newest_segment: bool,
    /// The log is known to have been durable up to here (manifest).
    pub reach: Lsn,
    /// Newest durable watermark in a valid record behind them.
    pub later_watermark: Option<Lsn>,
}

/// What to do about them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// A torn tail: nothing there was ever acknowledged. Cut and report.
    Cut,
    /// Bytes that were durable are damaged. Refuse to open; the reason.
    Refuse(&'static str),
}

/// The decision table: docs/format.md section 7.
pub(crate) fn judge_damage(damage: Damage) -> Verdict {
    if !damage.newest_segment {
        return Verdict::Refuse("damage in a segment that was complete");
    }
    if damage.at < damage.reach && !planted!(CutBelowReach) {
        return Verdict::Refuse("damage below the position the manifest knows to be durable");
    }
    if damage.later_watermark.is_some_and(|w| w > damage.at) && !planted!(CutBelowWatermark) {
        return Verdict::Refuse("damage below the durable watermark of a later record");
    }
    Verdict::Cut
}

/// What the log holds.
pub(crate) struct Scan {
    /// All segments on disk that survive.
    pub segments: BTreeSet<Lsn>,
    /// End of the valid log.
    pub end: Lsn,
    /// Chain up to `end`.
    pub chain: Chain,
    /// Epoch of the newest segment.
    pub epoch: Epoch,
    /// Version of the newest record.
    pub seqno: SeqNo,
    /// Torn bytes behind `end`; the room that was made for more does not count.
    pub cut_bytes: u64,
    /// Whether the log ends with a close marker.
    pub clean: bool,
    /// Everything before this is known to be on stable storage.
    pub durable: Lsn,
    /// The newest segment's header, if a standby may go on writing into it.
    pub newest: Option<FileHeader>,
    /// From the one holding `flushed` on.
    live: Vec<SegmentFile>,
    /// Whether the records' watermarks speak of this node's storage: not in what a standby received.
    own_watermarks: bool,
    /// Given up before the crash, and back because their removal was not durable: behind a gap.
    stale: Vec<PathBuf>,
    torn: Option<Torn>,
}

enum Torn {
    /// Cut this file to this length.
    Tail(PathBuf, u64),
    /// This file's header never became whole: remove it.
    Header(PathBuf),
}

/// Walks the log from the segment holding `flushed` to its end, changing nothing.
///
/// - `keys`: of the system tenant; no other tenant's are needed.
/// - `own_watermarks`: false for a standby's log, whose records tell what was durable on its primary.
/// - Errors: `Corruption` naming file and offset for anything but a torn tail; `Unsupported`.
pub(crate) fn scan(
    io: &Io,
    keys: &FileKeys,
    dir: &Path,
    flushed: Lsn,
    reach: Lsn,
    own_watermarks: bool,
) -> Result<Scan> {
    let all = list_segments(io, dir)?;
    let mut found = Scan {
        segments: all.iter().map(|s| s.start).collect(),
        end: Lsn::ZERO,
        chain: Chain::default(),
        epoch: Epoch::ZERO,
        seqno: SeqNo::ZERO,
        cut_bytes: 0,
        clean: false,
        durable: reach,
        newest: None,
        live: Vec::new(),
        own_watermarks,
        stale: Vec::new(),
        torn: None,
    };
    let first = first_segment(io, keys, &all, flushed)?;
    found.set_aside_stale(&all, first);
    found.live = all.get(first..).unwrap_or_default().to_vec();
    let missing = |start: Lsn| {
        rare!(SegmentMissing);
        let path = dir.join(segment_name(start));
        Error::corruption(&path, 0, "write-ahead log", "this segment", "none")
    };
    match found.live.first() {
        Some(segment) if segment.start > flushed => return Err(missing(flushed)),
        None if reach > Lsn::ZERO => return Err(missing(flushed)),
        _ => {}
    }
    let live = found.live.clone();
    for (i, segment) in live.iter().enumerate() {
        let next = live.get(i + 1).map(|s| s.start);
        found.walk(io, keys, segment, next, i == 0, reach)?;
    }
    if found.end < reach && !planted!(CutBelowReach) {
        rare!(LogEndsBeforeReach);
        return Err(match live.last() {
            Some(s) => Error::corruption(&s.path, s.len, "end of the write-ahead log", reach, found.end),
            None => missing(found.end),
        });
    }
    Ok(found)
}

/// The segment recovery starts in: the one holding `flushed`. If that one is the newest and begins
/// there, its creation may have been torn, and the one before it tells where the log ends.
fn first_segment(io: &Io, keys: &FileKeys, all: &[SegmentFile], flushed: Lsn) -> Result<usize> {
    let Some(holding) = all.iter().rposition(|s| s.start <= flushed) else {
        return Ok(0);
    };
    let begins_there = all
        .get(holding)
        .filter(|s| s.start == flushed && holding + 1 == all.len());
    Ok(match begins_there {
        Some(segment) if matches!(SegmentScan::open(io, keys, segment)?, Opened::NoHeader(_)) => {
            rare!(BeganBeforeTornSegment);
            holding.saturating_sub(1)
        }
        _ => holding,
    })
}

impl Scan {
    /// Older segments are kept only as far back as they are contiguous.
    fn set_aside_stale(&mut self, all: &[SegmentFile], first: usize) {
        let mut contiguous = true;
        let older = all.get(..=first).unwrap_or_default();
        for pair in older.windows(2).rev() {
            let [older, newer] = pair else { continue };
            contiguous = contiguous && older.start.advance(older.len) >= newer.start;
            if !contiguous {
                self.segments.remove(&older.start);
                self.stale.push(older.path.clone());
            }
        }
    }

    fn walk(
        &mut self,
        io: &Io,
        keys: &FileKeys,
        segment: &SegmentFile,
        next: Option<Lsn>,
        first: bool,
        reach: Lsn,
    ) -> Result<()> {
        let mut scan = match SegmentScan::open(io, keys, &segment.until(next))? {
            Opened::Scan(scan) => scan,
            // A crash while the newest segment was being created. What came before it was durable
            // first, so the log simply ends there; only proof of records inside makes it damage.
            Opened::NoHeader(e) if next.is_none() && (!first || segment.start == Lsn::ZERO) => {
                let damage = Damage {
                    at: segment.start,
                    newest_segment: true,
                    reach,
                    later_watermark: None,
                };
                let holds_records = segment.len > FileHeader::BYTES as u64;
                if judge_damage(damage) != Verdict::Cut || holds_records {
                    return Err(e);
                }
                self.cut_bytes = segment.len;
                self.torn = Some(Torn::Header(segment.path.clone()));
                self.segments.remove(&segment.start);
                self.live.pop();
                return Ok(());
            }
            Opened::NoHeader(e) => return Err(e),
        };
        if !first && scan.header.chain != self.chain {
            return Err(Error::corruption(
                &segment.path,
                88,
                "segment chain",
                self.chain,
                scan.header.chain,
            ));
        }
        if scan.header.epoch < self.epoch {
            return Err(Error::corruption(
                &segment.path,
                64,
                "segment epoch",
                self.epoch,
                scan.header.epoch,
            ));
        }
        if next.is_some_and(|next| segment.start.advance(segment.len) > next) {
            rare!(BytesBehindNextSegmentIgnored);
        }
        if !first && segment.len > FileHeader::BYTES as u64 {
            rare!(ReplayedAcrossSegments);
        }
        self.clean = false;
        loop {
            match scan.step()? {
                Step::Record(bytes) => {
                    if let Ok(record) = parse_record(&bytes, self.record_start(&scan, &bytes)) {
                        self.seqno = self.seqno.max(record.seqno);
                        if self.own_watermarks {
                            self.durable = self.durable.max(record.durable);
                        }
                        self.clean = record.kind == RecordKind::Close;
                    }
                }
                Step::End => break,
                Step::Damaged(what) => {
                    let damage = Damage {
                        at: scan.position(),
                        newest_segment: next.is_none(),
                        reach,
                        later_watermark: if self.own_watermarks {
                            scan.later_watermark()?
                        } else {
                            None
                        },
                    };
                    if scan.offset == FileHeader::BYTES as u64 {
                        rare!(CutAtSegmentStart);
                    }
                    if let Verdict::Refuse(why) = judge_damage(damage) {
                        rare!(DamageRefused);
                        return Err(Error::corruption(&segment.path, scan.offset, "record", why, what));
                    }
                    self.cut_bytes = scan.written_end()?.saturating_sub(scan.offset);
                    if self.cut_bytes == 0 {
                        rare!(RoomCut);
                    }
                    self.torn = Some(Torn::Tail(segment.path.clone(), scan.offset));
                    break;
                }
            }
        }
        self.end = scan.position();
        self.chain = scan.chain;
        self.epoch = scan.header.epoch;
        self.newest = Some(scan.header);
        match next {
            Some(next) if next != self.end => {
                let path = segment.path.with_file_name(segment_name(self.end));
                Err(Error::corruption(
                    &path,
                    0,
                    "write-ahead log",
                    "this segment",
                    "none",
                ))
            }
            _ => Ok(()),
        }
    }

    fn record_start(&self, scan: &SegmentScan, bytes: &[u8]) -> Lsn {
        Lsn(scan.position().0.saturating_sub(bytes.len() as u64))
    }

    /// Where the log ends, in which reign, with which chain.
    pub fn end_of_log(&self) -> EpochStart {
        EpochStart {
            epoch: self.epoch,
            start: self.end,
            chain: self.chain,
        }
    }

    /// Cuts the torn tail, if any, and makes the rest durable: after a kill it may be in the page cache
    /// only, and nothing may be built on bytes that a power cut can still take.
    pub fn cut(&self, io: &Io, dir: &Path) -> Result<()> {
        match &self.torn {
            Some(Torn::Tail(path, len)) => {
                rare!(TornTailCut);
                let file = io
                    .vfs
                    .open_rw(path)
                    .map_err(|e| Error::io("opening a segment", path, e))?;
                file.set_len(*len)
                    .map_err(|e| Error::io("cutting a torn tail", path, e))?;
            }
            Some(Torn::Header(path)) => {
                rare!(TornHeaderRemoved);
                io.vfs
                    .remove_file(path)
                    .map_err(|e| Error::io("removing a torn segment", path, e))?;
            }
            None => {}
        }
        for path in &self.stale {
            rare!(StaleSegmentRemoved);
            io.vfs
                .remove_file(path)
                .map_err(|e| Error::io("removing an old segment", path, e))?;
        }
        if let Some(segment) = self.live.last() {
            self.make_durable(io, segment)?;
        }
        io.vfs
            .sync_dir(dir)
            .map_err(|e| Error::io("sync of the write-ahead log", dir, e))
    }

    /// Writes what is not known to be durable once more, as it is, and syncs it. A sync alone would not
    /// do: after one that failed, file systems hold the lost bytes as clean pages, which read back well
    /// and are never written again (Rebello et al., ATC'20). The bytes are the same, so no seal repeats.
    fn make_durable(&self, io: &Io, segment: &SegmentFile) -> Result<()> {
        let path = &segment.path;
        let file = io
            .vfs
            .open_rw(path)
            .map_err(|e| Error::io("opening a segment", path, e))?;
        let len = self.end.0.saturating_sub(segment.start.0);
        let mut offset = self.durable.0.saturating_sub(segment.start.0);
        if offset < len {
            rare!(TailWrittenAgain);
        }
        let mut chunk = vec![0; REWRITE_BYTES.min(len.saturating_sub(offset) as usize)];
        while offset < len && !planted!(TailNotRewritten) {
            let take = (len - offset).min(REWRITE_BYTES as u64) as usize;
            let Some(bytes) = chunk.get_mut(..take) else { break };
            file.read_exact_at(bytes, offset)
                .and_then(|()| file.write_all_at(bytes, offset))
                .map_err(|e| Error::io("rewriting a segment's tail", path, e))?;
            offset += take as u64;
        }
        file.sync().map_err(|e| Error::io("sync of a segment", path, e))
    }

    /// Hands every record from `flushed` on to `apply`, opened: (records' end, version, when it was ordered, operations
    /// by tenant). Returns how many.
    pub fn replay(
        &self,
        io: &Io,
        keys: &FileKeys,
        flushed: Lsn,
        mut apply: impl FnMut(Lsn, SeqNo, u64, Vec<(crate::types::TenantId, Vec<Op>)>) -> Result<()>,
    ) -> Result<u64> {
        let mut records = 0;
        for (i, segment) in self.live.iter().enumerate() {
            let next = self.live.get(i + 1).map_or(self.end, |s| s.start);
            let mut scan = SegmentScan::open(io, keys, &segment.until(Some(next)))?.or_refuse()?;
            while scan.position() < self.end {
                let at = scan.position();
                let Step::Record(bytes) = scan.step()? else { break };
                let Ok(record) = parse_record(&bytes, at) else {
                    break;
                };
                if at < flushed || record.kind != RecordKind::Batch {
                    continue;
                }
                let opened = open_sections(keys, &segment.path, &scan.header, &record)?;
                apply(record.end(), record.seqno, record.time_ms, opened)?;
                records += 1;
            }
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests;
