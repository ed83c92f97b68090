//! The slow decision, which shares nothing with the quick one: tries every order (Wing and Gong, with the
//! memory of Lowe). For short histories in tests.

use std::collections::HashSet;

use super::{Action, Operation, Outcome};

/// Whether one key's operations are those of one register. At most 63 operations.
pub fn linearizable(operations: &[Operation]) -> bool {
    let operations: Vec<Operation> = operations
        .iter()
        .filter(|o| {
            !matches!(
                o.action,
                Action::Put {
                    outcome: Outcome::Failed,
                    ..
                }
            )
        })
        .copied()
        .collect();
    assert!(operations.len() < 64, "too long to search");
    explore(&operations, 0, None, &mut HashSet::new())
}

/// Goes on from the state in which the operations in `done` have taken effect and `now` is the value.
fn explore(
    operations: &[Operation],
    done: u64,
    now: Option<u64>,
    tried: &mut HashSet<(u64, Option<u64>)>,
) -> bool {
    let open: Vec<usize> = (0..operations.len()).filter(|i| done & 1 << i == 0).collect();
    if open.iter().all(|i| operations[*i].settled() == u64::MAX) {
        return true;
    }
    if !tried.insert((done, now)) {
        return false;
    }
    // Whatever returned first must take effect before anything that was invoked after that.
    let first_return = open
        .iter()
        .map(|i| operations[*i].settled())
        .min()
        .expect("one is open");
    open.iter()
        .filter(|i| operations[**i].invoked <= first_return)
        .any(|i| {
            let next = match operations[*i].action {
                Action::Put { value, .. } => Some(value),
                Action::Get { value } if value == now => now,
                Action::Get { .. } => return false,
            };
            explore(operations, done | 1 << i, next, tried)
        })
}
