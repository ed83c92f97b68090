use std::sync::Barrier;

use super::*;
use crate::read::testing::{Oracle, Random, check_cursor, put, random_entries};

const TENANT: TenantId = TenantId(7);

fn insert(memtable: &Memtable, tenant: TenantId, entry: &Entry) {
    memtable.insert(
        tenant,
        entry.key.clone(),
        entry.seqno,
        entry.kind,
        entry.value.clone(),
    );
}

fn neighbours(memtable: &Memtable) {
    for tenant in [TenantId(6), TenantId(8), TenantId(u64::MAX)] {
        insert(memtable, tenant, &put(b"\0\0\0\0other", 3, b"x"));
    }
}

#[test]
fn cursor_and_get_agree_with_the_oracle() {
    for seed in 0..20 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let count = [0, 1, 2, 10, 500][seed as usize % 5];
        let oracle = random_entries(&mut random, count, 50, 50);
        let memtable = Arc::new(Memtable::new());
        neighbours(&memtable);
        let mut entries = oracle.entries();
        // Any order of insertion.
        for i in (1..entries.len()).rev() {
            entries.swap(i, random.below(i as u64 + 1) as usize);
        }
        entries.iter().for_each(|entry| insert(&memtable, TENANT, entry));
        check_cursor(
            memtable.cursor(TENANT).as_mut(),
            &oracle.entries(),
            &mut random,
            2000,
        );
        for _ in 0..500 {
            let (key, at) = (random.key(50), SeqNo(random.below(60)));
            assert_eq!(memtable.get(TENANT, &key, at), oracle.get(&key, at));
        }
    }
}

#[test]
fn last_tenant_of_all_is_walked_to_its_end() {
    let memtable = Arc::new(Memtable::new());
    neighbours(&memtable);
    let entries = [put(b"\0\0\0\0other", 3, b"x")];
    check_cursor(
        memtable.cursor(TenantId(u64::MAX)).as_mut(),
        &entries,
        &mut Random(1),
        100,
    );
    check_cursor(memtable.cursor(TENANT).as_mut(), &[], &mut Random(1), 100);
}

#[test]
fn tenants_are_listed_once_and_in_order() {
    let memtable = Memtable::new();
    assert!(memtable.is_empty() && memtable.tenants().is_empty());
    for (i, tenant) in [9, 0, 9, 4, u64::MAX, 4].into_iter().enumerate() {
        insert(&memtable, TenantId(tenant), &put(b"key", i as u64, b""));
    }
    assert_eq!(memtable.tenants(), [0, 4, 9, u64::MAX].map(TenantId));
    assert!(!memtable.is_empty() && memtable.bytes() > 6 * 3);
}

#[test]
fn the_same_place_twice_keeps_the_later_value() {
    let memtable = Memtable::new();
    insert(&memtable, TENANT, &put(b"key", 1, b"first"));
    insert(&memtable, TENANT, &put(b"key", 1, b"second"));
    assert_eq!(
        memtable.get(TENANT, b"key", SeqNo::MAX),
        Some(put(b"key", 1, b"second"))
    );
}

#[test]
fn prefixes_order_like_keys() {
    let mut random = Random(5);
    for _ in 0..20_000 {
        let mut make = || -> Vec<u8> {
            let len = random.below(20) as usize;
            (0..len)
                .map(|_| [0, 0, 0, 1, 255][random.below(5) as usize])
                .collect()
        };
        let (a, b) = (make(), make());
        let order = Parts::new(TENANT, &a, SeqNo(1)).order(&Parts::new(TENANT, &b, SeqNo(1)));
        assert_eq!(order, a.cmp(&b), "{a:?} {b:?}");
    }
}

#[test]
fn readers_beside_writers_see_every_published_entry() {
    // Two writers insert disjoint keys in rounds; a round is published by a counter, as the commit
    // path does. Readers check that everything published before is there, by get and by walking.
    const ROUNDS: u64 = 300;
    let memtable = Arc::new(Memtable::new());
    let published = [const { std::sync::atomic::AtomicU64::new(0) }; 2];
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for writer in 0..2u64 {
            let (memtable, published, start) = (&memtable, &published, &start);
            scope.spawn(move || {
                start.wait();
                for round in 1..=ROUNDS {
                    for key in 0..4u64 {
                        let key = [writer, round % 50, key].map(|part| part as u8);
                        insert(memtable, TENANT, &put(&key, round, &round.to_le_bytes()));
                    }
                    published[writer as usize].store(round, atomic::Ordering::Release);
                }
            });
        }
        for reader in 0..2 {
            let (memtable, published, start) = (&memtable, &published, &start);
            scope.spawn(move || {
                let mut random = Random(reader);
                start.wait();
                loop {
                    let writer = random.below(2);
                    let upto = published[writer as usize].load(atomic::Ordering::Acquire);
                    if upto > 0 {
                        let round = upto - random.below(upto.min(50));
                        let key = [writer, round % 50, random.below(4)].map(|part| part as u8);
                        let found = memtable.get(TENANT, &key, SeqNo(round)).expect("published");
                        assert_eq!(found, put(&key, round, &round.to_le_bytes()));
                        let mut cursor = memtable.cursor(TENANT);
                        cursor.seek_first().unwrap();
                        let (mut count, mut last) = (0, None::<Entry>);
                        while let Some(entry) = cursor.entry().cloned() {
                            assert!(last.is_none_or(|last| last.order(&entry.key, entry.seqno).is_lt()));
                            let mine = u64::from(entry.key[0]) == writer;
                            count += u64::from(mine && entry.seqno <= SeqNo(upto));
                            last = Some(entry);
                            cursor.next().unwrap();
                        }
                        assert_eq!(count, 4 * upto);
                    }
                    if published
                        .iter()
                        .all(|p| p.load(atomic::Ordering::Acquire) == ROUNDS)
                    {
                        return;
                    }
                }
            });
        }
    });
    let mut oracle = Oracle::default();
    for (writer, round, key) in
        (0..2u64).flat_map(|w| (1..=ROUNDS).flat_map(move |r| (0..4u64).map(move |k| (w, r, k))))
    {
        let key = [writer, round % 50, key].map(|part| part as u8);
        oracle.add(put(&key, round, &round.to_le_bytes()));
    }
    check_cursor(
        memtable.cursor(TENANT).as_mut(),
        &oracle.entries(),
        &mut Random(3),
        1000,
    );
}
