//! One engine on a simulated machine, driven together with its oracle.
//!
//! Every call that changes something tells the oracle before, calls the engine, and tells the oracle
//! the outcome. So at every moment, also inside a call, oracle, disk and key provider fit together:
//! a probe of the disk copies all three ([`World::copier`]), and [`Moment::examine`] asks of a
//! possible disk after a power failure whether the engine still holds what it must.

mod expiry;
mod moment;
mod ranges;
mod retention;
mod transact;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use strongroom::io::Io;
use strongroom::io::sim::{CrashMode, SimClock, SimFs, SimRng};
use strongroom::keys::EscrowSecret;
use strongroom::{
    Batch, Durability, Engine, Error, ErrorKind, Keyspace, Lsn, Options, Result, Tenant, TenantOptions,
    Verified,
};

pub use self::moment::read_restored;

use crate::canary;
use crate::dice::{Dice, fresh_seed};
use crate::keys::SimKeys;
use crate::oracle::{Change, Content, Moments, Op, Oracle, Outcome, Ticket, read_all};

/// Where the database lives on the simulated disk.
pub const DIR: &str = "/srv/db";

/// A shorter value may be the same as another.
pub const UNIQUE_BYTES: usize = 24;

/// A checkpoint that was begun.
#[derive(Clone)]
pub struct Copy {
    /// Where.
    pub path: PathBuf,
    /// What it must hold.
    pub content: Content,
    /// When that expires.
    pub moments: Moments,
    /// Keys to open it.
    pub escrow: Vec<u8>,
    /// Whether the call returned Ok.
    pub complete: bool,
}

/// What is known apart from the disk.
#[derive(Clone, Default)]
pub struct Known {
    /// What the database must hold.
    pub oracle: Oracle,
    /// Checkpoints.
    pub copies: Vec<Copy>,
    /// Deletions of tenants, each with the provider's versions that may unwrap what it destroyed.
    pub condemned: Vec<(Ticket, BTreeSet<u64>)>,
}

impl Known {
    /// Nothing, by this clock.
    fn at(clock: &Arc<SimClock>) -> Known {
        let mut known = Known::default();
        known.oracle.set_clock(clock.clone());
        known
    }
}

/// An engine, its machine and what is known of it.
pub struct World {
    /// The disk.
    pub fs: SimFs,
    /// The key provider.
    pub keys: SimKeys,
    /// Options of the next opening.
    pub options: Options,
    /// Opens checkpoints.
    pub secret: Arc<EscrowSecret>,
    /// Moves by hand only.
    clock: Arc<SimClock>,
    /// Random bytes that go on over crashes; without, every opening has new ones.
    rng: Option<Arc<SimRng>>,
    known: Arc<Mutex<Known>>,
    engine: Option<Engine>,
    /// A reopening was cut short before it found out what is there.
    unverified: bool,
    values: u64,
    /// Values that expire: when, and the log's end after them.
    expiring: Vec<(Ticket, u64, Lsn)>,
    /// When the engine was opened.
    opened: u64,
    /// Syncs that would take time do not while this is not zero.
    standing: Arc<AtomicUsize>,
}

/// Disk, provider and knowledge of one moment.
pub struct Moment {
    /// The operation that was about to happen, or what happened instead.
    pub label: String,
    /// The disk.
    pub fs: SimFs,
    keys: SimKeys,
    known: Known,
    clock: SimClock,
    options: Options,
    secret: Arc<EscrowSecret>,
}

impl World {
    /// An empty machine; nothing is opened yet.
    pub fn new(options: Options) -> World {
        let clock = Arc::new(SimClock::with_step(Duration::ZERO));
        World {
            fs: SimFs::new(),
            keys: SimKeys::new(),
            options,
            secret: Arc::new(EscrowSecret::generate().unwrap()),
            known: Arc::new(Mutex::new(Known::at(&clock))),
            clock,
            rng: None,
            engine: None,
            unverified: false,
            values: 0,
            expiring: Vec::new(),
            opened: 0,
            standing: Arc::default(),
        }
    }

    /// An empty machine whose every random byte follows from `seed`, over all openings: then a (key,
    /// nonce) pair that repeats after a crash is noticed, and a second run writes the same bytes.
    pub fn seeded(options: Options, seed: u64) -> World {
        World {
            rng: Some(Arc::new(SimRng::new(seed))),
            ..World::new(options)
        }
    }

    /// Its clock.
    pub fn clock(&self) -> Arc<SimClock> {
        self.clock.clone()
    }

    /// What an engine on `fs` runs on.
    pub fn io_on(&self, fs: &SimFs) -> Io {
        Io {
            vfs: Arc::new(fs.clone()),
            clock: self.clock.clone(),
            rng: match &self.rng {
                Some(rng) => rng.clone(),
                None => Arc::new(SimRng::new(fresh_seed())),
            },
        }
    }

