//! What a node that is to be primary does before it serves: it asks its peer. Pure: answers in, decision out.
//!
//! The danger is always the same: two primaries, or an emptier copy that takes the place of a fuller one.
//! Hence: a node serves only if its peer is a standby that knows nothing this node does not know. Of two
//! that claim to be primary the higher epoch is right, because it was made durable by a promotion, after
//! which the lower one can acknowledge nothing `Replicated`. Where no rule decides, it waits, says why, and
//! asks again; an operator decides by `promote` here or there, which takes a never-used epoch.
//!
//! First match wins:
//!
//! ```text
//! #  peer                                          this node                       decision
//! 1  no answer, or refuses                         fenced, or no override          Wait
//! 2  no answer, or refuses                         override                        Serve
//! 3  another database                              has one                         Wait
//! 4  primary                                       empty, or knows no higher epoch Follow
//! 5  primary of a lower epoch                      not fenced                      Serve (and fence it)
//! 6  anything                                      fenced                          Wait
//! 7  has data                                      empty                           Wait
//! 8  recorded a higher epoch                                                       Wait
//! 9  also waits to be primary, same highest epoch  has data                        Wait
//! 10 has more of the same epoch                                                    Wait
//! 11 otherwise                                                                     Serve
//! ```

use strongroom::{Epoch, Lsn};

use crate::hooks::{planted, rare};
use crate::status::{NodeRole, PeerStatus};

/// What this node knows of itself; `None` fields of an empty directory are in the `Option` around it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Own {
    /// Identity.
    pub database_id: [u8; 16],
    /// Epoch of its last record.
    pub epoch: Epoch,
    /// Highest epoch it recorded.
    pub highest: Epoch,
    /// Newer epoch it was fenced by.
    pub fenced_by: Option<Epoch>,
    /// End of its WAL.
    pub durable: Lsn,
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Open as primary.
    Serve {
        /// The peer may believe it is primary: tell it of the new epoch until it answers.
        tell_peer: bool,
    },
    /// Follow the peer.
    Follow,
    /// Ask again later; the reason is for operators.
    Wait(&'static str),
}

