//! A stretch of a growing file, mapped for writing: what is written there is copied into the page cache, without a
//! system call, and survives the death of the process as bytes of a write call do. `File::sync` covers both.
//!
//! A map turns an error into a signal that ends the process. So it is made where none is to be expected, and only when
//! a record comes that no sync follows (decision 0018; others that fall into it go the same way):
//! - The bytes exist and have their space: they were written, as zeros, before they are mapped.
//! - The file system overwrites in place ([`IN_PLACE`]). One that copies on write may be out of space for bytes that
//!   exist.
//! - The pages are brought into memory when the map is made, by a call that tells an error (`MADV_POPULATE_WRITE`,
//!   Linux 5.14): where it fails, or is not known, there is no map.
//!
//! What is left: a disk that fails under pages that were written out and dropped since, or a file system that shuts
//! itself down. The process then dies by SIGBUS where a write call would return an error.
//!
//! One of the four files of the engine with `unsafe` of their own. Obligations, and who keeps them:
//! - `base` is valid for writes of `len` bytes while the `Window` lives: mapped in `over`, unmapped in `drop` only.
//! - No page lies behind the end of the file: `over` is given bytes that exist, and the file drops its window before
//!   it is shortened (`OsFile::set_len`). Other processes are kept away by the lock of the directory.
//! - Nobody holds a reference into the map: it is written by raw copies, by who has it alone (`&mut self`), and read by
//!   nobody. The kernel may read it at any time, which is what page cache is for.
#![allow(unsafe_code)]

use std::fs::File;
use std::ptr::NonNull;

use rustix::fs::fstatfs;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// ext2 to ext4, XFS, tmpfs: the numbers of `statfs`.
const IN_PLACE: [u32; 3] = [0xef53, 0x5846_5342, 0x0102_1994];
/// A map begins at a multiple of this, which is one of every page size.
const ALIGNMENT: u64 = 64 << 10;

/// Bytes `start .. start + len` of a file.
pub(super) struct Window {
    start: u64,
    len: usize,
    base: NonNull<u8>,
}

// SAFETY: the map belongs to the process, not to a thread; all access is by `&mut self`.
unsafe impl Send for Window {}

impl Window {
    /// Over `len` bytes of `file` from `offset` on, which exist. None: not here, they are written by calls.
    pub fn over(file: &File, offset: u64, len: u64) -> Option<Window> {
        let system = u32::try_from(fstatfs(file).ok()?.f_type).ok()?;
        if !IN_PLACE.contains(&system) {
            return None;
        }
        let start = offset - offset % ALIGNMENT;
        let end = offset.checked_add(len)?;
        let len = usize::try_from(end.checked_sub(start)?)
            .ok()
            .filter(|len| *len > 0)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new map at an address of the kernel's choice touches no memory that anybody has.
        let base = unsafe { mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, file, start) }.ok()?;
        let window = Window {
            start,
            len,
            base: NonNull::new(base.cast())?,
        };
        // SAFETY: of the map just made; the advice changes no byte.
        let ready = unsafe { madvise(base, len, Advice::LinuxPopulateWrite) };
        ready.ok().map(|()| window)
    }

    /// Whether `bytes` lie inside, at `offset`: then they are written.
    pub fn write(&mut self, bytes: &[u8], offset: u64) -> bool {
        let inside = offset
            .checked_sub(self.start)
            .and_then(|at| usize::try_from(at).ok());
        let Some(at) = inside.filter(|at| at.checked_add(bytes.len()).is_some_and(|end| end <= self.len))
        else {
            return false;
        };
        // SAFETY: `at + bytes.len() <= len`, the map is valid for writes there, and no slice of Rust's overlaps it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(at), bytes.len()) };
        true
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the map that `over` made, once; nothing refers to it. A failure leaves it mapped, which harms nobody.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::{OsVfs, Vfs};
    use crate::read::testing::Random;
    use std::path::Path;

    /// Writes, windows and cuts in a random order, and after each the whole file against a model. Returns how many
    /// windows there were.
    fn against_a_model(dir: &Path, seed: u64) -> usize {
        let path = dir.join("window");
        let file = OsVfs.create(&path).unwrap();
        let (mut model, mut random, mut windows) = (Vec::new(), Random(seed), 0);
        for step in 0..200_u8 {
            match random.below(8) {
                0 => {
                    let len = model.len() as u64 + random.below(300_000);
                    file.set_len(len).unwrap();
                    model.resize(len as usize, 0);
                }
                1 => {
                    let len = random.below(model.len() as u64 + 1);
                    file.set_len(len).unwrap();
                    model.truncate(len as usize);
                }
                2 | 3 => {
                    let offset = random.below(model.len() as u64 + 1);
                    let len = random.below(1 + model.len() as u64 - offset);
                    windows += usize::from(file.map(offset, len));
                }
                4 => assert!(
                    !file.map(random.below(1 << 20), model.len() as u64 + 1),
                    "seed {seed}: bytes that do not exist were mapped"
                ),
                _ => {
                    let offset = random.below(model.len() as u64 + 1) as usize;
                    let bytes = vec![step; random.below(5_000) as usize];
                    file.write_all_at(&bytes, offset as u64).unwrap();
                    model.resize(model.len().max(offset + bytes.len()), 0);
                    model[offset..offset + bytes.len()].copy_from_slice(&bytes);
                }
            }
            let mut found = vec![0; model.len()];
            OsVfs.open(&path).unwrap().read_exact_at(&mut found, 0).unwrap();
            assert_eq!(
                file.len().unwrap(),
                model.len() as u64,
                "seed {seed}, step {step}"
            );
            assert!(found == model, "seed {seed}, step {step}");
        }
        file.sync().unwrap();
        OsVfs.remove_file(&path).unwrap();
        windows
    }

    #[test]
    fn what_is_written_through_windows_is_what_a_reader_finds_whatever_cuts_come_between() {
        let dir = tempfile::tempdir().unwrap();
        let shm = tempfile::tempdir_in("/dev/shm");
        for dir in [Some(dir), shm.ok()].iter().flatten() {
            let windows: usize = (1..40).map(|seed| against_a_model(dir.path(), seed)).sum();
            if windows == 0 {
                println!("SKIPPED: nothing can be mapped in {}", dir.path().display());
            }
        }
    }
}
