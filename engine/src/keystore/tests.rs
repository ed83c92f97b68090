//! The keystore on a simulated disk: what survives, what is gone, what is found out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::io::sim::{CrashMode, SimFs};
use crate::keys::MemoryKeys;
use crate::seal::{FileKeys, KeyAccess};

const DIR: &str = "/db/keystore";

/// A disk, a provider, and one source of randomness for all that happens on them.
struct World {
    fs: SimFs,
    io: Io,
    keys: MemoryKeys,
}

impl World {
    fn new(seed: u64) -> World {
        let fs = SimFs::new();
        let io = fs.io(seed);
        World {
            fs,
            io,
            keys: MemoryKeys::seeded(seed),
        }
    }

    /// The same machine and provider with another disk.
    fn with_disk(&self, fs: SimFs) -> World {
        let io = Io {
            vfs: Arc::new(fs.clone()),
            ..self.io.clone()
        };
        World {
            fs,
            io,
            keys: self.keys.clone(),
        }
    }

    fn provider(&self) -> Arc<dyn KeyProvider> {
        Arc::new(self.keys.clone())
    }

    fn create(&self) -> Keystore {
        Keystore::create(Path::new(DIR), &self.io, self.provider(), None).unwrap()
    }

    fn try_open(&self) -> Result<Keystore> {
        Keystore::open(Path::new(DIR), &self.io, self.provider())
    }

    fn open(&self) -> Keystore {
        self.try_open().unwrap()
    }

    fn names(&self) -> Vec<String> {
        let files = self.fs.files();
        files
            .keys()
            .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
            .collect()
    }
}

/// Everything a keystore knows, comparable.
fn content(keystore: &Keystore) -> Vec<u8> {
    keystore.export().encode().to_vec()
}

fn dek(keystore: &Keystore, id: TenantId) -> [u8; 32] {
    *keystore.current(id).unwrap().1.expose()
}

fn holds(files: &BTreeMap<PathBuf, Vec<u8>>, needle: &[u8]) -> bool {
    files
        .values()
        .any(|bytes| bytes.windows(needle.len()).any(|w| w == needle))
}

#[test]
fn empty_or_missing_directory_is_not_found() {
    let world = World::new(1);
    assert_eq!(world.try_open().err().unwrap().kind(), ErrorKind::NotFound);
    world.io.vfs.create_dir_all(Path::new(DIR)).unwrap();
    assert_eq!(world.try_open().err().unwrap().kind(), ErrorKind::NotFound);
}

#[test]
fn fresh_keystore_has_the_system_tenant_alone() {
    let world = World::new(2);
    let keystore = world.create();
    assert!(keystore.is_live(TenantId::SYSTEM));
    assert_eq!(
        (keystore.len(), keystore.next_tenant(), keystore.version()),
        (0, 1, 1)
    );
    assert!(keystore.list().is_empty());
    assert_eq!(keystore.id(""), None);
    let before = content(&keystore);
    drop(keystore);
    assert_eq!(content(&world.open()), before);
    let again = Keystore::create(Path::new(DIR), &world.io, world.provider(), None);
    assert_eq!(again.err().unwrap().kind(), ErrorKind::AlreadyExists);
}

#[test]
fn created_tenants_are_there_after_reopening_closed_or_not() {
    for close in [false, true] {
        let world = World::new(3);
        let keystore = world.create();
        assert_eq!(
            keystore.create_tenants(&["a", "b"]).unwrap(),
            [TenantId(1), TenantId(2)]
        );
        assert_eq!(keystore.create_tenants(&["c"]).unwrap(), [TenantId(3)]);
        assert_eq!(keystore.version(), 3);
        let before = content(&keystore);
        if close {
            keystore.close().unwrap();
        }
        drop(keystore);
        let keystore = world.open();
        assert_eq!(content(&keystore), before);
        assert_eq!(keystore.id("b"), Some(TenantId(2)));
        assert_eq!(keystore.info(TenantId(3)).unwrap().name, "c");
        assert_eq!(keystore.create_tenants(&["d"]).unwrap(), [TenantId(4)]);
        let before = content(&keystore);
        drop(keystore);
        assert_eq!(content(&world.open()), before);
    }
}

