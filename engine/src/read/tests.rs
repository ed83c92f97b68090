//! Merges and visibility against the oracle, over memtables as sources.

use std::sync::Arc;

use super::cursor::{Cursor, Entry, EntryRef};
use super::merge::MergeCursor;
use super::testing::{Oracle, Random, check_cursor, put, random_entries, standing_at};
use super::visible::{Bounds, VisibleCursor};
use crate::error::{Error, ErrorKind, Result};
use crate::expiry::ExpiryClock;
use crate::memtable::Memtable;
use crate::types::{SeqNo, TenantId};

const TENANT: TenantId = TenantId(1);

pub(crate) fn memtable(entries: &[Entry]) -> Box<dyn Cursor> {
    let memtable = Arc::new(Memtable::new(64 << 10));
    for Entry {
        key,
        seqno,
        kind,
        value,
    } in entries.iter().cloned()
    {
        memtable.insert(TENANT, key, seqno, kind, value);
    }
    memtable.cursor(TENANT)
}

/// The oracle's entries dealt out to `sources` cursors; some entries to several of them if
/// `duplicates`.
fn deal(oracle: &Oracle, sources: u64, duplicates: bool, random: &mut Random) -> (MergeCursor, Vec<Entry>) {
    let mut shares = vec![Vec::new(); sources as usize];
    let mut merged = Vec::new();
    for entry in oracle.entries() {
        let mut copies = if duplicates { 1 + random.below(2) } else { 1 };
        let first = random.below(sources);
        for share in first..sources {
            if copies > 0 {
                shares[share as usize].push(entry.clone());
                merged.push(entry.clone());
                copies -= 1;
            }
        }
    }
    (
        MergeCursor::new(shares.iter().map(|share| memtable(share)).collect()),
        merged,
    )
}

pub(crate) fn bounds(lower: &[u8], upper: Option<&[u8]>) -> Arc<Bounds> {
    let (lower, upper) = (lower.to_vec(), upper.map(<[u8]>::to_vec));
    Arc::new(Bounds { lower, upper })
}

#[test]
fn merge_of_several_sources_agrees_with_the_oracle() {
    for seed in 0..60 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let count = [0, 1, 2, 20, 300][seed as usize % 5];
        let oracle = random_entries(&mut random, count, 40, 50);
        let sources = 1 + random.below(7);
        let (mut merge, merged) = deal(&oracle, sources, seed % 3 == 0, &mut random);
        check_cursor(&mut merge, &merged, &mut random, 1500);
    }
}

#[test]
fn merge_of_no_sources_is_empty() {
    check_cursor(&mut MergeCursor::new(Vec::new()), &[], &mut Random(0), 50);
}

#[test]
fn visible_entries_agree_with_the_oracle_at_every_snapshot() {
    for seed in 0..60 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let count = [0, 1, 5, 60, 400][seed as usize % 5];
        // Few keys with many versions now and then, so that runs of versions are skipped by seeking.
        let keys = if seed % 2 == 0 { 40 } else { 4 };
        let oracle = random_entries(&mut random, count, keys, 50);
        for _ in 0..6 {
            let at = SeqNo(random.below(52));
            let (merge, _) = deal(&oracle, 1 + seed % 4, seed % 3 == 0, &mut random);
            let now = 500 * random.below(42);
            let visible = oracle.visible(at, now);
            check_visible(VisibleCursor::new(merge, at), now, &visible, &mut random);

            let (lower, upper) = (random.key(40), random.key(40));
            let upper = (random.below(4) > 0).then_some(upper);
            let inside = |entry: &Entry| entry.key >= lower && upper.as_ref().is_none_or(|u| entry.key < u);
            let bounded: Vec<Entry> = visible.into_iter().filter(inside).collect();
            let (merge, _) = deal(&oracle, 1 + seed % 4, false, &mut random);
            let cursor = VisibleCursor::bounded(merge, at, bounds(&lower, upper.as_deref()));
            check_visible(cursor, now, &bounded, &mut random);
        }
    }
}

pub(crate) fn check_visible<C: Cursor>(
    cursor: VisibleCursor<C>,
    now: u64,
    entries: &[Entry],
    random: &mut Random,
) {
    /// Seeks by key only: what `check_cursor` expects of versions does not apply.
    struct Adapter<C>(VisibleCursor<C>, ExpiryClock);

    impl<C: Cursor> Cursor for Adapter<C> {
        fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
            // One version is visible for each key; it lies before (key, seqno) if it is newer.
            self.0.seek(&self.1.by(None), key)?;
            match self.0.entry() {
                Some(entry) if entry.key == key && entry.seqno > seqno => self.0.next(&self.1.by(None)),
                _ => Ok(()),
            }
        }
        fn seek_first(&mut self) -> Result<()> {
            self.0.seek(&self.1.by(None), &[])
        }
        fn seek_last(&mut self) -> Result<()> {
            self.0.seek_last(&self.1.by(None))
        }
        fn seek_before(&mut self, key: &[u8]) -> Result<()> {
            self.0.seek_before(&self.1.by(None), key)
        }
        fn next(&mut self) -> Result<()> {
            self.0.next(&self.1.by(None))
        }
        fn prev(&mut self) -> Result<()> {
            self.0.prev(&self.1.by(None))
        }
        fn next_key(&mut self) -> Result<()> {
            self.0.next(&self.1.by(None))
        }
        fn entry(&self) -> Option<EntryRef<'_>> {
            self.0.entry()
        }
        fn owned(&self) -> Option<Entry> {
            self.0.owned()
        }
    }

    check_cursor(&mut Adapter(cursor, standing_at(now)), entries, random, 400);
}

