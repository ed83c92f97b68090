//! Flushes and compactions against a map in memory: tenants, keyspaces, snapshots, destruction, drops,
//! failures.

mod model;
mod parts;
mod range_deletes;
mod values;
mod warm;
mod zeroed;
mod zeroed_in_use;

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;

use self::model::{History, Model, tree_key};
use super::picker::Action;
use super::survey::holds;
use super::*;
use crate::error::ErrorKind;
use crate::flush::flush;
use crate::io::sim::{Fault, Times};
use crate::memtable::Memtable;
use crate::options::Background;
use crate::types::Lsn;
use crate::version::testing::{Dice, bytes, layout, visible};
use crate::version::{Edit, LEVELS};

#[test]
fn compactions_keep_what_any_reader_sees() {
    let mut deepest = 0;
    for seed in 0..24 {
        let dice = Dice::new(seed);
        let mut model = Model::new();
        // Of values of up to 200 bytes.
        model.options.separate_bytes = [0, 20, 0, 150][seed as usize % 4];
        model.options.compaction_threads = 1 + seed as usize % 5;
        if dice.one_in(2) {
            model.options.background = Background::Thread;
        }
        // Some runs have one large tenant, some many small ones.
        let (tenants, keys) = if dice.one_in(3) {
            (1, 300)
        } else {
            (5, 1 + dice.below(80))
        };
        for round in 0..40 {
            let context = format!("seed {seed} round {round}");
            for _ in 0..dice.below(60) {
                let tenant = 1 + dice.below(tenants);
                if model.destroyed.contains(&tenant) {
                    continue;
                }
                let keyspace = 1 + dice.below(3) as u32;
                let key = tree_key(keyspace, "");
                if model.is_dropped(tenant, &key) {
                    continue;
                }
                let value = vec![dice.below(256) as u8; dice.below(200) as usize];
                let key = format!("{:04}", dice.below(keys));
                if dice.one_in(20) {
                    let to = format!("{:04}", dice.below(keys + 1) + 1);
                    if key < to {
                        model.delete_range(tenant, keyspace, &key, &to);
                    }
                    continue;
                }
                if dice.one_in(4) {
                    let at = model.now + dice.below(40_000);
                    model.write_until(tenant, keyspace, &key, Bytes::from(value), at);
                    continue;
                }
                let value = (!dice.one_in(4)).then(|| Bytes::from(value));
                model.write(tenant, keyspace, &key, value);
            }
            if dice.one_in(4) && model.seqno > 0 {
                model.snapshots.insert(model.seqno);
            }
            model.now += dice.below(3000);
            model.flush().unwrap();
            match dice.below(10) {
                0 => model.reopen(),
                1..=3 => {
                    model.settle();
                }
                4..=6 => {
                    model.step().unwrap();
                }
                7 => {
                    let oldest = model.snapshots.first().copied();
                    oldest.map(|seqno| model.snapshots.remove(&seqno));
                }
                8 if dice.one_in(4) && tenants > 1 => model.destroy(1 + dice.below(tenants)),
                8 if dice.one_in(2) => {
                    let (tenant, keyspace) = (1 + dice.below(tenants), 1 + dice.below(3) as u32);
                    if !model.destroyed.contains(&tenant)
                        && !model.is_dropped(tenant, &tree_key(keyspace, ""))
                    {
                        model.drop_keyspace(tenant, keyspace);
                    }
                }
                9 if dice.one_in(4) => model.compact_everything(),
                _ => {}
            }
            model.check(&context);
            let levels = model.set.current();
            deepest = deepest.max(
                (0..LEVELS)
                    .filter(|level| !levels.levels[*level].is_empty())
                    .max()
                    .unwrap_or(0),
            );
        }
        model.snapshots.clear();
        model.settle();
        model.compact_everything();
        model.check(&format!("seed {seed} at the end"));
        let version = model.set.current();
        let filled: Vec<usize> = (0..LEVELS)
            .filter(|level| !version.levels[*level].is_empty())
            .collect();
        assert!(filled.len() <= 1, "seed {seed}: {filled:?}");
        assert!(
            model.garbage().iter().all(|(_, garbage)| *garbage == 0),
            "seed {seed}: garbage is left"
        );
        let mut entries = 0;
        for (_, table) in version.tables() {
            for run in table.tenants() {
                assert!(
                    !model.destroyed.contains(&run.tenant.0),
                    "seed {seed}: destroyed tenant's data is left"
                );
                let deletes = (run.deletes, run.range_deletes);
                assert_eq!(deletes, (0, 0), "seed {seed}: deletes are left");
                let expired = run.expires.is_some_and(|at| at <= model.now);
                assert!(!expired, "seed {seed}: expired values are left");
                entries += run.entries;
            }
            for drop in &model.drops {
                assert!(
                    !holds(table, drop).unwrap(),
                    "seed {seed}: dropped keyspace is left"
                );
            }
        }
        let left = |((tenant, key), history): &(&(u64, Bytes), &History)| {
            let live = !model.destroyed.contains(tenant) && !model.is_dropped(*tenant, key);
            live && history.last().is_some_and(|newest| model.reads(newest).is_some())
        };
        assert_eq!(
            entries,
            model.oracle.iter().filter(left).count() as u64,
            "seed {seed}: one version a key"
        );
    }
    assert!(deepest >= 3, "levels reached: {deepest}");
}

