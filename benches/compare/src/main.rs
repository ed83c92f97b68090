//! Strongroom beside other embedded engines: the same work, durability and memory, in one run; ours sealed.
//!
//! `cargo run --release -- --help` in this directory. Rounds are interleaved over the engines, so that what
//! else the machine does falls on all of them. Figures are medians over rounds; a losing row is a row.

mod lines;
mod measure;
mod report;
mod store;
mod stores;
mod work;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;

use lines::{LINES, Line, Plan, Start};
use measure::Measured;
use report::{Cell, Row};
use store::{Budget, Engine};
use stores::ENGINES;

/// Entries written at a time when loading.
const LOAD_BATCH: usize = 1000;

#[derive(Parser)]
#[command(about = "Measures Strongroom, sealed, beside other embedded engines")]
struct Args {
    /// Entries of a loaded database.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Seconds for each line, engine and round.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Rounds; figures are medians over them.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// Cache of each engine, in MiB.
    #[arg(long, default_value_t = 512)]
    cache_mib: u64,
    /// Only lines whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Only these engines, and ours.
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
    let args = Args::parse();
    let engines: Vec<Engine> = ENGINES
        .iter()
        .filter(|e| {
            args.engines.is_empty() || e.name == "strongroom" || args.engines.iter().any(|n| n == e.name)
        })
        .copied()
        .collect();
    if let Some(unknown) = args
        .engines
        .iter()
        .find(|n| ENGINES.iter().all(|e| e.name != **n))
    {
        bail!("engine {unknown} is not compiled in");
    }
    let chosen: Vec<&Line> = LINES
        .iter()
        .filter(|l| {
            args.only
                .as_ref()
                .is_none_or(|part| l.name.contains(part.as_str()))
        })
        .collect();
    let root = tempfile::Builder::new()
        .prefix("compare-")
        .tempdir_in(&args.dir)?;
    let budget = Budget {
        cache_bytes: args.cache_mib << 20,
        write_buffer_bytes: 64 << 20,
    };
    let mut rows: Vec<Row> = chosen
        .iter()
        .map(|line| Row {
            line: line.name,
            cells: engines
                .iter()
                .map(|e| Cell {
                    engine: e.name,
                    rounds: Vec::new(),
                })
                .collect(),
        })
        .collect();
    for round in 0..args.rounds {
        let plan = Plan {
            keys: args.keys,
            value_bytes: args.value_bytes,
            time: Duration::from_secs_f64(args.seconds),
            seed: args.seed.wrapping_add(round),
        };
        for (e, engine) in engines.iter().enumerate() {
            let dir = root.path().join(engine.name);
            let figures = all_lines(engine, &budget, &plan, &chosen, &dir)
                .with_context(|| format!("{} in round {round}", engine.name))?;
            for (row, measured) in rows.iter_mut().zip(figures) {
                if let Some(cell) = row.cells.get_mut(e) {
                    cell.rounds.push(measured);
                }
            }
            eprintln!("round {round} {} done", engine.name);
        }
    }
    let about = format!(
        "{} keys of 16 bytes, values of {} bytes; {} rounds of {} s a line; cache {} MiB; seed {}",
        args.keys, args.value_bytes, args.rounds, args.seconds, args.cache_mib, args.seed
    );
    let text = format!("{about}\n{}", report::text(&rows));
    print!("{text}");
    if let Some(out) = args.out {
        std::fs::write(out.with_extension("txt"), &text)?;
        std::fs::write(out.with_extension("csv"), report::csv(&rows))?;
        std::fs::write(out.with_extension("html"), report::html(&rows, &about))?;
    }
    Ok(())
}

/// One round of one engine: the lines on an empty database each on its own, the others on one that is
/// loaded once; in the order of the list, which puts what changes it last.
fn all_lines(
    engine: &Engine,
    budget: &Budget,
    plan: &Plan,
    chosen: &[&Line],
    dir: &Path,
) -> Result<Vec<Measured>> {
    let mut loaded = None;
    let mut figures = Vec::new();
    for line in chosen {
        let outcome = match line.start {
            Start::Empty => {
                let dir = dir.join("empty");
                let outcome = (line.run)(&*(engine.open)(&dir, budget)?, plan);
                std::fs::remove_dir_all(&dir)?;
                outcome
            }
            Start::Loaded => {
                if loaded.is_none() {
                    let store = (engine.open)(&dir.join("loaded"), budget)?;
                    for batch in work::shuffled(plan.keys, plan.value_bytes, plan.seed, LOAD_BATCH) {
                        store.put_many(&batch)?;
                    }
                    store.settle()?;
                    loaded = Some(store);
                }
                let Some(store) = &loaded else { bail!("not loaded") };
                (line.run)(&**store, plan)
            }
        };
        figures.push(outcome.with_context(|| line.name)?);
    }
    drop(loaded);
    std::fs::remove_dir_all(dir)?;
    Ok(figures)
}
