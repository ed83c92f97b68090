//! How far one standby is, as its primary counts. Pure: no I/O, no clock.
//!
//! The order, stated once:
//!
//! ```text
//! applied <= durable <= received <= sent <= durable on the primary
//! ```
//!
//! and none of them ever goes back within one stream. An acknowledgement that breaks either rule is a
//! broken peer: nothing in it is believed.
//!
//! `sent` counts bytes handed to the connection's queue, so `outstanding` bounds what one slow standby can
//! hold in this process, whatever the transport buffers.

use strongroom::{Epoch, Lsn};

use crate::hooks::{planted, rare};

/// Positions of one standby in one stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    epoch: Epoch,
    sent: Lsn,
    received: Lsn,
    durable: Lsn,
    applied: Lsn,
}

/// What a standby acknowledges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    /// Epoch of its last whole record.
    pub epoch: Epoch,
    /// End of what it holds at all.
    pub received: Lsn,
    /// End of its last whole record on stable storage.
    pub durable: Lsn,
    /// End of the last record its readers see.
    pub applied: Lsn,
}

/// What an accepted acknowledgement means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// The durable position moved: the watchdog may rest, the pin may move.
    pub advanced: bool,
    /// Commits up to here are confirmed. `None` when the standby's last record is of an older reign:
    /// such an acknowledgement counts as progress, and confirms nothing.
    pub confirms: Option<Lsn>,
}

/// Why an acknowledgement is not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckRefused {
    /// Positions out of order, or beyond what was sent.
    Disordered,
    /// A position below one acknowledged before.
    WentBack,
    /// An epoch above the primary's own: the standby follows somebody newer.
    NewerEpoch,
}

impl Progress {
    /// A stream of reign `epoch` begins at `durable`, the end of the standby's last whole record.
    pub fn new(epoch: Epoch, durable: Lsn) -> Progress {
        Progress {
            epoch,
            sent: durable,
            received: durable,
            durable,
            applied: Lsn::ZERO,
        }
    }

    /// Bytes up to `end` were handed to the connection. Never goes back.
    pub fn on_sent(&mut self, end: Lsn) {
        self.sent = self.sent.max(end);
    }

    /// Takes an acknowledgement, or refuses it whole.
    pub fn on_ack(&mut self, ack: Ack) -> Result<Accepted, AckRefused> {
        if ack.epoch > self.epoch {
            return Err(AckRefused::NewerEpoch);
        }
        if !(ack.applied <= ack.durable && ack.durable <= ack.received && ack.received <= self.sent) {
            return Err(AckRefused::Disordered);
        }
        if ack.applied < self.applied || ack.durable < self.durable || ack.received < self.received {
            return Err(AckRefused::WentBack);
        }
        let advanced = ack.durable > self.durable;
        (self.received, self.durable, self.applied) = (ack.received, ack.durable, ack.applied);
        let confirms = if ack.epoch == self.epoch {
            Some(match planted!(ConfirmReceived) {
                true => ack.received,
                false => ack.durable,
            })
        } else {
            rare!(AckFromOlderReign);
            None
        };
        Ok(Accepted { advanced, confirms })
    }

    /// Bytes sent and not durable there.
    pub fn outstanding(&self) -> u64 {
        self.sent.0 - self.durable.0
    }

    /// How many bytes may be read and sent now: at most `chunk`, 0 while the window is full.
    pub fn may_send(&self, window: u64, chunk: usize) -> usize {
        let left = window.saturating_sub(self.outstanding());
        usize::try_from(left).unwrap_or(usize::MAX).min(chunk)
    }

    /// End of what was sent.
    pub fn sent(&self) -> Lsn {
        self.sent
    }

    /// End of what it holds.
    pub fn received(&self) -> Lsn {
        self.received
    }

