//! A log that was put together from two histories: the standby must refuse the second one's record
//! before it is written.

use std::sync::Arc;

use strongroom::io::sim::SimFs;
use strongroom::{Lsn, Result};

use super::sent::{by_a_primary, read_log};
use super::{STANDBY_DIR, Stage, Standby};
use crate::enumerate::{Check, Machine};
use crate::keys::SimKeys;
use crate::world::{World, name_of_tenant};

/// Length of a segment's header.
const HEADER: usize = 128;

/// What a primary that went on from `world` has written since.
fn going_on(world: &World, from: Lsn) -> Result<Vec<u8>> {
    let mut world = world.fork();
    world.open()?;
    world.put(&name_of_tenant(1), "a", 1, 50)?;
    let end = world.engine().status().durable;
    read_log(world.engine(), from, end)
}

/// See the head.
pub fn spliced_log_is_refused() -> Check {
    let failed = |e: strongroom::Error| format!("{e:?}");
    let (sent, primary) = by_a_primary().map_err(failed)?;
    let end = sent.start.advance(sent.wal.len() as u64);
    let (one, other) = (
        going_on(&primary, end).map_err(failed)?,
        going_on(&primary, end).map_err(failed)?,
    );
    let mut standby = Standby {
        dir: STANDBY_DIR,
        fs: SimFs::new(),
        keys: SimKeys::new(),
        sent: Arc::new(sent),
        told: Arc::default(),
        stages: &[Stage::Copy, Stage::Open, Stage::Keys(2), Stage::Follow(100)],
        engine: None,
    };
    standby.run().map_err(failed)?;
    let engine = standby.engine.as_ref().ok_or("no engine")?;
    engine.standby_append(end, &one[..HEADER]).map_err(failed)?;
    let at = end.advance(HEADER as u64);
    let refused = engine.standby_append(at, &other[HEADER..]).is_err();
    let progress = engine.standby_progress().map_err(failed)?;
    if !refused || progress.received > at {
        return Err("a record of another history is written".to_string());
    }
    engine
        .standby_append(at, &one[HEADER..])
        .map_err(|e| format!("the right one is refused: {e:?}"))?;
    Ok(())
}
