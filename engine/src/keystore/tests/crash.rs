//! Crashes, failing calls and full disks, at every operation.

use super::*;
use crate::io::sim::{CrashMode, Fault, Times};

/// A script of changes, and what the keystore held after each.
fn run_script(keystore: &Keystore, done: &mut Vec<Vec<u8>>) -> Result<()> {
    let mut step = |result: Result<()>| {
        result?;
        done.push(content(keystore));
        Ok(())
    };
    step(keystore.create_tenants(&["a", "b"]).map(drop))?;
    step(keystore.create_tenants(&["c"]).map(drop))?;
    step(keystore.delete_tenants(&[TenantId(2)]).map(drop))?;
    step(keystore.create_tenants(&["b"]).map(drop))?;
    step(keystore.delete_tenants(&[TenantId(1), TenantId(3)]).map(drop))?;
    step(keystore.close())
}

#[test]
fn crash_at_any_operation_keeps_every_acknowledged_change_and_leaves_no_orphan_key() {
    let plain = World::new(20);
    let keystore = plain.create();
    let created = plain.fs.ops();
    let mut states = vec![content(&keystore)];
    run_script(&keystore, &mut states).unwrap();
    let total = plain.fs.ops();
    for op in created + 1..=total {
        for (half, mode, seed) in [
            (false, CrashMode::DropAll, 0),
            (true, CrashMode::KeepAll, 0),
            (false, CrashMode::KeepRandom, op),
            (true, CrashMode::KeepRandom, op + 1000),
            (true, CrashMode::KeepRandom, op + 2000),
        ] {
            let place = format!("operation {op}, {mode:?}, seed {seed}");
            let world = World::new(20);
            let keystore = world.create();
            let mut done = vec![content(&keystore)];
            world.fs.crash_at(op, half);
            let finished = run_script(&keystore, &mut done).is_ok();
            assert_eq!(done, states[..done.len()], "{place}");
            drop(keystore);
            // A version that guards nothing yet may be left over: nothing names it.
            let unused = !world
                .fs
                .files()
                .iter()
                .any(|(path, bytes)| path.extension().is_some_and(|e| e == "tmp") && bytes.len() > 400);

            let after = world.with_disk(world.fs.crashed_image(mode, seed));
            let keystore = after.try_open().unwrap_or_else(|e| panic!("{place}: {e:?}"));
            let found = content(&keystore);
            let next = states.get(done.len()).filter(|_| !finished);
            assert!(done.last() == Some(&found) || next == Some(&found), "{place}");
            // Every key version that ever guarded anything, but for the one in use, is destroyed.
            assert!(after.keys.versions().len() <= 1 + usize::from(unused), "{place}");
            keystore.create_tenants(&["z"]).unwrap();
            let before = content(&keystore);
            drop(keystore);
            let again = after.with_disk(after.fs.crashed_image(CrashMode::DropAll, 0));
            assert_eq!(content(&again.open()), before, "{place}");
        }
    }
}

#[test]
fn crash_while_creating_leaves_a_keystore_or_none() {
    let plain = World::new(21);
    drop(plain.create());
    for op in 1..=plain.fs.ops() {
        for seed in 0..4 {
            let world = World::new(21);
            world.fs.crash_at(op, seed % 2 == 0);
            let result = Keystore::create(Path::new(DIR), &world.io, world.provider(), None);
            let made = result.is_ok();
            let after = world.with_disk(world.fs.crashed_image(CrashMode::KeepRandom, seed));
            match after.try_open() {
                Ok(keystore) => assert_eq!(keystore.next_tenant(), 1),
                Err(error) => {
                    assert!(
                        !made && error.kind() == ErrorKind::NotFound,
                        "operation {op}, seed {seed}: {error}"
                    );
                    after.create();
                }
            }
            assert!(after.open().is_live(TenantId::SYSTEM));
        }
    }
}

#[test]
fn crash_while_folding_or_opening_loses_nothing() {
    let script = |world: &World| {
        let keystore = world.create();
        keystore.create_tenants(&["a", "b"]).unwrap();
        keystore.create_tenants(&["c"]).unwrap();
        world.keys.fail_after(Some(2));
        keystore.delete_tenants(&[TenantId(1)]).unwrap_err();
        world.keys.fail_after(None);
        keystore.create_tenants(&["d"]).unwrap();
        content(&keystore)
    };
    let plain = World::new(22);
    script(&plain);
    let from = plain.fs.ops();
    drop(plain.open());
    let total = plain.fs.ops();
    assert!(total > from + 5);
    for op in from + 1..=total {
        for seed in 0..6 {
            let world = World::new(22);
            let expected = script(&world);
            world.fs.crash_at(op, seed % 2 == 0);
            drop(world.try_open());
            let mode = [CrashMode::DropAll, CrashMode::KeepAll, CrashMode::KeepRandom][seed as usize % 3];
            let after = world.with_disk(world.fs.crashed_image(mode, seed + op));
            let keystore = after
                .try_open()
                .unwrap_or_else(|e| panic!("operation {op}, seed {seed}: {e:?}"));
            assert_eq!(content(&keystore), expected, "operation {op}, seed {seed}");
            assert_eq!(after.keys.versions().len(), 1, "operation {op}, seed {seed}");
        }
    }
}

