//! A shortcut to a decoded piece: where it was when it was last looked for.
//!
//! A slot does not keep its piece. The cache does, and may drop it at any time, for want of room or because a
//! tenant is deleted: then the slot is empty. So shortcuts need no rules of their own; what they spare is a
//! lookup, which touches a lock and several lines of memory. (LeanStore calls the like pointer swizzling:
//! Leis, Haubenschild, Kemper, Neumann, ICDE 2018.)
//!
//! The cache decides by use what to keep, and does not see what goes past it: every [`ASK_EVERY`]th time, a
//! slot sends the reader there.

use std::cell::Cell;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapWeak;

/// One of so many looks goes to the cache.
const ASK_EVERY: u32 = 8;

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

    /// The piece, if somebody still has it and it is not time to ask the cache.
    pub(super) fn get(&self) -> Option<Arc<T>> {
        if time_to_ask(ASK_EVERY) {
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
        assert_eq!(slot.get(), None);
        let piece = Arc::new(7);
        slot.set(&piece);
        assert_eq!(slot.get(), Some(piece.clone()));
        drop(piece);
        assert_eq!(slot.get(), None);
    }

    #[test]
    fn every_eighth_look_goes_to_the_cache() {
        start_counting();
        let (slot, piece) = (Slot::empty(), Arc::new(7));
        slot.set(&piece);
        let asked = (0..80).filter(|_| slot.get().is_none()).count();
        assert_eq!(asked, 10);
    }
}
