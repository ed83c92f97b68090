//! What is mortal in the simulated pair: a keyspace of each tenant whose entries expire, are past a retention or go by
//! range deletes; and quotas. What clients do with it, and what a node must show of it at its position and time.
//!
//! Each node's clock has a rate of its own, and days pass for all of them at once. The node that orders dates, the node that
//! answers compares. So of an entry that some clock has seen ended, and this one has not, a node may have lost the bytes: it got them,
//! or a base copy, from one that had written it out. It must not show what has ended by its own clock.

use std::collections::BTreeMap;
use std::time::Duration;

use strongroom::{Engine, ErrorKind, PutOptions, Retention, Tenant};

use super::ledger::{Outcome, What, id_of, key_bytes, tenant_name, value_bytes};
use super::net::NodeId;
use super::node::{Checked, Node};
use super::world::World;
use crate::canary;
use crate::oracle::{SETTINGS, Spaces, ends};

/// Keys of the keyspace.
const KEYS: u64 = 6;
const HOUR_MS: u64 = 3600 * 1000;

/// Its name.
fn space_name() -> String {
    format!("{}-mortal", canary::KEYSPACE)
}

/// What happens to a tenant's keyspace, and to the tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A key is put, now, and expires then.
    Put { now: u64, expires: Option<u64> },
    /// Keys up to this one, excluded, are deleted.
    DeleteRange { to: u64 },
    /// The retention is set, now; `latest` on the clock that is ahead of all.
    Retain {
        keep: Option<Retention>,
        now: u64,
        latest: u64,
    },
    /// The quota is set.
    Quota(Option<u64>),
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    id: u64,
    written: u64,
    expires: Option<u64>,
    /// It had ended by a clock that was ahead, and lives on by a longer retention.
    doubtful: bool,
}

/// Of one tenant.
#[derive(Default, Debug)]
pub struct Mortals {
    entries: BTreeMap<u64, Kept>,
    dated: bool,
    keep: Option<Retention>,
    quota: Option<u64>,
}

impl Mortals {
    fn ends(&self, kept: &Kept) -> Option<u64> {
        let by_age = self.keep.map(|keep| ends(keep, kept.written));
        kept.expires.into_iter().chain(by_age).min()
    }

    /// A change of the log; `key` is that of a put, or where a range begins.
    pub fn apply(&mut self, id: u64, key: u64, change: Change) {
        match change {
            Change::Put { now, expires } => {
                let kept = Kept {
                    id,
                    written: now,
                    expires,
                    doubtful: false,
                };
                self.entries.insert(key, kept);
            }
            Change::DeleteRange { to } => self.entries.retain(|at, _| !(key..to).contains(at)),
            Change::Retain { keep, now, latest } => {
                // What expires by itself does so by the clock of who answers.
                let before = self.keep;
                let by_age = |kept: &Kept| before.map(|keep| ends(keep, kept.written));
                self.entries
                    .retain(|_, kept| by_age(kept).is_none_or(|at| at > now));
                for kept in self.entries.values_mut() {
                    kept.doubtful |= by_age(kept).is_some_and(|at| at <= latest);
                    if !self.dated {
                        kept.written = now;
                    }
                }
                (self.dated, self.keep) = (true, keep);
            }
            Change::Quota(bytes) => self.quota = bytes,
        }
    }

    /// What is wrong with what a node shows when it is `here` on its clock.
    pub fn differ(&self, spaces: &Spaces, here: u64, latest: u64) -> Option<String> {
        let name = space_name();
        for key in 0..KEYS {
            let shown = spaces
                .get(&name)
                .and_then(|entries| entries.get(key_bytes(key).as_bytes()));
            let shown = shown.map(|value| id_of(value).unwrap_or_default());
            let kept = self.entries.get(&key);
            let end = kept.and_then(|kept| self.ends(kept));
            let there = kept.filter(|_| end.is_none_or(|at| at > here));
            let maybe = there.is_some_and(|kept| kept.doubtful) || end.is_some_and(|at| at <= latest);
            if shown != there.map(|kept| kept.id) && !(shown.is_none() && maybe) {
                return Some(format!(
                    "shows {shown:?} for mortal key {key}, must be {kept:?}, which ends {end:?}"
                ));
            }
        }
        let setting = |name: &str| {
            let bytes = spaces.get(SETTINGS)?.get(name.as_bytes())?;
            String::from_utf8(bytes.to_vec()).ok()
        };
        let (keep, quota) = (setting(&name), setting("quota"));
        if keep != self.keep.map(|keep| format!("{keep:?}")) {
            return Some(format!("shows the retention {keep:?}, must be {:?}", self.keep));
        }
        if quota != self.quota.map(|bytes| bytes.to_string()) {
            return Some(format!("shows the quota {quota:?}, must be {:?}", self.quota));
        }
        None
    }
}

impl World {
    /// A client, or an operator, of what is mortal.
    pub(super) fn mortal_client(&mut self, node: NodeId, engine: &Engine) -> Checked {
        let live: Vec<u64> = (0..self.ctx.ledger.tenants)
            .filter(|tenant| !self.ctx.ledger.deleted.contains(tenant))
            .collect();
        if live.is_empty() {
            return self.create_tenant(node, engine);
        }
        let number = *self.dice.mortals.pick(&live);
        let Ok(tenant) = engine.tenant(&tenant_name(number)) else {
            return Ok(());
        };
        match self.dice.mortals.below(100) {
            0..42 => self.put_mortal(node, engine, (number, &tenant)),
            42..54 => self.delete_range(node, engine, (number, &tenant)),
            54..70 => self.retain(node, engine, (number, &tenant)),
            70..78 => self.limit(node, engine, (number, &tenant)),
            78..86 => self.let_hours_pass(),
            _ => {
                let any = self.dice.mortals.below(self.nodes.len() as u64) as usize;
                self.content(any)
            }
        }
    }

