//! Connections: how an endpoint is written, what tonic's defaults are changed to, and what a connection attempt
//! that failed means.
//!
//! tonic's defaults are wrong for this service in both directions: 4 MiB messages, no keepalive, no connect
//! timeout. hyper's windows (2 MiB a stream) halve the speed of large values over distance.

use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::error::{ClientError, Kind, Result};

const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How to reach one listener.
pub(crate) struct Dial<'a> {
    pub endpoint: &'a str,
    pub insecure: bool,
    pub ca_pem: Option<&'a [u8]>,
    pub identity: Option<(&'a [u8], &'a [u8])>,
    pub server_name: Option<&'a str>,
    pub connect_timeout: Duration,
}

impl Dial<'_> {
    /// Checks everything that can be checked without connecting. `Invalid`.
    pub fn endpoint(&self) -> Result<Endpoint> {
        let invalid =
            |why: String| ClientError::new(Kind::Invalid, format!("endpoint {}: {why}", self.endpoint));
        let url = if self.endpoint.contains("://") {
            self.endpoint.to_string()
        } else {
            format!("https://{}", self.endpoint)
        };
        let tls = match url.split_once("://") {
            Some(("https", _)) => true,
            Some(("http", _)) if self.insecure => false,
            Some(("http", _)) => return Err(invalid("plaintext has to be allowed explicitly".into())),
            _ => return Err(invalid("https://host:port needed".into())),
        };
        let mut endpoint = Endpoint::from_shared(url).map_err(|e| invalid(e.to_string()))?;
        if endpoint.uri().port().is_none() {
            return Err(invalid("the port is missing".into()));
        }
        if tls {
            let ca = self
                .ca_pem
                .ok_or_else(|| invalid("the certificate authority is missing".into()))?;
            let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
            if let Some((cert, key)) = self.identity {
                config = config.identity(Identity::from_pem(cert, key));
            }
            if let Some(name) = self.server_name {
                config = config.domain_name(name);
            }
            endpoint = endpoint.tls_config(config).map_err(|e| invalid(causes(&e)))?;
        }
        Ok(endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true))
    }
}

/// Connects. `Unavailable` (nothing was sent); `Unauthenticated` if TLS is what failed: trying again does not help.
pub(crate) async fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<Channel> {
    // tonic's own limit covers the TCP connection, not the TLS handshake.
    match tokio::time::timeout(timeout, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => {
            let text = format!("{}: {}", endpoint.uri(), causes(&error));
            let refused = ["certificate", "BadSignature", "HandshakeFailure"]
                .iter()
                .any(|s| text.contains(s));
            Err(ClientError::new(
                if refused {
                    Kind::Unauthenticated
                } else {
                    Kind::Unavailable
                },
                text,
            ))
        }
        Err(_) => Err(ClientError::new(
            Kind::Unavailable,
            format!("{}: no connection in time", endpoint.uri()),
        )),
    }
}

/// An error with its causes, each once.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dial(endpoint: &str, insecure: bool) -> Result<Endpoint> {
        Dial {
            endpoint,
            insecure,
            ca_pem: None,
            identity: None,
            server_name: None,
            connect_timeout: Duration::from_secs(1),
        }
        .endpoint()
    }

    #[test]
    fn endpoint_that_cannot_work_then_says_why() {
        let cases = [
            ("http://127.0.0.1:1", false, "plaintext"),
            ("127.0.0.1:1", true, "authority is missing"),
            ("ftp://127.0.0.1:1", true, "https://host:port needed"),
            ("http://127.0.0.1", true, "port is missing"),
            ("", true, "endpoint"),
        ];
        for (text, insecure, why) in cases {
            let error = dial(text, insecure).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(error.message().contains(why), "{text}: {error}");
        }
        assert!(dial("http://127.0.0.1:1", true).is_ok());
    }
}
