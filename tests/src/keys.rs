//! A key provider in memory. Not on the simulated disk, so that a crash does not undo what it was
//! told; it forks when a test forks the disk, so that both are of one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use strongroom::keys::{Destruction, KekVersion, KeyProvider};
use strongroom::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

const TOKEN_BYTES: usize = 48;
const TOKEN_END: [u8; TOKEN_BYTES - 8] = [0x5a; TOKEN_BYTES - 8];

#[derive(Clone, Default)]
struct Held {
    versions: BTreeMap<u64, bool>,
    /// Wrapped so far: makes tokens different.
    wraps: u64,
    /// What each wrapped token stands for: version, root, context.
    wrapped: BTreeMap<Vec<u8>, (u64, [u8; 32], Vec<u8>)>,
}

/// The provider: a handle, all clones are one.
#[derive(Clone, Default)]
pub struct SimKeys(Arc<Mutex<Held>>);

impl SimKeys {
    /// A provider without keys.
    pub fn new() -> SimKeys {
        SimKeys::default()
    }

    /// An independent copy of this moment.
    pub fn fork(&self) -> SimKeys {
        SimKeys(Arc::new(Mutex::new(self.0.lock().unwrap().clone())))
    }

    /// As the engine takes it.
    pub fn provider(&self) -> Arc<dyn KeyProvider> {
        Arc::new(self.clone())
    }

    /// Live versions whose wrapped roots are in these bytes: under any other nothing was kept.
    pub fn versions_in<'a>(&self, files: impl Iterator<Item = &'a [u8]>) -> BTreeSet<u64> {
        let held = self.0.lock().unwrap();
        let mut found = BTreeSet::new();
        for bytes in files {
            let tokens = bytes.windows(TOKEN_BYTES).filter(|w| w.ends_with(&TOKEN_END));
            found.extend(
                tokens
                    .filter_map(|token| held.wrapped.get(token))
                    .map(|(of, ..)| *of),
            );
        }
        found
    }

    /// Versions that are not destroyed.
    pub fn live_versions(&self) -> BTreeSet<u64> {
        let held = self.0.lock().unwrap();
        held.versions
            .iter()
            .filter(|(_, live)| **live)
            .map(|(version, _)| *version)
            .collect()
    }
}

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::KeyRefused, format!("simulated key provider: {why}"))
}

impl KeyProvider for SimKeys {
    fn name(&self) -> &str {
        "sim"
    }

    fn create_version(&self) -> Result<KekVersion> {
        let mut held = self.0.lock().unwrap();
        let version = held.versions.len() as u64 + 1;
        held.versions.insert(version, true);
        Ok(KekVersion(version))
    }

    fn wrap(&self, version: KekVersion, root: &[u8; 32], context: &[u8]) -> Result<Vec<u8>> {
        let mut held = self.0.lock().unwrap();
        if held.versions.get(&version.0) != Some(&true) {
            return Err(refused("no such version"));
        }
        let mut token = vec![0; TOKEN_BYTES];
        held.wraps += 1;
        token[8..].copy_from_slice(&TOKEN_END);
        token[..8].copy_from_slice(&held.wraps.to_le_bytes());
        held.wrapped
            .insert(token.clone(), (version.0, *root, context.to_vec()));
        Ok(token)
    }

    fn unwrap(&self, version: KekVersion, wrapped: &[u8], context: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let held = self.0.lock().unwrap();
        match held.wrapped.get(wrapped) {
            _ if held.versions.get(&version.0) != Some(&true) => Err(refused("the version is gone")),
            Some((of, root, bound)) if *of == version.0 && bound == context => Ok(Zeroizing::new(*root)),
            _ => Err(refused("not wrapped under this version and context")),
        }
    }

    fn destroy_version(&self, version: KekVersion) -> Result<Destruction> {
        let mut held = self.0.lock().unwrap();
        if let Some(live) = held.versions.get_mut(&version.0) {
            *live = false;
        }
        held.wrapped.retain(|_, (of, ..)| *of != version.0);
        Ok(Destruction::Destroyed)
    }
}
