//! The engines, one file each.

#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "lmdb")]
mod lmdb;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod strongroom;

use crate::store::Engine;

/// All that were compiled in; ours first.
pub const ENGINES: &[Engine] = &[
    strongroom::ENGINE,
    #[cfg(feature = "rocksdb")]
    rocksdb::ENGINE,
    #[cfg(feature = "fjall")]
    fjall::ENGINE,
    #[cfg(feature = "lmdb")]
    lmdb::ENGINE,
    #[cfg(feature = "redb")]
    redb::ENGINE,
];
