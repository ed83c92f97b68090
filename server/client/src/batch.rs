//! What is written together.

use std::time::Duration;

use bytes::Bytes;

use crate::proto::kv as pb;
use crate::proto::kv::Durability;

/// Frame of an operation or condition and its fields on the wire, at most.
const FRAME_BYTES: usize = 36;

/// Operations that are applied all or not at all, over any keyspaces of the tenant, if all conditions hold. Later
/// operations win.
#[derive(Clone, Default)]
pub struct Batch {
    operations: Vec<pb::Operation>,
    conditions: Vec<pb::Condition>,
    bytes: usize,
}

impl Batch {
    /// Empty.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds a put.
    #[must_use]
    pub fn put(self, keyspace: &str, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Batch {
        self.add(keyspace, key.into(), Some(value.into()), None)
    }

    /// Adds a put of a value that lives so long, in whole milliseconds, rounded up, from when the server takes the
    /// call.
    #[must_use]
    pub fn put_expiring(
        self,
        keyspace: &str,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        ttl: Duration,
    ) -> Batch {
        self.add(keyspace, key.into(), Some(value.into()), Some(ttl))
    }

    /// Adds a delete.
    #[must_use]
    pub fn delete(self, keyspace: &str, key: impl Into<Bytes>) -> Batch {
        self.add(keyspace, key.into(), None, None)
    }

    /// Applies the batch only if `key` has exactly this value at that moment; `None`: only if it has none.
    /// Otherwise the batch ends in [`Kind::Conflict`](crate::Kind::Conflict), and nothing is written.
    #[must_use]
    pub fn require(mut self, keyspace: &str, key: impl Into<Bytes>, value: Option<Bytes>) -> Batch {
        let key = key.into();
        self.bytes += keyspace.len() + key.len() + value.as_ref().map_or(0, Bytes::len) + FRAME_BYTES;
        self.conditions.push(pb::Condition {
            keyspace: keyspace.into(),
            key,
            value,
        });
        self
    }

    fn add(mut self, keyspace: &str, key: Bytes, value: Option<Bytes>, ttl: Option<Duration>) -> Batch {
        self.bytes += keyspace.len() + key.len() + value.as_ref().map_or(0, Bytes::len) + FRAME_BYTES;
        self.operations.push(pb::Operation {
            keyspace: keyspace.into(),
            key,
            value,
            ttl_ms: ttl.map(milliseconds),
        });
        self
    }

    /// Operations in it.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether it has no operation.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Bytes on the wire, at most: commit before it reaches [`MESSAGE_BYTES_MAX`](crate::MESSAGE_BYTES_MAX).
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn into_request(self, durability: Durability) -> pb::BatchRequest {
        pb::BatchRequest {
            operations: self.operations,
            durability: durability.into(),
            conditions: self.conditions,
        }
    }
}

/// In whole milliseconds, rounded up.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
