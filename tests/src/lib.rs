//! What the suites share: a model of the engine, a key provider and a driver for simulated machines,
//! a search for leaked plaintext, and the writer that gets killed.
//!
//! ```text
//! oracle   what the engine must hold: a log of changes with their outcomes, and states rebuilt from it
//! world    one engine on a simulated machine, driven together with its oracle
//! keys     a key provider in memory that forks with the simulated disk
//! canary   words that must never reach a disk in clear
//! damage   a small database of which every bit is flipped
//! dice     seeded choices
//! enumerate  every operation of every scenario as the moment of a crash, and as the one that fails
//! faults   a process on the real machine that real faults are done to
//! history  what clients saw, and whether one register for each key could have shown it
//! kill     a child process that writes until it is killed, and what must be left of it
//! planted  bugs planted in the engine, and what finds each
//! layers   the list of simulations the binary `sim` runs; runner: runs them and adds up
//! sim      the engine simulation: one seed, one run
//! pair     the replication simulation: pairs and trios of engines
//! ```
//!
//! The suites are `tests/{crash,model,format,kill,sim}`; every failure prints the seed or the operation
//! that repeats it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "support of tests: a surprise is a failure"
)]

pub mod canary;
pub mod damage;
pub mod dice;
pub mod enumerate;
pub mod faults;
pub mod history;
pub mod keys;
pub mod kill;
pub mod layers;
pub mod oracle;
pub mod pair;
pub mod planted;
pub mod runner;
pub mod sim;
pub mod world;
