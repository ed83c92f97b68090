//! The engine simulation: one seed draws limits, operations, crashes and faults, runs them against the
//! model on a simulated machine, and compares everything after every recovery.
//!
//! ```text
//! generate  seed -> case: the explicit list of what is done
//! case      that list, and its text
//! knobs     limits drawn per seed
//! run       does a case, judges every answer
//! power     ends the engine, by force or not, and opens it again
//! reads     gets, ranges, snapshots against the model
//! expiry    values that expire, and what becomes of them
//! retention keyspaces that keep their entries so long
//! quota     tenants that may take so much
//! ranges    range deletes, and what they hide
//! values    values that stand apart from tables
//! conditions puts on conditions that hold or do not
//! copies    checkpoints, restores and base copies
//! faults    faults that a call reports
//! damage    files damaged and writes gone wrong, on a copy of the machine
//! strikes   what struck, by kind and by row of the fault list
//! trace     hash over all that was seen
//! reduce    cuts a failing case down
//! ```
//!
//! A failure writes the reduced case to `target/sim-cases/`, which `sim replay` runs again.

mod case;
mod conditions;
mod copies;
mod damage;
mod expiry;
mod faults;
mod generate;
mod knobs;
mod power;
mod quota;
mod ranges;
mod reads;
mod reduce;
mod retention;
mod run;
mod strikes;
mod trace;
mod values;

use std::path::{Path, PathBuf};

pub use case::{Act, Case};
pub use trace::Trace;

use crate::layers::{Layer, Outcome, Profile, Request};
use crate::runner::caught;
use generate::Nature;

/// For the list of layers.
pub const LAYER: Layer = Layer {
    name: "engine",
    profiles: &[
        Profile {
            name: "engine",
            ci_fixed: 3000,
            ci_fresh: 1000,
            soak_weight: 4,
        },
        Profile {
            name: "engine-crashes",
            ci_fixed: 1000,
            ci_fresh: 500,
            soak_weight: 2,
        },
        Profile {
            name: "engine-damage",
            ci_fixed: 1000,
            ci_fresh: 500,
            soak_weight: 2,
        },
    ],
    run: of_seed,
    replay: Some(of_text),
    deterministic: true,
};

fn nature(profile: &str) -> Nature {
    match profile {
        "engine-crashes" => Nature::Crashes,
        "engine-damage" => Nature::Damage,
        _ => Nature::Faults,
    }
}

/// One run, without a case file when it fails: for those who expect it to.
pub fn once(request: &Request) -> Outcome {
    let case = generate::case(request.profile, nature(request.profile), request.seed);
    caught(|| run::run(&case))
}

fn of_seed(request: &Request) -> Outcome {
    let case = generate::case(request.profile, nature(request.profile), request.seed);
    let mut outcome = caught(|| run::run(&case));
    if let Some(failure) = outcome.failure.take() {
        outcome.failure = Some(keep(&case, &failure));
    }
    // The runner counts the run.
    outcome.counters.0.remove(crate::layers::counted::RUNS);
    outcome
}

fn of_text(text: &str) -> Outcome {
    match text.parse::<Case>() {
        Ok(case) => run::run(&case),
        Err(e) => Outcome {
            failure: Some(e),
            ..Outcome::default()
        },
    }
}

/// Reduces a failing case and writes it down; returns the failure with the file's name.
fn keep(case: &Case, failure: &str) -> String {
    let (reduced, text) = reduce::reduce(case, failure);
    let dir = cases_dir();
    let path = dir.join(format!("engine-{}-{:016x}.case", case.profile, case.seed));
    let notes: String = text.lines().map(|line| format!("# {line}\n")).collect();
    let written =
        std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, format!("{reduced}{notes}")));
    let place = match written {
        Ok(()) => format!("case file {}", path.display()),
        Err(e) => format!("the case file was not written: {e}"),
    };
    format!(
        "{failure}\n{place}, {} of {} acts left",
        reduced.acts.len(),
        case.acts.len()
    )
}

/// Where case files go: beside the build, also when a test runs in the package's directory.
fn cases_dir() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    workspace.unwrap_or(Path::new(".")).join("target/sim-cases")
}
