//! Decisions about a node's role, apart from `returning`: what an answer lets a waiting node do, what follows
//! when following ended, what a node does that is told of a newer epoch, and one that tells of it. Pure.

use strongroom::{Engine, Epoch, Lsn, Status};

use super::following::Ended;
use super::message::FenceOutcome;
use super::returning::{self, Decision, Own};
use crate::error::Error;
use crate::hooks::{planted, rare};
use crate::status::{NodeRole, PeerStatus};

const FOLLOWED: &str = "the data here followed a primary: promote this node, or its peer";

/// What `engine` knows of itself.
pub fn own(engine: &Engine) -> Own {
    let status = engine.status();
    Own {
        database_id: status.database_id,
        epoch: status.epoch,
        highest: status.highest_epoch,
        fenced_by: status.fenced_by,
        durable: status.durable,
    }
}

/// What a node answers when asked who it is. Takes engine locks.
pub fn who(node: &str, role: NodeRole, engine: Option<&Engine>) -> PeerStatus {
    let status = engine.map(Engine::status);
    let of = |pick: fn(&Status) -> Epoch| status.as_ref().map_or(Epoch::ZERO, pick);
    PeerStatus {
        node: node.to_string(),
        role,
        database_id: status.as_ref().map(|s| s.database_id),
        epoch: of(|s| s.epoch),
        highest_epoch: of(|s| s.highest_epoch.max(s.epoch)),
        fenced_by: status.as_ref().and_then(|s| s.fenced_by),
        durable: status.as_ref().map_or(Lsn::ZERO, |s| s.durable),
        applied: status.as_ref().map_or(Lsn::ZERO, |s| s.applied),
        keystore_version: status.as_ref().map_or(0, |s| s.keystore_version),
    }
}

/// A node that waits to be primary.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// The engine says that its data followed a primary and was never promoted: only a person can let it
    /// serve.
    pub followed: bool,
    /// A peer is configured.
    pub has_peer: bool,
    /// Serve although the peer could not be asked.
    pub serve_without_peer: bool,
}

impl Waiting {
    /// What the peer's answer (None: it gave none) lets this node do.
    pub fn answered(&self, own: Option<&Own>, peer: Option<&PeerStatus>) -> Decision {
        match returning::decide(own, peer, self.serve_without_peer) {
            Decision::Serve { .. } if self.followed => Decision::Wait(FOLLOWED),
            Decision::Wait(_) if self.followed && !self.has_peer => Decision::Wait(FOLLOWED),
            decision => decision,
        }
    }
}

/// The database a base copy takes the place of.
#[derive(Clone, Copy, Debug)]
pub struct Replaced {
    /// Its identity: no other database is copied.
    pub database_id: [u8; 16],
    /// Highest epoch recorded there: no older primary is copied.
    pub epoch: Epoch,
    /// Its WAL holds what nobody else has.
    pub keep_wal: bool,
}

/// What follows when following ended.
#[derive(Debug)]
pub enum AfterFollowing {
    /// Nothing can be done without a person.
    Fail(&'static str),
    /// Take a base copy. `readable`: the data here is a prefix still; it may be read and promoted meanwhile.
    Seed {
        replaced: Replaced,
        readable: bool,
        why: String,
    },
    /// Close the engine and open it again.
    Reopen(Error),
}

/// Decides what follows, for an engine of this status.
pub fn after_following(ended: Ended, status: &Status) -> AfterFollowing {
    match ended {
        Ended::Stopped => AfterFollowing::Fail("the database was closed from outside"),
        Ended::NeedBase { diverged, why } => AfterFollowing::Seed {
            replaced: Replaced {
                database_id: status.database_id,
                epoch: status.highest_epoch,
                keep_wal: diverged,
            },
            // Diverged data is not a prefix of anything any more: nobody may read it.
            readable: !diverged,
            why,
        },
        Ended::Reopen(error) => AfterFollowing::Reopen(error),
    }
}

/// What a node does when told of an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fencing {
    /// Record it durably, stop acknowledging, then answer `Recorded`.
    Record,
    /// Answer this.
    Answer(FenceOutcome),
}

