//! Every operation of every scenario is tried as the moment at which the power fails, and as the
//! one operation that fails.
//!
//! For each scenario, on a simulated disk:
//!
//! 1. **Power failure.** The scenario runs once; before each operation of the disk the moment is
//!    recorded: disk, key provider, and what is acknowledged and submitted. For each moment and each
//!    manner of losing what was not synced (nothing kept, all kept, several random parts) the
//!    database is opened on what is left. Its whole content, over all tenants, must be a state that
//!    contains everything acknowledged and whole batches only; then work goes on, and the database
//!    must survive another crash, a compaction, or a close.
//! 2. **Machine goes off under the engine.** For each operation the scenario runs again with this and
//!    all later calls failing: typed errors, no panic, no hang, and the same check after it.
//! 3. **One failing operation**, for each operation an I/O error and a full disk: a typed error or
//!    success, and the same checks after a kill, after a crash, and after a kill followed by work
//!    followed by a crash (bytes whose sync failed are readable until then, and lost at the crash).
//! 4. **A disk that stays full** from each operation on, until room is made: reads go on, and writes
//!    resume without a restart.
//! 5. **One failing read**, for a sample of the reading calls.
//!
//! `STRONGROOM_CRASH_SEEDS` sets the number of random parts (default 3), `STRONGROOM_SEED` the first.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a surprise is a failure")]

mod standby;
mod threads;

use std::collections::HashSet;
use std::fmt::Display;

use strongroom::io::sim::{CrashMode, Fault, Op, OpKind, SimFs, Times};
use strongroom::{Durability, ErrorKind, Options};
use strongroom_tests::dice::Dice;
use strongroom_tests::world::{
    Moment, World, is_failure_of_the_machine, key_of, name_of_space, name_of_tenant,
};

type Step = fn(&mut World) -> strongroom::Result<()>;

/// A stretch of work: `setup` prepares a database undisturbed, `run` is tried at every operation.
struct Scenario {
    name: &'static str,
    options: Options,
    setup: Step,
    run: Step,
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(default)
}

impl Scenario {
    /// The prepared machine, killed (if `setup` did not close).
    fn prepared(&self) -> World {
        let mut world = World::new(self.options.clone());
        (self.setup)(&mut world).unwrap_or_else(|e| panic!("{}: setup: {e:?}", self.name));
        world.kill();
        world
    }

    fn go(&self) {
        let base = self.prepared();
        let operations = self
            .power_failures(&base)
            .unwrap_or_else(|(what, why)| self.fail(what, why));
        self.machine_off(&base, operations);
        self.failing_operations(&base, operations);
        self.full_disk(&base, operations);
        self.failing_reads(&base);
    }

    fn fail(&self, what: impl Display, why: impl Display) -> ! {
        panic!("\nscenario {}: {what}\n{why}\n", self.name)
    }

    /// Every disk that may be left of a moment, each only once.
    fn images(&self, moment: &Moment, seen: &mut HashSet<(u64, u64, usize)>) -> Vec<(String, SimFs)> {
        let first = number("STRONGROOM_SEED", 0);
        let mut images = Vec::new();
        let mut add = |mode, seed| {
            let image = moment.fs.crashed_image(mode, seed);
            if seen.insert(moment.stamp(&image)) {
                images.push((format!("{}, {mode:?} with seed {seed}", moment.label), image));
            }
        };
        add(CrashMode::DropAll, 0);
        add(CrashMode::KeepAll, 0);
        if moment.fs.unsynced() > 0 {
            (first..first + number("STRONGROOM_CRASH_SEEDS", 3))
                .for_each(|seed| add(CrashMode::KeepRandom, seed));
        }
        images
    }

    /// Returns the number of operations, or the moment and what is wrong with what it leaves.
    fn power_failures(&self, base: &World) -> Result<u64, (String, String)> {
        self.power_failures_on(base.fork())
    }

    fn power_failures_on(&self, world: World) -> Result<u64, (String, String)> {
        self.power_failures_of(world, self.run)
    }

