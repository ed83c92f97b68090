//! A shortcut to a decoded piece: where it was when it was last looked for.
//!
//! A slot does not keep its piece. The cache does, and may drop it at any time, for want of room or because a
//! tenant is deleted: then the slot is empty. So shortcuts need no rules of their own; what they spare is a
//! lookup, which touches a lock and several lines of memory. (LeanStore calls the like pointer swizzling:
//! Leis, Haubenschild, Kemper, Neumann, ICDE 2018.)
//!
//! The cache decides by use what to keep, and does not see what goes past it: every [`ASK_EVERY`]th time, a
//! slot sends the reader there. While the cache has room it decides nothing, and is asked more seldom.

use std::cell::Cell;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapWeak;

/// One of so many looks goes to the cache.
const ASK_EVERY: u32 = 8;
/// The same while the cache has room.
const ASK_EVERY_WITH_ROOM: u32 = 128;

thread_local! {
    static LOOKS: Cell<u32> = const { Cell::new(0) };
}

/// Looks of this thread count from here, so that a simulated run is the same when it is run again.
pub(super) fn start_counting() {
    LOOKS.set(0);
}

/// Whether this look, of which one of `every` does, goes to the cache.
pub(super) fn time_to_ask(every: u32) -> bool {
    let looks = LOOKS.get().wrapping_add(1);
    LOOKS.set(looks);
    looks.is_multiple_of(every)
}

/// A shortcut to one piece.
pub(super) struct Slot<T>(ArcSwapWeak<T>);

impl<T> Slot<T> {
    /// What a slot takes, and what it may hold back of a piece that is gone: its head, not what it owned.
    pub(super) const BYTES: usize = size_of::<Slot<T>>() + 2 * size_of::<usize>() + size_of::<T>();

    pub(super) fn empty() -> Slot<T> {
        Slot(ArcSwapWeak::new(Weak::new()))
    }

    /// The piece, if somebody still has it and it is not time to ask the cache, which `has_room` or not.
    pub(super) fn get(&self, has_room: bool) -> Option<Arc<T>> {
        let every = if has_room { ASK_EVERY_WITH_ROOM } else { ASK_EVERY };
        if time_to_ask(every) {
            return None;
        }
        self.0.load().upgrade()
    }

    /// Whether somebody still has the piece.
    pub(super) fn is_filled(&self) -> bool {
        self.0.load().strong_count() > 0
    }

    /// Remembers where the piece is.
    pub(super) fn set(&self, piece: &Arc<T>) {
        if self.0.load().as_ptr() != Arc::as_ptr(piece) {
            self.0.store(Arc::downgrade(piece));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_finds_a_piece_while_it_lives_and_does_not_keep_it() {
        start_counting();
        let slot = Slot::empty();
        assert_eq!(slot.get(false), None);
        let piece = Arc::new(7);
        slot.set(&piece);
        assert_eq!(slot.get(false), Some(piece.clone()));
        drop(piece);
        assert_eq!(slot.get(false), None);
    }

    #[test]
    fn every_eighth_look_goes_to_a_full_cache_and_few_to_one_with_room() {
        start_counting();
        let (slot, piece) = (Slot::empty(), Arc::new(7));
        slot.set(&piece);
        let asked = |has_room| (0..1280).filter(|_| slot.get(has_room).is_none()).count();
        assert_eq!((asked(false), asked(true)), (160, 10));
    }
}
