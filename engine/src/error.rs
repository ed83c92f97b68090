//! One error type. The kind says what the caller does next; the message names the place, never a key,
//! a value or a tenant's name.

use std::fmt;
use std::path::{Path, PathBuf};

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What the caller does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call breaks a limit or a rule: fix the call.
    Invalid,
    /// The tenant, keyspace or file does not exist (or its key is destroyed).
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// Another process has the directory open: stop it first.
    Locked,
    /// The key provider has no key that opens this database, or refused: check the key file.
    KeyRefused,
    /// Stored bytes are not what was written: restore from the standby or a backup.
    Corruption,
    /// Written by a newer version of Strongroom: upgrade.
    Unsupported,
    /// A sync failed or the engine was told to stop writing: reopen. Reads go on.
    ReadOnly,
    /// A newer epoch exists: this node must step down and follow.
    Fenced,
    /// This node is a standby: send writes to the primary.
    NotPrimary,
    /// The commit is in the log but its acknowledgement could not be obtained: it may or may not
    /// survive. Read back, or retry an idempotent write.
    Unknown,
    /// A condition of the batch does not hold: nothing was written. Read again, and try again.
    Conflict,
    /// The tenant takes as much as its quota allows: nothing was written. Delete data, which always passes and gives
    /// room as compaction comes by, or raise the quota.
    QuotaExceeded,
    /// The two histories parted: this node needs a new base copy.
    Diverged,
    /// The position asked for is no longer kept: start from a base copy.
    Gone,
    /// Disk full: free space; writes resume by themselves.
    NoSpace,
    /// The operating system failed a call: see the source.
    Io,
    /// The engine was closed.
    Closed,
}

/// An error: kind, message, and for damage the file, offset, structure, expected and found.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    offset: Option<u64>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    mismatch: Option<Mismatch>,
}

/// What is not what was written.
#[derive(Clone)]
struct Mismatch {
    structure: String,
    expected: String,
    found: String,
}

impl Error {
    /// An error of `kind`. `message` must not carry a key, a value or a name a tenant chose.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            path: None,
            offset: None,
            source: None,
            mismatch: None,
        }))
    }

    /// Damage at `offset` of `path`: `structure` should have been `expected`, was `found`.
    pub fn corruption(
        path: &Path,
        offset: u64,
        structure: &str,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Error {
        let (expected, found) = (expected.to_string(), found.to_string());
        let message = format!("{structure}: expected {expected}, found {found}");
        let mut error = Error::new(ErrorKind::Corruption, message);
        error.0.mismatch = Some(Mismatch {
            structure: structure.to_owned(),
            expected,
            found,
        });
        error.0.path = Some(path.to_path_buf());
        error.0.offset = Some(offset);
        error
    }

    /// A failed system call on `path`. A full disk becomes [`ErrorKind::NoSpace`].
    pub fn io(action: &str, path: &Path, source: std::io::Error) -> Error {
        let kind = match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            _ => ErrorKind::Io,
        };
        let mut error = Error::new(kind, format!("{action} failed"));
        error.0.path = Some(path.to_path_buf());
        error.0.source = Some(Box::new(source));
        error
    }

    /// The same error, naming the file it is about.
    #[must_use]
    pub fn at(mut self, path: &Path) -> Error {
        self.0.path.get_or_insert_with(|| path.to_path_buf());
        self
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        self.0.source = Some(Box::new(source));
        self
    }

    /// What the caller does next.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// The file the error is about, if any.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The byte offset in [`path`](Error::path), if known.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// Of damage: what is damaged, what was expected there, and what was found.
    pub fn mismatch(&self) -> Option<(&str, &str, &str)> {
        let mismatch = self.0.mismatch.as_ref()?;
        Some((&mismatch.structure, &mismatch.expected, &mismatch.found))
    }

    /// An equal error for a second waiter on the same failure; the source becomes part of the message.
    pub fn duplicate(&self) -> Error {
        let message = match &self.0.source {
            Some(source) => format!("{}: {source}", self.0.message),
            None => self.0.message.clone(),
        };
        Error(Box::new(Inner {
            kind: self.0.kind,
            message,
            path: self.0.path.clone(),
            offset: self.0.offset,
            source: None,
            mismatch: self.0.mismatch.clone(),
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(path) = &self.0.path {
            write!(f, " [{}", path.display())?;
            if let Some(offset) = self.0.offset {
                write!(f, " at byte {offset}")?;
            }
            f.write_str("]")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)?;
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .source
            .as_ref()
            .map(|s| s.as_ref() as &(dyn std::error::Error + 'static))
    }
}
