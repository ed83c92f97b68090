//! Has the processor fetch memory that is needed soon, while it does something else.
//!
//! A line of memory that nobody has near takes as long as two hundred instructions. A load would fetch it as well, but what comes
//! after a load cannot end before it.
//!
//! One of the four files of the engine with `unsafe` of their own. Obligations: none that could be broken. The
//! instruction changes nothing that a program can see and never faults, whatever the address; and here it is that of a
//! reference.
#![allow(unsafe_code)]

/// Where the processor is none that can be asked, nothing happens.
#[inline(always)]
pub(crate) fn prefetch<T>(what: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: see above.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(what).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = what;
}
