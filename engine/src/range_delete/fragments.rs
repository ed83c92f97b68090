//! Fragments: range deletes cut where any of them begins or ends, so that no two pieces overlap.

use std::collections::BTreeSet;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::types::SeqNo;

/// Fragments that touch are taken for one hidden stretch, as far as this many.
const STRETCH_MAX: usize = 64;

/// Versions, newest first.
pub(crate) type Seqnos = SmallVec<[SeqNo; 2]>;

/// A piece of the tree and the versions at which it was deleted.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// Tree key, inclusive.
    pub start: Bytes,
    /// Tree key, exclusive.
    pub end: Bytes,
    /// At least one.
    pub seqnos: Seqnos,
}

impl Fragment {
    /// The newest delete that who reads at `at` sees.
    fn newest(&self, at: SeqNo) -> Option<SeqNo> {
        let found = self.seqnos.partition_point(|seqno| *seqno > at);
        self.seqnos.get(found).copied()
    }

    /// The oldest delete that hides an entry of version `seqno`.
    pub(crate) fn oldest_over(&self, seqno: SeqNo) -> Option<SeqNo> {
        let over = self.seqnos.partition_point(|q| *q > seqno);
        self.seqnos.get(over.checked_sub(1)?).copied()
    }

    fn memory(&self) -> usize {
        let spilled = if self.seqnos.spilled() {
            self.seqnos.capacity() * size_of::<SeqNo>()
        } else {
            0
        };
        size_of::<Fragment>() + self.start.len() + self.end.len() + spilled
    }
}

impl std::fmt::Debug for Fragment {
    // Never keys: errors and logs may carry what they format.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}..{} bytes at {:?}",
            self.start.len(),
            self.end.len(),
            self.seqnos
        )
    }
}

/// What range deletes say of a key and its neighbours, to who reads at a version.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Look {
    /// The newest delete of the key.
    pub newest: Option<SeqNo>,
    /// The same holds for all keys from here on; None: from the tenant's first.
    pub from: Option<Bytes>,
    /// Up to here, exclusive; None: to the tenant's end.
    pub to: Option<Bytes>,
    /// Where the key is deleted: every key of this stretch around it is, though perhaps at other versions.
    pub stretch: Option<(Bytes, Bytes)>,
}

impl Look {
    /// Nothing is deleted in `from .. to`.
    pub(crate) fn gap(from: Option<Bytes>, to: Option<Bytes>) -> Look {
        Look {
            from,
            to,
            ..Look::default()
        }
    }

    /// Whether it speaks of `key` too.
    pub(crate) fn holds_for(&self, key: &[u8]) -> bool {
        self.from.as_ref().is_none_or(|from| from <= key) && self.to.as_ref().is_none_or(|to| to > key)
    }

    /// What two looks at the same key say together.
    pub(crate) fn and(self, other: Look) -> Look {
        let smaller = |a: Option<Bytes>, b: Option<Bytes>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Look {
            newest: self.newest.max(other.newest),
            // None is the smallest start, and the largest end.
            from: self.from.max(other.from),
            to: smaller(self.to, other.to),
            stretch: match (self.stretch, other.stretch) {
                (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
                (a, b) => a.or(b),
            },
        }
    }
}

/// Fragments in order. Immutable.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Fragments(Box<[Fragment]>);

impl Fragments {
    /// Of range deletes, which may overlap in any way. None of them is empty.
    pub(crate) fn of(ranges: impl IntoIterator<Item = (Bytes, Bytes, SeqNo)>) -> Fragments {
        // Where something changes: at a key, begins or ends a delete.
        let mut edges = Vec::new();
        for (id, (start, end, seqno)) in ranges.into_iter().enumerate() {
            edges.push((start, true, seqno, id));
            edges.push((end, false, seqno, id));
        }
        edges.sort_unstable();
        let mut fragments: Vec<Fragment> = Vec::new();
        let mut open = BTreeSet::new();
        let mut since = Bytes::new();
        for (key, begins, seqno, id) in edges {
            if key > since && !open.is_empty() {
                push(
                    &mut fragments,
                    &since,
                    &key,
                    open.iter().rev().map(|(seqno, _)| *seqno),
                );
            }
            since = key;
            if begins {
                open.insert((seqno, id));
            } else {
                open.remove(&(seqno, id));
            }
        }
        Fragments(fragments.into_boxed_slice())
    }

