//! Where a value goes on its way to the outputs of a job: into the table, or apart into a value file. Pure.
//!
//! 1. A put whose value is large enough goes apart. One that carries a moment does not, nor one of a keyspace that has
//!    or had a retention: what has a deadline for leaving the disk leaves it with its table.
//! 2. Of a value that is apart the reference is copied, unless its file is to be emptied: then it is moved.
//! 3. A value that is apart, in a keyspace that got a retention since, or too small by now where it would be moved,
//!    goes back into the table.

use crate::options::VALUE_BYTES_MAX;
use crate::read::cursor::{EntryKind, EntryRef};
use crate::table::Reference;

/// What to do with an entry's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Leave it where it is.
    Stay,
    /// From the entry into a value file.
    Apart,
    /// From one value file into another.
    Move(Reference),
    /// From a value file into the entry.
    Inside(Reference),
}

/// What is known of the keyspace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Separation {
    /// Values from this length on go apart; None: none do.
    pub from: Option<usize>,
    /// The keyspace has or had a retention.
    pub ruled: bool,
}

/// Where the value of `entry` goes. `emptied`: whether a value file is to be emptied.
pub(crate) fn place(entry: EntryRef<'_>, separation: Separation, emptied: impl Fn(u64) -> bool) -> Place {
    let Separation { from, ruled } = separation;
    let large = |len: usize| from.is_some_and(|from| len >= from) && !ruled;
    match entry.kind {
        EntryKind::Put if large(entry.value.len()) && entry.value.len() <= VALUE_BYTES_MAX => Place::Apart,
        EntryKind::Separated => match Reference::decode(entry.value) {
            Some(reference) if ruled => Place::Inside(reference),
            Some(reference) if emptied(reference.file) => match large(reference.length as usize) {
                true => Place::Move(reference),
                false => Place::Inside(reference),
            },
            // Decoding a block checked the length.
            _ => Place::Stay,
        },
        _ => Place::Stay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SeqNo;

    fn entry(kind: EntryKind, value: &[u8]) -> EntryRef<'_> {
        EntryRef {
            key: b"\0\0\0\x01k",
            seqno: SeqNo(1),
            kind,
            value,
        }
    }

    #[test]
    fn a_value_goes_apart_if_it_is_large_and_has_no_deadline() {
        let (open, ruled) = (
            Separation {
                from: Some(10),
                ruled: false,
            },
            Separation {
                from: Some(10),
                ruled: true,
            },
        );
        let off = Separation {
            from: None,
            ruled: false,
        };
        for (kind, len, separation, expected) in [
            (EntryKind::Put, 10, open, Place::Apart),
            (EntryKind::Put, 9, open, Place::Stay),
            (EntryKind::Put, 10, ruled, Place::Stay),
            (EntryKind::Put, 10_000, off, Place::Stay),
            (EntryKind::Expiring, 1000, open, Place::Stay),
            (EntryKind::Dated, 1000, open, Place::Stay),
        ] {
            let value = vec![0; len];
            assert_eq!(
                place(entry(kind, &value), separation, |_| true),
                expected,
                "{kind:?} {len} {separation:?}"
            );
        }
        let large = vec![0; VALUE_BYTES_MAX + 1];
        assert_eq!(place(entry(EntryKind::Put, &large), open, |_| true), Place::Stay);
        assert_eq!(place(entry(EntryKind::Delete, &[]), open, |_| true), Place::Stay);
    }

    #[test]
    fn a_reference_is_copied_unless_its_file_is_emptied_or_its_keyspace_has_a_retention() {
        let reference = |length| Reference {
            file: 7,
            offset: 128,
            bytes: 50,
            length,
        };
        let (large, small) = (reference(10), reference(9));
        for (reference, from, ruled, emptied, expected) in [
            (large, Some(10), false, 8, Place::Stay),
            (large, None, false, 8, Place::Stay),
            (small, Some(10), false, 8, Place::Stay),
            (large, Some(10), false, 7, Place::Move(large)),
            (small, Some(10), false, 7, Place::Inside(small)),
            (large, None, false, 7, Place::Inside(large)),
            (large, Some(10), true, 7, Place::Inside(large)),
            (large, Some(10), true, 8, Place::Inside(large)),
        ] {
            let value = reference.encode();
            let found = place(
                entry(EntryKind::Separated, &value),
                Separation { from, ruled },
                |file| file == emptied,
            );
            assert_eq!(found, expected, "{reference:?} {from:?} {ruled} {emptied}");
        }
    }
}
