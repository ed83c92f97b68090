//! The order inside a batch: all of it has one version, so what a range delete undoes of the operations before it
//! in the same batch is left out, and what comes after it stays. Decided from the operations alone, when they enter a
//! memtable, so that commit, replay and standby do the same.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::hooks::{planted, rare};
use crate::wal::format::{Op, OpKind};

/// Ranges, in order, none overlapping another.
pub(crate) type Ranges = Vec<(Bytes, Bytes)>;

/// The operations on single keys that count, in their order, and what the batch deletes of all that was before it.
pub(crate) fn settle(ops: Vec<Op>) -> (Vec<Op>, Ranges) {
    if ops.iter().all(|op| op.kind != OpKind::DeleteRange) {
        return (ops, Ranges::new());
    }
    let mut later = BTreeMap::new();
    let mut kept = Vec::with_capacity(ops.len());
    for op in ops.into_iter().rev() {
        match op.kind {
            OpKind::DeleteRange => add(&mut later, op.key, op.value),
            OpKind::Entry(_) if covers(&later, &op.key) && !planted!(BatchOrderIgnored) => {
                rare!(UndoneInItsBatch);
            }
            OpKind::Entry(_) => kept.push(op),
        }
    }
    kept.reverse();
    (kept, later.into_iter().collect())
}

fn covers(ranges: &BTreeMap<Bytes, Bytes>, key: &Bytes) -> bool {
    let before = ranges.range::<Bytes, _>(..=key).next_back();
    before.is_some_and(|(_, end)| end > key)
}

/// Adds a range, with all that overlap it in one. Those that only touch it may be of another keyspace.
fn add(ranges: &mut BTreeMap<Bytes, Bytes>, mut start: Bytes, mut end: Bytes) {
    while let Some((first, last)) = ranges.range::<Bytes, _>(..&end).next_back()
        && *last > start
    {
        let (first, last) = (first.clone(), last.clone());
        ranges.remove(&first);
        (start, end) = (start.min(first), end.max(last));
    }
    ranges.insert(start, end);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::read::cursor::EntryKind;
    use crate::read::testing::Random;

    fn key(n: u64) -> Bytes {
        Bytes::from(vec![n as u8])
    }

    #[test]
    fn the_last_word_on_every_key_is_that_of_the_batch_read_in_order() {
        for seed in 0..2000 {
            let mut random = Random(seed);
            let mut ops = Vec::new();
            // What each key is at the end: its last operation, or deleted by a range.
            let mut expected: BTreeMap<Bytes, Option<usize>> = BTreeMap::new();
            for n in 0..random.below(14) as usize {
                if random.below(3) == 0 {
                    let start = random.below(20);
                    let end = start + 1 + random.below(8);
                    expected.extend((start..end).map(|k| (key(k), None)));
                    ops.push(Op {
                        kind: OpKind::DeleteRange,
                        key: key(start),
                        value: key(end),
                    });
                } else {
                    let key = key(random.below(24));
                    expected.insert(key.clone(), Some(n));
                    ops.push(Op {
                        kind: OpKind::Entry(EntryKind::Put),
                        key,
                        value: Bytes::from(vec![n as u8]),
                    });
                }
            }
            let (kept, ranges) = settle(ops);
            assert!(
                ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0),
                "seed {seed}"
            );
            let mut found: BTreeMap<Bytes, Option<usize>> = BTreeMap::new();
            for k in (0..30).map(key) {
                if ranges.iter().any(|(s, e)| *s <= k && k < *e) {
                    found.insert(k, None);
                }
            }
            for op in kept {
                found.insert(op.key, Some(usize::from(op.value[0])));
            }
            assert_eq!(found, expected, "seed {seed}");
        }
    }
}
