//! What happens to the simulated pair: faults of network, processes, power and disks, and operators.

use std::time::Duration;

use strongroom::io::sim::{CrashMode, Fault, Times};

use super::net::{End, NodeId};
use super::node::{Checked, Phase};
use super::world::World;
use crate::layers::counted;

impl World {
    pub(super) fn disturb(&mut self) -> Checked {
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

    pub(super) fn count(&mut self, fault: &str) {
        self.ctx.counters.add(counted::fault(fault), 1);
        self.ctx.note(format!("-- {fault}"));
    }

    pub(super) fn fault(&mut self) -> Checked {
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

    pub(super) fn disk_fault(&mut self) {
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

    pub(super) fn restart(&mut self, node: NodeId) -> Checked {
        if matches!(self.nodes[node].phase, Phase::Failed) || self.nodes[node].faulted {
            self.power_cut(node)?;
        } else if self.nodes[node].running() {
            self.nodes[node].shut_down(&mut self.ctx)?;
            self.nodes[node].machine.kill();
        }
        self.nodes[node].start(&mut self.ctx)
    }

    pub(super) fn operate(&mut self) -> Checked {
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
}
