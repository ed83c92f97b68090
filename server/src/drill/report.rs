//! What a drill tells: a line for each step as it happens, and the figures at the end.

use std::time::Instant;

use serde_json::{Value, json};

use crate::cli::output;

/// Prints steps for a person; silent when a program reads.
pub struct Report {
    aloud: bool,
    steps: u32,
    since: Instant,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Tenants of the data.
    pub tenants: u64,
    /// Events of the data.
    pub events: u64,
    /// Writes acknowledged at `Replicated` before the kill.
    pub acknowledged_writes: u64,
    /// Writes in flight at the kill.
    pub unknown_writes: u64,
    /// Acknowledged writes missing or different, and entries nobody wrote.
    pub lost_writes: u64,
    /// Batches of which a part arrived.
    pub torn_batches: u64,
    /// Acknowledged writes a second before the kill.
    pub writes_per_second: u64,
    /// How long that lasted.
    pub writing_seconds: f64,
    /// The promotion call.
    pub promote_ms: u64,
    /// From SIGKILL to the first acknowledged write on the promoted standby.
    pub first_write_after_kill_ms: u64,
    /// Writes on the promoted standby.
    pub written_after: u64,
    /// Whether anything still reads the deleted tenant.
    pub deleted_tenant_readable: bool,
    /// Size of the backup.
    pub backup_bytes: u64,
    /// Whether the restored database and the live one both equal what was written.
    pub restore_equal: bool,
    /// Strings of the tenants' found in clear.
    pub plaintext_found: u64,
    /// Strings looked for.
    pub canaries: u64,
    /// Files searched.
    pub files_searched: u64,
    /// Their bytes.
    pub bytes_searched: u64,
}

impl Report {
    /// `aloud`: a person reads.
    pub fn new(aloud: bool) -> Report {
        Report {
            aloud,
            steps: 0,
            since: Instant::now(),
        }
    }

    /// A step is done.
    pub fn step(&mut self, text: impl AsRef<str>) {
        self.steps += 1;
        if self.aloud {
            output::line(&format!("{:>2}  {}", self.steps, text.as_ref()));
        }
    }

    /// Something worth knowing beside the steps.
    pub fn note(&self, text: impl AsRef<str>) {
        if self.aloud {
            output::line(&format!("    {}", text.as_ref()));
        }
    }

    /// The verdict; true if all is well.
    pub fn verdict(&self, figures: &Figures) -> bool {
        let ok = figures.ok();
        let seconds = self.since.elapsed().as_secs_f64();
        if self.aloud {
            let verdict = if ok {
                "nothing acknowledged was lost, all is equal, nothing was found in clear"
            } else {
                "FAILED: see above"
            };
            output::line(&format!("    {verdict} ({seconds:.1} s)"));
        } else {
            output::json(figures.json(ok, seconds));
        }
        ok
    }
}

impl Figures {
    /// Whether nothing was lost or torn, everything is equal, and nothing is in clear or readable.
    pub fn ok(&self) -> bool {
        self.acknowledged_writes > 0
            && self.lost_writes == 0
            && self.torn_batches == 0
            && !self.deleted_tenant_readable
            && self.restore_equal
            && self.plaintext_found == 0
            && self.canaries > 0
    }

    fn json(&self, ok: bool, seconds: f64) -> Value {
        json!({
            "ok": ok,
            "tenants": self.tenants,
            "events": self.events,
            "acknowledged_writes": self.acknowledged_writes,
            "unknown_writes": self.unknown_writes,
            "lost_writes": self.lost_writes,
            "torn_batches": self.torn_batches,
            "writes_per_second": self.writes_per_second,
            "promote_ms": self.promote_ms,
            "first_write_after_kill_ms": self.first_write_after_kill_ms,
            "written_after": self.written_after,
            "deleted_tenant_readable": self.deleted_tenant_readable,
            "backup_bytes": self.backup_bytes,
            "restore_equal": self.restore_equal,
            "plaintext_found": self.plaintext_found,
            "canaries": self.canaries,
            "files_searched": self.files_searched,
            "bytes_searched": self.bytes_searched,
            "seconds": (seconds * 10.0).round() / 10.0,
        })
    }
}
