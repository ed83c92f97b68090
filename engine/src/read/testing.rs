//! What the tests of cursors share: seeded randomness, random entries, and the oracle every cursor is
//! compared with.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::cursor::{Cursor, Entry, EntryKind, Found};
use crate::expiry::ExpiryClock;
use crate::io::Clock;
use crate::types::SeqNo;

/// Small, seeded, reproducible (splitmix64).
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A tree key out of a small space with shared prefixes, so that keys meet, nest and repeat.
    pub(crate) fn key(&mut self, keys: u64) -> Bytes {
        let n = self.below(keys);
        let mut key = (n as u32 % 3).to_be_bytes().to_vec();
        key.extend_from_slice(match n % 5 {
            0 => b"",
            1 => b"user/",
            2 => b"user/settings/",
            3 => &[0xff; 20],
            _ => &[0; 3],
        });
        key.extend_from_slice(n.to_string().as_bytes());
        key.into()
    }

    pub(crate) fn value(&mut self) -> Bytes {
        let len = match self.below(20) {
            0 => 0,
            1 => self.below(2000),
            _ => self.below(40),
        };
        (0..len).map(|_| self.next() as u8).collect::<Vec<_>>().into()
    }
}

/// A clock of expiry that stands.
pub(crate) fn standing_at(now: u64) -> ExpiryClock {
    struct Standing(u64);
    impl Clock for Standing {
        fn now_ms(&self) -> u64 {
            self.0
        }
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }
    ExpiryClock::new(Arc::new(Standing(now)))
}

/// A put that expires.
pub(crate) fn expiring(key: &[u8], seqno: u64, value: &[u8], at: u64) -> Entry {
    Entry {
        kind: EntryKind::Expiring,
        ..put(key, seqno, &[&at.to_le_bytes(), value].concat())
    }
}

/// A put to a keyspace with a retention: when it was written, and when it expires.
pub(crate) fn dated(key: &[u8], seqno: u64, value: &[u8], (written, expires): (u64, u64)) -> Entry {
    let moments = [written.to_le_bytes(), expires.to_le_bytes()].concat();
    Entry {
        kind: EntryKind::Dated,
        ..put(key, seqno, &[&moments, value].concat())
    }
}

pub(crate) fn put(key: &[u8], seqno: u64, value: &[u8]) -> Entry {
    Entry {
        key: Bytes::copy_from_slice(key),
        seqno: SeqNo(seqno),
        kind: EntryKind::Put,
        value: Bytes::copy_from_slice(value),
    }
}

/// `count` random versions of one tenant with versions `1 ..= versions`, each place once; some expire in the first
/// twenty seconds of 1970.
pub(crate) fn random_entries(random: &mut Random, count: usize, keys: u64, versions: u64) -> Oracle {
    let mut oracle = Oracle::default();
    for _ in 0..count {
        let (key, seqno) = (random.key(keys), SeqNo(1 + random.below(versions)));
        oracle.add(match random.below(10) {
            0 | 1 => Entry {
                kind: EntryKind::Delete,
                ..put(&key, seqno.0, b"")
            },
            2 | 3 => expiring(&key, seqno.0, &random.value(), 1000 * random.below(20)),
            4 => dated(&key, seqno.0, &random.value(), (7, 1000 * random.below(20))),
            _ => put(&key, seqno.0, &random.value()),
        });
    }
    oracle
}

/// One tenant's entries in internal order.
#[derive(Clone, Default)]
pub(crate) struct Oracle(pub BTreeMap<(Bytes, Reverse<SeqNo>), Entry>);

impl Oracle {
    pub(crate) fn add(&mut self, entry: Entry) {
        self.0.insert((entry.key.clone(), Reverse(entry.seqno)), entry);
    }

    /// The oldest version of some keys becomes 0, as compaction leaves it in tables.
    pub(crate) fn settle_some(&mut self, random: &mut Random) {
        let all = std::mem::take(&mut self.0).into_values();
        let mut all = all.peekable();
        while let Some(mut entry) = all.next() {
            let oldest = all.peek().is_none_or(|next| next.key != entry.key);
            if oldest && random.below(3) == 0 {
                entry.seqno = SeqNo::ZERO;
            }
            self.add(entry);
        }
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.0.values().cloned().collect()
    }

