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
//! The log is kept whole, so that the state at any point of the past can be rebuilt.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use strongroom::{Engine, Error};

/// Sorted entries of one keyspace.
pub type Entries = BTreeMap<Bytes, Bytes>;
/// Keyspaces of one tenant by name.
pub type Spaces = BTreeMap<String, Entries>;
/// Everything users can read: by tenant's name.
pub type Content = BTreeMap<String, Spaces>;

/// One operation of a batch: keyspace, key, value or deletion.
pub type Op = (String, Bytes, Option<Bytes>);

/// Which tenant, counted from 0 in order of creation, apart from its name.
pub type TenantNumber = usize;

/// A change of the WAL log.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// A batch.
    Batch(TenantNumber, Vec<Op>),
    /// A keyspace came to be.
    Create(TenantNumber, String),
    /// A keyspace went, with its entries.
    Delete(TenantNumber, String),
}

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
type State = BTreeMap<TenantNumber, Spaces>;

/// The model.
#[derive(Clone, Default)]
pub struct Oracle {
    wal: Vec<(Change, Outcome)>,
    keystore: Vec<(TenantChange, Outcome)>,
    /// Fold of `wal[..settled]`, in which every outcome is final.
    base: State,
    settled: usize,
    /// How long the log was at each sync, without repetition.
    syncs: Vec<usize>,
    tenants: usize,
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
                Outcome::Acknowledged => apply(&mut self.base, change),
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
        let mut state = self.base.clone();
        for (change, outcome) in &self.wal[self.settled..] {
            if matches!(outcome, Outcome::Acknowledged | Outcome::Accepted) {
                apply(&mut state, change);
            }
        }
        content(&state, &self.live(|_, outcome| outcome == Outcome::Acknowledged))
    }

    /// Content right after the WAL change of `ticket`, with the tenants that live now.
    pub fn at(&self, ticket: Ticket) -> Content {
        let mut state = State::new();
        for (change, outcome) in &self.wal[..=ticket.0] {
            if matches!(outcome, Outcome::Acknowledged | Outcome::Accepted) {
                apply(&mut state, change);
            }
        }
        content(&state, &self.live(|_, outcome| outcome == Outcome::Acknowledged))
    }

    /// The newest change of the WAL log.
    pub fn last(&self) -> Option<Ticket> {
        self.wal.len().checked_sub(1).map(Ticket)
    }

    /// A number that differs where what is allowed after a crash may differ.
    pub fn stamp(&self) -> u64 {
        let mut stamp = (self.wal.len() as u64) << 32 | self.keystore.len() as u64;
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
            if let Change::Batch(number, ops) = change
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
                if hit.is_none() && content(state, &live) == *found {
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
        for (change, outcome) in &self.wal[..from] {
            if *outcome == Outcome::Acknowledged {
                apply(&mut state, change);
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
            hit |= content(state, &all) == *found || content(state, &fewer) == *found;
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
        let expected = content(&last.unwrap_or_default(), &live);
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
            apply(&mut state, change);
            taken.insert(i);
        }
        let stop = visit(&state, taken);
        taken.split_off(&at);
        stop
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

fn apply(state: &mut State, change: &Change) {
    match change {
        Change::Batch(number, ops) => {
            let spaces = state.entry(*number).or_default();
            for (space, key, value) in ops {
                let entries = spaces.entry(space.clone()).or_default();
                match value {
                    Some(value) => drop(entries.insert(key.clone(), value.clone())),
                    None => drop(entries.remove(key)),
                }
            }
        }
        Change::Create(number, space) => {
            state
                .entry(*number)
                .or_default()
                .entry(space.clone())
                .or_default();
        }
        Change::Delete(number, space) => drop(state.entry(*number).or_default().remove(space)),
    }
}

fn content(state: &State, live: &BTreeMap<TenantNumber, String>) -> Content {
    live.iter()
        .map(|(number, name)| (name.clone(), state.get(number).cloned().unwrap_or_default()))
        .collect()
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

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Batch(number, ops) => {
                write!(f, "batch of tenant {number}:")?;
                ops.iter().take(3).try_for_each(|(space, key, value)| {
                    write!(
                        f,
                        " {space}/{}={:?}",
                        key.escape_ascii(),
                        value.as_ref().map(Bytes::len)
                    )
                })?;
                write!(f, " ({} operations)", ops.len())
            }
            Change::Create(number, space) => write!(f, "create keyspace {space} of tenant {number}"),
            Change::Delete(number, space) => write!(f, "delete keyspace {space} of tenant {number}"),
        }
    }
}

/// Adds the first few differences to `text`.
pub fn difference(expected: &Content, found: &Content, text: &mut String) {
    let mut lines = Vec::new();
    let names: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    for name in names {
        let (Some(e), Some(f)) = (expected.get(name), found.get(name)) else {
            let verb = if found.contains_key(name) {
                "resurrected"
            } else {
                "lost"
            };
            lines.push(format!("{verb} tenant {name}"));
            continue;
        };
        let spaces: BTreeSet<_> = e.keys().chain(f.keys()).collect();
        for space in spaces {
            let (Some(e), Some(f)) = (e.get(space), f.get(space)) else {
                let verb = if f.contains_key(space) {
                    "resurrected"
                } else {
                    "lost"
                };
                lines.push(format!("{verb} keyspace {name}/{space}"));
                continue;
            };
            let keys: BTreeSet<_> = e.keys().chain(f.keys()).collect();
            for key in keys.into_iter().filter(|k| e.get(*k) != f.get(*k)) {
                let len = |v: Option<&Bytes>| v.map(|v| (v.len(), v.slice(..v.len().min(24))));
                lines.push(format!(
                    "{name}/{space}/{}: expected {:?}, found {:?}",
                    key.escape_ascii(),
                    len(e.get(key)),
                    len(f.get(key))
                ));
            }
        }
    }
    let more = lines.len().saturating_sub(8);
    lines.truncate(8);
    lines.iter().for_each(|line| *text += &format!("\n  {line}"));
    if more > 0 {
        *text += &format!("\n  and {more} more");
    }
}

/// All that users can read, by iterating every keyspace of every tenant.
pub fn read_all(engine: &Engine) -> Result<Content, Error> {
    let mut content = Content::new();
    for info in engine.tenants() {
        let tenant = engine.tenant_by_id(info.id)?;
        let mut spaces = Spaces::new();
        for name in tenant.keyspaces()? {
            let entries = tenant
                .open_keyspace(&name)?
                .iter()
                .collect::<Result<Entries, Error>>()?;
            spaces.insert(name, entries);
        }
        content.insert(info.name, spaces);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(space: &str, key: &str, value: &str) -> Op {
        (
            space.into(),
            Bytes::copy_from_slice(key.as_bytes()),
            Some(Bytes::copy_from_slice(value.as_bytes())),
        )
    }

    fn one_tenant() -> Oracle {
        let mut oracle = Oracle::new();
        let ticket = oracle.create_tenant("t");
        oracle.tenant_done(ticket, Outcome::Acknowledged);
        oracle
    }

    fn batch(oracle: &mut Oracle, key: &str, outcome: Outcome) {
        let ticket = oracle.submit(Change::Batch(0, vec![put("s", key, "v"), put("s", "last", key)]));
        oracle.done(ticket, outcome);
    }

    fn holding(keys: &[&str]) -> Content {
        let mut entries: Entries = keys
            .iter()
            .map(|k| (Bytes::copy_from_slice(k.as_bytes()), Bytes::from_static(b"v")))
            .collect();
        if let Some(last) = keys.last() {
            entries.insert(
                Bytes::from_static(b"last"),
                Bytes::copy_from_slice(last.as_bytes()),
            );
        }
        let spaces = if keys.is_empty() {
            Spaces::new()
        } else {
            Spaces::from([("s".into(), entries)])
        };
        Content::from([("t".into(), spaces)])
    }

    #[test]
    fn acknowledged_changes_are_needed_and_later_ones_may_be_missing_from_the_end() {
        let mut oracle = one_tenant();
        batch(&mut oracle, "a", Outcome::Acknowledged);
        batch(&mut oracle, "b", Outcome::Accepted);
        batch(&mut oracle, "c", Outcome::Accepted);
        assert!(oracle.find(&holding(&[])).is_none());
        assert!(oracle.find(&holding(&["a"])).is_some());
        assert!(oracle.find(&holding(&["a", "b"])).is_some());
        assert!(oracle.find(&holding(&["a", "b", "c"])).is_some());
        assert!(oracle.find(&holding(&["a", "c"])).is_none(), "a hole");
        batch(&mut oracle, "d", Outcome::Acknowledged);
        assert!(oracle.find(&holding(&["a", "b", "c"])).is_none());
        assert!(oracle.find(&holding(&["a", "b", "c", "d"])).is_some());
    }

    #[test]
    fn half_a_batch_is_no_state() {
        let mut oracle = one_tenant();
        batch(&mut oracle, "a", Outcome::Submitted);
        let mut half = holding(&["a"]);
        half.get_mut("t")
            .unwrap()
            .get_mut("s")
            .unwrap()
            .remove(&b"last"[..]);
        assert!(oracle.find(&half).is_none());
    }

    #[test]
    fn failed_change_may_be_missing_before_an_acknowledged_one() {
        let mut oracle = one_tenant();
        batch(&mut oracle, "a", Outcome::Failed);
        batch(&mut oracle, "b", Outcome::Acknowledged);
        assert!(oracle.find(&holding(&["a", "b"])).is_some());
        let found = oracle.find(&holding(&["b"])).unwrap();
        assert!(oracle.find(&holding(&["a"])).is_none());
        oracle.accept(&found);
        assert_eq!(oracle.visible(), holding(&["b"]));
        assert!(oracle.find(&holding(&["a", "b"])).is_none());
    }

    #[test]
    fn deleted_tenant_takes_its_content_along_also_when_its_name_returns() {
        let mut oracle = one_tenant();
        batch(&mut oracle, "a", Outcome::Acknowledged);
        let delete = oracle.delete_tenant(0);
        assert!(oracle.find(&holding(&["a"])).is_some());
        assert!(oracle.find(&Content::new()).is_some());
        oracle.tenant_done(delete, Outcome::Acknowledged);
        assert!(oracle.find(&holding(&["a"])).is_none());
        let create = oracle.create_tenant("t");
        oracle.tenant_done(create, Outcome::Acknowledged);
        assert_eq!(oracle.visible(), holding(&[]));
        assert_eq!(oracle.tenant("t"), Some(1));
    }

    #[test]
    fn past_states_can_be_rebuilt() {
        let mut oracle = one_tenant();
        batch(&mut oracle, "a", Outcome::Acknowledged);
        let then = oracle.last().unwrap();
        batch(&mut oracle, "b", Outcome::Acknowledged);
        assert_eq!(oracle.at(then), holding(&["a"]));
        assert_eq!(oracle.visible(), holding(&["a", "b"]));
    }
}
