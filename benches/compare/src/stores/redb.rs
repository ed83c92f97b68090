//! redb: a copy-on-write tree, in clear.

use anyhow::Result;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use crate::store::{Direction, Engine, Entry, Store};

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("k");

pub const ENGINE: Engine = Engine {
    name: "redb",
    open: |dir, budget| {
        std::fs::create_dir_all(dir)?;
        let mut builder = Database::builder();
        builder.set_cache_size(budget.cache_bytes as usize);
        let db = builder.create(dir.join("redb"))?;
        let write = db.begin_write()?;
        write.open_table(TABLE)?;
        write.commit()?;
        Ok(Box::new(Redb { db }))
    },
};

struct Redb {
    db: Database,
}

impl Redb {
    fn write(
        &self,
        sync: bool,
        work: impl FnOnce(&mut redb::Table<&[u8], &[u8]>) -> Result<()>,
    ) -> Result<()> {
        let mut write = self.db.begin_write()?;
        if !sync {
            write.set_durability(Durability::None)?;
        }
        work(&mut write.open_table(TABLE)?)?;
        write.commit()?;
        Ok(())
    }
}

impl Store for Redb {
    fn put(&self, key: &[u8], value: &[u8], sync: bool) -> Result<()> {
        self.write(sync, |table| {
            table.insert(key, value)?;
            Ok(())
        })
    }

    fn put_many(&self, entries: &[Entry]) -> Result<()> {
        self.write(false, |table| {
            for (key, value) in entries {
                table.insert(key.as_slice(), value.as_slice())?;
            }
            Ok(())
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        Ok(table.get(key)?.map(|value| value.value().len()))
    }

    fn scan(&self, from: &[u8], count: usize, direction: Direction) -> Result<usize> {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        let range = match (direction, from.is_empty()) {
            (_, true) => table.range::<&[u8]>(..)?,
            (Direction::Forward, _) => table.range(from..)?,
            (Direction::Backward, _) => table.range(..from)?,
        };
        let mut found = 0;
        let mut count_in = |entry: std::result::Result<_, redb::StorageError>| -> Result<()> {
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

    fn delete_all(&self, keys: &mut dyn Iterator<Item = [u8; 16]>) -> Result<()> {
        self.write(false, |table| {
            for key in keys {
                table.remove(key.as_slice())?;
            }
            Ok(())
        })
    }

    fn settle(&self) -> Result<()> {
        // A durable commit is what takes earlier ones of no durability to the disk.
        self.write(true, |_| Ok(()))
    }
}
