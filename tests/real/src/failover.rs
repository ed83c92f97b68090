//! Rounds of failover between two real processes under load, and the verdict on what the clients saw.
//!
//! ```text
//! write until the pair replicates, kill or stop the primary at a random moment, promote the standby,
//! start the old primary again or let it go on, wait until it follows, change sides
//! ```
//!
//! Clients write at `Replicated` throughout. *Verdict:* the application's history, all rounds in one, must be that of
//! one register for each key: nothing acknowledged is lost, no read is stale, no write that was said to have failed is
//! ever read. Strangers are told apart: one that still talks to a stopped primary when that goes on, and has heard
//! nothing of the new one, may be told the past (docs/guarantees.md); how often that happened is counted.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strongroom_client::proto::admin::PromoteRequest;
use strongroom_tests::dice::Dice;
use strongroom_tests::history::{self, Action, Fault, Operation, Outcome as Ended};

use crate::clients::{Clients, STRANGERS, Shared};
use crate::pair::{Outcome, Pair};

/// Small memtables and segments: flushes, compactions and rotations are always under way.
const SETTINGS: [&str; 3] = [
    "engine.replicated_timeout_ms=400",
    "engine.memtable_bytes=65536",
    "engine.segment_bytes=65536",
];
const APPLICATION_TASKS: u64 = 6;
const STRANGER_TASKS: u64 = 2;
/// Acknowledged writes between two rounds, at least.
const WRITES_BETWEEN: u64 = 60;

/// What happens to the primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Blow {
    Kill,
    Stop,
}

/// What the rounds came to.
#[derive(Default, Debug)]
pub struct Summary {
    /// Rounds with SIGKILL.
    pub kills: u64,
    /// Rounds with SIGSTOP and SIGCONT.
    pub stops: u64,
    /// From asking for the promotion to its answer.
    pub promotions: Vec<Duration>,
    /// From the blow to the first answer any client got after the promotion.
    pub outages: Vec<Duration>,
    /// From the return of the old primary to the first acknowledged replicated write.
    pub returns: Vec<Duration>,
    /// All calls of all clients.
    pub operations: Vec<Operation>,
    /// Whole run.
    pub took: Duration,
}

/// Runs `rounds` rounds in the new directory `dir`. An error names the round.
pub async fn rounds(binary: &Path, dir: &Path, rounds: u64, seed: u64) -> Outcome<Summary> {
    let begun = Instant::now();
    let mut dice = Dice::new(seed);
    let mut summary = Summary::default();
    let mut pair = Pair::prepare(binary, dir, &SETTINGS, &mut dice)?;
    pair.start().await?;
    let config = pair.client_config()?;
    let mut clients = Clients::start(config, APPLICATION_TASKS, STRANGER_TASKS, &mut dice).await?;
    for round in 0..rounds {
        let primary = (round % 2) as usize;
        one_round(&mut pair, primary, &mut clients, &mut dice, &mut summary)
            .await
            .map_err(|e| {
                let logs: Vec<String> = pair.nodes.iter().map(|n| n.log_end(15)).collect();
                format!("round {round}: {e}\n{}", logs.join("\n--\n"))
            })?;
    }
    let shared = clients.finish().await?;
    summary.operations = shared.recorder.operations();
    summary.took = begun.elapsed();
    Ok(summary)
}

