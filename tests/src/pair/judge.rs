//! What must be true of the simulated pair: at every comparison asked for, and of everything once it has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use strongroom::Engine;
use strongroom_replication::NodeRole;

use super::clients::KEYS;
use super::ledger::{Key, id_of, key_bytes, tenant_name};
use super::machine::equal_logs;
use super::mortal::Mortals;
use super::net::NodeId;
use super::node::{Check, Checked, Node, Phase, name_of};
use super::world::World;
use crate::canary;
use crate::layers::counted;
use crate::oracle::read_all;

/// Steps until a healed world must have come to rest.
const SETTLE_STEPS: u64 = 6000;

impl World {
    /// Comparisons between nodes that were asked for.
    pub(super) fn compare(&mut self) -> Checked {
        for check in std::mem::take(&mut self.ctx.checks) {
            match check {
                Check::Resumed {
                    primary,
                    standby,
                    upto,
                } => {
                    let (a, b) = (
                        self.nodes[primary].machine.wal(),
                        self.nodes[standby].machine.wal(),
                    );
                    equal_logs(&a, &b, upto)
                        .map_err(|e| format!("n{standby} resumes at {upto} from n{primary}: {e}"))?;
                }
                Check::Promoted { node } => self.content(node)?,
            }
        }
        Ok(())
    }

    /// Compares what a node's readers see with its path.
    pub fn content(&mut self, node: NodeId) -> Checked {
        let Some(engine) = self.nodes[node].engine.clone() else {
            return Ok(());
        };
        let status = engine.status();
        let found = match read_all(&engine) {
            Ok(found) => found,
            Err(e) => return self.nodes[node].allow("reading everything", &e),
        };
        let serving = self.nodes[node].serving().is_some();
        let expected = if serving {
            self.ctx
                .ledger
                .expected(status.epoch, |at| at.seqno <= status.visible)
        } else {
            self.ctx
                .ledger
                .expected(status.epoch, |at| at.lsn <= status.applied)
        };
        let mut seen: BTreeMap<Key, Option<u64>> = BTreeMap::new();
        let mut known = Vec::new();
        let latest = self.latest();
        let here = self.nodes[node].machine.wall();
        for tenant in 0..self.ctx.ledger.tenants {
            if self.ctx.ledger.deleted.contains(&tenant) {
                continue;
            }
            let Some(spaces) = found.get(&tenant_name(tenant)) else {
                continue;
            };
            known.push(tenant);
            if !self.ctx.ledger.doubtful(tenant, status.epoch) {
                let none = Mortals::default();
                let mortals = expected.mortals.get(&tenant).unwrap_or(&none);
                if let Some(wrong) = mortals.differ(spaces, here, latest) {
                    return Err(format!(
                        "n{node} ({:?}, {} at {}) of tenant {tenant}, {here} ms: {wrong}",
                        self.nodes[node].role(),
                        status.epoch,
                        status.applied
                    ));
                }
            }
            let Some(entries) = spaces.get(canary::KEYSPACE) else {
                continue;
            };
            for key in 0..KEYS {
                if let Some(value) = entries.get(key_bytes(key).as_bytes()) {
                    seen.insert((tenant, key), id_of(value));
                }
            }
        }
        let live = |key: &&Key| !self.ctx.ledger.deleted.contains(&key.0);
        let keys: BTreeSet<Key> = expected
            .registers
            .keys()
            .filter(live)
            .chain(seen.keys())
            .copied()
            .collect();
        for key in keys {
            let (want, have) = (
                expected.registers.get(&key).copied(),
                seen.get(&key).copied().flatten(),
            );
            if want != have && !self.ctx.ledger.may_be(key, have, status.epoch) {
                return Err(format!(
                    "n{node} ({:?}, {} at {}) shows {have:?} for {key:?}, its path says {want:?} (tenants {known:?})",
                    self.nodes[node].role(),
                    status.epoch,
                    status.applied
                ));
            }
        }
        Ok(())
    }

    /// The time on the clock that is ahead of all.
    pub(super) fn latest(&self) -> u64 {
        let walls = self.nodes.iter().map(|node| node.machine.wall());
        walls.max().unwrap_or_default()
    }

    /// One node serves, all others follow it and have everything.
    pub fn at_rest(&self) -> bool {
        if !self.ctx.ledger.pending.is_empty() {
            return false;
        }
        let serving: Vec<&Node> = self.nodes.iter().filter(|n| n.serving().is_some()).collect();
        let [primary] = serving[..] else { return false };
        let Some(engine) = primary.serving() else {
            return false;
        };
        let status = engine.status();
        status.fenced_by.is_none()
            && self.nodes.iter().filter(|n| n.id != primary.id).all(|node| {
                let follows = matches!(&node.phase, Phase::Following(f) if f.connected());
                let theirs = node.engine.as_ref().map(Engine::status);
                follows
                    && theirs.is_some_and(|t| {
                        t.applied == status.durable
                            && t.epoch == status.epoch
                            && t.keystore_version == status.keystore_version
                    })
            })
    }