    /// End of what it has on stable storage.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// End of what its readers see.
    pub fn applied(&self) -> Lsn {
        self.applied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const E: Epoch = Epoch::new(2, 0);

    fn ack(received: u64, durable: u64, applied: u64) -> Ack {
        Ack {
            epoch: E,
            received: Lsn(received),
            durable: Lsn(durable),
            applied: Lsn(applied),
        }
    }

    /// Sent 100, received 80, durable 60, applied 40.
    fn midway() -> Progress {
        let mut progress = Progress::new(E, Lsn(10));
        progress.on_sent(Lsn(100));
        progress.on_ack(ack(80, 60, 40)).unwrap();
        progress
    }

    #[test]
    fn ack_table() {
        use AckRefused::*;
        let advanced = |lsn| {
            Ok(Accepted {
                advanced: true,
                confirms: Some(Lsn(lsn)),
            })
        };
        let same = Ok(Accepted {
            advanced: false,
            confirms: Some(Lsn(60)),
        });
        let table = [
            // (received, durable, applied) -> outcome
            ((80, 60, 40), same),
            ((90, 60, 40), same),
            ((80, 60, 60), same),
            ((80, 80, 40), advanced(80)),
            ((100, 100, 100), advanced(100)),
            ((101, 100, 100), Err(Disordered)),
            ((80, 90, 40), Err(Disordered)),
            ((80, 60, 61), Err(Disordered)),
            ((u64::MAX, 60, 40), Err(Disordered)),
            ((79, 60, 40), Err(WentBack)),
            ((80, 59, 40), Err(WentBack)),
            ((80, 60, 39), Err(WentBack)),
            ((0, 0, 0), Err(WentBack)),
        ];
        for ((received, durable, applied), expected) in table {
            let mut progress = midway();
            let before = progress;
            let outcome = progress.on_ack(ack(received, durable, applied));
            assert_eq!(outcome, expected, "{received} {durable} {applied}");
            if outcome.is_err() {
                assert_eq!(progress, before, "a refused ack changes nothing");
            }
        }
    }

    #[test]
    fn every_small_ack_then_accepted_exactly_when_ordered_and_not_going_back() {
        // All acks over positions 0..=11 against sent 10, received 7, durable 5, applied 3.
        for received in 0..=11 {
            for durable in 0..=11 {
                for applied in 0..=11 {
                    let mut progress = Progress::new(E, Lsn(0));
                    progress.on_sent(Lsn(10));
                    progress.on_ack(ack(7, 5, 3)).unwrap();
                    let ordered = applied <= durable && durable <= received && received <= 10;
                    let forward = received >= 7 && durable >= 5 && applied >= 3;
                    let outcome = progress.on_ack(ack(received, durable, applied));
                    assert_eq!(
                        outcome.is_ok(),
                        ordered && forward,
                        "{received} {durable} {applied}"
                    );
                    assert!(progress.applied() <= progress.durable());
                    assert!(progress.durable() <= progress.received());
                    assert!(progress.received() <= progress.sent());
                }
            }
        }
    }

    #[test]
    fn ack_of_older_epoch_then_progress_without_confirmation() {
        let mut progress = midway();
        let old = Ack {
            epoch: Epoch(E.0 - 1),
            ..ack(90, 90, 90)
        };
        assert_eq!(
            progress.on_ack(old),
            Ok(Accepted {
                advanced: true,
                confirms: None
            })
        );
        assert_eq!(progress.durable(), Lsn(90));
    }

    #[test]
    fn ack_of_newer_epoch_then_refused() {
        let mut progress = midway();
        let newer = Ack {
            epoch: E.promoted(),
            ..ack(90, 90, 90)
        };
        assert_eq!(progress.on_ack(newer), Err(AckRefused::NewerEpoch));
    }

    #[test]
    fn window_table() {
        // Outstanding is 100 - 60 = 40.
        let table = [
            (41, 10, 1),
            (40, 10, 0),
            (39, 10, 0),
            (0, 10, 0),
            (1 << 30, 10, 10),
            (50, 100, 10),
        ];
        for (window, chunk, expected) in table {
            assert_eq!(
                midway().may_send(window, chunk),
                expected,
                "window {window} chunk {chunk}"
            );
        }
    }

    #[test]
    fn sent_told_twice_then_never_back() {
        let mut progress = midway();
        progress.on_sent(Lsn(90));
        assert_eq!(progress.sent(), Lsn(100));
        assert_eq!(progress.outstanding(), 40);
    }
}
