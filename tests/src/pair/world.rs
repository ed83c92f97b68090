//! A pair or trio of nodes, their network, their clients: one seed decides what happens, in one thread.

use std::collections::BTreeMap;
use std::time::Duration;

use strongroom::io::sim::{CrashMode, Fault, Times};
use strongroom::{Durability, Engine, Epoch, ErrorKind, Options, TenantOptions};
use strongroom_replication::{NodeRole, StartRole};

use super::explore::Act;
use super::ledger::{Key, Outcome, Pending, id_of, key_bytes, tenant_name, value_bytes};
use super::machine::{Machine, equal_logs};
use super::net::{ConnId, End, NodeId};
use super::node::{Check, Checked, Ctx, Node, Phase, name_of};
use crate::canary;
use crate::dice::Dice;
use crate::layers::counted;
use crate::oracle::read_all;
use crate::sim::Trace;

/// Tenants at most.
const TENANTS_MAX: u64 = 5;
const KEYS: u64 = 5;
/// When clients of a `Replicated` write give up.
const CLIENT_PATIENCE: u64 = 900;
/// Steps until a healed world must have come to rest.
const SETTLE_STEPS: u64 = 6000;

/// What kind of world.
#[derive(Clone, Copy, Debug)]
pub struct Nature {
    /// 2 or 3.
    pub nodes: usize,
    /// Steps before everything heals.
    pub steps: u64,
    /// Only `Replicated` writes: then clients must see registers.
    pub strict: bool,
    /// Messages are repeated and exchanged inside connections.
    pub hostile: bool,
    /// In 1000 steps: faults of network, processes and power.
    pub faults: u64,
    /// In 1000 steps: faults of disks.
    pub disk_faults: u64,
    /// In 1000 steps: an operator's doings.
    pub operator: u64,
}

/// Streams of choices, one for each concern, so that more of one does not change another.
struct Choices {
    schedule: Dice,
    network: Dice,
    clients: Dice,
    faults: Dice,
    operator: Dice,
}

/// The world.
pub struct World {
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Network, oracle, trace.
    pub ctx: Ctx,
    nature: Nature,
    dice: Choices,
    now: Duration,
    settling: bool,
}

fn options() -> Options {
    let mut options = Options::tiny();
    options.segment_bytes = 4 << 10;
    options.wal_keep_bytes = 12 << 10;
    options.replicated_timeout = Duration::from_millis(1);
    options
}

impl World {
    /// A new world: node 0 is configured as primary, nothing runs yet.
    pub fn new(seed: u64, nature: Nature) -> World {
        let mut root = Dice::new(seed ^ 0x7061_6972);
        let mut stream = || Dice::new(root.roll());
        let dice = Choices {
            schedule: stream(),
            network: stream(),
            clients: stream(),
            faults: stream(),
            operator: stream(),
        };
        let mut machines = stream();
        let nodes = (0..nature.nodes)
            .map(|id| {
                let configured = if id == 0 {
                    StartRole::Primary
                } else {
                    StartRole::Standby
                };
                let peer = if id == 0 { 1 } else { 0 };
                let machine = Machine::new(900 + machines.below(200));
                Node::new(id, peer, configured, machine, options())
            })
            .collect();
        let ctx = Ctx {
            hostile: nature.hostile,
            ..Ctx::default()
        };
        World {
            nodes,
            ctx,
            nature,
            dice,
            now: Duration::ZERO,
            settling: false,
        }
    }

    /// One whole run.
    pub fn run(&mut self) -> Checked {
        self.start_all()?;
        // Some begin with a pair in good order, some with what comes.
        if self.dice.operator.percent(70) {
            self.until(1500, |world| world.at_rest())?;
        }
        for _ in 0..self.nature.steps {
            self.disturb()?;
            self.step()?;
        }
        self.settle()?;
        self.judge()
    }

