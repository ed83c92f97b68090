//! Strongroom, sealed as always. All but the lines about tenants use one tenant, one keyspace.

use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use strongroom::keys::KeyFile;
use strongroom::{Durability, Keyspace, Options, Tenant, TenantOptions};

use crate::store::{Budget, Direction, Drops, Engine, Entry, Store, touch};

pub const ENGINE: Engine = Engine {
    name: "strongroom",
    drops: Drops::Tenant,
    open: |dir, budget| Ok(Box::new(Strongroom::open(dir, budget)?)),
};

/// A tenant and its keyspace.
struct Room {
    tenant: Tenant,
    keyspace: Keyspace,
}

struct Strongroom {
    engine: strongroom::Engine,
    /// Of the lines that know no tenants.
    main: Room,
    /// Of the lines about tenants.
    tenants: OnceLock<Vec<Room>>,
}

/// Tenants made with one sync.
const TENANTS_AT_ONCE: usize = 10_000;

impl Strongroom {
    fn open(dir: &Path, budget: &Budget) -> Result<Strongroom> {
        let key = dir.join("key");
        let keys = if key.exists() {
            KeyFile::open(&key)?
        } else {
            std::fs::create_dir_all(dir)?;
            KeyFile::create(&key)?
        };
        let mut options = Options::default();
        options.cache_bytes = budget.cache_bytes;
        options.memtable_bytes = budget.write_buffer_bytes;
        // For keyspaces as they are made; batches say their own.
        options.durability = Durability::Buffered;
        let engine = strongroom::Engine::builder(dir.join("db"))
            .keys(keys)
            .options(options)
            .open()?;
        let tenant = match engine.tenant("bench") {
            Ok(tenant) => tenant,
            Err(_) => engine.create_tenant("bench", TenantOptions::default())?,
        };
        let keyspace = tenant.keyspace("k")?;
        Ok(Strongroom {
            engine,
            main: Room { tenant, keyspace },
            tenants: OnceLock::new(),
        })
    }

    fn room(&self, tenant: u32) -> Result<&Room> {
        let rooms = self.tenants.get().context("tenants are not prepared")?;
        rooms.get(tenant as usize).context("no such tenant is prepared")
    }
}

fn name(tenant: u32) -> String {
    format!("tenant-{tenant:06}")
}

impl Room {
    fn put(&self, key: &[u8], value: &[u8], sync: bool) -> Result<()> {
        let durability = if sync {
            Durability::Local
        } else {
            Durability::Buffered
        };
        self.tenant
            .batch()
            .put(&self.keyspace, key, value)
            .durability(durability)
            .commit()?;
        Ok(())
    }

    fn put_many(&self, entries: &[Entry]) -> Result<()> {
        let mut batch = self.tenant.batch().durability(Durability::Buffered);
        for (key, value) in entries {
            batch = batch.put(&self.keyspace, key, value);
        }
        batch.commit()?;
        Ok(())
    }

    fn delete_many(&self, keys: &[Vec<u8>]) -> Result<()> {
        let mut batch = self.tenant.batch().durability(Durability::Buffered);
        for key in keys {
            batch = batch.delete(&self.keyspace, key);
        }
        batch.commit()?;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.keyspace.get(key)?.map(|value| touch(&value)))
    }

    fn prefix(&self, prefix: &[u8]) -> Result<usize> {
        let (mut range, mut found) = (self.keyspace.prefix(prefix), 0);
        while let Some(entry) = range.next_ref() {
            touch(entry?.1);
            found += 1;
        }
        Ok(found)
    }
}

impl Store for Strongroom {
    fn put(&self, key: &[u8], value: &[u8], sync: bool) -> Result<()> {
        self.main.put(key, value, sync)
    }

    fn put_many(&self, entries: &[Entry]) -> Result<()> {
        self.main.put_many(entries)
    }

    fn delete_many(&self, keys: &[Vec<u8>]) -> Result<()> {
        self.main.delete_many(keys)
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        self.main.get(key)
    }

    fn scan(&self, from: &[u8], limit: usize, direction: Direction) -> Result<usize> {
        let keyspace = &self.main.keyspace;
        let mut range = match (direction, from.is_empty()) {
            (_, true) => keyspace.iter(),
            (Direction::Forward, _) => keyspace.range(from..),
            (Direction::Backward, _) => keyspace.range(..from),
        };
        let mut found = 0;
        while found < limit {
            let entry = match direction {
                Direction::Forward => range.next_ref(),
                Direction::Backward => range.next_back_ref(),
            };
            let Some(entry) = entry else { break };
            touch(entry?.1);
            found += 1;
        }
        Ok(found)
    }

    fn prefix(&self, prefix: &[u8]) -> Result<usize> {
        self.main.prefix(prefix)
    }

    fn settle(&self) -> Result<()> {
        Ok(self.engine.compact()?)
    }

    fn checkpoint(&self, to: &Path) -> Result<bool> {
        self.engine.checkpoint(to)?;
        Ok(true)
    }

    fn prepare_tenants(&self, tenants: u32) -> Result<()> {
        let names: Vec<String> = (0..tenants).map(name).collect();
        let missing: Vec<&str> = names
            .iter()
            .map(String::as_str)
            .filter(|name| self.engine.tenant(name).is_err())
            .collect();
        for some in missing.chunks(TENANTS_AT_ONCE) {
            self.engine.create_tenants(some)?;
        }
        let rooms: Result<Vec<Room>> = names
            .iter()
            .map(|name| {
                let tenant = self.engine.tenant(name)?;
                let keyspace = tenant.keyspace("k")?;
                Ok(Room { tenant, keyspace })
            })
            .collect();
        ensure_first(self.tenants.set(rooms?).is_ok())
    }

    fn tenant_put(&self, tenant: u32, key: &[u8], value: &[u8]) -> Result<()> {
        self.room(tenant)?.put(key, value, false)
    }

    fn tenant_put_many(&self, tenant: u32, entries: &[Entry]) -> Result<()> {
        self.room(tenant)?.put_many(entries)
    }

    fn tenant_get(&self, tenant: u32, key: &[u8]) -> Result<Option<usize>> {
        self.room(tenant)?.get(key)
    }

    fn tenant_prefix(&self, tenant: u32, prefix: &[u8]) -> Result<usize> {
        self.room(tenant)?.prefix(prefix)
    }

    fn tenant_delete_many(&self, tenant: u32, keys: &[Vec<u8>]) -> Result<()> {
        self.room(tenant)?.delete_many(keys)
    }

    fn drop_tenant(&self, tenant: u32) -> Result<()> {
        self.engine.delete_tenant(&name(tenant))?;
        Ok(())
    }
}

fn ensure_first(first: bool) -> Result<()> {
    anyhow::ensure!(first, "tenants are prepared once");
    Ok(())
}
