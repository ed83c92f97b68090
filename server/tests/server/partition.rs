//! A pair whose link breaks: cut, silent in one direction or in both (reliability research, rows 43, 44 and 51).
//!
//! What must hold in every case: a `Replicated` write ends in `Unknown` in time and is never acknowledged, reads go
//! on, and after healing the standby has every batch once, in order, without a gap.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use strongroom_client::proto::admin as pb;
use strongroom_client::{Client, Kind, RangeOptions};
use strongroom_server::app::App;

use crate::link::{Link, Mode};
use crate::pair::{TestPair, replicated, status_until};
use crate::{refused, within};

/// How long a write waits for the standby.
const PATIENCE: Duration = Duration::from_millis(300);

/// A primary and a standby that reaches it over a link.
struct Linked {
    pair: TestPair,
    a: App,
    b: App,
    link: Link,
    token: String,
}

impl Linked {
    async fn start() -> Linked {
        let pair = TestPair::new();
        let start = async |node: &str, replication: &str| {
            let mut config = pair.config(node, replication);
            config.engine.replicated_timeout_ms = PATIENCE.as_millis() as u64;
            within("start", App::start(config)).await.unwrap()
        };
        let a = start("a", "").await;
        let link = Link::to(a.addresses().replication.unwrap()).await;
        let peer = link.address;
        let b = start("b", &format!("role = \"standby\"\npeer = \"{peer}\"")).await;
        let admin = pair.admin(&a).await;
        admin.create_tenant("acme").await.unwrap();
        let token = admin.create_token("acme").await.unwrap().token;
        let linked = Linked {
            pair,
            a,
            b,
            link,
            token,
        };
        linked.in_sync().await;
        linked
    }

    async fn in_sync(&self) {
        let admin = self.pair.admin(&self.a).await;
        status_until(&admin, "the standby to have all", |s| {
            s.peers.iter().any(|p| {
                p.connected && p.durable_lsn == s.durable_lsn && p.keystore_version == s.keystore_version
            })
        })
        .await;
    }

    async fn entries(client: &Client) -> BTreeMap<String, String> {
        let mut entries = client.range("k", RangeOptions::all()).await.unwrap();
        let mut all = BTreeMap::new();
        while let Some((key, value)) = entries.next().await.unwrap() {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            assert_eq!(all.insert(text(&key), text(&value)), None);
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn link_broken_in_any_way_then_replicated_writes_are_unknown_and_after_healing_all_is_there_once() {
    let linked = Linked::start().await;
    let client = linked.pair.client(&[&linked.a], &linked.token).await;
    let mut expected = BTreeMap::new();
    for (round, mode) in [Mode::HoldsDialler, Mode::HoldsDialled, Mode::HoldsBoth, Mode::Cut]
        .into_iter()
        .enumerate()
    {
        let key = |i: usize| format!("{round}/{i}");
        for i in 0..5 {
            client
                .put_with("k", key(i), "before", replicated())
                .await
                .unwrap();
            expected.insert(key(i), "before".to_owned());
        }
        linked.link.becomes(mode);
        let begun = Instant::now();
        refused(
            client.put_with("k", key(5), "during", replicated()).await,
            Kind::Unknown,
        );
        assert!(
            begun.elapsed() >= PATIENCE,
            "{mode:?}: it gave up before its time"
        );
        expected.insert(key(5), "during".to_owned());
        // Reads and local writes go on.
        assert_eq!(client.get("k", key(4)).await.unwrap().unwrap(), "before");
        client.put("k", key(6), "local").await.unwrap();
        expected.insert(key(6), "local".to_owned());
        linked.link.becomes(Mode::Whole);
        linked.in_sync().await;
        client.put_with("k", key(7), "after", replicated()).await.unwrap();
        expected.insert(key(7), "after".to_owned());
        assert_eq!(Linked::entries(&client).await, expected, "{mode:?}");
    }
    // The standby has the same: it takes over, and its log goes on where the old one ended.
    linked.in_sync().await;
    within("stop", linked.a.stop()).await.unwrap();
    let request = pb::PromoteRequest {
        max_loss_bytes: Some(0),
        ..Default::default()
    };
    linked.pair.admin(&linked.b).await.promote(request).await.unwrap();
    let client = linked.pair.client(&[&linked.b], &linked.token).await;
    assert_eq!(Linked::entries(&client).await, expected);
    within("stop", linked.b.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_primary_that_was_not_told_then_a_client_that_knows_the_new_one_refuses_its_answers() {
    let linked = Linked::start().await;
    // Knows both nodes, and will meet both.
    let client = linked.pair.client(&[&linked.a, &linked.b], &linked.token).await;
    // Knows only the old primary.
    let stranger = linked.pair.client(&[&linked.a], &linked.token).await;
    client.put_with("k", "x", "old", replicated()).await.unwrap();
    linked.link.becomes(Mode::Cut);
    let admin = linked.pair.admin(&linked.b).await;
    admin.promote(pb::PromoteRequest::default()).await.unwrap();
    // It is still at the old primary, which cannot confirm: the next call looks elsewhere.
    refused(
        client.put_with("k", "x", "lost", replicated()).await,
        Kind::Unknown,
    );
    client.put("k", "x", "new").await.unwrap();
    assert_eq!(client.get("k", "x").await.unwrap().unwrap(), "new");
    within("stop", linked.b.stop()).await.unwrap();
    // Only the old primary answers now. What it says is of the past: no answer is better.
    assert_eq!(stranger.get("k", "x").await.unwrap().unwrap(), "old");
    refused(client.get("k", "x").await, Kind::Fenced);
    refused(client.put("k", "x", "kept by nobody").await, Kind::Unknown);
    within("stop", linked.a.stop()).await.unwrap();
}
