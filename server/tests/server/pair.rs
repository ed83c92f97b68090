//! Two nodes: replication, promotion, fencing and the client that follows, as operators and tenants see them.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use strongroom::keys::KeyFile;
use strongroom_client::proto::admin as pb;
use strongroom_client::{
    AdminClient, AdminConfig, Client, ClientConfig, Durability, Kind, RangeOptions, WriteOptions,
};
use strongroom_server::app::App;
use strongroom_server::config::Config;
use tempfile::TempDir;

use crate::pki::{Authority, Pair};
use crate::{refused, within};

/// Two nodes' directories and certificates.
pub struct TestPair {
    dir: TempDir,
    tenants_ca: Authority,
    admin_ca: Authority,
    operator: Pair,
}

impl TestPair {
    pub fn new() -> TestPair {
        strongroom_server::install_crypto_provider();
        let dir = tempfile::tempdir().unwrap();
        let tenants_ca = Authority::new(dir.path(), "tenants");
        let admin_ca = Authority::new(dir.path(), "admin");
        let replica_ca = Authority::new(dir.path(), "replica");
        tenants_ca.issue("server", None);
        admin_ca.issue("server", None);
        replica_ca.issue("node", Some("replica"));
        let operator = admin_ca.issue("operator", Some("admin"));
        for node in ["a", "b"] {
            KeyFile::create(dir.path().join(format!("{node}.key"))).unwrap();
        }
        TestPair {
            dir,
            tenants_ca,
            admin_ca,
            operator,
        }
    }

    pub fn config(&self, node: &str, replication: &str) -> Config {
        let text = format!(
            r#"
[node]
name = "{node}"
data_dir = "{node}-data"
[keys]
file = "{node}.key"
[admin]
listen = "127.0.0.1:0"
tls = {{ cert = "admin-server.crt", key = "admin-server.pem", client_ca = "admin-ca.crt" }}
[tenants]
listen = "127.0.0.1:0"
tls = {{ cert = "tenants-server.crt", key = "tenants-server.pem" }}
[engine]
replicated_timeout_ms = 20000
[replication]
listen = "127.0.0.1:0"
tls = {{ cert = "replica-node.crt", key = "replica-node.pem", ca = "replica-ca.crt" }}
{replication}
"#
        );
        Config::from_toml(&text, "test", Some(self.dir.path()), None, None).unwrap()
    }

    async fn start(&self, node: &str, replication: &str) -> App {
        within("start", App::start(self.config(node, replication)))
            .await
            .unwrap()
    }

    /// `b`, following the node that replicates at `primary`.
    async fn standby(&self, node: &str, primary: &App) -> App {
        let peer = primary.addresses().replication.unwrap();
        self.start(node, &format!("role = \"standby\"\npeer = \"{peer}\""))
            .await
    }

    pub async fn admin(&self, app: &App) -> AdminClient {
        let endpoint = format!("https://{}", app.addresses().admin);
        let (cert, key) = (self.operator.cert_pem(), self.operator.key_pem());
        AdminClient::connect(AdminConfig::new(endpoint, self.admin_ca.pem(), cert, key))
            .await
            .unwrap()
    }

