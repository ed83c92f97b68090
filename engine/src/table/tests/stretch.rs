//! Stretches: what a range goes over in a block by itself is what it would have been shown step by step.

use std::time::Duration;

use super::*;
use crate::expiry::{ExpiryClock, Shows};
use crate::io::sim::SimClock;
use crate::read::level::LevelCursor;
use crate::read::merge::MergeCursor;
use crate::read::testing::{expiring, standing_at};
use crate::read::tests::{bounds, check_visible, memtable};
use crate::read::visible::VisibleCursor;

const TENANT: TenantId = TenantId(1);

/// A table of these; those of a few entries are one block.
fn table(place: &Place, block_bytes: usize, entries: &[Entry]) -> Arc<Table> {
    let mut oracle = Oracle::default();
    entries.iter().cloned().for_each(|entry| oracle.add(entry));
    let shape = Shape { block_bytes, ..SMALL };
    place.table(shape, &BTreeMap::from([(TENANT, oracle)]))
}

fn block(entries: &[Entry]) -> Box<dyn Cursor> {
    let table = table(&Place::new(1 << 20), 4096, entries);
    Box::new(table.cursor(TENANT).unwrap())
}

/// Puts of version 1 with these keys, and their source as their value.
fn puts(keys: &[&str], value: &str) -> Vec<Entry> {
    let put = |key: &&str| put(key.as_bytes(), 1, value.as_bytes());
    keys.iter().map(put).collect()
}

fn merged(sources: Vec<Box<dyn Cursor>>, at: u64) -> VisibleCursor<MergeCursor> {
    VisibleCursor::new(MergeCursor::new(sources), SeqNo(at))
}

fn key<C: Cursor>(cursor: &VisibleCursor<C>) -> Option<String> {
    cursor
        .entry()
        .map(|entry| String::from_utf8(entry.key.to_vec()).unwrap())
}

/// `key=value` of all that is left, and of how many of them the cursor was in a stretch.
fn rest<C: Cursor>(cursor: &mut VisibleCursor<C>, times: &Shows<'_>) -> (String, usize) {
    let (mut shown, mut in_stretch) = (Vec::new(), 0);
    while let Some(entry) = cursor.owned() {
        assert_eq!(cursor.entry(), Some(entry.view()));
        let text = [&entry.key[..], b"=", &entry.value].concat();
        shown.push(String::from_utf8(text).unwrap());
        in_stretch += usize::from(cursor.stretch().is_some());
        cursor.next(times).unwrap();
    }
    (shown.join(" "), in_stretch)
}

/// All of it, at the beginning of 1970.
fn all<C: Cursor>(mut cursor: VisibleCursor<C>) -> (String, usize) {
    let clock = standing_at(0);
    let times = clock.by(None);
    cursor.seek_first(&times).unwrap();
    rest(&mut cursor, &times)
}

#[test]
fn a_block_alone_is_one_stretch_from_its_second_entry_on() {
    let cursor = merged(vec![block(&puts(&["a", "b", "c", "d"], "1"))], 9);
    assert_eq!(all(cursor), ("a=1 b=1 c=1 d=1".into(), 3));
}

#[test]
fn a_stretch_ends_before_the_next_key_of_another_source_whichever_is_newer() {
    let many = puts(
        &[
            "a", "b", "c", "d", "da", "db", "dc", "f", "g", "h", "i", "j", "k", "l",
        ],
        "1",
    );
    let few = puts(&["e"], "2");
    for sources in [
        vec![block(&few), block(&many)],
        vec![block(&many), memtable(&few)],
    ] {
        let (shown, in_stretch) = all(merged(sources, 9));
        assert_eq!(
            shown,
            "a=1 b=1 c=1 d=1 da=1 db=1 dc=1 e=2 f=1 g=1 h=1 i=1 j=1 k=1 l=1"
        );
        assert_eq!(in_stretch, 13, "all but the first and the other source's");
    }
}

