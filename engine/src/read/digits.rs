//! Keys as numbers: some of their bytes, big-endian, padded with zeroes, which order like them or are equal.
//!
//! Comparing numbers that stand side by side touches far less memory than comparing keys where they are.
//! What all keys of a place have in common says nothing, so the digits begin behind it.

use std::cmp::Ordering;

/// How many leading bytes two keys have in common.
pub(crate) fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn bytes<const N: usize>(key: &[u8], skip: usize) -> [u8; N] {
    let rest = key.get(skip..).unwrap_or_default();
    rest.first_chunk().copied().unwrap_or_else(|| {
        let mut bytes = [0; N];
        bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        bytes
    })
}

/// Eight bytes of a key from `skip` on.
pub(crate) fn eight(key: &[u8], skip: usize) -> u64 {
    u64::from_be_bytes(bytes(key, skip))
}

/// Sixteen bytes of a key from `skip` on, in two numbers.
pub(crate) fn sixteen(key: &[u8], skip: usize) -> (u64, u64) {
    let both = u128::from_be_bytes(bytes(key, skip));
    ((both >> 64) as u64, both as u64)
}

/// The digits of keys in order, to search by.
pub(crate) struct Digits {
    skip: usize,
    digits: Box<[u64]>,
}

impl Digits {
    /// Of `len` keys, at least one, which ascend or repeat.
    pub(crate) fn new<'a>(len: usize, key: impl Fn(usize) -> &'a [u8]) -> Digits {
        let skip = common(key(0), key(len.saturating_sub(1)));
        Digits {
            skip,
            digits: (0..len).map(|at| eight(key(at), skip)).collect(),
        }
    }

    /// How many of the keys, the first of which is given, come before the place that is looked for: `key`, or
    /// a version of it. `before` says whether one does, and is asked only where digits are equal.
    pub(crate) fn rank(&self, key: &[u8], first: &[u8], before: impl Fn(usize) -> bool) -> usize {
        let shared = first.get(..self.skip).unwrap_or_default();
        let start = key.get(..self.skip).unwrap_or(key);
        match start.cmp(shared) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.digits.len(),
            Ordering::Equal => {}
        }
        let digits = eight(key, self.skip);
        let mut low = self.digits.partition_point(|other| *other < digits);
        let equal = self.digits.get(low..).unwrap_or_default();
        if equal.first() != Some(&digits) {
            return low;
        }
        let mut high = low + equal.partition_point(|other| *other == digits);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(middle) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    }

    pub(crate) fn memory(&self) -> usize {
        size_of_val(&*self.digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::testing::Random;

    /// Keys that nest, repeat, and share starts of any length.
    fn key(random: &mut Random, start: usize) -> Vec<u8> {
        let len = random.below(20) as usize;
        let rest = (0..len).map(|_| [0, 0, 0, 1, 255][random.below(5) as usize]);
        vec![7; start].into_iter().chain(rest).collect()
    }

    #[test]
    fn digits_never_order_against_their_keys() {
        let mut random = Random(5);
        for _ in 0..20_000 {
            let skip = random.below(4) as usize;
            let (a, b) = (key(&mut random, skip), key(&mut random, skip));
            for order in [
                eight(&a, skip).cmp(&eight(&b, skip)),
                sixteen(&a, skip).cmp(&sixteen(&b, skip)),
            ] {
                assert!(order.is_eq() || order == a.cmp(&b), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn a_rank_by_digits_is_the_rank_by_keys() {
        for seed in 0..300 {
            let mut random = Random(seed);
            let start = random.below(12) as usize;
            let len = 1 + random.below(40) as usize;
            let mut keys: Vec<_> = (0..len).map(|_| key(&mut random, start)).collect();
            keys.sort();
            let digits = Digits::new(keys.len(), |at| &keys[at]);
            for _ in 0..200 {
                let start = (start + random.below(3) as usize).saturating_sub(random.below(3) as usize);
                let wanted = key(&mut random, start);
                let expected = keys.partition_point(|key| *key < wanted);
                let found = digits.rank(&wanted, &keys[0], |at| keys[at] < wanted);
                assert_eq!(found, expected, "seed {seed}: {wanted:?} in {keys:?}");
            }
        }
    }
}
