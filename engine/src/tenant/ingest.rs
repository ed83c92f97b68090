//! Bulk loading: entries in order of key, written in large batches, made durable once at the end.
//!
//! ```text
//! push, push, …  ──►  batches of about 1 MiB, `Buffered`  ──►  the last one as durable as the engine's default:
//!                                                              what is before it in the log is so with it
//! ```
//!
//! It goes through the log, as every write does: standbys and archives get what is in the log, and a table handed over
//! beside it would be in neither. What that costs is one copy of the data in the log; what is saved is a sync, a place in
//! the queue of writers and a confirmation for each entry.
//!
//! Invariants: every batch but the last is committed before the next one begins, so what is committed is a prefix of what
//! was pushed; after a batch that was refused none is committed, so that nothing is missing in between.

use crate::commit::op_cost;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{Durability, Position};

use super::batch::check_limits;
use super::{Batch, Keyspace};

/// A batch is committed when the next entry would make it larger than that.
const BATCH_BYTES: usize = 1 << 20;

/// Writes sorted entries in bulk: see [`Keyspace::ingest`].
#[must_use = "what was pushed is whole and durable when it is finished"]
pub struct Ingest {
    keyspace: Keyspace,
    /// Not committed yet.
    batch: Batch,
    /// The key pushed last; empty before the first, as no key is.
    last: Vec<u8>,
    committed: u64,
    /// Of the last batch that was committed.
    position: Option<Position>,
    /// Why one was not.
    failed: Option<Error>,
}

impl Keyspace {
    /// Starts to write many entries in strictly ascending order of their keys, much faster than one by one: they are
    /// committed in batches of about 1 MiB, and made durable at the end. What is there already is overwritten.
    ///
    /// **Not atomic**: readers see the entries appear batch by batch, and after a crash or an error a prefix of them may be
    /// there. Doing it again, from the first entry on, is harmless. Other writes to the keyspace may go on meanwhile.
    ///
    /// - Cost: as a batch of the same entries; no sync before the end. Memory for two batches. It is slowed down as every
    ///   writer is while flush and compaction are behind.
    ///
    /// ```no_run
    /// # use strongroom::{Engine, keys::KeyFile};
    /// # let engine = Engine::builder("./data").keys(KeyFile::open("strongroom.key")?).open()?;
    /// # let events = engine.tenant("acme")?.keyspace("events")?;
    /// let mut ingest = events.ingest();
    /// for n in 0..1_000_000u64 {
    ///     ingest.push(n.to_be_bytes(), "value")?;
    /// }
    /// let durable_at = ingest.finish()?;
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    pub fn ingest(&self) -> Ingest {
        Ingest {
            keyspace: self.clone(),
            batch: self.batch().durability(Durability::Buffered),
            last: Vec::new(),
            committed: 0,
            position: None,
            failed: None,
        }
    }
}

impl Ingest {
    /// Adds an entry whose key is above that of every one before.
    ///
    /// - Errors: `Invalid` (a limit, or the key is not above the one before; the message has the number of the entry,
    ///   counted from 0): it was not added, and others may be. Any other is that of a batch of entries before it, as
    ///   for [`Keyspace::put`], and the end: it says how many entries are [`committed`](Ingest::committed); begin again
    ///   from the first one, or from that number on with a new ingest, when its cause is gone.
    pub fn push(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.check_going()?;
        let (key, value) = (key.as_ref(), value.as_ref());
        let number = self.committed + self.batch.len() as u64;
        let refused = |why: &str| {
            let text = format!("entry {number} of the ingest was not added: {why}");
            Err(Error::new(ErrorKind::Invalid, text))
        };
        // That there is room is seen to below: whatever is within the limits fits in a batch of its own.
        if let Err(error) = check_limits(key, value) {
            return refused(error.message());
        }
        if key <= self.last.as_slice() {
            return refused("its key is not above that of the entry before");
        }
        if !self.batch.is_empty() && self.batch.cost + op_cost(key, value) > BATCH_BYTES {
            self.commit(BATCH_BYTES)?;
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        self.batch.push(&self.keyspace, key, Some(value), None);
        Ok(())
    }

    /// Commits what is left and waits until all is durable as the engine's [`Options::durability`] asks; the position of the
    /// last entry, None if there was none. More may be pushed afterwards, and finished again.
    ///
    /// - Errors: as for [`Keyspace::put`], and the number of entries that are committed. After `Unknown` all may be there.
    ///
    /// [`Options::durability`]: crate::Options::durability
    pub fn finish(&mut self) -> Result<Option<Position>> {
        self.check_going()?;
        if !self.batch.is_empty() {
            self.batch.durability = self.keyspace.engine.inner().options.durability;
            self.commit(0)?;
        }
        Ok(self.position)
    }

    fn check_going(&self) -> Result<()> {
        match &self.failed {
            Some(error) => Err(error.duplicate()),
            None => Ok(()),
        }
    }

    /// Commits the batch and begins one that is expected to have so many bytes.
    fn commit(&mut self, expected: usize) -> Result<()> {
        let mut next = self.keyspace.batch().durability(Durability::Buffered);
        next.plain.reserve(expected);
        let batch = std::mem::replace(&mut self.batch, next);
        let entries = batch.len() as u64;
        match batch.commit() {
            Ok(position) => {
                self.position = Some(position);
                self.committed += entries;
                Ok(())
            }
            Err(error) => {
                let text = format!("the ingest ended with {} entries committed", self.committed);
                let error = Error::new(error.kind(), text).with_source(error);
                self.failed = Some(error.duplicate());
                Err(error)
            }
        }
    }

    /// How many entries are committed, from the first one on: visible, and durable as `Buffered` is; all of them as the
    /// engine asks once [`finish`](Ingest::finish) has returned.
    pub fn committed(&self) -> u64 {
        self.committed
    }
}
