//! What is written together.

use std::ops::RangeBounds;
use std::time::Duration;

use bytes::Bytes;

use crate::proto::kv as pb;
use crate::proto::kv::Durability;
use crate::range::RangeOptions;

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

    /// Adds a delete of every key in `range`, at the cost of one operation. What the batch put there before is deleted as
    /// well; what it puts there later stays.
    #[must_use]
    pub fn delete_range<K: AsRef<[u8]>>(self, keyspace: &str, range: impl RangeBounds<K>) -> Batch {
        self.add_range(keyspace, RangeOptions::keys(range))
    }

    /// Adds a delete of every key that starts with `prefix`; an empty one deletes all.
    #[must_use]
    pub fn delete_prefix(self, keyspace: &str, prefix: impl AsRef<[u8]>) -> Batch {
        self.add_range(keyspace, RangeOptions::prefix(prefix))
    }

    fn add_range(mut self, keyspace: &str, range: RangeOptions) -> Batch {
        let (start, end) = range.bounds();
        let len = |bound: &Option<pb::Bound>| bound.as_ref().map_or(0, |bound| bound.key.len());
        self.bytes += keyspace.len() + len(&start) + len(&end) + FRAME_BYTES;
        self.operations.push(pb::Operation {
            keyspace: keyspace.into(),
            range: Some(pb::KeyRange { start, end }),
            ..pb::Operation::default()
        });
        self
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
            range: None,
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
