//! Has the processor fetch memory that is needed soon, while it does something else.
//!
//! A line of memory that nobody has near takes as long as two hundred instructions. A load would fetch it as well, but what comes
//! after a load cannot end before it.
//!
//! One of the four files of the engine with `unsafe` of their own. Obligations: none that could be broken. The
//! instruction changes nothing that a program can see and never faults, whatever the address, also one at which there is nothing
//! any more.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};

const LINE_BYTES: usize = 64;

/// Where the processor is none that can be asked, nothing happens.
#[inline(always)]
pub(crate) fn prefetch<T>(what: &T) {
    fetch(std::ptr::from_ref(what).addr());
}

#[inline(always)]
fn fetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: see above.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Where memory was that somebody will want to read, as a number: to have it fetched before it is known for sure, while
/// what tells so is fetched itself. It keeps nothing, and nothing is read by it.
#[derive(Default)]
pub(crate) struct Whereabouts(AtomicUsize);

impl Whereabouts {
    /// Most lines that are fetched.
    const LINES_MAX: usize = 8;

    pub(crate) fn set(&self, what: &[u8]) {
        let start = what.as_ptr().addr();
        let first = start & !(LINE_BYTES - 1);
        let lines = (start - first + what.len()).div_ceil(LINE_BYTES);
        // Below a line's size there is room for their number.
        self.0
            .store(first | lines.min(Self::LINES_MAX), Ordering::Relaxed);
    }

    #[inline(always)]
    pub(crate) fn prefetch(&self) {
        let found = self.0.load(Ordering::Relaxed);
        let (first, lines) = (found & !(LINE_BYTES - 1), found & (LINE_BYTES - 1));
        for line in 0..lines {
            fetch(first.wrapping_add(line * LINE_BYTES));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whereabouts_are_the_lines_in_which_something_lies_eight_at_most() {
        let memory = vec![0u8; 4096];
        let skip = memory.as_ptr().align_offset(LINE_BYTES);
        let aligned = &memory[skip..];
        let lines = |what: &[u8]| {
            let place = Whereabouts::default();
            place.set(what);
            place.prefetch();
            let found = place.0.into_inner();
            ((found & !63) - aligned.as_ptr().addr(), found & 63)
        };
        assert_eq!(lines(&aligned[..1]), (0, 1));
        assert_eq!(lines(&aligned[..64]), (0, 1));
        assert_eq!(lines(&aligned[..65]), (0, 2));
        assert_eq!(lines(&aligned[63..65]), (0, 2));
        assert_eq!(lines(&aligned[200..260]), (192, 2));
        assert_eq!(lines(&aligned[64..3000]), (64, 8));
        assert_eq!(lines(&aligned[128..128]), (128, 0));
    }

    #[test]
    fn what_is_gone_or_was_never_there_can_be_asked_for() {
        Whereabouts::default().prefetch();
        let place = Whereabouts::default();
        place.set(&vec![1; 1 << 20]);
        place.prefetch();
        let nowhere = Whereabouts(AtomicUsize::new(usize::MAX & !63 | 8));
        nowhere.prefetch();
    }
}
