//! Retention: how long a keyspace keeps what is put into it, and when an entry is past it.
//!
//! ```text
//! rule of a keyspace, little-endian:
//!   0  1  kind       0 nothing ends, 1 days, 2 calendar months
//!   1  4  number     of them, at least 1; 0 with kind 0
//!   5  8  since      when the keyspace first had a retention, ms since 1970
//!  13  1  count      of retentions it had before
//!  14 13  each: kind (1 or 2), number, until when it counted
//! ```
//!
//! From `since` on every entry of the keyspace carries the moment at which it was written (kind 4, see `expiry`);
//! what was written before counts as written then. So a rule speaks of all that is there, whenever it was set.
//!
//! Invariant: what was past a retention stays gone under every later one, whether it is still on the disk or not.
//! A rule remembers for that the retentions before it, as far as not all they ended has ended by others too.

use crate::codec::Reader;
use crate::error::{Error, ErrorKind, Result};
use crate::expiry::NEVER;
use crate::hooks::{planted, rare};
use crate::types::SeqNo;

const DAY_MS: u64 = 24 * 3600 * 1000;
/// Retentions before the present one that a rule may have to remember.
const PAST_MAX: usize = 8;

/// How long a keyspace keeps an entry, counted from when it was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Retention {
    /// Days of 24 hours, at least 1.
    Days(u32),
    /// Calendar months, at least 1, by UTC: until the same day and time of a later month, or its last day where the
    /// month is too short. What is written on 31 January at 09:00 ends, after one month, on 28 or 29 February at 09:00.
    Months(u32),
}

impl Retention {
    /// When what was written at `written` ends.
    fn ends(self, written: u64) -> u64 {
        match self {
            Retention::Days(days) => written.saturating_add(u64::from(days).saturating_mul(DAY_MS)),
            Retention::Months(months) => {
                let (day, time) = (written / DAY_MS, written % DAY_MS);
                let (month, of_month) = month_of(day);
                let month = month.saturating_add(u64::from(months));
                let last = first_day(month + 1) - first_day(month) - 1;
                let day = first_day(month) + of_month.min(last);
                day.saturating_mul(DAY_MS).saturating_add(time)
            }
        }
    }

    /// Not after anything that ends and was written at `since` or later. Times of day keep their order inside a day
    /// only: the last days of a long month end together.
    fn ends_first(self, since: u64) -> u64 {
        match self {
            Retention::Days(_) => self.ends(since),
            Retention::Months(_) => self.ends(since) / DAY_MS * DAY_MS,
        }
    }

    /// Not before anything that has ended at `until` was written; None if nothing has.
    fn written_last(self, until: u64) -> Option<u64> {
        match self {
            Retention::Days(days) => until.checked_sub(u64::from(days).saturating_mul(DAY_MS)),
            Retention::Months(months) => {
                let month = month_of(until / DAY_MS).0.checked_sub(u64::from(months))?;
                first_day(month + 1).saturating_mul(DAY_MS).checked_sub(1)
            }
        }
    }

    /// Whether all that this one has ended at `until` is ended by `other` at `other_until`. False says nothing.
    fn is_covered(self, until: u64, (other, other_until): (Retention, u64)) -> bool {
        if self == other {
            return until <= other_until;
        }
        let slack = match other {
            Retention::Days(_) => 0,
            Retention::Months(_) => DAY_MS,
        };
        match self.written_last(until) {
            Some(written) => other.ends(written).saturating_add(slack) <= other_until,
            None => true,
        }
    }

    fn number(self) -> u32 {
        match self {
            Retention::Days(days) => days,
            Retention::Months(months) => months,
        }
    }

    fn encode(this: Option<Retention>, out: &mut Vec<u8>) {
        out.push(match this {
            None => 0,
            Some(Retention::Days(_)) => 1,
            Some(Retention::Months(_)) => 2,
        });
        out.extend_from_slice(&this.map_or(0, Retention::number).to_le_bytes());
    }

    /// None if it is malformed.
    fn decode(from: &mut Reader<'_>) -> Option<Option<Retention>> {
        let kind = from.u8()?;
        let number = from.u32()?;
        match (kind, number) {
            (0, 0) => Some(None),
            (1, 1..) => Some(Some(Retention::Days(number))),
            (2, 1..) => Some(Some(Retention::Months(number))),
            _ => None,
        }
    }
}

/// What counts for a keyspace that has, or once had, a retention.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rule {
    /// Version of the change that made it so.
    pub changed: SeqNo,
    /// What carries no moment counts as written then.
    pub since: u64,
    /// The present retention; None: nothing ends any more.
    pub keep: Option<Retention>,
    /// Retentions before, and until when they counted.
    past: Vec<(Retention, u64)>,
}

