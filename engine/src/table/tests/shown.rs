//! Heads that are shown to readers: while the cache holds them, and no longer.

use super::*;
use crate::table::run_reader::RunReader;

const SHAPE: Shape = Shape {
    section_bytes: 3000,
    ..SMALL
};

/// Heads of a tenant's run that are shown: the one over its sections, and those.
fn shown(place: &Place, table: &Arc<Table>, tenant: TenantId) -> (usize, usize) {
    let Some(top) = table.shown_top() else {
        return (0, 0);
    };
    let run = table.find(tenant).unwrap();
    let reader = RunReader::new(table, run);
    let sections = top.sections().unwrap();
    let shown: Vec<_> = (0..top.index.len())
        .filter(|index| sections.peek(*index).is_some())
        .collect();
    for index in &shown {
        let offset = reader.section_offset(&top, *index).unwrap();
        let kept = place.cache.head(table.meta().number, offset).unwrap();
        assert!(
            Arc::ptr_eq(&kept.head, &sections.peek(*index).unwrap()),
            "another head than the cache's"
        );
    }
    (1, shown.len())
}

fn read_much(table: &Arc<Table>, oracle: &Oracle, seed: u64) {
    let mut random = Random(seed);
    for _ in 0..3000 {
        let (key, at) = (random.key(2000), SeqNo(random.below(60)));
        assert_eq!(table.get(TenantId(1), &key, at).unwrap(), oracle.get(&key, at));
    }
}

#[test]
fn heads_are_shown_once_read_and_nothing_of_a_destroyed_tenant_is() {
    let place = Place::new(1 << 22);
    let content = content(&mut Random(1), &[1], 4000, 2000);
    let table = place.table(SHAPE, &content);
    assert_eq!(shown(&place, &table, TenantId(1)), (0, 0));
    read_much(&table, &content[&TenantId(1)], 2);
    let (top, sections) = shown(&place, &table, TenantId(1));
    assert!(top == 1 && sections > 3, "{sections}");
    let kept = Arc::downgrade(&table.shown_top().unwrap());
    place.destroy(TenantId(1));
    assert_eq!(shown(&place, &table, TenantId(1)), (0, 0));
    assert!(kept.upgrade().is_none(), "nobody holds what was purged");
}

#[test]
fn heads_that_a_full_cache_lets_go_of_are_shown_no_longer() {
    for seed in 0..20 {
        // Room for some of the heads and blocks.
        let place = Place::new(24 << 10);
        let content = content(&mut Random(seed), &[1], 4000, 2000);
        let table = place.table(SHAPE, &content);
        std::thread::scope(|scope| {
            for reader in 0..3 {
                let (table, oracle) = (&table, &content[&TenantId(1)]);
                scope.spawn(move || read_much(table, oracle, seed * 3 + reader));
            }
        });
        shown(&place, &table, TenantId(1));
        place.cache.purge_if(|_| true);
        assert_eq!(shown(&place, &table, TenantId(1)), (0, 0), "seed {seed}");
        read_much(&table, &content[&TenantId(1)], seed);
        shown(&place, &table, TenantId(1));
    }
}

#[test]
fn a_head_under_one_that_was_loaded_again_is_shown_there() {
    let place = Place::new(1 << 22);
    let content = content(&mut Random(1), &[1], 4000, 2000);
    let table = place.table(SHAPE, &content);
    read_much(&table, &content[&TenantId(1)], 2);
    let before = shown(&place, &table, TenantId(1));
    let top = table.find(TenantId(1)).unwrap().head;
    place.cache.forget(table.meta().number, top);
    assert_eq!(shown(&place, &table, TenantId(1)), (0, 0));
    read_much(&table, &content[&TenantId(1)], 2);
    assert_eq!(shown(&place, &table, TenantId(1)), before);
}

#[test]
fn a_head_that_another_took_the_place_of_is_not_shown_and_the_other_comes_back() {
    let place = Place::new(1 << 22);
    let content = content(&mut Random(1), &[1], 4000, 2000);
    let table = place.table(SHAPE, &content);
    let oracle = &content[&TenantId(1)];
    read_much(&table, oracle, 2);
    let late = table.shown_top().unwrap();
    let at = (table.meta().number, table.find(TenantId(1)).unwrap().head);
    place.cache.forget(at.0, at.1);
    read_much(&table, oracle, 3);
    let kept = table.shown_top().unwrap();
    assert!(!Arc::ptr_eq(&late, &kept));
    // As one who loaded it at the same time and comes late.
    place.cache.show_head(at, &late, (table.top_shelf(), 0), || true);
    assert!(table.shown_top().is_none());
    read_much(&table, oracle, 4);
    assert!(Arc::ptr_eq(&table.shown_top().unwrap(), &kept));
}
