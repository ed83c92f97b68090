//! fjall: log-structured, in clear.

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::store::{Direction, Engine, Entry, Store};

pub const ENGINE: Engine = Engine {
    name: "fjall",
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
        let mut count_in = |guard: fjall::Guard| -> Result<()> {
            guard.into_inner()?;
            found += 1;
            Ok(())
        };
        match direction {
            Direction::Forward => range.take(count).try_for_each(&mut count_in)?,
            Direction::Backward => range.rev().take(count).try_for_each(&mut count_in)?,
        }
        Ok(found)
    }

    fn delete_all(&self, keys: &mut dyn Iterator<Item = [u8; 16]>) -> Result<()> {
        for key in keys {
            self.keyspace.remove(key)?;
        }
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        self.keyspace.rotate_memtable_and_wait()?;
        self.keyspace.major_compact()?;
        Ok(())
    }
}
