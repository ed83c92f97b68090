//! The layers of simulation, as the binary `sim` runs them: each turns a seed into one run.
//!
//! A layer joins by one line in [`LAYERS`]; rare states of another crate by one line in [`RARE`]; a
//! subcommand of its own by one line in [`COMMANDS`]. Everything else (jobs, totals, the soak, the CI
//! slice, panics, reruns, the line that reproduces) is the runner's.
//!
//! Invariant: the same seed, profile and program give the same [`Outcome`], trace included, whatever
//! else runs in the process. A layer that cannot promise it says `deterministic: false`.

use std::collections::BTreeMap;

/// One kind of simulation.
pub struct Layer {
    /// Short, for tables.
    pub name: &'static str,
    /// Its variants; their names differ over all layers, so that `--profile` alone finds the layer.
    pub profiles: &'static [Profile],
    /// One run. A panic in it is caught by the runner and counted as a failure.
    pub run: fn(&Request) -> Outcome,
    /// Runs a case file that this layer wrote (its text), for layers that write some.
    pub replay: Option<fn(&str) -> Outcome>,
    /// Whether equal seeds give equal traces: then every 50th run is repeated and compared.
    pub deterministic: bool,
}

/// A variant of a layer, with its share of the work.
pub struct Profile {
    /// As given to `--profile`.
    pub name: &'static str,
    /// Seeds 0 to here run in CI. A layer that enumerates parts numbers them by seed.
    pub ci_fixed: u64,
    /// Seeds derived from the commit that run in CI besides.
    pub ci_fresh: u64,
    /// Share of a soak's time, relative to the others; 0 for what a soak need not repeat.
    pub soak_weight: u32,
}

/// What is asked of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Decides everything random.
    pub seed: u64,
    /// One of the layer's profiles.
    pub profile: &'a str,
}

/// What came of one run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Hash over everything that was done and seen.
    pub trace: u64,
    /// What was counted; see [`counted`] for names with a meaning to the runner.
    pub counters: Counters,
    /// What is wrong, in as many lines as it takes.
    pub failure: Option<String>,
}

/// Sums by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters(pub BTreeMap<String, u64>);

impl Counters {
    /// Counts.
    pub fn add(&mut self, name: impl Into<String>, count: u64) {
        *self.0.entry(name.into()).or_default() += count;
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Counters) {
        other.0.iter().for_each(|(name, count)| self.add(name, *count));
    }

    /// One of them, 0 if it was never counted.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

/// Names of counters that reports put first.
pub mod counted {
    /// Runs, by the runner.
    pub const RUNS: &str = "runs";
    /// Calls of the engine or the protocol.
    pub const OPERATIONS: &str = "operations";
    /// Power cuts and kills.
    pub const CRASHES: &str = "crashes";
    /// Writes acknowledged.
    pub const ACKNOWLEDGED: &str = "acknowledged";
    /// Acknowledged writes that were not found again.
    pub const LOST: &str = "lost";
    /// Reads of damaged bytes that gave wrong data instead of an error.
    pub const UNDETECTED: &str = "corruptions undetected";
    /// Panics, by the runner.
    pub const PANICS: &str = "panics";
    /// Runs repeated to compare their traces, by the runner.
    pub const RERUNS: &str = "determinism reruns";
    /// Places at which a crash was tried.
    pub const CRASH_POINTS: &str = "crash points";
    /// Calls that were made to fail.
    pub const ERROR_POINTS: &str = "error points";
    /// Failovers.
    pub const FAILOVERS: &str = "failovers";

    /// Injections of one kind of fault.
    pub fn fault(kind: &str) -> String {
        format!("fault: {kind}")
    }

    /// Injections for one row of the fault list (research/reliability.md, section 2).
    pub fn row(row: u32) -> String {
        format!("row {row:02}")
    }
}

/// All layers.
pub const LAYERS: &[&Layer] = &[
    &crate::sim::LAYER,
    &crate::pair::LAYER,
    &crate::enumerate::parts::LAYER,
];

/// A crate's rare states with their visits in this process.
pub type RareStates = fn() -> Vec<(&'static str, u64)>;

/// One list for each crate that has some.
pub const RARE: &[RareStates] = &[engine_rare_states, replication_rare_states];

/// Subcommands of `sim` that are no layers: name, what it does, and its main function, which takes the
/// arguments after the name.
pub type Command = (&'static str, &'static str, fn(&[String]) -> Result<(), String>);

/// All of them.
pub const COMMANDS: &[Command] = &[
    (
        "pair-planted",
        "each planted bug of a pair must be found; [RUNS] at most for each",
        crate::pair::planted::command,
    ),
    (
        "pair-explore",
        "every order of up to DEPTH things that happen to a pair",
        crate::pair::explore::command,
    ),
    (
        "enumerate",
        "every operation of every scenario crashes or fails; or of the parts whose name contains a word",
        crate::enumerate::parts::command,
    ),
    (
        "planted",
        "hunts every bug planted in the engine, or the one that is named",
        crate::planted::command,
    ),
    (
        "damage",
        "flips every bit of a small database, closed and killed",
        crate::damage::command,
    ),
];

fn engine_rare_states() -> Vec<(&'static str, u64)> {
    let all = strongroom::hooks::Rare::ALL.iter();
    all.map(|state| (state.name(), state.visits())).collect()
}

fn replication_rare_states() -> Vec<(&'static str, u64)> {
    let all = strongroom_replication::hooks::Rare::ALL.iter();
    all.map(|state| (state.name(), state.visits())).collect()
}

/// The layer that has this profile.
pub fn find(profile: &str) -> Option<(&'static Layer, &'static Profile)> {
    LAYERS.iter().find_map(|layer| {
        let found = layer.profiles.iter().find(|p| p.name == profile);
        found.map(|p| (*layer, p))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_found_by_its_name_alone() {
        for layer in LAYERS {
            for profile in layer.profiles {
                let (found, _) = find(profile.name).unwrap();
                assert_eq!(found.name, layer.name, "{} is a name twice", profile.name);
            }
        }
        assert!(find("none").is_none());
    }

    #[test]
    fn rare_states_have_different_names_over_all_crates() {
        let names: Vec<_> = RARE.iter().flat_map(|list| list()).map(|(n, _)| n).collect();
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), distinct.len());
    }
}