    /// The same machine a second time: forks disk, provider and knowledge, as after a kill.
    pub fn fork(&self) -> World {
        let mut world = self.moment("fork").world();
        if self.rng.is_some() {
            // Values go on from elsewhere, but by no other random number.
            world.rng = self.rng.clone();
            world.values = self.values + (1 << 32);
        }
        world
    }

    /// This moment, to be examined later.
    pub fn moment(&self, label: impl Into<String>) -> Moment {
        Moment {
            label: label.into(),
            fs: self.fs.fork(),
            keys: self.keys.fork(),
            known: self.known().clone(),
            clock: self.clock.fork(),
            options: self.options.clone(),
            secret: self.secret.clone(),
        }
    }

    /// Makes moments of forks of the disk: with provider and knowledge as they are when it is called.
    pub fn copier(&self) -> impl Fn(&SimFs) -> Moment + Send + use<> {
        let (keys, known, clock) = (self.keys.clone(), self.known.clone(), self.clock.clone());
        let (options, secret) = (self.options.clone(), self.secret.clone());
        move |fs| Moment {
            label: String::new(),
            fs: fs.fork(),
            keys: keys.fork(),
            known: known.lock().unwrap().clone(),
            clock: clock.fork(),
            options: options.clone(),
            secret: secret.clone(),
        }
    }

    /// What is known.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    /// What must be readable now.
    pub fn visible(&self) -> Content {
        self.known().oracle.visible()
    }

