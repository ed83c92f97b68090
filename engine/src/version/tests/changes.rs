//! The set while it changes: edits, readers, files that come and go, reopening.

use std::path::Path;

use super::super::edit::Edit;
use super::super::referenced_files;
use super::super::testing::{Machine, flushed, get, layout, visible};
use super::{filled, look};
use crate::error::ErrorKind;
use crate::io::sim::CrashMode;
use crate::table::TableMeta;
use crate::types::{Lsn, SeqNo};

#[test]
fn reopened_set_is_what_it_was_closed_or_not() {
    for close in [false, true] {
        let machine = Machine::new();
        let set = filled(&machine);
        let before = look(&set);
        assert_eq!(
            before.0.iter().map(|(level, _)| *level).collect::<Vec<_>>(),
            [0, 0, 1, 1]
        );
        let number = set.next_number();
        if close {
            set.close().unwrap();
            set.close().unwrap();
            assert_eq!(
                set.log_and_apply(Edit::default()).unwrap_err().kind(),
                ErrorKind::Closed
            );
        }
        drop(set);
        for round in 0..3 {
            let machine = machine.over(machine.fs.fork());
            let set = machine.open().unwrap();
            assert_eq!(look(&set), before, "round {round}");
            assert_eq!((set.opened().clean, set.opened().cut_bytes), (close, 0));
            assert!(set.next_number() > number || !close);
            assert_eq!(machine.manifests().len(), 1);
            let key = [&1u32.to_be_bytes()[..], b"m"].concat();
            let entry = get(&set.current(), 2, &key, 5).unwrap().unwrap();
            assert_eq!(entry.seqno, SeqNo(5));
            assert_eq!(visible(&set.current(), 2, 100).unwrap().len(), 2);
            let again = machine.over(machine.fs.fork());
            assert_eq!(look(&again.open().unwrap()), before);
        }
    }
}

#[test]
fn orphans_are_removed_at_open_and_their_numbers_not_used_again() {
    let machine = Machine::new();
    let set = filled(&machine);
    let live: Vec<u64> = set
        .current()
        .tables()
        .map(|(_, table)| table.meta().number)
        .collect();
    let orphan = set.next_number() + 50;
    machine.table(orphan, &[(1, "x", 9)]);
    for name in [
        "CURRENT.tmp",
        "tables/0000000000000001.table.tmp",
        "manifest-00000000000000ff",
        "tables/note",
    ] {
        crate::io::durable::write_file_new(&machine.io, &machine.db.join(name), b"rest").unwrap();
    }
    drop(set);
    let set = machine.open().unwrap();
    let mut files = machine.table_files();
    files.sort_unstable();
    let mut live = live;
    live.sort_unstable();
    assert_eq!(files, live);
    assert!(
        machine.fs.content(machine.db.join("tables/note")).is_some(),
        "not ours"
    );
    assert!(
        machine
            .fs
            .files()
            .keys()
            .all(|path| !path.to_string_lossy().ends_with(".tmp"))
    );
    assert_eq!(machine.manifests().len(), 1);
    assert!(set.next_number() > orphan.max(0xff));
}

#[test]
fn files_of_removed_tables_go_with_their_last_reader() {
    let machine = Machine::new();
    let set = filled(&machine);
    let reader = set.current();
    let (level, number) = layout(&reader)[3];
    set.log_and_apply(Edit {
        removed: vec![(level as u8, number)],
        ..Edit::default()
    })
    .unwrap();
    assert!(machine.table_files().contains(&number), "a reader has it");
    assert_eq!(visible(&reader, 3, 100).unwrap().len(), 1);
    assert!(visible(&set.current(), 3, 100).unwrap().is_empty());
    drop(reader);
    assert!(!machine.table_files().contains(&number));
}

