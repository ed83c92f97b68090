//! The simulations, by one command.
//!
//! ```text
//! sim --seed 0x7 --profile engine     one run, exactly as it was; prints its trace hash
//! sim seeds --profile engine --from 0x0 --count 1000 --jobs 2
//! sim ci --commit HASH                the fixed slice of each layer and fresh seeds of this commit
//! sim soak --minutes 60 -o json       all layers until time is over, totals
//! sim replay FILE                     a case file, also after the code has changed
//! sim list                            layers, profiles and further commands
//! ```

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use strongroom_tests::layers::{self, COMMANDS, LAYERS};
use strongroom_tests::runner::{self, Plan, Run, Seeds, Totals};

#[derive(Parser)]
#[command(
    about = "Runs Strongroom's simulations",
    args_conflicts_with_subcommands = true
)]
struct Args {
    /// Seed of one run.
    #[arg(long, value_parser = number)]
    seed: Option<u64>,
    /// Which simulation (`sim list`).
    #[arg(long, default_value = "engine")]
    profile: String,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds of one profile.
    Seeds {
        #[arg(long)]
        profile: String,
        #[arg(long, value_parser = number, default_value = "0")]
        from: u64,
        #[arg(long)]
        count: u64,
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Runs the fixed slice of each layer and fresh seeds that follow from the commit.
    Ci {
        /// Defaults to what git says.
        #[arg(long)]
        commit: Option<String>,
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Where the totals go as JSON.
        #[arg(long, default_value = "target/sim-ci.json")]
        json: PathBuf,
    },
    /// Runs all layers until time is over.
    Soak {
        #[arg(long)]
        minutes: f64,
        /// First seed; by default from the time of day.
        #[arg(long, value_parser = number)]
        seed: Option<u64>,
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
        /// Also writes the totals as JSON to this file.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Runs a case file.
    Replay { file: PathBuf },
    /// Prints layers, profiles and further commands.
    List,
    #[command(external_subcommand)]
    Other(Vec<String>),
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), String> {
    match args.command {
        None => one(
            args.seed.ok_or("give --seed, or a command (see --help)")?,
            &args.profile,
        ),
        Some(Command::Seeds {
            profile,
            from,
            count,
            jobs,
        }) => {
            let (layer, profile) = find(&profile)?;
            let seeds = (0..count).map(|n| from.wrapping_add(n)).collect();
            let plan = Plan::Lists(vec![Seeds {
                layer,
                profile,
                seeds,
            }]);
            finish(plan, jobs, Output::Table, None, &runner::commit())
        }
        Some(Command::Ci { commit, jobs, json }) => {
            let commit = commit.unwrap_or_else(runner::commit);
            finish(Plan::ci(&commit), jobs, Output::Table, Some(json), &commit)
        }
        Some(Command::Soak {
            minutes,
            seed,
            jobs,
            output,
            json,
        }) => {
            let first = seed.unwrap_or_else(time_of_day);
            eprintln!("soak of {minutes} minutes from seed {first:#x}");
            let time = Duration::from_secs_f64(minutes * 60.0);
            finish(Plan::Soak { time, first }, jobs, output, json, &runner::commit())
        }
        Some(Command::Replay { file }) => replay(&file),
        Some(Command::List) => {
            for layer in LAYERS {
                for profile in layer.profiles {
                    println!("{:<16} --profile {}", layer.name, profile.name);
                }
            }
            COMMANDS
                .iter()
                .for_each(|(name, what, _)| println!("{name:<16} {what}"));
            Ok(())
        }
        Some(Command::Other(words)) => {
            let (name, rest) = words.split_first().ok_or("which command?")?;
            let known = COMMANDS.iter().find(|(known, ..)| known == name);
            let (.., main) = known.ok_or(format!("there is no command {name} (see `sim list`)"))?;
            main(rest)
        }
    }
}

fn find(profile: &str) -> Result<(&'static layers::Layer, &'static layers::Profile), String> {
    layers::find(profile).ok_or(format!("there is no profile {profile} (see `sim list`)"))
}

fn one(seed: u64, profile: &str) -> Result<(), String> {
    let (layer, profile) = find(profile)?;
    let run = Run { layer, profile, seed };
    let commit = runner::commit();
    println!("{}", run.repro(&commit));
    let outcome = run.once();
    for (name, count) in &outcome.counters.0 {
        println!("{name:<44}{count:>10}");
    }
    println!("trace {:#018x}", outcome.trace);
    outcome
        .failure
        .map_or(Ok(()), |failure| Err(format!("\n{failure}")))
}

fn replay(file: &std::path::Path) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    // The first line of a case file: case LAYER PROFILE SEED.
    let first = text.lines().next().unwrap_or_default();
    let name = first
        .strip_prefix("case ")
        .and_then(|rest| rest.split(' ').next());
    let layer = LAYERS.iter().find(|layer| Some(layer.name) == name);
    let run = layer.and_then(|layer| layer.replay);
    let run = run.ok_or(format!("{} is not a case file", file.display()))?;
    let outcome = runner::caught(|| run(&text));
    println!("trace {:#018x}", outcome.trace);
    outcome
        .failure
        .map_or(Ok(()), |failure| Err(format!("\n{failure}")))
}

fn finish(
    plan: Plan,
    jobs: usize,
    output: Output,
    json: Option<PathBuf>,
    commit: &str,
) -> Result<(), String> {
    let begin = Instant::now();
    let totals = runner::run(plan, jobs, commit, print_failures);
    let elapsed = begin.elapsed();
    let command: Vec<String> = std::env::args().skip(1).collect();
    let value = runner::json(&totals, elapsed, &format!("sim {}", command.join(" ")), commit);
    let text = serde_json::to_string_pretty(&value).map_err(|e| e.to_string())?;
    match output {
        Output::Table => println!("{}", runner::table(&totals, elapsed)),
        Output::Json => println!("{text}"),
    }
    if let Some(path) = json {
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = written.and_then(|()| std::fs::write(&path, format!("{text}\n")));
        written.map_err(|e| format!("{}: {e}", path.display()))?;
    }
    match totals.failed {
        0 => Ok(()),
        n => Err(format!("{n} runs failed")),
    }
}

/// Failures are printed as they come: a long run need not end to tell.
fn print_failures(totals: &Totals) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static PRINTED: AtomicUsize = AtomicUsize::new(0);
    for failure in &totals.failures[PRINTED.load(Ordering::Relaxed).min(totals.failures.len())..] {
        eprintln!("\n{failure}");
    }
    PRINTED.store(totals.failures.len(), Ordering::Relaxed);
}

fn time_of_day() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

fn number(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(&hex.replace('_', ""), 16),
        None => text.parse(),
    };
    number.map_err(|e| format!("{text}: {e}"))
}
