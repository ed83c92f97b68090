//! A small certificate authority for development, drills and small installations.
//!
//! ```text
//! DIR/tenants-ca.pem .key       signs what tenants' clients trust
//! DIR/replication-ca.pem .key   signs what the two nodes show each other
//! DIR/admin-ca.pem .key         signs the administration listener and operators
//! DIR/<node>/tenants.pem .key       server
//! DIR/<node>/replication.pem .key   server and client, role replica
//! DIR/<node>/admin.pem .key         server
//! DIR/<operator>/admin.pem .key     client, role admin
//! ```
//!
//! Three authorities, because three kinds of trust must not mix: a tenant's certificate opens nothing
//! on the other two listeners. The role is a URI in the subject alternative name,
//! `strongroom://role/replica` or `strongroom://role/admin`, which each listener demands besides the
//! right signature. Private keys are written with mode 0600. An existing authority is used again, an
//! existing certificate is renewed.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use super::exit::{self, Failure, Outcome};
use super::files;

/// What a certificate may be used for, beyond its authority.
pub const ROLE_REPLICA: &str = "strongroom://role/replica";
/// Role of an operator.
pub const ROLE_ADMIN: &str = "strongroom://role/admin";

/// Longest lifetime handed out.
pub const DAYS_MAX: u32 = 3650;

/// Which trust an authority roots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// Tenants' clients.
    Tenants,
    /// The pair.
    Replication,
    /// Operators.
    Admin,
}

impl Trust {
    /// All three.
    pub const ALL: [Trust; 3] = [Trust::Tenants, Trust::Replication, Trust::Admin];

    /// As in file names.
    pub fn name(self) -> &'static str {
        match self {
            Trust::Tenants => "tenants",
            Trust::Replication => "replication",
            Trust::Admin => "admin",
        }
    }
}

/// The three authorities in a directory.
pub struct Authorities {
    dir: PathBuf,
    issuers: Vec<(Trust, Issuer<'static, KeyPair>)>,
    life: Life,
}

#[derive(Clone, Copy)]
struct Life {
    now: u64,
    days: u32,
}

/// Where a certificate and its key were written.
pub struct Pair {
    /// Certificate, PEM.
    pub cert: PathBuf,
    /// Private key, PEM, mode 0600.
    pub key: PathBuf,
}

impl Authorities {
    /// Opens the authorities in `dir`, making what is missing. Certificates issued will live `days`
    /// (1 to [`DAYS_MAX`]), authorities ten times that up to the limit.
    pub fn open(dir: &Path, days: u32) -> Outcome<Authorities> {
        if !(1..=DAYS_MAX).contains(&days) {
            return Err(Failure::usage(format!(
                "a certificate lives 1 to {DAYS_MAX} days, not {days}"
            )));
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        std::fs::create_dir_all(dir).map_err(exit::at(dir))?;
        let mut issuers = Vec::new();
        for trust in Trust::ALL {
            let life = Life {
                now,
                days: days.saturating_mul(10).min(DAYS_MAX),
            };
            issuers.push((trust, authority(dir, trust, life)?));
        }
        Ok(Authorities {
            dir: dir.to_path_buf(),
            issuers,
            life: Life { now, days },
        })
    }

    /// The certificate that others must trust.
    pub fn root(&self, trust: Trust) -> PathBuf {
        self.dir.join(format!("{}-ca.pem", trust.name()))
    }

    /// Issues the three certificates of a node that answers to `hosts` (names or addresses).
    pub fn node(&self, name: &str, hosts: &[String]) -> Outcome<Vec<(Trust, Pair)>> {
        if hosts.is_empty() {
            return Err(Failure::usage(
                "a node's certificate needs at least one host name or address",
            ));
        }
        Trust::ALL
            .into_iter()
            .map(|trust| {
                let role = (trust == Trust::Replication).then_some(ROLE_REPLICA);
                let usage: &[_] = match trust {
                    Trust::Replication => &[
                        ExtendedKeyUsagePurpose::ServerAuth,
                        ExtendedKeyUsagePurpose::ClientAuth,
                    ],
                    _ => &[ExtendedKeyUsagePurpose::ServerAuth],
                };
                Ok((trust, self.issue(trust, name, hosts, role, usage)?))
            })
            .collect()
    }

    /// Issues an operator's client certificate.
    pub fn operator(&self, name: &str) -> Outcome<Pair> {
        self.issue(
            Trust::Admin,
            name,
            &[],
            Some(ROLE_ADMIN),
            &[ExtendedKeyUsagePurpose::ClientAuth],
        )
    }

    fn issue(
        &self,
        trust: Trust,
        name: &str,
        hosts: &[String],
        role: Option<&str>,
        usage: &[ExtendedKeyUsagePurpose],
    ) -> Outcome<Pair> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(Failure::usage(format!(
                "{name:?} is no name for a holder: use letters, digits, - _ ."
            )));
        }
        let mut params = CertificateParams::new(hosts.to_vec()).map_err(refused)?;
        if let Some(role) = role {
            params
                .subject_alt_names
                .push(SanType::URI(role.try_into().map_err(refused)?));
        }
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usage.to_vec();
        params.use_authority_key_identifier_extension = true;
        self.life.apply(&mut params);
        let key = KeyPair::generate().map_err(refused)?;
        let (_, issuer) = self
            .issuers
            .iter()
            .find(|(of, _)| *of == trust)
            .ok_or_else(|| Failure::failed("the authority is missing"))?;
        let cert = params.signed_by(&key, issuer).map_err(refused)?;
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).map_err(exit::at(&dir))?;
        let pair = Pair {
            cert: dir.join(format!("{}.pem", trust.name())),
            key: dir.join(format!("{}.key", trust.name())),
        };
        files::secret(&pair.key, key.serialize_pem().as_bytes())?;
        files::public(&pair.cert, cert.pem().as_bytes())?;
        Ok(pair)
    }
}

