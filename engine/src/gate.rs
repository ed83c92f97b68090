//! Where `Replicated` commits wait for the standby.
//!
//! Invariant (design R2): a waiter returns Ok only if a standby reported its record durable, in the
//! epoch the record was written in. It never turns into a weaker promise: without a confirmation the
//! outcome is `Unknown`. A write whose waiter gave up becomes visible when a late confirmation covers it.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, ErrorKind, Result};
use crate::types::{Epoch, Lsn, Position, SeqNo};

pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    epoch: Epoch,
    confirmed: Lsn,
    fenced: Option<Epoch>,
    closed: bool,
    /// Records that nobody confirmed yet, by end position.
    pending: BTreeMap<Lsn, SeqNo>,
}

impl Gate {
    pub fn new() -> Gate {
        Gate {
            state: Mutex::new(State {
                epoch: Epoch::ZERO,
                confirmed: Lsn::ZERO,
                fenced: None,
                closed: false,
                pending: BTreeMap::new(),
            }),
            changed: Condvar::new(),
        }
    }

    /// A reign begins: confirmations of any other one no longer count.
    pub fn begin(&self, epoch: Epoch) {
        let mut state = self.state.lock();
        state.epoch = epoch;
        state.confirmed = Lsn::ZERO;
        state.fenced = None;
        state.pending.clear();
    }

    /// No confirmation can come any more: waiters end in `Unknown`.
    pub fn fence(&self, by: Epoch) {
        self.state.lock().fenced = Some(by);
        self.changed.notify_all();
    }

    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    pub fn confirmed(&self) -> Lsn {
        self.state.lock().confirmed
    }

    /// A standby has everything before `lsn` durable in `epoch`. Returns the newest version that became
    /// confirmed, if any.
    pub fn confirm(&self, epoch: Epoch, lsn: Lsn) -> Option<SeqNo> {
        let mut state = self.state.lock();
        if epoch != state.epoch || state.fenced.is_some() || lsn <= state.confirmed {
            return None;
        }
        state.confirmed = lsn;
        let still_pending = state.pending.split_off(&Lsn(lsn.0.saturating_add(1)));
        let confirmed = std::mem::replace(&mut state.pending, still_pending);
        self.changed.notify_all();
        confirmed.into_values().max()
    }

    /// Announces a record before anything can confirm it.
    pub fn register(&self, position: Position) {
        let mut state = self.state.lock();
        if state.confirmed < position.lsn {
            state.pending.insert(position.lsn, position.seqno);
        }
    }

    /// What became of the record at `position`; `None` while a confirmation can still come.
    pub fn outcome(&self, position: Position) -> Option<Result<()>> {
        self.state.lock().outcome(position)
    }

    /// Waits until the record at `position` is confirmed.
    pub fn wait(&self, position: Position, timeout: Duration) -> Result<()> {
        let mut state = self.state.lock();
        loop {
            if let Some(outcome) = state.outcome(position) {
                return outcome;
            }
            let late = self.changed.wait_for(&mut state, timeout).timed_out();
            if late && state.outcome(position).is_none() {
                return Err(unknown(format!("none within {} ms", timeout.as_millis())));
            }
        }
    }
}

impl State {
    fn outcome(&self, position: Position) -> Option<Result<()>> {
        if let Some(by) = self.fenced {
            return Some(Err(unknown(format!("this node was fenced by epoch {by}"))));
        }
        if self.epoch != position.epoch {
            return Some(Err(unknown(format!("epoch {} is over", position.epoch))));
        }
        if self.confirmed >= position.lsn {
            return Some(Ok(()));
        }
        self.closed
            .then(|| Err(unknown("the database was closed".into())))
    }
}

fn unknown(why: String) -> Error {
    let text = format!("no standby confirmed the write: {why}; it may or may not survive");
    Error::new(ErrorKind::Unknown, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lsn: u64, seqno: u64) -> Position {
        Position {
            epoch: Epoch::FIRST,
            lsn: Lsn(lsn),
            seqno: SeqNo(seqno),
        }
    }

    #[test]
    fn only_a_confirmation_of_the_same_epoch_at_or_past_the_record_lets_it_through() {
        let gate = Gate::new();
        gate.begin(Epoch::FIRST);
        let soon = Duration::from_millis(1);
        gate.register(at(100, 1));
        assert_eq!(
            gate.wait(at(100, 1), soon).unwrap_err().kind(),
            ErrorKind::Unknown
        );
        assert_eq!(gate.confirm(Epoch::FIRST.promoted(), Lsn(100)), None);
        assert_eq!(gate.confirm(Epoch::FIRST, Lsn(99)), None);
        assert_eq!(
            gate.wait(at(100, 1), soon).unwrap_err().kind(),
            ErrorKind::Unknown
        );
        assert_eq!(
            gate.confirm(Epoch::FIRST, Lsn(100)),
            Some(SeqNo(1)),
            "a late confirmation publishes"
        );
        gate.wait(at(100, 1), soon).unwrap();
    }

    #[test]
    fn a_fence_ends_every_wait_even_for_records_confirmed_before() {
        let gate = Gate::new();
        gate.begin(Epoch::FIRST);
        gate.fence(Epoch::FIRST.promoted());
        assert_eq!(gate.confirm(Epoch::FIRST, Lsn(100)), None);
        assert_eq!(
            gate.wait(at(100, 1), Duration::from_secs(1)).unwrap_err().kind(),
            ErrorKind::Unknown
        );
    }
}
