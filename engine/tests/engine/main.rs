//! The engine through its public face: what a user sees, on real files.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests, on real files"
)]

mod content;
mod deletion;
mod many;
mod opening;
mod ranges;
mod replicated;
mod size;
mod standby;
mod stats;
mod unsettled;
mod verify;

use std::path::Path;
use std::sync::Arc;

use strongroom::keys::{KeyProvider, MemoryKeys};
use strongroom::{Engine, Options};

fn keys() -> Arc<dyn KeyProvider> {
    Arc::new(MemoryKeys::new())
}

fn open(dir: &Path, keys: &Arc<dyn KeyProvider>) -> Engine {
    Engine::builder(dir)
        .shared_keys(keys.clone())
        .options(Options::tiny())
        .open()
        .unwrap()
}

/// Small, and stored as they are: sizes on disk are then those of what was written.
fn uncompressed() -> Options {
    let mut options = Options::tiny();
    options.compression = strongroom::Compression::None;
    options
}

fn all(keyspace: &strongroom::Keyspace) -> Vec<(Vec<u8>, Vec<u8>)> {
    keyspace
        .iter()
        .map(|kv| kv.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap())
        .collect()
}