    /// Whether a careful operator may promote it: it knows every term there was. (Documented limit: of two
    /// promotions that know nothing of each other both take the next term.)
    fn may_promote(&self, node: NodeId) -> bool {
        let term = |epoch: Epoch| epoch.term();
        let known = term(self.nodes[node].recorded);
        let newest = self.nodes.iter().map(|n| n.recorded).max().unwrap_or_default();
        known >= term(newest.max(self.ctx.ledger.newest())) && self.nodes[node].promotable()
    }

    /// Starts every node.
    pub fn start_all(&mut self) -> Checked {
        self.nodes
            .iter_mut()
            .try_for_each(|node| node.start(&mut self.ctx))
    }

    /// A failure with what led to it.
    pub fn failure(&self, what: &str) -> String {
        format!(
            "{what}
{}
{}",
            self.describe(),
            self.ctx.log.join(
                "
"
            )
        )
    }

    /// A hash over roles, positions and messages on their way; equal for equal states.
    pub fn state(&self) -> u64 {
        let mut hash = Trace::new();
        hash.text(&self.describe());
        self.ctx.net.words().iter().for_each(|word| hash.text(word));
        for write in &self.ctx.ledger.writes {
            hash.text(&format!("{:?} {:?} {}", write.outcome, write.at, write.given_up));
        }
        for node in &self.nodes {
            hash.number(node.machine.fs.unsynced());
        }
        hash.hash()
    }

    /// Writes to the newest primary; false if nobody serves.
    pub fn write_anywhere(&mut self) -> Checked<bool> {
        let Some(node) = self.serving().last().copied() else {
            return Ok(false);
        };
        let Some(engine) = self.nodes[node].serving().cloned() else {
            return Ok(false);
        };
        if self.ctx.ledger.tenants == 0 {
            self.create_tenant(node, &engine)?;
        }
        self.write(node, &engine, (0, 0), true, 40)?;
        Ok(true)
    }

