//! A pair over the real gRPC stack (rustls, HTTP/2, tonic) on a simulated network (turmoil).
//!
//! ```text
//! net       turmoil's TCP as the replication crate's network
//! site      where a node lives, and the host that runs it, through crashes
//! writer    a client thread that remembers what it was told
//! plan      which faults come when, by seed
//! run       one seed from start to verdict
//! check     what must be true in the end
//! ```
//!
//! What this layer checks: codecs, streams, back-pressure, limits, reconnects and keepalives while links are
//! cut (also one way), held, slow, while nodes crash, restart and are promoted.
//!
//! What it is not: deterministic. The seed fixes the faults, their times and the latencies; engines, and some
//! work of the nodes, run on threads of the operating system, and those are scheduled as they like. Time on
//! the network is simulated, and goes at most twenty times as fast as the clock on the wall, so that it does
//! not run away from those threads. A seed that fails may need several tries to fail again. For exact
//! repetition there is the simulation of the protocol's core.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "support of tests: a surprise is a failure"
)]

pub mod check;
pub mod net;
pub mod plan;
pub mod run;
pub mod site;
pub mod writer;