impl Life {
    fn apply(self, params: &mut CertificateParams) {
        // Five minutes back: the other machine's clock may be behind.
        let from = Duration::from_secs(self.now.saturating_sub(300));
        let to = Duration::from_secs(self.now.saturating_add(u64::from(self.days) * 86_400));
        params.not_before = date_time_ymd(1970, 1, 1) + from;
        params.not_after = date_time_ymd(1970, 1, 1) + to;
    }
}

/// The authority's parameters are the same at every call but for the dates, so that an issuer can be
/// had again from its key alone.
fn authority(dir: &Path, trust: Trust, life: Life) -> Outcome<Issuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(
        DnType::CommonName,
        format!("Strongroom {} authority", trust.name()),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    life.apply(&mut params);
    let key_path = dir.join(format!("{}-ca.key", trust.name()));
    let cert_path = dir.join(format!("{}-ca.pem", trust.name()));
    let key = match (key_path.exists(), cert_path.exists()) {
        (true, true) => {
            let pem = std::fs::read_to_string(&key_path).map_err(exit::at(&key_path))?;
            KeyPair::from_pem(&pem).map_err(|error| {
                Failure::new(exit::Exit::Refused, format!("{}: {error}", key_path.display()))
            })?
        }
        (false, false) => {
            let key = KeyPair::generate().map_err(refused)?;
            let cert = params.self_signed(&key).map_err(refused)?;
            files::secret(&key_path, key.serialize_pem().as_bytes())?;
            files::public(&cert_path, cert.pem().as_bytes())?;
            key
        }
        _ => {
            let text = format!(
                "{} and its key must both be there or both be missing: one of them alone signs nothing",
                cert_path.display()
            );
            return Err(Failure::new(exit::Exit::Refused, text));
        }
    };
    Ok(Issuer::new(params, key))
}

fn refused(error: rcgen::Error) -> Failure {
    Failure::failed(format!("certificate: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_used_again_and_a_half_of_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authorities::open(dir.path(), 30).unwrap();
        first
            .node("a", &["localhost".into(), "127.0.0.1".into()])
            .unwrap();
        let root = std::fs::read(first.root(Trust::Admin)).unwrap();
        let again = Authorities::open(dir.path(), 30).unwrap();
        let pair = again.operator("ops").unwrap();
        assert_eq!(std::fs::read(again.root(Trust::Admin)).unwrap(), root);
        assert!(pair.key.exists() && pair.cert.exists());
        std::fs::remove_file(dir.path().join("tenants-ca.key")).unwrap();
        let failure = Authorities::open(dir.path(), 30).err().unwrap();
        assert_eq!(failure.exit, exit::Exit::Refused);
    }

    #[test]
    fn certificates_issued_after_reopening_verify_against_the_root() {
        let dir = tempfile::tempdir().unwrap();
        Authorities::open(dir.path(), 1).unwrap();
        let again = Authorities::open(dir.path(), 1).unwrap();
        let pair = again.operator("ops").unwrap();
        let pem = |path: &Path| {
            x509_parser::pem::parse_x509_pem(&std::fs::read(path).unwrap())
                .unwrap()
                .1
        };
        let (leaf, root) = (pem(&pair.cert), pem(&again.root(Trust::Admin)));
        let (leaf, root) = (leaf.parse_x509().unwrap(), root.parse_x509().unwrap());
        assert_eq!(leaf.issuer(), root.subject());
        let san = leaf.subject_alternative_name().unwrap().unwrap();
        let uris: Vec<_> = san.value.general_names.iter().map(ToString::to_string).collect();
        assert!(uris.iter().any(|uri| uri.contains(ROLE_ADMIN)), "{uris:?}");
        assert!(leaf.validity().is_valid());
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let authorities = Authorities::open(dir.path(), 1).unwrap();
        for name in ["", "..", "a/b", "a b", ".hidden"] {
            assert_eq!(
                authorities.operator(name).err().unwrap().exit,
                exit::Exit::Usage,
                "{name}"
            );
        }
    }
}
