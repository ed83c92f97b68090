//! The server end to end: real listeners with TLS on loopback, real clients.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admin;
mod connections;
mod data;
mod floods;
mod lifecycle;
mod link;
mod pair;
mod partition;
mod pki;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use strongroom::keys::KeyFile;
use strongroom_client::{AdminClient, AdminConfig, Client, ClientConfig, ClientError, Kind};
use strongroom_server::app::App;
use strongroom_server::config::Config;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use pki::{Authority, Pair};

/// Longest any awaited event may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for `event`; fails the test, saying what was awaited, if it does not come.
pub async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within {DEADLINE:?}"),
    }
}

/// One node in a temporary directory, with certificates for everything.
pub struct TestNode {
    pub dir: TempDir,
    pub tenants_ca: Authority,
    pub admin_ca: Authority,
    pub operator: Pair,
    extra: String,
    app: Option<App>,
}

impl TestNode {
    /// Started; `extra` is appended to its configuration file.
    pub async fn start(extra: &str) -> TestNode {
        strongroom_server::install_crypto_provider();
        let dir = tempfile::tempdir().unwrap();
        KeyFile::create(dir.path().join("key")).unwrap();
        let tenants_ca = Authority::new(dir.path(), "tenants");
        let admin_ca = Authority::new(dir.path(), "admin");
        tenants_ca.issue("server", None);
        admin_ca.issue("server", None);
        let operator = admin_ca.issue("operator", Some("admin"));
        let mut node = TestNode {
            dir,
            tenants_ca,
            admin_ca,
            operator,
            extra: extra.into(),
            app: None,
        };
        node.reopen().await;
        node
    }

    pub fn config_text(&self) -> String {
        format!(
            r#"
[node]
name = "n1"
data_dir = "data"
[keys]
file = "key"
[admin]
listen = "127.0.0.1:0"
tls = {{ cert = "admin-server.crt", key = "admin-server.pem", client_ca = "admin-ca.crt" }}
[tenants]
listen = "127.0.0.1:0"
tls = {{ cert = "tenants-server.crt", key = "tenants-server.pem" }}
{}
"#,
            self.extra
        )
    }

    pub fn config(&self) -> Config {
        Config::from_toml(&self.config_text(), "test", Some(self.dir.path()), None, None).unwrap()
    }

    /// Starts it again after [`stop`](TestNode::stop) or [`crash`](TestNode::crash).
    pub async fn reopen(&mut self) {
        assert!(self.app.is_none());
        self.app = Some(within("start", App::start(self.config())).await.unwrap());
    }

    pub async fn stop(&mut self) {
        within("stop", self.take_app().stop()).await.unwrap();
    }

    pub fn take_app(&mut self) -> App {
        self.app.take().expect("running")
    }

    pub fn app(&self) -> &App {
        self.app.as_ref().expect("running")
    }

    pub fn tenants(&self) -> String {
        format!("https://{}", self.app().addresses().tenants)
    }

    pub fn admin_endpoint(&self) -> String {
        format!("https://{}", self.app().addresses().admin)
    }

    /// An operator's client.
    pub async fn admin(&self) -> AdminClient {
        self.admin_as(&self.operator).await.unwrap()
    }

    pub async fn admin_as(&self, pair: &Pair) -> Result<AdminClient, ClientError> {
        let config = AdminConfig::new(
            self.admin_endpoint(),
            self.admin_ca.pem(),
            pair.cert_pem(),
            pair.key_pem(),
        );
        within("admin connection", AdminClient::connect(config)).await
    }

    pub fn client_config(&self, token: &str) -> ClientConfig {
        let mut config = ClientConfig::new([self.tenants()], token);
        config.ca_pem = Some(self.tenants_ca.pem());
        config.failover_timeout = Duration::from_secs(5);
        config
    }

    /// A client with this token.
    pub async fn client(&self, token: &str) -> Result<Client, ClientError> {
        within("connection", Client::connect(self.client_config(token))).await
    }

    /// A new tenant, its token, and a client that has it.
    pub async fn tenant(&self, name: &str) -> (Client, String) {
        let admin = self.admin().await;
        admin.create_tenant(name).await.unwrap();
        let token = admin.create_token(name).await.unwrap().token;
        (self.client(&token).await.unwrap(), token)
    }

    /// A raw connection to the tenants' listener.
    pub async fn channel(&self) -> tonic::transport::Channel {
        let tls = tonic::transport::ClientTlsConfig::new()
            .ca_certificate(tonic::transport::Certificate::from_pem(self.tenants_ca.pem()));
        let endpoint = tonic::transport::Endpoint::from_shared(self.tenants())
            .unwrap()
            .tls_config(tls)
            .unwrap();
        within("channel", endpoint.connect()).await.unwrap()
    }

    /// A TLS connection to the same, over which nothing was said yet.
    pub async fn tls(&self) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(&self.tenants_ca.pem()).unwrap())
            .unwrap();
        let mut config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(self.app().addresses().tenants).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        within("handshake", connector.connect(name, tcp)).await.unwrap()
    }
}

/// Fails unless `result` is an error of this kind.
#[track_caller]
pub fn refused<T>(result: Result<T, ClientError>, kind: Kind) -> ClientError {
    match result {
        Ok(_) => panic!("succeeded instead of {kind:?}"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{error:?}");
            error
        }
    }
}
