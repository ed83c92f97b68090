//! Many tenants: 100,000 of three entries each, against one tenant with as many entries.
//!
//! Prints creation time at a quarter, half and all of them (linear if the cost of one stays the same),
//! writing, reopening and first reads, resident memory, and bytes on disk. `STRONGROOM_TENANTS`
//! overrides the number.

#![allow(clippy::unwrap_used, reason = "a bench that fails may end")]

use std::time::Instant;

use strongroom::{Durability, Engine, Options, TenantOptions};
use strongroom_benches::{key, open, resident_kib};

const ENTRIES: u64 = 3;
/// Names the directory that a child opens to measure its memory.
const CHILD: &str = "STRONGROOM_TENANTS_CHILD";
const VALUE: [u8; 100] = [0x5a; 100];

fn main() {
    if let Some(dir) = std::env::var_os(CHILD) {
        return print_resident(std::path::Path::new(&dir));
    }
    // cargo passes flags such as --bench; none of them is ours.
    let count: u64 = std::env::var("STRONGROOM_TENANTS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(100_000);
    println!("tenants: {count} of {ENTRIES} entries, cache 16 MiB, memtable 16 MiB");
    let options = options();
    let base = resident_kib();

    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), options.clone()).unwrap();
    let names: Vec<String> = (0..count).map(|i| format!("tenant-{i:08}")).collect();
    let mut made = 0;
    let start = Instant::now();
    for quarter in names.chunks((count as usize / 4).max(1)) {
        let at = Instant::now();
        for part in quarter.chunks(1000) {
            let names: Vec<&str> = part.iter().map(String::as_str).collect();
            engine.create_tenants(&names).unwrap();
        }
        made += quarter.len();
        let each = at.elapsed().as_secs_f64() * 1e6 / quarter.len() as f64;
        println!("  create, up to {made:>7}: {each:8.2} µs each");
    }
    println!(
        "  create, all:            {:8.2} s",
        start.elapsed().as_secs_f64()
    );

    let start = Instant::now();
    for name in &names {
        let tenant = engine.tenant(name).unwrap();
        let keyspace = tenant.keyspace("k").unwrap();
        write(&tenant, &keyspace, 0, ENTRIES);
    }
    report("write, buffered", start, count * ENTRIES);
    println!(
        "  resident after writing: {:8} KiB above the start",
        resident_kib().saturating_sub(base)
    );
    reopen("clean", &engine, dir.path(), &options, count * ENTRIES, true);
    resident_in_a_new_process(dir.path(), count);
    let engine = open(dir.path(), options.clone()).unwrap();
    let start = Instant::now();
    let mut found = 0;
    for name in &names {
        found += engine
            .tenant(name)
            .unwrap()
            .open_keyspace("k")
            .unwrap()
            .iter()
            .count() as u64;
    }
    assert_eq!(found, count * ENTRIES);
    report("read all", start, found);
    println!("  disk: {:.1} MiB", disk(dir.path()) as f64 / (1 << 20) as f64);

    // The log instead of tables: what replay costs an entry.
    let replay = |tenants: u64| {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options.clone();
        options.memtable_bytes = 1 << 30;
        let engine = open(dir.path(), options.clone()).unwrap();
        let per = count * ENTRIES / tenants;
        let names: Vec<String> = (0..tenants).map(|i| format!("tenant-{i:08}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for tenant in engine.create_tenants(&names).unwrap() {
            let keyspace = tenant.keyspace("k").unwrap();
            for first in (0..per).step_by(3) {
                write(&tenant, &keyspace, first, (per - first).min(3));
            }
        }
        let label = format!("{tenants} tenant(s), from the log");
        reopen(&label, &engine, dir.path(), &options, count * ENTRIES, false);
    };
    replay(1);
    replay(count);

    let one = tempfile::tempdir().unwrap();
    let engine = open(one.path(), options.clone()).unwrap();
    let tenant = engine.create_tenant("one", TenantOptions::default()).unwrap();
    let keyspace = tenant.keyspace("k").unwrap();
    for first in (0..count * ENTRIES).step_by(ENTRIES as usize) {
        write(&tenant, &keyspace, first, ENTRIES);
    }
    reopen(
        "clean, one tenant",
        &engine,
        one.path(),
        &options,
        count * ENTRIES,
        true,
    );
}

fn options() -> Options {
    let mut options = Options::default();
    options.cache_bytes = 16 << 20;
    options.memtable_bytes = 16 << 20;
    options
}

/// Opens in a process of its own, where no allocator keeps what an engine before it used.
fn resident_in_a_new_process(dir: &std::path::Path, count: u64) {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .env(CHILD, dir)
        .output()
        .unwrap();
    let kib: u64 = String::from_utf8_lossy(&child.stdout).trim().parse().unwrap();
    let each = kib * 1024 / count;
    println!("  resident after reopen:  {kib:8} KiB above the start, in a new process; {each} B a tenant");
}

fn print_resident(dir: &std::path::Path) {
    let base = resident_kib();
    let engine = open(dir, options()).unwrap();
    println!("{}", resident_kib().saturating_sub(base));
    engine.close().unwrap();
}

fn write(tenant: &strongroom::Tenant, keyspace: &strongroom::Keyspace, first: u64, count: u64) {
    let mut batch = tenant.batch().durability(Durability::Buffered);
    for i in first..first + count {
        batch = batch.put(keyspace, key(i), VALUE);
    }
    batch.commit().unwrap();
}

fn reopen(label: &str, engine: &Engine, dir: &std::path::Path, options: &Options, entries: u64, clean: bool) {
    if clean {
        engine.close().unwrap();
    } else {
        // As after a crash: a copy of the directory, which a live engine never closed.
        let copy = dir.join("crashed");
        copy_tree(&dir.join("data"), &copy.join("data"));
        std::fs::copy(dir.join("bench.key"), copy.join("bench.key")).unwrap();
        let start = Instant::now();
        let engine = open(&copy, options.clone()).unwrap();
        report(&format!("open, {label}"), start, entries);
        assert!(engine.recovery().records > 0);
        return;
    }
    let start = Instant::now();
    let engine = open(dir, options.clone()).unwrap();
    report(&format!("open, {label}"), start, entries);
    engine.close().unwrap();
}

fn report(what: &str, start: Instant, entries: u64) {
    let took = start.elapsed();
    let each = took.as_secs_f64() * 1e6 / entries as f64;
    println!("  {what:<34} {:8.3} s {each:9.3} µs an entry", took.as_secs_f64());
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn disk(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    entries
        .map(|e| {
            if e.path().is_dir() {
                disk(&e.path())
            } else {
                e.metadata().unwrap().len()
            }
        })
        .sum()
}
