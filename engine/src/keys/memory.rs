//! Key-encryption keys in memory, for tests and simulation. Never in production builds.
//!
//! Clones share their state, so a simulated crash that drops the engine keeps the keys, as a real
//! provider would. Everything is derived from a seed: one seed, one history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::provider::{Destruction, KekVersion, KeyProvider};
use super::wrap::{self, refused};
use crate::error::{Error, ErrorKind, Result};
use crate::io::Rng;

static NEXT_SEED: AtomicU64 = AtomicU64::new(1 << 32);

/// A provider in memory. Clones are the same provider.
#[derive(Clone)]
pub struct MemoryKeys(Arc<Shared>);

struct Shared {
    id: [u8; 16],
    state: Mutex<State>,
    bits: Bits,
}

struct State {
    next: u64,
    keys: BTreeMap<KekVersion, [u8; 32]>,
    calls_until_failure: Option<u64>,
    schedule: Option<u64>,
}

/// SHA-256 of seed and counter: deterministic, and different for every seed.
struct Bits {
    seed: u64,
    count: AtomicU64,
}

impl Rng for Bits {
    fn fill(&self, buf: &mut [u8]) -> std::io::Result<()> {
        for chunk in buf.chunks_mut(32) {
            let count = self.count.fetch_add(1, Ordering::Relaxed);
            let mut hash = Sha256::new();
            hash.update(b"strongroom/memory-keys");
            hash.update(self.seed.to_le_bytes());
            hash.update(count.to_le_bytes());
            chunk.copy_from_slice(&hash.finalize()[..chunk.len()]);
        }
        Ok(())
    }
}

impl MemoryKeys {
    /// A provider like no other in this process.
    pub fn new() -> MemoryKeys {
        MemoryKeys::seeded(NEXT_SEED.fetch_add(1, Ordering::Relaxed))
    }

    /// A provider whose keys depend on `seed` and the order of calls only.
    pub fn seeded(seed: u64) -> MemoryKeys {
        let bits = Bits {
            seed,
            count: AtomicU64::new(0),
        };
        let mut id = [0u8; 16];
        // Bits never fails.
        let _ = bits.fill(&mut id);
        let state = State {
            next: 1,
            keys: BTreeMap::new(),
            calls_until_failure: None,
            schedule: None,
        };
        MemoryKeys(Arc::new(Shared {
            id,
            state: Mutex::new(state),
            bits,
        }))
    }

    /// Live versions, oldest first.
    pub fn versions(&self) -> Vec<KekVersion> {
        self.0.state.lock().keys.keys().copied().collect()
    }

    /// Every call after the next `calls` fails with `Io`, as if the provider could not be reached;
    /// `None` ends that.
    pub fn fail_after(&self, calls: Option<u64>) {
        self.0.state.lock().calls_until_failure = calls;
    }

    /// Destructions are only scheduled for this time (ms since 1970); the key is refused at once.
    pub fn schedule_destruction(&self, at_ms: Option<u64>) {
        self.0.state.lock().schedule = at_ms;
    }

    fn call<T>(&self, run: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.0.state.lock();
        match &mut state.calls_until_failure {
            Some(0) => return Err(Error::new(ErrorKind::Io, "the key provider does not answer")),
            Some(left) => *left -= 1,
            None => {}
        }
        run(&mut state)
    }
}

impl Default for MemoryKeys {
    fn default() -> MemoryKeys {
        MemoryKeys::new()
    }
}

impl KeyProvider for MemoryKeys {
    fn name(&self) -> &str {
        "memory"
    }

    fn create_version(&self) -> Result<KekVersion> {
        self.call(|state| {
            let mut kek = [0u8; 32];
            crate::seal::fill(&self.0.bits, &mut kek)?;
            let version = KekVersion(state.next);
            state.next += 1;
            state.keys.insert(version, kek);
            Ok(version)
        })
    }

    fn wrap(&self, version: KekVersion, root: &[u8; 32], context: &[u8]) -> Result<Vec<u8>> {
        self.call(|state| {
            let kek = state.keys.get(&version).ok_or_else(|| gone(version))?;
            wrap::wrap(&self.0.bits, &self.0.id, version, kek, root, context)
        })
    }

    fn unwrap(&self, version: KekVersion, wrapped: &[u8], context: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        self.call(|state| {
            let kek = state.keys.get(&version).ok_or_else(|| gone(version))?;
            match wrap::wrapped_by(wrapped) {
                Some((id, v)) if id == self.0.id && v == version => wrap::unwrap(kek, wrapped, context),
                _ => Err(refused("the keystore belongs to another key provider")),
            }
        })
    }

    fn destroy_version(&self, version: KekVersion) -> Result<Destruction> {
        self.call(|state| {
            state.keys.remove(&version);
            Ok(state
                .schedule
                .map_or(Destruction::Destroyed, Destruction::ScheduledAt))
        })
    }
}

fn gone(version: KekVersion) -> Error {
    refused(format!("key version {} is not at this provider", version.0))
}
