//! Two real nodes: engines in temporary directories, mutual TLS on loopback. Every wait is for an event, with
//! a deadline; nothing sleeps and hopes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod failover;
mod harness;
mod protocol;
mod refusals;
mod seeding;
mod soak;
mod streaming;

/// The committed stubs, for peers that do not behave.
#[rustfmt::skip]
#[allow(dead_code, clippy::all)]
#[path = "../../src/generated/strongroom.replication.v1.rs"]
mod v1;
