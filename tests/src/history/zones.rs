//! The quick decision, in O(n log n) (Gibbons and Korach, "Testing shared memories", 1997).
//!
//! Since values are unique, all operations of one value, its put and its gets, stand together in any
//! order that could have been: they are a cluster. A cluster has two ticks: `settled`, the first return
//! of any of its operations (by then the value had been there), and `asked`, the last invocation (at or
//! after it the value was there still). Cluster A must come before cluster B exactly if some operation
//! of A returned before some operation of B was invoked: `A.settled < B.asked`.
//!
//! An order exists if and only if no two clusters must each come before the other. Longer circles need no
//! search: in a circle, the cluster that settled first must come before every one of it, also before the
//! one it must come after.
//!
//! The absence of a value is a cluster that was settled before everything. An unknown put that nobody
//! saw is left out: it may never have taken effect.

use std::collections::{HashMap, HashSet};

use super::{Action, Fault, Operation, Outcome};

/// The operations of one value.
struct Cluster {
    put: Option<Operation>,
    /// The operation that returned first, and when; nothing for the absence before all puts.
    first: Option<Operation>,
    settled: u64,
    /// The operation that was invoked last, and when.
    last: Option<Operation>,
    asked: u64,
}

impl Cluster {
    /// The absence of a value: settled before any tick.
    fn absence() -> Cluster {
        Cluster {
            put: None,
            first: None,
            settled: 0,
            last: None,
            asked: 0,
        }
    }

    fn of_put(put: Operation) -> Cluster {
        Cluster {
            put: Some(put),
            first: Some(put),
            settled: put.settled(),
            last: Some(put),
            asked: put.invoked,
        }
    }

    fn add_get(&mut self, get: Operation) {
        if get.returned < self.settled {
            (self.first, self.settled) = (Some(get), get.returned);
        }
        if self.last.is_none() || get.invoked > self.asked {
            (self.last, self.asked) = (Some(get), get.invoked);
        }
    }

    fn before(&self, other: &Cluster) -> bool {
        self.settled < other.asked
    }
}

/// What is wrong with one key's operations, and those that show it.
pub fn fault(operations: &[Operation]) -> Option<(Fault, Vec<Operation>)> {
    let mut clusters = match clusters(operations) {
        Ok(clusters) => clusters,
        Err(fault) => return Some(fault),
    };
    clusters.sort_by_key(|cluster| cluster.settled);
    let (a, b) = contradiction(&clusters)?;
    Some(explain(&clusters[a], &clusters[b], operations))
}

fn clusters(operations: &[Operation]) -> Result<Vec<Cluster>, (Fault, Vec<Operation>)> {
    let mut absence = Cluster::absence();
    let mut by_value: HashMap<u64, Cluster> = HashMap::new();
    for operation in operations {
        if let Action::Put { value, .. } = operation.action
            && let Some(before) = by_value.insert(value, Cluster::of_put(*operation))
        {
            return Err((Fault::Twice, before.put.into_iter().chain([*operation]).collect()));
        }
    }
    let mut seen = HashSet::new();
    for get in operations {
        let value = match get.action {
            Action::Get { value: Some(value) } => value,
            Action::Get { value: None } => {
                absence.add_get(*get);
                continue;
            }
            Action::Put { .. } => continue,
        };
        let Some((cluster, put)) = by_value.get_mut(&value).and_then(|c| c.put.map(|put| (c, put))) else {
            return Err((Fault::Invented, vec![*get]));
        };
        if get.returned < put.invoked {
            return Err((Fault::Future, vec![*get, put]));
        }
        if is(put, Outcome::Failed) {
            return Err((Fault::Failed, vec![*get, put]));
        }
        cluster.add_get(*get);
        seen.insert(value);
    }
    let counts = |value: &u64, cluster: &Cluster| {
        seen.contains(value) || cluster.put.is_some_and(|put| is(put, Outcome::Ok))
    };
    Ok(by_value
        .into_iter()
        .filter(|(value, cluster)| counts(value, cluster))
        .map(|(_, cluster)| cluster)
        .chain([absence])
        .collect())
}

fn is(put: Operation, expected: Outcome) -> bool {
    matches!(put.action, Action::Put { outcome, .. } if outcome == expected)
}

/// Two clusters of which each must come before the other. They come in order of `settled`.
fn contradiction(clusters: &[Cluster]) -> Option<(usize, usize)> {
    // Of the clusters up to each place, the one asked for last, and the one next to it.
    let mut latest: Vec<(usize, Option<usize>)> = Vec::with_capacity(clusters.len());
    for (i, cluster) in clusters.iter().enumerate() {
        let asked = |i: usize| clusters[i].asked;
        latest.push(match latest.last() {
            None => (i, None),
            Some(&(first, _)) if cluster.asked > asked(first) => (i, Some(first)),
            Some(&(first, second)) if second.is_none_or(|second| cluster.asked > asked(second)) => {
                (first, Some(i))
            }
            Some(&other) => other,
        });
    }
    clusters.iter().enumerate().find_map(|(i, cluster)| {
        // Those that must come before this one are the first few.
        let before = clusters.partition_point(|other| other.before(cluster));
        let (first, second) = *latest.get(before.checked_sub(1)?)?;
        let other = if first == i { second? } else { first };
        cluster.before(&clusters[other]).then_some((i, other))
    })
}

/// Which of the two is older, and whether the newer one was gone for good.
fn explain(a: &Cluster, b: &Cluster, operations: &[Operation]) -> (Fault, Vec<Operation>) {
    let begun = |cluster: &Cluster| cluster.put.map_or(0, |put| put.invoked);
    let (older, newer) = if begun(a) <= begun(b) { (a, b) } else { (b, a) };
    // Values put between the newer one and the get that missed them: was any of them seen after it?
    let missed: HashSet<u64> = operations
        .iter()
        .filter(|operation| (begun(newer)..=older.asked).contains(&operation.invoked))
        .filter_map(|operation| match operation.action {
            Action::Put { value, .. } => Some(value),
            Action::Get { .. } => None,
        })
        .collect();
    let seen_again = operations.iter().any(|operation| {
        let value = match operation.action {
            Action::Get { value } => value,
            Action::Put { .. } => None,
        };
        operation.invoked > older.asked && value.is_some_and(|value| missed.contains(&value))
    });
    let fault = if seen_again { Fault::Stale } else { Fault::Lost };
    let shown = [older.first, older.last, newer.first, newer.last, newer.put];
    (fault, shown.into_iter().flatten().collect())
}