    /// One act of an exploration; false if it cannot happen now.
    pub fn act(&mut self, act: Act) -> Checked<bool> {
        self.ctx.note(format!("-- {act:?}"));
        match act {
            Act::Write => return self.write_anywhere(),
            Act::Promote(node) if self.may_promote(node) => {
                self.nodes[node].promote(&mut self.ctx)?;
                self.compare()?;
            }
            Act::Kill(node) if self.nodes[node].running() => self.kill(node)?,
            Act::PowerCut(node) if self.nodes[node].running() => {
                self.nodes[node].die(&mut self.ctx, false)?;
                self.nodes[node].machine.power_cut(CrashMode::DropAll, 0);
            }
            Act::Return(node) if !self.nodes[node].running() => self.nodes[node].start(&mut self.ctx)?,
            Act::Cut if !self.ctx.net.any_cut() => {
                self.ctx.net.cut(0, 1);
                self.ctx.net.cut(1, 0);
            }
            Act::CutOneWay if !self.ctx.net.any_cut() => self.ctx.net.cut(0, 1),
            Act::Heal if self.ctx.net.any_cut() => self.ctx.net.heal(),
            Act::Little => self.quiet(2)?,
            Act::Much => self.quiet(60)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Steps until `done`, at most `steps`.
    pub fn until(&mut self, steps: u64, done: impl Fn(&World) -> bool) -> Checked<bool> {
        for _ in 0..steps {
            if done(self) {
                return Ok(true);
            }
            self.step()?;
        }
        Ok(done(self))
    }

    /// A message, a unit of work or a client, and some time.
    pub fn step(&mut self) -> Checked {
        self.ctx.counters.add(counted::OPERATIONS, 1);
        let pass = Duration::from_millis(self.dice.schedule.below(9));
        self.pass(pass);
        match self.dice.schedule.below(100) {
            0..52 => self.deliver_some()?,
            52..88 => self.work_some()?,
            _ if self.settling => self.work_some()?,
            _ => self.client()?,
        }
        self.poll()?;
        self.compare()
    }

    fn pass(&mut self, by: Duration) {
        self.now += by;
        for node in &mut self.nodes {
            node.machine.pass(by, Duration::ZERO);
        }
    }

    // ---- network ----

    fn places(&self) -> Vec<(ConnId, End, NodeId)> {
        let mut places = self.ctx.net.deliverable();
        places.retain(|(_, _, node)| !self.nodes[*node].paused);
        places
    }

    fn deliver_some(&mut self) -> Checked {
        let places = self.places();
        if places.is_empty() {
            self.pass(Duration::from_millis(10));
            return self.work_some();
        }
        let (conn, end, node) = *self.dice.network.pick(&places);
        if self.nature.hostile && !self.settling && self.dice.network.percent(4) {
            self.ctx.counters.add("fault: message repeated or exchanged", 1);
            if self.dice.network.percent(50) {
                self.ctx.net.repeat(conn, end);
            } else {
                self.ctx.net.exchange(conn, end);
            }
        }
        self.deliver(conn, end, node)
    }

    fn deliver(&mut self, conn: ConnId, end: End, node: NodeId) -> Checked {
        let Some(msg) = self.ctx.net.take(conn, end) else {
            return Ok(());
        };
        if !self.nodes[node].running() {
            self.ctx.net.close(conn, end);
            return Ok(());
        }
        self.ctx.note(format!("{} <- {}", name_of(node), msg.word()));
        self.nodes[node].receive(&mut self.ctx, conn, end, msg)
    }

    /// Delivers and works, in a fixed order, until nothing is on its way: for exploration.
    pub fn quiet(&mut self, rounds: u64) -> Checked {
        for round in 0..rounds {
            self.pass(Duration::from_millis(7));
            for (conn, end, node) in self.places() {
                self.deliver(conn, end, node)?;
            }
            for node in 0..self.nodes.len() {
                if !self.nodes[node].paused {
                    self.nodes[node].work(&mut self.ctx, round)?;
                }
            }
            self.poll()?;
            self.compare()?;
        }
        Ok(())
    }

    fn work_some(&mut self) -> Checked {
        let node = self.dice.schedule.below(self.nodes.len() as u64) as usize;
        let roll = self.dice.schedule.roll();
        if self.nodes[node].paused {
            return Ok(());
        }
        self.nodes[node].work(&mut self.ctx, roll)
    }

    // ---- clients ----

    /// Nodes that take writes, the newest reign last.
    fn serving(&self) -> Vec<NodeId> {
        let mut serving: Vec<(Epoch, NodeId)> = self
            .nodes
            .iter()
            .filter(|node| !node.paused)
            .filter_map(|node| Some((node.serving()?.status().epoch, node.id)))
            .collect();
        serving.sort();
        serving.into_iter().map(|(_, id)| id).collect()
    }

    fn client(&mut self) -> Checked {
        let serving = self.serving();
        let Some(newest) = serving.last() else {
            return Ok(());
        };
        let node = if self.dice.clients.percent(80) {
            *newest
        } else {
            *self.dice.clients.pick(&serving)
        };
        let Some(engine) = self.nodes[node].serving().cloned() else {
            return Ok(());
        };
        match self.dice.clients.below(100) {
            0..55 => self.put(node, &engine),
            55..75 => self.read(node, &engine),
            75..83 => self.create_tenant(node, &engine),
            83..85 => self.delete_tenant(node, &engine),
            85..88 => {
                let flushed = engine.flush();
                flushed.or_else(|e| self.nodes[node].allow("a flush", &e))
            }
            88..89 => {
                let compacted = engine.compact();
                compacted.or_else(|e| self.nodes[node].allow("a compaction", &e))
            }
            _ => {
                let any = self.dice.clients.below(self.nodes.len() as u64) as usize;
                self.content(any)
            }
        }
    }

    fn key(&mut self) -> Option<Key> {
        let live: Vec<u64> = (0..self.ctx.ledger.tenants)
            .filter(|t| !self.ctx.ledger.deleted.contains(t))
            .collect();
        if live.is_empty() {
            return None;
        }
        Some((*self.dice.clients.pick(&live), self.dice.clients.below(KEYS)))
    }

    fn put(&mut self, node: NodeId, engine: &Engine) -> Checked {
        let Some(key) = self.key() else {
            return self.create_tenant(node, engine);
        };
        let replicated = self.nature.strict || self.dice.clients.percent(70);
        let len = if self.dice.clients.percent(12) { 2500 } else { 60 };
        let len = self.dice.clients.below(len) as usize;
        self.write(node, engine, key, replicated, len)
    }

    /// A client's write.
    pub fn write(
        &mut self,
        node: NodeId,
        engine: &Engine,
        key: Key,
        replicated: bool,
        len: usize,
    ) -> Checked {
        let Ok(tenant) = engine.tenant(&tenant_name(key.0)) else {
            return Ok(());
        };
        let space = match tenant.open_keyspace(canary::KEYSPACE) {
            Ok(space) => space,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                // Creating one is a weaker commit, which shows earlier ones that wait (decision 0005).
                if self.nature.strict && self.ctx.ledger.pending.iter().any(|p| p.node == node) {
                    return Ok(());
                }
                match tenant.keyspace(canary::KEYSPACE) {
                    Ok(space) => space,
                    Err(e) if e.kind() == ErrorKind::Fenced => return Ok(()),
                    Err(e) => return self.nodes[node].allow("creating a keyspace", &e),
                }
            }
            Err(e) => return self.nodes[node].allow("opening a keyspace", &e),
        };
        let epoch = engine.status().epoch;
        let write = self.ctx.ledger.invoke(key, epoch, replicated);
        let value = value_bytes(self.ctx.ledger.writes[write].id, len);
        let durability = if replicated {
            Durability::Replicated
        } else {
            Durability::Local
        };
        let batch = tenant.batch().put(&space, key_bytes(key.1), value);
        match batch.durability(durability).submit() {
            Ok(ticket) => {
                let at = ticket.position();
                self.ctx.ledger.writes[write].at = Some(at);
                self.ctx
                    .note(format!("{} writes at {} of {}", name_of(node), at.lsn, at.epoch));
                if replicated {
                    let until = self.now.as_millis() as u64 + CLIENT_PATIENCE;
                    self.ctx.ledger.pending.push(Pending {
                        node,
                        write,
                        ticket,
                        until,
                    });
                    return Ok(());
                }
                self.ctx.ledger.ended(write, Outcome::Ok)
            }
            Err(e) => {
                let outcome = match e.kind() {
                    ErrorKind::Unknown | ErrorKind::Io | ErrorKind::Corruption => Outcome::Unknown,
                    _ => Outcome::Refused,
                };
                self.ctx.ledger.ended(write, outcome)?;
                if e.kind() == ErrorKind::Fenced {
                    return Ok(());
                }
                self.nodes[node].allow("a write", &e)
            }
        }
    }

    /// Hears of commits.
    fn poll(&mut self) -> Checked {
        let now = self.now.as_millis() as u64;
        for pending in std::mem::take(&mut self.ctx.ledger.pending) {
            let outcome = match pending.ticket.poll() {
                Some(Ok(_)) => Outcome::Ok,
                Some(Err(_)) => Outcome::Unknown,
                None if now >= pending.until => Outcome::Unknown,
                None => {
                    self.ctx.ledger.pending.push(pending);
                    continue;
                }
            };
            self.ctx.note(format!("write {} is {outcome:?}", pending.write));
            self.ctx.ledger.ended(pending.write, outcome)?;
        }
        Ok(())
    }

    fn read(&mut self, node: NodeId, engine: &Engine) -> Checked {
        let Some(key) = self.key() else { return Ok(()) };
        let status = engine.status();
        let start = engine.epoch_history().last().map(|e| e.start).unwrap_or_default();
        let id = match get(engine, key) {
            Ok(id) => id,
            Err(e) => return self.nodes[node].allow("a read", &e),
        };
        // Reads of an older reign may be stale, and a reopened primary shows what nobody confirmed yet.
        let newest = status.epoch == self.ctx.ledger.newest() && status.fenced_by.is_none();
        if newest && self.nature.strict && status.replicated >= start && status.replicated.0 > 0 {
            self.ctx.ledger.read(key, id);
        }
        Ok(())
    }

    /// A client creates a tenant, with keys of its own.
    pub fn create_tenant(&mut self, node: NodeId, engine: &Engine) -> Checked {
        if self.ctx.ledger.tenants - self.ctx.ledger.deleted.len() as u64 >= TENANTS_MAX {
            return Ok(());
        }
        let tenant = self.ctx.ledger.tenants;
        self.ctx.ledger.tenants += 1;
        match engine.create_tenant(&tenant_name(tenant), TenantOptions::default()) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == ErrorKind::Fenced => Ok(()),
            Err(e) => self.nodes[node].allow("creating a tenant", &e),
        }
    }