    /// All of several lists.
    pub(crate) fn merged<'a>(lists: impl IntoIterator<Item = &'a Fragments>) -> Fragments {
        let all = lists.into_iter().flat_map(Fragments::iter);
        Fragments::of(all.flat_map(|fragment| {
            let Fragment { start, end, seqnos } = fragment;
            seqnos.iter().map(|seqno| (start.clone(), end.clone(), *seqno))
        }))
    }

    /// What is in order already: None if it is not.
    pub(crate) fn in_order(fragments: Vec<Fragment>) -> Option<Fragments> {
        let ascend = fragments.windows(2).all(|pair| match pair {
            [left, right] => left.end <= right.start,
            _ => true,
        });
        let sound = fragments.iter().all(|fragment| {
            let descend = fragment.seqnos.is_sorted_by(|newer, older| newer > older);
            fragment.start < fragment.end && !fragment.seqnos.is_empty() && descend
        });
        (ascend && sound).then(|| Fragments(fragments.into_boxed_slice()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Fragment> + Clone {
        self.0.iter()
    }

    /// Where all begins and ends; None if there is nothing.
    pub(crate) fn span(&self) -> Option<(&Bytes, &Bytes)> {
        Some((&self.0.first()?.start, &self.0.last()?.end))
    }

    /// Fragments, each as often as it was deleted.
    pub(crate) fn versions(&self) -> usize {
        self.iter().map(|fragment| fragment.seqnos.len()).sum()
    }

    /// Oldest and newest version.
    pub(crate) fn extremes(&self) -> Option<(SeqNo, SeqNo)> {
        let all = || self.iter().flat_map(|fragment| fragment.seqnos.iter().copied());
        Some((all().min()?, all().max()?))
    }

    pub(crate) fn memory(&self) -> usize {
        self.iter().map(Fragment::memory).sum()
    }

    /// The newest delete of `key` that who reads at `at` sees.
    pub(crate) fn newest(&self, key: &[u8], at: SeqNo) -> Option<SeqNo> {
        let fragment = self.0.get(self.find(key))?;
        (fragment.start <= key).then(|| fragment.newest(at)).flatten()
    }

    /// The same, with how far it holds.
    pub(crate) fn look(&self, key: &[u8], at: SeqNo) -> Look {
        let found = self.find(key);
        let before = || Some(self.0.get(found.checked_sub(1)?)?.end.clone());
        let Some(fragment) = self.0.get(found) else {
            return Look::gap(before(), None);
        };
        if fragment.start > key {
            return Look::gap(before(), Some(fragment.start.clone()));
        }
        let newest = fragment.newest(at);
        Look {
            newest,
            from: Some(fragment.start.clone()),
            to: Some(fragment.end.clone()),
            stretch: newest.map(|_| self.stretch(found, at)),
        }
    }

    /// The neighbours of a fragment that touch it and each other, and are deleted as well.
    fn stretch(&self, found: usize, at: SeqNo) -> (Bytes, Bytes) {
        let (mut start, mut end) = (Bytes::new(), Bytes::new());
        let later = self.0.get(found..).unwrap_or_default();
        for (n, fragment) in later.iter().take(STRETCH_MAX).enumerate() {
            if n > 0 && (fragment.start != end || fragment.newest(at).is_none()) {
                break;
            }
            end = fragment.end.clone();
        }
        let earlier = self.0.get(..=found).unwrap_or_default();
        for (n, fragment) in earlier.iter().rev().take(STRETCH_MAX).enumerate() {
            if n > 0 && (fragment.end != start || fragment.newest(at).is_none()) {
                break;
            }
            start = fragment.start.clone();
        }
        (start, end)
    }

    /// The first fragment that ends behind `key`.
    fn find(&self, key: &[u8]) -> usize {
        self.0.partition_point(|fragment| fragment.end <= key)
    }
}

/// Adds a fragment, to the last one if it continues that in the same keyspace.
fn push(
    fragments: &mut Vec<Fragment>,
    start: &Bytes,
    end: &Bytes,
    newest_first: impl Iterator<Item = SeqNo>,
) {
    let mut seqnos: Seqnos = newest_first.collect();
    seqnos.dedup();
    match fragments.last_mut() {
        Some(last)
            if last.end == *start && last.seqnos == seqnos && last.start.get(..4) == start.get(..4) =>
        {
            last.end = end.clone();
        }
        _ => fragments.push(Fragment {
            start: start.clone(),
            end: end.clone(),
            seqnos,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::testing::Random;

    fn key(n: u64) -> Bytes {
        Bytes::from(vec![b'a' + n as u8])
    }

    #[test]
    fn fragments_say_of_every_key_what_the_range_deletes_say() {
        for seed in 0..500 {
            let mut random = Random(seed);
            let ranges: Vec<(Bytes, Bytes, SeqNo)> = (0..random.below(12))
                .map(|_| {
                    let start = random.below(20);
                    let end = start + 1 + random.below(6);
                    (key(start), key(end), SeqNo(1 + random.below(9)))
                })
                .collect();
            let (left, right) = ranges.split_at(ranges.len() / 2);
            let (left, right) = (
                Fragments::of(left.iter().cloned()),
                Fragments::of(right.iter().cloned()),
            );
            let fragments = Fragments::of(ranges.iter().cloned());
            assert_eq!(Fragments::merged([&left, &right]), fragments, "seed {seed}");
            assert_eq!(
                Fragments::in_order(fragments.iter().cloned().collect()),
                Some(fragments.clone())
            );
            for n in 0..27 {
                for at in 0..11 {
                    let at = SeqNo(at);
                    let over = |k: &Bytes| {
                        let over = ranges.iter().filter(|(s, e, q)| s <= k && k < e && *q <= at);
                        over.map(|(.., q)| *q).max()
                    };
                    let key_n = key(n);
                    assert_eq!(fragments.newest(&key_n, at), over(&key_n), "seed {seed}");
                    let look = fragments.look(&key_n, at);
                    let both = left.look(&key_n, at).and(right.look(&key_n, at));
                    for look in [look, both] {
                        assert_eq!(look.newest, over(&key_n), "seed {seed}");
                        assert!(look.holds_for(&key_n));
                        assert_eq!(look.newest.is_some(), look.stretch.is_some());
                        for m in (0..27).map(key) {
                            if look.holds_for(&m) {
                                assert_eq!(over(&m), look.newest, "seed {seed}");
                            }
                            if look.stretch.as_ref().is_some_and(|(s, e)| *s <= m && m < *e) {
                                assert!(over(&m).is_some(), "seed {seed}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn pieces_that_say_the_same_and_touch_are_one() {
        let of = |ranges: &[(u64, u64, u64)]| {
            Fragments::of(ranges.iter().map(|(s, e, q)| (key(*s), key(*e), SeqNo(*q))))
        };
        assert_eq!(of(&[(0, 3, 5), (3, 6, 5)]), of(&[(0, 6, 5)]));
        assert_eq!(of(&[(0, 6, 5), (2, 4, 5)]), of(&[(0, 6, 5)]));
        assert_eq!(of(&[(0, 6, 5), (2, 4, 7)]).iter().count(), 3);
        assert_eq!(of(&[]), Fragments::default());
        // Not over the end of a keyspace.
        let spaces = [(1, 2), (2, 3)].map(|(from, to): (u32, u32)| {
            let [from, to] = [from, to].map(|id| Bytes::copy_from_slice(&id.to_be_bytes()));
            (from, to, SeqNo(5))
        });
        assert_eq!(Fragments::of(spaces).iter().count(), 2);
        let over = of(&[(0, 6, 5), (0, 6, 7)]);
        let over: Vec<_> = over.iter().map(|f| f.oldest_over(SeqNo(5))).collect();
        assert_eq!(over, [Some(SeqNo(7))]);
    }

    #[test]
    fn what_is_not_in_order_is_refused() {
        let fragment = |start: u64, end: u64, seqnos: &[u64]| Fragment {
            start: key(start),
            end: key(end),
            seqnos: seqnos.iter().map(|seqno| SeqNo(*seqno)).collect(),
        };
        for (fragments, fits) in [
            (vec![fragment(0, 1, &[2, 1]), fragment(1, 2, &[1])], true),
            (vec![fragment(0, 2, &[1]), fragment(1, 3, &[1])], false),
            (vec![fragment(1, 1, &[1])], false),
            (vec![fragment(2, 1, &[1])], false),
            (vec![fragment(0, 1, &[])], false),
            (vec![fragment(0, 1, &[1, 2])], false),
            (vec![fragment(0, 1, &[2, 2])], false),
        ] {
            assert_eq!(Fragments::in_order(fragments).is_some(), fits);
        }
    }
}
