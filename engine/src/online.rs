//! Options that can be changed while the engine runs: what an operator needs when reopening would hurt.
//!
//! Each of them is read anew by whatever begins: a job, a wait, a piece to be cached. What has begun goes on with
//! what it read. The others stay as they were at opening: some shape files (sizes of blocks, tables and segments,
//! compression, filters, levels), so that a change would count for new files only and little by little; some bound
//! memory that is taken already (memtables); `durability` is what callers rely on without asking.
//!
//! Invariants: a change is checked as a whole, by the rules of opening, before any of it counts. Nothing is written:
//! the next open goes by its own [`Options`] again.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::commit::closed;
use crate::error::Result;
use crate::inner::{Inner, Mode};
use crate::options::Options;

/// An option with the value that it gets: see [`Engine::set_options`](crate::Engine::set_options).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OnlineOption {
    /// [`Options::cache_bytes`]. Less: what is too much goes at once; 0: all, and nothing is kept any more. More: the
    /// cache fills up as it is read. It stays divided for the size that it was opened with: for many times that,
    /// reopen. Refused where it was opened with 0: then there is none.
    CacheBytes(u64),
    /// [`Options::wal_keep_bytes`]. Less: what is kept beyond it goes as soon as background work gets to it, and
    /// standbys that needed it take a base copy.
    WalKeepBytes(u64),
    /// [`Options::expiry_grace`]. Less: what is due by it is written out as soon as background work gets to it.
    ExpiryGrace(Duration),
    /// [`Options::replicated_timeout`], for waits that begin from now on.
    ReplicatedTimeout(Duration),
}

impl OnlineOption {
    fn put_into(self, options: &mut Options) {
        match self {
            OnlineOption::CacheBytes(bytes) => options.cache_bytes = bytes,
            OnlineOption::WalKeepBytes(bytes) => options.wal_keep_bytes = bytes,
            OnlineOption::ExpiryGrace(time) => options.expiry_grace = time,
            OnlineOption::ReplicatedTimeout(time) => options.replicated_timeout = time,
        }
    }
}

/// The options in force.
pub(crate) struct Online {
    options: ArcSwap<Options>,
    /// One change at a time.
    changing: Mutex<()>,
}

impl Online {
    /// As opened with.
    pub fn new(options: &Options) -> Online {
        Online {
            options: ArcSwap::from_pointee(options.clone()),
            changing: Mutex::new(()),
        }
    }

    /// As they are now, without a lock.
    pub fn options(&self) -> Arc<Options> {
        self.options.load_full()
    }
}

impl Inner {
    /// Changes options: all that `changes` says, or none.
    pub fn set_options(&self, changes: &[OnlineOption]) -> Result<()> {
        if self.commit.lock().mode == Mode::Closed {
            return Err(closed());
        }
        let _one = self.online.changing.lock();
        let before = self.online.options();
        let mut after = Options::clone(&before);
        for change in changes {
            change.put_into(&mut after);
        }
        after.validate()?;
        if after.cache_bytes != before.cache_bytes {
            self.cache.set_capacity(after.cache_bytes)?;
        }
        let due = after.wal_keep_bytes < before.wal_keep_bytes || after.expiry_grace < before.expiry_grace;
        self.online.options.store(Arc::new(after));
        if due {
            self.wake_background();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Io;
    use crate::io::sim::{SimClock, SimFs, SimRng};
    use crate::keys::MemoryKeys;
    use crate::{Engine, ErrorKind};

    fn engine(options: Options) -> Engine {
        let io = Io {
            vfs: Arc::new(SimFs::new()),
            clock: Arc::new(SimClock::new()),
            rng: Arc::new(SimRng::new(1)),
        };
        let builder = Engine::builder("/db").shared_keys(Arc::new(MemoryKeys::new()));
        builder.options(options).io(io).open().unwrap()
    }

    #[test]
    fn less_to_keep_wakes_background_work_and_nothing_else_does() {
        let engine = engine(Options::tiny());
        let wakes = |change| {
            engine.inner().background.state.lock().wake = false;
            engine.set_options(&[change]).unwrap();
            engine.inner().background.state.lock().wake
        };
        assert!(wakes(OnlineOption::WalKeepBytes(10)));
        assert!(wakes(OnlineOption::ExpiryGrace(Duration::from_secs(10))));
        assert!(!wakes(OnlineOption::WalKeepBytes(20)));
        assert!(!wakes(OnlineOption::ExpiryGrace(Duration::from_secs(20))));
        assert!(!wakes(OnlineOption::CacheBytes(1)));
        assert!(!wakes(OnlineOption::ReplicatedTimeout(Duration::from_millis(1))));
    }

    #[test]
    fn an_engine_that_is_closed_takes_no_options() {
        let engine = engine(Options::tiny());
        engine.close().unwrap();
        let refused = engine.set_options(&[OnlineOption::CacheBytes(1)]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Closed);
        assert_eq!(engine.options().cache_bytes, Options::tiny().cache_bytes);
    }
}