    fn power_failures_of(
        &self,
        mut world: World,
        run: impl Fn(&mut World) -> strongroom::Result<()>,
    ) -> Result<u64, (String, String)> {
        let before = world.fs.ops();
        let moments = world.record();
        if let Err(e) = run(&mut world) {
            self.fail("undisturbed", format!("{e:?}"));
        }
        world.fs.clear_probe();
        let operations = world.fs.ops() - before;
        let mut moments = std::mem::take(&mut *moments.lock().unwrap());
        assert!(operations > 0 && moments.len() as u64 == operations);
        moments.push(world.moment("at the end"));
        world.kill();
        moments.push(world.moment("after dropping the engine"));
        let mut seen = HashSet::new();
        for (n, moment) in moments.iter().enumerate() {
            for (what, image) in self.images(moment, &mut seen) {
                moment.examine(image, n as u64).map_err(|why| (what, why))?;
            }
        }
        println!(
            "{}: {operations} operations, {} disks examined",
            self.name,
            seen.len()
        );
        Ok(operations)
    }

    fn machine_off(&self, base: &World, operations: u64) {
        let mut seen = HashSet::new();
        for at in 1..=operations {
            let mut world = base.fork();
            let half = at % 2 == 0;
            world.fs.crash_at(world.fs.ops() + at, half);
            let what = format!("machine off from operation {at} of the scenario, half a write: {half}");
            match (self.run)(&mut world) {
                Err(e) if is_failure_of_the_machine(&e) => {}
                Err(e) => self.fail(what, format!("an error of the wrong kind: {e:?}")),
                // What is left to do at the end may fail without anybody to tell.
                Ok(()) => {}
            }
            world.kill();
            let moment = world.moment(what);
            for (what, image) in self.images(&moment, &mut seen) {
                if let Err(why) = moment.examine(image, at) {
                    self.fail(what, why);
                }
            }
        }
    }

    fn failing_operations(&self, base: &World, operations: u64) {
        for at in 1..=operations {
            for full in [false, true] {
                let mut world = base.fork();
                let op = world.fs.ops() + at;
                let fault = if full {
                    Fault::disk_full(op, Times::Once)
                } else {
                    Fault::io_error(op, Times::Once)
                };
                world.fs.fail(fault);
                let what = format!("operation {at} of the scenario fails once with {:?}", fault.kind);
                match (self.run)(&mut world) {
                    Err(e) if is_failure_of_the_machine(&e) => {}
                    Err(e) => self.fail(what, format!("an error of the wrong kind: {e:?}")),
                    Ok(()) => {}
                }
                if world.is_open() {
                    self.check_still_readable(&world, &what);
                }
                world.kill();
                let moment = world.moment(what.clone());
                let images = [
                    ("kill", moment.fs.fork()),
                    (
                        "crash that drops all",
                        moment.fs.crashed_image(CrashMode::DropAll, 0),
                    ),
                    (
                        "crash that keeps all",
                        moment.fs.crashed_image(CrashMode::KeepAll, 0),
                    ),
                    ("random crash", moment.fs.crashed_image(CrashMode::KeepRandom, at)),
                ];
                for (way, image) in images {
                    // A kill is always followed by work and a crash: what a failed sync has left
                    // readable is lost then.
                    let thorough = if way == "kill" { 0 } else { at };
                    if let Err(why) = moment.examine(image, thorough) {
                        self.fail(format!("{what}, then a {way}"), why);
                    }
                }
            }
        }
    }

    /// What is acknowledged stays readable after a failure, whether the engine still writes or not.
    fn check_still_readable(&self, world: &World, what: &str) {
        let found = strongroom_tests::oracle::read_all(world.engine());
        let found = found.unwrap_or_else(|e| self.fail(what, format!("reads fail afterwards: {e:?}")));
        let known = world.known();
        if known.oracle.find(&found).is_none() {
            self.fail(
                what,
                format!("reads differ afterwards: {}", known.oracle.explain(&found)),
            );
        }
    }

    fn full_disk(&self, base: &World, operations: u64) {
        for at in 1..=operations {
            let mut world = base.fork();
            world
                .fs
                .fail(Fault::disk_full(world.fs.ops() + at, Times::Forever));
            let what = format!("disk full from operation {at} of the scenario");
            let error = (self.run)(&mut world).err();
            if let Some(e) = &error
                && e.kind() != ErrorKind::NoSpace
            {
                self.fail(what, format!("an error of the wrong kind: {e:?}"));
            }
            if world.is_open() {
                self.check_still_readable(&world, &what);
                world.fs.clear_faults();
                // What is there now counts; a failed write that shows must stay.
                let found = strongroom_tests::oracle::read_all(world.engine()).unwrap();
                let tenants = {
                    let mut known = world.known();
                    let answer = known.oracle.find(&found).unwrap();
                    known.oracle.accept(&answer);
                    known.oracle.tenants()
                };
                for name in tenants {
                    if let Err(e) = world.put(&name, "room", 1, 100) {
                        self.fail(what, format!("writes do not resume when there is room: {e:?}"));
                    }
                }
                if let Err(why) = world.check() {
                    self.fail(what, why);
                }
            }
            world.kill();
            world.fs.clear_faults();
            let moment = world.moment(what.clone());
            let mode = if at % 2 == 0 {
                CrashMode::DropAll
            } else {
                CrashMode::KeepAll
            };
            if let Err(why) = moment.examine(moment.fs.crashed_image(mode, 0), at) {
                self.fail(format!("{what}, then a crash"), why);
            }
        }
    }