#[test]
fn failed_operation_of_any_kind_is_an_error_and_a_reopen_finds_what_was_acknowledged() {
    let plain = World::new(30);
    let keystore = plain.create();
    let created = plain.fs.ops();
    let mut states = vec![content(&keystore)];
    run_script(&keystore, &mut states).unwrap();
    for op in created + 1..=plain.fs.ops() {
        for (fault, name) in [
            (Fault::io_error(op, Times::Once), "one i/o error"),
            (Fault::io_error(op, Times::Forever), "i/o errors"),
            (Fault::disk_full(op, Times::Once), "full once"),
            (Fault::disk_full(op, Times::Forever), "full"),
        ] {
            for crash in [None, Some(CrashMode::DropAll), Some(CrashMode::KeepRandom)] {
                let place = format!("operation {op}, {name}, {crash:?}");
                let world = World::new(30);
                let keystore = world.create();
                let mut done = vec![content(&keystore)];
                world.fs.fail(fault);
                let error = run_script(&keystore, &mut done).err();
                for (done, state) in done.iter().zip(&states) {
                    assert_eq!(shape(done), shape(state), "{place}");
                }
                if let Some(error) = &error {
                    let kinds = [
                        ErrorKind::Io,
                        ErrorKind::NoSpace,
                        ErrorKind::ReadOnly,
                        ErrorKind::Unknown,
                    ];
                    assert!(kinds.contains(&error.kind()), "{place}: {error}");
                }
                drop(keystore);
                world.fs.clear_faults();
                // The process restarts on the same machine, first; what it finds may be all in memory.
                let known = match crash {
                    None => content(&world.open()),
                    Some(_) => {
                        let restarted = world.try_open().unwrap_or_else(|e| panic!("{place}: {e:?}"));
                        content(&restarted)
                    }
                };
                let next = states.get(done.len()).filter(|_| error.is_some());
                let next = next.map(|state| shape(state));
                assert!(
                    done.last() == Some(&known) || next == Some(shape(&known)),
                    "{place}"
                );
                // What an opened keystore shows is durable: a power failure after does not change it.
                if let Some(mode) = crash {
                    let after = world.with_disk(world.fs.crashed_image(mode, op));
                    let keystore = after.try_open().unwrap_or_else(|e| panic!("{place}: {e:?}"));
                    assert!(content(&keystore) == known, "{place}");
                }
            }
        }
    }
}

