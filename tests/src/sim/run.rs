//! Does a case, act by act, and judges every answer.
//!
//! 1. An error is allowed if a fault that was injected since the last opening explains its kind, or if
//!    the machine is off; any other is a failure.
//! 2. After every opening the whole content, over all tenants, must be an allowed state of the model.
//! 3. At the end no plaintext is on the disk, and no handle and no lock is left.
//!
//! A call that failed leaves things open: names it was about are left alone until the next opening, and
//! reads are compared with all allowed states instead of one. When too much is open, the engine is killed
//! and opened, which settles it.

use std::collections::BTreeSet;
use std::time::Duration;

use strongroom::io::sim::CrashMode;
use strongroom::{Durability, Error, ErrorKind, WalPin};

use super::case::{Act, Case};
use super::generate::KEYS;
use super::knobs;
use super::reads::Held;
use super::trace::Trace;
use crate::canary;
use crate::dice::Dice;
use crate::layers::{Counters, Outcome, counted};
use crate::oracle::Op;
use crate::world::{World, is_failure_of_the_machine, key_of, name_of_space, name_of_tenant};

/// Each call that failed doubles what is allowed.
const FAILURES_MAX: usize = 4;
/// The disk is part of the trace at every so many acts; hashing it costs.
const DIGEST_EVERY: usize = 16;

/// What may come of an act.
pub enum Wrong {
    /// The engine's answer: allowed or not, by rule 1.
    Answer(Error),
    /// A failure of the run.
    Failure(String),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Wrong {
        Wrong::Answer(error)
    }
}

impl From<String> for Wrong {
    fn from(text: String) -> Wrong {
        Wrong::Failure(text)
    }
}

/// What an act returns.
pub type Done = Result<(), Wrong>;

/// A run in progress.
pub struct Run {
    /// The engine on its machine, with the model.
    pub world: World,
    /// Snapshots.
    pub held: Vec<Held>,
    /// Hash so far.
    pub trace: Trace,
    /// Counted so far.
    pub counters: Counters,
    /// Kinds of error that faults since the last opening explain.
    pub(super) explained: Vec<ErrorKind>,
    /// Names about which a failed call left it open whether they exist.
    pub doubtful: BTreeSet<String>,
    /// How a planned power cut leaves the disk.
    pub(super) planned: (CrashMode, u64),
    /// Keeps the log.
    pub(super) pin: Option<WalPin>,
}

/// Does a case.
pub fn run(case: &Case) -> Outcome {
    let mut run = Run {
        world: World::seeded(knobs::options(case.seed), case.seed),
        held: Vec::new(),
        trace: Trace::new(),
        counters: Counters::default(),
        explained: Vec::new(),
        doubtful: BTreeSet::new(),
        planned: (CrashMode::DropAll, 0),
        pin: None,
    };
    let mut manners = Dice::new(case.seed ^ 0x6d61_6e6e_6572);
    run.world.fs.set_names_with_files(manners.percent(30));
    run.world.fs.set_weak_renames(manners.percent(30));
    run.world.fs.set_no_links(manners.percent(20));
    let cut_creation = manners.percent(15).then(|| 1 + manners.below(40));
    let result = run.all(&case.acts, cut_creation);
    run.count_strikes();
    let acknowledged = run.world.known().oracle.acknowledged();
    run.counters.add(counted::ACKNOWLEDGED, acknowledged);
    Outcome {
        trace: run.trace.hash(),
        counters: run.counters,
        failure: result.err(),
    }
}

/// How much a crash leaves.
pub fn crash_mode(number: u64) -> CrashMode {
    match number {
        0 => CrashMode::DropAll,
        1 => CrashMode::KeepAll,
        _ => CrashMode::KeepRandom,
    }
}

impl Run {
    fn all(&mut self, acts: &[Act], cut_creation: Option<u64>) -> Result<(), String> {
        self.open(cut_creation.as_slice())?;
        for (n, act) in acts.iter().enumerate() {
            self.trace.text(&act.to_string());
            let done = self.act(act);
            let judged = self.judge(done);
            judged.map_err(|e| format!("act {n}, {act}: {e}"))?;
            self.count_strikes();
            if self.world.fs.crashed()
                && matches!(
                    act,
                    Act::Flush {} | Act::Compact {} | Act::Step { .. } | Act::DeleteTenant { .. }
                )
            {
                self.counters.add(counted::row(10), 1);
            }
            self.settle().map_err(|e| format!("after act {n}, {act}: {e}"))?;
            if n % DIGEST_EVERY == 0 {
                self.trace.number(self.world.fs.digest());
            }
        }
        self.end().map_err(|e| format!("at the end: {e}"))
    }