    fn failing_reads(&self, base: &World) {
        let mut world = base.fork();
        let before = world.fs.reads();
        (self.run)(&mut world).unwrap_or_else(|e| self.fail("undisturbed", format!("{e:?}")));
        let reads = world.fs.reads() - before;
        let mut dice = Dice::new(number("STRONGROOM_SEED", 0));
        let sample: Vec<u64> = if reads <= 60 {
            (1..=reads).collect()
        } else {
            (0..60).map(|_| 1 + dice.below(reads)).collect()
        };
        for at in sample {
            let mut world = base.fork();
            world
                .fs
                .fail(Fault::read_error(world.fs.reads() + at, Times::Once));
            let what = format!("reading call {at} of the scenario fails once");
            match (self.run)(&mut world) {
                Err(e) if is_failure_of_the_machine(&e) => {}
                Err(e) => self.fail(what, format!("an error of the wrong kind: {e:?}")),
                Ok(()) => {}
            }
            world.kill();
            let moment = world.moment(what.clone());
            if let Err(why) = moment.examine(moment.fs.crashed_image(CrashMode::DropAll, 0), at) {
                self.fail(format!("{what}, then a crash"), why);
            }
        }
    }
}

// ---- scenarios ----

/// Segments that a few records fill.
fn short_segments() -> Options {
    let mut options = Options::tiny();
    options.segment_bytes = 4 << 10;
    options.wal_keep_bytes = 8 << 10;
    options
}

fn tenant(n: u64) -> String {
    name_of_tenant(n)
}

/// Two tenants with a little in each of two keyspaces, closed.
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

/// A few batches over two keyspaces, some of them not synced.
fn write_batches(world: &mut World, count: u64, len: usize) -> strongroom::Result<()> {
    for i in 0..count {
        let ops = vec![
            (name_of_space("a"), key_of(i), Some(world.value(len))),
            (name_of_space("b"), key_of(i), Some(world.value(20))),
            (name_of_space("a"), key_of(i + 1), None),
        ];
        let durability = if i % 3 == 1 {
            Durability::Buffered
        } else {
            Durability::Local
        };
        world.batch(&tenant(1 + i % 2), ops, durability)?;
    }
    Ok(())
}

fn first_opening() -> Scenario {
    Scenario {
        name: "first opening",
        options: Options::tiny(),
        setup: |_| Ok(()),
        run: |world| {
            world.open()?;
            world.create_tenant(&tenant(1))?;
            world.put(&tenant(1), "a", 1, 30)?;
            world.close()
        },
    }
}

fn write() -> Scenario {
    Scenario {
        name: "write",
        options: Options::tiny(),
        setup: two_tenants,
        run: |world| {
            world.open()?;
            write_batches(world, 7, 700)
        },
    }
}

fn rotate() -> Scenario {
    Scenario {
        name: "rotate",
        options: short_segments(),
        setup: two_tenants,
        run: |world| {
            world.open()?;
            write_batches(world, 12, 1500)?;
            world.flush()?;
            world.step(8)?;
            write_batches(world, 3, 1500)
        },
    }
}

fn flush() -> Scenario {
    Scenario {
        name: "flush",
        options: Options::tiny(),
        setup: two_tenants,
        run: |world| {
            world.open()?;
            write_batches(world, 3, 400)?;
            world.flush()?;
            write_batches(world, 2, 400)?;
            world.flush()?;
            world.put(&tenant(1), "a", 9, 40)
        },
    }
}

fn compact() -> Scenario {
    Scenario {
        name: "compact",
        options: Options::tiny(),
        setup: |world| {
            two_tenants(world)?;
            world.open()?;
            for _ in 0..2 {
                write_batches(world, 4, 300)?;
                world.flush()?;
            }
            world.close()
        },
        run: |world| {
            world.open()?;
            write_batches(world, 2, 300)?;
            world.flush()?;
            world.step(8)?;
            world.put(&tenant(2), "b", 1, 30)?;
            world.compact()?;
            world.put(&tenant(1), "b", 1, 30)
        },
    }
}

