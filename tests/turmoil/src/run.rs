//! One seed: two hosts, two writers, the plan's faults, then peace, then the verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use strongroom_replication::NodeRole;
use turmoil::Sim;

use crate::check::{self, Checked};
use crate::plan::{Fault, Phase, Plan};
use crate::site::{self, NAMES, Order, Site};
use crate::writer::{self, History, Told, Traffic};

/// Simulated time of one step.
const TICK: Duration = Duration::from_millis(10);
/// What a step takes at least on the wall's clock: engines have threads, which simulated time does not wait for.
const PACE: Duration = Duration::from_micros(500);
/// Simulated time in which a pair must begin to work, be promoted, or work again after the last fault.
const PATIENCE: Duration = Duration::from_secs(120);
const WRITERS: u64 = 2;

/// What happened in a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Faults by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// Writes by what their writer was told: nothing certain, local, replicated.
    pub writes: [u64; 3],
    /// Promotions that took place.
    pub promotions: u64,
    /// Promotions that were refused, rightly: there was nothing to promote.
    pub not_promoted: u64,
    /// Times both nodes waited for a person to decide, and the one of the newer epoch was promoted.
    pub decided_by_hand: u64,
    /// Lives of nodes.
    pub starts: u64,
    /// Times a node began to take a base copy.
    pub base_copies: u64,
    /// Times a node lost its primary's stream.
    pub disconnects: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// What was compared in the end.
    pub checked: Checked,
}

/// Runs `seed`; what is wrong if something is.
pub fn run(seed: u64) -> Result<Outcome, String> {
    let plan = Plan::of(seed);
    let dir = site::directory();
    let sites = [0, 1].map(|index| Site::new(dir.path(), index));
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .enable_random_order()
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(1 << 30))
        .tcp_capacity(1 << 16)
        .min_message_latency(Duration::ZERO)
        .max_message_latency(plan.latency)
        .build();
    for (site, name) in sites.iter().zip(NAMES) {
        let site = site.clone();
        sim.host(name, move || site.clone().live());
    }
    let mut driver = Driver {
        sim,
        sites,
        plan,
        traffic: Arc::default(),
        outcome: Outcome::default(),
        seen: [Seen::default(); 2],
    };
    let result = driver.all(seed);
    driver.traffic.stop.store(true, Ordering::Relaxed);
    for (site, name) in driver.sites.iter().zip(NAMES) {
        site.forget();
        driver.sim.crash(name);
    }
    result?;
    driver.outcome.simulated = driver.sim.elapsed();
    Ok(driver.outcome)
}

/// What was last seen of a node, to count changes.
#[derive(Clone, Copy, Default)]
struct Seen {
    seeding: bool,
    connected: bool,
}

struct Driver<'a> {
    sim: Sim<'a>,
    sites: [Site; 2],
    plan: Plan,
    traffic: Arc<Traffic>,
    outcome: Outcome,
    seen: [Seen; 2],
}

