//! Optimistic transactions of one tenant: read at a snapshot, write at the end, if nothing that was read changed.
//!
//! Serializable for what is read by [`get`](Transaction::get), as if each ran alone at the moment of its commit
//! (Kung and Robinson, "On optimistic methods for concurrency control", 1981, with backward validation). Ranges
//! are not offered: a key that appears in one could not be noticed.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::error::{Error, ErrorKind, Result};
use crate::expiry;
use crate::hooks::rare;
use crate::inner::Inner;
use crate::options::PutOptions;
use crate::tenant::{Batch, Keyspace, Snapshot, Tenant};
use crate::types::{Durability, KeyspaceId, Position, SeqNo};

/// How often [`Tenant::transact`] begins before it gives up.
const TRIES_MAX: u32 = 1000;
/// How long a wait goes on before it looks whether there is anything to wait for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

type Place = (KeyspaceId, Vec<u8>);
type RangeOfKeys = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Reads and writes that take effect together or not at all. Dropping it gives them up.
///
/// Nothing is locked while it runs; what it writes lies in memory until the commit. [`Tenant::transact`]
/// runs one again when it conflicted.
///
/// ```no_run
/// # use strongroom::{Engine, ErrorKind, keys::KeyFile};
/// # let engine = Engine::builder("./data").keys(KeyFile::open("strongroom.key")?).open()?;
/// # let tenant = engine.tenant("acme")?;
/// # let accounts = tenant.keyspace("accounts")?;
/// let mut transaction = tenant.transaction();
/// if transaction.get(&accounts, "visits")?.is_none() {
///     transaction.put(&accounts, "visits", "1");
/// }
/// match transaction.commit() {
///     Err(e) if e.kind() == ErrorKind::Conflict => println!("somebody else was first"),
///     outcome => drop(outcome?),
/// }
/// # Ok::<(), strongroom::Error>(())
/// ```
pub struct Transaction {
    tenant: Tenant,
    snapshot: Snapshot,
    durability: Option<Durability>,
    /// With the moment at which what was read expires, if it does.
    read: BTreeMap<Place, (Keyspace, Option<u64>)>,
    written: BTreeMap<Place, (Keyspace, Option<(Bytes, PutOptions)>)>,
    /// What was written behind one of these counts, and nothing before.
    deleted: Vec<(Keyspace, RangeOfKeys)>,
}

impl Transaction {
    pub(crate) fn new(tenant: Tenant) -> Transaction {
        Transaction {
            snapshot: tenant.snapshot(),
            tenant,
            durability: None,
            read: BTreeMap::new(),
            written: BTreeMap::new(),
            deleted: Vec::new(),
        }
    }

    /// The value: what this transaction wrote, or else what was there when it began. Errors as for
    /// [`Snapshot::get`].
    pub fn get(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        let place = (keyspace.id(), key.as_ref().to_vec());
        if let Some((_, value)) = self.written.get(&place) {
            return Ok(value.as_ref().map(|(value, _)| value.clone()));
        }
        let is_deleted =
            |(of, range): &(Keyspace, RangeOfKeys)| of.id() == place.0 && range.contains(&place.1);
        if self.deleted.iter().any(is_deleted) {
            return Ok(None);
        }
        let found = self.snapshot.get_expiring(keyspace, &place.1)?;
        let (value, expires) = found.map_or((None, None), |(value, expires)| (Some(value), expires));
        self.read
            .entry(place)
            .or_insert_with(|| (keyspace.clone(), expires));
        Ok(value)
    }

    /// Writes a value. A limit it breaks is told by [`commit`](Transaction::commit).
    pub fn put(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.put_with(keyspace, key, value, PutOptions::new());
    }

    /// Writes a value with options: see [`Keyspace::put_with`]. Its time to live begins at the commit.
    pub fn put_with(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: PutOptions,
    ) {
        let value = Bytes::copy_from_slice(value.as_ref());
        self.write(keyspace, key.as_ref(), Some((value, options)));
    }