fn delete_tenant() -> Scenario {
    Scenario {
        name: "delete a tenant",
        options: Options::tiny(),
        setup: two_tenants,
        run: |world| {
            world.open()?;
            world.create_tenant(&tenant(3))?;
            world.put(&tenant(3), "a", 1, 30)?;
            world.delete_tenant(&tenant(1))?;
            world.put(&tenant(2), "a", 1, 30)?;
            world.flush()?;
            world.create_tenant(&tenant(1))?;
            world.put(&tenant(1), "a", 2, 30)?;
            world.compact()?;
            world.delete_tenant(&tenant(3))
        },
    }
}

fn delete_keyspace() -> Scenario {
    Scenario {
        name: "delete a keyspace",
        options: Options::tiny(),
        setup: two_tenants,
        run: |world| {
            world.open()?;
            world.delete_keyspace(&tenant(1), &name_of_space("a"))?;
            world.put(&tenant(1), "a", 7, 30)?;
            world.delete_keyspace(&tenant(2), &name_of_space("b"))?;
            world.flush()?;
            world.compact()?;
            world.put(&tenant(2), "c", 1, 30)
        },
    }
}

fn checkpoint() -> Scenario {
    Scenario {
        name: "checkpoint",
        options: Options::tiny(),
        setup: |world| {
            two_tenants(world)?;
            world.open()?;
            write_batches(world, 2, 300)?;
            world.flush()?;
            world.close()
        },
        run: |world| {
            world.open()?;
            world.put(&tenant(1), "a", 7, 30)?;
            world.checkpoint("/srv/copy")?;
            world.put(&tenant(1), "a", 7, 30)?;
            world.flush()?;
            world.compact()
        },
    }
}

fn open_after_a_crash() -> Scenario {
    Scenario {
        name: "open after a crash",
        options: Options::tiny(),
        setup: |world| {
            two_tenants(world)?;
            world.open()?;
            write_batches(world, 3, 900)?;
            world.flush()?;
            write_batches(world, 5, 900)?;
            world.batch(
                &tenant(1),
                vec![(name_of_space("a"), key_of(50), None)],
                Durability::Buffered,
            )?;
            world.kill();
            // A tail that is torn: the first seed of which recovery has something to cut.
            for seed in 0.. {
                let mut copy = world
                    .moment("")
                    .world_on(world.fs.crashed_image(CrashMode::KeepRandom, seed));
                copy.reopen().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                if copy.engine().recovery().cut_bytes > 0 || seed == 40 {
                    world.fs = world.fs.crashed_image(CrashMode::KeepRandom, seed);
                    break;
                }
            }
            Ok(())
        },
        run: |world| {
            world.reopen().map_err(machine_error)?;
            world.put(&tenant(1), "a", 1, 30)?;
            world.close()?;
            world.open()?;
            world.put(&tenant(2), "a", 1, 30)
        },
    }
}

/// A random stretch of work, the same for the same seed: what no list of scenarios thought of.
fn random_work(world: &mut World, seed: u64, acts: u64) -> strongroom::Result<()> {
    let mut dice = Dice::new(seed);
    for _ in 0..acts {
        let tenants = world.known().oracle.tenants();
        let name = dice.pick(&tenants).clone();
        match dice.below(24) {
            0..=11 => {
                let ops = (0..1 + dice.below(4)).map(|_| {
                    let len = *dice.pick(&[0, 20, 300, 3000]);
                    let value = (!dice.percent(25)).then(|| world.value(len));
                    (
                        name_of_space(["a", "b"][dice.below(2) as usize]),
                        key_of(dice.below(12)),
                        value,
                    )
                });
                let ops = ops.collect();
                let durability = *dice.pick(&[Durability::Local, Durability::Buffered]);
                world.batch(&name, ops, durability)?;
            }
            12..=14 => world.flush()?,
            15..=16 => world.compact()?,
            17..=18 => world.step(1)?,
            19 => {
                let spaces = world.visible().remove(&name).unwrap_or_default();
                if let Some(space) = spaces.keys().next() {
                    world.delete_keyspace(&name, space)?;
                }
            }
            20 => {
                world.close()?;
                world.open()?;
            }
            21 => {
                let copies = world.known().copies.len();
                if copies < 2 {
                    world.checkpoint(&format!("/srv/copy-{copies}"))?;
                }
            }
            22 if tenants.len() > 2 => world.delete_tenant(&name)?,
            _ => {
                let unused = (1..9).map(tenant).find(|name| !tenants.contains(name));
                world.create_tenant(&unused.expect("few tenants")).map(drop)?;
            }
        }
    }
    Ok(())
}

