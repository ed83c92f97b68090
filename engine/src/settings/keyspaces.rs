//! What is set of a keyspace: each is one entry, ordered as any write is.

use bytes::Bytes;

use crate::catalog::{CATALOG, after};
use crate::commit::parsed;
use crate::error::{Error, ErrorKind, Result};
use crate::inner::Inner;
use crate::options::can_separate_from;
use crate::read::cursor::EntryKind;
use crate::retention::{Retention, Rule};
use crate::tenant::{Keyspace, Tenant};
use crate::types::{KeyspaceId, Position, TenantId};
use crate::wal::format::push_op;

use super::{RULE, SEPARATE, keyspace_key};

impl Inner {
    /// Sets what `value` says, which is asked under the commit lock; None: it is set no more.
    fn set_of_keyspace(
        &self,
        tag: u8,
        (tenant, keyspace): (TenantId, KeyspaceId),
        value: impl FnOnce() -> Result<Option<Vec<u8>>>,
    ) -> Result<Position> {
        self.throttle()?;
        let durability = self.options.durability;
        let position = {
            let mut commit = self.commit.lock();
            commit.check_writable()?;
            self.check_tenant(tenant)?;
            self.check_keyspace(tenant, keyspace, None)?;
            let (value, mut plain) = (value()?, Vec::new());
            let kind = match value {
                Some(_) => EntryKind::Put,
                None => EntryKind::Delete,
            };
            let key = keyspace_key(tag, tenant, keyspace);
            let value = value.unwrap_or_default();
            push_op(kind, CATALOG, after(&key), &value, &mut plain);
            let plain = Bytes::from(plain);
            let ops = parsed(&plain, 1)?;
            self.order(&mut commit, TenantId::SYSTEM, (plain, ops), durability)?
        };
        self.make_durable(position, durability)?;
        if tag == RULE {
            // More may be due than before.
            self.wake_background();
        }
        self.finish(position, durability)
    }

    fn set_retention(
        &self,
        tenant: TenantId,
        keyspace: KeyspaceId,
        keep: Option<Retention>,
    ) -> Result<Position> {
        self.set_of_keyspace(RULE, (tenant, keyspace), || {
            // Under the lock: what is past the old retention by this moment stays gone, and nothing else.
            let before = self.settings.rule(tenant, keyspace);
            let rule = Rule::changed(before.as_deref(), keep, self.times.now())?;
            Ok(Some(rule.encode()))
        })
    }
}

impl Tenant {
    /// Sets how long `keyspace` keeps what is put into it; `None`: for ever. Counts for what is there already, too.
    ///
    /// An entry that is past it is absent at once, to everybody who reads, snapshots, conditions and ranges included;
    /// what it overwrote does not come back. With a time to live of its own the earlier moment counts. It leaves the
    /// disk as a value that expired does (docs/guarantees.md, "Retention").
    ///
    /// - An entry counts from when its batch was ordered. Entries from before the keyspace first had a retention count
    ///   as written at that moment.
    /// - A shorter retention ends at once what is older. A longer one, or none, spares what has not ended yet; what
    ///   has ended stays gone.
    /// - Cost: one commit at the engine's durability. What is in tables of the keyspace is written anew once, when
    ///   something there may be due. From then on 16 bytes for each entry put into the keyspace.
    /// - Errors: `Invalid` (zero days or months; a keyspace of another tenant; more than eight changes, each shortly
    ///   after the other), and those of a write. After `Unknown` it counts here, and may be lost by a failover.
    ///
    /// ```no_run
    /// # use strongroom::{Engine, Retention, keys::KeyFile};
    /// # let engine = Engine::builder("./data").keys(KeyFile::open("strongroom.key")?).open()?;
    /// # let acme = engine.tenant("acme")?;
    /// let events = acme.keyspace("activity")?;
    /// acme.set_retention(&events, Retention::Months(2))?;
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    pub fn set_retention(
        &self,
        keyspace: &Keyspace,
        retention: impl Into<Option<Retention>>,
    ) -> Result<Position> {
        self.check_own(keyspace)?;
        let inner = self.engine.inner();
        inner.set_retention(self.id, keyspace.id(), retention.into())
    }

    /// The retention of a keyspace, if it has one. Errors: `Invalid` (a keyspace of another tenant), `NotFound`.
    pub fn retention(&self, keyspace: &Keyspace) -> Result<Option<Retention>> {
        self.check_settable(keyspace)?;
        Ok(self
            .engine
            .inner()
            .settings
            .rule(self.id, keyspace.id())
            .and_then(|rule| rule.keep))
    }

    /// Sets from which length on values of `keyspace` are kept in value files, apart from the tree: 64 B to 64 MiB, or 0 for
    /// none. `None`: as [`Options::separate_bytes`](crate::Options::separate_bytes) says.
    ///
    /// Less: cheaper writes where values are overwritten or compacted often; a range reads such values one by one. It changes
    /// what writing and reading cost, and nothing that is read: see docs/guarantees.md, "Large values". What has a deadline stays
    /// in the tree whatever is set.
    ///
    /// - It counts for what is flushed or compacted from then on. What is in tables goes apart when those are next written
    ///   anew, what is apart comes back when its file is: [`Engine::compact`](crate::Engine::compact) does both at once.
    /// - Cost: one commit at the engine's durability.
    /// - Errors: `Invalid` (outside that range; a keyspace of another tenant), and those of a write. After `Unknown` it counts
    ///   here, and may be lost by a failover: set it again.
    ///
    /// ```no_run
    /// # use strongroom::{Engine, keys::KeyFile};
    /// # let engine = Engine::builder("./data").keys(KeyFile::open("strongroom.key")?).open()?;
    /// # let acme = engine.tenant("acme")?;
    /// let thumbnails = acme.keyspace("thumbnails")?;
    /// acme.set_separate_bytes(&thumbnails, 2 << 10)?;
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    pub fn set_separate_bytes(
        &self,
        keyspace: &Keyspace,
        bytes: impl Into<Option<usize>>,
    ) -> Result<Position> {
        self.check_own(keyspace)?;
        let bytes = bytes.into();
        if !bytes.is_none_or(can_separate_from) {
            let text = "values go apart from 64 B to 64 MiB on, or never with 0";
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let inner = self.engine.inner();
        let value = bytes.map(|bytes| (bytes as u32).to_le_bytes().to_vec());
        inner.set_of_keyspace(SEPARATE, (self.id, keyspace.id()), || Ok(value))
    }

    /// From which length on values of a keyspace go apart, if that was set of it; `Some(0)`: none does. Errors: `Invalid` (a
    /// keyspace of another tenant), `NotFound`.
    pub fn separate_bytes(&self, keyspace: &Keyspace) -> Result<Option<usize>> {
        self.check_settable(keyspace)?;
        Ok(self.engine.inner().settings.separate(self.id, keyspace.id()))
    }

    /// Whether the keyspace is there, and one of this tenant.
    fn check_settable(&self, keyspace: &Keyspace) -> Result<()> {
        self.check_own(keyspace)?;
        let inner = self.engine.inner();
        inner.check_tenant(self.id)?;
        inner.check_keyspace(self.id, keyspace.id(), Some(inner.visible()))
    }
}
