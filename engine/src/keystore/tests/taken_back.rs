//! Replacements under a fresh KEK version that are taken back: the version goes, or a file goes on naming it.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::io::durable;
use crate::io::sim::{CrashMode, Fault, OpKind, Times};

/// A provider that destroys nothing while it is told to cling to its keys.
struct Clinging {
    keys: MemoryKeys,
    clings: Arc<AtomicBool>,
}

impl KeyProvider for Clinging {
    fn name(&self) -> &str {
        self.keys.name()
    }

    fn create_version(&self) -> Result<KekVersion> {
        self.keys.create_version()
    }

    fn wrap(&self, version: KekVersion, root: &[u8; 32], context: &[u8]) -> Result<Vec<u8>> {
        self.keys.wrap(version, root, context)
    }

    fn unwrap(&self, version: KekVersion, wrapped: &[u8], context: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        self.keys.unwrap(version, wrapped, context)
    }

    fn destroy_version(&self, version: KekVersion) -> Result<Destruction> {
        if self.clings.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Io, "the key provider destroys nothing"));
        }
        self.keys.destroy_version(version)
    }
}

/// A keystore with two tenants at such a provider.
fn with_two_tenants(world: &World) -> (Keystore, Arc<AtomicBool>) {
    let clings = Arc::new(AtomicBool::new(false));
    let provider = Arc::new(Clinging {
        keys: world.keys.clone(),
        clings: clings.clone(),
    });
    let keystore = Keystore::create(Path::new(DIR), &world.io, provider, None).unwrap();
    keystore.create_tenants(&["a", "b"]).unwrap();
    (keystore, clings)
}

/// The temporary file of the base that deleting a tenant of it writes.
fn temporary() -> PathBuf {
    durable::tmp_name(&format::base_path(Path::new(DIR), 3))
}

/// What may fail once the part of the base that names its KEK version is durable, and leaves all as it was.
fn faults() -> [(&'static str, Fault); 3] {
    let world = World::new(60);
    let (keystore, _) = with_two_tenants(&world);
    let ops = Arc::new(Mutex::new(Vec::new()));
    let seen = ops.clone();
    world.fs.probe(move |op, _| {
        if op.path == temporary() {
            seen.lock().push((op.kind, op.number));
        }
    });
    keystore.delete_tenants(&[TenantId(1)]).unwrap();
    let ops = ops.lock();
    let second = |kind: OpKind| ops.iter().filter(|op| op.0 == kind).nth(1).unwrap().1;
    let (write, sync) = (second(OpKind::Write), second(OpKind::Sync));
    [
        ("chunks not written", Fault::io_error(write, Times::Once)),
        ("no room for the chunks", Fault::disk_full(write, Times::Once)),
        ("no room when synced", Fault::disk_full(sync, Times::Once)),
    ]
}

#[test]
fn fresh_version_the_provider_does_not_destroy_when_its_base_is_taken_back_is_destroyed_later() {
    for (seed, (name, fault)) in (61..).zip(faults()) {
        for then in ["deleted again", "opened again", "power failed"] {
            let place = format!("{name}, {then}");
            let world = World::new(seed);
            let (keystore, clings) = with_two_tenants(&world);
            let before = content(&keystore);
            clings.store(true, Ordering::Relaxed);
            world.fs.fail(fault);
            let error = keystore.delete_tenants(&[TenantId(1)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{place}: {error}");
            assert_eq!(content(&keystore), before, "{place}");
            // The file gave its chunks back and names the version still.
            let fresh = KekVersion(2);
            assert!(world.keys.versions().contains(&fresh), "{place}");
            let path = temporary();
            let left = world
                .fs
                .content(&path)
                .unwrap_or_else(|| panic!("{place}: nothing names {fresh:?}"));
            let (preamble, _, _, head) = format::Preamble::decode(&path, &left).unwrap();
            assert_eq!((preamble.kek, head), (fresh, left.len()), "{place}");

            clings.store(false, Ordering::Relaxed);
            world.fs.clear_faults();
            let world = match then {
                "deleted again" => {
                    keystore.delete_tenants(&[TenantId(1)]).unwrap();
                    world
                }
                "opened again" => world,
                _ => {
                    let mode = [CrashMode::DropAll, CrashMode::KeepAll, CrashMode::KeepRandom];
                    let after = world.fs.crashed_image(mode[seed as usize % 3], seed);
                    world.with_disk(after)
                }
            };
            drop(keystore);
            let keystore = world.open();
            assert_eq!(
                keystore.len(),
                1 + usize::from(then != "deleted again"),
                "{place}"
            );
            assert!(!world.keys.versions().contains(&fresh), "{place}");
            assert_eq!(world.fs.content(&path), None, "{place}");
        }
    }
}

#[test]
fn base_that_is_taken_back_leaves_neither_version_nor_file_where_the_provider_destroys() {
    let (_, fault) = faults()[0];
    let world = World::new(64);
    let (keystore, _) = with_two_tenants(&world);
    world.fs.fail(fault);
    keystore.delete_tenants(&[TenantId(1)]).unwrap_err();
    assert_eq!(world.keys.versions(), [KekVersion(1)]);
    assert_eq!(world.fs.content(temporary()), None);
    keystore.delete_tenants(&[TenantId(1)]).unwrap();
}

#[test]
fn replacement_while_a_file_names_a_version_that_stays_fails_with_the_providers_reason() {
    let (_, fault) = faults()[0];
    let world = World::new(65);
    let (keystore, clings) = with_two_tenants(&world);
    clings.store(true, Ordering::Relaxed);
    world.fs.fail(fault);
    for round in 0..3 {
        let error = keystore.delete_tenants(&[TenantId(1)]).unwrap_err();
        let by_provider = error.to_string().contains("the key provider destroys nothing");
        assert_eq!(by_provider, round > 0, "{error}");
        let left = world.fs.content(temporary()).unwrap();
        let (preamble, ..) = format::Preamble::decode(&temporary(), &left).unwrap();
        assert_eq!(preamble.kek, KekVersion(2), "round {round}");
    }
    // What needs no base goes on.
    keystore.create_tenants(&["c"]).unwrap();
}