    /// Everything heals; the world must come to rest.
    pub fn settle(&mut self) -> Checked {
        self.settling = true;
        self.ctx.note("-- settling".into());
        self.ctx.net.heal();
        for node in 0..self.nodes.len() {
            self.nodes[node].paused = false;
            self.nodes[node].machine.fs.clear_faults();
            if self.nodes[node].faulted || matches!(self.nodes[node].phase, Phase::Failed) {
                self.power_cut(node)?;
            }
            if !self.nodes[node].running() {
                self.nodes[node].start(&mut self.ctx)?;
            }
        }
        for round in 0..SETTLE_STEPS / 300 {
            if self.until(300, World::at_rest)? {
                return Ok(());
            }
            self.help(round)?;
        }
        Err(format!("does not come to rest: {}", self.describe()))
    }

    /// What a person does who finds the world not at rest.
    pub(super) fn help(&mut self, round: u64) -> Checked {
        let serving = self.serving();
        let Some(newest) = serving.last().copied() else {
            // Nobody serves: the one with the newest and longest log, as the documentation says.
            let best = self
                .nodes
                .iter()
                .filter(|node| self.may_promote(node.id))
                .max_by_key(|node| {
                    let status = node.engine.as_ref().map(Engine::status);
                    status.map(|s| (s.epoch, s.durable))
                })
                .map(|node| node.id);
            if let Some(best) = best.filter(|_| round >= 2) {
                self.count("promotion");
                self.nodes[best].promote(&mut self.ctx)?;
            }
            return Ok(());
        };
        for node in 0..self.nodes.len() {
            if node == newest {
                if self.nodes[node].peer == node {
                    self.nodes[node].peer = (node + 1) % self.nodes.len();
                }
                continue;
            }
            if self.nodes[node].peer != newest {
                self.nodes[node].peer = newest;
                self.restart(node)?;
            }
            if self.nodes[node].serving().is_some() {
                let by = self.nodes[newest].recorded;
                self.nodes[node].fence(&mut self.ctx, by)?;
            }
        }
        Ok(())
    }

    /// Roles and positions, for failures.
    pub fn describe(&self) -> String {
        let node = |node: &Node| {
            let status = node.engine.as_ref().map(Engine::status);
            let of = status.map_or("no engine".to_string(), |s| {
                format!(
                    "{} highest {} fenced {:?} applied {} durable {} start {} keys {}",
                    s.epoch,
                    s.highest_epoch,
                    s.fenced_by,
                    s.applied,
                    s.durable,
                    s.wal_start,
                    s.keystore_version
                )
            });
            format!("{} {:?} peer {}: {of}", name_of(node.id), node.role(), node.peer)
        };
        self.nodes.iter().map(node).collect::<Vec<_>>().join("; ")
    }

    /// At rest: what must be true of everything.
    pub fn judge(&mut self) -> Checked {
        let Some(primary) = self.nodes.iter().position(|n| n.role() == NodeRole::Primary) else {
            return Err("nobody serves".into());
        };
        let Some(engine) = self.nodes[primary].serving().cloned() else {
            return Err("nobody serves".into());
        };
        let status = engine.status();
        let lost = self.ctx.ledger.lost(status.epoch);
        self.ctx.counters.add(counted::LOST, lost.len() as u64);
        if !lost.is_empty() {
            return Err(format!("acknowledged writes are gone: {lost:?}"));
        }
        let log = self.nodes[primary].machine.wal();
        for node in 0..self.nodes.len() {
            self.content(node)?;
            equal_logs(&log, &self.nodes[node].machine.wal(), status.durable.0)
                .map_err(|e| format!("n{node}: {e}"))?;
            let leaks = canary::find(&self.nodes[node].machine.fs.files());
            if let Some(leak) = leaks.first() {
                return Err(format!("n{node}: in clear on its disk: {leak:?}"));
            }
        }
        if self.nature.strict {
            self.ctx.ledger.linearizable()?;
        }
        self.ctx
            .counters
            .add(counted::ACKNOWLEDGED, self.ctx.ledger.acknowledged());
        self.ctx.counters.add("reads judged", self.ctx.ledger.reads());
        let digest = format!("{} {} {}", status.epoch, status.durable, self.describe());
        self.ctx.trace.text(&digest);
        Ok(())
    }
}
