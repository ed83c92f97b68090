//! Somebody writes to the disk and holds no key, but knows the format: checksums, lengths and positions are
//! mended after every change. Whatever is done to a record of a killed database's log, opening it refuses.
//!
//! One thing is left to them, and told in docs/guarantees.md: the newest records of such a log can be cut.

use std::ops::Range;
use std::path::{Path, PathBuf};

use strongroom::{Error, ErrorKind};
use strongroom_tests::oracle::{Content, read_all};
use strongroom_tests::world::{Moment, World, name_of_tenant};

const HEADER: usize = 128;

/// A killed database with a tenant whose keys are destroyed, and the newest segment of its log.
struct Target {
    moment: Moment,
    content: Content,
    segment: PathBuf,
    bytes: Vec<u8>,
    records: Vec<Range<usize>>,
}

impl Target {
    fn new() -> Target {
        let mut world = World::new(strongroom_tests::damage::options());
        let fill = |world: &mut World| -> Result<(), Error> {
            world.open()?;
            for n in 1..=3 {
                world.create_tenant(&name_of_tenant(n))?;
            }
            world.delete_tenant(&name_of_tenant(3))?;
            (0..4).try_for_each(|key| world.put(&name_of_tenant(1 + key % 2), "a", key, 20))
        };
        fill(&mut world).unwrap();
        let content = world.visible();
        world.kill();
        let moment = world.moment("killed");
        let mut segments = moment.fs.files().into_iter();
        let (segment, mut bytes) = segments
            .rfind(|(path, _)| path.extension().is_some_and(|e| e == "wal"))
            .unwrap();
        let mut records = Vec::new();
        let mut at = HEADER;
        // A length of 0 begins the room behind the records, which plays no part here.
        while let Some(len) = bytes.get(at + 4..at + 8).filter(|len| **len != [0; 4]) {
            let len = u32::from_le_bytes(len.try_into().unwrap()) as usize;
            records.push(at..at + len);
            at += len;
        }
        bytes.truncate(at);
        assert!(records.len() >= 4, "{} records", records.len());
        Target {
            moment,
            content,
            segment,
            bytes,
            records,
        }
    }

    /// What a reader gets when the segment is this.
    fn read(&self, bytes: Vec<u8>) -> Result<Content, Error> {
        let fs = self.moment.fs.fork();
        fs.corrupt(&self.segment, |own| *own = bytes);
        let mut world = self.moment.world_on(fs);
        world.open()?;
        read_all(world.engine())
    }

    fn refused(&self, bytes: Vec<u8>, what: &str) {
        match self.read(bytes) {
            Ok(found) => panic!("{what}: opened, the same content: {}", found == self.content),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Corruption, "{what}: {e:?}");
                assert_eq!(e.path(), Some(Path::new(&self.segment)), "{what}: {e:?}");
            }
        }
    }
}

/// Where the sections of a record begin: behind two varints at 40.
fn sections_at(record: &[u8]) -> usize {
    let ends = record
        .iter()
        .enumerate()
        .skip(40)
        .filter(|(_, byte)| **byte < 0x80);
    ends.map(|(at, _)| at + 1).nth(1).unwrap()
}

fn mend(bytes: &mut [u8], record: &Range<usize>) {
    let crc = crc32fast::hash(&bytes[record.start + 4..record.end]);
    bytes[record.start..record.start + 4].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_record_that_is_made_to_name_a_destroyed_tenant_is_refused_also_the_newest() {
    let target = Target::new();
    assert_eq!(target.read(target.bytes.clone()).unwrap(), target.content);
    let mut named = 0;
    for (n, record) in target.records.iter().enumerate() {
        let mut bytes = target.bytes.clone();
        // The tenant of its section: what is sealed for a destroyed tenant is skipped, not opened.
        // Behind two varints of up to three bytes, and the commitment.
        let tenant = record.start + sections_at(&bytes[record.clone()]) + 16;
        assert!((1..=3).contains(&bytes[tenant]), "record {n}");
        if bytes[tenant] == 3 {
            // The note of its creation.
            continue;
        }
        bytes[tenant] = 3;
        named += 1;
        mend(&mut bytes, record);
        target.refused(bytes, &format!("record {n}"));
    }
    assert!(named >= 4, "{named} of {} records", target.records.len());
}

#[test]
fn a_record_taken_from_the_middle_is_missed_with_all_behind_it_renumbered() {
    let target = Target::new();
    for (n, gone) in target.records.iter().enumerate().rev().skip(1) {
        let mut bytes = target.bytes.clone();
        bytes.drain(gone.clone());
        for later in &target.records[n + 1..] {
            let moved = later.start - gone.len()..later.end - gone.len();
            // What was not synced is told by a distance: it moves with its record.
            let lsn = moved.start + 8..moved.start + 16;
            let value = u64::from_le_bytes(bytes[lsn.clone()].try_into().unwrap());
            let value = value - gone.len() as u64;
            bytes[lsn].copy_from_slice(&value.to_le_bytes());
            mend(&mut bytes, &moved);
        }
        target.refused(bytes, &format!("record {n} of {}", target.records.len()));
    }
}

#[test]
fn every_byte_of_a_records_frame_changed_with_the_checksum_mended_is_refused() {
    let target = Target::new();
    for record in [&target.records[1], target.records.last().unwrap()] {
        // From the position to the end of the section's clear header; the length decides where the checksum is.
        let sealed = sections_at(&target.bytes[record.clone()]) + 16 + 4;
        for offset in 8..sealed {
            let mut bytes = target.bytes.clone();
            bytes[record.start + offset] ^= 1;
            mend(&mut bytes, record);
            target.refused(bytes, &format!("byte {offset} of the record at {}", record.start));
        }
    }
}

#[test]
fn every_byte_of_a_segment_header_changed_with_the_checksum_mended_is_refused() {
    let target = Target::new();
    for offset in 16..HEADER {
        let mut bytes = target.bytes.clone();
        bytes[offset] ^= 1;
        let crc = crc32fast::hash(&[&bytes[..12], &bytes[16..HEADER]].concat());
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        target.refused(bytes, &format!("byte {offset} of the header"));
    }
}
