//! Transactions, with writes of others in between.

use std::time::Duration;

use bytes::Bytes;
use strongroom::{Durability, ErrorKind, Result};

use super::{World, outcome};
use crate::oracle::Change;

impl World {
    /// A transaction reads a value and would write to its key, but it expires before the commit, and is perhaps gone
    /// from the tables: whether it conflicted. `ttl_ms` is left of the value.
    pub fn transact_over_expiry(
        &mut self,
        (tenant, space, key): (&str, &str, &Bytes),
        ttl_ms: u64,
        compacted: bool,
    ) -> Result<bool> {
        let handle = self.engine().tenant(tenant)?;
        let keyspace = handle.open_keyspace(space)?;
        let mut transaction = handle.transaction();
        transaction.get(&keyspace, key)?;
        transaction.put(&keyspace, key, "never committed");
        self.clock().advance(Duration::from_millis(ttl_ms));
        if compacted {
            self.compact()?;
        }
        match transaction.commit() {
            Ok(_) => Ok(false),
            Err(e) if e.kind() == ErrorKind::Conflict => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// Puts `last` in a transaction that reads the key first, and is disturbed by a put of each of `between`.
    /// Returns what it read, each time it was begun.
    pub fn transact(
        &mut self,
        (tenant, space, key): (&str, &str, &Bytes),
        between: &[Bytes],
        last: &Bytes,
        durability: Durability,
    ) -> Result<Vec<Option<Bytes>>> {
        let handle = self.engine().tenant(tenant)?;
        let keyspace = handle.open_keyspace(space)?;
        let put = |value: &Bytes| vec![(space.to_string(), key.clone(), Some(value.clone()))];
        let mut read = Vec::new();
        let mut ordered = None;
        let _standing = self.stand_for(tenant, std::iter::once(&space.to_string()));
        let result = handle.transact(|transaction| {
            transaction.durability(durability);
            read.push(transaction.get(&keyspace, key)?);
            transaction.put(&keyspace, key, last);
            if let Some(value) = between.get(read.len() - 1) {
                return self.batch(tenant, put(value), durability);
            }
            let number = self.known().oracle.tenant(tenant);
            let number = number.expect("the oracle knows the tenant");
            let change = Change::Batch(number, put(last));
            ordered.get_or_insert_with(|| self.known().oracle.submit(change));
            Ok(())
        });
        if let Some(ticket) = ordered {
            self.done(ticket, outcome(&result, durability));
        }
        result.map(|_| read)
    }
}
