//! From a seed to a case. Each concern has a stream of its own, so that a new fault does not shift the
//! operations; each seed leaves a random half of everything out, so that what is left happens often.

use super::case::{Act, Case};
use crate::dice::Dice;

/// What the profile allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nature {
    /// No faults but crashes.
    Crashes,
    /// Crashes and every fault that a call reports.
    Faults,
    /// Crashes, and damage that no call reports.
    Damage,
}

/// Names in use.
pub const TENANTS: u64 = 4;
/// Keyspaces of each.
pub const SPACES: u64 = 3;
/// Keys of each.
pub const KEYS: u64 = 24;

type Maker = fn(&mut Dice) -> Act;

/// Operations with their weights; an operation of weight 100 and more is never left out.
const OPERATIONS: &[(u64, Maker)] = &[
    (100, |d| Act::Put {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        key: d.below(KEYS),
        len: length(d),
        synced: synced(d),
    }),
    (20, |d| Act::Delete {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        key: d.below(KEYS),
        synced: synced(d),
    }),
    (50, |d| Act::Batch {
        tenant: d.below(TENANTS),
        ops: 1 + d.below(8),
        seed: d.below(1 << 32),
        synced: synced(d),
    }),
    (15, |d| Act::PutIf {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        key: d.below(KEYS),
        held: d.below(2),
        since: d.below(2),
        synced: synced(d),
    }),
    (10, |d| Act::Transact {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        key: d.below(KEYS),
        disturbed: d.below(3),
        synced: synced(d),
    }),
    (25, |d| Act::DeleteRange {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        from: d.below(KEYS),
        to: below_one(d, &[2, 6, KEYS + 2]),
        synced: synced(d),
    }),
    (15, |d| Act::BatchOfRanges {
        tenant: d.below(TENANTS),
        ops: 1 + d.below(8),
        seed: d.below(1 << 32),
        synced: synced(d),
    }),
    (4, |d| Act::OutliveRangeDelete {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        from: d.below(KEYS),
        to: below_one(d, &[6, KEYS + 2]),
        again: d.below(4),
    }),
    (4, |d| Act::RangeDeleteOverOlder {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        from: d.below(KEYS),
        to: below_one(d, &[6, KEYS + 2]),
        most: 1 + d.below(6),
    }),
    (30, |d| Act::PutExpiring {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        key: d.below(KEYS),
        keys: *d.pick(&[1, 1, 1, 3, KEYS]),
        len: length(d),
        ttl: 1 + below_one(d, &[3, 50, 20_000, 1 << 33]),
        synced: synced(d),
    }),
    (20, |d| Act::UntilExpiry {
        which: d.below(4),
        before: d.below(2),
    }),
    (4, |d| Act::ExpireOverOlder {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        key: d.below(KEYS),
    }),
    (4, |d| Act::OutliveGrace {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        key: d.below(KEYS),
    }),
    (4, |d| Act::LoseLease {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        key: d.below(KEYS),
        compacted: d.below(2),
    }),
    (3, |d| Act::ClockBack {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        ms: 1 + below_one(d, &[10, 1 << 34]),
    }),
    (8, |d| Act::Retain {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        number: below_one(d, &[1, 8, 80]),
    }),
    (3, |d| Act::RetainLonger {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        key: d.below(KEYS),
        compacted: d.below(2),
    }),
    (3, |d| Act::AgeOut {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        before: d.below(2),
        reopened: d.below(2),
    }),
    (6, |d| Act::Quota {
        tenant: d.below(TENANTS),
        set: d.below(3),
        above: below_one(d, &[1, 2000, 60_000]),
        below: below_one(d, &[1, 1, 2000]),
    }),
    (8, |d| Act::HideValues {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        len: *d.pick(&[70, 600, 2000, 6000]),
        seed: d.below(1 << 32),
    }),
    (6, |d| Act::Separate {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        number: d.below(8),
    }),
    (3, |d| Act::SeparateAnew {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        len: *d.pick(&[70, 600, 2000]),
    }),
    (6, |_| Act::Rest {}),
    (6, |d| Act::Load {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        len: *d.pick(&[1000, 1500, 4000]),
    }),
    (4, |d| Act::DeleteAll {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        synced: synced(d),
    }),
    (4, |d| Act::Overwrite {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        key: d.below(KEYS),
        times: 10 + d.below(10),
    }),
    (2, |_| Act::PinLog {}),
    (20, |d| Act::Get {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        key: d.below(KEYS),
    }),
    (12, |d| Act::MultiGet {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        seed: d.below(1 << 32),
    }),
    (20, |d| Act::Range {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        seed: d.below(1 << 32),
    }),
    (12, |d| Act::Snapshot {
        tenant: d.below(TENANTS),
    }),
    (14, |d| Act::ReadSnapshot { which: d.below(8) }),
    (3, |d| Act::OutliveCompaction {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        key: d.below(KEYS),
    }),
    (8, |d| Act::DropSnapshot { which: d.below(8) }),
    (4, |_| Act::Check {}),
    (4, |_| Act::Verify {}),
    (16, |_| Act::Flush {}),
    (8, |_| Act::Compact {}),
    (16, |d| Act::Step { most: 1 + d.below(3) }),
    (6, |d| Act::CreateTenant {
        tenant: d.below(TENANTS),
    }),
    (5, |d| Act::DeleteTenant {
        tenant: d.below(TENANTS),
    }),
    (6, |d| Act::DeleteKeyspace {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
    }),
    (3, |_| Act::Checkpoint {}),
    (2, |d| Act::Restore {
        at: 1 + d.below(60),
        seed: d.below(1 << 32),
    }),
    (2, |d| Act::BaseCopy {
        at: d.below(12),
        seed: d.below(1 << 32),
    }),
    (6, |_| Act::Reopen {}),
    (4, |_| Act::Kill {}),
    (6, |d| Act::ClockJump {
        ms: below_one(d, &[1 << 10, 1 << 20, 1 << 40]),
    }),
    (2, |_| Act::SecondOpener {}),
    (3, |d| Act::Limits {
        tenant: d.below(TENANTS),
        space: d.below(SPACES),
        synced: synced(d),
    }),
];

