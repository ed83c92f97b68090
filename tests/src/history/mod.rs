//! What clients saw, and whether one register for each key could have shown it to them.
//!
//! A client asks for a tick before each call and records what came of it after: the call lies between
//! two ticks. Values are unique: each is written at most once, so a read names the write it saw.
//!
//! ```text
//! put, Ok        took effect between its two ticks
//! put, Unknown   took effect at some time after its first tick, however late, or never
//! put, Failed    never took effect
//! get            saw the newest value at some time between its two ticks
//! ```
//!
//! A get that failed says nothing and is not recorded. No key has a value before its first put.
//! [`check`] decides, key by key, whether there is an order of all operations that respects the ticks
//! (linearizability). *Invariant:* what it says names keys by number and never shows a value's bytes:
//! it has only numbers.

mod zones;

#[cfg(test)]
mod search;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How a put ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Acknowledged.
    Ok,
    /// It may have taken effect, or may yet.
    Unknown,
    /// It did not take effect and never will.
    Failed,
}

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Store a value that nobody else stores.
    Put {
        /// The value's number.
        value: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// Read the newest value.
    Get {
        /// What was read: the number of a value, or that there is none.
        value: Option<u64>,
    },
}

/// One call of one client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Operation {
    /// The key's number.
    pub key: u64,
    /// Before it was sent.
    pub invoked: u64,
    /// After its answer was there.
    pub returned: u64,
    /// What it was.
    pub action: Action,
}

impl Operation {
    /// When it had taken effect at the latest: never certain for an unknown put.
    fn settled(&self) -> u64 {
        match self.action {
            Action::Put {
                outcome: Outcome::Unknown,
                ..
            } => u64::MAX,
            _ => self.returned,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.invoked, self.returned);
        match self.action {
            Action::Put { value, outcome } => write!(f, "put of value {value} [{from}..{to}] {outcome:?}"),
            Action::Get { value: Some(value) } => write!(f, "get of value {value} [{from}..{to}]"),
            Action::Get { value: None } => write!(f, "get of nothing [{from}..{to}]"),
        }
    }
}

/// Collects the operations of many clients and hands out ticks: a tick given earlier is smaller.
#[derive(Default)]
pub struct Recorder {
    ticks: AtomicU64,
    operations: Mutex<Vec<Operation>>,
}

/// A call under way. Dropped without a word, it was a get that failed.
#[must_use = "what came of the call is still to be recorded"]
pub struct Call<'a> {
    recorder: &'a Recorder,
    key: u64,
    invoked: u64,
}

impl Recorder {
    /// With nothing recorded.
    pub fn new() -> Recorder {
        Recorder::default()
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Before a call on `key` is sent.
    pub fn call(&self, key: u64) -> Call<'_> {
        Call {
            recorder: self,
            key,
            invoked: self.tick(),
        }
    }

    /// All that was recorded so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Call<'_> {
    /// It was a put of this value, and ended so.
    pub fn put(self, value: u64, outcome: Outcome) {
        self.end(Action::Put { value, outcome });
    }

    /// It was a get that answered this.
    pub fn got(self, value: Option<u64>) {
        self.end(Action::Get { value });
    }

    fn end(self, action: Action) {
        let operation = Operation {
            key: self.key,
            invoked: self.invoked,
            returned: self.recorder.tick(),
            action,
        };
        self.recorder
            .operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(operation);
    }
}

/// In which way a key's history cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// A get saw a value that nobody put.
    Invented,
    /// A get saw a value whose put had certainly failed.
    Failed,
    /// A get saw a value before its put began.
    Future,
    /// A get saw an older value than one that was settled before; the newer one, or one put since, was seen
    /// again later.
    Stale,
    /// A get saw an older value than one that was settled before, and nothing as new was seen again.
    Lost,
    /// One value was put twice: the test is at fault, not the store.
    Twice,
}

/// The first fault of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The key's number.
    pub key: u64,
    /// What is wrong.
    pub fault: Fault,
    /// The operations that show it, in the order of their first ticks.
    pub shown_by: Vec<Operation>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = match self.fault {
            Fault::Invented => "a value was read that nobody put",
            Fault::Failed => "a value was read whose put had failed",
            Fault::Future => "a value was read before its put began",
            Fault::Stale => "an older value was read after a newer one was settled",
            Fault::Lost => "a settled value was gone",
            Fault::Twice => "a value was put twice: the history cannot be judged",
        };
        write!(f, "key {}: {fault}:", self.key)?;
        self.shown_by
            .iter()
            .try_for_each(|operation| write!(f, "\n    {operation}"))
    }
}

/// What a check found.
#[derive(Clone, Default, Debug)]
pub struct Verdict {
    /// Operations looked at.
    pub operations: u64,
    /// Keys they were on.
    pub keys: u64,
    /// At most one for each key.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// Keys with this fault.
    pub fn count(&self, fault: Fault) -> u64 {
        self.violations.iter().filter(|v| v.fault == fault).count() as u64
    }
}

/// Whether each key's operations are those of one register.
pub fn check(operations: &[Operation]) -> Verdict {
    let mut by_key: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
    for operation in operations {
        by_key.entry(operation.key).or_default().push(*operation);
    }
    Verdict {
        operations: operations.len() as u64,
        keys: by_key.len() as u64,
        violations: by_key
            .into_iter()
            .filter_map(|(key, operations)| {
                let (fault, mut shown_by) = zones::fault(&operations)?;
                shown_by.sort_by_key(|operation| operation.invoked);
                shown_by.dedup();
                Some(Violation { key, fault, shown_by })
            })
            .collect(),
    }
}
