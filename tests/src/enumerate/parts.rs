//! The list: every scenario under every loop, numbered.

use std::time::Instant;

use strongroom::io::sim::SimFs;

use super::{
    Machine, NESTED_POINTS, Report, SCENARIO_OPERATIONS, Scope, copies, crashes, errors, nested, retention,
    scenarios, standby,
};
use crate::layers::{Layer, Outcome, Profile, Request, counted};

/// How a scenario is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loop {
    /// Power failure before each operation.
    Crash,
    /// Machine off from each operation on.
    Off,
    /// Each operation fails.
    Errors,
    /// Each reading or opening call fails.
    Reads,
    /// Crashes inside recovery.
    Nested,
}

/// One scenario under one loop.
#[derive(Clone)]
pub struct Part {
    /// As given to `sim enumerate`.
    pub name: String,
    /// How it is tried.
    pub how: Loop,
    scenario: Scenario,
}

/// Makes a machine ready for its scenario.
type Prepare = fn() -> Box<dyn Machine>;

#[derive(Clone, Copy)]
enum Scenario {
    Prepared(Prepare),
    Random(u64),
}

/// Scenarios, all of which every loop goes over.
const SCENARIOS: &[(&str, Prepare)] = &[
    ("first opening", scenarios::first_opening),
    ("write", scenarios::write),
    ("rotate", scenarios::rotate),
    ("flush", scenarios::flush),
    ("flush in passing", scenarios::flush_in_passing),
    ("compact", scenarios::compact),
    ("compact deletes", scenarios::compact_deletes),
    ("compact range deletes", scenarios::compact_range_deletes),
    ("values", scenarios::values),
    ("expiry", scenarios::expiry),
    ("retention", retention::kept),
    ("retention, buffered", retention::buffered),
    ("quota", retention::quota),
    ("recovery", scenarios::recovery),
    ("create and delete tenants", scenarios::tenants),
    ("delete keyspaces", scenarios::delete_keyspace),
    ("delete keyspaces, buffered", scenarios::delete_keyspace_buffered),
    ("manifests", scenarios::manifests),
    ("checkpoint", scenarios::checkpoint),
    ("restore", copies::restoring),
    ("fence and acceptance", copies::decisions),
    ("bootstrap", standby::bootstrap),
    ("follow", standby::following),
    ("keys on a standby", standby::keys),
    ("promotion", standby::promotion),
    ("return as standby", standby::returning),
    ("life of a standby", standby::life),
];

/// Recovery and nothing else: the operations of three recoveries in one another, up to a number of points.
pub const THREE_DEEP: &str = "recovery, three deep";

const LOOPS: [(Loop, &str); 5] = [
    (Loop::Crash, "crash"),
    (Loop::Off, "off"),
    (Loop::Errors, "errors"),
    (Loop::Reads, "reads"),
    (Loop::Nested, "nested"),
];

/// Random stretches of work in the list.
const RANDOM: u64 = 8;

/// All parts, always in this order.
pub fn parts() -> Vec<Part> {
    let mut parts = Vec::new();
    for (scenario, prepare) in SCENARIOS {
        parts.extend(LOOPS.iter().map(|(how, name)| Part {
            name: format!("{scenario}: {name}"),
            how: *how,
            scenario: Scenario::Prepared(*prepare),
        }));
    }
    parts.push(Part {
        name: THREE_DEEP.to_string(),
        how: Loop::Nested,
        scenario: Scenario::Prepared(scenarios::recovery_alone),
    });
    parts.extend((0..RANDOM).map(random));
    parts
}

/// The part of this name.
pub fn named(name: &str) -> Option<Part> {
    parts().into_iter().find(|part| part.name == name)
}

/// The power fails in a random stretch of work.
pub fn random(seed: u64) -> Part {
    Part {
        name: format!("random work {seed}"),
        how: Loop::Crash,
        scenario: Scenario::Random(seed),
    }
}

impl Part {
    /// Tries it.
    pub fn run(&self, scope: &Scope) -> Report {
        self.run_on(scope, false, &|_| {})
    }

