//! Many keys read at once.

use strongroom::{Batch, ErrorKind, TenantOptions};

use crate::{keys, open};

#[test]
fn many_keys_in_any_order_and_repeated_then_each_answered_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), &keys());
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let (space, other) = (tenant.keyspace("a").unwrap(), tenant.keyspace("b").unwrap());
    // Spread over levels: deep, level 0, memtable.
    for (step, keys) in [0..40u32, 20..60, 50..70].into_iter().enumerate() {
        for key in keys {
            space.put(key.to_be_bytes(), format!("{step}:{key}")).unwrap();
        }
        match step {
            0 => engine.compact().unwrap(),
            1 => engine.flush().unwrap(),
            _ => {}
        }
    }
    space.delete(5u32.to_be_bytes()).unwrap();
    other.put(71u32.to_be_bytes(), "another keyspace's").unwrap();
    let asked: Vec<u32> = vec![69, 5, 71, 0, 69, 25, 55, 0, 1000];
    let found = space
        .multi_get(asked.iter().map(|key| key.to_be_bytes()))
        .unwrap();
    let one_by_one: Vec<_> = asked
        .iter()
        .map(|key| space.get(key.to_be_bytes()).unwrap())
        .collect();
    assert_eq!(found, one_by_one);
    let text = |at: usize| found[at].as_deref().map(String::from_utf8_lossy);
    assert_eq!(text(0).as_deref(), Some("2:69"));
    assert_eq!((text(1), text(2), text(8)), (None, None, None));
    assert_eq!(text(3).as_deref(), Some("0:0"));
    assert_eq!(space.multi_get([[0u8; 1]; 0]).unwrap(), Vec::new());

    let snapshot = tenant.snapshot();
    space.put(0u32.to_be_bytes(), "new").unwrap();
    engine.compact().unwrap();
    let asked = || asked.iter().map(|key| key.to_be_bytes());
    assert_eq!(snapshot.multi_get(&space, asked()).unwrap(), found);
    assert_eq!(space.multi_get(asked()).unwrap()[3].as_deref(), Some(&b"new"[..]));
}

/// Writers keep all keys equal; whoever reads them at two versions sees that they are not.
#[test]
fn writers_change_all_keys_at_once_then_many_gets_see_one_version() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), &keys());
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let space = tenant.keyspace("a").unwrap();
    let keys: Vec<[u8; 1]> = (0..20).map(|key| [key]).collect();
    let all = |value: u32| {
        let put = |batch: Batch, key: &[u8; 1]| batch.put(&space, key, value.to_le_bytes());
        let batch = keys.iter().fold(tenant.batch(), put);
        batch
            .durability(strongroom::Durability::Buffered)
            .commit()
            .unwrap();
    };
    all(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for value in 1..2000 {
                all(value);
                if value % 300 == 0 {
                    engine.flush().unwrap();
                }
            }
        });
        while !writer.is_finished() {
            let found = space.multi_get(&keys).unwrap();
            assert!(found.iter().all(|value| value.is_some() && *value == found[0]));
        }
        writer.join().unwrap();
    });
}

#[test]
fn one_key_breaks_a_limit_or_the_tenant_is_gone_then_that_error() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), &keys());
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let (space, gone) = (tenant.keyspace("a").unwrap(), tenant.keyspace("b").unwrap());
    let other = engine.create_tenant("o", TenantOptions::default()).unwrap();
    let kind = |found: strongroom::Result<Vec<_>>| found.unwrap_err().kind();
    assert_eq!(kind(space.multi_get(["a", ""])), ErrorKind::Invalid);
    assert_eq!(
        kind(other.snapshot().multi_get(&space, ["a"])),
        ErrorKind::Invalid
    );
    tenant.delete_keyspace("b").unwrap();
    assert_eq!(kind(gone.multi_get(["a"])), ErrorKind::NotFound);
    engine.delete_tenant("t").unwrap();
    assert_eq!(kind(space.multi_get(["a"])), ErrorKind::NotFound);
}
