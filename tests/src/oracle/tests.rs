//! What the oracle accepts and what it refuses.

use super::*;

fn put(space: &str, key: &str, value: &str) -> Op {
    (
        space.into(),
        Bytes::copy_from_slice(key.as_bytes()),
        Some(Bytes::copy_from_slice(value.as_bytes())),
    )
}

fn one_tenant() -> Oracle {
    let mut oracle = Oracle::new();
    let ticket = oracle.create_tenant("t");
    oracle.tenant_done(ticket, Outcome::Acknowledged);
    oracle
}

fn batch(oracle: &mut Oracle, key: &str, outcome: Outcome) {
    let ticket = oracle.submit(Change::Batch(0, vec![put("s", key, "v"), put("s", "last", key)]));
    oracle.done(ticket, outcome);
}

fn holding(keys: &[&str]) -> Content {
    let mut entries: Entries = keys
        .iter()
        .map(|k| (Bytes::copy_from_slice(k.as_bytes()), Bytes::from_static(b"v")))
        .collect();
    if let Some(last) = keys.last() {
        entries.insert(
            Bytes::from_static(b"last"),
            Bytes::copy_from_slice(last.as_bytes()),
        );
    }
    let spaces = if keys.is_empty() {
        Spaces::new()
    } else {
        Spaces::from([("s".into(), entries)])
    };
    Content::from([("t".into(), spaces)])
}

#[test]
fn acknowledged_changes_are_needed_and_later_ones_may_be_missing_from_the_end() {
    let mut oracle = one_tenant();
    batch(&mut oracle, "a", Outcome::Acknowledged);
    batch(&mut oracle, "b", Outcome::Accepted);
    batch(&mut oracle, "c", Outcome::Accepted);
    assert!(oracle.find(&holding(&[])).is_none());
    assert!(oracle.find(&holding(&["a"])).is_some());
    assert!(oracle.find(&holding(&["a", "b"])).is_some());
    assert!(oracle.find(&holding(&["a", "b", "c"])).is_some());
    assert!(oracle.find(&holding(&["a", "c"])).is_none(), "a hole");
    batch(&mut oracle, "d", Outcome::Acknowledged);
    assert!(oracle.find(&holding(&["a", "b", "c"])).is_none());
    assert!(oracle.find(&holding(&["a", "b", "c", "d"])).is_some());
}

#[test]
fn half_a_batch_is_no_state() {
    let mut oracle = one_tenant();
    batch(&mut oracle, "a", Outcome::Submitted);
    let mut half = holding(&["a"]);
    half.get_mut("t")
        .unwrap()
        .get_mut("s")
        .unwrap()
        .remove(&b"last"[..]);
    assert!(oracle.find(&half).is_none());
}

#[test]
fn failed_change_may_be_missing_before_an_acknowledged_one() {
    let mut oracle = one_tenant();
    batch(&mut oracle, "a", Outcome::Failed);
    batch(&mut oracle, "b", Outcome::Acknowledged);
    assert!(oracle.find(&holding(&["a", "b"])).is_some());
    let found = oracle.find(&holding(&["b"])).unwrap();
    assert!(oracle.find(&holding(&["a"])).is_none());
    oracle.accept(&found);
    assert_eq!(oracle.visible(), holding(&["b"]));
    assert!(oracle.find(&holding(&["a", "b"])).is_none());
}

#[test]
fn deleted_tenant_takes_its_content_along_also_when_its_name_returns() {
    let mut oracle = one_tenant();
    batch(&mut oracle, "a", Outcome::Acknowledged);
    let delete = oracle.delete_tenant(0);
    assert!(oracle.find(&holding(&["a"])).is_some());
    assert!(oracle.find(&Content::new()).is_some());
    oracle.tenant_done(delete, Outcome::Acknowledged);
    assert!(oracle.find(&holding(&["a"])).is_none());
    let create = oracle.create_tenant("t");
    oracle.tenant_done(create, Outcome::Acknowledged);
    assert_eq!(oracle.visible(), holding(&[]));
    assert_eq!(oracle.tenant("t"), Some(1));
}

#[test]
fn past_states_can_be_rebuilt() {
    let mut oracle = one_tenant();
    batch(&mut oracle, "a", Outcome::Acknowledged);
    let then = oracle.last().unwrap();
    batch(&mut oracle, "b", Outcome::Acknowledged);
    assert_eq!(oracle.at(then), holding(&["a"]));
    assert_eq!(oracle.visible(), holding(&["a", "b"]));
}
