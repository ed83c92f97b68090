//! A database in a model of time: writers, one thread of background work, and the pacing between them. What must hold
//! of it is checked for the machine and the tenants of a seed.
//!
//! Time is counted, not waited for: minutes of it take seconds. The background thread flushes first, and compacts all
//! of level 0 with level 1, or a table of level 1 with what it overlaps below, as the engine does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::shares::{Delay, NEAR, Shares};
use super::{Debt, Drain, rate};
use crate::io::Rng;
use crate::io::sim::SimRng;
use crate::options::Options;
use crate::types::TenantId;

const MIB: u64 = 1 << 20;

/// What a seed says.
struct Machine {
    /// Bytes a second.
    flush: u64,
    merge: u64,
    options: Options,
    /// Bytes of a table of level 1 and what it overlaps.
    push_cost: u64,
    lasts: Duration,
}

/// A thread that writes.
struct Writer {
    tenant: TenantId,
    batch: u64,
    /// From the end of a batch to the next.
    pause: Duration,
    floods: bool,
    /// It waits for its turn, since then.
    waits: Option<(Delay, Duration)>,
    stopped_at: Option<Duration>,
    longest: Duration,
    wrote: u64,
}

/// How the work is under way.
enum Job {
    Level0 { tables: u64, left: u64, took: Duration },
    Push { left: u64, took: Duration },
}

struct Model {
    machine: Machine,
    shares: Shares,
    drain: Drain,
    active: u64,
    /// What is left to flush of each, and how long that took so far.
    immutables: std::collections::VecDeque<(u64, Duration)>,
    level0: u64,
    level1: u64,
    job: Option<Job>,
    now: Duration,
    stops: u64,
    /// Time without background work.
    idle: Duration,
    most_tenants: usize,
}

impl Model {
    fn memtable(&self) -> u64 {
        self.machine.options.memtable_bytes as u64
    }

    fn debt(&self) -> Debt {
        Debt {
            memory: self.active + self.immutables.len() as u64 * self.memtable(),
            level0: self.level0,
            excess: self.level1.saturating_sub(self.machine.options.level1_bytes),
        }
    }

    fn must_stop(&self) -> bool {
        self.immutables.len() > self.machine.options.immutable_memtables_max
            || self.level0 >= self.machine.options.level0_tables_stop as u64
    }

    /// Background work until then.
    fn work(&mut self, until: Duration) {
        let memtable = self.memtable();
        while self.now < until {
            let room = until - self.now;
            let spend = |left: &mut u64, took: &mut Duration, speed: u64| -> Duration {
                let needs = Duration::from_secs_f64(*left as f64 / speed as f64);
                let spent = needs.min(room).max(Duration::from_nanos(1));
                let did = (spent.as_secs_f64() * speed as f64) as u64;
                *left = if spent >= needs {
                    0
                } else {
                    left.saturating_sub(did)
                };
                *took += spent;
                spent
            };
            if let Some((left, took)) = self.immutables.front_mut() {
                let spent = spend(left, took, self.machine.flush);
                if let Some(Job::Level0 { took, .. } | Job::Push { took, .. }) = &mut self.job {
                    *took += spent;
                }
                self.now += spent;
                if self.immutables.front().is_some_and(|(left, _)| *left == 0)
                    && let Some((_, took)) = self.immutables.pop_front()
                {
                    self.drain.flushed(memtable, took);
                    self.level0 += 1;
                }
                continue;
            }
            match &mut self.job {
                Some(Job::Level0 { tables, left, took }) => {
                    self.now += spend(left, took, self.machine.merge);
                    if *left == 0 {
                        self.drain.compacted(*tables * memtable, *took);
                        self.level0 -= *tables;
                        self.level1 += *tables * memtable;
                        self.job = None;
                    }
                }
                Some(Job::Push { left, took }) => {
                    self.now += spend(left, took, self.machine.merge);
                    if *left == 0 {
                        self.drain.compacted(0, *took);
                        self.level1 = self.level1.saturating_sub(memtable);
                        self.job = None;
                    }
                }
                None => {
                    let trigger = self.machine.options.level0_tables as u64;
                    let level1_over = self.level1 > self.machine.options.level1_bytes;
                    if self.level0 >= 2 * trigger || (self.level0 >= trigger && !level1_over) {
                        let left = self.level0 * memtable + self.level1;
                        self.job = Some(Job::Level0 {
                            tables: self.level0,
                            left,
                            took: Duration::ZERO,
                        });
                    } else if level1_over {
                        self.job = Some(Job::Push {
                            left: self.machine.push_cost,
                            took: Duration::ZERO,
                        });
                    } else {
                        self.idle += until - self.now;
                        self.now = until;
                    }
                }
            }
        }
    }

