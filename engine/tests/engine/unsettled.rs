//! Ranges over what is not settled: when they paid for it, it is flushed and compacted.

use std::path::Path;
use std::time::{Duration, Instant};

use strongroom::{Background, Engine, Keyspace, Options, TenantOptions};

use super::{all, keys};

fn opened(dir: &Path, background: Background) -> (Engine, Keyspace) {
    let mut options = Options::tiny();
    options.background = background;
    // So that level 0 does not fill up before ranges paid.
    options.level0_tables = 4;
    options.level0_tables_stop = 8;
    let builder = Engine::builder(dir).shared_keys(keys()).options(options);
    let engine = builder.open().unwrap();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    (engine, tenant.keyspace("k").unwrap())
}

fn fill(keyspace: &Keyspace, entries: u32, value: u8) {
    for n in 0..entries {
        keyspace.put(n.to_be_bytes(), [value; 100]).unwrap();
    }
}

/// Tables of level 0 and 1.
fn tables(engine: &Engine) -> (u64, u64) {
    let levels = engine.stats().levels;
    (levels[0].tables, levels[1].tables)
}

#[test]
fn a_memtable_and_level_0_are_settled_when_ranges_have_paid_for_them_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, keyspace) = opened(dir.path(), Background::Manual);
    fill(&keyspace, 200, 1);
    engine.compact().unwrap();
    fill(&keyspace, 150, 2);
    while engine.step().unwrap() {}
    assert_eq!(tables(&engine), (0, 1));
    let flushes = engine.stats().flushes.count;
    let mut before = Vec::new();
    // Each takes 200 steps of a merge.
    for read in 1..20 {
        before = all(&keyspace);
        assert_eq!(before.len(), 200);
        while engine.step().unwrap() {}
        if engine.stats().flushes.count > flushes {
            assert!(read > 1, "a single range does not pay for a memtable");
            break;
        }
    }
    assert_eq!(engine.stats().flushes.count, flushes + 1);
    assert_eq!(engine.stats().memtables.immutables, 0);
    for _ in 0..20 {
        if tables(&engine) == (0, 1) {
            break;
        }
        assert_eq!(tables(&engine), (1, 1));
        assert_eq!(all(&keyspace), before);
        while engine.step().unwrap() {}
    }
    assert_eq!(tables(&engine), (0, 1));
    assert_eq!(all(&keyspace), before);
}

#[test]
fn level_0_is_compacted_once_with_the_memtable_that_lies_over_it() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, keyspace) = opened(dir.path(), Background::Manual);
    fill(&keyspace, 200, 1);
    engine.compact().unwrap();
    fill(&keyspace, 150, 2);
    engine.flush().unwrap();
    fill(&keyspace, 150, 3);
    while engine.step().unwrap() {}
    assert_eq!(tables(&engine), (1, 1));
    let jobs = || (engine.stats().flushes.count, engine.stats().compactions.count);
    let before = jobs();
    for _ in 0..20 {
        assert_eq!(all(&keyspace).len(), 200);
        while engine.step().unwrap() {}
    }
    assert_eq!(jobs(), (before.0 + 1, before.1 + 1));
    assert_eq!(
        (tables(&engine), engine.stats().memtables.active_bytes),
        ((0, 1), 0)
    );
    assert!(
        all(&keyspace)
            .iter()
            .take(150)
            .all(|(_, value)| value[..] == [3; 100])
    );
}

#[test]
fn gets_pay_for_nothing_nor_do_ranges_for_what_is_not_worth_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, keyspace) = opened(dir.path(), Background::Manual);
    fill(&keyspace, 200, 1);
    engine.compact().unwrap();
    fill(&keyspace, 10, 2);
    let flushes = engine.stats().flushes.count;
    for _ in 0..100 {
        assert_eq!(all(&keyspace).len(), 200);
    }
    while engine.step().unwrap() {}
    assert_eq!(engine.stats().flushes.count, flushes, "ten entries are no table");
    fill(&keyspace, 150, 2);
    for n in 0..20_000u32 {
        assert!(keyspace.get((n % 200).to_be_bytes()).unwrap().is_some());
    }
    // What was paid before, for the ten, may buy the flush of what came since: no more than that.
    while engine.step().unwrap() {}
    let flushes = engine.stats().flushes.count;
    for n in 0..20_000u32 {
        assert!(keyspace.get((n % 200).to_be_bytes()).unwrap().is_some());
    }
    while engine.step().unwrap() {}
    assert_eq!((engine.stats().flushes.count, tables(&engine).1), (flushes, 1));
}

#[test]
fn ranges_alone_wake_the_background_thread() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, keyspace) = opened(dir.path(), Background::Thread);
    fill(&keyspace, 200, 1);
    engine.compact().unwrap();
    fill(&keyspace, 150, 2);
    let flushes = engine.stats().flushes.count;
    let settled = || engine.stats().flushes.count > flushes && tables(&engine) == (0, 1);
    // Only so that a failure ends.
    let until = Instant::now() + Duration::from_secs(60);
    while !settled() && Instant::now() < until {
        assert_eq!(all(&keyspace).len(), 200);
    }
    assert!(settled());
}
