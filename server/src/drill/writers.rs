//! Several clients that write at once, and what becomes of every write.
//!
//! A unit is what one call carries: a single put, or a batch of events of one tenant. Units are taken in
//! the order of the data by whichever client is free.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use strongroom_client::proto::kv::Durability;
use strongroom_client::{Batch, Client, Kind, WriteOptions};
use tokio::sync::Notify;

use super::data::Data;
use super::model::{Fate, Model};

/// Events in a batch.
const BATCH_EVENTS: usize = 32;
/// One unit in so many is written one event at a time.
const SINGLE_EVERY: usize = 16;

/// The events of one call.
pub struct Unit {
    /// Index of the tenant.
    pub tenant: usize,
    /// Indices of the events.
    pub events: Vec<u32>,
}

/// Cuts the data into units, in order of their first event.
pub fn units(data: &Data) -> Vec<Unit> {
    let mut open: HashMap<usize, Vec<u32>> = HashMap::new();
    let mut units = Vec::new();
    for (index, event) in data.events.iter().enumerate() {
        let events = open.entry(event.tenant).or_default();
        events.push(index as u32);
        if events.len() == BATCH_EVENTS {
            units.push(Unit {
                tenant: event.tenant,
                events: std::mem::take(events),
            });
        }
    }
    let rest = open.into_iter().filter(|(_, events)| !events.is_empty());
    units.extend(rest.map(|(tenant, events)| Unit { tenant, events }));
    units.sort_by_key(|unit| unit.events.first().copied());
    let split = |(n, unit): (usize, Unit)| -> Vec<Unit> {
        if n % SINGLE_EVERY != 0 {
            return vec![unit];
        }
        unit.events
            .iter()
            .map(|index| Unit {
                tenant: unit.tenant,
                events: vec![*index],
            })
            .collect()
    };
    units.into_iter().enumerate().flat_map(split).collect()
}

/// What all writers share.
pub struct Round {
    /// The data.
    pub data: Arc<Data>,
    /// What became of it.
    pub model: Arc<Model>,
    /// All units.
    pub units: Arc<Vec<Unit>>,
    /// Indices of the units to write.
    pub todo: Vec<usize>,
    /// A connection for each tenant.
    pub clients: Vec<Client>,
    /// How durable.
    pub durability: Durability,
    /// Events acknowledged in this round.
    pub acknowledged: AtomicU64,
    /// Told at every acknowledgement.
    pub progress: Notify,
    next: AtomicUsize,
}

impl Round {
    /// A round over `todo`.
    pub fn new(
        data: &Arc<Data>,
        model: &Arc<Model>,
        units: &Arc<Vec<Unit>>,
        todo: Vec<usize>,
        clients: Vec<Client>,
        durability: Durability,
    ) -> Round {
        Round {
            data: data.clone(),
            model: model.clone(),
            units: units.clone(),
            todo,
            clients,
            durability,
            acknowledged: AtomicU64::new(0),
            progress: Notify::new(),
            next: AtomicUsize::new(0),
        }
    }

    /// One client: writes units until none is left or the node fails it. Why it stopped early, if so.
    pub async fn write(&self) -> Option<strongroom_client::ClientError> {
        loop {
            let taken = self.next.fetch_add(1, Ordering::Relaxed);
            let unit = self.todo.get(taken).and_then(|unit| self.units.get(*unit))?;
            if let Err(error) = self.send(unit).await {
                // Anything may have happened to what was under way, unless the answer says otherwise.
                let fate = match error.kind() {
                    Kind::NotPrimary | Kind::Fenced | Kind::Unauthenticated | Kind::NoSpace => Fate::Pending,
                    _ => Fate::Unknown,
                };
                self.mark(unit, fate);
                self.progress.notify_waiters();
                return Some(error);
            }
            self.mark(unit, Fate::Acknowledged);
            self.acknowledged
                .fetch_add(unit.events.len() as u64, Ordering::Relaxed);
            self.progress.notify_waiters();
        }
    }

    fn mark(&self, unit: &Unit, fate: Fate) {
        unit.events.iter().for_each(|index| self.model.set(*index, fate));
    }

    async fn send(&self, unit: &Unit) -> strongroom_client::Result<()> {
        let missing =
            || strongroom_client::ClientError::new(Kind::Invalid, "a unit without its tenant or event");
        let client = self.clients.get(unit.tenant).ok_or_else(missing)?;
        let options = WriteOptions::new().durability(self.durability);
        let keyspace = &self.data.keyspace;
        if let [index] = unit.events[..] {
            let event = self.data.event(index).ok_or_else(missing)?;
            client
                .put_with(keyspace, event.key.to_vec(), event.value.to_vec(), options)
                .await?;
            return Ok(());
        }
        let mut batch = Batch::new();
        for index in &unit.events {
            let event = self.data.event(*index).ok_or_else(missing)?;
            batch = batch.put(keyspace, event.key.to_vec(), event.value.to_vec());
        }
        client.batch_with(batch, options).await?;
        Ok(())
    }
}
