//! What clients of the simulated pair do: write, read, create and delete tenants, hear of outcomes.

use strongroom::{Batch, Durability, Engine, Epoch, ErrorKind, Keyspace, Tenant, TenantOptions};

use super::ledger::{Key, Outcome, Pending, What, id_of, key_bytes, tenant_name, value_bytes};
use super::net::NodeId;
use super::node::{Checked, name_of};
use super::world::World;
use crate::canary;

/// Tenants at most.
const TENANTS_MAX: u64 = 5;
/// Keys of a tenant.
pub(super) const KEYS: u64 = 5;
/// When clients of a `Replicated` write give up.
const CLIENT_PATIENCE: u64 = 900;

impl World {
    /// Nodes that take writes, the newest reign last.
    pub(super) fn serving(&self) -> Vec<NodeId> {
        let mut serving: Vec<(Epoch, NodeId)> = self
            .nodes
            .iter()
            .filter(|node| !node.paused)
            .filter_map(|node| Some((node.serving()?.status().epoch, node.id)))
            .collect();
        serving.sort();
        serving.into_iter().map(|(_, id)| id).collect()
    }

    pub(super) fn client(&mut self) -> Checked {
        let serving = self.serving();
        let Some(newest) = serving.last() else {
            return Ok(());
        };
        let node = if self.dice.clients.percent(80) {
            *newest
        } else {
            *self.dice.clients.pick(&serving)
        };
        let Some(engine) = self.nodes[node].serving().cloned() else {
            return Ok(());
        };
        // Where messages are exchanged the changes of keys are what counts.
        let mortal = if self.nature.hostile { 12 } else { 35 };
        if self.dice.mortals.percent(mortal) {
            return self.mortal_client(node, &engine);
        }
        match self.dice.clients.below(100) {
            0..55 => self.put(node, &engine),
            55..75 => self.read(node, &engine),
            75..83 => self.create_tenant(node, &engine),
            83..85 => self.delete_tenant(node, &engine),
            85..88 => {
                let flushed = engine.flush();
                flushed.or_else(|e| self.nodes[node].allow("a flush", &e))
            }
            88..89 => {
                let compacted = engine.compact();
                compacted.or_else(|e| self.nodes[node].allow("a compaction", &e))
            }
            // Key changes on the heels of each other, so that there are some to exchange.
            89..99 if self.nature.hostile => {
                self.create_tenant(node, &engine)?;
                self.delete_tenant(node, &engine)?;
                self.create_tenant(node, &engine)
            }
            _ => {
                let any = self.dice.clients.below(self.nodes.len() as u64) as usize;
                self.content(any)
            }
        }
    }

    pub(super) fn key(&mut self) -> Option<Key> {
        let live: Vec<u64> = (0..self.ctx.ledger.tenants)
            .filter(|t| !self.ctx.ledger.deleted.contains(t))
            .collect();
        if live.is_empty() {
            return None;
        }
        Some((*self.dice.clients.pick(&live), self.dice.clients.below(KEYS)))
    }

    pub(super) fn put(&mut self, node: NodeId, engine: &Engine) -> Checked {
        let Some(key) = self.key() else {
            return self.create_tenant(node, engine);
        };
        let replicated = self.nature.strict || self.dice.clients.percent(70);
        let len = if self.dice.clients.percent(12) { 2500 } else { 60 };
        let len = self.dice.clients.below(len) as usize;
        self.write(node, engine, key, replicated, len)
    }

    /// A client's write.
    pub fn write(
        &mut self,
        node: NodeId,
        engine: &Engine,
        key: Key,
        replicated: bool,
        len: usize,
    ) -> Checked {
        let Ok(tenant) = engine.tenant(&tenant_name(key.0)) else {
            return Ok(());
        };
        let Some(space) = self.space(node, engine, &tenant, canary::KEYSPACE)? else {
            return Ok(());
        };
        let write = self
            .ctx
            .ledger
            .invoke(key, What::Register, engine.status().epoch, replicated);
        let value = value_bytes(self.ctx.ledger.writes[write].id, len);
        let batch = tenant.batch().put(&space, key_bytes(key.1), value);
        self.commit(node, &tenant, write, (batch, true))
    }

    /// A keyspace, made if need be and if that may be now.
    pub(super) fn space(
        &mut self,
        node: NodeId,
        engine: &Engine,
        tenant: &Tenant,
        name: &str,
    ) -> Checked<Option<Keyspace>> {
        match tenant.open_keyspace(name) {
            Ok(space) => return Ok(Some(space)),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return self.nodes[node].allow("opening a keyspace", &e).map(|()| None),
        }
        if self.shows_unconfirmed(engine) {
            return Ok(None);
        }
        match tenant.keyspace(name) {
            Ok(space) => Ok(Some(space)),
            Err(e) if matches!(e.kind(), ErrorKind::Fenced | ErrorKind::QuotaExceeded) => Ok(None),
            Err(e) => self.nodes[node].allow("creating a keyspace", &e).map(|()| None),
        }
    }

    /// Whether a commit that is weaker than `Replicated` must not be now: it shows earlier ones that wait, for clients
    /// that gave up too (decision 0005).
    pub(super) fn shows_unconfirmed(&self, engine: &Engine) -> bool {
        let status = engine.status();
        self.nature.strict && self.ctx.ledger.unconfirmed(status.epoch, status.replicated)
    }

