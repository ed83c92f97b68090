//! Where writers wait for background work: a little and for themselves while it is behind, and all when it is
//! too far behind.
//!
//! Waiting is outside of every lock of the commit path. It ends when the database closes; and when background work
//! fails, for then there is nothing to wait for: writers go on up to the stop, where they get the failure.
//! With [`Background::Manual`] nobody is slowed: at the stop writers do the work themselves.
//!
//! Invariants: no batch is slowed for longer than [`DELAY_MAX`](pace::shares::DELAY_MAX). What the engine writes for itself (catalog, settings)
//! is not slowed. The stop holds for all: it bounds memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::background::Done;
use crate::commit::closed;
use crate::error::Result;
use crate::hooks::rare;
use crate::inner::Inner;
use crate::operation::count;
use crate::options::Background;
use crate::pace::shares::{Delay, Shares};
use crate::pace::{self, Drain, Pressure};
use crate::types::TenantId;

/// How long a writer that is stopped sleeps before it looks again.
const STOP_LOOK_EVERY: Duration = Duration::from_millis(50);

/// What slowing down writers remembers.
#[derive(Default)]
pub(crate) struct Throttle {
    shares: Mutex<Shares>,
    /// Whether `shares` may hold anything.
    slowing: AtomicBool,
    drain: Mutex<Drain>,
}

impl Throttle {
    /// A job ended.
    pub fn learn(&self, done: &Done, took: Duration) {
        let mut drain = self.drain.lock();
        match done.memory {
            0 => drain.compacted(done.level0, took),
            bytes => drain.flushed(bytes, took),
        }
    }
}

impl Inner {
    /// The rate at which all tenants together may write now, and why; None: any.
    pub fn write_rate(&self) -> Option<(u64, Pressure)> {
        if self.options.background == Background::Manual {
            return None;
        }
        let view = self.view();
        let debt = view.debt.plus(view.active.bytes() as u64);
        pace::rate(&debt, || *self.throttle.drain.lock(), &self.options)
    }

    /// Waits for the turn of a batch of `bytes`, while writers are slowed.
    pub fn pace(&self, tenant: TenantId, bytes: u64) -> Result<()> {
        let Some(slowed) = self.write_rate() else {
            self.stop_slowing();
            return Ok(());
        };
        let from = self.io.clock.monotonic();
        let mut delay = {
            let mut shares = self.throttle.shares.lock();
            self.throttle.slowing.store(true, Ordering::Release);
            shares.pass(from, slowed.0);
            shares.take(tenant, bytes)
        };
        let Some(first) = delay.sleep(&self.throttle.shares.lock()) else {
            return Ok(());
        };
        self.counters.delays();
        let waited = self.wait_turn(&mut delay, first);
        let took = self.io.clock.monotonic().saturating_sub(from);
        self.counters.delayed(slowed.1, took);
        count(|counters| counters.throttled += took);
        waited
    }

    fn wait_turn(&self, delay: &mut Delay, first: Duration) -> Result<()> {
        let mut sleep = first;
        loop {
            {
                let mut background = self.background.state.lock();
                if background.stop {
                    return Err(closed());
                }
                if background.failed.is_some() {
                    return Ok(());
                }
                self.background.changed.wait_for(&mut background, sleep);
            }
            let Some((rate, _)) = self.write_rate() else {
                self.stop_slowing();
                return Ok(());
            };
            let mut shares = self.throttle.shares.lock();
            shares.pass(self.io.clock.monotonic(), rate);
            match delay.sleep(&shares) {
                Some(more) => sleep = more,
                None => return Ok(()),
            }
        }
    }

    fn stop_slowing(&self) {
        if self.throttle.slowing.load(Ordering::Acquire) {
            let mut shares = self.throttle.shares.lock();
            shares.forgive();
            self.throttle.slowing.store(false, Ordering::Release);
        }
    }

    /// Waits while flush and compaction are too far behind; does their work itself when nobody else will.
    pub fn throttle(&self) -> Result<()> {
        if !self.must_stop() {
            return Ok(());
        }
        let from = self.io.clock.monotonic();
        let caught_up = self.catch_up();
        let took = self.io.clock.monotonic().saturating_sub(from);
        self.counters.stalled(took);
        count(|counters| counters.throttled += took);
        caught_up
    }

    fn catch_up(&self) -> Result<()> {
        while self.must_stop() {
            rare!(WriterDidBackgroundWork);
            if self.options.background == Background::Manual {
                if !self.step()? {
                    return Ok(());
                }
                continue;
            }
            let mut background = self.background.state.lock();
            if background.stop {
                return Err(closed());
            }
            if let Some(error) = &background.failed {
                return Err(error.duplicate());
            }
            background.wake = true;
            self.background.changed.notify_all();
            self.background.changed.wait_for(&mut background, STOP_LOOK_EVERY);
        }
        Ok(())
    }

    fn must_stop(&self) -> bool {
        let view = self.view();
        view.immutables.len() > self.options.immutable_memtables_max
            || view
                .version
                .levels
                .first()
                .is_some_and(|l0| l0.len() >= self.options.level0_tables_stop)
    }
}

#[cfg(test)]
mod tests;
