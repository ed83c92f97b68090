//! What lasts across a standby's streams: what it has of whose keys, and how often the engine refused bytes.

use strongroom::{Epoch, EpochStart, Lsn, StandbyProgress, Status};

use super::epoch::Hello;
use super::standby::Ending;
use crate::error::{Error, ErrorKind};
use crate::hooks::{planted, rare};

/// Failures of the engine to take bytes at one position before a base copy is taken.
pub const STRIKES_MAX: u32 = 3;

/// Why following ended.
#[derive(Debug)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// The WAL here no longer connects to the primary's.
    NeedBase {
        /// It holds something the primary's does not: keep it aside.
        diverged: bool,
        /// For operators.
        why: String,
    },
    /// The engine refuses to go on until it is reopened.
    Reopen(Error),
}

/// What follows a stream's end.
#[derive(Debug)]
pub enum Next {
    /// Dial again after a pause.
    Retry(Error),
    /// Tell the peer of the highest epoch recorded here, then dial again after a pause.
    Tell,
    /// Following is over.
    Ended(Ended),
}

/// State across streams, for as long as one engine follows.
#[derive(Debug, Default)]
pub struct Following {
    strikes: u32,
    struck_at: Lsn,
    /// Keystore version taken over from the primary, and the primary's epoch then.
    keys: Option<(Epoch, u64)>,
}

impl Following {
    /// The Hello of a new stream, of an engine that has just synced.
    pub fn hello(
        node: &str,
        session: [u8; 16],
        progress: &StandbyProgress,
        status: &Status,
        history: Vec<EpochStart>,
    ) -> Hello {
        Hello {
            database_id: status.database_id,
            node: node.to_string(),
            session,
            history,
            highest: status.highest_epoch.max(progress.epoch),
            durable: EpochStart {
                epoch: progress.epoch,
                start: progress.durable,
                chain: progress.chain,
            },
            keystore_version: status.keystore_version,
        }
    }

    /// The version after which key changes are asked for: what came from this very primary in this very
    /// epoch, and everything otherwise. After a failover, versions of two keystores may agree by accident.
    pub fn keys_since(&self, epoch: Epoch) -> u64 {
        self.keys
            .filter(|(of, _)| *of == epoch || planted!(KeysSinceOtherPrimary))
            .map_or(0, |(_, version)| version)
    }

    /// Whether the change that leads from `since` (0: a full set) to `version` is the next of the primary of
    /// `epoch`. One left out or taken again would leave keys missing whose tenants' records would then be
    /// skipped as those of deleted tenants.
    pub fn takes_keys(&self, epoch: Epoch, since: u64, version: u64) -> Result<(), Error> {
        let known = self.keys_since(epoch);
        let next = match since {
            0 => version >= known,
            _ => since == known && version > known,
        };
        if next || planted!(KeysOutOfOrder) {
            return Ok(());
        }
        rare!(KeysOutOfOrder);
        let text = format!("a key change from {since} to {version} does not follow {known}");
        Err(Error::new(ErrorKind::Protocol, text))
    }

    /// A key change of a primary is applied.
    pub fn keys_applied(&mut self, epoch: Epoch, version: u64) {
        self.keys = Some((epoch, version));
    }

    /// A stream ended, with everything up to `durable` on stable storage.
    pub fn ended(&mut self, ending: Ending, durable: Lsn) -> Next {
        match ending {
            Ending::Lost(error) => Next::Retry(error),
            Ending::Strike(error) => {
                rare!(Strike);
                self.strikes = if self.struck_at == durable {
                    self.strikes + 1
                } else {
                    1
                };
                self.struck_at = durable;
                if self.strikes >= STRIKES_MAX {
                    rare!(StruckOut);
                    return Next::Ended(Ended::NeedBase {
                        diverged: true,
                        why: error.to_string(),
                    });
                }
                Next::Retry(error)
            }
            Ending::PeerIsOld => Next::Tell,
            Ending::NeedBase { diverged, why } => Next::Ended(Ended::NeedBase { diverged, why }),
            Ending::Reopen(error) => Next::Ended(Ended::Reopen(error)),
            Ending::Stopped => Next::Ended(Ended::Stopped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom::ErrorKind as EngineKind;

    fn strike() -> Ending {
        Ending::Strike(strongroom::Error::new(EngineKind::Corruption, "x").into())
    }

    #[test]
    fn three_strikes_at_one_position_then_a_base_copy_and_progress_starts_over() {
        let mut following = Following::default();
        for durable in [10, 10, 20, 20] {
            let next = following.ended(strike(), Lsn(durable));
            assert!(matches!(next, Next::Retry(_)), "{durable}");
        }
        let next = following.ended(strike(), Lsn(20));
        assert!(matches!(
            next,
            Next::Ended(Ended::NeedBase { diverged: true, .. })
        ));
    }

    #[test]
    fn key_changes_that_do_not_follow_each_other_then_refused() {
        let mut following = Following::default();
        let (now, later) = (Epoch::FIRST, Epoch::FIRST.promoted());
        let takes = |f: &Following, epoch, since, version| f.takes_keys(epoch, since, version).is_ok();
        assert!(takes(&following, now, 0, 5));
        assert!(!takes(&following, now, 4, 5), "a step before everything");
        following.keys_applied(now, 5);
        assert!(takes(&following, now, 5, 7));
        assert!(!takes(&following, now, 6, 7), "a step left out");
        assert!(!takes(&following, now, 4, 5), "a step taken before");
        assert!(takes(&following, now, 0, 9), "a full set that is newer");
        assert!(!takes(&following, now, 0, 4), "a full set that is older");
        assert!(takes(&following, later, 0, 2), "another primary counts by itself");
        assert!(
            !takes(&following, later, 5, 7),
            "and goes on from nothing of this one"
        );
    }

    #[test]
    fn keys_of_another_reign_then_everything_is_asked_for() {
        let mut following = Following::default();
        assert_eq!(following.keys_since(Epoch::FIRST), 0);
        following.keys_applied(Epoch::FIRST, 7);
        assert_eq!(following.keys_since(Epoch::FIRST), 7);
        assert_eq!(following.keys_since(Epoch::FIRST.promoted()), 0);
    }
}
