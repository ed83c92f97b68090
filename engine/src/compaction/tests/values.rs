//! Values that stand apart: moved by reference, collected, and gone when they should be.

use super::*;

/// Keys of tenant 1 with values of 150 bytes apart, in one level.
fn apart(keys: u64) -> Model {
    let mut model = Model::new();
    model.options.separate_bytes = 100;
    for key in 0..keys {
        write(&mut model, key);
    }
    model.flush().unwrap();
    model.compact_everything();
    model
}

fn write(model: &mut Model, key: u64) {
    let value = Bytes::from(vec![key as u8; 150]);
    model.write(1, 1, &format!("{key:04}"), Some(value));
}

fn totals(model: &Model) -> (u64, u64) {
    let version = model.set.current();
    let values = version.values.values().map(|file| file.meta().values).sum();
    let entries = version.tables().map(|(_, table)| table.meta().entries).sum();
    (values, entries)
}

#[test]
fn values_are_not_written_anew_while_most_of_their_file_is_needed() {
    // More than a quarter of a table's size, so that no file is small.
    let mut model = apart(100);
    let first: Vec<u64> = model.set.current().values.keys().copied().collect();
    for key in 0..30 {
        write(&mut model, 3 * key);
    }
    model.flush().unwrap();
    model.settle();
    model.check("settled");
    let files = model.set.current();
    assert!(
        first.iter().all(|file| files.values.contains_key(file)),
        "{first:?}"
    );
    let (values, entries) = totals(&model);
    assert!(
        values >= 130 && entries <= 130,
        "{values} values, {entries} entries"
    );
}

#[test]
fn a_file_that_is_mostly_garbage_is_emptied_and_goes() {
    let mut model = apart(100);
    let first: Vec<u64> = model.set.current().values.keys().copied().collect();
    for key in 0..60 {
        write(&mut model, key);
    }
    model.flush().unwrap();
    // Only what compaction meets is known to be garbage.
    model.compact_everything();
    model.check("compacted");
    let files = model.set.current();
    assert!(first.iter().all(|file| !files.values.contains_key(file)));
    drop(files);
    assert_eq!(totals(&model), (100, 100));
    // Deleted, by keys and by a range.
    model.delete_range(1, 1, "0000", "0070");
    model.flush().unwrap();
    model.settle();
    for (file, garbage) in model.garbage() {
        let has = model.set.current().values[&file].meta().bytes as i64;
        assert!(
            2 * garbage < has,
            "{garbage} of {has} are garbage, and nothing is done about it"
        );
    }
    model.compact_everything();
    model.check("deleted");
    assert_eq!(totals(&model), (30, 30));
}

#[test]
fn a_snapshot_keeps_its_values_through_every_move() {
    let mut model = apart(60);
    model.snapshots.insert(model.seqno);
    for round in 0..4 {
        for key in 0..60 {
            write(&mut model, key);
        }
        model.flush().unwrap();
        model.settle();
        model.compact_everything();
        model.check(&format!("round {round}"));
    }
    assert_eq!(totals(&model), (120, 120));
    model.snapshots.clear();
    model.compact_everything();
    model.check("let go");
    assert_eq!(totals(&model), (60, 60));
}

#[test]
fn a_destroyed_tenants_values_are_dropped_undecrypted_and_others_moved() {
    let mut model = Model::new();
    model.options.separate_bytes = 100;
    for tenant in 1..=3 {
        for key in 0..40 {
            let value = Bytes::from(vec![tenant as u8; 150]);
            model.write(tenant, 1, &format!("{key:03}"), Some(value));
        }
    }
    model.flush().unwrap();
    model.settle();
    model.destroy(1);
    model.destroy(3);
    model.settle();
    model.check("destroyed");
    let version = model.set.current();
    let runs = version.values.values().flat_map(|file| file.runs().iter());
    assert!(
        runs.clone().all(|run| run.tenant == TenantId(2)),
        "{:?}",
        runs.collect::<Vec<_>>()
    );
    assert_eq!(totals(&model), (40, 40));
    drop(version);
    model.destroy(2);
    model.settle();
    assert_eq!((totals(&model), model.machine.value_files().len()), ((0, 0), 0));
}

#[test]
fn values_go_back_into_tables_when_nothing_is_separated_any_more() {
    let mut model = apart(50);
    assert_eq!(totals(&model), (50, 50));
    model.options.separate_bytes = 0;
    model.compact_everything();
    model.check("taken back");
    assert_eq!(totals(&model), (0, 50));
    model.options.separate_bytes = 150;
    model.compact_everything();
    model.check("separated again");
    assert_eq!(totals(&model), (50, 50));
}

#[test]
fn a_failed_or_cancelled_job_leaves_no_value_file() {
    let mut model = apart(60);
    for key in 0..60 {
        write(&mut model, key);
    }
    let before = model.machine.value_files();
    for at in 1.. {
        let fs = &model.machine.fs;
        fs.fail(Fault::disk_full(fs.ops() + at, Times::Forever));
        let flushed = model.flush();
        model.machine.fs.clear_faults();
        match flushed {
            Ok(()) => break,
            Err(e) => assert_eq!(e.kind(), ErrorKind::NoSpace, "at {at}"),
        }
        assert_eq!(model.machine.value_files(), before, "at {at}");
    }
    model.settle();
    model.check("room again");
    let before = model.machine.value_files();
    let next = model.set.next_number();
    let plan = model.plan(Some(next)).unwrap();
    let version = model.set.current();
    let cancelled = model.working(&|| true, |work| compact(work, &version, &plan));
    assert_eq!(cancelled.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(model.machine.value_files(), before);
}