    /// Tries it; to the first failure if `stop_at_first`. `arrange` prepares the disk on which the loop
    /// over crashes runs the scenario, besides.
    pub fn run_on(&self, scope: &Scope, stop_at_first: bool, arrange: &dyn Fn(&SimFs)) -> Report {
        let mut report = Report::new(&self.name);
        report.stop_at_first = stop_at_first;
        let mut machine = None;
        let made = super::caught(|| {
            machine = Some(match self.scenario {
                Scenario::Prepared(prepare) => prepare(),
                Scenario::Random(seed) => scenarios::random_work(seed),
            });
            Ok(())
        });
        let Some(machine) = machine else {
            report.failed("setup", &made.err().unwrap_or_default());
            return report;
        };
        let machine = machine.as_ref();
        match self.how {
            Loop::Crash => crashes::power_failures(&mut report, scope, machine, arrange),
            Loop::Off => crashes::machine_off(&mut report, scope, machine),
            Loop::Errors => errors::changing(&mut report, scope, machine),
            Loop::Reads => errors::reading(&mut report, scope, machine),
            Loop::Nested if self.name == THREE_DEEP => {
                let scope = Scope {
                    nested: [1, 1, 1],
                    nested_max: 10 * scope.nested_max,
                    ..*scope
                };
                nested::of_recovery(&mut report, &scope, machine);
            }
            Loop::Nested => nested::of_moments(&mut report, scope, machine),
        }
        report
    }
}

/// The layer: seed n is part n, with other random crashes for every round through the list.
pub const LAYER: Layer = Layer {
    name: "enumerate",
    profiles: &[Profile {
        name: "enumerate",
        ci_fixed: SCENARIOS.len() as u64 * LOOPS.len() as u64 + 1 + RANDOM,
        ci_fresh: 0,
        soak_weight: 2,
    }],
    run: of_seed,
    replay: None,
    // Files' salts are fresh in every run.
    deterministic: false,
};

fn of_seed(request: &Request) -> Outcome {
    let parts = parts();
    let (round, number) = (
        request.seed / parts.len() as u64,
        request.seed % parts.len() as u64,
    );
    let part = &parts[number as usize];
    let part = match part.scenario {
        Scenario::Random(seed) => random(seed + round * RANDOM),
        Scenario::Prepared(_) => part.clone(),
    };
    let report = part.run(&Scope::full(round * 1000));
    Outcome {
        trace: 0,
        failure: (!report.failures.is_empty()).then(|| report.failures.join("\n\n")),
        counters: report.counters,
    }
}

/// `sim enumerate [PART]`: all parts whose name contains the word, on two threads, with their counts.
pub fn command(words: &[String]) -> std::result::Result<(), String> {
    let asked = words.join(" ");
    let chosen: Vec<Part> = parts()
        .into_iter()
        .filter(|part| part.name.contains(&asked))
        .collect();
    if chosen.is_empty() {
        return Err(format!("no part's name contains {asked:?}"));
    }
    let begin = Instant::now();
    let reports = run_all(&chosen, &Scope::full(0), 2, |report| eprint!("{}", row(report)));
    print!("{}", table(&reports));
    println!("{:.1} s", begin.elapsed().as_secs_f64());
    let failures: Vec<&String> = reports.iter().flat_map(|report| &report.failures).collect();
    failures.iter().for_each(|failure| eprintln!("\n{failure}"));
    match failures.len() {
        0 => Ok(()),
        n => Err(format!("{n} failures")),
    }
}

/// Runs parts on some threads, telling of each as it ends; reports in their order.
pub fn run_all(
    chosen: &[Part],
    scope: &Scope,
    threads: usize,
    ended: impl Fn(&Report) + Sync,
) -> Vec<Report> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let done = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|threads_of_all| {
        for _ in 0..threads {
            threads_of_all.spawn(|| {
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(part) = chosen.get(n) else { return };
                    let report = part.run(scope);
                    ended(&report);
                    done.lock().unwrap().push((n, report));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, report)| report).collect()
}

const COLUMNS: [&str; 4] = [
    SCENARIO_OPERATIONS,
    counted::CRASH_POINTS,
    counted::ERROR_POINTS,
    NESTED_POINTS,
];

/// Counts of each part, and their sums.
pub fn table(reports: &[Report]) -> String {
    let mut text = format!(
        "{:<36}{:>10}{:>14}{:>14}{:>14}{:>10}\n",
        "part", "operations", "crash points", "error points", "nested points", "failures"
    );
    let mut all = Report::new("all");
    for report in reports {
        text += &row(report);
        all.counters.merge(&report.counters);
        all.failures.extend(report.failures.iter().cloned());
    }
    text + &row(&all)
}

fn row(report: &Report) -> String {
    let [operations, crashes, errors, nested] = COLUMNS.map(|c| report.counters.get(c));
    let (part, failures) = (&report.part, report.failures.len());
    format!("{part:<36}{operations:>10}{crashes:>14}{errors:>14}{nested:>14}{failures:>10}\n")
}
