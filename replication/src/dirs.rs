//! The node's own directory beside the engine's, and how one database replaces another.
//!
//! ```text
//! <data_dir>              the engine's, and nobody else's
//! <side_dir>/role         the role this node settled on; wins over the configuration
//!           /incoming/    a base copy being received, or received and not yet in place
//!           /destroy      key-encryption keys of replaced keystores, still to be destroyed at the provider
//!           /install      exists from the moment a received copy is to replace <data_dir> until it has
//!           /retired/     the data it replaced, on its way out
//!           /quarantine/  <epoch>-<ms>/wal: what a deposed primary wrote and nobody else has
//!           /scratch/     checkpoints being sent; wiped at start
//! ```
//!
//! Replacing is restartable at every step: `install` is written (and synced) first, each step looks at what
//! is there, and [`Dirs::resume_install`] runs them again at start. Only renames inside one file system, so
//! there is never half a database under a final name.
//!
//! A diverged WAL is kept for people to look at. The rest of the replaced data goes, its keystore above all:
//! keys that outlive their tenant's deletion in a forgotten copy would break the promise of deletion. For
//! the same reason the key-encryption keys of that keystore are listed in `destroy` until the provider has
//! destroyed them (`kek`); never before the new data is in place.

use std::collections::BTreeSet;
use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};

use strongroom::Epoch;
use strongroom::io::Io;

use crate::error::{Error, ErrorKind, Result};
use crate::hooks::rare;
use crate::options::StartRole;

/// Longest text read back.
const STATE_BYTES_MAX: usize = 64 << 10;

const ROLE_HEAD: &str = "strongroom node role, format 1";

/// What a node recorded of its role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recorded {
    /// It served.
    Primary,
    /// It followed.
    Standby,
    /// A promotion began, above this highest epoch. Whether it took place, the engine's epoch tells.
    Promoting {
        /// Highest epoch then.
        from: Epoch,
    },
}

/// The role to start in, from what was recorded, what is configured, and the highest epoch the local
/// database knows. Pure.
pub fn settle(recorded: Option<Recorded>, configured: StartRole, highest: Option<Epoch>) -> StartRole {
    match (recorded, highest) {
        (None, _) => configured,
        (Some(Recorded::Primary), _) => StartRole::Primary,
        (Some(Recorded::Standby), _) => StartRole::Standby,
        // A promotion takes the next term; anything less means that it never became durable.
        (Some(Recorded::Promoting { from }), Some(highest)) if highest >= from.promoted() => {
            rare!(PromotionFoundDone);
            StartRole::Primary
        }
        (Some(Recorded::Promoting { .. }), _) => {
            rare!(PromotionFoundUndone);
            StartRole::Standby
        }
    }
}

/// The places.
#[derive(Clone)]
pub struct Dirs {
    io: Io,
    data: PathBuf,
    side: PathBuf,
}

impl Dirs {
    /// Makes the side directory and clears what a crash left of scratch checkpoints.
    pub fn open(io: &Io, data: &Path, side: &Path) -> Result<Dirs> {
        let dirs = Dirs {
            io: io.clone(),
            data: data.to_path_buf(),
            side: side.to_path_buf(),
        };
        create_dir_synced(io, &dirs.side)?;
        remove_tree(io, &dirs.scratch_root())?;
        Ok(dirs)
    }

    /// The engine's directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where a base copy is received.
    pub fn incoming(&self) -> PathBuf {
        self.side.join("incoming")
    }

    fn scratch_root(&self) -> PathBuf {
        self.side.join("scratch")
    }

    /// A fresh name for a checkpoint to send; its parent exists.
    pub fn scratch(&self, number: u64) -> Result<PathBuf> {
        let root = self.scratch_root();
        create_dir_synced(&self.io, &root)?;
        Ok(root.join(number.to_string()))
    }

    // ---- role

    /// What was recorded last.
    pub fn recorded(&self) -> Result<Option<Recorded>> {
        let path = self.side.join("role");
        let Some(text) = self.read("role")? else {
            return Ok(None);
        };
        parse_role(&text).map(Some).ok_or_else(|| {
            let text = format!(
                "the recorded role cannot be read; repair or remove it [{}]",
                path.display()
            );
            Error::new(ErrorKind::Io, text)
        })
    }

    /// Durable when it returns.
    pub fn record(&self, role: Recorded) -> Result<()> {
        self.write_synced("role", &role_text(role))
    }

