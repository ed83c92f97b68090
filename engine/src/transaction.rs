//! Optimistic transactions of one tenant: read at a snapshot, write at the end, if nothing that was read changed.
//!
//! Serializable for what is read by [`get`](Transaction::get), as if each ran alone at the moment of its commit
//! (Kung and Robinson, "On optimistic methods for concurrency control", 1981, with backward validation). Ranges
//! are not offered: a key that appears in one could not be noticed.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::Result;
use crate::tenant::{Batch, Keyspace, Snapshot, Tenant};
use crate::types::{Durability, KeyspaceId, Position};

type Place = (KeyspaceId, Vec<u8>);

/// Reads and writes that take effect together or not at all. Dropping it gives them up.
///
/// Nothing is locked while it runs; what it writes lies in memory until the commit.
///
/// ```no_run
/// # use strongroom::{Engine, ErrorKind, keys::KeyFile};
/// # let engine = Engine::builder("./data").keys(KeyFile::open("strongroom.key")?).open()?;
/// # let tenant = engine.tenant("acme")?;
/// # let accounts = tenant.keyspace("accounts")?;
/// let position = loop {
///     let mut transaction = tenant.transaction();
///     let seen = transaction.get(&accounts, "visits")?;
///     let count = seen.map_or(0, |bytes| bytes.len()) + 1;
///     transaction.put(&accounts, "visits", vec![b'x'; count]);
///     match transaction.commit() {
///         Err(e) if e.kind() == ErrorKind::Conflict => continue,
///         outcome => break outcome?,
///     }
/// };
/// # Ok::<(), strongroom::Error>(())
/// ```
pub struct Transaction {
    tenant: Tenant,
    snapshot: Snapshot,
    durability: Option<Durability>,
    read: BTreeMap<Place, Keyspace>,
    written: BTreeMap<Place, (Keyspace, Option<Bytes>)>,
}

impl Transaction {
    pub(crate) fn new(tenant: Tenant) -> Transaction {
        Transaction {
            snapshot: tenant.snapshot(),
            tenant,
            durability: None,
            read: BTreeMap::new(),
            written: BTreeMap::new(),
        }
    }

    /// The value: what this transaction wrote, or else what was there when it began. Errors as for
    /// [`Snapshot::get`].
    pub fn get(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        let place = (keyspace.id(), key.as_ref().to_vec());
        if let Some((_, value)) = self.written.get(&place) {
            return Ok(value.clone());
        }
        let value = self.snapshot.get(keyspace, &place.1)?;
        self.read.entry(place).or_insert_with(|| keyspace.clone());
        Ok(value)
    }

    /// Writes a value. A limit it breaks is told by [`commit`](Transaction::commit).
    pub fn put(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.write(
            keyspace,
            key.as_ref(),
            Some(Bytes::copy_from_slice(value.as_ref())),
        );
    }

    /// Removes a key.
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) {
        self.write(keyspace, key.as_ref(), None);
    }

    fn write(&mut self, keyspace: &Keyspace, key: &[u8], value: Option<Bytes>) {
        let place = (keyspace.id(), key.to_vec());
        self.written.insert(place, (keyspace.clone(), value));
    }

    /// Overrides the engine's durability for the commit.
    pub fn durability(&mut self, durability: Durability) {
        self.durability = Some(durability);
    }

    /// Commits all that was written, if nothing that was read has changed since the transaction began. `None`:
    /// nothing was written, and what was read was true when it began.
    ///
    /// - Cost: one point read for each key read, under the commit lock.
    /// - Errors: `Conflict` (nothing was written: begin again), and those of [`Batch::commit`].
    pub fn commit(self) -> Result<Option<Position>> {
        if self.written.is_empty() {
            return Ok(None);
        }
        let mut batch: Batch = self.tenant.batch();
        if let Some(durability) = self.durability {
            batch = batch.durability(durability);
        }
        for ((_, key), keyspace) in &self.read {
            batch = batch.require_unchanged(keyspace, key, &self.snapshot);
        }
        for ((_, key), (keyspace, value)) in &self.written {
            batch = match value {
                Some(value) => batch.put(keyspace, key, value),
                None => batch.delete(keyspace, key),
            };
        }
        batch.commit().map(Some)
    }
}
