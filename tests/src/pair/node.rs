//! One node: the replication core on a simulated machine. What `node`, `supervisor`, `promote` and `service`
//! do in the replication crate with tasks and TLS, this does step by step: it carries actions out and decides
//! nothing itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use strongroom::keys::KekVersion;
use strongroom::{Engine, Epoch, ErrorKind, Options, Role};
use strongroom_replication::core::role::{self, Fencing, Told, Waiting};
use strongroom_replication::core::{Dirs, Watched, settle};
use strongroom_replication::{NodeRole, PeerStatus, StartRole};

use super::follow::Follow;
use super::ledger::{Ledger, Outcome};
use super::machine::{DATA, Machine, SIDE};
use super::net::{ConnId, End, Msg, Net, NodeId};
use super::seed::Seed;
use super::serve::Reign;
use crate::layers::Counters;
use crate::sim::Trace;

/// How long an answer may take.
pub const CALL: Duration = Duration::from_millis(600);
/// Silence that ends a stream.
pub const PATIENCE: Duration = Duration::from_millis(1500);
/// First wait between attempts, and the longest.
const BACKOFF: (u64, u64) = (20, 320);

/// `Err`: what must never be, in words.
pub type Checked<T = ()> = Result<T, String>;

/// What all nodes share, and what is known from outside.
#[derive(Default)]
pub struct Ctx {
    /// Connections.
    pub net: Net,
    /// The oracle.
    pub ledger: Ledger,
    /// Everything that happened.
    pub trace: Trace,
    /// Sums.
    pub counters: Counters,
    /// Things the world has to compare between nodes.
    pub checks: Vec<Check>,
    /// The last things that happened, for a failure's text.
    pub log: Vec<String>,
    /// Messages may be repeated and exchanged.
    pub hostile: bool,
}

/// A comparison between nodes.
#[derive(Clone, Copy, Debug)]
pub enum Check {
    /// `primary` let `standby` resume at this position: their logs must be equal up to it.
    Resumed {
        primary: NodeId,
        standby: NodeId,
        upto: u64,
    },
    /// `node` was promoted: its content must be its path's.
    Promoted { node: NodeId },
}

impl Ctx {
    /// For the trace and the log; in the log the same over and over stands once.
    pub fn note(&mut self, text: String) {
        self.trace.text(&text);
        if self.log.last() == Some(&text) {
            return;
        }
        if std::env::var_os("SIM_LOG").is_some() {
            eprintln!("{text}");
        }
        if self.log.len() >= 60 {
            self.log.remove(0);
        }
        self.log.push(text);
    }
}

/// A wait to be primary.
pub struct Wait {
    pub(super) rule: Waiting,
    pub(super) next: Duration,
    pub(super) asking: Option<(ConnId, Duration)>,
    pub(super) tries: u32,
}

/// Telling the old primary.
pub(super) struct Telling {
    pub epoch: Epoch,
    pub database_id: [u8; 16],
    pub next: Duration,
    pub asked: Option<(ConnId, Duration)>,
    pub tries: u32,
}

/// What the node does.
pub enum Phase {
    /// Its process does not run.
    Down,
    /// It cannot go on.
    Failed,
    /// It asks its peer.
    Waiting(Wait),
    /// It serves.
    Serving,
    /// It follows.
    Following(Box<Follow>),
    /// It takes a base copy.
    Seeding(Box<Seed>),
}

/// A node.
pub struct Node {
    /// Number.
    pub id: NodeId,
    /// Whom it dials.
    pub peer: NodeId,
    /// Its machine.
    pub machine: Machine,
    /// Stopped with SIGSTOP.
    pub paused: bool,
    /// A disk fault was injected since it started.
    pub faulted: bool,
    /// Highest epoch that is durable here for certain.
    pub recorded: Epoch,
    pub(super) configured: StartRole,
    pub(super) dirs: Option<Dirs>,
    pub(super) engine: Option<Engine>,
    pub(super) keks: Option<Arc<Watched>>,
    pub(super) phase: Phase,
    pub(super) reign: Option<Reign>,
    pub(super) options: Options,
    pub(super) telling: Option<Telling>,
}

/// Its name.
pub fn name_of(node: NodeId) -> String {
    format!("n{node}")
}

