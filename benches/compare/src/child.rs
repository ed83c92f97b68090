//! Measuring processes: this same binary, told by one argument what to do, answering with a line for each item.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::figure::{Figure, Item};
use crate::lines::{Group, Plan, Round};
use crate::store::{Budget, Engine};
use crate::stores::ENGINES;
use crate::{growth, latency};

/// What a measuring process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    Group { name: String, only: Option<String> },
    Latency { threads: usize },
    Growth(growth::Point),
}

/// With what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub engine: String,
    pub budget: Budget,
    pub plan: Plan,
    /// The engine's own directory.
    pub dir: PathBuf,
    /// Whether ours must be sealed in it, or must not: each kind of build refuses the other's job.
    pub sealed: bool,
    pub task: Task,
}

/// Runs a job in a process of its own. If that says it is ready, it is killed, and that is no error.
pub fn run(job: &Job) -> Result<Vec<Item>> {
    run_by(&std::env::current_exe()?, job)
}

/// The same by another build of this program.
pub fn run_by(program: &Path, job: &Job) -> Result<Vec<Item>> {
    let mut child = Command::new(program)
        .arg("child")
        .arg(serde_json::to_string(job)?)
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a measuring process")?;
    let answers = child.stdout.take().context("a child without output")?;
    let mut items = Vec::new();
    let mut ready = false;
    for line in BufReader::new(answers).lines() {
        match serde_json::from_str(&line?).context("an answer of a measuring process")? {
            Item::Ready => {
                ready = true;
                child.kill()?;
            }
            item => items.push(item),
        }
    }
    let status = child.wait()?;
    ensure!(
        ready || status.success(),
        "{} failed at {:?}: {status}",
        job.engine,
        job.task
    );
    Ok(items)
}

/// The figures among what a job gives.
pub fn figures(job: &Job) -> Result<Vec<Figure>> {
    figures_by(&std::env::current_exe()?, job)
}

/// The same by another build of this program.
pub fn figures_by(program: &Path, job: &Job) -> Result<Vec<Figure>> {
    let items = run_by(program, job)?.into_iter().filter_map(|item| match item {
        Item::Figure(figure) => Some(figure),
        Item::Curve { .. } | Item::Ready => None,
    });
    Ok(items.collect())
}

/// In the measuring process: does the job and answers.
pub fn serve(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job).context("the job")?;
    ensure!(
        job.sealed != cfg!(strongroom_null_cipher),
        "this build is not the kind that the job is for: only --unsealed takes one without a cipher"
    );
    let engine = find(&job.engine)?;
    let items = match &job.task {
        Task::Group { name, only } => {
            let round = Round::new(engine, job.budget, &job.plan, &job.dir, only.as_deref());
            let figures = round.run(Group::find(name)?)?;
            figures.into_iter().map(Item::Figure).collect()
        }
        Task::Latency { threads } => latency::measure(engine, &job, *threads)?,
        Task::Growth(point) => growth::measure(engine, &job, point, &answer)?,
    };
    answer(&items)
}

/// Writes answers at once.
fn answer(items: &[Item]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for item in items {
        writeln!(out, "{}", serde_json::to_string(item)?)?;
    }
    Ok(out.flush()?)
}

pub fn find(name: &str) -> Result<&'static Engine> {
    match ENGINES.iter().find(|engine| engine.name == name) {
        Some(engine) => Ok(engine),
        None => bail!("engine {name} is not compiled in"),
    }
}
