//! Memory for the decrypted pieces that the cache keeps: in large pages, out of core dumps, wiped when let go.
//!
//! ```text
//! region   32 MiB, mapped apart from the heap, at a multiple of 2 MiB
//!   slab     512 KiB: slots of one size
//!     slot     64 x n bytes, one piece; sizes are eight steps to a doubling, 512 B to 128 KiB
//! ```
//!
//! Some hundred megabytes of cache in pages of 4 KiB are more pages than a processor remembers the addresses of: most
//! looks at a block then walk the page table as well, four further lines of memory. So the kernel is asked for pages of
//! 2 MiB (`MADV_HUGEPAGE`, decision 0023), which the heap would not get.
//!
//! A slab that is empty serves any size again, and a region that is empty goes back to the system, but for one. What
//! has no place here, as it is small or large or nothing can be mapped, stays where it was: on the heap.
//!
//! One of the four files of the engine with `unsafe` of their own. Obligations, and who keeps them:
//! - A slot's bytes are valid and initialised while a [`Piece`] owns it: regions are mapped zeroed, and unmapped only
//!   when none of their slots is owned (`State::give_back`) or with the last `Arc` to the state, of which every piece
//!   holds one.
//! - A slot has one owner: `State::take` removes it from its slab, only `Piece::drop` puts it back.
//! - A slot is written only before its piece is shared (`PieceMemory::keep`) and in `drop`, which has it alone.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::mm;

const REGION_BYTES: usize = 32 << 20;
const SLAB_BYTES: usize = 512 << 10;
const SLABS: usize = REGION_BYTES / SLAB_BYTES;
/// What regions begin at multiples of: the large pages of x86-64, and of AArch64 with base pages of 4 KiB.
const ALIGNMENT: usize = 2 << 20;
const SLOT_BYTES_MIN: usize = 512;
const SLOT_BYTES_MAX: usize = 128 << 10;
/// Sizes of slots between one power of two and the next.
const STEPS: usize = 8;
const CLASSES: usize = STEPS * (SLOT_BYTES_MAX / SLOT_BYTES_MIN).ilog2() as usize + 1;
/// Smaller caches have few pages anyway, and would not fill their slabs.
const CACHE_BYTES_MIN: u64 = 32 << 20;

/// The class of the least slot that takes `len` bytes; None if there is none.
fn class_of(len: usize) -> Option<usize> {
    if len > SLOT_BYTES_MAX {
        return None;
    }
    let len = len.max(SLOT_BYTES_MIN);
    let doublings = (len / SLOT_BYTES_MIN).ilog2();
    let power = SLOT_BYTES_MIN << doublings;
    let step = (len - power).div_ceil(power / STEPS);
    Some(STEPS * doublings as usize + step)
}

/// Bytes of a slot of that class.
fn slot_bytes(class: usize) -> usize {
    let power = SLOT_BYTES_MIN << (class / STEPS);
    power + power / STEPS * (class % STEPS)
}

/// What a piece of `len` bytes takes, here or about so on the heap.
pub(super) fn taken(len: usize) -> usize {
    match class_of(len) {
        Some(class) if len >= SLOT_BYTES_MIN => slot_bytes(class),
        _ => len,
    }
}

/// The memory of one cache. Clones are the same memory, which lives as long as any of it, or of its pieces.
#[derive(Clone)]
pub(crate) struct PieceMemory(Option<Arc<Mutex<State>>>);

impl PieceMemory {
    /// For a cache of so many bytes.
    pub(super) fn for_cache(bytes: u64) -> PieceMemory {
        PieceMemory((bytes >= CACHE_BYTES_MIN).then(|| Arc::new(Mutex::new(State::new()))))
    }

    /// The same bytes, here; as they are if they have no place here. At a multiple of 64, if here.
    pub(super) fn keep(&self, bytes: Bytes) -> Bytes {
        let Some(state) = self.0.as_ref().filter(|_| bytes.len() >= SLOT_BYTES_MIN) else {
            return bytes;
        };
        let Some(class) = class_of(bytes.len()) else {
            return bytes;
        };
        let Some((slot, at)) = state.lock().take(class) else {
            return bytes;
        };
        let piece = Piece {
            state: state.clone(),
            slot,
            at,
            len: bytes.len(),
        };
        // SAFETY: a slot of this class has `len` bytes or more; the piece owns them alone and is not shared yet; `bytes`
        // are elsewhere, since nobody else has a part of this slot.
        unsafe { at.copy_from_nonoverlapping(NonNull::from(&bytes[..]).cast(), piece.len) };
        Bytes::from_owner(piece)
    }
}

