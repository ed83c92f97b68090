//! What the engine must hold: a model that is told of every change before the engine is, and of its
//! outcome after.
//!
//! There are two logs, because the engine has two: the WAL holds batches and keyspaces in order of
//! commit, the keystore holds tenants, each durable when its call returns. After a crash the engine
//! must hold the fold of
//!
//! 1. every change of the WAL log up to some point R, `acknowledged <= R <= submitted`, whole;
//! 2. every acknowledged change of the keystore log, and any of the unfinished ones;
//! 3. where a call failed, the change or not: but a failed one is never needed by a later one.
//!
//! What a tenant held when it was deleted is gone with it, also when its name is taken again:
//! tenants are counted apart from their names.
//!
//! A value that expires reads as absent from its moment on, by the clock that the oracle shares with the engine; what
//! it overwrote stays overwritten. So does an entry that is past its keyspace's retention. A change counts from when it
//! is submitted: where that matters nothing may take time until it is ordered.
//!
//! The log is kept whole, so that the state at any point of the past can be rebuilt.

mod change;
mod content;
mod space;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use strongroom::io::Clock;
use strongroom::io::sim::SimClock;

pub use self::change::Change;
use self::change::apply;
use self::space::{Kept, Space};
pub use content::{
    Content, Dates, Entries, Moments, SETTINGS, Spaces, difference, let_expire, moments, read_all,
};
pub use space::dated_anew;
pub(crate) use space::ends;
pub use steps::Step;

/// One operation of a batch: keyspace, key, value or deletion.
pub type Op = (String, Bytes, Option<Bytes>);

/// Which tenant, counted from 0 in order of creation, apart from its name.
pub type TenantNumber = usize;

/// A change of the keystore log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TenantChange {
    /// A tenant of this name came to be.
    Create(TenantNumber, String),
    /// A tenant went.
    Delete(TenantNumber),
}

/// How far a change got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The call has not returned.
    Submitted,
    /// Returned Ok without being durable: `Buffered`.
    Accepted,
    /// Returned Ok and durable: must be there for ever.
    Acknowledged,
    /// Returned an error that leaves it open.
    Failed,
    /// Known not to be there: refused, or not found after a crash.
    Absent,
}

/// A change's place in its log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(usize);

/// Everything that may be there, tenants that are deleted included.
type State = BTreeMap<TenantNumber, BTreeMap<String, Space>>;

/// The model.
#[derive(Clone, Default)]
pub struct Oracle {
    wal: Vec<(Change, Outcome)>,
    /// When each of them was submitted.
    times: Vec<u64>,
    keystore: Vec<(TenantChange, Outcome)>,
    /// Fold of `wal[..settled]`, in which every outcome is final.
    base: State,
    settled: usize,
    /// How long the log was at each sync, without repetition.
    syncs: Vec<usize>,
    tenants: usize,
    clock: Arc<SimClock>,
    /// The clock was set back from here, and the engine knows that it has been this time.
    latest: u64,
}

/// What of the open changes was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    wal: BTreeSet<usize>,
    keystore: BTreeSet<usize>,
}

impl Oracle {
    /// An empty database.
    pub fn new() -> Oracle {
        Oracle::default()
    }

    /// What time it is for values that expire.
    pub fn now(&self) -> u64 {
        self.clock.now_ms().max(self.latest)
    }

    /// Goes by this clock from now on.
    pub fn set_clock(&mut self, clock: Arc<SimClock>) {
        self.clock = clock;
    }

    /// The clock is about to be set back, and an engine that is open will not follow.
    pub fn clock_is_set_back(&mut self) {
        self.latest = self.now();
    }

    // ---- telling it ----

    /// A tenant is about to be created.
    pub fn create_tenant(&mut self, name: &str) -> Ticket {
        let number = self.tenants;
        self.tenants += 1;
        self.keystore
            .push((TenantChange::Create(number, name.to_string()), Outcome::Submitted));
        Ticket(self.keystore.len() - 1)
    }

    /// A tenant is about to be deleted.
    pub fn delete_tenant(&mut self, number: TenantNumber) -> Ticket {
        self.keystore
            .push((TenantChange::Delete(number), Outcome::Submitted));
        Ticket(self.keystore.len() - 1)
    }

    /// What became of it.
    pub fn tenant_done(&mut self, ticket: Ticket, outcome: Outcome) {
        self.keystore[ticket.0].1 = outcome;
    }

    /// What became of it, as far as is known.
    pub fn tenant_outcome(&self, ticket: Ticket) -> Outcome {
        self.keystore[ticket.0].1
    }