/// Fills level 1 and below with several tenants.
fn loaded(tenants: u64) -> Model {
    let mut model = Model::new();
    for round in 0..8 {
        for tenant in 1..=tenants {
            for key in 0..40 {
                model.write(
                    tenant,
                    1,
                    &format!("{:03}", key * 8 + round),
                    Some(Bytes::from(vec![7; 100])),
                );
            }
        }
        model.flush().unwrap();
        model.settle();
    }
    model
}

#[test]
fn expired_values_leave_the_tables_when_the_grace_is_over_and_what_they_hid_stays_hidden() {
    let mut model = Model::new();
    for round in 0..3 {
        for key in 0..60 {
            let key = format!("{key:03}");
            match round {
                1 => model.write_until(1, 1, &key, Bytes::from(vec![8; 200]), 2000),
                _ if round == 2 && key.as_str() > "030" => {}
                _ => model.write(1, 1, &key, Some(Bytes::from(vec![7; 100]))),
            }
        }
        if round == 0 {
            // Below all that follows.
            model.flush().unwrap();
            model.settle();
            model.compact_everything();
        }
        model.snapshots.insert(model.seqno);
    }
    model.flush().unwrap();
    model.settle();
    let moments = |model: &Model| -> Vec<u64> {
        let version = model.set.current();
        let runs = version
            .tables()
            .flat_map(|(_, table)| table.tenants().collect::<Vec<_>>());
        runs.filter_map(|run| run.expires).collect()
    };
    assert!(moments(&model).iter().all(|at| *at == 2000) && !moments(&model).is_empty());
    for (now, left) in [(1999, true), (2000, true), (6999, true), (7000, false)] {
        model.now = now;
        model.settle();
        model.check(&format!("at {now}"));
        assert_eq!(!moments(&model).is_empty(), left, "at {now}");
    }
}

#[test]
fn destroyed_tenant_is_dropped_without_a_key_and_its_space_comes_back() {
    let mut model = loaded(4);
    let before = bytes(&model.set.current());
    model.destroy(2);
    model.destroy(3);
    // The keys are gone, so nothing can be decrypted; reading them is empty, not an error.
    assert!(visible(&model.set.current(), 2, u64::MAX).unwrap().is_empty());
    assert!(model.settle() > 0);
    model.check("destroyed");
    let version = model.set.current();
    let dead: u64 = version
        .tables()
        .flat_map(|(_, table)| [2, 3].map(|t| table.run(TenantId(t))))
        .flatten()
        .map(|run| run.bytes)
        .sum();
    assert!(dead * 16 < bytes(&version), "{dead} of {}", bytes(&version));
    assert!(
        bytes(&version) * 10 < before * 6,
        "{} of {before}",
        bytes(&version)
    );
    drop(version);
    model.compact_everything();
    let version = model.set.current();
    assert!(
        version
            .tables()
            .all(|(_, table)| !table.contains(TenantId(2)) && !table.contains(TenantId(3)))
    );
    let used: u64 = model
        .machine
        .fs
        .files()
        .iter()
        .filter(|(path, _)| path.starts_with("/db/tables"))
        .map(|(_, bytes)| bytes.len() as u64)
        .sum();
    assert_eq!(used, bytes(&version));
}

