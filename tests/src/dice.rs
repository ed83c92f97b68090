//! Seeded choices: the same seed, the same choices.

use std::sync::atomic::{AtomicU64, Ordering};

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The choices of `seed`.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// True in `percent` of 100 cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A seed for the random bytes of one simulated machine, never given twice in one process: two runs
/// with equal random bytes would repeat (key, nonce) pairs, which the recorder of tests forbids.
/// What the engine does must not depend on it, so it need not be printed.
pub fn fresh_seed() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0x7374_726f_6e67);
    Dice::new(NEXT.fetch_add(1, Ordering::Relaxed)).roll()
}