#[test]
fn bad_and_taken_names_are_refused_and_nothing_changes() {
    let world = World::new(4);
    let keystore = world.create();
    keystore.create_tenants(&["a"]).unwrap();
    let before = content(&keystore);
    let long = "x".repeat(256);
    for (names, kind) in [
        (&["b", ""][..], ErrorKind::Invalid),
        (&["b", &long], ErrorKind::Invalid),
        (&["b", "a"], ErrorKind::AlreadyExists),
        (&["b", "b"], ErrorKind::AlreadyExists),
    ] {
        assert_eq!(
            keystore.create_tenants(names).unwrap_err().kind(),
            kind,
            "{names:?}"
        );
    }
    assert_eq!(content(&keystore), before);
    assert!(keystore.create_tenants(&[]).unwrap().is_empty());
    keystore.create_tenants(&[&"x".repeat(255)]).unwrap();
}

#[test]
fn deleted_tenant_is_gone_from_memory_from_every_file_and_from_every_old_copy() {
    let world = World::new(5);
    let keystore = world.create();
    keystore.create_tenants(&["acme", "other"]).unwrap();
    let (dead, alive) = (dek(&keystore, TenantId(1)), dek(&keystore, TenantId(2)));
    let copy = world.with_disk(world.fs.fork());
    assert_eq!(
        keystore.delete_tenants(&[TenantId(1)]).unwrap(),
        (3, Destruction::Destroyed)
    );

    assert!(!keystore.is_live(TenantId(1)));
    assert!(matches!(
        keystore.find(TenantId(1), DekVersion(1)),
        KeyLookup::Destroyed
    ));
    assert!(matches!(
        keystore.find(TenantId(9), DekVersion(1)),
        KeyLookup::Unknown
    ));
    assert!(matches!(
        keystore.find(TenantId(2), DekVersion(2)),
        KeyLookup::Unknown
    ));
    assert_eq!(
        keystore.current(TenantId(1)).err().unwrap().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(keystore.id("acme"), None);
    assert_eq!(world.keys.versions(), [KekVersion(2)]);
    for needle in [dead.as_slice(), alive.as_slice(), b"acme", b"other"] {
        assert!(!holds(&world.fs.files(), needle));
    }
    // The old files are whole, but nothing opens them.
    assert_eq!(copy.try_open().err().unwrap().kind(), ErrorKind::KeyRefused);

    assert_eq!(keystore.create_tenants(&["acme"]).unwrap(), [TenantId(3)]);
    drop(keystore);
    let keystore = world.open();
    assert_eq!(dek(&keystore, TenantId(2)), alive);
    assert!(matches!(
        keystore.find(TenantId(1), DekVersion(1)),
        KeyLookup::Destroyed
    ));
    assert_eq!(keystore.id("acme"), Some(TenantId(3)));
}

#[test]
fn wrong_deletions_are_refused_and_nothing_changes() {
    let world = World::new(6);
    let keystore = world.create();
    keystore.create_tenants(&["a"]).unwrap();
    let before = content(&keystore);
    let kind = |ids: &[TenantId]| keystore.delete_tenants(ids).unwrap_err().kind();
    assert_eq!(kind(&[]), ErrorKind::Invalid);
    assert_eq!(kind(&[TenantId(1), TenantId::SYSTEM]), ErrorKind::Invalid);
    assert_eq!(kind(&[TenantId(1), TenantId(2)]), ErrorKind::NotFound);
    assert_eq!(content(&keystore), before);
    keystore.delete_tenants(&[TenantId(1), TenantId(1)]).unwrap();
    assert_eq!(kind(&[TenantId(1)]), ErrorKind::NotFound);
}

#[test]
fn deletion_is_seen_by_file_keys_at_once() {
    let world = World::new(7);
    let keystore = Arc::new(world.create());
    keystore.create_tenants(&["a"]).unwrap();
    let keys = FileKeys::new(keystore.clone(), 10);
    let header = crate::seal::FileHeader::new(
        &world.io,
        crate::seal::FileKind::Table,
        crate::types::Epoch::FIRST,
        1,
        crate::types::Chain::default(),
    )
    .unwrap();
    let (version, _) = keys.for_writing(&header, TenantId(1)).unwrap();
    assert!(matches!(
        keys.for_reading(&header, TenantId(1), version),
        KeyAccess::Live(_)
    ));
    keystore.delete_tenants(&[TenantId(1)]).unwrap();
    assert!(matches!(
        keys.for_reading(&header, TenantId(1), version),
        KeyAccess::Destroyed
    ));
    assert!(keys.for_writing(&header, TenantId(1)).is_err());
}

#[test]
fn other_key_provider_is_refused() {
    let world = World::new(8);
    drop(world.create());
    let other: Arc<dyn KeyProvider> = Arc::new(MemoryKeys::seeded(800));
    other.create_version().unwrap();
    let error = Keystore::open(Path::new(DIR), &world.io, other).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::KeyRefused);
    assert!(error.path().is_some());
}