    fn write_synced(&self, name: &str, text: &str) -> Result<()> {
        let (path, temporary) = (self.side.join(name), self.side.join(format!("{name}.tmp")));
        let vfs = &self.io.vfs;
        let write = || {
            if vfs.exists(&temporary)? {
                vfs.remove_file(&temporary)?;
            }
            let file = vfs.create(&temporary)?;
            file.write_all_at(text.as_bytes(), 0)?;
            file.sync()?;
            vfs.rename(&temporary, &path)?;
            vfs.sync_dir(&self.side)
        };
        write().map_err(|e| Error::io("writing the node's state", &path, e))
    }

    // ---- replacing the data

    /// Puts the finished base copy in `incoming` in the place of the data directory, whose engine is closed.
    /// `keep_wal`: the WAL it replaces goes to quarantine, and the path there is returned. `keks`: versions
    /// the replaced keystore was under; listed for destruction once the copy is in place.
    pub fn install(&self, keep_wal: Option<(Epoch, u64)>, keks: &BTreeSet<u64>) -> Result<Option<PathBuf>> {
        let keep = keep_wal.map_or("-".to_string(), |(epoch, ms)| format!("{}-{ms}", epoch.0));
        self.write_synced("install", &format!("{keep}\n{}\n", join(keks)))?;
        self.resume_install()
    }

    /// Finishes an installation that was begun, if one was.
    pub fn resume_install(&self) -> Result<Option<PathBuf>> {
        let Some(text) = self.read("install")? else {
            return Ok(None);
        };
        let mut lines = text.lines();
        let keep = lines.next().unwrap_or("-");
        let keks = parse_list(lines.next().unwrap_or_default());
        let (incoming, retired) = (self.incoming(), self.side.join("retired"));
        if self.exists(&incoming)? {
            // Not yet in place. What is in the data directory is still the old data.
            if self.exists(&self.data)? {
                remove_tree(&self.io, &retired)?;
                rename(&self.io, &self.data, &retired)?;
            }
            rename(&self.io, &incoming, &self.data)?;
        }
        let mut kept = None;
        if keep != "-" && !keep.is_empty() && !keep.contains(['/', '.']) {
            let place = self.side.join("quarantine").join(keep);
            let wal = retired.join("wal");
            if self.exists(&wal)? {
                rare!(WalQuarantined);
                create_dir_synced(&self.io, &place)?;
                rename(&self.io, &wal, &place.join("wal"))?;
            }
            kept = Some(place);
        }
        remove_tree(&self.io, &retired)?;
        if !keks.is_empty() {
            let mut list = self.keks_to_destroy()?;
            list.extend(keks);
            self.write_synced("destroy", &format!("{}\n", join(&list)))?;
        }
        self.remove_synced("install")?;
        Ok(kept)
    }

    /// Key-encryption keys of replaced keystores that the provider has yet to destroy.
    pub fn keks_to_destroy(&self) -> Result<BTreeSet<u64>> {
        Ok(self
            .read("destroy")?
            .map(|text| parse_list(&text))
            .unwrap_or_default())
    }

    /// They are destroyed.
    pub fn keks_destroyed(&self) -> Result<()> {
        self.remove_synced("destroy")
    }

    fn read(&self, name: &str) -> Result<Option<String>> {
        let path = self.side.join(name);
        match self.read_text(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == IoKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("reading the node's state", &path, e)),
        }
    }

    fn read_text(&self, path: &Path) -> std::io::Result<String> {
        let file = self.io.vfs.open(path)?;
        let mut bytes = vec![
            0;
            usize::try_from(file.len()?)
                .unwrap_or(usize::MAX)
                .min(STATE_BYTES_MAX)
        ];
        file.read_exact_at(&mut bytes, 0)?;
        String::from_utf8(bytes).map_err(|e| std::io::Error::new(IoKind::InvalidData, e))
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let found = self.io.vfs.exists(path);
        found.map_err(|e| Error::io("looking for a directory", path, e))
    }

    fn remove_synced(&self, name: &str) -> Result<()> {
        let path = self.side.join(name);
        let vfs = &self.io.vfs;
        match vfs.remove_file(&path).and_then(|()| vfs.sync_dir(&self.side)) {
            Err(e) if e.kind() != IoKind::NotFound => Err(Error::io("removing the node's state", &path, e)),
            _ => Ok(()),
        }
    }
}

