//! Entries that expire: how they carry their moment, and what time it is for them.
//!
//! ```text
//! stored value of an entry of kind 3   expires u64, ms since 1970 ‖ the user's value
//! stored value of an entry of kind 4   written u64 ‖ expires u64, or all ones ‖ the user's value
//! ```
//!
//! An entry of a keyspace with a retention also ends when it is past that (`retention`), whichever comes first: of
//! kind 4, which all entries have that are written there, or of another kind from before.
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
use crate::retention::Rule;

/// What stands in front of the value of an entry that expires.
pub(crate) const STAMP_BYTES: usize = 8;
/// What stands in front of the value of a dated entry.
pub(crate) const DATE_BYTES: usize = 2 * STAMP_BYTES;
/// An entry that expires then never does.
pub(crate) const NEVER: u64 = u64::MAX;

/// The moment at the front, and what follows; None if it is too short.
fn split(stored: &[u8]) -> Option<(u64, &[u8])> {
    let (stamp, value) = stored.split_first_chunk::<STAMP_BYTES>()?;
    Some((u64::from_le_bytes(*stamp), value))
}

/// When an entry was written, if it carries that.
fn written(kind: EntryKind, stored: &[u8]) -> Option<u64> {
    let (at, _) = split(stored).filter(|_| kind == EntryKind::Dated)?;
    Some(at)
}

/// When an entry expires by itself, if it does.
pub(crate) fn expires(kind: EntryKind, stored: &[u8]) -> Option<u64> {
    match kind {
        EntryKind::Expiring => split(stored).map(|(at, _)| at),
        EntryKind::Dated => {
            let (at, _) = split(split(stored)?.1)?;
            Some(at).filter(|at| *at != NEVER)
        }
        EntryKind::Put | EntryKind::Delete | EntryKind::Separated => None,
    }
}

/// When nothing but a delete is left of an entry: when it expires, or is past the retention of its keyspace.
pub(crate) fn ends(rule: Option<&Rule>, kind: EntryKind, stored: &[u8]) -> Option<u64> {
    let expires = expires(kind, stored);
    let Some(rule) = rule.filter(|_| kind != EntryKind::Delete) else {
        return expires;
    };
    expires.into_iter().chain(rule.ends(written(kind, stored))).min()
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

/// Whether nothing but a delete is left `now` of an entry that ends then.
pub(crate) fn is_gone(kind: EntryKind, ends: Option<u64>, now: u64) -> bool {
    kind == EntryKind::Delete || ends.is_some_and(|at| is_past(at, now))
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

    /// For entries of a keyspace with this rule.
    pub fn by<'a>(&'a self, rule: Option<&'a Rule>) -> Shows<'a> {
        Shows { times: self, rule }
    }
}

/// Tells which entries of one keyspace have a value that may be read now.
#[derive(Clone, Copy)]
pub(crate) struct Shows<'a> {
    times: &'a ExpiryClock,
    rule: Option<&'a Rule>,
}

impl Shows<'_> {
    /// Whether an entry has a value that may be read now. Looks at the time only for one that ends.
    #[inline]
    pub fn shows(&self, kind: EntryKind, stored: &[u8]) -> bool {
        match kind {
            EntryKind::Delete => return false,
            EntryKind::Put | EntryKind::Separated if self.rule.is_none() => return true,
            _ if stored.len() < kind.stamp_bytes() => return false,
            _ => {}
        }
        let past = ends(self.rule, kind, stored).is_some_and(|at| is_past(at, self.times.now()));
        if past {
            self.count(kind, stored);
        }
        !past
    }

    fn count(&self, kind: EntryKind, stored: &[u8]) {
        match kind {
            EntryKind::Put | EntryKind::Separated => {
                rare!(UndatedNotShown);
            }
            EntryKind::Dated if expires(kind, stored).is_none() => {
                rare!(DatedNotShown);
            }
            _ => {
                rare!(ExpiredNotShown);
            }
        }
    }
}

/// The user's value of an entry that has one.
pub(crate) fn value(kind: EntryKind, stored: Bytes) -> Bytes {
    match kind.stamp_bytes() {
        0 => stored,
        stamp => stored.slice(stamp.min(stored.len())..),
    }
}

/// The user's value of such an entry, where it lies.
pub(crate) fn lent(kind: EntryKind, stored: &[u8]) -> &[u8] {
    stored.get(kind.stamp_bytes()..).unwrap_or_default()
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
            assert!(times.by(None).shows(EntryKind::Expiring, &stored));
            clock.advance(Duration::from_millis(1));
        }
        assert!(!times.by(None).shows(EntryKind::Expiring, &stored));
        assert!(
            times.by(None).shows(EntryKind::Put, &stored) && !times.by(None).shows(EntryKind::Delete, b"")
        );
        assert_eq!(expires(EntryKind::Expiring, &stored), Some(at));
        assert_eq!(value(EntryKind::Expiring, stored.into()), "v");
        assert!(times.by(None).shows(EntryKind::Expiring, &stamped(NEVER, b"")));
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
