//! Certificates: loading them, and the one question asked of a peer's: does it carry the replication role?
//!
//! Both sides ask it. A certificate of the right authority is not enough: a tenant's or an operator's
//! certificate must neither read the WAL nor pose as a primary. The role is a URI in the subject
//! alternative names, compared exactly. Everything that cannot be read is refused.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::error::{Error, ErrorKind, Result};
use crate::options::{Timeouts, TlsFiles};

/// The URI name that lets a certificate take part in replication.
pub const REPLICA_ROLE: &str = "strongroom://role/replica";

/// Whether the certificate (DER) names [`REPLICA_ROLE`] among its subject alternative names. The reason
/// otherwise.
pub(crate) fn check_role(der: &[u8]) -> std::result::Result<(), &'static str> {
    let (rest, cert) = X509Certificate::from_der(der).map_err(|_| "the certificate cannot be parsed")?;
    if !rest.is_empty() {
        return Err("bytes follow the certificate");
    }
    let names = cert
        .subject_alternative_name()
        .map_err(|_| "the certificate's names cannot be parsed")?
        .ok_or("the certificate has no alternative names")?;
    let named = |name: &GeneralName<'_>| matches!(name, GeneralName::URI(uri) if *uri == REPLICA_ROLE);
    if names.value.general_names.iter().any(named) {
        Ok(())
    } else {
        Err("the certificate lacks the replication role")
    }
}

/// The one provider of this workspace. Made the process default if there is none yet, since tonic's
/// listener asks for the default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    if CryptoProvider::get_default().is_none() {
        // A race with another installer is fine: then there is a default.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
    CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| {
        Error::new(
            ErrorKind::Tls,
            format!("reading a certificate or key failed [{}]", path.display()),
        )
        .with_source(e)
    })
}

/// The listener's side: our identity, and only peers of our authority.
pub(crate) fn server_config(files: &TlsFiles, timeouts: &Timeouts) -> Result<ServerTlsConfig> {
    provider();
    let (ca, cert, key) = (read(&files.ca)?, read(&files.cert)?, read(&files.key)?);
    Ok(ServerTlsConfig::new()
        .identity(Identity::from_pem(cert, key))
        .client_ca_root(Certificate::from_pem(ca))
        .client_auth_optional(false)
        .timeout(timeouts.connect))
}

/// The dialling side: our identity, the name expected, and the verifier to hand to the endpoint.
pub(crate) fn client_config(
    files: &TlsFiles,
    name: &str,
    timeouts: &Timeouts,
) -> Result<(ClientTlsConfig, Arc<dyn ServerCertVerifier>)> {
    let provider = provider();
    let (ca, cert, key) = (read(&files.ca)?, read(&files.cert)?, read(&files.key)?);
    let unusable = |what: &str| Error::new(ErrorKind::Tls, format!("{what} [{}]", files.ca.display()));
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(&ca) {
        let der = der.map_err(|e| unusable("no PEM certificate").with_source(e))?;
        roots
            .add(der)
            .map_err(|e| unusable("no usable authority").with_source(e))?;
    }
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|e| unusable("no authority").with_source(e))?;
    let config = ClientTlsConfig::new()
        .domain_name(name)
        .identity(Identity::from_pem(cert, key))
        .timeout(timeouts.connect);
    Ok((config, Arc::new(RoleVerifier { inner })))
}

/// The usual verification, then the role.
#[derive(Debug)]
struct RoleVerifier {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for RoleVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.inner
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        check_role(end_entity).map_err(|_| {
            rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
        })?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn der(uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_string()]).unwrap();
        for uri in uris {
            params
                .subject_alt_names
                .push(SanType::URI((*uri).try_into().unwrap()));
        }
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    #[test]
    fn role_table() {
        let table: &[(&[&str], bool)] = &[
            (&[REPLICA_ROLE], true),
            (&["strongroom://role/tenant", REPLICA_ROLE], true),
            (&[], false),
            (&["strongroom://role/tenant"], false),
            (&["strongroom://role/replica/"], false),
            (&["strongroom://role/replica2"], false),
            (&["STRONGROOM://role/replica"], false),
            (&["https://strongroom://role/replica"], false),
        ];
        for (uris, allowed) in table {
            assert_eq!(check_role(&der(uris)).is_ok(), *allowed, "{uris:?}");
        }
    }

    #[test]
    fn certificate_without_names_then_refused() {
        let params = CertificateParams::new(Vec::<String>::new()).unwrap();
        let cert = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        check_role(cert.der()).unwrap_err();
    }

    #[test]
    fn damaged_certificate_then_refused_without_panic() {
        let good = der(&[REPLICA_ROLE]);
        for cut in 0..good.len() {
            check_role(&good[..cut]).unwrap_err();
        }
        let mut longer = good.clone();
        longer.push(0);
        check_role(&longer).unwrap_err();
        for i in 0..good.len() {
            let mut flipped = good.clone();
            flipped[i] ^= 0xff;
            // Some flips leave the names alone; none may panic.
            let _ = check_role(&flipped);
        }
    }

    #[test]
    fn missing_files_then_named() {
        let files = TlsFiles {
            ca: "/nowhere/ca".into(),
            cert: "/nowhere/c".into(),
            key: "/nowhere/k".into(),
        };
        let error = server_config(&files, &Timeouts::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls);
        assert!(error.to_string().contains("/nowhere/ca"));
    }
}
