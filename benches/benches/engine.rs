//! The short suite: put at each durability, get, range, seal and open. Under five minutes in all.
//!
//! 16-byte keys, 100-byte values, one thread, sealed. Comparisons with other engines are not here:
//! they have a package of their own (benches/compare, later).

#![allow(clippy::unwrap_used, reason = "a bench that fails may end")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strongroom::internals::SealBench;
use strongroom::{Durability, Options, TenantOptions};
use strongroom_benches::{LocalStandby, key, open};

const VALUE: [u8; 100] = [0x5a; 100];
const KEYS: u64 = 200_000;

fn puts(c: &mut Criterion) {
    let mut group = c.benchmark_group("put");
    for durability in [Durability::Buffered, Durability::Local, Durability::Replicated] {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path(), Options::default()).unwrap();
        let tenant = engine.create_tenant("bench", TenantOptions::default()).unwrap();
        let keyspace = tenant.keyspace("k").unwrap();
        let standby = (durability == Durability::Replicated)
            .then(|| LocalStandby::follow(&engine, dir.path()).unwrap());
        let mut i = 0;
        group.bench_function(format!("{durability:?}"), |b| {
            b.iter(|| {
                i += 1;
                tenant
                    .batch()
                    .put(&keyspace, key(i), VALUE)
                    .durability(durability)
                    .commit()
                    .unwrap()
            });
        });
        drop(standby);
    }
    group.finish();
}

fn reads(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), Options::default()).unwrap();
    let tenant = engine.create_tenant("bench", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    for first in (0..KEYS).step_by(1000) {
        let mut batch = tenant.batch().durability(Durability::Buffered);
        for i in first..first + 1000 {
            batch = batch.put(&keyspace, key(i), VALUE);
        }
        batch.commit().unwrap();
    }
    engine.compact().unwrap();

    let mut group = c.benchmark_group("get");
    let mut i = 0u64;
    let mut next = || {
        i = i.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (i >> 33) % KEYS
    };
    group.bench_function("cached", |b| {
        b.iter(|| keyspace.get(key(next())).unwrap().unwrap())
    });
    group.bench_function("missing", |b| {
        b.iter(|| assert!(keyspace.get(key(KEYS + next())).unwrap().is_none()))
    });
    group.finish();

    let mut group = c.benchmark_group("range");
    group.bench_function("seek+50", |b| {
        b.iter(|| {
            keyspace
                .range(key(next())..)
                .take(50)
                .map(|kv| kv.unwrap().1.len())
                .sum::<usize>()
        });
    });
    group.bench_function("seek-50", |b| {
        b.iter(|| {
            keyspace
                .range(..key(next()))
                .rev()
                .take(50)
                .map(|kv| kv.unwrap().1.len())
                .sum::<usize>()
        });
    });
    group.throughput(Throughput::Elements(KEYS));
    group.sample_size(10);
    group.bench_function("scan all", |b| {
        b.iter(|| assert_eq!(keyspace.iter().count() as u64, KEYS))
    });
    group.finish();
}

fn sealing(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal");
    for len in [64, 4 << 10] {
        let mut bench = SealBench::new(len).unwrap();
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("seal {len} B"), |b| {
            b.iter(|| black_box(bench.seal().unwrap()))
        });
        group.bench_function(format!("open {len} B"), |b| {
            b.iter(|| black_box(bench.open().unwrap()))
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(20);
    targets = puts, reads, sealing
}
criterion_main!(benches);
