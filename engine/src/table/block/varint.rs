//! Varints: LEB128, seven bits a byte, least significant first, at most ten bytes.
//!
//! Written by `codec`, as those of the log, whose reader takes the shortest form alone. [`varint`] reads what was not
//! checked yet. [`number_at`] reads again what was, and takes eight bytes at once.

use super::super::format::Fields;

pub(super) fn varint(fields: &mut Fields<'_>) -> Option<u64> {
    let first = fields.u8()?;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    let mut value = u64::from(first & 0x7f);
    for shift in (7..64).step_by(7) {
        let byte = fields.u8()?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

pub(super) fn length(fields: &mut Fields<'_>) -> Option<usize> {
    usize::try_from(varint(fields)?).ok()
}

/// The varint at `at` of `bytes`, and where what follows it begins. Where there is none, 0 and the end of all.
#[inline(always)]
pub(super) fn number_at(bytes: &[u8], at: usize) -> (u64, usize) {
    let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
        return long(bytes, at);
    };
    let word = u64::from_le_bytes(*word);
    let low = word & 0x7f;
    if word & 0x80 == 0 {
        return (low, at + 1);
    }
    if word & 0x8000 == 0 {
        return (low | (word >> 1) & 0x3f80, at + 2);
    }
    // The highest bit of each byte that may be the last.
    let ends = !word & 0x8080_8080_8080_8080;
    if ends == 0 {
        return long(bytes, at);
    }
    let word = word & (ends ^ (ends - 1));
    // Sevens of bits become fourteens, those twenty-eights, and those one number.
    let word = word & 0x007f_007f_007f_007f | (word >> 1) & 0x3f80_3f80_3f80_3f80;
    let word = word & 0x0000_3fff_0000_3fff | (word >> 2) & 0x0fff_c000_0fff_c000;
    let word = word & 0x0fff_ffff | (word >> 4) & 0x00ff_ffff_f000_0000;
    (word, at + (ends.trailing_zeros() as usize + 1) / 8)
}

/// Where what follows two varints at `at` of `bytes` begins.
#[inline(always)]
pub(super) fn behind_two(bytes: &[u8], at: usize) -> usize {
    if let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let ends = !u64::from_le_bytes(*word) & 0x8080_8080_8080_8080;
        let second = ends & ends.wrapping_sub(1);
        if second != 0 {
            return at + (second.trailing_zeros() as usize + 1) / 8;
        }
    }
    number_at(bytes, number_at(bytes, at).1).1
}

/// [`number_at`] where there are no eight bytes, or not enough.
#[cold]
#[inline(never)]
fn long(bytes: &[u8], at: usize) -> (u64, usize) {
    let mut fields = Fields(bytes.get(at..).unwrap_or_default());
    match varint(&mut fields) {
        Some(value) => (value, bytes.len() - fields.0.len()),
        None => (0, bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::push_varint;
    use crate::read::testing::Random;

    #[test]
    fn a_number_of_any_length_reads_the_same_whatever_follows_it() {
        let mut random = Random(1);
        for round in 0..20_000 {
            let value = random.next() >> random.below(64);
            let (mut bytes, start) = (vec![0xa5; random.below(3) as usize], round % 3);
            bytes.truncate(start);
            let start = bytes.len();
            push_varint(value, &mut bytes);
            let end = bytes.len();
            bytes.extend((0..random.below(12)).map(|_| [0, 0x7f, 0x80, 0xff][random.below(4) as usize]));
            assert_eq!(number_at(&bytes, start), (value, end), "{bytes:x?}");
            assert_eq!(varint(&mut Fields(&bytes[start..])), Some(value));
            assert_eq!(behind_two(&bytes, start), number_at(&bytes, end).1, "{bytes:x?}");
        }
    }

    #[test]
    fn a_number_that_is_cut_short_or_too_long_is_nothing() {
        for len in 0..10 {
            assert_eq!(number_at(&vec![0x80; len], 0), (0, len));
        }
        assert_eq!(number_at(&[0xff; 20], 0), (0, 20));
        assert_eq!(number_at(&[1], 1), (0, 1));
        assert_eq!(number_at(&[1], 2), (0, 1));
        assert_eq!(
            number_at(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], 0),
            (u64::MAX, 10)
        );
    }
}
