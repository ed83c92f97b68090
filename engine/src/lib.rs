//! Strongroom: an embedded, log-structured key-value engine that seals every tenant under its own keys.

pub mod io;
pub mod types;

mod engine;
mod error;
mod options;
pub mod keys;

pub use engine::*;
pub use error::{Error, ErrorKind, Result};
pub use options::*;
pub use types::*;
