//! The end of one tenant of many.
//!
//! Tenant 0 has `keys` entries, twenty others a twentieth of that each. Two lines: what an application on each
//! of the others does if it knows nothing better (its keys, a thousand in a batch), and the best each has (a
//! range delete where there is one). Ours is the deletion of the tenant in both: durable when it returns, its
//! keys destroyed; the others' are not synced, and their data stays on the disk until something overwrites it.

use anyhow::{Context, Result, ensure};

use super::{BATCH, Group, Round};
use crate::measure::{Measured, once};
use crate::store::{Drops, Store};
use crate::work::{in_order, key};

const BY_KEY: &str = "delete one tenant; the others: its keys";
const AT_BEST: &str = "delete one tenant; the others: their best";

const OTHERS: u64 = 20;
/// Deleted at best where that is another thing than by key.
const VICTIM: u32 = 0;
/// Deleted by key.
const BY_KEY_VICTIM: u32 = 1;
const FIRST_OTHER: u32 = 2;

pub const GROUP: Group = Group {
    name: "tenants",
    lines: &[BY_KEY, AT_BEST],
    run: |round| {
        round.fresh(|store, _| {
            store.prepare_tenants(FIRST_OTHER + OTHERS as u32)?;
            let keys = round.plan.keys;
            let few = keys.div_ceil(OTHERS);
            for other in FIRST_OTHER..FIRST_OTHER + OTHERS as u32 {
                fill(round, store, other, few)?;
            }
            let (at_best, by_key) = match round.engine.drops {
                Drops::Nothing => (false, true),
                Drops::Range => (true, true),
                Drops::Tenant => (true, false),
            };
            if at_best {
                fill(round, store, VICTIM, keys)?;
            }
            if by_key {
                fill(round, store, BY_KEY_VICTIM, keys)?;
            }
            store.settle()?;
            let mut best = None;
            if at_best {
                let measured = once(keys, || store.drop_tenant(VICTIM)).context(AT_BEST)?;
                gone(store, VICTIM, keys, round.engine.drops)?;
                best = Some(measured);
            }
            let key_by_key = if by_key {
                let measured = once(keys, || delete_keys(store, BY_KEY_VICTIM, keys)).context(BY_KEY)?;
                gone(store, BY_KEY_VICTIM, keys, Drops::Nothing)?;
                Some(measured)
            } else {
                None
            };
            // Whoever has one way only has it in both lines.
            let of = |one: &Option<Measured>, other: &Option<Measured>| {
                one.clone().or(other.clone()).context("nothing was deleted")
            };
            round.line(BY_KEY, || of(&key_by_key, &best))?;
            round.line(AT_BEST, || of(&best, &key_by_key))?;
            for other in FIRST_OTHER..FIRST_OTHER + OTHERS as u32 {
                let found = store.tenant_get(other, &key(few / 2))?;
                ensure!(found.is_some(), "another tenant's entry is gone");
            }
            Ok(())
        })
    },
};

fn fill(round: &Round, store: &dyn Store, tenant: u32, keys: u64) -> Result<()> {
    for batch in in_order(keys, round.plan.value_bytes, round.plan.seed, BATCH) {
        store.tenant_put_many(tenant, &batch)?;
    }
    Ok(())
}

fn delete_keys(store: &dyn Store, tenant: u32, keys: u64) -> Result<()> {
    let mut numbers = 0..keys;
    loop {
        let some: Vec<Vec<u8>> = numbers.by_ref().take(BATCH).map(|n| key(n).to_vec()).collect();
        if some.is_empty() {
            return Ok(());
        }
        store.tenant_delete_many(tenant, &some)?;
    }
}

/// Nothing of a tenant can be read: not found, or, where there are tenants, refused.
fn gone(store: &dyn Store, tenant: u32, keys: u64, drops: Drops) -> Result<()> {
    for number in [0, keys / 2, keys - 1] {
        match store.tenant_get(tenant, &key(number)) {
            Ok(found) => ensure!(found.is_none(), "a deleted tenant's entry is there"),
            Err(error) if drops != Drops::Tenant => return Err(error),
            Err(_) => {}
        }
    }
    Ok(())
}
