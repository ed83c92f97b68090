use std::time::Duration;

use super::shares::{Delay, Shares};
use super::*;
use crate::types::TenantId;

const MIB: u64 = 1 << 20;

fn at(memory: u64, level0: u64, excess: u64) -> Debt {
    Debt {
        memory,
        level0,
        excess,
    }
}

fn rate_of(debt: Debt) -> Option<(u64, Pressure)> {
    rate(&debt, Drain::default, &Options::default())
}

#[test]
fn writers_are_free_until_a_debt_begins_to_matter() {
    let options = Options::default();
    let memory = (options.memtable_bytes * (options.immutable_memtables_max + 1) / 2) as u64;
    // The table that memtables will be is counted with level 0.
    let tables = 2 * options.level0_tables as u64 - 1;
    assert_eq!(rate_of(at(memory, tables, 2 << 30)), None);
    assert_eq!(
        rate(&at(memory, tables, 0), || panic!("no rate is needed"), &options),
        None
    );
    let why = |debt| rate_of(debt).map(|(_, why)| why);
    assert_eq!(why(at(memory + 1, 0, 0)), Some(Pressure::Memtables));
    assert_eq!(why(at(1, tables + 1, 0)), Some(Pressure::Level0));
    assert_eq!(why(at(0, 0, 4 << 30)), Some(Pressure::Levels));
}

#[test]
fn each_debt_slows_writers_without_a_step_to_what_drains_it_and_less() {
    let options = Options::default();
    let stop = options.level0_tables_stop as u64;
    let of_memory: Box<dyn Fn(u64) -> Debt> = Box::new(|step| at(step * MIB / 8, 0, 0));
    let of_level0: Box<dyn Fn(u64) -> Debt> = Box::new(|step| at((step % 512) * MIB / 8, step / 512, 0));
    let of_levels: Box<dyn Fn(u64) -> Debt> = Box::new(|step| at(0, 0, step * 2 * MIB));
    for (debt, ends) in [
        (of_memory, 192 * 8),
        (of_level0, stop * 512),
        (of_levels, 7 * 1024),
    ] {
        // How long a MiB takes, in microseconds.
        let takes = |step| rate_of(debt(step)).map_or(0, |(rate, _)| MIB * 1_000_000 / rate);
        let slowest = MIB * 1_000_000 / (DRAIN_AT_FIRST / SLOWEST);
        for step in 1..ends {
            let (before, now) = (takes(step - 1), takes(step));
            assert!(now >= before, "{:?} is faster than one step before", debt(step));
            assert!(
                now - before <= 50 + before || now == slowest,
                "a step at {:?}: {before} then {now} µs",
                debt(step)
            );
        }
        assert_eq!(takes(ends - 1), slowest, "{:?}", debt(ends - 1));
        assert_eq!(takes(ends * 2), slowest, "and never nothing at all");
    }
}

#[test]
fn the_smallest_distance_between_trigger_and_stop_slows_writers_too() {
    let mut options = Options::tiny();
    options.validate().unwrap();
    options.level0_tables_stop = 2 * options.level0_tables;
    let memtable = options.memtable_bytes as u64;
    let slowed = |memory, level0| rate(&at(memory, level0, 0), Drain::default, &options);
    assert!(slowed(0, 3).is_none() && slowed(memtable / 2, 3).is_some());
}

#[test]
fn a_drain_follows_what_jobs_do_and_believes_no_single_one() {
    let mut drain = Drain::default();
    let second = Duration::from_secs(1);
    for _ in 0..40 {
        drain.flushed(100 * MIB, second);
        // Half of the time of compactions goes into other levels.
        drain.compacted(0, second);
        drain.compacted(100 * MIB, second);
    }
    let near = |rate: u64, to: u64| rate.abs_diff(to) < to / 50;
    assert!(
        near(drain.flush, 100 * MIB) && near(drain.level0, 50 * MIB),
        "{drain:?}"
    );
    let before = drain;
    drain.compacted(1 << 60, Duration::ZERO);
    assert!(
        drain.level0 <= before.level0 * 2,
        "tables that only moved took no time"
    );
    for _ in 0..100 {
        drain.flushed(1, second);
    }
    assert_eq!(drain.flush, DRAIN_MIN);
}

const FLOOD: TenantId = TenantId(1);
const OTHER: TenantId = TenantId(2);

