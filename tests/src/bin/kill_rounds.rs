//! Kills a writing process many times and checks what is left:
//! `cargo run --release -p strongroom-tests --bin kill_rounds -- --rounds 200 --seed 0x1`.
//!
//! The same program is the process that is killed: `kill_rounds writer <dir> ...`.

use std::process::ExitCode;
use std::time::Instant;

use strongroom_tests::kill;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((first, rest)) if first == kill::WRITER => kill::write_for_ever(rest).map_err(|e| e.to_string()),
        _ => run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), String> {
    let rounds = option(args, "--rounds")?.unwrap_or(200);
    let seed = match option(args, "--seed")? {
        Some(seed) => seed,
        None => u64::from(std::process::id()),
    };
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    println!("REPRO: kill_rounds --rounds {rounds} --seed {seed:#x}");
    let begin = Instant::now();
    let summary = kill::rounds(&program, dir.path(), rounds, seed)?;
    println!("kills                  {:>10}", summary.rounds);
    println!("  before a first batch {:>10}", summary.early);
    println!("batches acknowledged   {:>10}", summary.acknowledged);
    println!("  lost                 {:>10}", 0);
    println!("  committed unreported {:>10}", summary.unprinted);
    println!("rounds at Buffered     {:>10}", summary.buffered);
    println!("tenants deleted        {:>10}", summary.deleted);
    println!("openings with replay   {:>10}", summary.replayed);
    println!("  that cut a tail      {:>10}", summary.cut);
    println!("slowest opening        {:>10.1?}", summary.slowest_open);
    println!("seconds                {:>10.1}", begin.elapsed().as_secs_f64());
    Ok(())
}

fn option(args: &[String], name: &str) -> Result<Option<u64>, String> {
    let Some(at) = args.iter().position(|a| a == name) else {
        return Ok(None);
    };
    let text = args.get(at + 1).ok_or(format!("{name} needs a number"))?;
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.map(Some).map_err(|e| format!("{name} {text}: {e}"))
}
