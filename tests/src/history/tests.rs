use super::search::linearizable;
use super::*;
use crate::dice::Dice;

fn put(value: u64, invoked: u64, returned: u64) -> Operation {
    ended(value, Outcome::Ok, invoked, returned)
}

fn ended(value: u64, outcome: Outcome, invoked: u64, returned: u64) -> Operation {
    Operation {
        key: 7,
        invoked,
        returned,
        action: Action::Put { value, outcome },
    }
}

fn get(value: Option<u64>, invoked: u64, returned: u64) -> Operation {
    Operation {
        key: 7,
        invoked,
        returned,
        action: Action::Get { value },
    }
}

/// Both decisions must be this.
#[track_caller]
fn verdict(operations: &[Operation], expected: Option<Fault>) {
    let verdict = check(operations);
    assert_eq!(
        verdict.violations.first().map(|v| v.fault),
        expected,
        "{verdict:?}"
    );
    assert_eq!(
        linearizable(operations),
        expected.is_none(),
        "the search disagrees"
    );
}

#[test]
fn operations_in_order_and_side_by_side_are_fine() {
    verdict(&[], None);
    verdict(
        &[
            get(None, 1, 2),
            put(1, 3, 4),
            get(Some(1), 5, 6),
            put(2, 7, 8),
            get(Some(2), 9, 10),
        ],
        None,
    );
    // Two puts at once: either may be the last.
    verdict(
        &[
            put(1, 1, 10),
            put(2, 2, 9),
            get(Some(1), 11, 12),
            get(Some(1), 13, 14),
        ],
        None,
    );
    verdict(&[put(1, 1, 10), put(2, 2, 9), get(Some(2), 11, 12)], None);
    // A get beside a put sees the old value or the new one.
    verdict(
        &[
            put(1, 1, 2),
            put(2, 3, 10),
            get(Some(2), 4, 5),
            get(Some(2), 6, 7),
        ],
        None,
    );
    verdict(
        &[
            put(1, 1, 2),
            put(2, 3, 10),
            get(Some(1), 4, 5),
            get(Some(2), 6, 7),
        ],
        None,
    );
}

#[test]
fn stale_read_is_found_and_named() {
    let stale = [put(1, 1, 2), put(2, 3, 4), get(Some(1), 5, 6), get(Some(2), 7, 8)];
    verdict(&stale, Some(Fault::Stale));
    // Beside the put, but after another get had seen it already.
    let beside = [
        put(1, 1, 2),
        put(2, 3, 20),
        get(Some(2), 4, 5),
        get(Some(1), 6, 7),
        get(Some(2), 21, 22),
    ];
    verdict(&beside, Some(Fault::Stale));
    let text = check(&stale).violations[0].to_string();
    assert!(text.starts_with("key 7: an older value was read"), "{text}");
    for shown in ["put of value 2 [3..4] Ok", "get of value 1 [5..6]"] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
}

#[test]
fn lost_write_is_found() {
    verdict(&[put(1, 1, 2), get(None, 3, 4)], Some(Fault::Lost));
    verdict(
        &[put(1, 1, 2), put(2, 3, 4), get(Some(1), 5, 6)],
        Some(Fault::Lost),
    );
}

#[test]
fn resurrected_value_is_found() {
    let back = [
        put(1, 1, 2),
        get(Some(1), 3, 4),
        put(2, 5, 6),
        get(Some(2), 7, 8),
        get(Some(1), 9, 10),
    ];
    verdict(&back, Some(Fault::Lost));
    // An unknown put may come late, but not twice.
    let twice = [
        ended(1, Outcome::Unknown, 1, 2),
        get(Some(1), 3, 4),
        put(2, 5, 6),
        get(Some(2), 7, 8),
        get(Some(1), 9, 10),
    ];
    verdict(&twice, Some(Fault::Lost));
}

#[test]
fn values_from_the_future_or_from_nowhere_are_found() {
    verdict(&[get(Some(1), 1, 2), put(1, 3, 4)], Some(Fault::Future));
    verdict(&[put(1, 1, 2), get(Some(9), 3, 4)], Some(Fault::Invented));
    verdict(
        &[ended(1, Outcome::Failed, 1, 2), get(Some(1), 3, 4)],
        Some(Fault::Failed),
    );
}

#[test]
fn unknown_put_may_take_effect_late_or_never() {
    let unknown = ended(1, Outcome::Unknown, 1, 2);
    verdict(&[unknown, get(None, 3, 4), get(None, 5, 6)], None);
    verdict(&[unknown, get(None, 3, 4), get(Some(1), 5, 6)], None);
    verdict(
        &[unknown, put(2, 3, 4), get(Some(2), 5, 6), get(Some(1), 7, 8)],
        None,
    );
    // Once it is seen, it is there.
    verdict(&[unknown, get(Some(1), 3, 4), get(None, 5, 6)], Some(Fault::Lost));
}