const CRASHES: &[(u64, Maker)] = &[
    (10, |d| Act::PowerCut {
        mode: d.below(4),
        seed: d.below(1 << 32),
    }),
    (12, |d| Act::PowerCutAfter {
        after: 1 + d.below(40),
        half: d.below(2),
        mode: d.below(4),
        seed: d.below(1 << 32),
    }),
    (6, |d| Act::NestedCuts {
        first: 1 + d.below(24),
        second: 1 + d.below(24),
        seed: d.below(1 << 32),
    }),
];

const FAULTS: &[(u64, Maker)] = &[
    (10, |d| Act::Fail {
        kind: 0,
        after: 1 + d.below(30),
        forever: 0,
    }),
    (4, |d| Act::Fail {
        kind: 0,
        after: 1 + d.below(30),
        forever: 1,
    }),
    (8, |d| Act::Fail {
        kind: 1,
        after: 1 + d.below(30),
        forever: d.below(2),
    }),
    (8, |d| Act::Fail {
        kind: 2,
        after: 1 + d.below(60),
        forever: d.below(2),
    }),
    (6, |d| Act::Room {
        bytes: d.below(20_000),
    }),
    (5, |d| Act::LateRoom {
        bytes: d.below(20_000),
    }),
    (6, |d| Act::Spoil {
        what: d.below(4),
        which: d.below(8),
        sector: d.below(64),
    }),
    (4, |d| Act::Handles { spare: d.below(4) }),
    (3, |_| Act::HangSyncs { ms: 10_000 }),
];

