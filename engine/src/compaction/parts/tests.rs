use super::*;
use crate::version::testing::Dice;

fn piece(tenant: u64, key: &str, bytes: u64) -> Piece {
    let tenant = TenantId(tenant);
    let end = match key {
        "" => Bound::behind(tenant),
        key => Bound::at(tenant, key.as_bytes()),
    };
    Piece { end, bytes }
}

/// Where parts end, as `tenant:key`.
fn ends(parts: &[Part]) -> Vec<String> {
    let ends = parts.iter().filter_map(|part| part.to.as_ref());
    ends.map(|to| format!("{}:{}", to.tenant.0, String::from_utf8_lossy(&to.key)))
        .collect()
}

#[test]
fn parts_are_about_equal_and_none_is_small() {
    let even = || {
        (0..8)
            .map(|n| piece(1, &format!("000{n}"), 100))
            .collect::<Vec<_>>()
    };
    assert_eq!(ends(&cut(even(), 2, 100)), ["1:0003"]);
    assert_eq!(ends(&cut(even(), 4, 100)), ["1:0001", "1:0003", "1:0005"]);
    assert_eq!(ends(&cut(even(), 64, 400)), ["1:0003"]);
    assert_eq!(cut(even(), 64, 401).len(), 1);
    assert_eq!(cut(even(), 1, 100).len(), 1);
    assert_eq!(cut(Vec::new(), 4, 0).len(), 1);
    // One piece with nearly everything cannot be cut; what is beside it is too small.
    let lopsided = vec![piece(1, "000a", 10), piece(1, "000b", 1000), piece(1, "000c", 10)];
    assert_eq!(cut(lopsided, 4, 100).len(), 1);
    // Two tables with the same bounds.
    let twice = even().into_iter().chain(even()).collect();
    assert_eq!(ends(&cut(twice, 2, 100)), ["1:0003"]);
    // Between tenants.
    let tenants = (1..=3).map(|tenant| piece(tenant, "", 100)).collect();
    assert_eq!(ends(&cut(tenants, 3, 100)), ["2:", "3:"]);
}

#[test]
fn every_key_of_every_tenant_is_in_one_part_and_parts_ascend() {
    for seed in 0..2000 {
        let dice = Dice::new(seed);
        let mut pieces = Vec::new();
        for _ in 0..dice.below(40) {
            let key = match dice.below(4) {
                0 => String::new(),
                _ => format!("{:05}", dice.below(50)),
            };
            pieces.push(piece(1 + dice.below(4), &key, dice.below(1000)));
        }
        let total: u64 = pieces.iter().map(|piece| piece.bytes).sum();
        let (most, least) = (1 + dice.below(9) as usize, 1 + dice.below(2000));
        let parts = cut(pieces, most, least);
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
