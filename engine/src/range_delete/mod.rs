//! Range deletes: every key of a range gone at one version, at a cost that does not depend on how many there are.
//!
//! ```text
//! batch       start ‖ end, one operation                      wal/format
//! order       what of a batch a later range delete of it undoes
//! memtable    a few lists per memtable                        memtable/range_deletes
//! table       one list per run, in the index over it          table/range_deletes
//! read        cover: what a source hides; uncovered: a cursor without what is hidden
//! compaction  dropped with what is hidden, cut with the tables, gone at the bottom
//! ```
//!
//! A range delete `start .. end` of version `q` hides every entry of its keys with a version below `q`, from who
//! reads at `q` or later. They are kept apart from entries, in *fragments*: pieces that do not overlap, each with
//! the versions at which it was deleted. So a search is a binary search, whatever overlaps what.
//!
//! Invariants: `start < end`, both inside one keyspace (`end` may be where the next one begins); the versions of a
//! fragment descend. What is in a newer source (see `read::get`) is newer than all entries of its keys in an older
//! one: an older source is left out whole where a newer one deletes.
//!
//! (The design is that of RocksDB's fragmented range tombstones and of Pebble's `keyspan`; here no key is ever cut
//! in two by a table, so that pieces need no bounds besides their own.)

mod fragments;
pub(crate) mod order;

pub(crate) use fragments::{Fragment, Fragments, Look, Seqnos};

use crate::options::KEY_BYTES_MAX;

/// Longest start or end: behind a tree key of full length.
pub(crate) const BOUND_BYTES_MAX: usize = 4 + KEY_BYTES_MAX + 1;

/// Whether `start .. end` is a range of one keyspace with something in it.
pub(crate) fn is_range(start: &[u8], end: &[u8]) -> bool {
    let (Some(first), Some(last)) = (start.first_chunk::<4>(), end.first_chunk::<4>()) else {
        return false;
    };
    let (first, last) = (u32::from_be_bytes(*first), u32::from_be_bytes(*last));
    let one_keyspace = first == last || (end.len() == 4 && first.checked_add(1) == Some(last));
    start < end && one_keyspace && start.len().max(end.len()) <= BOUND_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_lies_in_one_keyspace_and_holds_something() {
        for (start, end, is) in [
            (&b"\0\0\0\x01a"[..], &b"\0\0\0\x01b"[..], true),
            (b"\0\0\0\x01", b"\0\0\0\x02", true),
            (b"\0\0\0\x01a", b"\0\0\0\x02", true),
            (b"\0\0\0\x01a", b"\0\0\0\x02\0", false),
            (b"\0\0\0\x01a", b"\0\0\0\x03", false),
            (b"\0\0\0\x01a", b"\0\0\0\x01a", false),
            (b"\0\0\0\x01b", b"\0\0\0\x01a", false),
            (b"\0\0\0", b"\0\0\0\x01a", false),
            (b"", b"", false),
            (b"\xff\xff\xff\xffa", b"\xff\xff\xff\xffb", true),
        ] {
            assert_eq!(is_range(start, end), is, "{start:?} {end:?}");
        }
        let long = [&[0; 4][..], &[7; BOUND_BYTES_MAX - 4]].concat();
        assert!(is_range(&[0; 4], &long));
        assert!(!is_range(&[0; 4], &[&long[..], b"x"].concat()));
    }
}
