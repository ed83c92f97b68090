//! Entries without their version: where compaction leaves it out, and what reads, deletes and compactions make of it.

use super::*;
use crate::compaction::picker::Reason;
use crate::hooks::Bug;
use crate::read::cursor::{Cursor, EntryKind};
use crate::version::table_path;

/// Key, version and kind of all entries of tenant 1 in keyspace 1, by level and key.
fn versions(model: &Model) -> Vec<(usize, String, u64, EntryKind)> {
    let version = model.set.current();
    let mut found = Vec::new();
    for (level, table) in version.tables() {
        let mut cursor = table.sweep(TenantId(1)).unwrap();
        cursor.seek_first().unwrap();
        while let Some(entry) = cursor.entry() {
            let key = String::from_utf8(entry.key[4..].to_vec()).unwrap();
            found.push((level, key, entry.seqno.0, entry.kind));
            cursor.next().unwrap();
        }
    }
    found
}

/// The versions of one key, by level.
fn of(model: &Model, key: &str) -> Vec<(usize, u64)> {
    let all = versions(model).into_iter();
    let all = all.filter(|(_, other, ..)| other == key);
    all.map(|(level, _, seqno, _)| (level, seqno)).collect()
}

fn put(model: &mut Model, key: &str, value: u8) {
    model.write(1, 1, key, Some(Bytes::from(vec![value; 40])));
}

/// All of level `from` into `output`, merged with what is there, or as it is.
fn down(model: &Model, action: Action, from: usize, output: usize) {
    let version = model.set.current();
    let inputs = version
        .tables()
        .map(|(level, table)| (level, table.meta().number));
    let inputs = inputs.filter(|(level, _)| *level == from || (action == Action::Merge && *level == output));
    let plan = Plan {
        action,
        inputs: inputs.collect(),
        output,
        reason: Reason::Asked,
        emptied: Vec::new(),
    };
    model.carry_out(&plan).unwrap();
}

/// Keys 500 to 509 settled in level 3.
fn settled() -> Model {
    let mut model = Model::new();
    for key in 500..510 {
        put(&mut model, &key.to_string(), 1);
    }
    model.flush().unwrap();
    down(&model, Action::Merge, 0, 1);
    down(&model, Action::Move, 1, 3);
    model.check("settled");
    assert!(versions(&model).iter().all(|(_, _, seqno, _)| *seqno == 0));
    model
}

#[test]
fn a_put_that_everybody_sees_and_that_nothing_lies_below_has_no_version_left() {
    let mut model = Model::new();
    model.write_until(1, 1, "a", Bytes::from_static(b"until"), u64::MAX);
    put(&mut model, "b", 1);
    put(&mut model, "b", 2);
    model.write(1, 1, "c", Some(Bytes::new()));
    model.flush().unwrap();
    // What is flushed may stand above something.
    let numbered = versions(&model);
    assert!(numbered.iter().all(|(_, _, seqno, _)| *seqno > 0), "{numbered:?}");
    down(&model, Action::Merge, 0, 1);
    assert_eq!(
        versions(&model),
        [
            (1, "a".into(), 0, EntryKind::Expiring),
            (1, "b".into(), 0, EntryKind::Put),
            (1, "c".into(), 0, EntryKind::Put),
        ]
    );
    let version = model.set.current();
    let meta = version.levels[1][0].meta();
    assert_eq!((meta.seqno_min, meta.seqno_max), (SeqNo::ZERO, SeqNo::ZERO));
    assert_eq!(
        model.set.state().seqno,
        SeqNo(model.seqno),
        "what comes next is told by the manifest"
    );
    drop(version);
    model.reopen();
    model.check("opened anew");
}

#[test]
fn a_put_that_a_snapshot_does_not_see_keeps_its_version_until_the_snapshot_goes() {
    let mut model = Model::new();
    put(&mut model, "a", 1);
    put(&mut model, "b", 1);
    model.snapshots.insert(model.seqno);
    put(&mut model, "a", 2);
    put(&mut model, "c", 1);
    model.flush().unwrap();
    model.compact_everything();
    model.check("with a snapshot");
    assert_eq!(of(&model, "a"), [(1, 3), (1, 0)]);
    assert_eq!((of(&model, "b"), of(&model, "c")), (vec![(1, 0)], vec![(1, 4)]));
    // Once more, over what was zeroed.
    model.compact_everything();
    model.check("again");
    assert_eq!(of(&model, "a"), [(1, 3), (1, 0)]);
    model.snapshots.clear();
    model.compact_everything();
    model.check("without");
    assert_eq!((of(&model, "a"), of(&model, "c")), (vec![(1, 0)], vec![(1, 0)]));
}

