//! Real server processes: the binary as it is shipped, over mutual TLS on loopback, killed and stopped.
//!
//! ```text
//! pair       a primary and a standby as child processes, and what can be done to them
//! clients    an application that writes and reads through strongroom-client, and notes what it saw
//! failover   rounds of kill or stop, promote, return; and the verdict on the history
//! ```
//!
//! A package of its own, so that the simulator's build needs no gRPC, and so that the binary under test is built
//! apart from the features that tests switch on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "support of tests: a surprise is a failure"
)]

pub mod clients;
pub mod failover;
pub mod pair;