/// The reverse.
pub fn node_of(name: &str) -> NodeId {
    name.strip_prefix('n').and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Waits between attempts.
pub fn backoff(tries: u32) -> Duration {
    Duration::from_millis((BACKOFF.0 << tries.min(4)).min(BACKOFF.1))
}

impl Node {
    /// A node that was never started.
    pub fn new(id: NodeId, peer: NodeId, configured: StartRole, machine: Machine, options: Options) -> Node {
        Node {
            id,
            peer,
            machine,
            paused: false,
            faulted: false,
            recorded: Epoch::ZERO,
            configured,
            dirs: None,
            engine: None,
            keks: None,
            phase: Phase::Down,
            reign: None,
            options,
            telling: None,
        }
    }

    /// By its machine's clock.
    pub fn now(&self) -> Duration {
        self.machine.now()
    }

    /// Whether its process runs.
    pub fn running(&self) -> bool {
        !matches!(self.phase, Phase::Down)
    }

    /// Whether it serves.
    pub fn serving(&self) -> Option<&Engine> {
        self.engine.as_ref().filter(|_| self.reign.is_some())
    }

    /// The role as others see it.
    pub fn role(&self) -> NodeRole {
        match &self.phase {
            Phase::Down | Phase::Failed => NodeRole::Stopped,
            Phase::Waiting(_) => NodeRole::Waiting,
            Phase::Serving if self.reign.is_some() => NodeRole::Primary,
            Phase::Serving => NodeRole::Fenced,
            Phase::Following(_) => NodeRole::Standby,
            Phase::Seeding(_) if self.engine.is_some() => NodeRole::Standby,
            Phase::Seeding(_) => NodeRole::Seeding,
        }
    }

    /// What it says of itself.
    pub fn who(&self) -> PeerStatus {
        role::who(&name_of(self.id), self.role(), self.engine.as_ref())
    }

    /// Whether an operator can promote it.
    pub fn promotable(&self) -> bool {
        self.engine.is_some() && matches!(self.role(), NodeRole::Waiting | NodeRole::Standby)
    }

    /// The node cannot go on. Without a fault of its disk that must not be.
    pub(super) fn fail(&mut self, ctx: &mut Ctx, what: &str, error: &dyn std::fmt::Display) -> Checked {
        ctx.note(format!("{} fails: {what}", name_of(self.id)));
        if !self.faulted {
            return Err(format!(
                "{} failed without a fault: {what}: {error}",
                name_of(self.id)
            ));
        }
        self.leave(ctx);
        self.phase = Phase::Failed;
        Ok(())
    }

    /// An error of the engine or the core in the middle of work: allowed after a fault only.
    pub(super) fn allow(&self, what: &str, error: &dyn std::fmt::Display) -> Checked {
        if self.faulted {
            return Ok(());
        }
        Err(format!("{}: {what} without a fault: {error}", name_of(self.id)))
    }

    /// Lets go of everything that is not on the disk.
    fn leave(&mut self, ctx: &mut Ctx) {
        self.end_reign(ctx);
        if let Phase::Waiting(Wait {
            asking: Some((conn, _)),
            ..
        }) = &self.phase
        {
            ctx.net.close(*conn, End::Client);
        }
        match &mut self.phase {
            Phase::Following(follow) => follow.close(ctx),
            Phase::Seeding(seed) => seed.close(ctx),
            _ => {}
        }
        self.engine = None;
    }

    // ---- life ----

    /// Starts the process.
    pub fn start(&mut self, ctx: &mut Ctx) -> Checked {
        ctx.note(format!("{} starts", name_of(self.id)));
        self.paused = false;
        self.phase = Phase::Failed;
        let io = self.machine.io();
        let opened = Dirs::open(&io, Path::new(DATA), Path::new(SIDE)).and_then(|dirs| {
            dirs.resume_install()?;
            let recorded = dirs.recorded()?;
            Ok((dirs, recorded))
        });
        let (dirs, recorded) = match opened {
            Ok(opened) => opened,
            Err(e) => return self.fail(ctx, "the node's directory", &e),
        };
        self.dirs = Some(dirs);
        self.destroy_keks();
        // A look without taking an epoch.
        match self.open(ctx, Role::Standby, false)? {
            Ok(()) => {}
            Err(e) => return self.fail(ctx, "opening", &e),
        }
        let highest = self.engine.as_ref().map(|engine| engine.status().highest_epoch);
        match settle(recorded, self.configured, highest) {
            StartRole::Primary => self.wait(false),
            StartRole::Standby if self.engine.is_some() => self.follow(),
            StartRole::Standby => self.seed(ctx, None),
        }
        ctx.note(format!("{} is {:?}", name_of(self.id), self.role()));
        Ok(())
    }

    /// The process dies, from a kill or a power cut; the machine is dealt with by the caller.
    pub fn die(&mut self, ctx: &mut Ctx, hear: bool) -> Checked {
        self.drop_pending(ctx)?;
        ctx.net.died(self.id, hear);
        self.reign = None;
        self.telling = None;
        self.engine = None;
        self.dirs = None;
        self.keks = None;
        self.phase = Phase::Down;
        self.paused = false;
        Ok(())
    }

    /// An orderly stop.
    pub fn shut_down(&mut self, ctx: &mut Ctx) -> Checked {
        self.drop_pending(ctx)?;
        self.stop_work(ctx)?;
        if let Some(engine) = self.engine.take()
            && let Err(e) = engine.close()
            && e.kind() != ErrorKind::Closed
        {
            self.allow("closing", &e)?;
        }
        self.die(ctx, true)
    }

    pub(super) fn drop_pending(&mut self, ctx: &mut Ctx) -> Checked {
        let (ours, others): (Vec<_>, Vec<_>) = std::mem::take(&mut ctx.ledger.pending)
            .into_iter()
            .partition(|pending| pending.node == self.id);
        ctx.ledger.pending = others;
        ours.into_iter()
            .try_for_each(|pending| ctx.ledger.ended(pending.write, Outcome::Unknown))
    }

    /// Opens the engine; `Ok(Ok)` also if there is none and none is to be made.
    pub(super) fn open(
        &mut self,
        ctx: &mut Ctx,
        role: Role,
        create: bool,
    ) -> Checked<std::result::Result<(), strongroom::Error>> {
        let keks = Watched::new(self.machine.keys.provider());
        self.keks = Some(keks.clone());
        let builder = Engine::builder(DATA)
            .shared_keys(keks)
            .options(self.options.clone())
            .io(self.machine.io())
            .role(role)
            .create_if_missing(create);
        let engine = match builder.open() {
            Ok(engine) => engine,
            Err(e) if e.kind() == ErrorKind::NotFound && !create => return Ok(Ok(())),
            Err(e) => return Ok(Err(e)),
        };
        let status = engine.status();
        if status.highest_epoch < self.recorded {
            return Err(format!(
                "{} recorded epoch {} durably and opens with {}",
                name_of(self.id),
                self.recorded,
                status.highest_epoch
            ));
        }
        self.recorded = status.highest_epoch;
        if role == Role::Standby {
            // A promotion that became durable and then failed has a reign too.
            ctx.ledger.learn(&engine.epoch_history(), self.id)?;
        }
        if role == Role::Primary && status.fenced_by.is_none() {
            let history = engine.epoch_history();
            if let Some((reign, before)) = history.split_last() {
                ctx.ledger.learn(before, self.id)?;
                let parent = before.last().map_or(Epoch::ZERO, |e| e.epoch);
                ctx.ledger.begin(reign.epoch, self.id, parent, reign.start)?;
            }
        }
        self.engine = Some(engine);
        Ok(Ok(()))
    }

    pub(super) fn close_engine(&mut self, ctx: &mut Ctx) -> Checked {
        self.drop_pending(ctx)?;
        if let Some(engine) = self.engine.take()
            && let Err(e) = engine.close()
            && e.kind() != ErrorKind::Closed
        {
            // A fenced or failed engine may be unable to; its log has it all.
            self.allow("closing", &e)?;
        }
        Ok(())
    }

    /// Closes and opens as a standby.
    pub(super) fn reopen(&mut self, ctx: &mut Ctx) -> Checked<bool> {
        self.close_engine(ctx)?;
        match self.open(ctx, Role::Standby, false)? {
            Ok(()) => Ok(true),
            Err(e) => self.fail(ctx, "reopening", &e).map(|()| false),
        }
    }

    fn destroy_keks(&mut self) {
        let Some(dirs) = &self.dirs else { return };
        // What fails is tried again at the next start.
        if let Ok(versions) = dirs.keks_to_destroy() {
            let keys = self.machine.keys.provider();
            for version in versions {
                let _ = keys.destroy_version(KekVersion(version));
            }
            let _ = dirs.keks_destroyed();
        }
    }

    pub(super) fn installed(&mut self, ctx: &mut Ctx) -> Checked {
        self.destroy_keks();
        match self.open(ctx, Role::Standby, false)? {
            Ok(()) if self.engine.is_some() => self.follow(),
            Ok(()) => return self.fail(ctx, "the base copy disappeared", &"nothing there"),
            Err(e) => return self.fail(ctx, "the base copy does not open", &e),
        }
        Ok(())
    }

    // ---- steps ----

    /// One unit of work, as `roll` chooses where there is a choice.
    pub fn work(&mut self, ctx: &mut Ctx, roll: u64) -> Checked {
        let now = self.now();
        match &mut self.phase {
            Phase::Down | Phase::Failed => Ok(()),
            Phase::Waiting(wait) => match wait.asking {
                Some((conn, until)) if now >= until => {
                    ctx.net.close(conn, End::Client);
                    self.answered(ctx, None)
                }
                Some(_) => Ok(()),
                None if now >= wait.next => {
                    let conn = ctx.net.dial(self.id, self.peer, Msg::Ask);
                    wait.asking = Some((conn, now + CALL));
                    Ok(())
                }
                None => Ok(()),
            },
            Phase::Serving => {
                let fenced = self
                    .engine
                    .as_ref()
                    .is_some_and(|e| e.status().fenced_by.is_some());
                if fenced {
                    ctx.note(format!("{} steps down", name_of(self.id)));
                    self.end_reign(ctx);
                    if self.reopen(ctx)? {
                        self.wait(false);
                    }
                    return Ok(());
                }
                self.tell(ctx);
                self.serve(ctx, roll)?;
                self.background(roll)
            }
            Phase::Following(_) => {
                self.follow_on(ctx)?;
                self.background(roll)
            }
            Phase::Seeding(_) => self.seed_on(ctx),
        }
    }

    fn background(&mut self, roll: u64) -> Checked {
        if !roll.is_multiple_of(5) {
            return Ok(());
        }
        match self.engine.as_ref().map(Engine::step) {
            Some(Err(e)) => self.allow("background work", &e),
            _ => Ok(()),
        }
    }

    fn tell(&mut self, ctx: &mut Ctx) {
        let now = self.now();
        let Some(telling) = &mut self.telling else { return };
        match telling.asked {
            Some((conn, until)) if now >= until => {
                ctx.net.close(conn, End::Client);
                telling.asked = None;
                telling.next = now + backoff(telling.tries);
                telling.tries += 1;
            }
            None if now >= telling.next => {
                let tell = Msg::Tell {
                    database_id: telling.database_id,
                    epoch: telling.epoch,
                };
                let conn = ctx.net.dial(self.id, self.peer, tell);
                telling.asked = Some((conn, now + CALL));
            }
            _ => {}
        }
    }

    /// A message comes out at this node.
    pub fn receive(&mut self, ctx: &mut Ctx, conn: ConnId, end: End, msg: Msg) -> Checked {
        match (end, msg) {
            (End::Server, msg) => self.asked(ctx, conn, msg),
            (End::Client, Msg::Who(who)) => {
                ctx.net.close(conn, End::Client);
                if matches!(&self.phase, Phase::Waiting(w) if w.asking.is_some_and(|(c, _)| c == conn)) {
                    return self.answered(ctx, Some(&who));
                }
                Ok(())
            }
            (End::Client, msg) => {
                if matches!(&self.phase, Phase::Waiting(w) if w.asking.is_some_and(|(c, _)| c == conn)) {
                    ctx.net.close(conn, End::Client);
                    return self.answered(ctx, None);
                }
                let now = self.now();
                if let Some(telling) = &mut self.telling
                    && telling.asked.is_some_and(|(c, _)| c == conn)
                {
                    ctx.net.close(conn, End::Client);
                    telling.asked = None;
                    telling.next = now + backoff(telling.tries);
                    telling.tries += 1;
                    if let Msg::Told { outcome, highest } = msg {
                        match role::told(telling.epoch, outcome, highest) {
                            Told::Done => self.telling = None,
                            Told::StepDown(by) => {
                                self.telling = None;
                                self.fence(ctx, by)?;
                            }
                            Told::Again(_) => {}
                        }
                    }
                    return Ok(());
                }
                match &self.phase {
                    Phase::Following(_) => self.follow_hears(ctx, conn, msg),
                    Phase::Seeding(_) => self.seed_hears(ctx, conn, msg),
                    _ => {
                        ctx.net.close(conn, End::Client);
                        Ok(())
                    }
                }
            }
        }
    }

    /// A call or a message of somebody who dialled this node.
    fn asked(&mut self, ctx: &mut Ctx, conn: ConnId, msg: Msg) -> Checked {
        match msg {
            Msg::Ask => {
                let who = self.who();
                ctx.net.send(conn, End::Client, Msg::Who(who));
                ctx.net.close(conn, End::Server);
                Ok(())
            }
            Msg::Tell { database_id, epoch } => {
                let outcome = match role::fencing(&self.who(), database_id, epoch) {
                    Fencing::Answer(outcome) => outcome,
                    Fencing::Record => {
                        use strongroom_replication::core::message::FenceOutcome;
                        if self.fence(ctx, epoch)? {
                            FenceOutcome::Recorded
                        } else {
                            FenceOutcome::Undecided
                        }
                    }
                };
                let highest = self.who().highest_epoch;
                if outcome == strongroom_replication::core::message::FenceOutcome::Recorded && highest < epoch
                {
                    return Err(format!(
                        "{} answered that it recorded {epoch}, and knows {highest}",
                        name_of(self.id)
                    ));
                }
                ctx.net.send(conn, End::Client, Msg::Told { outcome, highest });
                ctx.net.close(conn, End::Server);
                Ok(())
            }
            msg => self.served(ctx, conn, msg),
        }
    }
}
