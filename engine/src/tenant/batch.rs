//! Batches: operations and conditions collected, checked as they come, committed at once.

use bytes::Bytes;

use crate::commit::{CommitTicket, op_cost};
use crate::condition::{Condition, Holds};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::expiry::STAMP_BYTES;
use crate::options::{BATCH_BYTES_MAX, PutOptions, VALUE_BYTES_MAX};
use crate::read::cursor::EntryKind;
use crate::types::{Durability, Position, TenantId};
use crate::wal::format::{push_expiring, push_op};

use super::{Keyspace, Snapshot, check_key};

/// Operations that become visible and durable together, over keyspaces of one tenant.
pub struct Batch {
    pub(super) engine: Engine,
    pub(super) tenant: TenantId,
    pub(super) durability: Durability,
    pub(super) plain: Vec<u8>,
    pub(super) ops: u32,
    pub(super) cost: usize,
    pub(super) conditions: Vec<Condition>,
    /// First rule an added operation broke; told at commit, so that building stays a chain.
    pub(super) broken: Option<Error>,
}

impl Batch {
    /// Adds a put. Limits as for [`Keyspace::put`]; a later operation on the same key wins.
    #[must_use]
    pub fn put(self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Batch {
        self.add(keyspace, key.as_ref(), Some(value.as_ref()), None)
    }

    /// Adds a put with options: see [`Keyspace::put_with`].
    #[must_use]
    pub fn put_with(
        mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: PutOptions,
    ) -> Batch {
        match options.expires(|| self.engine.inner().times.now()) {
            Ok(expires) => self.add(keyspace, key.as_ref(), Some(value.as_ref()), expires),
            Err(error) => {
                self.broken.get_or_insert(error);
                self
            }
        }
    }

    /// Adds a delete.
    #[must_use]
    pub fn delete(self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Batch {
        self.add(keyspace, key.as_ref(), None, None)
    }

    /// Commits the batch only if `key` has exactly this value at that moment; `None`: only if it is not there.
    /// Compared is the newest version in the log, acknowledged or not.
    ///
    /// - Cost: a point read under the commit lock.
    /// - Errors, at commit: `Conflict` (nothing was written: read again).
    #[must_use]
    pub fn require(self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: Option<&[u8]>) -> Batch {
        let value = value.map(Bytes::copy_from_slice);
        let size = value.as_ref().map_or(0, Bytes::len);
        self.condition(keyspace, key.as_ref(), size, Holds::Value(value))
    }

    /// Commits the batch only if nothing was written to `key` since the snapshot was taken, nor the keyspace's
    /// retention changed; a key that came and went in between may count as unchanged, and so does one whose value
    /// expired. Cost and errors as for [`require`](Batch::require).
    #[must_use]
    pub fn require_unchanged(self, keyspace: &Keyspace, key: impl AsRef<[u8]>, since: &Snapshot) -> Batch {
        self.require_unchanged_until(keyspace, key.as_ref(), since, None)
    }

    /// The same, and only if the moment at which what was read expires, if it does, has not come.
    pub(crate) fn require_unchanged_until(
        self,
        keyspace: &Keyspace,
        key: &[u8],
        since: &Snapshot,
        until: Option<u64>,
    ) -> Batch {
        let since = since.clone();
        self.condition(keyspace, key, 0, Holds::Unchanged { since, until })
    }

    fn condition(mut self, keyspace: &Keyspace, key: &[u8], size: usize, holds: Holds) -> Batch {
        let foreign = match &holds {
            Holds::Unchanged { since, .. } => since.check(keyspace).err(),
            Holds::Value(_) => None,
        };
        if self.broken.is_none() {
            self.broken = foreign.or_else(|| self.check(keyspace, key, &[]).err());
        }
        if self.broken.is_none() {
            let tree_key = keyspace.tree_key(key);
            self.cost = self.cost.saturating_add(op_cost(key, &[])).saturating_add(size);
            self.conditions.push(Condition { tree_key, holds });
        }
        self
    }

    /// Overrides the engine's durability for this batch.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Batch {
        self.durability = durability;
        self
    }

    fn add(mut self, keyspace: &Keyspace, key: &[u8], value: Option<&[u8]>, expires: Option<u64>) -> Batch {
        self.push(keyspace, key, value, expires);
        self
    }

    /// Adds a put, which may expire, or without a value a delete.
    pub(super) fn push(
        &mut self,
        keyspace: &Keyspace,
        key: &[u8],
        value: Option<&[u8]>,
        expires: Option<u64>,
    ) {
        let kind = match value {
            Some(_) => EntryKind::Put,
            None => EntryKind::Delete,
        };
        let value = value.unwrap_or_default();
        if self.broken.is_none() {
            self.broken = self.check(keyspace, key, value).err();
        }
        if self.broken.is_none() {
            let id = keyspace.id.0.to_be_bytes();
            match expires {
                Some(at) => push_expiring(id, key, value, at, &mut self.plain),
                None => push_op(kind, id, key, value, &mut self.plain),
            }
            self.ops += 1;
            self.cost += op_cost(key, value) + expires.map_or(0, |_| STAMP_BYTES);
        }
    }

    pub(super) fn check(&self, keyspace: &Keyspace, key: &[u8], value: &[u8]) -> Result<()> {
        check_limits(key, value)?;
        self.check_room(keyspace, op_cost(key, value))
    }

    /// Whether an operation on the keyspace belongs here and has room.
    pub(super) fn check_room(&self, keyspace: &Keyspace, cost: usize) -> Result<()> {
        if self.cost.saturating_add(cost) > BATCH_BYTES_MAX {
            let text = format!("a batch has up to {BATCH_BYTES_MAX} bytes");
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        if keyspace.tenant != self.tenant || !keyspace.engine.same(&self.engine) {
            return Err(Error::new(
                ErrorKind::Invalid,
                "a batch holds keyspaces of one tenant of one database",
            ));
        }
        Ok(())
    }

    /// Operations added so far.
    pub fn len(&self) -> usize {
        self.ops as usize
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.ops == 0
    }

    /// Commits all operations or none. An empty batch is refused (`Invalid`).
    ///
    /// Errors as for [`Keyspace::put`], and `Conflict` if the batch has conditions; a limit broken by an added
    /// operation is reported here.
    pub fn commit(self) -> Result<Position> {
        self.submit()?.wait()
    }

    /// Orders all operations or none, waits for this node's disk, but not for the standby: a
    /// [`Replicated`](Durability::Replicated) commit is acknowledged when the ticket says so. For callers
    /// that must not block, or want many commits on their way to the standby at once.
    ///
    /// ```no_run
    /// # use strongroom::{Engine, Durability, keys::KeyFile};
    /// # let engine = Engine::builder("./data").keys(KeyFile::open("strongroom.key")?).open()?;
    /// # let (tenant, events) = (engine.tenant("acme")?, engine.tenant("acme")?.keyspace("events")?);
    /// let ticket = tenant.batch().put(&events, "k", "v").durability(Durability::Replicated).submit()?;
    /// let ordered_at = ticket.position();
    /// let acknowledged = ticket.wait()?;
    /// # assert_eq!(ordered_at, acknowledged);
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    ///
    /// Errors as for [`commit`](Batch::commit); after one there is nothing to wait for.
    pub fn submit(self) -> Result<CommitTicket> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        if self.ops == 0 {
            return Err(Error::new(ErrorKind::Invalid, "the batch is empty"));
        }
        let inner = self.engine.inner();
        inner.pace(self.tenant, self.plain.len() as u64)?;
        let position = inner.submit(
            self.tenant,
            self.plain,
            self.ops,
            &self.conditions,
            self.durability,
        )?;
        Ok(CommitTicket::new(self.engine, position, self.durability))
    }
}

/// Whether key and value are of a length that they may have.
pub(super) fn check_limits(key: &[u8], value: &[u8]) -> Result<()> {
    check_key(key)?;
    if value.len() > VALUE_BYTES_MAX {
        let text = format!(
            "a value has up to {VALUE_BYTES_MAX} bytes, this one has {}",
            value.len()
        );
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    Ok(())
}
