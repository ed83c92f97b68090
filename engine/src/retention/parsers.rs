//! Rules of retention, for fuzzing.

use super::{Retention, Rule};
use crate::hooks::parsers::Parser;
use crate::types::SeqNo;

pub(crate) const PARSERS: &[Parser] = &[Parser {
    name: "retention_rule",
    check: check_rule,
    repair: Parser::no_repair,
    samples: rule_samples,
    memory: Parser::MEMORY,
    memory_per_byte: Parser::MEMORY_PER_BYTE,
}];

fn check_rule(bytes: &[u8]) -> bool {
    let Some(rule) = Rule::decode(SeqNo(7), bytes) else {
        return false;
    };
    assert!(rule.encode() == bytes, "a rule reads back as other bytes");
    // No moment is too far away to be judged.
    rule.ends(Some(u64::MAX));
    let before = |end| rule.ends_first().is_some_and(|first| first <= end);
    assert!(
        rule.ends(None).is_none_or(before),
        "something ends before the first"
    );
    true
}

fn rule_samples() -> Vec<Vec<u8>> {
    let rule = |keep, past: &[(Retention, u64)]| Rule {
        changed: SeqNo(7),
        since: 1_767_225_600_000,
        keep,
        past: past.to_vec(),
    };
    let before = [
        (Retention::Days(30), 1_790_000_000_000),
        (Retention::Months(1), 1_795_000_000_000),
    ];
    vec![
        rule(Some(Retention::Days(90)), &[]).encode(),
        rule(Some(Retention::Months(2)), &before).encode(),
        rule(None, &before[..1]).encode(),
    ]
}
