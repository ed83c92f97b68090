//! RocksDB: log-structured, in clear, lz4.
//!
//! Set up as its wiki advises for point reads and short scans on a small machine: filters of 10 bits, a hash
//! index in data blocks, index and filters of open tables kept in memory (outside the cache), newest table
//! format, dynamic level sizes (its default), parallelism of the two cores, bytes_per_sync. Blocks stay at the
//! default 4 KiB, which point reads like better than the 16 KiB advised for disks. Gets return slices pinned in
//! the cache, scans use the raw iterator: no copy and no box per entry; option structs are made once.

use std::path::Path;

use anyhow::{Context, Result};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DataBlockIndexType, Options, ReadOptions, WriteBatch, WriteOptions,
};

use crate::store::{Direction, Drops, Engine, Entry, Store, behind, touch};

pub const ENGINE: Engine = Engine {
    name: "rocksdb",
    drops: Drops::Range,
    open: |dir, budget| {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(budget.cache_bytes as usize));
        table.set_bloom_filter(10.0, false);
        table.set_format_version(6);
        table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        table.set_data_block_hash_ratio(0.75);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_write_buffer_size(budget.write_buffer_bytes);
        options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        options.set_bytes_per_sync(1 << 20);
        options.increase_parallelism(2);
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        std::fs::create_dir_all(dir)?;
        Ok(Box::new(Rocks {
            db: DB::open(&options, dir)?,
            read: ReadOptions::default(),
            synced,
            buffered: WriteOptions::default(),
        }))
    },
};

struct Rocks {
    db: DB,
    read: ReadOptions,
    synced: WriteOptions,
    buffered: WriteOptions,
}

impl Store for Rocks {
    fn put(&self, key: &[u8], value: &[u8], sync: bool) -> Result<()> {
        let options = if sync { &self.synced } else { &self.buffered };
        Ok(self.db.put_opt(key, value, options)?)
    }

    fn put_many(&self, entries: &[Entry]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in entries {
            batch.put(key, value);
        }
        Ok(self.db.write_opt(batch, &self.buffered)?)
    }

    fn delete_many(&self, keys: &[Vec<u8>]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for key in keys {
            batch.delete(key);
        }
        Ok(self.db.write_opt(batch, &self.buffered)?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self
            .db
            .get_pinned_opt(key, &self.read)?
            .map(|value| touch(&value)))
    }

    fn scan(&self, from: &[u8], count: usize, direction: Direction) -> Result<usize> {
        let mut entries = self.db.raw_iterator();
        match (direction, from.is_empty()) {
            (Direction::Forward, true) => entries.seek_to_first(),
            (Direction::Forward, false) => entries.seek(from),
            (Direction::Backward, true) => entries.seek_to_last(),
            (Direction::Backward, false) => {
                entries.seek_for_prev(from);
                if entries.key() == Some(from) {
                    entries.prev();
                }
            }
        }
        let mut found = 0;
        while let Some((_, value)) = entries.item() {
            touch(value);
            found += 1;
            if found == count {
                break;
            }
            match direction {
                Direction::Forward => entries.next(),
                Direction::Backward => entries.prev(),
            }
        }
        entries.status()?;
        Ok(found)
    }

    fn prefix(&self, prefix: &[u8]) -> Result<usize> {
        let mut options = ReadOptions::default();
        if let Some(end) = behind(prefix) {
            options.set_iterate_upper_bound(end);
        }
        let mut entries = self.db.raw_iterator_opt(options);
        entries.seek(prefix);
        let mut found = 0;
        while let Some((_, value)) = entries.item() {
            touch(value);
            found += 1;
            entries.next();
        }
        entries.status()?;
        Ok(found)
    }

    fn settle(&self) -> Result<()> {
        self.db.flush()?;
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    fn checkpoint(&self, to: &Path) -> Result<bool> {
        Checkpoint::new(&self.db)?.create_checkpoint(to)?;
        Ok(true)
    }

    fn drop_tenant(&self, tenant: u32) -> Result<()> {
        let from = tenant.to_be_bytes();
        let to = behind(&from).context("the last tenant has no end")?;
        let mut batch = WriteBatch::default();
        batch.delete_range(&from[..], &to);
        Ok(self.db.write_opt(batch, &self.buffered)?)
    }
}
