//! Makes throw-away certificates for `embed_primary` and `embed_standby`: one authority, one certificate for
//! each node with the replication role. `make_certificates <directory>`
//!
//! Not for production: the authority's key is thrown away, the nodes' keys are plain files.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use strongroom_replication::REPLICA_ROLE;

fn main() -> Result<(), Box<dyn Error>> {
    let place = PathBuf::from(
        std::env::args()
            .nth(1)
            .ok_or("usage: make_certificates <directory>")?,
    );
    fs::create_dir_all(&place)?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(place.join("ca.pem"), authority.pem())?;
    for node in ["a", "b"] {
        // The name or address the other one dials.
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_string(), "localhost".to_string()])?;
        params
            .subject_alt_names
            .push(SanType::URI(REPLICA_ROLE.try_into()?));
        let key = KeyPair::generate()?;
        fs::write(
            place.join(format!("{node}.pem")),
            params.signed_by(&key, &authority)?.pem(),
        )?;
        fs::write(place.join(format!("{node}.key.pem")), key.serialize_pem())?;
    }
    println!("certificates for a and b are in {}", place.display());
    Ok(())
}
