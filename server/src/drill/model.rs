//! What must be in the database: every event and what became of its write.
//!
//! ```text
//! pending ──► acknowledged                  must be there, with its value
//!    └──────► unknown ──► acknowledged      may or may not be there; a batch is there whole or not at all
//! ```
//!
//! A tenant's entries arrive in key order and are walked against its events in the same order: one
//! pass, no second copy of the data.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU8, Ordering};

use super::data::Data;

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Fate {
    /// Not sent yet.
    Pending = 0,
    /// The server said it is done.
    Acknowledged = 1,
    /// Sent, and no answer came.
    Unknown = 2,
}

/// The fate of every event. Shared by all clients.
pub struct Model {
    fates: Vec<AtomicU8>,
}

impl Model {
    /// All pending.
    pub fn new(events: usize) -> Model {
        Model {
            fates: (0..events).map(|_| AtomicU8::new(Fate::Pending as u8)).collect(),
        }
    }

    /// Records what became of one write.
    pub fn set(&self, index: u32, fate: Fate) {
        if let Some(slot) = self.fates.get(index as usize) {
            slot.store(fate as u8, Ordering::Release);
        }
    }

    /// What became of one write.
    pub fn fate(&self, index: u32) -> Fate {
        match self
            .fates
            .get(index as usize)
            .map(|slot| slot.load(Ordering::Acquire))
        {
            Some(1) => Fate::Acknowledged,
            Some(2) => Fate::Unknown,
            _ => Fate::Pending,
        }
    }

    /// Events with this fate.
    pub fn count(&self, fate: Fate) -> u64 {
        (0..self.fates.len() as u32)
            .filter(|index| self.fate(*index) == fate)
            .count() as u64
    }
}

/// What a comparison found. Equal means: nothing lost, different or foreign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Entries read.
    pub entries: u64,
    /// Acknowledged writes looked for.
    pub acknowledged: u64,
    /// Acknowledged writes that are missing.
    pub lost: u64,
    /// Entries whose value is not what was written.
    pub different: u64,
    /// Entries nobody wrote, or that came out of order.
    pub foreign: u64,
    /// Unknown writes that are there, by event index.
    pub unknown_there: HashSet<u32>,
}

impl Found {
    /// Adds what was found in another tenant.
    pub fn add(&mut self, other: Found) {
        self.entries += other.entries;
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.different += other.different;
        self.foreign += other.foreign;
        self.unknown_there.extend(other.unknown_there);
    }

    /// Whether all is as it must be.
    pub fn equal(&self) -> bool {
        self.lost == 0 && self.different == 0 && self.foreign == 0
    }

    /// Batches of unknown fate of which a part is there and a part is not.
    pub fn torn(&self, batches: &[Vec<u32>]) -> u64 {
        let torn = |batch: &&Vec<u32>| {
            let there = batch
                .iter()
                .filter(|index| self.unknown_there.contains(index))
                .count();
            there != 0 && there != batch.len()
        };
        batches.iter().filter(torn).count() as u64
    }
}

/// Walks one tenant's entries, in key order, against the model.
pub struct Walk<'a> {
    data: &'a Data,
    model: &'a Model,
    expected: std::iter::Peekable<std::slice::Iter<'a, u32>>,
    found: Found,
}

