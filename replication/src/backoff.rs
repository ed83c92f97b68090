//! Waits between attempts: doubling, with jitter, so that a pair that restarts together does not knock
//! together.

use std::time::Duration;

/// Attempts that follow each other. `next` is between half and the whole of the current step.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    step: Duration,
    seed: u64,
}

impl Backoff {
    /// `seed` only spreads nodes apart; it need not be secret.
    pub(crate) fn new(min: Duration, max: Duration, seed: u64) -> Backoff {
        Backoff {
            min,
            max,
            step: min,
            seed: seed | 1,
        }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        // xorshift64: cheap, and good enough to keep two nodes out of step.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let half = self.step / 2;
        let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        let wait = half + Duration::from_nanos(self.seed % spread);
        self.step = self.step.saturating_mul(2).min(self.max);
        wait
    }

    /// Something worked: start small again.
    pub(crate) fn reset(&mut self) {
        self.step = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_then_waits_double_within_bounds_and_reset() {
        let (min, max) = (Duration::from_millis(100), Duration::from_millis(1000));
        for seed in 0..50 {
            let mut backoff = Backoff::new(min, max, seed);
            for step in [100, 200, 400, 800, 1000, 1000, 1000] {
                let wait = backoff.next();
                let step = Duration::from_millis(step);
                assert!(
                    step / 2 <= wait && wait <= step,
                    "seed {seed}: {wait:?} of {step:?}"
                );
            }
            backoff.reset();
            assert!(backoff.next() <= min, "seed {seed}");
        }
    }
}