    /// Rule 1.
    pub(super) fn judge(&mut self, done: Done) -> Result<(), String> {
        match done {
            Ok(()) => {
                self.trace.text("ok");
                Ok(())
            }
            Err(Wrong::Failure(text)) => Err(text),
            Err(Wrong::Answer(e)) => {
                self.trace.text(&format!("{:?}", e.kind()));
                let full = e.kind() == ErrorKind::QuotaExceeded;
                let off = self.world.fs.crashed() && is_failure_of_the_machine(&e);
                if off || full || self.explained.contains(&e.kind()) {
                    self.counters.add("errors explained by faults", 1);
                    return Ok(());
                }
                Err(format!("an error that nothing explains: {e:?}"))
            }
        }
    }

    /// Brings a machine that went off back, and settles what is open when it is too much.
    fn settle(&mut self) -> Result<(), String> {
        if self.world.fs.crashed() {
            let (mode, seed) = self.planned;
            return self.power_cut(mode, seed, &[]);
        }
        if !self.world.is_open() || self.world.known().oracle.failures() > FAILURES_MAX {
            self.take_faults_away();
            self.held.clear();
            self.world.kill();
            return self.open(&[]);
        }
        Ok(())
    }

    fn act(&mut self, act: &Act) -> Done {
        self.counters.add(counted::OPERATIONS, 1);
        match *act {
            Act::CreateTenant { tenant } => self.create_tenant(&name_of_tenant(tenant)),
            Act::DeleteTenant { tenant } => self.delete_tenant(&name_of_tenant(tenant)),
            Act::DeleteKeyspace { tenant, space } => self.delete_keyspace(tenant, space),
            Act::Put {
                tenant,
                space,
                key,
                len,
                synced,
            } => {
                let value = self.world.value(len as usize);
                let op = (name_of_space(&space.to_string()), key_of(key), Some(value));
                self.write(tenant, vec![op], synced)
            }
            Act::Delete {
                tenant,
                space,
                key,
                synced,
            } => {
                let op = (name_of_space(&space.to_string()), key_of(key), None);
                self.write(tenant, vec![op], synced)
            }
            Act::Batch {
                tenant,
                ops,
                seed,
                synced,
            } => {
                let ops = self.operations(ops, seed);
                self.write(tenant, ops, synced)
            }
            Act::PutIf {
                tenant,
                space,
                key,
                held,
                since,
                synced,
            } => self.put_if((tenant, space, key), held, since, synced),
            Act::Transact {
                tenant,
                space,
                key,
                disturbed,
                synced,
            } => self.transact((tenant, space, key), disturbed, synced),
            Act::PutExpiring { .. }
            | Act::UntilExpiry { .. }
            | Act::ExpireOverOlder { .. }
            | Act::OutliveGrace { .. }
            | Act::LoseLease { .. }
            | Act::ClockBack { .. }
            | Act::Rest {} => self.expiry(act),
            Act::Retain { .. } | Act::RetainLonger { .. } | Act::AgeOut { .. } => self.retention(act),
            Act::Quota {
                tenant,
                set,
                above,
                below,
            } => self.quota(tenant, set, above, below),
            Act::DeleteRange { .. }
            | Act::BatchOfRanges { .. }
            | Act::OutliveRangeDelete { .. }
            | Act::RangeDeleteOverOlder { .. } => self.ranges(act),
            Act::HideValues { .. } | Act::Separate { .. } | Act::SeparateAnew { .. } => self.values(act),
            Act::Load { tenant, space, len } => {
                let space = name_of_space(&space.to_string());
                let load = |key| (space.clone(), key_of(key), Some(self.world.value(len as usize)));
                let ops = (0..KEYS).map(load).collect();
                self.write(tenant, ops, 0)?;
                Ok(self.world.flush()?)
            }
            Act::DeleteAll {
                tenant,
                space,
                synced,
            } => {
                let space = name_of_space(&space.to_string());
                let ops = (0..KEYS).map(|key| (space.clone(), key_of(key), None)).collect();
                self.write(tenant, ops, synced)
            }
            Act::Overwrite {
                tenant,
                space,
                key,
                times,
            } => {
                let space = name_of_space(&space.to_string());
                for _ in 0..times {
                    let value = self.world.value(30);
                    self.write(tenant, vec![(space.clone(), key_of(key), Some(value))], 0)?;
                }
                Ok(())
            }
            Act::PinLog {} => {
                let engine = self.world.engine();
                self.pin = Some(engine.pin_wal(engine.status().wal_start));
                Ok(())
            }
            Act::Get { tenant, space, key } => self.get(tenant, space, key),
            Act::MultiGet { tenant, space, seed } => self.multi_get(tenant, space, seed),
            Act::Range { tenant, space, seed } => self.range(tenant, space, seed),
            Act::Snapshot { tenant } => self.snapshot(tenant),
            Act::ReadSnapshot { which } => self.read_snapshot(which),
            Act::OutliveCompaction { tenant, space, key } => {
                self.snapshot(tenant)?;
                let value = self.world.value(30);
                let op = (name_of_space(&space.to_string()), key_of(key), Some(value));
                self.write(tenant, vec![op], 0)?;
                self.world.flush()?;
                self.world.compact()?;
                self.read_snapshot(self.held.len().saturating_sub(1) as u64)
            }
            Act::DropSnapshot { which } => {
                if !self.held.is_empty() {
                    self.held.swap_remove(which as usize % self.held.len());
                }
                Ok(())
            }
            Act::Check {} => self.check(),
            Act::Verify {} => self.verify(),
            Act::Flush {} => Ok(self.world.flush()?),
            Act::Compact {} => Ok(self.world.compact()?),
            Act::Step { most } => Ok(self.world.step(most as usize)?),
            Act::Checkpoint {} => self.checkpoint(),
            Act::Restore { at, seed } => self.restore(at, seed),
            Act::BaseCopy { at, seed } => self.base_copy(at, seed),
            Act::Reopen {} => self.reopen(),
            Act::Kill {} => Ok(self.kill()?),
            Act::PowerCut { mode, seed } => Ok(self.power_cut(crash_mode(mode), seed, &[])?),
            Act::PowerCutAfter {
                after,
                half,
                mode,
                seed,
            } => {
                let fs = &self.world.fs;
                fs.crash_at(fs.ops() + after, half == 1);
                self.planned = (crash_mode(mode), seed);
                Ok(())
            }
            Act::NestedCuts { first, second, seed } => {
                Ok(self.power_cut(CrashMode::KeepRandom, seed, &[first, second])?)
            }
            Act::Fail { kind, after, forever } => {
                self.fail(kind, after, forever == 1);
                Ok(())
            }
            Act::Room { bytes } => {
                self.room(bytes, false);
                Ok(())
            }
            Act::LateRoom { bytes } => {
                self.room(bytes, true);
                Ok(())
            }
            Act::Spoil { what, which, sector } => {
                self.spoil(what, which, sector);
                self.explain(&[ErrorKind::Io, ErrorKind::ReadOnly]);
                Ok(())
            }
            Act::Handles { spare } => {
                self.handles(spare);
                Ok(())
            }
            Act::HangSyncs { ms } => {
                self.hang_syncs(ms);
                Ok(())
            }
            Act::SecondOpener {} => self.second_opener(),
            Act::Limits {
                tenant,
                space,
                synced,
            } => self.limits(tenant, space, synced),
            Act::Damage {
                what,
                which,
                way,
                seed,
                live,
            } => self.damage((what, which), way, seed, live),
            Act::Misdo { misdeed, after, seed } => self.misdo(misdeed, after, seed),
            Act::Repair {} => {
                self.take_faults_away();
                Ok(())
            }
            Act::ClockJump { ms } => {
                self.counters.add(counted::row(20), 1);
                self.world.clock().advance(Duration::from_millis(ms));
                Ok(())
            }
        }
    }