#[test]
fn failed_sync_refuses_changes_until_reopened() {
    let world = World::new(31);
    let keystore = world.create();
    keystore.create_tenants(&["a"]).unwrap();
    // Write, then sync.
    world.fs.fail(Fault::io_error(world.fs.ops() + 2, Times::Once));
    assert_eq!(keystore.create_tenants(&["b"]).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(
        keystore.create_tenants(&["c"]).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    assert_eq!(
        keystore.delete_tenants(&[TenantId(1)]).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    assert_eq!(keystore.close().unwrap_err().kind(), ErrorKind::ReadOnly);
    assert!(keystore.is_live(TenantId(1)));
    drop(keystore);
    world.open().create_tenants(&["c"]).unwrap();
}

#[test]
fn full_disk_refuses_creation_takes_deletion_and_ends_without_reopening() {
    let world = World::new(32);
    let keystore = world.create();
    let names: Vec<String> = (0..500).map(|i| format!("tenant {i}")).collect();
    keystore
        .create_tenants(&names.iter().map(String::as_str).collect::<Vec<_>>())
        .unwrap();
    world.fs.set_capacity(Some(world.fs.used()));
    let before = content(&keystore);
    for _ in 0..3 {
        assert_eq!(
            keystore.create_tenants(&["x"]).unwrap_err().kind(),
            ErrorKind::NoSpace
        );
        assert_eq!(content(&keystore), before);
    }
    for id in 1..10 {
        keystore
            .delete_tenants(&[TenantId(id)])
            .unwrap_or_else(|e| panic!("tenant {id}: {e:?}"));
        assert_eq!(world.keys.versions().len(), 1);
    }
    world.fs.set_capacity(None);
    keystore.create_tenants(&["x"]).unwrap();
    let before = content(&keystore);
    drop(keystore);
    assert_eq!(content(&world.open()), before);
}

#[test]
fn keystore_with_a_used_log_opens_on_a_full_disk_even_without_its_reserve() {
    for reserve in [true, false] {
        let world = World::new(33);
        let keystore = world.create();
        keystore.create_tenants(&["a"]).unwrap();
        keystore.create_tenants(&["b"]).unwrap();
        let before = content(&keystore);
        drop(keystore);
        if !reserve {
            world.fs.lose("/db/keystore/reserve");
        }
        // What was removed before counts no more.
        world.io.vfs.sync_dir(Path::new(DIR)).unwrap();
        world.fs.set_capacity(Some(world.fs.used()));
        let keystore = world.open();
        assert_eq!(content(&keystore), before);
        let deleted = keystore.delete_tenants(&[TenantId(1)]);
        match deleted {
            Ok(_) => assert!(reserve),
            Err(error) => assert!(!reserve && error.kind() == ErrorKind::NoSpace, "{error}"),
        }
        world.fs.set_capacity(None);
        keystore.create_tenants(&["c"]).unwrap();
        let before = content(&keystore);
        keystore.close().unwrap();
        drop(keystore);
        assert_eq!(world.keys.versions().len(), 1);
        assert_eq!(content(&world.open()), before);
    }
}

#[test]
fn deletion_works_on_a_full_disk_that_also_has_the_key_file() {
    use crate::keys::KeyFile;
    let world = World::new(34);
    let path = Path::new("/db/strongroom.key");
    world.io.vfs.create_dir_all(Path::new("/db")).unwrap();
    let keys = Arc::new(KeyFile::create_in(world.io.clone(), path).unwrap());
    let keystore = Keystore::create(Path::new(DIR), &world.io, keys, None).unwrap();
    keystore.create_tenants(&["a", "b", "c"]).unwrap();
    for dir in ["/db", DIR] {
        world.io.vfs.sync_dir(Path::new(dir)).unwrap();
    }
    world.fs.set_capacity(Some(world.fs.used()));
    for id in 1..3 {
        let deleted = keystore.delete_tenants(&[TenantId(id)]).unwrap();
        assert_eq!(deleted.1, Destruction::Destroyed, "tenant {id}");
    }
    drop(keystore);
    let keys = Arc::new(KeyFile::open_in(world.io.clone(), path).unwrap());
    assert_eq!(Keystore::open(Path::new(DIR), &world.io, keys).unwrap().len(), 1);
}

#[test]
fn random_histories_with_crashes_keep_what_was_acknowledged() {
    use crate::io::Rng;
    for seed in 0..150u64 {
        println!("seed {seed}");
        let dice = crate::io::sim::SimRng::new(seed);
        let roll = |sides: u64| {
            let mut bytes = [0u8; 8];
            dice.fill(&mut bytes).unwrap();
            u64::from_le_bytes(bytes) % sides
        };
        let mut world = World::new(10_000 + seed);
        let mut keystore = world.create();
        let mut acknowledged = content(&keystore);
        let mut names = 0;
        for step in 0..40 {
            let place = format!("seed {seed}, step {step}");
            let crash = roll(4) == 0;
            if crash {
                world.fs.crash_at(world.fs.ops() + 1 + roll(25), roll(2) == 0);
            }
            let attempted = match roll(10) {
                0..6 => {
                    names += 1;
                    keystore.create_tenants(&[&format!("tenant {names}")]).map(drop)
                }
                6..8 => match keystore.list().first() {
                    Some(tenant) => keystore.delete_tenants(&[tenant.id]).map(drop),
                    None => Ok(()),
                },
                _ => keystore.close().and_then(|()| {
                    keystore = world.try_open()?;
                    Ok(())
                }),
            };
            if attempted.is_ok() {
                acknowledged = content(&keystore);
            }
            if !crash {
                attempted.unwrap_or_else(|e| panic!("{place}: {e:?}"));
                continue;
            }
            let mode = [CrashMode::DropAll, CrashMode::KeepAll, CrashMode::KeepRandom][roll(3) as usize];
            drop(keystore);
            world = world.with_disk(world.fs.crashed_image(mode, roll(u64::MAX)));
            keystore = world.try_open().unwrap_or_else(|e| panic!("{place}: {e:?}"));
            let (found, known) = (content(&keystore), shape(&acknowledged));
            if found != acknowledged {
                assert!(attempted.is_err(), "{place}");
                assert_eq!(
                    shape(&found).0,
                    known.0 + 1,
                    "{place}: one change at most is not acknowledged"
                );
            }
            acknowledged = found;
        }
    }
}
