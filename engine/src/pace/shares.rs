//! Who waits when writers are slowed: a rate dealt out among the tenants that write more than their share. Pure.
//!
//! Fair queueing. `round` counts the bytes that a tenant which always has something to write got so far; it grows by
//! the rate over the number of tenants that are ahead of it. A batch has its turn at the round of the end of its
//! tenant's batch before, or now if that is past:
//!
//! ```text
//! round ------------------>|
//! flood   [batch][batch]   |   [batch][batch][batch]   its turn is to come: it waits for its own
//! trickle   [b]            |[b]                        its turn is now
//! ```
//!
//! So a tenant that writes less than its share never waits, whatever others do; and all together get the
//! rate. Memory: two entries for each tenant that is ahead of the round, and none for others.
//!
//! Source: A. Demers, S. Keshav, S. Shenker, Analysis and Simulation of a Fair Queueing Algorithm, SIGCOMM 1989.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::hooks::planted;
use crate::types::TenantId;

/// A batch whose turn is this near does not wait: sleeps are no shorter.
pub(crate) const NEAR: Duration = Duration::from_millis(1);
/// How long a batch waits before it looks again whether its turn came sooner.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The longest that a batch waits.
pub(crate) const DELAY_MAX: Duration = Duration::from_secs(1);

/// Rounds are counted in billionths of a byte: a rate times nanoseconds.
const NANOS: u128 = 1_000_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// Bytes a second since `at`.
    rate: u64,
    at: Duration,
    round: u128,
    /// Where the batches of tenants end that are ahead of the round; and the same by their ends.
    ahead: HashMap<TenantId, u128>,
    ends: BTreeSet<(u128, TenantId)>,
}

impl Shares {
    /// It is `now`, and from now on the rate is this.
    pub fn pass(&mut self, now: Duration, rate: u64) {
        // Writers look at the clock before they come here: one may be late.
        let nanos = now.saturating_sub(self.at).as_nanos();
        let mut room = nanos.saturating_mul(u128::from(self.rate));
        while let Some((end, tenant)) = self.ends.first().copied() {
            let tenants = self.ends.len() as u128;
            let needs = (end - self.round).saturating_mul(tenants);
            if needs > room {
                self.round += room / tenants;
                break;
            }
            room -= needs;
            self.round = end;
            self.ends.remove(&(end, tenant));
            self.ahead.remove(&tenant);
        }
        self.at = self.at.max(now);
        self.rate = rate;
    }

    /// Puts a batch behind its tenant's last.
    pub fn take(&mut self, tenant: TenantId, bytes: u64) -> Delay {
        let tenant = if planted!(PaceIgnoresTenants) {
            TenantId::SYSTEM
        } else {
            tenant
        };
        let before = self.ahead.get(&tenant).copied();
        let turn = before.unwrap_or(self.round);
        let end = turn.saturating_add(u128::from(bytes) * NANOS);
        if let Some(before) = before {
            self.ends.remove(&(before, tenant));
        }
        if end > self.round && !planted!(PaceForgetsBatches) {
            self.ahead.insert(tenant, end);
            self.ends.insert((end, tenant));
        }
        Delay {
            turn,
            left: self.wait(turn).min(DELAY_MAX),
        }
    }

    /// How long it is until then, as things are.
    fn wait(&self, turn: u128) -> Duration {
        let bytes = turn.saturating_sub(self.round);
        let nanos = bytes.saturating_mul(self.ends.len().max(1) as u128) / u128::from(self.rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Nobody is slowed any more: what was taken ahead is forgiven, and every turn has come.
    pub fn forgive(&mut self) {
        if let Some((end, _)) = self.ends.last() {
            self.round = *end;
        }
        self.ends.clear();
        self.ahead.clear();
    }

    /// Tenants that are ahead.
    #[cfg(any(test, feature = "sim"))]
    pub fn tenants(&self) -> usize {
        self.ahead.len()
    }
}

/// The wait of a batch. It may turn out shorter than it seemed at first, not longer: what is missing then the tenant's
/// next batch waits for.
#[derive(Debug)]
pub(crate) struct Delay {
    turn: u128,
    left: Duration,
}

impl Delay {
    /// How long to sleep before asking again; None: its turn has come, or nearly.
    pub fn sleep(&mut self, shares: &Shares) -> Option<Duration> {
        self.left = self.left.min(shares.wait(self.turn));
        if self.left < NEAR {
            return None;
        }
        let sleep = self.left.min(LOOK_EVERY);
        self.left -= sleep;
        Some(sleep)
    }
}
