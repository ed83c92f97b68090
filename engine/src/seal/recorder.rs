//! Proof by test that no (key, nonce) pair repeats (S1). Only in tests and simulations.
//!
//! Every seal reports here. Two rules, each broken by panic:
//! 1. A (key, nonce) pair is used once.
//! 2. A key is used through one [`Nonces`](super::Nonces): whoever makes a second one for the same file
//!    repeats its counters, and only the random half of the nonce would keep the pairs apart.
//!
//! Simulations that run one seed twice in one process repeat keys and nonces, rightly. So pairs are kept
//! for each source of randomness: one set for every stateful `Rng` that lives, and one for all stateless
//! ones, which can only be the operating system. A set goes when its source has gone.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_128;

use super::NONCE_BYTES;
use crate::io::Rng;

static SETS: Mutex<Option<HashMap<usize, Set>>> = Mutex::new(None);
static PAIRS: AtomicU64 = AtomicU64::new(0);
static WRITERS: AtomicU64 = AtomicU64::new(0);

struct Set {
    /// Keeps the address of the source from being used again; `None` for the operating system.
    source: Option<Weak<dyn Rng>>,
    pairs: HashSet<u128>,
    writers: HashMap<u128, u64>,
}

/// Which [`Nonces`](super::Nonces) seals, and from which source of randomness.
pub(crate) struct Writer {
    id: u64,
    source: usize,
}

impl Writer {
    pub(crate) fn new(rng: &Arc<dyn Rng>) -> Writer {
        let stateless = size_of_val(&**rng) == 0;
        let source = if stateless {
            0
        } else {
            Arc::as_ptr(rng).cast::<u8>() as usize
        };
        let mut sets = SETS.lock();
        let sets = sets.get_or_insert_default();
        sets.retain(|_, set| set.source.as_ref().is_none_or(|s| s.strong_count() > 0));
        sets.entry(source).or_insert_with(|| Set {
            source: (!stateless).then(|| Arc::downgrade(rng)),
            pairs: HashSet::new(),
            writers: HashMap::new(),
        });
        Writer {
            id: WRITERS.fetch_add(1, Ordering::Relaxed),
            source,
        }
    }
}

/// Records one seal; panics if rule 1 or 2 is broken.
/// `commitment` stands for the key: equal keys have equal commitments, and it tells nothing of the key.
pub(crate) fn record(writer: &Writer, commitment: &[u8; 16], nonce: &[u8; NONCE_BYTES]) {
    let key = u128::from_le_bytes(*commitment);
    let mut bytes = [0u8; 16 + NONCE_BYTES];
    bytes[..16].copy_from_slice(commitment);
    bytes[16..].copy_from_slice(nonce);
    let pair = xxh3_128(&bytes);
    let (fresh, first) = {
        let mut sets = SETS.lock();
        let Some(set) = sets.as_mut().and_then(|sets| sets.get_mut(&writer.source)) else {
            return;
        };
        (
            set.pairs.insert(pair),
            *set.writers.entry(key).or_insert(writer.id),
        )
    };
    PAIRS.fetch_add(1, Ordering::Relaxed);
    assert!(fresh, "a (key, nonce) pair was used twice");
    assert!(
        first == writer.id,
        "a file key was used through two counters: a file was appended to anew"
    );
}

/// How many (key, nonce) pairs were recorded in this process so far: tests assert that it grew.
pub fn recorder_pairs() -> u64 {
    PAIRS.load(Ordering::Relaxed)
}
