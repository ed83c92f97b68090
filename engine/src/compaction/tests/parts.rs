//! Compactions in parts: the same content as in one, by as many threads, and nothing left of those that fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::compaction::output::{Complete, cancelled};
use crate::compaction::parts::{Part, carry_out};
use crate::error::{Error, ErrorKind};
use crate::hooks::Bug;
use crate::options::Background;
use crate::range_delete::Fragments;
use crate::read::cursor::{Cursor, EntryKind};
use crate::table::Owner;
use crate::version::Version;

/// All entries, with values that stand apart in their place, and all range deletes.
type Content = (
    BTreeMap<(u64, Bytes, u64), (EntryKind, Option<Bytes>)>,
    BTreeMap<u64, Fragments>,
);

fn content(version: &Version) -> Content {
    let (mut entries, mut deletes) = (BTreeMap::new(), BTreeMap::<u64, Vec<_>>::new());
    for (_, table) in version.tables() {
        for run in table.tenants() {
            let tenant = run.tenant;
            let fragments = table.range_deletes(tenant).unwrap();
            deletes.entry(tenant.0).or_default().extend(fragments);
            let mut cursor = table.sweep(tenant).unwrap();
            cursor.seek_first().unwrap();
            while let Some(entry) = cursor.owned() {
                let owner = Owner {
                    tenant,
                    key: &entry.key,
                    seqno: entry.seqno,
                };
                let value = version.value(owner, entry.kind, entry.value.clone()).unwrap();
                let kind = match entry.kind {
                    EntryKind::Separated => EntryKind::Put,
                    kind => kind,
                };
                let there = entries.insert((tenant.0, entry.key, entry.seqno.0), (kind, value));
                assert!(there.is_none(), "an entry stands in two tables");
                cursor.next().unwrap();
            }
        }
    }
    let merged = |(tenant, lists): (u64, Vec<Arc<Fragments>>)| {
        (tenant, Fragments::merged(lists.iter().map(Arc::as_ref)))
    };
    (entries, deletes.into_iter().map(merged).collect())
}

/// Some writes of all kinds.
fn write_some(model: &mut Model, dice: &Dice, tenants: u64, keys: u64) {
    for _ in 0..dice.below(150) {
        // Mostly of one tenant.
        let tenant = 1 + if dice.one_in(2) { 0 } else { dice.below(tenants) };
        let keyspace = 1 + dice.below(3) as u32;
        if model.destroyed.contains(&tenant) || model.is_dropped(tenant, &tree_key(keyspace, "")) {
            continue;
        }
        let key = format!("{:04}", dice.below(keys));
        let value = Bytes::from(vec![dice.below(256) as u8; dice.below(200) as usize]);
        match dice.below(16) {
            0 => {
                let to = format!("{:04}", dice.below(keys) + 1);
                if key < to {
                    model.delete_range(tenant, keyspace, &key, &to);
                }
            }
            1..=3 => {
                let at = model.now + dice.below(20_000);
                model.write_until(tenant, keyspace, &key, value, at);
            }
            4..=5 => model.write(tenant, keyspace, &key, None),
            _ => model.write(tenant, keyspace, &key, Some(value)),
        }
    }
}

/// Carries out the plan in one part on a copy of the machine and in several here, and compares. How many threads there were.
fn compare(model: &mut Model, plan: &Plan, threads: usize, context: &str) -> usize {
    let other = model.machine.over(model.machine.fs.fork());
    let whole = other.open().unwrap();
    model.options.compaction_threads = 1;
    let version = whole.current();
    let edit = model.working_on(&other, &whole, &|| false, |work| compact(work, &version, plan));
    drop(version);
    whole.log_and_apply(edit.unwrap()).unwrap();
    model.options.compaction_threads = threads;
    model.threads.lock().clear();
    model.carry_out(plan).unwrap();
    let threads = model.threads.lock().len();
    let (one, several) = (content(&whole.current()), content(&model.set.current()));
    assert_eq!(one.0.len(), several.0.len(), "{context}");
    for (((tenant, key, seqno), entry), other) in several.0.iter().zip(&one.0) {
        // What a smaller piece of a range delete lay over has lost its version, if the piece went.
        let version = *seqno == 0 || *seqno == other.0.2;
        let same = (tenant, key, entry) == (&other.0.0, &other.0.1, other.1) && version;
        assert!(same, "entries differ, {context}");
    }
    for (tenant, fragments) in &several.1 {
        // Smaller pieces may go earlier: of each it is asked by itself whether it hides anything.
        for fragment in fragments.iter() {
            for seqno in &fragment.seqnos {
                let known = one.1[tenant].newest(&fragment.start, *seqno);
                assert_eq!(known, Some(*seqno), "a range delete from nowhere, {context}");
            }
        }
    }
    model.check(context);
    threads
}

