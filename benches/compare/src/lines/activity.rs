//! Real events of real users of tenants of very unequal size: who touched which file when.
//!
//! Layout as the drill's: key = user ‖ 0x00 ‖ time (8 bytes, big-endian) ‖ line number (4 bytes, big-endian),
//! value = the rest of the event as JSON. Loaded in order of time, each thousand events as one batch for each
//! tenant among them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{BATCH, Group, Plan};
use crate::figure::Unit;
use crate::measure::{Measured, Step, once, run};
use crate::process;
use crate::store::{Entry, Store};

const LOAD: &str = "activity: load";
const SPACE: &str = "activity: space after load and settle";
const USER: &str = "activity: one user's events, 2 threads";
const WHOLE: &str = "activity: all events, tenant by tenant";
const ALL: &str = "activity: all tenants at once";

/// Used if the plan names no other file.
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../server/data/sample.ndjson.zst");

pub const GROUP: Group = Group {
    name: "activity",
    lines: &[LOAD, SPACE, USER, WHOLE, ALL],
    run: |round| {
        let plan = round.plan;
        let path = plan.activity.as_deref().unwrap_or(Path::new(SAMPLE));
        let data = Data::read(path).with_context(|| format!("reading {}", path.display()))?;
        round.fresh(|store, dir| {
            store.prepare_tenants(data.tenants)?;
            let batches = data.batches();
            round.line(LOAD, || {
                once(data.events, || {
                    batches
                        .iter()
                        .try_for_each(|(tenant, entries)| store.tenant_put_many(*tenant, entries))
                })
            })?;
            if !round.wants(LOAD) {
                for (tenant, entries) in &batches {
                    store.tenant_put_many(*tenant, entries)?;
                }
            }
            store.settle()?;
            round.also(SPACE, Unit::Bytes, process::space(dir)? as f64);
            round.line(USER, || users(store, plan, &data))?;
            round.line(WHOLE, || whole(store, plan, &data))?;
            round.line(ALL, || all_at_once(store, plan, &data))
        })
    },
};

struct Event {
    tenant: u32,
    entry: Entry,
}

struct Data {
    in_time: Vec<Event>,
    events: u64,
    tenants: u32,
    /// Tenant, prefix of the user's keys, how many there are.
    users: Vec<(u32, Vec<u8>, usize)>,
}

#[derive(Deserialize)]
struct Line {
    ts: u64,
    tenant: String,
    user: String,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Serialize, Deserialize)]
struct Rest {
    action: String,
    path: String,
}

impl Data {
    /// Reads an NDJSON file, compressed with zstd.
    fn read(path: &Path) -> Result<Data> {
        let file = BufReader::new(std::fs::File::open(path)?);
        let lines = BufReader::new(ruzstd::decoding::StreamingDecoder::new(file)?);
        let (mut known, mut users, mut in_time) = (HashMap::new(), BTreeMap::new(), Vec::new());
        for (number, line) in lines.lines().enumerate() {
            let line: Line =
                serde_json::from_str(&line?).with_context(|| format!("in line {}", number + 1))?;
            let next = known.len() as u32;
            let tenant = *known.entry(line.tenant).or_insert(next);
            let mut key = line.user.into_bytes();
            key.push(0);
            *users.entry((tenant, key.clone())).or_insert(0) += 1;
            key.extend_from_slice(&line.ts.to_be_bytes());
            key.extend_from_slice(&(number as u32 + 1).to_be_bytes());
            let entry = (key, serde_json::to_vec(&line.rest)?);
            in_time.push(Event { tenant, entry });
        }
        ensure!(!in_time.is_empty(), "no events");
        Ok(Data {
            events: in_time.len() as u64,
            in_time,
            tenants: known.len() as u32,
            users: users
                .into_iter()
                .map(|((tenant, prefix), count)| (tenant, prefix, count))
                .collect(),
        })
    }

    /// The load, cut into what is written at once.
    fn batches(&self) -> Vec<(u32, Vec<Entry>)> {
        let mut batches = Vec::new();
        for events in self.in_time.chunks(BATCH) {
            let tenants: BTreeSet<u32> = events.iter().map(|event| event.tenant).collect();
            for tenant in tenants {
                let of = events.iter().filter(|event| event.tenant == tenant);
                batches.push((tenant, of.map(|event| event.entry.clone()).collect()));
            }
        }
        batches
    }
}

/// All events of a user, each user equally often: ranges a second.
fn users(store: &dyn Store, plan: &Plan, data: &Data) -> Result<Measured> {
    let step = || -> Step<'_> {
        Box::new(|dice| {
            let (tenant, prefix, events) = &data.users[dice.below(data.users.len() as u64) as usize];
            let found = store.tenant_prefix(*tenant, prefix)?;
            ensure!(found == *events, "a user of {events} events has {found}");
            Ok(1)
        })
    };
    run(plan.time, plan.seed, vec![step(), step()])
}

/// Everything, over and over: events a second.
fn whole(store: &dyn Store, plan: &Plan, data: &Data) -> Result<Measured> {
    let step: Step<'_> = Box::new(|_| {
        let mut found = 0;
        for tenant in 0..data.tenants {
            found += store.tenant_prefix(tenant, &[])? as u64;
        }
        ensure!(found == data.events, "{found} events of {}", data.events);
        Ok(found)
    });
    run(plan.time, plan.seed, vec![step])
}

/// A thread for each tenant: of ten operations two write a new event, the others read a user's.
fn all_at_once(store: &dyn Store, plan: &Plan, data: &Data) -> Result<Measured> {
    let number = AtomicU64::new(u64::from(u32::MAX));
    let number = &number;
    let step = |tenant: u32| -> Step<'_> {
        let users: Vec<&[u8]> = data
            .users
            .iter()
            .filter(|(of, ..)| *of == tenant)
            .map(|(_, prefix, _)| prefix.as_slice())
            .collect();
        let (_, value) = data
            .in_time
            .iter()
            .find(|event| event.tenant == tenant)
            .map(|event| event.entry.clone())
            .unwrap_or_default();
        Box::new(move |dice| {
            let user = users[dice.below(users.len() as u64) as usize];
            if dice.below(10) < 2 {
                let mut key = user.to_vec();
                key.extend_from_slice(&number.fetch_add(1, Ordering::Relaxed).to_be_bytes());
                key.extend_from_slice(&[0; 4]);
                store.tenant_put(tenant, &key, &value)?;
            } else {
                ensure!(store.tenant_prefix(tenant, user)? > 0, "a user is gone");
            }
            Ok(1)
        })
    };
    run(plan.time, plan.seed, (0..data.tenants).map(step).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_has_the_users_and_tenants_its_readme_tells_of() {
        let data = Data::read(Path::new(SAMPLE)).unwrap();
        assert_eq!((data.events, data.tenants), (5000, 8));
        assert_eq!(data.users.iter().map(|(_, _, n)| n).sum::<usize>(), 5000);
        let (tenant, prefix, events) = &data.users[0];
        let of = |e: &&Event| e.tenant == *tenant && e.entry.0.starts_with(prefix);
        assert_eq!(data.in_time.iter().filter(of).count(), *events);
        let batched: usize = data.batches().iter().map(|(_, entries)| entries.len()).sum();
        assert_eq!(batched, 5000);
    }
}
