//! Room for one replacement on a full disk: deleting a tenant must work then, too (E2), and it writes a
//! whole base before the old one goes.
//!
//! `keystore/reserve` is a file of random bytes (a file system that compresses must not shrink it) that is
//! larger than the next base will be. A deletion, fold or close that finds the disk full removes it, tries
//! again, and makes it anew when there is room. It holds nothing; losing it loses nothing.

use std::path::{Path, PathBuf};

use super::{Keystore, format};
use crate::hooks::rare;
use crate::io::durable;

/// Room beyond the base: the log's head, the key file if it lies on the same disk, directories.
const EXTRA_BYTES: u64 = 64 << 10;
const BLOCK_BYTES: usize = 64 << 10;

impl Keystore {
    fn reserve_path(&self) -> PathBuf {
        self.dir.join("reserve")
    }

    /// Makes the reserve fit the base of `generation`. Best effort: without room there is none to reserve.
    pub(super) fn make_reserve(&self, generation: u64) {
        let path = self.reserve_path();
        let base = self.io.vfs.open(&format::base_path(&self.dir, generation));
        let Ok(base_bytes) = base.and_then(|file| file.len()) else {
            return;
        };
        let enough = base_bytes + base_bytes / 8 + EXTRA_BYTES;
        let has = self.io.vfs.open(&path).and_then(|file| file.len()).unwrap_or(0);
        if has >= enough {
            return;
        }
        // What was removed just now gives its room back when the directory is synced.
        let _ = self.io.vfs.sync_dir(&self.dir);
        // Twice what is needed, so that a growing keystore does not write it at every replacement.
        if self.write_reserve(&path, base_bytes * 2 + EXTRA_BYTES).is_none() {
            rare!(ReserveNotMade);
            let _ = durable::remove_if_exists(&self.io, &path);
            let _ = self.io.vfs.sync_dir(&self.dir);
        }
    }

    fn write_reserve(&self, path: &Path, bytes: u64) -> Option<()> {
        durable::remove_if_exists(&self.io, path).ok()?;
        let file = durable::create(&self.io, path).ok()?;
        let mut block = vec![0u8; BLOCK_BYTES];
        let mut at = 0;
        while at < bytes {
            self.io.rng.fill(&mut block).ok()?;
            file.write_all_at(&block, at).ok()?;
            at += block.len() as u64;
        }
        // Takes the room for certain. If it fails, there is no reserve.
        file.sync().ok()
    }

    /// Gives the reserve's room back to the disk; false if there was none.
    pub(super) fn release_reserve(&self) -> bool {
        let released = matches!(
            durable::remove_if_exists(&self.io, &self.reserve_path()),
            Ok(true)
        );
        // File systems with a journal free the blocks when it is written.
        released && durable::sync_dir(&self.io, &self.dir).is_ok()
    }
}
