//! Random operations against the model: several tenants and keyspaces, snapshots, ranges both ways,
//! flush, compaction, background steps, checkpoint, tenants and keyspaces that come and go, reopening
//! and crashes.
//!
//! proptest shrinks what fails to a short list of operations. The seed is printed; `STRONGROOM_SEED`
//! repeats it, `STRONGROOM_CASES` (default 96) sets how many lists are tried.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a surprise is a failure")]

mod threads;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use strongroom::io::sim::CrashMode;
use strongroom::{Durability, ErrorKind, Options, Snapshot};
use strongroom_tests::canary;
use strongroom_tests::dice::Dice;
use strongroom_tests::oracle::{Entries, Spaces};
use strongroom_tests::world::{World, key_of, name_of_space, name_of_tenant};

const TENANTS: u8 = 4;
const SPACES: u8 = 3;
const KEYS: u64 = 40;

/// One thing to do. Numbers choose names and keys; what does not apply is skipped.
#[derive(Clone, Debug)]
enum Act {
    CreateTenant(u8),
    DeleteTenant(u8),
    DeleteKeyspace(u8, u8),
    /// Tenant; (keyspace, key, length of the value or deletion); synced or not.
    Batch(u8, Vec<(u8, u64, Option<u16>)>, bool),
    Get(u8, u8, u64),
    /// Keyspace, two keys, which bounds are inclusive, backwards, how many.
    Range(u8, u8, u64, u64, [bool; 2], bool, u8),
    /// Both ends in turn until they meet.
    BothEnds(u8, u8),
    Snapshot(u8),
    ReadSnapshot(u8),
    DropSnapshot(u8),
    Flush,
    Compact,
    Step,
    Checkpoint,
    Reopen,
    Kill,
    Crash(u64),
}

/// `large`: values that fill memtables and levels.
fn act(large: bool) -> impl Strategy<Value = Act> {
    let length = match large {
        true => {
            prop_oneof![1 => (0u16..300).prop_map(Some), 4 => (2000u16..9000).prop_map(Some), 1 => Just(None)]
                .boxed()
        }
        false => prop_oneof![4 => (0u16..300).prop_map(Some), 1 => Just(Some(6000)), 2 => Just(None)].boxed(),
    };
    let op = (0..SPACES, 0..KEYS, length);
    let place = (0..TENANTS, 0..SPACES);
    prop_oneof![
        3 => (0..TENANTS).prop_map(Act::CreateTenant),
        1 => (0..TENANTS).prop_map(Act::DeleteTenant),
        1 => place.clone().prop_map(|(t, s)| Act::DeleteKeyspace(t, s)),
        24 => (0..TENANTS, prop::collection::vec(op, 1..6), any::<bool>()).prop_map(|(t, o, d)| Act::Batch(t, o, d)),
        6 => (place.clone(), 0..KEYS).prop_map(|((t, s), k)| Act::Get(t, s, k)),
        6 => (place.clone(), 0..KEYS, 0..KEYS, any::<[bool; 2]>(), any::<bool>(), 0..20u8)
            .prop_map(|((t, s), a, b, i, r, n)| Act::Range(t, s, a, b, i, r, n)),
        2 => place.prop_map(|(t, s)| Act::BothEnds(t, s)),
        3 => (0..TENANTS).prop_map(Act::Snapshot),
        3 => any::<u8>().prop_map(Act::ReadSnapshot),
        2 => any::<u8>().prop_map(Act::DropSnapshot),
        3 => Just(Act::Flush),
        2 => Just(Act::Compact),
        3 => Just(Act::Step),
        1 => Just(Act::Checkpoint),
        2 => Just(Act::Reopen),
        1 => Just(Act::Kill),
        2 => any::<u64>().prop_map(Act::Crash),
    ]
}

/// A snapshot and what it must go on showing.
struct Held {
    tenant: String,
    compacted: bool,
    snapshot: Snapshot,
    content: Spaces,
}

struct Run {
    world: World,
    held: Vec<Held>,
    reached: Reached,
    /// Names of tenants and keyspaces that were created once.
    used: BTreeSet<String>,
}

/// Rare states, counted: what random lists never reach is not tested by them.
type Reached = Arc<Mutex<BTreeMap<&'static str, u64>>>;

/// Those that every test must reach.
const MUST_REACH: [&str; 8] = [
    "a crash lost an accepted write",
    "a keyspace's name is used again",
    "a snapshot is read after a compaction",
    "a tenant's name is used again",
    "recovery cut a torn tail",
    "recovery replayed records",
    "there are tables below level 0",
    "two generations of tables overlap",
];

type Check = Result<(), String>;

fn failed(e: strongroom::Error) -> String {
    format!("{e:?}")
}

