//! Puts into an empty database, a new one for each line.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;

use super::{Group, Plan, put, random_put, steps};
use crate::measure::{Measured, run};
use crate::store::Store;

type Line = (&'static str, fn(&dyn Store, &Plan) -> Result<Measured>);

const LINES: [Line; 7] = [
    ("sync put, 1 thread", |s, p| random_put(s, p, 1, true)),
    ("sync put, 16 threads", |s, p| random_put(s, p, 16, true)),
    ("sync put, 64 threads", |s, p| random_put(s, p, 64, true)),
    ("sequential put, 1 thread", |s, p| {
        sequential_put(s, &longer(p), 1)
    }),
    ("sequential put, 2 threads", |s, p| {
        sequential_put(s, &longer(p), 2)
    }),
    ("random put, 1 thread", |s, p| random_put(s, &longer(p), 1, false)),
    ("random put, 2 threads", |s, p| {
        random_put(s, &longer(p), 2, false)
    }),
];

pub const GROUP: Group = Group {
    name: "empty",
    lines: &{
        let mut names = [""; LINES.len()];
        let mut i = 0;
        while i < LINES.len() {
            names[i] = LINES[i].0;
            i += 1;
        }
        names
    },
    run: |round| {
        for (name, run) in LINES {
            round.line(name, || round.fresh(|store, _| run(store, round.plan)))?;
        }
        Ok(())
    },
};

/// Buffered puts run three times as long: the write buffer must fill, or flushes would not count.
fn longer(plan: &Plan) -> Plan {
    Plan {
        time: 3 * plan.time,
        ..plan.clone()
    }
}

fn sequential_put(store: &dyn Store, plan: &Plan, threads: usize) -> Result<Measured> {
    let next = AtomicU64::new(0);
    let next = &next;
    let step = |_| {
        put(store, plan.value_bytes, false, move |_| {
            next.fetch_add(1, Ordering::Relaxed)
        })
    };
    run(plan.time, plan.seed, steps(threads, step))
}
