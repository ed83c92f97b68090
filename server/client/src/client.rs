//! Reads and writes of one tenant.
use std::ops::Bound;

use bytes::Bytes;

use crate::config::ClientConfig;
use crate::error::Result;
use crate::proto::kv::{Durability, Position};
use crate::snapshot::Snapshot;

/// How a write is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct WriteOptions {
    /// `Unspecified`: the server's default.
    pub durability: Durability,
    /// Retry also when the outcome is unknown: the caller vouches that applying the write twice does no harm.
    pub retry_unknown: bool,
}

impl WriteOptions {
    /// Defaults.
    pub fn new() -> WriteOptions { WriteOptions::default() }
    /// With this durability.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> WriteOptions { self.durability = durability; self }
    /// Whether to retry when the outcome is unknown.
    #[must_use]
    pub fn retry_unknown(mut self, yes: bool) -> WriteOptions { self.retry_unknown = yes; self }
}

/// Which entries a range yields. Default: all, forwards.
#[derive(Clone, Debug)]
pub struct RangeOptions {
    start: Bound<Bytes>,
    end: Bound<Bytes>,
    limit: u64,
    reverse: bool,
    keys_only: bool,
}

#[allow(clippy::todo, unused_variables)]
impl RangeOptions {
    /// Everything.
    pub fn all() -> RangeOptions { todo!() }
    /// Keys that start with `prefix`.
    pub fn prefix(prefix: impl AsRef<[u8]>) -> RangeOptions { todo!() }
    /// Keys in `range`.
    pub fn keys<K: AsRef<[u8]>>(range: impl std::ops::RangeBounds<K>) -> RangeOptions { todo!() }
    /// At most `limit` entries; 0: all.
    #[must_use]
    pub fn limit(self, limit: u64) -> RangeOptions { todo!() }
    /// From the upper end downwards.
    #[must_use]
    pub fn reverse(self) -> RangeOptions { todo!() }
    /// Without values.
    #[must_use]
    pub fn keys_only(self) -> RangeOptions { todo!() }
}

/// Operations that are applied all or not at all, over any keyspaces of the tenant.
#[derive(Clone, Default)]
pub struct Batch {}

#[allow(clippy::todo, unused_variables)]
impl Batch {
    /// Empty.
    pub fn new() -> Batch { todo!() }
    /// Adds a put.
    #[must_use]
    pub fn put(self, keyspace: &str, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Batch { todo!() }
    /// Adds a delete.
    #[must_use]
    pub fn delete(self, keyspace: &str, key: impl Into<Bytes>) -> Batch { todo!() }
    /// Operations in it.
    pub fn len(&self) -> usize { todo!() }
    /// Whether it has none.
    pub fn is_empty(&self) -> bool { todo!() }
    /// Bytes of its keys, values and keyspace names.
    pub fn bytes(&self) -> usize { todo!() }
}

/// Entries of a range, as they arrive.
pub struct Entries {}

#[allow(clippy::todo, unused_variables)]
impl Entries {
    /// The next entry; `None` after the last. An error ends it: begin again after the last key seen.
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> { todo!() }
}

/// Reads and writes one tenant's data at the primary. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {}

#[allow(clippy::todo, unused_variables)]
impl Client {
    /// Finds the primary among the endpoints. Fails after `failover_timeout`, or at once if the configuration
    /// cannot work.
    pub async fn connect(config: ClientConfig) -> Result<Client> { todo!() }
    /// Newest value.
    pub async fn get(&self, keyspace: &str, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> { todo!() }
    /// Stores a value.
    pub async fn put(&self, keyspace: &str, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Position> { todo!() }
    /// Stores a value, with options.
    pub async fn put_with(&self, keyspace: &str, key: impl Into<Bytes>, value: impl Into<Bytes>, options: WriteOptions) -> Result<Position> { todo!() }
    /// Removes a key.
    pub async fn delete(&self, keyspace: &str, key: impl Into<Bytes>) -> Result<Position> { todo!() }
    /// Removes a key, with options.
    pub async fn delete_with(&self, keyspace: &str, key: impl Into<Bytes>, options: WriteOptions) -> Result<Position> { todo!() }
    /// Applies a batch.
    pub async fn batch(&self, batch: Batch) -> Result<Position> { todo!() }
    /// Applies a batch, with options.
    pub async fn batch_with(&self, batch: Batch, options: WriteOptions) -> Result<Position> { todo!() }
    /// Entries of a range.
    pub async fn range(&self, keyspace: &str, options: RangeOptions) -> Result<Entries> { todo!() }
    /// Opens a repeatable view.
    pub async fn snapshot(&self) -> Result<Snapshot> { todo!() }
    /// The endpoint in use.
    pub fn endpoint(&self) -> String { todo!() }
}
