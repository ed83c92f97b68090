//! Strongroom: an embedded, log-structured key-value engine that seals every tenant under its own keys.

pub mod io;
pub mod types;

mod engine;
mod error;
mod options;
#[allow(dead_code, unused_imports)]
pub mod keys;
#[allow(dead_code, unused_imports)]
mod keystore;
#[allow(dead_code, unused_imports)]
mod seal;

#[cfg(any(test, feature = "sim"))]
#[doc(hidden)]
pub use seal::recorder_pairs;


pub use engine::*;
pub use error::{Error, ErrorKind, Result};
pub use options::*;
pub use types::*;
