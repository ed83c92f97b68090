//! Reads against the model: gets, ranges from either end, snapshots.
//!
//! While calls that failed are open, one answer cannot be told from the model; then single reads only
//! must not fail, and [`Run::check`] compares everything with every allowed state.

use std::ops::Bound;

use bytes::Bytes;
use strongroom::{Error, Keyspace, Snapshot};

use super::generate::KEYS;
use super::run::{Done, Run, Wrong};
use crate::dice::Dice;
use crate::oracle::{Content, Dates, Entries, SETTINGS, Spaces, let_expire, moments, read_all};
use crate::world::{key_of, name_of_space, name_of_tenant};

/// Snapshots held at a time.
const HELD_MAX: usize = 4;

/// A snapshot and what it must go on showing.
pub struct Held {
    /// Of which tenant.
    pub tenant: String,
    /// Its keyspaces.
    pub content: Spaces,
    /// When what is in them ends.
    pub dates: Dates,
    snapshot: Snapshot,
}

impl Run {
    fn certain_reads(&self) -> bool {
        self.world.known().oracle.failures() == 0
    }

    /// What a keyspace must hold, if it exists for certain.
    pub(super) fn entries(&self, tenant: &str, space: &str) -> Option<Entries> {
        match self.certain_reads() && self.certain(tenant) {
            true => self.world.visible().remove(tenant)?.remove(space),
            false => None,
        }
    }

    pub(super) fn handle(&self, tenant: &str, space: &str) -> Result<Keyspace, Error> {
        self.world.engine().tenant(tenant)?.open_keyspace(space)
    }

    /// Gets one key.
    pub fn get(&mut self, tenant: u64, space: u64, key: u64) -> Done {
        let (tenant, space) = (name_of_tenant(tenant), name_of_space(&space.to_string()));
        let Some(entries) = self.entries(&tenant, &space) else {
            return Ok(());
        };
        let key = key_of(key);
        let found = self.handle(&tenant, &space)?.get(&key)?;
        self.trace
            .number(found.as_ref().map_or(0, |v| v.len() as u64 + 1));
        match found.as_ref() == entries.get(&key) {
            true => Ok(()),
            false => Err(Wrong::Failure("get gives something else".into())),
        }
    }

    /// Gets many keys at once, of now and of a snapshot.
    pub fn multi_get(&mut self, tenant: u64, space: u64, seed: u64) -> Done {
        let (tenant, space) = (name_of_tenant(tenant), name_of_space(&space.to_string()));
        let Some(entries) = self.entries(&tenant, &space) else {
            return Ok(());
        };
        let mut dice = Dice::new(seed);
        let keys: Vec<Bytes> = (0..dice.below(12))
            .map(|_| key_of(dice.below(KEYS + 2)))
            .collect();
        let expected: Vec<Option<Bytes>> = keys.iter().map(|key| entries.get(key).cloned()).collect();
        let handle = self.handle(&tenant, &space)?;
        if handle.multi_get(&keys)? != expected {
            return Err(Wrong::Failure("many gets at once give something else".into()));
        }
        self.let_held_expire();
        let Some(held) = self.held.iter().find(|held| held.tenant == tenant) else {
            return Ok(());
        };
        let Some(entries) = held.content.get(&space) else {
            return Ok(());
        };
        let expected: Vec<Option<Bytes>> = keys.iter().map(|key| entries.get(key).cloned()).collect();
        match held.snapshot.multi_get(&handle, &keys)? == expected {
            true => Ok(()),
            false => Err(Wrong::Failure("many gets of a snapshot have changed".into())),
        }
    }

