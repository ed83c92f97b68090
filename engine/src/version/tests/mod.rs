//! Edits, manifest, `CURRENT` and the set, by what is asked of them; and the set that most of them look at.

mod changes;
mod crashes;
mod damage;
mod encoding;

use super::edit::{Edit, ManifestState};
use super::set::VersionSet;
use super::testing::{Machine, flushed, layout};
use crate::types::{Chain, Epoch, EpochStart, Lsn};

/// A set with three tables in two levels and some state, and what it looks like.
fn filled(machine: &Machine) -> VersionSet {
    let set = machine.create().unwrap();
    let numbers: Vec<u64> = (0..4).map(|_| set.next_number()).collect();
    let a = machine.table(numbers[0], &[(1, "a", 1), (2, "m", 2)]);
    let b = machine.table(numbers[1], &[(2, "n", 3), (3, "a", 4)]);
    let c = machine.table(numbers[2], &[(2, "m", 5)]);
    let d = machine.table(numbers[3], &[(2, "m", 6)]);
    set.log_and_apply(flushed(&[&a], 10)).unwrap();
    let down = Edit {
        removed: vec![(0, a.number)],
        added: vec![(1, a), (1, b)],
        ..Edit::default()
    };
    set.log_and_apply(down).unwrap();
    set.log_and_apply(flushed(&[&c], 20)).unwrap();
    set.log_and_apply(flushed(&[&d], 30)).unwrap();
    let epoch = EpochStart {
        epoch: Epoch::new(1, 1),
        start: Lsn(30),
        chain: Chain([3; 16]),
    };
    set.log_and_apply(Edit {
        epoch: Some(epoch),
        reach: Some(Lsn(40)),
        ..Edit::default()
    })
    .unwrap();
    set
}

type Look = (Vec<(usize, u64)>, ManifestState);

fn look(set: &VersionSet) -> Look {
    (layout(&set.current()), set.state())
}
