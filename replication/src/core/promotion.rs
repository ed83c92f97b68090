//! The order of a promotion's steps on one node, each restartable.
//!
//! ```text
//! 1  "promoting, above epoch e" is recorded in the node's directory
//! 2  engine.promote(): a never-used epoch durable, all durable WAL applied
//! 3  "primary" is recorded
//! ```
//!
//! A crash before 2 is durable: the node starts as the standby it was. After: it starts as primary (it asks
//! its peer first, like every returning primary, and its epoch is the higher one).

use strongroom::{Engine, Promotion};
use tracing::{info, warn};

use crate::dirs::{Dirs, Recorded};
use crate::error::{Error, Result};
use crate::hooks::rare;

/// Runs the steps. After an error the node is what it was, and the call may be repeated.
pub fn promote(dirs: &Dirs, engine: &Engine) -> Result<Promotion> {
    let status = engine.status();
    let from = status.highest_epoch.max(status.epoch);
    dirs.record(Recorded::Promoting { from })?;
    match engine.promote() {
        Ok(promotion) => {
            info!(epoch = %promotion.epoch, start = %promotion.start, "promoted");
            // Should this fail, the record of step 1 leads to the same role.
            if let Err(error) = dirs.record(Recorded::Primary) {
                warn!(%error, "the promotion took place, its record is incomplete");
            }
            Ok(promotion)
        }
        Err(error) => {
            // If the epoch became durable all the same, the record of step 1 must stay.
            if engine.status().highest_epoch < from.promoted() {
                rare!(PromotionTakenBack);
                dirs.record(Recorded::Standby)?;
            }
            Err(Error::from(error))
        }
    }
}
