//! Start, load, kill, promote, verify, write on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use strongroom_client::proto::admin::PromoteRequest;
use strongroom_client::{Client, Durability, WriteOptions};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::load::{Request, Writing, plan};
use super::model::Fate;
use super::{Drill, LOG, PATIENCE, compare};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::output;

/// The kill comes when this share of all events is acknowledged, in percent.
const KILL_BETWEEN: (u64, u64) = (40, 75);

/// How a client's last calls end against a dead server: soon.
const DEAD_SERVER: Duration = Duration::from_millis(200);

/// How long clients look for the new primary.
const FAILOVER: Duration = Duration::from_secs(30);

/// What was known when the primary died.
pub struct Killed {
    /// When.
    at: Instant,
    /// Batches that were in flight.
    unknown: Vec<Vec<u32>>,
}

impl Drill {
    /// Starts the pair, creates tenants and tokens. Returns a client for each tenant, at the primary alone.
    pub async fn start(&mut self) -> Outcome<Vec<Client>> {
        let took = self.pair.start(LOG, PATIENCE).await?;
        self.report.sync_ms = took.as_secs_f64() * 1e3;
        self.tell.step(
            "start",
            &format!(
                "primary a and standby b over mutual TLS on loopback, in sync after {}",
                output::span(took)
            ),
        );
        let admin = self.pair.admin(&self.pair.a).await?;
        for tenant in &self.data.tenants {
            admin.create_tenant(&tenant.name).await?;
            self.tokens.push(admin.create_token(&tenant.name).await?.token);
        }
        self.tell.step(
            "tenants",
            &format!(
                "{} created, each with its own keys and a token",
                self.data.tenants.len()
            ),
        );
        self.connect(&[self.pair.a.endpoint()?], DEAD_SERVER).await
    }

    fn writing(
        &self,
        clients: &[Client],
        durability: Durability,
        threshold: u64,
        total: u64,
    ) -> Arc<Writing> {
        Arc::new(Writing {
            data: self.data.clone(),
            model: self.model.clone(),
            clients: clients.to_vec(),
            durability,
            acknowledged: AtomicU64::new(0),
            threshold,
            reached: Notify::new(),
            killed: AtomicBool::new(false),
            unknown: Mutex::new(Vec::new()),
            bar: output::progress(total, "events"),
        })
    }

    /// Writes at Replicated and kills the primary in the middle.
    pub async fn load_and_kill(&mut self, clients: Vec<Client>) -> Outcome<Killed> {
        let total = self.data.events.len() as u64;
        let all: Vec<u32> = (0..self.data.events.len() as u32).collect();
        let plans = plan(&self.data, &all, self.clients, &mut self.random);
        let share = self.random.between(KILL_BETWEEN.0, KILL_BETWEEN.1);
        // Some microseconds more, or the kill would always follow an acknowledgement.
        let delay = Duration::from_micros(self.random.between(0, 2000));
        let writing = self.writing(
            &clients,
            Durability::Replicated,
            (total * share / 100).max(1),
            total,
        );
        drop(clients);
        let started = Instant::now();
        let mut tasks = spawn(&writing, plans);
        tokio::select! {
            () = writing.reached.notified() => {}
            failed = first_failure(&mut tasks) => return Err(failed),
        }
        tokio::time::sleep(delay).await;
        self.pair.a.alive()?;
        writing.killed.store(true, Ordering::Release);
        let at = Instant::now();
        self.pair.a.kill()?;
        let loading = started.elapsed();
        join(tasks).await?;
        writing.bar.finish_and_clear();
        let acknowledged = writing.acknowledged.load(Ordering::Acquire);
        if acknowledged == total {
            return Err(Failure::failed(
                "all was written before the kill: nothing was in mid-write",
            ));
        }
        let unknown = std::mem::take(&mut *writing.unknown.lock().unwrap_or_else(PoisonError::into_inner));
        self.report.acknowledged_before_kill = acknowledged;
        self.report.writes_per_second = acknowledged as f64 / loading.as_secs_f64().max(1e-9);
        self.report.unknown_writes = unknown.iter().map(|batch| batch.len() as u64).sum();
        self.tell.step(
            "load",
            &format!(
                "{} writes acknowledged at Replicated, by {} clients in {}: {} a second",
                output::count(acknowledged),
                self.clients,
                output::span(loading),
                output::count(self.report.writes_per_second as u64)
            ),
        );
        self.tell.step(
            "kill",
            &format!(
                "SIGKILL to the primary in mid-write; {} writes in {} batches have no answer",
                output::count(self.report.unknown_writes),
                unknown.len()
            ),
        );
        Ok(Killed { at, unknown })
    }

