//! The power fails on a standby: while it takes its base copy, while it follows, takes keys over, reopens,
//! is promoted, and after; and on an old primary that returns as standby.
//!
//! The primary works undisturbed. Whatever is left of the standby:
//!
//! - an unfinished base copy is refused, or nothing yet, and can be started over;
//! - a finished one opens, and stands at or behind what was sent, at or past what it acknowledged;
//! - its content is the primary's at exactly that position, of the tenants whose keys it has;
//! - keys that it acknowledged to have destroyed are gone at its key provider, too;
//! - once promoted, it holds everything it acknowledged as a standby and as a primary, in a new epoch.

mod judge;
mod sent;
mod splice;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use strongroom::io::sim::{CrashMode, SimFs};
use strongroom::{BaseCopyReceiver, Engine, Epoch, ErrorKind, Lsn, Options, Result, Role};

use super::scenarios::short_segments;
use super::{Check, Copier, Depth, Machine};
use crate::dice::{Dice, fresh_seed};
use crate::keys::SimKeys;
use crate::oracle::read_all;
use crate::world::{DIR, key_of, name_of_space, name_of_tenant};

use sent::Sent;
pub use splice::spliced_log_is_refused;

const STANDBY_DIR: &str = "/srv/standby";

/// One thing a standby does.
#[derive(Clone, Copy)]
enum Stage {
    Copy,
    Open,
    /// Takes over the key changes up to this step of [`Sent::keys`].
    Keys(usize),
    /// Follows up to so many percent of what is sent.
    Follow(usize),
    Flush,
    Kill,
    Close,
    Promote,
    /// Puts a few keys as the new primary.
    Write,
}

/// How far the standby's owner was told it is.
#[derive(Clone, Default)]
struct Told {
    finished: bool,
    durable: Lsn,
    /// Steps of key changes acknowledged.
    keys: usize,
    /// Provider's versions that may unwrap what was destroyed.
    condemned: BTreeSet<u64>,
    /// 1: `promote` was called, 2: it returned Ok.
    promoted: u8,
    /// The reign it returned: never to be used by another opening.
    epoch: Epoch,
    /// Keys put after the promotion: submitted, acknowledged.
    puts: (u64, u64),
}

/// A standby and the stages it will go through.
struct Standby {
    dir: &'static str,
    fs: SimFs,
    keys: SimKeys,
    sent: Arc<Sent>,
    told: Arc<Mutex<Told>>,
    stages: &'static [Stage],
    engine: Option<Engine>,
}

/// A standby that went through `before` undisturbed, and will go through `stages`.
fn standby(before: &'static [Stage], stages: &'static [Stage]) -> Box<dyn Machine> {
    let mut standby = Standby {
        dir: STANDBY_DIR,
        fs: SimFs::new(),
        keys: SimKeys::new(),
        sent: Arc::new(sent::by_a_primary().unwrap().0),
        told: Arc::default(),
        stages: before,
        engine: None,
    };
    standby.run().unwrap();
    standby.engine = None;
    standby.stages = stages;
    Box::new(standby)
}

/// The base copy, and what comes first after it.
pub(super) fn bootstrap() -> Box<dyn Machine> {
    use Stage::*;
    standby(&[], &[Copy, Open, Keys(1), Follow(20), Close])
}

/// Appending, syncing, applying, over reopenings in order and not.
pub(super) fn following() -> Box<dyn Machine> {
    use Stage::*;
    standby(
        &[Copy],
        &[
            Open,
            Keys(1),
            Follow(33),
            Kill,
            Open,
            Follow(66),
            Flush,
            Close,
            Open,
            Follow(100),
        ],
    )
}

/// Keys that come, and a tenant that goes: a new root on the standby.
pub(super) fn keys() -> Box<dyn Machine> {
    use Stage::*;
    standby(&[Copy], &[Open, Keys(1), Follow(50), Keys(2), Follow(100), Close])
}