impl Run {
    /// With the first two tenants.
    fn new(options: Options, reached: Reached) -> Result<Run, String> {
        let mut world = World::new(options);
        world.open().map_err(failed)?;
        for n in 0..2 {
            world.create_tenant(&name_of_tenant(n)).map_err(failed)?;
        }
        Ok(Run {
            world,
            held: Vec::new(),
            reached,
            used: BTreeSet::new(),
        })
    }

    fn reach(&self, state: &'static str, is: bool) {
        *self.reached.lock().unwrap().entry(state).or_default() += u64::from(is);
    }

    fn act(&mut self, act: &Act) -> Check {
        match act {
            Act::CreateTenant(n) => self.create_tenant(&name_of_tenant(n)),
            Act::DeleteTenant(n) => {
                let name = name_of_tenant(n);
                if !self.exists(&name) {
                    return self.absent(&name);
                }
                self.held.retain(|h| h.tenant != name);
                self.world.delete_tenant(&name).map_err(failed)?;
                self.absent(&name)
            }
            Act::DeleteKeyspace(t, s) => {
                let (name, space) = (name_of_tenant(t), name_of_space(&s.to_string()));
                if self.entries(&name, &space).is_none() {
                    return Ok(());
                }
                // Snapshots of a keyspace that is deleted promise nothing.
                self.held
                    .iter_mut()
                    .filter(|h| h.tenant == name)
                    .for_each(|h| drop(h.content.remove(&space)));
                self.world.delete_keyspace(&name, &space).map_err(failed)
            }
            Act::Batch(t, ops, synced) => self.batch(&name_of_tenant(t), ops, *synced),
            Act::Get(t, s, k) => self.get(&name_of_tenant(t), &name_of_space(&s.to_string()), &key_of(*k)),
            Act::Range(t, s, a, b, inclusive, backwards, most) => {
                let bound = |key: u64, inclusive: bool| match inclusive {
                    true => Bound::Included(key_of(key)),
                    false => Bound::Excluded(key_of(key)),
                };
                let range = (bound(*a.min(b), inclusive[0]), bound(*a.max(b), inclusive[1]));
                if a == b && *inclusive == [false; 2] {
                    return Ok(()); // no range, to the model either
                }
                self.range(
                    &name_of_tenant(t),
                    &name_of_space(&s.to_string()),
                    range,
                    *backwards,
                    *most,
                )
            }
            Act::BothEnds(t, s) => self.both_ends(&name_of_tenant(t), &name_of_space(&s.to_string())),
            Act::Snapshot(t) => {
                let tenant = name_of_tenant(t);
                if self.exists(&tenant) && self.held.len() < 4 {
                    let snapshot = self.world.engine().tenant(&tenant).map_err(failed)?.snapshot();
                    let content = self.world.visible().remove(&tenant).unwrap_or_default();
                    self.held.push(Held {
                        tenant,
                        compacted: false,
                        snapshot,
                        content,
                    });
                }
                Ok(())
            }
            Act::ReadSnapshot(n) => match self.held.len() {
                0 => Ok(()),
                len => self.read_snapshot(usize::from(*n) % len),
            },
            Act::DropSnapshot(n) => {
                if !self.held.is_empty() {
                    self.held.swap_remove(usize::from(*n) % self.held.len());
                }
                Ok(())
            }
            Act::Flush => self.world.flush().map_err(failed),
            Act::Compact => {
                self.held.iter_mut().for_each(|held| held.compacted = true);
                let levels = self.world.engine().status().tables_per_level;
                self.reach(
                    "two generations of tables overlap",
                    levels.first().is_some_and(|n| *n > 1),
                );
                self.world.compact().map_err(failed)?;
                let levels = self.world.engine().status().tables_per_level;
                self.reach(
                    "there are tables below level 0",
                    levels.iter().skip(1).any(|n| *n > 0),
                );
                self.reach(
                    "there are tables below level 1",
                    levels.iter().skip(2).any(|n| *n > 0),
                );
                self.reach(
                    "there are tables below level 2",
                    levels.iter().skip(3).any(|n| *n > 0),
                );
                Ok(())
            }
            Act::Step => self.world.step(1).map_err(failed),
            Act::Checkpoint => self.checkpoint(),
            Act::Reopen => {
                self.held.clear();
                self.world.close().map_err(failed)?;
                self.world.reopen()?;
                match self.world.engine().recovery() {
                    r if r.clean && r.cut_bytes == 0 => Ok(()),
                    r => Err(format!("after a close in order: {r:?}")),
                }
            }
            Act::Kill => {
                self.held.clear();
                self.world.kill();
                let expected = self.world.visible();
                self.world.reopen()?;
                if self.world.visible() != expected {
                    return Err("a kill of the process lost an accepted write".into());
                }
                Ok(())
            }
            Act::Crash(seed) => {
                self.held.clear();
                let mode = match seed % 4 {
                    0 => CrashMode::DropAll,
                    1 => CrashMode::KeepAll,
                    _ => CrashMode::KeepRandom,
                };
                let before = self.world.visible();
                self.world.crash(mode, *seed)?;
                self.reach("a crash lost an accepted write", self.world.visible() != before);
                let recovery = self.world.engine().recovery();
                self.reach("recovery cut a torn tail", recovery.cut_bytes > 0);
                self.reach("recovery replayed records", recovery.records > 0);
                Ok(())
            }
        }
    }