#[test]
fn every_operation_of_random_work_may_be_the_last() {
    let first = number("STRONGROOM_SEED", 0);
    for seed in first..first + number("STRONGROOM_RANDOM_WORK", 4) {
        let options = if seed % 2 == 0 {
            Options::tiny()
        } else {
            short_segments()
        };
        let scenario = Scenario {
            name: "random work",
            options,
            setup: two_tenants,
            run: |_| unreachable!(),
        };
        let mut base = scenario.prepared();
        base.open().unwrap();
        let result = scenario.power_failures_of(base, |world| random_work(world, seed, 40));
        if let Err((what, why)) = result {
            scenario.fail(
                format!("REPRO: STRONGROOM_SEED={seed} STRONGROOM_RANDOM_WORK=1: {what}"),
                why,
            );
        }
    }
}

/// `reopen` tells what is wrong as text; on a failing machine that is a failing call.
fn machine_error(text: String) -> strongroom::Error {
    assert!(!text.contains("allowed state"), "{text}");
    let kind = if text.contains("NoSpace") {
        ErrorKind::NoSpace
    } else {
        ErrorKind::Io
    };
    assert!(
        ["Io", "NoSpace", "ReadOnly", "Unknown"]
            .iter()
            .any(|k| text.contains(k)),
        "{text}"
    );
    strongroom::Error::new(kind, text)
}

/// The suite's list: each scenario is a test of its own, so that they run side by side.
macro_rules! suite {
    ($($test:ident: $scenario:ident,)*) => {$(
        #[test]
        fn $test() {
            $scenario().go();
        }
    )*};
}

suite! {
    every_operation_of_a_first_opening_may_fail: first_opening,
    every_operation_of_writing_may_fail: write,
    every_operation_of_rotation_may_fail: rotate,
    every_operation_of_a_flush_may_fail: flush,
    every_operation_of_a_compaction_may_fail: compact,
    every_operation_of_deleting_a_tenant_may_fail: delete_tenant,
    every_operation_of_deleting_a_keyspace_may_fail: delete_keyspace,
    every_operation_of_a_checkpoint_may_fail: checkpoint,
    every_operation_of_recovery_may_fail: open_after_a_crash,
}

/// On a disk that is really full, not only failing: reads go on, tenants can be deleted, and writes
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
        let found = strongroom_tests::oracle::read_all(world.engine()).unwrap();
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

/// The harness itself: an engine that left out one of its syncs is found out. A disk that lies about
/// that sync stands for it.
#[test]
fn left_out_sync_is_found_out() {
    let planted: [Planted; 10] = [
        ("bytes of the log", |op| is_file(op, ".wal"), write),
        ("names of segments", |op| is_dir(op, "wal"), rotate),
        ("bytes of tables", |op| is_file(op, ".table"), flush),
        ("names of tables", |op| is_dir(op, "tables"), flush),
        ("bytes of the manifest", |op| is_file(op, "manifest-"), flush),
        (
            "bytes of CURRENT",
            |op| is_file(op, "CURRENT"),
            open_after_a_crash,
        ),
        ("names of the database", |op| is_dir(op, "db"), open_after_a_crash),
        (
            "bytes of the keystore's base",
            |op| is_file(op, "base-"),
            delete_tenant,
        ),
        (
            "bytes of the keystore's log",
            |op| is_file(op, "log-"),
            delete_tenant,
        ),
        (
            "names of the keystore",
            |op| is_dir(op, "keystore"),
            delete_tenant,
        ),
    ];
    for (what, lie, scenario) in planted {
        let scenario = scenario();
        let world = scenario.prepared();
        world.fs.lie_about_syncs(lie);
        match scenario.power_failures_on(world) {
            Err((when, why)) => {
                println!("{what}: found {when}: {}", why.lines().next().unwrap_or_default());
            }
            Ok(_) => panic!("{}: nobody notices that {what} are not synced", scenario.name),
        }
    }
}

/// What is not synced, which syncs lie, and the scenario that must notice.
type Planted = (&'static str, Lie, fn() -> Scenario);
type Lie = fn(&Op) -> bool;

fn is_file(op: &Op, part: &str) -> bool {
    op.kind == OpKind::Sync
        && op
            .path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().contains(part))
}

fn is_dir(op: &Op, name: &str) -> bool {
    op.kind == OpKind::SyncDir && op.path.file_name().is_some_and(|n| n == name)
}
