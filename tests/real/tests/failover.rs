//! Three failovers between real processes; `failover_rounds` is the long form (reliability research, rows 47, 49, 50
//! and 51).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a surprise is a failure")]

use strongroom_real::{failover, pair};
use strongroom_tests::history::Fault;

#[tokio::test(flavor = "multi_thread")]
async fn primary_killed_or_stopped_and_the_standby_promoted_then_nothing_is_lost_and_no_read_is_stale() {
    let seed = std::env::var("STRONGROOM_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(5);
    println!("REPRO: STRONGROOM_SEED={seed} cargo test -p strongroom-real --test failover");
    let dir = tempfile::tempdir().unwrap();
    let binary = pair::binary().unwrap();
    let summary = failover::rounds(&binary, &dir.path().join("pair"), 3, seed)
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    let judged = summary.judge();
    println!("{}", summary.to_json(&judged));
    assert!(
        summary.kills > 0 && summary.stops > 0,
        "the seed gives one of each"
    );
    let violations: Vec<String> = judged
        .application
        .violations
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    assert_eq!(judged.with_strangers.count(Fault::Invented), 0);
    assert_eq!(judged.with_strangers.count(Fault::Future), 0);
}
