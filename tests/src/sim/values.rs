//! Values that stand apart from tables: hidden by newer ones, moved from file to file, and their files given up.

use super::case::Act;
use super::generate::KEYS;
use super::run::{Done, Run, Wrong};
use crate::dice::Dice;
use crate::oracle::Op;
use crate::world::{key_of, name_of_space};

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
