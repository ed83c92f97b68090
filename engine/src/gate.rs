//! Where `Replicated` commits wait for the standby.
//!
//! Invariant (design R2): a waiter returns Ok only if a standby reported its record durable, in the
//! epoch the record was written in. It never turns into a weaker promise: without a confirmation the
//! outcome is `Unknown`. A write whose waiter gave up becomes visible when a late confirmation covers it; none does
//! before it is in the memtable, however early a confirmation comes: a log's bytes are shipped once they are durable.
//!
//! A confirmation wakes those it covers, and nobody else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, ErrorKind, Result};
use crate::types::{Epoch, Lsn, Position, SeqNo};

pub(crate) struct Gate {
    state: Mutex<State>,
}

struct State {
    epoch: Epoch,
    confirmed: Lsn,
    fenced: Option<Epoch>,
    closed: bool,
    /// Records that nobody confirmed yet, by end position.
    pending: BTreeMap<Lsn, SeqNo>,
    /// What wakes those who sleep, by the end position of their record.
    waiting: BTreeMap<Lsn, Arc<Condvar>>,
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
                waiting: BTreeMap::new(),
            }),
        }
    }

    /// A reign begins: confirmations of any other one no longer count.
    pub fn begin(&self, epoch: Epoch) {
        let mut state = self.state.lock();
        state.epoch = epoch;
        state.confirmed = Lsn::ZERO;
        state.fenced = None;
        state.pending.clear();
        state.wake_all();
    }

    /// No confirmation can come any more: waiters end in `Unknown`.
    pub fn fence(&self, by: Epoch) {
        let mut state = self.state.lock();
        state.fenced = Some(by);
        state.wake_all();
    }

    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.wake_all();
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
        let confirmed = up_to(&mut state.pending, lsn);
        let covered = up_to(&mut state.waiting, lsn);
        drop(state);
        wake(covered);
        confirmed.into_values().max()
    }

    /// A record can be made visible by a confirmation from now on: it is in the memtable. True: that came already.
    pub fn register(&self, position: Position) -> bool {
        let mut state = self.state.lock();
        if state.epoch == position.epoch && state.confirmed >= position.lsn {
            return true;
        }
        state.pending.insert(position.lsn, position.seqno);
        false
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
            let woken = Arc::new(Condvar::new());
            state.waiting.insert(position.lsn, woken.clone());
            // Nobody wakes it but for an outcome.
            let late = woken.wait_for(&mut state, timeout).timed_out();
            state.waiting.remove(&position.lsn);
            if late && state.outcome(position).is_none() {
                return Err(unknown(format!("none within {} ms", timeout.as_millis())));
            }
        }
    }
}

fn wake(waiting: BTreeMap<Lsn, Arc<Condvar>>) {
    for woken in waiting.into_values() {
        woken.notify_one();
    }
}

/// Takes out what stands at or before `lsn`.
fn up_to<T>(map: &mut BTreeMap<Lsn, T>, lsn: Lsn) -> BTreeMap<Lsn, T> {
    let after = map.split_off(&Lsn(lsn.0.saturating_add(1)));
    std::mem::replace(map, after)
}

impl State {
    /// Something ended for all.
    fn wake_all(&mut self) {
        wake(std::mem::take(&mut self.waiting));
    }

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
        assert!(!gate.register(at(100, 1)));
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
    fn a_record_that_is_registered_after_its_confirmation_is_told_of_it_and_one_of_another_reign_is_not() {
        let gate = Gate::new();
        gate.begin(Epoch::FIRST);
        assert_eq!(
            gate.confirm(Epoch::FIRST, Lsn(100)),
            None,
            "nothing is registered"
        );
        assert!(gate.register(at(100, 1)));
        assert!(!gate.register(at(101, 2)));
        assert_eq!(gate.confirm(Epoch::FIRST, Lsn(101)), Some(SeqNo(2)));
        gate.begin(Epoch::FIRST.promoted());
        gate.confirm(Epoch::FIRST.promoted(), Lsn(200));
        assert!(!gate.register(at(150, 3)));
    }

    #[test]
    fn sleepers_are_woken_by_the_confirmation_that_covers_them_and_by_the_end_of_a_reign() {
        let gate = Gate::new();
        gate.begin(Epoch::FIRST);
        let (long, records) = (Duration::from_secs(600), [10, 20, 30, 40]);
        let outcomes = std::thread::scope(|scope| {
            let wait = |lsn| {
                assert!(!gate.register(at(lsn, lsn)));
                let gate = &gate;
                scope.spawn(move || gate.wait(at(lsn, lsn), long).map_err(|e| e.kind()))
            };
            let waiters = records.map(wait);
            while gate.state.lock().waiting.len() < records.len() {
                std::thread::yield_now();
            }
            assert_eq!(gate.confirm(Epoch::FIRST, Lsn(25)), Some(SeqNo(20)));
            let asleep: Vec<Lsn> = gate.state.lock().waiting.keys().copied().collect();
            assert_eq!(asleep, [Lsn(30), Lsn(40)]);
            gate.fence(Epoch::FIRST.promoted());
            waiters.map(|waiter| waiter.join().unwrap())
        });
        let unknown = Err(ErrorKind::Unknown);
        assert_eq!(outcomes[2..], [unknown, unknown]);
        // The others may have looked before the fence or after it.
        assert!(outcomes[..2].iter().all(|o| *o == Ok(()) || *o == unknown));
        assert!(gate.state.lock().waiting.is_empty());
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
