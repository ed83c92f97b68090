//! `drill`: the whole story on this machine, in a temporary directory, on real data.
//!
//! Two processes of this program over TLS on loopback; a SIGKILL in mid-write; promotion; every acknowledged
//! write checked; a tenant deleted; a backup restored and compared; every file searched for plaintext.
//! `story` orders the steps, `cli::pair` runs the processes, `writers` write, `model` knows what must be there,
//! `canaries` search, `report` tells.

mod canaries;
mod data;
mod model;
mod report;
mod story;
mod writers;

use std::path::PathBuf;

use clap::Args;

use crate::cli::exit::{Failure, Outcome};
use crate::cli::output::Format;

/// Flags.
#[derive(Args, Debug)]
pub struct DrillArgs {
    /// Events to write, NDJSON or NDJSON.zst with `tenant`, `user` and `ts`; default: a sample in the program
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Clients that write at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: u16,
    /// Keep the temporary directory, and say where it is
    #[arg(long)]
    keep: bool,
    /// Chooses the moment of the kill; default: at random
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the drill. Fails unless nothing was lost, all is equal and nothing was found in clear.
pub async fn run(args: DrillArgs, format: Format) -> Outcome {
    use strongroom::io::{OsRng, Rng as _};
    let mut random = [0; 16];
    OsRng
        .fill(&mut random)
        .map_err(|e| Failure::failed(format!("no random bytes: {e}")))?;
    let (mark, seed) = random.split_at(8);
    let seed = args
        .seed
        .unwrap_or_else(|| seed.iter().fold(0, |n, b| n << 8 | u64::from(*b)));
    let options = story::Options {
        data: args.data,
        clients: args.clients.into(),
        seed,
        mark: hex::encode(mark),
    };
    let dir = tempfile::Builder::new()
        .prefix("strongroom-drill-")
        .tempdir()
        .map_err(|e| Failure::failed(format!("no temporary directory: {e}")))?;
    let mut report = report::Report::new(format == Format::Table);
    report.note(format!("seed {seed}, in {}", dir.path().display()));
    let outcome = story::run(&options, dir.path(), &mut report).await;
    let ok = match &outcome {
        Ok(figures) => report.verdict(figures),
        Err(_) => false,
    };
    if args.keep || !ok {
        eprintln!("kept for inspection: {} (seed {seed})", dir.keep().display());
    }
    outcome?;
    if ok {
        Ok(())
    } else {
        Err(Failure::failed("the drill failed"))
    }
}
