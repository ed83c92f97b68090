//! Runs seeds of the pair over gRPC on a simulated network:
//! `cargo run --release -p strongroom-turmoil -- --seeds 300 --from 0x1 [-o json]`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use strongroom_turmoil::plan::Plan;
use strongroom_turmoil::run::{self, Outcome};

#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first one; the others follow it.
    #[arg(long, default_value = "0x1", value_parser = number)]
    from: u64,
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

#[derive(Default)]
struct Totals {
    faults: BTreeMap<&'static str, u64>,
    writes: [u64; 3],
    promotions: u64,
    not_promoted: u64,
    decided_by_hand: u64,
    starts: u64,
    base_copies: u64,
    disconnects: u64,
    simulated: Duration,
    entries: u64,
    promised: u64,
}

impl Totals {
    fn add(&mut self, outcome: &Outcome) {
        for (name, count) in &outcome.faults {
            *self.faults.entry(name).or_default() += count;
        }
        for (sum, count) in self.writes.iter_mut().zip(outcome.writes) {
            *sum += count;
        }
        self.promotions += outcome.promotions;
        self.not_promoted += outcome.not_promoted;
        self.decided_by_hand += outcome.decided_by_hand;
        self.starts += outcome.starts;
        self.base_copies += outcome.base_copies;
        self.disconnects += outcome.disconnects;
        self.simulated += outcome.simulated;
        self.entries += outcome.checked.entries;
        self.promised += outcome.checked.promised;
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let began = Instant::now();
    let (mut totals, mut failures) = (Totals::default(), Vec::new());
    for seed in args.from..args.from.saturating_add(args.seeds) {
        match run::run(seed) {
            Ok(outcome) => totals.add(&outcome),
            Err(what) => {
                eprintln!("seed {seed:#x} failed: {what}\n{:?}", Plan::of(seed));
                eprintln!("REPRO: cargo run --release -p strongroom-turmoil -- --seeds 1 --from {seed:#x}");
                failures.push(format!("{seed:#x}"));
            }
        }
    }
    let report = serde_json::json!({
        "from": format!("{:#x}", args.from),
        "seeds": args.seeds,
        "failed": failures,
        "faults": totals.faults,
        "writes": {
            "replicated": totals.writes[2],
            "local": totals.writes[1],
            "unknown": totals.writes[0],
        },
        "promised_writes_found": totals.promised,
        "entries_compared": totals.entries,
        "promotions": totals.promotions,
        "not_promoted": totals.not_promoted,
        "decided_by_hand": totals.decided_by_hand,
        "node_starts": totals.starts,
        "base_copies": totals.base_copies,
        "disconnects": totals.disconnects,
        "simulated_seconds": totals.simulated.as_secs(),
        "seconds": began.elapsed().as_secs_f64(),
    });
    if args.output == "json" {
        println!("{report}");
    } else {
        println!("{report:#}");
    }
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
