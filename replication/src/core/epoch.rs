//! Who may follow whom. Pure: histories and positions in, a verdict out.
//!
//! A standby may resume if and only if its whole WAL is a prefix of the primary's. That is told by epoch,
//! position and chain together, never by position alone (two histories can be equally long). A primary that
//! hears of a higher epoch is the old one: it must fence itself before it answers.
//!
//! The rules of [`decide`], first match wins:
//!
//! ```text
//! #  the standby's Hello                                    verdict
//! 1  names another database                                 WrongDatabase
//! 2  recorded an epoch above the primary's                  Younger (the primary fences itself)
//! 3  ends beyond the primary's durable end                  Diverged
//! 4  its last record is of an epoch the primary's history
//!    does not have at that position                         Diverged
//! 5  the position is older than the WAL still kept          TooFarBehind
//! 6  the chain there differs, or it is no record boundary   Diverged
//! 7  otherwise                                              Resume at its end
//! ```
//!
//! Rule 3 before 5: a standby that is ahead lost nothing to retention. Rule 4 costs no read and names the
//! fork; rule 6 is what makes the answer certain. A standby without a record (epoch 0) has nothing to
//! compare and takes a base copy.

use strongroom::{Chain, Epoch, EpochStart, Lsn};

use crate::hooks::{planted, rare};

/// What the primary knows of itself.
#[derive(Clone, Copy, Debug)]
pub struct Primary<'a> {
    /// Identity.
    pub database_id: [u8; 16],
    /// Its reign.
    pub epoch: Epoch,
    /// Its epochs, oldest first, covering at least the WAL still kept.
    pub history: &'a [EpochStart],
    /// Oldest position still kept.
    pub oldest: Lsn,
    /// End of its durable WAL.
    pub end: Lsn,
}

/// What a standby says it has.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Identity.
    pub database_id: [u8; 16],
    /// Its name.
    pub node: String,
    /// Ties its calls together.
    pub session: [u8; 16],
    /// Its epochs, oldest first.
    pub history: Vec<EpochStart>,
    /// Highest epoch it ever recorded.
    pub highest: Epoch,
    /// End of its last whole durable record: epoch, position, chain.
    pub durable: EpochStart,
    /// Its keystore version.
    pub keystore_version: u64,
}

/// What the primary found at the standby's durable position in its own WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChainHere {
    /// A record boundary with this chain.
    Is(Chain),
    /// No longer kept.
    Gone,
    /// No record ends there.
    NoBoundary,
}

/// What the primary answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The stream goes on at this position.
    Resume(Lsn),
    /// The histories parted: base copy.
    Diverged {
        /// Last epoch in common, [`Epoch::ZERO`] if none.
        fork_epoch: Epoch,
        /// Where they parted at the latest.
        fork: Lsn,
    },
    /// The WAL it needs is gone: base copy.
    TooFarBehind {
        /// Oldest position kept.
        oldest: Lsn,
    },
    /// The primary is the old one: it must fence itself with this epoch, then refuse.
    Younger(Epoch),
    /// Not the same database.
    WrongDatabase,
}

/// Answers a [`Hello`]. `chain_at` is asked at most once, for the standby's durable position.
pub fn decide(primary: &Primary<'_>, hello: &Hello, chain_at: impl FnOnce(Lsn) -> ChainHere) -> Verdict {
    let at = hello.durable.start;
    if hello.database_id != primary.database_id {
        return Verdict::WrongDatabase;
    }
    let younger = hello.highest > primary.epoch || hello.durable.epoch > primary.epoch;
    if younger && !planted!(YoungerHelloIgnored) {
        rare!(YoungerHello);
        return Verdict::Younger(hello.highest.max(hello.durable.epoch));
    }
    if hello.durable.epoch == Epoch::ZERO {
        return Verdict::TooFarBehind {
            oldest: primary.oldest,
        };
    }
    let diverged = || {
        let (fork_epoch, fork) = fork_point(primary.history, primary.end, &hello.history, at);
        Verdict::Diverged { fork_epoch, fork }
    };
    if at > primary.end {
        rare!(StandbyAhead);
        return diverged();
    }
    if planted!(ResumeByPosition) && at >= primary.oldest {
        return Verdict::Resume(at);
    }
    if !epoch_possible(primary.history, hello.durable.epoch, at) {
        rare!(EpochNotInHistory);
        return diverged();
    }
    if at < primary.oldest {
        rare!(TooFarBehind);
        return Verdict::TooFarBehind {
            oldest: primary.oldest,
        };
    }
    match chain_at(at) {
        ChainHere::Is(chain) if chain == hello.durable.chain => Verdict::Resume(at),
        ChainHere::Is(_) | ChainHere::NoBoundary => {
            rare!(ChainDiffers);
            diverged()
        }
        ChainHere::Gone => Verdict::TooFarBehind {
            oldest: primary.oldest,
        },
    }
}

/// Whether a record that ends at `lsn` can be of `epoch` in this history. A boundary between two reigns
/// belongs to both: a standby may have recorded the new one before its first record. Positions before the
/// history's start cannot be judged and pass; the chain decides.
fn epoch_possible(history: &[EpochStart], epoch: Epoch, lsn: Lsn) -> bool {
    let Some(first) = history.first() else { return true };
    if lsn < first.start || (lsn == first.start && epoch < first.epoch) {
        return true;
    }
    history.iter().enumerate().any(|(i, reign)| {
        let until = history.get(i + 1).map(|next| next.start);
        reign.epoch == epoch && reign.start <= lsn && until.is_none_or(|until| lsn <= until)
    })
}

/// The last epoch both histories share (same beginning, same chain), and the position where they parted at
/// the latest: the smaller of its ends. `(Epoch::ZERO, Lsn::ZERO)` if they share none.
pub fn fork_point(ours: &[EpochStart], our_end: Lsn, theirs: &[EpochStart], their_end: Lsn) -> (Epoch, Lsn) {
    let end_of =
        |history: &[EpochStart], i: usize, end: Lsn| history.get(i + 1).map_or(end, |next| next.start);
    let shared = ours.iter().enumerate().rev().find_map(|(i, reign)| {
        theirs
            .iter()
            .position(|other| other == reign)
            .map(|j| (reign.epoch, i, j))
    });
    match shared {
        Some((epoch, i, j)) => (epoch, end_of(ours, i, our_end).min(end_of(theirs, j, their_end))),
        None => (Epoch::ZERO, Lsn::ZERO),
    }
}

/// What a node does when told that `told` exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fencing {
    /// Record it durably and stop acknowledging.
    Record,
    /// Known already, or this node acknowledges nothing anyway.
    Harmless,
    /// This node recorded a higher epoch: the caller is the old one.
    NotHigher,
}

/// The rule of fencing, for a node that serves in `own` (`None`: it is no primary), recorded `highest`, and
/// was fenced by `fenced_by`. A primary's own epoch told back to it is no reason to stop.
pub fn fencing(own: Option<Epoch>, highest: Epoch, fenced_by: Option<Epoch>, told: Epoch) -> Fencing {
    match own {
        _ if told < highest => Fencing::NotHigher,
        Some(own) if told == own && fenced_by.is_none() => Fencing::NotHigher,
        Some(_) if fenced_by.is_some_and(|by| by >= told) => Fencing::Harmless,
        Some(_) => Fencing::Record,
        None => Fencing::Harmless,
    }
}

#[cfg(test)]
#[path = "epoch/tests.rs"]
mod tests;
