//! Runs one operation over and over in some threads for some time, and counts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::work::Dice;

/// What one run of one line gave.
#[derive(Clone)]
pub struct Measured {
    /// Operations (entries, for scans) a second.
    pub per_second: f64,
    /// Nanoseconds of each call.
    pub latency: Histogram<u64>,
}

/// A thread's share of the work: does one call, says how many operations that was.
pub type Step<'a> = Box<dyn FnMut(&mut Dice) -> Result<u64> + Send + 'a>;

/// Runs every step in a thread of its own until the time is up. The first error ends it.
pub fn run(time: Duration, seed: u64, steps: Vec<Step<'_>>) -> Result<Measured> {
    let all = run_each(time, seed, steps)?;
    let mut latency = all.first().map(|m| m.latency.clone()).unwrap_or_else(histogram);
    for other in all.iter().skip(1) {
        latency.add(&other.latency)?;
    }
    Ok(Measured {
        per_second: all.iter().map(|m| m.per_second).sum(),
        latency,
    })
}

/// The same, with the threads' results apart.
pub fn run_each(time: Duration, seed: u64, steps: Vec<Step<'_>>) -> Result<Vec<Measured>> {
    let (over, results) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let start = Barrier::new(steps.len() + 1);
    std::thread::scope(|scope| {
        for (thread, mut step) in steps.into_iter().enumerate() {
            let (over, results, start) = (&over, &results, &start);
            scope.spawn(move || {
                let mut dice = Dice::new(seed ^ (thread as u64) << 32);
                start.wait();
                let outcome = until(over, || step(&mut dice));
                over.fetch_or(outcome.is_err(), Ordering::Relaxed);
                results
                    .lock()
                    .unwrap_or_else(|e| e.into_inner())
                    .push((thread, outcome));
            });
        }
        start.wait();
        let began = Instant::now();
        while began.elapsed() < time && !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        over.store(true, Ordering::Relaxed);
    });
    let mut results = results.into_inner().unwrap_or_else(|e| e.into_inner());
    results.sort_by_key(|(thread, _)| *thread);
    results.into_iter().map(|(_, outcome)| outcome).collect()
}

fn until(over: &AtomicBool, mut step: impl FnMut() -> Result<u64>) -> Result<Measured> {
    let mut latency = histogram();
    let (began, mut count) = (Instant::now(), 0);
    let mut last = began;
    while !over.load(Ordering::Relaxed) {
        count += step()?;
        let now = Instant::now();
        latency.saturating_record((now - last).as_nanos() as u64);
        last = now;
    }
    Ok(Measured {
        per_second: count as f64 / (last - began).as_secs_f64().max(1e-9),
        latency,
    })
}

/// One piece of work done once: `count` operations.
pub fn once(count: u64, work: impl FnOnce() -> Result<()>) -> Result<Measured> {
    let began = Instant::now();
    work()?;
    let took = began.elapsed();
    let mut latency = histogram();
    latency.saturating_record(took.as_nanos() as u64);
    Ok(Measured {
        per_second: count as f64 / took.as_secs_f64(),
        latency,
    })
}

fn histogram() -> Histogram<u64> {
    // 1 ns to a minute, three digits: bounds that the library accepts.
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("valid bounds")
}
