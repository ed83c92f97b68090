//! Checkpoints, restores and base copies: taken under load, compared on a disk of their own, cut in the
//! middle and begun again.

use std::path::{Path, PathBuf};

use strongroom::io::sim::{CrashMode, SimFs};
use strongroom::{BaseCopyReceiver, Engine, Error, ErrorKind, Role, checkpoint_files, restore};

use super::run::{Done, Run, Wrong};
use crate::keys::SimKeys;
use crate::layers::counted;
use crate::oracle::{Content, Moments, difference, let_expire, read_all};
use crate::world::Copy;

/// Checkpoints taken in one run.
const COPIES_MAX: usize = 3;
/// Where restores and base copies go.
const TO: &str = "/srv/restored";
const CHUNK_BYTES: usize = 1500;

impl Run {
    /// Takes a checkpoint and compares what it restores to.
    pub fn checkpoint(&mut self) -> Done {
        let (count, certain) = {
            let known = self.world.known();
            (known.copies.len(), known.oracle.failures() == 0)
        };
        if !certain || count >= COPIES_MAX {
            return Ok(());
        }
        self.world.checkpoint(&format!("/srv/copy-{count}"))?;
        self.restored_without_a_cut()
    }

    fn newest_copy(&self) -> Option<Copy> {
        self.world
            .known()
            .copies
            .iter()
            .rfind(|copy| copy.complete)
            .cloned()
    }

    fn restored_without_a_cut(&mut self) -> Done {
        match self.newest_copy() {
            Some(copy) => self.restored(&copy, None),
            None => Ok(()),
        }
    }

    /// Restores the newest checkpoint; the power is cut at one of the operations, then all begins again.
    pub fn restore(&mut self, at: u64, seed: u64) -> Done {
        match self.newest_copy() {
            Some(copy) => self.restored(&copy, Some((at, seed))),
            None => Ok(()),
        }
    }

    fn restored(&mut self, copy: &Copy, cut: Option<(u64, u64)>) -> Done {
        let mut fs = self.world.fs.fork();
        let keys = SimKeys::new();
        let restore_on = |fs: &SimFs, io: strongroom::io::Io| {
            fs.set_capacity(None);
            fs.set_handles_max(None);
            let secret = &self.world.secret;
            restore(&copy.path, &copy.escrow, secret, TO, keys.provider(), &io)
        };
        if let Some((at, seed)) = cut {
            fs.crash_at(fs.ops() + at, seed.is_multiple_of(2));
            let result = restore_on(&fs, self.world.io_on(&fs));
            match result {
                Err(_) if fs.crashed() => {
                    fs = fs.crashed_image(CrashMode::KeepRandom, seed);
                    self.counters.add(counted::row(56), 1);
                    self.refuses_to_open(&fs, &keys)?;
                }
                Err(e) => return Err(Wrong::Failure(format!("a restore fails: {e:?}"))),
                Ok(_) => {
                    fs.clear_faults();
                    return self.holds(&fs, &keys, Role::Primary, (&copy.content, &copy.moments));
                }
            }
        }
        let result = restore_on(&fs, self.world.io_on(&fs));
        match result {
            Ok(_) => self.holds(&fs, &keys, Role::Primary, (&copy.content, &copy.moments)),
            // The cut came after the end: what is there is whole.
            Err(e) if cut.is_some() && e.kind() == ErrorKind::AlreadyExists => {
                self.holds(&fs, &keys, Role::Primary, (&copy.content, &copy.moments))
            }
            Err(e) => Err(Wrong::Failure(format!("a checkpoint does not restore: {e:?}"))),
        }
    }

    /// A directory that is half a copy must not open, and nothing may be made in its place.
    fn refuses_to_open(&self, fs: &SimFs, keys: &SimKeys) -> Result<(), String> {
        let fs = fs.fork();
        match self.open_copy(&fs, keys, Role::Primary) {
            Err(_) => Ok(()),
            // The cut came after the end.
            Ok(engine) if !read_all(&engine).map_err(|e| format!("{e:?}"))?.is_empty() => Ok(()),
            Ok(_) => Err("an unfinished copy opens".into()),
        }
    }

    fn open_copy(&self, fs: &SimFs, keys: &SimKeys, role: Role) -> Result<Engine, Error> {
        Engine::builder(TO)
            .shared_keys(keys.provider())
            .options(self.world.options.clone())
            .role(role)
            .create_if_missing(false)
            .io(self.world.io_on(fs))
            .open()
    }

    fn holds(
        &mut self,
        fs: &SimFs,
        keys: &SimKeys,
        role: Role,
        (content, moments): (&Content, &Moments),
    ) -> Done {
        self.counters.add("copies compared", 1);
        self.counters.add(counted::row(58), 1);
        let engine = self.open_copy(fs, keys, role);
        let engine = engine.map_err(|e| format!("a copy does not open: {e:?}"))?;
        let found = read_all(&engine).map_err(|e| format!("a copy cannot be read: {e:?}"))?;
        let mut expected = content.clone();
        let_expire(&mut expected, moments, self.world.known().oracle.now());
        if found == expected {
            return Ok(());
        }
        let mut text = "a copy holds something else:".to_string();
        difference(&expected, &found, &mut text);
        Err(Wrong::Failure(text))
    }

    /// Fills a standby's directory from a new checkpoint: once as far as `at` chunks, then from the
    /// start again.
    pub fn base_copy(&mut self, at: u64, seed: u64) -> Done {
        if self.world.known().oracle.failures() > 0 {
            return Ok(());
        }
        let number = self.counters.get(counted::OPERATIONS);
        let from = PathBuf::from(format!("/srv/base-{number}"));
        self.world.engine().checkpoint(&from)?;
        let (content, moments) = (self.world.visible(), self.world.known().oracle.moments());
        let full = self.world.engine().key_changes(0);
        let disk = self.world.fs.fork();
        disk.set_capacity(None);
        disk.set_handles_max(None);
        let files = checkpoint_files(&from, &self.world.io_on(&disk))?;
        let keys = SimKeys::new();
        let mut other = SimFs::new();
        for most in [at as usize, usize::MAX] {
            let io = self.world.io_on(&other);
            let failed = |e: Error| format!("a base copy fails: {e:?}");
            let mut receiver = BaseCopyReceiver::start(TO, io, keys.provider()).map_err(failed)?;
            receiver.keys(&full).map_err(failed)?;
            let cut = send(&disk, &from, &files, &mut receiver, most).map_err(failed)?;
            if cut {
                drop(receiver);
                other = other.crashed_image(CrashMode::KeepRandom, seed);
                self.refuses_to_open(&other, &keys)?;
                self.counters.add(counted::row(46), 1);
                continue;
            }
            receiver.finish().map_err(failed)?;
            break;
        }
        self.holds(&other, &keys, Role::Standby, (&content, &moments))
    }
}

/// Sends at most so many chunks; true if there were more.
fn send(
    disk: &SimFs,
    from: &Path,
    files: &[(String, u64)],
    receiver: &mut BaseCopyReceiver,
    most: usize,
) -> Result<bool, Error> {
    let mut sent = 0;
    for (name, _) in files {
        let bytes = disk.content(from.join(name)).expect("a checkpoint's file");
        let mut parts: Vec<&[u8]> = bytes.chunks(CHUNK_BYTES).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        for (i, part) in parts.into_iter().enumerate() {
            if sent == most {
                return Ok(true);
            }
            receiver.chunk(name, (i * CHUNK_BYTES) as u64, part)?;
            sent += 1;
        }
    }
    Ok(false)
}
