//! Filters: may a section hold a key? Never a false "no"; at 10 bits an entry about 1 % false "yes".
//!
//! A blocked Bloom filter: the upper half of a key's hash picks one line of 64 bytes, the lower half
//! all bits inside it, so that a probe touches one cache line. The hash is xxh3 seeded from the
//! table's file id: a set of keys that collides in one table does not in the next.
//!
//! ```text
//!  0  1  probes   bits set per key, 1 ..= 30
//!  1  3  zero
//!  4  4  lines    1 ..= 2^26
//!  8  64 x lines
//! ```
//!
//! Valid if and only if: probes and lines are in range, the zeroes are zero, and the length is
//! 8 + 64 x lines.
//!
//! Source: RocksDB FastLocalBloomImpl (util/bloom_impl.h): line choice, multiplicative re-hash, and
//! the number of probes that is best for a blocked filter (fewer than the textbook's).

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::format::{Fields, Malformed};
use super::piece_memory::{PieceMemory, taken};

const LINE_BYTES: usize = 64;
const HEAD_BYTES: usize = 8;
const LINES_MAX: u32 = 1 << 26;
const PROBES_MAX: u8 = 30;
const GOLDEN: u32 = 0x9e37_79b9;

/// The seed of all filters of a table.
pub(super) fn seed(file_id: &[u8; 16]) -> u64 {
    xxh3_64_with_seed(file_id, 0)
}

/// What filters know of a tree key.
pub(super) fn hash(key: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(key, seed)
}

fn probes(bits: usize) -> u8 {
    // Steps of RocksDB's ChooseNumProbes, in whole bits per key.
    match bits {
        0..=2 => 1,
        3 => 2,
        4..=5 => 3,
        6 => 4,
        7..=8 => 5,
        9..=10 => 6,
        11 => 7,
        12..=14 => 8,
        15..=16 => 9,
        17..=18 => 10,
        19..=22 => 11,
        23..=25 => 12,
        _ => 13,
    }
}

/// Where `hash` falls: its line among `lines`, and the state the bits come from.
fn place(hash: u64, lines: u32) -> (usize, u32) {
    let line = ((hash >> 32) * u64::from(lines)) >> 32;
    (line as usize, hash as u32)
}

/// The bit (0 ..= 511) that `state` names, and the state of the next probe.
fn bit(state: u32) -> (usize, u32) {
    let state = state.wrapping_mul(GOLDEN);
    ((state >> 23) as usize, state)
}

/// The filter over `hashes` with `bits` a key.
pub(super) fn build(hashes: &[u64], bits: usize) -> Vec<u8> {
    let wanted = hashes.len().saturating_mul(bits).div_ceil(LINE_BYTES * 8);
    let lines = u32::try_from(wanted).unwrap_or(LINES_MAX).clamp(1, LINES_MAX);
    let probes = probes(bits);
    let mut out = vec![0; HEAD_BYTES + lines as usize * LINE_BYTES];
    if let Some((head, body)) = out.split_at_mut_checked(HEAD_BYTES) {
        head.copy_from_slice(&(u64::from(lines) << 32 | u64::from(probes)).to_le_bytes());
        let (body, _) = body.as_chunks_mut::<LINE_BYTES>();
        for hash in hashes {
            let (line, mut state) = place(*hash, lines);
            let Some(line) = body.get_mut(line) else { continue };
            for _ in 0..probes {
                let (index, next) = bit(state);
                if let Some(byte) = line.get_mut(index / 8) {
                    *byte |= 1 << (index % 8);
                }
                state = next;
            }
        }
    }
    out
}

/// A decoded filter.
pub(super) struct Filter {
    /// All lines.
    body: Bytes,
    lines: u32,
    probes: u8,
}

impl Filter {
    pub(super) fn decode(bytes: Vec<u8>) -> Result<Filter, Malformed> {
        let mut fields = Fields(&bytes);
        let probes = fields.u8().filter(|probes| (1..=PROBES_MAX).contains(probes));
        let zero = fields.array::<3>();
        let lines = fields.u32().filter(|lines| (1..=LINES_MAX).contains(lines));
        let (Some(probes), Some([0, 0, 0]), Some(lines)) = (probes, zero, lines) else {
            return Err(Malformed("a filter's head"));
        };
        if fields.0.len() != lines as usize * LINE_BYTES {
            return Err(Malformed("as many filter lines as its head says"));
        }
        let body = Bytes::from(bytes).slice(HEAD_BYTES..);
        Ok(Filter { body, lines, probes })
    }

    /// Whether a key of this hash may be there.
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        let (line, mut state) = place(hash, self.lines);
        let (body, _) = self.body.as_chunks::<LINE_BYTES>();
        // Decoding checked the length, so that there always is a line; without one, never say no.
        let Some(line) = body.get(line) else { return true };
        // All of them, without a branch for each that is as likely as not: the line is one line of the cache.
        let mut all = 1;
        for _ in 0..self.probes {
            let (index, next) = bit(state);
            all &= line.get(index / 8).map_or(1, |byte| byte >> (index % 8));
            state = next;
        }
        all & 1 == 1
    }

    pub(super) fn memory(&self) -> usize {
        taken(self.body.len())
    }

    /// The same, in memory for what is kept: each line is a line of the processor's cache there.
    pub(super) fn kept_in(self, memory: &PieceMemory) -> Filter {
        Filter {
            body: memory.keep(self.body),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_added_key_is_found_and_few_others() {
        for count in [1usize, 2, 51, 1000, 20_000] {
            let seed = seed(&[count as u8; 16]);
            let hashes: Vec<u64> = (0..count as u64).map(|i| hash(&i.to_be_bytes(), seed)).collect();
            let filter = Filter::decode(build(&hashes, 10)).expect("own filter");
            assert!(
                hashes.iter().all(|h| filter.may_hold(*h)),
                "a false negative among {count}"
            );
            let other = (0..20_000u64).map(|i| hash(&(i + (1 << 40)).to_be_bytes(), seed));
            let wrong = other.filter(|h| filter.may_hold(*h)).count();
            assert!(wrong < 400, "{wrong} of 20000 false positives with {count} keys");
        }
    }

    #[test]
    fn hostile_filter_bytes_are_refused_or_harmless() {
        let good = build(&[1, 2, 3], 10);
        for len in 0..good.len() {
            assert!(
                Filter::decode(good.get(..len).unwrap_or(&[]).to_vec()).is_err(),
                "cut at {len}"
            );
        }
        for (index, value) in [(0, 0), (0, 31), (1, 1), (4, 2), (4, 0), (7, 255)] {
            let mut bad = good.clone();
            if let Some(byte) = bad.get_mut(index) {
                *byte = value;
            }
            assert!(Filter::decode(bad).is_err(), "byte {index} = {value}");
        }
    }
}
