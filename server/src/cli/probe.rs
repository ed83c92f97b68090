//! Why a mutual TLS connection broke off.
//!
//! In TLS 1.3 a client has finished its handshake before the server looks at its certificate. The refusal
//! comes as an alert on a connection that seemed to work, and HTTP/2 above it reports a broken pipe. Asked
//! once more without HTTP/2, the alert can be read.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest wait for an alert. A server that accepts the certificate says something much sooner.
const PATIENCE: Duration = Duration::from_secs(2);

/// The alert with which the server at `address` (`host:port`, perhaps with `https://`) refuses this
/// certificate; `None` if it does not, or cannot be reached.
pub async fn refusal(
    address: &str,
    name: Option<&str>,
    ca: &[u8],
    cert: &[u8],
    key: &[u8],
) -> Option<String> {
    let address = address
        .strip_prefix("https://")
        .unwrap_or(address)
        .trim_end_matches('/');
    let host = address
        .rsplit_once(':')?
        .0
        .trim_start_matches('[')
        .trim_end_matches(']');
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(ca) {
        roots.add(root.ok()?).ok()?;
    }
    let chain = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<Vec<_>, _>>()
        .ok()?;
    let key = PrivateKeyDer::from_pem_slice(key).ok()?;
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .ok()?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let server = ServerName::try_from(name.unwrap_or(host).to_owned()).ok()?;
    let talk = async {
        let stream = TcpStream::connect(address).await?;
        let mut stream = TlsConnector::from(Arc::new(config))
            .connect(server, stream)
            .await?;
        stream.read_u8().await
    };
    let error = tokio::time::timeout(PATIENCE, talk).await.ok()?.err()?;
    let text = error.to_string();
    text.contains("fatal alert").then_some(text)
}
