//! The Strongroom server: configuration, listeners, services, lifecycle.
//!
//! ```text
//! config > app > listener (TCP, TLS) > auth (certificate, token) > kv_service, admin_service > Node, Engine
//! ```
//!
//! `ndjson` and `template` read what `strongroom load` is given.
//!
//! The tenant of a call comes from its credential and from nowhere else. Errors and logs carry no key, no value
//! and no name of a tenant.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod app;
pub mod config;
pub mod harden;
pub mod telemetry;

pub mod auth;
pub mod listener;
pub mod ndjson;
#[cfg(feature = "sim")]
pub mod parsers;
pub mod status;
pub mod template;
pub mod tls;

mod admin_service;
mod backup;
mod blocking;
mod budget;
mod kv_service;
mod kv_write;
mod online;
mod promotion;
mod snapshots;
mod stats;
mod tenant_info;
mod token_store;

/// Makes aws-lc-rs the process's one TLS provider. Call it first thing in `main`, and in tests; fine to call
/// twice.
pub fn install_crypto_provider() {
    // An error means that one is installed already: by an earlier call of this function.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
