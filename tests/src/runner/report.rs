//! Totals for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::totals::Totals;

/// Faults by row and kind, figures and failures as text.
pub fn table(totals: &Totals, elapsed: Duration) -> String {
    let mut text = String::new();
    line(
        &mut text,
        &format!("{:<28}{:>10}{:>9}{:>10}", "profile", "runs", "failed", "core-s"),
    );
    for (profile, share) in &totals.shares {
        let seconds = share.time.as_secs_f64();
        line(
            &mut text,
            &format!(
                "{:<28}{:>10}{:>9}{seconds:>10.1}",
                format!("{}/{profile}", share.layer),
                share.runs,
                share.failed
            ),
        );
    }
    line(&mut text, "");
    for (name, count) in totals.headline() {
        line(&mut text, &format!("{name:<34}{count:>14}"));
    }
    for (title, prefix) in [("faults by kind", "fault: "), ("faults by row", "row ")] {
        line(&mut text, &format!("\n{title}"));
        for (name, count) in totals.with_prefix(prefix) {
            line(&mut text, &format!("  {name:<40}{count:>12}"));
        }
    }
    let rare = totals.rare();
    let never = totals.never_visited();
    line(
        &mut text,
        &format!(
            "\nrare states visited {} of {}",
            rare.len() - never.len(),
            rare.len()
        ),
    );
    for name in never {
        line(&mut text, &format!("  never: {name}"));
    }
    line(&mut text, &format!("\nseconds {:.1}", elapsed.as_secs_f64()));
    for failure in &totals.failures {
        line(&mut text, &format!("\n{failure}"));
    }
    text
}

/// The same as JSON.
pub fn json(totals: &Totals, elapsed: Duration, command: &str, commit: &str) -> Value {
    let shares = totals.shares.iter().map(|(profile, share)| {
        let value = json!({
            "layer": share.layer,
            "runs": share.runs,
            "failed": share.failed,
            "core_seconds": (share.time.as_secs_f64() * 10.0).round() / 10.0,
        });
        (profile.to_string(), value)
    });
    let numbers = |items: Vec<(&str, u64)>| {
        let items = items
            .into_iter()
            .map(|(name, count)| (name.to_string(), json!(count)));
        Value::Object(items.collect())
    };
    json!({
        "command": command,
        "commit": commit,
        "seconds": elapsed.as_secs(),
        "totals": numbers(totals.headline()),
        "profiles": Value::Object(shares.collect::<Map<_, _>>()),
        "faults_by_kind": numbers(totals.with_prefix("fault: ").collect()),
        "faults_by_row": numbers(totals.with_prefix("row ").collect()),
        "counters": numbers(totals.counters.0.iter().map(|(n, c)| (n.as_str(), *c)).collect()),
        "rare_states": numbers(totals.rare().into_iter().collect()),
        "rare_states_never_visited": totals.never_visited(),
        "failures": totals.failures,
    })
}

fn line(text: &mut String, line: &str) {
    let _ = writeln!(text, "{line}");
}
