//! What a tenant's write asks for: its limits, and the batch it becomes.

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use strongroom::{Durability, Error, ErrorKind, Keyspace, Position, PutOptions};
use strongroom_client::Kind;
use strongroom_client::proto::kv as pb;
use tonic::Status;

use crate::auth::Access;
use crate::kv_service::{bound, check_key};
use crate::status;

/// `None`: the engine's default.
pub(crate) fn durability(number: i32) -> Result<Option<Durability>, Status> {
    match pb::Durability::try_from(number) {
        Ok(pb::Durability::Unspecified) => Ok(None),
        Ok(pb::Durability::Buffered) => Ok(Some(Durability::Buffered)),
        Ok(pb::Durability::Local) => Ok(Some(Durability::Local)),
        Ok(pb::Durability::Replicated) => Ok(Some(Durability::Replicated)),
        Err(_) => Err(status::status(
            Kind::Invalid,
            format!("there is no durability {number}"),
        )),
    }
}

/// Commits what the call asks for.
pub(crate) fn commit(
    access: &Access,
    request: &pb::BatchRequest,
    durability: Option<Durability>,
) -> strongroom::Result<Position> {
    // A call that cannot succeed creates no keyspace.
    check_operations(&request.operations)?;
    check_conditions(&request.conditions)?;
    let mut batch = access.tenant.batch();
    if let Some(durability) = durability {
        batch = batch.durability(durability);
    }
    for condition in &request.conditions {
        let keyspace = match access.tenant.open_keyspace(&condition.keyspace) {
            // Without a keyspace the key has no value.
            Err(e) if e.kind() == ErrorKind::NotFound && condition.value.is_some() => {
                // Unless it is the tenant that is gone.
                access.engine.tenant_by_id(access.tenant.id())?;
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "a condition of the batch does not hold: read again, and try again",
                ));
            }
            Err(e) if e.kind() == ErrorKind::NotFound => access.tenant.keyspace(&condition.keyspace)?,
            opened => opened?,
        };
        batch = batch.require(&keyspace, &condition.key, condition.value.as_deref());
    }
    let mut keyspace: Option<Keyspace> = None;
    for operation in &request.operations {
        // Operations mostly come grouped by keyspace; opening one costs a read.
        let keyspace = match &mut keyspace {
            Some(keyspace) if keyspace.name() == operation.keyspace => keyspace,
            other => other.insert(access.tenant.keyspace(&operation.keyspace)?),
        };
        if let Some(range) = &operation.range {
            batch = batch.delete_range(keyspace, ends(range)?);
            continue;
        }
        batch = match (&operation.value, operation.ttl_ms) {
            (Some(value), Some(ttl)) => {
                let options = PutOptions::new().ttl(Duration::from_millis(ttl));
                batch.put_with(keyspace, &operation.key, value, options)
            }
            (Some(value), None) => batch.put(keyspace, &operation.key, value),
            (None, _) => batch.delete(keyspace, &operation.key),
        };
    }
    batch.commit()
}

/// Checks the limits of keys, values and times to live.
pub(crate) fn check_operations(operations: &[pb::Operation]) -> strongroom::Result<()> {
    for operation in operations {
        if let Some(range) = &operation.range {
            ends(range)?;
            if !operation.key.is_empty() || operation.value.is_some() || operation.ttl_ms.is_some() {
                let text = "a delete of a range has neither key nor value";
                return Err(Error::new(ErrorKind::Invalid, text));
            }
            continue;
        }
        check_key(&operation.key)?;
        check_value(operation.value.as_deref())?;
        let what = match (operation.ttl_ms, &operation.value) {
            (Some(0), _) => "a time to live has at least a millisecond",
            (Some(_), None) => "a delete has no time to live",
            _ => continue,
        };
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    Ok(())
}

/// Checks the limits of keys and values.
pub(crate) fn check_conditions(conditions: &[pb::Condition]) -> strongroom::Result<()> {
    for condition in conditions {
        check_key(&condition.key)?;
        check_value(condition.value.as_deref())?;
    }
    Ok(())
}

fn ends(range: &pb::KeyRange) -> strongroom::Result<(Bound<Bytes>, Bound<Bytes>)> {
    Ok((bound(range.start.clone())?, bound(range.end.clone())?))
}

fn check_value(value: Option<&[u8]>) -> strongroom::Result<()> {
    if value.is_none_or(|value| value.len() <= strongroom::VALUE_BYTES_MAX) {
        return Ok(());
    }
    let text = format!("a value has up to {} bytes", strongroom::VALUE_BYTES_MAX);
    Err(Error::new(ErrorKind::Invalid, text))
}
