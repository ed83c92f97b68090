//! The keystore on a simulated disk: what survives, what is gone, what is found out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

    /// All files but the reserve.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = self.fs.files();
        files.retain(|path, _| !path.ends_with("reserve"));
        files
    }

    fn names(&self) -> Vec<String> {
        let files = self.files();
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

/// Names, ids and versions, without the keys: for runs whose random bytes differ.
fn shape(content: &[u8]) -> (u64, u64, Vec<(TenantId, String)>) {
    let changes = KeyChanges::decode(content).unwrap();
    let tenants = changes.upserts.iter().map(|t| (t.id, t.name.clone())).collect();
    (changes.version, changes.next_tenant, tenants)
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
        assert!(!holds(&world.files(), needle));
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
    let files = world.files();
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
    let path = world.files().into_keys().next().unwrap();
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
    let files = world.files();
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
    let files = world.files();
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
    let old = world.files();
    drop(keystore);
    // Folds, and begins another log.
    let keystore = world.open();
    keystore.create_tenants(&["c"]).unwrap();
    drop(keystore);
    let is_log = |p: &&PathBuf| p.to_string_lossy().contains("log-");
    let (old_log, new_log) = (old.keys().find(is_log).unwrap(), world.files());
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
    use crate::io::sim::{Fault, Times};
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
                    let kinds = [ErrorKind::Io, ErrorKind::NoSpace, ErrorKind::ReadOnly];
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
    use crate::io::sim::{Fault, Times};
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
fn keystore_with_a_used_log_opens_on_a_full_disk() {
    let world = World::new(33);
    let keystore = world.create();
    keystore.create_tenants(&["a"]).unwrap();
    keystore.create_tenants(&["b"]).unwrap();
    let before = content(&keystore);
    drop(keystore);
    world.fs.set_capacity(Some(world.fs.used()));
    let keystore = world.open();
    assert_eq!(content(&keystore), before);
    assert_eq!(
        keystore.create_tenants(&["c"]).unwrap_err().kind(),
        ErrorKind::NoSpace
    );
    keystore.delete_tenants(&[TenantId(1)]).unwrap();
    world.fs.set_capacity(None);
    keystore.create_tenants(&["c"]).unwrap();
    let before = content(&keystore);
    keystore.close().unwrap();
    drop(keystore);
    assert_eq!(content(&world.open()), before);
}

/// A second keystore that begins with what the first has now.
fn follower(of: &Keystore, seed: u64) -> (World, Keystore) {
    let world = World::new(seed);
    let full = of.export();
    let keystore = Keystore::create(Path::new(DIR), &world.io, world.provider(), Some(&full)).unwrap();
    assert_eq!(content(&keystore), content(of));
    (world, keystore)
}

#[test]
fn changes_bring_a_second_keystore_to_the_same_content() {
    let world = World::new(40);
    let primary = world.create();
    primary.create_tenants(&["a", "b", "c"]).unwrap();
    let (there, standby) = follower(&primary, 41);
    let follow = |full: bool| {
        let changes = primary.changes_since(standby.version());
        assert_eq!(changes.full, full);
        let changes = KeyChanges::decode(&changes.encode()).unwrap();
        standby.apply(&changes).unwrap();
        assert_eq!(content(&standby), content(&primary));
        // Again, and something older: fine.
        standby.apply(&changes).unwrap();
        assert_eq!(content(&standby), content(&primary));
    };
    follow(false);
    primary.create_tenants(&["d"]).unwrap();
    follow(false);
    primary.delete_tenants(&[TenantId(1)]).unwrap();
    primary.create_tenants(&["a", "e"]).unwrap();
    primary.delete_tenants(&[TenantId(2), TenantId(4)]).unwrap();
    let versions = there.keys.versions();
    let dead = dek(&standby, TenantId(2));
    follow(false);
    assert_ne!(
        there.keys.versions(),
        versions,
        "the standby's root is replaced too"
    );
    assert_eq!(there.keys.versions().len(), 1);
    assert!(matches!(
        standby.find(TenantId(2), DekVersion(1)),
        KeyLookup::Destroyed
    ));
    assert!(!holds(&there.files(), &dead));
    standby.apply(&primary.changes_since(0)).unwrap();
    assert_eq!(content(&standby), content(&primary));
    // The primary forgets its steps when it is reopened.
    primary.create_tenants(&["f"]).unwrap();
    drop(primary);
    let primary = world.open();
    assert!(!primary.changes_since(primary.version()).full);
    assert!(primary.changes_since(2).full);
    standby.apply(&primary.changes_since(standby.version())).unwrap();
    let before = content(&primary);
    drop(standby);
    assert_eq!(content(&there.open()), before);
}

#[test]
fn full_set_that_lacks_a_tenant_destroys_it_and_one_that_only_adds_keeps_the_root() {
    let world = World::new(42);
    let primary = world.create();
    primary.create_tenants(&["a", "b"]).unwrap();
    let (there, standby) = follower(&primary, 43);
    primary.create_tenants(&["c"]).unwrap();
    let versions = there.keys.versions();
    standby.apply(&primary.export()).unwrap();
    assert_eq!(there.keys.versions(), versions);
    primary.delete_tenants(&[TenantId(1)]).unwrap();
    let old = there.with_disk(there.fs.fork());
    standby.apply(&primary.export()).unwrap();
    assert_eq!(content(&standby), content(&primary));
    assert_eq!(old.try_open().err().unwrap().kind(), ErrorKind::KeyRefused);
    assert!(matches!(
        standby.find(TenantId(1), DekVersion(1)),
        KeyLookup::Destroyed
    ));
}

#[test]
fn keystores_whose_histories_parted_are_told_and_made_equal_by_a_full_set() {
    let world = World::new(44);
    let one = world.create();
    one.create_tenants(&["a"]).unwrap();
    let (_there, two) = follower(&one, 45);
    one.create_tenants(&["x"]).unwrap();
    two.create_tenants(&["y"]).unwrap();
    two.create_tenants(&["z"]).unwrap();
    let kind = one.apply(&two.changes_since(2)).unwrap_err().kind();
    assert_eq!(kind, ErrorKind::Diverged);
    let lost = dek(&one, TenantId(2));
    one.apply(&two.export()).unwrap();
    assert_eq!(content(&one), content(&two));
    assert!(!holds(&world.files(), &lost));
    assert_eq!(world.keys.versions().len(), 1);
}

#[test]
fn many_steps_are_forgotten_and_a_receiver_far_behind_gets_everything() {
    let world = World::new(46);
    let keystore = world.create();
    let names: Vec<String> = (0..12_000).map(|i| format!("{i}")).collect();
    for part in names.chunks(3000) {
        keystore
            .create_tenants(&part.iter().map(String::as_str).collect::<Vec<_>>())
            .unwrap();
    }
    assert!(keystore.changes_since(1).full);
    let recent = keystore.changes_since(2);
    assert!(!recent.full);
    assert_eq!(recent.upserts.len(), 9000);
}

#[test]
fn waiting_ends_with_a_change_and_with_time() {
    let world = World::new(47);
    let keystore = world.create();
    assert_eq!(keystore.wait(1, Duration::from_millis(1)), 1);
    assert_eq!(keystore.wait(0, Duration::from_secs(60)), 1);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| keystore.wait(1, Duration::from_secs(60)));
        keystore.create_tenants(&["a"]).unwrap();
        assert_eq!(waiter.join().unwrap(), 2);
        let waiter = scope.spawn(|| keystore.wait(2, Duration::from_secs(60)));
        keystore.close().unwrap();
        assert_eq!(waiter.join().unwrap(), 2);
    });
}