#[test]
fn a_put_that_is_not_visible_yet_keeps_its_version() {
    let mut model = Model::new();
    put(&mut model, "a", 1);
    put(&mut model, "a", 2);
    put(&mut model, "b", 1);
    // Whoever takes a snapshot while the job runs reads at 1, or at anything after it.
    let newest = std::mem::replace(&mut model.seqno, 1);
    model.flush().unwrap();
    model.compact_everything();
    model.check("at what is visible");
    assert_eq!(of(&model, "a"), [(1, 2), (1, 0)]);
    assert_eq!(of(&model, "b"), [(1, 3)]);
    model.seqno = newest;
    model.check("at all of it");
    model.compact_everything();
    model.check("visible");
    assert_eq!((of(&model, "a"), of(&model, "b")), (vec![(1, 0)], vec![(1, 0)]));
}

#[test]
fn a_put_above_something_older_keeps_its_version() {
    let mut model = settled();
    put(&mut model, "505", 2);
    // Inside what the tables below reach over, though none of them has it.
    put(&mut model, "5055", 2);
    put(&mut model, "499", 2);
    put(&mut model, "510", 2);
    model.flush().unwrap();
    down(&model, Action::Merge, 0, 1);
    model.check("above");
    assert_eq!(of(&model, "505"), [(1, 11), (3, 0)]);
    assert_eq!(of(&model, "5055"), [(1, 12)]);
    assert_eq!(
        (of(&model, "499"), of(&model, "510")),
        (vec![(1, 0)], vec![(1, 0)])
    );
    // Backwards, forwards and by key, at the bottom.
    down(&model, Action::Move, 1, 2);
    down(&model, Action::Merge, 2, 3);
    model.check("at the bottom");
    assert!(versions(&model).iter().all(|(_, _, seqno, _)| *seqno == 0));
}

#[test]
fn a_put_under_an_older_range_delete_that_stays_keeps_its_version() {
    let mut model = settled();
    // It hides what is below, and so stays; of the key behind it nothing is there.
    model.delete_range(1, 1, "000", "505");
    put(&mut model, "100", 2);
    put(&mut model, "600", 2);
    model.flush().unwrap();
    down(&model, Action::Merge, 0, 1);
    model.check("above");
    assert_eq!(
        (of(&model, "100"), of(&model, "600")),
        (vec![(1, 12)], vec![(1, 0)])
    );
    down(&model, Action::Move, 1, 2);
    down(&model, Action::Merge, 2, 3);
    model.check("at the bottom");
    assert_eq!((of(&model, "100"), of(&model, "504")), (vec![(3, 0)], vec![]));
}

#[test]
fn a_put_over_an_older_range_delete_below_keeps_its_version() {
    let mut model = settled();
    model.delete_range(1, 1, "000", "505");
    model.flush().unwrap();
    down(&model, Action::Move, 0, 2);
    put(&mut model, "100", 2);
    model.flush().unwrap();
    down(&model, Action::Merge, 0, 1);
    model.check("above the range delete");
    assert_eq!(of(&model, "100"), [(1, 12)]);
    down(&model, Action::Merge, 1, 2);
    model.check("beside it");
    assert_eq!(of(&model, "100"), [(2, 12)]);
    down(&model, Action::Merge, 2, 3);
    model.check("at the bottom");
    assert_eq!(of(&model, "100"), [(3, 0)]);
}

