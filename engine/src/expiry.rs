//! Entries that expire: how they carry their moment, and what time it is for them.
//!
//! ```text
//! stored value of an entry of kind 3   expires u64, ms since 1970 ‖ the user's value
//! ```
//!
//! From its moment on an entry reads as a delete does: its key is absent, and what it overwrote stays hidden.
//! The log, memtables and tables carry such a value like any other; who hands a value out takes it apart.
//!
//! Invariant: the time never goes back while the database is open, so that nothing that was once absent for its
//! age reappears, whatever the machine's clock does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::hooks::{planted, rare};
use crate::io::Clock;
use crate::read::cursor::EntryKind;

/// What stands in front of the value of an entry that expires.
pub(crate) const STAMP_BYTES: usize = 8;
/// An entry that expires then never does.
pub(crate) const NEVER: u64 = u64::MAX;

/// The moment and the user's value of an entry that expires; None if it is too short to be one's.
pub(crate) fn split(stored: &[u8]) -> Option<(u64, &[u8])> {
    let (stamp, value) = stored.split_first_chunk::<STAMP_BYTES>()?;
    Some((u64::from_le_bytes(*stamp), value))
}

/// When an entry expires, if it does.
pub(crate) fn expires(kind: EntryKind, stored: &[u8]) -> Option<u64> {
    match kind {
        EntryKind::Expiring => split(stored).map(|(at, _)| at),
        EntryKind::Put | EntryKind::Delete => None,
    }
}

/// The moment as a table's directory has it: in seconds, rounded up, so that what it speaks of has expired when it
/// has come. 0 is left for none, and the largest number, in 2106, for then and later.
pub(crate) fn seconds(at: u64) -> u32 {
    u32::try_from(at.div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

/// What [`seconds`] made, in milliseconds again; None if there is nothing to wait for.
pub(crate) fn from_seconds(seconds: u32) -> Option<u64> {
    (1..u32::MAX)
        .contains(&seconds)
        .then(|| u64::from(seconds) * 1000)
}

/// Whether nothing but a delete is left of an entry `now`.
pub(crate) fn is_gone(kind: EntryKind, stored: &[u8], now: u64) -> bool {
    kind == EntryKind::Delete || expires(kind, stored).is_some_and(|at| is_past(at, now))
}

/// Whether the moment has come.
pub(crate) fn is_past(at: u64, now: u64) -> bool {
    if planted!(ExpiryOneLate) {
        return at < now;
    }
    at <= now
}

/// What time it is for expiry. Clones tell the same.
#[derive(Clone)]
pub(crate) struct ExpiryClock {
    clock: Arc<dyn Clock>,
    /// The latest time anybody was told.
    latest: Arc<AtomicU64>,
}

impl ExpiryClock {
    pub fn new(clock: Arc<dyn Clock>) -> ExpiryClock {
        ExpiryClock {
            clock,
            latest: Arc::default(),
        }
    }

    /// Milliseconds since 1970, never less than before.
    pub fn now(&self) -> u64 {
        let now = self.clock.now_ms();
        if planted!(ClockFollowedBack) {
            return now;
        }
        let latest = self.latest.load(Ordering::Acquire);
        if now <= latest {
            if now < latest {
                rare!(ClockWentBack);
            }
            return latest;
        }
        self.latest.fetch_max(now, Ordering::AcqRel).max(now)
    }

    /// Whether an entry has a value that may be read now. Looks at the time only for one that expires.
    pub fn shows(&self, kind: EntryKind, stored: &[u8]) -> bool {
        match kind {
            EntryKind::Put => true,
            EntryKind::Delete => false,
            EntryKind::Expiring => {
                let past = expires(kind, stored).is_none_or(|at| is_past(at, self.now()));
                if past {
                    rare!(ExpiredNotShown);
                }
                !past
            }
        }
    }
}

/// The user's value of an entry that has one, and when it expires.
pub(crate) fn value(kind: EntryKind, stored: Bytes) -> (Bytes, Option<u64>) {
    match expires(kind, &stored) {
        Some(at) => (stored.slice(STAMP_BYTES.min(stored.len())..), Some(at)),
        None => (stored, None),
    }
}

/// The user's value of such an entry, where it lies.
pub(crate) fn lent(kind: EntryKind, stored: &[u8]) -> &[u8] {
    match expires(kind, stored) {
        Some(_) => stored.get(STAMP_BYTES..).unwrap_or_default(),
        None => stored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::SimClock;
    use std::time::Duration;

    fn stamped(at: u64, value: &[u8]) -> Vec<u8> {
        [&at.to_le_bytes(), value].concat()
    }

    #[test]
    fn a_value_shows_until_its_moment_and_not_from_it_on() {
        let clock = Arc::new(SimClock::with_step(Duration::ZERO));
        let times = ExpiryClock::new(clock.clone());
        let at = times.now() + 5;
        let stored = stamped(at, b"v");
        for _ in 0..5 {
            assert!(times.shows(EntryKind::Expiring, &stored));
            clock.advance(Duration::from_millis(1));
        }
        assert!(!times.shows(EntryKind::Expiring, &stored));
        assert!(times.shows(EntryKind::Put, &stored) && !times.shows(EntryKind::Delete, b""));
        let (value, expires) = value(EntryKind::Expiring, stored.into());
        assert_eq!((&value[..], expires), (&b"v"[..], Some(at)));
        assert!(times.shows(EntryKind::Expiring, &stamped(NEVER, b"")));
    }

    #[test]
    fn a_moment_in_seconds_is_never_before_the_moment() {
        for (at, coarse) in [
            (0, 1),
            (1, 1),
            (1000, 1),
            (1001, 2),
            (u64::MAX, u32::MAX),
            (4_294_967_294_000, u32::MAX - 1),
        ] {
            assert_eq!(seconds(at), coarse, "{at}");
        }
        assert_eq!(from_seconds(seconds(1500)), Some(2000));
        assert_eq!((from_seconds(0), from_seconds(u32::MAX)), (None, None));
    }

    #[test]
    fn time_does_not_go_back_with_the_clock() {
        let clock = Arc::new(SimClock::with_step(Duration::ZERO));
        let times = ExpiryClock::new(clock.clone());
        clock.advance(Duration::from_secs(10));
        let latest = times.now();
        clock.step_back(Duration::from_secs(7));
        assert_eq!(clock.now_ms(), latest - 7000);
        assert_eq!((times.now(), times.clone().now()), (latest, latest));
        clock.advance(Duration::from_secs(8));
        assert_eq!(times.now(), latest + 1000);
    }
}
