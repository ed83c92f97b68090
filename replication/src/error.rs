//! One error type. The kind says what the caller does next; the message carries no key, value or name a
//! tenant chose. An engine error stays reachable whole, for its own kind.

use std::fmt;

use strongroom::ErrorKind as EngineKind;

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What the caller does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration or the call breaks a rule: fix it.
    Invalid,
    /// A certificate or key file cannot be used: see the message.
    Tls,
    /// The peer does not answer: it is down, or the way to it is cut. Retried where a loop exists.
    Unreachable,
    /// The peer answered and refused (no replication role, wrong protocol, not the primary).
    Refused,
    /// The peer sent what the protocol does not allow: the connection is dropped.
    Protocol,
    /// The peer holds another database. Nothing is copied over it: check addresses and directories.
    WrongDatabase,
    /// The call needs a standby that holds data; this node is something else at the moment.
    NotStandby,
    /// The engine reports it: see [`Error::engine`].
    Engine,
    /// The operating system failed a call on a directory or socket of the node.
    Io,
    /// The node was shut down.
    Stopped,
}

/// An error: kind, message, cause.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            source: None,
        }))
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        self.0.source = Some(Box::new(source));
        self
    }

    /// A failed system call, `action` on `path`.
    pub fn io(action: &str, path: &std::path::Path, source: std::io::Error) -> Error {
        Error::new(ErrorKind::Io, format!("{action} failed [{}]", path.display())).with_source(source)
    }

    /// What the caller does next.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The engine's error, when [`kind`](Error::kind) is [`ErrorKind::Engine`].
    pub fn engine(&self) -> Option<&strongroom::Error> {
        self.0.source.as_deref().and_then(|source| source.downcast_ref())
    }

    /// The engine's kind, if the engine reported this.
    pub fn engine_kind(&self) -> Option<EngineKind> {
        self.engine().map(strongroom::Error::kind)
    }
}

impl From<strongroom::Error> for Error {
    fn from(source: strongroom::Error) -> Error {
        Error::new(ErrorKind::Engine, "engine").with_source(source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.engine() {
            Some(engine) => fmt::Display::fmt(engine, f),
            None => f.write_str(&self.0.message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)?;
        if let Some(source) = &self.0.source {
            write!(f, ": {source:?}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.engine() {
            // Displayed as itself, so the chain goes on below it.
            Some(engine) => std::error::Error::source(engine),
            None => self
                .0
                .source
                .as_ref()
                .map(|s| s.as_ref() as &(dyn std::error::Error + 'static)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_error_wrapped_then_its_kind_and_text_remain() {
        let error = Error::from(strongroom::Error::new(EngineKind::Diverged, "histories parted"));
        assert_eq!(error.kind(), ErrorKind::Engine);
        assert_eq!(error.engine_kind(), Some(EngineKind::Diverged));
        assert_eq!(error.to_string(), "histories parted");
    }

    #[test]
    fn plain_error_then_no_engine_kind() {
        let error = Error::new(ErrorKind::Refused, "no");
        assert_eq!(error.engine_kind(), None);
        assert_eq!(error.to_string(), "no");
    }
}
