//! Strongroom: an embedded, log-structured key-value engine that seals every tenant under its own keys.
//!
//! ```no_run
//! use strongroom::{Engine, TenantOptions, keys::KeyFile};
//!
//! let engine = Engine::builder("./data").keys(KeyFile::open("strongroom.key")?).open()?;
//! let acme = engine.create_tenant("acme", TenantOptions::default())?;
//! let events = acme.keyspace("activity")?;
//! events.put("u42/2026-11-21", "saved report.txt")?; // durable when it returns
//! assert!(events.get("u42/2026-11-21")?.is_some());
//! engine.close()?;
//! # Ok::<(), strongroom::Error>(())
//! ```
//!
//! Modules in reading order: `types`, `io` and `seal` carry everything; a write goes through `tenant`,
//! `commit`, `wal`, `memtable`, `flush`, `table`, `version`, `compaction`; a read through `read`; `open`
//! and `recovery` bring it back; `follower`, `checkpoint` and `base_copy` make it two.
//! ARCHITECTURE.md is the map, docs/format.md the bytes.
#![warn(missing_docs)]
#![deny(unsafe_code)]

#[cfg(any(test, feature = "sim"))]
pub mod hooks;
#[cfg(not(any(test, feature = "sim")))]
mod hooks;
pub mod io;
pub mod keys;

mod background;
mod base_copy;
mod catalog;
mod checkpoint;
mod codec;
mod commit;
mod commit_lock;
mod compaction;
mod condition;
mod engine;
mod error;
mod expiry;
mod flush;
mod follower;
mod gate;
mod inner;
#[cfg(feature = "internals")]
pub mod internals;
mod keystore;
mod memtable;
mod online;
mod open;
mod operation;
mod options;
mod pace;
mod patience;
mod pins;
mod prefetch;
mod quota;
mod range_delete;
mod read;
mod recovery;
mod retention;
mod seal;
mod settings;
mod size;
mod stats;
mod status;
mod table;
mod tenant;
mod throttle;
mod transaction;
mod types;
mod verify;
mod version;
mod wal;

pub use base_copy::{BaseCopyReceiver, Restored, restore};
pub use checkpoint::checkpoint_files;
pub use commit::CommitTicket;
pub use engine::{Deletion, Engine, TenantOptions};
pub use error::{Error, ErrorKind, Result};
pub use follower::{Promotion, StandbyProgress};
pub use online::OnlineOption;
pub use open::Builder;
pub use operation::{OpCounters, measure};
pub use options::{
    BATCH_BYTES_MAX, Background, Compression, KEY_BYTES_MAX, NAME_BYTES_MAX, Options, PutOptions,
    VALUE_BYTES_MAX,
};
pub use pace::Pressure;
pub use pins::WalPin;
pub use read::range::Range;
pub use retention::Retention;
#[cfg(any(test, feature = "sim"))]
pub use seal::recorder_pairs;
pub use size::{Size, Usage};
pub use stats::{DelayStats, JobStats, LevelStats, MemtableStats, ReadStats, Stats, WalStats, WriteStats};
pub use status::{Checkpoint, Recovery, Role, Status, TenantInfo};
pub use tenant::{Batch, Ingest, Keyspace, Snapshot, Tenant};
pub use transaction::Transaction;
pub use types::{
    Chain, DekVersion, Durability, Epoch, EpochStart, KeyspaceId, Lsn, Position, SeqNo, TenantId,
};
pub use verify::{Damage, Verified};
pub use wal::cursor::WalCursor;

/// The README's code, compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