#[test]
fn value_put_twice_is_refused_as_the_tests_own_fault() {
    let twice = check(&[put(1, 1, 2), put(1, 3, 4)]);
    assert_eq!(twice.violations[0].fault, Fault::Twice);
}

#[test]
fn keys_are_judged_apart() {
    let mut operations = vec![put(1, 1, 2), get(Some(1), 3, 4)];
    let other = [put(2, 5, 6), get(None, 7, 8)].map(|operation| Operation { key: 8, ..operation });
    operations.extend(other);
    let verdict = check(&operations);
    assert_eq!((verdict.keys, verdict.operations), (2, 4));
    assert_eq!(verdict.violations.iter().map(|v| v.key).collect::<Vec<_>>(), [8]);
}

#[test]
fn recorder_gives_later_calls_larger_ticks() {
    let recorder = Recorder::new();
    let outer = recorder.call(1);
    recorder.call(1).got(None);
    outer.put(5, Outcome::Ok);
    recorder.call(1).got(Some(5));
    drop(recorder.call(1));
    let ticks: Vec<_> = recorder
        .operations()
        .iter()
        .map(|o| (o.invoked, o.returned))
        .collect();
    assert_eq!(ticks, [(2, 3), (1, 4), (5, 6)]);
    assert!(check(&recorder.operations()).violations.is_empty());
}

/// What clients of one true register see: each call takes effect at one tick between its two, or, if the
/// outcome is unknown, at any later one or never.
fn true_history(dice: &mut Dice) -> Vec<Operation> {
    let (clients, length) = (1 + dice.below(4), 40);
    struct Event {
        at: u64,
        operation: usize,
    }
    let mut operations = Vec::new();
    let mut effects = Vec::new();
    let mut value = 0;
    for _ in 0..clients {
        let mut at = 0;
        while at < length && operations.len() < 14 {
            let invoked = at + 1 + dice.below(6);
            let returned = invoked + 2 + dice.below(10);
            at = returned;
            let action = if dice.percent(50) {
                value += 1;
                let outcome = *dice.pick(&[Outcome::Ok, Outcome::Ok, Outcome::Unknown, Outcome::Failed]);
                Action::Put { value, outcome }
            } else {
                Action::Get { value: None }
            };
            let effect = match action {
                Action::Put {
                    outcome: Outcome::Unknown,
                    ..
                } => invoked + dice.below(60),
                Action::Put {
                    outcome: Outcome::Failed,
                    ..
                } => u64::MAX,
                _ => invoked + dice.below(returned - invoked + 1),
            };
            effects.push(Event {
                at: effect,
                operation: operations.len(),
            });
            operations.push(Operation {
                key: 7,
                invoked,
                returned,
                action,
            });
        }
    }
    effects.sort_by_key(|effect| effect.at);
    let mut now = None;
    for effect in effects.iter().filter(|effect| effect.at < u64::MAX) {
        match &mut operations[effect.operation].action {
            Action::Put { value, .. } => now = Some(*value),
            Action::Get { value } => *value = now,
        }
    }
    operations
}

/// Makes one get lie, or one put end otherwise.
fn corrupt(operations: &mut [Operation], dice: &mut Dice) {
    let puts = operations
        .iter()
        .filter(|o| matches!(o.action, Action::Put { .. }))
        .count() as u64;
    let i = dice.below(operations.len() as u64) as usize;
    match &mut operations[i].action {
        Action::Get { value } => *value = Some(dice.below(puts + 2)).filter(|value| *value > 0),
        Action::Put { outcome, .. } => *outcome = *dice.pick(&[Outcome::Ok, Outcome::Failed]),
    }
}

#[test]
fn histories_of_a_true_register_pass_and_both_decisions_agree_on_corrupted_ones() {
    let (mut wrong, mut right) = (0, 0);
    for seed in 0..6_000 {
        let mut dice = Dice::new(seed);
        let mut operations = true_history(&mut dice);
        let verdict = check(&operations);
        assert!(
            verdict.violations.is_empty(),
            "seed {seed}: {}",
            verdict.violations[0]
        );
        assert!(
            linearizable(&operations),
            "seed {seed}: the search refuses a true history"
        );
        for _ in 0..1 + dice.below(3) {
            corrupt(&mut operations, &mut dice);
        }
        let quick = check(&operations).violations.is_empty();
        assert_eq!(quick, linearizable(&operations), "seed {seed}: {operations:#?}");
        if quick { right += 1 } else { wrong += 1 }
    }
    assert!(wrong > 1_000 && right > 1_000, "{wrong} wrong, {right} right");
}

#[test]
fn a_hundred_thousand_operations_on_one_key_are_judged() {
    let mut operations = Vec::new();
    for value in 1..50_000u64 {
        operations.push(put(value, 4 * value, 4 * value + 1));
        operations.push(get(Some(value), 4 * value + 2, 4 * value + 3));
    }
    assert!(check(&operations).violations.is_empty());
    operations.push(get(Some(30_000), 150_000, 150_001));
    assert_eq!(check(&operations).violations[0].fault, Fault::Stale);
}
