//! Who still needs old WAL: standbys that stream, checkpoints that copy.
//!
//! A standby's pin is a wish, bounded by `Options::wal_keep_bytes`: a dead or slow standby can never
//! fill the primary's disk (design R5). A checkpoint's pin is held while it copies, and always obeyed.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::hooks::rare;
use crate::types::Lsn;

#[derive(Default)]
pub(crate) struct Pins {
    state: Mutex<State>,
    /// Held while WAL is being removed: a pin counts from the moment it is given out.
    removing: Mutex<()>,
}

#[derive(Default)]
struct State {
    next: u64,
    pins: HashMap<u64, Pin>,
}

struct Pin {
    from: Lsn,
    /// Obeyed whatever it costs.
    firm: bool,
}

/// Keeps WAL from a position on while it lives; moves forward as its holder needs less.
pub struct WalPin {
    pins: Arc<Pins>,
    id: u64,
}

impl Pins {
    pub fn pin(self: &Arc<Self>, from: Lsn, firm: bool) -> WalPin {
        let _removing = self.removing.lock();
        let mut state = self.state.lock();
        state.next += 1;
        let id = state.next;
        state.pins.insert(id, Pin { from, firm });
        WalPin {
            pins: self.clone(),
            id,
        }
    }

    /// Runs `remove` with the position before which WAL may go; no pin is given out meanwhile.
    pub fn remove_before<T>(
        &self,
        flushed: Lsn,
        end: Lsn,
        keep_bytes: u64,
        remove: impl FnOnce(Lsn) -> T,
    ) -> T {
        let _removing = self.removing.lock();
        remove(self.keep_from(flushed, end, keep_bytes))
    }

    /// The position before which WAL may go, given that recovery needs it from `flushed` on and that
    /// wishes may hold at most `keep_bytes` before `end`.
    fn keep_from(&self, flushed: Lsn, end: Lsn, keep_bytes: u64) -> Lsn {
        let bound = Lsn(end.0.saturating_sub(keep_bytes));
        let state = self.state.lock();
        let wanted = |pin: &Pin| if pin.firm { pin.from } else { pin.from.max(bound) };
        let keep = state.pins.values().map(wanted).fold(flushed, Lsn::min);
        if keep < flushed {
            rare!(PinKeptLog);
        }
        keep
    }
}

impl WalPin {
    /// Gives up everything before `lsn`.
    pub fn advance(&self, lsn: Lsn) {
        if let Some(pin) = self.pins.state.lock().pins.get_mut(&self.id) {
            pin.from = pin.from.max(lsn);
        }
    }
}

impl Drop for WalPin {
    fn drop(&mut self) {
        self.pins.state.lock().pins.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standbys_pin_is_bounded_and_a_checkpoints_is_not() {
        let pins = Arc::new(Pins::default());
        let (flushed, end) = (Lsn(900), Lsn(1000));
        assert_eq!(pins.keep_from(flushed, end, 300), flushed);
        let standby = pins.pin(Lsn(100), false);
        assert_eq!(pins.keep_from(flushed, end, 300), Lsn(700));
        standby.advance(Lsn(800));
        assert_eq!(pins.keep_from(flushed, end, 300), Lsn(800));
        let checkpoint = pins.pin(Lsn(50), true);
        assert_eq!(pins.keep_from(flushed, end, 300), Lsn(50));
        drop((standby, checkpoint));
        assert_eq!(pins.keep_from(flushed, end, 300), flushed);
    }
}
