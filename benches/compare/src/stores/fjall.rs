//! fjall: log-structured, in clear, lz4 (its default).

use anyhow::Result;
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::store::{Direction, Drops, Engine, Entry, Store, count, touch};

pub const ENGINE: Engine = Engine {
    name: "fjall",
    drops: Drops::Nothing,
    open: |dir, budget| {
        let db = Database::builder(dir).cache_size(budget.cache_bytes).open()?;
        let options = KeyspaceCreateOptions::default;
        let buffer = budget.write_buffer_bytes as u64;
        let keyspace = db.keyspace("k", move || options().max_memtable_size(buffer))?;
        Ok(Box::new(Fjall { db, keyspace }))
    },
};

struct Fjall {
    db: Database,
    keyspace: Keyspace,
}

fn visit(entry: Guard) -> fjall::Result<()> {
    let (_, value) = entry.into_inner()?;
    touch(&value);
    Ok(())
}

impl Store for Fjall {
    fn put(&self, key: &[u8], value: &[u8], sync: bool) -> Result<()> {
        if sync {
            let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
            batch.insert(&self.keyspace, key, value);
            batch.commit()?;
        } else {
            self.keyspace.insert(key, value)?;
        }
        Ok(())
    }

    fn put_many(&self, entries: &[Entry]) -> Result<()> {
        let mut batch = self.db.batch();
        for (key, value) in entries {
            batch.insert(&self.keyspace, key.as_slice(), value.as_slice());
        }
        Ok(batch.commit()?)
    }

    fn delete_many(&self, keys: &[Vec<u8>]) -> Result<()> {
        let mut batch = self.db.batch();
        for key in keys {
            batch.remove(&self.keyspace, key.as_slice());
        }
        Ok(batch.commit()?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.keyspace.get(key)?.map(|value| touch(&value)))
    }

    fn scan(&self, from: &[u8], limit: usize, direction: Direction) -> Result<usize> {
        let range = match (direction, from.is_empty()) {
            (_, true) => self.keyspace.iter(),
            (Direction::Forward, _) => self.keyspace.range(from..),
            (Direction::Backward, _) => self.keyspace.range(..from),
        };
        match direction {
            Direction::Forward => count(range, limit, visit),
            Direction::Backward => count(range.rev(), limit, visit),
        }
    }

    fn prefix(&self, prefix: &[u8]) -> Result<usize> {
        count(self.keyspace.prefix(prefix), usize::MAX, visit)
    }

    fn settle(&self) -> Result<()> {
        self.keyspace.rotate_memtable_and_wait()?;
        self.keyspace.major_compact()?;
        Ok(())
    }
}
