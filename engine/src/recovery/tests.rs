//! Recovery decides as docs/format.md section 7 says: its tables are read from the document, and every
//! row is tried. A row that is added, removed or changed there without the code fails here.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use super::*;
use crate::error::ErrorKind;
use crate::io::sim::SimFs;
use crate::seal::{ChainKey, Dek};
use crate::types::DekVersion;
use crate::version::testing::TestKeys;
use crate::wal::format::{RecordFields, finish_record, push_section_header, segment_header, start_record};

mod search;

const DOCUMENT: &str = include_str!("../../../docs/format.md");

/// The rows of the table that follows the comment `<!-- table: name -->`, cells trimmed.
fn table(name: &str) -> Vec<Vec<String>> {
    let mark = format!("<!-- table: {name} -->");
    let lines = DOCUMENT.lines().skip_while(|line| *line != mark);
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    // Two lines of head.
    let rows = rows.skip(2).map(|line| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_string()).collect()
    });
    let rows: Vec<Vec<String>> = rows.collect();
    assert!(!rows.is_empty(), "docs/format.md has no table {name}");
    rows
}

// ---- 7.1 ----

const AT: u64 = 500;

fn damages() -> Vec<Damage> {
    let mut all = Vec::new();
    for newest_segment in [false, true] {
        for reach in [0, AT - 1, AT, AT + 1, u64::MAX] {
            for watermark in [
                None,
                Some(0),
                Some(AT - 1),
                Some(AT),
                Some(AT + 1),
                Some(u64::MAX),
            ] {
                all.push(Damage {
                    at: Lsn(AT),
                    newest_segment,
                    reach: Lsn(reach),
                    later_watermark: watermark.map(Lsn),
                });
            }
        }
    }
    all
}

/// Whether the conditions of a row hold.
fn fits(row: &[String], damage: &Damage) -> bool {
    let newest = match row[1].as_str() {
        "-" => true,
        "yes" => damage.newest_segment,
        "no" => !damage.newest_segment,
        other => panic!("newest: {other}"),
    };
    let reach = match row[2].as_str() {
        "-" => true,
        "below" => damage.at < damage.reach,
        "at or above" => damage.at >= damage.reach,
        other => panic!("at and reach: {other}"),
    };
    let watermark = match (row[3].as_str(), damage.later_watermark) {
        ("-", _) => true,
        ("none", found) => found.is_none(),
        ("above at", found) => found.is_some_and(|w| w > damage.at),
        ("at or below at", found) => found.is_some_and(|w| w <= damage.at),
        (other, _) => panic!("watermark: {other}"),
    };
    newest && reach && watermark
}

#[test]
fn damage_is_judged_as_the_documents_table_says() {
    let rows = table("judge");
    let mut used = vec![0; rows.len()];
    for damage in damages() {
        let fitting: Vec<usize> = (0..rows.len()).filter(|row| fits(&rows[*row], &damage)).collect();
        let [row] = fitting[..] else {
            panic!("{damage:?} fits {} rows", fitting.len());
        };
        used[row] += 1;
        let row = &rows[row];
        let expected = match row[4].as_str() {
            "cut" => Verdict::Cut,
            "refuse" => {
                // The reason of the code is a &'static str: compare the texts.
                match judge_damage(damage) {
                    Verdict::Refuse(why) => assert_eq!(why, row[5], "row {}", row[0]),
                    Verdict::Cut => panic!("row {}: {damage:?} is cut", row[0]),
                }
                continue;
            }
            other => panic!("row {}: verdict {other}", row[0]),
        };
        assert_eq!(judge_damage(damage), expected, "row {}: {damage:?}", row[0]);
        assert_eq!(row[5], "", "row {}: a reason for cutting", row[0]);
    }
    assert!(used.iter().all(|n| *n > 0), "a row that nothing fits: {used:?}");
}

// ---- 7.2 ----

static KEYS: LazyLock<FileKeys> = LazyLock::new(|| {
    let source = TestKeys::default();
    source.create(0);
    FileKeys::new(Arc::new(source), 1)
});

fn chain_key() -> (DekVersion, ChainKey) {
    KEYS.chain_for_writing().unwrap()
}

