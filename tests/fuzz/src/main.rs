//! Fuzzes every parser on stable Rust:
//! `cargo run --release -p strongroom-fuzz -- --seconds 60 --seed 0x1 [--target NAME] [-o json]`.
//!
//! `--case FILE --target NAME` repeats one input; `--write-corpus` makes the samples in the repository anew.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use strongroom_fuzz::campaign::{self, Outcome, Until};
use strongroom_fuzz::{Parser, corpus, target, targets};

#[derive(clap::Parser)]
struct Args {
    /// For all targets together.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Mutations of each target, instead of a time.
    #[arg(long)]
    count: Option<u64>,
    #[arg(long, default_value = "0x1", value_parser = number)]
    seed: u64,
    /// Only this one.
    #[arg(long)]
    target: Option<String>,
    /// Repeats this input.
    #[arg(long, requires = "target")]
    case: Option<PathBuf>,
    /// Writes the samples into the repository and stops.
    #[arg(long)]
    write_corpus: bool,
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|e| e.to_string())
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, String> {
    let chosen: Vec<Parser> = match &args.target {
        Some(name) => vec![target(name).ok_or_else(|| format!("there is no target {name}"))?],
        None => targets(),
    };
    if args.write_corpus {
        for parser in &chosen {
            let count = corpus::write(parser).map_err(|e| format!("{}: {e}", parser.name))?;
            println!("{}: {count} samples", parser.name);
        }
        return Ok(true);
    }
    if let (Some(case), [parser]) = (&args.case, chosen.as_slice()) {
        let input = std::fs::read(case).map_err(|e| format!("{}: {e}", case.display()))?;
        let accepted = strongroom_fuzz::execute(parser, &input);
        println!(
            "{}: {}",
            parser.name,
            if accepted { "accepted" } else { "refused" }
        );
        return Ok(true);
    }
    let until = match args.count {
        Some(count) => Until::Count(count),
        None => Until::Time(Duration::from_secs(args.seconds) / u32::try_from(chosen.len()).unwrap_or(1)),
    };
    let mut outcomes = Vec::new();
    for parser in &chosen {
        let outcome = campaign::run(parser, args.seed, until);
        if let Some(failure) = &outcome.failure {
            let path = campaign::keep_case(parser.name, &failure.input).map_err(|e| e.to_string())?;
            eprintln!("{}: {}", parser.name, failure.message);
            eprintln!(
                "REPRO: cargo run --release -p strongroom-fuzz -- --target {} --case {}",
                parser.name,
                path.display()
            );
        }
        if args.output == "text" {
            println!(
                "{:<22} {:>10} executions {:>10} accepted {:>7.1} s  {}",
                outcome.target,
                outcome.executions,
                outcome.accepted,
                outcome.took.as_secs_f64(),
                if outcome.failure.is_some() { "FAILED" } else { "ok" }
            );
        }
        outcomes.push(outcome);
    }
    if args.output == "json" {
        println!("{}", json(args.seed, &outcomes));
    }
    Ok(outcomes.iter().all(|outcome| outcome.failure.is_none()))
}

fn json(seed: u64, outcomes: &[Outcome]) -> serde_json::Value {
    let one = |outcome: &Outcome| {
        serde_json::json!({
            "target": outcome.target,
            "executions": outcome.executions,
            "accepted": outcome.accepted,
            "kept": outcome.kept,
            "seconds": outcome.took.as_secs_f64(),
            "failed": outcome.failure.as_ref().map(|failure| failure.message.clone()),
        })
    };
    serde_json::json!({
        "seed": format!("{seed:#x}"),
        "targets": outcomes.iter().map(one).collect::<Vec<_>>(),
        "executions": outcomes.iter().map(|outcome| outcome.executions).sum::<u64>(),
        "failures": outcomes.iter().filter(|outcome| outcome.failure.is_some()).count(),
    })
}