    /// Reads a range: forwards, backwards, or from both ends until they meet.
    pub fn range(&mut self, tenant: u64, space: u64, seed: u64) -> Done {
        let (tenant, space) = (name_of_tenant(tenant), name_of_space(&space.to_string()));
        let Some(entries) = self.entries(&tenant, &space) else {
            return Ok(());
        };
        let mut dice = Dice::new(seed);
        let (a, b) = (dice.below(KEYS), dice.below(KEYS));
        let mut bound = |key| match dice.below(3) {
            0 => Bound::Unbounded,
            1 => Bound::Included(key_of(key)),
            _ => Bound::Excluded(key_of(key)),
        };
        let range = (bound(a.min(b)), bound(a.max(b)));
        if a == b && matches!(range, (Bound::Excluded(_), Bound::Excluded(_))) {
            return Ok(()); // no range, to the model either
        }
        let mut expected = entries.range::<Bytes, _>((range.0.as_ref(), range.1.as_ref()));
        let mut found = self.handle(&tenant, &space)?.range(range.clone());
        let front_percent = *dice.pick(&[0, 50, 100]);
        let most = dice.below(2 * KEYS);
        for _ in 0..most {
            let (front, lent) = (dice.percent(front_percent), dice.percent(50));
            let expected = match front {
                true => expected.next(),
                false => expected.next_back(),
            };
            let same = match (front, lent) {
                (true, true) => is(found.next_ref().transpose()?, expected),
                (false, true) => is(found.next_back_ref().transpose()?, expected),
                (true, false) => found.next().transpose()?.as_ref().map(|(k, v)| (k, v)) == expected,
                (false, false) => found.next_back().transpose()?.as_ref().map(|(k, v)| (k, v)) == expected,
            };
            if !same {
                return Err(Wrong::Failure("a range gives something else".into()));
            }
            if expected.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Takes a snapshot.
    pub fn snapshot(&mut self, tenant: u64) -> Done {
        let tenant = name_of_tenant(tenant);
        if !self.certain(&tenant) || !self.certain_reads() || self.held.len() >= HELD_MAX {
            return Ok(());
        }
        let snapshot = self.world.engine().tenant(&tenant)?.snapshot();
        let mut content = self.world.visible().remove(&tenant).unwrap_or_default();
        // No snapshot has settings of its own.
        content.remove(SETTINGS);
        let dates = self.world.known().oracle.dates();
        self.held.push(Held {
            tenant,
            content,
            dates,
            snapshot,
        });
        Ok(())
    }

    /// What snapshots must no longer show.
    pub(super) fn let_held_expire(&mut self) {
        let now = self.world.known().oracle.now();
        for held in &mut self.held {
            let mut content = Content::from([(held.tenant.clone(), std::mem::take(&mut held.content))]);
            let_expire(&mut content, &moments(&held.dates), now);
            held.content = content.remove(&held.tenant).unwrap_or_default();
        }
    }

    /// Reads a snapshot in full, both ways and key by key.
    pub fn read_snapshot(&mut self, which: u64) -> Done {
        if self.held.is_empty() {
            return Ok(());
        }
        self.let_held_expire();
        let held = &self.held[which as usize % self.held.len()];
        for (name, entries) in &held.content {
            let space = self.handle(&held.tenant, name)?;
            let found: Entries = held
                .snapshot
                .range::<&[u8]>(&space, ..)
                .collect::<Result<_, _>>()?;
            if found != *entries {
                return Err(Wrong::Failure("a snapshot's range has changed".into()));
            }
            let back = held.snapshot.range::<&[u8]>(&space, ..).rev();
            let back: Vec<_> = back.collect::<Result<_, _>>()?;
            let expected = entries.iter().rev().map(|(k, v)| (k.clone(), v.clone()));
            if !back.into_iter().eq(expected) {
                return Err(Wrong::Failure("a snapshot's range backwards has changed".into()));
            }
            for key in (0..KEYS).map(key_of) {
                if held.snapshot.get(&space, &key)?.as_ref() != entries.get(&key) {
                    return Err(Wrong::Failure("a snapshot's get has changed".into()));
                }
            }
        }
        Ok(())
    }

    /// Reads everything and compares it with what is allowed.
    pub fn check(&mut self) -> Done {
        if self.certain_reads() {
            let expected = self.world.visible();
            let found = read_all(self.world.engine())?;
            return match found == expected {
                true => Ok(()),
                false => {
                    let mut text = "reads other than it must:".to_string();
                    crate::oracle::difference(&expected, &found, &mut text);
                    Err(Wrong::Failure(text))
                }
            };
        }
        let found = read_all(self.world.engine())?;
        let known = self.world.known();
        match known.oracle.find(&found) {
            Some(_) => Ok(()),
            None => Err(Wrong::Failure(format!(
                "reads no allowed state: {}",
                known.oracle.explain(&found)
            ))),
        }
    }
}

/// Whether a lent entry is the one expected.
fn is(found: Option<(&[u8], &[u8])>, expected: Option<(&Bytes, &Bytes)>) -> bool {
    found == expected.map(|(key, value)| (&key[..], &value[..]))
}
