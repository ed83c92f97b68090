//! Time that moves only when it is looked at, or by hand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::io::Clock;

/// Where simulated wall time begins: 2026-01-01, in milliseconds since 1970.
const START_MS: u64 = 1_767_225_600_000;

/// A clock that advances a little at every read, so that loops which wait for time to pass end.
#[derive(Debug)]
pub struct SimClock {
    elapsed_ns: AtomicU64,
    step_ns: u64,
}

impl SimClock {
    /// Advances by 10 µs at every read.
    pub fn new() -> SimClock {
        SimClock::with_step(Duration::from_micros(10))
    }

    /// Advances by `step` at every read; `Duration::ZERO` to move by hand only.
    pub fn with_step(step: Duration) -> SimClock {
        SimClock {
            elapsed_ns: AtomicU64::new(0),
            step_ns: u64::try_from(step.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// Moves both times on.
    pub fn advance(&self, by: Duration) {
        self.elapsed_ns.fetch_add(
            u64::try_from(by.as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    fn read(&self) -> u64 {
        self.elapsed_ns.fetch_add(self.step_ns, Ordering::Relaxed)
    }
}

impl Default for SimClock {
    fn default() -> SimClock {
        SimClock::new()
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        START_MS + self.read() / 1_000_000
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.read())
    }
}