    /// A change is about to be made; changes are submitted one after the other.
    pub fn submit(&mut self, change: Change) -> Ticket {
        self.times.push(self.now());
        self.wal.push((change, Outcome::Submitted));
        Ticket(self.wal.len() - 1)
    }

    /// What became of it. An acknowledged change acknowledges every accepted one before it.
    pub fn done(&mut self, ticket: Ticket, outcome: Outcome) {
        self.wal[ticket.0].1 = outcome;
        if outcome == Outcome::Acknowledged {
            self.make_durable(ticket.0);
        }
        self.settle();
    }

    /// What became of a change, as far as is known.
    pub fn outcome(&self, ticket: Ticket) -> Outcome {
        self.wal[ticket.0].1
    }

    /// All accepted changes are durable now: a flush or a close returned Ok.
    pub fn synced(&mut self) {
        if let Some(last) = self.wal.len().checked_sub(1) {
            self.make_durable(last);
            self.settle();
        }
    }

    fn make_durable(&mut self, last: usize) {
        if self.syncs.last().is_none_or(|synced| *synced < last + 1) {
            self.syncs.push(last + 1);
        }
        for (_, outcome) in self.wal[self.settled..=last].iter_mut() {
            if *outcome == Outcome::Accepted {
                *outcome = Outcome::Acknowledged;
            }
        }
    }

    fn settle(&mut self) {
        while let Some((change, outcome)) = self.wal.get(self.settled) {
            match outcome {
                Outcome::Acknowledged => apply(&mut self.base, change, self.times[self.settled]),
                Outcome::Absent => {}
                _ => break,
            }
            self.settled += 1;
        }
    }

    // ---- asking it ----

    /// Number of the live tenant of this name.
    pub fn tenant(&self, name: &str) -> Option<TenantNumber> {
        let live = self.live(|_, outcome| outcome == Outcome::Acknowledged);
        live.iter()
            .find(|(_, n)| n.as_str() == name)
            .map(|(number, _)| *number)
    }

    /// Names of live tenants.
    pub fn tenants(&self) -> Vec<String> {
        self.live(|_, outcome| outcome == Outcome::Acknowledged)
            .into_values()
            .collect()
    }

    /// What a reader in the process must see: all that returned Ok.
    pub fn visible(&self) -> Content {
        self.content(
            &self.newest(),
            &self.live(|_, outcome| outcome == Outcome::Acknowledged),
        )
    }

    fn newest(&self) -> State {
        let mut state = self.base.clone();
        for (i, (change, outcome)) in self.wal.iter().enumerate().skip(self.settled) {
            if matches!(outcome, Outcome::Acknowledged | Outcome::Accepted) {
                apply(&mut state, change, self.times[i]);
            }
        }
        state
    }

    /// When what is [`visible`](Oracle::visible) ends.
    pub fn moments(&self) -> Moments {
        moments(&self.dates())
    }

    /// When what is [`visible`](Oracle::visible) expires by itself, was written, and ends.
    pub fn dates(&self) -> Dates {
        let (state, now) = (self.newest(), self.now());
        let mut dates = Dates::new();
        for (number, tenant) in self.live(|_, outcome| outcome == Outcome::Acknowledged) {
            for (name, space) in state.get(&number).into_iter().flatten() {
                for (key, kept) in &space.entries {
                    let ends = space.ends(kept);
                    if ends.is_none_or(|at| at > now) {
                        let place = (tenant.clone(), name.clone(), key.clone());
                        dates.insert(place, (kept.expires, kept.written, ends));
                    }
                }
            }
        }
        dates
    }

    /// Whether a keyspace has a retention or had one.
    pub fn is_dated(&self, tenant: &str, space: &str) -> bool {
        let number = self.tenant(tenant);
        let state = self.newest();
        let spaces = number.and_then(|number| state.get(&number));
        spaces
            .and_then(|spaces| spaces.get(space))
            .is_some_and(|space| space.dated)
    }

    /// Content right after the WAL change of `ticket`, with the tenants that live now.
    pub fn at(&self, ticket: Ticket) -> Content {
        let mut state = State::new();
        for (i, (change, outcome)) in self.wal[..=ticket.0].iter().enumerate() {
            if matches!(outcome, Outcome::Acknowledged | Outcome::Accepted) {
                apply(&mut state, change, self.times[i]);
            }
        }
        self.content(&state, &self.live(|_, outcome| outcome == Outcome::Acknowledged))
    }

    /// The newest change of the WAL log.
    pub fn last(&self) -> Option<Ticket> {
        self.wal.len().checked_sub(1).map(Ticket)
    }

