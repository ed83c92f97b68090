//! A restore from a checkpoint and an escrow, interrupted anywhere; and decisions that no crash undoes: a
//! fence, and the acceptance of a restored database.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use strongroom::io::sim::SimFs;
use strongroom::keys::EscrowSecret;
use strongroom::{Engine, Epoch, ErrorKind, Result, restore};

use super::scenarios::short_segments;
use super::{Check, Copier, Depth, Machine};
use crate::dice::fresh_seed;
use crate::keys::SimKeys;
use crate::oracle::{Content, read_all};
use crate::world::{World, is_failure_of_the_machine, name_of_tenant, read_restored};

const NEW: &str = "/srv/new";

/// A checkpoint, and what opens it.
struct Backup {
    secret: Arc<EscrowSecret>,
    escrow: Vec<u8>,
    content: Content,
}

impl Backup {
    /// Of a small database, on the disk that is returned.
    fn take() -> (Arc<Backup>, SimFs) {
        let work = |world: &mut World| -> Result<Vec<u8>> {
            world.open()?;
            for n in 1..=2 {
                world.create_tenant(&name_of_tenant(n))?;
                world.put(&name_of_tenant(n), "a", 1, 30)?;
            }
            world.flush()?;
            world.put(&name_of_tenant(1), "b", 1, 30)?;
            let escrow = world.engine().escrow(&world.secret.recipient())?;
            world.engine().checkpoint("/srv/copy")?;
            world.close()?;
            Ok(escrow)
        };
        let mut world = World::new(short_segments());
        let escrow = work(&mut world).unwrap();
        let backup = Backup {
            secret: world.secret.clone(),
            escrow,
            content: world.visible(),
        };
        (
            Arc::new(backup),
            world.fs.crashed_image(strongroom::io::sim::CrashMode::DropAll, 0),
        )
    }

    fn restore(&self, fs: &SimFs, keys: &SimKeys, to: &str) -> Result<()> {
        let io = fs.io(fresh_seed());
        restore("/srv/copy", &self.escrow, &self.secret, to, keys.provider(), &io).map(drop)
    }
}

/// A restore that is under way.
struct Restore {
    fs: SimFs,
    keys: SimKeys,
    backup: Arc<Backup>,
    /// 1 once it returned Ok.
    done: Arc<AtomicU64>,
}

pub(super) fn restoring() -> Box<dyn Machine> {
    let (backup, fs) = Backup::take();
    Box::new(Restore {
        fs,
        keys: SimKeys::new(),
        backup,
        done: Arc::default(),
    })
}

impl Restore {
    fn check(&self) -> Check {
        let found = read_restored(
            Path::new(NEW),
            &self.keys,
            self.fs.io(fresh_seed()),
            &short_segments(),
        );
        match found {
            Ok(found) if found == self.backup.content => Ok(()),
            Ok(_) => Err("the restored database holds something else".to_string()),
            Err(e) => Err(format!("the restored database does not open: {e:?}")),
        }
    }
}

impl Machine for Restore {
    fn fs(&self) -> &SimFs {
        &self.fs
    }

    fn copier(&self) -> Copier {
        let (keys, backup, done) = (self.keys.clone(), self.backup.clone(), self.done.clone());
        Box::new(move |fs| {
            Box::new(Restore {
                fs: fs.fork(),
                keys: keys.fork(),
                backup: backup.clone(),
                done: Arc::new(AtomicU64::new(done.load(Ordering::Relaxed))),
            })
        })
    }

