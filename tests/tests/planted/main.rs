//! Every bug planted in the engine is found within its bound, and what finds it is clean without it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a surprise is a failure")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use strongroom::hooks::Bug;
use strongroom_tests::planted::{finders, hunt};

/// On two threads: a bug is planted for a thread, not for the process.
fn on_two_threads(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    work(n);
                }
            });
        }
    });
}

#[test]
fn every_planted_bug_is_found_within_its_bound() {
    assert!(Bug::ALL.len() >= 25);
    let missed = Mutex::new(Vec::new());
    on_two_threads(Bug::ALL.len(), |n| {
        let row = hunt(Bug::ALL[n]);
        println!("{}: {:?} by {}: {}", row.bug, row.after, row.finder, row.how);
        if row.after.is_none_or(|after| after > row.bound) {
            let text = format!("{}: {:?} of {} by {}", row.bug, row.after, row.bound, row.finder);
            missed.lock().unwrap().push(text);
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found in time:\n{}", missed.join("\n"));
}

#[test]
fn without_a_bug_every_finder_is_clean() {
    let finders = finders();
    on_two_threads(finders.len(), |n| {
        if let Some((_, why)) = finders[n].look() {
            panic!("{}: {why}", finders[n].name());
        }
    });
}