#[test]
fn in_several_parts_then_the_same_content_as_in_one() {
    let mut in_threads = 0;
    for seed in 0..12 {
        let dice = Dice::new(seed);
        let mut model = Model::new();
        model.options.separate_bytes = [0, 100][seed as usize % 2];
        model.options.background = [Background::Manual, Background::Thread][seed as usize / 2 % 2];
        let (tenants, keys) = (1 + dice.below(5), 20 + dice.below(200));
        for round in 0..30 {
            let context = format!("seed {seed} round {round}");
            write_some(&mut model, &dice, tenants, keys);
            model.now += dice.below(3000);
            match dice.below(12) {
                0..=2 if model.seqno > 0 => {
                    model.snapshots.insert(model.seqno);
                }
                3 => model.snapshots.clear(),
                4 if tenants > 2 && model.destroyed.is_empty() => model.destroy(2),
                5 if model.drops.is_empty() => model.drop_keyspace(1, 3),
                _ => {}
            }
            model.flush().unwrap();
            let everything = dice.one_in(6).then(|| model.set.next_number());
            if let Some(plan) = model.plan(everything) {
                let threads = 2 + dice.below(6) as usize;
                let threads = compare(&mut model, &plan, threads, &context);
                in_threads += usize::from(threads > 1);
                assert!(threads <= 1 || model.options.background == Background::Thread);
            }
        }
    }
    assert!(in_threads > 20, "{in_threads}");
}

#[test]
fn one_large_tenant_then_its_parts_are_about_equal() {
    let mut model = Model::new();
    for key in 0..1000 {
        model.write(1, 1, &format!("{key:04}"), Some(Bytes::from(vec![7; 100])));
    }
    model.flush().unwrap();
    model.options.table_bytes = 25 << 10;
    model.options.compaction_threads = 4;
    let plan = model.plan(Some(u64::MAX)).unwrap();
    model.carry_out(&plan).unwrap();
    model.check("compacted");
    let version = model.set.current();
    let sizes: Vec<u64> = version.tables().map(|(_, table)| table.meta().entries).collect();
    // A full table and the rest, in each part.
    let parts: Vec<u64> = sizes.chunks(2).map(|sizes| sizes.iter().sum()).collect();
    assert!(
        parts.len() == 4 && parts.iter().all(|size| (235..=265).contains(size)),
        "{sizes:?}"
    );
}

#[test]
fn plan_smaller_than_two_tables_or_one_thread_then_it_is_not_cut() {
    for (table_bytes, threads, tables) in [(80 << 10, 4, 2), (200 << 10, 4, 1), (60 << 10, 1, 3)] {
        let mut model = Model::new();
        for key in 0..1000 {
            model.write(1, 1, &format!("{key:04}"), Some(Bytes::from(vec![7; 100])));
        }
        model.flush().unwrap();
        model.options.table_bytes = table_bytes;
        model.options.compaction_threads = threads;
        model.options.background = Background::Thread;
        let plan = model.plan(Some(u64::MAX)).unwrap();
        model.threads.lock().clear();
        model.carry_out(&plan).unwrap();
        assert_eq!(model.threads.lock().len(), 1);
        assert_eq!(model.set.current().tables().count(), tables);
    }
}

/// Much in level 0 of three tenants, and a plan for all of it.
fn four_parts(background: Background) -> (Model, Plan) {
    let mut model = loaded(3);
    model.options.background = background;
    model.options.compaction_threads = 4;
    model.delete_range(2, 1, "010", "~");
    model.snapshots.insert(model.seqno);
    for key in 0..200 {
        for tenant in 1..=3 {
            model.write(tenant, 1, &format!("{key:03}x"), Some(Bytes::from(vec![7; 100])));
        }
    }
    model.flush().unwrap();
    let plan = model.plan(Some(u64::MAX)).unwrap();
    (model, plan)
}

#[test]
fn a_part_fails_or_the_job_is_cancelled_then_no_file_is_left() {
    for background in [Background::Manual, Background::Thread] {
        let (mut model, plan) = four_parts(background);
        let version = model.set.current();
        let files = model.machine.table_files();
        // A full disk, at every operation.
        let (mut failed, mut at) = (0, 1);
        let edit = loop {
            let fs = &model.machine.fs;
            fs.fail(Fault::disk_full(fs.ops() + at, Times::Forever));
            let result = model.working(&|| false, |work| compact(work, &version, &plan));
            model.machine.fs.clear_faults();
            match result {
                Ok(edit) => break edit,
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::NoSpace, "at {at}");
                    assert_eq!(model.machine.table_files(), files, "at {at}");
                    failed += 1;
                }
            }
            at += 3;
        };
        assert!(failed > 10, "{failed}");
        for table in &edit.added {
            let path = crate::version::table_path(&model.machine.db, table.1.number);
            model.machine.io.vfs.remove_file(&path).unwrap();
        }
        // Cancelled sooner or later.
        let mut cancellations = 0;
        for after in [0, 1, 2, 4] {
            let looks = RefCell::new(0);
            let cancel = || {
                *looks.borrow_mut() += 1;
                *looks.borrow() > after
            };
            if let Err(e) = model.working(&cancel, |work| compact(work, &version, &plan)) {
                assert_eq!(e.kind(), ErrorKind::Closed);
                assert_eq!(model.machine.table_files(), files, "after {after}");
                cancellations += 1;
            } else {
                break;
            }
        }
        assert!(cancellations > 0);
        drop(version);
        model.reopen();
        model.settle();
        model.check("afterwards");
    }
}