#[test]
fn a_zeroed_put_under_later_puts_deletes_and_range_deletes_is_hidden_wherever_they_are() {
    for snapshot in [false, true] {
        let mut model = settled();
        if snapshot {
            model.snapshots.insert(model.seqno);
        }
        put(&mut model, "500", 2);
        model.write(1, 1, "501", None);
        model.delete_range(1, 1, "502", "504");
        put(&mut model, "503", 2);
        model.write_until(1, 1, "504", Bytes::from_static(b"short"), model.now + 1000);
        model.flush().unwrap();
        model.check("in level 0");
        for level in 0..3 {
            down(&model, Action::Merge, level, level + 1);
            model.check(&format!("in level {}", level + 1));
        }
        model.now += 2000;
        model.check("one of them has ended");
        let left: Vec<u64> = versions(&model).iter().map(|(_, _, seqno, _)| *seqno).collect();
        match snapshot {
            false => assert_eq!(left, [0; 8]),
            true => assert_eq!(left.iter().filter(|seqno| **seqno == 0).count(), 10),
        }
        model.snapshots.clear();
        model.compact_everything();
        model.check("all in one level");
        assert_eq!(versions(&model).len(), 7);
    }
}

#[test]
fn a_zeroed_put_of_a_dropped_keyspace_goes() {
    let mut model = settled();
    model.snapshots.insert(model.seqno);
    model.drop_keyspace(1, 1);
    model.compact_everything();
    assert_eq!(versions(&model).len(), 10, "a snapshot may read it");
    model.snapshots.clear();
    model.settle();
    assert_eq!(versions(&model).len(), 0);
}

#[test]
fn a_value_that_stands_apart_keeps_its_version_and_loses_it_when_it_is_taken_back() {
    let mut model = Model::new();
    model.options.separate_bytes = 100;
    for key in ["a", "b"] {
        model.write(1, 1, key, Some(Bytes::from(vec![1; 150])));
    }
    model.flush().unwrap();
    model.compact_everything();
    model.check("apart");
    assert_eq!((of(&model, "a"), of(&model, "b")), (vec![(1, 1)], vec![(1, 2)]));
    model.options.separate_bytes = 0;
    model.compact_everything();
    model.check("taken back");
    assert_eq!((of(&model, "a"), of(&model, "b")), (vec![(1, 0)], vec![(1, 0)]));
    // And apart again, sealed for the version before all.
    model.options.separate_bytes = 100;
    model.compact_everything();
    model.check("apart again");
    let kinds = versions(&model)
        .into_iter()
        .map(|(_, _, seqno, kind)| (seqno, kind));
    assert_eq!(kinds.collect::<Vec<_>>(), [(0, EntryKind::Separated); 2]);
    model.options.table_bytes = 1 << 10;
    model.compact_everything();
    model.check("moved");
}

#[test]
fn a_damaged_table_below_keeps_versions_and_stops_no_compaction() {
    let mut model = settled();
    let version = model.set.current();
    let below = &version.levels[3][0];
    // The last byte of its index.
    let at = 128 + below.tenants().next().unwrap().bytes as usize - 1;
    let path = table_path(&model.machine.db, below.meta().number);
    assert!(model.machine.fs.corrupt(&path, |bytes| bytes[at] ^= 1));
    drop(version);
    model.machine.cache.purge_if(|_| true);
    model.set = model.machine.open().unwrap();
    put(&mut model, "100", 2);
    put(&mut model, "700", 2);
    model.flush().unwrap();
    down(&model, Action::Merge, 0, 1);
    let written = model.set.current().levels[1][0].meta().clone();
    assert_eq!((written.seqno_min, written.seqno_max), (SeqNo(11), SeqNo(12)));
}

#[test]
fn each_rule_left_out_changes_what_is_read() {
    for bug in [
        Bug::ZeroedUnderARangeDelete,
        Bug::ZeroedOverOlder,
        Bug::ZeroedUnderASnapshot,
    ] {
        let found = std::panic::catch_unwind(|| {
            bug.planted_in(|| match bug {
                Bug::ZeroedUnderARangeDelete => {
                    a_put_under_an_older_range_delete_that_stays_keeps_its_version()
                }
                Bug::ZeroedOverOlder => a_put_above_something_older_keeps_its_version(),
                _ => a_put_that_a_snapshot_does_not_see_keeps_its_version_until_the_snapshot_goes(),
            });
        });
        assert!(found.is_err(), "{}", bug.name());
    }
}
