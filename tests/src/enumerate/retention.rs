//! Scenarios of quotas, and of retentions: set, lengthened and lived under while the engine works.

use std::time::Duration;

use strongroom::{Durability, Options, Result, Retention};

use super::Machine;
use super::on_world::prepared;
use super::scenarios::{short_segments, two_tenants};
use crate::world::{World, key_of, name_of_space, name_of_tenant};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn retain(world: &mut World, n: u64, space: &str, keep: impl Into<Option<Retention>>) -> Result<()> {
    world.set_retention(&name_of_tenant(n), &name_of_space(space), keep.into())
}

fn compacted(world: &mut World) -> Result<()> {
    two_tenants(world)?;
    world.open()?;
    world.compact()?;
    world.close()
}

/// Set over what is in tables and in the log, made longer after something has ended; compactions leave that out, and the
/// log is begun anew.
pub(super) fn kept() -> Box<dyn Machine> {
    let mut options = short_segments();
    options.expiry_grace = Duration::from_secs(1);
    prepared(options, compacted, |world| {
        let (one, two) = (name_of_tenant(1), name_of_tenant(2));
        world.open()?;
        retain(world, 1, "a", Retention::Days(2))?;
        retain(world, 2, "b", Retention::Months(1))?;
        world.put(&one, "a", 7, 40)?;
        world.clock().advance(DAY);
        world.put(&one, "a", 8, 40)?;
        world.flush()?;
        world.clock().advance(DAY + Duration::from_secs(3));
        world.step(8)?;
        retain(world, 1, "a", Retention::Days(5))?;
        world.put(&two, "b", 9, 30)?;
        world.clock().advance(40 * DAY);
        world.step(8)?;
        retain(world, 2, "b", None)?;
        world.put(&one, "a", 9, 30)
    })
}

/// A quota, and a length from which on values go apart, that are set, changed and taken away again.
pub(super) fn quota() -> Box<dyn Machine> {
    prepared(short_segments(), compacted, |world| {
        let (one, two) = (name_of_tenant(1), name_of_tenant(2));
        world.open()?;
        world.set_quota(&one, Some(1 << 20))?;
        world.put(&one, "a", 7, 40)?;
        world.set_quota(&two, Some(1 << 21))?;
        world.set_separate_bytes(&one, &name_of_space("a"), Some(0))?;
        world.flush()?;
        world.set_quota(&one, Some(1 << 22))?;
        world.set_separate_bytes(&one, &name_of_space("a"), Some(64))?;
        world.put(&two, "b", 9, 30)?;
        world.close()?;
        world.open()?;
        world.set_quota(&two, None)?;
        world.set_separate_bytes(&one, &name_of_space("a"), None)?;
        world.put(&one, "a", 9, 30)
    })
}

/// Retentions that nobody waits for: what they end may be left out only once they are durable.
pub(super) fn buffered() -> Box<dyn Machine> {
    let mut options = Options::tiny();
    options.durability = Durability::Buffered;
    // Nothing but the number of tables makes a compaction, and nothing else makes the log durable.
    options.expiry_grace = 30 * DAY;
    prepared(options, compacted, |world| {
        let (one, two) = (name_of_tenant(1), name_of_tenant(2));
        world.open()?;
        retain(world, 1, "a", Retention::Days(9))?;
        for key in 7..9 {
            world.put(&one, "a", key, 40)?;
            world.flush()?;
        }
        world.clock().advance(DAY + Duration::from_secs(3));
        retain(world, 1, "a", Retention::Days(1))?;
        world.step(8)?;
        world.put(&one, "a", 8, 40)?;
        world.clock().advance(2 * DAY);
        let ops = vec![(name_of_space("a"), key_of(9), None)];
        world.batch(&one, ops, Durability::Local)?;
        world.flush()?;
        world.put(&two, "c", 1, 30)
    })
}
