//! Verifying the log: every segment on its own, and that they continue each other.
//!
//! A record whose length or checksum does not hold ends its segment, since nothing says where the next one
//! begins; the next segment is read all the same, and its chain is not compared with what is unknown.

use super::Verifier;
use crate::error::Error;
use crate::recovery::{Damage, Verdict, judge_damage};
use crate::seal::FileHeader;
use crate::types::{Chain, Epoch, Lsn};
use crate::wal::format::{Record, parse_record};
use crate::wal::reader::{Opened, SegmentFile, SegmentScan, Step, open_sections};
use crate::wal::segment_name;

/// What is known of the log's end.
pub(super) enum End {
    /// Of a running engine: exactly here; what stands behind is not log yet.
    At(Lsn),
    /// Of one that is not: as recovery judges it.
    Crashed {
        flushed: Lsn,
        /// The log is known to have been durable up to here.
        reach: Lsn,
        own_watermarks: bool,
    },
}

/// Where the walk stands.
struct Before {
    end: Lsn,
    /// None after damage: unknown.
    chain: Option<Chain>,
    epoch: Epoch,
}

impl Verifier<'_> {
    /// All segments, in order.
    pub(super) fn log(&mut self, all: &[SegmentFile], end: &End) {
        let segments = self.log_of(all, end);
        let mut before: Option<Before> = None;
        for (i, segment) in segments.iter().enumerate() {
            let next = segments.get(i + 1).map(|next| next.start);
            let segment = segment.until(next);
            self.count(segment.len);
            self.done.segments += 1;
            let newest = next.is_none();
            let after = match SegmentScan::open(self.io, &self.keys, &segment) {
                Ok(Opened::Scan(scan)) => self.segment(*scan, before.as_ref(), newest, end),
                Ok(Opened::NoHeader(e)) if i == 0 && segment.start > Lsn::ZERO => self.unknown(&e),
                Ok(Opened::NoHeader(e)) => self.no_header(&segment, newest, end, &e),
                Err(e) => self.unknown(&e),
            };
            if let (Some(next), Some(after)) = (next, &after)
                && after.chain.is_some()
                && after.end != next
            {
                self.missing(after.end);
            }
            before = after;
        }
        let reach = match end {
            End::At(end) => *end,
            End::Crashed { reach, .. } => *reach,
        };
        match before {
            Some(before) if before.chain.is_some() && before.end < reach => self.missing(before.end),
            None if segments.is_empty() && reach > Lsn::ZERO => self.missing(reach),
            _ => {}
        }
    }

    /// Those that recovery would read or keep; it removes older ones behind a gap.
    fn log_of(&mut self, all: &[SegmentFile], end: &End) -> Vec<SegmentFile> {
        let End::Crashed { flushed, .. } = end else {
            return all.to_vec();
        };
        let holding = all.iter().rposition(|segment| segment.start <= *flushed);
        if holding.is_none() && !all.is_empty() {
            self.missing(*flushed);
        }
        let mut first = holding.unwrap_or(0);
        while let Some(pair) = first.checked_sub(1).and_then(|older| all.get(older..=first))
            && let [older, newer] = pair
            && older.start.advance(older.len) >= newer.start
        {
            first -= 1;
        }
        all.get(first..).unwrap_or_default().to_vec()
    }

    fn unknown(&mut self, e: &Error) -> Option<Before> {
        self.done.add(e);
        None
    }

    fn missing(&mut self, start: Lsn) {
        let path = self.dir.join(crate::open::WAL_DIR).join(segment_name(start));
        let error = Error::corruption(
            &path,
            0,
            "write-ahead log",
            "this segment, or more of the last",
            "none",
        );
        self.done.add(&error);
    }

    /// A crash while the newest segment was being created leaves no whole header, and the segment before it: the
    /// log is given up only behind a segment that is whole.
    fn no_header(&mut self, segment: &SegmentFile, newest: bool, end: &End, e: &Error) -> Option<Before> {
        if let End::Crashed { reach, .. } = end
            && newest
            && segment.len <= FileHeader::BYTES as u64
            && segment.start >= *reach
        {
            self.done.torn_bytes += segment.len;
            return None;
        }
        self.unknown(e)
    }

    fn segment(
        &mut self,
        mut scan: SegmentScan,
        before: Option<&Before>,
        newest: bool,
        end: &End,
    ) -> Option<Before> {
        let path = scan.path.clone();
        if let Some(before) = before {
            let found = scan.header.chain;
            if before.chain.is_some_and(|chain| chain != found) {
                let expected = "that of the segment before";
                self.done
                    .add(&Error::corruption(&path, 88, "segment chain", expected, found));
            }
            if scan.header.epoch < before.epoch {
                let (expected, found) = (format!("{} or later", before.epoch), scan.header.epoch);
                self.done
                    .add(&Error::corruption(&path, 64, "segment epoch", expected, found));
            }
        }
        let mut known = true;
        loop {
            match scan.step() {
                Ok(Step::Record(bytes)) => {
                    let at = Lsn(scan.position().0.saturating_sub(bytes.len() as u64));
                    if let Ok(record) = parse_record(&bytes, at) {
                        self.record(&scan, &record);
                    }
                }
                Ok(Step::End) => break,
                Ok(Step::Damaged(what)) => {
                    known = self.damaged(&mut scan, what, newest, end);
                    break;
                }
                Err(e) => {
                    self.done.add(&e);
                    known = false;
                    break;
                }
            }
        }
        Some(Before {
            end: scan.position(),
            chain: known.then_some(scan.chain),
            epoch: scan.header.epoch,
        })
    }

    fn record(&mut self, scan: &SegmentScan, record: &Record<'_>) {
        self.done.records += 1;
        let sections = record.sections().count() as u64;
        match open_sections(&self.keys, &scan.path, &scan.header, record) {
            Ok(opened) => {
                self.done.sections += opened.len() as u64;
                self.done.skipped += sections - opened.len() as u64;
            }
            Err(e) => self.done.add(&e),
        }
    }

    /// Bytes that are no record: a torn tail, by the rule of recovery, or damage. Whether it is a torn tail.
    fn damaged(&mut self, scan: &mut SegmentScan, what: &str, newest: bool, end: &End) -> bool {
        let why = match end {
            End::At(_) => "a whole record",
            End::Crashed {
                reach,
                own_watermarks,
                ..
            } => {
                let later = match own_watermarks {
                    true => scan.later_watermark(),
                    false => Ok(None),
                };
                let torn = later.and_then(|later_watermark| {
                    let damage = Damage {
                        at: scan.position(),
                        newest_segment: newest,
                        reach: *reach,
                        later_watermark,
                    };
                    Ok((judge_damage(damage), scan.written_end()?))
                });
                match torn {
                    Ok((Verdict::Cut, written)) => {
                        self.done.torn_bytes += written.saturating_sub(scan.offset);
                        return true;
                    }
                    Ok((Verdict::Refuse(why), _)) => why,
                    Err(e) => {
                        self.done.add(&e);
                        return false;
                    }
                }
            }
        };
        let error = Error::corruption(&scan.path, scan.offset, "record", why, what);
        self.done.add(&error);
        false
    }
}