#[test]
fn unreachable_provider_is_an_error_that_changes_nothing() {
    let world = World::new(9);
    let keystore = world.create();
    keystore.create_tenants(&["a"]).unwrap();
    let before = content(&keystore);
    for calls in 0..2 {
        world.keys.fail_after(Some(calls));
        assert_eq!(
            keystore.delete_tenants(&[TenantId(1)]).unwrap_err().kind(),
            ErrorKind::Io
        );
        world.keys.fail_after(None);
        assert_eq!(content(&keystore), before);
    }
    // Creating needs the log only.
    world.keys.fail_after(Some(0));
    keystore.create_tenants(&["b"]).unwrap();
    world.keys.fail_after(None);
    keystore.delete_tenants(&[TenantId(1)]).unwrap();
    drop(keystore);
    assert_eq!(world.open().len(), 1);
}

#[test]
fn failed_destruction_is_reported_and_made_up_for() {
    for retry in ["call", "delete", "close", "open"] {
        let world = World::new(10);
        let keystore = world.create();
        keystore.create_tenants(&["a", "b"]).unwrap();
        let old = world.with_disk(world.fs.fork());
        // create_version and wrap succeed, destroy_version does not.
        world.keys.fail_after(Some(2));
        assert_eq!(
            keystore.delete_tenants(&[TenantId(1)]).unwrap_err().kind(),
            ErrorKind::Io
        );
        world.keys.fail_after(None);
        assert!(keystore.info(TenantId(1)).is_none());
        assert_eq!(world.keys.versions().len(), 2, "{retry}");
        match retry {
            "call" => {
                assert_eq!(
                    keystore.destroy_superseded().unwrap(),
                    Some(Destruction::Destroyed)
                );
                assert_eq!(keystore.destroy_superseded().unwrap(), None);
            }
            "delete" => drop(keystore.delete_tenants(&[TenantId(2)]).unwrap()),
            "close" => keystore.close().unwrap(),
            _ => {
                drop(keystore);
                drop(world.open());
            }
        }
        assert_eq!(world.keys.versions().len(), 1, "{retry}");
        assert_eq!(
            old.try_open().err().unwrap().kind(),
            ErrorKind::KeyRefused,
            "{retry}"
        );
        assert!(world.open().is_live(TenantId::SYSTEM), "{retry}");
    }
}

#[test]
fn scheduled_destruction_is_passed_on() {
    let world = World::new(11);
    let keystore = world.create();
    keystore.create_tenants(&["a"]).unwrap();
    world.keys.schedule_destruction(Some(12345));
    assert_eq!(
        keystore.delete_tenants(&[TenantId(1)]).unwrap(),
        (3, Destruction::ScheduledAt(12345))
    );
}