#[test]
fn tables_of_destroyed_tenants_only_are_erased_unread() {
    let mut model = Model::new();
    model.write(2, 1, "a", Some(Bytes::from_static(b"secret")));
    model.flush().unwrap();
    model.destroy(2);
    let plan = model.plan(None).unwrap();
    assert_eq!(plan.action, Action::Erase);
    let (reads, ops) = (model.machine.fs.reads(), model.machine.fs.ops());
    let version = model.set.current();
    let edit = model
        .working(&|| false, |work| compact(work, &version, &plan))
        .unwrap();
    assert_eq!((model.machine.fs.reads(), model.machine.fs.ops()), (reads, ops));
    assert!(edit.added.is_empty());
    drop(version);
    model.set.log_and_apply(edit).unwrap();
    assert!(model.machine.table_files().is_empty());
}

#[test]
fn tenant_whose_key_is_missing_but_not_destroyed_is_never_dropped() {
    let mut model = Model::new();
    model.write(2, 1, "a", Some(Bytes::from_static(b"precious")));
    model.flush().unwrap();
    model.machine.source.forget(2);
    model.machine.keys.purge_if(|other| other == TenantId(2));
    model.machine.cache.purge_if(|other| other == TenantId(2));
    let plan = model.plan(None).unwrap();
    assert_eq!(model.carry_out(&plan).unwrap_err().kind(), ErrorKind::Corruption);
    assert_eq!(model.set.current().tables().count(), 1);
}

#[test]
fn tenant_destroyed_while_a_job_runs_is_left_out_of_the_rest() {
    let mut model = loaded(3);
    for key in 0..3 {
        model.write(1, 1, &format!("x{key}"), Some(Bytes::from_static(b"y")));
        model.write(3, 1, &format!("x{key}"), Some(Bytes::from_static(b"y")));
        model.flush().unwrap();
    }
    let plan = model.plan(Some(u64::MAX)).unwrap();
    let version = model.set.current();
    let source = Arc::clone(&model.machine.source);
    let looks = RefCell::new(0);
    let destroy = || {
        *looks.borrow_mut() += 1;
        source.destroy(2);
        false
    };
    let edit = model
        .working(&destroy, |work| compact(work, &version, &plan))
        .unwrap();
    drop(version);
    assert!(*looks.borrow() > 0);
    model.destroyed.insert(2);
    model.set.log_and_apply(edit).unwrap();
    model.settle();
    model.compact_everything();
    model.check("destroyed meanwhile");
    assert!(
        model
            .set
            .current()
            .tables()
            .all(|(_, table)| !table.contains(TenantId(2)))
    );
}

#[test]
fn all_versions_of_a_key_stay_in_one_table() {
    let mut model = Model::new();
    for round in 0..6 {
        for key in 0..4 {
            for _ in 0..10 {
                model.write(1, 1, &format!("{key}"), Some(Bytes::from(vec![round; 150])));
                model.snapshots.insert(model.seqno);
            }
        }
        model.flush().unwrap();
    }
    model.settle();
    model.compact_everything();
    model.check("many versions");
    let version = model.set.current();
    assert_eq!(
        version
            .tables()
            .map(|(_, table)| table.meta().entries)
            .sum::<u64>(),
        240
    );
    assert!(version.tables().count() > 1);
}

#[test]
fn flush_keeps_one_version_where_nobody_needs_more_and_all_deletes() {
    let mut model = Model::new();
    for value in 0..5 {
        model.write(1, 1, "a", Some(Bytes::from(vec![value])));
    }
    model.write(1, 1, "b", None);
    model.write(2, 1, "c", Some(Bytes::new()));
    model.destroy(2);
    model.flush().unwrap();
    let version = model.set.current();
    let meta = version.levels[0][0].meta();
    assert_eq!(
        (meta.entries, meta.seqno_max, meta.tenant_max),
        (2, SeqNo(6), TenantId(1))
    );
    assert_eq!(model.set.state().flushed, Lsn(7));
    model.write(2, 1, "c", Some(Bytes::new()));
    model.flush().unwrap();
    assert_eq!(model.set.current().levels[0].len(), 1, "nothing left: no table");
    assert_eq!(model.set.state().flushed, Lsn(8));
}