    /// Whether anything may end by time alone.
    pub fn ages(&self) -> bool {
        let ages =
            |(change, _): &(Change, Outcome)| matches!(change, Change::Expiring(..) | Change::Retain(..));
        self.wal.iter().any(ages)
    }

    /// A number that differs where what is allowed after a crash may differ.
    pub fn stamp(&self) -> u64 {
        let mut stamp = (self.wal.len() as u64) << 32 | self.keystore.len() as u64;
        if self.ages() {
            stamp = stamp.wrapping_mul(0x100_0000_01b3) ^ self.now();
        }
        let open = self.wal[self.settled..].iter().map(|(_, o)| *o);
        for outcome in open.chain(self.keystore.iter().map(|(_, o)| *o)) {
            stamp = stamp.wrapping_mul(0x100_0000_01b3) ^ (outcome as u64 + 1);
        }
        stamp
    }

    /// Changes that failed and are still open: each doubles what is allowed.
    pub fn failures(&self) -> usize {
        let wal = self.wal[self.settled..].iter().map(|(_, o)| *o);
        let keystore = self.keystore.iter().map(|(_, o)| *o);
        wal.chain(keystore).filter(|o| *o == Outcome::Failed).count()
    }

    /// Changes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        let wal = self.wal.iter().map(|(_, o)| *o);
        let keystore = self.keystore.iter().map(|(_, o)| *o);
        wal.chain(keystore)
            .filter(|o| *o == Outcome::Acknowledged)
            .count() as u64
    }

    /// Every key ever written to a live tenant: those that are gone must read as absent.
    pub fn keys_ever(&self) -> BTreeSet<(String, String, Bytes)> {
        let live = self.live(|_, outcome| outcome == Outcome::Acknowledged);
        let mut keys = BTreeSet::new();
        for (change, _) in &self.wal {
            if let Change::Steps(number, steps) = change
                && let Some(name) = live.get(number)
            {
                let written = steps.iter().filter_map(Step::key);
                keys.extend(written.map(|(space, key)| (name.clone(), space.clone(), key.clone())));
            }
            if let Change::Batch(number, ops) | Change::Expiring(number, ops, _) = change
                && let Some(name) = live.get(number)
            {
                keys.extend(
                    ops.iter()
                        .map(|(space, key, _)| (name.clone(), space.clone(), key.clone())),
                );
            }
        }
        keys
    }

    /// Which open changes explain `found`, if any do: the check after a crash.
    pub fn find(&self, found: &Content) -> Option<Found> {
        let open: Vec<usize> = (0..self.keystore.len())
            .filter(|i| is_open(self.keystore[*i].1))
            .collect();
        for keystore in subsets(&open) {
            let live = self.live(|i, o| o == Outcome::Acknowledged || keystore.contains(&i));
            let mut hit = None;
            self.each_point(&mut |state, wal| {
                if hit.is_none() && self.content(state, &live) == *found {
                    hit = Some(wal.clone());
                }
                hit.is_some()
            });
            if let Some(wal) = hit {
                return Some(Found { wal, keystore });
            }
        }
        None
    }

    /// Whether `found` is a whole state of the log that lacks at most what the last sync made durable, and
    /// at most the last tenant: what damage to the very end of a log may cost unseen, since it looks like
    /// the end of a write that the power cut.
    pub fn lacks_only_an_end(&self, found: &Content) -> bool {
        let from = self.syncs.iter().rev().nth(1).copied().unwrap_or(0);
        let mut state = State::new();
        for (i, (change, outcome)) in self.wal[..from].iter().enumerate() {
            if *outcome == Outcome::Acknowledged {
                apply(&mut state, change, self.times[i]);
            }
        }
        let all = self.live(|_, o| o == Outcome::Acknowledged);
        let last = self
            .keystore
            .iter()
            .rposition(|(_, o)| *o == Outcome::Acknowledged);
        let fewer = self.live(|i, o| o == Outcome::Acknowledged && Some(i) != last);
        let mut hit = false;
        self.walk(from, from, state, &mut BTreeSet::new(), &mut |state, _| {
            hit |= self.content(state, &all) == *found || self.content(state, &fewer) == *found;
            hit
        });
        hit
    }

    /// Takes what was found for what is: open changes become acknowledged or absent.
    pub fn accept(&mut self, found: &Found) {
        for (i, (_, outcome)) in self.wal.iter_mut().enumerate().skip(self.settled) {
            if *outcome != Outcome::Acknowledged {
                *outcome = if found.wal.contains(&i) {
                    Outcome::Acknowledged
                } else {
                    Outcome::Absent
                };
            }
        }
        for (i, (_, outcome)) in self.keystore.iter_mut().enumerate() {
            if is_open(*outcome) {
                *outcome = if found.keystore.contains(&i) {
                    Outcome::Acknowledged
                } else {
                    Outcome::Absent
                };
            }
        }
        self.settle();
    }

    /// Says in short how `found` differs from the newest allowed state.
    pub fn explain(&self, found: &Content) -> String {
        let mut last = None;
        self.each_point(&mut |state, _| {
            last = Some(state.clone());
            false
        });
        let live = self.live(|_, o| o != Outcome::Absent);
        let expected = self.content(&last.unwrap_or_default(), &live);
        let mut text = format!(
            "{} WAL changes ({} settled), {} of the keystore; against the newest allowed state:",
            self.wal.len(),
            self.settled,
            self.keystore.len()
        );
        difference(&expected, found, &mut text);
        for (i, (change, outcome)) in self.wal.iter().enumerate().skip(self.settled) {
            text += &format!("\n  open: {i} {outcome:?} {change:?}");
        }
        for (i, (change, outcome)) in self.keystore.iter().enumerate().filter(|(_, (_, o))| is_open(*o)) {
            text += &format!("\n  open tenant: {i} {outcome:?} {change:?}");
        }
        text
    }

    /// Visits each allowed state of the WAL log, the oldest first, until told to stop.
    fn each_point(&self, visit: &mut impl FnMut(&State, &BTreeSet<usize>) -> bool) {
        let must = self
            .wal
            .iter()
            .rposition(|(_, o)| *o == Outcome::Acknowledged)
            .map_or(0, |i| i + 1);
        self.walk(self.settled, must, self.base.clone(), &mut BTreeSet::new(), visit);
    }

    fn walk(
        &self,
        at: usize,
        must: usize,
        mut state: State,
        taken: &mut BTreeSet<usize>,
        visit: &mut impl FnMut(&State, &BTreeSet<usize>) -> bool,
    ) -> bool {
        for i in at..self.wal.len() {
            // The WAL may end before any change that is not acknowledged.
            if i >= must && visit(&state, taken) {
                return true;
            }
            let (change, outcome) = &self.wal[i];
            match outcome {
                Outcome::Absent => continue,
                Outcome::Failed if self.walk(i + 1, must, state.clone(), taken, visit) => return true,
                _ => {}
            }
            apply(&mut state, change, self.times[i]);
            taken.insert(i);
        }
        let stop = visit(&state, taken);
        taken.split_off(&at);
        stop
    }

    fn content(&self, state: &State, live: &BTreeMap<TenantNumber, String>) -> Content {
        let now = self.now();
        let shown = |space: &Space| -> Entries {
            let there = |kept: &Kept| space.ends(kept).is_none_or(|at| at > now);
            let shown = space.entries.iter().filter(|(_, kept)| there(kept));
            shown
                .map(|(key, kept)| (key.clone(), kept.value.clone()))
                .collect()
        };
        let spaces = |number| -> Spaces {
            let spaces = || state.get(number).into_iter().flatten();
            let settings: Entries = spaces().flat_map(|(name, space)| space.settings(name)).collect();
            let mut all: Spaces = spaces()
                .map(|(name, space)| (name.clone(), shown(space)))
                .collect();
            if !settings.is_empty() {
                all.entry(SETTINGS.to_string()).or_default().extend(settings);
            }
            all
        };
        live.iter()
            .map(|(number, name)| (name.clone(), spaces(number)))
            .collect()
    }

    fn live(&self, counts: impl Fn(usize, Outcome) -> bool) -> BTreeMap<TenantNumber, String> {
        let mut live = BTreeMap::new();
        for (i, (change, outcome)) in self.keystore.iter().enumerate() {
            if counts(i, *outcome) {
                match change {
                    TenantChange::Create(number, name) => drop(live.insert(*number, name.clone())),
                    TenantChange::Delete(number) => drop(live.remove(number)),
                }
            }
        }
        live
    }
}

fn is_open(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Submitted | Outcome::Accepted | Outcome::Failed)
}

/// All subsets of a few things.
fn subsets(of: &[usize]) -> Vec<BTreeSet<usize>> {
    assert!(of.len() <= 8, "too many unfinished calls to try all combinations");
    (0..1u32 << of.len())
        .map(|bits| {
            of.iter()
                .enumerate()
                .filter(|(i, _)| bits >> i & 1 == 1)
                .map(|(_, x)| *x)
                .collect()
        })
        .collect()
}
