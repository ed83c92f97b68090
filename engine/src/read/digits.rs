//! Keys as numbers: some of their bytes, big-endian, padded with zeroes, which order like them or are equal.
//!
//! Comparing numbers that stand side by side touches far less memory than comparing keys where they are.
//! What all keys of a place have in common says nothing, so the digits begin behind it.

use std::cmp::Ordering;

use bytes::Bytes;

/// How many leading bytes two keys have in common.
pub(crate) fn common(a: &[u8], b: &[u8]) -> usize {
    let ((eights, _), (others, _)) = (a.as_chunks(), b.as_chunks());
    let mut same = 0;
    for (one, other) in eights.iter().zip(others) {
        let differ = u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other);
        if differ != 0 {
            return same + differ.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    let (a, b) = (
        a.get(same..).unwrap_or_default(),
        b.get(same..).unwrap_or_default(),
    );
    same + a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Of `rest`, which is shorter than that.
fn padded<const N: usize>(rest: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    bytes
}

/// Eight bytes of a key from `skip` on.
#[inline]
pub(crate) fn eight(key: &[u8], skip: usize) -> u64 {
    let rest = key.get(skip..).unwrap_or_default();
    match (rest.first_chunk(), key.last_chunk()) {
        (Some(bytes), _) => u64::from_be_bytes(*bytes),
        // Without what stands before `skip`; nothing if that is all there is.
        (None, Some(bytes)) => {
            let before = 8 * (8 - rest.len() as u32);
            u64::from_be_bytes(*bytes).checked_shl(before).unwrap_or_default()
        }
        (None, None) => u64::from_be_bytes(padded(rest)),
    }
}

/// Sixteen bytes of a key from `skip` on, in two numbers.
#[inline]
pub(crate) fn sixteen(key: &[u8], skip: usize) -> (u64, u64) {
    let rest = key.get(skip..).unwrap_or_default();
    let both = match (rest.first_chunk(), key.last_chunk()) {
        (Some(bytes), _) => u128::from_be_bytes(*bytes),
        (None, Some(bytes)) => {
            let before = 8 * (16 - rest.len() as u32);
            u128::from_be_bytes(*bytes)
                .checked_shl(before)
                .unwrap_or_default()
        }
        (None, None) => u128::from_be_bytes(padded(rest)),
    };
    ((both >> 64) as u64, both as u64)
}

/// How many of some keys, one at least, come before the place that is looked for: `key`, or a version of it.
///
/// `digits` begin with eight of each key from `skip` on, little-endian, and all keys have the first `skip` bytes in
/// common. `key_of` gives a key; `before` says whether one comes before the place, and is asked only where digits are
/// equal.
pub(crate) fn rank<'a, const N: usize>(
    digits: &[[u8; N]],
    skip: usize,
    key: &[u8],
    key_of: impl Fn(usize) -> &'a [u8],
    before: impl Fn(usize) -> bool,
) -> usize {
    let low = below(digits, eight(key, skip));
    // What all have in common is looked up in the one that is looked at anyway, if `key` is there.
    let near = key_of(low.min(digits.len().saturating_sub(1)));
    match beside(key, near.get(..skip).unwrap_or_default()) {
        Ordering::Less => 0,
        Ordering::Greater => digits.len(),
        Ordering::Equal => rank_from(digits, low, eight(key, skip), before),
    }
}

/// How `key` compares to keys that begin with `common`, as far as that says.
pub(crate) fn beside(key: &[u8], common: &[u8]) -> Ordering {
    key.get(..common.len()).unwrap_or(key).cmp(common)
}

/// The rank of a key that has in common what all have, when `low` of the digits are known to be below.
fn rank_from<const N: usize>(
    digits: &[[u8; N]],
    mut low: usize,
    wanted: u64,
    before: impl Fn(usize) -> bool,
) -> usize {
    let equal = digits.get(low..).unwrap_or_default();
    let is_equal = |other: &[u8; N]| number(other) == wanted;
    if !equal.first().is_some_and(is_equal) {
        return low;
    }
    if !equal.get(1).is_some_and(is_equal) {
        return low + usize::from(before(low));
    }
    let mut high = low + equal.partition_point(is_equal);
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

/// The digits that stand at the beginning.
pub(crate) fn number<const N: usize>(digits: &[u8; N]) -> u64 {
    digits
        .first_chunk()
        .map_or(0, |digits| u64::from_le_bytes(*digits))
}

/// So many numbers are counted through rather than halved.
const COUNTED: usize = 64;
/// So many numbers share a line of memory, about.
const LINE: usize = 8;
/// One number of so many stands for its neighbours as well.
const FENCE_EVERY: usize = 32;

/// How many of `digits`, which ascend, are below `wanted`.
///
/// Halving asks for one line of memory after the other, each of which says where the next is: where memory is
/// what takes the time, a few lines that are asked for all at once are had in the time of one.
fn below<const N: usize>(digits: &[[u8; N]], wanted: u64) -> usize {
    let is_below = |other: &[u8; N]| number(other) < wanted;
    let (mut start, mut rest) = (0, digits);
    while rest.len() > COUNTED {
        let (low, high) = rest.split_at(rest.len() / 2);
        if high.first().is_some_and(is_below) {
            start += low.len();
            rest = high;
        } else {
            rest = low;
        }
    }
    // First one number of each line, then those of the line where it is.
    let (lines, _) = rest.as_chunks::<LINE>();
    let before = |line: &[[u8; N]; LINE]| usize::from(line.last().is_some_and(is_below));
    let before = LINE * lines.iter().map(before).sum::<usize>();
    let line = rest.get(before..).unwrap_or_default().iter().take(LINE);
    start + before + line.map(|other| usize::from(is_below(other))).sum::<usize>()
}

/// The digits of keys in order, to search by.
pub(crate) struct Digits {
    /// What all keys begin with: beside the digits, so that no key need be looked at for it.
    common: Box<[u8]>,
    digits: Bytes,
    /// Every so many of them, side by side: where to count.
    fences: Box<[[u8; 8]]>,
}

impl Digits {
    /// Of `len` keys, at least one, which ascend or repeat.
    pub(crate) fn new<'a>(len: usize, key: impl Fn(usize) -> &'a [u8]) -> Digits {
        let skip = common(key(0), key(len.saturating_sub(1)));
        let digits: Vec<[u8; 8]> = (0..len).map(|at| eight(key(at), skip).to_le_bytes()).collect();
        let fences = digits.iter().skip(FENCE_EVERY).step_by(FENCE_EVERY);
        Digits {
            common: key(0).get(..skip).unwrap_or_default().into(),
            fences: fences.copied().collect(),
            digits: digits.as_flattened().to_vec().into(),
        }
    }

    /// See [`rank`].
    pub(crate) fn rank(&self, key: &[u8], before: impl Fn(usize) -> bool) -> usize {
        let (digits, _) = self.digits.as_chunks::<8>();
        match beside(key, &self.common) {
            Ordering::Less => return 0,
            Ordering::Greater => return digits.len(),
            Ordering::Equal => {}
        }
        let wanted = eight(key, self.common.len());
        // All before the last fence that is below are below; the next fence is not.
        let start = below(&self.fences, wanted) * FENCE_EVERY;
        let some = digits.get(start..).unwrap_or_default();
        let some = some.get(..FENCE_EVERY).unwrap_or(some);
        rank_from(digits, start + below(some, wanted), wanted, before)
    }

    /// The same, with the digits moved elsewhere.
    pub(crate) fn moved(self, to: impl FnOnce(Bytes) -> Bytes) -> Digits {
        Digits {
            digits: to(self.digits),
            ..self
        }
    }

    pub(crate) fn memory(&self) -> usize {
        self.digits.len() + size_of_val(&*self.fences) + self.common.len()
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
    fn digits_are_the_bytes_from_there_on() {
        let mut random = Random(6);
        for _ in 0..20_000 {
            let key = key(&mut random, 0);
            let skip = random.below(24) as usize;
            let mut bytes: Vec<u8> = key.get(skip..).unwrap_or_default().to_vec();
            bytes.resize(20, 0);
            let number = |at: usize| u64::from_be_bytes(*bytes[at..].first_chunk().unwrap());
            assert_eq!(eight(&key, skip), number(0), "{key:?} from {skip}");
            assert_eq!(sixteen(&key, skip), (number(0), number(8)), "{key:?} from {skip}");
        }
    }

    #[test]
    fn a_rank_by_digits_is_the_rank_by_keys() {
        for seed in 0..300 {
            let mut random = Random(seed);
            let start = random.below(12) as usize;
            let len = 1 + random.below([40, 400][seed as usize % 2]) as usize;
            let mut keys: Vec<_> = (0..len).map(|_| key(&mut random, start)).collect();
            keys.sort();
            let digits = Digits::new(keys.len(), |at| &keys[at]);
            let skip = common(&keys[0], &keys[len - 1]);
            let wide = |key: &Vec<u8>| [&eight(key, skip).to_le_bytes()[..], &[9; 4]].concat();
            let wide: Vec<[u8; 12]> = keys.iter().map(|key| wide(key).try_into().unwrap()).collect();
            for _ in 0..200 {
                let start = (start + random.below(3) as usize).saturating_sub(random.below(3) as usize);
                let wanted = key(&mut random, start);
                let expected = keys.partition_point(|key| *key < wanted);
                let found = digits.rank(&wanted, |at| keys[at] < wanted);
                assert_eq!(found, expected, "seed {seed}: {wanted:?} in {keys:?}");
                let found = rank(&wide, skip, &wanted, |at| &keys[at], |at| keys[at] < wanted);
                assert_eq!(found, expected, "seed {seed}: {wanted:?} in {keys:?}");
            }
        }
    }
}
