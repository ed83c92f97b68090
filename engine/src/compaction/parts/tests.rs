use super::*;
use crate::version::testing::Dice;

fn bound(tenant: u64, key: &str) -> Bound {
    match key {
        "" => Bound::before(TenantId(tenant)),
        key => Bound::at(TenantId(tenant), key.as_bytes()),
    }
}

fn piece(from: Bound, end: Bound, bytes: u64) -> Piece {
    Piece { from, end, bytes }
}

/// A table of one tenant: a piece up to each of the keys.
fn table(keys: &[(&str, u64)]) -> Vec<Piece> {
    let mut from = bound(1, "0000");
    let piece = |(key, bytes): &(&str, u64)| {
        let end = bound(1, key);
        piece(std::mem::replace(&mut from, end.clone()), end, *bytes)
    };
    keys.iter().map(piece).collect()
}

/// Where parts end, as `tenant:key`.
fn ends(parts: &[Part]) -> Vec<String> {
    let ends = parts.iter().filter_map(|part| part.to.as_ref());
    ends.map(|to| format!("{}:{}", to.tenant.0, String::from_utf8_lossy(&to.key)))
        .collect()
}

#[test]
fn parts_are_about_equal_and_none_is_small() {
    let even: Vec<Piece> = (1..=8)
        .map(|n| {
            piece(
                bound(1, &format!("000{}", n - 1)),
                bound(1, &format!("000{n}")),
                100,
            )
        })
        .collect();
    assert_eq!(ends(&cut(&even, 2, 100)), ["1:0004"]);
    assert_eq!(ends(&cut(&even, 4, 100)), ["1:0002", "1:0004", "1:0006"]);
    assert_eq!(ends(&cut(&even, 64, 400)), ["1:0004"]);
    assert_eq!(cut(&even, 64, 401).len(), 1);
    assert_eq!(cut(&even, 1, 100).len(), 1);
    assert_eq!(cut(&[], 4, 0).len(), 1);
    // One piece with nearly everything cannot be cut; what is beside it is too small.
    let lopsided = table(&[("000a", 10), ("000b", 1000), ("000c", 10)]);
    assert_eq!(cut(&lopsided, 4, 100).len(), 1);
    // Between tenants.
    let tenants: Vec<Piece> = (1..=3)
        .map(|tenant| piece(bound(tenant, ""), bound(tenant + 1, ""), 100))
        .collect();
    assert_eq!(ends(&cut(&tenants, 3, 100)), ["2:", "3:"]);
}

#[test]
fn tables_overlap_and_their_pieces_are_large_then_the_bound_nearest_to_equal_is_taken() {
    // Of eleven tables three pieces each, which end a little beside each other: at about a third of all.
    let mut pieces = Vec::new();
    for n in 0..11 {
        let keys = [34, 68, 99].map(|key| format!("{:04}", 100 * key + 10 * n));
        pieces.extend(table(&[(&keys[0], 340), (&keys[1], 340), (&keys[2], 310)]));
    }
    assert_eq!(ends(&cut(&pieces, 2, 100)), ["1:3500"]);
}

#[test]
fn every_key_of_every_tenant_is_in_one_part_and_parts_ascend() {
    for seed in 0..2000 {
        let dice = Dice::new(seed);
        let mut pieces = Vec::new();
        for _ in 0..dice.below(40) {
            let key = || match dice.below(4) {
                0 => String::new(),
                _ => format!("{:05}", dice.below(50)),
            };
            let (from, end) = (bound(1 + dice.below(4), &key()), bound(1 + dice.below(4), &key()));
            pieces.push(piece(from, end, dice.below(1000)));
        }
        let total: u64 = pieces.iter().map(|piece| piece.bytes).sum();
        let (most, least) = (1 + dice.below(9) as usize, 1 + dice.below(2000));
        let parts = cut(&pieces, most, least);
        let context = format!("seed {seed}: {total} in {most} of {least}: {:?}", ends(&parts));
        assert!((1..=most).contains(&parts.len()), "{context}");
        assert!(parts.len() as u64 <= (total / least).max(1), "{context}");
        let (first, last) = (parts.first().unwrap(), parts.last().unwrap());
        assert!(first.from.is_none() && last.to.is_none(), "{context}");
        for neighbours in parts.windows(2) {
            assert!(neighbours[0].to == neighbours[1].from, "{context}");
            assert!(neighbours[0].from < neighbours[0].to, "{context}");
        }
        for tenant in 0..7 {
            for key in 0..50 {
                let key = format!("{key:05}");
                let has = |part: &&Part| {
                    part.of(TenantId(tenant)).is_some_and(|range| {
                        range.lower <= key.as_bytes() && !range.ends_at_or_before(key.as_bytes())
                    })
                };
                assert_eq!(parts.iter().filter(has).count(), 1, "{tenant} {key} {context}");
            }
        }
    }
}

#[test]
fn a_bound_is_never_shorter_than_a_keyspace_id() {
    // Separators are as short as they can be; a range delete cut at one has to stay a range of one keyspace.
    let bound = Bound::at(TenantId(1), &[0, 0, 1]);
    assert_eq!(bound.key, &[0, 0, 1, 0][..]);
    assert!(crate::range_delete::is_range(b"\0\0\0\xffa", &bound.key));
}