/// Owns one slot.
struct Piece {
    state: Arc<Mutex<State>>,
    slot: Slot,
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: a Piece owns its bytes like a Box; what it returns them to is behind a mutex.
unsafe impl Send for Piece {}
// SAFETY: shared references only read.
unsafe impl Sync for Piece {}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: valid and initialised while the piece owns the slot; not written while it is shared.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: valid for `len` bytes, and `&mut self` has them alone.
        unsafe { self.at.write_bytes(0, self.len) };
        self.state.lock().give_back(self.slot);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SlabAt {
    region: usize,
    slab: usize,
}

#[derive(Clone, Copy)]
struct Slot {
    of: SlabAt,
    index: u16,
}

struct State {
    /// None where one was given back.
    regions: Vec<Option<Region>>,
    /// Slabs of no class: nothing is in them.
    empty: Vec<SlabAt>,
    /// Slabs with both used and free slots, and those about to be, by class.
    open: Vec<Vec<SlabAt>>,
}

struct Region {
    map: Map,
    slabs: [Slab; SLABS],
    /// Slabs that have a class.
    used: usize,
}

#[derive(Default)]
struct Slab {
    class: usize,
    used: u16,
    /// Slots from here on were never used.
    fresh: u16,
    free: Vec<u16>,
}

impl Slab {
    fn slots(class: usize) -> u16 {
        (SLAB_BYTES / slot_bytes(class)) as u16
    }

    fn is_full(&self) -> bool {
        self.used == Slab::slots(self.class)
    }

    fn take(&mut self) -> Option<u16> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.fresh < Slab::slots(self.class) => {
                self.fresh += 1;
                self.fresh - 1
            }
            None => return None,
        };
        self.used += 1;
        Some(index)
    }
}

impl State {
    fn new() -> State {
        State {
            regions: Vec::new(),
            empty: Vec::new(),
            open: vec![Vec::new(); CLASSES],
        }
    }

    /// A slot of that class, and where it is.
    fn take(&mut self, class: usize) -> Option<(Slot, NonNull<u8>)> {
        let of = match self.open.get(class)?.last() {
            Some(of) => *of,
            None => self.begin_slab(class)?,
        };
        let region = self.regions.get_mut(of.region)?.as_mut()?;
        let slab = region.slabs.get_mut(of.slab)?;
        let index = slab.take()?;
        if slab.is_full() {
            self.open.get_mut(class)?.pop();
        }
        let offset = of.slab * SLAB_BYTES + usize::from(index) * slot_bytes(class);
        // SAFETY: a slab's slots lie inside it, and slabs inside their region.
        let at = unsafe { region.map.base.add(offset) };
        Some((Slot { of, index }, at))
    }

    fn begin_slab(&mut self, class: usize) -> Option<SlabAt> {
        if self.empty.is_empty() {
            self.map_region()?;
        }
        let of = self.empty.pop()?;
        let region = self.regions.get_mut(of.region)?.as_mut()?;
        region.used += 1;
        let slab = region.slabs.get_mut(of.slab)?;
        slab.class = class;
        slab.fresh = 0;
        slab.free.clear();
        self.open.get_mut(class)?.push(of);
        Some(of)
    }

    fn map_region(&mut self) -> Option<()> {
        let region = Region {
            map: Map::new()?,
            slabs: std::array::from_fn(|_| Slab::default()),
            used: 0,
        };
        let at = self.regions.iter().position(Option::is_none);
        let at = at.unwrap_or_else(|| {
            self.regions.push(None);
            self.regions.len() - 1
        });
        if let Some(place) = self.regions.get_mut(at) {
            *place = Some(region);
        }
        // The lowest comes first: so a region's large pages fill one after the other.
        let slabs = (0..SLABS).rev().map(|slab| SlabAt { region: at, slab });
        self.empty.extend(slabs);
        Some(())
    }

