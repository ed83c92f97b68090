//! What is asked of a disk that a moment may lead to.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use strongroom::io::Io;
use strongroom::io::sim::{CrashMode, SimFs};
use strongroom::{Engine, Options, Result, restore};

use super::{Moment, World};
use crate::canary;
use crate::dice::fresh_seed;
use crate::keys::SimKeys;
use crate::oracle::{Content, let_expire, read_all};

impl Moment {
    /// A number that is equal for moments of which only one needs to be examined.
    pub fn stamp(&self, image: &SimFs) -> (u64, u64, usize) {
        let complete = self.known.copies.iter().filter(|c| c.complete).count();
        (
            image.digest(),
            self.known.oracle.stamp(),
            self.known.copies.len() * 100 + complete,
        )
    }

    /// The machine as after a kill of the process.
    pub fn world(&self) -> World {
        self.world_on(self.fs.fork())
    }

    /// The machine with another disk.
    pub fn world_on(&self, fs: SimFs) -> World {
        let clock = Arc::new(self.clock.fork());
        let mut known = self.known.clone();
        known.oracle.set_clock(clock.clone());
        World {
            fs,
            keys: self.keys.fork(),
            options: self.options.clone(),
            secret: self.secret.clone(),
            clock,
            rng: None,
            known: Arc::new(Mutex::new(known)),
            engine: None,
            unverified: false,
            values: fresh_seed() >> 20,
            expiring: Vec::new(),
            opened: 0,
            standing: Arc::default(),
        }
    }

    /// Opens the database on `image`, one of the disks this moment may lead to, and checks that it
    /// holds an allowed state; then goes on working with it and checks again after another crash or
    /// a close (`thorough` chooses which). `Err` says what is wrong.
    pub fn examine(&self, image: SimFs, thorough: u64) -> std::result::Result<(), String> {
        let mut world = self.world_on(image);
        world.reopen()?;
        self.examine_copies(&world)?;
        let tenants = world.known().oracle.tenants();
        let goes_on = |r: Result<()>| r.map_err(|e| format!("does not go on: {e:?}"));
        for name in &tenants {
            goes_on(world.put(name, "after", thorough % 7, 40))?;
        }
        match thorough % 3 {
            0 => world
                .crash(CrashMode::DropAll, 0)
                .map_err(|e| format!("after a second crash: {e}"))?,
            1 => {
                goes_on(world.flush())?;
                goes_on(world.compact())?;
                world.check().map_err(|e| format!("after compaction: {e}"))?;
            }
            _ => {
                goes_on(world.close())?;
                world.reopen().map_err(|e| format!("after closing: {e}"))?;
                if !world.engine().recovery().clean {
                    return Err("a close in order is not seen at the next open".into());
                }
            }
        }
        match canary::find(&world.fs.files()) {
            leaks if leaks.is_empty() => Ok(()),
            leaks => Err(format!("plaintext on the disk: {leaks:?}")),
        }
    }

    /// Restores every checkpoint on the disk of `world` and compares: those that were completed must
    /// restore, the others may refuse.
    pub fn examine_copies(&self, world: &World) -> std::result::Result<(), String> {
        for (i, copy) in self.known.copies.iter().enumerate() {
            let to = PathBuf::from(format!("/srv/restored-{i}"));
            let (keys, io) = (SimKeys::new(), world.io_on(&world.fs));
            let mut expected = copy.content.clone();
            let_expire(&mut expected, &copy.moments, world.known().oracle.now());
            let found = restore(&copy.path, &copy.escrow, &self.secret, &to, keys.provider(), &io)
                .and_then(|_| read_restored(&to, &keys, world.io_on(&world.fs), &self.options));
            match found {
                Ok(found) if found == expected => {}
                Ok(found) => {
                    let mut text = format!("checkpoint {i} restores to something else:");
                    crate::oracle::difference(&expected, &found, &mut text);
                    return Err(text);
                }
                Err(e) if copy.complete => return Err(format!("checkpoint {i} does not restore: {e:?}")),
                Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Everything in a restored database.
pub fn read_restored(path: &Path, keys: &SimKeys, io: Io, options: &Options) -> Result<Content> {
    let engine = Engine::builder(path)
        .shared_keys(keys.provider())
        .options(options.clone())
        .io(io)
        .open()?;
    read_all(&engine)
}
