//! Range deletes on their way through tables.

use bytes::Bytes;

use super::loaded;
use super::model::{Model, check_levels};
use crate::compaction::picker::Action;
use crate::options::Compression;
use crate::types::TenantId;
use crate::version::testing::{bytes, visible};

fn totals(model: &Model) -> (u64, u64) {
    let version = model.set.current();
    let runs = || version.tables().flat_map(|(_, table)| table.tenants());
    (
        runs().map(|run| run.entries).sum(),
        runs().map(|run| run.range_deletes).sum(),
    )
}

#[test]
fn what_everybody_sees_deleted_goes_at_once_and_the_range_delete_at_the_bottom() {
    let mut model = loaded(2);
    let (before, none) = totals(&model);
    assert_eq!(none, 0);
    model.delete_range(1, 1, "", "~");
    model.flush().unwrap();
    model.check("flushed");
    assert_eq!(totals(&model), (before, 1));
    model.settle();
    model.compact_everything();
    model.check("compacted");
    assert_eq!(totals(&model), (before / 2, 0));
    let version = model.set.current();
    assert!(version.tables().all(|(_, table)| !table.contains(TenantId(1))));
}

#[test]
fn background_work_alone_brings_a_range_delete_to_the_bottom() {
    let mut model = loaded(1);
    model.delete_range(1, 1, "010", "300");
    model.write(1, 1, "020", Some(Bytes::from_static(b"again")));
    for round in 0..2 {
        model.write(1, 2, "other", Some(Bytes::from(vec![round; 30])));
        model.flush().unwrap();
    }
    model.settle();
    model.check("settled");
    let (entries, range_deletes) = totals(&model);
    // 010 .. 300 has 290 keys of 320.
    assert_eq!((entries, range_deletes), (32, 0));
}

#[test]
fn what_a_snapshot_sees_stays_with_the_range_delete_until_the_snapshot_goes() {
    let mut model = loaded(1);
    model.snapshots.insert(model.seqno);
    let (before, _) = totals(&model);
    model.delete_range(1, 1, "", "~");
    model.flush().unwrap();
    model.settle();
    model.compact_everything();
    model.check("kept");
    let (entries, range_deletes) = totals(&model);
    assert_eq!(entries, before);
    let tables = model.set.current().tables().count() as u64;
    assert!(
        tables > 2 && (2..=tables).contains(&range_deletes),
        "{range_deletes} in {tables}"
    );
    model.reopen();
    model.check("reopened");
    model.snapshots.clear();
    model.settle();
    model.compact_everything();
    model.check("gone");
    assert_eq!(totals(&model), (0, 0));
    assert_eq!(model.set.current().tables().count(), 0);
}

#[test]
fn a_table_of_range_deletes_alone_hides_what_is_below_it() {
    let mut model = loaded(3);
    // Of the first tenant and the last: the table's bounds come from nothing else.
    model.delete_range(1, 1, "000", "100");
    model.delete_range(3, 1, "200", "~");
    model.flush().unwrap();
    let version = model.set.current();
    let meta = version.levels[0][0].meta().clone();
    assert_eq!(
        (meta.entries, meta.tenant_min, meta.tenant_max),
        (0, TenantId(1), TenantId(3))
    );
    drop(version);
    model.reopen();
    model.check("in level 0");
    while model.step().unwrap() {
        model.check("on its way");
    }
    model.compact_everything();
    model.check("at the bottom");
    assert_eq!(totals(&model).1, 0);
}

#[test]
fn a_wide_range_delete_is_cut_with_the_tables_and_levels_stay_disjoint() {
    let mut model = loaded(1);
    let deleted_at = model.seqno;
    model.snapshots.insert(deleted_at);
    model.delete_range(1, 1, "", "~");
    for key in 0..320 {
        model.write(1, 1, &format!("{key:03}x"), Some(Bytes::from(vec![9; 120])));
    }
    model.flush().unwrap();
    while model.step().unwrap() {
        check_levels(&model.set.current(), &model.destroyed);
        model.check("on its way");
    }
    model.compact_everything();
    model.check("all in one level");
}

#[test]
fn what_a_range_delete_hides_is_dropped_unread() {
    let mut model = loaded(1);
    model.compact_everything();
    let size = bytes(&model.set.current());
    model.delete_range(1, 1, "", "~");
    model.flush().unwrap();
    model.set = model.machine.open().unwrap();
    let before = model.machine.fs.reads();
    model.compact_everything();
    let reads = model.machine.fs.reads() - before;
    let tables = size / model.options.table_bytes;
    // Heads of tables and no blocks: of 256 bytes each, some fifteen a table.
    assert!(
        tables >= 5 && reads < 10 * tables,
        "{reads} reads of {tables} tables"
    );
    assert_eq!(totals(&model), (0, 0));
}

#[test]
fn many_range_deletes_are_spread_over_tables() {
    let mut model = Model::new();
    model.options.compression = Compression::None;
    for key in 0..200 {
        model.write(1, 1, &format!("{key:04}b"), Some(Bytes::from(vec![7; 100])));
    }
    model.flush().unwrap();
    model.compact_everything();
    model.snapshots.insert(model.seqno);
    for key in 0..400 {
        model.delete_range(1, 1, &format!("{key:04}a"), &format!("{key:04}c"));
    }
    model.flush().unwrap();
    model.check("flushed");
    model.settle();
    model.compact_everything();
    model.check("compacted");
    let version = model.set.current();
    let most = version.tables().flat_map(|(_, table)| table.tenants());
    let most = most.map(|run| run.range_deletes).max().unwrap_or(0);
    // Each takes 38 bytes of an index, and a table has 4 KiB.
    assert!((1..=200).contains(&most), "{most} in one table");
}

#[test]
fn range_deletes_of_destroyed_tenants_and_dropped_keyspaces_vanish() {
    let mut model = loaded(2);
    model.snapshots.insert(model.seqno);
    model.delete_range(1, 1, "", "~");
    model.delete_range(2, 1, "", "~");
    model.flush().unwrap();
    model.settle();
    model.drop_keyspace(1, 1);
    model.destroy(2);
    model.check("dropped and destroyed");
    model.snapshots.clear();
    model.settle();
    model.compact_everything();
    assert_eq!(totals(&model), (0, 0));
    assert!(visible(&model.set.current(), 2, u64::MAX).unwrap().is_empty());
    let mut model = Model::new();
    model.delete_range(2, 1, "", "~");
    model.flush().unwrap();
    model.destroy(2);
    assert_eq!(model.plan(None).unwrap().action, Action::Erase);
    model.settle();
    assert!(model.machine.table_files().is_empty());
}