#[test]
fn any_flipped_bit_of_a_closed_keystore_is_an_error() {
    let world = World::new(12);
    let keystore = world.create();
    keystore.create_tenants(&["a", "b"]).unwrap();
    keystore.delete_tenants(&[TenantId(1)]).unwrap();
    keystore.close().unwrap();
    drop(keystore);
    let files = world.fs.files();
    assert_eq!(files.len(), 1, "{:?}", world.names());
    let (path, bytes) = files.iter().next().unwrap();
    for at in 0..bytes.len() {
        let damaged = world.with_disk(world.fs.fork());
        assert!(damaged.fs.corrupt(path, |b| b[at] ^= 1 << (at % 8)));
        let error = damaged.try_open().err().unwrap_or_else(|| panic!("byte {at}"));
        assert_eq!(error.kind(), ErrorKind::Corruption, "byte {at}: {error}");
        assert_eq!(error.path(), Some(path.as_path()), "byte {at}");
    }
    for len in 0..bytes.len() {
        let damaged = world.with_disk(world.fs.fork());
        damaged.fs.corrupt(path, |b| b.truncate(len));
        assert_eq!(
            damaged.try_open().err().unwrap().kind(),
            ErrorKind::Corruption,
            "cut at {len}"
        );
    }
    let longer = world.with_disk(world.fs.fork());
    longer.fs.corrupt(path, |b| b.push(0));
    assert_eq!(longer.try_open().err().unwrap().kind(), ErrorKind::Corruption);
}

#[test]
fn forged_preamble_with_a_good_checksum_is_refused() {
    let world = World::new(13);
    world.create().close().unwrap();
    let path = world.fs.files().into_keys().next().unwrap();
    for at in FileHeaderEnd..FileHeaderEnd + 72 {
        let damaged = world.with_disk(world.fs.fork());
        damaged.fs.corrupt(&path, |b| {
            b[at] ^= 1;
            let wrapped = u32::from_le_bytes(b[216..220].try_into().unwrap()) as usize;
            let crc = crc32fast::hash(&b[128..220 + wrapped]);
            b[220 + wrapped..224 + wrapped].copy_from_slice(&crc.to_le_bytes());
        });
        let kind = damaged
            .try_open()
            .err()
            .unwrap_or_else(|| panic!("byte {at}"))
            .kind();
        assert!(
            matches!(kind, ErrorKind::Corruption | ErrorKind::KeyRefused),
            "byte {at}"
        );
    }
}

#[expect(non_upper_case_globals, reason = "reads as a place in the file")]
const FileHeaderEnd: usize = crate::seal::FileHeader::BYTES;

#[test]
fn damaged_log_is_an_error_or_a_torn_tail_never_other_content() {
    let world = World::new(14);
    let keystore = world.create();
    let mut states = vec![content(&keystore)];
    for name in ["a", "b", "c"] {
        keystore.create_tenants(&[name]).unwrap();
        states.push(content(&keystore));
    }
    drop(keystore);
    let files = world.fs.files();
    let (path, bytes) = files
        .iter()
        .find(|(p, _)| p.to_string_lossy().contains("log-"))
        .unwrap();
    // The first change wrote base and log, the two others a frame each.
    let frame = (bytes.len() - format::LOG_HEAD_BYTES) / 2;
    let last = bytes.len() - frame;
    for at in 0..bytes.len() {
        let damaged = world.with_disk(world.fs.fork());
        damaged.fs.corrupt(path, |b| b[at] ^= 1 << (at % 8));
        match damaged.try_open() {
            Ok(keystore) => {
                assert!(at >= last, "byte {at} of an acknowledged frame was cut off");
                assert_eq!(content(&keystore), states[2]);
            }
            Err(error) => {
                assert!(at < last, "byte {at}: {error}");
                assert_eq!(error.kind(), ErrorKind::Corruption, "byte {at}");
            }
        }
    }
    for len in 0..bytes.len() {
        let damaged = world.with_disk(world.fs.fork());
        damaged.fs.corrupt(path, |b| b.truncate(len));
        match damaged.try_open() {
            Ok(keystore) => {
                assert!(len >= format::LOG_HEAD_BYTES);
                let expected = 1 + (len - format::LOG_HEAD_BYTES) / frame;
                assert_eq!(content(&keystore), states[expected], "cut at {len}");
            }
            Err(error) => {
                assert!(len < format::LOG_HEAD_BYTES, "cut at {len}: {error}");
                assert_eq!(error.kind(), ErrorKind::Corruption);
            }
        }
    }
}

