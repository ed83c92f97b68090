//! Values that expire: put, waited for to the very millisecond, compacted, and gone from the disk in time.

use std::time::Duration;

use strongroom::Durability;

use super::case::Act;
use super::generate::KEYS;
use super::run::{Done, Run, Wrong};
use crate::world::{UNIQUE_BYTES, key_of, name_of_space, name_of_tenant};

/// Background jobs of one rest: more are a job that comes again and again.
const JOBS_MAX: usize = 500;

impl Run {
    /// One of the acts about them.
    pub fn expiry(&mut self, act: &Act) -> Done {
        match *act {
            Act::PutExpiring {
                tenant,
                space,
                key,
                keys,
                len,
                ttl,
                synced,
            } => self.put_expiring((tenant, space, key), (keys, len), ttl, synced),
            Act::UntilExpiry { which, before } => self.until_expiry(which, before),
            Act::ExpireOverOlder { tenant, space, key } => self.expire_over_older((tenant, space, key)),
            Act::OutliveGrace { tenant, space, key } => self.outlive_grace((tenant, space, key)),
            Act::LoseLease {
                tenant,
                space,
                key,
                compacted,
            } => self.lose_lease((tenant, space, key), compacted == 1),
            Act::ClockBack { tenant, space, ms } => self.clock_back((tenant, space), ms),
            Act::Rest {} => self.rest(),
            _ => Ok(()),
        }
    }

    /// Puts that expire, to a tenant that certainly lives.
    fn put_expiring(
        &mut self,
        (tenant, space, key): (u64, u64, u64),
        (keys, len): (u64, u64),
        ttl: u64,
        synced: u64,
    ) -> Done {
        let (tenant, space) = (name_of_tenant(tenant), name_of_space(&space.to_string()));
        let place = format!("{tenant}/{space}");
        if !self.certain(&tenant) || self.doubtful.contains(&place) {
            return Ok(());
        }
        let is_new = |spaces: &crate::oracle::Spaces| !spaces.contains_key(&space);
        let is_new = self.world.visible().get(&tenant).is_none_or(is_new);
        let puts = (key..key + keys).map(|key| {
            (
                key_of(key % KEYS),
                self.world.value(UNIQUE_BYTES.max(len as usize)),
            )
        });
        let puts = puts.collect();
        let durability = match synced {
            0 => Durability::Buffered,
            _ => Durability::Local,
        };
        let result = self.world.put_expiring(&tenant, &space, puts, ttl, durability);
        if result.is_err() && is_new {
            self.doubtful.insert(place);
        }
        Ok(result?)
    }

    /// Waits for one of the values, the earliest first, and reads everything at that moment.
    fn until_expiry(&mut self, which: u64, before: u64) -> Done {
        let (moments, now) = {
            let known = self.world.known();
            let mut moments: Vec<u64> = known.oracle.moments().into_values().collect();
            moments.sort_unstable();
            moments.dedup();
            (moments, known.oracle.now())
        };
        let Some(at) = moments.get(which as usize % moments.len().max(1)) else {
            return Ok(());
        };
        let wait = (at - now).saturating_sub(before);
        self.world.clock().advance(Duration::from_millis(wait));
        self.check()?;
        self.read_snapshot(which)
    }

    /// An older value deep down, one that expires above it; then nothing of both.
    fn expire_over_older(&mut self, (tenant, space, key): (u64, u64, u64)) -> Done {
        let value = self.world.value(30);
        let ops = vec![(name_of_space(&space.to_string()), key_of(key), Some(value))];
        self.write(tenant, ops, 0)?;
        self.world.flush()?;
        self.world.compact()?;
        self.put_expiring((tenant, space, key), (1, 30), 10, 0)?;
        self.snapshot(tenant)?;
        self.world.flush()?;
        self.world.clock().advance(Duration::from_millis(10));
        self.check()?;
        // Down to where the older one is, or written anew above it.
        self.world.step(4)?;
        self.check()?;
        self.world.compact()?;
        self.check()
    }

    /// A value that nothing but its expiry makes background work look at.
    fn outlive_grace(&mut self, (tenant, space, key): (u64, u64, u64)) -> Done {
        self.put_expiring((tenant, space, key), (3, 300), 50, 1)?;
        self.world.compact()?;
        // A directory counts seconds.
        let wait = self.world.options.expiry_grace + Duration::from_millis(1050);
        self.world.clock().advance(wait);
        self.rest()?;
        self.check()
    }

    /// A transaction must not be committed on what it read and what has expired since.
    fn lose_lease(&mut self, (tenant, space, key): (u64, u64, u64), compacted: bool) -> Done {
        const TTL: u64 = 1 << 30;
        let looked = self.world.known().oracle.last();
        self.put_expiring((tenant, space, key), (1, 20), TTL, 1)?;
        let (tenant, space) = (name_of_tenant(tenant), name_of_space(&space.to_string()));
        if self.world.known().oracle.last() == looked || self.entries(&tenant, &space).is_none() {
            return Ok(());
        }
        let place = (tenant.as_str(), space.as_str(), &key_of(key));
        match self.world.transact_over_expiry(place, TTL, compacted)? {
            true => Ok(()),
            false => Err(Wrong::Failure(
                "a transaction was committed on a value that had expired".into(),
            )),
        }
    }

    /// Works with a clock that was set back, behind what the engine has seen.
    fn clock_back(&mut self, (tenant, space): (u64, u64), ms: u64) -> Done {
        let looked = self.world.known().oracle.last();
        self.put_expiring((tenant, space, 0), (1, 20), 1 + ms / 2, 1)?;
        if self.world.known().oracle.last() == looked {
            return Ok(()); // The engine has not looked at the clock.
        }
        let on = Duration::from_millis(1 + ms / 2);
        self.world.clock().advance(on);
        self.check()?;
        self.world.set_clock_back(Duration::from_millis(ms));
        let worked = self.work_behind_the_time();
        self.world.set_clock_right();
        worked
    }

    fn work_behind_the_time(&mut self) -> Done {
        self.check()?;
        self.world.flush()?;
        self.world.step(3)?;
        self.check()?;
        self.read_snapshot(0)
    }

    /// Lets background work come to its end, and sees whether it left what should be gone.
    pub(super) fn rest(&mut self) -> Done {
        for _ in 0..JOBS_MAX {
            let began = self.world.known().oracle.now();
            let worked = self.world.engine().step()?;
            // A sync that hangs takes time, in which more may become due than the step looked for.
            if !worked && self.world.known().oracle.now() == began {
                let pinned = self.pin.is_some();
                self.world.check_nothing_is_overdue(pinned)?;
                return self.check_garbage();
            }
        }
        Err(Wrong::Failure("background work does not end".into()))
    }
}