async fn one_round(
    pair: &mut Pair,
    primary: usize,
    clients: &mut Clients,
    dice: &mut Dice,
    summary: &mut Summary,
) -> Outcome {
    let standby = 1 - primary;
    let acknowledged: fn(&Shared) -> &AtomicU64 = |shared| &shared.acknowledged;
    clients
        .wait("replicated writes", acknowledged, WRITES_BETWEEN)
        .await?;
    pause(dice, 120).await;
    let blow = *dice.pick(&[Blow::Kill, Blow::Stop]);
    let struck = Instant::now();
    match blow {
        Blow::Kill => pair.nodes[primary].kill(),
        Blow::Stop => pair.nodes[primary].pause(),
    }
    pause(dice, 60).await;
    let admin = pair.admin(standby).await?;
    let asked = Instant::now();
    admin
        .promote(PromoteRequest::default())
        .await
        .map_err(|e| format!("promote {}: {e:?}", pair.nodes[standby].name))?;
    summary.promotions.push(asked.elapsed());
    // Some of the old primaries come back before a client has found the new one, some after.
    if dice.percent(50) {
        clients.wait("an answer", |shared| &shared.answered, 1).await?;
        summary.outages.push(struck.elapsed());
        pause(dice, 200).await;
    }
    let back = Instant::now();
    match blow {
        Blow::Kill => {
            summary.kills += 1;
            pair.nodes[primary].spawn()?;
        }
        Blow::Stop => {
            summary.stops += 1;
            pair.nodes[primary].resume();
        }
    }
    // Only a standby that follows the new primary can confirm.
    clients
        .wait("the old primary to follow", acknowledged, APPLICATION_TASKS + 1)
        .await?;
    summary.returns.push(back.elapsed());
    pair.nodes.iter_mut().try_for_each(crate::pair::Node::alive)
}

async fn pause(dice: &mut Dice, below_ms: u64) {
    tokio::time::sleep(Duration::from_micros(dice.below(below_ms * 1000))).await;
}

/// What the history says.
pub struct Judged {
    /// The application's history.
    pub application: history::Verdict,
    /// The same with the strangers' reads.
    pub with_strangers: history::Verdict,
}

impl Summary {
    /// Judges the history.
    pub fn judge(&self) -> Judged {
        let application: Vec<Operation> = self
            .operations
            .iter()
            .filter(|o| o.key < STRANGERS)
            .copied()
            .collect();
        let with_strangers: Vec<Operation> = self
            .operations
            .iter()
            .map(|o| Operation {
                key: o.key % STRANGERS,
                ..*o
            })
            .collect();
        Judged {
            application: history::check(&application),
            with_strangers: history::check(&with_strangers),
        }
    }

    fn puts(&self, ended: Ended) -> u64 {
        let is = |o: &&Operation| matches!(o.action, Action::Put { outcome, .. } if outcome == ended);
        self.operations.iter().filter(is).count() as u64
    }

    /// All figures.
    pub fn to_json(&self, judged: &Judged) -> Value {
        let reads = |strangers: bool| {
            self.operations
                .iter()
                .filter(|o| matches!(o.action, Action::Get { .. }) && (o.key >= STRANGERS) == strangers)
                .count()
        };
        let all = &judged.application;
        json!({
            "schema": 1,
            "rounds": self.kills + self.stops,
            "sigkill": self.kills,
            "sigstop": self.stops,
            "writes_acknowledged": self.puts(Ended::Ok),
            "writes_unknown": self.puts(Ended::Unknown),
            "writes_failed": self.puts(Ended::Failed),
            "reads": reads(false),
            "keys": all.keys,
            "lost": all.count(Fault::Lost),
            "stale": all.count(Fault::Stale),
            "failed_but_read": all.count(Fault::Failed),
            "violations": all.violations.len(),
            "strangers_reads": reads(true),
            "strangers_keys_read_stale": judged.with_strangers.violations.len(),
            "promotion_ms": spread(&self.promotions),
            "outage_ms": spread(&self.outages),
            "return_ms": spread(&self.returns),
            "seconds": self.took.as_secs_f64(),
        })
    }
}

fn spread(times: &[Duration]) -> Value {
    let mut ms: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1e3).collect();
    ms.sort_by(f64::total_cmp);
    let at = |share: f64| {
        ms.get(((ms.len() as f64 - 1.0) * share) as usize)
            .map(|ms| (ms * 10.0).round() / 10.0)
    };
    json!({ "median": at(0.5), "p95": at(0.95), "max": at(1.0) })
}
