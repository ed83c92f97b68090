//! Compression of a block's entries, before the block is sealed: what is sealed does not compress.
//!
//! ```text
//!  0  4  length     of the entries, 1 .. [`ENTRIES_BYTES_MAX`], at most 255 times the rest
//!  4  …  LZ4 block  github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md
//! ```
//!
//! Invariants: a block is compressed by itself, with nothing that any other block held, so that it opens
//! alone, and sizes of one tenant's blocks say nothing of another's; it is left as it is unless that saves
//! an eighth. The length is judged before memory is taken for it: no LZ4 block grows more than 255 times.

use lz4::block::{compress_bound, compress_to_buffer, decompress_to_buffer};

use super::block::{TREE_KEY_BYTES_MAX, room};
use super::builder::VALUE_MARGIN_BYTES;
use super::format::{Fields, Malformed};
use crate::hooks::{planted, rare};
use crate::options::VALUE_BYTES_MAX;

/// Entries of one block: the largest is one value of the largest size with its key.
pub(super) const ENTRIES_BYTES_MAX: usize = VALUE_BYTES_MAX + (128 << 10);
/// What an LZ4 block can grow by.
const GROWTH_MAX: usize = 255;
/// What compression must save: one part in so many.
const SAVED_PART: usize = 8;
const LENGTH_BYTES: usize = 4;
/// Buffers above this are not kept for the next block.
const KEPT_BYTES: usize = 4 << 20;

/// Varints of an entry, with room.
const ENTRY_BYTES: usize = 64;

const _: () =
    assert!(ENTRIES_BYTES_MAX >= VALUE_BYTES_MAX + VALUE_MARGIN_BYTES + TREE_KEY_BYTES_MAX + ENTRY_BYTES);

/// Compresses one block after another.
pub(super) struct Compressor {
    packed: Vec<u8>,
}

impl Compressor {
    pub(super) fn new() -> Compressor {
        Compressor { packed: Vec::new() }
    }

    /// `head`, then `entries` compressed; None where that does not save an eighth.
    pub(super) fn pack(&mut self, head: &[u8], entries: &[u8]) -> Option<&[u8]> {
        let before_bytes = head.len() + LENGTH_BYTES;
        let most = before_bytes + compress_bound(entries.len()).ok()?;
        if most <= KEPT_BYTES && self.packed.len() > KEPT_BYTES {
            *self = Compressor::new();
        }
        if self.packed.len() < most {
            self.packed.resize(most, 0);
        }
        let (place, rest) = self.packed.split_at_mut_checked(head.len())?;
        let (length, rest) = rest.split_first_chunk_mut::<LENGTH_BYTES>()?;
        place.copy_from_slice(head);
        length.copy_from_slice(&u32::try_from(entries.len()).ok()?.to_le_bytes());
        // The buffer takes the worst case, so that nothing can be too long for it.
        let len = compress_to_buffer(entries, None, false, rest).ok()?;
        if LENGTH_BYTES + len > entries.len() - entries.len() / SAVED_PART {
            rare!(BlockNotWorthCompressing);
            return None;
        }
        rare!(BlockCompressed);
        let carried = if planted!(CompressionCarriedOver) { 1 } else { 0 };
        self.packed.get(..before_bytes + len + carried)
    }
}