#[test]
fn cancelled_or_failed_job_leaves_no_files_and_can_be_done_again() {
    let mut model = loaded(3);
    model.write(1, 1, "x", None);
    model.flush().unwrap();
    let plan = model.plan(Some(u64::MAX)).unwrap();
    let version = model.set.current();
    let files = model.machine.table_files();
    for after in 0..3 {
        let left = RefCell::new(after);
        let cancel = || {
            let done = *left.borrow() == 0;
            *left.borrow_mut() -= 1;
            done
        };
        let result = model.working(&cancel, |work| compact(work, &version, &plan));
        if let Err(e) = result {
            assert_eq!(e.kind(), ErrorKind::Closed);
        }
    }
    for at in 1.. {
        let fs = &model.machine.fs;
        fs.fail(Fault::disk_full(fs.ops() + at, Times::Forever));
        let result = model.working(&|| false, |work| compact(work, &version, &plan));
        model.machine.fs.clear_faults();
        match result {
            Ok(edit) => {
                drop(version);
                model.set.log_and_apply(edit).unwrap();
                break;
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::NoSpace, "at {at}");
                assert_eq!(model.machine.table_files(), files, "at {at}");
            }
        }
    }
    model.check("after failures");
}

#[test]
fn damaged_input_fails_the_job_and_changes_nothing() {
    let mut model = loaded(2);
    let version = model.set.current();
    let (_, table) = version.tables().last().unwrap();
    let path = table.path().to_path_buf();
    drop(version);
    model.machine.fs.corrupt(&path, |bytes| bytes[140] ^= 1);
    model.set = model.machine.open().unwrap();
    let before = layout(&model.set.current());
    let mut failed = None;
    let number = model.set.next_number();
    while let Some(plan) = model.plan(Some(number)) {
        if let Err(e) = model.carry_out(&plan) {
            failed = Some(e);
            break;
        }
    }
    let error = failed.unwrap();
    assert_eq!(
        (error.kind(), error.path()),
        (ErrorKind::Corruption, Some(path.as_path()))
    );
    assert!(!before.is_empty());
    assert!(model.machine.fs.content(&path).is_some());
}

#[test]
fn stale_plan_is_refused() {
    let mut model = loaded(2);
    let plan = model.plan(Some(u64::MAX)).unwrap();
    model.carry_out(&plan).unwrap();
    assert_eq!(model.carry_out(&plan).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(
        model
            .set
            .log_and_apply(Edit {
                removed: vec![(1, 1)],
                ..Edit::default()
            })
            .unwrap_err()
            .kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn flush_in_the_middle_of_a_compaction_counts_beside_it() {
    let mut model = Model::new();
    for tenant in 1..=4 {
        for key in 0..200 {
            model.write(tenant, 1, &format!("{key:03}"), Some(Bytes::from(vec![7; 200])));
        }
    }
    model.flush().unwrap();
    let plan = model.plan(Some(u64::MAX)).unwrap();
    for tenant in 1..=4 {
        model.write(tenant, 1, "000", Some(Bytes::from_static(b"newer")));
        model.write(tenant, 1, "001", None);
    }
    let version = model.set.current();
    let looks = RefCell::new(0);
    let between = || {
        *looks.borrow_mut() += 1;
        // The compaction has a table half written now.
        if *looks.borrow() == 2 {
            let (lsn, seqno) = (Lsn(model.seqno), SeqNo(model.seqno));
            let edit = model
                .working(&|| false, |work| flush(work, &model.memtable, lsn, seqno))
                .unwrap();
            model.set.log_and_apply(edit).unwrap();
        }
        false
    };
    let edit = model
        .working(&between, |work| compact(work, &version, &plan))
        .unwrap();
    assert!(*looks.borrow() >= 2, "too little work to look twice");
    drop(version);
    model.set.log_and_apply(edit).unwrap();
    model.memtable = Arc::new(Memtable::new(64 << 10));
    assert_eq!(model.set.current().levels[0].len(), 1);
    model.check("beside each other");
    model.reopen();
    model.settle();
    model.compact_everything();
    model.check("afterwards");
}
