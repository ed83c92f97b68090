//! How far the log is written and on stable storage, and who waits for that: group commit.
//!
//! One caller of [`Progress::sync_to`] syncs for all who wait; who appends during a sync is covered by the
//! next one. When a sync is over, its leader wakes one that it did not cover, which leads the next, and
//! those it covered; nobody else. So appends go on during a sync, and no thread wakes for nothing.
//!
//! Invariants: `durable <= written`; while somebody waits, a sync is going on or a thread is awake that will
//! see to one; a failed sync is final (design E2).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::{Error, ErrorKind, Result};
use crate::hooks::{planted, rare};
use crate::io::{Clock, File};
use crate::patience::Patience;
use crate::types::Lsn;

/// How often a leader lets others run before it syncs.
const GATHER_YIELDS_MAX: u32 = 32;
/// How long one of these may take: about a sync.
const GATHER_YIELD_TIME_MAX: Duration = Duration::from_micros(200);

pub(super) struct Progress {
    /// For error messages.
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Wakes tailing cursors.
    tailing: Condvar,
    /// Copies for those who only look: they may lag behind `state`, and never run ahead of it.
    durable: AtomicU64,
    failed: AtomicBool,
    /// Syncs that returned Ok.
    syncs: AtomicU64,
}

struct State {
    /// The segment being written; None until the first one exists.
    file: Option<Arc<dyn File>>,
    written: Lsn,
    durable: Lsn,
    /// A leader is inside `File::sync`.
    syncing: bool,
    /// Set by the first failed sync or unrepairable write, and never cleared.
    failed: Option<Error>,
    closed: bool,
    /// Committers that wait for a sync which covers their position.
    committers: Vec<(Lsn, Thread)>,
    /// How many committers the last sync was for.
    together: usize,
    /// Cursors that wait for something to read.
    cursors: usize,
}

impl Progress {
    /// Of a log whose bytes up to `end` are on stable storage.
    pub fn new(dir: &Path, clock: Arc<dyn Clock>, end: Lsn) -> Progress {
        Progress {
            dir: dir.to_path_buf(),
            clock,
            state: Mutex::new(State {
                file: None,
                written: end,
                durable: end,
                syncing: false,
                failed: None,
                closed: false,
                committers: Vec::new(),
                together: 0,
                cursors: 0,
            }),
            tailing: Condvar::new(),
            durable: AtomicU64::new(end.0),
            failed: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
        }
    }