    // ---- writing ----

    /// Whether a tenant lives and no failed call is about it.
    pub fn certain(&self, tenant: &str) -> bool {
        !self.doubtful.contains(tenant) && self.world.known().oracle.tenant(tenant).is_some()
    }

    fn create_tenant(&mut self, name: &str) -> Done {
        if self.doubtful.contains(name) {
            return Ok(());
        }
        let exists = self.certain(name);
        match self.world.create_tenant(name) {
            Ok(_) if exists => Err(Wrong::Failure("a tenant is created twice".into())),
            Ok(_) => Ok(()),
            Err(e) if exists && e.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(e) => {
                self.doubtful.insert(name.to_string());
                Err(e.into())
            }
        }
    }

    fn delete_tenant(&mut self, name: &str) -> Done {
        if !self.certain(name) {
            return Ok(());
        }
        self.held.retain(|held| held.tenant != name);
        let result = self.world.delete_tenant(name);
        if result.is_err() {
            self.doubtful.insert(name.to_string());
        }
        Ok(result?)
    }

    fn delete_keyspace(&mut self, tenant: u64, space: u64) -> Done {
        let (name, space) = (name_of_tenant(tenant), name_of_space(&space.to_string()));
        let place = format!("{name}/{space}");
        let exists = || {
            self.world
                .visible()
                .get(&name)
                .is_some_and(|s| s.contains_key(&space))
        };
        if !self.certain(&name) || self.doubtful.contains(&place) || !exists() {
            return Ok(());
        }
        // A snapshot of a keyspace that is deleted promises nothing.
        let of_tenant = self.held.iter_mut().filter(|held| held.tenant == name);
        of_tenant.for_each(|held| drop(held.content.remove(&space)));
        let result = self.world.delete_keyspace(&name, &space);
        if result.is_err() {
            self.doubtful.insert(place);
        }
        Ok(result?)
    }

