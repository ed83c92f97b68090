//! One run of one layer: a panic is a failure like any other, and says how to repeat it.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::layers::{Layer, Outcome, Profile, Request, counted};

/// What is to be run.
#[derive(Clone, Copy)]
pub struct Run {
    /// The layer.
    pub layer: &'static Layer,
    /// Which of its profiles.
    pub profile: &'static Profile,
    /// The seed.
    pub seed: u64,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static LISTENS: RefCell<bool> = const { RefCell::new(false) };
}

impl Run {
    /// Runs it once.
    pub fn once(&self) -> Outcome {
        let request = Request {
            seed: self.seed,
            profile: self.profile.name,
        };
        caught(|| (self.layer.run)(&request))
    }

    /// Runs it twice; different outcomes are a failure.
    pub fn twice(&self) -> Outcome {
        let mut first = self.once();
        let second = self.once();
        first.counters.add(counted::RERUNS, 1);
        if first.failure.is_none() && first.trace != second.trace {
            first.failure = Some(format!(
                "the same seed gave two traces: {:#018x} and {:#018x}",
                first.trace, second.trace
            ));
        }
        first
    }

    /// The line that repeats it.
    pub fn repro(&self, commit: &str) -> String {
        repro(self.seed, self.profile.name, commit)
    }
}

/// The line that repeats a run.
pub fn repro(seed: u64, profile: &str, commit: &str) -> String {
    format!(
        "REPRO: cargo run --release -p strongroom-tests --bin sim -- --seed {seed:#x} --profile {profile}   (commit {commit})"
    )
}

/// Runs `work` and turns a panic into a failure.
pub fn caught(work: impl FnOnce() -> Outcome) -> Outcome {
    listen();
    let before = LISTENS.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    LISTENS.set(before);
    let mut outcome = match result {
        Ok(outcome) => outcome,
        Err(_) => {
            let what = PANIC.take().unwrap_or_else(|| "of unknown place".to_string());
            let mut outcome = Outcome {
                failure: Some(format!("panic: {what}")),
                ..Outcome::default()
            };
            outcome.counters.add(counted::PANICS, 1);
            outcome
        }
    };
    outcome.counters.add(counted::RUNS, 1);
    outcome
}

/// Where this project's code is on the stack, if backtraces are on.
fn frames() -> String {
    let all = std::backtrace::Backtrace::capture().to_string();
    let ours = all.lines().filter(|line| line.trim_start().starts_with("at ./"));
    ours.take(12).collect::<Vec<_>>().join("\n")
}

/// Keeps the message of a panic on a thread that runs a simulation, instead of printing it.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if LISTENS.with_borrow(|listens| *listens) {
                PANIC.set(Some(format!("{info}\n{}", frames())));
            } else {
                before(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    const PROFILE: Profile = Profile {
        name: "test",
        ci_fixed: 0,
        ci_fresh: 0,
        soak_weight: 0,
    };

    fn run(run: fn(&Request) -> Outcome) -> Run {
        let layer = Layer {
            name: "test",
            profiles: &[],
            run,
            replay: None,
            deterministic: true,
        };
        Run {
            layer: Box::leak(Box::new(layer)),
            profile: &PROFILE,
            seed: 7,
        }
    }

    #[test]
    fn panic_is_a_counted_failure_with_its_message() {
        let outcome = run(|_| panic!("of this test")).once();
        assert!(outcome.failure.unwrap().contains("of this test"));
        assert_eq!(outcome.counters.get(counted::PANICS), 1);
    }

    #[test]
    fn trace_that_differs_at_the_second_run_is_a_failure() {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let changing = run(|_| Outcome {
            trace: NEXT.fetch_add(1, Ordering::Relaxed),
            ..Outcome::default()
        });
        assert!(changing.twice().failure.unwrap().contains("two traces"));
        let same = run(|request| Outcome {
            trace: request.seed,
            ..Outcome::default()
        });
        assert_eq!(same.twice().failure, None);
    }
}
