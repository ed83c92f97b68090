//! Tenants, keyspaces, batches and snapshots: the handles users hold.

mod batch;
mod ingest;
mod range_delete;
mod snapshot;

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use arc_swap::Guard;
use bytes::Bytes;
use smallvec::SmallVec;

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::expiry;
use crate::hooks::planted;
use crate::inner::{Seen, View};
use crate::options::{KEY_BYTES_MAX, PutOptions};
use crate::read::cursor::{EntryKind, Found};
use crate::read::range::Range;
use crate::read::visible::Bounds;
use crate::table::Owner;
use crate::transaction::Transaction;
use crate::types::{KeyspaceId, Position, SeqNo, TenantId};

pub use batch::Batch;
pub use ingest::Ingest;
pub use snapshot::Snapshot;

/// A tenant: a container with keys of its own. Cheap to clone, `Send + Sync`.
#[derive(Clone)]
pub struct Tenant {
    pub(crate) engine: Engine,
    pub(crate) id: TenantId,
}

/// A named, ordered map inside a tenant. Cheap to clone, `Send + Sync`.
#[derive(Clone)]
pub struct Keyspace {
    engine: Engine,
    tenant: TenantId,
    id: KeyspaceId,
    name: Arc<str>,
    seen: Arc<Seen>,
}

impl Tenant {
    /// Numeric id, never reused.
    pub fn id(&self) -> TenantId {
        self.id
    }

    /// Name; empty for the system tenant and for a deleted one.
    pub fn name(&self) -> String {
        self.engine
            .inner()
            .keystore
            .info(self.id)
            .map(|i| i.name)
            .unwrap_or_default()
    }

    /// Opens a keyspace, creating it if it is missing.
    ///
    /// - `name`: 1 to 255 bytes.
    /// - Cost: one read; creation is one commit at the engine's durability.
    /// - Errors: `Invalid` name, `NotFound` tenant, and those of a write when it must be created.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> {
        let id = self.engine.inner().ensure_keyspace(self.id, name)?;
        Ok(self.handle(id, name))
    }

    /// Opens a keyspace that exists. `NotFound` otherwise.
    pub fn open_keyspace(&self, name: &str) -> Result<Keyspace> {
        match self.engine.inner().find_keyspace(self.id, name)? {
            Some(id) => Ok(self.handle(id, name)),
            None => Err(Error::new(
                ErrorKind::NotFound,
                "the tenant has no keyspace of that name",
            )),
        }
    }

    /// Whether the keyspace is one of this tenant.
    pub(crate) fn check_own(&self, keyspace: &Keyspace) -> Result<()> {
        if keyspace.tenant == self.id && keyspace.engine.same(&self.engine) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Invalid,
            "the keyspace belongs to another tenant",
        ))
    }

    fn handle(&self, id: KeyspaceId, name: &str) -> Keyspace {
        Keyspace {
            engine: self.engine.clone(),
            tenant: self.id,
            id,
            name: name.into(),
            seen: Arc::default(),
        }
    }

    /// Names of the keyspaces, in order.
    pub fn keyspaces(&self) -> Result<Vec<String>> {
        self.engine.inner().keyspaces(self.id)
    }

    /// Deletes a keyspace: gone at once, its space as compaction comes by. `NotFound`.
    pub fn delete_keyspace(&self, name: &str) -> Result<()> {
        self.engine.inner().delete_keyspace(self.id, name)
    }

    /// Starts an atomic batch.
    pub fn batch(&self) -> Batch {
        Batch {
            engine: self.engine.clone(),
            tenant: self.id,
            durability: self.engine.inner().options.durability,
            plain: Vec::new(),
            ops: 0,
            cost: 0,
            conditions: Vec::new(),
            broken: None,
        }
    }

    /// Starts an optimistic transaction.
    pub fn transaction(&self) -> Transaction {
        Transaction::new(self.clone())
    }

    /// A repeatable view, as of now.
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.engine.inner();
        let mut snapshots = inner.snapshots.lock();
        let at = inner.visible();
        *snapshots.entry(at).or_default() += 1;
        drop(snapshots);
        Snapshot {
            engine: self.engine.clone(),
            tenant: self.id,
            at,
        }
    }
}

