//! Retentions: set, changed, lived under to the very millisecond, and what they end gone from the disk in time.

use std::time::Duration;

use strongroom::{ErrorKind, Retention};

use super::case::Act;
use super::generate::KEYS;
use super::run::{Done, Run, Wrong};
use crate::oracle::dated_anew;
use crate::world::{key_of, name_of_space, name_of_tenant};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// By a number of an act.
fn retention(number: u64) -> Option<Retention> {
    let few = |n: u64| 1 + (number / 2 % n) as u32;
    match number {
        0 => None,
        n if n % 2 == 1 => Some(Retention::Days(few(40))),
        _ => Some(Retention::Months(few(3))),
    }
}

impl Run {
    /// One of the acts about them.
    pub fn retention(&mut self, act: &Act) -> Done {
        match *act {
            Act::Retain {
                tenant,
                space,
                number,
            } => {
                self.retain((tenant, space), retention(number))?;
                self.check()
            }
            Act::RetainLonger {
                tenant,
                space,
                key,
                compacted,
            } => self.retain_longer((tenant, space, key), compacted == 1),
            Act::AgeOut {
                tenant,
                space,
                before,
                reopened,
            } => self.age_out((tenant, space), before == 1, reopened == 1),
            _ => Ok(()),
        }
    }

    /// Sets a retention; false if there is nothing to set it of.
    fn retain(&mut self, (tenant, space): (u64, u64), keep: Option<Retention>) -> Result<bool, Wrong> {
        let (tenant, space) = (name_of_tenant(tenant), name_of_space(&space.to_string()));
        if self.entries(&tenant, &space).is_none() || self.doubtful.contains(&format!("{tenant}/{space}")) {
            return Ok(false);
        }
        let dated = self.world.known().oracle.is_dated(&tenant, &space);
        if keep.is_none() && !dated {
            return Ok(false); // Nobody could tell whether it was set.
        }
        self.let_held_expire();
        match self.world.set_retention(&tenant, &space, keep) {
            Ok(()) => {}
            // Changed too often.
            Err(e) if e.kind() == ErrorKind::Invalid => return Ok(false),
            Err(e) => {
                self.held.retain(|held| held.tenant != tenant);
                return Err(e.into());
            }
        }
        let now = self.world.known().oracle.now();
        let of_tenant = self.held.iter_mut().filter(|held| held.tenant == tenant);
        let undated = (!dated).then_some(now);
        of_tenant.for_each(|held| dated_anew(&mut held.dates, (&tenant, &space), keep, undated));
        Ok(true)
    }

    /// Older versions included.
    fn values_in_tables(&self, tenant: &str) -> Result<u64, Wrong> {
        let usage = self.world.engine().tenant(tenant)?.usage()?;
        Ok(usage.entries - usage.deletes)
    }

    /// What has ended under a short retention stays gone under a longer one, on the disk or not.
    fn retain_longer(&mut self, (tenant, space, key): (u64, u64, u64), compacted: bool) -> Done {
        if !self.retain((tenant, space), Some(Retention::Days(1)))? {
            return Ok(());
        }
        let value = self.world.value(30);
        let op = (name_of_space(&space.to_string()), key_of(key), Some(value));
        self.write(tenant, vec![op], 1)?;
        self.snapshot(tenant)?;
        self.world.clock().advance(DAY);
        self.check()?;
        if compacted {
            self.world.compact()?;
        }
        self.retain((tenant, space), Some(Retention::Months(2)))?;
        self.check()?;
        self.read_snapshot(0)
    }

    /// A keyspace in tables, from before it had its retention or not, that nothing but its age makes background work
    /// look at.
    fn age_out(&mut self, (tenant, space): (u64, u64), before: bool, reopened: bool) -> Done {
        let place = (tenant, space);
        let day = Some(Retention::Days(1));
        if before && !self.retain(place, day)? {
            return Ok(());
        }
        let space = name_of_space(&space.to_string());
        let load = |key| (space.clone(), key_of(key), Some(self.world.value(300)));
        let ops = (0..KEYS).map(load).collect();
        self.write(tenant, ops, 0)?;
        self.world.flush()?;
        self.world.compact()?;
        if !before && !self.retain(place, day)? {
            return Ok(());
        }
        if reopened {
            self.reopen()?;
        }
        let tenant = name_of_tenant(tenant);
        if self
            .entries(&tenant, &space)
            .is_none_or(|entries| entries.len() < KEYS as usize)
        {
            return Ok(());
        }
        let before = self.values_in_tables(&tenant)?;
        // A directory counts seconds, up to 2106: what ends later has no deadline (docs/guarantees.md).
        if self.world.known().oracle.now() / 1000 + 2 * DAY.as_secs() > u64::from(u32::MAX) {
            return Ok(());
        }
        let wait = DAY + self.world.options.expiry_grace + Duration::from_millis(1050);
        self.world.clock().advance(wait);
        self.rest()?;
        let after = self.values_in_tables(&tenant)?;
        match after + KEYS <= before {
            true => self.check(),
            false => Err(Wrong::Failure(format!(
                "of {before} values {KEYS} were past their retention, {after} are left"
            ))),
        }
    }
}
