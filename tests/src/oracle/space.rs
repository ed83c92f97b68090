//! A keyspace of the model: its entries with their moments, and how long it keeps them.
//!
//! Simpler than the engine's way to the same end: what is past a retention when it changes is taken out then, and what
//! was written before the first is dated anew. The calendar is a list of months.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use strongroom::Retention;

use super::content::{self, Dates};

const DAY_MS: u64 = 24 * 3600 * 1000;

/// On which day since 1970 each month begins, for 2000 years.
static MONTHS: LazyLock<Vec<u64>> = LazyLock::new(|| {
    let mut first = 0;
    let mut months = Vec::new();
    for year in 1970..3970u64 {
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let february = if leap { 29 } else { 28 };
        for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            months.push(first);
            first += days;
        }
    }
    months
});

/// A value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kept {
    pub value: Bytes,
    /// When it expires by itself.
    pub expires: Option<u64>,
    /// When it was written, or counts as such.
    pub written: u64,
}

/// A keyspace.
#[derive(Clone, Default)]
pub(super) struct Space {
    pub entries: BTreeMap<Bytes, Kept>,
    /// It has a retention, or had one.
    pub dated: bool,
    pub keep: Option<Retention>,
    /// From which length on its values go apart.
    pub separate: Option<usize>,
}

impl Space {
    /// When an entry ends, if it does.
    pub fn ends(&self, kept: &Kept) -> Option<u64> {
        let by_age = self.keep.map(|keep| ends(keep, kept.written));
        kept.expires.into_iter().chain(by_age).min()
    }

    /// What is set of it, by this name.
    pub fn settings(&self, name: &str) -> impl Iterator<Item = (Bytes, Bytes)> {
        let keep = self.keep.and_then(|keep| content::setting(name, keep));
        let separate = self.separate.map(|bytes| content::separate(name, bytes));
        keep.into_iter().chain(separate)
    }

    /// It keeps its entries so long from now on.
    pub fn retain(&mut self, keep: Option<Retention>, now: u64) {
        let before = self.clone();
        let there = |kept: &Kept| before.ends(kept).is_none_or(|at| at > now);
        self.entries.retain(|_, kept| there(kept));
        if !self.dated {
            self.entries.values_mut().for_each(|kept| kept.written = now);
        }
        (self.dated, self.keep) = (true, keep);
    }
}

/// When what was written then is past a retention.
pub(crate) fn ends(keep: Retention, written: u64) -> u64 {
    match keep {
        Retention::Days(days) => written + u64::from(days) * DAY_MS,
        Retention::Months(months) => {
            let (day, time) = (written / DAY_MS, written % DAY_MS);
            let month = MONTHS.partition_point(|first| *first <= day) - 1;
            let later = month + months as usize;
            let last = MONTHS[later + 1] - 1;
            (MONTHS[later] + day - MONTHS[month]).min(last) * DAY_MS + time
        }
        _ => unreachable!("a retention the model does not know"),
    }
}

/// When a snapshot's entries end under the retention that their keyspace, `place`, gets now; `undated`: as what those
/// without a date count.
pub fn dated_anew(dates: &mut Dates, place: (&str, &str), keep: Option<Retention>, undated: Option<u64>) {
    for ((tenant, space, _), (expires, written, end)) in dates {
        if (tenant.as_str(), space.as_str()) == place {
            *written = undated.unwrap_or(*written);
            let by_age = keep.map(|keep| ends(keep, *written));
            *end = expires.iter().copied().chain(by_age).min();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_end_where_a_calendar_says() {
        // 2028-01-31, 2028-02-29, 2100-01-30, 2100-02-28.
        for (from, months, to) in [(21_214, 1, 21_243), (47_511, 1, 47_540), (21_214, 12, 21_580)] {
            let ends = ends(Retention::Months(months), from * DAY_MS + 5);
            assert_eq!(ends, to * DAY_MS + 5, "{from}");
        }
    }

    #[test]
    fn a_change_takes_out_what_has_ended_and_dates_what_had_no_date() {
        let mut space = Space::default();
        let kept = |written| Kept {
            value: Bytes::new(),
            expires: None,
            written,
        };
        space.entries.insert(Bytes::from_static(b"old"), kept(0));
        space.retain(Some(Retention::Days(1)), 7 * DAY_MS);
        space
            .entries
            .insert(Bytes::from_static(b"new"), kept(8 * DAY_MS - 1));
        space.retain(Some(Retention::Days(9)), 8 * DAY_MS);
        let left: Vec<_> = space.entries.keys().collect();
        assert_eq!(left, ["new"]);
    }
}
