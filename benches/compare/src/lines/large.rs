//! Values of 16 KiB: a load in random order, gets, overwriting. A fiftieth of the keys, at most 50,000 (800 MiB).
//! Every value is read once before gets are timed: what fits the cache is in it, with every engine.

use std::time::Instant;

use super::{Group, Plan, get, random_put};
use crate::figure::Unit;
use crate::measure::took;
use crate::process::{self, Written};
use crate::work::{key, shuffled};

const LOAD: &str = "16 KiB values: load";
const LOAD_DEVICE: &str = "16 KiB values: bytes to the device by load and settle";
const SPACE: &str = "16 KiB values: space after load and settle";
const GET_1: &str = "16 KiB values: random get, 1 thread";
const GET_2: &str = "16 KiB values: random get, 2 threads";
const OVERWRITE: &str = "16 KiB values: overwrite, 1 thread";

/// Values in a batch of the load: 256 KiB.
const AT_ONCE: usize = 16;

pub const GROUP: Group = Group {
    name: "large",
    lines: &[LOAD, LOAD_DEVICE, SPACE, GET_1, GET_2, OVERWRITE],
    run: |round| {
        let plan = Plan {
            keys: (round.plan.keys / 50).clamp(100, 50_000),
            value_bytes: 16 << 10,
            ..round.plan.clone()
        };
        round.fresh(|store, dir| {
            let (before, began) = (Written::now()?, Instant::now());
            for batch in shuffled(plan.keys, plan.value_bytes, plan.seed, AT_ONCE) {
                store.put_many(&batch)?;
            }
            let loaded = took(plan.keys, began.elapsed());
            store.settle()?;
            let device = (Written::now()?.device - before.device) as f64;
            round.line(LOAD, || Ok(loaded))?;
            round.also(LOAD_DEVICE, Unit::Times, device / plan.user_bytes(plan.keys));
            round.also(SPACE, Unit::Bytes, process::space(dir)? as f64);
            if round.wants(GET_1) || round.wants(GET_2) {
                for at in 0..plan.keys {
                    store.get(&key(at))?;
                }
            }
            round.line(GET_1, || get(store, &plan, 1, 0))?;
            round.line(GET_2, || get(store, &plan, 2, 0))?;
            round.line(OVERWRITE, || random_put(store, &plan, 1, false))
        })
    },
};
