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
pub(crate) struct CommitLock(Mutex<CommitState>);

impl CommitLock {
    pub fn new(state: CommitState) -> CommitLock {
        CommitLock(Mutex::new(state))
    }

    /// For what is rare.
    pub fn lock(&self) -> MutexGuard<'_, CommitState> {
        // As every other lock here: what a panic left is what there is.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a batch. Who holds it needs a few microseconds; a thread that goes to sleep for it, and must be woken, loses
    /// some tens. So first it lets others run.
    pub fn lock_patiently(&self, clock: &dyn Clock) -> MutexGuard<'_, CommitState> {
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

    fn try_lock(&self) -> Option<MutexGuard<'_, CommitState>> {
        match self.0.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}