/// Fails its n-th call.
pub(crate) struct Failing {
    pub inner: Box<dyn Cursor>,
    pub calls: u32,
    pub fail_at: u32,
}

impl Failing {
    fn call(&mut self, call: impl FnOnce(&mut dyn Cursor) -> Result<()>) -> Result<()> {
        self.calls += 1;
        if self.calls == self.fail_at {
            self.inner = memtable(&[]);
            return Err(Error::new(ErrorKind::Io, "injected"));
        }
        call(self.inner.as_mut())
    }
}

impl Cursor for Failing {
    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.call(|inner| inner.seek(key, seqno))
    }
    fn seek_first(&mut self) -> Result<()> {
        self.call(|inner| inner.seek_first())
    }
    fn seek_last(&mut self) -> Result<()> {
        self.call(|inner| inner.seek_last())
    }
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.call(|inner| inner.seek_before(key))
    }
    fn next(&mut self) -> Result<()> {
        self.call(|inner| inner.next())
    }
    fn prev(&mut self) -> Result<()> {
        self.call(|inner| inner.prev())
    }
    fn next_key(&mut self) -> Result<()> {
        self.call(|inner| inner.next_key())
    }
    fn entry(&self) -> Option<EntryRef<'_>> {
        self.inner.entry()
    }
    fn owned(&self) -> Option<Entry> {
        self.inner.owned()
    }
}

#[test]
fn an_error_of_a_source_is_returned_and_unpositions() {
    let a = [put(b"a", 1, b""), put(b"c", 3, b""), put(b"e", 5, b"")];
    let b = [put(b"b", 2, b""), put(b"d", 4, b"")];
    for fail_at in 1..12 {
        let failing = Failing {
            inner: memtable(&b),
            calls: 0,
            fail_at,
        };
        let merge = MergeCursor::new(vec![memtable(&a), Box::new(failing)]);
        let mut cursor = VisibleCursor::new(merge, SeqNo::MAX);
        let clock = standing_at(0);
        let times = clock.by(None);
        let mut walk = || -> Result<usize> {
            let mut seen = 0;
            cursor.seek(&times, &[])?;
            while cursor.entry().is_some() {
                (seen, _) = (seen + 1, cursor.next(&times)?);
            }
            cursor.seek_last(&times)?;
            while cursor.entry().is_some() {
                (seen, _) = (seen + 1, cursor.prev(&times)?);
            }
            Ok(seen)
        };
        match walk() {
            Ok(seen) => assert!(
                seen == 10 && fail_at > 6,
                "{seen} entries, failing call {fail_at}"
            ),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Io);
                assert!(cursor.entry().is_none());
            }
        }
    }
}

#[test]
fn a_bounded_scan_stops_at_the_bound_without_walking_on() {
    // Ten thousand deleted keys after the bound: each would cost a call of the source.
    let mut entries = vec![put(b"a", 1, b"")];
    for i in 0..10_000u32 {
        let mut deleted = put(&[b"b", &i.to_be_bytes()[..]].concat(), 2, b"");
        deleted.kind = super::cursor::EntryKind::Delete;
        entries.push(deleted);
    }
    let source = Failing {
        inner: memtable(&entries),
        calls: 0,
        fail_at: 10,
    };
    let mut cursor = VisibleCursor::bounded(source, SeqNo::MAX, bounds(b"a", Some(b"b")));
    let clock = standing_at(0);
    let times = clock.by(None);
    cursor.seek(&times, &[]).unwrap();
    assert!(cursor.entry().is_some());
    cursor.next(&times).unwrap();
    assert!(cursor.entry().is_none());
}

/// Keys in which much is the same, of all lengths, so that digits are equal, and begin elsewhere soon.
fn long_key(random: &mut Random) -> Vec<u8> {
    let mut key = vec![0, 0, 0, 7];
    for _ in 0..random.below(7) {
        let part: &[u8] = [
            &b"tenant/a"[..],
            b"tenant/b",
            b"\0\0\0\0\0\0\0\0",
            b"\0",
            &[0xff; 9],
            b"z",
        ][random.below(6) as usize];
        key.extend_from_slice(part);
    }
    key
}

#[test]
fn a_merge_of_keys_that_are_the_same_for_long_agrees_with_the_oracle() {
    for seed in 0..300 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut oracle = Oracle::default();
        for _ in 0..[5, 60, 400][seed as usize % 3] {
            let key = long_key(&mut random);
            oracle.add(put(&key, 1 + random.below(4), &random.value()));
        }
        let sources = 1 + random.below(6);
        let (mut merge, merged) = deal(&oracle, sources, seed % 3 == 0, &mut random);
        check_cursor(&mut merge, &merged, &mut random, 600);
        let at = SeqNo(random.below(5));
        let (merge, _) = deal(&oracle, sources, seed % 3 == 0, &mut random);
        check_visible(
            VisibleCursor::new(merge, at),
            0,
            &oracle.visible(at, 0),
            &mut random,
        );
    }
}