/// Told by a caller with `database_id` that `told` exists, a node that says `who` of itself.
pub fn fencing(who: &PeerStatus, database_id: [u8; 16], told: Epoch) -> Fencing {
    use super::epoch;
    if who.database_id.is_some_and(|own| own != database_id) {
        return Fencing::Answer(FenceOutcome::WrongDatabase);
    }
    let own = match who.role {
        NodeRole::Primary | NodeRole::Fenced => Some(who.epoch),
        // Means to be primary: what it records now keeps it from serving.
        NodeRole::Waiting if who.database_id.is_some() => Some(who.epoch),
        NodeRole::Waiting | NodeRole::Stopped => return Fencing::Answer(FenceOutcome::Undecided),
        NodeRole::Standby | NodeRole::Seeding => None,
    };
    match epoch::fencing(own, who.highest_epoch, who.fenced_by, told) {
        epoch::Fencing::Harmless => Fencing::Answer(FenceOutcome::Harmless),
        epoch::Fencing::NotHigher => Fencing::Answer(FenceOutcome::NotHigher),
        epoch::Fencing::Record if planted!(FenceNotRecorded) => Fencing::Answer(FenceOutcome::Recorded),
        epoch::Fencing::Record => Fencing::Record,
    }
}

/// What a new primary does after an answer of the old one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// It knows.
    Done,
    /// This node is the old one itself: record that epoch, stop.
    StepDown(Epoch),
    /// Tell it again after a pause.
    Again(&'static str),
}

/// The peer was told of `epoch` and answered `outcome`; it recorded `highest`.
pub fn told(epoch: Epoch, outcome: FenceOutcome, highest: Epoch) -> Told {
    match outcome {
        FenceOutcome::Recorded => {
            rare!(OldPrimaryTold);
            Told::Done
        }
        FenceOutcome::Harmless => Told::Done,
        FenceOutcome::NotHigher if highest > epoch => {
            rare!(ToldOfNewerInReply);
            Told::StepDown(highest)
        }
        FenceOutcome::NotHigher => Told::Again("the peer recorded an epoch that is not lower"),
        FenceOutcome::WrongDatabase => Told::Again("the peer holds another database"),
        FenceOutcome::Undecided => Told::Again("the peer has not settled its role"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const E1: Epoch = Epoch::new(1, 0);
    const E2: Epoch = Epoch::new(2, 0);

    fn who(role: NodeRole) -> PeerStatus {
        PeerStatus {
            node: "a".into(),
            role,
            database_id: Some([1; 16]),
            epoch: E1,
            highest_epoch: E1,
            fenced_by: None,
            durable: Lsn(9),
            applied: Lsn(9),
            keystore_version: 1,
        }
    }

    #[test]
    fn told_of_an_epoch_table() {
        use FenceOutcome::{Harmless, NotHigher, Undecided, WrongDatabase};
        let empty = PeerStatus {
            database_id: None,
            ..who(NodeRole::Waiting)
        };
        let table = [
            (who(NodeRole::Primary), [1; 16], E2, Fencing::Record),
            (who(NodeRole::Waiting), [1; 16], E2, Fencing::Record),
            (
                who(NodeRole::Primary),
                [2; 16],
                E2,
                Fencing::Answer(WrongDatabase),
            ),
            (who(NodeRole::Primary), [1; 16], E1, Fencing::Answer(NotHigher)),
            (who(NodeRole::Standby), [1; 16], E2, Fencing::Answer(Harmless)),
            (who(NodeRole::Stopped), [1; 16], E2, Fencing::Answer(Undecided)),
            (empty, [1; 16], E2, Fencing::Answer(Undecided)),
        ];
        for (who, id, told, expected) in table {
            assert_eq!(fencing(&who, id, told), expected, "{who:?} {told}");
        }
    }

    #[test]
    fn answer_of_the_old_primary_table() {
        use FenceOutcome::{Harmless, NotHigher, Recorded, Undecided};
        assert_eq!(told(E2, Recorded, E2), Told::Done);
        assert_eq!(told(E2, Harmless, E2), Told::Done);
        assert_eq!(told(E2, NotHigher, E2.promoted()), Told::StepDown(E2.promoted()));
        assert!(matches!(told(E2, NotHigher, E2), Told::Again(_)));
        assert!(matches!(told(E2, Undecided, E1), Told::Again(_)));
    }

    #[test]
    fn data_that_followed_then_no_answer_lets_it_serve() {
        let own = Own {
            database_id: [1; 16],
            epoch: E1,
            highest: E1,
            fenced_by: None,
            durable: Lsn(9),
        };
        let behind = PeerStatus {
            durable: Lsn(1),
            ..who(NodeRole::Standby)
        };
        for (followed, serves) in [(true, false), (false, true)] {
            let waiting = Waiting {
                followed,
                has_peer: true,
                serve_without_peer: false,
            };
            let decision = waiting.answered(Some(&own), Some(&behind));
            assert_eq!(matches!(decision, Decision::Serve { .. }), serves, "{followed}");
        }
    }
}