    fn stamp(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn run(&mut self) -> Result<()> {
        self.backup.restore(&self.fs, &self.keys, NEW)?;
        self.done.store(1, Ordering::Relaxed);
        Ok(())
    }

    fn kill(&mut self) {}

    fn goes_on(&mut self, _: bool) -> Check {
        Ok(())
    }

    fn examine(&mut self, _: Depth) -> Check {
        let opened = Engine::builder(NEW)
            .shared_keys(self.keys.provider())
            .options(short_segments())
            .io(self.fs.io(fresh_seed()))
            .create_if_missing(false)
            .open();
        match opened {
            Ok(engine) => {
                let found = read_all(&engine).map_err(|e| format!("cannot be read: {e:?}"))?;
                if found != self.backup.content {
                    return Err("holds something else than the backup".to_string());
                }
                match engine.status().awaiting_acceptance {
                    true => Ok(()),
                    false => Err("serves without acceptance".to_string()),
                }
            }
            Err(e) if self.done.load(Ordering::Relaxed) == 1 => {
                Err(format!("was finished and does not open: {e:?}"))
            }
            Err(e) if matches!(e.kind(), ErrorKind::Invalid | ErrorKind::NotFound) => {
                self.backup
                    .restore(&self.fs, &self.keys, NEW)
                    .map_err(|e| format!("cannot be started over: {e:?}"))?;
                self.check()
            }
            Err(e) => Err(format!("an unfinished restore is not refused as such: {e:?}")),
        }
    }
}

/// A restored database about which is decided.
struct Decisions {
    fs: SimFs,
    keys: SimKeys,
    /// 0: none yet, 1: accepted, 2: fenced.
    decided: Arc<AtomicU64>,
    engine: Option<Engine>,
}

pub(super) fn decisions() -> Box<dyn Machine> {
    let (backup, fs) = Backup::take();
    let keys = SimKeys::new();
    backup.restore(&fs, &keys, NEW).unwrap();
    Box::new(Decisions {
        fs,
        keys,
        decided: Arc::default(),
        engine: None,
    })
}

fn newer() -> Epoch {
    Epoch::FIRST.promoted().promoted().promoted()
}

impl Decisions {
    fn open(&self) -> Result<Engine> {
        let builder = Engine::builder(NEW).shared_keys(self.keys.provider());
        builder
            .options(short_segments())
            .io(self.fs.io(fresh_seed()))
            .open()
    }

    fn put(engine: &Engine) -> Result<()> {
        let space = engine.tenant(&name_of_tenant(1))?.keyspace("b")?;
        space.put("k", "v").map(drop)
    }

    /// A write answers as the status says.
    fn judge(engine: &Engine, decided: u64) -> Check {
        let status = engine.status();
        match decided {
            0 if status.fenced_by.is_some() => return Err("fenced by nobody".to_string()),
            1 if status.awaiting_acceptance => return Err("acceptance is forgotten".to_string()),
            2 if status.fenced_by != Some(newer()) => return Err("the fence is forgotten".to_string()),
            _ => {}
        }
        let expected = match (status.awaiting_acceptance, status.fenced_by) {
            (_, Some(_)) => Err(ErrorKind::Fenced),
            (true, None) => Err(ErrorKind::ReadOnly),
            (false, None) => Ok(()),
        };
        let found = Decisions::put(engine).map_err(|e| e.kind());
        match found == expected {
            true => Ok(()),
            false => Err(format!("a write answers {found:?}, not {expected:?}")),
        }
    }
}

impl Machine for Decisions {
    fn fs(&self) -> &SimFs {
        &self.fs
    }

    fn copier(&self) -> Copier {
        let (keys, decided) = (self.keys.clone(), self.decided.clone());
        Box::new(move |fs| {
            Box::new(Decisions {
                fs: fs.fork(),
                keys: keys.fork(),
                decided: Arc::new(AtomicU64::new(decided.load(Ordering::Relaxed))),
                engine: None,
            })
        })
    }

    fn stamp(&self) -> u64 {
        self.decided.load(Ordering::Relaxed)
    }

    fn run(&mut self) -> Result<()> {
        let wrong = |text: &str| strongroom::Error::new(ErrorKind::Invalid, text.to_string());
        let refused = |engine: &Engine, kind| match Decisions::put(engine) {
            Err(e) if e.kind() == kind || is_failure_of_the_machine(&e) => Ok(()),
            _ => Err(wrong("a write that must be refused")),
        };
        let engine = self.engine.insert(self.open()?);
        refused(engine, ErrorKind::ReadOnly)?;
        engine.accept_restored()?;
        self.decided.store(1, Ordering::Relaxed);
        Decisions::put(engine)?;
        engine.fence(newer())?;
        self.decided.store(2, Ordering::Relaxed);
        refused(engine, ErrorKind::Fenced)?;
        self.engine = None;
        let engine = self.engine.insert(self.open()?);
        refused(engine, ErrorKind::Fenced)?;
        self.engine.take().map_or(Ok(()), |engine| engine.close())
    }

    fn kill(&mut self) {
        self.engine = None;
    }

    fn goes_on(&mut self, _: bool) -> Check {
        match &self.engine {
            Some(engine) => read_all(engine)
                .map(drop)
                .map_err(|e| format!("reads fail afterwards: {e:?}")),
            None => Ok(()),
        }
    }

    fn examine(&mut self, _: Depth) -> Check {
        let engine = self.open().map_err(|e| format!("does not open: {e:?}"))?;
        Decisions::judge(&engine, self.decided.load(Ordering::Relaxed))
    }
}
