//! LMDB through heed: a memory-mapped tree, in clear. Its cache is the page cache, of any size.

use anyhow::Result;
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, WithoutTls};

use crate::store::{Direction, Engine, Entry, Store};

const MAP_BYTES: usize = 64 << 30;

pub const ENGINE: Engine = Engine {
    name: "lmdb",
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

impl Store for Lmdb {
    fn put(&self, key: &[u8], value: &[u8], sync: bool) -> Result<()> {
        let Tree { env, tree } = if sync { &self.synced } else { &self.buffered };
        let mut write = env.write_txn()?;
        tree.put(&mut write, key, value)?;
        write.commit()?;
        Ok(())
    }

    fn put_many(&self, entries: &[Entry]) -> Result<()> {
        let Tree { env, tree } = &self.buffered;
        let mut write = env.write_txn()?;
        for (key, value) in entries {
            tree.put(&mut write, key, value)?;
        }
        write.commit()?;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        let Tree { env, tree } = &self.buffered;
        let read = env.read_txn()?;
        Ok(tree.get(&read, key)?.map(<[u8]>::len))
    }

    fn scan(&self, from: &[u8], count: usize, direction: Direction) -> Result<usize> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let Tree { env, tree } = &self.buffered;
        let read = env.read_txn()?;
        let mut found = 0;
        let mut count_in = |entry: heed::Result<(&[u8], &[u8])>| -> Result<()> {
            entry?;
            found += 1;
            Ok(())
        };
        match direction {
            Direction::Forward => {
                let bound = if from.is_empty() {
                    Unbounded
                } else {
                    Included(from)
                };
                tree.range(&read, &(bound, Unbounded))?
                    .take(count)
                    .try_for_each(&mut count_in)?;
            }
            Direction::Backward => {
                let bound = if from.is_empty() {
                    Unbounded
                } else {
                    Excluded(from)
                };
                tree.rev_range(&read, &(Unbounded, bound))?
                    .take(count)
                    .try_for_each(&mut count_in)?;
            }
        }
        Ok(found)
    }

    fn delete_all(&self, keys: &mut dyn Iterator<Item = [u8; 16]>) -> Result<()> {
        let Tree { env, tree } = &self.buffered;
        let mut write = env.write_txn()?;
        for key in keys {
            tree.delete(&mut write, &key)?;
        }
        write.commit()?;
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        self.buffered.env.force_sync()?;
        Ok(())
    }
}