    /// Promotes the standby and writes to it at once. Returns a client for each tenant, at both nodes.
    pub async fn promote(&mut self, killed: &Killed) -> Outcome<Vec<Client>> {
        let admin = self.admin().await?;
        let started = Instant::now();
        let request = PromoteRequest {
            expect_primary: "a".to_owned(),
            ..PromoteRequest::default()
        };
        let done = admin
            .promote(request)
            .await
            .map_err(|error| Failure::from(error).during("promote"))?;
        let took = started.elapsed();
        self.report.promote_ms = took.as_secs_f64() * 1e3;
        self.report.promote_loss_bytes = done.loss_bytes;
        // What the first application to come back does: connect, write. An event that was in flight is
        // left alone until it is verified.
        let all = 0..self.data.events.len() as u32;
        let next = all.clone().find(|index| self.model.fate(*index) == Fate::Pending);
        let next = next.or_else(|| {
            all.clone()
                .find(|index| self.model.fate(*index) == Fate::Acknowledged)
        });
        let (index, event) = next
            .and_then(|index| Some((index, self.data.event(index)?)))
            .ok_or_else(|| {
                Failure::failed("the primary died after all was written: nothing was in mid-write")
            })?;
        let token = self
            .tokens
            .get(event.tenant)
            .cloned()
            .into_iter()
            .collect::<Vec<_>>();
        let ca = std::fs::read(self.pair.tenants_ca())?;
        let endpoint = [self.pair.b.endpoint()?];
        let first = super::load::connect(&endpoint, &ca, &token, FAILOVER).await?;
        let first = first.first().ok_or_else(|| Failure::failed("no tenant"))?;
        let options = WriteOptions::new().durability(Durability::Local);
        first
            .put_with(
                &self.data.keyspace,
                event.key.to_vec(),
                event.value.to_vec(),
                options,
            )
            .await?;
        let since = killed.at.elapsed();
        self.model.set(index, Fate::Acknowledged);
        self.report.first_write_after_kill_ms = since.as_secs_f64() * 1e3;
        self.tell.step(
            "promote",
            &format!(
                "b is primary in epoch {} after {}; first write {} after the kill",
                strongroom::Epoch(done.epoch),
                output::span(took),
                output::span(since)
            ),
        );
        self.tell.more(&format!(
            "stated loss bound: {} bytes of a's log as last heard, none of it acknowledged at Replicated",
            output::count(done.loss_bytes)
        ));
        self.connect(&[self.pair.a.endpoint()?, self.pair.b.endpoint()?], FAILOVER)
            .await
    }

    /// Every acknowledged write must be there; every unknown batch whole or absent.
    pub async fn verify(&mut self, clients: &[Client], killed: &Killed) -> Outcome {
        let read = compare::server(&self.data, &self.model, clients, None).await?;
        let (asked, wrong) = compare::gets(&self.data, &self.model, clients, &mut self.random).await?;
        let found = &read.found;
        self.report.lost_writes += found.lost;
        self.report.wrong_values += found.different + found.foreign + wrong;
        self.report.torn_batches = found.torn(&killed.unknown);
        self.report.unknown_writes_there = found.unknown_there.len() as u64;
        self.tell.step(
            "verify",
            &format!(
                "{} of {} acknowledged writes are there, {} lost; {} of them asked for one by one",
                output::count(found.acknowledged - found.lost),
                output::count(found.acknowledged),
                output::count(found.lost),
                output::count(asked)
            ),
        );
        self.tell.more(&format!(
            "of {} unknown writes {} are there; {} batches in part; {} entries not as written",
            output::count(self.report.unknown_writes),
            output::count(self.report.unknown_writes_there),
            self.report.torn_batches,
            self.report.wrong_values
        ));
        Ok(())
    }

    /// Writes what is left, and repeats what is unknown, as applications do.
    pub async fn write_rest(&mut self, clients: &[Client]) -> Outcome {
        let rest: Vec<u32> = (0..self.data.events.len() as u32)
            .filter(|index| self.model.fate(*index) != Fate::Acknowledged)
            .collect();
        let plans = plan(&self.data, &rest, self.clients, &mut self.random);
        let writing = self.writing(clients, Durability::Local, u64::MAX, rest.len() as u64);
        let started = Instant::now();
        join(spawn(&writing, plans)).await?;
        writing.bar.finish_and_clear();
        let took = started.elapsed();
        self.report.acknowledged_writes = self.model.count(Fate::Acknowledged);
        self.tell.step(
            "write",
            &format!(
                "the other {} in {}: {} a second, at Local, since the pair has lost its standby",
                output::count(rest.len() as u64),
                output::span(took),
                output::count((rest.len() as f64 / took.as_secs_f64().max(1e-9)) as u64)
            ),
        );
        Ok(())
    }
}

fn spawn(writing: &Arc<Writing>, plans: Vec<Vec<Request>>) -> JoinSet<Outcome> {
    plans
        .into_iter()
        .map(|requests| writing.clone().client(requests))
        .collect()
}

/// Waits until all clients are done; the first failure ends it.
async fn join(mut tasks: JoinSet<Outcome>) -> Outcome {
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| Failure::failed(error.to_string()))??;
    }
    Ok(())
}

/// Never returns while clients succeed.
async fn first_failure(tasks: &mut JoinSet<Outcome>) -> Failure {
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => return failure,
            Err(error) => return Failure::failed(error.to_string()),
        }
    }
    std::future::pending().await
}
