//! Waiting by letting others run: for what takes microseconds, where a thread that goes to sleep and must be woken
//! loses some tens.
//!
//! Letting others run is cheap while they are who is waited for. On a machine with more work than cores it may be
//! anybody, who keeps the core for a whole slice of the scheduler, milliseconds: a writer that let others run
//! some twenty times was seen to wait 96 ms for a lock that was free nearly all the time. So one long absence ends it.

use std::time::Duration;

use crate::io::Clock;

/// What is left of a wait by yielding.
pub(crate) struct Patience<'a> {
    clock: &'a dyn Clock,
    yields: u32,
    /// Who was away for longer did not wait for those that are waited for.
    away_max: Duration,
    since: Duration,
}

impl<'a> Patience<'a> {
    /// For at most so many yields, up to the first that takes longer than `away_max`.
    pub fn new(clock: &'a dyn Clock, yields: u32, away_max: Duration) -> Patience<'a> {
        Patience {
            clock,
            yields,
            away_max,
            since: clock.monotonic(),
        }
    }

    /// Lets others run once. False, without, when that was done often enough or one of them kept the core.
    pub fn wait(&mut self) -> bool {
        let Some(left) = self.yields.checked_sub(1) else {
            return false;
        };
        self.yields = left;
        std::thread::yield_now();
        let now = self.clock.monotonic();
        if now.saturating_sub(self.since) > self.away_max {
            self.yields = 0;
        }
        self.since = now;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    /// A clock that goes on by these each time it is asked, then stands.
    struct Steps(Mutex<(Duration, Vec<u64>)>);

    impl Clock for Steps {
        fn now_ms(&self) -> u64 {
            0
        }

        fn monotonic(&self) -> Duration {
            let mut steps = self.0.lock();
            let step = steps.1.pop().unwrap_or(0);
            steps.0 += Duration::from_micros(step);
            steps.0
        }
    }

    /// How often somebody with this patience waits, when the yields take so many microseconds each.
    fn waits(yields: u32, took: &[u64]) -> u32 {
        let steps = took.iter().rev().copied().chain([7]).collect();
        let clock = Steps(Mutex::new((Duration::ZERO, steps)));
        let mut patience = Patience::new(&clock, yields, Duration::from_micros(50));
        let mut waits = 0;
        while patience.wait() {
            waits += 1;
        }
        waits
    }

    #[test]
    fn patience_ends_after_its_yields_or_after_the_first_that_took_long() {
        assert_eq!(waits(0, &[]), 0);
        assert_eq!(waits(5, &[1, 40, 2, 50, 3]), 5);
        assert_eq!(waits(5, &[1, 4000, 1, 1, 1]), 2);
        assert_eq!(waits(5, &[51]), 1);
    }
}
