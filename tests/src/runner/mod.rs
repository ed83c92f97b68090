//! Runs layers: one seed with its panics caught, many on several threads, and their totals.
//!
//! ```text
//! one      one run, repeated where determinism is to be checked
//! many     a plan of runs on so many threads, until it is empty or time is over
//! totals   sums of all runs, rare states and nonce pairs of the process
//! report   totals as a table and as JSON
//! ```

mod many;
mod one;
mod report;
mod totals;

pub use many::{Plan, Seeds, run};
pub use one::{Run, caught, repro};
pub use report::{json, table};
pub use totals::Totals;

/// The commit that is running, in short: from git, for messages and reports.
pub fn commit() -> String {
    let asked = std::process::Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output();
    match asked {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_string(),
        _ => "unknown".to_string(),
    }
}
