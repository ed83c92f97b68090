//! Memory for keys: locked, kept out of core dumps, wiped when freed.
//!
//! A [`Dek`] is a 32-byte slot of a process-wide slab. The slab grows by chunks that are mapped apart
//! from the heap, advised out of core dumps (`MADV_DONTDUMP`) and locked (`mlock`), so that keys are
//! neither swapped nor dumped. Both are best effort: where a limit (`RLIMIT_MEMLOCK`) or the platform
//! forbids, the chunk is used as it is, and where nothing can be mapped, it comes from the heap.
//! Chunks are never returned: 100,000 keys need 3.2 MB, and freed slots are used again.
//!
//! One of the four files of the engine with `unsafe` of their own. Obligations, and who keeps them:
//! - A slot pointer is valid, aligned (alignment 1) and initialised for 32 bytes for the life of the
//!   process: chunks are zeroed when made and never unmapped.
//! - A slot has one owner: `Slab::take` removes it from the free list, only `Slot::drop` puts it back.
//! - A slot is written only before its `Slot` is shared (`Dek::fill`) and in `drop`, which has it alone.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;
use zeroize::Zeroize;

use crate::error::Result;
use crate::io::Rng;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 32;
/// First chunk: small, so that the least limits (64 KiB) still lock it.
const CHUNK_BYTES_MIN: usize = 16 << 10;
/// Largest chunk.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// A 256-bit secret from which file keys are derived: a tenant's data key, or the keystore's root.
/// Cloning shares the one copy; the last owner wipes it.
#[derive(Clone)]
pub(crate) struct Dek(Arc<Slot>);

impl Dek {
    /// A new random key.
    pub fn generate(rng: &dyn Rng) -> Result<Dek> {
        Dek::fill(|bytes| super::nonce::fill(rng, bytes))
    }

    /// A copy of `bytes`, which the caller wipes.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Dek {
        match Dek::fill(|slot| {
            slot.copy_from_slice(bytes);
            Ok(())
        }) {
            Ok(dek) => dek,
            Err(_) => unreachable!("copying bytes does not fail"),
        }
    }

    /// The key itself. Do not copy it into memory that is not wiped.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        // SAFETY: valid and initialised for the life of the process; not written while a Dek is alive.
        unsafe { self.0.0.as_ref() }
    }

    fn fill(write: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Dek> {
        let mut slot = SLAB.lock().take();
        // SAFETY: valid, and owned by `slot` alone, which is not shared yet.
        let bytes: &mut [u8; KEY_BYTES] = unsafe { slot.0.as_mut() };
        // On error `slot` is dropped: wiped and free again.
        write(bytes)?;
        Ok(Dek(Arc::new(slot)))
    }
}

/// Owns one slot of the slab.
struct Slot(NonNull<[u8; KEY_BYTES]>);

// SAFETY: a Slot owns its bytes like a Box; the slab it returns to is behind a mutex.
unsafe impl Send for Slot {}
// SAFETY: shared references only read.
unsafe impl Sync for Slot {}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: valid, and `&mut self` has it alone.
        unsafe { self.0.as_mut() }.zeroize();
        SLAB.lock().free.push(Free(self.0));
    }
}

struct Free(NonNull<[u8; KEY_BYTES]>);
// SAFETY: a free slot is owned by the free list, which is behind a mutex.
unsafe impl Send for Free {}

struct Slab {
    free: Vec<Free>,
    next_chunk_bytes: usize,
    /// In all chunks, free or not.
    slots: usize,
}

static SLAB: Mutex<Slab> = Mutex::new(Slab {
    free: Vec::new(),
    next_chunk_bytes: CHUNK_BYTES_MIN,
    slots: 0,
});

impl Slab {
    fn take(&mut self) -> Slot {
        if self.free.is_empty() {
            self.grow();
        }
        match self.free.pop() {
            Some(Free(slot)) => Slot(slot),
            None => unreachable!("a grown slab has free slots"),
        }
    }

    fn grow(&mut self) {
        let len = self.next_chunk_bytes;
        let base = map_locked(len).unwrap_or_else(|| heap(len));
        self.next_chunk_bytes = (len * 2).min(CHUNK_BYTES_MAX);
        let slots = len / KEY_BYTES;
        self.slots += slots;
        // Room for every slot there is, those in use too, so that dropping a key never allocates.
        self.free.reserve(self.slots.saturating_sub(self.free.len()));
        for index in (0..slots).rev() {
            // SAFETY: `index * KEY_BYTES + KEY_BYTES <= len`, inside the one allocation `base`.
            self.free
                .push(Free(unsafe { base.add(index * KEY_BYTES) }.cast()));
        }
    }
}

