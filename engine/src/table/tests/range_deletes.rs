//! Tables with range deletes: beside entries in one block or several sections, and alone.

use super::*;
use crate::range_delete::{Fragment, Fragments};

/// Range deletes over the keys of `Random::key`, as a table takes them.
fn random_deletes(random: &mut Random, count: u64) -> Fragments {
    let ranges = (0..count).filter_map(|_| {
        let (a, b) = (random.key(40), random.key(40));
        let (start, end) = (a.clone().min(b.clone()), a.max(b));
        let one_keyspace = start[..4] == end[..4] && start != end;
        one_keyspace.then(|| (start, end, SeqNo(1 + random.below(60))))
    });
    Fragments::of(ranges.collect::<Vec<_>>())
}

type Deletes = BTreeMap<TenantId, Fragments>;

/// Entries and range deletes by turns.
fn build(place: &Place, shape: Shape, content: &BTreeMap<TenantId, Oracle>, deletes: &Deletes) -> TableMeta {
    let mut builder = place.builder(shape);
    let mut tenants: Vec<TenantId> = content.keys().chain(deletes.keys()).copied().collect();
    tenants.sort_unstable();
    tenants.dedup();
    for tenant in tenants {
        let entries = content.get(&tenant).map(Oracle::entries).unwrap_or_default();
        let mut left = deletes
            .get(&tenant)
            .into_iter()
            .flat_map(|all| all.iter().cloned());
        for entry in entries {
            builder.add(tenant, entry.view()).unwrap();
            if let Some(fragment) = left.next() {
                builder.add_range_delete(tenant, fragment).unwrap();
            }
        }
        left.for_each(|fragment| builder.add_range_delete(tenant, fragment).unwrap());
    }
    builder.finish().unwrap()
}

fn verified(place: &Place, meta: &TableMeta) -> Vec<Error> {
    let path = Place::path(meta.number);
    let no_cache = Arc::new(BlockCache::new(0));
    let mut found = Vec::new();
    match Table::open(&place.io, &path, meta.clone(), place.keys.clone(), no_cache) {
        Ok(table) => drop(table.verify(&ValueFiles::new(), &mut |error| found.push(error))),
        Err(error) => found.push(error),
    }
    found
}

fn small(place: &Place) -> (TableMeta, BTreeMap<TenantId, Oracle>, Deletes) {
    let mut random = Random(5);
    let mut content = content(&mut random, &[1], 6, 8);
    content.insert(TenantId(3), random_entries(&mut random, 60, 20, 9));
    let deletes = [1, 2, 3].map(|tenant| (TenantId(tenant), random_deletes(&mut random, 5)));
    let deletes = Deletes::from(deletes);
    let shape = Shape {
        block_bytes: 64,
        compression: Compression::None,
        filter_bits: 10,
        section_bytes: 400,
    };
    (build(place, shape, &content, &deletes), content, deletes)
}

