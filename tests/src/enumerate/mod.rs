//! Every operation of every scenario is tried as the moment at which the power fails, and as the one that
//! fails: exhaustive enumeration, before anything is sampled.
//!
//! ```text
//! scenarios  stretches of work of one engine: opening, writing, rotation, flush, compaction, ...
//! standby    base copy, following, keys, promotion, return; what a primary sends them
//! copies     restore from a checkpoint and an escrow; fence and acceptance
//! on_world   how those of one engine are driven and judged
//! crashes    power failure before each operation, machine off from each operation on
//! errors     each operation, reading call and opening call fails, once and for ever
//! nested     the power fails again during the recovery, and during the recovery of that
//! parts      the list: scenario x loop, numbered, for tests, the CI slice and the command
//! ```
//!
//! What is judged is the same everywhere ([`Machine::examine`]): what is left opens, its whole content is
//! a state that contains everything acknowledged and whole batches only, and work goes on. Equal disks
//! with equal knowledge are examined once and counted once.
//!
//! A failure names the part, the operation, the manner and its seed; `sim enumerate PART` repeats it.

mod copies;
mod crashes;
mod errors;
mod nested;
mod on_world;
pub mod parts;
mod retention;
mod scenarios;
mod standby;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use strongroom::Result;
use strongroom::io::sim::{CrashMode, SimFs};

use crate::layers::{Counters, counted};

pub use parts::{Part, parts};
pub use standby::spliced_log_is_refused;

/// Ok, or what is wrong.
pub type Check = std::result::Result<(), String>;

/// Makes the machine of the moment at which a fork of its disk was taken.
pub type Copier = Box<dyn Fn(&SimFs) -> Box<dyn Machine> + Send>;

/// One machine with a scenario to live through, and what is known of it apart from its disk.
pub trait Machine: Send {
    /// Its disk.
    fn fs(&self) -> &SimFs;
    /// Copies provider and knowledge as they are when it is called.
    fn copier(&self) -> Copier;
    /// A number that differs where what is allowed after a crash may differ.
    fn stamp(&self) -> u64;
    /// Lives through the scenario.
    fn run(&mut self) -> Result<()>;
    /// Drops what runs on it.
    fn kill(&mut self);
    /// After a call failed and its cause is gone, in the same process: what must still work. `full`: it
    /// was for want of room only.
    fn goes_on(&mut self, full: bool) -> Check;
    /// Opens what is left and compares it with what must be there.
    fn examine(&mut self, depth: Depth) -> Check;
}

/// How much is asked of what is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// That it opens, and holds what it must.
    Open,
    /// Besides, that the copies taken from it do, too.
    Look,
    /// Besides, that work goes on: what follows is chosen by the number.
    Work(u64),
}

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// First seed of random crashes.
    pub seed: u64,
    /// Random crashes of each moment that has something to lose.
    pub random: u64,
    /// One in so many examined disks is also worked on.
    pub work_every: u64,
    /// Every errno, and for ever; else an I/O error and a full disk once, and a full disk for ever.
    pub all_errors: bool,
    /// Of so many operations one fails.
    pub error_stride: u64,
    /// Reading and opening calls that fail, at most, spread evenly.
    pub reads_max: u64,
    /// Of so many moments one is descended into: at the first, second and third recovery.
    pub nested: [u64; 3],
    /// Nested points of a part at most.
    pub nested_max: u64,
}

impl Scope {
    /// What `cargo test` has time for.
    pub fn slice(seed: u64, random: u64) -> Scope {
        Scope {
            seed,
            random,
            work_every: 2,
            all_errors: false,
            error_stride: 2,
            reads_max: 12,
            nested: [24, 12, 12],
            nested_max: 300,
        }
    }

    /// What the command and CI run.
    pub fn full(seed: u64) -> Scope {
        Scope {
            seed,
            random: 64,
            work_every: 8,
            all_errors: true,
            error_stride: 1,
            reads_max: 400,
            nested: [4, 16, 16],
            nested_max: 12_000,
        }
    }
}

