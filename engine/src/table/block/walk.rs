//! One look into a block that nobody is expected to look into again: entry by entry, from the first on, until the place
//! is found.
//!
//! A block that is kept is checked whole and gets a place for each entry ([`Block::decode`]), which for one look is most of
//! the work. What is walked through was verified by its seal, and is checked as far as the walk goes.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;

use super::{
    Block, Fields, Malformed, SHORT, SHORTENED, SHORTENED_LZ4, Unpacked, next_entry, unpacked, value_of,
};
use crate::hooks::planted;
use crate::read::cursor::Found;
use crate::types::SeqNo;

/// The first entry of a block at or after a place.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::table) enum Looked {
    /// A version of the key.
    Version(Found),
    /// An entry of another key.
    OtherKey,
    /// There is none in this block.
    PastEnd,
}

impl Block {
    /// The first version of `key` at or below `at`.
    pub(in crate::table) fn look(&self, key: &[u8], at: SeqNo) -> Looked {
        let index = self.lower_bound(key, at);
        if index == self.len() {
            return Looked::PastEnd;
        }
        match self.found(index).filter(|_| self.key(index) == key) {
            Some(found) => Looked::Version(found),
            None => Looked::OtherKey,
        }
    }
}

/// The same in `held[plain]`, a block; and how many entries its head states.
pub(in crate::table) fn walk(
    held: Vec<u8>,
    plain: Range<usize>,
    key: &[u8],
    at: SeqNo,
) -> Result<(Looked, u32), Malformed> {
    if let Some(&(SHORTENED | SHORTENED_LZ4)) = held.get(plain.start) {
        let block = Block::decode(held, plain)?;
        return Ok((block.look(key, at), block.len() as u32));
    }
    let Unpacked { held, start, entries } = unpacked(held, plain)?;
    let mut fields = Fields(held.get(start..).unwrap_or_default());
    for _ in 0..entries {
        let entry = next_entry(&mut fields)?;
        match entry.key.cmp(key) {
            Ordering::Less => {}
            Ordering::Equal if entry.seqno > at && !planted!(WalkTakesNewest) => {}
            Ordering::Greater => return Ok((Looked::OtherKey, entries)),
            Ordering::Equal => {
                let (seqno, kind) = (entry.seqno, entry.kind);
                let end = held.len() - fields.0.len();
                let value = end - entry.value.len()..end;
                let value = value_of(&held, value.clone()).unwrap_or_else(|| Bytes::from(held).slice(value));
                return Ok((Looked::Version(Found { seqno, kind, value }), entries));
            }
        }
    }
    match fields.0 {
        [] if entries > 0 => Ok((Looked::PastEnd, entries)),
        _ => Err(SHORT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Compression;
    use crate::read::cursor::{EntryKind, EntryRef};
    use crate::read::testing::Random;
    use crate::table::block::BlockBuilder;

    /// A block of some entries, of which neighbours often have one key; and the keys.
    fn block(random: &mut Random, compression: Compression) -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut builder = BlockBuilder::new(compression);
        let mut keys: Vec<Vec<u8>> = (0..1 + random.below(30))
            .map(|_| {
                (0..1 + random.below(3))
                    .map(|_| b'a' + random.below(3) as u8)
                    .collect()
            })
            .collect();
        keys.sort();
        keys.dedup();
        for key in &keys {
            let mut seqno = 1 + random.below(40);
            while seqno > 0 {
                let delete = random.below(4) == 0;
                let len = [0, 5, 100, 1000][random.below(4) as usize];
                let value = vec![seqno as u8; if delete { 0 } else { len }];
                builder.add(EntryRef {
                    key,
                    seqno: SeqNo(seqno),
                    kind: if delete { EntryKind::Delete } else { EntryKind::Put },
                    value: &value,
                });
                seqno = seqno.saturating_sub(1 + random.below(20));
            }
        }
        (builder.finish().to_vec(), keys)
    }

    #[test]
    fn a_walk_finds_what_a_search_in_the_block_finds_at_every_place() {
        for seed in 1..60 {
            let mut random = Random(seed);
            let compression = [Compression::None, Compression::Lz4][random.below(2) as usize];
            let (plain, mut keys) = block(&mut random, compression);
            let whole = Block::decode_plain(&plain).unwrap();
            keys.extend(["", "a", "ab", "bbb", "cccc", "d"].map(|key| key.as_bytes().to_vec()));
            for key in &keys {
                for at in 0..45 {
                    let (walked, entries) = walk(plain.clone(), 0..plain.len(), key, SeqNo(at)).unwrap();
                    assert!(
                        walked == whole.look(key, SeqNo(at)),
                        "seed {seed}: {key:?} at {at}"
                    );
                    assert_eq!(entries as usize, whole.len());
                }
            }
        }
    }

    #[test]
    fn a_block_that_ends_early_or_has_more_than_its_entries_is_refused() {
        let mut random = Random(7);
        let (plain, _) = block(&mut random, Compression::None);
        let past = |plain: &[u8]| walk(plain.to_vec(), 0..plain.len(), b"zz", SeqNo::MAX);
        assert!(matches!(past(&plain), Ok((Looked::PastEnd, _))));
        for len in 0..plain.len() {
            assert!(past(&plain[..len]).is_err(), "cut at {len}");
        }
        assert!(past(&[&plain[..], b"x"].concat()).is_err());
        let mut none = plain.clone();
        none[1..5].fill(0);
        assert!(past(&none).is_err());
    }
}