pub(super) fn promotion() -> Box<dyn Machine> {
    use Stage::*;
    standby(
        &[Copy, Open, Keys(1), Follow(60), Close],
        &[Open, Follow(100), Promote, Write, Close],
    )
}

/// The whole life in one.
pub(super) fn life() -> Box<dyn Machine> {
    use Stage::*;
    standby(
        &[],
        &[
            Copy,
            Open,
            Keys(1),
            Follow(33),
            Kill,
            Open,
            Follow(66),
            Keys(2),
            Flush,
            Close,
            Open,
            Follow(100),
            Promote,
            Write,
            Close,
        ],
    )
}

/// An old primary follows the node that was promoted in its place.
pub(super) fn returning() -> Box<dyn Machine> {
    use Stage::*;
    let (first, old) = sent::by_a_primary().unwrap();
    let mut new = Standby {
        dir: STANDBY_DIR,
        fs: SimFs::new(),
        keys: SimKeys::new(),
        sent: Arc::new(first),
        told: Arc::default(),
        stages: &[Copy, Open, Keys(2), Follow(100), Promote],
        engine: None,
    };
    new.run().unwrap();
    let sent = sent::by_the_promoted(new.engine.as_ref().unwrap(), &new.sent).unwrap();
    let told = Told {
        finished: true,
        durable: sent.start,
        keys: 2,
        ..Told::default()
    };
    Box::new(Standby {
        dir: DIR,
        fs: old.fs.crashed_image(CrashMode::DropAll, 0),
        keys: old.keys.fork(),
        sent: Arc::new(sent),
        told: Arc::new(Mutex::new(told)),
        stages: &[Open, Follow(50), Kill, Open, Follow(100), Flush, Close],
        engine: None,
    })
}

impl Standby {
    /// The same on a fork of this disk, with provider and knowledge of now.
    fn on(&self, fs: &SimFs) -> Standby {
        Standby {
            dir: self.dir,
            fs: fs.fork(),
            keys: self.keys.fork(),
            sent: self.sent.clone(),
            told: Arc::new(Mutex::new(self.told.lock().unwrap().clone())),
            stages: self.stages,
            engine: None,
        }
    }

    fn open(&self, role: Role) -> Result<Engine> {
        let builder = Engine::builder(self.dir)
            .shared_keys(self.keys.provider())
            .options(options());
        let builder = builder.role(role).create_if_missing(false);
        builder.io(self.fs.io(fresh_seed())).open()
    }

    fn copy(&self) -> Result<()> {
        let io = self.fs.io(fresh_seed());
        let mut receiver = BaseCopyReceiver::start(self.dir, io, self.keys.provider())?;
        receiver.keys(&self.sent.keys[0])?;
        for (name, bytes) in &self.sent.files {
            for (i, part) in bytes.chunks(1000).enumerate() {
                receiver.chunk(name, 1000 * i as u64, part)?;
            }
            if bytes.is_empty() {
                receiver.chunk(name, 0, &[])?;
            }
        }
        receiver.finish()
    }

    /// Sends up to `until`, in pieces that know no records, and syncs now and then.
    fn follow(&self, engine: &Engine, until: usize, dice: &mut Dice) -> Result<()> {
        let told = |durable| self.told.lock().unwrap().durable = durable;
        loop {
            let progress = engine.standby_progress()?;
            let from = (progress.received.0 - self.sent.start.0) as usize;
            if from >= until {
                break;
            }
            let to = until.min(from + 1 + dice.below(900) as usize);
            engine.standby_append(progress.received, &self.sent.wal[from..to])?;
            if dice.percent(40) {
                told(engine.standby_sync()?.durable);
            }
        }
        told(engine.standby_sync()?.durable);
        Ok(())
    }