#[test]
fn damage_in_the_last_part_then_it_is_named_and_changes_nothing() {
    for background in [Background::Manual, Background::Thread] {
        let (mut model, plan) = four_parts(background);
        let version = model.set.current();
        let last = plan.inputs.iter().max_by_key(|(level, _)| *level).unwrap().0;
        let path = version.levels[last].last().unwrap().path().to_path_buf();
        drop(version);
        model.machine.fs.corrupt(&path, |bytes| bytes[140] ^= 1);
        model.set = model.machine.open().unwrap();
        let files = model.machine.table_files();
        let error = model.carry_out(&plan).unwrap_err();
        assert_eq!(
            (error.kind(), error.path()),
            (ErrorKind::Corruption, Some(path.as_path()))
        );
        assert_eq!(model.machine.table_files(), files);
    }
}

/// Of a job in four parts: what each does, by what it is given.
fn four(
    model: &Model,
    cancelled: &dyn Fn() -> bool,
    part: &(dyn Fn(&Work<'_>, usize) -> Result<()> + Sync),
) -> Result<usize> {
    let parts = vec![Part::default(); 4];
    let begun = AtomicUsize::new(0);
    let first = parts.as_ptr() as usize;
    model.working(cancelled, |work| {
        carry_out(work, &parts, &|work, this| {
            begun.fetch_add(1, Ordering::Relaxed);
            let at = (std::ptr::from_ref(this) as usize - first) / size_of::<Part>();
            part(work, at).map(|()| Complete::new(work.io))
        })
        .map(|_| begun.load(Ordering::Relaxed))
    })
}

fn in_threads() -> Model {
    let mut model = Model::new();
    model.options.background = Background::Thread;
    model
}

/// Until somebody tells this part to stop.
fn until_stopped(work: &Work<'_>) -> Error {
    while !(work.cancelled)() {
        thread::yield_now();
    }
    cancelled()
}

#[test]
fn a_part_fails_then_the_others_stop_and_its_error_is_returned() {
    let model = in_threads();
    for failing in 0..4 {
        let outcome = four(&model, &|| false, &|work, at| match at == failing {
            true => Err(Error::new(ErrorKind::NoSpace, "full")),
            false => Err(until_stopped(work)),
        });
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::NoSpace, "{failing}");
    }
}

#[test]
fn parts_are_long_then_the_calling_thread_alone_goes_on_asking_until_they_end() {
    let model = in_threads();
    let asked = AtomicUsize::new(0);
    let caller = thread::current().id();
    let ask = || {
        assert_eq!(thread::current().id(), caller);
        asked.fetch_add(1, Ordering::Relaxed);
        false
    };
    let done = four(&model, &ask, &|work, at| {
        // The calling thread's is over at once; the others wait for its questions.
        while at > 0 && asked.load(Ordering::Relaxed) < 5 {
            assert!(!(work.cancelled)());
            thread::yield_now();
        }
        Ok(())
    });
    assert_eq!(done.unwrap(), 4);
    // And what it hears counts.
    let cancel = || asked.fetch_sub(1, Ordering::Relaxed) == 1;
    let outcome = four(&model, &cancel, &|work, at| match at {
        0 => Ok(()),
        _ => Err(until_stopped(work)),
    });
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_thread_of_its_own_for_each_part_unless_the_caller_steps_jobs() {
    let mut model = in_threads();
    let together = AtomicUsize::new(0);
    let wait_for_all = |_: &Work<'_>, _| {
        together.fetch_add(1, Ordering::Relaxed);
        while together.load(Ordering::Relaxed) < 4 {
            thread::yield_now();
        }
        Ok(())
    };
    assert_eq!(four(&model, &|| false, &wait_for_all).unwrap(), 4);
    // A planted bug is planted in all of them.
    let planted = Bug::NonceRepeats.planted_in(|| {
        four(&model, &|| false, &|_, at| match Bug::NonceRepeats.is_planted() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Invalid, format!("not in part {at}"))),
        })
    });
    assert_eq!(planted.unwrap(), 4);
    model.options.background = Background::Manual;
    let caller = thread::current().id();
    let order = AtomicUsize::new(0);
    let here = four(&model, &|| false, &|_, at| {
        assert_eq!(
            (thread::current().id(), order.fetch_add(1, Ordering::Relaxed)),
            (caller, at)
        );
        Ok(())
    });
    assert_eq!(here.unwrap(), 4);
}
