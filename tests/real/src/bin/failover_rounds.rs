//! Fails a pair of real servers over, many times, and judges what its clients saw:
//! `cargo run --release -p strongroom-real --bin failover_rounds -- --rounds 100 --seed 0x1 -o json`.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use strongroom_real::{failover, pair};

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Kills and stops the primary of a pair of real servers under load, promotes, and judges the clients' history
#[derive(Parser)]
struct Args {
    /// Failovers
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// Repeats the choices of a run, not its timing
    #[arg(long, default_value = "0x1", value_parser = seed)]
    seed: u64,
    /// Who reads the output
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

fn seed(text: &str) -> Result<u64, String> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    }
    .map_err(|e| e.to_string())
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    eprintln!(
        "REPRO: failover_rounds --rounds {} --seed {:#x}",
        args.rounds, args.seed
    );
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), String> {
    let temporary = tempfile::Builder::new()
        .prefix("strongroom-failover-")
        .tempdir()
        .map_err(|e| e.to_string())?;
    let binary = pair::binary()?;
    let summary = failover::rounds(&binary, &temporary.path().join("pair"), args.rounds, args.seed).await;
    let summary = match summary {
        Ok(summary) => summary,
        Err(e) => return Err(format!("{e}\nkept: {}", temporary.keep().display())),
    };
    let judged = summary.judge();
    let figures = summary.to_json(&judged);
    match args.output {
        Format::Json => println!("{figures}"),
        Format::Text => {
            for (name, value) in figures.as_object().into_iter().flatten() {
                println!("{name:28} {value}");
            }
        }
    }
    let wrong: Vec<String> = judged
        .application
        .violations
        .iter()
        .map(ToString::to_string)
        .collect();
    match wrong.first() {
        None => Ok(()),
        Some(first) => Err(format!("{} keys are wrong; the first:\n{first}", wrong.len())),
    }
}