impl Rule {
    /// The rule after the retention becomes `keep`, at `now`. Its version is the caller's to fill in.
    ///
    /// - Errors: `Invalid`: a retention of nothing; or too many changes, each shortly after the other, of which
    ///   some of what each ended would come back.
    pub fn changed(before: Option<&Rule>, keep: Option<Retention>, now: u64) -> Result<Rule> {
        if keep.is_some_and(|keep| keep.number() == 0) {
            let text = "a retention has one day or month at least";
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let mut past = before.map_or_else(Vec::new, |before| before.past.clone());
        past.extend(before.and_then(|before| before.keep).map(|old| (old, now)));
        let covers = |other: &(Retention, u64), old: &(Retention, u64)| old.0.is_covered(old.1, *other);
        let mut kept = Vec::new();
        for (at, old) in past.iter().enumerate() {
            // Of two that cover each other the later one stays.
            let spared = |(other, by): (usize, &(Retention, u64))| {
                other != at && covers(by, old) && (other > at || !covers(old, by))
            };
            let by_now = keep.is_some_and(|keep| covers(&(keep, now), old));
            if !by_now && !past.iter().enumerate().any(spared) {
                kept.push(*old);
            }
        }
        if kept.len() > PAST_MAX {
            let text = "the keyspace's retention was changed too often in a short time: change it later";
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        if !kept.is_empty() {
            rare!(RetentionBeforeKept);
        }
        Ok(Rule {
            changed: SeqNo::ZERO,
            since: before.map_or(now, |before| before.since),
            keep,
            past: kept,
        })
    }

    /// When an entry is past it, if ever; `written` is None for one without a moment.
    pub fn ends(&self, written: Option<u64>) -> Option<u64> {
        let written = match written {
            Some(written) => written,
            None if planted!(UndatedLivesOn) => return None,
            None => self.since,
        };
        let ended = |(old, until): &(Retention, u64)| old.ends(written) <= *until;
        if self.past.iter().any(ended) && !planted!(LongerRetentionUncovers) {
            rare!(EndedByRetentionBefore);
            return Some(0);
        }
        self.keep.map(|keep| keep.ends(written))
    }

    /// Not after anything of the keyspace ends, if anything does: whatever is there was written at `since` or later,
    /// or counts as such.
    pub fn ends_first(&self) -> Option<u64> {
        let ended = |(old, until): &(Retention, u64)| old.ends_first(self.since) <= *until;
        if self.past.iter().any(ended) {
            return Some(0);
        }
        self.keep.map(|keep| keep.ends_first(self.since))
    }

    /// As the catalog has it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(14 + 13 * self.past.len());
        Retention::encode(self.keep, &mut out);
        out.extend_from_slice(&self.since.to_le_bytes());
        out.push(self.past.len() as u8);
        for (old, until) in &self.past {
            Retention::encode(Some(*old), &mut out);
            out.extend_from_slice(&until.to_le_bytes());
        }
        out
    }

    /// The rule that an entry of this version holds; None if it is malformed.
    pub fn decode(changed: SeqNo, bytes: &[u8]) -> Option<Rule> {
        let mut from = Reader::new(bytes);
        let keep = Retention::decode(&mut from)?;
        let since = from.u64()?;
        let count = usize::from(from.u8()?);
        let mut past = Vec::with_capacity(count.min(PAST_MAX));
        for _ in 0..count {
            past.push((Retention::decode(&mut from)??, from.u64()?));
        }
        (from.remaining() == 0 && count <= PAST_MAX && since != NEVER).then_some(Rule {
            changed,
            since,
            keep,
            past,
        })
    }
}

/// Months since January of the year 0, and the day of the month from 0, of a day since 1970.
///
/// Howard Hinnant, "chrono-compatible low-level date algorithms": years begin in March, so that the leap day is last.
fn month_of(day: u64) -> (u64, u64) {
    let day = day.saturating_add(719_468);
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5;
    ((era * 400 + year) * 12 + month + 2, of_month)
}

/// The day since 1970 on which a month begins; 0 for one before.
fn first_day(month: u64) -> u64 {
    let from_march = month.saturating_sub(2);
    let (year, month) = (from_march / 12, from_march % 12);
    let days = (year * 365) + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5;
    days.saturating_sub(719_468)
}

#[cfg(any(test, feature = "sim"))]
pub(crate) mod parsers;
#[cfg(test)]
mod tests;
