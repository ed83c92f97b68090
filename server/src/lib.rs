//! The Strongroom server: configuration, listeners, services, lifecycle.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod app;
pub mod config;

/// Makes aws-lc-rs the process's one TLS provider. Call it first thing in `main`, and in tests; fine to call
/// twice.
pub fn install_crypto_provider() {
    // An error means that one is installed already: by an earlier call of this function.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
