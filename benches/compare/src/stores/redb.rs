//! redb: a copy-on-write tree, in clear.
//!
//! Its writes without sync (`Durability::None`) are in memory until the next durable commit: a kill of the
//! process loses them, which is less than the others promise.

use anyhow::{Context, Result};
use redb::{AccessGuard, Database, Durability, ReadableDatabase, StorageError, Table, TableDefinition};

use crate::store::{Direction, Drops, Engine, Entry, Store, behind, count, touch};

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("k");

pub const ENGINE: Engine = Engine {
    name: "redb",
    drops: Drops::Range,
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

type Found<'a> = (AccessGuard<'a, &'static [u8]>, AccessGuard<'a, &'static [u8]>);

fn visit(entry: Result<Found<'_>, StorageError>) -> Result<(), StorageError> {
    touch(entry?.1.value());
    Ok(())
}

impl Redb {
    fn write(&self, sync: bool, work: impl FnOnce(&mut Table<&[u8], &[u8]>) -> Result<()>) -> Result<()> {
        let mut write = self.db.begin_write()?;
        if !sync {
            write.set_durability(Durability::None)?;
        }
        work(&mut write.open_table(TABLE)?)?;
        Ok(write.commit()?)
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

    fn delete_many(&self, keys: &[Vec<u8>]) -> Result<()> {
        self.write(false, |table| {
            for key in keys {
                table.remove(key.as_slice())?;
            }
            Ok(())
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        Ok(table.get(key)?.map(|value| touch(value.value())))
    }

    fn scan(&self, from: &[u8], limit: usize, direction: Direction) -> Result<usize> {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        let range = match (direction, from.is_empty()) {
            (_, true) => table.range::<&[u8]>(..)?,
            (Direction::Forward, _) => table.range(from..)?,
            (Direction::Backward, _) => table.range(..from)?,
        };
        match direction {
            Direction::Forward => count(range, limit, visit),
            Direction::Backward => count(range.rev(), limit, visit),
        }
    }

    fn prefix(&self, prefix: &[u8]) -> Result<usize> {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        let range = match behind(prefix) {
            Some(end) => table.range(prefix..end.as_slice())?,
            None => table.range(prefix..)?,
        };
        count(range, usize::MAX, visit)
    }

    fn settle(&self) -> Result<()> {
        // A durable commit is what takes earlier ones of no durability to the disk.
        self.write(true, |_| Ok(()))
    }

    fn drop_tenant(&self, tenant: u32) -> Result<()> {
        let from = tenant.to_be_bytes();
        let to = behind(&from).context("the last tenant has no end")?;
        self.write(false, |table| {
            Ok(table.retain_in::<&[u8], _>(&from[..]..to.as_slice(), |_, _| false)?)
        })
    }
}