    /// Commits a client's write; `adds`: whether a quota counts for it.
    pub(super) fn commit(
        &mut self,
        node: NodeId,
        tenant: &Tenant,
        write: usize,
        (batch, adds): (Batch, bool),
    ) -> Checked {
        let replicated = self.ctx.ledger.writes[write].replicated;
        let durability = if replicated {
            Durability::Replicated
        } else {
            Durability::Local
        };
        // With level 0 at its stop the commit compacts first, and gives the tenant room.
        let level0 = self.nodes[node]
            .serving()
            .map(|engine| engine.stats().levels[0].tables);
        let compacts =
            level0.is_some_and(|tables| tables >= self.nodes[node].options.level0_tables_stop as u64);
        let full = || -> strongroom::Result<bool> {
            let has = tenant.usage()?.bytes();
            Ok(adds && tenant.quota()?.is_some_and(|quota| has >= quota))
        };
        let full = match full() {
            Ok(full) => full,
            Err(e) => return self.refused(node, write, &e),
        };
        match batch.durability(durability).submit() {
            Ok(ticket) => {
                let at = ticket.position();
                self.ctx.ledger.writes[write].at = Some(at);
                self.ctx
                    .note(format!("{} writes at {} of {}", name_of(node), at.lsn, at.epoch));
                if full && !compacts {
                    return Err(format!(
                        "{} accepts a write above the tenant's quota",
                        name_of(node)
                    ));
                }
                if replicated {
                    let until = self.now.as_millis() as u64 + CLIENT_PATIENCE;
                    self.ctx.ledger.pending.push(Pending {
                        node,
                        write,
                        ticket,
                        until,
                    });
                    return Ok(());
                }
                self.ctx.ledger.ended(write, Outcome::Ok)
            }
            Err(e) if e.kind() == ErrorKind::QuotaExceeded && full => {
                self.ctx.counters.add("writes refused for a quota", 1);
                self.ctx.ledger.ended(write, Outcome::Refused)
            }
            Err(e) => self.refused(node, write, &e),
        }
    }

    /// A write failed.
    pub(super) fn refused(&mut self, node: NodeId, write: usize, e: &strongroom::Error) -> Checked {
        let outcome = match e.kind() {
            ErrorKind::Unknown | ErrorKind::Io | ErrorKind::Corruption => Outcome::Unknown,
            _ => Outcome::Refused,
        };
        self.ctx.ledger.ended(write, outcome)?;
        if e.kind() == ErrorKind::Fenced {
            return Ok(());
        }
        self.nodes[node].allow("a write", e)
    }

    /// Hears of commits.
    pub(super) fn poll(&mut self) -> Checked {
        let now = self.now.as_millis() as u64;
        for pending in std::mem::take(&mut self.ctx.ledger.pending) {
            let outcome = match pending.ticket.poll() {
                Some(Ok(_)) => Outcome::Ok,
                Some(Err(_)) => Outcome::Unknown,
                None if now >= pending.until => Outcome::Unknown,
                None => {
                    self.ctx.ledger.pending.push(pending);
                    continue;
                }
            };
            self.ctx.note(format!("write {} is {outcome:?}", pending.write));
            self.ctx.ledger.ended(pending.write, outcome)?;
        }
        Ok(())
    }

    pub(super) fn read(&mut self, node: NodeId, engine: &Engine) -> Checked {
        let Some(key) = self.key() else { return Ok(()) };
        let status = engine.status();
        let start = engine.epoch_history().last().map(|e| e.start).unwrap_or_default();
        let id = match get(engine, key) {
            Ok(id) => id,
            Err(e) => return self.nodes[node].allow("a read", &e),
        };
        // Reads of an older reign may be stale, and a reopened primary shows what nobody confirmed yet.
        let newest = status.epoch == self.ctx.ledger.newest() && status.fenced_by.is_none();
        if newest && self.nature.strict && status.replicated >= start && status.replicated.0 > 0 {
            self.ctx.ledger.read(key, id);
        }
        Ok(())
    }

    /// A client creates a tenant, with keys of its own.
    pub fn create_tenant(&mut self, node: NodeId, engine: &Engine) -> Checked {
        if self.ctx.ledger.tenants - self.ctx.ledger.deleted.len() as u64 >= TENANTS_MAX {
            return Ok(());
        }
        let tenant = self.ctx.ledger.tenants;
        self.ctx.ledger.tenants += 1;
        match engine.create_tenant(&tenant_name(tenant), TenantOptions::default()) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == ErrorKind::Fenced => Ok(()),
            Err(e) => self.nodes[node].allow("creating a tenant", &e),
        }
    }

    pub(super) fn delete_tenant(&mut self, node: NodeId, engine: &Engine) -> Checked {
        let Some((tenant, _)) = self.key() else {
            return Ok(());
        };
        self.ctx.ledger.deleted.insert(tenant);
        match engine.delete_tenant(&tenant_name(tenant)) {
            Ok(_) => Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Fenced) => Ok(()),
            Err(e) => self.nodes[node].allow("deleting a tenant", &e),
        }
    }
}

fn get(engine: &Engine, key: Key) -> Result<Option<u64>, strongroom::Error> {
    let none = |e: strongroom::Error| match e.kind() {
        ErrorKind::NotFound => Ok(None),
        _ => Err(e),
    };
    let tenant = match engine.tenant(&tenant_name(key.0)) {
        Ok(tenant) => tenant,
        Err(e) => return none(e),
    };
    match tenant.open_keyspace(canary::KEYSPACE) {
        Ok(space) => Ok(space.get(key_bytes(key.1))?.and_then(|value| id_of(&value))),
        Err(e) => none(e),
    }
}
