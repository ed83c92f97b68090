//! Heads that the cache holds, shown where readers pass: what they find there they use without counting itself in.
//!
//! A shelf has a place for each head that can be reached from somewhere: from the table, from the head over its
//! sections. Readers borrow what stands there, which touches no memory that other readers change (all of them come
//! by these few heads; counting references would have every processor wait for the others).
//!
//! Invariant: a head stands on a shelf only while the cache holds it for that very place on that shelf. Whoever
//! takes it out of the cache takes it from the shelf, after that or under the same lock; whoever puts it there looks
//! into the cache again afterwards, and whether the tenant lives, and takes it back if not ([`Shelf::show`]). So what
//! a deletion purges is gone from here too, and a shelf holds no memory that the cache does not count.
//!
//! The cache decides by use what to keep, and does not see what goes past it: every [`ASK_EVERY`]th look is sent
//! there (`slot`). Fewer than with blocks: every read passes here, so that a head in use is seen to be.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};

use super::cache::Head;
use super::slot::time_to_ask;

/// One of so many looks goes to the cache.
const ASK_EVERY: u32 = 128;

/// Places for heads.
#[derive(Clone)]
pub(super) struct Shelf(Arc<[ArcSwapOption<Head>]>);

/// One of them.
#[derive(Clone)]
pub(super) struct Place {
    shelf: Shelf,
    index: usize,
}

/// A head that somebody reads.
pub(super) enum Held {
    /// Borrowed: see above.
    Shown(Guard<Option<Arc<Head>>>),
    /// Counted.
    Own(Arc<Head>),
}

impl Shelf {
    /// What a place takes.
    pub(super) const PLACE_BYTES: usize = size_of::<ArcSwapOption<Head>>();

    /// With so many empty places.
    pub(super) fn new(places: usize) -> Shelf {
        Shelf((0..places).map(|_| ArcSwapOption::empty()).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The head that stands there, if one does and it is not time to ask the cache.
    pub(super) fn get(&self, index: usize) -> Option<Held> {
        let place = self.0.get(index)?;
        if time_to_ask(ASK_EVERY) {
            return None;
        }
        let shown = place.load();
        shown.is_some().then_some(Held::Shown(shown))
    }

    /// What stands there.
    #[cfg(test)]
    pub(super) fn peek(&self, index: usize) -> Option<Arc<Head>> {
        self.0.get(index)?.load_full()
    }

    /// The place of that number.
    pub(super) fn place(&self, index: usize) -> Place {
        Place {
            shelf: self.clone(),
            index,
        }
    }

    /// Shows a head that the cache was given for this place. `may_stay` says whether the cache still has it for this
    /// place and nothing speaks against it: asked when everybody can see it already.
    pub(super) fn show(&self, index: usize, head: &Arc<Head>, may_stay: impl FnOnce() -> bool) {
        let Some(place) = self.0.get(index) else {
            return;
        };
        place.store(Some(head.clone()));
        if !may_stay() {
            // Only this one: another may be shown by now, and stay.
            place.compare_and_swap(head, None);
        }
    }

    /// Whether this very head stands there.
    pub(super) fn shows(&self, index: usize, head: &Arc<Head>) -> bool {
        let place = self.0.get(index).map(ArcSwapOption::load);
        place.is_some_and(|shown| shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, head)))
    }
}

impl Place {
    /// Takes away what stands here.
    pub(super) fn clear(&self) {
        if let Some(place) = self.shelf.0.get(self.index) {
            place.store(None);
        }
    }

    /// Whether it is that place on that shelf.
    pub(super) fn is(&self, shelf: &Shelf, index: usize) -> bool {
        Arc::ptr_eq(&self.shelf.0, &shelf.0) && self.index == index
    }
}

impl Held {
    pub(super) fn is_own(&self) -> bool {
        matches!(self, Held::Own(_))
    }

    /// Counted, to be kept for longer than a moment.
    pub(super) fn into_arc(self) -> Arc<Head> {
        match self {
            Held::Own(head) => head,
            Held::Shown(shown) => match Guard::into_inner(shown) {
                Some(head) => head,
                None => unreachable!("made of a head"),
            },
        }
    }
}

impl Deref for Held {
    type Target = Head;

    fn deref(&self) -> &Head {
        match self {
            Held::Own(head) => head,
            Held::Shown(shown) => match shown.as_ref() {
                Some(head) => head,
                None => unreachable!("made of a head"),
            },
        }
    }
}
