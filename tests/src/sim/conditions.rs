//! Puts on a condition, which must be committed exactly if it holds; and transactions, begun again until it does.

use bytes::Bytes;
use strongroom::{Batch, Durability, ErrorKind};

use super::run::{Done, Run, Wrong};
use crate::world::{key_of, name_of_space, name_of_tenant};

impl Run {
    /// Puts a fresh value if the key has the value it has (`held` 1), or one it has not (0). `since` 1: if
    /// nothing was written to it since a snapshot, with a write in between for `held` 0.
    pub fn put_if(
        &mut self,
        (tenant, space, key): (u64, u64, u64),
        held: u64,
        since: u64,
        synced: u64,
    ) -> Done {
        let number = tenant;
        let (tenant, space) = (name_of_tenant(tenant), name_of_space(&space.to_string()));
        let Some(entries) = self.entries(&tenant, &space) else {
            return Ok(());
        };
        let handle = self.handle(&tenant, &space)?;
        let key = key_of(key);
        let now = entries.get(&key).cloned();
        let begun = self.world.known().oracle.now();
        let snapshot = self.world.engine().tenant(&tenant)?.snapshot();
        if since == 1 && held == 0 {
            let value = self.world.value(20);
            self.write(number, vec![(space.clone(), key.clone(), Some(value))], synced)?;
        }
        let expected = match held {
            0 if now.is_none() => Some(Bytes::from_static(b"never put")),
            0 => None,
            _ => now,
        };
        let value = self.world.value(40);
        let ops = vec![(space, key.clone(), Some(value))];
        let durability = match synced {
            0 => Durability::Buffered,
            _ => Durability::Local,
        };
        let result = self
            .world
            .batch_with(&tenant, ops, durability, |batch: Batch| match since {
                0 => batch.require(&handle, &key, expected.as_deref()),
                _ => batch.require_unchanged(&handle, &key, &snapshot),
            });
        // A sync that hangs takes time, and what was there may have expired.
        let moment_passed = since == 0 && self.world.known().oracle.now() > begun;
        match result {
            _ if moment_passed && !matches!(&result, Err(e) if e.kind() != ErrorKind::Conflict) => Ok(()),
            Ok(()) if held == 0 => Err(Wrong::Failure(
                "a batch was committed though its condition does not hold".into(),
            )),
            Err(e) if e.kind() == ErrorKind::Conflict && held != 0 => Err(Wrong::Failure(
                "a batch was refused though its condition holds".into(),
            )),
            Err(e) if e.kind() == ErrorKind::Conflict => Ok(()),
            other => Ok(other?),
        }
    }

    /// A transaction that reads and puts a key, with so many writes to it in between: it must have read each
    /// of them, and be committed on top of the last.
    pub fn transact(&mut self, (tenant, space, key): (u64, u64, u64), disturbed: u64, synced: u64) -> Done {
        let (tenant, space, key) = (
            name_of_tenant(tenant),
            name_of_space(&space.to_string()),
            key_of(key),
        );
        let Some(entries) = self.entries(&tenant, &space) else {
            return Ok(());
        };
        let between: Vec<Bytes> = (0..disturbed).map(|_| self.world.value(30)).collect();
        let last = self.world.value(50);
        let durability = match synced {
            0 => Durability::Buffered,
            _ => Durability::Local,
        };
        let place = (tenant.as_str(), space.as_str(), &key);
        let begun = self.world.known().oracle.now();
        let read = self.world.transact(place, &between, &last, durability)?;
        if self.world.known().oracle.now() > begun {
            return Ok(()); // A sync that hangs takes time, and what was there may have expired.
        }
        let was = std::iter::once(entries.get(&key).cloned());
        match was.chain(between.into_iter().map(Some)).eq(read) {
            true => Ok(()),
            false => Err(Wrong::Failure(
                "a transaction read something else than was written before it".into(),
            )),
        }
    }
}
