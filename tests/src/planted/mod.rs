//! Bugs planted in the engine, and what finds each: proof that the harness works.
//!
//! Every bug leaves out one rule where the engine keeps it (`planted!`, engine/src/hooks/bugs.rs). Its
//! finder must be clean without it and fail with it, within a bounded number of points or seeds: removing
//! any one rule by hand makes the suite fail. `sim planted` prints the table; tests/tests/planted checks it.
//!
//! A bug that nobody finds is a hole in the harness, not in the list.

mod directed;

use strongroom::hooks::Bug;

use crate::damage;
use crate::enumerate::{Check, Scope, parts};
use crate::layers::Request;
use crate::sim;

/// What must find a bug.
#[derive(Clone, Copy, Debug)]
pub enum Finder {
    /// A part of the enumeration, by name; within so many points.
    Part(&'static str, u64),
    /// The engine simulation from seed 0 on, by profile; within so many seeds.
    Seeds(&'static str, u64),
    /// The simulation of pairs from seed 0 on, by profile; within so many seeds.
    Pair(&'static str, u64),
    /// Bits flipped in the log of a database that was not closed, one in so many.
    FlippedLog,
    /// The same of a checkpoint, which is restored then.
    FlippedCopy,
    /// A test made for the rule.
    Directed(&'static str, fn() -> Check),
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// The bug's name.
    pub bug: &'static str,
    /// What was left out.
    pub what: &'static str,
    /// Who finds it.
    pub finder: String,
    /// Points or seeds until it was found; None if it was not.
    pub after: Option<u64>,
    /// At most so many are allowed.
    pub bound: u64,
    /// How it showed, in one line.
    pub how: String,
}

/// The finder of each bug.
pub fn finder(bug: Bug) -> Finder {
    use Finder::{Directed, FlippedCopy, FlippedLog, Pair, Part, Seeds};
    match bug {
        Bug::AcknowledgeBeforeSync => Part("write: crash", 500),
        Bug::RotateWithoutSync => Part("flush in passing: crash", 1500),
        Bug::SegmentNameNotSynced => Part("rotate: crash", 1500),
        Bug::FailedSyncRetried => Part("write: errors", 500),
        Bug::TornAppendLeft => Part("write: errors", 500),
        Bug::SegmentReused => Seeds("engine", 100),
        Bug::SequenceReused => Part("recovery: crash", 1000),
        Bug::CutBelowReach => FlippedCopy,
        Bug::CutBelowWatermark => FlippedLog,
        Bug::TailNotRewritten => Part("write: errors", 500),
        Bug::FlushAheadOfLog => Part("flush in passing: crash", 1000),
        Bug::LogPurgedBeforeEdit => Part("rotate: crash", 1500),
        Bug::TableNotSynced | Bug::TableNameNotSynced => Part("flush: crash", 1000),
        Bug::ValuesNotSynced => Part("values: crash", 1000),
        Bug::ValueFilesGoneEarly | Bug::ValueGarbageKept => Seeds("engine", 300),
        Bug::RuledValuesApart => Directed(
            "large values of a keyspace with a retention",
            directed::ruled_values,
        ),
        Bug::ValueFilesForgotten => {
            Directed("a value file that holds what has ended", directed::ended_values)
        }
        Bug::SeparationForgotten | Bug::SeparationIgnored => Seeds("engine", 300),
        Bug::ValuesNotCounted | Bug::ValuesNotCopied => Seeds("engine", 300),
        Bug::VerifySkipsValues => Seeds("engine-damage", 300),
        Bug::EditNotSynced => Part("flush: crash", 1000),
        Bug::ManifestFailureForgotten => Part("flush: errors", 1000),
        Bug::CurrentNameNotSynced => Part("manifests: crash", 2000),
        Bug::InputsRemovedBeforeEdit => Part("compact: crash", 1500),
        Bug::KeystoreBaseNotSynced | Bug::KeystoreNameNotSynced | Bug::KeyLogNotSynced => {
            Part("create and delete tenants: crash", 2000)
        }
        Bug::TenantNotNoted => Directed("a keystore log cut between frames", || {
            directed::cut_keystore_log(false)
        }),
        Bug::FlushForgetsTenants => Directed("a keystore log cut between frames, after a flush", || {
            directed::cut_keystore_log(true)
        }),
        Bug::DeletedKeyKept | Bug::OldRootKept => Part("create and delete tenants: crash", 2000),
        Bug::CompactionDropsDeletes => Part("compact deletes: crash", 2000),
        Bug::SnapshotsIgnored => Seeds("engine", 100),
        Bug::KeyspaceDropNotSynced => Part("delete keyspaces, buffered: crash", 2000),
        Bug::MemtableAnswerUnchecked => Part("write: crash", 500),
        Bug::NewestItemStays | Bug::NewestItemForAll => Seeds("engine", 300),
        Bug::DeleteSkippedAlone => Part("write: crash", 500),
        Bug::MergeLeavesKeyInOne | Bug::NewestInItsSource => Seeds("engine", 100),
        Bug::StretchTakesEqualKeys | Bug::StretchShowsOldVersions | Bug::StretchLeftBehind => {
            Seeds("engine", 100)
        }
        Bug::CompressionCarriedOver => Seeds("engine", 20),
        Bug::PlainLengthUnchecked => Directed("a wrong length in a compressed block", directed::wrong_length),
        Bug::ConditionsIgnored | Bug::AnswersInKeyOrder => Seeds("engine", 100),
        Bug::ExpiryOneLate | Bug::ExpiredSeenBySnapshots | Bug::ExpiredDroppedAlone => Seeds("engine", 300),
        Bug::BatchOrderIgnored | Bug::BackwardUncovers | Bug::OwnStretchSkipped => Seeds("engine", 100),
        Bug::LevelDeletesIgnored | Bug::CoveredDroppedForSnapshots => Seeds("engine", 300),
        Bug::SpanOfEntriesAlone | Bug::RangeDeleteNotCut => Seeds("engine", 300),
        Bug::PartSkipsFirstKey | Bug::PartKeepsWholeRangeDeletes => Seeds("engine", 300),
        Bug::PartFailureForgotten => Part("compact deletes: errors", 2000),
        Bug::CoverEndsWithTable => Seeds("engine", 1500),
        Bug::ZeroedUnderASnapshot | Bug::ZeroedUnderARangeDelete | Bug::ZeroedOverOlder => {
            Seeds("engine", 300)
        }
        Bug::ZeroedCatalog | Bug::ZeroedApart | Bug::ZeroTakenForNextKey => Seeds("engine", 300),
        Bug::RangeDeleteDroppedEarly => Part("compact range deletes: crash", 2000),
        Bug::ReadMomentsForgotten => Seeds("engine", 300),
        Bug::ClockFollowedBack | Bug::ExpiredTablesForgotten | Bug::ExpiredLogKept => Seeds("engine", 300),
        Bug::RetentionForgotten | Bug::UndatedLivesOn | Bug::LongerRetentionUncovers => Seeds("engine", 300),
        Bug::RetentionTablesForgotten => Seeds("engine", 300),
        Bug::RetentionNotSynced => Part("retention, buffered: crash", 2000),
        Bug::QuotaForgotten | Bug::QuotaIgnored | Bug::QuotaRefusesDeletes => Seeds("engine", 300),
        Bug::PaceForgotten | Bug::PaceIgnoresTenants | Bug::PaceForgetsBatches => {
            Directed("writers slowed down, in a model of time", directed::pacing)
        }
        Bug::VerifySkipsBlocks => Seeds("engine-damage", 200),
        Bug::KeyEndsWithBlock | Bug::NewestByBlock | Bug::WalkTakesNewest | Bug::GuessEndsWithBlock => {
            Seeds("engine", 300)
        }
        Bug::CacheKeyedByOffset => Part("compact: crash", 1500),
        Bug::OffsetNotBound => Directed("blocks exchanged inside a table", directed::exchanged_blocks),
        Bug::CommitmentNotChecked => Directed("another database's keystore", directed::foreign_keystore),
        Bug::NonceRepeats => Part("write: crash", 500),
        Bug::NonceWithoutPlaintext => Directed("two clones of a machine", directed::cloned_machine),
        Bug::SaltReused => Part("create and delete tenants: crash", 2000),
        Bug::CheckpointNamesNotSynced => Part("checkpoint: crash", 1500),
        Bug::BaseCopyNotSynced => Part("bootstrap: crash", 1500),
        Bug::RestoreServesAtOnce => Part("restore: crash", 1000),
        Bug::ChainNotChecked => Directed("a record of another history", directed::spliced_log),
        Bug::PromotionNotDurable => Part("promotion: crash", 1500),
        Bug::FenceNotDurable => Part("fence and acceptance: crash", 1500),
        Bug::FollowerSkipsRangeDeletes | Bug::FollowerSkipsSettings => Pair("pair-strict", 100),
        Bug::StandbyForgetsSettings | Bug::StandbyReplaysNoRangeDeletes => Pair("pair-strict", 100),
        Bug::StandbyDropsByItsClock => Pair("trio", 100),
    }
}

/// Few random crashes, much work on what they leave.
fn scope() -> Scope {
    Scope {
        work_every: 2,
        error_stride: 1,
        ..Scope::slice(0, 6)
    }
}

impl Finder {
    /// As the table names it.
    pub fn name(self) -> String {
        match self {
            Finder::Part(name, _) => format!("enumeration, {name}"),
            Finder::Seeds(profile, _) | Finder::Pair(profile, _) => format!("simulation, profile {profile}"),
            Finder::FlippedLog => "damage, bits of the log flipped".to_string(),
            Finder::FlippedCopy => "damage, bits of a checkpoint's log flipped".to_string(),
            Finder::Directed(name, _) => format!("test, {name}"),
        }
    }

    fn bound(self) -> u64 {
        match self {
            Finder::Part(_, bound) | Finder::Seeds(_, bound) | Finder::Pair(_, bound) => bound,
            Finder::FlippedLog | Finder::FlippedCopy => damage::LOG_SAMPLE,
            Finder::Directed(..) => 1,
        }
    }

    /// Looks; how many points or seeds it took to find something, and what. None: clean.
    pub fn look(self) -> Option<(u64, String)> {
        match self {
            Finder::Part(name, _) => {
                let part = parts::named(name).unwrap_or_else(|| panic!("no part {name}"));
                let report = part.run_on(&scope(), true, &|_| {});
                let failure = report.failures.first()?;
                // The first line says which part it is.
                let text = failure.lines().take(2).collect::<Vec<_>>().join(": ");
                Some((report.points().max(1), text))
            }
            Finder::Seeds(profile, bound) => (0..bound).find_map(|seed| {
                let failure = sim::once(&Request { seed, profile }).failure?;
                Some((seed + 1, failure.lines().next().unwrap_or_default().to_string()))
            }),
            Finder::Pair(profile, bound) => (0..bound).find_map(|seed| {
                let outcome = crate::runner::caught(|| crate::pair::run(profile, seed));
                let failure = outcome.failure?;
                Some((seed + 1, failure.lines().next().unwrap_or_default().to_string()))
            }),
            Finder::FlippedLog => damage::sample_of_the_log(),
            Finder::FlippedCopy => damage::sample_of_a_copys_log(),
            Finder::Directed(_, test) => crate::enumerate::caught(test).err().map(|why| (1, why)),
        }
    }
}

/// Plants one bug and looks for it.
pub fn hunt(bug: Bug) -> Row {
    let finder = finder(bug);
    let found = bug.planted_in(|| finder.look());
    Row {
        bug: bug.name(),
        what: bug.what(),
        finder: finder.name(),
        after: found.as_ref().map(|(after, _)| *after),
        bound: finder.bound(),
        how: found.map(|(_, how)| how).unwrap_or_default(),
    }
}

/// Every finder, each once.
pub fn finders() -> Vec<Finder> {
    let mut finders: Vec<Finder> = Vec::new();
    for bug in Bug::ALL {
        let finder = finder(*bug);
        if !finders.iter().any(|known| known.name() == finder.name()) {
            finders.push(finder);
        }
    }
    finders
}

/// `sim planted [BUG]`: hunts all planted bugs of the engine, or one, and prints the table.
pub fn command(words: &[String]) -> Result<(), String> {
    let bugs: Vec<Bug> = match words.first() {
        None => Bug::ALL.to_vec(),
        Some(name) => vec![Bug::named(name).ok_or(format!("no bug {name}"))?],
    };
    let mut missed = 0;
    println!(
        "{:<28}{:>7}{:>7}  {:<52}how it shows",
        "bug", "after", "bound", "found by"
    );
    for bug in &bugs {
        let row = hunt(*bug);
        let found = row.after.is_some_and(|after| after <= row.bound);
        missed += u64::from(!found);
        let after = row.after.map_or("never".to_string(), |n| n.to_string());
        let how: String = row.how.chars().filter(|c| !c.is_control()).take(150).collect();
        println!(
            "{:<28}{after:>7}{:>7}  {:<52}{how}",
            row.bug, row.bound, row.finder
        );
    }
    let dirty: Vec<String> = match words.is_empty() {
        true => finders()
            .into_iter()
            .filter_map(|f| f.look().map(|(_, why)| format!("{}: {why}", f.name())))
            .collect(),
        false => Vec::new(),
    };
    println!(
        "{} of {} found; {} finders, {} not clean without a bug",
        bugs.len() as u64 - missed,
        bugs.len(),
        finders().len(),
        dirty.len()
    );
    match (missed, dirty.is_empty()) {
        (0, true) => Ok(()),
        _ => Err(format!("{missed} bugs were not found; {}", dirty.join("; "))),
    }
}
