//! Range deletes, alone and among other operations of a batch, with the oracle told before.

use std::ops::Bound;

use bytes::Bytes;
use strongroom::{Durability, Result};

use super::{World, outcome};
use crate::oracle::{Change, Step};

impl World {
    /// Commits one batch of operations on keys and ranges, in order, creating keyspaces as needed.
    pub fn batch_of(&mut self, tenant: &str, steps: Vec<Step>, durability: Durability) -> Result<()> {
        let handle = self.engine().tenant(tenant)?;
        let mut batch = handle.batch().durability(durability);
        for step in &steps {
            let space = self.keyspace(tenant, step.space())?;
            batch = match step {
                Step::Key((_, key, Some(value))) => batch.put(&space, key, value),
                Step::Key((_, key, None)) => batch.delete(&space, key),
                Step::Range(_, range) => batch.delete_range(&space, range.clone()),
            };
        }
        let number = self.known().oracle.tenant(tenant);
        let number = number.expect("the oracle knows the tenant");
        let ticket = self.known().oracle.submit(Change::Steps(number, steps));
        let result = batch.commit();
        self.done(ticket, outcome(&result, durability));
        result.map(drop)
    }

    /// Deletes a range of a keyspace.
    pub fn delete_range(
        &mut self,
        tenant: &str,
        space: &str,
        range: (Bound<Bytes>, Bound<Bytes>),
        durability: Durability,
    ) -> Result<()> {
        self.batch_of(tenant, vec![Step::Range(space.to_string(), range)], durability)
    }
}
