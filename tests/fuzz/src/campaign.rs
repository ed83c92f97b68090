//! Runs a target: what is kept first, then what is made of it.

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use strongroom_tests::dice::Dice;

use crate::{Parser, corpus, execute, mutate};

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this long.
    Time(Duration),
    /// After as many mutations.
    Count(u64),
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which target.
    pub target: &'static str,
    /// Inputs run, the corpus among them.
    pub executions: u64,
    /// Of these, accepted by the parser.
    pub accepted: u64,
    /// Different accepted inputs that mutations added to the samples.
    pub kept: usize,
    /// Time it took.
    pub took: Duration,
    /// The first failure, if there was one.
    pub failure: Option<Failure>,
}

/// An input that breaks a rule.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What the panic said.
    pub message: String,
    /// The input.
    pub input: Vec<u8>,
}

/// Accepted mutations kept to go on from.
const KEPT_MAX: usize = 400;

/// Runs `parser` with the mutations of `seed`. Stops at the first failure.
pub fn run(parser: &Parser, seed: u64, until: Until) -> Outcome {
    let began = Instant::now();
    let mut dice = Dice::new(seed ^ hash(parser.name));
    let mut known: Vec<Vec<u8>> = corpus::samples(parser)
        .into_iter()
        .map(|(_, bytes)| bytes)
        .collect();
    known.extend(corpus::read(parser).into_iter().map(|(_, bytes)| bytes));
    known.push(Vec::new());
    let samples = known.len();
    let mut seen: HashSet<u64> = HashSet::new();
    let mut outcome = Outcome {
        target: parser.name,
        executions: 0,
        accepted: 0,
        kept: 0,
        took: Duration::ZERO,
        failure: None,
    };
    let mut first = known.clone().into_iter();
    loop {
        let over = match until {
            Until::Time(time) => began.elapsed() >= time,
            Until::Count(count) => outcome.executions >= count + samples as u64,
        };
        let input = match first.next() {
            Some(input) => input,
            None if over => break,
            None => mutate::mutated(parser, &known, &mut dice),
        };
        match attempt(parser, &input) {
            Ok(accepted) => {
                outcome.executions += 1;
                outcome.accepted += u64::from(accepted);
                if accepted && seen.insert(hash(&input)) && outcome.executions > samples as u64 {
                    // Later ones take the place of earlier ones; the samples stay.
                    if known.len() < samples + KEPT_MAX {
                        known.push(input);
                    } else {
                        let at = samples + dice.below(KEPT_MAX as u64) as usize;
                        known[at] = input;
                    }
                    outcome.kept += 1;
                }
            }
            Err(message) => {
                outcome.failure = Some(Failure { message, input });
                break;
            }
        }
    }
    outcome.took = began.elapsed();
    outcome
}

/// Runs one input; what the panic said if it panicked.
pub fn attempt(parser: &Parser, input: &[u8]) -> Result<bool, String> {
    catch_unwind(AssertUnwindSafe(|| execute(parser, input))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a panic without words".to_owned())
    })
}

/// Writes a failing input to `target/fuzz-cases/` and returns where.
pub fn keep_case(target: &str, input: &[u8]) -> std::io::Result<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/fuzz-cases");
    fs::create_dir_all(&dir)?;
    let path = dir.canonicalize()?.join(format!("{target}-{:016x}", hash(input)));
    fs::write(&path, input)?;
    Ok(path)
}

fn hash(what: impl Hash) -> u64 {
    // With fixed keys: the same in every process.
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
