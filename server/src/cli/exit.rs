//! How a command ends: one table from everything that can go wrong to an exit code.
//!
//! ```text
//!  0 ok                           11 locked by another process
//!  1 failed                       12 key or credential refused
//!  2 usage                        13 not primary, or fenced
//!  3 answered, but unhealthy      14 refused because data would be lost
//! 10 absent                       15 outcome unknown
//!                                 16 a condition does not hold
//! ```
//!
//! Codes are a promise to scripts: they are never renumbered. A code that is not in the table is a
//! failure. Messages never carry keys, values or names a tenant chose, unless the user typed them.

use std::fmt;
use std::process::ExitCode;

use strongroom::ErrorKind;
use strongroom_client::{ClientError, Kind};
use strongroom_server::app::AppError;
use strongroom_server::config::ConfigError;

/// Result of a verb.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Exit code of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// Failed for a reason that has no code of its own.
    Failed = 1,
    /// The command line, the configuration or the input is wrong.
    Usage = 2,
    /// The question was answered, and the answer is not good.
    Unhealthy = 3,
    /// What was asked for does not exist.
    Absent = 10,
    /// Another process has the directory open.
    Locked = 11,
    /// A key file, certificate or token was refused.
    Refused = 12,
    /// This node does not take writes: a standby, or fenced by a newer primary.
    NotPrimary = 13,
    /// Refused, because going on would lose data.
    WouldLose = 14,
    /// It may or may not have happened: look again before repeating it.
    Unknown = 15,
    /// A condition of a write does not hold: nothing was written.
    Conflict = 16,
    /// Interrupted from the keyboard, as shells have it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// The table, for errors of the engine.
pub fn of_engine(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::Invalid => Exit::Usage,
        ErrorKind::NotFound => Exit::Absent,
        ErrorKind::Locked => Exit::Locked,
        ErrorKind::KeyRefused => Exit::Refused,
        // Of a file or a directory: writing there would replace what is there.
        ErrorKind::AlreadyExists => Exit::WouldLose,
        ErrorKind::Fenced | ErrorKind::NotPrimary => Exit::NotPrimary,
        ErrorKind::Unknown => Exit::Unknown,
        ErrorKind::Conflict => Exit::Conflict,
        _ => Exit::Failed,
    }
}

/// The table, for what a server or the way to it answered.
pub fn of_client(kind: Kind) -> Exit {
    match kind {
        Kind::Invalid => Exit::Usage,
        Kind::NotFound | Kind::Gone => Exit::Absent,
        Kind::Locked => Exit::Locked,
        Kind::KeyRefused | Kind::Unauthenticated | Kind::PermissionDenied => Exit::Refused,
        Kind::Fenced | Kind::NotPrimary | Kind::AwaitingAcceptance => Exit::NotPrimary,
        Kind::WouldLose => Exit::WouldLose,
        Kind::Unknown => Exit::Unknown,
        Kind::Conflict => Exit::Conflict,
        _ => Exit::Failed,
    }
}

/// The table, for a node that did not start.
pub fn of_replication(error: &strongroom_replication::Error) -> Exit {
    use strongroom_replication::ErrorKind as Kind;
    match (error.engine_kind(), error.kind()) {
        (Some(kind), _) => of_engine(kind),
        (None, Kind::Invalid) => Exit::Usage,
        (None, Kind::Tls | Kind::Refused) => Exit::Refused,
        _ => Exit::Failed,
    }
}

/// Why a verb did not succeed: the exit code, what happened, and what to do next.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// One or more lines for a person.
    pub message: String,
}

impl Failure {
    /// A failure with this code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
        }
    }

    /// A failure without a code of its own.
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, message)
    }

    /// Wrong command line, configuration or input.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    /// The same failure, saying what was being done.
    #[must_use]
    pub fn during(mut self, what: impl fmt::Display) -> Failure {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// `error` with its causes, each said once.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

impl From<strongroom::Error> for Failure {
    fn from(error: strongroom::Error) -> Failure {
        Failure::new(of_engine(error.kind()), chain(&error))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure::new(
            of_client(error.kind()),
            format!("{} ({})", error.message(), error.kind().name()),
        )
    }
}

impl From<strongroom_server::template::BadTemplate> for Failure {
    fn from(error: strongroom_server::template::BadTemplate) -> Failure {
        Failure::usage(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::usage(error.0)
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Failure {
        let exit = match &error {
            AppError::Config(_) => Exit::Usage,
            AppError::Engine(error) => of_engine(error.kind()),
            AppError::Node(error) => of_replication(error),
            _ => Exit::Failed,
        };
        Failure::new(exit, chain(&error))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        let exit = if error.kind() == std::io::ErrorKind::NotFound {
            Exit::Absent
        } else {
            Exit::Failed
        };
        Failure::new(exit, error.to_string())
    }
}

/// A failed call on a file, named.
pub fn at(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Failure + '_ {
    move |error| Failure::from(error).during(path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_the_one_promised() {
        let promised = [
            (Exit::Ok, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::Unhealthy, 3),
            (Exit::Absent, 10),
            (Exit::Locked, 11),
            (Exit::Refused, 12),
            (Exit::NotPrimary, 13),
            (Exit::WouldLose, 14),
            (Exit::Unknown, 15),
            (Exit::Interrupted, 130),
        ];
        for (exit, code) in promised {
            assert_eq!(exit as u8, code, "{exit:?}");
        }
    }

    #[test]
    fn an_engine_error_keeps_its_cause_in_the_message() {
        let cause = std::io::Error::other("device is on fire");
        let error = strongroom::Error::io("sync", std::path::Path::new("/d/wal"), cause);
        let failure = Failure::from(error);
        assert_eq!(failure.exit, Exit::Failed);
        assert!(
            failure.message.contains("/d/wal") && failure.message.contains("on fire"),
            "{failure}"
        );
    }

    #[test]
    fn a_missing_file_is_absent() {
        let error = std::io::Error::from(std::io::ErrorKind::NotFound);
        let failure = at(std::path::Path::new("/nope"))(error);
        assert_eq!(failure.exit, Exit::Absent);
        assert!(failure.message.starts_with("/nope"));
    }
}