    fn exists(&self, tenant: &str) -> bool {
        self.world.known().oracle.tenant(tenant).is_some()
    }

    fn entries(&self, tenant: &str, space: &str) -> Option<Entries> {
        self.world.visible().remove(tenant)?.remove(space)
    }

    fn absent(&self, tenant: &str) -> Check {
        match self.world.engine().tenant(tenant) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(failed(e)),
            Ok(_) => Err("a tenant that does not exist is opened".into()),
        }
    }

    fn create_tenant(&mut self, name: &str) -> Check {
        if !self.exists(name) {
            let again = !self.used.insert(name.to_string());
            self.reach("a tenant's name is used again", again);
            return self.world.create_tenant(name).map(drop).map_err(failed);
        }
        match self
            .world
            .engine()
            .create_tenant(name, strongroom::TenantOptions::default())
        {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => Err(format!("a tenant is created twice: {:?}", other.err())),
        }
    }

    fn batch(&mut self, tenant: &str, ops: &[(u8, u64, Option<u16>)], synced: bool) -> Check {
        if !self.exists(tenant) {
            return Ok(());
        }
        let ops = ops.iter().map(|(space, key, len)| {
            let value = len.map(|len| self.world.value(usize::from(len)));
            (name_of_space(&space.to_string()), key_of(*key), value)
        });
        let ops: Vec<_> = ops.collect();
        for (space, ..) in ops.iter() {
            let (name, missing) = (format!("{tenant}/{space}"), self.entries(tenant, space).is_none());
            let again = missing && !self.used.insert(name);
            self.reach("a keyspace's name is used again", again);
        }
        let durability = if synced {
            Durability::Local
        } else {
            Durability::Buffered
        };
        self.world.batch(tenant, ops, durability).map_err(failed)
    }

    fn get(&self, tenant: &str, space: &str, key: &Bytes) -> Check {
        let Some(entries) = self.entries(tenant, space) else {
            return Ok(());
        };
        let space = self
            .world
            .engine()
            .tenant(tenant)
            .and_then(|t| t.open_keyspace(space))
            .map_err(failed)?;
        let found = space.get(key).map_err(failed)?;
        if found.as_ref() == entries.get(key) {
            Ok(())
        } else {
            Err("get differs".into())
        }
    }

    fn range(
        &self,
        tenant: &str,
        space: &str,
        range: (Bound<Bytes>, Bound<Bytes>),
        backwards: bool,
        most: u8,
    ) -> Check {
        let Some(entries) = self.entries(tenant, space) else {
            return Ok(());
        };
        let space = self
            .world
            .engine()
            .tenant(tenant)
            .and_then(|t| t.open_keyspace(space))
            .map_err(failed)?;
        let most = usize::from(most);
        let expected = entries.range::<Bytes, _>((range.0.as_ref(), range.1.as_ref()));
        let expected: Vec<_> = match backwards {
            true => expected
                .rev()
                .take(most)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            false => expected.take(most).map(|(k, v)| (k.clone(), v.clone())).collect(),
        };
        let found = space.range(range);
        let found: Result<Vec<_>, _> = match backwards {
            true => found.rev().take(most).collect(),
            false => found.take(most).collect(),
        };
        same(
            &expected,
            &found.map_err(failed)?,
            if backwards { "range backwards" } else { "range" },
        )
    }

    fn both_ends(&self, tenant: &str, space: &str) -> Check {
        let Some(entries) = self.entries(tenant, space) else {
            return Ok(());
        };
        let space = self
            .world
            .engine()
            .tenant(tenant)
            .and_then(|t| t.open_keyspace(space))
            .map_err(failed)?;
        let mut dice = Dice::new(entries.len() as u64);
        let (mut range, mut expected) = (space.iter(), entries.into_iter());
        loop {
            let (found, expected) = match dice.percent(50) {
                true => (range.next(), expected.next()),
                false => (range.next_back(), expected.next_back()),
            };
            let found = found.transpose().map_err(failed)?;
            if found != expected {
                return Err("iterating from both ends differs".into());
            }
            if found.is_none() {
                return Ok(());
            }
        }
    }

    fn read_snapshot(&self, n: usize) -> Check {
        let held = &self.held[n];
        self.reach("a snapshot is read after a compaction", held.compacted);
        let tenant = self.world.engine().tenant(&held.tenant).map_err(failed)?;
        for (name, entries) in &held.content {
            let space = tenant.open_keyspace(name).map_err(failed)?;
            let found: Result<Entries, _> = held.snapshot.range::<&[u8]>(&space, ..).collect();
            if found.map_err(failed)? != *entries {
                return Err("a snapshot's range has changed".into());
            }
            let back: Result<Vec<_>, _> = held.snapshot.range::<&[u8]>(&space, ..).rev().collect();
            let expected: Vec<_> = entries
                .iter()
                .rev()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            same(&expected, &back.map_err(failed)?, "a snapshot's range backwards")?;
            for key in (0..KEYS).map(key_of) {
                if held.snapshot.get(&space, &key).map_err(failed)?.as_ref() != entries.get(&key) {
                    return Err("a snapshot's get has changed".into());
                }
            }
        }
        Ok(())
    }

    /// Takes one, and compares what it restores to.
    fn checkpoint(&mut self) -> Check {
        let n = self.world.known().copies.len();
        let path = format!("/srv/copy-{n}");
        self.world.checkpoint(&path).map_err(failed)?;
        self.world.moment("checkpoint").examine_copies(&self.world)?;
        // Once is enough: the file system forgets it.
        self.world.known().copies[n].complete = false;
        Ok(())
    }
}

