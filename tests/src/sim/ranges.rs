//! Range deletes: over what is in memory and what lies deep, under snapshots, mixed with other operations.

use std::ops::Bound;

use bytes::Bytes;
use strongroom::Durability;

use super::case::Act;
use super::generate::{KEYS, SPACES};
use super::run::{Done, Run, Wrong};
use crate::dice::Dice;
use crate::oracle::Step;
use crate::world::{key_of, name_of_space, name_of_tenant};

/// From a number of a key to another, exclusive; beyond the last key there is no bound.
fn range_of(from: u64, to: u64) -> (Bound<Bytes>, Bound<Bytes>) {
    let from = from % KEYS;
    let to = from + 1 + to % (KEYS + 2);
    (
        if from == 0 {
            Bound::Unbounded
        } else {
            Bound::Included(key_of(from))
        },
        if to > KEYS {
            Bound::Unbounded
        } else {
            Bound::Excluded(key_of(to))
        },
    )
}

impl Run {
    /// One of the acts about them.
    pub fn ranges(&mut self, act: &Act) -> Done {
        match *act {
            Act::DeleteRange {
                tenant,
                space,
                from,
                to,
                synced,
            } => self.delete_range((tenant, space), from, to, synced),
            Act::BatchOfRanges {
                tenant,
                ops,
                seed,
                synced,
            } => {
                let steps = self.steps(ops, seed);
                self.write_steps(tenant, steps, synced)
            }
            Act::OutliveRangeDelete {
                tenant,
                space,
                from,
                to,
                again,
            } => self.outlive_range_delete((tenant, space), from, to, again),
            Act::RangeDeleteOverOlder {
                tenant,
                space,
                from,
                to,
                most,
            } => self.range_delete_over_older((tenant, space), from, to, most),
            _ => Ok(()),
        }
    }

    fn delete_range(&mut self, (tenant, space): (u64, u64), from: u64, to: u64, synced: u64) -> Done {
        let space = name_of_space(&space.to_string());
        let steps = vec![Step::Range(space, range_of(from, to))];
        self.write_steps(tenant, steps, synced)
    }

    fn steps(&mut self, count: u64, seed: u64) -> Vec<Step> {
        let mut dice = Dice::new(seed);
        let step = |_| {
            let space = name_of_space(&dice.below(SPACES).to_string());
            if dice.percent(40) {
                return Step::Range(space, range_of(dice.below(KEYS), dice.below(10)));
            }
            let key = key_of(dice.below(KEYS));
            let len = *dice.pick(&[0, 10, 100]);
            Step::Key((space, key, (!dice.percent(20)).then(|| self.world.value(len))))
        };
        (0..count).map(step).collect()
    }

    /// Commits a batch to a tenant that certainly lives.
    fn write_steps(&mut self, tenant: u64, steps: Vec<Step>, synced: u64) -> Done {
        let name = name_of_tenant(tenant);
        let place = |step: &Step| format!("{name}/{}", step.space());
        if !self.certain(&name) || steps.iter().any(|step| self.doubtful.contains(&place(step))) {
            return Ok(());
        }
        let known = self.world.visible().remove(&name).unwrap_or_default();
        let new = steps.iter().filter(|step| !known.contains_key(step.space()));
        let new: Vec<String> = new.map(place).collect();
        let durability = match synced {
            0 => Durability::Buffered,
            _ => Durability::Local,
        };
        let result = self.world.batch_of(&name, steps, durability);
        if result.is_err() {
            self.doubtful.extend(new);
        }
        Ok(result?)
    }

    /// A snapshot sees what a range delete hides from everybody else, through flush and compaction; some of it is
    /// put again (`again` keys).
    fn outlive_range_delete(&mut self, (tenant, space): (u64, u64), from: u64, to: u64, again: u64) -> Done {
        self.world.flush()?;
        self.snapshot(tenant)?;
        self.delete_range((tenant, space), from, to, 0)?;
        for key in 0..again {
            let value = self.world.value(30);
            let op = (
                name_of_space(&space.to_string()),
                key_of((from + key) % KEYS),
                Some(value),
            );
            self.write(tenant, vec![op], 0)?;
        }
        self.read_whole(tenant, space)?;
        self.world.flush()?;
        self.read_whole(tenant, space)?;
        self.world.step(2)?;
        self.read_whole(tenant, space)?;
        self.world.compact()?;
        self.read_whole(tenant, space)?;
        self.read_snapshot(self.held.len().saturating_sub(1) as u64)
    }

    /// Range deletes on their way down, over values that lie deeper, beside other tables of its level.
    fn range_delete_over_older(
        &mut self,
        (tenant, space): (u64, u64),
        from: u64,
        to: u64,
        most: u64,
    ) -> Done {
        for round in 0..2 {
            let space = name_of_space(&((space + round) % SPACES).to_string());
            let load = |key| (space.clone(), key_of(key), Some(self.world.value(3000)));
            let ops = (0..KEYS).map(load).collect();
            self.write(tenant, ops, 0)?;
            self.world.flush()?;
            self.world.step(6)?;
        }
        // Two, so that they may come into different tables of a level.
        self.delete_range((tenant, space), from, to, 0)?;
        self.delete_range((tenant, space), from + KEYS / 2, to, 0)?;
        self.world.flush()?;
        for _ in 0..most {
            self.read_whole(tenant, space)?;
            self.world.step(1)?;
        }
        self.put_behind_deleted((tenant, space), from)
    }

    /// Keys behind all that lies deeper, put after a range delete that stays for what does: they may lose their
    /// versions only when it goes.
    fn put_behind_deleted(&mut self, (tenant, space): (u64, u64), from: u64) -> Done {
        self.held.clear();
        let name = name_of_space(&space.to_string());
        // More than a level holds, and none of it apart.
        for round in 0..SPACES * 3 {
            let other = name_of_space(&((space + round) % SPACES).to_string());
            let load = |key| (other.clone(), key_of(key), Some(self.world.value(1900)));
            let ops = (0..KEYS).map(load).collect();
            self.write(tenant, ops, 0)?;
            self.world.flush()?;
            self.world.step(3)?;
        }
        self.delete_range((tenant, space), from, KEYS + 1, 0)?;
        // As many tables as bring level 0 down.
        for behind in 0..4 {
            let value = self.world.value(30);
            self.write(
                tenant,
                vec![(name.clone(), key_of(KEYS + behind), Some(value))],
                0,
            )?;
            self.world.flush()?;
            self.world.step(1)?;
            self.read_whole(tenant, space)?;
        }
        Ok(())
    }

    /// A keyspace from either end and key by key.
    fn read_whole(&mut self, tenant: u64, space: u64) -> Done {
        let (tenant, space) = (name_of_tenant(tenant), name_of_space(&space.to_string()));
        let Some(entries) = self.entries(&tenant, &space) else {
            return Ok(());
        };
        let handle = self.handle(&tenant, &space)?;
        let forwards: Vec<_> = handle.iter().collect::<Result<_, _>>()?;
        let mut backwards: Vec<_> = handle.iter().rev().collect::<Result<_, _>>()?;
        backwards.reverse();
        for (way, found) in [("forwards", forwards), ("backwards", backwards)] {
            if !found.iter().map(|(k, v)| (k, v)).eq(&entries) {
                return Err(Wrong::Failure(format!("a keyspace read {way} is something else")));
            }
        }
        for key in (0..KEYS).map(key_of) {
            if handle.get(&key)?.as_ref() != entries.get(&key) {
                return Err(Wrong::Failure("a key of a keyspace is something else".into()));
            }
        }
        Ok(())
    }
}
