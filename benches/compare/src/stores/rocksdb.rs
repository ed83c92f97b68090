//! RocksDB: log-structured, in clear, lz4.

use anyhow::Result;
use rocksdb::{BlockBasedOptions, Cache, DB, IteratorMode, Options, WriteBatch, WriteOptions};

use crate::store::{Direction, Engine, Entry, Store};

pub const ENGINE: Engine = Engine {
    name: "rocksdb",
    open: |dir, budget| {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(budget.cache_bytes as usize));
        table.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_write_buffer_size(budget.write_buffer_bytes);
        options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        options.increase_parallelism(2);
        Ok(Box::new(Rocks {
            db: DB::open(&options, dir)?,
        }))
    },
};

struct Rocks {
    db: DB,
}

impl Store for Rocks {
    fn put(&self, key: &[u8], value: &[u8], sync: bool) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.put_opt(key, value, &options)?;
        Ok(())
    }

    fn put_many(&self, entries: &[Entry]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in entries {
            batch.put(key, value);
        }
        self.db.write(batch)?;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.db.get_pinned(key)?.map(|value| value.len()))
    }

    fn scan(&self, from: &[u8], count: usize, direction: Direction) -> Result<usize> {
        let (way, end) = match direction {
            Direction::Forward => (rocksdb::Direction::Forward, IteratorMode::Start),
            Direction::Backward => (rocksdb::Direction::Reverse, IteratorMode::End),
        };
        let mode = if from.is_empty() {
            end
        } else {
            IteratorMode::From(from, way)
        };
        let mut found = 0;
        for entry in self.db.iterator(mode).take(count) {
            entry?;
            found += 1;
        }
        Ok(found)
    }

    fn delete_all(&self, keys: &mut dyn Iterator<Item = [u8; 16]>) -> Result<()> {
        for key in keys {
            self.db.delete(key)?;
        }
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        self.db.flush()?;
        self.db.compact_range::<&[u8], &[u8]>(None, None);
        Ok(())
    }
}
