//! The keystore on a simulated disk: what survives, what is gone, what is found out.

mod crash;
mod damage;
mod follow;
mod golden;
mod taken_back;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;
use crate::io::sim::SimFs;
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
                keys.purge_if(|other| other == id);
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