    /// For all of them; then perhaps one writes out what has ended.
    fn let_hours_pass(&mut self) -> Checked {
        self.count("hours pass");
        let hours = Duration::from_secs(3600) * (1 + self.dice.mortals.below(40) as u32);
        self.nodes.iter_mut().for_each(|node| node.machine.age(hours));
        // Most often one that follows: it may not have heard of the newest settings.
        let serves = self.dice.mortals.percent(25);
        let open = |node: &&Node| node.engine.is_some() && !node.paused && node.serving().is_some() == serves;
        let some: Vec<NodeId> = self.nodes.iter().filter(open).map(|node| node.id).collect();
        if some.is_empty() {
            return Ok(());
        }
        let (any, how) = (*self.dice.mortals.pick(&some), self.dice.mortals.below(3));
        let Some(engine) = self.nodes[any].engine.clone() else {
            return Ok(());
        };
        let written_out = match how {
            0 => engine.flush(),
            1 => engine.compact(),
            _ => Ok(()),
        };
        written_out.or_else(|e| self.nodes[any].allow("writing out what has ended", &e))
    }

    fn put_mortal(&mut self, node: NodeId, engine: &Engine, (number, tenant): (u64, &Tenant)) -> Checked {
        let Some(space) = self.space(node, engine, tenant, &space_name())? else {
            return Ok(());
        };
        let ttl = match self.dice.mortals.below(10) {
            0..5 => None,
            5..7 => Some(1 + self.dice.mortals.below(3000)),
            _ => Some(HOUR_MS * (1 + self.dice.mortals.below(40))),
        };
        let now = self.nodes[node].machine.wall();
        let change = Change::Put {
            now,
            expires: ttl.map(|ttl| now + ttl),
        };
        let key = self.dice.mortals.below(KEYS);
        let write = self.invoke_mortal(engine, (number, key), change);
        let len = self.dice.mortals.below(400) as usize;
        let value = value_bytes(self.ctx.ledger.writes[write].id, len);
        let options = ttl.map_or(PutOptions::new(), |ttl| {
            PutOptions::new().ttl(Duration::from_millis(ttl))
        });
        let batch = tenant.batch().put_with(&space, key_bytes(key), value, options);
        self.commit(node, tenant, write, (batch, true))
    }

    fn invoke_mortal(&mut self, engine: &Engine, key: (u64, u64), change: Change) -> usize {
        let replicated = match change {
            Change::Retain { .. } | Change::Quota(_) => false,
            _ => self.nature.strict || self.dice.mortals.percent(60),
        };
        let epoch = engine.status().epoch;
        self.ctx
            .ledger
            .invoke(key, What::Mortal(change), epoch, replicated)
    }

    fn delete_range(&mut self, node: NodeId, engine: &Engine, (number, tenant): (u64, &Tenant)) -> Checked {
        let Some(space) = self.space(node, engine, tenant, &space_name())? else {
            return Ok(());
        };
        let from = self.dice.mortals.below(KEYS);
        let to = from + 1 + self.dice.mortals.below(KEYS - from);
        self.ctx.counters.add("range deletes", 1);
        let write = self.invoke_mortal(engine, (number, from), Change::DeleteRange { to });
        let range = key_bytes(from)..key_bytes(to);
        let batch = tenant.batch().delete_range(&space, range);
        self.commit(node, tenant, write, (batch, false))
    }

    fn retain(&mut self, node: NodeId, engine: &Engine, (number, tenant): (u64, &Tenant)) -> Checked {
        let Some(space) = self.space(node, engine, tenant, &space_name())? else {
            return Ok(());
        };
        if self.shows_unconfirmed(engine) {
            return Ok(());
        }
        let keep = match self.dice.mortals.below(6) {
            0 => None,
            1 => Some(Retention::Months(1)),
            days => Some(Retention::Days(days as u32 - 1)),
        };
        let (now, latest) = (self.nodes[node].machine.wall(), self.latest());
        self.ctx.counters.add("retentions set", 1);
        let change = Change::Retain { keep, now, latest };
        let write = self.invoke_mortal(engine, (number, 0), change);
        let set = tenant.set_retention(&space, keep);
        self.set(node, write, set)
    }

    fn limit(&mut self, node: NodeId, engine: &Engine, (number, tenant): (u64, &Tenant)) -> Checked {
        if self.shows_unconfirmed(engine) {
            return Ok(());
        }
        let bytes = match self.dice.mortals.percent(50) {
            true => Some(1000 + self.dice.mortals.below(30_000)),
            false => None,
        };
        let write = self.invoke_mortal(engine, (number, 0), Change::Quota(bytes));
        let set = tenant.set_quota(bytes);
        self.set(node, write, set)
    }

    /// A setting was set, or not.
    fn set(&mut self, node: NodeId, write: usize, set: strongroom::Result<strongroom::Position>) -> Checked {
        match set {
            Ok(at) => {
                self.ctx.ledger.writes[write].at = Some(at);
                self.ctx.ledger.ended(write, Outcome::Ok)
            }
            // A retention that was changed too often.
            Err(e) if e.kind() == ErrorKind::Invalid => self.ctx.ledger.ended(write, Outcome::Refused),
            Err(e) => self.refused(node, write, &e),
        }
    }
}
