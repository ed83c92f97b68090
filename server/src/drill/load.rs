//! Clients that write, and what each write came to.
//!
//! A plan says beforehand who writes what: every event once, in batches of one tenant (a commit is of
//! one tenant) with single puts between them. Clients stop at the first error after the kill; an error
//! before it fails the drill.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::ProgressBar;
use strongroom_client::{Batch, Client, ClientConfig, Durability, Kind, WriteOptions};
use tokio::sync::Notify;

use super::data::Data;
use super::model::{Fate, Model};
use super::random::Random;
use crate::cli::exit::{Failure, Outcome};

/// Events in a batch.
const BATCH: (u64, u64) = (16, 48);
/// One request in so many is a single put.
const SINGLE_EVERY: u64 = 8;

/// One commit: events of one tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Index of the tenant.
    pub tenant: usize,
    /// Indexes of the events.
    pub events: Vec<u32>,
}

/// Deals `events` to `clients`: for each client its requests, in order. Every event is in exactly one.
pub fn plan(data: &Data, events: &[u32], clients: usize, random: &mut Random) -> Vec<Vec<Request>> {
    struct Open {
        events: Vec<u32>,
        size: u64,
    }
    let clients = clients.max(1);
    let mut size = || match random.between(1, SINGLE_EVERY) {
        1 => 1,
        _ => random.between(BATCH.0, BATCH.1),
    };
    let mut plans: Vec<Vec<Request>> = Vec::new();
    for client in 0..clients {
        let mut open: Vec<Open> = data
            .tenants
            .iter()
            .map(|_| Open {
                events: Vec::new(),
                size: size(),
            })
            .collect();
        let mut requests = Vec::new();
        for index in events.iter().skip(client).step_by(clients) {
            let Some(tenant) = data.event(*index).map(|event| event.tenant) else {
                continue;
            };
            let Some(batch) = open.get_mut(tenant) else {
                continue;
            };
            batch.events.push(*index);
            if batch.events.len() as u64 >= batch.size {
                requests.push(Request {
                    tenant,
                    events: std::mem::take(&mut batch.events),
                });
                batch.size = size();
            }
        }
        let rest = open
            .into_iter()
            .enumerate()
            .filter(|(_, batch)| !batch.events.is_empty());
        requests.extend(rest.map(|(tenant, batch)| Request {
            tenant,
            events: batch.events,
        }));
        plans.push(requests);
    }
    plans
}

/// Connects once for every tenant.
pub async fn connect(
    endpoints: &[String],
    ca: &[u8],
    tokens: &[String],
    failover: Duration,
) -> Outcome<Vec<Client>> {
    let mut clients = Vec::with_capacity(tokens.len());
    for token in tokens {
        let mut config = ClientConfig::new(endpoints.to_vec(), token);
        config.ca_pem = Some(ca.to_vec());
        config.failover_timeout = failover;
        clients.push(Client::connect(config).await?);
    }
    Ok(clients)
}

/// Shared by the clients and whoever kills the server.
pub struct Writing {
    /// What is written.
    pub data: Arc<Data>,
    /// What became of it.
    pub model: Arc<Model>,
    /// One for every tenant.
    pub clients: Vec<Client>,
    /// How far a write must get.
    pub durability: Durability,
    /// Writes acknowledged.
    pub acknowledged: AtomicU64,
    /// Tell `reached` when so many are.
    pub threshold: u64,
    /// Told once.
    pub reached: Notify,
    /// The server is being killed: errors are expected.
    pub killed: AtomicBool,
    /// Batches whose outcome is unknown.
    pub unknown: Mutex<Vec<Vec<u32>>>,
    /// Progress.
    pub bar: ProgressBar,
}

impl Writing {
    /// Writes one client's requests, one after the other.
    pub async fn client(self: Arc<Writing>, requests: Vec<Request>) -> Outcome {
        for request in requests {
            if self.killed.load(Ordering::Acquire) {
                return Ok(());
            }
            match self.write(&request).await {
                Ok(()) => {
                    for index in &request.events {
                        self.model.set(*index, Fate::Acknowledged);
                    }
                    let n = request.events.len() as u64;
                    let before = self.acknowledged.fetch_add(n, Ordering::AcqRel);
                    self.bar.inc(n);
                    if before < self.threshold && before + n >= self.threshold {
                        self.reached.notify_one();
                    }
                }
                Err(error) if self.killed.load(Ordering::Acquire) => {
                    // Certainly not applied: the connection was never there. Anything else may be.
                    if !error.kind().is_elsewhere() {
                        for index in &request.events {
                            self.model.set(*index, Fate::Unknown);
                        }
                        self.unknown
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(request.events);
                    }
                    return Ok(());
                }
                Err(error) => return Err(Failure::from(error).during("writing")),
            }
        }
        Ok(())
    }

    async fn write(&self, request: &Request) -> strongroom_client::Result<()> {
        let missing = || strongroom_client::ClientError::new(Kind::Internal, "the plan names no event");
        let client = self.clients.get(request.tenant).ok_or_else(missing)?;
        let options = WriteOptions::new().durability(self.durability);
        let keyspace = &self.data.keyspace;
        if let [index] = request.events.as_slice() {
            let event = self.data.event(*index).ok_or_else(missing)?;
            client
                .put_with(keyspace, event.key.to_vec(), event.value.to_vec(), options)
                .await?;
            return Ok(());
        }
        let mut batch = Batch::new();
        for index in &request.events {
            let event = self.data.event(*index).ok_or_else(missing)?;
            batch = batch.put(keyspace, event.key.to_vec(), event.value.to_vec());
        }
        client.batch_with(batch, options).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_every_event_once_and_batches_of_one_tenant() {
        let data = Data::read(None, "mark").unwrap();
        let all: Vec<u32> = (0..data.events.len() as u32).collect();
        for clients in [1, 3, 7] {
            let plans = plan(&data, &all, clients, &mut Random::new(clients as u64));
            assert_eq!(plans.len(), clients);
            let mut seen: Vec<u32> = Vec::new();
            for request in plans.iter().flatten() {
                assert!(!request.events.is_empty() && request.events.len() as u64 <= BATCH.1);
                let tenants = request.events.iter().map(|i| data.event(*i).unwrap().tenant);
                assert!(tenants.into_iter().all(|tenant| tenant == request.tenant));
                seen.extend(&request.events);
            }
            seen.sort_unstable();
            assert_eq!(seen, all);
            let singles = plans
                .iter()
                .flatten()
                .filter(|request| request.events.len() == 1)
                .count();
            assert!(singles > 5, "{singles} single puts");
        }
    }
}
