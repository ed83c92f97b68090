//! What looking for a later record behind damage costs, and that it stops where somebody makes it cost more.

use std::path::Path;

use super::{Case, KEYS, Segment};
use crate::error::ErrorKind;
use crate::io::Io;
use crate::io::sim::SimFs;
use crate::recovery::scan;
use crate::types::{Chain, DekVersion, Epoch, Lsn, SeqNo, TenantId};
use crate::wal::format::{RecordFields, RecordKind, push_section_header, start_record};
use crate::wal::reader::{SegmentScan, Step, list_segments};

const SECTOR_BYTES: usize = 512;

/// A log of one segment, walked to its damage, and how many bytes there are from there on.
fn walked(io: &Io, case: &Case) -> (SegmentScan, u64) {
    case.write(io);
    let [file] = &list_segments(io, Path::new("/wal")).unwrap()[..] else {
        panic!("one segment");
    };
    let mut walk = SegmentScan::open(io, &KEYS, file).unwrap().or_refuse().unwrap();
    while let Step::Record(_) = walk.step().unwrap() {}
    let searched = file.len - walk.offset;
    (walk, searched)
}

#[test]
fn tail_made_of_fronts_of_records_is_refused_after_four_times_its_bytes_were_checked() {
    let io = SimFs::new().io(7);
    let segment = Segment::begin(&io, Lsn::ZERO, Epoch::FIRST, Chain::default());
    let segment = segment.batch().batch();
    // Fronts that say they reach to the end; their checksums do not hold.
    let end = 1 << 20;
    let case = Case::of(&[&segment]).damage(|bytes| {
        bytes[segment.last_record() + 50] ^= 1;
        let fields = RecordFields {
            kind: RecordKind::Batch,
            lsn: segment.end(),
            seqno: SeqNo(1),
            time_ms: 0,
            durable: segment.end(),
        };
        while bytes.len() < end {
            let len = end - bytes.len();
            let mut front = Vec::new();
            start_record(&fields, 1, &mut front);
            let before_sealed = front.len() + 16 + 3 + 3;
            let sealed = len.saturating_sub(before_sealed).max(1 << 14) as u32;
            push_section_header(TenantId(1), DekVersion(1), 1, [0; 16], sealed, &mut front);
            front[4..8].copy_from_slice(&(len as u32).to_le_bytes());
            bytes.extend_from_slice(&front);
        }
    });
    let (mut walk, searched) = walked(&io, &case);
    assert_eq!(walk.offset, segment.last_record() as u64);
    let error = walk.later_watermark().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert_eq!(
        (error.path(), error.offset()),
        (Some(walk.path.as_path()), Some(walk.offset))
    );
    let (structure, expected, found) = error.mismatch().unwrap();
    assert_eq!(structure, "log behind a damaged record");
    assert!(
        expected.contains(&format!("at most {} bytes", 4 * searched)),
        "{expected}"
    );
    assert!(found.starts_with("more, up to byte "), "{found}");
    let checked = walk.checked();
    assert!(
        (3 * searched..=4 * searched).contains(&checked),
        "{checked} of {searched}"
    );
    // And opening refuses, though nothing vouches for what is damaged.
    let refused = scan(&io, &KEYS, Path::new("/wal"), Lsn::ZERO, Lsn::ZERO, true);
    assert_eq!(refused.map(drop).unwrap_err().to_string(), error.to_string());
}

#[test]
fn segment_that_lost_half_of_its_sectors_is_judged_by_a_record_between_them_far_from_the_bound() {
    let io = SimFs::new().io(7);
    let before = Segment::begin(&io, Lsn::ZERO, Epoch::FIRST, Chain::default());
    let records = 4 << 10;
    let whole = (0..records).fold(before, |segment, n| {
        let mut section = [0; 44];
        io.rng.fill(&mut section).unwrap();
        segment.record_with(RecordKind::Batch, 1_700_000_000_000 + n, &section)
    });
    let mut kept = vec![0; whole.bytes.len() / SECTOR_BYTES + 1];
    io.rng.fill(&mut kept).unwrap();
    let case = Case::of(&[&whole]).damage(|bytes| {
        for (sector, kept) in bytes.chunks_mut(SECTOR_BYTES).zip(&kept).skip(1) {
            if kept % 2 == 0 {
                io.rng.fill(sector).unwrap();
            }
        }
    });
    let (mut walk, searched) = walked(&io, &case);
    let newest = walk.later_watermark().unwrap();
    assert!(
        newest.is_some_and(|newest| newest > walk.position()),
        "{newest:?}"
    );
    let checked = walk.checked();
    assert!(checked > 0 && checked <= searched, "{checked} of {searched}");
    let judged = scan(&io, &KEYS, Path::new("/wal"), Lsn::ZERO, Lsn::ZERO, true);
    let error = judged.map(drop).unwrap_err();
    let why = "damage below the durable watermark of a later record";
    assert_eq!(error.mismatch().map(|(_, expected, _)| expected), Some(why));
}
