//! A reign as primary, and the standbys in it: who is connected, how far each is, what WAL is kept for them.
//!
//! One [`Reign`] per time this node serves; it ends with the reign, and with it every stream. Standbys are
//! told apart by name: a second stream of the same name replaces the first (its connection broke and only
//! one side noticed). A standby that went away keeps its place and its pin, so that it can resume; the
//! engine bounds what a pin can hold back (`Options::wal_keep_bytes`), so a dead one costs no more than that.
//!
//! At most [`STANDBYS_MAX`] names are remembered. Nothing here blocks for long: positions under one small
//! lock per session, and a condition variable on which the thread that reads WAL waits for room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use strongroom::{Engine, Epoch, Lsn, WalPin};
use tokio::sync::Semaphore;

use crate::core::epoch::Hello;
use crate::core::message::FromPrimary;
use crate::core::primary::{Action, Event, Limits, PrimarySession};
use crate::signal::Signal;
use crate::status::StandbyStatus;

/// Most standbys remembered.
pub(crate) const STANDBYS_MAX: usize = 8;
/// Most finished base copies whose WAL stays pinned.
const BASE_PINS_MAX: usize = 4;

/// This node's time as primary in one epoch.
pub(crate) struct Reign {
    pub(crate) engine: Engine,
    pub(crate) epoch: Epoch,
    pub(crate) database_id: [u8; 16],
    /// Raised when the reign ends: every stream stops.
    pub(crate) over: Signal,
    /// One base copy at a time.
    pub(crate) base_copies: Arc<Semaphore>,
    sessions: Mutex<BTreeMap<String, Arc<Session>>>,
    /// WAL kept for standbys that have not come yet: since the reign began, or since their base copy.
    base_pins: Mutex<Vec<(WalPin, Instant)>>,
}

/// A standby's stream; stays, marked as not connected, after it ended.
pub(crate) struct Session {
    pub(crate) node: String,
    pub(crate) id: [u8; 16],
    /// Raised when the stream ends, for whatever reason.
    pub(crate) over: Signal,
    connected: AtomicBool,
    state: Mutex<State>,
    /// There is something to do for the thread that reads WAL.
    work: Condvar,
    pin: WalPin,
    /// What times of the core count from.
    began: Instant,
}

struct State {
    core: PrimarySession,
    /// WAL that was held back and may go now; the reading thread sends it, so that order is kept.
    released: VecDeque<FromPrimary>,
}

/// What the reading thread does next.
pub(crate) enum Work {
    /// Send what was held back.
    Send(FromPrimary),
    /// Read at most so many bytes.
    Read(usize),
    /// Nothing yet.
    Wait,
}

impl Reign {
    /// `grace`: how long WAL is kept from now on for standbys that have yet to come.
    pub(crate) fn new(engine: Engine, grace: Duration) -> Reign {
        let status = engine.status();
        let pin = engine.pin_wal(status.wal_start);
        Reign {
            epoch: status.epoch,
            database_id: status.database_id,
            engine,
            over: Signal::new(),
            base_copies: Arc::new(Semaphore::new(1)),
            sessions: Mutex::new(BTreeMap::new()),
            base_pins: Mutex::new(vec![(pin, Instant::now() + grace)]),
        }
    }

    /// Begins a stream at `hello`'s durable position. None if too many standbys are connected.
    pub(crate) fn attach(&self, hello: &Hello, limits: Limits) -> Option<Arc<Session>> {
        let start = hello.durable.start;
        let session = Arc::new(Session {
            node: hello.node.clone(),
            id: hello.session,
            over: Signal::new(),
            connected: AtomicBool::new(true),
            state: Mutex::new(State {
                core: PrimarySession::new(self.epoch, start, limits, Duration::ZERO),
                released: VecDeque::new(),
            }),
            work: Condvar::new(),
            pin: self.engine.pin_wal(start),
            began: Instant::now(),
        });
        let mut sessions = self.sessions.lock();
        if !sessions.contains_key(&hello.node) && sessions.len() >= STANDBYS_MAX {
            let idle = sessions.values().filter(|s| !s.connected.load(Ordering::Acquire));
            let oldest = idle.min_by_key(|s| s.heard_at())?.node.clone();
            sessions.remove(&oldest);
        }
        if let Some(old) = sessions.insert(hello.node.clone(), session.clone()) {
            old.end();
        }
        drop(sessions);
        if self.over.is_raised() {
            session.end();
        }
        self.expire_pins();
        Some(session)
    }

