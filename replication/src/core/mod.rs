//! The protocol's decisions: events in, actions out. No socket, no clock, no thread, no file here; `now` is
//! given, and whoever drives this carries the actions out in order.
//!
//! ```text
//! epoch       who may follow whom            progress    how far a standby is, as its primary counts
//! primary     one stream, primary's side     standby     one stream, standby's side
//! following   what lasts across streams      marks       how old a standby's reads are
//! base_copy   the order of a base copy       message     what is said
//! returning   may this node serve            role        fencing, telling, what follows a stream's end
//! promotion   the order of a promotion's steps
//! ```
//!
//! The async modules (`sender`, `receiver`, `keystream`, `bootstrap`, `promote`, `supervisor`) drive it over
//! TLS; the simulator of the tests crate drives the same code, single-threaded, on simulated machines.

pub mod base_copy;
pub mod epoch;
pub mod following;
pub mod marks;
pub mod message;
pub mod primary;
pub mod progress;
pub mod promotion;
pub mod returning;
pub mod role;
pub mod standby;

#[cfg(feature = "sim")]
pub use crate::dirs::{Dirs, Recorded, remove_tree, settle};
#[cfg(feature = "sim")]
pub use crate::kek::Watched;
