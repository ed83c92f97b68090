//! What others find between a batch's place in the log and its coming into the memtable.

use std::sync::Arc;

use super::*;
use crate::io::OsClock;
use crate::io::sim::SimFs;
use crate::keys::MemoryKeys;
use crate::options::Options;
use crate::read::cursor::EntryKind;
use crate::wal::format::push_op;
use crate::{Keyspace, Tenant, TenantOptions};

/// A thread that is held up lets others run so often: more than it would have patience for.
const LONG: usize = 20_000;

fn opened() -> (Engine, Tenant, Keyspace) {
    let options = Options {
        durability: Durability::Buffered,
        ..Options::tiny()
    };
    let builder = Engine::builder("/db").shared_keys(Arc::new(MemoryKeys::new()));
    let engine = builder.options(options).io(SimFs::new().io(1)).open().unwrap();
    let tenant = engine.create_tenant("t", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    (engine, tenant, keyspace)
}

/// One put, to be ordered.
fn put(keyspace: &Keyspace, key: &str, value: &str) -> (Bytes, Vec<Op>) {
    encoded(keyspace.id(), key, value)
}

fn encoded(keyspace: KeyspaceId, key: &str, value: &str) -> (Bytes, Vec<Op>) {
    let mut plain = Vec::new();
    let keyspace = keyspace.0.to_be_bytes();
    push_op(
        EntryKind::Put,
        keyspace,
        key.as_bytes(),
        value.as_bytes(),
        &mut plain,
    );
    let plain = Bytes::from(plain);
    let ops = parsed(&plain, 1).unwrap();
    (plain, ops)
}

fn value(keyspace: &Keyspace, key: &str) -> Option<String> {
    let value = keyspace.get(key).unwrap()?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn a_confirmation_that_comes_before_a_batch_is_in_the_memtable_makes_nothing_visible_until_it_is() {
    let (engine, tenant, keyspace) = opened();
    let (inner, clock) = (engine.inner(), OsClock::new());
    keyspace.put("a", "before").unwrap();
    let visible = inner.visible();
    let mut commit = inner.commit.lock_patiently(&clock);
    let ordered = inner
        .append(
            &mut commit,
            tenant.id(),
            put(&keyspace, "a", "after"),
            Durability::Replicated,
        )
        .unwrap();
    let position = ordered.0;
    engine.confirm_replicated(position.epoch, position.lsn);
    assert_eq!(inner.visible(), visible);
    assert_eq!(value(&keyspace, "a").as_deref(), Some("before"));
    let turn = inner.commit.hand_over(commit);
    inner.put_down(tenant.id(), ordered, Durability::Replicated);
    drop(turn);
    // Nobody waits for it: the confirmation was there.
    assert_eq!(inner.visible(), position.seqno);
    assert_eq!(value(&keyspace, "a").as_deref(), Some("after"));
    inner.finish(position, Durability::Replicated).unwrap();
}

#[test]
fn a_condition_is_judged_by_the_batch_before_it_even_while_that_comes_into_the_memtable() {
    let (engine, tenant, keyspace) = opened();
    let (inner, clock) = (engine.inner(), OsClock::new());
    let mut commit = inner.commit.lock_patiently(&clock);
    let ordered = inner
        .append(
            &mut commit,
            tenant.id(),
            put(&keyspace, "a", "first"),
            Durability::Buffered,
        )
        .unwrap();
    let turn = inner.commit.hand_over(commit);
    let second = std::thread::scope(|threads| {
        let batch = tenant
            .batch()
            .require(&keyspace, "a", None)
            .put(&keyspace, "a", "second");
        let second = threads.spawn(move || batch.commit().map_err(|error| error.kind()));
        for _ in 0..LONG {
            std::thread::yield_now();
        }
        inner.put_down(tenant.id(), ordered, Durability::Buffered);
        drop(turn);
        second.join().unwrap()
    });
    assert_eq!(second, Err(ErrorKind::Conflict));
    inner
        .make_durable(ordered_at(&engine), Durability::Buffered)
        .unwrap();
    assert_eq!(value(&keyspace, "a").as_deref(), Some("first"));
}

/// The end of the log, as the position of what was ordered last.
fn ordered_at(engine: &Engine) -> Position {
    let commit = engine.inner().commit.lock();
    Position {
        epoch: commit.tail.epoch,
        lsn: commit.tail.end,
        seqno: commit.seqno,
    }
}

#[test]
fn a_batch_is_ordered_while_the_one_before_comes_into_the_memtable_and_comes_into_it_after_that() {
    let (engine, tenant, keyspace) = opened();
    let (inner, clock) = (engine.inner(), OsClock::new());
    let mut commit = inner.commit.lock_patiently(&clock);
    let first = inner
        .append(
            &mut commit,
            tenant.id(),
            put(&keyspace, "a", "first"),
            Durability::Buffered,
        )
        .unwrap();
    let turn = inner.commit.hand_over(commit);
    let mut commit = inner.commit.lock_patiently(&clock);
    let second = inner
        .append(
            &mut commit,
            tenant.id(),
            put(&keyspace, "a", "second"),
            Durability::Buffered,
        )
        .unwrap();
    assert_eq!(second.0.seqno, first.0.seqno.next());
    drop(commit);
    let view = inner.view();
    let newest = || {
        let key = [&keyspace.id().0.to_be_bytes()[..], b"a"].concat();
        view.active
            .get(tenant.id(), &key, SeqNo::MAX)
            .map(|found| found.seqno)
    };
    assert_eq!(newest(), None);
    let firsts = first.0.seqno;
    inner.put_down(tenant.id(), first, Durability::Buffered);
    assert_eq!(newest(), Some(firsts));
    drop(turn);
    let turn = inner.commit.hand_over(inner.commit.lock_patiently(&clock));
    let last = inner.put_down(tenant.id(), second, Durability::Buffered);
    drop(turn);
    inner.publish(last.seqno);
    assert_eq!(value(&keyspace, "a").as_deref(), Some("second"));
}

#[test]
fn what_changes_what_others_may_write_is_in_the_memtable_before_others_are_ordered() {
    let (engine, tenant, keyspace) = opened();
    let inner = engine.inner();
    let counts = |of: TenantId, ops: &[Op]| inner.counts_when_in_memory(of, ops);
    let (_, plain) = put(&keyspace, "a", "1");
    assert!(!counts(tenant.id(), &plain));
    let (_, catalog) = encoded(KeyspaceId::CATALOG, "a", "1");
    assert!(counts(tenant.id(), &catalog));
    assert!(counts(TenantId::SYSTEM, &plain));
    tenant.set_quota(1 << 30).unwrap();
    assert!(counts(tenant.id(), &plain));
}