fn same(expected: &[(Bytes, Bytes)], found: &[(Bytes, Bytes)], what: &str) -> Check {
    if expected == found {
        return Ok(());
    }
    let keys = |of: &[(Bytes, Bytes)]| {
        of.iter().fold(String::new(), |mut text, (k, v)| {
            let _ = write!(text, " {}:{}", k.escape_ascii(), v.len());
            text
        })
    };
    Err(format!(
        "{what}: expected{}, found{}",
        keys(expected),
        keys(found)
    ))
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(default)
}

fn try_lists(name: &str, options: Options, cases: u64, length: std::ops::Range<usize>, large: bool) {
    let seed = number("STRONGROOM_SEED", 0x6d6f_6465);
    println!("REPRO: STRONGROOM_SEED={seed} cargo test -p strongroom-tests --test model {name}");
    let mut config = Config::with_cases(number("STRONGROOM_CASES", cases) as u32);
    config.rng_seed = RngSeed::Fixed(seed);
    config.failure_persistence = None;
    config.max_shrink_iters = 4000;
    let reached = Reached::default();
    let (options, counts) = (Arc::new(options), reached.clone());
    let result = TestRunner::new(config).run(&prop::collection::vec(act(large), length), |acts| {
        let mut run = Run::new((*options).clone(), counts.clone()).map_err(TestCaseError::fail)?;
        for (n, act) in acts.iter().enumerate() {
            run.act(act)
                .map_err(|e| TestCaseError::fail(format!("act {n}, {act:?}: {e}")))?;
        }
        run.world.check().map_err(TestCaseError::fail)?;
        let leaks = canary::find(&run.world.fs.files());
        prop_assert!(leaks.is_empty(), "plaintext on the disk: {:?}", leaks);
        Ok(())
    });
    let reached = reached.lock().unwrap();
    println!("{reached:?}");
    if result.is_ok() && std::env::var("STRONGROOM_CASES").is_err() {
        for state in MUST_REACH {
            assert!(
                reached.get(state).is_some_and(|n| *n > 0),
                "never reached: {state}"
            );
        }
    }
    if let Err(e) = result {
        panic!("{e}\nREPRO: STRONGROOM_SEED={seed} cargo test -p strongroom-tests --test model {name}");
    }
}

#[test]
fn random_operations_agree_with_the_model() {
    try_lists(
        "random_operations_agree_with_the_model",
        Options::tiny(),
        1000,
        1..80,
        false,
    );
}

#[test]
fn random_operations_agree_with_the_model_without_filters_and_cache() {
    let mut options = Options::tiny();
    options.filter_bits = 0;
    options.cache_bytes = 0;
    options.segment_bytes = 4 << 10;
    options.wal_keep_bytes = 0;
    options.immutable_memtables_max = 1;
    try_lists(
        "random_operations_agree_with_the_model_without_filters_and_cache",
        options,
        1000,
        1..80,
        false,
    );
}

#[test]
fn random_operations_with_large_values_agree_with_the_model() {
    let mut options = Options::tiny();
    options.level1_bytes = options.table_bytes;
    try_lists("random_operations_with_large_values", options, 40, 1..400, true);
}
