//! Strongroom, sealed as always: one tenant, one keyspace.

use std::path::Path;

use anyhow::Result;
use strongroom::keys::KeyFile;
use strongroom::{Durability, Keyspace, Options, Tenant, TenantOptions};

use crate::store::{Budget, Direction, Engine, Entry, Store};

pub const ENGINE: Engine = Engine {
    name: "strongroom",
    open: |dir, budget| Ok(Box::new(Strongroom::open(dir, budget)?)),
};

struct Strongroom {
    engine: strongroom::Engine,
    tenant: Tenant,
    keyspace: Keyspace,
}

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
            tenant,
            keyspace,
        })
    }
}

impl Store for Strongroom {
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

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.keyspace.get(key)?.map(|value| value.len()))
    }

    fn scan(&self, from: &[u8], count: usize, direction: Direction) -> Result<usize> {
        let mut found = 0;
        let range = match (direction, from.is_empty()) {
            (_, true) => self.keyspace.iter(),
            (Direction::Forward, _) => self.keyspace.range(from..),
            (Direction::Backward, _) => self.keyspace.range(..from),
        };
        let mut count_in = |entry: strongroom::Result<_>| -> Result<()> {
            entry?;
            found += 1;
            Ok(())
        };
        match direction {
            Direction::Forward => range.take(count).try_for_each(&mut count_in)?,
            Direction::Backward => range.rev().take(count).try_for_each(&mut count_in)?,
        }
        Ok(found)
    }

    fn delete_all(&self, _keys: &mut dyn Iterator<Item = [u8; 16]>) -> Result<()> {
        self.engine.delete_tenant("bench")?;
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        self.engine.compact()?;
        Ok(())
    }
}