fn join(list: &BTreeSet<u64>) -> String {
    list.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

/// Numbers apart by spaces; what is none was never written by [`join`].
fn parse_list(text: &str) -> BTreeSet<u64> {
    text.split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

pub(crate) fn role_text(role: Recorded) -> String {
    let line = match role {
        Recorded::Primary => "primary".to_string(),
        Recorded::Standby => "standby".to_string(),
        Recorded::Promoting { from } => format!("promoting from {}", from.0),
    };
    format!("{ROLE_HEAD}\n{line}\n")
}

/// For fuzzing: whether this is a recorded role, which then must read back as the same bytes.
#[cfg(feature = "sim")]
pub(crate) fn role_reads_back(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let Some(role) = parse_role(text) else {
        return false;
    };
    assert!(role_text(role) == text, "a role reads back as other bytes");
    true
}

/// Exactly what [`role_text`] writes, and nothing else.
fn parse_role(text: &str) -> Option<Recorded> {
    let mut lines = text.lines();
    if lines.next() != Some(ROLE_HEAD) {
        return None;
    }
    let role = match lines.next()? {
        "primary" => Recorded::Primary,
        "standby" => Recorded::Standby,
        line => {
            let from = line.strip_prefix("promoting from ")?.parse().ok()?;
            Recorded::Promoting { from: Epoch(from) }
        }
    };
    (role_text(role) == text).then_some(role)
}

/// Renames and makes both parents' entries durable.
fn rename(io: &Io, from: &Path, to: &Path) -> Result<()> {
    let parents = [from.parent(), to.parent()];
    let work = || {
        io.vfs.rename(from, to)?;
        parents.iter().flatten().try_for_each(|dir| {
            let dir = if dir.as_os_str().is_empty() {
                Path::new(".")
            } else {
                dir
            };
            io.vfs.sync_dir(dir)
        })
    };
    work().map_err(|e| {
        Error::new(
            ErrorKind::Io,
            format!(
                "moving [{}] to [{}] failed; both must be on one file system, and neither a mount point",
                from.display(),
                to.display()
            ),
        )
        .with_source(e)
    })
}

/// Removes a directory and all in it; fine if it is missing.
pub fn remove_tree(io: &Io, path: &Path) -> Result<()> {
    match remove_all(io, path) {
        Err(e) if e.kind() != IoKind::NotFound => Err(Error::io("removing a directory", path, e)),
        _ => Ok(()),
    }
}

fn remove_all(io: &Io, path: &Path) -> std::io::Result<()> {
    for entry in io.vfs.list(path)? {
        let inside = path.join(&entry.name);
        if entry.is_dir {
            remove_all(io, &inside)?;
        } else {
            io.vfs.remove_file(&inside)?;
        }
    }
    io.vfs.remove_dir(path)
}

/// Makes a directory whose name survives a crash, parents included.
fn create_dir_synced(io: &Io, path: &Path) -> Result<()> {
    let vfs = &io.vfs;
    let known = |dir: &Path| vfs.exists(dir);
    let work = || {
        let mut missing = Vec::new();
        let mut at = path;
        while !at.as_os_str().is_empty() && !known(at)? {
            missing.push(at);
            let Some(above) = at.parent() else { break };
            at = above;
        }
        vfs.create_dir_all(path)?;
        for dir in missing.iter().rev().filter_map(|dir| dir.parent()) {
            vfs.sync_dir(if dir.as_os_str().is_empty() {
                Path::new(".")
            } else {
                dir
            })?;
        }
        Ok(())
    };
    work().map_err(|e| Error::io("creating a directory", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn places() -> (tempfile::TempDir, Dirs) {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::open(&Io::os(), &root.path().join("db"), &root.path().join("db.node")).unwrap();
        (root, dirs)
    }

    fn fill(dir: &Path, mark: &str) {
        fs::create_dir_all(dir.join("wal")).unwrap();
        fs::create_dir_all(dir.join("keystore")).unwrap();
        fs::write(dir.join("CURRENT"), mark).unwrap();
        fs::write(dir.join("wal/0"), mark).unwrap();
        fs::write(dir.join("keystore/base"), mark).unwrap();
    }

    fn current(dirs: &Dirs) -> String {
        fs::read_to_string(dirs.data().join("CURRENT")).unwrap()
    }

    #[test]
    fn settle_table() {
        use StartRole::{Primary, Standby};
        let from = Epoch::new(3, 2);
        let promoting = Some(Recorded::Promoting { from });
        let table = [
            (None, Primary, None, Primary),
            (None, Standby, Some(from), Standby),
            (Some(Recorded::Primary), Standby, Some(from), Primary),
            (Some(Recorded::Standby), Primary, Some(from), Standby),
            (promoting, Standby, Some(from), Standby),
            (promoting, Standby, None, Standby),
            (promoting, Standby, Some(Epoch(from.0 + 1)), Standby),
            (promoting, Standby, Some(from.promoted()), Primary),
            (promoting, Standby, Some(Epoch(from.promoted().0 + 3)), Primary),
            (promoting, Primary, Some(from), Standby),
        ];
        for (recorded, configured, highest, expected) in table {
            assert_eq!(
                settle(recorded, configured, highest),
                expected,
                "{recorded:?} {highest:?}"
            );
        }
    }

    #[test]
    fn role_recorded_then_read_back() {
        let (_root, dirs) = places();
        assert_eq!(dirs.recorded().unwrap(), None);
        for role in [
            Recorded::Primary,
            Recorded::Standby,
            Recorded::Promoting {
                from: Epoch::new(1, 1),
            },
        ] {
            dirs.record(role).unwrap();
            assert_eq!(dirs.recorded().unwrap(), Some(role));
        }
    }

    #[test]
    fn role_damaged_then_error_not_a_default() {
        let (_root, dirs) = places();
        let texts = [
            String::new(),
            "primary\n".to_string(),
            format!("{ROLE_HEAD}\n"),
            format!("{ROLE_HEAD}\nPrimary\n"),
            format!("{ROLE_HEAD}\npromoting from x\n"),
            format!("{ROLE_HEAD}\npromoting from +1\n"),
            format!("{ROLE_HEAD}\nprimary"),
            format!("{ROLE_HEAD}\nprimary\nstandby\n"),
        ];
        for text in texts {
            fs::write(dirs.side.join("role"), &text).unwrap();
            dirs.recorded().unwrap_err();
        }
    }

    #[test]
    fn install_then_new_data_in_place_and_old_gone() {
        let (_root, dirs) = places();
        fill(dirs.data(), "old");
        fill(&dirs.incoming(), "new");
        assert_eq!(dirs.install(None, &BTreeSet::new()).unwrap(), None);
        assert_eq!(current(&dirs), "new");
        assert!(!dirs.side.join("retired").exists());
        assert!(!dirs.side.join("quarantine").exists());
        assert!(!dirs.side.join("install").exists());
    }

    #[test]
    fn install_of_diverged_then_only_the_wal_is_kept() {
        let (_root, dirs) = places();
        fill(dirs.data(), "old");
        fill(&dirs.incoming(), "new");
        let kept = dirs
            .install(Some((Epoch::FIRST, 1700)), &[3, 5].into())
            .unwrap()
            .unwrap();
        assert_eq!(fs::read_to_string(kept.join("wal/0")).unwrap(), "old");
        assert_eq!(fs::read_dir(&kept).unwrap().count(), 1, "no keystore, no tables");
        assert_eq!(dirs.keks_to_destroy().unwrap(), [3, 5].into());
        fill(&dirs.incoming(), "newer");
        dirs.install(None, &[7].into()).unwrap();
        assert_eq!(
            dirs.keks_to_destroy().unwrap(),
            [3, 5, 7].into(),
            "none is forgotten"
        );
        dirs.keks_destroyed().unwrap();
        dirs.keks_destroyed().unwrap();
        assert!(dirs.keks_to_destroy().unwrap().is_empty());
        assert_eq!(current(&dirs), "newer");
    }

    #[test]
    fn install_into_missing_directory_then_in_place() {
        let (_root, dirs) = places();
        fill(&dirs.incoming(), "new");
        dirs.install(None, &BTreeSet::new()).unwrap();
        assert_eq!(current(&dirs), "new");
    }

    #[test]
    fn install_cut_short_anywhere_then_resumed() {
        for step in 0..4 {
            let (_root, dirs) = places();
            fill(dirs.data(), "old");
            fill(&dirs.incoming(), "new");
            dirs.write_synced("install", "4294967296-9\n4\n").unwrap();
            let retired = dirs.side.join("retired");
            if step >= 1 {
                rename(&Io::os(), dirs.data(), &retired).unwrap();
            }
            if step >= 2 {
                rename(&Io::os(), &dirs.incoming(), dirs.data()).unwrap();
            }
            if step >= 3 {
                let place = dirs.side.join("quarantine/4294967296-9");
                fs::create_dir_all(&place).unwrap();
                rename(&Io::os(), &retired.join("wal"), &place.join("wal")).unwrap();
            }
            let dirs = Dirs::open(&Io::os(), &dirs.data, &dirs.side).unwrap();
            let kept = dirs.resume_install().unwrap().unwrap();
            assert_eq!(current(&dirs), "new", "step {step}");
            assert_eq!(
                fs::read_to_string(kept.join("wal/0")).unwrap(),
                "old",
                "step {step}"
            );
            assert!(!retired.exists(), "step {step}");
            assert_eq!(dirs.resume_install().unwrap(), None, "step {step}");
            assert_eq!(dirs.keks_to_destroy().unwrap(), [4].into(), "step {step}");
        }
    }

    #[test]
    fn base_copy_unfinished_then_data_untouched() {
        let (_root, dirs) = places();
        fill(dirs.data(), "old");
        fill(&dirs.incoming(), "half");
        assert_eq!(dirs.resume_install().unwrap(), None);
        assert_eq!(current(&dirs), "old");
    }
}
