//! A long write-heavy run: how long single calls take, and how long nothing is done at all.
//!
//! On a loaded database, four of five operations are buffered puts and one is a get, of zipfian keys. The run
//! is longer than any write buffer, so flushes, compaction and back-pressure are all in it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::child::Job;
use crate::figure::{Figure, Item, Unit};
use crate::lines::load;
use crate::measure::{Measured, Step, histogram, run};
use crate::process::{self, Watch};
use crate::store::Engine;
use crate::work::{Zipf, key, value};

const PUT_PERCENT: u64 = 80;

/// In the measuring process.
pub fn measure(engine: &Engine, job: &Job, threads: usize) -> Result<Vec<Item>> {
    let plan = &job.plan;
    let watch = Watch::start();
    let store = (engine.open)(&job.dir, &job.budget)?;
    load(&*store, plan)?;
    let (store, zipf) = (&*store, Zipf::new(plan.keys, 0.99));
    let seconds: Vec<AtomicU64> = (0..plan.time.as_secs() + 2).map(|_| AtomicU64::new(0)).collect();
    let (last, gap) = (AtomicU64::new(0), AtomicU64::new(0));
    // Puts and gets, of all threads; each thread adds its own at the end.
    let kinds = Mutex::new([histogram(), histogram()]);
    let began = Instant::now();
    let step = |_| -> Step<'_> {
        let mut own = Own {
            kinds: [histogram(), histogram()],
            all: &kinds,
        };
        let (zipf, seconds, last, gap) = (&zipf, &seconds, &last, &gap);
        Box::new(move |dice| {
            let (key, is_get) = (key(zipf.key(dice)), dice.below(100) >= PUT_PERCENT);
            let new = value(dice, if is_get { 0 } else { plan.value_bytes });
            let from = Instant::now();
            if is_get {
                ensure!(store.get(&key)?.is_some(), "a key is missing");
            } else {
                store.put(&key, &new, false)?;
            }
            let took = from.elapsed().as_nanos() as u64;
            if let Some(kind) = own.kinds.get_mut(usize::from(is_get)) {
                kind.saturating_record(took);
            }
            let now = began.elapsed().as_nanos() as u64;
            // Another thread may have ended a later call already: then this one ends no gap.
            let since = now.saturating_sub(last.fetch_max(now, Ordering::Relaxed));
            gap.fetch_max(since, Ordering::Relaxed);
            if let Some(second) = seconds.get((now / 1_000_000_000) as usize) {
                second.fetch_add(1, Ordering::Relaxed);
            }
            Ok(1)
        })
    };
    last.store(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
    let all = run(plan.time, plan.seed, (0..threads).map(step).collect())?;
    let ran = began.elapsed();
    let mut items = vec![Item::Figure(Figure::rate("all operations", &all))];
    let kinds = kinds.into_inner().unwrap_or_else(|e| e.into_inner());
    for (name, latency) in ["puts", "gets"].into_iter().zip(kinds) {
        let count = latency.len();
        let measured = Measured {
            per_second: count as f64 / ran.as_secs_f64(),
            count,
            latency,
        };
        items.push(Item::Figure(Figure::rate(name, &measured)));
    }
    let gap = gap.load(Ordering::Relaxed) as f64 / 1e6;
    for (name, unit, value) in [
        ("longest time without a completed operation", Unit::Millis, gap),
        ("peak private memory", Unit::Bytes, watch.peak() as f64),
        (
            "peak resident memory",
            Unit::Bytes,
            process::peak_resident()? as f64,
        ),
        ("space at the end", Unit::Bytes, process::space(&job.dir)? as f64),
    ] {
        items.push(Item::Figure(Figure::new(name, unit, value)));
    }
    // The first and the last second are not whole.
    let whole = seconds.get(..plan.time.as_secs() as usize).context("no second")?;
    items.push(Item::Curve {
        name: "operations in each second".to_owned(),
        points: whole
            .iter()
            .enumerate()
            .map(|(second, count)| (second as f64, count.load(Ordering::Relaxed) as f64))
            .collect(),
    });
    Ok(items)
}

/// A thread's own histograms, which join the others' when the thread is done.
struct Own<'a> {
    kinds: [hdrhistogram::Histogram<u64>; 2],
    all: &'a Mutex<[hdrhistogram::Histogram<u64>; 2]>,
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(|e| e.into_inner());
        for (all, own) in all.iter_mut().zip(&self.kinds) {
            // Bounds are the same, so it cannot fail.
            let _ = all.add(own);
        }
    }
}
