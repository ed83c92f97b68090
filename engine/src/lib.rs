//! Strongroom: an embedded, log-structured key-value engine that seals every tenant under its own keys.

pub mod io;
pub mod types;

mod engine;
mod error;
mod options;
pub mod keys;
#[allow(dead_code)]
mod memtable;
#[allow(dead_code)]
mod read;
#[allow(dead_code)]
mod seal;
#[allow(dead_code)]
mod table;
#[allow(dead_code)]
mod version;
#[allow(dead_code)]
mod compaction;
#[allow(dead_code)]
mod flush;

pub use engine::*;
pub use error::{Error, ErrorKind, Result};
pub use options::*;
pub use types::*;