    /// The open engine.
    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("the engine is open")
    }

    /// Whether an engine is open.
    pub fn is_open(&self) -> bool {
        self.engine.is_some()
    }

    // ---- driving ----

    /// Opens the engine, creating the database if there is none.
    pub fn open(&mut self) -> Result<()> {
        // What a clock that was set back brings back over a reopening is not promised.
        self.set_clock_right();
        let engine = Engine::builder(DIR)
            .shared_keys(self.keys.provider())
            .options(self.options.clone())
            .io(self.io_on(&self.fs))
            .open()?;
        self.engine = Some(engine);
        let now = self.known().oracle.now();
        self.opened = now;
        Ok(())
    }

    /// Closes in order.
    pub fn close(&mut self) -> Result<()> {
        if let Some(engine) = self.engine.take() {
            engine.close()?;
            self.known().oracle.synced();
        }
        Ok(())
    }

    /// Drops the engine without closing it.
    pub fn kill(&mut self) {
        self.engine = None;
    }

    /// Turns the power off and on: `Err` says what is wrong with what is left.
    pub fn crash(&mut self, mode: CrashMode, seed: u64) -> std::result::Result<(), String> {
        self.kill();
        self.fs = self.fs.crashed_image(mode, seed);
        self.reopen()
    }

    /// Opens and finds out what is there.
    pub fn reopen(&mut self) -> std::result::Result<(), String> {
        let before = self.fs.fork();
        self.open()
            .map_err(|e| format!("does not open: {e:?}{}", listing(&before)))?;
        self.unverified = true;
        self.verify()
    }

    /// Does what a failing read kept [`reopen`](World::reopen) from.
    pub fn verify_late(&mut self) -> std::result::Result<(), String> {
        if self.unverified { self.verify() } else { Ok(()) }
    }

    /// Finds out what is there after an opening: an allowed state, which counts from now on.
    pub fn verify(&mut self) -> std::result::Result<(), String> {
        let found = read_all(self.engine()).map_err(|e| format!("cannot be read: {e:?}"))?;
        let mut known = self.known();
        match known.oracle.find(&found) {
            Some(answer) => known.oracle.accept(&answer),
            None => {
                return Err(format!(
                    "holds no allowed state: {}",
                    known.oracle.explain(&found)
                ));
            }
        }
        drop(known);
        self.unverified = false;
        self.check_condemned()?;
        self.check()
    }

    /// Whether everything reads as it must: by iterating, and by asking for every key ever written.
    pub fn check(&self) -> std::result::Result<(), String> {
        let found = read_all(self.engine()).map_err(|e| format!("cannot be read: {e:?}"))?;
        let expected = self.visible();
        if found != expected {
            let mut text = "reads other than it must:".to_string();
            crate::oracle::difference(&expected, &found, &mut text);
            return Err(text);
        }
        for (name, space, key) in self.known().oracle.keys_ever() {
            let Some(entries) = expected.get(&name).and_then(|spaces| spaces.get(&space)) else {
                continue;
            };
            let found = self
                .engine()
                .tenant(&name)
                .and_then(|t| t.open_keyspace(&space)?.get(&key));
            let found = found.map_err(|e| format!("get fails: {e:?}"))?;
            if found.as_ref() != entries.get(&key) {
                return Err(format!(
                    "get of {name}/{space}/{} gives {:?} bytes, iteration {:?}",
                    key.escape_ascii(),
                    found.map(|v| v.len()),
                    entries.get(&key).map(Bytes::len)
                ));
            }
        }
        Ok(())
    }

    /// Creates a tenant.
    pub fn create_tenant(&mut self, name: &str) -> Result<Tenant> {
        let ticket = self.known().oracle.create_tenant(name);
        let result = self.engine().create_tenant(name, TenantOptions::default());
        self.known()
            .oracle
            .tenant_done(ticket, outcome(&result, Durability::Local));
        result
    }

    /// Deletes a tenant, of which the oracle knows.
    pub fn delete_tenant(&mut self, name: &str) -> Result<()> {
        let number = self
            .known()
            .oracle
            .tenant(name)
            .expect("the oracle knows the tenant");
        let ticket = self.known().oracle.delete_tenant(number);
        // An interrupted deletion may leave a version that never guarded anything: it is not among these.
        let files = self.fs.files();
        let keystore = files
            .iter()
            .filter(|(path, _)| path.starts_with(format!("{DIR}/keystore")));
        let condemned = self.keys.versions_in(keystore.map(|(_, bytes)| &bytes[..]));
        assert!(!condemned.is_empty() || self.fs.crashed(), "no root on the disk");
        self.known().condemned.push((ticket, condemned));
        let result = self.engine().delete_tenant(name);
        self.known()
            .oracle
            .tenant_done(ticket, outcome(&result, Durability::Local));
        if result.is_ok() {
            assert_eq!(self.check_condemned(), Ok(()));
        }
        result.map(drop)
    }

    /// Whether the keys of every deleted tenant are beyond recovery: the provider no longer has a version
    /// under which they were ever wrapped.
    fn check_condemned(&self) -> std::result::Result<(), String> {
        let live = self.keys.live_versions();
        let known = self.known();
        for (ticket, versions) in &known.condemned {
            let gone = known.oracle.tenant_outcome(*ticket) == Outcome::Acknowledged;
            if gone && !live.is_disjoint(versions) {
                return Err(format!(
                    "a tenant is deleted, but of the versions {versions:?} {live:?} are left"
                ));
            }
        }
        Ok(())
    }

    /// Opens a keyspace, creating it if it is missing.
    pub fn keyspace(&mut self, tenant: &str, space: &str) -> Result<Keyspace> {
        let exists = self
            .visible()
            .get(tenant)
            .is_some_and(|spaces| spaces.contains_key(space));
        let handle = self.engine().tenant(tenant)?;
        if exists {
            return handle.open_keyspace(space);
        }
        let number = self
            .known()
            .oracle
            .tenant(tenant)
            .expect("the oracle knows the tenant");
        let ticket = self
            .known()
            .oracle
            .submit(Change::Create(number, space.to_string()));
        let result = handle.keyspace(space);
        self.done(ticket, outcome(&result, self.options.durability));
        result
    }

    /// Deletes a keyspace.
    pub fn delete_keyspace(&mut self, tenant: &str, space: &str) -> Result<()> {
        let number = self
            .known()
            .oracle
            .tenant(tenant)
            .expect("the oracle knows the tenant");
        let ticket = self
            .known()
            .oracle
            .submit(Change::Delete(number, space.to_string()));
        let result = self
            .engine()
            .tenant(tenant)
            .and_then(|t| t.delete_keyspace(space));
        self.done(ticket, outcome(&result, self.options.durability));
        result
    }

    /// Commits one batch of (keyspace, key, value or deletion), creating keyspaces as needed.
    pub fn batch(&mut self, tenant: &str, ops: Vec<Op>, durability: Durability) -> Result<()> {
        self.batch_with(tenant, ops, durability, |batch| batch)
    }

    /// The same, with what `more` adds to the batch: conditions.
    pub fn batch_with(
        &mut self,
        tenant: &str,
        ops: Vec<Op>,
        durability: Durability,
        more: impl FnOnce(Batch) -> Batch,
    ) -> Result<()> {
        let handle = self.engine().tenant(tenant)?;
        let mut batch = handle.batch().durability(durability);
        for (space, key, value) in &ops {
            let space = self.keyspace(tenant, space)?;
            batch = match value {
                Some(value) => batch.put(&space, key, value),
                None => batch.delete(&space, key),
            };
        }
        let number = self
            .known()
            .oracle
            .tenant(tenant)
            .expect("the oracle knows the tenant");
        let _standing = self.stand_for(tenant, ops.iter().map(|(space, ..)| space));
        let ticket = self.known().oracle.submit(Change::Batch(number, ops));
        let result = more(batch).commit();
        self.done(ticket, outcome(&result, durability));
        result.map(drop)
    }

    /// Puts a fresh value of `len` bytes, durably.
    pub fn put(&mut self, tenant: &str, space: &str, key: u64, len: usize) -> Result<()> {
        let value = self.value(len);
        self.batch(
            tenant,
            vec![(name_of_space(space), key_of(key), Some(value))],
            Durability::Local,
        )
    }

    /// Deletes a key, durably.
    pub fn delete(&mut self, tenant: &str, space: &str, key: u64) -> Result<()> {
        self.batch(
            tenant,
            vec![(name_of_space(space), key_of(key), None)],
            Durability::Local,
        )
    }

    /// A value that was never used before in this world. Every third repeats itself, for compression.
    pub fn value(&mut self, len: usize) -> Bytes {
        self.values += 1;
        let mut value = format!("{}:{}:", canary::VALUE, self.values).into_bytes();
        let mut dice = Dice::new(self.values);
        let repeated = dice.roll();
        while value.len() < len {
            let next = match self.values.is_multiple_of(3) {
                true => repeated,
                false => dice.roll(),
            };
            value.extend_from_slice(&next.to_le_bytes());
        }
        value.truncate(len);
        Bytes::from(value)
    }

    /// Verifies the database, which is not open.
    pub fn verified(&self) -> Result<Verified> {
        let builder = Engine::builder(DIR).shared_keys(self.keys.provider());
        builder.io(self.io_on(&self.fs)).verify()
    }

    /// Flushes.
    pub fn flush(&mut self) -> Result<()> {
        self.engine().flush()?;
        self.known().oracle.synced();
        Ok(())
    }

    /// Compacts until nothing is left to do.
    pub fn compact(&mut self) -> Result<()> {
        self.engine().compact()
    }

    /// Background jobs until there are none, at most so many.
    pub fn step(&mut self, most: usize) -> Result<()> {
        for _ in 0..most {
            if !self.engine().step()? {
                break;
            }
        }
        Ok(())
    }

    /// Takes a checkpoint.
    pub fn checkpoint(&mut self, path: &str) -> Result<()> {
        let escrow = self.engine().escrow(&self.secret.recipient())?;
        let (content, moments) = (self.visible(), self.known().oracle.moments());
        let copy = Copy {
            path: PathBuf::from(path),
            content,
            moments,
            escrow,
            complete: false,
        };
        self.known().copies.push(copy);
        self.engine().checkpoint(path)?;
        self.known().copies.last_mut().expect("just added").complete = true;
        Ok(())
    }

    fn done(&self, ticket: Ticket, outcome: Outcome) {
        self.known().oracle.done(ticket, outcome);
    }
}

