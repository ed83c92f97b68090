//! A key provider of one's own: here a command-like key service behind a trait object, as an HSM or a
//! cloud key management service would be.
//!
//! The engine asks five things of a provider: make a key, wrap 32 bytes under it, unwrap them, destroy
//! the key, and a name for messages. What it stores is the wrapped bytes and the key's version number.
//!
//! `cargo run -p strongroom --example custom_key_provider`

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use strongroom::keys::{Destruction, KekVersion, KeyProvider};
use strongroom::{Engine, Error, ErrorKind, Result, TenantOptions};
use zeroize::Zeroizing;

/// Stands for the remote service: it holds the keys, and never gives one out.
#[derive(Default)]
struct Service {
    keys: Mutex<HashMap<u64, Zeroizing<[u8; 32]>>>,
}

struct Remote(Arc<Service>);

impl Remote {
    fn cipher(&self, version: KekVersion) -> Result<Aes256Gcm> {
        let keys = self
            .0
            .keys
            .lock()
            .map_err(|_| Error::new(ErrorKind::Io, "the key service stopped"))?;
        let Some(key) = keys.get(&version.0) else {
            return Err(Error::new(
                ErrorKind::KeyRefused,
                format!("the service has no key {}", version.0),
            ));
        };
        Ok(Aes256Gcm::new((&**key).into()))
    }
}

fn random(buf: &mut [u8]) -> Result<()> {
    use strongroom::io::Rng;
    strongroom::io::OsRng
        .fill(buf)
        .map_err(|e| Error::new(ErrorKind::Io, "no randomness").with_source(e))
}

impl KeyProvider for Remote {
    fn name(&self) -> &str {
        "example service"
    }

    fn create_version(&self) -> Result<KekVersion> {
        let mut key = Zeroizing::new([0; 32]);
        random(&mut key[..])?;
        let mut keys = self
            .0
            .keys
            .lock()
            .map_err(|_| Error::new(ErrorKind::Io, "the key service stopped"))?;
        let version = keys.keys().max().copied().unwrap_or(0) + 1;
        keys.insert(version, key);
        Ok(KekVersion(version))
    }

    fn wrap(&self, version: KekVersion, root: &[u8; 32], context: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; 12];
        random(&mut nonce)?;
        let payload = Payload {
            msg: root,
            aad: context,
        };
        let sealed = self.cipher(version)?.encrypt(&Nonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| Error::new(ErrorKind::Io, "wrapping failed"))?;
        Ok([&nonce[..], &sealed].concat())
    }

    fn unwrap(&self, version: KekVersion, wrapped: &[u8], context: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let refused = || Error::new(ErrorKind::KeyRefused, "the service refused to unwrap");
        let (nonce, sealed) = wrapped.split_first_chunk::<12>().ok_or_else(refused)?;
        let payload = Payload {
            msg: sealed,
            aad: context,
        };
        let plain = self.cipher(version)?.decrypt(&Nonce::from(*nonce), payload);
        let plain = Zeroizing::new(plain.map_err(|_| refused())?);
        plain
            .as_slice()
            .try_into()
            .map(Zeroizing::new)
            .map_err(|_| refused())
    }

    fn destroy_version(&self, version: KekVersion) -> Result<Destruction> {
        let mut keys = self
            .0
            .keys
            .lock()
            .map_err(|_| Error::new(ErrorKind::Io, "the key service stopped"))?;
        keys.remove(&version.0);
        Ok(Destruction::Destroyed)
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let service = Arc::new(Service::default());
    let engine = Engine::builder(dir.path()).keys(Remote(service.clone())).open()?;
    engine
        .create_tenant("acme", TenantOptions::default())?
        .keyspace("k")?
        .put("a", "1")?;
    println!(
        "keys at the service: {}",
        service.keys.lock().map(|k| k.len()).unwrap_or(0)
    );
    engine.create_tenant("doomed", TenantOptions::default())?;
    println!("after a deletion: {:?}", engine.delete_tenant("doomed")?.root);
    engine.close()?;
    drop(engine);

    let engine = Engine::builder(dir.path()).keys(Remote(service)).open()?;
    println!(
        "reopened: {:?}",
        engine.tenant("acme")?.open_keyspace("k")?.get("a")?
    );
    engine.close()?;
    drop(engine);
    let refused = Engine::builder(dir.path())
        .keys(Remote(Arc::default()))
        .open()
        .err();
    println!(
        "another service: {}",
        refused.map(|e| e.to_string()).unwrap_or_default()
    );
    Ok(())
}
