//! Whether an operator's promotion goes ahead: what it would mean now, and what of it the operator expects and allows.
//! Pure; `admin_service` does it.

use std::time::Duration;

use strongroom::{Epoch, Lsn};
use strongroom_client::Kind;
use strongroom_client::proto::admin as pb;
use strongroom_replication::{NodeRole, NodeStatus};
use tonic::Status;

use crate::status;

/// What a promotion would mean now.
pub(crate) struct Prospect {
    pub epoch: Epoch,
    pub start: Lsn,
    /// How much log of the primary's this node does not have, as far as it heard.
    pub loss_bytes: u64,
    pub last_heard: Option<Duration>,
    pub connected: bool,
}

/// Of a standby, or a node that waits, if it has data.
pub(crate) fn prospect(status: &NodeStatus) -> Result<Prospect, Status> {
    let not_standby = |why: &str| status::status(Kind::NotStandby, why);
    let engine = match (status.role, &status.engine) {
        // A node that waits because no rule decides serves when an operator does.
        (NodeRole::Standby | NodeRole::Waiting, Some(engine)) => engine,
        (NodeRole::Primary, _) => return Err(not_standby("this node is the primary already")),
        (NodeRole::Seeding, _) => return Err(not_standby("this standby is still taking its base copy")),
        _ => return Err(not_standby("this node is no standby that holds data")),
    };
    let upstream = status.upstream.as_ref();
    Ok(Prospect {
        epoch: engine.highest_epoch.max(engine.epoch).promoted(),
        start: engine.durable,
        loss_bytes: upstream.map_or(0, |u| u.end.0.saturating_sub(engine.durable.0)),
        last_heard: upstream.and_then(|u| u.heard),
        connected: upstream.is_some_and(|u| u.connected),
    })
}

/// Refuses what the caller does not expect or allow.
pub(crate) fn allow(
    request: &pb::PromoteRequest,
    status: &NodeStatus,
    name: &str,
    now: &Prospect,
) -> Result<(), Status> {
    let unexpected = |why: String| Err(status::status(Kind::ExpectationFailed, why));
    if !request.expect_primary.is_empty() {
        let address = status.upstream.as_ref().map_or("", |u| u.address.as_str());
        if name.is_empty() && request.expect_primary != address {
            return unexpected(
                "the primary never said its name since this node started: expect its epoch".into(),
            );
        }
        if request.expect_primary != name && request.expect_primary != address {
            return unexpected(format!(
                "this node follows {name}, not {}",
                request.expect_primary
            ));
        }
    }
    let followed = status.engine.as_ref().map_or(Epoch::ZERO, |e| e.epoch);
    if let Some(expected) = request.expect_epoch.filter(|expected| *expected != followed.0) {
        return unexpected(format!(
            "this node follows epoch {followed}, not {}",
            Epoch(expected)
        ));
    }
    if let Some(most) = request.max_loss_bytes {
        let would_lose = |why: String| Err(status::status(Kind::WouldLose, why));
        if now.last_heard.is_none() {
            return would_lose(
                "the primary was never heard since this node started: the loss has no bound".into(),
            );
        }
        if now.loss_bytes > most {
            return would_lose(format!(
                "{} bytes of log could be lost, {most} are allowed",
                now.loss_bytes
            ));
        }
    }
    Ok(())
}
