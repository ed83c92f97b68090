//! Bugs planted in the replication core and in the engine's part of it: each must be found within so many
//! seeds, or this simulation proves nothing about the rule that was left out.

use std::fmt;

use super::run;
use crate::runner::caught;

/// A planted bug of either crate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Of the replication core.
    Core(strongroom_replication::hooks::Bug),
    /// Of the engine, where only a pair shows it.
    Engine(strongroom::hooks::Bug),
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bug::Core(bug) => write!(f, "{}: {}", bug.name(), bug.what()),
            Bug::Engine(bug) => write!(f, "{}: {}", bug.name(), bug.what()),
        }
    }
}

impl Bug {
    fn planted_in<T>(self, work: impl FnOnce() -> T) -> T {
        match self {
            Bug::Core(bug) => bug.planted_in(work),
            Bug::Engine(bug) => bug.planted_in(work),
        }
    }
}

/// All of them, each with the profiles whose seeds are tried.
pub fn bugs() -> Vec<(Bug, &'static [&'static str])> {
    use strongroom::hooks::Bug as E;
    let core = strongroom_replication::hooks::Bug::ALL;
    let mut all: Vec<(Bug, &'static [&'static str])> = core
        .iter()
        .map(|bug| (Bug::Core(*bug), &["pair-strict", "trio"][..]))
        .collect();
    for bug in [E::PromotionNotDurable, E::FenceNotDurable, E::BaseCopyNotSynced] {
        all.push((Bug::Engine(bug), &["pair-strict", "pair"][..]));
    }
    all
}

/// How a bug was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Runs until then, this one included.
    pub runs: u64,
    /// Of which profile.
    pub profile: &'static str,
    /// With which seed.
    pub seed: u64,
    /// What was wrong, its first line.
    pub what: String,
}

/// Tries seeds from 0 on, of each profile in turn, until the bug is found.
pub fn find(bug: Bug, profiles: &'static [&'static str], runs_max: u64) -> Option<Found> {
    (0..runs_max).find_map(|n| {
        let profile = profiles[n as usize % profiles.len()];
        let seed = n / profiles.len() as u64;
        let outcome = bug.planted_in(|| caught(|| run(profile, seed)));
        outcome.failure.map(|what| Found {
            runs: n + 1,
            profile,
            seed,
            what: what.lines().next().unwrap_or_default().to_string(),
        })
    })
}

/// `sim pair-planted [RUNS] [NAME]`: prints how each bug was found; an error if one was not.
pub fn command(words: &[String]) -> Result<(), String> {
    let runs_max = words.first().map_or(Ok(2000), |word| word.parse());
    let runs_max = runs_max.map_err(|e| format!("RUNS: {e}"))?;
    let mut missed = Vec::new();
    for (bug, profiles) in bugs() {
        if words
            .get(1)
            .is_some_and(|name| !bug.to_string().starts_with(name.as_str()))
        {
            continue;
        }
        match find(bug, profiles, runs_max) {
            Some(found) => println!(
                "{bug}\n    found in run {} ({} seed {:#x}): {}",
                found.runs, found.profile, found.seed, found.what
            ),
            None => {
                println!("{bug}\n    NOT FOUND in {runs_max} runs");
                missed.push(bug.to_string());
            }
        }
    }
    if missed.is_empty() {
        return Ok(());
    }
    Err(format!("not found: {}", missed.join("; ")))
}
