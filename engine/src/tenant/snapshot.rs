//! A read view that users hold: what compaction must keep for it is counted while it lives.

use std::ops::RangeBounds;

use bytes::Bytes;

use super::Keyspace;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::read::range::Range;
use crate::types::{SeqNo, TenantId};

/// A repeatable view of a tenant: reads see exactly what was visible when it was taken, but for values that have
/// expired since.
///
/// While it lives, compaction keeps what it sees. It does not keep a deleted tenant readable.
pub struct Snapshot {
    pub(super) engine: Engine,
    pub(super) tenant: TenantId,
    pub(super) at: SeqNo,
}

impl Snapshot {
    /// The version it reads at.
    pub fn seqno(&self) -> SeqNo {
        self.at
    }

    /// The value of `key` when the snapshot was taken, unless it has expired since.
    pub fn get(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        Ok(self.get_expiring(keyspace, key.as_ref())?.map(|(value, _)| value))
    }

    /// The values of `keys` when the snapshot was taken: see [`Keyspace::multi_get`].
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Bytes>>> {
        self.check(keyspace)?;
        keyspace.multi_get_at(keys, Some(self.at))
    }

    /// The value, and when it expires, if it does.
    pub(crate) fn get_expiring(
        &self,
        keyspace: &Keyspace,
        key: &[u8],
    ) -> Result<Option<(Bytes, Option<u64>)>> {
        self.check(keyspace)?;
        keyspace.get_at(key, Some(self.at))
    }

    /// Entries in `range` when the snapshot was taken, without those that have expired since. The range stays
    /// valid without the snapshot.
    pub fn range<K: AsRef<[u8]>>(&self, keyspace: &Keyspace, range: impl RangeBounds<K>) -> Range {
        let checked = self.check(keyspace);
        let range = keyspace.range_at(range, Some(self.at));
        match checked {
            Ok(()) => range,
            Err(e) => range.failed(e),
        }
    }

    pub(super) fn check(&self, keyspace: &Keyspace) -> Result<()> {
        if keyspace.tenant == self.tenant && keyspace.engine.same(&self.engine) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Invalid,
            "a snapshot reads keyspaces of the tenant it was taken of",
        ))
    }
}

impl Clone for Snapshot {
    fn clone(&self) -> Snapshot {
        *self.engine.inner().snapshots.lock().entry(self.at).or_default() += 1;
        Snapshot {
            engine: self.engine.clone(),
            tenant: self.tenant,
            at: self.at,
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let mut snapshots = self.engine.inner().snapshots.lock();
        if let Some(count) = snapshots.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                snapshots.remove(&self.at);
            }
        }
    }
}
