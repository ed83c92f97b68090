//! Edits, manifest, `CURRENT` and the set: round trips, damage, crashes, full disks.

use std::path::Path;
use std::sync::Arc;

use super::current;
use super::edit::{BadEdit, Edit, Full, ManifestState, NodeState};
use super::manifest;
use super::set::VersionSet;
use super::testing::{Dice, Machine, flushed, get, layout, state, visible};
use super::{referenced_files, table_path};
use crate::error::ErrorKind;
use crate::io::sim::{CrashMode, Fault, Times};
use crate::table::TableMeta;
use crate::types::{Chain, Epoch, EpochStart, Lsn, SeqNo, TenantId};

fn some<T>(dice: &Dice, value: impl FnOnce() -> T) -> Option<T> {
    (!dice.one_in(2)).then(value)
}

fn meta(dice: &Dice) -> TableMeta {
    let tenant = dice.below(1 << 40);
    let seqno = dice.below(1 << 40);
    TableMeta {
        number: dice.below(u64::MAX),
        file_id: [dice.below(256) as u8; 16],
        bytes: 1 << 20,
        entries: 1 + dice.below(1 << 20),
        digest: [dice.below(256) as u8; 32],
        tenant_min: TenantId(tenant),
        tenant_max: TenantId(tenant + dice.below(10)),
        seqno_min: SeqNo(seqno),
        seqno_max: SeqNo(seqno + dice.below(10)),
    }
}

fn epoch(dice: &Dice, number: u64) -> EpochStart {
    EpochStart {
        epoch: Epoch(number),
        start: Lsn(number * 10),
        chain: Chain([dice.below(256) as u8; 16]),
    }
}

fn edit(dice: &Dice) -> Edit {
    Edit {
        added: (0..dice.below(4))
            .map(|_| (dice.below(7) as u8, meta(dice)))
            .collect(),
        removed: (0..dice.below(4))
            .map(|_| (dice.below(7) as u8, dice.below(u64::MAX)))
            .collect(),
        flushed: some(dice, || Lsn(dice.below(u64::MAX))),
        seqno: some(dice, || SeqNo(dice.below(u64::MAX))),
        epoch: some(dice, || epoch(dice, dice.below(1 << 50))),
        highest_epoch: some(dice, || Epoch(dice.below(u64::MAX))),
        fenced_by: some(dice, || Epoch(dice.below(u64::MAX))),
        database_id: some(dice, || [dice.below(256) as u8; 16]),
        state: some(dice, || NodeState::AwaitingAcceptance),
        reach: some(dice, || Lsn(dice.below(u64::MAX))),
    }
}

#[test]
fn edits_and_full_states_survive_encoding() {
    for seed in 0..200 {
        let dice = Dice::new(seed);
        let edit = edit(&dice);
        assert_eq!(Edit::decode(&edit.encode()), Ok(edit), "seed {seed}");
        let full = Full {
            state: ManifestState {
                epochs: (1..=dice.below(5)).map(|number| epoch(&dice, number)).collect(),
                fenced_by: some(&dice, || Epoch(1 + dice.below(1 << 40))),
                state: NodeState::AwaitingAcceptance,
                reach: Lsn(dice.below(u64::MAX)),
                ..state()
            },
            next_number: dice.below(u64::MAX),
            tables: (0..dice.below(5))
                .map(|_| (dice.below(7) as u8, meta(&dice)))
                .collect(),
        };
        assert_eq!(Full::decode(&full.encode()), Ok(full), "seed {seed}");
    }
}