    fn delete_tenant(&mut self, node: NodeId, engine: &Engine) -> Checked {
        let Some((tenant, _)) = self.key() else {
            return Ok(());
        };
        self.ctx.ledger.deleted.insert(tenant);
        match engine.delete_tenant(&tenant_name(tenant)) {
            Ok(_) => Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Fenced) => Ok(()),
            Err(e) => self.nodes[node].allow("deleting a tenant", &e),
        }
    }

    // ---- faults and operators ----

    fn disturb(&mut self) -> Checked {
        if self.dice.faults.below(1000) < self.nature.faults {
            self.fault()?;
        }
        if self.dice.faults.below(1000) < self.nature.disk_faults {
            self.disk_fault();
        }
        if self.dice.operator.below(1000) < self.nature.operator {
            self.operate()?;
        }
        Ok(())
    }

    fn count(&mut self, fault: &str) {
        self.ctx.counters.add(counted::fault(fault), 1);
        self.ctx.note(format!("-- {fault}"));
    }

    fn fault(&mut self) -> Checked {
        let count = self.nodes.len() as u64;
        let node = self.dice.faults.below(count) as usize;
        let other = (node + 1 + self.dice.faults.below(count - 1) as usize) % self.nodes.len();
        match self.dice.faults.below(100) {
            0..12 => {
                self.count("link cut one way");
                self.ctx.net.cut(node, other);
            }
            12..22 => {
                self.count("link cut");
                self.ctx.net.cut(node, other);
                self.ctx.net.cut(other, node);
            }
            22..45 if self.ctx.net.any_cut() => {
                self.count("links healed");
                self.ctx.net.heal();
            }
            22..50 => {
                let ids = self.ctx.net.ids();
                if !ids.is_empty() {
                    self.count("connection broken");
                    let id = *self.dice.faults.pick(&ids);
                    let hear = match self.dice.faults.below(4) {
                        0 => &[End::Client][..],
                        1 => &[End::Server][..],
                        _ => &[End::Client, End::Server][..],
                    };
                    self.ctx.net.break_off(id, hear);
                }
            }
            50..62 => {
                self.count(if self.nodes[node].paused {
                    "node resumed"
                } else {
                    "node paused"
                });
                self.nodes[node].paused = !self.nodes[node].paused;
            }
            62..70 => {
                self.count("clock jump");
                let jump = Duration::from_millis(self.dice.faults.below(4000));
                self.nodes[node].machine.pass(Duration::ZERO, jump);
            }
            70..80 if self.nodes[node].running() => {
                self.count("node killed");
                self.kill(node)?;
            }
            80..90 if self.nodes[node].running() => {
                self.count("power cut");
                self.power_cut(node)?;
            }
            _ => {
                if !self.nodes[node].running() {
                    self.nodes[node].start(&mut self.ctx)?;
                }
            }
        }
        Ok(())
    }

    /// Kills a node's process; what it wrote stays.
    pub fn kill(&mut self, node: NodeId) -> Checked {
        if self.nodes[node].faulted {
            // After a failed sync nobody knows what the disk holds: such a machine is not just killed.
            return self.power_cut(node);
        }
        self.ctx.counters.add(counted::CRASHES, 1);
        let hear = self.dice.faults.percent(60);
        self.nodes[node].die(&mut self.ctx, hear)?;
        self.nodes[node].machine.kill();
        Ok(())
    }

    /// Cuts a node's power; unsynced bytes and names are kept or lost.
    pub fn power_cut(&mut self, node: NodeId) -> Checked {
        self.ctx.counters.add(counted::CRASHES, 1);
        let modes = [CrashMode::DropAll, CrashMode::KeepAll, CrashMode::KeepRandom];
        let (mode, seed) = (*self.dice.faults.pick(&modes), self.dice.faults.roll());
        let hear = self.dice.faults.percent(40);
        self.nodes[node].die(&mut self.ctx, hear)?;
        self.nodes[node].machine.power_cut(mode, seed);
        self.nodes[node].faulted = false;
        Ok(())
    }

    fn disk_fault(&mut self) {
        let node = self.dice.faults.below(self.nodes.len() as u64) as usize;
        let fs = self.nodes[node].machine.fs.clone();
        let after = 1 + self.dice.faults.below(25);
        let fault = match self.dice.faults.below(3) {
            0 => Fault::io_error(fs.ops() + after, Times::Once),
            1 => Fault::disk_full(fs.ops() + after, Times::Once),
            _ => Fault::read_error(fs.reads() + after, Times::Once),
        };
        fs.fail(fault);
        self.nodes[node].faulted = true;
        self.count("disk");
    }

    fn restart(&mut self, node: NodeId) -> Checked {
        if matches!(self.nodes[node].phase, Phase::Failed) || self.nodes[node].faulted {
            self.power_cut(node)?;
        } else if self.nodes[node].running() {
            self.nodes[node].shut_down(&mut self.ctx)?;
            self.nodes[node].machine.kill();
        }
        self.nodes[node].start(&mut self.ctx)
    }

    fn operate(&mut self) -> Checked {
        let count = self.nodes.len() as u64;
        let node = self.dice.operator.below(count) as usize;
        if self.nodes[node].paused {
            return Ok(());
        }
        match self.dice.operator.below(100) {
            0..40 if self.may_promote(node) => {
                self.count("promotion");
                self.nodes[node].promote(&mut self.ctx)
            }
            40..70 => {
                self.count("restart");
                self.restart(node)
            }
            70..90 if count > 2 => {
                // Points it elsewhere, as a restart with another configuration does.
                self.count("pointed elsewhere");
                let other = (node + 1 + self.dice.operator.below(count - 1) as usize) % self.nodes.len();
                self.nodes[node].peer = other;
                self.restart(node)
            }
            _ => {
                self.ctx.net.heal();
                if !self.nodes[node].running() {
                    self.nodes[node].start(&mut self.ctx)?;
                }
                Ok(())
            }
        }
    }

    // ---- judging ----

    /// Comparisons between nodes that were asked for.
    fn compare(&mut self) -> Checked {
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
        for tenant in 0..self.ctx.ledger.tenants {
            if self.ctx.ledger.deleted.contains(&tenant) {
                continue;
            }
            let Some(spaces) = found.get(&tenant_name(tenant)) else {
                continue;
            };
            known.push(tenant);
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
        let keys: std::collections::BTreeSet<Key> =
            expected.keys().filter(live).chain(seen.keys()).copied().collect();
        for key in keys {
            let (want, have) = (expected.get(&key).copied(), seen.get(&key).copied().flatten());
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
    fn help(&mut self, round: u64) -> Checked {
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

fn get(engine: &Engine, key: Key) -> Result<Option<u64>, strongroom::Error> {
    let none = |e: strongroom::Error| match e.kind() {
        ErrorKind::NotFound => Ok(None),
        _ => Err(e),
    };
    let tenant = match engine.tenant(&tenant_name(key.0)) {
        Ok(tenant) => tenant,
        Err(e) => return none(e),
    };
    match tenant.open_keyspace(canary::KEYSPACE) {
        Ok(space) => Ok(space.get(key_bytes(key.1))?.and_then(|value| id_of(&value))),
        Err(e) => none(e),
    }
}