impl Driver<'_> {
    fn all(&mut self, seed: u64) -> Result<(), String> {
        self.until("the pair begins to work", Driver::at_peace)?;
        let start = |index| {
            let value_bytes = self.plan.value_bytes;
            writer::start(self.sites.clone(), self.traffic.clone(), seed, index, value_bytes)
        };
        let writers: Vec<_> = (0..WRITERS).map(start).collect();
        let mut failed = None;
        for phase in self.plan.phases.clone() {
            *self.outcome.faults.entry(phase.fault.name()).or_default() += 1;
            if let Err(what) = self.phase(phase) {
                failed = Some(format!("in {phase:?}: {what}"));
                break;
            }
        }
        self.traffic.stop.store(true, Ordering::Relaxed);
        // A writer may wait for a standby, on the wall's clock.
        while failed.is_none() && writers.iter().any(|writer| !writer.is_finished()) {
            self.step()?;
        }
        let histories: Vec<History> = writers
            .into_iter()
            .map(|writer| writer.join().map_err(|_| "a writer panicked".to_owned()))
            .collect::<Result<_, _>>()?;
        if let Some(what) = failed {
            return Err(what);
        }
        for write in histories.iter().flat_map(|h| h.values().flatten()) {
            let told = match write.told {
                Told::Unknown => 0,
                Told::Local => 1,
                Told::Replicated => 2,
            };
            self.outcome.writes[told] += 1;
        }
        self.settle()?;
        self.outcome.starts = self.sites.iter().map(Site::starts).sum();
        self.outcome.checked = check::all(
            &self.sites,
            &histories,
            self.traffic.reigns.load(Ordering::SeqCst),
        )?;
        Ok(())
    }

    fn phase(&mut self, phase: Phase) -> Result<(), String> {
        let [a, b] = NAMES;
        match phase.fault {
            Fault::Calm => self.pass(phase.lasts)?,
            Fault::Cut => {
                self.sim.partition(a, b);
                self.pass(phase.lasts)?;
                self.sim.repair(a, b);
            }
            Fault::CutFrom(node) => {
                self.sim.partition_oneway(NAMES[node], NAMES[1 - node]);
                self.pass(phase.lasts)?;
                self.sim.repair_oneway(NAMES[node], NAMES[1 - node]);
            }
            Fault::Hold => {
                self.sim.hold(a, b);
                self.pass(phase.lasts)?;
                self.sim.release(a, b);
            }
            Fault::Slow(ms) => {
                self.sim.set_max_message_latency(Duration::from_millis(ms));
                self.pass(phase.lasts)?;
                self.sim.set_max_message_latency(self.plan.latency);
            }
            Fault::Crash(node) => {
                self.crash(node);
                self.pass(phase.lasts)?;
                self.sim.bounce(NAMES[node]);
            }
            Fault::Bounce(node) => {
                self.crash(node);
                self.sim.bounce(NAMES[node]);
                self.pass(phase.lasts)?;
            }
            Fault::Restart(node) => {
                self.sites[node].order(Order::Restart);
                self.pass(phase.lasts)?;
            }
            Fault::FailoverWhileCut => {
                self.sim.partition(a, b);
                self.pass(phase.lasts)?;
                self.promote()?;
                self.pass(phase.lasts)?;
                self.sim.repair(a, b);
            }
            Fault::FailoverAfterCrash => {
                let primary = self.traffic.target.load(Ordering::Relaxed);
                self.crash(primary);
                self.promote()?;
                self.pass(phase.lasts)?;
                self.sim.bounce(NAMES[primary]);
            }
            Fault::Handover => {
                self.promote()?;
                self.pass(phase.lasts)?;
            }
        }
        self.pass(phase.calm)
    }

    fn crash(&mut self, node: usize) {
        self.sites[node].forget();
        self.sim.crash(NAMES[node]);
    }

    /// Promotes the node that is not the target of the writers, if it is a standby that holds data.
    fn promote(&mut self) -> Result<(), String> {
        let to = 1 - self.traffic.target.load(Ordering::Relaxed);
        let ready = self.sites[to].node().is_some_and(|node| {
            let state = node.state();
            state.role == NodeRole::Standby && state.engine.is_some()
        });
        if ready {
            return self.order_promotion(to);
        }
        self.outcome.not_promoted += 1;
        Ok(())
    }

    fn order_promotion(&mut self, to: usize) -> Result<(), String> {
        let answer = Arc::new(Mutex::new(None));
        // Before it is ordered: what is acknowledged from here on may be the old primary's.
        self.traffic.reigns.fetch_add(1, Ordering::SeqCst);
        if !self.sites[to].order(Order::Promote(answer.clone())) {
            self.outcome.not_promoted += 1;
            return Ok(());
        }
        let waiting = answer.clone();
        self.until("a promotion ends", move |_| waiting.lock().is_some())?;
        match answer.lock().take() {
            Some(Ok(_)) => {
                self.outcome.promotions += 1;
                self.traffic.target.store(to, Ordering::Relaxed);
            }
            // It may have begun to take a base copy in between.
            _ => self.outcome.not_promoted += 1,
        }
        Ok(())
    }

    /// Waits for peace. Where both nodes wait for a person because no rule decides, one decides.
    fn settle(&mut self) -> Result<(), String> {
        self.until(
            "the pair works again after the last fault, or waits for a person",
            |driver| driver.at_peace() || driver.both_wait().is_some(),
        )?;
        if let Some(newer) = self.both_wait() {
            self.traffic.target.store(1 - newer, Ordering::Relaxed);
            self.order_promotion(newer)?;
            self.outcome.decided_by_hand += 1;
        }
        self.until("the pair works again after the last fault", Driver::at_peace)
    }

    /// Both nodes wait for a person: the one of the newer epoch.
    fn both_wait(&self) -> Option<usize> {
        let waiting = |site: &Site| {
            let state = site.node()?.state();
            let asks = state
                .note
                .as_deref()
                .is_some_and(|note| note.contains("promote one of the two"));
            (state.role == NodeRole::Waiting)
                .then(|| (state.engine.map(|engine| engine.status().epoch), asks))
        };
        let ((a, a_asks), (b, b_asks)) = (waiting(&self.sites[0])?, waiting(&self.sites[1])?);
        (a_asks || b_asks).then_some(usize::from(b > a))
    }

    /// One node serves, the other follows it and shows all of it.
    fn at_peace(&self) -> bool {
        let (Some(a), Some(b)) = (self.sites[0].node(), self.sites[1].node()) else {
            return false;
        };
        let (a, b) = (a.status(), b.status());
        let (primary, standby) = match (a.role, b.role) {
            (NodeRole::Primary, NodeRole::Standby) => (a, b),
            (NodeRole::Standby, NodeRole::Primary) => (b, a),
            _ => return false,
        };
        let (Some(p), Some(s), Some(upstream)) = (primary.engine, standby.engine, standby.upstream) else {
            return false;
        };
        upstream.connected
            && s.applied == p.written
            // A late confirmation makes batches visible whose writers were told nothing certain.
            && s.visible == p.visible
            && s.durable == p.durable
            && p.durable == p.written
            && s.keystore_version == p.keystore_version
            && p.fenced_by.is_none()
    }

    /// Steps until `met`, for as long as patience lasts.
    fn until(&mut self, what: &str, met: impl Fn(&Self) -> bool) -> Result<(), String> {
        let end = self.sim.elapsed() + PATIENCE;
        while !met(self) {
            if self.sim.elapsed() > end {
                let [a, b] = self.sites.each_ref().map(Site::describe);
                return Err(format!("not within {PATIENCE:?}: {what}\na: {a}\nb: {b}"));
            }
            self.step()?;
        }
        Ok(())
    }

    fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        let began = Instant::now();
        self.sim.step().map_err(|e| format!("a host failed: {e}"))?;
        for (site, seen) in self.sites.iter().zip(&mut self.seen) {
            let Some(node) = site.node() else { continue };
            let status = node.state();
            let seeding = status.role == NodeRole::Seeding;
            self.outcome.base_copies += u64::from(seeding && !seen.seeding);
            let connected = node.status().upstream.is_some_and(|upstream| upstream.connected);
            self.outcome.disconnects += u64::from(!connected && seen.connected);
            *seen = Seen { seeding, connected };
        }
        std::thread::sleep(PACE.saturating_sub(began.elapsed()));
        Ok(())
    }
}
