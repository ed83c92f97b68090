//! Values that stand apart from tables: hidden by newer ones, moved from file to file, and their files given up.

use super::case::Act;
use super::generate::KEYS;
use super::run::{Done, Run, Wrong};
use crate::dice::Dice;
use crate::oracle::Op;
use crate::world::{key_of, name_of_space, name_of_tenant};

impl Run {
    /// One of the acts about them.
    pub fn values(&mut self, act: &Act) -> Done {
        match *act {
            Act::HideValues {
                tenant,
                space,
                len,
                seed,
            } => self.hide_values((tenant, space), len, seed),
            Act::Separate {
                tenant,
                space,
                number,
            } => {
                let lengths = [None, Some(0), Some(64), Some(300), Some(2000)];
                let bytes = lengths.into_iter().cycle().nth(number as usize).flatten();
                self.separate((tenant, space), bytes)?;
                self.check()
            }
            Act::SeparateAnew { tenant, space, len } => self.separate_anew((tenant, space), len),
            _ => Ok(()),
        }
    }

    /// Lays values deep, hides some of them under a snapshot, and reads everything while background work goes on.
    fn hide_values(&mut self, (tenant, space): (u64, u64), len: u64, seed: u64) -> Done {
        let mut dice = Dice::new(seed);
        let space = name_of_space(&space.to_string());
        let all: Vec<Op> = (0..KEYS)
            .map(|key| (space.clone(), key_of(key), Some(self.world.value(len as usize))))
            .collect();
        self.write(tenant, all, 0)?;
        self.world.flush()?;
        if dice.percent(50) {
            self.world.compact()?;
        }
        self.snapshot(tenant)?;
        let hidden = *dice.pick(&[30, 65, 70, 95]);
        let mut some: Vec<Op> = Vec::new();
        for key in 0..KEYS {
            if dice.percent(hidden) {
                let len = *dice.pick(&[0, 40, len]);
                let value = dice.percent(70).then(|| self.world.value(len as usize));
                some.push((space.clone(), key_of(key), value));
            }
        }
        if some.is_empty() {
            // An engine refuses an empty batch.
            some.push((space, key_of(0), None));
        }
        self.write(tenant, some, 0)?;
        self.world.flush()?;
        for _ in 0..dice.below(4) {
            self.world.step(1)?;
            self.check()?;
        }
        self.read_snapshot(self.held.len().saturating_sub(1) as u64)?;
        if dice.percent(50) {
            self.held.pop();
        }
        self.rest()?;
        self.check()?;
        self.read_snapshot(self.held.len().saturating_sub(1) as u64)
    }

    /// Sets from which length on values go apart; false if there is nothing to set it of.
    fn separate(&mut self, (tenant, space): (u64, u64), bytes: Option<usize>) -> Result<bool, Wrong> {
        let (tenant, space) = (name_of_tenant(tenant), name_of_space(&space.to_string()));
        if self.entries(&tenant, &space).is_none() || self.doubtful.contains(&format!("{tenant}/{space}")) {
            return Ok(false);
        }
        self.world.set_separate_bytes(&tenant, &space, bytes)?;
        Ok(true)
    }

    /// Values whose keyspace has them in the tree, and then apart.
    fn separate_anew(&mut self, place: (u64, u64), len: u64) -> Done {
        if !self.separate(place, Some(0))? {
            return Ok(());
        }
        let (tenant, space) = (name_of_tenant(place.0), name_of_space(&place.1.to_string()));
        let load = |key| (space.clone(), key_of(key), Some(self.world.value(len as usize)));
        let ops = (0..KEYS).map(load).collect();
        self.write(place.0, ops, 0)?;
        self.world.compact()?;
        let apart = |run: &Run| run.world.engine().stats().values.values;
        let before = apart(self);
        if !self.separate(place, Some(len as usize))? {
            return Ok(());
        }
        self.world.compact()?;
        let after = apart(self);
        let whole = self
            .entries(&tenant, &space)
            .is_some_and(|entries| entries.len() >= KEYS as usize);
        match whole && !self.world.known().oracle.is_dated(&tenant, &space) && after < before + KEYS {
            true => Err(Wrong::Failure(format!(
                "{before} values were apart, and {KEYS} more were to be, but {after} are"
            ))),
            false => self.check(),
        }
    }

    /// With no background job left to do: no value file may be garbage for the most part.
    pub(super) fn check_garbage(&self) -> Done {
        let values = self.world.engine().stats().values;
        match values.garbage_bytes * 2 <= values.bytes {
            true => Ok(()),
            false => Err(Wrong::Failure(format!(
                "{} of {} bytes in value files are garbage, and nothing is done about it",
                values.garbage_bytes, values.bytes
            ))),
        }
    }
}