#[test]
fn lost_file_of_a_keystore_is_an_error() {
    let world = World::new(15);
    let keystore = world.create();
    keystore.create_tenants(&["a"]).unwrap();
    keystore.create_tenants(&["b"]).unwrap();
    drop(keystore);
    let files = world.fs.files();
    assert_eq!(files.len(), 2);
    for path in files.keys() {
        let damaged = world.with_disk(world.fs.fork());
        assert!(damaged.fs.lose(path));
        let error = damaged.try_open().err().unwrap_or_else(|| panic!("{path:?}"));
        assert_eq!(error.kind(), ErrorKind::Corruption, "{path:?}");
    }
}

#[test]
fn log_of_another_moment_is_an_error() {
    let world = World::new(16);
    let keystore = world.create();
    keystore.create_tenants(&["a"]).unwrap();
    keystore.create_tenants(&["b"]).unwrap();
    let old = world.fs.files();
    drop(keystore);
    // Folds, and begins another log.
    let keystore = world.open();
    keystore.create_tenants(&["c"]).unwrap();
    drop(keystore);
    let is_log = |p: &&PathBuf| p.to_string_lossy().contains("log-");
    let (old_log, new_log) = (old.keys().find(is_log).unwrap(), world.fs.files());
    let new_log = new_log.keys().find(is_log).unwrap().clone();
    assert_ne!(old_log, &new_log);
    world.fs.corrupt(&new_log, |b| *b = old[old_log].clone());
    assert_eq!(world.try_open().err().unwrap().kind(), ErrorKind::Corruption);
}

#[test]
fn log_is_never_appended_to_by_a_second_process() {
    let world = World::new(17);
    let keystore = world.create();
    keystore.create_tenants(&["a"]).unwrap();
    keystore.create_tenants(&["b"]).unwrap();
    drop(keystore);
    let before = world.names();
    let keystore = world.open();
    // Folded at open: other files.
    assert!(world.names().iter().all(|name| !before.contains(name)));
    keystore.create_tenants(&["c"]).unwrap();
    keystore.close().unwrap();
    assert_eq!(world.names().len(), 1);
    drop(keystore);
    let before = world.names();
    drop(world.open());
    assert_eq!(
        world.names(),
        before,
        "a clean keystore is opened without writing"
    );
}

#[test]
fn closed_keystore_refuses_changes_and_still_reads() {
    let world = World::new(18);
    let keystore = world.create();
    keystore.create_tenants(&["a"]).unwrap();
    keystore.close().unwrap();
    keystore.close().unwrap();
    assert_eq!(
        keystore.create_tenants(&["b"]).unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(
        keystore.delete_tenants(&[TenantId(1)]).unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(
        keystore.apply(&keystore.export()).unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert!(keystore.is_live(TenantId(1)));
    assert_eq!(
        keystore.wait(keystore.version(), Duration::from_secs(60)),
        keystore.version()
    );
}

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
            assert!(result.is_err(), "operation {op} of {}", plain.fs.ops());
            let after = world.with_disk(world.fs.crashed_image(CrashMode::KeepRandom, seed));
            match after.try_open() {
                Ok(keystore) => assert_eq!(keystore.next_tenant(), 1),
                Err(error) => {
                    assert_eq!(
                        error.kind(),
                        ErrorKind::NotFound,
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
