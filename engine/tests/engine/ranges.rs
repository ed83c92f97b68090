//! Ranges in the middle of a block, which they go over by themselves: what they must see all the same.

use strongroom::{Engine, ErrorKind, Keyspace, Options, Range, Tenant, TenantOptions};

use super::keys;

/// Keys `a` to `j` in one block of a table, and nothing else.
fn filled(dir: &std::path::Path) -> (Engine, Tenant, Keyspace) {
    let mut options = Options::tiny();
    options.block_bytes = 4096;
    let builder = Engine::builder(dir).shared_keys(keys()).options(options);
    let engine = builder.open().unwrap();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    for key in b'a'..=b'j' {
        keyspace.put([key], [key; 3]).unwrap();
    }
    engine.flush().unwrap();
    (engine, tenant, keyspace)
}

/// What comes next from the front, or from the back, lent or taken out.
fn step(range: &mut Range, from_front: bool, lent: bool) -> Option<u8> {
    let (key, value) = match (from_front, lent) {
        (true, false) => range.next()?.unwrap(),
        (false, false) => range.next_back()?.unwrap(),
        (true, true) => range
            .next_ref()?
            .map(|(k, v)| (k.to_vec().into(), v.to_vec().into()))
            .unwrap(),
        (false, true) => range
            .next_back_ref()?
            .map(|(k, v)| (k.to_vec().into(), v.to_vec().into()))
            .unwrap(),
    };
    assert_eq!(&value[..], [key[0]; 3]);
    Some(key[0])
}

#[test]
fn both_ends_of_a_range_meet_at_every_place_inside_a_block() {
    let dir = tempfile::tempdir().unwrap();
    let (_engine, _, keyspace) = filled(dir.path());
    let all: Vec<u8> = (b'a'..=b'j').collect();
    // Which end a step takes follows from the bits.
    for bits in 0..1u32 << 10 {
        let (mut range, mut left) = (keyspace.iter(), &all[..]);
        for at in 0..12 {
            let from_front = bits >> (at % 10) & 1 == 0;
            let expected = match from_front {
                true => left.split_off_first(),
                false => left.split_off_last(),
            };
            let found = step(&mut range, from_front, bits % 3 == 0);
            assert_eq!(found, expected.copied(), "{bits:b}");
        }
    }
}

#[test]
fn a_range_ends_at_its_bounds_inside_a_block() {
    let dir = tempfile::tempdir().unwrap();
    let (_engine, _, keyspace) = filled(dir.path());
    for from in b'a'..=b'j' {
        for to in from..=b'j' {
            let count = usize::from(to - from);
            assert_eq!(keyspace.range([from]..[to]).count(), count);
            assert_eq!(keyspace.range([from]..=[to]).count(), count + 1);
            let behind = [&[to][..], b"x"].concat();
            assert_eq!(keyspace.range(&[from][..]..&behind).count(), count + 1);
            let mut range = keyspace.range([from]..[to]);
            assert_eq!(std::iter::from_fn(|| step(&mut range, true, true)).count(), count);
        }
    }
}

#[test]
fn a_put_that_comes_while_a_range_is_inside_a_block_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _, keyspace) = filled(dir.path());
    let mut range = keyspace.iter();
    let mut before: Vec<_> = (0..3).map_while(|_| step(&mut range, true, false)).collect();
    keyspace.put("dd", "new").unwrap();
    keyspace.put("e", "new").unwrap();
    keyspace.delete("f").unwrap();
    engine.compact().unwrap();
    before.extend(std::iter::from_fn(|| step(&mut range, true, false)));
    assert!(before.into_iter().eq(b'a'..=b'j'));
    assert_eq!(keyspace.iter().count(), 10);
}

#[test]
fn a_range_inside_a_block_of_a_tenant_that_is_deleted_ends_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _, keyspace) = filled(dir.path());
    let (mut lent, mut taken) = (keyspace.iter(), keyspace.iter());
    for _ in 0..3 {
        step(&mut lent, true, true);
        step(&mut taken, true, false);
    }
    engine.delete_tenant("t").unwrap();
    assert_eq!(lent.next_ref().unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    assert!(lent.next_ref().is_none() && lent.next().is_none());
    assert_eq!(taken.next().unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    assert!(taken.next().is_none() && taken.next_ref().is_none());
}

#[test]
fn a_range_inside_a_block_goes_on_when_another_tenant_or_the_keyspace_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, tenant, keyspace) = filled(dir.path());
    engine.create_tenant("other", TenantOptions::default()).unwrap();
    let mut range = keyspace.iter();
    let mut seen: Vec<_> = (0..3).map_while(|_| step(&mut range, true, true)).collect();
    engine.delete_tenant("other").unwrap();
    seen.extend((0..3).map_while(|_| step(&mut range, true, true)));
    tenant.delete_keyspace("k").unwrap();
    // It reads what was before.
    seen.extend(std::iter::from_fn(|| step(&mut range, true, true)));
    assert!(seen.into_iter().eq(b'a'..=b'j'));
    assert_eq!(
        keyspace.iter().next().unwrap().unwrap_err().kind(),
        ErrorKind::NotFound
    );
}
