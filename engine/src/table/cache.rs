//! The one cache of decrypted pieces: data blocks and section heads (index and filter) of all tables, and separated
//! values.
//!
//! Keyed by file number and offset; the tenant stands inside, so that all of one tenant's pieces can
//! be dropped when its key is destroyed. Weighed by the bytes a piece holds in memory. Scan resistant
//! (quick_cache's S3-FIFO, and a doorkeeper for blocks); compaction reads past it.
//!
//! Invariant: a piece heavier than a quarter of a shard is not kept, so that one large value cannot
//! empty the cache.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use super::block::Block;
use super::doorkeeper::Doorkeeper;
use super::expectation;
use super::filter::Filter;
use super::index::{Index, Level};
use super::piece_memory::PieceMemory;
use super::shown::{self, Shelf};
use super::slot::{self, Slot};
use super::values::{KeptValue, ValueShortcuts};
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::{planted, rare};
use crate::operation::count;
use crate::prefetch::Whereabouts;
use crate::read::counters::ReadCounters;
use crate::types::TenantId;

/// What stands between two shards of the cache: fewer, larger ones keep section heads admissible.
const SHARD_BYTES: u64 = 8 << 20;
/// Bookkeeping of the cache itself per item, about.
const ITEM_BYTES: usize = 96;

/// A section's index and filter, or the index over the sections of a large run.
pub(super) struct Head {
    pub index: Index,
    pub filter: Option<Filter>,
    parts: Parts,
}

/// Shortcuts to the parts of an index.
enum Parts {
    /// Made for the first block that is found in the cache or kept there: to let go of a slot takes a look at what every
    /// thread borrows, and heads that only filters or compactions asked need none.
    Blocks(OnceLock<Box<[Shortcut]>>),
    Sections(Shelf),
}

/// The way to a block, and to what of it is looked at first: that is on its way while the block says where it is.
struct Shortcut {
    slot: Slot<Block>,
    places: Whereabouts,
}

impl Shortcut {
    const BYTES: usize = Slot::<Block>::BYTES + size_of::<Whereabouts>();

    fn empty() -> Shortcut {
        Shortcut {
            slot: Slot::empty(),
            places: Whereabouts::default(),
        }
    }
}

impl Head {
    pub(super) fn new(index: Index, filter: Option<Filter>) -> Head {
        let parts = match index.level() {
            Level::Blocks => Parts::Blocks(OnceLock::new()),
            Level::Sections => Parts::Sections(Shelf::new(index.len())),
        };
        Head { index, filter, parts }
    }

    /// Block `part`, by its shortcut.
    pub(super) fn block(&self, part: usize, cache: &BlockCache) -> Option<Arc<Block>> {
        match &self.parts {
            Parts::Blocks(shortcuts) => {
                let shortcut = shortcuts.get()?.get(part)?;
                shortcut.places.prefetch();
                shortcut.slot.get(!cache.doorkeeper.is_cache_full())
            }
            Parts::Sections(_) => None,
        }
    }

    /// Whether block `part` has a shortcut to it, and somebody has it.
    pub(super) fn has_at_hand(&self, part: usize) -> bool {
        match &self.parts {
            Parts::Blocks(shortcuts) => {
                let shortcut = shortcuts.get().and_then(|shortcuts| shortcuts.get(part));
                shortcut.is_some_and(|shortcut| shortcut.slot.is_filled())
            }
            Parts::Sections(_) => false,
        }
    }

    /// Has block `part` found by a shortcut from now on.
    pub(super) fn remember(&self, part: usize, block: &Arc<Block>) {
        let Parts::Blocks(shortcuts) = &self.parts else {
            return;
        };
        let empty = || (0..self.index.len()).map(|_| Shortcut::empty()).collect();
        if let Some(shortcut) = shortcuts.get_or_init(empty).get(part) {
            shortcut.slot.set(block);
            shortcut.places.set(block.searched_first());
        }
    }

