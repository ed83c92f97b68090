//! A reign as primary, and the standbys in it: who is connected, how far each is, what WAL is kept for them.
//!
//! One [`Reign`] per time this node serves; it ends with the reign, and with it every stream. Standbys are
//! told apart by name: a second stream of the same name replaces the first (its connection broke and only
//! one side noticed). A standby that went away keeps its place and its pin, so that it can resume; the
//! engine bounds what a pin can hold back (`Options::wal_keep_bytes`), so a dead one costs no more than that.
//!
//! At most [`STANDBYS_MAX`] names are remembered. Nothing here blocks for long: positions under one small
//! lock per session, and a condition variable on which the thread that reads WAL waits for room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use strongroom::{Engine, Epoch, Lsn, WalPin};
use tokio::sync::{Semaphore, watch};

use crate::epoch::Hello;
use crate::progress::{Accepted, Ack, AckRefused, Progress};
use crate::signal::Signal;
use crate::status::StandbyStatus;
use crate::wire::Seen;

/// Most standbys remembered.
pub(crate) const STANDBYS_MAX: usize = 8;
/// Most finished base copies whose WAL stays pinned.
const BASE_PINS_MAX: usize = 4;
/// A window with less room than this is waited on: many small reads cost more than one pause.
const ROOM_BYTES_MIN: usize = 64 << 10;

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
    /// Highest keystore version acknowledged.
    pub(crate) keys: watch::Sender<u64>,
    /// End of this node's WAL, as last seen by the reading thread.
    pub(crate) seen: Mutex<Seen>,
    connected: AtomicBool,
    state: Mutex<State>,
    room: Condvar,
    pin: WalPin,
}

struct State {
    progress: Progress,
    heard: Instant,
    /// Since when bytes are outstanding without a durable advance.
    stuck_since: Option<Instant>,
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
    pub(crate) fn attach(&self, hello: &Hello) -> Option<Arc<Session>> {
        let start = hello.durable.start;
        let session = Arc::new(Session {
            node: hello.node.clone(),
            id: hello.session,
            over: Signal::new(),
            keys: watch::Sender::new(0),
            seen: Mutex::new(Seen { end: start, ms: 0 }),
            connected: AtomicBool::new(true),
            state: Mutex::new(State {
                progress: Progress::new(self.epoch, start),
                heard: Instant::now(),
                stuck_since: None,
            }),
            room: Condvar::new(),
            pin: self.engine.pin_wal(start),
        });
        let mut sessions = self.sessions.lock();
        if !sessions.contains_key(&hello.node) && sessions.len() >= STANDBYS_MAX {
            let idle = sessions.values().filter(|s| !s.connected.load(Ordering::Acquire));
            let oldest = idle.min_by_key(|s| s.state.lock().heard)?.node.clone();
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
        connected.all(|s| s.state.lock().progress.durable() >= end)
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
        self.room.notify_all();
    }

    /// Waits, at most `timeout`, until at least some bytes may be sent; how many. 0: not yet.
    pub(crate) fn wait_room(&self, window: u64, chunk: usize, timeout: Duration) -> usize {
        let mut state = self.state.lock();
        let enough = ROOM_BYTES_MIN.min(chunk);
        let mut room = state.progress.may_send(window, chunk);
        if room < enough && !self.over.is_raised() {
            self.room.wait_for(&mut state, timeout);
            room = state.progress.may_send(window, chunk);
        }
        if room < enough { 0 } else { room }
    }

    /// Bytes up to `end` go to the connection.
    pub(crate) fn sent(&self, end: Lsn) {
        let mut state = self.state.lock();
        state.progress.on_sent(end);
        if state.progress.outstanding() > 0 && state.stuck_since.is_none() {
            state.stuck_since = Some(Instant::now());
        }
    }

    /// Takes an acknowledgement, or refuses it.
    pub(crate) fn acknowledged(&self, ack: Ack) -> Result<Accepted, AckRefused> {
        let mut state = self.state.lock();
        let accepted = state.progress.on_ack(ack)?;
        state.heard = Instant::now();
        if accepted.advanced {
            state.stuck_since = (state.progress.outstanding() > 0).then(Instant::now);
            self.pin.advance(state.progress.durable());
        }
        self.room.notify_all();
        Ok(accepted)
    }

    /// How long bytes have been outstanding without a durable advance.
    pub(crate) fn stuck_for(&self) -> Duration {
        self.state
            .lock()
            .stuck_since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// A keystore version is durable there.
    pub(crate) fn keys_acknowledged(&self, version: u64) {
        self.state.lock().heard = Instant::now();
        self.keys.send_if_modified(|known| {
            let higher = version > *known;
            *known = (*known).max(version);
            higher
        });
    }

    fn status(&self) -> StandbyStatus {
        let state = self.state.lock();
        StandbyStatus {
            node: self.node.clone(),
            connected: self.connected.load(Ordering::Acquire),
            sent: state.progress.sent(),
            received: state.progress.received(),
            durable: state.progress.durable(),
            applied: state.progress.applied(),
            keystore_version: *self.keys.borrow(),
            heard: state.heard.elapsed(),
        }
    }
}
