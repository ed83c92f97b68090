//! Fuzzing of every parser, on stable Rust.
//!
//! ```text
//! targets   all parsers of all crates, by name
//! mutate    changes to valid inputs: bits, lengths, pieces moved, and checksums that fit again
//! campaign  corpus first, then mutations, until a time or a count is reached
//! corpus    tests/fuzz/corpus/<target>/: samples by the encoders, and what was once found
//! ```
//!
//! The package `fuzz/` (outside the workspace) has a libFuzzer entry for each target, which calls [`execute`].
//!
//! Memory is measured for the process, so targets run on one thread at a time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "support of tests: a surprise is a failure"
)]

pub mod campaign;
pub mod corpus;
pub mod mutate;

use peak_alloc::PeakAlloc;
pub use strongroom::hooks::parsers::Parser;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Longest input that is tried.
pub const INPUT_BYTES_MAX: usize = 64 << 10;

/// All parsers, by name.
pub fn targets() -> Vec<Parser> {
    let mut all = strongroom::hooks::parsers::all();
    all.extend(strongroom_replication::parsers::all());
    all.extend(strongroom_server::parsers::all());
    all.sort_by_key(|parser| parser.name);
    all
}

/// The parser of this name.
pub fn target(name: &str) -> Option<Parser> {
    targets().into_iter().find(|parser| parser.name == name)
}

/// Runs one input. Panics if the parser breaks a rule or takes too much memory; true if it was accepted.
pub fn execute(parser: &Parser, input: &[u8]) -> bool {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let accepted = (parser.check)(input);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let allowed = parser.memory + parser.memory_per_byte * input.len();
    assert!(
        taken <= allowed,
        "{} took {taken} bytes of memory for an input of {}, {allowed} are allowed",
        parser.name,
        input.len()
    );
    accepted
}