    /// The connected session with this id.
    pub(crate) fn session(&self, id: [u8; 16]) -> Option<Arc<Session>> {
        let sessions = self.sessions.lock();
        sessions
            .values()
            .find(|s| s.id == id && s.connected.load(Ordering::Acquire))
            .cloned()
    }

    /// Keeps the WAL behind a finished base copy until its standby had time to come.
    pub(crate) fn keep_for_base_copy(&self, pin: WalPin, grace: Duration) {
        let mut pins = self.base_pins.lock();
        if pins.len() >= BASE_PINS_MAX {
            pins.remove(0);
        }
        pins.push((pin, Instant::now() + grace));
    }

    fn expire_pins(&self) {
        let now = Instant::now();
        self.base_pins.lock().retain(|(_, until)| *until > now);
    }

    /// Ends the reign: no stream goes on.
    pub(crate) fn end(&self) {
        self.over.raise();
        self.sessions.lock().values().for_each(|session| session.end());
        self.base_pins.lock().clear();
    }

    /// Whether every connected standby has everything up to `end` on stable storage.
    pub(crate) fn all_durable(&self, end: Lsn) -> bool {
        let sessions = self.sessions.lock();
        let mut connected = sessions.values().filter(|s| s.connected.load(Ordering::Acquire));
        connected.all(|s| s.state.lock().core.progress().durable() >= end)
    }

    pub(crate) fn statuses(&self) -> Vec<StandbyStatus> {
        self.expire_pins();
        self.sessions
            .lock()
            .values()
            .map(|session| session.status())
            .collect()
    }
}

impl Session {
    /// Ends the stream; fine to call twice.
    pub(crate) fn end(&self) {
        self.connected.store(false, Ordering::Release);
        self.over.raise();
        let _state = self.state.lock();
        self.work.notify_all();
    }

    /// Takes an event. The pin is moved here, what was held back goes to the reading thread; the rest is the
    /// caller's to do.
    pub(crate) fn step(&self, event: Event) -> Vec<Action> {
        let released = matches!(event, Event::KeysAcked(_) | Event::KeysBegin { .. });
        let mut state = self.state.lock();
        let mut actions = state.core.step(self.began.elapsed(), event);
        actions.retain(|action| match action {
            Action::Pin(lsn) => {
                self.pin.advance(*lsn);
                false
            }
            Action::Send(message) if released => {
                state.released.push_back(message.clone());
                false
            }
            _ => true,
        });
        self.work.notify_all();
        actions
    }

    /// Takes an event that can do nothing but end the stream; the reason if it did.
    pub(crate) fn ends(&self, event: Event) -> Option<&'static str> {
        self.step(event).into_iter().find_map(|action| match action {
            Action::End(reason) => Some(reason),
            _ => None,
        })
    }

    /// What the reading thread does next; waits for it, at most `timeout`.
    pub(crate) fn work(&self, timeout: Duration) -> Work {
        let mut state = self.state.lock();
        if state.released.is_empty() && state.core.room() == 0 && !self.over.is_raised() {
            self.work.wait_for(&mut state, timeout);
        }
        match (state.released.pop_front(), state.core.room()) {
            (Some(message), _) => Work::Send(message),
            (None, 0) => Work::Wait,
            (None, room) => Work::Read(room),
        }
    }

    fn heard_at(&self) -> Instant {
        self.began + self.state.lock().core.heard()
    }

    fn status(&self) -> StandbyStatus {
        let state = self.state.lock();
        let progress = state.core.progress();
        StandbyStatus {
            node: self.node.clone(),
            connected: self.connected.load(Ordering::Acquire),
            sent: progress.sent(),
            received: progress.received(),
            durable: progress.durable(),
            applied: progress.applied(),
            keystore_version: state.core.keys_acked(),
            heard: self.began.elapsed().saturating_sub(state.core.heard()),
        }
    }
}