/// The files of the database, for messages.
fn listing(fs: &SimFs) -> String {
    let lines = fs.files().into_iter().filter(|(path, _)| path.starts_with(DIR));
    lines
        .map(|(path, bytes)| format!("\n  {:>8} {}", bytes.len(), path.display()))
        .collect()
}

/// Name of a keyspace in tests, with its canary.
pub fn name_of_space(space: &str) -> String {
    if space.starts_with(canary::KEYSPACE) {
        space.into()
    } else {
        format!("{}-{space}", canary::KEYSPACE)
    }
}

/// Name of a tenant in tests, with its canary.
pub fn name_of_tenant(tenant: impl std::fmt::Display) -> String {
    format!("{}-{tenant}", canary::TENANT)
}

/// A key of tests, with its canary; ordered as its number.
pub fn key_of(key: u64) -> Bytes {
    Bytes::from(format!("{}/{key:06}", canary::KEY))
}

/// What an answer of the engine says about a change.
fn outcome<T>(result: &Result<T>, durability: Durability) -> Outcome {
    use ErrorKind as K;
    match result {
        Ok(_) if durability == Durability::Buffered => Outcome::Accepted,
        Ok(_) => Outcome::Acknowledged,
        Err(e) => {
            assert!(
                !canary::is_in(&format!("{e:?} {e}")),
                "an error carries a name, key or value: {e:?}"
            );
            match e.kind() {
                K::Invalid
                | K::NotFound
                | K::AlreadyExists
                | K::Closed
                | K::NotPrimary
                | K::Fenced
                | K::Conflict
                | K::QuotaExceeded => Outcome::Absent,
                _ => Outcome::Failed,
            }
        }
    }
}

/// The error a failing machine may cause, and no other.
pub fn is_failure_of_the_machine(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::ReadOnly | ErrorKind::Unknown
    )
}