    pub(crate) fn get(&self, key: &[u8], at: SeqNo) -> Option<Found> {
        let place = (Bytes::copy_from_slice(key), Reverse(at));
        self.0
            .range(place..)
            .next()
            .map(|(_, entry)| entry)
            .filter(|entry| entry.key == key)
            .map(Found::from)
    }

    /// Newest version of each key at or below `at`, without deleted and expired keys.
    pub(crate) fn visible(&self, at: SeqNo, now: u64) -> Vec<Entry> {
        let mut out: Vec<Entry> = Vec::new();
        let mut last: Option<Bytes> = None;
        for entry in self.0.values().filter(|entry| entry.seqno <= at) {
            if last.as_ref() != Some(&entry.key) {
                last = Some(entry.key.clone());
                let shows = match entry.kind {
                    EntryKind::Put | EntryKind::Separated => true,
                    EntryKind::Delete => false,
                    EntryKind::Expiring => u64::from_le_bytes(*entry.value.first_chunk().unwrap()) > now,
                    EntryKind::Dated => u64::from_le_bytes(*entry.value[8..].first_chunk().unwrap()) > now,
                };
                out.extend(shows.then(|| entry.clone()));
            }
        }
        out
    }
}

fn same(cursor: &dyn Cursor, expected: Option<&Entry>, what: &str) {
    let (found, taken) = (cursor.entry(), cursor.owned());
    assert!(
        found == expected.map(Entry::view) && taken.as_ref() == expected,
        "{what}: found {found:?}, expected {expected:?}"
    );
}

/// Compares `cursor` with the sorted `entries`: whole walks both ways, then `steps` random moves, among
/// them seeks to places that exist, nearly exist, and do not.
pub(crate) fn check_cursor(cursor: &mut dyn Cursor, entries: &[Entry], random: &mut Random, steps: usize) {
    same(cursor, None, "unpositioned at first");
    cursor.next().unwrap();
    same(cursor, None, "next while unpositioned");
    cursor.seek_first().unwrap();
    for (i, entry) in entries.iter().enumerate() {
        same(cursor, Some(entry), &format!("forward {i}"));
        cursor.next().unwrap();
    }
    same(cursor, None, "past the end");
    cursor.prev().unwrap();
    same(cursor, None, "prev while unpositioned");
    cursor.seek_last().unwrap();
    for (i, entry) in entries.iter().enumerate().rev() {
        same(cursor, Some(entry), &format!("backward {i}"));
        cursor.prev().unwrap();
    }
    same(cursor, None, "before the start");

    let mut at: Option<usize> = None;
    for step in 0..steps {
        let what = random.below(12);
        let (mut key, mut seqno) = (random.key(50), SeqNo(random.below(60)));
        if let Some(entry) = entries.get(random.below(entries.len() as u64 + 1) as usize) {
            key = entry.key.clone();
            seqno = SeqNo((entry.seqno.0 + random.below(3)).saturating_sub(1));
            if random.below(4) == 0 {
                let mut longer = key.to_vec();
                longer.push(random.next() as u8);
                longer.truncate(1 + random.below(longer.len() as u64) as usize);
                key = longer.into();
            }
        }
        match what {
            0 => {
                cursor.seek_first().unwrap();
                at = Some(0);
            }
            1 => {
                cursor.seek_last().unwrap();
                at = entries.len().checked_sub(1);
            }
            2 => {
                cursor.seek(&key, seqno).unwrap();
                at = Some(entries.partition_point(|entry| entry.view().order(&key, seqno).is_lt()));
            }
            3 => {
                cursor.seek_before(&key).unwrap();
                at = entries.partition_point(|entry| entry.key < key).checked_sub(1);
            }
            4..7 => {
                cursor.next().unwrap();
                at = at.map(|at| at + 1);
            }
            7 => {
                cursor.next_key().unwrap();
                let key = at.and_then(|at| entries.get(at)).map(|entry| entry.key.clone());
                at = key.map(|key| entries.partition_point(|entry| entry.key <= key));
            }
            _ => {
                cursor.prev().unwrap();
                at = at.and_then(|at| at.checked_sub(1));
            }
        }
        at = at.filter(|at| *at < entries.len());
        if let Some(at) = at
            && cursor.is_newest()
        {
            let before = at.checked_sub(1).and_then(|before| entries.get(before));
            assert!(
                before.is_none_or(|before| before.key != entries[at].key),
                "step {step}"
            );
        }
        same(
            cursor,
            at.and_then(|at| entries.get(at)),
            &format!("step {step}, move {what}"),
        );
    }
}
