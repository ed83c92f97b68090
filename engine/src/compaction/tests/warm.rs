//! What the cache has of tables that are replaced.

use std::collections::BTreeSet;

use super::*;
use crate::compaction::warm::carry_over;
use crate::table::Table;
use crate::version::testing::get;

const KEYS: u64 = 600;

fn name(key: u64) -> String {
    format!("{key:04}")
}

fn put(model: &mut Model, key: u64, value: u8) {
    model.write(1, 1, &name(key), Some(Bytes::from(vec![value; 40])));
}

/// How many pieces it took to read the keys that `chosen` names.
fn pieces_read(model: &Model, chosen: impl Fn(u64) -> bool) -> u64 {
    let (version, reads) = (model.set.current(), &model.machine.cache.reads);
    let before = reads.stats().pieces_read;
    for key in (0..KEYS).filter(|key| chosen(*key)) {
        let found = get(&version, 1, &tree_key(1, &name(key)), model.seqno).unwrap();
        assert!(found.is_some(), "{key}");
    }
    reads.stats().pieces_read - before
}

/// All keys in the tables of one level, none of them in the cache.
fn settled() -> Model {
    let mut model = Model::new();
    for key in 0..KEYS {
        put(&mut model, key, 1);
    }
    model.flush().unwrap();
    model.compact_everything();
    model.machine.cache.purge_if(|_| true);
    model
}

/// Every table replaced, after a few entries were written anew.
fn replaced(model: &mut Model, dice: &Dice) -> Vec<Arc<Table>> {
    let before = model.set.current();
    for _ in 0..20 {
        put(model, dice.below(KEYS), 2);
    }
    model.flush().unwrap();
    model.compact_everything();
    let after = model.set.current();
    let stays = |table: &Arc<Table>| after.tables().any(|(_, other)| Arc::ptr_eq(other, table));
    let old: Vec<Arc<Table>> = before.tables().map(|(_, table)| table.clone()).collect();
    assert!(!old.iter().any(stays), "all are replaced");
    old
}

#[test]
fn keys_that_were_read_are_in_the_cache_after_compaction_and_others_are_not() {
    for seed in 0..20 {
        let dice = Dice::new(seed);
        let mut model = settled();
        // Some keys here and there, or a stretch of them.
        let (from, len) = (dice.below(KEYS), 1 + dice.below(KEYS / 2));
        let scattered: BTreeSet<u64> = (0..1 + dice.below(30)).map(|_| dice.below(KEYS)).collect();
        let asked = |key: u64| match seed % 2 {
            0 => (from..from + len).contains(&key),
            _ => scattered.contains(&key),
        };
        assert!(pieces_read(&model, asked) > 0, "seed {seed}");
        assert_eq!(pieces_read(&model, asked), 0, "seed {seed}");
        replaced(&mut model, &dice);
        // Heads of tables of which nothing was asked for stay out, and so do blocks far from those that were.
        assert_eq!(pieces_read(&model, asked), 0, "seed {seed}");
        let far = |key: u64| !(key.saturating_sub(60)..key + 60).any(&asked);
        let others = (0..KEYS).filter(|key| far(*key)).count();
        assert_eq!(pieces_read(&model, far) > 0, others > 0, "seed {seed}: {others}");
    }
}

#[test]
fn tables_that_were_replaced_have_nothing_left_in_the_cache() {
    let (mut model, dice) = (settled(), Dice::new(1));
    pieces_read(&model, |_| true);
    let full = model.machine.cache.usage();
    for _ in 0..5 {
        let old = replaced(&mut model, &dice);
        for table in &old {
            table.cached(|_, _, _| panic!("a block is left"));
        }
        drop(old);
        pieces_read(&model, |_| true);
    }
    let after = model.machine.cache.usage();
    assert!(after.pieces < full.pieces + full.pieces / 4, "{full:?} {after:?}");
}

#[test]
fn what_nobody_read_since_it_was_brought_in_is_not_brought_in_again() {
    let (mut model, dice) = (settled(), Dice::new(2));
    pieces_read(&model, |_| true);
    replaced(&mut model, &dice);
    replaced(&mut model, &dice);
    assert!(pieces_read(&model, |_| true) > KEYS / 10);
}

#[test]
fn of_a_destroyed_tenant_nothing_comes_into_the_cache() {
    let (mut model, dice) = (settled(), Dice::new(3));
    pieces_read(&model, |_| true);
    put(&mut model, dice.below(KEYS), 2);
    model.flush().unwrap();
    let plan = model.plan(Some(model.set.next_number())).unwrap();
    let now = model.set.current();
    let (edit, before) = model.working(&|| false, |work| {
        let edit = compact(work, &now, &plan).unwrap();
        // The blocks are there to be carried over, and the key is gone.
        model.machine.source.destroy(1);
        model.machine.keys.purge_if(|_| true);
        let before = model.machine.cache.usage().pieces;
        carry_over(work, &model.machine.cache, &now, &edit);
        (edit, before)
    });
    assert_eq!(model.machine.cache.usage().pieces, before);
    assert!(!edit.added.is_empty());
}

#[test]
fn a_carry_over_that_is_told_to_stop_stops() {
    let mut model = settled();
    pieces_read(&model, |_| true);
    for key in 0..KEYS / 10 {
        put(&mut model, key * 10, 2);
    }
    model.flush().unwrap();
    let plan = model.plan(Some(model.set.next_number())).unwrap();
    let version = model.set.current();
    let carried = |stops: bool| {
        let edit = model.working(&|| false, |work| compact(work, &version, &plan).unwrap());
        let before = model.machine.cache.usage().pieces;
        model.working(&|| stops, |work| {
            carry_over(work, &model.machine.cache, &version, &edit)
        });
        model.machine.cache.usage().pieces - before
    };
    let (stopped, whole) = (carried(true), carried(false));
    assert!(stopped < whole / 2, "{stopped} of {whole}");
}
