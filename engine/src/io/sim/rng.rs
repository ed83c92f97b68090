//! Seeded randomness: the same seed gives the same bytes.
//!
//! Not for keys: whoever knows the seed knows them all. It stands in for the system's random source
//! only in simulations. Runs that must not repeat a (key, nonce) pair take different seeds.

use parking_lot::Mutex;
use std::io;

use crate::io::Rng;

/// SplitMix64 (Steele, Lea, Flood 2014): one word of state, every seed good.
#[derive(Clone, Debug)]
pub(super) struct SplitMix(u64);

impl SplitMix {
    pub(super) fn new(seed: u64) -> SplitMix {
        SplitMix(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0. The bias is of no matter for choosing faults.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True in `parts` of 256 cases.
    pub(super) fn chance(&mut self, parts: u64) -> bool {
        self.below(256) < parts
    }

    pub(super) fn fill(&mut self, buf: &mut [u8]) {
        for part in buf.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            part.iter_mut().zip(word).for_each(|(to, from)| *to = from);
        }
    }
}

/// Stands in for the system's random source in a simulation. Not for keys that protect anything.
#[derive(Debug)]
pub struct SimRng(Mutex<SplitMix>);

impl SimRng {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> SimRng {
        SimRng(Mutex::new(SplitMix::new(seed)))
    }
}

impl Rng for SimRng {
    fn fill(&self, buf: &mut [u8]) -> io::Result<()> {
        self.0.lock().fill(buf);
        Ok(())
    }
}
