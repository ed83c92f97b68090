//! Errors of the engine and of replication as gRPC statuses: the one table.
//!
//! Every status made here carries its kind's name in the metadata `strongroom-error-kind`; codes and names come
//! from `strongroom_client::Kind`, so that both sides read one table. Tenants get the engine's message only
//! where it speaks of their own call; what speaks of this machine (paths, system calls, damage) is logged under
//! a random id, and the id is all they see. Operators get the message.

use strongroom::{Error, ErrorKind};
use strongroom_client::{ERROR_KIND_KEY, Kind};
use strongroom_replication::{ErrorKind as NodeErrorKind, NodeRole, NodeState};
use tonic::Status;
use tonic::metadata::{Ascii, MetadataValue};

/// A status of this kind.
pub fn status(kind: Kind, message: impl Into<String>) -> Status {
    let mut status = Status::new(kind.code(), message);
    let name: MetadataValue<Ascii> = MetadataValue::from_static(kind.name());
    status.metadata_mut().insert(ERROR_KIND_KEY, name);
    status
}

/// The engine's kinds on the wire.
pub fn kind(kind: ErrorKind) -> Kind {
    match kind {
        ErrorKind::Invalid => Kind::Invalid,
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::AlreadyExists => Kind::AlreadyExists,
        ErrorKind::Locked => Kind::Locked,
        ErrorKind::KeyRefused => Kind::KeyRefused,
        ErrorKind::Corruption => Kind::Corruption,
        ErrorKind::Unsupported => Kind::Unsupported,
        ErrorKind::ReadOnly => Kind::ReadOnly,
        ErrorKind::Fenced => Kind::Fenced,
        ErrorKind::NotPrimary => Kind::NotPrimary,
        ErrorKind::Unknown => Kind::Unknown,
        ErrorKind::Conflict => Kind::Conflict,
        ErrorKind::QuotaExceeded => Kind::QuotaExceeded,
        ErrorKind::Diverged => Kind::Diverged,
        ErrorKind::Gone => Kind::Gone,
        ErrorKind::NoSpace => Kind::NoSpace,
        ErrorKind::Io => Kind::Io,
        ErrorKind::Closed => Kind::Closed,
        // A kind newer than this table says nothing that a caller could act on.
        _ => Kind::Internal,
    }
}

/// For a tenant.
pub fn for_tenant(error: &Error) -> Status {
    let kind = kind(error.kind());
    match kind {
        // Of the call, or of the node's role: no path, no cause.
        Kind::Invalid
        | Kind::NotFound
        | Kind::AlreadyExists
        | Kind::Unknown
        | Kind::Conflict
        | Kind::QuotaExceeded
        | Kind::Gone
        | Kind::NotPrimary
        | Kind::Fenced
        | Kind::Closed => status(kind, error.to_string()),
        _ => {
            let id = incident();
            tracing::error!(incident = %id, kind = kind.name(), "{error:?}");
            status(
                kind,
                format!("the server failed the call; it logged the reason as incident {id}"),
            )
        }
    }
}

/// For an operator: the whole message, and its causes.
pub fn for_operator(error: &Error) -> Status {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    status(kind(error.kind()), message)
}

/// Replication's errors, for an operator.
pub fn for_node(error: &strongroom_replication::Error) -> Status {
    if let Some(engine) = error.engine() {
        return for_operator(engine);
    }
    let kind = match error.kind() {
        NodeErrorKind::Invalid => Kind::Invalid,
        NodeErrorKind::Unreachable => Kind::Unavailable,
        NodeErrorKind::NotStandby => Kind::NotStandby,
        NodeErrorKind::Stopped => Kind::Closed,
        NodeErrorKind::WrongDatabase => Kind::Diverged,
        NodeErrorKind::Io => Kind::Io,
        _ => Kind::Internal,
    };
    status(kind, error.to_string())
}

/// Why a node that does not serve does not.
pub fn not_serving(state: &NodeState) -> Status {
    match state.role {
        NodeRole::Fenced => status(
            Kind::Fenced,
            "this node was fenced by a newer epoch: another is the primary",
        ),
        NodeRole::Stopped => status(Kind::Closed, "this node is stopping"),
        NodeRole::Waiting => status(
            Kind::NotPrimary,
            "this node does not serve yet: it is making sure that no other does",
        ),
        _ => status(
            Kind::NotPrimary,
            "this node is a standby: the primary is elsewhere",
        ),
    }
}

/// Eight random hexadecimal digits, by which a person finds the log line.
fn incident() -> String {
    let mut id = [0; 4];
    // Without randomness the id says nothing; the log line has the time all the same.
    let _ = getrandom::fill(&mut id);
    hex::encode(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_client::ClientError;

    const KINDS: [ErrorKind; 18] = [
        ErrorKind::Invalid,
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::Locked,
        ErrorKind::KeyRefused,
        ErrorKind::Corruption,
        ErrorKind::Unsupported,
        ErrorKind::ReadOnly,
        ErrorKind::Fenced,
        ErrorKind::NotPrimary,
        ErrorKind::Unknown,
        ErrorKind::Conflict,
        ErrorKind::QuotaExceeded,
        ErrorKind::Diverged,
        ErrorKind::Gone,
        ErrorKind::NoSpace,
        ErrorKind::Io,
        ErrorKind::Closed,
    ];

    #[test]
    fn engine_kind_sent_then_the_client_reads_the_same_one() {
        for engine in KINDS {
            let sent = for_tenant(&Error::new(engine, "message"));
            let read = ClientError::from_status(&sent, true);
            assert_eq!(format!("{:?}", read.kind()), format!("{engine:?}"));
        }
    }

    #[test]
    fn machine_fails_then_a_tenant_sees_an_incident_and_an_operator_the_reason() {
        let path = std::path::Path::new("/var/lib/strongroom/wal/7");
        let error = Error::io("sync", path, std::io::Error::other("bad disk"));
        let tenant = for_tenant(&error);
        assert!(
            !tenant.message().contains("/var") && tenant.message().contains("incident"),
            "{tenant:?}"
        );
        let operator = for_operator(&error);
        assert!(
            operator.message().contains("/var/lib/strongroom/wal/7"),
            "{operator:?}"
        );
        assert!(operator.message().contains("bad disk"), "{operator:?}");
    }
}
