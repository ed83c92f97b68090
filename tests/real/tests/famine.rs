//! A real server that runs out of file descriptors (reliability research, rows 16 and 41).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a surprise is a failure")]

use std::net::TcpStream;
use std::time::{Duration, Instant};

use strongroom_client::Client;
use strongroom_real::pair::{PATIENCE, Pair, binary};
use strongroom_tests::dice::Dice;

/// What the process may have: a few dozen more than it needs.
const DESCRIPTORS: u64 = 64;
/// Small memtables: tables are opened while there are no descriptors.
const SETTINGS: [&str; 2] = [
    "replication.serve_without_peer=true",
    "engine.memtable_bytes=65536",
];

async fn within<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_run_out_then_the_server_neither_spins_nor_ends_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let binary = binary().unwrap();
    let mut pair = Pair::prepare(&binary, &dir.path().join("pair"), &SETTINGS, &mut Dice::new(9)).unwrap();
    pair.nodes[0].descriptors_max = Some(DESCRIPTORS);
    pair.nodes[0].spawn().unwrap();
    let mut config = pair.client_config().unwrap();
    config.endpoints.truncate(1);
    config.failover_timeout = PATIENCE;
    let client = Client::connect(config.clone()).await.unwrap();
    client.put("k", "before", "1").await.unwrap();
    let baseline = pair.nodes[0].descriptors();

    let flood: Vec<TcpStream> = (0..4 * DESCRIPTORS)
        .filter_map(|_| TcpStream::connect(&pair.nodes[0].address).ok())
        .collect();
    within("the famine", async || {
        (pair.nodes[0].descriptors() as u64 >= DESCRIPTORS - 1).then_some(())
    })
    .await;
    // A hundred ticks are one second of one processor. Nothing is awaited: what is measured is a span of time in
    // which nothing happens.
    let before = pair.nodes[0].ticks();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spun = pair.nodes[0].ticks() - before;
    assert!(
        spun < 60,
        "{spun} ticks of processor time in a second of doing nothing"
    );
    // Who was connected is served; what needs a new file may fail meanwhile, and nothing else does.
    assert_eq!(client.get("k", "before").await.unwrap().unwrap(), "1");
    let mut written = Vec::new();
    for i in 0..300 {
        if client.put("k", format!("{i:03}"), vec![7; 1000]).await.is_ok() {
            written.push(i);
        }
    }
    pair.nodes[0].alive().unwrap();

    drop(flood);
    let late = within("a new connection", async || {
        Client::connect(config.clone()).await.ok()
    })
    .await;
    within("a write", async || late.put("k", "after", "1").await.ok()).await;
    for i in &written {
        let value = late.get("k", format!("{i:03}")).await.unwrap();
        assert_eq!(value.unwrap().len(), 1000);
    }
    drop(late);
    // Tables written meanwhile stay open: there are more of them, but none of the flood's connections.
    within("the flood's descriptors back", async || {
        (pair.nodes[0].descriptors() < baseline + 15).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storm_of_clients_over_then_descriptors_are_back_at_the_baseline() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [SETTINGS[0]];
    let mut pair = Pair::prepare(
        &binary().unwrap(),
        &dir.path().join("pair"),
        &settings,
        &mut Dice::new(10),
    )
    .unwrap();
    pair.nodes[0].spawn().unwrap();
    let mut config = pair.client_config().unwrap();
    config.endpoints.truncate(1);
    config.failover_timeout = PATIENCE;
    let client = Client::connect(config.clone()).await.unwrap();
    client.put("k", "x", "1").await.unwrap();
    let baseline = pair.nodes[0].descriptors();
    let mut storm = tokio::task::JoinSet::new();
    for i in 0..200 {
        let config = config.clone();
        storm.spawn(async move {
            let client = Client::connect(config).await.unwrap();
            client.put("k", format!("{i}"), "v").await.unwrap();
            client.get("k", "x").await.unwrap()
        });
    }
    while let Some(done) = storm.join_next().await {
        assert_eq!(done.unwrap().unwrap(), "1");
    }
    within("the baseline", async || {
        (pair.nodes[0].descriptors() <= baseline).then_some(())
    })
    .await;
}