#[test]
fn unknown_tag_is_told_from_malformed_fields() {
    let field = |tag: u8, value: &[u8]| [&[tag][..], &(value.len() as u32).to_le_bytes(), value].concat();
    let good = Edit {
        reach: Some(Lsn(9)),
        ..Edit::default()
    }
    .encode();
    let with = |more: Vec<u8>| Edit::decode(&[good.clone(), more].concat());
    assert_eq!(with(field(99, &[1, 2, 3])), Err(BadEdit::UnknownTag(99)));
    assert_eq!(with(field(0, &[])), Err(BadEdit::UnknownTag(0)));
    for (name, malformed) in [
        ("the field again", good.clone()),
        ("too short", field(3, &[0; 7])),
        ("too long", field(3, &[0; 9])),
        ("no such level", field(2, &[7, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("no such node state", field(9, &[4])),
        ("node state zero", field(9, &[0])),
        ("value cut", vec![3, 8, 0, 0, 0, 1]),
        ("length cut", vec![3, 8]),
        ("length beyond memory", vec![3, 255, 255, 255, 255, 1]),
        ("table meta cut", field(1, &[0; 50])),
        ("file number in an edit", field(11, &[0; 8])),
    ] {
        assert!(matches!(with(malformed), Err(BadEdit::Malformed(_))), "{name}");
    }
    let full = Full {
        state: state(),
        next_number: 3,
        tables: Vec::new(),
    }
    .encode();
    assert!(matches!(
        Full::decode(&full[..full.len() - 13]),
        Err(BadEdit::Malformed(_))
    ));
    assert!(matches!(
        Full::decode(&[full, field(2, &[0; 9])].concat()),
        Err(BadEdit::Malformed(_))
    ));
}

#[test]
fn random_bytes_decode_without_panic() {
    for seed in 0..2000 {
        let dice = Dice::new(seed);
        let mut bytes = edit(&dice).encode();
        for _ in 0..=dice.below(3) {
            if let Some(at) = bytes
                .len()
                .checked_sub(1)
                .map(|last| dice.below(last as u64 + 1) as usize)
            {
                bytes[at] = dice.below(256) as u8;
            }
        }
        let _ = Edit::decode(&bytes);
        let _ = Full::decode(&bytes);
    }
}

#[test]
fn state_follows_edits_and_refuses_to_go_back() {
    let mut state = state();
    let start = |epoch: u64, start: u64| EpochStart {
        epoch: Epoch(epoch),
        start: Lsn(start),
        chain: Chain([epoch as u8; 16]),
    };
    state.epochs = vec![start(1, 0)];
    state.highest_epoch = Epoch(1);
    let mut apply = |edit: Edit| {
        let result = state.apply(&edit);
        (result.is_ok(), state.clone())
    };
    let epoch = |e| Edit {
        epoch: Some(e),
        ..Edit::default()
    };
    assert_eq!(apply(epoch(start(5, 100))).1.epochs, [start(1, 0), start(5, 100)]);
    // The same once more changes nothing.
    assert_eq!(apply(epoch(start(5, 100))).1.epochs, [start(1, 0), start(5, 100)]);
    assert!(!apply(epoch(start(4, 120))).0, "epochs rise");
    // A rewind to 90 forgets the reign that began at 100.
    let (fine, after) = apply(epoch(start(6, 90)));
    assert!(fine);
    assert_eq!(
        (after.epochs, after.highest_epoch),
        (vec![start(1, 0), start(6, 90)], Epoch(6))
    );
    let flushed = |lsn| Edit {
        flushed: Some(Lsn(lsn)),
        seqno: Some(SeqNo(lsn)),
        ..Edit::default()
    };
    assert!(apply(flushed(50)).0);
    assert!(!apply(flushed(49)).0);
    assert_eq!(apply(flushed(50)).1.flushed, Lsn(50));
    let fenced = |epoch| Edit {
        fenced_by: Some(Epoch(epoch)),
        ..Edit::default()
    };
    assert_eq!(apply(fenced(9)).1.fenced_by, Some(Epoch(9)));
    assert_eq!(apply(fenced(0)).1.fenced_by, None);
    let lower = Edit {
        highest_epoch: Some(Epoch(2)),
        ..Edit::default()
    };
    assert_eq!(apply(lower).1.highest_epoch, Epoch(6));
}

/// A set with three tables in two levels and some state, and what it looks like.
fn filled(machine: &Machine) -> VersionSet {
    let set = machine.create().unwrap();
    let numbers: Vec<u64> = (0..4).map(|_| set.next_number()).collect();
    let a = machine.table(numbers[0], &[(1, "a", 1), (2, "m", 2)]);
    let b = machine.table(numbers[1], &[(2, "n", 3), (3, "a", 4)]);
    let c = machine.table(numbers[2], &[(2, "m", 5)]);
    let d = machine.table(numbers[3], &[(2, "m", 6)]);
    set.log_and_apply(flushed(&[&a], 10)).unwrap();
    let down = Edit {
        removed: vec![(0, a.number)],
        added: vec![(1, a), (1, b)],
        ..Edit::default()
    };
    set.log_and_apply(down).unwrap();
    set.log_and_apply(flushed(&[&c], 20)).unwrap();
    set.log_and_apply(flushed(&[&d], 30)).unwrap();
    let epoch = EpochStart {
        epoch: Epoch::new(1, 1),
        start: Lsn(30),
        chain: Chain([3; 16]),
    };
    set.log_and_apply(Edit {
        epoch: Some(epoch),
        reach: Some(Lsn(40)),
        ..Edit::default()
    })
    .unwrap();
    set
}

type Look = (Vec<(usize, u64)>, ManifestState);

fn look(set: &VersionSet) -> Look {
    (layout(&set.current()), set.state())
}

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

/// Opens a damaged copy: what it looks like, or the error's kind and file.
fn reopen(
    machine: &Machine,
    damage: impl FnOnce(&Machine),
) -> std::result::Result<Look, (ErrorKind, String)> {
    let machine = machine.over(machine.fs.fork());
    damage(&machine);
    machine.open().map(|set| look(&set)).map_err(|e| {
        let name = e
            .path()
            .and_then(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned());
        (e.kind(), name.unwrap_or_default())
    })
}

#[test]
fn any_damage_to_a_closed_set_is_an_error_naming_the_file() {
    let machine = Machine::new();
    let set = filled(&machine);
    let number = set.next_number();
    set.close().unwrap();
    drop(set);
    let manifest = machine.manifests()[0];
    assert!(manifest > number);
    for path in [current::path(&machine.db), manifest::path(&machine.db, manifest)] {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = machine.fs.content(&path).unwrap();
        let check = |what: &str, result: std::result::Result<Look, (ErrorKind, String)>| match result {
            Ok(_) => panic!("{name}: {what} went unnoticed"),
            Err((kind, file)) => {
                assert!(
                    matches!(kind, ErrorKind::Corruption | ErrorKind::Unsupported),
                    "{name} {what} {kind:?}"
                );
                assert_eq!(file, name, "{what}");
            }
        };
        for bit in 0..bytes.len() * 8 {
            let result = reopen(&machine, |m| {
                m.fs.corrupt(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            });
            check(&format!("bit {bit}"), result);
        }
        for len in 0..bytes.len() {
            check(
                &format!("cut to {len}"),
                reopen(&machine, |m| {
                    m.fs.corrupt(&path, |bytes| bytes.truncate(len));
                }),
            );
        }
        check(
            "longer",
            reopen(&machine, |m| {
                m.fs.corrupt(&path, |bytes| bytes.push(0));
            }),
        );
        check(
            "lost",
            reopen(&machine, |m| {
                m.fs.lose(&path);
            }),
        );
    }
    let (_, table) = machine.open().map(|set| layout(&set.current())[0]).unwrap();
    let lost = reopen(&machine, |m| {
        m.fs.lose(table_path(&m.db, table));
    });
    assert_eq!(
        lost.unwrap_err(),
        (ErrorKind::Corruption, super::table_name(table))
    );
}

#[test]
fn damage_to_a_live_manifest_is_an_error_or_a_torn_last_edit() {
    let machine = Machine::new();
    let set = filled(&machine);
    let whole = look(&set);
    let path = manifest::path(&machine.db, machine.manifests()[0]);
    let before_last = {
        let bytes = machine.fs.content(&path).unwrap();
        let last = Edit {
            reach: Some(Lsn(77)),
            ..Edit::default()
        };
        set.log_and_apply(last).unwrap();
        bytes.len()
    };
    drop(set);
    let bytes = machine.fs.content(&path).unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let (mut torn, mut refused) = (0, 0);
    for bit in 0..bytes.len() * 8 {
        let result = reopen(&machine, |m| {
            m.fs.corrupt(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        });
        match result {
            Ok(look) => {
                assert!(bit / 8 >= before_last, "bit {bit} went unnoticed");
                assert_eq!(look, whole, "bit {bit}");
                torn += 1;
            }
            Err((kind, file)) => {
                assert!(bit / 8 < before_last, "bit {bit} of the last edit: {kind:?}");
                assert!(
                    matches!(kind, ErrorKind::Corruption | ErrorKind::Unsupported),
                    "bit {bit} {kind:?}"
                );
                assert_eq!(file, name);
                refused += 1;
            }
        }
    }
    assert!(torn > 0 && refused > 0);
    let mut seen = Vec::new();
    for len in 0..bytes.len() {
        let result = reopen(&machine, |m| {
            m.fs.corrupt(&path, |bytes| bytes.truncate(len));
        });
        match result {
            // Some prefix of the edits.
            Ok(look) if seen.last() != Some(&look) => seen.push(look),
            Ok(_) => {}
            Err((kind, file)) => {
                assert!(seen.is_empty(), "cut to {len}");
                assert_eq!((kind, file.as_str()), (ErrorKind::Corruption, name.as_str()));
            }
        }
    }
    assert_eq!(seen.len(), 6, "the full state, then five edits");
    assert_eq!(seen.last(), Some(&whole));
}

#[test]
fn bad_frame_before_a_good_one_is_corruption_wherever_it_begins() {
    let machine = Machine::new();
    let set = filled(&machine);
    let path = manifest::path(&machine.db, machine.manifests()[0]);
    drop(set);
    let bytes = machine.fs.content(&path).unwrap();
    for (what, rest) in [
        ("zeros", vec![0; 700]),
        ("ones", vec![255; 700]),
        ("text", vec![b'a'; 700]),
    ] {
        // After the end: torn, cut, and reported.
        let torn = machine.over(machine.fs.fork());
        torn.fs.corrupt(&path, |bytes| bytes.extend_from_slice(&rest));
        assert_eq!(torn.open().unwrap().opened().cut_bytes, 700, "{what}");
        // In the middle, after the full state: the frames behind it are still good.
        let result = reopen(&machine, |m| {
            m.fs.corrupt(&path, |damaged| {
                let tail = damaged.split_off(bytes.len() - 300);
                damaged.extend_from_slice(&rest);
                damaged.extend_from_slice(&tail);
            });
        });
        assert_eq!(result.unwrap_err().0, ErrorKind::Corruption, "{what}");
    }
    // The last frame once more: its checksum holds, its place does not.
    let again = reopen(&machine, |m| {
        m.fs.corrupt(&path, |damaged| {
            damaged.extend_from_slice(&bytes[bytes.len() - 300..])
        });
    });
    assert_eq!(again.unwrap_err().0, ErrorKind::Corruption);
}

#[test]
fn other_system_key_is_refused_by_name() {
    let machine = Machine::new();
    drop(filled(&machine));
    machine.source.forget(0);
    assert_eq!(reopen(&machine, |_| ()).unwrap_err().0, ErrorKind::KeyRefused);
    machine.source.create(0);
    assert_eq!(reopen(&machine, |_| ()).unwrap_err().0, ErrorKind::KeyRefused);
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

/// Runs a set of edits until one fails, on a machine that may fail: looks after each that was
/// acknowledged, and the look the next would have had.
fn run(machine: &Machine, close: bool) -> (Vec<Look>, Option<crate::error::Error>) {
    let mut looks = Vec::new();
    let result = (|| {
        let set = machine.create()?;
        looks.push(look(&set));
        let mut live: Vec<TableMeta> = Vec::new();
        for step in 0..4u64 {
            let table = machine.try_table(set.next_number(), &[(1, &format!("k{step}"), step + 1)])?;
            let mut edit = flushed(&[&table], step + 1);
            if step == 2 {
                edit.removed = live.iter().map(|table| (0, table.number)).collect();
                live.clear();
            }
            live.push(table);
            set.log_and_apply(edit)?;
            looks.push(look(&set));
        }
        if close {
            set.close()?;
        }
        Ok(())
    })();
    (looks, result.err())
}

/// Layouts differ in table numbers between runs only after a failure; before it they agree.
fn expected(close: bool) -> (Vec<Look>, u64) {
    let machine = Machine::new();
    let (looks, error) = run(&machine, close);
    assert!(error.is_none(), "{error:?}");
    (looks, machine.fs.ops())
}

#[test]
fn crash_at_any_moment_leaves_the_version_before_or_after() {
    let (all, ops) = expected(true);
    for op in 1..=ops + 1 {
        for half in [false, true] {
            let machine = Machine::new();
            machine.fs.crash_at(op, half);
            let (acked, error) = run(&machine, true);
            assert!(error.is_none() || op <= ops);
            assert_eq!(acked[..], all[..acked.len()]);
            machine.fs.crash_now();
            for (mode, seeds) in [
                (CrashMode::DropAll, 1),
                (CrashMode::KeepAll, 1),
                (CrashMode::KeepRandom, 12),
            ] {
                for seed in 0..seeds {
                    let after = machine.over(machine.fs.crashed_image(mode, seed));
                    let context = format!("crash at {op} (half {half}), {mode:?} seed {seed}");
                    let set = match after.open() {
                        Ok(set) => set,
                        Err(e) => {
                            // Only before the first CURRENT was durable is there none.
                            assert!(acked.is_empty(), "{context}: {e:?}");
                            assert!(
                                after.fs.content(current::path(&after.db)).is_none(),
                                "{context}: {e:?}"
                            );
                            continue;
                        }
                    };
                    let found = look(&set);
                    let next = &all[acked.len().min(all.len() - 1)];
                    assert!(
                        acked.last() == Some(&found) || *next == found,
                        "{context}: {found:?}"
                    );
                    let live: Vec<u64> = set
                        .current()
                        .tables()
                        .map(|(_, table)| table.meta().number)
                        .collect();
                    assert_eq!(after.table_files().len(), live.len(), "{context}");
                    // And the set goes on working.
                    set.log_and_apply(Edit {
                        reach: Some(Lsn(op)),
                        ..Edit::default()
                    })
                    .unwrap();
                }
            }
        }
    }
}

#[test]
fn full_disk_is_not_final_and_leaves_no_files_behind() {
    let (_, ops) = expected(false);
    for op in 1..=ops {
        let machine = Machine::new();
        let Ok(set) = machine.create() else { panic!() };
        let base = machine.fs.ops();
        machine.fs.fail(Fault::disk_full(base + op, Times::Forever));
        let mut acked = look(&set);
        for step in 0..6u64 {
            let table = machine.try_table(set.next_number(), &[(1, &format!("k{step}"), step + 1)]);
            let logged = table.and_then(|table| set.log_and_apply(flushed(&[&table], step + 1)));
            match logged {
                Ok(()) => acked = look(&set),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::NoSpace, "op {op} step {step}: {e:?}");
                    assert_eq!(look(&set), acked);
                }
            }
        }
        assert_eq!(machine.table_files().len(), acked.0.len(), "op {op}");
        let crashed = machine.over(machine.fs.crashed_image(CrashMode::KeepAll, 0));
        assert_eq!(look(&crashed.open().unwrap()), acked, "op {op}");
        machine.fs.clear_faults();
        let table = machine.table(set.next_number(), &[(1, "later", 50)]);
        set.log_and_apply(flushed(&[&table], 50)).unwrap();
        acked = look(&set);
        set.close().unwrap();
        drop(set);
        assert_eq!(look(&machine.open().unwrap()), acked, "op {op}");
    }
}

#[test]
fn failed_write_or_sync_is_final_until_reopened() {
    let (all, ops) = expected(true);
    for op in 1..=ops {
        let machine = Machine::new();
        machine.fs.fail(Fault::io_error(op, Times::Once));
        let Ok(set) = machine.create() else { continue };
        let mut acked = look(&set);
        let mut failed = false;
        for step in 0..4u64 {
            let Ok(table) = machine.try_table(set.next_number(), &[(1, &format!("k{step}"), step + 1)])
            else {
                continue;
            };
            match set.log_and_apply(flushed(&[&table], step + 1)) {
                Ok(()) => {
                    assert!(!failed, "op {op}: acknowledged after a failure");
                    acked = look(&set);
                }
                Err(e) => {
                    let kind = if failed {
                        ErrorKind::ReadOnly
                    } else {
                        ErrorKind::Io
                    };
                    assert_eq!(e.kind(), kind, "op {op} step {step}");
                    failed = true;
                }
            }
            assert_eq!(look(&set), acked);
        }
        if failed {
            assert_eq!(set.close().unwrap_err().kind(), ErrorKind::ReadOnly);
        }
        let reader: Arc<super::Version> = set.current();
        assert_eq!(
            visible(&reader, 1, 100).unwrap().len(),
            acked.0.len(),
            "reads go on"
        );
        drop((set, reader));
        for (mode, seed) in [
            (CrashMode::DropAll, 0),
            (CrashMode::KeepAll, 0),
            (CrashMode::KeepRandom, op),
        ] {
            let after = machine.over(machine.fs.crashed_image(mode, seed));
            let found = look(&after.open().unwrap());
            let grew = found.0.len() == acked.0.len() + 1 && failed;
            assert!(found == acked || grew, "op {op} {mode:?}");
        }
    }
    assert!(all.len() == 5);
}

#[test]
fn crash_at_any_moment_of_opening_or_closing_changes_nothing() {
    for close in [false, true] {
        let machine = Machine::new();
        let set = filled(&machine);
        let before = look(&set);
        if close {
            set.close().unwrap();
        }
        drop(set);
        let orphan = machine.table(200, &[(1, "orphan", 1)]);
        assert_eq!(orphan.number, 200);
        let base = machine.fs.fork();
        let reopened = |machine: &Machine| machine.open().and_then(|set| set.close()).map_err(|e| e.kind());
        let ops = {
            let machine = machine.over(base.fork());
            let start = machine.fs.ops();
            assert_eq!(reopened(&machine), Ok(()));
            machine.fs.ops() - start
        };
        for op in 1..=ops {
            let machine = machine.over(base.fork());
            machine.fs.crash_at(machine.fs.ops() + op, op % 2 == 0);
            let _ = reopened(&machine);
            machine.fs.crash_now();
            for (mode, seed) in [(CrashMode::DropAll, 0), (CrashMode::KeepAll, 0)]
                .into_iter()
                .chain((0..12).map(|seed| (CrashMode::KeepRandom, seed)))
            {
                let after = machine.over(machine.fs.crashed_image(mode, seed));
                let context = format!("closed {close}, crash at {op}, {mode:?} seed {seed}");
                let set = after.open().unwrap_or_else(|e| panic!("{context}: {e:?}"));
                assert_eq!(look(&set), before, "{context}");
                assert_eq!(after.manifests().len(), 1, "{context}");
                assert_eq!(after.table_files().len(), before.0.len(), "{context}");
            }
        }
    }
}

#[test]
fn crash_while_a_snapshot_is_written_leaves_none_or_all_of_it() {
    let machine = Machine::new();
    let set = filled(&machine);
    let (version, state) = (set.current(), set.state());
    let copy = Path::new("/copy");
    crate::io::durable::create_dir_synced(&machine.io, &copy.join("tables")).unwrap();
    for (name, _) in referenced_files(&version) {
        crate::io::durable::link_or_copy(&machine.io, &machine.db.join(&name), &copy.join(&name)).unwrap();
    }
    crate::io::durable::sync_dir(&machine.io, &copy.join("tables")).unwrap();
    // Every moment of one run, by a copy of the disk before each operation.
    let moments = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = Arc::clone(&moments);
    machine.fs.probe(move |_, fs| seen.lock().push(fs.clone()));
    set.write_snapshot(copy, &version, &state).unwrap();
    machine.fs.clear_probe();
    let mut moments = std::mem::take(&mut *moments.lock());
    moments.push(machine.fs.fork());
    let (mut none, mut whole) = (0, 0);
    for (at, moment) in moments.iter().enumerate() {
        for seed in 0..20 {
            let mut after = machine.over(moment.crashed_image(CrashMode::KeepRandom, seed));
            after.db = copy.to_path_buf();
            if after.fs.content(current::path(copy)).is_none() {
                none += 1;
                continue;
            }
            let opened = after
                .open()
                .unwrap_or_else(|e| panic!("moment {at} seed {seed}: {e:?}"));
            assert_eq!(
                (look(&opened), opened.opened().clean),
                (look(&set), true),
                "moment {at} seed {seed}"
            );
            whole += 1;
        }
    }
    assert!(none > 0 && whole > 20, "{none} {whole}");
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
fn tail_made_to_look_like_many_frames_is_given_up_on() {
    let machine = Machine::new();
    drop(filled(&machine));
    let path = manifest::path(&machine.db, machine.manifests()[0]);
    // Every fourth byte begins a length that fits.
    machine.fs.corrupt(&path, |bytes| {
        for _ in 0..1 << 17 {
            bytes.extend_from_slice(&0x0003_0000u32.to_le_bytes());
        }
    });
    let error = machine.open().map(|_| ()).unwrap_err();
    assert_eq!(
        (error.kind(), error.path()),
        (ErrorKind::Corruption, Some(path.as_path()))
    );
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

#[test]
fn encodings_are_the_documented_bytes() {
    let edit = Edit {
        removed: vec![(2, 0x0102)],
        flushed: Some(Lsn(3)),
        epoch: Some(EpochStart {
            epoch: Epoch(4),
            start: Lsn(5),
            chain: Chain([6; 16]),
        }),
        fenced_by: Some(Epoch(7)),
        database_id: Some([8; 16]),
        state: Some(NodeState::AwaitingAcceptance),
        ..Edit::default()
    };
    let expected = [
        "02 09000000 02 0201000000000000",
        "03 08000000 0300000000000000",
        "07 08000000 0700000000000000",
        "05 20000000 0400000000000000 0500000000000000 06060606060606060606060606060606",
        "08 10000000 08080808080808080808080808080808",
        "09 01000000 02",
    ];
    assert_eq!(hex::encode(edit.encode()), expected.concat().replace(' ', ""));
    let full = Full {
        state: ManifestState {
            reach: Lsn(9),
            ..ManifestState::default()
        },
        next_number: 10,
        tables: Vec::new(),
    };
    let expected = [
        "03 08000000 0000000000000000",
        "04 08000000 0000000000000000",
        "06 08000000 0000000000000000",
        "07 08000000 0000000000000000",
        "08 10000000 00000000000000000000000000000000",
        "09 01000000 01",
        "0a 08000000 0900000000000000",
        "0b 08000000 0a00000000000000",
    ];
    assert_eq!(hex::encode(full.encode()), expected.concat().replace(' ', ""));

    // The frame around them: where things stand in files.
    let machine = Machine::new();
    let set = machine.create().unwrap();
    let number = machine.manifests()[0];
    let manifest = machine.fs.content(manifest::path(&machine.db, number)).unwrap();
    assert_eq!(manifest[..8], *b"STRGROOM");
    assert_eq!(
        (manifest[10], &manifest[144..148]),
        (3, &[1, 0, 0, 0][..]),
        "kind, key version"
    );
    let frame = u32::from_le_bytes(manifest[152..156].try_into().unwrap()) as usize;
    assert_eq!(152 + 8 + frame, manifest.len());
    assert_eq!(
        crc32fast::hash(&[&manifest[152..156], &manifest[160..]].concat()).to_le_bytes(),
        manifest[156..160]
    );
    let open = machine.fs.content(current::path(&machine.db)).unwrap();
    assert_eq!((open.len(), open[10], &open[128..188]), (192, 6, &[0; 60][..]));
    assert_eq!(open[72..80], number.to_le_bytes());
    set.close().unwrap();
    let closed = machine.fs.content(current::path(&machine.db)).unwrap();
    let manifest = machine
        .fs
        .content(manifest::path(&machine.db, machine.manifests()[0]))
        .unwrap();
    assert_eq!(closed[128..136], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(closed[136..144], (manifest.len() as u64).to_le_bytes());
    use sha2::Digest;
    assert_eq!(closed[144..176], sha2::Sha256::digest(&manifest)[..]);
}