const DAMAGES: &[(u64, Maker)] = &[
    (100, |d| Act::Damage {
        what: d.below(4),
        which: d.below(8),
        way: d.below(9),
        seed: d.below(1 << 32),
        live: d.below(3),
    }),
    (50, |d| Act::Misdo {
        misdeed: d.below(5),
        after: d.below(20),
        seed: d.below(1 << 32),
    }),
];

fn length(dice: &mut Dice) -> u64 {
    *dice.pick(&[0, 20, 20, 60, 300, 300, 1500, 6000, 20_000])
}

/// Below one of the limits: small numbers and large ones.
fn below_one(dice: &mut Dice, limits: &[u64]) -> u64 {
    let limit = *dice.pick(limits);
    dice.below(limit)
}

fn synced(dice: &mut Dice) -> u64 {
    u64::from(dice.percent(60))
}

/// One concern's choices.
struct Stream {
    dice: Dice,
    makers: Vec<(u64, Maker)>,
    total: u64,
}

impl Stream {
    fn new(seed: u64, of: &[(u64, Maker)]) -> Stream {
        let mut dice = Dice::new(seed);
        let mut makers = Vec::new();
        for (weight, maker) in of {
            if *weight >= 100 || dice.percent(50) {
                makers.push((weight * (1 + dice.below(4)), *maker));
            }
        }
        let total = makers.iter().map(|(weight, _)| weight).sum();
        Stream { dice, makers, total }
    }

    fn next(&mut self) -> Option<Act> {
        if self.total == 0 {
            return None;
        }
        let mut at = self.dice.below(self.total);
        for (weight, maker) in &self.makers {
            if at < *weight {
                return Some(maker(&mut self.dice));
            }
            at -= weight;
        }
        None
    }
}

/// Tables of level 0 that overlap nothing: keyspaces first, without entries, then one after the other.
fn tables_side_by_side() -> impl Iterator<Item = Act> {
    let make = |space| Act::Delete {
        tenant: 1,
        space,
        key: 0,
        synced: 1,
    };
    let load = |space| Act::Load {
        tenant: 1,
        space,
        len: 1500,
    };
    let made = (0..SPACES).map(make).chain([Act::Compact {}]);
    made.chain((0..SPACES).map(load)).chain([Act::Step { most: 2 }])
}

/// The case of a seed.
pub fn case(profile: &str, nature: Nature, seed: u64) -> Case {
    let mut schedule = Dice::new(seed ^ 0x7363_6865_6475_6c65);
    let mut operations = Stream::new(seed ^ 0x6f70_7321, OPERATIONS);
    let mut crashes = Stream::new(seed ^ 0x6372_6173_6821, CRASHES);
    let of_nature = match nature {
        Nature::Damage => DAMAGES,
        _ => FAULTS,
    };
    let mut faults = Stream::new(seed ^ 0x6661_756c_7421, of_nature);
    let length = 30 + schedule.below(120);
    let crash_percent = *schedule.pick(&[0, 2, 4, 8]);
    let fault_percent = match nature {
        Nature::Crashes => 0,
        Nature::Faults => *schedule.pick(&[0, 3, 6, 10]),
        Nature::Damage => *schedule.pick(&[3, 6, 10]),
    };
    let mut acts = vec![Act::CreateTenant { tenant: 0 }, Act::CreateTenant { tenant: 1 }];
    if schedule.percent(10) {
        acts.extend(tables_side_by_side());
    }
    for _ in 0..length {
        let roll = schedule.below(100);
        let act = if roll < crash_percent {
            crashes.next()
        } else if roll < crash_percent + fault_percent {
            faults.next()
        } else {
            operations.next()
        };
        acts.extend(act);
        // A fault that stays is taken away some time: most of a run must be able to write.
        if nature == Nature::Faults && schedule.percent(4) {
            acts.push(Act::Repair {});
        }
    }
    Case {
        profile: profile.to_string(),
        seed,
        acts,
    }
}
