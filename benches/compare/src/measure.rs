//! Runs one operation over and over in some threads for some time, and counts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// How many there were.
    pub count: u64,
    /// Nanoseconds of each call.
    pub latency: Histogram<u64>,
}

/// A thread's share of the work: does one call, says how many operations that was.
pub type Step<'a> = Box<dyn FnMut(&mut Dice) -> Result<u64> + Send + 'a>;

/// When a run is over: at this time, or when so many operations are done (if sooner).
#[derive(Clone, Copy)]
pub struct Until {
    pub time: Duration,
    pub count: u64,
}

impl From<Duration> for Until {
    fn from(time: Duration) -> Until {
        Until {
            time,
            count: u64::MAX,
        }
    }
}

/// Threads add to the shared count this seldom, so that counting costs nothing.
const COUNT_EVERY: u64 = 64;

/// Runs every step in a thread of its own until it is over. The first error ends it.
pub fn run(until: impl Into<Until>, seed: u64, steps: Vec<Step<'_>>) -> Result<Measured> {
    let all = run_each(until, seed, steps)?;
    let mut latency = histogram();
    for one in &all {
        latency.add(&one.latency)?;
    }
    Ok(Measured {
        per_second: all.iter().map(|m| m.per_second).sum(),
        count: all.iter().map(|m| m.count).sum(),
        latency,
    })
}

/// The same, with the threads' results apart. Rates are by the time from the first start to the last end, for each
/// thread: by its own it would be the faster the less of the machine it got.
pub fn run_each(until: impl Into<Until>, seed: u64, steps: Vec<Step<'_>>) -> Result<Vec<Measured>> {
    let until = until.into();
    let (over, done, results) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::new(Vec::new()));
    let start = Barrier::new(steps.len() + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = steps
            .into_iter()
            .enumerate()
            .map(|(thread, mut step)| {
                let (over, done, results, start) = (&over, &done, &results, &start);
                scope.spawn(move || {
                    let mut dice = Dice::new(seed ^ (thread as u64) << 32);
                    start.wait();
                    let began = Instant::now();
                    let outcome = repeat(over, done, until.count, || step(&mut dice));
                    let ended = Instant::now();
                    over.fetch_or(outcome.is_err(), Ordering::Relaxed);
                    results
                        .lock()
                        .unwrap_or_else(|e| e.into_inner())
                        .push((thread, began, ended, outcome));
                })
            })
            .collect();
        start.wait();
        let began = Instant::now();
        while began.elapsed() < until.time
            && !over.load(Ordering::Relaxed)
            && !threads.iter().all(|thread| thread.is_finished())
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        over.store(true, Ordering::Relaxed);
    });
    let mut results = results.into_inner().unwrap_or_else(|e| e.into_inner());
    results.sort_by_key(|(thread, ..)| *thread);
    let (first, last) = (
        results.iter().map(|(_, began, ..)| *began).min(),
        results.iter().map(|(_, _, ended, _)| *ended).max(),
    );
    let ran = first
        .zip(last)
        .map_or(Duration::ZERO, |(first, last)| last - first);
    results
        .into_iter()
        .map(|(.., outcome)| {
            let (count, latency) = outcome?;
            Ok(Measured {
                per_second: count as f64 / ran.as_secs_f64().max(1e-9),
                count,
                latency,
            })
        })
        .collect()
}

/// How many operations there were, and how long each call took.
fn repeat(
    over: &AtomicBool,
    done: &AtomicU64,
    most: u64,
    mut step: impl FnMut() -> Result<u64>,
) -> Result<(u64, Histogram<u64>)> {
    let mut latency = histogram();
    let (mut count, mut told) = (0, 0);
    let mut last = Instant::now();
    while !over.load(Ordering::Relaxed) {
        count += step()?;
        let now = Instant::now();
        latency.saturating_record((now - last).as_nanos() as u64);
        last = now;
        if most != u64::MAX && count - told >= COUNT_EVERY {
            let all = done.fetch_add(count - told, Ordering::Relaxed) + count - told;
            told = count;
            if all >= most {
                break;
            }
        }
    }
    Ok((count, latency))
}

/// One piece of work done once: `count` operations.
pub fn once(count: u64, work: impl FnOnce() -> Result<()>) -> Result<Measured> {
    let began = Instant::now();
    work()?;
    Ok(took(count, began.elapsed()))
}

/// `count` operations that took so long together.
pub fn took(count: u64, time: Duration) -> Measured {
    let mut latency = histogram();
    latency.saturating_record(time.as_nanos() as u64);
    Measured {
        per_second: count as f64 / time.as_secs_f64().max(1e-9),
        count,
        latency,
    }
}

/// 1 ns to an hour, three digits: bounds that the library accepts.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("valid bounds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_with_a_count_ends_at_it_and_every_operation_is_counted() {
        let done = AtomicU64::new(0);
        let step = || -> Step<'_> {
            Box::new(|_| {
                done.fetch_add(1, Ordering::Relaxed);
                Ok(1)
            })
        };
        let until = Until {
            time: Duration::from_secs(3600),
            count: 10_000,
        };
        let measured = run(until, 1, vec![step(), step()]).unwrap();
        assert_eq!(measured.count, done.load(Ordering::Relaxed));
        assert_eq!(measured.count, measured.latency.len());
        assert!((10_000 - 2 * COUNT_EVERY..10_000 + 4 * COUNT_EVERY).contains(&measured.count));
    }

    #[test]
    fn rates_of_all_threads_are_by_the_same_time() {
        let steps: Vec<Step<'_>> = vec![
            Box::new(|_| Ok(1)),
            Box::new(|_| {
                std::thread::yield_now();
                Ok(1)
            }),
        ];
        let until = Until {
            time: Duration::from_secs(3600),
            count: 100_000,
        };
        let all = run_each(until, 1, steps).unwrap();
        let times: Vec<f64> = all.iter().map(|m| m.count as f64 / m.per_second).collect();
        assert!((times[0] - times[1]).abs() < 1e-9, "{times:?}");
    }

    #[test]
    fn the_first_error_ends_a_run() {
        let steps: Vec<Step<'_>> = vec![Box::new(|_| Ok(1)), Box::new(|_| anyhow::bail!("broken"))];
        let error = run(Duration::from_secs(3600), 1, steps).err().unwrap();
        assert_eq!(error.to_string(), "broken");
    }
}