/// Decides. `peer` is None when it did not answer or refused.
pub fn decide(own: Option<&Own>, peer: Option<&PeerStatus>, serve_without_peer: bool) -> Decision {
    use Decision::{Follow, Serve, Wait};
    let fenced = own.and_then(|own| own.fenced_by);
    let highest = own.map_or(Epoch::ZERO, |own| own.highest.max(own.epoch));
    let Some(peer) = peer else {
        return match (fenced, serve_without_peer) {
            (Some(_), _) => Wait("a newer primary exists, and the peer does not answer"),
            (None, false) => Wait("the peer does not answer, so it may be the primary"),
            (None, true) => Serve { tell_peer: true },
        };
    };
    let other_database = own
        .zip(peer.database_id)
        .is_some_and(|(own, theirs)| own.database_id != theirs);
    if other_database {
        return Wait("the peer holds another database");
    }
    let peer_highest = peer.highest_epoch.max(peer.epoch);
    if peer.role == NodeRole::Primary {
        return match own {
            None => Follow,
            Some(_) if peer_highest >= highest => {
                rare!(ReturnedToFollow);
                Follow
            }
            Some(_) if fenced.is_none() => Serve { tell_peer: true },
            Some(_) => Wait("a newer primary than the peer exists"),
        };
    }
    if fenced.is_some() {
        rare!(FencedWaits);
        return Wait("a newer primary exists, and the peer does not serve");
    }
    let Some(own) = own else {
        return if peer.database_id.is_some() {
            Wait("this node is empty and the peer has data: promote the peer")
        } else {
            Serve { tell_peer: false }
        };
    };
    if peer_highest > highest && !planted!(ServeOverNewerPeer) {
        return Wait("the peer knows a newer epoch: promote it, or start it as primary");
    }
    if peer.role == NodeRole::Waiting && peer_highest == highest {
        rare!(BothWait);
        return Wait("the peer waits to be primary too: promote one of the two");
    }
    if peer.database_id.is_some() && (peer.epoch, peer.durable) > (own.epoch, own.durable) {
        rare!(PeerHasMore);
        return Wait("the peer has more data than this node: promote the peer");
    }
    Serve { tell_peer: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DB: [u8; 16] = [7; 16];
    const E1: Epoch = Epoch::new(1, 0);
    const E1R: Epoch = Epoch::new(1, 1);
    const E2: Epoch = Epoch::new(2, 0);

    fn own(epoch: Epoch, durable: u64) -> Own {
        Own {
            database_id: DB,
            epoch,
            highest: epoch,
            fenced_by: None,
            durable: Lsn(durable),
        }
    }

    fn fenced(by: Epoch) -> Own {
        Own {
            highest: by,
            fenced_by: Some(by),
            ..own(E1, 100)
        }
    }

    fn peer(role: NodeRole, epoch: Epoch, durable: u64) -> PeerStatus {
        PeerStatus {
            node: "b".into(),
            role,
            database_id: Some(DB),
            epoch,
            highest_epoch: epoch,
            fenced_by: None,
            durable: Lsn(durable),
            applied: Lsn(durable),
            keystore_version: 1,
        }
    }

    fn empty(role: NodeRole) -> PeerStatus {
        PeerStatus {
            database_id: None,
            ..peer(role, Epoch::ZERO, 0)
        }
    }

    #[derive(Clone, Copy, PartialEq, Debug)]
    enum D {
        Serve,
        ServeAndTell,
        Follow,
        Wait,
    }

    fn run(own: Option<Own>, peer: Option<PeerStatus>, alone: bool) -> D {
        match decide(own.as_ref(), peer.as_ref(), alone) {
            Decision::Serve { tell_peer: false } => D::Serve,
            Decision::Serve { tell_peer: true } => D::ServeAndTell,
            Decision::Follow => D::Follow,
            Decision::Wait(_) => D::Wait,
        }
    }

    #[test]
    fn decision_table() {
        use NodeRole::*;
        let other = PeerStatus {
            database_id: Some([8; 16]),
            ..peer(Standby, E1, 1)
        };
        let other_primary = PeerStatus {
            role: Primary,
            ..other.clone()
        };
        let table = [
            // No answer.
            (Some(own(E1, 100)), None, false, D::Wait),
            (Some(own(E1, 100)), None, true, D::ServeAndTell),
            (None, None, false, D::Wait),
            (None, None, true, D::ServeAndTell),
            (Some(fenced(E2)), None, true, D::Wait),
            // Another database; an empty node has none to differ.
            (Some(own(E1, 100)), Some(other.clone()), true, D::Wait),
            (Some(own(E1, 100)), Some(other_primary.clone()), false, D::Wait),
            (None, Some(other_primary), false, D::Follow),
            // The peer serves.
            (None, Some(peer(Primary, E1, 100)), false, D::Follow),
            (Some(own(E1, 100)), Some(peer(Primary, E2, 90)), false, D::Follow),
            (Some(own(E1, 100)), Some(peer(Primary, E1, 90)), false, D::Follow),
            (Some(own(E1, 100)), Some(peer(Primary, E1R, 90)), true, D::Follow),
            (
                Some(own(E2, 100)),
                Some(peer(Primary, E1R, 500)),
                false,
                D::ServeAndTell,
            ),
            (Some(fenced(E2)), Some(peer(Primary, E2, 90)), false, D::Follow),
            (Some(fenced(E2)), Some(peer(Primary, E1R, 90)), false, D::Wait),
            // The peer does not serve.
            (Some(fenced(E2)), Some(peer(Standby, E1, 90)), true, D::Wait),
            (None, Some(peer(Standby, E1, 90)), true, D::Wait),
            (None, Some(peer(Waiting, E1, 90)), false, D::Wait),
            (None, Some(empty(Seeding)), false, D::Serve),
            (None, Some(empty(Waiting)), false, D::Serve),
            (Some(own(E1, 100)), Some(empty(Seeding)), false, D::Serve),
            (Some(own(E1, 100)), Some(peer(Standby, E2, 90)), false, D::Wait),
            (Some(own(E1, 100)), Some(peer(Waiting, E2, 90)), false, D::Wait),
            (Some(own(E1, 100)), Some(peer(Waiting, E1, 90)), false, D::Wait),
            (Some(own(E2, 100)), Some(peer(Waiting, E1, 90)), false, D::Serve),
            (Some(own(E1, 100)), Some(peer(Standby, E1, 100)), false, D::Serve),
            (Some(own(E1, 100)), Some(peer(Standby, E1, 90)), false, D::Serve),
            (Some(own(E1, 100)), Some(peer(Standby, E1, 101)), false, D::Wait),
            (Some(own(E1R, 100)), Some(peer(Standby, E1, 100)), false, D::Serve),
            (Some(own(E2, 100)), Some(peer(Fenced, E1, 500)), false, D::Serve),
            (Some(own(E2, 100)), Some(peer(Standby, E1, 500)), false, D::Serve),
            (Some(own(E1, 100)), Some(peer(Stopped, E1, 90)), false, D::Serve),
        ];
        for (own, peer, alone, expected) in table {
            assert_eq!(
                run(own, peer.clone(), alone),
                expected,
                "{own:?} {peer:?} {alone}"
            );
        }
    }

    #[test]
    fn two_nodes_ask_each_other_then_at_most_one_serves() {
        // Every pair of waiting nodes over small epochs and positions, neither fenced.
        let all = || {
            [E1, E1R, E2]
                .into_iter()
                .flat_map(|e| [90, 100].map(move |lsn| (e, lsn)))
        };
        for (a, b) in all().flat_map(|a| all().map(move |b| (a, b))) {
            let serves = |me: (Epoch, u64), other: (Epoch, u64)| {
                let decision = run(
                    Some(own(me.0, me.1)),
                    Some(peer(NodeRole::Waiting, other.0, other.1)),
                    false,
                );
                matches!(decision, D::Serve | D::ServeAndTell)
            };
            assert!(!(serves(a, b) && serves(b, a)), "{a:?} {b:?}");
        }
    }

    #[test]
    fn two_empty_waiting_nodes_then_configuration_is_the_only_difference() {
        // Documented limit: two new nodes that are both configured as primary both create a database. Their
        // identities differ from then on, so neither ever copies the other.
        assert_eq!(run(None, Some(empty(NodeRole::Waiting)), false), D::Serve);
    }
}