/// The entries of a compressed block, from what follows its head, with room for what is kept of each.
pub(super) fn decompress(packed: &[u8], count: u32) -> Result<Vec<u8>, Malformed> {
    let mut fields = Fields(packed);
    let len = fields.u32().ok_or(Malformed("the length of the entries"))? as usize;
    if len > ENTRIES_BYTES_MAX || len > fields.0.len().saturating_mul(GROWTH_MAX) {
        return Err(Malformed("entries of a possible length"));
    }
    let mut entries = Vec::with_capacity(len + room(len, count));
    entries.resize(len, 0);
    let unpack = |entries: &mut [u8]| {
        // The library counts in these, and does not look whether they fit.
        i32::try_from(fields.0.len()).ok()?;
        decompress_to_buffer(fields.0, Some(i32::try_from(len).ok()?), entries).ok()
    };
    let found = unpack(&mut entries).ok_or(Malformed("an LZ4 block of that length"))?;
    if found != len && !planted!(PlainLengthUnchecked) {
        return Err(Malformed("entries of the stated length"));
    }
    entries.truncate(found);
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::testing::Random;
    use crate::table::block::HEAD_BYTES;

    const HEAD: [u8; HEAD_BYTES] = [9; HEAD_BYTES];

    /// Bytes that repeat after `period`.
    fn repeating(random: &mut Random, len: usize, period: usize) -> Vec<u8> {
        let unit: Vec<u8> = (0..period).map(|_| random.next() as u8).collect();
        unit.into_iter().cycle().take(len).collect()
    }

    #[test]
    fn what_repeats_is_packed_and_comes_back() {
        let (mut random, mut compressor) = (Random(1), Compressor::new());
        for len in [
            64,
            100,
            1000,
            4096,
            65_534,
            65_535,
            65_536,
            300_000,
            6 << 20,
            4096,
        ] {
            let period = 1 + random.below(30) as usize;
            let entries = repeating(&mut random, len, period);
            let packed = compressor.pack(&HEAD, &entries).unwrap();
            assert!(
                packed.len() < HEAD_BYTES + len / 2 + 20,
                "{len}: {}",
                packed.len()
            );
            let rest = packed.strip_prefix(&HEAD).unwrap();
            assert!(decompress(rest, 1).unwrap() == entries, "{len}");
        }
        assert!(
            compressor.packed.len() <= KEPT_BYTES,
            "the large block's buffer is kept"
        );
    }

    #[test]
    fn what_saves_less_than_an_eighth_is_left_as_it_is() {
        let (mut random, mut compressor) = (Random(2), Compressor::new());
        assert_eq!(compressor.pack(&HEAD, &[]), None);
        let (mut packed, mut left) = (0, 0);
        for repeated in 0..400 {
            let mut entries: Vec<u8> = (0..1000).map(|_| random.next() as u8).collect();
            entries.extend_from_within(..repeated);
            match compressor.pack(&HEAD, &entries) {
                Some(bytes) => {
                    assert!(bytes.len() - HEAD_BYTES <= entries.len() - entries.len() / 8);
                    packed += 1;
                }
                None => left += 1,
            }
        }
        assert!((100..300).contains(&left), "{left} left, {packed} packed");
    }

    /// Sizes of one tenant's blocks must not tell what another wrote, and each block opens alone.
    #[test]
    fn a_block_is_packed_as_if_it_were_the_first() {
        let mut random = Random(3);
        let mut compressor = Compressor::new();
        let blocks: Vec<Vec<u8>> = (0..50).map(|_| repeating(&mut random, 500, 100)).collect();
        for i in 0..500 {
            let entries = &blocks[random.below(50) as usize];
            let expected = Compressor::new().pack(&HEAD, entries).unwrap().to_vec();
            assert_eq!(compressor.pack(&HEAD, entries).unwrap(), expected, "block {i}");
        }
    }

    #[test]
    fn a_length_is_judged_before_memory_is_taken_for_it() {
        let refused = |packed: &[u8]| decompress(packed, 1).unwrap_err();
        // Ten bytes could give 2550.
        let with = |len: u32| [&len.to_le_bytes()[..], &[0; 10]].concat();
        assert_eq!(refused(&with(2551)), Malformed("entries of a possible length"));
        assert_eq!(
            refused(&with(u32::MAX)),
            Malformed("entries of a possible length")
        );
        assert_eq!(refused(&with(2550)), Malformed("an LZ4 block of that length"));
        let long = [
            &(ENTRIES_BYTES_MAX as u32 + 1).to_le_bytes()[..],
            &vec![0; 1 << 20],
        ]
        .concat();
        assert_eq!(refused(&long), Malformed("entries of a possible length"));
        assert_eq!(refused(&[0; 3]), Malformed("the length of the entries"));
    }

    #[test]
    fn any_other_length_and_any_cut_is_refused() {
        let (mut random, mut compressor) = (Random(4), Compressor::new());
        let entries = repeating(&mut random, 900, 70);
        let packed = compressor.pack(&HEAD, &entries).unwrap()[HEAD_BYTES..].to_vec();
        for len in (0..2000).filter(|len| *len != 900) {
            let mut other = packed.clone();
            other[..4].copy_from_slice(&u32::to_le_bytes(len));
            assert!(decompress(&other, 1).is_err(), "{len}");
        }
        for len in 0..packed.len() {
            assert!(decompress(&packed[..len], 1).is_err(), "cut at {len}");
        }
    }

    /// The decoder belongs to a library: whatever it is given, it must return, within the memory stated.
    #[test]
    fn every_flipped_bit_gives_an_error_or_as_many_bytes_as_stated() {
        let (mut random, mut compressor) = (Random(5), Compressor::new());
        for _ in 0..20 {
            let period = 1 + random.below(100) as usize;
            let entries = repeating(&mut random, 300, period);
            let packed = compressor.pack(&HEAD, &entries).unwrap()[HEAD_BYTES..].to_vec();
            for bit in 0..packed.len() * 8 {
                let mut other = packed.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                let stated = u32::from_le_bytes(*other.first_chunk().unwrap()) as usize;
                if let Ok(found) = decompress(&other, 1) {
                    assert_eq!(found.len(), stated, "bit {bit}");
                }
            }
        }
    }
}
