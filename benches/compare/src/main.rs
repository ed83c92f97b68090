//! Strongroom beside other embedded engines: the same work, durability and memory, in one run; ours sealed.
//!
//! `cargo run --release -- --help` in this directory; README.md says what each line means and what is fair.
//! Rounds are interleaved over the engines, so that what else the machine does falls on all of them. Figures
//! are medians over rounds; a losing row is a row.

mod about;
mod child;
mod figure;
mod growth;
mod latency;
mod lines;
mod measure;
mod plot;
mod process;
mod report;
mod run;
mod store;
mod stores;
mod work;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Measures Strongroom, sealed, beside other embedded engines")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The table: every line on every engine, in rounds.
    Lines(Lines),
    /// A long write-heavy run: percentiles and the longest pause.
    Latency {
        #[command(flatten)]
        common: Common,
        /// Entries of the database.
        #[arg(long, default_value_t = 1_000_000)]
        keys: u64,
        /// Minutes for each engine.
        #[arg(long, default_value_t = 5.0)]
        minutes: f64,
        /// Threads; each puts and gets.
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
    /// How cost grows with something: curves.
    Growth {
        #[command(flatten)]
        common: Common,
        /// With what.
        #[arg(value_enum)]
        with: run::With,
        /// Points on the horizontal axis: keys, tenants, threads, or MiB of log. Each has its default.
        #[arg(long, value_delimiter = ',')]
        points: Vec<u64>,
        /// Entries, where the points are something else.
        #[arg(long, default_value_t = 1_000_000)]
        keys: u64,
        /// Seconds for each measurement.
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
    /// For ourselves: measures one thing in a process of its own.
    #[command(hide = true)]
    Child { job: String },
}

/// What the table is made of.
#[derive(Args)]
struct Lines {
    #[command(flatten)]
    pub common: Common,
    /// Entries of a loaded database.
    #[arg(long, default_value_t = 1_000_000)]
    pub keys: u64,
    /// Seconds for each line, engine and round.
    #[arg(long, default_value_t = 0.5)]
    pub seconds: f64,
    /// Rounds; figures are medians over them.
    #[arg(long, default_value_t = 3)]
    pub rounds: u64,
    /// Only lines whose name contains this.
    #[arg(long)]
    pub only: Option<String>,
    /// Only these groups of lines.
    #[arg(long, value_delimiter = ',')]
    pub groups: Vec<String>,
    /// The activity data (NDJSON, zstd); the repository's small sample if not given.
    #[arg(long)]
    pub activity: Option<PathBuf>,
    /// A build of this program without a cipher, as one more engine: see what-sealing-costs.sh.
    #[arg(long)]
    pub unsealed: Option<PathBuf>,
    /// Says what there is, and measures nothing.
    #[arg(long)]
    pub list: bool,
}

/// What all measurements have in common.
#[derive(Args)]
struct Common {
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Cache of each engine, in MiB.
    #[arg(long, default_value_t = 512)]
    cache_mib: u64,
    /// Write buffer of each engine that has one, in MiB.
    #[arg(long, default_value_t = 64)]
    write_buffer_mib: usize,
    /// Only these engines; ours is always in.
    #[arg(long, value_delimiter = ',')]
    engines: Vec<String>,
    /// Seed of keys, values and choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where databases are made; a temporary directory inside it is removed at the end.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Writes `NAME.csv`, `NAME.txt` and `NAME.html`.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    match Cli::parse().verb {
        Verb::Lines(lines) if lines.list => {
            run::list();
            Ok(())
        }
        Verb::Lines(lines) => run::lines(&lines),
        Verb::Latency {
            common,
            keys,
            minutes,
            threads,
        } => run::latency(&common, keys, minutes, threads),
        Verb::Growth {
            common,
            with,
            points,
            keys,
            seconds,
        } => run::growth(&common, with, points, keys, seconds),
        Verb::Child { job } => child::serve(&job),
    }
}