impl Keyspace {
    /// Name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn tenant_id(&self) -> TenantId {
        self.tenant
    }

    pub(crate) fn id(&self) -> KeyspaceId {
        self.id
    }

    /// Stores a value; as durable as the engine's default when it returns.
    ///
    /// - `key`: 1 byte to 16 KiB; `value`: up to 64 MiB.
    /// - Errors: `Invalid` (a limit), `NotFound` (tenant or keyspace gone), `NoSpace` (not applied; retry
    ///   when there is room), `QuotaExceeded` (nothing written; deletes never get it), `Unknown` (may or may
    ///   not survive: read back), `Io` and `Corruption` (as `Unknown`), `ReadOnly`, `Fenced`, `NotPrimary`, `Closed`.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Position> {
        self.batch().put(self, key, value).commit()
    }

    /// Stores a value that expires, for one: from then on the key is absent, to snapshots, conditions and ranges
    /// too, and what the value overwrote does not come back.
    ///
    /// Errors as for [`put`](Keyspace::put); `Invalid` for a time to live of zero.
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: PutOptions,
    ) -> Result<Position> {
        self.batch().put_with(self, key, value, options).commit()
    }

    /// Removes a key; fine if it is not there. Errors as for [`put`](Keyspace::put).
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<Position> {
        self.batch().delete(self, key).commit()
    }

    fn batch(&self) -> Batch {
        Tenant {
            engine: self.engine.clone(),
            id: self.tenant,
        }
        .batch()
    }

    /// The newest visible value. Errors: `Invalid` key, `NotFound` tenant or keyspace, `Corruption`, `Io`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        Ok(self.get_at(key.as_ref(), None)?.map(|(value, _)| value))
    }

    /// The value, and when it expires, if it does.
    fn get_at(&self, key: &[u8], at: Option<SeqNo>) -> Result<Option<(Bytes, Option<u64>)>> {
        check_key(key)?;
        let mut tree_key = SmallVec::<[u8; 64]>::from_slice(&self.id.0.to_be_bytes());
        tree_key.extend_from_slice(key);
        self.read_at(at, |view, at| self.value(view, &tree_key, at))
    }

    /// The newest visible values of `keys`, in the order asked: all of one version, as if read at one moment.
    ///
    /// - `keys`: any number, in any order, the same one as often as you like.
    /// - Cost: as many point reads as there are different keys, in key order, so that neighbours find their
    ///   block in memory; memory for all values.
    /// - Errors: as for [`get`](Keyspace::get), of any of them.
    ///
    /// ```no_run
    /// # use strongroom::{Engine, keys::KeyFile};
    /// # let engine = Engine::builder("./data").keys(KeyFile::open("strongroom.key")?).open()?;
    /// # let events = engine.tenant("acme")?.keyspace("events")?;
    /// let values = events.multi_get(["b", "a", "missing"])?;
    /// assert_eq!(values.len(), 3);
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Bytes>>> {
        self.multi_get_at(keys, None)
    }

    fn multi_get_at<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        at: Option<SeqNo>,
    ) -> Result<Vec<Option<Bytes>>> {
        let mut asked = Vec::new();
        for (place, key) in keys.into_iter().enumerate() {
            check_key(key.as_ref())?;
            asked.push((self.tree_key(key.as_ref()), place));
        }
        asked.sort_unstable();
        self.read_at(at, |view, at| {
            let mut found = Vec::with_capacity(asked.len());
            for same in asked.chunk_by(|(one, _), (other, _)| one == other) {
                let Some((key, _)) = same.first() else { continue };
                let value = self.value(view, key, at)?.map(|(value, _)| value);
                found.extend(same.iter().map(|(_, place)| (*place, value.clone())));
            }
            if !planted!(AnswersInKeyOrder) {
                found.sort_unstable_by_key(|(place, _)| *place);
            }
            Ok(found.into_iter().map(|(_, value)| value).collect())
        })
    }

    /// Reads at one version, the newest visible one unless `at` says which; with the checks of every read.
    pub(crate) fn read_at<T>(
        &self,
        at: Option<SeqNo>,
        look: impl FnOnce(&View, SeqNo) -> Result<T>,
    ) -> Result<T> {
        let inner = self.engine.inner();
        inner.check_tenant_again(self.tenant, &self.seen)?;
        // First the view, then the version: see `inner`.
        let view = inner.view();
        let at = at.unwrap_or_else(|| inner.visible());
        inner.check_keyspace(self.tenant, self.id, Some(at))?;
        let found = look(&view, at)?;
        // Deleted while we read: what was found may be a destroyed tenant's.
        inner.check_tenant_again(self.tenant, &self.seen)?;
        Ok(found)
    }

    /// The value, and when it expires, if it does.
    fn value(&self, view: &View, tree_key: &[u8], at: SeqNo) -> Result<Option<(Bytes, Option<u64>)>> {
        let inner = self.engine.inner();
        inner.cache.reads.got();
        let Some(found) = inner.find(view, self.tenant, tree_key, at)? else {
            return Ok(None);
        };
        let unseen = |e: &Found| {
            planted!(ExpiredSeenBySnapshots) && at < inner.visible() && e.kind == EntryKind::Expiring
        };
        let rule = inner.settings.rule_again(self.tenant, self.id, &self.seen);
        let times = inner.times.by(rule.as_deref());
        let shows = |e: &Found| times.shows(e.kind, &e.value) || unseen(e);
        if !shows(&found) {
            return Ok(None);
        }
        let ends = expiry::ends(rule.as_deref(), found.kind, &found.value);
        let owner = Owner {
            tenant: self.tenant,
            key: tree_key,
            seqno: found.seqno,
        };
        let value = view.version.value(owner, found.kind, found.value)?;
        Ok(value.map(|value| (value, ends)))
    }

    /// Entries whose key lies in `range`, in key order, from both ends: `range("a"..).rev().take(10)`.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Range {
        self.range_at(range, None)
    }

    /// Entries whose key starts with `prefix`.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Range {
        let lower = self.tree_key(prefix.as_ref());
        let upper = successor(&lower);
        self.range_between(lower, upper, None)
    }

    /// All entries.
    pub fn iter(&self) -> Range {
        self.prefix([])
    }

    fn range_at<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>, at: Option<SeqNo>) -> Range {
        let (lower, upper) = self.bounds(range);
        self.range_between(lower, upper, at)
    }

    /// The tree keys of `range`: the first in it, and the first behind it (None: the tenant's end).
    pub(crate) fn bounds<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> (Vec<u8>, Option<Vec<u8>>) {
        let after = |key: &[u8]| {
            let mut key = self.tree_key(key);
            key.push(0);
            key
        };
        let lower = match range.start_bound() {
            Bound::Included(key) => self.tree_key(key.as_ref()),
            Bound::Excluded(key) => after(key.as_ref()),
            Bound::Unbounded => self.tree_key(&[]),
        };
        let upper = match range.end_bound() {
            Bound::Included(key) => Some(after(key.as_ref())),
            Bound::Excluded(key) => Some(self.tree_key(key.as_ref())),
            Bound::Unbounded => successor(&self.id.0.to_be_bytes()),
        };
        (lower, upper)
    }

    fn range_between(&self, lower: Vec<u8>, upper: Option<Vec<u8>>, at: Option<SeqNo>) -> Range {
        let inner = self.engine.inner();
        inner.cache.reads.ranged();
        let view = Guard::into_inner(inner.view());
        let at = at.unwrap_or_else(|| inner.visible());
        Range::new(
            self.engine.clone(),
            (self.tenant, self.id),
            self.seen.clone(),
            (view, at),
            Bounds { lower, upper },
        )
    }

    fn tree_key(&self, key: &[u8]) -> Vec<u8> {
        let mut tree_key = Vec::with_capacity(4 + key.len() + 1);
        tree_key.extend_from_slice(&self.id.0.to_be_bytes());
        tree_key.extend_from_slice(key);
        tree_key
    }
}

/// The smallest key above every key that starts with `prefix`; None if there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut next = prefix.get(..=keep)?.to_vec();
    if let Some(last) = next.last_mut() {
        *last += 1;
    }
    Some(next)
}

fn check_key(key: &[u8]) -> Result<()> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        let text = format!("a key has 1 to {KEY_BYTES_MAX} bytes, this one has {}", key.len());
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::successor;

    #[test]
    fn the_successor_of_a_prefix_is_above_all_it_starts() {
        assert_eq!(successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(successor(b"\xff\xff"), None);
        assert_eq!(successor(b""), None);
    }
}
