//! A simulated machine: disk, key provider, a clock of its own rate.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use strongroom::io::sim::{CrashMode, SimClock, SimFs, SimRng};
use strongroom::io::{Clock, Io};

use crate::dice::fresh_seed;
use crate::keys::SimKeys;

/// Where the engine's directory is.
pub const DATA: &str = "/srv/db";
/// Where the node's own is.
pub const SIDE: &str = "/srv/db.node";

/// What survives the node's process.
pub struct Machine {
    /// The disk.
    pub fs: SimFs,
    /// The key provider.
    pub keys: SimKeys,
    clock: Arc<SimClock>,
    /// Milliseconds of its own for 1000 of the world's.
    rate: u64,
    local: Duration,
    aged: Duration,
}

impl Machine {
    /// A new one.
    pub fn new(rate: u64) -> Machine {
        Machine {
            fs: SimFs::new(),
            keys: SimKeys::new(),
            clock: Arc::new(SimClock::with_step(Duration::ZERO)),
            rate,
            local: Duration::ZERO,
            aged: Duration::ZERO,
        }
    }

    /// The same machine a second time, at this moment.
    pub fn fork(&self) -> Machine {
        let mut machine = Machine::new(self.rate);
        machine.fs = self.fs.fork();
        machine.keys = self.keys.fork();
        machine.pass(Duration::ZERO, self.local);
        machine.age(self.aged);
        machine
    }

    /// What the engine is given.
    pub fn io(&self) -> Io {
        Io {
            vfs: Arc::new(self.fs.clone()),
            clock: self.clock.clone(),
            rng: Arc::new(SimRng::new(fresh_seed())),
        }
    }

    /// Time passes here: the world's at this machine's rate, and a jump.
    pub fn pass(&mut self, world: Duration, jump: Duration) {
        let by = world * u32::try_from(self.rate).unwrap_or(1000) / 1000 + jump;
        self.local += by;
        self.clock.advance(by);
    }

    /// The engine's clock goes on alone, by hours or days: no timeout is over for it.
    pub fn age(&mut self, by: Duration) {
        self.aged += by;
        self.clock.advance(by);
    }

    /// What the engine takes the time for, in milliseconds since 1970.
    pub fn wall(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Time since it was made, by its own clock.
    pub fn now(&self) -> Duration {
        self.local
    }

    /// The power fails: what was not synced is kept or lost.
    pub fn power_cut(&mut self, mode: CrashMode, seed: u64) {
        self.fs = self.fs.crashed_image(mode, seed);
    }

    /// The process is killed: the disk keeps everything.
    pub fn kill(&mut self) {
        self.fs = self.fs.fork();
    }

    /// The bytes of the log on disk, by position. What a crash brought back behind the next segment's start (room,
    /// a torn tail) is not of the log.
    pub fn wal(&self) -> Vec<(u64, Vec<u8>)> {
        let dir = Path::new(DATA).join("wal");
        let start = |path: &PathBuf| {
            let name = path.file_name()?.to_str()?.strip_suffix(".wal")?;
            u64::from_str_radix(name, 16).ok()
        };
        let files = self.fs.files();
        let in_wal = files.into_iter().filter(|(path, _)| path.parent() == Some(&dir));
        let mut segments: Vec<(u64, Vec<u8>)> = in_wal
            .filter_map(|(path, bytes)| Some((start(&path)?, bytes)))
            .collect();
        segments.sort();
        let starts: Vec<u64> = segments.iter().map(|(start, _)| *start).collect();
        for ((start, bytes), next) in segments.iter_mut().zip(starts.into_iter().skip(1)) {
            bytes.truncate((next - *start) as usize);
        }
        segments
    }
}

/// Whether two logs have equal bytes wherever both have some, up to `upto`.
pub fn equal_logs(a: &[(u64, Vec<u8>)], b: &[(u64, Vec<u8>)], upto: u64) -> Result<(), String> {
    for (start, bytes) in a {
        for (other, theirs) in b {
            let from = (*start).max(*other);
            let until = (start + bytes.len() as u64)
                .min(other + theirs.len() as u64)
                .min(upto);
            if from >= until {
                continue;
            }
            let ours = &bytes[(from - start) as usize..(until - start) as usize];
            let theirs = &theirs[(from - other) as usize..(until - other) as usize];
            if let Some(at) = ours.iter().zip(theirs).position(|(x, y)| x != y) {
                return Err(format!("logs differ at {}", from + at as u64));
            }
        }
    }
    Ok(())
}