    /// Commits a batch to a tenant that certainly lives.
    pub fn write(&mut self, tenant: u64, ops: Vec<Op>, synced: u64) -> Done {
        let name = name_of_tenant(tenant);
        let place = |space: &String| format!("{name}/{space}");
        if !self.certain(&name)
            || ops
                .iter()
                .any(|(space, ..)| self.doubtful.contains(&place(space)))
        {
            return Ok(());
        }
        let known = self.world.visible().remove(&name).unwrap_or_default();
        let spaces = ops.iter().map(|(space, ..)| space);
        let new: Vec<String> = spaces
            .filter(|space| !known.contains_key(*space))
            .map(place)
            .collect();
        let durability = match synced {
            0 => Durability::Buffered,
            _ => Durability::Local,
        };
        let ops = self.world.told_apart(ops);
        let result = self.world.batch(&name, ops.clone(), durability);
        self.judge_quota(&name, &ops, &result)?;
        if result.is_err() {
            self.doubtful.extend(new);
        }
        Ok(result?)
    }

    fn operations(&mut self, count: u64, seed: u64) -> Vec<Op> {
        let mut dice = Dice::new(seed);
        let operation = |_| {
            let space = name_of_space(&dice.below(super::generate::SPACES).to_string());
            let key = key_of(dice.below(KEYS));
            let len = *dice.pick(&[0, 10, 100, 700]);
            let value = (!dice.percent(25)).then(|| self.world.value(len));
            (space, key, value)
        };
        (0..count).map(operation).collect()
    }

    /// These kinds of error are allowed until the next opening.
    pub fn explain(&mut self, kinds: &[ErrorKind]) {
        self.explained.extend(kinds);
    }

    fn end(&mut self) -> Result<(), String> {
        self.take_faults_away();
        let done = self.check();
        self.judge(done)?;
        self.settle()?;
        let leaks = canary::find(&self.world.fs.files());
        if !leaks.is_empty() {
            return Err(format!("plaintext on the disk: {leaks:?}"));
        }
        self.held.clear();
        self.world.kill();
        self.open(&[])?;
        self.judge_end()?;
        self.trace.number(self.world.fs.digest());
        Ok(())
    }

    fn judge_end(&mut self) -> Result<(), String> {
        let closed = self.world.close();
        closed.map_err(|e| format!("the last close: {e:?}"))?;
        let (handles, locks) = (self.world.fs.open_handles(), self.world.fs.held_locks());
        if handles + locks > 0 {
            return Err(format!("{handles} handles and {locks} locks are left"));
        }
        Ok(())
    }
}
