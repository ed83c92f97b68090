//! Keys, values and choices: the same for every engine, from a seed.

use crate::store::Entry;

/// SplitMix64 (Steele, Lea, Flood 2014): small, seedable, good enough to choose keys.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Ranks with a zipfian distribution, 0 the most likely; Gray et al., "Quickly generating billion-record
/// synthetic databases" (SIGMOD 1994), as YCSB uses it.
pub struct Zipf {
    items: u64,
    theta: f64,
    alpha: f64,
    zetan: f64,
    eta: f64,
}

impl Zipf {
    pub fn new(items: u64, theta: f64) -> Zipf {
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-theta)).sum::<f64>();
        let zetan = zeta(items);
        Zipf {
            items,
            theta,
            alpha: 1.0 / (1.0 - theta),
            zetan,
            eta: (1.0 - (2.0 / items as f64).powf(1.0 - theta)) / (1.0 - zeta(2) / zetan),
        }
    }

    pub fn rank(&self, dice: &mut Dice) -> u64 {
        let u = dice.unit();
        let uz = u * self.zetan;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5f64.powf(self.theta) {
            return 1;
        }
        let rank = self.items as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.items - 1)
    }

    /// A key number: ranks scattered over the key space.
    pub fn key(&self, dice: &mut Dice) -> u64 {
        mix(self.rank(dice)) % self.items
    }
}

/// 16 bytes, ordered as the numbers are.
pub fn key(number: u64) -> [u8; 16] {
    let mut key = *b"k000000000000000";
    let mut rest = number;
    for digit in key.iter_mut().skip(1).rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// Half random, half repeated: compresses about two to one, as RocksDB's db_bench has it.
pub fn value(dice: &mut Dice, len: usize) -> Vec<u8> {
    let mut value = vec![b'v'; len];
    for chunk in value[..len / 2].chunks_mut(8) {
        let bytes = dice.next().to_le_bytes();
        let len = chunk.len();
        chunk.copy_from_slice(&bytes[..len]);
    }
    value
}

/// The numbers `0..len` in an order that a seed gives, without keeping them: four rounds of a Feistel network
/// over the next even power of two, walked until it lands inside.
#[derive(Clone, Copy)]
pub struct Shuffle {
    len: u64,
    half_bits: u32,
    seed: u64,
}

impl Shuffle {
    pub fn new(len: u64, seed: u64) -> Shuffle {
        let bits = u64::BITS - len.max(2).saturating_sub(1).leading_zeros();
        Shuffle {
            len,
            half_bits: bits.div_ceil(2),
            seed,
        }
    }

    /// The number at `place`, which is below `len`.
    pub fn at(&self, place: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let mut number = place;
        loop {
            let (mut left, mut right) = (number >> self.half_bits, number & mask);
            for round in 0..4 {
                let mixed = mix(self.seed ^ (round << 56) ^ right) & mask;
                (left, right) = (right, left ^ mixed);
            }
            number = left << self.half_bits | right;
            if number < self.len {
                return number;
            }
        }
    }
}

/// Entries `0..keys` in random order, in batches.
pub fn shuffled(keys: u64, value_len: usize, seed: u64, batch: usize) -> impl Iterator<Item = Vec<Entry>> {
    let (order, mut dice) = (Shuffle::new(keys, seed), Dice::new(seed));
    let mut places = 0..keys;
    std::iter::from_fn(move || {
        let batch: Vec<Entry> = places
            .by_ref()
            .take(batch)
            .map(|place| (key(order.at(place)).to_vec(), value(&mut dice, value_len)))
            .collect();
        (!batch.is_empty()).then_some(batch)
    })
}

/// Entries `0..keys` in order, in batches.
pub fn in_order(keys: u64, value_len: usize, seed: u64, batch: usize) -> impl Iterator<Item = Vec<Entry>> {
    let mut dice = Dice::new(seed);
    let mut numbers = 0..keys;
    std::iter::from_fn(move || {
        let batch: Vec<Entry> = numbers
            .by_ref()
            .take(batch)
            .map(|number| (key(number).to_vec(), value(&mut dice, value_len)))
            .collect();
        (!batch.is_empty()).then_some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_as_their_numbers_and_all_of_one_length() {
        assert!(key(9) < key(10) && key(99_999) < key(100_000));
        assert_eq!(&key(42), b"k000000000000042");
    }

    #[test]
    fn shuffled_entries_hold_every_key_once_and_not_in_order() {
        for keys in [1, 2, 3, 63, 64, 65, 1000] {
            let all: Vec<Vec<u8>> = (0..keys).map(|n| key(n).to_vec()).collect();
            let mut seen: Vec<_> = shuffled(keys, 10, 7, 64).flatten().map(|(k, _)| k).collect();
            assert!(keys < 60 || seen != all, "{keys}");
            seen.sort();
            assert_eq!(seen, all, "{keys}");
        }
    }

    #[test]
    fn zipfian_ranks_stay_in_range_and_favour_the_first() {
        let (zipf, mut dice) = (Zipf::new(1000, 0.99), Dice::new(1));
        let ranks: Vec<u64> = (0..10_000).map(|_| zipf.rank(&mut dice)).collect();
        assert!(ranks.iter().all(|r| *r < 1000));
        let firsts = ranks.iter().filter(|r| **r == 0).count();
        assert!((1000..2000).contains(&firsts), "{firsts}");
    }
}