/// How long a batch sleeps in all if nothing changes meanwhile.
fn slept(mut delay: Delay, shares: &Shares) -> Duration {
    std::iter::from_fn(|| delay.sleep(shares)).sum()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_tenant_that_floods_waits_for_its_own_batches_and_another_for_none() {
    let mut shares = Shares::default();
    shares.pass(ms(0), 1000);
    let waits: Vec<Duration> = (0..4)
        .map(|_| {
            let delay = shares.take(FLOOD, 100);
            slept(delay, &shares)
        })
        .collect();
    assert_eq!(waits, [ms(0), ms(100), ms(200), ms(300)]);
    let other = shares.take(OTHER, 10);
    assert_eq!(slept(other, &shares), ms(0));
    // While the other's 10 bytes are paid, the rate is for two.
    shares.pass(ms(20), 1000);
    let next = shares.take(OTHER, 10);
    assert_eq!(slept(next, &shares), ms(0));
    let flood = shares.take(FLOOD, 100);
    assert_eq!(slept(flood, &shares), ms(2 * 390));
}

#[test]
fn a_wait_ends_sooner_when_writers_may_write_faster_and_no_later_when_slower() {
    let mut shares = Shares::default();
    shares.pass(ms(0), 1000);
    let _ = shares.take(FLOOD, 100);
    let mut delay = shares.take(FLOOD, 100);
    assert_eq!(delay.sleep(&shares), Some(ms(20)));
    shares.pass(ms(20), 1);
    assert_eq!(slept(delay, &shares), ms(80), "not 80 seconds");
    let mut delay = shares.take(FLOOD, 100);
    let _ = delay.sleep(&shares);
    shares.pass(ms(21), 1_000_000);
    assert_eq!(delay.sleep(&shares), None);
    let _ = shares.take(FLOOD, 1 << 40);
    let delay = shares.take(FLOOD, 1);
    assert_eq!(slept(delay, &shares), shares::DELAY_MAX);
}

#[test]
fn tenants_that_all_write_more_get_the_same_and_together_the_rate() {
    let mut shares = Shares::default();
    let (mut wrote, mut waits) = ([0u64; 2], [None, None]);
    let (batches, mut due) = ([100, 700], [0; 2]);
    for now in 0..100_000 {
        shares.pass(ms(now), 10_000);
        for (i, tenant) in [FLOOD, OTHER].into_iter().enumerate() {
            if now < due[i] {
                continue;
            }
            let delay = waits[i].get_or_insert_with(|| shares.take(tenant, batches[i]));
            match delay.sleep(&shares) {
                Some(sleep) => due[i] = now + sleep.as_millis() as u64,
                None => {
                    wrote[i] += batches[i];
                    waits[i] = None;
                }
            }
        }
    }
    let all = wrote[0] + wrote[1];
    assert!(all.abs_diff(1_000_000) < 20_000, "{wrote:?}");
    assert!(wrote[0].abs_diff(wrote[1]) < 50_000, "{wrote:?}");
}

#[test]
fn who_has_not_written_lately_is_not_remembered() {
    let mut shares = Shares::default();
    shares.pass(ms(0), 1_000_000);
    for tenant in 0..1000 {
        let _ = shares.take(TenantId(tenant), 100);
    }
    assert_eq!(shares.tenants(), 1000);
    shares.pass(ms(50), 1_000_000);
    assert_eq!(shares.tenants(), 1000, "each has half of its 100 bytes");
    shares.pass(ms(101), 1_000_000);
    assert_eq!(shares.tenants(), 0);
}

#[test]
fn when_nobody_is_slowed_any_more_every_turn_has_come() {
    let mut shares = Shares::default();
    shares.pass(ms(0), 1000);
    let _ = shares.take(FLOOD, 1 << 30);
    let mut delay = shares.take(FLOOD, 1 << 30);
    assert!(delay.sleep(&shares).is_some());
    shares.forgive();
    assert_eq!((delay.sleep(&shares), shares.tenants()), (None, 0));
    let next = shares.take(FLOOD, 1);
    assert_eq!(slept(next, &shares), ms(0));
}

#[test]
fn machines_of_many_kinds_then_floods_slow_down_and_nobody_stops_or_waits_for_another() {
    for seed in 0..8 {
        model::check(seed).unwrap();
    }
}