#[test]
fn deletion_racing_with_readers_leaves_no_cached_key() {
    let world = World::new(48);
    let keystore = Arc::new(world.create());
    let header = |number| {
        let (kind, epoch) = (crate::seal::FileKind::Table, crate::types::Epoch::FIRST);
        crate::seal::FileHeader::new(&world.io, kind, epoch, number, Default::default()).unwrap()
    };
    for round in 0..50 {
        let id = keystore.create_tenants(&[&format!("{round}")]).unwrap()[0];
        let keys = FileKeys::new(keystore.clone(), 100);
        let headers: Vec<_> = (0..20).map(header).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for header in headers.iter().cycle().take(2000) {
                    if let KeyAccess::Destroyed = keys.for_reading(header, id, DekVersion(1)) {
                        break;
                    }
                }
            });
            scope.spawn(|| {
                keystore.delete_tenants(&[id]).unwrap();
                keys.purge(id);
                assert!(matches!(
                    keys.for_reading(&headers[0], id, DekVersion(1)),
                    KeyAccess::Destroyed
                ));
            });
        });
        assert_eq!(keys.cached(), 0, "round {round}");
    }
}

#[test]
fn hundred_thousand_tenants_are_created_reopened_and_deleted_from() {
    let world = World::new(49);
    let keystore = world.create();
    let names: Vec<String> = (0..100_000).map(|i| format!("tenant-{i:06}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    // Singly at first and at the end: both must cost the same.
    let mut took = Vec::new();
    for (from, to, step) in [(0, 1000, 1), (1000, 99_000, 7000), (99_000, 100_000, 1)] {
        let started = world_time();
        for part in all[from..to].chunks(step) {
            keystore.create_tenants(part).unwrap();
        }
        took.push(started.elapsed());
    }
    assert_eq!((keystore.len(), keystore.next_tenant()), (100_000, 100_001));
    let before = content(&keystore);
    keystore.close().unwrap();
    drop(keystore);
    let started = world_time();
    let keystore = world.open();
    let opened = started.elapsed();
    assert!(content(&keystore) == before);
    let started = world_time();
    keystore.delete_tenants(&[TenantId(50_000)]).unwrap();
    let deleted = started.elapsed();
    println!(
        "1000 first {:?}, 1000 last {:?}, open {opened:?}, delete {deleted:?}",
        took[0], took[2]
    );
    assert_eq!(keystore.len(), 99_999);
    // Generous: a loaded machine must not fail it, a quadratic cost must.
    assert!(took[2] < took[0] * 20 + Duration::from_secs(1), "{took:?}");
    drop(keystore);
    assert_eq!(world.open().id("tenant-049999"), None);
}

#[expect(clippy::disallowed_methods, reason = "measures")]
fn world_time() -> std::time::Instant {
    std::time::Instant::now()
}

#[test]
fn torn_tail_that_looks_like_a_frame_start_is_still_torn() {
    let world = World::new(50);
    let keystore = world.create();
    keystore.create_tenants(&["a"]).unwrap();
    keystore.create_tenants(&["b"]).unwrap();
    let before = content(&keystore);
    drop(keystore);
    let path = world
        .files()
        .into_keys()
        .find(|p| p.to_string_lossy().contains("log-"))
        .unwrap();
    for tail in [
        &b"K"[..],
        b"KOP1",
        &[0; 4096],
        b"KOP1\xff\xff\xff\xff....",
        &[b"KOP1".as_slice(); 300].concat(),
    ] {
        let torn = world.with_disk(world.fs.fork());
        torn.fs.corrupt(&path, |b| b.extend_from_slice(tail));
        let keystore = torn
            .try_open()
            .unwrap_or_else(|e| panic!("{} bytes: {e:?}", tail.len()));
        assert_eq!(content(&keystore), before);
    }
}

#[test]
fn random_bytes_in_place_of_any_file_never_panic() {
    use crate::io::Rng;
    let world = World::new(51);
    let keystore = world.create();
    keystore.create_tenants(&["a"]).unwrap();
    keystore.create_tenants(&["b"]).unwrap();
    drop(keystore);
    let rng = crate::io::sim::SimRng::new(51);
    for (path, good) in world.files() {
        for round in 0..300usize {
            let damaged = world.with_disk(world.fs.fork());
            damaged.fs.corrupt(&path, |b| {
                let keep = (round * 7) % good.len();
                let mut noise = vec![0u8; (round * 13) % 600];
                rng.fill(&mut noise).unwrap();
                b.truncate(keep);
                b.extend_from_slice(&noise);
            });
            // Opening may find a torn tail, or damage; it must not panic, nor know more than was there.
            if let Ok(keystore) = damaged.try_open() {
                assert!(keystore.len() <= 2, "round {round}");
            }
        }
    }
}

#[test]
fn same_root_seals_no_two_files_under_one_key() {
    let before = crate::seal::recorder_pairs();
    let world = World::new(52);
    for round in 0..5 {
        let keystore = if round == 0 { world.create() } else { world.open() };
        keystore.create_tenants(&[&format!("{round}")]).unwrap();
        keystore.create_tenants(&[&format!("{round} again")]).unwrap();
    }
    assert!(crate::seal::recorder_pairs() >= before + 10);
}
