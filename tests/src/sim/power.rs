//! Ends the engine, in order, by a kill or by a power cut, and opens it again: until it works, and then everything is
//! compared.

use strongroom::io::sim::CrashMode;

use super::run::{Done, Run, Wrong};
use crate::layers::counted;
use crate::oracle::let_expire;
use crate::world::is_failure_of_the_machine;

/// A recovery that the power or a fault interrupts is begun again so often.
const OPENINGS_MAX: usize = 8;

impl Run {
    pub(super) fn reopen(&mut self) -> Done {
        self.held.clear();
        self.world.close()?;
        let cuts = self.counters.get(counted::CRASHES);
        self.open(&[])?;
        match self.world.engine().recovery() {
            // A planned power cut may have struck meanwhile.
            _ if self.counters.get(counted::CRASHES) > cuts => Ok(()),
            recovery if recovery.clean && recovery.cut_bytes == 0 => Ok(()),
            recovery => Err(Wrong::Failure(format!("after a close in order: {recovery:?}"))),
        }
    }

    pub(super) fn kill(&mut self) -> Result<(), String> {
        self.counters.add(counted::CRASHES, 1);
        self.counters.add(counted::fault("kill"), 1);
        self.counters.add(counted::row(1), 1);
        self.held.clear();
        self.world.kill();
        let certain = self.world.known().oracle.failures() == 0;
        let (mut expected, moments) = (self.world.visible(), self.world.known().oracle.moments());
        let cuts = self.counters.get(counted::CRASHES);
        self.open(&[])?;
        // A planned power cut may have struck meanwhile.
        let only_killed = self.counters.get(counted::CRASHES) == cuts;
        // A sync that hangs takes time.
        let_expire(&mut expected, &moments, self.world.known().oracle.now());
        if certain && only_killed && self.world.visible() != expected {
            return Err("a kill of the process lost an accepted write".into());
        }
        Ok(())
    }

    /// The power goes now; and again so many operations into each of the recoveries that follow.
    pub(super) fn power_cut(&mut self, mode: CrashMode, seed: u64, again: &[u64]) -> Result<(), String> {
        self.held.clear();
        self.world.kill();
        self.lose(mode, seed);
        self.open(again)
    }

    pub(super) fn lose(&mut self, mode: CrashMode, seed: u64) {
        self.counters.add(counted::CRASHES, 1);
        self.counters
            .add(counted::fault(&format!("power cut, {mode:?}")), 1);
        match mode {
            CrashMode::DropAll => self.counters.add(counted::row(2), 1),
            CrashMode::KeepAll => {}
            CrashMode::KeepRandom => self.counters.add(counted::row(3), 1),
        }
        self.count_strikes();
        self.world.fs = self.world.fs.crashed_image(mode, seed);
        self.trace.number(self.world.fs.digest());
    }

    /// Opens until it works, and compares. Faults may make it fail, then they are taken away.
    pub(super) fn open(&mut self, cuts: &[u64]) -> Result<(), String> {
        self.doubtful.clear();
        self.pin = None;
        let cuts_before = self.counters.get(counted::CRASHES);
        for opening in 0..OPENINGS_MAX {
            if opening > 0 && self.counters.get(counted::CRASHES) > cuts_before {
                self.counters.add(counted::row(8), 1);
            }
            if let Some(after) = cuts.get(opening) {
                let fs = &self.world.fs;
                fs.crash_at(fs.ops() + after, after % 2 == 0);
            }
            let result = self.world.open();
            if self.world.fs.crashed() {
                if let Err(e) = result
                    && !is_failure_of_the_machine(&e)
                {
                    return Err(format!("opening while the power fails: {e:?}"));
                }
                self.world.kill();
                let seed = opening as u64 + self.planned.1;
                self.lose(CrashMode::KeepRandom, seed);
                continue;
            }
            let opened = result.is_ok();
            self.judge(result.map_err(Wrong::Answer))
                .map_err(|e| format!("opening: {e}"))?;
            self.take_faults_away();
            if opened {
                return self.compare();
            }
        }
        Err("does not open in many tries".into())
    }

    fn compare(&mut self) -> Result<(), String> {
        self.explained.clear();
        let verified = self.world.verify();
        if verified.is_err() {
            self.counters.add(counted::LOST, 1);
        }
        verified?;
        let recovery = self.world.engine().recovery();
        self.trace.text(&format!("{recovery:?}"));
        Ok(())
    }
}
