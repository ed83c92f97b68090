//! Client for a Strongroom server.
//!
//! [`Client`] reads and writes one tenant's data with the tenant's token; it finds the primary among its
//! endpoints and follows it through a failover. [`AdminClient`] speaks to one node's administration listener
//! over mutual TLS.
//!
//! A write ends in one of three ways: it succeeded and has a [`Position`]; it failed and was *not* applied; or
//! its outcome is unknown ([`Kind::Unknown`]) and only reading back can tell. The client retries by itself only
//! what was certainly not applied, and reads. With [`WriteOptions::retry_unknown`] the caller vouches that
//! applying a write twice does no harm.
//!
//! ```no_run
//! # async fn example() -> strongroom_client::Result<()> {
//! use strongroom_client::{Client, ClientConfig, RangeOptions};
//!
//! let mut config = ClientConfig::new(["https://db1:7300", "https://db2:7300"], "id.secret");
//! config.ca_pem = std::fs::read("ca.pem").ok();
//! let client = Client::connect(config).await?;
//! client.put("orders", "o/1", "paid").await?;
//! let value = client.get("orders", "o/1").await?;
//! let mut entries = client.range("orders", RangeOptions::prefix("o/").limit(10)).await?;
//! while let Some((key, value)) = entries.next().await? { /* ... */ }
//! # Ok(()) }
//! ```
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod admin;
mod batch;
mod channel;
mod client;
mod config;
mod error;
mod many;
mod range;
mod snapshot;

pub use admin::{AdminClient, AdminConfig};
pub use batch::Batch;
pub use client::{Client, WriteOptions};
pub use config::ClientConfig;
pub use error::{ClientError, ERROR_KIND_KEY, Kind, Result};
pub use range::{Entries, RangeOptions};
pub use snapshot::Snapshot;

/// Generated from `proto/`: messages, client and server stubs, descriptor sets.
pub mod proto {
    /// `strongroom.kv.v1`.
    #[allow(missing_docs, clippy::all, clippy::pedantic)]
    pub mod kv {
        include!("generated/strongroom.kv.v1.rs");
        /// Encoded `FileDescriptorSet`, for reflection.
        pub const DESCRIPTORS: &[u8] = include_bytes!("generated/kv.bin");
    }
    /// `strongroom.admin.v1`.
    #[allow(missing_docs, clippy::all, clippy::pedantic)]
    pub mod admin {
        include!("generated/strongroom.admin.v1.rs");
        /// Encoded `FileDescriptorSet`, for reflection.
        pub const DESCRIPTORS: &[u8] = include_bytes!("generated/admin.bin");
    }
}

/// Where a commit stands, and how far a write must have got before it is acknowledged.
pub use proto::kv::{Durability, Position};

/// Largest message either side accepts: a 64 MiB value with its key and frame, with room to spare.
pub const MESSAGE_BYTES_MAX: usize = 80 << 20;

/// Metadata key, on every answer of the key-value service that a token was good for, of the epoch the node took the
/// call in (decimal, as in [`Position::epoch`]).
pub const EPOCH_KEY: &str = "strongroom-epoch";
