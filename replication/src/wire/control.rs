//! Fence and Status: the calls nodes make about each other, apart from streams.

use bytes::Bytes;
use strongroom::{Epoch, Lsn};
use tonic::Status;

use super::{Decoded, Malformed, PROTOCOL, check_protocol, id_bytes, id_or_none, node_name, sixteen, v1};
use crate::core::message::FenceOutcome;
use crate::status::{NodeRole, PeerStatus};

pub(crate) fn encode_fence(node: &str, database_id: [u8; 16], epoch: Epoch) -> v1::FenceRequest {
    v1::FenceRequest {
        protocol: PROTOCOL,
        node: node.to_string(),
        database_id: Bytes::copy_from_slice(&database_id),
        epoch: epoch.0,
    }
}

pub(crate) fn decode_fence(
    request: v1::FenceRequest,
) -> std::result::Result<(String, [u8; 16], Epoch), Status> {
    check_protocol(request.protocol)?;
    if request.epoch == 0 {
        return Err(Malformed("epoch").into());
    }
    let database_id = sixteen(&request.database_id, "database id")?;
    Ok((node_name(request.node)?, database_id, Epoch(request.epoch)))
}

pub(crate) fn encode_fence_reply(outcome: FenceOutcome, highest: Epoch, durable: Lsn) -> v1::FenceReply {
    use v1::fence_reply::Outcome;
    let outcome = match outcome {
        FenceOutcome::Recorded => Outcome::Recorded,
        FenceOutcome::Harmless => Outcome::Harmless,
        FenceOutcome::NotHigher => Outcome::NotHigher,
        FenceOutcome::WrongDatabase => Outcome::WrongDatabase,
        FenceOutcome::Undecided => Outcome::Undecided,
    };
    v1::FenceReply {
        outcome: outcome.into(),
        highest_epoch: highest.0,
        durable_lsn: durable.0,
    }
}

pub(crate) fn decode_fence_reply(reply: &v1::FenceReply) -> Decoded<(FenceOutcome, Epoch)> {
    use v1::fence_reply::Outcome;
    let outcome = match Outcome::try_from(reply.outcome) {
        Ok(Outcome::Recorded) => FenceOutcome::Recorded,
        Ok(Outcome::Harmless) => FenceOutcome::Harmless,
        Ok(Outcome::NotHigher) => FenceOutcome::NotHigher,
        Ok(Outcome::WrongDatabase) => FenceOutcome::WrongDatabase,
        Ok(Outcome::Undecided) => FenceOutcome::Undecided,
        Ok(Outcome::Unspecified) | Err(_) => return Err(Malformed("fence outcome")),
    };
    Ok((outcome, Epoch(reply.highest_epoch)))
}

pub(crate) fn encode_status_request(node: &str) -> v1::StatusRequest {
    v1::StatusRequest {
        protocol: PROTOCOL,
        node: node.to_string(),
    }
}

pub(crate) fn encode_status(status: &PeerStatus) -> v1::StatusReply {
    use v1::status_reply::Role;
    let role = match status.role {
        NodeRole::Waiting => Role::Waiting,
        NodeRole::Primary => Role::Primary,
        NodeRole::Fenced => Role::Fenced,
        NodeRole::Seeding => Role::Seeding,
        NodeRole::Standby => Role::Standby,
        NodeRole::Stopped => Role::Stopped,
    };
    v1::StatusReply {
        node: status.node.clone(),
        role: role.into(),
        database_id: id_bytes(status.database_id),
        epoch: status.epoch.0,
        highest_epoch: status.highest_epoch.0,
        fenced_by: status.fenced_by.map_or(0, |e| e.0),
        durable_lsn: status.durable.0,
        applied_lsn: status.applied.0,
        keystore_version: status.keystore_version,
    }
}

pub(crate) fn decode_status(reply: v1::StatusReply) -> Decoded<PeerStatus> {
    use v1::status_reply::Role;
    let role = match Role::try_from(reply.role) {
        Ok(Role::Waiting) => NodeRole::Waiting,
        Ok(Role::Primary) => NodeRole::Primary,
        Ok(Role::Fenced) => NodeRole::Fenced,
        Ok(Role::Seeding) => NodeRole::Seeding,
        Ok(Role::Standby) => NodeRole::Standby,
        Ok(Role::Stopped) => NodeRole::Stopped,
        Ok(Role::Unspecified) | Err(_) => return Err(Malformed("role")),
    };
    Ok(PeerStatus {
        node: node_name(reply.node)?,
        role,
        database_id: id_or_none(&reply.database_id, "database id")?,
        epoch: Epoch(reply.epoch),
        highest_epoch: Epoch(reply.highest_epoch),
        fenced_by: (reply.fenced_by != 0).then_some(Epoch(reply.fenced_by)),
        durable: Lsn(reply.durable_lsn),
        applied: Lsn(reply.applied_lsn),
        keystore_version: reply.keystore_version,
    })
}