    fn give_back(&mut self, Slot { of, index }: Slot) {
        let Some(Some(region)) = self.regions.get_mut(of.region) else {
            return;
        };
        let Some(slab) = region.slabs.get_mut(of.slab) else {
            return;
        };
        let was_full = slab.is_full();
        slab.free.push(index);
        slab.used -= 1;
        let is_empty = slab.used == 0;
        let Some(open) = self.open.get_mut(slab.class) else {
            return;
        };
        if is_empty {
            open.retain(|other| *other != of);
            self.empty.push(of);
            region.used -= 1;
            if region.used == 0 {
                self.unmap_one_of_two();
            }
        } else if was_full {
            open.push(of);
        }
    }

    /// Gives an empty region back to the system if there is another one: so that what comes and goes at the edge of
    /// one maps and unmaps nothing.
    fn unmap_one_of_two(&mut self) {
        let is_empty = |region: &Option<Region>| region.as_ref().is_some_and(|region| region.used == 0);
        let mut empty = (0..self.regions.len()).filter(|at| self.regions.get(*at).is_some_and(is_empty));
        if let (Some(_), Some(second)) = (empty.next(), empty.next())
            && let Some(place) = self.regions.get_mut(second)
        {
            self.empty.retain(|of| of.region != second);
            *place = None;
        }
    }
}

/// One mapping, and the region inside it.
struct Map {
    mapped: NonNull<u8>,
    base: NonNull<u8>,
}

// SAFETY: it owns its mapping like a Box.
unsafe impl Send for Map {}

impl Map {
    const BYTES: usize = REGION_BYTES + ALIGNMENT;