    /// Where the heads of sections are shown; None over blocks.
    pub(super) fn sections(&self) -> Option<&Shelf> {
        match &self.parts {
            Parts::Blocks(_) => None,
            Parts::Sections(shelf) => Some(shelf),
        }
    }

    fn memory(&self) -> usize {
        let parts = match &self.parts {
            // Whether they are made or not: what it weighs stays.
            Parts::Blocks(_) => self.index.len() * Shortcut::BYTES,
            Parts::Sections(shelf) => shelf.len() * Shelf::PLACE_BYTES,
        };
        self.index.memory() + self.filter.as_ref().map_or(0, Filter::memory) + parts
    }
}

/// A head that is kept, and where it is shown, if it is. In one: who looks it up counts itself into nothing that readers
/// pass.
pub(super) struct KeptHead {
    pub head: Arc<Head>,
    shown: Option<shown::Place>,
}

impl KeptHead {
    /// Whether it is shown in this place.
    pub(super) fn is_shown_on(&self, (shelf, index): (&Shelf, usize)) -> bool {
        self.shown.as_ref().is_some_and(|place| place.is(shelf, index))
    }
}

#[derive(Clone)]
enum Piece {
    Block(Arc<Block>),
    Head(Arc<KeptHead>),
    Value(Arc<KeptValue>),
}

impl Piece {
    fn block(self) -> Option<Arc<Block>> {
        match self {
            Piece::Block(block) => Some(block),
            Piece::Head(..) | Piece::Value(_) => None,
        }
    }

    fn head(self) -> Option<Arc<KeptHead>> {
        match self {
            Piece::Head(kept) => Some(kept),
            Piece::Block(_) | Piece::Value(_) => None,
        }
    }
}

#[derive(Clone)]
struct Item {
    tenant: TenantId,
    piece: Piece,
}

impl Item {
    fn memory(&self) -> u64 {
        let bytes = match &self.piece {
            Piece::Block(block) => block.memory(),
            Piece::Head(kept) => kept.head.memory(),
            Piece::Value(value) => value.memory(),
        };
        (bytes + ITEM_BYTES) as u64
    }

    /// It is no longer here, or soon will not be.
    fn hide(&self) {
        if let Piece::Head(kept) = &self.piece
            && let Some(place) = &kept.shown
        {
            place.clear();
        }
    }
}

/// What the cache lets go of is no longer shown; and the doorkeeper is told.
#[derive(Clone)]
struct LetGo(Arc<Doorkeeper>);

impl Lifecycle<Place, Item> for LetGo {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: Place, item: Item) {
        self.0.cache_is_full();
        item.hide();
    }
}

/// File number and offset of a sealed piece.
type Place = (u64, u64);

fn place(file: u64, offset: u64) -> Place {
    if planted!(CacheKeyedByOffset) {
        return (0, offset);
    }
    (file, offset)
}

#[derive(Clone)]
struct Weigh;

impl Weighter<Place, Item> for Weigh {
    fn weight(&self, _: &Place, item: &Item) -> u64 {
        item.memory()
    }
}

type Pieces = Cache<Place, Item, Weigh, DefaultHashBuilder, LetGo>;

/// Decrypted blocks, indexes and filters of all tables, and separated values, in bounded memory.
pub(crate) struct BlockCache {
    /// None when turned off.
    pieces: Option<Pieces>,
    piece_bytes_max: AtomicU64,
    doorkeeper: Arc<Doorkeeper>,
    value_shortcuts: ValueShortcuts,
    /// Where pieces are that stay.
    pub(super) memory: PieceMemory,
    /// What readers did, with it and without.
    pub(crate) reads: ReadCounters,
}

/// The heaviest piece that is kept.
fn largest_piece(pieces: &Pieces) -> u64 {
    pieces.shard_capacity() / 4
}

