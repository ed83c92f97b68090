//! The commit lock: who holds it orders a batch, in a microsecond or two; and the turn that comes of it.
//!
//! ```text
//! writer 1   order: seal, log ──┬─ turn: memtable ─┐
//! writer 2            (waits)   └─ order: seal, log ──┬─ turn: memtable
//! ```
//!
//! A batch is sealed and appended under the lock, and goes into the memtable in its turn, while the next one is sealed
//! already. The turn is taken before the lock is let go, so that batches come into the memtable in the order of the log.
//!
//! Invariants: who holds the lock by [`lock`](CommitLock::lock), or has settled it, finds all that was ordered in the
//! memtable, and nobody inserts meanwhile; who has the turn never waits for the lock. Decision 0033.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::inner::CommitState;
use crate::io::Clock;
use crate::patience::Patience;

/// How often a writer lets others run before it sleeps for the lock.
const YIELDS_MAX: u32 = 24;
/// How long one of these may take: some commits of others.
const YIELD_TIME_MAX: Duration = Duration::from_micros(50);

/// How often who has ordered its batch looks whether its turn has come before it sleeps for it: some microseconds, in
/// which most batches come into the memtable. It yields to nobody meanwhile: all who it might yield to wait for it.
const SPINS_MAX: u32 = 300;

/// See the module. The standard library's mutex and not `parking_lot`'s, which yields by itself, some seven times
/// whatever a yield takes, before it sleeps.
pub(crate) struct CommitLock<T = CommitState> {
    state: Mutex<T>,
    /// Held by who puts an ordered batch into the memtable. Begun under `state` only.
    turn: Mutex<()>,
}

/// Who holds it puts its batch into the memtable, after all that were ordered before.
#[must_use = "the turn is over when it is dropped"]
pub(crate) struct Turn<'a> {
    _held: MutexGuard<'a, ()>,
}

impl<T> CommitLock<T> {
    pub fn new(state: T) -> CommitLock<T> {
        CommitLock {
            state: Mutex::new(state),
            turn: Mutex::new(()),
        }
    }

    /// For what is rare: all that was ordered is in the memtable.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let state = wait_for(&self.state);
        self.settle(&state);
        state
    }

    /// For a batch; of those before it the last may still be on its way into the memtable. Who holds it needs a few
    /// microseconds; a thread that goes to sleep for it, and must be woken, loses some tens. So first it lets others run.
    pub fn lock_patiently(&self, clock: &dyn Clock) -> MutexGuard<'_, T> {
        patiently(&self.state, clock)
    }

    /// Waits until all that was ordered is in the memtable.
    pub fn settle(&self, _state: &MutexGuard<'_, T>) {
        drop(wait_for(&self.turn));
    }

    /// Lets others order batches, while who ordered its own puts it into the memtable.
    pub fn hand_over(&self, state: MutexGuard<'_, T>) -> Turn<'_> {
        let turn = spinning(&self.turn);
        drop(state);
        Turn { _held: turn }
    }
}

/// As every other lock here: what a panic left is what there is.
fn wait_for<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_for<T>(lock: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match lock.try_lock() {
        Ok(held) => Some(held),
        Err(TryLockError::Poisoned(held)) => Some(held.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

fn spinning<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    for _ in 0..SPINS_MAX {
        if let Some(held) = try_for(lock) {
            return held;
        }
        std::hint::spin_loop();
    }
    wait_for(lock)
}

fn patiently<'a, T>(lock: &'a Mutex<T>, clock: &dyn Clock) -> MutexGuard<'a, T> {
    if let Some(held) = try_for(lock) {
        return held;
    }
    let mut patience = Patience::new(clock, YIELDS_MAX, YIELD_TIME_MAX);
    while patience.wait() {
        if let Some(held) = try_for(lock) {
            return held;
        }
    }
    wait_for(lock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::OsClock;
    use std::sync::Barrier;

    #[test]
    fn whoever_waits_patiently_or_not_comes_to_hold_it_alone() {
        let (lock, clock) = (CommitLock::new((0u64, false)), OsClock::new());
        let begin = Barrier::new(6);
        std::thread::scope(|threads| {
            for thread in 0..6 {
                let (lock, clock, begin) = (&lock, &clock, &begin);
                threads.spawn(move || {
                    begin.wait();
                    for _ in 0..2_000 {
                        let mut state = match thread % 2 {
                            0 => lock.lock_patiently(clock),
                            _ => lock.lock(),
                        };
                        assert!(!std::mem::replace(&mut state.1, true), "two hold it");
                        state.0 += 1;
                        state.1 = false;
                    }
                });
            }
        });
        assert_eq!(lock.lock().0, 12_000);
    }

    #[test]
    fn a_writer_sleeps_for_a_lock_that_is_held_for_longer_than_its_patience() {
        let (lock, clock) = (CommitLock::new(0), OsClock::new());
        let held = lock.lock();
        std::thread::scope(|threads| {
            let writer = threads.spawn(|| *lock.lock_patiently(&clock) += 1);
            // It has long stopped yielding when the lock is let go: then only being woken helps.
            for _ in 0..200 * YIELDS_MAX {
                std::thread::yield_now();
            }
            assert!(!writer.is_finished());
            drop(held);
            writer.join().unwrap();
        });
        assert_eq!(*lock.lock(), 1);
    }

    #[test]
    fn who_locks_for_what_is_rare_waits_for_whoever_has_the_turn_and_who_orders_a_batch_does_not() {
        let (lock, clock) = (CommitLock::new(0), OsClock::new());
        let turn = lock.hand_over(lock.lock_patiently(&clock));
        *lock.lock_patiently(&clock) += 1;
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|threads| {
            let rare = threads.spawn(|| {
                let state = lock.lock();
                assert!(over.load(std::sync::atomic::Ordering::SeqCst));
                *state
            });
            for _ in 0..200 * YIELDS_MAX {
                std::thread::yield_now();
            }
            over.store(true, std::sync::atomic::Ordering::SeqCst);
            drop(turn);
            assert_eq!(rare.join().unwrap(), 1);
        });
    }

    #[test]
    fn turns_come_in_the_order_in_which_the_lock_was_held() {
        let (lock, clock) = (CommitLock::new(0u64), OsClock::new());
        let taken = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..2_000 {
                        let mut state = lock.lock_patiently(&clock);
                        let number = *state;
                        *state += 1;
                        let turn = lock.hand_over(state);
                        let before = taken.load(std::sync::atomic::Ordering::Relaxed);
                        assert_eq!(before, number, "another turn came between");
                        taken.store(number + 1, std::sync::atomic::Ordering::Relaxed);
                        drop(turn);
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), 8_000);
    }

    #[test]
    fn what_a_panic_left_can_be_locked_again() {
        let (lock, clock) = (CommitLock::new(0), OsClock::new());
        let died = std::thread::scope(|threads| {
            let writer = threads.spawn(|| {
                *lock.lock() = 7;
                let _held = lock.lock_patiently(&clock);
                panic!("as planned");
            });
            writer.join().is_err()
        });
        assert!(died);
        assert_eq!(*lock.lock_patiently(&clock), 7);
        assert_eq!(*lock.lock(), 7);
    }
}
