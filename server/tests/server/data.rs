//! The key-value service: every call, its limits, isolation, snapshots.

use bytes::Bytes;
use strongroom_client::proto::kv as pb;
use strongroom_client::proto::kv::kv_client::KvClient;
use strongroom_client::{Batch, Client, ClientError, Durability, Entries, Kind, RangeOptions, WriteOptions};
use tonic::{Code, Request};

use crate::{TestNode, refused, within};

async fn all(mut entries: Entries) -> Result<Vec<(Bytes, Bytes)>, ClientError> {
    let mut found = Vec::new();
    while let Some(entry) = within("entry", entries.next()).await? {
        found.push(entry);
    }
    Ok(found)
}

async fn keys(client: &Client, options: RangeOptions) -> Vec<String> {
    let entries = all(client.range("k", options).await.unwrap()).await.unwrap();
    entries
        .into_iter()
        .map(|(key, _)| String::from_utf8(key.to_vec()).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn value_written_then_read_until_deleted() {
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    assert_eq!(client.get("k", "a").await.unwrap(), None, "keyspace is missing");
    let first = client.put("k", "a", "1").await.unwrap();
    assert_eq!(client.get("k", "a").await.unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(client.get("other", "a").await.unwrap(), None);
    let second = client.put("k", "a", "").await.unwrap();
    assert_eq!(
        client.get("k", "a").await.unwrap().as_deref(),
        Some(&b""[..]),
        "an empty value is a value"
    );
    let third = client.delete("k", "a").await.unwrap();
    assert_eq!(client.get("k", "a").await.unwrap(), None);
    client.delete("k", "a").await.unwrap();
    assert_eq!(first.epoch, second.epoch);
    assert!(first.lsn < second.lsn && second.lsn < third.lsn);
    assert!(first.seqno < second.seqno && second.seqno < third.seqno);
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_over_keyspaces_then_all_or_nothing() {
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    client.put("x", "old", "1").await.unwrap();
    let batch = Batch::new()
        .put("x", "a", "1")
        .put("y", "a", "2")
        .delete("x", "old")
        .put("x", "a", "3");
    client.batch(batch).await.unwrap();
    assert_eq!(
        client.get("x", "a").await.unwrap().as_deref(),
        Some(&b"3"[..]),
        "later operations win"
    );
    assert_eq!(client.get("y", "a").await.unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(client.get("x", "old").await.unwrap(), None);

    let broken = Batch::new()
        .put("x", "b", "1")
        .put("x", "", "empty key")
        .put("y", "b", "1");
    refused(client.batch(broken).await, Kind::Invalid);
    assert_eq!(client.get("x", "b").await.unwrap(), None);
    refused(client.batch(Batch::new()).await, Kind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn condition_holds_then_the_batch_is_applied_and_otherwise_nothing_is_and_the_kind_is_conflict() {
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    let first = |value: &'static str| {
        Batch::new()
            .put("k", "a", value)
            .put("other", "x", value)
            .require("k", "a", None)
    };
    client.batch(first("1")).await.unwrap();
    refused(client.batch(first("2")).await, Kind::Conflict);
    assert_eq!(
        client.get("other", "x").await.unwrap().as_deref(),
        Some(&b"1"[..])
    );

    let swap = |from: &'static str, to: &'static str| {
        Batch::new()
            .put("k", "a", to)
            .require("k", "a", Some(Bytes::from(from)))
    };
    client.batch(swap("1", "2")).await.unwrap();
    refused(client.batch(swap("1", "3")).await, Kind::Conflict);
    assert_eq!(client.get("k", "a").await.unwrap().as_deref(), Some(&b"2"[..]));

    // In a keyspace that does not exist no key has a value; a failed batch creates none.
    let absent = |value| Batch::new().put("new", "b", "1").require("new", "a", value);
    refused(client.batch(absent(Some(Bytes::from("1")))).await, Kind::Conflict);
    client.batch(absent(None)).await.unwrap();
    refused(
        client.batch(Batch::new().require("k", "a", None)).await,
        Kind::Invalid,
    );
    refused(
        client.batch(swap("2", "3").require("k", "", None)).await,
        Kind::Invalid,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn value_with_a_time_to_live_then_absent_once_it_has_passed() {
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    let hour = std::time::Duration::from_secs(3600);
    let brief = std::time::Duration::from_millis(1);
    client
        .put_with("k", "long", "1", WriteOptions::new().ttl(hour))
        .await
        .unwrap();
    client
        .batch(Batch::new().put_expiring("k", "a", "1", brief).put("k", "b", "2"))
        .await
        .unwrap();
    // An event to wait for: it can only go.
    while client.get("k", "a").await.unwrap().is_some() {}
    assert_eq!(keys(&client, RangeOptions::all()).await, ["b", "long"]);
    client
        .batch(Batch::new().put("k", "a", "3").require("k", "a", None))
        .await
        .unwrap();

    refused(
        client.delete_with("k", "a", WriteOptions::new().ttl(hour)).await,
        Kind::Invalid,
    );
    refused(
        client
            .batch_with(Batch::new().delete("k", "a"), WriteOptions::new().ttl(hour))
            .await,
        Kind::Invalid,
    );
    let never = Batch::new().put_expiring("k", "a", "1", std::time::Duration::ZERO);
    refused(client.batch(never).await, Kind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_asked_for_then_answered_in_their_order_at_one_version_however_large() {
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    let none: [&str; 0] = [];
    assert!(client.get_many("k", none).await.unwrap().is_empty());
    assert_eq!(client.get_many("k", ["a", "b"]).await.unwrap(), [None, None]);
    // Three answers of 16 MiB at most hold these, and several calls these keys.
    let large = Bytes::from(vec![7; 9 << 20]);
    client.put("k", "a", large.clone()).await.unwrap();
    client.put("k", "b", large.clone()).await.unwrap();
    client.put("k", "c", "3").await.unwrap();
    let snapshot = client.snapshot().await.unwrap();
    client.put("k", "c", "4").await.unwrap();
    let asked = ["c", "b", "missing", "a", "c"];
    let expected = |c: &'static str| {
        let c = Some(Bytes::from(c));
        [c.clone(), Some(large.clone()), None, Some(large.clone()), c]
    };
    assert!(client.get_many("k", asked).await.unwrap() == expected("4"));
    assert!(snapshot.get_many("k", asked).await.unwrap() == expected("3"));
    let found = client.get_many("k", vec!["c"; 3000]).await.unwrap();
    assert!(found.len() == 3000 && found.iter().all(|value| value.as_deref() == Some(b"4")));
    refused(client.get_many("k", ["a", ""]).await, Kind::Invalid);
    snapshot.release().await.unwrap();
    refused(
        client.snapshot().await.unwrap().get_many("", ["a"]).await,
        Kind::Invalid,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn range_deleted_then_its_keys_are_absent_and_what_the_batch_puts_later_is_there() {
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    let puts = ["a", "b", "c", "d"].into_iter();
    let batch = puts
        .clone()
        .fold(Batch::new(), |batch, key| batch.put("k", key, "1"));
    client.batch(batch).await.unwrap();
    let snapshot = client.snapshot().await.unwrap();
    let batch = Batch::new().delete_range("k", "b".."d").put("k", "c", "2");
    client.batch(batch).await.unwrap();
    assert_eq!(keys(&client, RangeOptions::all()).await, ["a", "c", "d"]);
    assert_eq!(client.get("k", "c").await.unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(snapshot.get("k", "b").await.unwrap().as_deref(), Some(&b"1"[..]));
    client.batch(Batch::new().delete_prefix("k", "c")).await.unwrap();
    assert_eq!(keys(&client, RangeOptions::all()).await, ["a", "d"]);
    for empty in [
        Batch::new().delete_range("k", "b".."b"),
        Batch::new().delete_range("k", ..""),
    ] {
        refused(client.batch(empty).await, Kind::Invalid);
    }
    client
        .batch(Batch::new().delete_range::<&str>("k", ..))
        .await
        .unwrap();
    assert!(keys(&client, RangeOptions::all()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_retention_and_values_apart_set_by_the_operator_then_kept() {
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    let admin = node.admin().await;
    client.put("k", "a", vec![1; 5000]).await.unwrap();
    assert_eq!(client.usage().await.unwrap().quota, None);
    admin.set_quota("acme", Some(4000)).await.unwrap();
    assert_eq!(client.usage().await.unwrap().quota, Some(4000));
    refused(client.put("k", "b", "1").await, Kind::QuotaExceeded);
    client.delete("k", "b").await.unwrap();
    admin.set_quota("acme", None).await.unwrap();
    client.put("k", "b", "1").await.unwrap();
    refused(admin.set_quota("nobody", None).await, Kind::NotFound);

    use strongroom_client::proto::admin::set_retention_request::Keep;
    admin
        .set_retention("acme", "k", Some(Keep::Months(2)))
        .await
        .unwrap();
    let kept = admin.show_tenant("acme").await.unwrap();
    use strongroom_client::proto::admin::keyspace::Keep as Kept;
    assert_eq!(kept.keyspaces.len(), 1, "{kept:?}");
    assert_eq!(
        (&*kept.keyspaces[0].name, kept.keyspaces[0].keep),
        ("k", Some(Kept::Months(2)))
    );
    admin.set_retention("acme", "k", None).await.unwrap();
    let kept = admin.show_tenant("acme").await.unwrap();
    assert_eq!((kept.keyspaces[0].keep, kept.quota), (None, None));
    assert!(kept.memtable_bytes >= 5000, "{kept:?}");
    refused(admin.show_tenant("nobody").await, Kind::NotFound);
    refused(
        admin.set_retention("acme", "k", Some(Keep::Days(0))).await,
        Kind::Invalid,
    );
    refused(admin.set_retention("nobody", "k", None).await, Kind::NotFound);

    for (bytes, wrong) in [(Some(2048), 63), (Some(0), u64::MAX), (None, 1 << 32)] {
        admin.set_separate_bytes("acme", "k", bytes).await.unwrap();
        let shown = admin.show_tenant("acme").await.unwrap();
        assert_eq!(shown.keyspaces[0].separate_bytes, bytes);
        let refusal = admin.set_separate_bytes("acme", "k", Some(wrong)).await;
        refused(refusal, Kind::Invalid);
    }
    refused(
        admin.set_separate_bytes("nobody", "k", None).await,
        Kind::NotFound,
    );
    assert!(client.get("k", "a").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_then_what_this_tenant_wrote_and_no_other() {
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    let (other, _) = node.tenant("other").await;
    other.put("k", "a", vec![1; 100_000]).await.unwrap();
    client.put("k", "a", vec![1; 10_000]).await.unwrap();
    client.delete("k", "b").await.unwrap();
    let before = client.usage().await.unwrap();
    assert!((10_000..50_000).contains(&before.memtable_bytes), "{before:?}");
    assert_eq!(before.table_bytes, 0);
    node.admin().await.compact().await.unwrap();
    let after = client.usage().await.unwrap();
    assert_eq!((after.memtable_bytes, after.deletes), (0, 0), "{after:?}");
    assert!(
        after.entries > 0 && after.table_bytes > 0 && after.table_bytes < 50_000,
        "{after:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn durability_chosen_then_kept_or_refused() {
    let node = TestNode::start("[engine]\nreplicated_timeout_ms = 200\n").await;
    let (client, _) = node.tenant("acme").await;
    for durability in [Durability::Unspecified, Durability::Buffered, Durability::Local] {
        client
            .put_with("k", "a", "1", WriteOptions::new().durability(durability))
            .await
            .unwrap();
    }
    // There is no standby: nobody can confirm, and the client is told exactly that.
    let replicated = WriteOptions::new().durability(Durability::Replicated);
    refused(client.put_with("k", "b", "1", replicated).await, Kind::Unknown);
    // The connection was good and the node the primary: the next call finds it again.
    client.put("k", "c", "1").await.unwrap();

    let mut raw = KvClient::new(node.channel().await);
    let (_, token) = node.tenant("raw").await;
    let mut request = Request::new(pb::PutRequest {
        keyspace: "k".into(),
        key: "a".into(),
        value: "1".into(),
        durability: 77,
        ttl_ms: None,
    });
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    assert_eq!(raw.put(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn range_with_bounds_then_exactly_its_entries() {
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    assert!(
        keys(&client, RangeOptions::all()).await.is_empty(),
        "keyspace is missing"
    );
    for key in ["a", "b", "ba", "bb", "c"] {
        client.put("k", key, key.to_uppercase()).await.unwrap();
    }
    client.put("other", "b", "not this").await.unwrap();
    assert_eq!(
        keys(&client, RangeOptions::all()).await,
        ["a", "b", "ba", "bb", "c"]
    );
    assert_eq!(
        keys(&client, RangeOptions::all().reverse()).await,
        ["c", "bb", "ba", "b", "a"]
    );
    assert_eq!(keys(&client, RangeOptions::all().limit(2)).await, ["a", "b"]);
    assert_eq!(keys(&client, RangeOptions::all().reverse().limit(1)).await, ["c"]);
    assert_eq!(keys(&client, RangeOptions::prefix("b")).await, ["b", "ba", "bb"]);
    assert_eq!(keys(&client, RangeOptions::keys("b".."bb")).await, ["b", "ba"]);
    assert_eq!(
        keys(&client, RangeOptions::keys("b"..="bb").reverse()).await,
        ["bb", "ba", "b"]
    );
    assert_eq!(keys(&client, RangeOptions::keys("bb"..)).await, ["bb", "c"]);
    let after = (std::ops::Bound::Excluded("b"), std::ops::Bound::Unbounded);
    assert_eq!(
        keys(&client, RangeOptions::keys::<&str>(after)).await,
        ["ba", "bb", "c"]
    );
    for backwards in [
        RangeOptions::keys("c".."a"),
        RangeOptions::keys("c".."a").reverse(),
    ] {
        assert!(keys(&client, backwards).await.is_empty(), "ends before it begins");
    }
    let entries = all(client.range("k", RangeOptions::keys("a"..="a")).await.unwrap())
        .await
        .unwrap();
    assert_eq!(entries, [(Bytes::from("a"), Bytes::from("A"))]);
    let entries = all(client
        .range("k", RangeOptions::keys("a"..="a").keys_only())
        .await
        .unwrap())
    .await
    .unwrap();
    assert_eq!(entries, [(Bytes::from("a"), Bytes::new())]);
    let long = vec![b'x'; (16 << 10) + 1];
    refused(
        client.range("k", RangeOptions::prefix(&long)).await,
        Kind::Invalid,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn range_larger_than_a_message_then_whole_and_in_small_messages() {
    let node = TestNode::start("").await;
    let (client, token) = node.tenant("acme").await;
    // Around every border: pieces of 512 KiB, chunks of 256 KiB.
    let sizes = [
        0, 1, 262_143, 262_144, 524_287, 524_288, 524_289, 1_048_576, 1_048_577, 3_000_000, 5, 0,
    ];
    let mut expected = Vec::new();
    for (i, size) in sizes.into_iter().enumerate() {
        let value: Vec<u8> = (0..size).map(|j| (i * 31 + j) as u8).collect();
        expected.push((Bytes::from(format!("{i:03}")), Bytes::from(value)));
    }
    for i in 100..3_000 {
        expected.push((Bytes::from(format!("{i:05}x")), Bytes::from(vec![7; 300])));
    }
    expected.sort();
    for entries in expected.chunks(400) {
        let batch = entries
            .iter()
            .fold(Batch::new(), |b, (k, v)| b.put("k", k.clone(), v.clone()));
        client
            .batch_with(batch, WriteOptions::new().durability(Durability::Buffered))
            .await
            .unwrap();
    }
    assert!(
        all(client.range("k", RangeOptions::all()).await.unwrap())
            .await
            .unwrap()
            == expected
    );
    expected.reverse();
    assert!(
        all(client.range("k", RangeOptions::all().reverse()).await.unwrap())
            .await
            .unwrap()
            == expected
    );

    let mut raw = KvClient::new(node.channel().await);
    let mut request = Request::new(pb::RangeRequest {
        keyspace: "k".into(),
        ..Default::default()
    });
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut stream = raw.range(request).await.unwrap().into_inner();
    let mut messages = 0;
    while let Some(message) = within("message", stream.message()).await.unwrap() {
        assert!(prost::Message::encoded_len(&message) < 1 << 20);
        messages += 1;
    }
    assert!(messages > 10, "{messages}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_then_their_edge_is_allowed_and_the_next_byte_is_not() {
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    let key = |n: usize| vec![b'k'; n];
    let name = |n: usize| "n".repeat(n);
    client.put("k", key(1), "v").await.unwrap();
    client.put("k", key(16 << 10), "v").await.unwrap();
    assert!(client.get("k", key(16 << 10)).await.unwrap().is_some());
    for bad in [0, (16 << 10) + 1] {
        refused(client.put("k", key(bad), "v").await, Kind::Invalid);
        refused(client.get("k", key(bad)).await, Kind::Invalid);
        refused(client.delete("k", key(bad)).await, Kind::Invalid);
        refused(client.get("missing", key(bad)).await, Kind::Invalid);
    }
    client.put(&name(255), "a", "v").await.unwrap();
    for bad in [0, 256] {
        refused(client.put(&name(bad), "a", "v").await, Kind::Invalid);
        refused(client.get(&name(bad), "a").await, Kind::Invalid);
        refused(client.range(&name(bad), RangeOptions::all()).await, Kind::Invalid);
    }
    let admin = node.admin().await;
    admin.create_tenant(&name(255)).await.unwrap();
    for bad in [0, 256] {
        refused(admin.create_tenant(&name(bad)).await, Kind::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn largest_value_then_stored_and_the_next_byte_refused() {
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    let largest = Bytes::from(vec![9; 64 << 20]);
    let buffered = WriteOptions::new().durability(Durability::Buffered);
    client
        .put_with("k", "a", largest.clone(), buffered)
        .await
        .unwrap();
    assert!(client.get("k", "a").await.unwrap() == Some(largest.clone()));
    let streamed = all(client.range("k", RangeOptions::all()).await.unwrap())
        .await
        .unwrap();
    assert!(streamed == [(Bytes::from("a"), largest)]);
    refused(client.put("k", "b", vec![9; (64 << 20) + 1]).await, Kind::Invalid);
    // Beyond what any message may have: refused by length alone.
    refused(client.put("k", "b", vec![9; (80 << 20) + 1]).await, Kind::Invalid);
    assert_eq!(client.get("k", "b").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tenants_with_the_same_names_then_neither_sees_the_other() {
    let node = TestNode::start("").await;
    let (a, _) = node.tenant("a").await;
    let (b, _) = node.tenant("b").await;
    a.put("k", "x", "canary-a").await.unwrap();
    assert_eq!(b.get("k", "x").await.unwrap(), None);
    b.put("k", "y", "canary-b").await.unwrap();
    assert_eq!(keys(&a, RangeOptions::all()).await, ["x"]);
    assert_eq!(keys(&b, RangeOptions::all()).await, ["y"]);
    b.delete("k", "x").await.unwrap();
    assert!(a.get("k", "x").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_open_then_its_reads_repeat_whatever_is_written() {
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    client
        .batch(Batch::new().put("k", "a", "1").put("k", "b", "1"))
        .await
        .unwrap();
    let snapshot = client.snapshot().await.unwrap();
    let position = client
        .batch(
            Batch::new()
                .put("k", "a", "2")
                .delete("k", "b")
                .put("k", "c", "2"),
        )
        .await
        .unwrap();
    client.put("new", "a", "2").await.unwrap();
    node.admin().await.compact().await.unwrap();
    assert!(snapshot.seqno() < position.seqno);
    for _ in 0..2 {
        assert_eq!(snapshot.get("k", "a").await.unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(snapshot.get("k", "c").await.unwrap(), None);
        assert_eq!(snapshot.get("new", "a").await.unwrap(), None);
        let found = all(snapshot.range("k", RangeOptions::all()).await.unwrap())
            .await
            .unwrap();
        assert_eq!(
            found,
            [
                (Bytes::from("a"), Bytes::from("1")),
                (Bytes::from("b"), Bytes::from("1"))
            ]
        );
    }
    assert_eq!(keys(&client, RangeOptions::all()).await, ["a", "c"]);
    snapshot.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_released_foreign_or_past_its_lease_then_gone() {
    let node = TestNode::start("snapshot_lease_ms = 1000\nsnapshots_max = 2\n").await;
    let (client, token) = node.tenant("acme").await;
    let (_, foreign) = node.tenant("other").await;
    client.put("k", "a", "1").await.unwrap();
    let mut raw = KvClient::new(node.channel().await);
    let with = |token: &str, message: pb::GetRequest| {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    };
    let get = |snapshot_id| pb::GetRequest {
        keyspace: "k".into(),
        key: "a".into(),
        snapshot_id,
    };
    let kind = |status: tonic::Status| ClientError::from_status(&status, false).kind();
    let mut open = Request::new(pb::OpenSnapshotRequest {});
    open.metadata_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    let opened = raw.open_snapshot(open).await.unwrap().into_inner();
    assert_eq!(opened.lease_ms, 1000);
    let id = opened.snapshot_id;
    assert!(
        raw.get(with(&token, get(id)))
            .await
            .unwrap()
            .into_inner()
            .value
            .is_some()
    );
    assert_eq!(
        kind(raw.get(with(&foreign, get(id))).await.unwrap_err()),
        Kind::Gone
    );
    assert_eq!(
        kind(raw.get(with(&token, get(id ^ 1))).await.unwrap_err()),
        Kind::Gone
    );

    let second = client.snapshot().await.unwrap();
    let busy = client.snapshot().await.map(drop);
    refused(busy, Kind::Busy);
    second.release().await.unwrap();
    let third = client.snapshot().await.unwrap();

    // The operator sees them end by themselves.
    let admin = node.admin().await;
    within("leases to end", async {
        while admin.status().await.unwrap().snapshots != 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(
        kind(raw.get(with(&token, get(id))).await.unwrap_err()),
        Kind::Gone
    );
    refused(third.get("k", "a").await, Kind::Gone);
}
