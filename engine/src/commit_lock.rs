//! The commit lock: who holds it orders a batch, in a microsecond or two.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::inner::CommitState;
use crate::io::Clock;
use crate::patience::Patience;

/// How often a writer lets others run before it sleeps for the lock.
const YIELDS_MAX: u32 = 24;
/// How long one of these may take: some commits of others.
const YIELD_TIME_MAX: Duration = Duration::from_micros(50);

/// See the module. The standard library's mutex and not `parking_lot`'s, which yields by itself, some seven times
/// whatever a yield takes, before it sleeps.
pub(crate) struct CommitLock<T = CommitState>(Mutex<T>);

impl<T> CommitLock<T> {
    pub fn new(state: T) -> CommitLock<T> {
        CommitLock(Mutex::new(state))
    }

    /// For what is rare.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        // As every other lock here: what a panic left is what there is.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a batch. Who holds it needs a few microseconds; a thread that goes to sleep for it, and must be woken, loses
    /// some tens. So first it lets others run.
    pub fn lock_patiently(&self, clock: &dyn Clock) -> MutexGuard<'_, T> {
        if let Some(state) = self.try_lock() {
            return state;
        }
        let mut patience = Patience::new(clock, YIELDS_MAX, YIELD_TIME_MAX);
        while patience.wait() {
            if let Some(state) = self.try_lock() {
                return state;
            }
        }
        self.lock()
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
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
