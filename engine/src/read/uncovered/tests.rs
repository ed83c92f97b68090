//! Views with range deletes against a model: memtables filled one after the other, read at every version, both ways.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::inner::View;
use crate::memtable::Memtable;
use crate::pace::Debt;
use crate::read::cover::Cover;
use crate::read::cursor::{Cursor, Entry, EntryKind};
use crate::read::get::find;
use crate::read::range_cost::RangeCost;
use crate::read::testing::{Random, put};
use crate::read::tests::{Failing, check_visible};
use crate::read::uncovered::Uncovered;
use crate::read::visible::VisibleCursor;
use crate::types::{SeqNo, TenantId};
use crate::version::Version;

const TENANT: TenantId = TenantId(1);

/// What every key was at every version.
#[derive(Default)]
struct Model {
    view: Vec<Arc<Memtable>>,
    history: BTreeMap<Bytes, Vec<(u64, Option<Bytes>)>>,
}

impl Model {
    /// Puts, deletes and range deletes with versions from 1 on, dealt to memtables as they fill.
    fn new(random: &mut Random, keys: u64, count: u64) -> Model {
        let mut model = Model::default();
        model.view.push(Arc::new(Memtable::new(64 << 10)));
        let memtables = 1 + random.below(5);
        for seqno in 1..=count {
            if random.below(count) < memtables {
                model.view.insert(0, Arc::new(Memtable::new(64 << 10)));
            }
            let memtable = model.view[0].clone();
            match random.below(6) {
                0 => {
                    let (a, b) = (random.key(keys), random.key(keys));
                    let (start, end) = (a.clone().min(b.clone()), a.max(b));
                    if start[..4] != end[..4] || start == end {
                        continue;
                    }
                    for (_, versions) in model.history.range_mut(start.clone()..end.clone()) {
                        versions.push((seqno, None));
                    }
                    memtable.delete_ranges(TENANT, vec![(start, end)], SeqNo(seqno));
                }
                1 => {
                    let key = random.key(keys);
                    model.history.entry(key.clone()).or_default().push((seqno, None));
                    memtable.insert(TENANT, key, SeqNo(seqno), EntryKind::Delete, Bytes::new());
                }
                _ => {
                    let (key, value) = (random.key(keys), random.value());
                    let versions = model.history.entry(key.clone()).or_default();
                    versions.push((seqno, Some(value.clone())));
                    memtable.insert(TENANT, key, SeqNo(seqno), EntryKind::Put, value);
                }
            }
        }
        model
    }

    fn view(&self) -> View {
        View {
            active: self.view[0].clone(),
            immutables: self.view[1..].to_vec(),
            version: Arc::new(Version::default()),
            debt: Debt::default(),
            range_cost: RangeCost::default(),
        }
    }

    fn visible(&self, at: u64) -> Vec<Entry> {
        let newest = |versions: &[(u64, Option<Bytes>)]| {
            let seen = versions.iter().rev().find(|(seqno, _)| *seqno <= at);
            seen.and_then(|(seqno, value)| Some((*seqno, value.clone()?)))
        };
        let visible = self.history.iter().filter_map(|(key, versions)| {
            let (seqno, value) = newest(versions)?;
            Some(put(key, seqno, &value))
        });
        visible.collect()
    }
}

#[test]
fn what_range_deletes_hide_is_seen_by_nobody_who_reads_later_and_by_all_before() {
    for seed in 0..120 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let count = [3, 20, 150, 500][seed as usize % 4];
        let model = Model::new(&mut random, 40, count);
        for _ in 0..5 {
            let at = random.below(count + 2);
            let expected = model.visible(at);
            let view = model.view();
            let cursor = view.cursor(TENANT, SeqNo(at)).unwrap();
            check_visible(VisibleCursor::new(cursor, SeqNo(at)), 0, &expected, &mut random);
            for key in (0..40).map(|_| random.key(40)) {
                let found = find(&view, TENANT, &key, SeqNo(at)).unwrap();
                let found = found.filter(|found| found.kind == EntryKind::Put);
                let expected = expected.iter().find(|entry| entry.key == key);
                assert_eq!(
                    found.map(|f| f.value),
                    expected.map(|e| e.value.clone()),
                    "at {at}"
                );
            }
        }
    }
}

