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

/// What must notice a bug.
pub enum Finder {
    /// Seeds of these profiles, in turn.
    Seeds(&'static [&'static str]),
    /// One decision of the core, for what two nodes at fixed addresses cannot bring about, or what a second rule
    /// masks.
    Case(fn() -> Result<(), String>),
}

/// All of them.
pub fn bugs() -> Vec<(Bug, Finder)> {
    use strongroom::hooks::Bug as E;
    use strongroom_replication::hooks::Bug as C;
    let finder = |bug: &C| match bug {
        // Only a transport that exchanges messages shows it.
        C::KeysOutOfOrder => Finder::Seeds(&["pair-hostile"]),
        C::YoungerHelloIgnored => Finder::Case(cases::younger_hello),
        C::KeysSinceOtherPrimary => Finder::Case(cases::keys_of_another_primary),
        C::ServeOverNewerPeer => Finder::Case(cases::newer_peer),
        C::CopyOfOlderPrimary => Finder::Case(cases::copy_of_an_older_primary),
        _ => Finder::Seeds(&["pair-strict", "trio"]),
    };
    let core = C::ALL.iter().map(|bug| (Bug::Core(*bug), finder(bug)));
    let engine = [E::PromotionNotDurable, E::FenceNotDurable, E::BaseCopyNotSynced]
        .map(|bug| (Bug::Engine(bug), Finder::Seeds(&["pair-strict", "pair"])));
    let mortal = [
        E::FollowerSkipsRangeDeletes,
        E::FollowerSkipsSettings,
        E::StandbyForgetsSettings,
        E::StandbyReplaysNoRangeDeletes,
    ];
    let mortal = mortal.map(|bug| (Bug::Engine(bug), Finder::Seeds(&["pair-strict", "trio"])));
    let lagging = (Bug::Engine(E::StandbyDropsByItsClock), Finder::Seeds(&["trio"]));
    core.chain(engine).chain(mortal).chain([lagging]).collect()
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

/// Tries seeds from 0 on, of each profile in turn, until the bug is found; a case once.
pub fn find(bug: Bug, finder: &Finder, runs_max: u64) -> Option<Found> {
    let profiles = match finder {
        Finder::Seeds(profiles) => profiles,
        Finder::Case(case) => {
            return bug.planted_in(case).err().map(|what| Found {
                runs: 1,
                profile: "case",
                seed: 0,
                what,
            });
        }
    };
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

/// `sim pair-planted [RUNS] [NAME]`: prints how each bug was found; an error if one was not, or if a case fails
/// without its bug.
pub fn command(words: &[String]) -> Result<(), String> {
    let runs_max = words.first().map_or(Ok(2000), |word| word.parse());
    let runs_max = runs_max.map_err(|e| format!("RUNS: {e}"))?;
    let mut missed = Vec::new();
    for (bug, finder) in bugs() {
        if words
            .get(1)
            .is_some_and(|name| !bug.to_string().starts_with(name.as_str()))
        {
            continue;
        }
        if let Finder::Case(case) = &finder {
            case().map_err(|e| format!("without the bug: {e}"))?;
        }
        match find(bug, &finder, runs_max) {
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

/// Decisions of the core on their own.
mod cases {
    use strongroom::{Chain, Epoch, EpochStart, Lsn};
    use strongroom_replication::NodeRole;
    use strongroom_replication::core::base_copy;
    use strongroom_replication::core::epoch::{self, ChainHere, Hello, Primary, Verdict};
    use strongroom_replication::core::following::Following;
    use strongroom_replication::core::message::FromBase;
    use strongroom_replication::core::returning::{Decision, Own, decide};
    use strongroom_replication::core::role;

    const OLD: Epoch = Epoch::FIRST;
    const NEW: Epoch = Epoch::new(2, 0);

    fn check(holds: bool, what: &str) -> Result<(), String> {
        if holds { Ok(()) } else { Err(what.to_string()) }
    }

    pub fn younger_hello() -> Result<(), String> {
        let history = [EpochStart {
            epoch: OLD,
            start: Lsn::ZERO,
            chain: Chain::default(),
        }];
        let primary = Primary {
            database_id: [1; 16],
            epoch: OLD,
            history: &history,
            oldest: Lsn::ZERO,
            end: Lsn(9),
        };
        let durable = EpochStart {
            start: Lsn(9),
            ..history[0]
        };
        let hello = Hello {
            database_id: primary.database_id,
            node: "standby".into(),
            session: [2; 16],
            history: history.to_vec(),
            highest: NEW,
            durable,
            keystore_version: 1,
        };
        let verdict = epoch::decide(&primary, &hello, |_| ChainHere::Is(durable.chain));
        check(
            verdict == Verdict::Younger(NEW),
            "serves a standby that recorded a newer epoch",
        )
    }

    pub fn keys_of_another_primary() -> Result<(), String> {
        let mut following = Following::default();
        following.keys_applied(OLD, 7);
        check(
            following.keys_since(NEW) == 0,
            "asks a new primary for what follows another one's version",
        )
    }

    pub fn newer_peer() -> Result<(), String> {
        let own = Own {
            database_id: [1; 16],
            epoch: OLD,
            highest: OLD,
            fenced_by: None,
            durable: Lsn(9),
        };
        let mut peer = role::who("peer", NodeRole::Standby, None);
        peer.database_id = Some(own.database_id);
        (peer.epoch, peer.highest_epoch, peer.durable) = (OLD, NEW, Lsn(9));
        check(
            matches!(decide(Some(&own), Some(&peer), false), Decision::Wait(_)),
            "serves over a peer that knows a newer epoch",
        )
    }

    pub fn copy_of_an_older_primary() -> Result<(), String> {
        let mut copy = base_copy::Check::new(Some(([1; 16], NEW)));
        let begin = FromBase::Begin {
            database_id: [1; 16],
            epoch: OLD,
            lsn: Lsn(9),
            files: 1,
            bytes: 1,
        };
        check(copy.take(begin).is_err(), "takes a base copy of an older primary")
    }
}
