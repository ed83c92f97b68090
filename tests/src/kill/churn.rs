//! Tenants that come and go while the process is killed.
//!
//! One thread makes tenant 0, writes to it, says `made 0`, deletes it, says `gone 0`, and goes on with tenant 1.
//! *After a kill:* no tenant that was said to be gone is there; at most the one after it is; and if it was
//! said to be made and is there, it has its value.

use strongroom::{Engine, ErrorKind, TenantOptions};

const PREFIX: &str = "churn-";

fn name(number: u64) -> String {
    format!("{PREFIX}{number}")
}

/// The child's part. `say` prints a line. Returns only if something fails.
pub fn for_ever(engine: &Engine, first: u64, say: impl Fn(&str)) -> strongroom::Result<()> {
    for number in first.. {
        let tenant = match engine.create_tenant(&name(number), TenantOptions::default()) {
            // Left by the kill before: go on with it.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => engine.tenant(&name(number))?,
            other => other?,
        };
        tenant.keyspace("k")?.put("key", number.to_le_bytes())?;
        say(&format!("made {number}"));
        engine.delete_tenant(&name(number))?;
        say(&format!("gone {number}"));
    }
    Ok(())
}

/// The parent's part: what it was told over all rounds.
#[derive(Default)]
pub struct Churn {
    /// Deletions reported.
    pub deleted: u64,
    /// Tenants below this one are gone.
    next: u64,
    made: Option<u64>,
}

impl Churn {
    /// Where the next child goes on.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether the line was about these tenants.
    pub fn hears(&mut self, line: &str) -> bool {
        let number = |line: &str, verb| line.strip_prefix(verb).and_then(|n| n.parse::<u64>().ok());
        if let Some(made) = number(line, "made ") {
            self.made = Some(made);
        } else if let Some(gone) = number(line, "gone ") {
            self.next = gone + 1;
            self.deleted += 1;
        } else {
            return false;
        }
        true
    }

    /// Checks a reopened database.
    pub fn check(&mut self, engine: &Engine) -> Result<(), String> {
        let there: Vec<u64> = engine
            .tenants()
            .iter()
            .filter_map(|tenant| tenant.name.strip_prefix(PREFIX)?.parse().ok())
            .collect();
        if let Some(number) = there.iter().find(|number| **number != self.next) {
            return Err(format!(
                "tenant {number} is there, all below {} were deleted",
                self.next
            ));
        }
        if there.is_empty() {
            // Made and not there: deleted, and killed before it could say so.
            self.next += u64::from(self.made == Some(self.next));
            return Ok(());
        }
        let tenant = engine.tenant(&name(self.next)).map_err(|e| format!("{e:?}"))?;
        let value = match tenant.open_keyspace("k") {
            Ok(space) => space.get("key").map_err(|e| format!("{e:?}"))?,
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(format!("{e:?}")),
        };
        let right = value.is_some_and(|value| value[..] == self.next.to_le_bytes());
        if self.made == Some(self.next) && !right {
            return Err(format!("tenant {} has lost its acknowledged value", self.next));
        }
        Ok(())
    }
}
