use std::sync::Barrier;

use super::*;
use crate::read::cursor::Entry;
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
        insert(memtable, tenant, &put(b"\0\0\0\0other", 0, b"x"));
    }
}

#[test]
fn cursor_and_get_agree_with_the_oracle() {
    for seed in 0..20 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let count = [0, 1, 2, 10, 500][seed as usize % 5];
        let oracle = random_entries(&mut random, count, 50, 50);
        let memtable = Arc::new(Memtable::new(64 << 10));
        neighbours(&memtable);
        let mut entries = oracle.entries();
        // Any order of insertion.
        for i in (1..entries.len()).rev() {
            entries.swap(i, random.below(i as u64 + 1) as usize);
        }
        // In use versions come in order, and only then a get finds the newest by its hash.
        if seed % 2 == 0 {
            entries.sort_by_key(|entry| entry.seqno);
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

/// Inserts `entries` as given, which are in order; then all of them are there, forwards, backwards and one by one.
fn check_inserted(
    entries: &[(TenantId, Entry)],
    order: impl Fn(&mut Vec<(TenantId, Entry)>),
) -> Arc<Memtable> {
    let memtable = Arc::new(Memtable::new(64 << 10));
    let mut mixed = entries.to_vec();
    order(&mut mixed);
    mixed
        .iter()
        .for_each(|(tenant, entry)| insert(&memtable, *tenant, entry));
    for tenant in memtable.tenants() {
        let of_tenant: Vec<_> = entries
            .iter()
            .filter(|(t, _)| *t == tenant)
            .map(|(_, e)| e)
            .collect();
        let mut cursor = memtable.cursor(tenant);
        cursor.seek_first().unwrap();
        for entry in &of_tenant {
            assert_eq!(cursor.owned().as_ref(), Some(*entry));
            assert_eq!(
                memtable.get(tenant, &entry.key, entry.seqno).as_ref(),
                Some(&Found::from(*entry))
            );
            cursor.next().unwrap();
        }
        assert_eq!(cursor.entry(), None);
        cursor.seek_last().unwrap();
        for entry in of_tenant.iter().rev() {
            assert_eq!(cursor.owned().as_ref(), Some(*entry));
            cursor.prev().unwrap();
        }
        assert_eq!(cursor.entry(), None);
    }
    memtable
}

#[test]
fn every_order_of_insertion_makes_the_same_memtable_in_bounded_memory() {
    // Three tenants, two versions of each key: four levels.
    let mut entries = Vec::new();
    for tenant in [TenantId(0), TenantId(5), TenantId(u64::MAX)] {
        for n in 0..4000u32 {
            // Keys that nest, that differ at once, and only behind 40 equal bytes.
            let mut key = [b"\0\0\0\x01".as_slice(), &[b'k'; 40][..n as usize % 3 * 20]].concat();
            key.extend_from_slice(&n.to_be_bytes());
            key.truncate(key.len() - usize::from(n % 7 == 0 && n % 256 == 0));
            for seqno in [1, 2] {
                entries.push((tenant, put(&key, seqno, &n.to_le_bytes())));
            }
        }
    }
    entries.sort_by(|(t, a), (u, b)| t.cmp(u).then(a.view().order(&b.key, b.seqno)));
    let user: usize = entries.iter().map(|(_, e)| e.key.len() + e.value.len()).sum();
    let shuffled = |seed| {
        move |entries: &mut Vec<_>| {
            let mut random = Random(seed);
            for i in (1..entries.len()).rev() {
                entries.swap(i, random.below(i as u64 + 1) as usize);
            }
        }
    };
    // Bytes beside key and value for each entry: an item, and a slot of a node that is as full as that
    // order leaves it. Keys that come backwards leave halves.
    for (memtable, most) in [
        (check_inserted(&entries, |_| {}), 72 + 44),
        (check_inserted(&entries, |entries| entries.reverse()), 72 + 72),
        (check_inserted(&entries, shuffled(1)), 72 + 56),
        (check_inserted(&entries, shuffled(2)), 72 + 56),
    ] {
        let beside = memtable.bytes() - user;
        assert!(beside / entries.len() <= most, "{beside} for {}", entries.len());
    }
}

#[test]
fn a_hole_that_fills_from_above_does_not_leave_empty_nodes() {
    // Each key falls behind a full node and before the one added last.
    let memtable = Memtable::new(64 << 10);
    let key = |n: u32| [[0; 4], n.to_be_bytes()].concat();
    for n in (0..32).chain((40..10_040).rev()) {
        insert(&memtable, TENANT, &put(&key(n), 1, b""));
    }
    assert!(memtable.bytes() / 10_032 < 72 + 8 + 260);
    assert!((40..10_040).all(|n| memtable.get(TENANT, &key(n), SeqNo(1)).is_some()));
}

#[test]
fn a_look_that_met_a_change_is_refused() {
    let memtable = Memtable::new(64 << 10);
    let key = |n: u8| [0, 0, 0, 1, n];
    let (place_of, asked) = (|n: u8| put(&key(n), 1, b""), key(9));
    insert(&memtable, TENANT, &place_of(9));
    let place = Place::new(TENANT, &asked, SeqNo(1));
    let look = |change: &dyn Fn()| {
        memtable
            .tree
            .look(&memtable.items, Some(&place), false, |leaf, at| {
                change();
                leaf.items_from(at).len
            })
    };
    assert!(matches!(look(&|| {}), Ok(Some(1))));
    // An insert beside it, and one that splits the leaf.
    assert!(look(&|| insert(&memtable, TENANT, &place_of(8))).is_err());
    assert!(look(&|| (10..60).for_each(|n| insert(&memtable, TENANT, &place_of(n)))).is_err());
    // The same place again changes no order.
    assert!(look(&|| insert(&memtable, TENANT, &place_of(9))).is_ok());
}

#[test]
fn last_tenant_of_all_is_walked_to_its_end() {
    let memtable = Arc::new(Memtable::new(64 << 10));
    neighbours(&memtable);
    let entries = [put(b"\0\0\0\0other", 0, b"x")];
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
    let memtable = Memtable::new(64 << 10);
    assert!(memtable.is_empty() && memtable.tenants().is_empty());
    for (i, tenant) in [9, 0, 9, 4, u64::MAX, 4].into_iter().enumerate() {
        insert(&memtable, TenantId(tenant), &put(b"key", i as u64, b""));
    }
    assert_eq!(memtable.tenants(), [0, 4, 9, u64::MAX].map(TenantId));
    assert!(!memtable.is_empty() && memtable.bytes() > 6 * 3);
}

#[test]
fn the_same_place_twice_keeps_the_later_value() {
    let memtable = Memtable::new(64 << 10);
    insert(&memtable, TENANT, &put(b"key", 1, b"first"));
    insert(&memtable, TENANT, &put(b"key", 1, b"second"));
    assert_eq!(
        memtable.get(TENANT, b"key", SeqNo::MAX),
        Some(Found::from(&put(b"key", 1, b"second")))
    );
}

#[test]
fn readers_beside_writers_see_every_published_entry() {
    // Two writers insert disjoint keys in rounds; a round is published by a counter, as the commit
    // path does. Readers check that everything published before is there, by get and by walking.
    const ROUNDS: u64 = 300;
    let memtable = Arc::new(Memtable::new(64 << 10));
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
                        assert_eq!(found, Found::from(&put(&key, round, &round.to_le_bytes())));
                        let mut cursor = memtable.cursor(TENANT);
                        cursor.seek_first().unwrap();
                        let (mut count, mut last) = (0, None::<Entry>);
                        while let Some(entry) = cursor.owned() {
                            assert!(
                                last.is_none_or(|last| last.view().order(&entry.key, entry.seqno).is_lt())
                            );
                            let mine = u64::from(entry.key[0]) == writer;
                            count += u64::from(mine && entry.seqno <= SeqNo(upto));
                            last = Some(entry);
                            cursor.next().unwrap();
                        }
                        assert_eq!(count, 4 * upto);
                        cursor.seek_last().unwrap();
                        (count, last) = (0, None);
                        while let Some(entry) = cursor.owned() {
                            assert!(
                                last.is_none_or(|last| last.view().order(&entry.key, entry.seqno).is_gt())
                            );
                            let mine = u64::from(entry.key[0]) == writer;
                            count += u64::from(mine && entry.seqno <= SeqNo(upto));
                            last = Some(entry);
                            cursor.prev().unwrap();
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

#[test]
fn the_next_key_comes_after_all_versions_and_never_of_another_tenant() {
    for versions in [1, 2, 3, 8, 31, 32, 33, 200] {
        let memtable = Arc::new(Memtable::new(64 << 10));
        for tenant in [TENANT, TenantId(TENANT.0 + 1)] {
            for seqno in 1..=versions {
                for key in [b"\0\0\0\x01a", b"\0\0\0\x01b", b"\0\0\0\x01c"] {
                    insert(&memtable, tenant, &put(key, seqno, b"v"));
                }
            }
        }
        for from in 1..=versions {
            let mut cursor = memtable.cursor(TENANT);
            cursor.seek(b"\0\0\0\x01a", SeqNo(from)).unwrap();
            for key in [b"a", b"b", b"c"] {
                let entry = cursor.entry().unwrap();
                assert_eq!(
                    (&entry.key[4..], entry.seqno),
                    (&key[..], if key == b"a" { SeqNo(from) } else { SeqNo(versions) })
                );
                cursor.next_key().unwrap();
            }
            assert!(cursor.entry().is_none(), "{versions} versions: the next tenant's");
        }
    }
}
