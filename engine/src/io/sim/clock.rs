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
    /// How far wall time was set back.
    back_ms: AtomicU64,
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
            back_ms: AtomicU64::new(0),
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

    /// Sets wall time back; monotonic time goes on.
    pub fn step_back(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.back_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// A clock that shows the same and goes on by itself.
    pub fn fork(&self) -> SimClock {
        SimClock {
            elapsed_ns: AtomicU64::new(self.elapsed_ns.load(Ordering::Relaxed)),
            back_ms: AtomicU64::new(self.back_ms.load(Ordering::Relaxed)),
            step_ns: self.step_ns,
        }
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
        let ms = START_MS + self.read() / 1_000_000;
        ms.saturating_sub(self.back_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.read())
    }
}
