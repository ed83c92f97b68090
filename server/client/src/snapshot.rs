//! Repeatable reads.
use bytes::Bytes;

use crate::client::{Entries, RangeOptions};
use crate::error::Result;

/// A repeatable view of the tenant, leased from the primary: it ends some time after its last use, and with a
/// failover ([`Kind::Gone`](crate::Kind::Gone)). Never moves to another node.
pub struct Snapshot {}

#[allow(clippy::todo, unused_variables)]
impl Snapshot {
    /// The version it reads at.
    pub fn seqno(&self) -> u64 { todo!() }
    /// Value of a key at the snapshot.
    pub async fn get(&self, keyspace: &str, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> { todo!() }
    /// Entries at the snapshot.
    pub async fn range(&self, keyspace: &str, options: RangeOptions) -> Result<Entries> { todo!() }
    /// Gives it back.
    pub async fn release(self) -> Result<()> { todo!() }
}