/// `len` zeroed bytes mapped apart, out of core dumps and locked as far as the limits allow.
fn map_locked(len: usize) -> Option<NonNull<u8>> {
    use rustix::mm;
    // SAFETY: a new private anonymous mapping at an address the kernel picks: aliases nothing.
    let base = unsafe {
        mm::mmap_anonymous(
            std::ptr::null_mut(),
            len,
            mm::ProtFlags::READ | mm::ProtFlags::WRITE,
            mm::MapFlags::PRIVATE,
        )
    }
    .ok()?;
    #[cfg(target_os = "linux")]
    {
        // SAFETY: `base .. base + len` was just mapped; the advice does not change its bytes. A kernel that
        // refuses leaves the memory as usable as before.
        let _ = unsafe { mm::madvise(base, len, mm::Advice::LinuxDontDump) };
    }
    // SAFETY: as above. Fails when the limit is reached: the keys then can be swapped, no more.
    let _ = unsafe { mm::mlock(base, len) };
    NonNull::new(base.cast())
}

/// `len` zeroed bytes of the heap, never freed.
fn heap(len: usize) -> NonNull<u8> {
    NonNull::from(Box::leak(vec![0u8; len].into_boxed_slice())).cast()
}

/// What the kernel says of the mapping that holds `address`; None where it does not tell.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn flags_of_mapping(address: usize) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "asks the kernel about this process")]
    let smaps = std::fs::read("/proc/self/smaps").ok()?;
    let smaps = String::from_utf8_lossy(&smaps);
    let mut inside = false;
    for line in smaps.lines() {
        let range = line.split(' ').next().unwrap_or("");
        if let Some((from, to)) = range.split_once('-') {
            let parse = |s| usize::from_str_radix(s, 16);
            if let (Ok(from), Ok(to)) = (parse(from), parse(to)) {
                inside = (from..to).contains(&address);
            }
        }
        if inside && line.starts_with("VmFlags:") {
            return Some(line.to_string());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_key_is_wiped_and_its_slot_used_again() {
        let dek = Dek::from_bytes(&[0xa5; 32]);
        let slot = dek.0.0;
        let other = dek.clone();
        drop(dek);
        assert_eq!(other.expose(), &[0xa5; 32]);
        drop(other);
        // SAFETY: slots stay mapped for the life of the process. Another test may have taken this one
        // meanwhile, but no other test uses this pattern.
        assert_ne!(unsafe { slot.as_ref() }, &[0xa5; 32]);
    }

    #[test]
    fn many_keys_keep_their_bytes_and_slots_are_reused() {
        for _ in 0..3 {
            let deks: Vec<Dek> = (0..5000u32)
                .map(|i| {
                    let mut bytes = [0u8; 32];
                    bytes[..4].copy_from_slice(&i.to_le_bytes());
                    Dek::from_bytes(&bytes)
                })
                .collect();
            for (i, dek) in deks.iter().enumerate() {
                assert_eq!(dek.expose()[..4], (i as u32).to_le_bytes());
                assert_eq!(dek.expose()[4..], [0; 28]);
            }
        }
        // Other tests in this process hold keys too; three rounds of 5000 without reuse need far more.
        let slab = SLAB.lock();
        assert!(
            slab.free.len() >= 5000,
            "{} free of {}",
            slab.free.len(),
            slab.slots
        );
    }

    #[test]
    fn free_list_has_room_for_all_slots_of_all_chunks_while_keys_are_in_use() {
        let mut slab = Slab {
            free: Vec::new(),
            next_chunk_bytes: CHUNK_BYTES_MIN,
            slots: 0,
        };
        while slab.next_chunk_bytes < 16 * CHUNK_BYTES_MIN {
            // Not given back: its drop gives it to the process's own slab.
            std::mem::forget(slab.take());
            let room = slab.free.capacity();
            assert!(room >= slab.slots, "room for {room} of {}", slab.slots);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn slots_are_mapped_out_of_core_dumps() {
        let dek = Dek::from_bytes(&[1; 32]);
        let address = dek.0.0.as_ptr() as usize;
        if let Some(flags) = flags_of_mapping(address) {
            assert!(flags.contains(" dd"), "{flags}");
        }
    }
}