    /// Removes a key.
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) {
        self.write(keyspace, key.as_ref(), None);
    }

    /// Removes every key of `range`: see [`Keyspace::delete_range`]. What this transaction wrote there before is
    /// removed as well. It reads nothing: keys that others add there before the commit go too. A limit it breaks is
    /// told by [`commit`](Transaction::commit).
    pub fn delete_range<K: AsRef<[u8]>>(&mut self, keyspace: &Keyspace, range: impl RangeBounds<K>) {
        let owned = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        let range: RangeOfKeys = (owned(range.start_bound()), owned(range.end_bound()));
        let id = keyspace.id();
        self.written
            .retain(|(of, key), _| *of != id || !range.contains(key));
        self.deleted.push((keyspace.clone(), range));
    }

    fn write(&mut self, keyspace: &Keyspace, key: &[u8], value: Option<(Bytes, PutOptions)>) {
        let place = (keyspace.id(), key.to_vec());
        self.written.insert(place, (keyspace.clone(), value));
    }

    /// Overrides the engine's durability for the commit.
    pub fn durability(&mut self, durability: Durability) {
        self.durability = Some(durability);
    }

    /// Commits all that was written, if nothing that was read has changed since the transaction began, or expired.
    /// `None`: nothing was written, and what was read was true when it began, or had expired since.
    ///
    /// - Cost: one point read for each key read, under the commit lock.
    /// - Errors: `Conflict` (nothing was written: begin again), and those of [`Batch::commit`].
    pub fn commit(self) -> Result<Option<Position>> {
        if self.written.is_empty() && self.deleted.is_empty() {
            return Ok(None);
        }
        let mut batch: Batch = self.tenant.batch();
        if let Some(durability) = self.durability {
            batch = batch.durability(durability);
        }
        for ((_, key), (keyspace, expires)) in &self.read {
            batch = batch.require_unchanged_until(keyspace, key, &self.snapshot, *expires);
        }
        // First these: what is written was written behind them.
        for (keyspace, range) in &self.deleted {
            batch = batch.delete_range(keyspace, range.clone());
        }
        for ((_, key), (keyspace, value)) in &self.written {
            batch = match value {
                Some((value, options)) => batch.put_with(keyspace, key, value, *options),
                None => batch.delete(keyspace, key),
            };
        }
        batch.commit().map(Some)
    }
}

impl Tenant {
    /// Runs `work` in a transaction and commits it; again from the beginning while what it read had changed at
    /// the commit. Returns what `work` returned at last, and where it was committed (`None`: it wrote nothing).
    ///
    /// - `work`: runs 1 to 1000 times; its effects outside the transaction are not taken back. An error it
    ///   returns ends all, with nothing written.
    /// - Cost: as [`Transaction::commit`] for each try. Between two it waits until something newer can be read.
    /// - Errors: `Conflict` (after 1000 tries; or what is in the way could not be read within
    ///   [`Options::replicated_timeout`](crate::Options::replicated_timeout), as no standby confirmed it:
    ///   nothing was written, try later), and those of [`Transaction::commit`]. `Unknown` is never tried again.
    ///
    /// ```no_run
    /// # use strongroom::{Engine, keys::KeyFile};
    /// # let engine = Engine::builder("./data").keys(KeyFile::open("strongroom.key")?).open()?;
    /// # let tenant = engine.tenant("acme")?;
    /// # let accounts = tenant.keyspace("accounts")?;
    /// let (visits, _position) = tenant.transact(|tx| {
    ///     let visits = tx.get(&accounts, "visits")?.map_or(0, |bytes| bytes.len()) + 1;
    ///     tx.put(&accounts, "visits", vec![b'x'; visits]);
    ///     Ok(visits)
    /// })?;
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    pub fn transact<T>(
        &self,
        mut work: impl FnMut(&mut Transaction) -> Result<T>,
    ) -> Result<(T, Option<Position>)> {
        for _ in 0..TRIES_MAX {
            let mut transaction = self.transaction();
            let read_at = transaction.snapshot.seqno();
            let done = work(&mut transaction)?;
            let until = transaction.read.values().filter_map(|(_, at)| *at).min();
            match transaction.commit() {
                Err(e) if e.kind() == ErrorKind::Conflict => {
                    rare!(TransactionBegunAgain);
                    let inner = self.engine.inner();
                    // Of what expired nothing newer will come.
                    if !until.is_some_and(|at| expiry::is_past(at, inner.times.now())) {
                        inner.wait_for_newer(read_at)?;
                    }
                }
                committed => return committed.map(|position| (done, position)),
            }
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!("what the transaction read had changed at each of {TRIES_MAX} commits: try later"),
        ))
    }
}

impl Inner {
    /// After a conflict with a write that is ordered and perhaps not visible yet: reading again before it is
    /// would end the same. Waits until there is something newer than `seen` to read.
    fn wait_for_newer(&self, seen: SeqNo) -> Result<()> {
        let newer = || self.visible() > seen;
        let timeout = self.online.options().replicated_timeout;
        let mut waited = Duration::ZERO;
        while !self.watchers.wait(newer, LOOK_EVERY.min(timeout)) {
            self.commit.lock().check_writable()?;
            if let Some(why) = self.wal.failure() {
                let text = format!("the write-ahead log has failed ({why}): reopen");
                return Err(Error::new(ErrorKind::ReadOnly, text));
            }
            waited += LOOK_EVERY;
            if waited >= timeout {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "what the transaction read was written to, and that write is not confirmed yet: try later",
                ));
            }
        }
        Ok(())
    }
}

/// Who waits for a version to become visible.
#[derive(Default)]
pub(crate) struct Watchers {
    waiting: AtomicUsize,
    looking: Mutex<()>,
    changed: Condvar,
}

impl Watchers {
    /// Something became visible.
    pub fn tell(&self) {
        // One load while nobody waits.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.looking.lock());
            self.changed.notify_all();
        }
    }

    /// Waits until `done`, which becomes true before somebody tells; false after `timeout`.
    fn wait(&self, done: impl Fn() -> bool, timeout: Duration) -> bool {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let mut looking = self.looking.lock();
        let waited = self.changed.wait_while_for(&mut looking, |()| !done(), timeout);
        drop(looking);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        !waited.timed_out()
    }
}
