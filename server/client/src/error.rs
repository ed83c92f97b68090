//! What a failed call means to the caller, and the names it has on the wire.
//!
//! The server puts the kind's name into the metadata [`ERROR_KIND_KEY`] of every status it makes itself. A
//! status without it was made by the transport (or something between): then nothing is known of the call except
//! what [`ClientError::from_status`] can prove.

use std::fmt;

use tonic::Code;

/// Metadata key of a failed call that carries [`Kind::name`].
pub const ERROR_KIND_KEY: &str = "strongroom-error-kind";

/// Result with this crate's [`ClientError`].
pub type Result<T> = std::result::Result<T, ClientError>;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $code:ident;)*) => {
        /// What the caller does next. The names are the server's, on the wire and in JSON.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Kind] = &[$(Kind::$kind,)*];

            /// Name on the wire: lower_snake_case, never changed.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)* }
            }

            /// The gRPC code the server answers with.
            pub fn code(self) -> Code {
                match self { $(Kind::$kind => Code::$code,)* }
            }
        }
    };
}

kinds! {
    /// The call breaks a limit or a rule: fix the call.
    Invalid = "invalid", InvalidArgument;
    /// The tenant, keyspace or token does not exist.
    NotFound = "not_found", NotFound;
    /// The name is taken.
    AlreadyExists = "already_exists", AlreadyExists;
    /// Another process has the directory open.
    Locked = "locked", FailedPrecondition;
    /// The key provider refused.
    KeyRefused = "key_refused", FailedPrecondition;
    /// Stored bytes are not what was written: restore from the standby or a backup.
    Corruption = "corruption", DataLoss;
    /// Written by a newer version, or not supported by this server.
    Unsupported = "unsupported", Unimplemented;
    /// The engine stopped writing until it is reopened. Not applied.
    ReadOnly = "read_only", Unavailable;
    /// The node is fenced by a newer epoch: another node is the primary. Not applied.
    Fenced = "fenced", FailedPrecondition;
    /// The node is a standby: the primary is elsewhere. Not applied.
    NotPrimary = "not_primary", FailedPrecondition;
    /// It may or may not have been applied: read back.
    Unknown = "unknown", Unknown;
    /// A condition of the batch does not hold. Not applied: read again, and try again.
    Conflict = "conflict", Aborted;
    /// The tenant takes as much as its quota allows. Not applied: delete data, or ask for more.
    QuotaExceeded = "quota_exceeded", ResourceExhausted;
    /// The two histories parted.
    Diverged = "diverged", FailedPrecondition;
    /// No longer kept: a snapshot whose lease ended, a position too old.
    Gone = "gone", NotFound;
    /// The server's disk is full. Not applied.
    NoSpace = "no_space", ResourceExhausted;
    /// The server's operating system failed a call. A write that met the failure itself may or may not survive.
    Io = "io", Internal;
    /// The server is shutting down. Not applied.
    Closed = "closed", Unavailable;
    /// Too much at once (calls in flight, snapshots): try again later. Not applied.
    Busy = "busy", ResourceExhausted;
    /// Wrong, revoked or missing token, or the certificate was refused.
    Unauthenticated = "unauthenticated", Unauthenticated;
    /// The certificate does not carry the role.
    PermissionDenied = "permission_denied", PermissionDenied;
    /// Refused because more could be lost than the caller allows.
    WouldLose = "would_lose", FailedPrecondition;
    /// Promotion of a node that is not a standby.
    NotStandby = "not_standby", FailedPrecondition;
    /// The node is not in the state the caller stated it expects.
    ExpectationFailed = "expectation_failed", FailedPrecondition;
    /// Restored and not accepted yet: refuses writes. Not applied.
    AwaitingAcceptance = "awaiting_acceptance", FailedPrecondition;
    /// No node could be reached, or the connection could not be made. Not applied.
    Unavailable = "unavailable", Unavailable;
    /// A read took longer than the caller allows.
    Timeout = "timeout", DeadlineExceeded;
    /// Anything else.
    Internal = "internal", Internal;
}

impl Kind {
    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// Whether another node, or this one a little later, may well answer the same call.
    pub fn is_elsewhere(self) -> bool {
        matches!(
            self,
            Kind::NotPrimary | Kind::Fenced | Kind::Closed | Kind::Unavailable
        )
    }
}

/// A failed call.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientError {
    kind: Kind,
    message: String,
}

impl ClientError {
    /// An error of `kind`.
    pub fn new(kind: Kind, message: impl Into<String>) -> ClientError {
        ClientError {
            kind,
            message: message.into(),
        }
    }

    /// What the caller does next.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// For people. Never a key, a value or a name.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What a status means. `write`: the call may have changed something, so that a status whose origin is
    /// unclear means [`Kind::Unknown`].
    pub fn from_status(status: &tonic::Status, write: bool) -> ClientError {
        let told = status
            .metadata()
            .get(ERROR_KIND_KEY)
            .and_then(|name| name.to_str().ok());
        if let Some(kind) = told.and_then(Kind::from_name) {
            return ClientError::new(kind, status.message());
        }
        let kind = match status.code() {
            // Made before the request left this process, or by the server's own limits before any handler ran.
            _ if caused_by::<tonic::ConnectError>(status) => Kind::Unavailable,
            Code::Unauthenticated => Kind::Unauthenticated,
            Code::PermissionDenied => Kind::PermissionDenied,
            Code::Unimplemented => Kind::Unsupported,
            Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
            _ if write => Kind::Unknown,
            _ if caused_by::<tonic::TimeoutExpired>(status) => Kind::Timeout,
            Code::DeadlineExceeded => Kind::Timeout,
            Code::ResourceExhausted => Kind::Busy,
            // A connection that broke off: only statuses made on this side have a cause.
            _ if std::error::Error::source(status).is_some() => Kind::Unavailable,
            Code::Unavailable | Code::Unknown | Code::Cancelled => Kind::Unavailable,
            _ => Kind::Internal,
        };
        ClientError::new(kind, describe(status))
    }
}

/// Whether an `E` is among the causes. A `ConnectError` means that the request was never sent.
fn caused_by<E: std::error::Error + 'static>(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<E>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The status with its causes: transport statuses alone say little ("transport error").
fn describe(status: &tonic::Status) -> String {
    let mut text = match status.message() {
        "" => status.code().description().to_string(),
        message => message.to_string(),
    };
    if let Some(source) = std::error::Error::source(status) {
        let causes = crate::channel::causes(source);
        if !text.contains(&causes) {
            text = format!("{text}: {causes}");
        }
    }
    text
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

impl std::error::Error for ClientError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()), Some(*kind));
        }
        assert_eq!(Kind::from_name("no such kind"), None);
    }

    #[test]
    fn status_without_a_kind_then_a_write_is_unknown_and_a_read_is_not() {
        let status = tonic::Status::unavailable("connection reset");
        assert_eq!(ClientError::from_status(&status, true).kind(), Kind::Unknown);
        assert_eq!(ClientError::from_status(&status, false).kind(), Kind::Unavailable);
    }
}
