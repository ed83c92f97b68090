//! Against a calendar that counts day by day, and rules against all that was ever ended.

use super::*;
use crate::version::testing::Dice;

/// (year, month from 1, day from 1), counted up from 1970.
fn calendar(days: u64) -> Vec<(u64, u64, u64)> {
    let (mut year, mut month, mut day) = (1970, 1, 1);
    let mut all = Vec::new();
    for _ in 0..days {
        all.push((year, month, day));
        day += 1;
        if day > length(year, month) {
            (month, day) = (month + 1, 1);
        }
        if month > 12 {
            (year, month) = (year + 1, 1);
        }
    }
    all
}

fn length(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[test]
fn months_end_on_the_same_day_or_on_the_last_of_a_short_month() {
    // Past 2100, which has no leap day, and into 2400, which has.
    let days = calendar(160_000);
    let number = |date| days.binary_search(&date).unwrap() as u64;
    let time = 9 * 3600 * 1000 + 1;
    for (day, (year, month, of_month)) in days.iter().enumerate() {
        assert_eq!(month_of(day as u64), (year * 12 + month - 1, of_month - 1));
        if *of_month == 1 {
            assert_eq!(first_day(year * 12 + month - 1), day as u64);
        }
        for months in [1, 2, 11, 12, 13, 48] {
            let later = year * 12 + month - 1 + months;
            let (year, month) = (later / 12, later % 12 + 1);
            if year > 2405 {
                continue;
            }
            let expected = number((year, month, *of_month.min(&length(year, month))));
            let written = day as u64 * DAY_MS + time;
            let ends = Retention::Months(months as u32).ends(written);
            assert_eq!(ends, expected * DAY_MS + time, "{day} and {months} months");
        }
    }
}

#[test]
fn no_date_and_no_number_overflows() {
    for written in [0, 1, NEVER - 1, NEVER] {
        for keep in [
            Retention::Days(u32::MAX),
            Retention::Months(u32::MAX),
            Retention::Months(1),
        ] {
            assert!(keep.ends(written) >= written || written > NEVER - 32 * DAY_MS);
            keep.ends_first(written);
            keep.written_last(written);
        }
    }
    assert_eq!(Retention::Days(2).written_last(DAY_MS), None);
    assert_eq!(Retention::Months(2).ends(0), 59 * DAY_MS);
}

#[test]
fn what_a_retention_ended_stays_ended_under_every_later_one() {
    let mut remembered = 0;
    for seed in 0..3000 {
        let dice = Dice::new(seed);
        let mut now = 20_000 * DAY_MS + dice.below(800 * DAY_MS);
        let mut rule: Option<Rule> = None;
        let mut written: Vec<u64> = (0..20).map(|_| now - dice.below(70 * DAY_MS)).collect();
        // What has been seen to be gone, and what must never be again.
        let mut gone = std::collections::BTreeSet::new();
        for _ in 0..12 {
            let wait = [DAY_MS / 3, 5 * DAY_MS, 40 * DAY_MS][dice.below(3) as usize];
            let waited = dice.below(wait);
            written.extend((0..20).map(|_| now + dice.below(waited.max(1))));
            now += waited;
            let keep = match dice.below(6) {
                0 => None,
                1 | 2 => Some(Retention::Days(1 + dice.below(60) as u32)),
                _ => Some(Retention::Months(1 + dice.below(2) as u32)),
            };
            if let Some(before) = &rule {
                gone.extend(
                    written
                        .iter()
                        .filter(|at| before.ends(Some(**at)).is_some_and(|end| end <= now)),
                );
            }
            let after = Rule::changed(rule.as_ref(), keep, now).unwrap();
            remembered = remembered.max(after.past.len());
            for at in &gone {
                let end = after.ends(Some(*at));
                assert!(
                    end.is_some_and(|end| end <= now),
                    "seed {seed}: {at} comes back under {after:?}"
                );
            }
            for at in written.iter().filter(|at| !gone.contains(at)) {
                let expected = keep.map(|keep| keep.ends(*at));
                assert_eq!(
                    after.ends(Some(*at)),
                    expected,
                    "seed {seed}: {at} under {after:?}"
                );
            }
            let dated = written.iter().filter(|at| **at >= after.since);
            let first = dated.filter_map(|at| after.ends(Some(*at))).min();
            assert!(first.is_none_or(|first| after.ends_first().is_some_and(|bound| bound <= first)));
            let read = Rule::decode(SeqNo::ZERO, &after.encode());
            assert_eq!(read.as_ref(), Some(&after));
            rule = Some(after);
        }
    }
    assert!((2..=PAST_MAX).contains(&remembered), "{remembered}");
}

#[test]
fn an_entry_without_a_moment_counts_from_the_first_retention_of_its_keyspace() {
    let rule = Rule::changed(None, Some(Retention::Days(10)), 5 * DAY_MS).unwrap();
    assert_eq!(rule.ends(None), Some(15 * DAY_MS));
    let none = Rule::changed(Some(&rule), None, 6 * DAY_MS).unwrap();
    assert_eq!(none.ends(None), None);
    let again = Rule::changed(Some(&none), Some(Retention::Days(2)), 7 * DAY_MS).unwrap();
    assert_eq!(again.ends(None), Some(7 * DAY_MS));
    for zero in [Retention::Days(0), Retention::Months(0)] {
        let refused = Rule::changed(None, Some(zero), 1).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_malformed_rule_is_refused() {
    let rule = Rule::changed(None, Some(Retention::Months(7)), 5).unwrap();
    let rule = Rule::changed(Some(&rule), None, 300 * DAY_MS).unwrap();
    let bytes = rule.encode();
    assert_eq!(bytes.len(), 14 + 13);
    for len in 0..bytes.len() {
        assert_eq!(Rule::decode(SeqNo(1), &bytes[..len]), None, "{len}");
    }
    assert_eq!(Rule::decode(SeqNo(1), &[&bytes[..], &[0]].concat()), None);
    for (at, value) in [(0, 3), (1, 1), (13, 2), (14, 0), (14, 3)] {
        let mut other = bytes.clone();
        other[at] = value;
        assert_eq!(Rule::decode(SeqNo(1), &other), None, "byte {at} is {value}");
    }
}