/// What the cache holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct CacheUsage {
    /// Bytes held.
    pub bytes: u64,
    /// Bytes allowed.
    pub bytes_max: u64,
    /// Pieces held.
    pub pieces: u64,
}

impl BlockCache {
    /// A cache of at most `bytes`; 0 turns it off.
    pub(crate) fn new(bytes: u64) -> BlockCache {
        slot::start_counting();
        expectation::start_guessing();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = (bytes / SHARD_BYTES).clamp(1, 4 * threads as u64) as usize;
        let options = OptionsBuilder::new()
            .shards(shards)
            .weight_capacity(bytes)
            .estimated_items_capacity((bytes >> 12).clamp(64, 1 << 22) as usize)
            .build()
            .ok()
            .filter(|_| bytes > 0);
        let doorkeeper = Arc::new(Doorkeeper::new(bytes));
        let pieces = options.map(|options| {
            let let_go = LetGo(doorkeeper.clone());
            Cache::with_options(options, Weigh, DefaultHashBuilder::default(), let_go)
        });
        let piece_bytes_max = pieces.as_ref().map_or(0, largest_piece);
        BlockCache {
            pieces,
            piece_bytes_max: AtomicU64::new(piece_bytes_max),
            doorkeeper,
            value_shortcuts: ValueShortcuts::for_cache(bytes),
            memory: PieceMemory::for_cache(bytes),
            reads: ReadCounters::default(),
        }
    }

    /// Takes at most `bytes` from now on; what is too much goes before this returns. Its shards stay, and the
    /// doorkeeper's marks. One change at a time. `Invalid` where it was turned off from the start.
    pub(crate) fn set_capacity(&self, bytes: u64) -> Result<()> {
        let Some(pieces) = &self.pieces else {
            return Err(Error::new(
                ErrorKind::Invalid,
                "option cache_bytes was 0 at opening, so that there is no cache: reopen with one",
            ));
        };
        let grows = bytes > pieces.capacity();
        pieces.set_capacity(bytes);
        let most = largest_piece(pieces);
        self.piece_bytes_max.store(most, Ordering::Relaxed);
        if grows {
            self.doorkeeper.cache_has_room();
        } else {
            self.retain(|item| item.memory() <= most);
        }
        Ok(())
    }

    /// Counts a piece that a reader did not find here, and the bytes that were read for it.
    pub(super) fn count_read(&self, bytes: u64) {
        self.reads.missed();
        self.reads.read(bytes);
        count(|counters| {
            counters.pieces_read += 1;
            counters.bytes_read += bytes;
        });
    }

    /// Whether a block that is not here should be [kept](BlockCache::keep_block): there is room, or it was missed before.
    /// Asked once for each time that it is read.
    pub(super) fn is_asked_for_again(&self, file: u64, offset: u64) -> bool {
        self.pieces.is_some() && self.doorkeeper.admits(place(file, offset))
    }

    pub(super) fn block(&self, file: u64, offset: u64) -> Option<Arc<Block>> {
        self.pieces.as_ref()?.get(&place(file, offset))?.piece.block()
    }

    pub(super) fn head(&self, file: u64, offset: u64) -> Option<Arc<KeptHead>> {
        self.pieces.as_ref()?.get(&place(file, offset))?.piece.head()
    }

    /// A block, without counting as a use.
    pub(super) fn peek_block(&self, file: u64, offset: u64) -> Option<Arc<Block>> {
        self.pieces.as_ref()?.peek(&place(file, offset))?.piece.block()
    }

    /// The same of a head.
    pub(super) fn peek_head(&self, file: u64, offset: u64) -> Option<Arc<Head>> {
        let kept = self.pieces.as_ref()?.peek(&place(file, offset))?.piece.head()?;
        Some(kept.head.clone())
    }

