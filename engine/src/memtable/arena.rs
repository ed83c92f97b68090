//! Places that are made once and never move: readers find them by index while a writer makes more.
//!
//! Chunks of `CHUNK` places, found through directories that double in size, so that nothing is copied
//! when there are more and an index costs three loads.
//!
//! Invariant: what `get` returned stays where it is as long as the arena lives.

use std::sync::OnceLock;

/// Chunks in the first directory; each further one has twice as many as the one before.
const FIRST: usize = 16;
/// Enough for every index of 32 bits.
const DIRECTORIES: usize = 29;

type Chunk<T> = OnceLock<Box<[T]>>;

pub(super) struct Arena<T, const CHUNK: usize> {
    directories: [OnceLock<Box<[Chunk<T>]>>; DIRECTORIES],
}

/// The directory that holds a chunk, and where.
fn place(chunk: usize) -> (usize, usize) {
    let shifted = chunk + FIRST;
    let directory = (shifted / FIRST).ilog2() as usize;
    (directory, shifted - (FIRST << directory))
}

fn filled<T: Default>(len: usize) -> Box<[T]> {
    std::iter::repeat_with(T::default).take(len).collect()
}

impl<T: Default, const CHUNK: usize> Arena<T, CHUNK> {
    pub(super) fn new() -> Arena<T, CHUNK> {
        Arena {
            directories: [const { OnceLock::new() }; DIRECTORIES],
        }
    }

    /// The place of `index`; None if no `make` reached its chunk.
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let index = index as usize;
        let (directory, at) = place(index / CHUNK);
        let chunks = self.directories.get(directory)?.get()?;
        chunks.get(at)?.get()?.get(index % CHUNK)
    }

    /// The same, made with its chunk if it is missing.
    pub(super) fn make(&self, index: u32) -> Option<&T> {
        let (directory, at) = place(index as usize / CHUNK);
        let chunks = self.directories.get(directory)?;
        let chunks = chunks.get_or_init(|| filled(FIRST << directory));
        let chunk = chunks.get(at)?.get_or_init(|| filled(CHUNK));
        chunk.get(index as usize % CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn every_index_has_a_place_of_its_own_that_stays() {
        let arena = Arena::<AtomicU32, 4>::new();
        assert!(arena.get(0).is_none());
        for index in 0..5000 {
            arena.make(index).unwrap().store(index, Ordering::Relaxed);
        }
        assert!((0..5000).all(|index| arena.get(index).unwrap().load(Ordering::Relaxed) == index));
        assert!(arena.get(5000).is_none());
        assert!(arena.make(1 << 20).is_some() && arena.get(1 << 20).is_some());
    }

    #[test]
    fn the_last_index_of_all_has_a_directory() {
        let (directory, at) = place(u32::MAX as usize);
        assert!(directory < DIRECTORIES && at < FIRST << directory);
        assert_eq!(place(0), (0, 0));
        assert_eq!(place(FIRST), (1, 0));
        assert_eq!(place(FIRST * 3 - 1), (1, 2 * FIRST - 1));
    }
}