    pub fn written(&self) -> Lsn {
        self.state.lock().written
    }

    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    pub fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// Ok while writing is allowed.
    pub fn check(&self) -> Result<()> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let why = self.failure().unwrap_or_default();
        Err(Error::new(
            ErrorKind::ReadOnly,
            format!("the write-ahead log stopped after an error ({why}): reopen the database"),
        ))
    }

    /// Why writing stopped, if it did.
    pub fn failure(&self) -> Option<String> {
        self.state.lock().failed.as_ref().map(|e| e.to_string())
    }

    /// Stops writing for good: nothing is acknowledged after this.
    pub fn poison(&self, error: &Error) {
        self.fail(&mut self.state.lock(), error);
    }

    fn fail(&self, state: &mut State, error: &Error) {
        if state.failed.is_none() {
            state.failed = Some(error.duplicate());
        }
        self.failed.store(true, Ordering::Release);
        state.committers.drain(..).for_each(|(_, thread)| thread.unpark());
        self.tailing.notify_all();
    }

    /// Wakes tailing cursors for good.
    pub fn mark_closed(&self) {
        self.state.lock().closed = true;
        self.tailing.notify_all();
    }

    /// A segment begins: everything before `end` is on stable storage, and what follows goes into `file`.
    pub fn begin_segment(&self, file: Arc<dyn File>, end: Lsn) {
        let mut state = self.state.lock();
        state.file = Some(file);
        state.written = end;
        let covered = self.reach(&mut state, end);
        drop(state);
        covered.into_iter().for_each(|thread| thread.unpark());
    }

    /// The log was written up to `end`.
    pub fn wrote(&self, end: Lsn) {
        self.state.lock().written = end;
    }

    /// What was written last waits for no sync of its writer's: a cursor that waits for it syncs it.
    pub fn left_unsynced(&self) {
        if self.state.lock().cursors > 0 {
            self.tailing.notify_all();
        }
    }

    /// Returns once everything before `lsn` is on stable storage.
    ///
    /// A failed sync is final for the log, never retried (Rebello et al., ATC'20): its waiters get
    /// `Unknown`, since their records may or may not survive.
    pub fn sync_to(&self, lsn: Lsn) -> Result<()> {
        if self.durable() >= lsn {
            return Ok(());
        }
        let mut state = self.state.lock();
        loop {
            if state.durable >= lsn {
                return Ok(());
            }
            if let Some(error) = &state.failed {
                return Err(Error::new(
                    ErrorKind::Unknown,
                    format!("the write-ahead log could not be synced ({error}): reopen and read back"),
                ));
            }
            if !state.syncing {
                self.lead_sync(&mut state);
                continue;
            }
            state.committers.push((lsn, std::thread::current()));
            MutexGuard::unlocked(&mut state, std::thread::park);
        }
    }

    /// Who was on its way when the last sync ended comes along with this one: those that it woke append their next
    /// records at about the same time, and a sync for each handful of them costs more than the wait. It is over when
    /// nobody came, and where one writer is alone there is none.
    fn gather(&self, state: &mut MutexGuard<'_, State>) {
        let mut patience = Patience::new(&*self.clock, GATHER_YIELDS_MAX, GATHER_YIELD_TIME_MAX);
        loop {
            let before = state.written;
            let waited = MutexGuard::unlocked(state, || patience.wait());
            if !waited || state.written == before {
                return;
            }
        }
    }

    fn lead_sync(&self, state: &mut MutexGuard<'_, State>) {
        state.syncing = true;
        if state.together > 1 {
            self.gather(state);
        }
        let Some(file) = state.file.clone().filter(|_| state.failed.is_none()) else {
            state.syncing = false;
            return;
        };
        let target = state.written;
        let outcome = MutexGuard::unlocked(state, || file.sync());
        state.syncing = false;
        let covered = match outcome {
            Ok(()) => {
                self.syncs.fetch_add(1, Ordering::Relaxed);
                let covered = self.reach(state, target);
                // And its leader.
                state.together = covered.len() + 1;
                covered
            }
            Err(_) if planted!(FailedSyncRetried) => Vec::new(),
            Err(e) => {
                rare!(LogStoppedBySync);
                let error = Error::io("sync of the write-ahead log", &self.dir, e);
                self.fail(state, &error);
                Vec::new()
            }
        };
        let next_leader = (!state.committers.is_empty()).then(|| state.committers.swap_remove(0).1);
        if next_leader.is_some() || !covered.is_empty() {
            // First who keeps the disk busy.
            let awake = next_leader.into_iter().chain(covered);
            MutexGuard::unlocked(state, || awake.for_each(|thread| thread.unpark()));
        }
    }

    /// Everything before `end` is on stable storage. Returns the committers that waited for that.
    fn reach(&self, state: &mut State, end: Lsn) -> Vec<Thread> {
        if end <= state.durable {
            return Vec::new();
        }
        state.durable = end;
        self.durable.store(end.0, Ordering::Release);
        if state.cursors > 0 {
            self.tailing.notify_all();
        }
        let covered = state.committers.extract_if(.., |(lsn, _)| *lsn <= end);
        covered.map(|(_, thread)| thread).collect()
    }

    /// Waits until something after `at` is durable, syncing buffered writes itself if nobody else
    /// does; returns the durable end, which is `at` or less after `timeout`, failure or close.
    pub fn wait_durable(&self, at: Lsn, timeout: Duration) -> Lsn {
        let mut state = self.state.lock();
        loop {
            if state.durable > at || state.failed.is_some() || state.closed {
                return state.durable;
            }
            if state.written > at && !state.syncing {
                self.lead_sync(&mut state);
                continue;
            }
            state.cursors += 1;
            let late = self.tailing.wait_for(&mut state, timeout).timed_out();
            state.cursors -= 1;
            if late {
                return state.durable;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Vfs;
    use crate::io::sim::{Fault, SimClock, SimFs, Times};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::{spawn, yield_now};

    /// A log of nothing on a disk whose syncs say when they begin, and wait to be let go on.
    fn slow_log() -> (Arc<Progress>, SimFs, Receiver<()>, Sender<()>) {
        let fs = SimFs::new();
        let file = fs.create(Path::new("/segment")).unwrap();
        let (begun, begins) = channel();
        let (let_go, may_go) = channel();
        let may_go = Mutex::new(may_go);
        fs.before_syncs(move |_| {
            begun.send(()).unwrap();
            may_go.lock().recv().unwrap();
        });
        let log = Progress::new(Path::new("/"), Arc::new(SimClock::new()), Lsn::ZERO);
        log.begin_segment(file, Lsn::ZERO);
        (Arc::new(log), fs, begins, let_go)
    }

    /// Threads that sync up to each of these, once all that follow the first wait for its sync.
    fn committers(
        log: &Arc<Progress>,
        begins: &Receiver<()>,
        ends: &[u64],
    ) -> Vec<std::thread::JoinHandle<Result<()>>> {
        let mut threads = Vec::new();
        for (i, end) in ends.iter().map(|end| Lsn(*end)).enumerate() {
            log.wrote(end);
            let log = log.clone();
            threads.push(spawn(move || log.sync_to(end)));
            if i == 0 {
                begins.recv().unwrap();
            }
        }
        while log.state.lock().committers.len() + 1 < ends.len() {
            yield_now();
        }
        threads
    }

    /// A cursor at the beginning, once it waits.
    fn waiting_cursor(log: &Arc<Progress>) -> std::thread::JoinHandle<Lsn> {
        let cursor = spawn({
            let log = log.clone();
            move || log.wait_durable(Lsn::ZERO, Duration::from_secs(600))
        });
        while log.state.lock().cursors == 0 {
            yield_now();
        }
        cursor
    }

    #[test]
    fn one_sync_covers_everybody_who_came_while_another_was_going_on() {
        let (log, fs, begins, let_go) = slow_log();
        let threads = committers(&log, &begins, &[10, 20, 30, 40, 50, 60]);
        let_go.send(()).unwrap();
        begins.recv().unwrap();
        assert_eq!(
            log.durable(),
            Lsn(10),
            "the first sync covers what was written before it"
        );
        let_go.send(()).unwrap();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
        assert_eq!(log.durable(), Lsn(60));
        let creation_and_two_syncs = 3;
        assert_eq!(fs.ops(), creation_and_two_syncs);
    }

    #[test]
    fn a_failed_sync_ends_every_wait_in_unknown_also_of_those_it_would_not_have_covered() {
        let (log, fs, begins, let_go) = slow_log();
        fs.fail(Fault::io_error(fs.ops() + 1, Times::Once));
        let threads = committers(&log, &begins, &[10, 20, 30]);
        let_go.send(()).unwrap();
        for thread in threads {
            assert_eq!(thread.join().unwrap().unwrap_err().kind(), ErrorKind::Unknown);
        }
        assert_eq!(log.durable(), Lsn::ZERO);
        assert_eq!(log.check().unwrap_err().kind(), ErrorKind::ReadOnly);
        assert_eq!(log.sync_to(Lsn(10)).unwrap_err().kind(), ErrorKind::Unknown);
    }

    #[test]
    fn a_waiting_cursor_syncs_what_its_writer_left_unsynced() {
        let (log, _fs, begins, let_go) = slow_log();
        let cursor = waiting_cursor(&log);
        log.wrote(Lsn(10));
        log.left_unsynced();
        begins.recv().unwrap();
        let_go.send(()).unwrap();
        assert_eq!(cursor.join().unwrap(), Lsn(10));
    }

    #[test]
    fn a_waiting_cursor_gets_what_somebody_else_synced() {
        let (log, _fs, begins, let_go) = slow_log();
        let cursor = waiting_cursor(&log);
        let threads = committers(&log, &begins, &[10]);
        let_go.send(()).unwrap();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
        assert_eq!(cursor.join().unwrap(), Lsn(10));
    }
}
