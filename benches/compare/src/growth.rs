//! How cost grows: with keys, tenants, threads, log to recover, database to copy. Each point of a curve is a
//! process of its own; the first three on every engine that has the thing, tenants on ours alone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::child::Job;
use crate::figure::{Figure, Item, Unit};
use crate::lines::{BATCH, Plan, get, load, random_put, seek_50, steps};
use crate::measure::{Step, run, took};
use crate::process::{self, Watch};
use crate::store::{Direction, Engine, Store};
use crate::work::{Dice, key, shuffled, value};

/// A point of a curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// The plan's keys, by two threads; a checkpoint before the puts.
    Keys,
    /// The plan's keys, evenly over so many tenants, by two threads. Engines with tenants only.
    Tenants(u32),
    /// The plan's keys, by each of these numbers of threads in turn.
    Threads(Vec<usize>),
    /// Writes so many bytes to the log, none of which is in a table, and waits to be killed.
    FillLog(u64),
    /// Opens what another process left: the time it takes.
    Open,
}

/// In the measuring process.
pub fn measure(
    engine: &Engine,
    job: &Job,
    point: &Point,
    answer: &dyn Fn(&[Item]) -> Result<()>,
) -> Result<Vec<Item>> {
    let plan = &job.plan;
    let began = Instant::now();
    let store = (engine.open)(&job.dir.join("db"), &job.budget)?;
    let store = &*store;
    let figures = match point {
        Point::Keys => keys(store, job)?,
        Point::Tenants(count) => tenants(engine, store, plan, *count, &job.dir)?,
        Point::Threads(counts) => threads(store, plan, counts)?,
        Point::FillLog(bytes) => {
            fill_log(store, plan, *bytes)?;
            answer(&[Item::Ready])?;
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        Point::Open => {
            let took = began.elapsed();
            // redb loses what was not synced, so what is found is not asked.
            store.get(&key(0))?;
            vec![Figure::new("open", Unit::Millis, took.as_secs_f64() * 1000.0)]
        }
    };
    Ok(figures.into_iter().map(Item::Figure).collect())
}

fn keys(store: &dyn Store, job: &Job) -> Result<Vec<Figure>> {
    let (plan, watch) = (&job.plan, Watch::start());
    let load = load(store, plan)?;
    let mut figures = vec![
        Figure::rate("load and settle", &load.settled),
        Figure::rate("get, 2 threads", &get(store, plan, 2, 0)?),
        Figure::rate(
            "seek + 50, 2 threads",
            &seek_50(store, plan, 2, Direction::Forward)?,
        ),
        Figure::new("space", Unit::Bytes, process::space(&job.dir)? as f64),
    ];
    let began = Instant::now();
    if store.checkpoint(&job.dir.join("copy"))? {
        let millis = began.elapsed().as_secs_f64() * 1000.0;
        figures.push(Figure::new("checkpoint", Unit::Millis, millis));
    }
    figures.push(Figure::rate(
        "put, 2 threads",
        &random_put(store, plan, 2, false)?,
    ));
    figures.push(Figure::new(
        "peak private memory",
        Unit::Bytes,
        watch.peak() as f64,
    ));
    Ok(figures)
}

fn threads(store: &dyn Store, plan: &Plan, counts: &[usize]) -> Result<Vec<Figure>> {
    load(store, plan)?;
    let mut figures = Vec::new();
    type Work = fn(&dyn Store, &Plan, usize) -> Result<crate::measure::Measured>;
    let works: [(&str, Work); 4] = [
        ("get", |s, p, n| get(s, p, n, 0)),
        ("seek + 50", |s, p, n| seek_50(s, p, n, Direction::Forward)),
        ("put", |s, p, n| random_put(s, p, n, false)),
        ("sync put", |s, p, n| random_put(s, p, n, true)),
    ];
    for (name, work) in works {
        for threads in counts {
            figures.push(Figure::rate(
                format!("{name} @{threads}"),
                &work(store, plan, *threads)?,
            ));
        }
    }
    Ok(figures)
}

fn tenants(
    engine: &Engine,
    store: &dyn Store,
    plan: &Plan,
    count: u32,
    dir: &std::path::Path,
) -> Result<Vec<Figure>> {
    ensure!(
        engine.drops == crate::store::Drops::Tenant,
        "{} has no tenants",
        engine.name
    );
    let watch = Watch::start();
    let (tenants, each) = (u64::from(count), plan.keys / u64::from(count));
    ensure!(each > 0, "fewer keys than tenants");
    let began = Instant::now();
    store.prepare_tenants(count)?;
    let made = took(tenants, began.elapsed());
    // Few of each tenant at a time, as it comes when all are active: the whole in ten passes.
    let at_once = (each as usize / 10).clamp(1, BATCH);
    let began = Instant::now();
    let mut from = 0;
    let mut dice = Dice::new(plan.seed);
    while from < each {
        let to = each.min(from + at_once as u64);
        for tenant in 0..count {
            let entries: Vec<_> = (from..to)
                .map(|n| (key(n).to_vec(), value(&mut dice, plan.value_bytes)))
                .collect();
            store.tenant_put_many(tenant, &entries)?;
        }
        from = to;
    }
    store.settle()?;
    let loaded = took(each * tenants, began.elapsed());
    let chosen = |dice: &mut Dice| (dice.below(tenants) as u32, key(dice.below(each)));
    let get = || -> Step<'_> {
        Box::new(|dice| {
            let (tenant, key) = chosen(dice);
            ensure!(store.tenant_get(tenant, &key)?.is_some(), "a key is missing");
            Ok(1)
        })
    };
    let put = || -> Step<'_> {
        Box::new(|dice| {
            let (tenant, key) = chosen(dice);
            store.tenant_put(tenant, &key, &value(dice, plan.value_bytes))?;
            Ok(1)
        })
    };
    // A mixed load: half and half.
    let mixed = || -> Step<'_> {
        let (mut get, mut put) = (get(), put());
        Box::new(move |dice| if dice.below(2) == 0 { get(dice) } else { put(dice) })
    };
    let scan = || -> Step<'_> {
        Box::new(|dice| {
            let (tenant, key) = chosen(dice);
            // All but the last digit: up to ten entries, whatever the number of tenants.
            let found = store.tenant_prefix(tenant, key.get(..15).unwrap_or_default())?;
            ensure!(found > 0, "a prefix is missing");
            Ok(1)
        })
    };
    let mut figures = vec![
        Figure::rate("tenants made", &made),
        Figure::rate("load and settle", &loaded),
        Figure::rate("get, 2 threads", &run(plan.time, plan.seed, steps(2, |_| get()))?),
        Figure::rate(
            "prefix of 10, 2 threads",
            &run(plan.time, plan.seed, steps(2, |_| scan()))?,
        ),
        Figure::rate("put, 2 threads", &run(plan.time, plan.seed, steps(2, |_| put()))?),
        Figure::rate(
            "put and get, 2 threads",
            &run(plan.time, plan.seed, steps(2, |_| mixed()))?,
        ),
    ];
    // Nothing is left in the log, so that the next open is about tenants alone.
    store.settle()?;
    figures.push(Figure::new("space", Unit::Bytes, process::space(dir)? as f64));
    figures.push(Figure::new(
        "peak private memory",
        Unit::Bytes,
        watch.peak() as f64,
    ));
    Ok(figures)
}

/// Bytes of keys and values that stay in the write buffer, so that all of the log must be read at the next open.
fn fill_log(store: &dyn Store, plan: &Plan, bytes: u64) -> Result<()> {
    let entries = bytes / (key(0).len() + plan.value_bytes) as u64;
    for batch in shuffled(entries, plan.value_bytes, plan.seed, 10) {
        store.put_many(&batch)?;
    }
    // What was not synced before is with it.
    store.put(&key(entries), b"last", true).context("the last put")?;
    Ok(())
}