/// What a part has done so far, and what was wrong.
pub struct Report {
    /// Its name.
    pub part: String,
    /// What was counted.
    pub counters: Counters,
    /// What was wrong; the first few.
    pub failures: Vec<String>,
    /// Whether the first failure ends it.
    pub stop_at_first: bool,
    seen: HashSet<(u64, u64)>,
}

/// Names of counters besides those of [`counted`].
pub const NESTED_POINTS: &str = "nested crash points";
/// Operations of the undisturbed scenarios.
pub const SCENARIO_OPERATIONS: &str = "scenario operations";

/// A part that fails says so this often at most.
const FAILURES_MAX: usize = 5;

impl Report {
    /// An empty one.
    pub fn new(part: &str) -> Report {
        Report {
            part: part.to_string(),
            counters: Counters::default(),
            failures: Vec::new(),
            stop_at_first: false,
            seen: HashSet::new(),
        }
    }

    /// Points examined so far.
    pub fn points(&self) -> u64 {
        let names = [counted::CRASH_POINTS, counted::ERROR_POINTS, NESTED_POINTS];
        names.iter().map(|name| self.counters.get(name)).sum()
    }

    fn failed(&mut self, what: &str, why: &str) {
        if self.failures.len() < FAILURES_MAX {
            let part = &self.part;
            self.failures
                .push(format!("{part}: {what}\n{why}\nREPRO: sim enumerate '{part}'"));
        }
    }

    fn is_over(&self) -> bool {
        self.failures.len() >= FAILURES_MAX || (self.stop_at_first && !self.failures.is_empty())
    }

    /// Whether this disk with this knowledge is new to the part.
    fn is_new(&mut self, image: &SimFs, stamp: u64) -> bool {
        self.seen.insert((image.digest(), stamp))
    }

    /// Examines one possible disk of a moment, counted as `point`; nothing if it was examined before.
    fn examine(&mut self, machine: &dyn Machine, image: &SimFs, what: &str, point: &str, scope: &Scope) {
        if !self.is_new(image, machine.stamp()) {
            return;
        }
        self.counters.add(point, 1);
        let number = self.seen.len() as u64;
        let depth = match number % scope.work_every {
            0 => Depth::Work(number / scope.work_every),
            _ => Depth::Look,
        };
        let mut left = machine.copier()(image);
        if let Err(why) = caught(|| left.examine(depth)) {
            self.failed(what, &why);
        }
    }
}

/// Every disk that may be left of `fs`: nothing kept, all kept, `random` parts.
fn images(fs: &SimFs, scope: &Scope, random: u64) -> Vec<(String, SimFs)> {
    let mut modes = vec![(CrashMode::DropAll, 0), (CrashMode::KeepAll, 0)];
    if fs.unsynced() > 0 {
        modes.extend((scope.seed..scope.seed + random).map(|seed| (CrashMode::KeepRandom, seed)));
    }
    let image = |(mode, seed)| (format!("{mode:?} with seed {seed}"), fs.crashed_image(mode, seed));
    modes.into_iter().map(image).collect()
}

/// What was about to happen, and the machine as it was.
type Moment = (String, Box<dyn Machine>);

/// The moments before each operation of `work`, and the one after it.
fn moments(
    machine: &mut Box<dyn Machine>,
    work: impl FnOnce(&mut dyn Machine) -> Check,
) -> (Vec<Moment>, Check) {
    let moments = Arc::new(Mutex::new(Vec::new()));
    let (to, copier) = (moments.clone(), machine.copier());
    machine.fs().probe(move |op, fs| {
        let label = format!(
            "before operation {} ({:?} {})",
            op.number,
            op.kind,
            op.path.display()
        );
        to.lock().unwrap().push((label, copier(fs)));
    });
    let result = work(machine.as_mut());
    machine.fs().clear_probe();
    let mut moments = std::mem::take(&mut *moments.lock().unwrap());
    moments.push(("at the end".to_string(), machine.copier()(&machine.fs().fork())));
    (moments, result)
}

/// A panic is a failure like any other.
pub fn caught(work: impl FnOnce() -> Check) -> Check {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(check) => check,
        Err(payload) => {
            let text = payload
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string()));
            Err(format!("panic: {}", text.unwrap_or_default()))
        }
    }
}