#[test]
fn a_key_that_a_newer_source_has_as_well_ends_a_stretch_before_it() {
    let old = puts(&["a", "b", "c", "d", "da", "db", "dc", "e", "f", "g", "h"], "old");
    let new = vec![put(b"e", 5, b"new"), put(b"h", 6, b"new")];
    for newer in [memtable(&new), block(&new)] {
        let (shown, in_stretch) = all(merged(vec![newer, block(&old)], 9));
        assert_eq!(
            shown,
            "a=old b=old c=old d=old da=old db=old dc=old e=new f=old g=old h=new"
        );
        assert!(in_stretch >= 4, "{in_stretch}");
    }
    // Who reads before the newer ones sees the older.
    let (shown, _) = all(merged(vec![memtable(&new), block(&old)], 4));
    assert_eq!(
        shown,
        "a=old b=old c=old d=old da=old db=old dc=old e=old f=old g=old h=old"
    );
}

#[test]
fn sources_that_take_turns_lend_nothing_and_one_that_goes_on_does() {
    let turns = |from: usize| (0..20).map(move |at| format!("{:03}", 2 * at + from));
    let long = (100..140).map(|at| format!("{at}"));
    let (odd, even): (Vec<_>, Vec<_>) = (turns(1).chain(long).collect(), turns(0).collect());
    let puts = |keys: &[String]| {
        keys.iter()
            .map(|key| put(key.as_bytes(), 1, b""))
            .collect::<Vec<_>>()
    };
    let mut cursor = merged(vec![block(&puts(&odd)), block(&puts(&even))], 9);
    let clock = standing_at(0);
    let times = clock.by(None);
    cursor.seek_first(&times).unwrap();
    let (mut all, mut in_stretch) = ([odd, even].concat(), Vec::new());
    all.sort();
    for expected in &all {
        assert_eq!(key(&cursor).as_deref(), Some(&expected[..]));
        in_stretch.push(cursor.stretch().is_some());
        cursor.next(&times).unwrap();
    }
    assert!(!in_stretch[..39].contains(&true), "{in_stretch:?}");
    assert!(!in_stretch[45..].contains(&false), "{in_stretch:?}");
}

#[test]
fn the_same_entry_in_two_sources_is_shown_once() {
    let entries = puts(&["a", "b", "c"], "1");
    let (shown, _) = all(merged(vec![memtable(&entries[1..]), block(&entries)], 9));
    assert_eq!(shown, "a=1 b=1 c=1");
}

#[test]
fn older_versions_in_a_stretch_are_left_out_and_so_are_those_in_the_next_block() {
    let mut entries = puts(&["a", "b", "d", "e"], "1");
    entries.extend((2..60).map(|seqno| put(b"c", seqno, seqno.to_string().as_bytes())));
    for block_bytes in [64, 256, 4096] {
        let place = Place::new(1 << 20);
        let table = table(&place, block_bytes, &entries);
        for at in [1, 2, 7, 58, 59, 70] {
            let c = match at {
                1 => String::new(),
                at => format!("c={} ", at.min(59)),
            };
            let cursor = VisibleCursor::new(table.cursor(TENANT).unwrap(), SeqNo(at));
            let (shown, in_stretch) = all(cursor);
            assert_eq!(shown, format!("a=1 b=1 {c}d=1 e=1"), "{block_bytes} at {at}");
            assert!(in_stretch > 0);
        }
    }
}

#[test]
fn what_is_newer_than_the_reader_at_the_end_of_a_stretch_hides_nothing_behind_it() {
    // The first block ends between versions of c, all newer than the reader.
    let mut entries = puts(&["a", "b", "c", "d"], "1");
    entries.extend((10..20).map(|seqno| put(b"c", seqno, &[b'n'; 20])));
    let place = Place::new(1 << 20);
    let table = table(&place, 128, &entries);
    let mut cursor = VisibleCursor::new(table.cursor(TENANT).unwrap(), SeqNo(5));
    let clock = standing_at(0);
    cursor.seek_first(&clock.by(None)).unwrap();
    assert_eq!(rest(&mut cursor, &clock.by(None)).0, "a=1 b=1 c=1 d=1");
    cursor.seek_last(&clock.by(None)).unwrap();
    assert_eq!(key(&cursor).as_deref(), Some("d"));
}