/// Mends the checksum of a segment's header, or of the record at `at`, as somebody without keys can.
fn mend(bytes: &mut [u8], at: usize) {
    if at == 0 {
        let crc = crc32fast::hash(&[&bytes[..12], &bytes[16..128]].concat());
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    } else {
        let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        let crc = crc32fast::hash(&bytes[at + 4..at + len]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// A segment being made.
struct Segment {
    start: Lsn,
    epoch: Epoch,
    chain: Chain,
    bytes: Vec<u8>,
}

impl Segment {
    fn begin(io: &Io, start: Lsn, epoch: Epoch, chain: Chain) -> Segment {
        Segment::under(io, start, epoch, chain, chain_key())
    }

    fn under(
        io: &Io,
        start: Lsn,
        epoch: Epoch,
        chain: Chain,
        (version, key): (DekVersion, ChainKey),
    ) -> Segment {
        let header = segment_header(io, epoch, start, chain, (version, &key)).unwrap();
        Segment {
            start,
            epoch,
            chain: header.chain_after,
            bytes: header.encode().to_vec(),
        }
    }

    fn end(&self) -> Lsn {
        self.start.advance(self.bytes.len() as u64)
    }

    fn record(self, kind: RecordKind) -> Segment {
        self.record_with(kind, 0, &[0; 44])
    }

    /// - `section`: commitment and sealed bytes, if it is a batch.
    fn record_with(mut self, kind: RecordKind, time_ms: u64, section: &[u8; 44]) -> Segment {
        let fields = RecordFields {
            kind,
            lsn: self.end(),
            seqno: SeqNo(1),
            time_ms,
            durable: self.end(),
        };
        let mut out = Vec::new();
        start_record(&fields, u8::from(kind == RecordKind::Batch), &mut out);
        if kind == RecordKind::Batch {
            push_section_header(
                crate::types::TenantId(1),
                crate::types::DekVersion(1),
                1,
                *section.first_chunk().unwrap(),
                28,
                &mut out,
            );
            out.extend_from_slice(&section[16..]);
        }
        self.chain = finish_record(self.chain, &chain_key().1, &mut out);
        self.bytes.extend_from_slice(&out);
        self
    }

    /// Where its last record begins; all have one length.
    fn last_record(&self) -> usize {
        self.bytes.len() - BATCH_BYTES
    }

    fn batch(self) -> Segment {
        self.record(RecordKind::Batch)
    }

    fn next(&self, io: &Io) -> Segment {
        Segment::begin(io, self.end(), self.epoch, self.chain)
    }

    fn file(&self) -> (String, Vec<u8>) {
        (segment_name(self.start), self.bytes.clone())
    }
}

/// Length of a batch made here.
const BATCH_BYTES: usize = 42 + 20 + 28;

/// A log to scan: its files, and what the manifest says of it.
#[derive(Default)]
struct Case {
    no_directory: bool,
    files: Vec<(String, Vec<u8>)>,
    flushed: u64,
    reach: u64,
}

impl Case {
    fn of(segments: &[&Segment]) -> Case {
        Case {
            files: segments.iter().map(|s| s.file()).collect(),
            ..Case::default()
        }
    }

    fn reaching(mut self, reach: u64) -> Case {
        self.reach = reach;
        self
    }

    fn flushed(mut self, flushed: u64) -> Case {
        (self.flushed, self.reach) = (flushed, self.reach.max(flushed));
        self
    }

    /// The newest file damaged.
    fn damage(mut self, edit: impl FnOnce(&mut Vec<u8>)) -> Case {
        edit(&mut self.files.last_mut().unwrap().1);
        self
    }

    fn scan(&self, io: &Io) -> Result<Scan> {
        self.write(io);
        scan(
            io,
            &KEYS,
            Path::new("/wal"),
            Lsn(self.flushed),
            Lsn(self.reach),
            true,
        )
    }

    fn write(&self, io: &Io) {
        let dir = Path::new("/wal");
        if !self.no_directory {
            io.vfs.create_dir_all(dir).unwrap();
        }
        for (name, bytes) in &self.files {
            io.vfs
                .create(&dir.join(name))
                .unwrap()
                .write_all_at(bytes, 0)
                .unwrap();
        }
    }
}

/// What the row describes. Three segments, of which the second and third are there as the row needs them.
fn case(row: &str, io: &Io) -> Case {
    let a = Segment::begin(io, Lsn::ZERO, Epoch::FIRST, Chain::default())
        .batch()
        .batch();
    let b = a.next(io).batch();
    let c = b.next(io).batch();
    let empty = a.next(io);
    let end = a.end().0;
    match row {
        "S1" => Case {
            no_directory: true,
            ..Case::default()
        },
        "S2" => {
            let mut case = Case::of(&[&a]);
            case.files.push(("README".into(), Vec::new()));
            case
        }
        "S3" => Case::default(),
        "S4" => Case::default().reaching(1),
        "S5" => Case::of(&[&b]).flushed(end - 1),
        "S6" => Case::of(&[&a, &c]).flushed(c.start.0 + 128),
        "S7" => Case::of(&[&a, &c]),
        "S8" => {
            let mut case = Case::of(&[&a, &b]);
            case.files[0].1.extend_from_slice(&[0xee; 300]);
            case
        }
        "S9" => Case::of(&[&a, &empty])
            .reaching(end)
            .damage(|bytes| bytes[100] ^= 1),
        "S10" => Case::of(&[&a, &empty])
            .reaching(end + 1)
            .damage(|bytes| bytes[100] ^= 1),
        "S11" => Case::of(&[&a, &b]).reaching(end).damage(|bytes| bytes[100] ^= 1),
        "S12" => Case::of(&[&empty]).flushed(end).damage(|bytes| bytes[100] ^= 1),
        "S13" => {
            let mut case = Case::of(&[&a, &b]);
            case.files[0].1[100] ^= 1;
            case
        }
        "S14" => Case::of(&[&a]).damage(|bytes| {
            bytes[8] = 2;
            mend(bytes, 0);
        }),
        "S15" => Case::of(&[&a, &Segment::begin(io, a.end(), Epoch::FIRST, Chain([7; 16]))]),
        "S16" => Case::of(&[&a, &Segment::begin(io, a.end(), Epoch(1), a.chain)]),
        "S18" => Case::of(&[&a, &b]).reaching(b.end().0 + 1),
        // The newest record of a log that ends nowhere in particular: as a torn tail it would be cut.
        "S21" => forged_tail(&a, |bytes, at| bytes[at + 32] = 7),
        "S22" => forged_tail(&a, |bytes, at| bytes[at + 8] ^= 1),
        "S23" => forged_tail(&a, |bytes, at| bytes[at + 41] = 0x7f),
        "S24" => forged_tail(&a, |bytes, at| bytes[at + 20] ^= 1),
        // Nothing else of the header differs, and no record follows that could tell.
        "S25" => Case::of(&[&a, &empty]).reaching(end).damage(|bytes| {
            bytes[80] ^= 1;
            mend(bytes, 0);
        }),
        "S26" => {
            let (_, key) = chain_key();
            let other = Segment::under(io, a.end(), a.epoch, a.chain, (DekVersion(2), key));
            Case::of(&[&a, &other]).reaching(end)
        }
        "S19" => Case::of(&[&a, &b.record(RecordKind::Close)]),
        "S20" => Case::of(&[&a, &b]),
        "S27" => Case::of(&[&a, &b])
            .reaching(b.end().0)
            .damage(|bytes| bytes.resize(bytes.len() + 1000, 0)),
        other => panic!("row {other} of the table scan has no case here"),
    }
}

/// The last record changed, its checksum mended.
fn forged_tail(segment: &Segment, edit: impl FnOnce(&mut [u8], usize)) -> Case {
    let at = segment.last_record();
    Case::of(&[segment]).damage(|bytes| {
        edit(bytes, at);
        mend(bytes, at);
    })
}

#[test]
fn segments_are_judged_as_the_documents_table_says() {
    for row in table("scan") {
        let (name, verdict) = (row[0].as_str(), row[2].as_str());
        if verdict == "by 7.1" {
            continue;
        }
        let io = SimFs::new().io(7);
        let found = case(name, &io).scan(&io);
        match (verdict, &found) {
            ("accept", Ok(scan)) => {
                assert_eq!(scan.cut_bytes, 0, "row {name}");
                assert_eq!(scan.clean, name == "S19", "row {name}");
                assert_eq!(!scan.stale.is_empty(), name == "S6", "row {name}");
            }
            ("cut", Ok(scan)) => assert!(scan.cut_bytes > 0, "row {name}"),
            ("refuse", Err(e)) => {
                assert_eq!(e.kind(), ErrorKind::Corruption, "row {name}: {e:?}");
                assert!(e.path().is_some(), "row {name}: {e:?}");
            }
            ("refuse as `Unsupported`", Err(e)) => {
                assert_eq!(e.kind(), ErrorKind::Unsupported, "row {name}: {e:?}")
            }
            (_, found) => {
                let found = found.as_ref().map(|scan| (scan.end, scan.cut_bytes));
                panic!("row {name}: {verdict} is not {found:?}");
            }
        }
    }
}

#[test]
fn a_segment_chained_with_another_databases_key_is_refused() {
    let io = SimFs::new().io(7);
    let key = ChainKey::derive(&Dek::from_bytes(&[9; 32]), DekVersion(1));
    let foreign = Segment::under(
        &io,
        Lsn::ZERO,
        Epoch::FIRST,
        Chain::default(),
        (DekVersion(1), key),
    );
    let error = Case::of(&[&foreign]).scan(&io).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corruption);
}

#[test]
fn a_record_taken_out_of_the_log_is_missed_whatever_is_mended() {
    // Four records; one is taken out, those behind it move up and get the positions and checksums they need.
    for gone in 0..4 {
        let io = SimFs::new().io(7);
        let mut segment = Segment::begin(&io, Lsn::ZERO, Epoch::FIRST, Chain::default());
        for _ in 0..4 {
            segment = segment.batch();
        }
        let found = Case::of(&[&segment])
            .damage(|bytes| {
                let at = 128 + gone * BATCH_BYTES;
                bytes.drain(at..at + BATCH_BYTES);
                for at in (at..bytes.len()).step_by(BATCH_BYTES) {
                    bytes[at + 8..at + 16].copy_from_slice(&(at as u64).to_le_bytes());
                    mend(bytes, at);
                }
            })
            .scan(&io);
        // The newest one leaves no trace: nothing behind it is chained to it.
        assert_eq!(found.is_ok(), gone == 3, "record {gone}");
    }
}

#[test]
fn a_record_that_does_not_hold_is_judged_by_what_stands_behind_it() {
    // Record `n` of four in the newest segment damaged; the others vouch for what was before them.
    for (n, cut) in [(0, false), (1, false), (2, false), (3, true)] {
        let io = SimFs::new().io(7);
        let mut segment = Segment::begin(&io, Lsn::ZERO, Epoch::FIRST, Chain::default());
        let mut starts = Vec::new();
        for _ in 0..4 {
            starts.push(segment.bytes.len());
            segment = segment.batch();
        }
        let found = Case::of(&[&segment])
            .damage(|bytes| bytes[starts[n] + 50] ^= 1)
            .scan(&io);
        assert_eq!(found.is_ok(), cut, "record {n}");
    }
}

/// A write of the newest record that landed too early: it damages the one before, which was durable, and vouches
/// for it from the wrong place.
#[test]
fn durable_record_damaged_by_a_misdirected_newer_one_is_refused() {
    for shift in [8, 50, 80] {
        let io = SimFs::new().io(7);
        let mut segment = Segment::begin(&io, Lsn::ZERO, Epoch::FIRST, Chain::default());
        let mut starts = Vec::new();
        for _ in 0..3 {
            starts.push(segment.bytes.len());
            segment = segment.batch();
        }
        let found = Case::of(&[&segment])
            .damage(|bytes| {
                let newest = bytes.split_off(starts[2]);
                let len = bytes.len() + newest.len();
                bytes.truncate(starts[2] - shift);
                bytes.extend_from_slice(&newest);
                bytes.resize(len, 0);
            })
            .scan(&io);
        assert_eq!(
            found.map(drop).unwrap_err().kind(),
            ErrorKind::Corruption,
            "by {shift} bytes"
        );
    }
}

#[test]
fn room_behind_a_torn_record_goes_with_it_and_does_not_count_as_torn() {
    let io = SimFs::new().io(7);
    let whole = Segment::begin(&io, Lsn::ZERO, Epoch::FIRST, Chain::default()).batch();
    let torn = Segment::begin(&io, Lsn::ZERO, Epoch::FIRST, Chain::default())
        .batch()
        .batch();
    let found = Case::of(&[&torn])
        .damage(|bytes| {
            let end = bytes.len() - BATCH_BYTES / 2;
            bytes.truncate(end);
            bytes.push(1);
            bytes.resize(end + 300_000, 0);
        })
        .scan(&io)
        .unwrap();
    assert_eq!(found.end, whole.end());
    assert_eq!(found.cut_bytes, BATCH_BYTES as u64 / 2 + 1);
}

#[test]
fn room_does_not_hide_the_record_that_vouches_for_a_damaged_one() {
    let io = SimFs::new().io(7);
    let segment = Segment::begin(&io, Lsn::ZERO, Epoch::FIRST, Chain::default())
        .batch()
        .batch();
    let found = Case::of(&[&segment])
        .damage(|bytes| {
            bytes[128 + 50] ^= 1;
            bytes.resize(bytes.len() + 5000, 0);
        })
        .scan(&io);
    assert_eq!(found.map(drop).unwrap_err().kind(), ErrorKind::Corruption);
}

#[test]
fn zeros_where_durable_records_were_are_not_taken_for_room() {
    let io = SimFs::new().io(7);
    let a = Segment::begin(&io, Lsn::ZERO, Epoch::FIRST, Chain::default()).batch();
    let b = a.next(&io).batch().batch();
    let wipe = |bytes: &mut Vec<u8>| {
        let at = bytes.len() - BATCH_BYTES;
        bytes[at..].fill(0);
    };
    let below_reach = Case::of(&[&a, &b]).reaching(b.end().0).damage(wipe).scan(&io);
    assert_eq!(below_reach.map(drop).unwrap_err().kind(), ErrorKind::Corruption);
    let mut complete = Case::of(&[&a, &b]);
    wipe(&mut complete.files[0].1);
    let complete = complete.scan(&SimFs::new().io(8));
    assert_eq!(complete.map(drop).unwrap_err().kind(), ErrorKind::Corruption);
}