#[test]
fn edits_that_do_not_fit_are_refused_and_change_nothing() {
    let machine = Machine::new();
    let set = filled(&machine);
    let before = look(&set);
    let overlapping = machine.table(set.next_number(), &[(2, "mm", 7), (2, "o", 8)]);
    let missing = TableMeta {
        number: 999,
        ..overlapping.clone()
    };
    let other = TableMeta {
        entries: overlapping.entries + 1,
        ..overlapping.clone()
    };
    let add = |level, meta: &TableMeta| Edit {
        added: vec![(level, meta.clone())],
        ..Edit::default()
    };
    let (level, number) = before.0[0];
    for (edit, kind) in [
        (
            Edit {
                removed: vec![(6, number)],
                ..Edit::default()
            },
            ErrorKind::Invalid,
        ),
        (
            Edit {
                removed: vec![(level as u8, 12345)],
                ..Edit::default()
            },
            ErrorKind::Invalid,
        ),
        (add(2, set.current().levels[1][0].meta()), ErrorKind::Invalid),
        (
            Edit {
                flushed: Some(Lsn(1)),
                ..Edit::default()
            },
            ErrorKind::Invalid,
        ),
        (add(0, &missing), ErrorKind::Corruption),
        (add(0, &other), ErrorKind::Corruption),
    ] {
        assert_eq!(
            set.log_and_apply(edit.clone()).unwrap_err().kind(),
            kind,
            "{edit:?}"
        );
        assert_eq!(look(&set), before);
    }
    assert_eq!(
        set.log_and_apply(add(1, &overlapping)).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert!(
        !machine.table_files().contains(&overlapping.number),
        "a void edit's table goes"
    );
    drop(set);
    assert_eq!(look(&machine.open().unwrap()), before);
}

#[test]
fn tables_of_one_tenant_are_ordered_by_key_and_of_a_destroyed_one_accepted() {
    let machine = Machine::new();
    let set = machine.create().unwrap();
    let tables: Vec<TableMeta> = [
        (5, vec![(5, "k", 1), (5, "m", 1)]),
        (6, vec![(4, "z", 1), (5, "b", 1)]),
        (7, vec![(5, "x", 1), (6, "a", 1), (7, "a", 1)]),
        (8, vec![(5, "c", 1), (5, "j", 1)]),
        (9, vec![(7, "b", 1)]),
    ]
    .iter()
    .map(|(number, entries)| machine.table(100 + number, entries))
    .collect();
    for meta in &tables {
        set.log_and_apply(Edit {
            added: vec![(3, meta.clone())],
            ..Edit::default()
        })
        .unwrap();
    }
    let order = [(3, 106), (3, 108), (3, 105), (3, 107), (3, 109)];
    assert_eq!(layout(&set.current()), order);
    drop(set);
    machine.source.destroy(5);
    let set = machine.open().unwrap();
    let mut numbers = layout(&set.current());
    assert_eq!(
        (numbers[0], numbers[3], numbers[4]),
        (order[0], order[3], order[4])
    );
    numbers.sort_unstable();
    assert_eq!(numbers.len(), 5);
    set.close().unwrap();
    drop(set);
    assert_eq!(
        visible(&machine.open().unwrap().current(), 7, 9).unwrap().len(),
        2
    );
}

#[test]
fn snapshot_opens_elsewhere_as_a_closed_database() {
    let machine = Machine::new();
    let set = filled(&machine);
    let (version, state) = (set.current(), set.state());
    let copy = Path::new("/copy");
    crate::io::durable::create_dir_synced(&machine.io, &copy.join("tables")).unwrap();
    for (name, bytes) in referenced_files(&version) {
        let linked =
            crate::io::durable::link_or_copy(&machine.io, &machine.db.join(&name), &copy.join(&name));
        assert_eq!(linked.unwrap(), bytes);
    }
    crate::io::durable::sync_dir(&machine.io, &copy.join("tables")).unwrap();
    set.write_snapshot(copy, &version, &state).unwrap();
    let image = machine.fs.crashed_image(CrashMode::DropAll, 1);
    let mut other = machine.over(image);
    other.db = copy.to_path_buf();
    let opened = other.open().unwrap();
    assert!(opened.opened().clean);
    assert_eq!(look(&opened), look(&set));
}

#[test]
fn long_manifest_gives_way_to_a_new_one() {
    let machine = Machine::new();
    let set = filled(&machine);
    let first = machine.manifests()[0];
    let mut edits = 0u64;
    while machine.manifests()[0] == first {
        edits += 1;
        set.log_and_apply(Edit {
            reach: Some(Lsn(1000 + edits)),
            ..Edit::default()
        })
        .unwrap();
        assert!(edits < 1 << 16);
    }
    assert!(edits > 1000, "{edits}");
    set.log_and_apply(Edit {
        reach: Some(Lsn(5)),
        ..Edit::default()
    })
    .unwrap();
    let before = look(&set);
    assert_eq!(machine.manifests().len(), 1);
    drop(set);
    assert_eq!(look(&machine.open().unwrap()), before);
}

#[test]
fn readers_go_on_while_edits_are_logged() {
    let machine = Machine::new();
    let set = machine.create().unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut last = 0;
                    while !done.load(std::sync::atomic::Ordering::Acquire) {
                        let version = set.current();
                        let tables = version.tables().count();
                        // Each edit adds one, or takes all but the newest away.
                        assert!(tables <= 8, "{tables}");
                        let newest = version.levels[0].first().map_or(0, |table| table.meta().number);
                        assert!(newest >= last);
                        last = newest;
                        assert_eq!(visible(&version, 1, 1000).unwrap().len(), tables);
                    }
                })
            })
            .collect();
        for step in 0..100u64 {
            let table = machine.table(set.next_number(), &[(1, &format!("k{step}"), step + 1)]);
            let mut edit = flushed(&[&table], step + 1);
            if step % 8 == 7 {
                edit.removed = layout(&set.current())
                    .iter()
                    .map(|(_, number)| (0, *number))
                    .collect();
            }
            set.log_and_apply(edit).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Release);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    assert_eq!(machine.table_files().len(), layout(&set.current()).len());
}

#[test]
fn stray_file_with_a_huge_number_does_not_use_up_the_numbers() {
    let machine = Machine::new();
    drop(filled(&machine));
    for name in ["tables/ffffffffffffffff.table", "manifest-ffffffffffffffff"] {
        crate::io::durable::write_file_new(&machine.io, &machine.db.join(name), b"stray").unwrap();
    }
    let set = machine.open().unwrap();
    assert!(set.next_number() < 100);
}