#[test]
fn what_is_deleted_in_a_stretch_is_left_out_with_what_it_hides() {
    let mut entries = puts(&["a", "b", "c", "d"], "1");
    for key in ["b", "d"] {
        let mut delete = put(key.as_bytes(), 7, b"");
        delete.kind = EntryKind::Delete;
        entries.push(delete);
    }
    let (shown, in_stretch) = all(merged(vec![block(&entries)], 9));
    assert_eq!((shown.as_str(), in_stretch), ("a=1 c=1", 1));
    let (shown, _) = all(merged(vec![block(&entries)], 6));
    assert_eq!(shown, "a=1 b=1 c=1 d=1");
}

#[test]
fn what_expires_while_a_stretch_is_read_is_left_out_from_then_on() {
    let clock = Arc::new(SimClock::with_step(Duration::ZERO));
    let times = ExpiryClock::new(clock.clone());
    let at = times.now() + 10;
    let mut entries = puts(&["a", "b", "c", "e"], "1");
    entries.push(put(b"d", 1, b"older"));
    entries.extend(["c", "d"].map(|key| expiring(key.as_bytes(), 2, b"2", at)));
    let mut cursor = merged(vec![block(&entries)], 9);
    cursor.seek_first(&times.by(None)).unwrap();
    cursor.next(&times.by(None)).unwrap();
    cursor.next(&times.by(None)).unwrap();
    assert!(cursor.stretch().is_some());
    assert_eq!(key(&cursor).as_deref(), Some("c"));
    clock.advance(Duration::from_millis(10));
    cursor.next(&times.by(None)).unwrap();
    // Neither the expired value nor what it overwrote.
    assert_eq!(rest(&mut cursor, &times.by(None)).0, "e=1");
}

#[test]
fn turning_around_in_a_stretch_goes_back_from_where_it_has_come_to() {
    let (many, few) = (puts(&["a", "b", "d", "e", "f"], "1"), puts(&["c", "g"], "2"));
    let keys = ["a", "b", "c", "d", "e", "f", "g"];
    let clock = standing_at(0);
    let times = clock.by(None);
    for there in 0..keys.len() {
        for back in 0..=there {
            let mut cursor = merged(vec![memtable(&few), block(&many)], 9);
            cursor.seek_first(&times).unwrap();
            (0..there).for_each(|_| cursor.next(&times).unwrap());
            (0..back).for_each(|_| cursor.prev(&times).unwrap());
            for expected in &keys[there - back..] {
                assert_eq!(key(&cursor).as_deref(), Some(*expected), "{there} {back}");
                cursor.next(&times).unwrap();
            }
            assert_eq!(key(&cursor), None);
        }
    }
}

#[test]
fn a_seek_in_a_stretch_finds_what_lies_before_it_and_behind() {
    let clock = standing_at(0);
    let times = clock.by(None);
    let mut cursor = merged(vec![block(&puts(&["a", "b", "c", "d", "e"], "1"))], 9);
    for wanted in ["a", "c", "e", "b"] {
        cursor.seek(&times, b"b").unwrap();
        cursor.next(&times).unwrap();
        assert!(cursor.stretch().is_some());
        cursor.seek(&times, wanted.as_bytes()).unwrap();
        assert_eq!(key(&cursor).as_deref(), Some(wanted));
    }
}

#[test]
fn a_stretch_ends_with_the_range_at_a_key_of_the_block_and_between_two() {
    let entries = puts(&["a", "b", "d", "e"], "1");
    for (upper, expected) in [
        ("b", "a=1"),
        ("c", "a=1 b=1"),
        ("d", "a=1 b=1"),
        ("e", "a=1 b=1 d=1"),
        ("f", "a=1 b=1 d=1 e=1"),
    ] {
        let bounds = bounds(b"", Some(upper.as_bytes()));
        let cursor = VisibleCursor::bounded(block(&entries), SeqNo(9), bounds);
        assert_eq!(all(cursor).0, expected);
    }
}

