//! A disk that is really full, not only failing.

use strongroom::io::sim::CrashMode;
use strongroom::{ErrorKind, Options};
use strongroom_tests::oracle::read_all;
use strongroom_tests::world::{World, name_of_tenant as tenant};

fn short_segments() -> Options {
    let mut options = Options::tiny();
    options.segment_bytes = 4 << 10;
    options.wal_keep_bytes = 8 << 10;
    options
}

fn two_tenants(world: &mut World) -> strongroom::Result<()> {
    world.open()?;
    for n in 1..=2 {
        world.create_tenant(&tenant(n))?;
        for key in 0..3 {
            world.put(&tenant(n), "a", key, 30)?;
            world.put(&tenant(n), "b", key, 30)?;
        }
    }
    world.close()
}

/// Reads go on, tenants can be deleted, and writes
/// resume when there is room, without a restart; wherever in the work it filled up.
#[test]
fn full_disk_reads_deletes_tenants_and_resumes() {
    for room in (0..24).map(|n| n * 2500) {
        let mut world = World::new(short_segments());
        two_tenants(&mut world).unwrap();
        world.open().unwrap();
        let what = format!("with {room} bytes of room");
        world.fs.set_capacity(Some(world.fs.used() + room));
        let full = (0..60).find_map(|i| {
            let put = world.put(&tenant(1 + i % 2), "a", i, 1500);
            put.and_then(|()| if i % 9 == 8 { world.flush() } else { Ok(()) })
                .err()
        });
        let full = full.unwrap_or_else(|| panic!("{what}: never full"));
        assert_eq!(full.kind(), ErrorKind::NoSpace, "{what}: {full:?}");
        let found = read_all(world.engine()).unwrap();
        let answer = world.known().oracle.find(&found);
        world
            .known()
            .oracle
            .accept(&answer.unwrap_or_else(|| panic!("{what}: reads differ")));
        world
            .delete_tenant(&tenant(1))
            .unwrap_or_else(|e| panic!("{what}: deleting a tenant: {e:?}"));
        world.check().unwrap_or_else(|e| panic!("{what}: {e}"));
        world.fs.set_capacity(None);
        world
            .put(&tenant(2), "a", 1, 1500)
            .unwrap_or_else(|e| panic!("{what}: room is back: {e:?}"));
        world
            .compact()
            .unwrap_or_else(|e| panic!("{what}: room is back: {e:?}"));
        world
            .crash(CrashMode::DropAll, 0)
            .unwrap_or_else(|e| panic!("{what}: {e}"));
    }
}
