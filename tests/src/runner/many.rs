//! Many runs on several threads: a list of seeds, or whatever is behind its share until time is over.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::one::Run;
use super::totals::Totals;
use crate::dice::Dice;
use crate::layers::{LAYERS, Layer, Profile};

/// A deterministic layer's runs are repeated once in so many.
const RERUN_EVERY: u64 = 50;

/// Seeds of one profile.
#[derive(Clone)]
pub struct Seeds {
    /// The layer.
    pub layer: &'static Layer,
    /// Which of its profiles.
    pub profile: &'static Profile,
    /// The seeds in order.
    pub seeds: Vec<u64>,
}

/// What is to be run.
pub enum Plan {
    /// All of these.
    Lists(Vec<Seeds>),
    /// All layers by their weights, with seeds that follow from the first, until time is over.
    Soak {
        /// How long.
        time: Duration,
        /// First seed.
        first: u64,
    },
}

impl Plan {
    /// The fixed slice of each layer and fresh seeds that follow from the commit.
    pub fn ci(commit: &str) -> Plan {
        let mut fresh = Dice::new(commit.bytes().fold(0, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        }));
        let all = LAYERS.iter().flat_map(|layer| {
            let profiles = layer.profiles.iter();
            profiles.map(|profile| (*layer, profile))
        });
        let lists = all.map(|(layer, profile)| Seeds {
            layer,
            profile,
            seeds: (0..profile.ci_fixed)
                .chain((0..profile.ci_fresh).map(|_| fresh.roll()))
                .collect(),
        });
        Plan::Lists(lists.collect())
    }
}

/// Gives each worker its next run.
trait Source: Sync {
    /// The next run and whether it is repeated.
    fn next(&self) -> Option<(Run, bool)>;
    /// A run took so long.
    fn took(&self, run: &Run, time: Duration);
}

struct Listed {
    runs: Vec<Run>,
    next: AtomicUsize,
}

impl Source for Listed {
    fn next(&self) -> Option<(Run, bool)> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let run = *self.runs.get(n)?;
        Some((
            run,
            run.layer.deterministic && run.seed.is_multiple_of(RERUN_EVERY),
        ))
    }

    fn took(&self, _: &Run, _: Duration) {}
}

/// The profile that has had least of its share goes next.
struct Shared {
    end: Instant,
    profiles: Mutex<Vec<Progress>>,
}

struct Progress {
    layer: &'static Layer,
    profile: &'static Profile,
    seeds: Dice,
    begun: u64,
    /// Time given, including an estimate for runs that are not over.
    time: Duration,
}

impl Source for Shared {
    fn next(&self) -> Option<(Run, bool)> {
        if Instant::now() >= self.end {
            return None;
        }
        let mut profiles = self.profiles.lock().unwrap();
        let behind = |p: &&mut Progress| p.time.div_f64(f64::from(p.profile.soak_weight));
        let next = profiles.iter_mut().min_by_key(behind)?;
        let repeated = next.layer.deterministic && next.begun.is_multiple_of(RERUN_EVERY);
        next.begun += 1;
        // So that two workers do not both pick a profile that has had nothing yet.
        next.time += Duration::from_micros(100);
        let run = Run {
            layer: next.layer,
            profile: next.profile,
            seed: next.seeds.roll(),
        };
        Some((run, repeated))
    }

    fn took(&self, run: &Run, time: Duration) {
        let mut profiles = self.profiles.lock().unwrap();
        if let Some(p) = profiles.iter_mut().find(|p| p.profile.name == run.profile.name) {
            p.time += time;
        }
    }
}

/// Runs the plan on `jobs` threads; `progress` is told the totals after each run.
pub fn run(plan: Plan, jobs: usize, commit: &str, progress: impl Fn(&Totals) + Sync) -> Totals {
    let source: Box<dyn Source> = match plan {
        Plan::Lists(lists) => {
            let runs = lists.iter().flat_map(|list| {
                list.seeds.iter().map(|seed| Run {
                    layer: list.layer,
                    profile: list.profile,
                    seed: *seed,
                })
            });
            Box::new(Listed {
                runs: runs.collect(),
                next: AtomicUsize::new(0),
            })
        }
        Plan::Soak { time, first } => Box::new(Shared {
            end: Instant::now() + time,
            profiles: Mutex::new(profiles_of_a_soak(first)),
        }),
    };
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some((run, repeated)) = source.next() {
                    let begin = Instant::now();
                    let outcome = if repeated { run.twice() } else { run.once() };
                    let time = begin.elapsed();
                    source.took(&run, time);
                    let mut totals = totals.lock().unwrap();
                    totals.add(&run, &outcome, time, commit);
                    progress(&totals);
                }
            });
        }
    });
    totals.into_inner().unwrap()
}

fn profiles_of_a_soak(first: u64) -> Vec<Progress> {
    let mut seeds = Dice::new(first);
    let all = LAYERS.iter().flat_map(|layer| {
        let profiles = layer.profiles.iter();
        profiles.map(|profile| (*layer, profile))
    });
    all.filter(|(_, profile)| profile.soak_weight > 0)
        .map(|(layer, profile)| Progress {
            layer,
            profile,
            seeds: Dice::new(seeds.roll()),
            begun: 0,
            time: Duration::ZERO,
        })
        .collect()
}