    fn new() -> Option<Map> {
        // SAFETY: a new private anonymous mapping at an address the kernel picks: aliases nothing.
        let mapped = unsafe {
            mm::mmap_anonymous(
                std::ptr::null_mut(),
                Map::BYTES,
                mm::ProtFlags::READ | mm::ProtFlags::WRITE,
                mm::MapFlags::PRIVATE | mm::MapFlags::NORESERVE,
            )
        };
        let mapped = NonNull::new(mapped.ok()?.cast::<u8>())?;
        let offset = mapped.as_ptr().align_offset(ALIGNMENT);
        // SAFETY: `offset` is less than ALIGNMENT, so that the region ends inside the mapping.
        let base = unsafe { mapped.add(offset.min(ALIGNMENT - 1)) };
        #[cfg(target_os = "linux")]
        for advice in [mm::Advice::LinuxHugepage, mm::Advice::LinuxDontDump] {
            // SAFETY: the region was just mapped; the advice does not change its bytes. A kernel that refuses leaves the
            // memory as usable as before.
            let _ = unsafe { mm::madvise(base.as_ptr().cast(), REGION_BYTES, advice) };
        }
        Some(Map { mapped, base })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, of that length, and nobody owns a part of it any more (see the module).
        let _ = unsafe { mm::munmap(self.mapped.as_ptr().cast(), Map::BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::testing::Random;
    #[cfg(target_os = "linux")]
    use crate::seal::flags_of_mapping;

    fn memory() -> PieceMemory {
        PieceMemory::for_cache(CACHE_BYTES_MIN)
    }

    fn counts(memory: &PieceMemory) -> (usize, usize) {
        let state = memory.0.as_ref().unwrap().lock();
        let regions = state.regions.iter().flatten();
        (regions.clone().count(), regions.map(|region| region.used).sum())
    }

    #[test]
    fn every_length_has_the_least_slot_that_takes_it() {
        for class in 1..CLASSES {
            assert!(slot_bytes(class - 1) < slot_bytes(class));
        }
        assert_eq!(slot_bytes(CLASSES - 1), SLOT_BYTES_MAX);
        for len in 1..=SLOT_BYTES_MAX {
            let class = class_of(len).unwrap();
            assert!(len <= slot_bytes(class), "{len}");
            assert!(class == 0 || len > slot_bytes(class - 1), "{len}");
            assert_eq!(slot_bytes(class) % 64, 0);
        }
        assert_eq!(class_of(SLOT_BYTES_MAX + 1), None);
        assert_eq!(taken(4100), 4608);
        assert_eq!(taken(100), 100);
        assert_eq!(taken(1 << 20), 1 << 20);
    }

    #[test]
    fn pieces_keep_their_bytes_while_others_come_and_go() {
        for seed in 0..4 {
            let (memory, mut random) = (memory(), Random(seed));
            let mut pieces: Vec<(Vec<u8>, Bytes)> = Vec::new();
            for round in 0..6_000u32 {
                if pieces.len() > 1500 || (pieces.len() > 10 && random.below(3) == 0) {
                    let at = random.below(pieces.len() as u64) as usize;
                    let (expected, piece) = pieces.swap_remove(at);
                    assert!(piece == expected, "seed {seed}, round {round}");
                } else {
                    let top = [700, 6_000, 140_000][random.below(3) as usize];
                    let len = random.below(top) as usize;
                    let bytes = (0..len)
                        .map(|at| (round as usize * 31 + at) as u8)
                        .collect::<Vec<u8>>();
                    pieces.push((bytes.clone(), memory.keep(Bytes::from(bytes))));
                }
            }
            for (expected, piece) in pieces.drain(..) {
                assert!(piece == expected, "seed {seed}");
            }
            assert_eq!(
                counts(&memory),
                (1, 0),
                "seed {seed}: all but one region goes back"
            );
        }
    }

    #[test]
    fn what_is_let_go_is_wiped_and_its_slot_used_again() {
        let memory = memory();
        let first = memory.keep(Bytes::from(vec![0xa5; 5000]));
        let other = memory.keep(Bytes::from(vec![0x5a; 5000]));
        let at = first.as_ptr();
        let part = first.slice(10..20);
        drop(first);
        assert_eq!(part, [0xa5; 10][..], "a part keeps all of it");
        drop(part);
        // SAFETY: the region is still mapped, since `other` is in it, and nobody writes to it meanwhile.
        assert_eq!(unsafe { std::slice::from_raw_parts(at, 5000) }, [0; 5000]);
        assert_eq!(memory.keep(Bytes::from(vec![1; 5000])).as_ptr(), at);
        assert_eq!(other, vec![0x5a; 5000]);
    }

    #[test]
    fn an_empty_slab_serves_another_size() {
        let memory = memory();
        let small: Vec<Bytes> = (0..SLABS)
            .flat_map(|_| (0..SLAB_BYTES / 4096).map(|_| memory.keep(Bytes::from(vec![1; 4096]))))
            .collect();
        assert_eq!(counts(&memory), (1, SLABS));
        drop(small);
        let large: Vec<Bytes> = (0..2 * SLABS)
            .map(|_| memory.keep(Bytes::from(vec![1; 128 << 10])))
            .collect();
        assert_eq!(counts(&memory), (1, SLABS / 2));
        drop(large);
    }

    #[test]
    fn a_piece_outlives_the_memory_it_is_in() {
        let piece = memory().keep(Bytes::from(vec![3; 9000]));
        assert_eq!(piece, vec![3; 9000]);
    }

    #[test]
    fn small_caches_and_pieces_of_no_class_stay_on_the_heap() {
        let bytes = Bytes::from(vec![1; 4096]);
        let at = bytes.as_ptr();
        assert_eq!(
            PieceMemory::for_cache(CACHE_BYTES_MIN - 1).keep(bytes).as_ptr(),
            at
        );
        for len in [1, SLOT_BYTES_MIN - 1, SLOT_BYTES_MAX + 1] {
            let bytes = Bytes::from(vec![1; len]);
            let at = bytes.as_ptr();
            assert_eq!(memory().keep(bytes).as_ptr(), at);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn kept_pieces_are_out_of_core_dumps_and_begin_with_a_line_of_the_cache() {
        let piece = memory().keep(Bytes::from(vec![1; 4096]));
        let address = piece.as_ptr() as usize;
        assert_eq!(address % 64, 0);
        if let Some(flags) = flags_of_mapping(address) {
            assert!(flags.contains(" dd"), "{flags}");
        }
    }
}
