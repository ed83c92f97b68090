//! A pair or trio of nodes, their network, their clients: one seed decides what happens, in one thread.

use std::time::Duration;

use strongroom::io::sim::CrashMode;
use strongroom::{Epoch, Options};
use strongroom_replication::StartRole;

use super::explore::Act;
use super::machine::Machine;
use super::net::{ConnId, End, NodeId};
use super::node::{Checked, Ctx, Node, name_of};
use crate::dice::Dice;
use crate::layers::counted;
use crate::sim::Trace;

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
pub(super) struct Choices {
    pub schedule: Dice,
    pub network: Dice,
    pub clients: Dice,
    pub faults: Dice,
    pub operator: Dice,
    pub mortals: Dice,
}

/// The world.
pub struct World {
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Network, oracle, trace.
    pub ctx: Ctx,
    pub(super) nature: Nature,
    pub(super) dice: Choices,
    pub(super) now: Duration,
    pub(super) settling: bool,
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
        let [schedule, network, clients, faults, operator] = std::array::from_fn(|_| stream());
        let mut machines = stream();
        let dice = Choices {
            schedule,
            network,
            clients,
            faults,
            operator,
            mortals: stream(),
        };
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
    pub(super) fn may_promote(&self, node: NodeId) -> bool {
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

    pub(super) fn pass(&mut self, by: Duration) {
        self.now += by;
        for node in &mut self.nodes {
            node.machine.pass(by, Duration::ZERO);
        }
    }

    // ---- network ----

    pub(super) fn places(&self) -> Vec<(ConnId, End, NodeId)> {
        let mut places = self.ctx.net.deliverable();
        places.retain(|(_, _, node)| !self.nodes[*node].paused);
        places
    }

    pub(super) fn deliver_some(&mut self) -> Checked {
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

    pub(super) fn deliver(&mut self, conn: ConnId, end: End, node: NodeId) -> Checked {
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

    pub(super) fn work_some(&mut self) -> Checked {
        let node = self.dice.schedule.below(self.nodes.len() as u64) as usize;
        let roll = self.dice.schedule.roll();
        if self.nodes[node].paused {
            return Ok(());
        }
        self.nodes[node].work(&mut self.ctx, roll)
    }
}