    pub async fn client(&self, nodes: &[&App], token: &str) -> Client {
        let endpoints = nodes
            .iter()
            .map(|app| format!("https://{}", app.addresses().tenants));
        let mut config = ClientConfig::new(endpoints, token);
        config.ca_pem = Some(self.tenants_ca.pem());
        config.failover_timeout = Duration::from_secs(5);
        within("connection", Client::connect(config)).await.unwrap()
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Asks until the answer satisfies.
async fn until<T, F>(what: &str, ask: impl Fn() -> F, satisfied: impl Fn(&T) -> bool) -> T
where
    F: Future<Output = T>,
{
    within(what, async {
        loop {
            let answer = ask().await;
            if satisfied(&answer) {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

pub async fn status_until(admin: &AdminClient, what: &str, satisfied: impl Fn(&pb::StatusResponse) -> bool) {
    until(what, async || admin.status().await.unwrap(), satisfied).await;
}

pub fn replicated() -> WriteOptions {
    WriteOptions::new().durability(Durability::Replicated)
}

/// The record that a log ends with when its database is closed (docs/format.md 3.2).
const CLOSE_BYTES: u64 = 72;

#[tokio::test(flavor = "multi_thread")]
async fn primary_gone_then_the_promoted_standby_has_all_and_the_client_finds_it() {
    let pair = TestPair::new();
    let a = pair.start("a", "").await;
    let b = pair.standby("b", &a).await;
    let (admin_a, admin_b) = (pair.admin(&a).await, pair.admin(&b).await);
    status_until(&admin_b, "the standby to follow", |s| {
        s.summary == "standby, following"
    })
    .await;
    let status = admin_b.status().await.unwrap();
    assert_eq!((status.role(), status.serving), (pb::Role::Standby, false));

    admin_a.create_tenant("acme").await.unwrap();
    let token = admin_a.create_token("acme").await.unwrap();
    let spare = admin_a.create_token("acme").await.unwrap();
    // The endpoints in the wrong order: the standby says no, the client goes on.
    let client = pair.client(&[&b, &a], &token.token).await;
    for i in 0..50 {
        client
            .put_with("k", format!("{i:02}"), "v", replicated())
            .await
            .unwrap();
    }
    let peers = admin_a.status().await.unwrap().peers;
    assert_eq!(
        (peers.len(), peers[0].node.as_str(), peers[0].connected),
        (1, "b", true)
    );

    // What only the primary may do, the standby refuses; what must not happen yet, too.
    refused(admin_b.create_tenant("x").await, Kind::NotPrimary);
    refused(admin_b.revoke_token(&spare.token_id).await, Kind::NotPrimary);
    refused(admin_b.fence(None).await, Kind::NotPrimary);
    assert_eq!(admin_b.list_tenants(0, 0).await.unwrap().0.len(), 1);
    let tokens = until(
        "tokens",
        async || admin_b.list_tokens(None).await.unwrap(),
        |t| t.len() == 2,
    )
    .await;
    assert!(tokens.iter().any(|t| t.token_id == spare.token_id));

    admin_a.revoke_token(&spare.token_id).await.unwrap();
    client.put_with("k", "last", "v", replicated()).await.unwrap();
    // The name of the primary is known before it is needed.
    status_until(&admin_b, "the primary's name", |s| {
        s.peers.iter().any(|p| p.node == "a")
    })
    .await;

    drop(a);
    let ask = |promote: pb::PromoteRequest| pb::PromoteRequest {
        dry_run: true,
        ..promote
    };
    let expected = pb::PromoteRequest {
        expect_primary: "c".into(),
        ..Default::default()
    };
    refused(admin_b.promote(ask(expected)).await, Kind::ExpectationFailed);
    let expected = pb::PromoteRequest {
        expect_epoch: Some(1),
        ..Default::default()
    };
    refused(admin_b.promote(ask(expected)).await, Kind::ExpectationFailed);
    let request = pb::PromoteRequest {
        expect_primary: "a".into(),
        max_loss_bytes: Some(CLOSE_BYTES),
        ..Default::default()
    };
    // Heartbeats may have told of the mark of its close, the one thing that was never confirmed.
    let dry = admin_b.promote(ask(request.clone())).await.unwrap();
    assert!(
        dry.dry_run && dry.loss_bytes <= CLOSE_BYTES && dry.last_heard_ms.is_some(),
        "{dry:?}"
    );
    assert_eq!(
        admin_b.status().await.unwrap().role(),
        pb::Role::Standby,
        "a dry run changes nothing"
    );
    let promoted = admin_b.promote(request.clone()).await.unwrap();
    assert_eq!(promoted.epoch, dry.epoch);
    refused(admin_b.promote(request).await, Kind::NotStandby);

    client.put("k", "after", "v").await.unwrap();
    let mut entries = client.range("k", RangeOptions::all()).await.unwrap();
    let mut found = 0;
    while entries.next().await.unwrap().is_some() {
        found += 1;
    }
    assert_eq!(found, 52);
    // Tokens are what they were: the good one good, the revoked one not.
    let mut config = ClientConfig::new([format!("https://{}", b.addresses().tenants)], spare.token);
    config.ca_pem = Some(pair.tenants_ca.pem());
    refused(Client::connect(config).await.map(drop), Kind::Unauthenticated);
    within("stop", b.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tenant_deleted_with_a_standby_then_its_confirmation_is_reported() {
    let pair = TestPair::new();
    let a = pair.start("a", "").await;
    let b = pair.standby("b", &a).await;
    let (admin_a, admin_b) = (pair.admin(&a).await, pair.admin(&b).await);
    status_until(&admin_b, "the standby to follow", |s| {
        s.summary == "standby, following"
    })
    .await;
    admin_a.create_tenant("acme").await.unwrap();
    status_until(&admin_b, "the tenant to arrive", |s| s.tenants == 1).await;
    let deleted = admin_a.delete_tenant("acme").await.unwrap();
    let nodes: Vec<_> = deleted
        .nodes
        .iter()
        .map(|n| (n.node.as_str(), n.confirmed))
        .collect();
    assert_eq!(nodes, [("a", true), ("b", true)]);
    assert_eq!(admin_b.status().await.unwrap().tenants, 0);

    within("stop", b.stop()).await.unwrap();
    admin_a.create_tenant("again").await.unwrap();
    status_until(&admin_a, "the loss of the standby", |s| {
        s.peers.iter().all(|p| !p.connected)
    })
    .await;
    let deleted = admin_a.delete_tenant("again").await.unwrap();
    let nodes: Vec<_> = deleted
        .nodes
        .iter()
        .map(|n| (n.node.as_str(), n.confirmed))
        .collect();
    assert_eq!(nodes, [("a", true), ("b", false)]);
    within("stop", a.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn standby_promoted_beside_a_living_primary_then_the_old_one_is_fenced_and_follows() {
    let pair = TestPair::new();
    let a = pair.start("a", "").await;
    let b = pair.standby("b", &a).await;
    let (admin_a, admin_b) = (pair.admin(&a).await, pair.admin(&b).await);
    status_until(&admin_b, "the standby to follow", |s| {
        s.summary == "standby, following"
    })
    .await;
    admin_a.create_tenant("acme").await.unwrap();
    let token = admin_a.create_token("acme").await.unwrap().token;
    let client = pair.client(&[&a, &b], &token).await;
    client.put_with("k", "a", "1", replicated()).await.unwrap();

    let promoted = admin_b.promote(pb::PromoteRequest::default()).await.unwrap();
    assert!(promoted.primary_connected);
    status_until(&admin_b, "the old primary to be told", |s| {
        s.fencing.as_ref().is_some_and(|f| f.done)
    })
    .await;
    status_until(&admin_a, "the old primary to step down", |s| !s.serving).await;
    client.put("k", "b", "2").await.unwrap();
    assert_eq!(client.endpoint(), format!("https://{}/", b.addresses().tenants));
    let old = pair.client_error(&a, &token).await;
    assert!(matches!(old, Kind::Fenced | Kind::NotPrimary), "{old:?}");
    within("stop", a.stop()).await.unwrap();
    within("stop", b.stop()).await.unwrap();
}

impl TestPair {
    /// What a client that knows only this node is told.
    async fn client_error(&self, app: &App, token: &str) -> Kind {
        let mut config = ClientConfig::new([format!("https://{}", app.addresses().tenants)], token);
        config.ca_pem = Some(self.tenants_ca.pem());
        config.failover_timeout = Duration::from_millis(200);
        match within("answer", Client::connect(config)).await {
            Ok(_) => panic!("the node serves"),
            Err(error) => error.kind(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn standby_asked_for_a_backup_then_it_makes_one() {
    let pair = TestPair::new();
    let a = pair.start("a", "").await;
    let b = pair.standby("b", &a).await;
    let (admin_a, admin_b) = (pair.admin(&a).await, pair.admin(&b).await);
    status_until(&admin_b, "the standby to follow", |s| {
        s.summary == "standby, following"
    })
    .await;
    admin_a.create_tenant("acme").await.unwrap();
    let secret = strongroom::keys::EscrowSecret::generate().unwrap();
    let request = pb::CreateBackupRequest {
        directory: pair.path().join("backup").to_str().unwrap().into(),
        escrow_recipient: secret.recipient().to_text(),
        escrow_path: pair.path().join("escrow").to_str().unwrap().into(),
    };
    let created = admin_b.create_backup(request).await.unwrap();
    assert!(created.files > 0);
    within("stop", b.stop()).await.unwrap();
    within("stop", a.stop()).await.unwrap();
}
