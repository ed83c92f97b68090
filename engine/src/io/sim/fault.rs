//! What goes wrong, and when: faults are counted in operations, so that every one can be tried.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use super::cruelty::{Misdeed, Strike};
use super::names::Ino;

/// A call that changes files, names or their durability. Each counts as one operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum OpKind {
    /// `Vfs::create_dir_all`
    CreateDir,
    /// `Vfs::create`
    Create,
    /// `Vfs::rename`
    Rename,
    /// `Vfs::remove_file`
    RemoveFile,
    /// `Vfs::remove_dir`
    RemoveDir,
    /// `Vfs::hard_link`
    Link,
    /// `Vfs::sync_dir`
    SyncDir,
    /// `Vfs::lock`
    Lock,
    /// `File::write_all_at`
    Write,
    /// `File::set_len` that grows or keeps the length
    SetLen,
    /// `File::set_len` that shrinks: works on a full disk
    Cut,
    /// `File::sync`
    Sync,
}

impl OpKind {
    /// Whether it needs a file descriptor.
    fn opens(self) -> bool {
        matches!(self, OpKind::Create | OpKind::Lock)
    }

    /// Whether a full disk refuses it.
    fn allocates(self) -> bool {
        matches!(
            self,
            OpKind::CreateDir | OpKind::Create | OpKind::Link | OpKind::Write | OpKind::SetLen
        )
    }
}

/// One counted operation, as a probe sees it just before it is executed.
#[derive(Clone, Debug)]
pub struct Op {
    /// From 1.
    pub number: u64,
    /// Which call.
    pub kind: OpKind,
    /// What it is about: the name given, for open files the name they were opened by.
    pub path: PathBuf,
}

/// Which calls a fault counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Calls {
    /// Those that change or sync: [`SimFs::ops`](super::SimFs::ops) counts them.
    Changing,
    /// Those that only look: [`SimFs::reads`](super::SimFs::reads) counts them.
    Reading,
    /// Those that need a file descriptor, of both kinds: [`SimFs::opens`](super::SimFs::opens) counts them.
    Opening,
}

/// How often a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Times {
    /// At its operation only.
    Once,
    /// At its operation and all later ones. A full disk (`StorageFull`, `QuotaExceeded`) goes on removing
    /// and syncing.
    Forever,
}

/// An injected failure. The call it strikes is not executed, but: a failed write may have left its
/// first half (`half_write`), and a failed sync drops what was unsynced from the books, so that it
/// stays readable, counts as synced from then on, and is lost by the next crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Which counter `at` refers to.
    pub calls: Calls,
    /// Number of the operation it strikes first, from 1.
    pub at: u64,
    /// How often.
    pub times: Times,
    /// The error's kind; `Other` for a plain I/O error (EIO has no stable kind).
    pub kind: io::ErrorKind,
    /// Whether a struck write leaves its first half in the file.
    pub half_write: bool,
}

impl Fault {
    /// An I/O error at the `at`-th changing operation.
    pub fn io_error(at: u64, times: Times) -> Fault {
        Fault {
            calls: Calls::Changing,
            at,
            times,
            kind: io::ErrorKind::Other,
            half_write: false,
        }
    }

    /// A full disk at the `at`-th changing operation; writes leave their first half.
    pub fn disk_full(at: u64, times: Times) -> Fault {
        Fault {
            calls: Calls::Changing,
            at,
            times,
            kind: io::ErrorKind::StorageFull,
            half_write: true,
        }
    }

    /// An I/O error at the `at`-th reading call.
    pub fn read_error(at: u64, times: Times) -> Fault {
        Fault {
            calls: Calls::Reading,
            ..Fault::io_error(at, times)
        }
    }

    /// No file descriptor is left at the `at`-th call that needs one.
    pub fn no_descriptor(at: u64, times: Times) -> Fault {
        Fault {
            calls: Calls::Opening,
            ..Fault::io_error(at, times)
        }
    }
}

/// What becomes of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Execute,
    Fail { kind: io::ErrorKind, half_write: bool },
}

/// Counters, faults and the planned crash.
#[derive(Clone, Default, Debug)]
pub(super) struct Plan {
    pub(super) ops: u64,
    pub(super) reads: u64,
    pub(super) opens: u64,
    pub(super) faults: Vec<Fault>,
    /// Operation from which the machine is off, and whether a write there is half done.
    pub(super) crash_at: Option<(u64, bool)>,
    pub(super) crashed: bool,
    /// From which operation or reading call on, and what.
    pub(super) misdeeds: Vec<(u64, Misdeed)>,
    pub(super) spoilt: Vec<(Ino, Range<u64>)>,
    pub(super) strikes: Vec<Strike>,
}

impl Plan {
    /// Counts one changing operation and decides about it.
    pub(super) fn change(&mut self, kind: OpKind) -> Verdict {
        if self.crashed {
            return OFF;
        }
        self.ops += 1;
        if let Some((at, half_write)) = self.crash_at
            && self.ops >= at
        {
            self.crashed = true;
            return Verdict::Fail {
                kind: io::ErrorKind::Other,
                half_write,
            };
        }
        let struck = self
            .faults
            .iter()
            .find_map(|f| f.verdict(Calls::Changing, self.ops, Some(kind)));
        struck.unwrap_or_else(|| self.open_one(kind.opens()))
    }

    /// Counts a call that needs a descriptor and decides about it.
    fn open_one(&mut self, opens: bool) -> Verdict {
        if !opens {
            return Verdict::Execute;
        }
        self.opens += 1;
        self.faults
            .iter()
            .find_map(|f| f.verdict(Calls::Opening, self.opens, None))
            .unwrap_or(Verdict::Execute)
    }

    /// The fault behind a verdict, by its usual name.
    pub(super) fn struck(&self, verdict: Verdict) -> Option<&'static str> {
        match verdict {
            Verdict::Fail { kind, .. } if !self.crashed => Some(match kind {
                io::ErrorKind::StorageFull => "ENOSPC",
                _ => "EIO",
            }),
            _ => None,
        }
    }

    /// Counts one reading call and decides about it.
    pub(super) fn read(&mut self, opens: bool) -> Verdict {
        if self.crashed {
            return OFF;
        }
        self.reads += 1;
        let struck = self
            .faults
            .iter()
            .find_map(|f| f.verdict(Calls::Reading, self.reads, None));
        struck.unwrap_or_else(|| self.open_one(opens))
    }
}

const OFF: Verdict = Verdict::Fail {
    kind: io::ErrorKind::Other,
    half_write: false,
};

impl Fault {
    fn verdict(&self, calls: Calls, now: u64, kind: Option<OpKind>) -> Option<Verdict> {
        let strikes = self.calls == calls
            && match self.times {
                Times::Once => now == self.at,
                Times::Forever if is_full(self.kind) => now >= self.at && kind.is_none_or(OpKind::allocates),
                Times::Forever => now >= self.at,
            };
        strikes.then_some(Verdict::Fail {
            kind: self.kind,
            half_write: self.half_write,
        })
    }
}

fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The error of a struck call.
pub(super) fn error(kind: io::ErrorKind, crashed: bool) -> io::Error {
    io::Error::new(
        kind,
        if crashed {
            "simulated: the machine is off"
        } else {
            "simulated fault"
        },
    )
}
