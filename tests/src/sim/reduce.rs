//! Cuts a failing case down to few acts (ddmin): halves, then smaller parts, are left out as long as
//! what is left still fails. Bounded in time; what it returns fails, if the case did.

use std::time::{Duration, Instant};

use super::case::{Act, Case};
use super::run;
use crate::runner::caught;

const TIME_MAX: Duration = Duration::from_secs(20);

/// The smallest failing case found, and how it fails.
pub fn reduce(case: &Case, failure: &str) -> (Case, String) {
    let fails = |acts: &[Act]| {
        let case = Case {
            acts: acts.to_vec(),
            ..case.clone()
        };
        caught(|| run::run(&case)).failure
    };
    let end = Instant::now() + TIME_MAX;
    let (acts, text) = ddmin(&case.acts, failure, &fails, &|| Instant::now() < end);
    let reduced = Case { acts, ..case.clone() };
    (reduced, text)
}

fn ddmin(
    acts: &[Act],
    failure: &str,
    fails: &dyn Fn(&[Act]) -> Option<String>,
    goes_on: &dyn Fn() -> bool,
) -> (Vec<Act>, String) {
    let (mut best, mut text) = (acts.to_vec(), failure.to_string());
    let mut part = best.len().div_ceil(2);
    while part > 0 && goes_on() {
        let mut at = 0;
        let mut shrunk = false;
        while at < best.len() && goes_on() {
            let mut without = best.clone();
            without.drain(at..(at + part).min(best.len()));
            match fails(&without) {
                Some(new) => {
                    (best, text, shrunk) = (without, new, true);
                }
                None => at += part,
            }
        }
        if part == 1 && !shrunk {
            break;
        }
        part = if shrunk { part.min(best.len()) } else { part / 2 };
    }
    (best, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_acts_that_matter_are_left() {
        let acts: Vec<Act> = (0..100).map(|which| Act::ReadSnapshot { which }).collect();
        let needs = |acts: &[Act]| {
            let has = |n| acts.contains(&Act::ReadSnapshot { which: n });
            (has(13) && has(77)).then(|| "both".to_string())
        };
        let (left, text) = ddmin(&acts, "first", &needs, &|| true);
        assert_eq!(
            left,
            [Act::ReadSnapshot { which: 13 }, Act::ReadSnapshot { which: 77 }]
        );
        assert_eq!(text, "both");
        let (left, text) = ddmin(&acts, "first", &needs, &|| false);
        assert_eq!((left.len(), text.as_str()), (100, "first"));
    }
}