    fn take_keys(&self, engine: &Engine, step: usize) -> Result<()> {
        let here = self.sent.steps(engine.keystore_version());
        let from = here.expect("a version that was sent");
        for (n, changes) in self.sent.keys.iter().enumerate().take(step + 1).skip(from + 1) {
            let live = self.keys.live_versions();
            engine.apply_key_changes(changes)?;
            let mut told = self.told.lock().unwrap();
            told.keys = n;
            if !changes.deleted.is_empty() {
                told.condemned = live;
            }
        }
        Ok(())
    }

    fn stage(&mut self, stage: Stage, dice: &mut Dice) -> Result<()> {
        let closed = || strongroom::Error::new(ErrorKind::Closed, "no engine");
        match stage {
            Stage::Copy => {
                self.copy()?;
                let mut told = self.told.lock().unwrap();
                told.finished = true;
                told.durable = self.sent.start;
            }
            Stage::Open => self.engine = Some(self.open(Role::Standby)?),
            Stage::Kill => self.engine = None,
            Stage::Close => self.engine.take().ok_or_else(closed)?.close()?,
            Stage::Flush => self.engine.as_ref().ok_or_else(closed)?.flush()?,
            Stage::Keys(step) => self.take_keys(self.engine.as_ref().ok_or_else(closed)?, step)?,
            Stage::Follow(percent) => {
                let until = self.sent.wal.len() * percent / 100;
                self.follow(self.engine.as_ref().ok_or_else(closed)?, until, dice)?;
            }
            Stage::Promote => {
                self.told.lock().unwrap().promoted = 1;
                let promotion = self.engine.as_ref().ok_or_else(closed)?.promote()?;
                let mut told = self.told.lock().unwrap();
                told.promoted = 2;
                told.epoch = promotion.epoch;
            }
            Stage::Write => {
                let engine = self.engine.as_ref().ok_or_else(closed)?;
                for i in 0..3 {
                    self.told.lock().unwrap().puts.0 = i + 1;
                    let space = engine
                        .tenant(&name_of_tenant(1))?
                        .keyspace(&name_of_space("after"))?;
                    space.put(key_of(i), "v")?;
                    self.told.lock().unwrap().puts.1 = i + 1;
                }
            }
        }
        Ok(())
    }
}

fn options() -> Options {
    short_segments()
}

impl Machine for Standby {
    fn fs(&self) -> &SimFs {
        &self.fs
    }

    fn copier(&self) -> Copier {
        let shared = Standby {
            engine: None,
            fs: SimFs::new(),
            keys: self.keys.clone(),
            sent: self.sent.clone(),
            told: self.told.clone(),
            ..*self
        };
        Box::new(move |fs| Box::new(shared.on(fs)))
    }

    fn stamp(&self) -> u64 {
        let told = self.told.lock().unwrap();
        let small =
            told.puts.0 << 8 | told.puts.1 << 4 | u64::from(told.promoted) << 2 | u64::from(told.finished);
        (told.durable.0 << 16 | small << 4 | told.keys as u64).wrapping_mul(0x100_0000_01b3)
    }

    fn run(&mut self) -> Result<()> {
        let mut dice = Dice::new(7);
        self.stages
            .iter()
            .try_for_each(|stage| self.stage(*stage, &mut dice))
    }

    fn kill(&mut self) {
        self.engine = None;
    }

    fn goes_on(&mut self, full: bool) -> Check {
        let Some(engine) = &self.engine else { return Ok(()) };
        read_all(engine).map_err(|e| format!("reads fail afterwards: {e:?}"))?;
        if engine.standby_progress().is_err() {
            return Ok(());
        }
        let until = self.sent.wal.len();
        // Keys before the records that need them, as the protocol has it.
        let followed = self
            .take_keys(engine, self.sent.keys.len() - 1)
            .and_then(|()| self.follow(engine, until, &mut Dice::new(1)));
        match followed {
            Err(e) if full && e.kind() == ErrorKind::NoSpace => {
                Err(format!("does not go on following when there is room: {e:?}"))
            }
            _ => Ok(()),
        }
    }

    fn examine(&mut self, depth: Depth) -> Check {
        judge::examine(self, depth)
    }
}
