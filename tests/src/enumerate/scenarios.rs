//! Scenarios of one engine: a database is prepared undisturbed, then a stretch of work is tried at every
//! operation.

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use strongroom::io::sim::CrashMode;
use strongroom::{Durability, ErrorKind, Options, Result};

use super::Machine;
use super::on_world::prepared;
use crate::dice::Dice;
use crate::world::{World, key_of, name_of_space, name_of_tenant};

/// Segments that a few records fill.
pub(super) fn short_segments() -> Options {
    let mut options = Options::tiny();
    options.segment_bytes = 4 << 10;
    options.wal_keep_bytes = 8 << 10;
    options
}

fn tenant(n: u64) -> String {
    name_of_tenant(n)
}

/// Two tenants with a little in each of two keyspaces, closed.
pub(super) fn two_tenants(world: &mut World) -> Result<()> {
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
fn write_batches(world: &mut World, count: u64, len: usize) -> Result<()> {
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

fn buffered(world: &mut World, name: &str, key: u64, value: Option<Bytes>) -> Result<()> {
    let ops = vec![(name_of_space("a"), key_of(key), value)];
    world.batch(name, ops, Durability::Buffered)
}

pub(super) fn first_opening() -> Box<dyn Machine> {
    prepared(
        Options::tiny(),
        |_| Ok(()),
        |world| {
            world.open()?;
            world.create_tenant(&tenant(1))?;
            world.put(&tenant(1), "a", 1, 30)?;
            world.close()
        },
    )
}

pub(super) fn write() -> Box<dyn Machine> {
    prepared(Options::tiny(), two_tenants, |world| {
        world.open()?;
        write_batches(world, 7, 700)
    })
}

pub(super) fn rotate() -> Box<dyn Machine> {
    prepared(short_segments(), two_tenants, |world| {
        world.open()?;
        write_batches(world, 12, 1500)?;
        world.flush()?;
        world.step(8)?;
        write_batches(world, 3, 1500)
    })
}

pub(super) fn flush() -> Box<dyn Machine> {
    prepared(Options::tiny(), two_tenants, |world| {
        world.open()?;
        write_batches(world, 3, 400)?;
        // Nobody has waited for this one when its memtable becomes a table.
        let value = world.value(300);
        buffered(world, &tenant(2), 7, Some(value))?;
        world.flush()?;
        write_batches(world, 2, 400)?;
        world.flush()?;
        world.put(&tenant(1), "a", 9, 40)
    })
}

/// Memtables that fill up and are flushed by themselves, while the log moves on.
pub(super) fn flush_in_passing() -> Box<dyn Machine> {
    prepared(short_segments(), two_tenants, |world| {
        world.open()?;
        for i in 0..7 {
            let value = world.value(9_000);
            buffered(world, &tenant(1 + i % 2), i, Some(value))?;
            // A job syncs the log; in between segments begin after writes that nobody waited for.
            if i % 3 == 2 {
                world.step(1)?;
            }
        }
        // The last of them filled the memtable, and nobody has waited for it when that becomes a table.
        world.step(1)?;
        world.put(&tenant(1), "a", 9, 40)
    })
}

/// Values that expire while the engine works: a flush and compactions leave them out, and the log is begun anew.
pub(super) fn expiry() -> Box<dyn Machine> {
    let mut options = short_segments();
    options.expiry_grace = Duration::from_secs(1);
    let setup = |world: &mut World| {
        two_tenants(world)?;
        world.open()?;
        world.compact()?;
        world.close()
    };
    let expiring = |world: &mut World, n: u64, space: &str, ttl_ms: u64| {
        let puts = (0..3).map(|key| (key_of(key), world.value(40))).collect();
        let space = name_of_space(space);
        world.put_expiring(&tenant(n), &space, puts, ttl_ms, Durability::Local)
    };
    prepared(options, setup, move |world| {
        world.open()?;
        for n in 1..=2 {
            // Over older values, and over nothing.
            expiring(world, n, "a", 2_000)?;
            expiring(world, n, "c", 10_000)?;
        }
        world.flush()?;
        expiring(world, 1, "b", 2_000)?;
        for wait in [5, 20] {
            world.clock().advance(Duration::from_secs(wait));
            world.step(8)?;
            world.put(&tenant(1), "a", wait, 30)?;
        }
        Ok(())
    })
}

pub(super) fn compact() -> Box<dyn Machine> {
    let setup = |world: &mut World| {
        two_tenants(world)?;
        world.open()?;
        for _ in 0..2 {
            write_batches(world, 4, 300)?;
            world.flush()?;
        }
        world.close()
    };
    prepared(Options::tiny(), setup, |world| {
        world.open()?;
        write_batches(world, 2, 300)?;
        world.flush()?;
        world.step(8)?;
        world.put(&tenant(2), "b", 1, 30)?;
        world.compact()?;
        world.put(&tenant(1), "b", 1, 30)
    })
}

/// Large values stay in tables, which fill levels.
fn large_tables() -> Options {
    let mut options = Options::tiny();
    options.separate_bytes = 0;
    options
}

/// The level below the first is full, the rest lies deeper.
fn two_levels(world: &mut World) -> Result<()> {
    two_tenants(world)?;
    world.open()?;
    for i in 10..60 {
        let value = world.value(6_000);
        buffered(world, &tenant(1), i, Some(value))?;
        world.step(4)?;
    }
    world.flush()?;
    world.step(40)?;
    world.close()
}

/// Range deletes travel down, over what they hide and beside it; some of that is put again.
pub(super) fn compact_range_deletes() -> Box<dyn Machine> {
    prepared(large_tables(), two_levels, |world| {
        world.open()?;
        let space = name_of_space("a");
        let between = |from, to| (Bound::Included(key_of(from)), Bound::Excluded(key_of(to)));
        world.delete_range(&tenant(1), &space, between(12, 30), Durability::Buffered)?;
        world.flush()?;
        world.delete_range(&tenant(1), &space, between(25, 52), Durability::Local)?;
        world.put(&tenant(1), "a", 40, 30)?;
        world.flush()?;
        world.step(3)?;
        world.put(&tenant(2), "b", 1, 30)?;
        world.delete_range(
            &tenant(2),
            &space,
            (Bound::Unbounded, Bound::Unbounded),
            Durability::Local,
        )?;
        world.compact()
    })
}

/// Values that stand apart: written, hidden, moved into another file, and their files given up.
pub(super) fn values() -> Box<dyn Machine> {
    let mut options = Options::tiny();
    options.separate_bytes = 1000;
    let large = |world: &mut World, keys: u64| {
        for key in 0..keys {
            let value = world.value(3_000);
            buffered(world, &tenant(1 + key % 2), key, Some(value))?;
        }
        world.flush()
    };
    let setup = move |world: &mut World| {
        two_tenants(world)?;
        world.open()?;
        large(world, 12)?;
        world.compact()?;
        world.close()
    };
    prepared(options, setup, move |world| {
        world.open()?;
        large(world, 9)?;
        world.step(8)?;
        large(world, 3)?;
        // More than half of the first file is hidden.
        world.step(8)?;
        world.put(&tenant(2), "b", 1, 30)?;
        world.delete_tenant(&tenant(2))?;
        world.step(8)?;
        world.put(&tenant(1), "b", 1, 30)
    })
}

/// Deletes travel down, past what they hide.
pub(super) fn compact_deletes() -> Box<dyn Machine> {
    prepared(large_tables(), two_levels, |world| {
        world.open()?;
        for i in (10..60).step_by(5) {
            buffered(world, &tenant(1), i, None)?;
        }
        world.flush()?;
        world.put(&tenant(1), "a", 9, 30)?;
        world.flush()?;
        world.step(8)?;
        world.put(&tenant(2), "b", 1, 30)?;
        world.compact()
    })
}

/// Creation and deletion: the keystore's log, its base, and the root that is replaced.
pub(super) fn tenants() -> Box<dyn Machine> {
    prepared(Options::tiny(), two_tenants, |world| {
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
    })
}

pub(super) fn delete_keyspace() -> Box<dyn Machine> {
    prepared(Options::tiny(), two_tenants, |world| {
        world.open()?;
        world.delete_keyspace(&tenant(1), &name_of_space("a"))?;
        world.put(&tenant(1), "a", 7, 30)?;
        world.delete_keyspace(&tenant(2), &name_of_space("b"))?;
        world.flush()?;
        world.compact()?;
        world.put(&tenant(2), "c", 1, 30)
    })
}

/// Deletions that nobody waits for: what they drop may be dropped only once they are durable.
pub(super) fn delete_keyspace_buffered() -> Box<dyn Machine> {
    let mut options = Options::tiny();
    options.durability = Durability::Buffered;
    let setup = |world: &mut World| {
        two_tenants(world)?;
        world.open()?;
        write_batches(world, 6, 300)?;
        world.flush()?;
        write_batches(world, 6, 300)?;
        world.flush()?;
        world.close()
    };
    prepared(options, setup, |world| {
        world.open()?;
        world.put(&tenant(2), "b", 1, 30)?;
        world.delete_keyspace(&tenant(1), &name_of_space("a"))?;
        world.step(8)?;
        world.delete_keyspace(&tenant(2), &name_of_space("b"))?;
        world.step(8)?;
        world.put(&tenant(2), "c", 1, 30)
    })
}

/// Edit after edit, and a new manifest at every opening and closing.
pub(super) fn manifests() -> Box<dyn Machine> {
    prepared(short_segments(), two_tenants, |world| {
        for i in 0..3 {
            world.open()?;
            world.put(&tenant(1), "a", i, 40)?;
            world.flush()?;
            world.put(&tenant(2), "a", i, 40)?;
            world.flush()?;
            world.close()?;
        }
        world.open()?;
        world.put(&tenant(1), "b", 1, 30)
    })
}

pub(super) fn checkpoint() -> Box<dyn Machine> {
    let setup = |world: &mut World| {
        two_tenants(world)?;
        world.open()?;
        write_batches(world, 2, 300)?;
        world.flush()?;
        world.close()
    };
    prepared(Options::tiny(), setup, |world| {
        world.open()?;
        world.put(&tenant(1), "a", 7, 30)?;
        world.checkpoint("/srv/copy")?;
        world.put(&tenant(1), "a", 7, 30)?;
        world.flush()?;
        world.compact()
    })
}

/// Leaves the log with a tail that is torn, after work that includes a flush.
fn torn_tail(world: &mut World) -> Result<()> {
    two_tenants(world)?;
    world.open()?;
    write_batches(world, 3, 900)?;
    world.flush()?;
    write_batches(world, 5, 900)?;
    buffered(world, &tenant(1), 50, None)?;
    world.kill();
    // The first seed of which recovery has something to cut.
    for seed in 0..1000 {
        let image = world.fs.crashed_image(CrashMode::KeepRandom, seed);
        let mut copy = world.moment("").world_on(image.fork());
        copy.reopen().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        if copy.engine().recovery().cut_bytes > 0 {
            world.fs = image;
            return Ok(());
        }
    }
    panic!("no seed leaves a torn tail");
}

pub(super) fn recovery() -> Box<dyn Machine> {
    prepared(Options::tiny(), torn_tail, |world| {
        world.reopen().map_err(machine_error)?;
        world.put(&tenant(1), "a", 1, 30)?;
        world.close()?;
        world.open()?;
        world.put(&tenant(2), "a", 1, 30)
    })
}

/// Recovery and nothing else, over several segments that were never flushed.
pub(super) fn recovery_alone() -> Box<dyn Machine> {
    prepared(short_segments(), torn_tail, |world| {
        world.reopen().map_err(machine_error)
    })
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

/// A random stretch of work, the same for the same seed: what no list of scenarios thought of.
pub(super) fn random_work(seed: u64) -> Box<dyn Machine> {
    let options = match seed % 2 {
        0 => Options::tiny(),
        _ => short_segments(),
    };
    prepared(options, two_tenants, move |world| {
        world.open()?;
        random_acts(world, seed, 40)
    })
}

fn random_acts(world: &mut World, seed: u64, acts: u64) -> Result<()> {
    let mut dice = Dice::new(seed);
    for _ in 0..acts {
        let tenants = world.known().oracle.tenants();
        let name = dice.pick(&tenants).clone();
        match dice.below(24) {
            0..=11 => {
                let ops = (0..1 + dice.below(4)).map(|_| {
                    let len = *dice.pick(&[0, 20, 300, 3000]);
                    let value = (!dice.percent(25)).then(|| world.value(len));
                    let space = name_of_space(["a", "b"][dice.below(2) as usize]);
                    (space, key_of(dice.below(12)), value)
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