    /// A writer is at its batch; when it goes on.
    fn write(&mut self, writer: &mut Writer) -> Duration {
        if let Some((rate, _)) = rate(&self.debt(), || self.drain, &self.machine.options) {
            self.shares.pass(self.now, rate);
            let (delay, _) = writer
                .waits
                .get_or_insert_with(|| (self.shares.take(writer.tenant, writer.batch), self.now));
            self.most_tenants = self.most_tenants.max(self.shares.tenants());
            if let Some(sleep) = delay.sleep(&self.shares) {
                return self.now + sleep;
            }
        } else {
            self.shares.forgive();
        }
        if self.must_stop() {
            self.stops += u64::from(writer.stopped_at.is_none());
            writer.stopped_at.get_or_insert(self.now);
            return self.now + Duration::from_millis(1);
        }
        let since = [
            writer.stopped_at.take(),
            writer.waits.take().map(|(_, since)| since),
        ];
        if let Some(since) = since.into_iter().flatten().min() {
            writer.longest = writer.longest.max(self.now - since);
        }
        writer.wrote += writer.batch;
        self.active += writer.batch;
        if self.active >= self.memtable() {
            self.active = 0;
            let full = (self.memtable(), Duration::ZERO);
            self.immutables.push_back(full);
        }
        // Writing itself takes time: some 400 MiB a second.
        self.now + writer.pause + Duration::from_nanos(2000 + writer.batch * 5 / 2)
    }

    fn run(&mut self, writers: &mut [Writer]) {
        let mut queue: BinaryHeap<Reverse<(Duration, usize)>> = (0..writers.len())
            .map(|writer| Reverse((Duration::ZERO, writer)))
            .collect();
        while let Some(Reverse((at, which))) = queue.pop() {
            if at > self.machine.lasts {
                return;
            }
            self.work(at);
            self.now = self.now.max(at);
            if let Some(writer) = writers.get_mut(which) {
                let next = self.write(writer);
                queue.push(Reverse((next, which)));
            }
        }
    }
}

fn pick(rng: &SimRng, from: u64, to: u64) -> u64 {
    let mut bytes = [0; 8];
    let filled = rng.fill(&mut bytes);
    debug_assert!(filled.is_ok());
    from + u64::from_le_bytes(bytes) % (to - from + 1)
}

fn set_up(seed: u64) -> (Model, Vec<Writer>) {
    let rng = SimRng::new(seed);
    let memtable = pick(&rng, 4, 16) * MIB;
    let options = Options {
        memtable_bytes: memtable as usize,
        immutable_memtables_max: pick(&rng, 1, 4) as usize,
        level1_bytes: 4 * memtable,
        ..Options::default()
    };
    let machine = Machine {
        flush: pick(&rng, 60, 160) * MIB,
        merge: pick(&rng, 60, 200) * MIB,
        options,
        push_cost: pick(&rng, 2, 8) * memtable,
        lasts: Duration::from_secs(30),
    };
    let writer = |tenant, batch, pause, floods| Writer {
        tenant: TenantId(tenant),
        batch,
        pause,
        floods,
        waits: None,
        stopped_at: None,
        longest: Duration::ZERO,
        wrote: 0,
    };
    let mut writers = Vec::new();
    // Floods of one thread or two, with batches of their own size.
    for tenant in 0..pick(&rng, 1, 3) {
        let batch = pick(&rng, 4, 32) << 10;
        for _ in 0..pick(&rng, 1, 2) {
            writers.push(writer(tenant + 1, batch, Duration::ZERO, true));
        }
    }
    // Trickles of some KiB a second.
    for tenant in 0..pick(&rng, 1, 20) {
        let pause = Duration::from_millis(pick(&rng, 50, 500));
        writers.push(writer(100 + tenant, pick(&rng, 50, 500), pause, false));
    }
    let model = Model {
        machine,
        shares: Shares::default(),
        drain: Drain::default(),
        active: 0,
        immutables: std::collections::VecDeque::new(),
        level0: 0,
        level1: 0,
        job: None,
        now: Duration::ZERO,
        stops: 0,
        idle: Duration::ZERO,
        most_tenants: 0,
    };
    (model, writers)
}

/// What must hold of the pacing on the machine of a seed.
pub(crate) fn check(seed: u64) -> Result<(), String> {
    let (mut model, mut writers) = set_up(seed);
    model.run(&mut writers);
    let fail = |what: String| Err(format!("pacing, seed {seed}: {what}"));
    if model.stops > 0 {
        return fail(format!("writers had to stop {} times", model.stops));
    }
    for writer in &writers {
        let (bound, what) = match writer.floods {
            true => (Duration::from_millis(400), "flood"),
            false => (NEAR, "trickle"),
        };
        if writer.longest > bound {
            return fail(format!("a batch of a {what} waited {:?}", writer.longest));
        }
    }
    let mut floods = std::collections::BTreeMap::new();
    for writer in writers.iter().filter(|writer| writer.floods) {
        *floods.entry(writer.tenant).or_insert(0u64) += writer.wrote;
    }
    let (least, most) = (floods.values().min(), floods.values().max());
    if let (Some(least), Some(most)) = (least, most)
        && *least < most / 2
    {
        return fail(format!("floods wrote {floods:?}"));
    }
    if model.most_tenants > writers.len() {
        return fail(format!("{} tenants are remembered", model.most_tenants));
    }
    // Writers are not slower than they need be: they leave background work no pause.
    if model.idle > model.machine.lasts / 50 {
        return fail(format!("background work paused for {:?}", model.idle));
    }
    Ok(())
}
