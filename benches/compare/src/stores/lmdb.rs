//! LMDB through heed: a memory-mapped tree, in clear. Its cache is the page cache, of any size.
//!
//! `buffered` runs with `NO_SYNC | WRITE_MAP`: a write is in the page cache when it returns, so it survives a
//! kill of the process; a power cut may leave a corrupt file, where log-structured engines keep a prefix.

use std::ops::Bound::{Excluded, Included, Unbounded};

use anyhow::{Context, Result};
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RwTxn, WithoutTls};

use crate::store::{Direction, Drops, Engine, Entry, Store, behind, count, touch};

const MAP_BYTES: usize = 64 << 30;

pub const ENGINE: Engine = Engine {
    name: "lmdb",
    drops: Drops::Range,
    open: |dir, _budget| {
        std::fs::create_dir_all(dir)?;
        let open = |flags: EnvFlags, sub: &str| -> Result<Tree> {
            let dir = dir.join(sub);
            std::fs::create_dir_all(&dir)?;
            let mut options = EnvOpenOptions::new().read_txn_without_tls();
            options.map_size(MAP_BYTES).max_readers(256);
            // SAFETY: the directory is ours alone and no file in it is touched from outside.
            let env = unsafe {
                options.flags(flags);
                options.open(&dir)?
            };
            let mut write = env.write_txn()?;
            let tree = env.create_database(&mut write, None)?;
            write.commit()?;
            Ok(Tree { env, tree })
        };
        Ok(Box::new(Lmdb {
            synced: open(EnvFlags::empty(), "synced")?,
            buffered: open(EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP, "buffered")?,
        }))
    },
};

struct Tree {
    env: Env<WithoutTls>,
    tree: Database<Bytes, Bytes>,
}

/// Sync is a property of an environment: synced puts and all else go to one each.
struct Lmdb {
    synced: Tree,
    buffered: Tree,
}

fn visit(entry: heed::Result<(&[u8], &[u8])>) -> heed::Result<()> {
    touch(entry?.1);
    Ok(())
}

impl Tree {
    fn write(&self, work: impl FnOnce(&Self, &mut RwTxn) -> heed::Result<()>) -> Result<()> {
        let mut write = self.env.write_txn()?;
        work(self, &mut write)?;
        Ok(write.commit()?)
    }
}

impl Store for Lmdb {
    fn put(&self, key: &[u8], value: &[u8], sync: bool) -> Result<()> {
        let tree = if sync { &self.synced } else { &self.buffered };
        tree.write(|tree, write| tree.tree.put(write, key, value))
    }

    fn put_many(&self, entries: &[Entry]) -> Result<()> {
        self.buffered.write(|tree, write| {
            let mut entries = entries.iter();
            entries.try_for_each(|(key, value)| tree.tree.put(write, key, value))
        })
    }

    fn delete_many(&self, keys: &[Vec<u8>]) -> Result<()> {
        self.buffered.write(|tree, write| {
            let mut keys = keys.iter();
            keys.try_for_each(|key| tree.tree.delete(write, key).map(drop))
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        let Tree { env, tree } = &self.buffered;
        let read = env.read_txn()?;
        Ok(tree.get(&read, key)?.map(touch))
    }

    fn scan(&self, from: &[u8], limit: usize, direction: Direction) -> Result<usize> {
        let Tree { env, tree } = &self.buffered;
        let read = env.read_txn()?;
        let (after, before) = match from.is_empty() {
            true => (Unbounded, Unbounded),
            false => (Included(from), Excluded(from)),
        };
        match direction {
            Direction::Forward => count(tree.range(&read, &(after, Unbounded))?, limit, visit),
            Direction::Backward => count(tree.rev_range(&read, &(Unbounded, before))?, limit, visit),
        }
    }

    fn prefix(&self, prefix: &[u8]) -> Result<usize> {
        let Tree { env, tree } = &self.buffered;
        let read = env.read_txn()?;
        count(tree.prefix_iter(&read, prefix)?, usize::MAX, visit)
    }

    fn settle(&self) -> Result<()> {
        Ok(self.buffered.env.force_sync()?)
    }

    fn drop_tenant(&self, tenant: u32) -> Result<()> {
        let from = tenant.to_be_bytes();
        let to = behind(&from).context("the last tenant has no end")?;
        let range = (Included(&from[..]), Excluded(to.as_slice()));
        self.buffered
            .write(|tree, write| tree.tree.delete_range(write, &range).map(drop))
    }
}