/// Runs of steps in one direction, which is where stretches are.
fn check_runs<C: Cursor>(
    mut cursor: VisibleCursor<C>,
    now: u64,
    entries: &[Entry],
    random: &mut Random,
) -> usize {
    let clock = standing_at(now);
    let times = clock.by(None);
    let mut in_stretch = 0;
    for _ in 0..12 {
        let wanted = random.key(45);
        let mut at = entries.partition_point(|entry| entry.key < wanted);
        cursor.seek(&times, &wanted).unwrap();
        for _ in 0..4 {
            for forwards in [true, false] {
                for _ in 0..random.below(if forwards { 30 } else { 3 }) {
                    assert_eq!(cursor.entry(), entries.get(at).map(Entry::view));
                    assert_eq!(cursor.owned().as_ref(), entries.get(at));
                    in_stretch += usize::from(cursor.stretch().is_some());
                    match forwards {
                        true => cursor.next(&times).unwrap(),
                        false => cursor.prev(&times).unwrap(),
                    }
                    // Over an end it stands on nothing, and stays there.
                    at = match (at < entries.len(), forwards) {
                        (true, true) => at + 1,
                        (true, false) => at.checked_sub(1).unwrap_or(entries.len()),
                        (false, _) => at,
                    };
                }
            }
        }
    }
    in_stretch
}

#[test]
fn ranges_over_tables_levels_and_a_memtable_agree_with_the_oracle() {
    let mut in_stretch = 0;
    for seed in 0..120u64 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let count = [3, 40, 200, 600][seed as usize % 4];
        let oracle = random_entries(&mut random, count, [40, 300][seed as usize % 2], 50);
        // Shares of the sources, newest first; the last is the largest, most often by far.
        let shares = 1 + random.below(4) as usize;
        let small = [2, 10, 40][seed as usize % 3];
        let mut dealt = vec![Oracle::default(); shares];
        for entry in oracle.entries() {
            let share = match random.below(small) {
                0 => random.below(shares as u64) as usize,
                _ => shares - 1,
            };
            dealt[share].add(entry.clone());
            if seed % 5 == 0 && random.below(10) == 0 {
                dealt[random.below(shares as u64) as usize].add(entry);
            }
        }
        let place = Place::new([0, 1 << 20][seed as usize % 2]);
        let block_bytes = [64, 256, 4096][seed as usize % 3];
        let source = |at: usize, dealt: &Oracle| -> Box<dyn Cursor> {
            let entries = dealt.entries();
            if entries.is_empty() || at == 0 && shares > 1 {
                return memtable(&entries);
            }
            // A level of two tables, parted where a key begins.
            let middle = &entries[entries.len() / 2].key;
            let (left, right): (Vec<_>, Vec<_>) = entries.iter().cloned().partition(|e| e.key < *middle);
            let tables: Vec<_> = [left, right]
                .iter()
                .filter(|entries| !entries.is_empty())
                .map(|entries| table(&place, block_bytes, entries))
                .collect();
            match &tables[..] {
                [only] => Box::new(only.cursor(TENANT).unwrap()),
                several => Box::new(LevelCursor::new(several, TENANT)),
            }
        };
        for _ in 0..4 {
            let (at, now) = (SeqNo(random.below(52)), 500 * random.below(42));
            let sources = || {
                dealt
                    .iter()
                    .enumerate()
                    .map(|(at, dealt)| source(at, dealt))
                    .collect()
            };
            let (lower, upper) = (random.key(40), random.key(40));
            let upper = (random.below(3) > 0).then_some(upper);
            let inside = |entry: &Entry| entry.key >= lower && upper.as_ref().is_none_or(|u| entry.key < u);
            let visible = oracle.visible(at, now);
            let bounded: Vec<Entry> = visible.iter().filter(|entry| inside(entry)).cloned().collect();
            check_visible(merged(sources(), at.0), now, &visible, &mut random);
            in_stretch += check_runs(merged(sources(), at.0), now, &visible, &mut random);
            let merge = MergeCursor::new(sources());
            let cursor = VisibleCursor::bounded(merge, at, bounds(&lower, upper.as_deref()));
            check_visible(cursor, now, &bounded, &mut random);
        }
    }
    assert!(in_stretch > 10_000, "{in_stretch}");
}