#[test]
fn a_get_of_what_a_range_delete_hides_gives_a_delete_of_its_version() {
    let key = Bytes::from_static(b"\0\0\0\x01k");
    let (older, newer) = (
        Arc::new(Memtable::new(64 << 10)),
        Arc::new(Memtable::new(64 << 10)),
    );
    older.insert(
        TENANT,
        key.clone(),
        SeqNo(3),
        EntryKind::Put,
        Bytes::from_static(b"v"),
    );
    let all = (
        Bytes::from_static(b"\0\0\0\x01"),
        Bytes::from_static(b"\0\0\0\x02"),
    );
    newer.delete_ranges(TENANT, vec![all], SeqNo(7));
    let view = View {
        active: newer.clone(),
        immutables: vec![older],
        version: Arc::new(Version::default()),
        debt: Debt::default(),
        range_cost: RangeCost::default(),
    };
    let seqno = |at| {
        find(&view, TENANT, &key, SeqNo(at))
            .unwrap()
            .map(|f| (f.seqno.0, f.kind))
    };
    assert_eq!(seqno(2), None);
    assert_eq!(seqno(6), Some((3, EntryKind::Put)));
    assert_eq!(seqno(7), Some((7, EntryKind::Delete)));
    // A key that never was is deleted as well; another tenant's is not.
    let never = find(&view, TENANT, b"\0\0\0\x01other", SeqNo(9)).unwrap();
    assert_eq!(never.map(|f| f.seqno), Some(SeqNo(7)));
    assert_eq!(find(&view, TenantId(2), &key, SeqNo(9)).unwrap(), None);
    // Of one batch what comes later stands.
    newer.insert(
        TENANT,
        key.clone(),
        SeqNo(7),
        EntryKind::Put,
        Bytes::from_static(b"w"),
    );
    assert_eq!(seqno(7), Some((7, EntryKind::Put)));
}

#[test]
fn a_stretch_that_a_newer_source_deletes_is_not_walked() {
    let (older, newer) = (
        Arc::new(Memtable::new(64 << 10)),
        Arc::new(Memtable::new(64 << 10)),
    );
    let key = |n: u32| Bytes::from([&[0, 0, 0, 1], &n.to_be_bytes()[..]].concat());
    for n in 0..20_000 {
        older.insert(TENANT, key(n), SeqNo(1), EntryKind::Put, Bytes::from_static(b"v"));
    }
    newer.delete_ranges(TENANT, vec![(key(1), key(19_999))], SeqNo(2));
    let cover = Cover::of_memtable(&newer, TENANT).map(Arc::new).unwrap();
    // Each move costs a call or two; walking would take twenty thousand.
    let source = Box::new(Failing {
        inner: older.cursor(TENANT),
        calls: 0,
        fail_at: 12,
    });
    let mut cursor = Uncovered::over(source, None, &[cover], SeqNo(2));
    cursor.seek_first().unwrap();
    cursor.next().unwrap();
    assert_eq!(cursor.entry().unwrap().key, key(19_999));
    cursor.prev().unwrap();
    assert_eq!(cursor.entry().unwrap().key, key(0));
    cursor.seek(&key(777), SeqNo::MAX).unwrap();
    assert_eq!(cursor.entry().unwrap().key, key(19_999));
    cursor.seek_before(&key(777)).unwrap();
    assert_eq!(cursor.entry().unwrap().key, key(0));
    // An error of the source is returned, and unpositions.
    for _ in 0..4 {
        cursor
            .seek_first()
            .unwrap_or_else(|_| assert!(cursor.entry().is_none()));
    }
    assert!(cursor.entry().is_none());
    cursor.next().unwrap();
    cursor.prev().unwrap();
    assert!(cursor.entry().is_none());
}
