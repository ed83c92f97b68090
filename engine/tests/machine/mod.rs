//! A machine whose clock moves by hand only, with a database of one tenant and one keyspace on it.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use strongroom::io::Io;
use strongroom::io::sim::{CrashMode, SimClock, SimFs, SimRng};
use strongroom::keys::{KeyProvider, MemoryKeys};
use strongroom::*;

pub struct Machine {
    pub fs: SimFs,
    pub clock: Arc<SimClock>,
    pub rng: Arc<SimRng>,
    pub keys: Arc<dyn KeyProvider>,
    pub options: Options,
}

pub struct Db {
    pub engine: Engine,
    pub tenant: Tenant,
    pub keyspace: Keyspace,
}

impl Machine {
    /// With small limits; values are not compressed, so that sizes tell what is left.
    pub fn with(change: impl FnOnce(&mut Options)) -> Machine {
        let mut options = Options::tiny();
        options.compression = Compression::None;
        change(&mut options);
        Machine {
            fs: SimFs::new(),
            clock: Arc::new(SimClock::with_step(Duration::ZERO)),
            rng: Arc::new(SimRng::new(7)),
            keys: Arc::new(MemoryKeys::new()),
            options,
        }
    }

    pub fn io(&self) -> Io {
        Io {
            vfs: Arc::new(self.fs.clone()),
            clock: self.clock.clone(),
            rng: self.rng.clone(),
        }
    }

    pub fn builder(&self) -> Builder {
        let builder = Engine::builder("/db").shared_keys(self.keys.clone());
        builder.options(self.options.clone()).io(self.io())
    }

    pub fn open(&self) -> Db {
        let engine = self.builder().open().unwrap();
        let tenant = match engine.tenant("t") {
            Ok(tenant) => tenant,
            Err(_) => engine.create_tenant("t", TenantOptions::default()).unwrap(),
        };
        let keyspace = match tenant.open_keyspace("k") {
            Ok(keyspace) => keyspace,
            Err(_) => tenant.keyspace("k").unwrap(),
        };
        Db {
            engine,
            tenant,
            keyspace,
        }
    }

    pub fn pass(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
    }

    /// The power goes; only what was synced stays.
    pub fn crash(&mut self, db: Db) -> Db {
        drop(db);
        self.fs = self.fs.crashed_image(CrashMode::DropAll, 1);
        self.open()
    }
}

impl Db {
    pub fn value(&self, key: &str) -> Option<String> {
        text(self.keyspace.get(key).unwrap())
    }

    /// Forwards and backwards the same.
    pub fn keys(&self) -> Vec<String> {
        let forwards = keys(self.keyspace.iter());
        let mut backwards = keys(self.keyspace.iter().rev());
        backwards.reverse();
        assert_eq!(forwards, backwards);
        forwards
    }

    pub fn jobs(&self) {
        while self.engine.step().unwrap() {}
    }
}

pub fn text(value: Option<Bytes>) -> Option<String> {
    value.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

pub fn keys(range: impl Iterator<Item = Result<(Bytes, Bytes)>>) -> Vec<String> {
    range
        .map(|kv| String::from_utf8(kv.unwrap().0.to_vec()).unwrap())
        .collect()
}

/// A standby of `db` on another machine, from a base copy.
pub fn standby_of(db: &Db, machine: &Machine, other: &Machine) -> Engine {
    db.engine.checkpoint("/copy").unwrap();
    let mut receiver = BaseCopyReceiver::start("/db", other.io(), other.keys.clone()).unwrap();
    receiver.keys(&db.engine.key_changes(0)).unwrap();
    for (name, _) in checkpoint_files("/copy", &machine.io()).unwrap() {
        let bytes = machine.fs.content(format!("/copy/{name}")).unwrap();
        receiver.chunk(&name, 0, &bytes).unwrap();
    }
    receiver.finish().unwrap();
    other.builder().role(Role::Standby).open().unwrap()
}

/// Ships all of the log.
pub fn follow(db: &Db, standby: &Engine) {
    let at = standby.standby_progress().unwrap().received;
    let mut cursor = db.engine.wal_cursor(at).unwrap();
    let bytes = cursor.read(1 << 20, Duration::ZERO).unwrap();
    standby.standby_append(at, &bytes).unwrap();
    standby.standby_sync().unwrap();
}