impl<'a> Walk<'a> {
    /// Begins at the tenant's first key. An unknown tenant index expects nothing.
    pub fn new(data: &'a Data, model: &'a Model, tenant: usize) -> Walk<'a> {
        let by_key = data.tenants.get(tenant).map_or(&[][..], |tenant| &tenant.by_key);
        Walk {
            data,
            model,
            expected: by_key.iter().peekable(),
            found: Found::default(),
        }
    }

    /// The next entry read.
    pub fn entry(&mut self, key: &[u8], value: &[u8]) {
        self.found.entries += 1;
        while let Some(index) = self.expected.peek().copied() {
            let Some(event) = self.data.event(*index) else {
                break;
            };
            match (*event.key).cmp(key) {
                std::cmp::Ordering::Less => self.absent(*index),
                std::cmp::Ordering::Equal => {
                    self.present(*index, *event.value == *value);
                    self.expected.next();
                    return;
                }
                std::cmp::Ordering::Greater => break,
            }
            self.expected.next();
        }
        self.found.foreign += 1;
    }

    /// No entry is left.
    pub fn end(mut self) -> Found {
        while let Some(index) = self.expected.next() {
            self.absent(*index);
        }
        self.found
    }

    fn absent(&mut self, index: u32) {
        if self.model.fate(index) == Fate::Acknowledged {
            self.found.acknowledged += 1;
            self.found.lost += 1;
        }
    }

    fn present(&mut self, index: u32, same: bool) {
        match self.model.fate(index) {
            Fate::Acknowledged => self.found.acknowledged += 1,
            Fate::Unknown => {
                self.found.unknown_there.insert(index);
            }
            Fate::Pending => self.found.foreign += 1,
        }
        if !same {
            self.found.different += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::data::{Event, Tenant};

    fn data(keys: &[&str]) -> Data {
        let event = |key: &&str| Event {
            tenant: 0,
            key: key.as_bytes().into(),
            value: b"v".as_slice().into(),
        };
        Data {
            events: keys.iter().map(event).collect(),
            tenants: vec![Tenant {
                name: "t".into(),
                by_key: (0..keys.len() as u32).collect(),
            }],
            keyspace: "k".into(),
            origin: "test".into(),
        }
    }

    fn walk(data: &Data, model: &Model, entries: &[(&str, &str)]) -> Found {
        let mut walk = Walk::new(data, model, 0);
        for (key, value) in entries {
            walk.entry(key.as_bytes(), value.as_bytes());
        }
        walk.end()
    }

    #[test]
    fn what_was_acknowledged_must_be_there_and_equal() {
        let data = data(&["a", "b", "c", "d"]);
        let model = Model::new(4);
        for index in 0..3 {
            model.set(index, Fate::Acknowledged);
        }
        assert!(walk(&data, &model, &[("a", "v"), ("b", "v"), ("c", "v")]).equal());
        let found = walk(&data, &model, &[("b", "v")]);
        assert_eq!((found.lost, found.acknowledged, found.entries), (2, 3, 1));
        let found = walk(&data, &model, &[("a", "v"), ("b", "other"), ("c", "v")]);
        assert_eq!((found.lost, found.different), (0, 1));
        assert!(!found.equal());
    }

    #[test]
    fn what_nobody_wrote_is_foreign() {
        let data = data(&["b", "c"]);
        let model = Model::new(2);
        model.set(0, Fate::Acknowledged);
        for entries in [
            &[("a", "v"), ("b", "v")][..],
            &[("b", "v"), ("bb", "v")],
            &[("b", "v"), ("c", "v")],
            &[("b", "v"), ("z", "v")],
            &[("b", "v"), ("b", "v")],
        ] {
            let found = walk(&data, &model, entries);
            assert_eq!((found.foreign, found.lost), (1, 0), "{entries:?}");
        }
        assert_eq!(walk(&data, &model, &[("a", "v")]).lost, 1);
    }

    #[test]
    fn unknown_batches_are_there_whole_or_not_at_all() {
        let data = data(&["a", "b", "c", "d"]);
        let model = Model::new(4);
        for index in 0..4 {
            model.set(index, Fate::Unknown);
        }
        let batches = vec![vec![0, 1], vec![2, 3]];
        let found = walk(&data, &model, &[("a", "v"), ("b", "v")]);
        assert!(found.equal());
        assert_eq!(found.torn(&batches), 0);
        let found = walk(&data, &model, &[("a", "v"), ("c", "v"), ("d", "v")]);
        assert!(found.equal());
        assert_eq!(found.torn(&batches), 1);
    }
}
