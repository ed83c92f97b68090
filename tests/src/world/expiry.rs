//! Values that expire: put with the oracle knowing when, and looked for where they should be gone.

use std::time::Duration;

use bytes::Bytes;
use strongroom::io::Clock;
use strongroom::{Durability, Lsn, PutOptions, Result};

use super::{World, outcome};
use crate::oracle::{Change, Outcome, Ticket};

impl World {
    /// Sets the clock back, which nobody may notice who looked at it before.
    pub fn set_clock_back(&self, by: Duration) {
        self.known().oracle.clock_is_set_back();
        self.clock.step_back(by);
    }

    /// Sets the clock right again.
    pub fn set_clock_right(&self) {
        let behind = self.known().oracle.now().saturating_sub(self.clock.now_ms());
        self.clock.advance(Duration::from_millis(behind));
    }

    /// Commits puts that expire all together, after so many milliseconds.
    pub fn put_expiring(
        &mut self,
        tenant: &str,
        space: &str,
        puts: Vec<(Bytes, Bytes)>,
        ttl_ms: u64,
        durability: Durability,
    ) -> Result<()> {
        let handle = self.engine().tenant(tenant)?;
        let keyspace = self.keyspace(tenant, space)?;
        let number = self.known().oracle.tenant(tenant);
        let number = number.expect("the oracle knows the tenant");
        let _standing = self.stand_for(tenant, std::iter::once(&space.to_string()));
        // From here to the commit nothing takes time.
        let at = self.known().oracle.now() + ttl_ms;
        let options = PutOptions::new().ttl(Duration::from_millis(ttl_ms));
        let batch = handle.batch().durability(durability);
        let batch = puts.iter().fold(batch, |batch, (key, value)| {
            batch.put_with(&keyspace, key, value, options)
        });
        let ops = puts
            .into_iter()
            .map(|(key, value)| (space.to_string(), key, Some(value)));
        let change = Change::Expiring(number, ops.collect(), at);
        let ticket = self.known().oracle.submit(change);
        let result = batch.commit();
        self.done(ticket, outcome(&result, durability));
        let position = result?;
        self.expiring.push((ticket, at, position.lsn));
        Ok(())
    }

    /// With no background job left to do: whether nothing that expired longer than the grace ago is left in tables and
    /// log, as far as nobody holds on to the log.
    pub fn check_nothing_is_overdue(&mut self, pinned: bool) -> std::result::Result<(), String> {
        let grace = self.options.expiry_grace.as_millis() as u64;
        let now = self.known().oracle.now();
        let status = self.engine().status();
        // A directory counts seconds.
        if let Some(at) = status.first_expiry_ms.filter(|at| at + grace <= now) {
            return Err(format!(
                "{} ms after its grace a value is still there",
                now - at - grace
            ));
        }
        let known = self.known.clone();
        let known = known.lock().unwrap();
        self.expiring
            .retain(|(ticket, ..)| known.oracle.outcome(*ticket) == Outcome::Acknowledged);
        // What a log holds that another process wrote is not known: it counts from the opening.
        let due = |at: u64| at.max(self.opened) + grace;
        let overdue = |(_, at, end): &&(Ticket, u64, Lsn)| due(*at) <= now && *end > status.wal_start;
        match self.expiring.iter().find(overdue) {
            Some((_, at, end)) if !pinned => Err(format!(
                "{} ms after its grace a value at {end} is in the log from {}",
                now - due(*at),
                status.wal_start
            )),
            _ => Ok(()),
        }
    }
}
