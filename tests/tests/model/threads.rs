//! Readers and writers at once, while the engine's own thread flushes and compacts under them.
//!
//! Every batch writes one number under one key of two keyspaces. So in every view the two keyspaces are
//! equal; a view reads the same however often and in whatever way it is asked; and numbers only grow from
//! one view to the next.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use strongroom::io::sim::SimFs;
use strongroom::{Background, Engine, Keyspace, Options, Result, Snapshot, TenantOptions};
use strongroom_tests::dice::{Dice, fresh_seed};
use strongroom_tests::keys::SimKeys;
use strongroom_tests::world::{DIR, key_of};

const WRITERS: u64 = 2;
const BATCHES: u64 = 1500;
const KEYS: u64 = 30;

/// The number first, then bytes that fill memtables.
fn bytes_of(number: u64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(8 + (number % 13) as usize * 100, number as u8);
    value
}

fn number_in(value: &Bytes) -> u64 {
    let number = u64::from_le_bytes(value[..8].try_into().unwrap());
    assert_eq!(value[..], bytes_of(number)[..]);
    number
}

fn entries(snapshot: &Snapshot, space: &Keyspace) -> Result<BTreeMap<Bytes, u64>> {
    snapshot
        .range::<&[u8]>(space, ..)
        .map(|entry| entry.map(|(k, v)| (k, number_in(&v))))
        .collect()
}

#[test]
fn views_are_whole_and_repeatable_while_everything_moves() {
    let (fs, keys) = (SimFs::new(), SimKeys::new());
    let mut options = Options::tiny();
    options.background = Background::Thread;
    options.level1_bytes = options.table_bytes;
    let builder = Engine::builder(DIR).shared_keys(keys.provider()).options(options);
    let engine = builder.io(fs.io(fresh_seed())).open().unwrap();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let spaces = [tenant.keyspace("a").unwrap(), tenant.keyspace("b").unwrap()];
    let (done, next) = (AtomicBool::new(false), AtomicU64::new(1));
    let views = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (tenant, spaces, done, next, views) = (&tenant, &spaces, &done, &next, &views);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    let mut dice = Dice::new(writer);
                    for _ in 0..BATCHES {
                        // A key belongs to one writer, so that its numbers grow.
                        let key = key_of(dice.below(KEYS) * WRITERS + writer);
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let batch = tenant.batch().put(&spaces[0], &key, bytes_of(number));
                        batch.put(&spaces[1], &key, bytes_of(number)).commit().unwrap();
                        // What was acknowledged is read.
                        let read = number_in(&spaces[1].get(&key).unwrap().unwrap());
                        assert_eq!(read, number);
                    }
                })
            })
            .collect();
        for reader in 0..2 {
            scope.spawn(move || {
                let mut dice = Dice::new(100 + reader);
                let mut before: BTreeMap<Bytes, u64> = BTreeMap::new();
                while !done.load(Ordering::Relaxed) {
                    let view = tenant.snapshot();
                    let now = entries(&view, &spaces[0]).unwrap();
                    assert_eq!(now, entries(&view, &spaces[1]).unwrap(), "half a batch");
                    for (key, number) in &before {
                        assert!(now.get(key).is_some_and(|n| n >= number), "a number went back");
                    }
                    for _ in 0..20 {
                        let key = key_of(dice.below(KEYS * WRITERS));
                        let found = view.get(&spaces[0], &key).unwrap().map(|v| number_in(&v));
                        assert_eq!(found, now.get(&key).copied(), "get and range differ");
                    }
                    let back: Result<Vec<Bytes>> = view
                        .range::<&[u8]>(&spaces[1], ..)
                        .rev()
                        .map(|e| e.map(|(k, _)| k))
                        .collect();
                    assert!(back.unwrap().iter().eq(now.keys().rev()), "backwards differs");
                    assert_eq!(now, entries(&view, &spaces[0]).unwrap(), "a view has changed");
                    before = now;
                    views.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let levels = engine.status().tables_per_level;
    println!(
        "{} views, tables by level {levels:?}",
        views.load(Ordering::Relaxed)
    );
    engine.close().unwrap();
    // How many there are depends on the machine (7 were seen under load); one is compared in full, both ways.
    assert!(views.load(Ordering::Relaxed) > 0);
    assert!(
        levels.iter().skip(1).any(|n| *n > 0),
        "nothing was compacted: {levels:?}"
    );
}