#[test]
fn range_deletes_read_back_beside_entries_and_alone() {
    for seed in 0..30 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let place = Place::new([0, 1 << 10, 1 << 20][seed as usize % 3]);
        let count = [1, 20, 400][seed as usize % 3];
        let content = content(&mut random, &[1, 3], count, 40);
        let deletes = [1, 2, 4].map(|tenant| (TenantId(tenant), random_deletes(&mut random, 8)));
        let deletes: Deletes = deletes
            .into_iter()
            .filter(|(_, all)| all.span().is_some())
            .collect();
        let shape = Shape {
            section_bytes: [300, u64::MAX][seed as usize % 2],
            ..SMALL
        };
        let meta = build(&place, shape, &content, &deletes);
        assert_eq!(verified(&place, &meta).len(), 0);
        let table = place.open(&meta).unwrap();
        assert!(table.deletes_ranges());
        for tenant in (1..=5).map(TenantId) {
            let (own, oracle) = (deletes.get(&tenant), content.get(&tenant));
            let run = table.run(tenant);
            assert_eq!(run.is_some(), own.is_some() || oracle.is_some());
            assert_eq!(
                run.map_or(0, |run| run.range_deletes),
                own.map_or(0, |all| all.versions() as u64)
            );
            assert_eq!(table.deletes_ranges_of(tenant), own.is_some());
            assert_eq!(table.range_deletes(tenant).unwrap().as_deref(), own);
            let entries = oracle.map(Oracle::entries).unwrap_or_default();
            check_cursor(&mut table.cursor(tenant).unwrap(), &entries, &mut random, 100);
            for _ in 0..60 {
                let (key, at) = (random.key(45), SeqNo(random.below(70)));
                let found = oracle.and_then(|oracle| oracle.get(&key, at));
                assert_eq!(table.get(tenant, &key, at).unwrap(), found);
                let over = own.and_then(|all| all.newest(&key, at));
                assert_eq!(table.deleted(tenant, &key, at).unwrap(), over);
                let last = entries.last().is_none_or(|last| last.key < key);
                let end = own.is_none_or(|all| all.span().is_none_or(|(_, end)| end <= &key));
                assert_eq!(table.ends_before(tenant, &key).unwrap(), last && end);
            }
            let firsts = entries.first().map(|entry| entry.key.clone());
            let starts = own.and_then(|all| all.span()).map(|(start, _)| start.clone());
            let span = table.span(tenant).unwrap();
            assert_eq!(
                span.map(|(first, _)| first),
                firsts.into_iter().chain(starts).min()
            );
        }
    }
}

#[test]
fn every_flipped_bit_of_a_table_with_range_deletes_is_found() {
    let place = Place::new(0);
    let (meta, ..) = small(&place);
    let path = Place::path(meta.number);
    assert_eq!(verified(&place, &meta).len(), 0);
    for byte in 0..meta.bytes as usize {
        let bit = byte % 8;
        assert!(place.fs.corrupt(&path, |bytes| bytes[byte] ^= 1 << bit));
        assert!(
            !verified(&place, &meta).is_empty(),
            "byte {byte} bit {bit} unnoticed"
        );
        assert!(place.fs.corrupt(&path, |bytes| bytes[byte] ^= 1 << bit));
    }
}

#[test]
fn range_deletes_of_a_destroyed_tenant_read_as_none() {
    let place = Place::new(1 << 20);
    let (meta, _, deletes) = small(&place);
    let table = place.open(&meta).unwrap();
    let (start, _) = deletes[&TenantId(2)].span().unwrap();
    assert!(table.deleted(TenantId(2), start, SeqNo::MAX).unwrap().is_some());
    place.destroy(TenantId(2));
    assert_eq!(table.deleted(TenantId(2), start, SeqNo::MAX).unwrap(), None);
    assert_eq!(table.range_deletes(TenantId(2)).unwrap(), None);
    assert_eq!(table.span(TenantId(2)).unwrap(), None);
    assert!(table.ends_before(TenantId(2), start).unwrap());
    assert_eq!(verified(&place, &meta).len(), 0);
}

#[test]
fn range_deletes_out_of_order_are_refused() {
    let place = Place::new(0);
    let fragment = |start: &'static [u8], end: &'static [u8]| Fragment {
        start: Bytes::from_static(start),
        end: Bytes::from_static(end),
        seqnos: [SeqNo(1)].into_iter().collect(),
    };
    let mut builder = place.builder(SMALL);
    let mut add = |tenant, fragment| {
        builder
            .add_range_delete(TenantId(tenant), fragment)
            .map_err(|e| e.kind())
    };
    assert_eq!(add(2, fragment(b"\0\0\0\x01b", b"\0\0\0\x01d")), Ok(()));
    for (tenant, start, end) in [
        (2, &b"\0\0\0\x01c"[..], &b"\0\0\0\x01e"[..]),
        (2, b"\0\0\0\x01f", b"\0\0\0\x01e"),
        (2, b"\0\0\0\x01f", b"\0\0\0\x07"),
        (1, b"\0\0\0\x01f", b"\0\0\0\x01g"),
    ] {
        assert_eq!(add(tenant, fragment(start, end)), Err(ErrorKind::Corruption));
    }
    assert_eq!(add(2, fragment(b"\0\0\0\x01d", b"\0\0\0\x01e")), Ok(()));
}