    /// A value of `tenant`; None also if what stands there is another's.
    pub(super) fn value(&self, file: u64, offset: u64, tenant: TenantId) -> Option<Bytes> {
        let pieces = self.pieces.as_ref()?;
        let (at, has_room) = (place(file, offset), !self.doorkeeper.is_cache_full());
        if let Some(value) = self.value_shortcuts.get(at, tenant, has_room) {
            return Some(value.lend());
        }
        match pieces.get(&at)?.piece {
            Piece::Value(value) if value.is(at, tenant) => {
                self.value_shortcuts.remember(&value);
                Some(value.lend())
            }
            _ => None,
        }
    }

    pub(super) fn keep_block(&self, file: u64, offset: u64, tenant: TenantId, block: &Arc<Block>) {
        self.keep(
            place(file, offset),
            Item {
                tenant,
                piece: Piece::Block(block.clone()),
            },
        );
    }

    /// Keeps a head, and shows it there while it is kept and `may_be_shown`.
    pub(super) fn keep_head(
        &self,
        (file, offset): (u64, u64),
        tenant: TenantId,
        head: &Arc<Head>,
        shown: Option<(&Shelf, usize)>,
        may_be_shown: impl FnOnce() -> bool,
    ) {
        let kept = KeptHead {
            head: head.clone(),
            shown: shown.map(|(shelf, index)| shelf.place(index)),
        };
        self.keep(
            place(file, offset),
            Item {
                tenant,
                piece: Piece::Head(Arc::new(kept)),
            },
        );
        if let Some(here) = shown {
            self.show_head((file, offset), head, here, may_be_shown);
        }
    }

    /// Shows a head in the place that it was kept for, unless another one is kept for it by now.
    pub(super) fn show_head(
        &self,
        (file, offset): (u64, u64),
        head: &Arc<Head>,
        here: (&Shelf, usize),
        may_be_shown: impl FnOnce() -> bool,
    ) {
        let is_kept = || {
            let kept = self.head(file, offset);
            kept.is_some_and(|kept| Arc::ptr_eq(&kept.head, head) && kept.is_shown_on(here))
        };
        let (shelf, index) = here;
        shelf.show(index, head, || is_kept() && may_be_shown());
    }

    pub(super) fn keep_value(&self, file: u64, offset: u64, tenant: TenantId, value: &Bytes) {
        self.keep(
            place(file, offset),
            Item {
                tenant,
                piece: Piece::Value(KeptValue::new(place(file, offset), tenant, value, &self.memory)),
            },
        );
    }

    fn keep(&self, place: Place, item: Item) {
        if let Some(pieces) = self
            .pieces
            .as_ref()
            .filter(|_| item.memory() <= self.piece_bytes_max.load(Ordering::Relaxed))
        {
            pieces.insert(place, item);
        } else if self.pieces.is_some() {
            rare!(PieceTooLargeForCache);
        }
    }

    pub(super) fn forget(&self, file: u64, offset: u64) {
        let pieces = self.pieces.as_ref();
        if let Some((_, item)) = pieces.and_then(|pieces| pieces.remove(&place(file, offset))) {
            item.hide();
        }
    }

    /// Drops everything of the tenants that `gone` names, in one walk.
    pub(crate) fn purge_if(&self, gone: impl Fn(TenantId) -> bool) {
        self.retain(|item| !gone(item.tenant));
    }

    fn retain(&self, stays: impl Fn(&Item) -> bool) {
        if let Some(pieces) = &self.pieces {
            pieces.retain(|_, item| {
                let stays = stays(item);
                if !stays {
                    item.hide();
                }
                stays
            });
        }
    }

    /// What it holds now.
    pub(crate) fn usage(&self) -> CacheUsage {
        let pieces = self.pieces.as_ref();
        CacheUsage {
            bytes: pieces.map_or(0, |pieces| pieces.weight()),
            bytes_max: pieces.map_or(0, |pieces| pieces.capacity()),
            pieces: pieces.map_or(0, |pieces| pieces.len() as u64),
        }
    }
}
