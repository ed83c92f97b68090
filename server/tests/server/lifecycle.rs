//! Start, stop, and what survives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use strongroom::ErrorKind;
use strongroom_client::{ClientError, Kind, RangeOptions};
use strongroom_server::app::{App, AppError, Ended};
use strongroom_server::config::Config;

use crate::{TestNode, refused, within};

#[tokio::test(flavor = "multi_thread")]
async fn stopped_while_writers_write_then_every_acknowledged_write_is_there() {
    let mut node = TestNode::start("").await;
    let (client, token) = node.tenant("acme").await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut writers = Vec::new();
    for writer in 0..4 {
        let (client, acknowledged) = (client.clone(), acknowledged.clone());
        writers.push(tokio::spawn(async move {
            let mut mine = Vec::new();
            for i in 0.. {
                let key = format!("{writer}/{i:06}");
                match client.put("k", key.clone(), "v").await {
                    Ok(_) => mine.push(key),
                    Err(error) => return (mine, error),
                }
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            unreachable!()
        }));
    }
    within("some writes", async {
        while acknowledged.load(Ordering::Relaxed) < 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.stop().await;
    let mut keys = Vec::new();
    for writer in writers {
        let (mine, error): (Vec<String>, ClientError) = within("writers to end", writer).await.unwrap();
        assert!(
            matches!(error.kind(), Kind::Unavailable | Kind::Closed | Kind::Unknown),
            "{error:?}"
        );
        keys.extend(mine);
    }
    node.reopen().await;
    let client = node.client(&token).await.unwrap();
    let mut found = std::collections::HashSet::new();
    let mut entries = client.range("k", RangeOptions::all()).await.unwrap();
    while let Some((key, _)) = entries.next().await.unwrap() {
        found.insert(String::from_utf8(key.to_vec()).unwrap());
    }
    for key in keys {
        assert!(found.contains(&key), "{key} was acknowledged and is gone");
    }
    assert!(
        node.app().node().engine().unwrap().recovery().clean,
        "the stop was graceful"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_clients_connected_then_stop_does_not_wait_for_them() {
    let mut node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    let _snapshot = client.snapshot().await.unwrap();
    let before = std::time::Instant::now();
    node.stop().await;
    // The shutdown timeout, 10 s, is only for calls in flight.
    assert!(before.elapsed().as_secs() < 9, "{:?}", before.elapsed());
    refused(client.get("k", "a").await, Kind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_restarts_then_the_client_finds_it_again() {
    let mut node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    client.put("k", "a", "1").await.unwrap();
    let address = node.app().addresses().tenants;
    node.stop().await;
    let mut config = node.config();
    config.tenants.listen = address;
    let reading = tokio::spawn(async move { (client.get("k", "a").await, client.put("k", "b", "2").await) });
    let app = within("start", App::start(config)).await.unwrap();
    let (got, put) = within("the client to come back", reading).await.unwrap();
    assert_eq!(got.unwrap().as_deref(), Some(&b"1"[..]));
    put.unwrap();
    within("stop", app.stop()).await.unwrap();
}

async fn fails(config: Config) -> AppError {
    match within("start", App::start(config)).await {
        Ok(_) => panic!("started"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_needs_is_wrong_then_it_says_what() {
    let mut node = TestNode::start("").await;
    // A second process on the directory.
    let error = fails(node.config()).await;
    assert!(
        matches!(&error, AppError::Engine(e) if e.kind() == ErrorKind::Locked),
        "{error:?}"
    );
    let taken = node.app().addresses().tenants;
    let mut config = node.config();
    config.tenants.listen = taken;
    let error = fails(config).await;
    assert!(
        matches!(&error, AppError::Listen(m) if m.starts_with("tenants.listen")),
        "{error:?}"
    );
    node.stop().await;

    let mut config = node.config();
    config.keys.file = node.dir.path().join("missing");
    let error = fails(config).await;
    assert!(
        matches!(&error, AppError::Engine(e) if e.kind() == ErrorKind::KeyRefused),
        "{error:?}"
    );
    strongroom::keys::KeyFile::create(node.dir.path().join("other")).unwrap();
    let mut config = node.config();
    config.keys.file = node.dir.path().join("other");
    let error = fails(config).await;
    assert!(
        matches!(&error, AppError::Engine(e) if e.kind() == ErrorKind::KeyRefused),
        "{error:?}"
    );

    let dir = node.dir.path().to_path_buf();
    std::fs::write(dir.join("empty"), "").unwrap();
    type Spoil = fn(&mut Config, std::path::PathBuf);
    let wrong: [(&str, Spoil); 4] = [
        ("tenants.tls: certificate", |c, empty| {
            c.tenants.tls.as_mut().unwrap().cert = empty
        }),
        ("tenants.tls: private key", |c, empty| {
            c.tenants.tls.as_mut().unwrap().key = empty
        }),
        ("admin.tls: certificate", |c, empty| {
            c.admin.tls.as_mut().unwrap().client_ca = empty
        }),
        ("tenants.tls: certificate", |c, empty| {
            c.tenants.tls.as_mut().unwrap().cert = empty.join("no")
        }),
    ];
    for (start, spoil) in wrong {
        let mut config = node.config();
        spoil(&mut config, dir.join("empty"));
        let error = fails(config).await;
        assert!(
            matches!(&error, AppError::Config(m) if m.starts_with(start)),
            "{start}: {error:?}"
        );
    }
    // Nothing of this harmed the node.
    node.reopen().await;
    node.admin().await.status().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_file_wanted_then_it_tells_the_real_addresses() {
    let node = TestNode::start("").await;
    let file = node.dir.path().join("ready.json");
    node.app().announce(Some(&file)).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(ready["schema"], 1);
    assert_eq!(ready["node"], "n1");
    assert_eq!(ready["pid"], std::process::id());
    assert_eq!(ready["tenants"], node.app().addresses().tenants.to_string());
    assert_eq!(ready["admin"], node.app().addresses().admin.to_string());
    // A signal that comes before anyone waits for it is not lost.
    let me = rustix::process::getpid();
    rustix::process::kill_process(me, rustix::process::Signal::TERM).unwrap();
    assert_eq!(
        within("the signal", node.app().wait()).await.unwrap(),
        Ended::Told
    );
}

#[test]
fn configuration_file_with_an_unknown_key_then_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("strongroom.toml");
    std::fs::write(&file, "[node]\nname = \"a\"\ndata_dir = \"d\"\nnmae = 1\n").unwrap();
    let error = Config::load(&file, None).unwrap_err().0;
    assert!(
        error.contains("strongroom.toml: unknown key `node.nmae`; did you mean `name`?"),
        "{error}"
    );
    let error = Config::load(&dir.path().join("none.toml"), None).unwrap_err().0;
    assert!(error.contains("none.toml"), "{error}");
}
