//! What the drill tells: a line a step for people, one object for programs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::output::{self, Format};

/// Figures of a run. Field names are those of the JSON object.
#[derive(Default)]
pub struct Report {
    pub seed: u64,
    pub tenants: u64,
    pub events: u64,
    pub clients: u64,
    pub acknowledged_writes: u64,
    pub acknowledged_before_kill: u64,
    pub lost_writes: u64,
    pub unknown_writes: u64,
    pub unknown_writes_there: u64,
    pub torn_batches: u64,
    pub wrong_values: u64,
    pub writes_per_second: f64,
    pub sync_ms: f64,
    pub promote_ms: f64,
    pub promote_loss_bytes: u64,
    pub first_write_after_kill_ms: f64,
    pub deleted_tenant_readable: bool,
    pub backup_bytes: u64,
    pub restore_equal: bool,
    pub restore_fenced: bool,
    pub plaintext_found: u64,
    pub planted_found: u64,
    pub files_searched: u64,
    pub bytes_searched: u64,
    pub canaries: u64,
    pub seconds: f64,
    /// Where everything still is, if it was kept.
    pub kept: Option<PathBuf>,
    /// Why the drill could not go on, if so.
    pub error: Option<String>,
    /// Reached the end.
    pub finished: bool,
}

impl Report {
    /// What is not as it must be. Empty: all is well.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |bad: bool, text: String| {
            if bad {
                faults.push(text);
            }
        };
        let count = output::count;
        fault(
            self.lost_writes > 0,
            format!("{} acknowledged writes were lost", count(self.lost_writes)),
        );
        fault(
            self.wrong_values > 0,
            format!("{} entries are not what was written", count(self.wrong_values)),
        );
        fault(
            self.torn_batches > 0,
            format!("{} batches were applied in part", self.torn_batches),
        );
        fault(
            self.deleted_tenant_readable,
            "the deleted tenant's data can still be read".to_owned(),
        );
        fault(
            self.plaintext_found > 0,
            format!("{} canaries were found in clear", count(self.plaintext_found)),
        );
        if self.finished {
            fault(!self.restore_equal, "the restored database differs".to_owned());
            fault(
                !self.restore_fenced,
                "the restored database took writes before it was accepted".to_owned(),
            );
            fault(
                self.canaries == 0 || self.planted_found == 0,
                "the search for plaintext proved nothing".to_owned(),
            );
        }
        if let Some(error) = &self.error {
            fault(true, error.clone());
        }
        fault(
            !self.finished && self.error.is_none(),
            "the drill did not reach its end".to_owned(),
        );
        faults
    }

    fn json(&self) -> Value {
        let faults = self.faults();
        json!({
            "ok": faults.is_empty(), "faults": faults, "seed": self.seed, "tenants": self.tenants,
            "events": self.events, "clients": self.clients,
            "acknowledged_writes": self.acknowledged_writes,
            "acknowledged_before_kill": self.acknowledged_before_kill,
            "lost_writes": self.lost_writes, "unknown_writes": self.unknown_writes,
            "unknown_writes_there": self.unknown_writes_there, "torn_batches": self.torn_batches,
            "wrong_values": self.wrong_values, "writes_per_second": rounded(self.writes_per_second),
            "sync_ms": rounded(self.sync_ms), "promote_ms": rounded(self.promote_ms),
            "promote_loss_bytes": self.promote_loss_bytes,
            "first_write_after_kill_ms": rounded(self.first_write_after_kill_ms),
            "deleted_tenant_readable": self.deleted_tenant_readable, "backup_bytes": self.backup_bytes,
            "restore_equal": self.restore_equal, "restore_fenced": self.restore_fenced,
            "plaintext_found": self.plaintext_found, "planted_found": self.planted_found,
            "files_searched": self.files_searched, "bytes_searched": self.bytes_searched,
            "canaries": self.canaries, "seconds": rounded(self.seconds), "kept": self.kept,
        })
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}

/// Prints as the drill goes.
pub struct Teller {
    format: Format,
    step: u32,
    started: Instant,
}

impl Teller {
    /// Begins; time runs from here.
    pub fn new(format: Format) -> Teller {
        Teller {
            format,
            step: 0,
            started: Instant::now(),
        }
    }

    /// Since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// A line without a number.
    pub fn line(&self, text: &str) {
        if self.format == Format::Table {
            output::line(text);
        }
    }

    /// A step, done.
    pub fn step(&mut self, name: &str, text: &str) {
        self.step += 1;
        self.line(&format!(
            "{:>7.2} s  {:>2} {name:<8} {text}",
            self.elapsed().as_secs_f64(),
            self.step
        ));
    }

    /// More about the step before.
    pub fn more(&self, text: &str) {
        self.line(&format!("{:>22}{text}", ""));
    }

    /// The verdict.
    pub fn end(&self, report: &Report) {
        if self.format == Format::Json {
            return output::json(report.json());
        }
        let faults = report.faults();
        if faults.is_empty() {
            output::line(&format!(
                "\nAll is well after {:.1} s: {} acknowledged writes, 0 lost; restored and equal; nothing in clear.",
                report.seconds,
                output::count(report.acknowledged_writes)
            ));
        } else {
            output::line("\nNOT well:");
            for fault in &faults {
                output::line(&format!("  {fault}"));
            }
        }
        if let Some(dir) = &report.kept {
            output::line(&format!("Everything is kept in {}", dir.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_well_before_the_end_and_every_fault_counts() {
        assert_eq!(Report::default().faults().len(), 1);
        let good = || Report {
            restore_equal: true,
            restore_fenced: true,
            canaries: 5,
            planted_found: 2,
            finished: true,
            ..Report::default()
        };
        assert!(good().faults().is_empty());
        let spoils: [fn(&mut Report); 9] = [
            |r| r.lost_writes = 1,
            |r| r.wrong_values = 1,
            |r| r.torn_batches = 1,
            |r| r.deleted_tenant_readable = true,
            |r| r.plaintext_found = 1,
            |r| r.restore_equal = false,
            |r| r.restore_fenced = false,
            |r| r.planted_found = 0,
            |r| r.error = Some("x".into()),
        ];
        for (i, spoil) in spoils.iter().enumerate() {
            let mut report = good();
            spoil(&mut report);
            assert_eq!(report.faults().len(), 1, "{i}");
            assert_eq!(report.json()["ok"], false);
        }
    }
}
