//! Authorities and certificates in a temporary directory.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

/// An authority and the file with its certificate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
    name: &'static str,
}

/// Certificate and key, in files and as PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    pub fn cert_pem(&self) -> Vec<u8> {
        std::fs::read(&self.cert).unwrap()
    }

    pub fn key_pem(&self) -> Vec<u8> {
        std::fs::read(&self.key).unwrap()
    }
}

impl Authority {
    pub fn new(dir: &Path, name: &'static str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(dir.join(format!("{name}-ca.crt")), cert.pem()).unwrap();
        Authority {
            issuer: Issuer::new(params, key),
            dir: dir.to_path_buf(),
            name,
        }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.join(format!("{}-ca.crt", self.name))
    }

    pub fn pem(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }

    /// A certificate for localhost with, perhaps, a role.
    pub fn issue(&self, file: &str, role: Option<&str>) -> Pair {
        let mut params = CertificateParams::new(vec!["localhost".to_string()]).unwrap();
        params
            .subject_alt_names
            .push(SanType::IpAddress([127, 0, 0, 1].into()));
        if let Some(role) = role {
            let uri = format!("strongroom://role/{role}");
            params
                .subject_alt_names
                .push(SanType::URI(uri.try_into().unwrap()));
        }
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let pair = Pair {
            cert: self.dir.join(format!("{}-{file}.crt", self.name)),
            key: self.dir.join(format!("{}-{file}.pem", self.name)),
        };
        std::fs::write(&pair.cert, cert.pem()).unwrap();
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }
}
