//! Hooks for the simulation: rare states that count their visits, and planted bugs that prove the harness.
//!
//! Both exist under `cfg(test)` and the feature `sim` only; elsewhere [`rare!`] is nothing and
//! [`planted!`] is `false`, so that production code is what stands around them.
//!
//! A rare state is a place that ordinary work seldom passes: a soak reports those never visited. A planted
//! bug is one rule left out on purpose: a run with it must fail, or the harness proves nothing. One bug is
//! planted at a time, per thread, so that two workers of one process do not disturb each other; [`carried`] takes it along
//! where one thread's work goes on in another.
//!
//! The macros are exported, because replication has hooks of its own: a crate with a module `hooks` that holds
//! `Rare` and `Bug` counts and plants its own by them.

/// Counts a visit to a rare state of the crate that it stands in.
#[macro_export]
#[doc(hidden)]
#[allow(
    clippy::crate_in_macro_def,
    reason = "every crate with hooks has its own states"
)]
macro_rules! rare {
    ($state:ident) => {
        #[cfg(any(test, feature = "sim"))]
        crate::hooks::Rare::$state.visit();
    };
}
pub(crate) use crate::rare;

/// Whether this bug is planted on this thread. Constant `false` outside tests and simulations.
#[macro_export]
#[doc(hidden)]
#[allow(
    clippy::crate_in_macro_def,
    reason = "every crate with hooks has its own bugs"
)]
macro_rules! planted {
    ($bug:ident) => {{
        #[cfg(any(test, feature = "sim"))]
        {
            crate::hooks::Bug::$bug.is_planted()
        }
        #[cfg(not(any(test, feature = "sim")))]
        {
            // Constant for the compiler; not for clippy, which would have what stands around it simplified.
            std::convert::identity(false)
        }
    }};
}
pub(crate) use crate::planted;

/// An enum whose variants know their names and descriptions, and the list of all of them.
#[cfg(any(test, feature = "sim"))]
#[macro_export]
#[doc(hidden)]
macro_rules! named_states {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[doc = $doc:literal])+ $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        $vis enum $name { $($(#[doc = $doc])+ $variant,)* }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// Its name, as reports print it.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => stringify!($variant),)* }
            }

            /// What it is.
            pub fn what(self) -> &'static str {
                match self { $($name::$variant => concat!($($doc),+).trim_ascii(),)* }
            }

            /// By its name.
            pub fn named(name: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|s| s.name() == name)
            }
        }
    };
}

/// How the states `Rare` of a crate are counted, and its bugs `Bug` planted.
#[cfg(any(test, feature = "sim"))]
#[macro_export]
#[doc(hidden)]
macro_rules! counted_and_planted {
    () => {
        static VISITS: [std::sync::atomic::AtomicU64; Rare::ALL.len()] =
            [const { std::sync::atomic::AtomicU64::new(0) }; Rare::ALL.len()];

        impl Rare {
            pub(crate) fn visit(self) {
                if let Some(count) = VISITS.get(self as usize) {
                    count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            }

            /// Visits in this process so far.
            pub fn visits(self) -> u64 {
                VISITS
                    .get(self as usize)
                    .map_or(0, |count| count.load(std::sync::atomic::Ordering::Relaxed))
            }
        }

        thread_local! {
            static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
        }

        impl Bug {
            pub(crate) fn is_planted(self) -> bool {
                PLANTED.get() == Some(self)
            }

            /// Runs `work` with this bug planted on this thread; unplants it afterwards, also on a panic.
            pub fn planted_in<T>(self, work: impl FnOnce() -> T) -> T {
                struct Unplant;
                impl Drop for Unplant {
                    fn drop(&mut self) {
                        PLANTED.set(None);
                    }
                }
                let _unplant = Unplant;
                PLANTED.set(Some(self));
                work()
            }
        }
    };
}

/// `work` for another thread, which has what is planted on this one planted as well.
pub(crate) fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    #[cfg(any(test, feature = "sim"))]
    let planted = PLANTED.get();
    move || {
        #[cfg(any(test, feature = "sim"))]
        if let Some(bug) = planted {
            return bug.planted_in(work);
        }
        work()
    }
}

#[cfg(any(test, feature = "sim"))]
mod bugs;
#[cfg(any(test, feature = "sim"))]
pub mod parsers;
#[cfg(any(test, feature = "sim"))]
mod states;

/// What must hold of writers that are slowed down, in a model of the machine and the tenants of a seed.
#[cfg(any(test, feature = "sim"))]
pub fn pacing(seed: u64) -> Result<(), String> {
    crate::pace::model::check(seed)
}

#[cfg(any(test, feature = "sim"))]
pub use bugs::Bug;
#[cfg(any(test, feature = "sim"))]
pub use states::Rare;

#[cfg(any(test, feature = "sim"))]
counted_and_planted!();
