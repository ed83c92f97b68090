//! Promotion: ordered steps, each restartable.
//!
//! ```text
//! 1  the receiver has stopped: no append is under way, none will follow          (caller)
//! 2  "promoting, above epoch e" is recorded in the node's directory
//! 3  engine.promote(): a never-used epoch durable, all durable WAL applied
//! 4  "primary" is recorded
//! 5  the reign begins: commits are taken, standbys may dial                       (caller)
//! 6  the old primary is told until it answers                                     [`notify`]
//! ```
//!
//! A crash before 3 is durable: the node starts as the standby it was. After: it starts as primary (it asks
//! its peer first, like every returning primary, and its epoch is the higher one). From 3 on nothing is
//! acknowledged for the old epoch here, so the old primary can complete no `Replicated` commit; step 6 only
//! spares its other clients.

use std::sync::Arc;

use strongroom::{Engine, Epoch, Promotion};
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::core::promotion;
use crate::core::role::{Told, told};
use crate::dial;
use crate::error::Result;
use crate::shared::{Command, Shared};
use crate::signal::{Signal, blocking};
use crate::status::FencingStatus;

/// Steps 2 to 4. After an error the node is what it was, and the call may be repeated.
pub(crate) async fn promote(shared: &Arc<Shared>, engine: &Engine) -> Result<Promotion> {
    let (shared, engine) = (shared.clone(), engine.clone());
    blocking(move || promotion::promote(&shared.dirs, &engine)).await?
}

/// Step 6: tells the peer of `epoch` until it answers, or `over` is raised.
pub(crate) async fn notify(shared: Arc<Shared>, database_id: [u8; 16], epoch: Epoch, over: Signal) {
    let timeouts = &shared.config.timeouts;
    let mut backoff = Backoff::new(timeouts.backoff_min, timeouts.backoff_max, epoch.0);
    *shared.fencing.lock() = Some(FencingStatus {
        epoch,
        attempts: 0,
        done: false,
        error: None,
    });
    loop {
        let answer = tokio::select! {
            answer = dial::tell(&shared.config, database_id, epoch) => answer,
            () = over.raised() => return,
        };
        let (told, error) = match answer {
            Ok((outcome, highest)) => {
                let told = told(epoch, outcome, highest);
                let why = match told {
                    Told::Done => None,
                    Told::StepDown(newer) => Some(format!("the peer recorded epoch {newer}, which is newer")),
                    Told::Again(why) => Some(why.to_string()),
                };
                (told, why)
            }
            Err(e) => (Told::Again("no answer"), Some(e.to_string())),
        };
        if let Some(fencing) = shared.fencing.lock().as_mut() {
            fencing.attempts += 1;
            (fencing.done, fencing.error) = (told == Told::Done, error);
        }
        match told {
            Told::Done => {
                info!(%epoch, "the old primary knows");
                return;
            }
            Told::StepDown(highest) => {
                step_down(&shared, highest).await;
                return;
            }
            Told::Again(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            () = over.raised() => return,
        }
    }
}

/// This node turned out to be the old one.
async fn step_down(shared: &Arc<Shared>, by: Epoch) {
    let Some(engine) = shared.state().engine else {
        return;
    };
    match blocking(move || engine.fence(by)).await {
        Ok(Ok(())) => {
            let _ = shared.commands.send(Command::Fenced);
        }
        Ok(Err(error)) => warn!(%error, "stepping down failed"),
        Err(error) => warn!(%error, "stepping down failed"),
    }
}
