//! The measuring side's other end: starts the processes in turn, gathers what they say, and reports.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::child::{self, Job, Task};
use crate::figure::{Figure, Item, Unit};
use crate::growth::Point;
use crate::lines::{GROUPS, Group, Plan};
use crate::plot::{Axis, Curve, svg};
use crate::report::{self, FOOT, Table};
use crate::store::{Budget, Drops, Engine};
use crate::stores::ENGINES;
use crate::{Common, Lines, about};

/// What grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum With {
    /// Entries: 1, 3, 10 and 30 million. Also the time of a checkpoint, and space.
    Keys,
    /// Tenants: 1, 1,000 and 100,000, the same entries in all. Ours only.
    Tenants,
    /// Threads: 1, 2, 4, 8 and 16.
    Threads,
    /// MiB of log that a killed process leaves: 16, 64, 256, 512. The write buffer is a GiB.
    Recovery,
}

impl Common {
    fn budget(&self) -> Budget {
        Budget {
            cache_bytes: self.cache_mib << 20,
            write_buffer_bytes: self.write_buffer_mib << 20,
        }
    }

    /// Ours first.
    fn engines(&self) -> Result<Vec<&'static Engine>> {
        for name in &self.engines {
            child::find(name)?;
        }
        let chosen = |engine: &&Engine| {
            self.engines.is_empty()
                || engine.name == "strongroom"
                || self.engines.iter().any(|name| name == engine.name)
        };
        Ok(ENGINES.iter().filter(chosen).collect())
    }

    fn plan(&self, keys: u64, seconds: f64) -> Result<Plan> {
        ensure!(keys >= 1000, "at least 1000 keys");
        Ok(Plan {
            keys,
            value_bytes: self.value_bytes,
            time: Duration::try_from_secs_f64(seconds)?,
            seed: self.seed,
            activity: None,
        })
    }

    fn root(&self) -> Result<tempfile::TempDir> {
        Ok(tempfile::Builder::new()
            .prefix("compare-")
            .tempdir_in(&self.dir)?)
    }

    fn sizes(&self, keys: u64) -> String {
        format!(
            "{keys} keys of 16 bytes, values of {} bytes; cache {} MiB, write buffer {} MiB; seed {}",
            self.value_bytes, self.cache_mib, self.write_buffer_mib, self.seed
        )
    }

    fn finish(&self, title: &str, head: &str, text: &str, csv: &str, body: &str) -> Result<()> {
        let text = format!("{head}\n{text}\n{FOOT}\n");
        print!("{text}");
        match &self.out {
            Some(name) => report::write(name, &text, csv, &report::page(title, head, body)),
            None => Ok(()),
        }
    }
}

/// Groups and their lines.
pub fn list() {
    for group in GROUPS {
        println!("{}", group.name);
        for line in group.lines {
            println!("    {line}");
        }
    }
}

/// Who takes part in the lines.
struct Contestant {
    name: &'static str,
    engine: &'static Engine,
    program: PathBuf,
    sealed: bool,
}

impl Common {
    /// The engines; behind ours, if a build of it without a cipher is given, that.
    fn contestants(&self, unsealed: Option<&Path>) -> Result<Vec<Contestant>> {
        let own = std::env::current_exe()?;
        let mut all: Vec<Contestant> = self
            .engines()?
            .into_iter()
            .map(|engine| Contestant {
                name: engine.name,
                engine,
                program: own.clone(),
                sealed: true,
            })
            .collect();
        if let Some(program) = unsealed {
            let one = Contestant {
                name: "unsealed",
                engine: child::find("strongroom")?,
                program: std::fs::canonicalize(program)?,
                sealed: false,
            };
            all.insert(1, one);
        }
        Ok(all)
    }
}

pub fn lines(lines: &Lines) -> Result<()> {
    let Lines {
        common,
        keys,
        seconds,
        rounds,
        only,
        groups,
        activity,
        unsealed,
        list: _,
    } = lines;
    let (keys, seconds, rounds) = (*keys, *seconds, *rounds);
    let engines = common.contestants(unsealed.as_deref())?;
    for name in groups {
        Group::find(name)?;
    }
    let chosen: Vec<&Group> = GROUPS
        .iter()
        .filter(|group| groups.is_empty() || groups.iter().any(|name| name == group.name))
        .filter(|group| {
            let wanted = |line: &&str| only.as_ref().is_none_or(|part| line.contains(part.as_str()));
            group.lines.iter().any(wanted)
        })
        .collect();
    ensure!(!chosen.is_empty(), "no line has that in its name; see --list");
    let activity = activity.as_ref().map(std::fs::canonicalize).transpose()?;
    let head = about::head(&format!(
        "{}; medians of {rounds} rounds of {seconds} s a line, engines in turn",
        common.sizes(keys)
    ));
    let root = common.root()?;
    let mut table = Table::new(engines.iter().map(|engine| engine.name).collect());
    for round in 0..rounds {
        let plan = Plan {
            seed: common.seed.wrapping_add(round),
            activity: activity.clone(),
            ..common.plan(keys, seconds)?
        };
        for group in &chosen {
            // Another engine is the first in each round.
            for turn in 0..engines.len() {
                let Some(engine) = engines.get((turn + round as usize) % engines.len()) else {
                    continue;
                };
                let job = Job {
                    engine: engine.engine.name.to_owned(),
                    budget: common.budget(),
                    plan: plan.clone(),
                    dir: root.path().join(engine.name),
                    sealed: engine.sealed,
                    task: Task::Group {
                        name: group.name.to_owned(),
                        only: only.clone(),
                    },
                };
                for figure in child::figures_by(&engine.program, &job)? {
                    table.add(engine.name, figure);
                }
            }
            eprintln!("round {} of {rounds}: {} done", round + 1, group.name);
        }
        for engine in &engines {
            let dir = root.path().join(engine.name);
            if dir.exists() {
                std::fs::remove_dir_all(&dir)?;
            }
        }
    }
    let title = "Strongroom beside others";
    common.finish(title, &head, &table.text(), &table.csv(), &table.html())
}

pub fn latency(common: &Common, keys: u64, minutes: f64, threads: usize) -> Result<()> {
    let engines = common.engines()?;
    let head = about::head(&format!(
        "{}; {threads} threads for {minutes} minutes: 80 % buffered puts, 20 % gets, zipfian 0.99",
        common.sizes(keys)
    ));
    let root = common.root()?;
    let mut table = Table::new(engines.iter().map(|engine| engine.name).collect());
    let mut curves = Vec::new();
    for engine in &engines {
        let job = Job {
            engine: engine.name.to_owned(),
            budget: common.budget(),
            plan: common.plan(keys, minutes * 60.0)?,
            dir: root.path().join(engine.name),
            sealed: true,
            task: Task::Latency { threads },
        };
        for item in child::run(&job)? {
            match item {
                Item::Figure(figure) => table.add(engine.name, figure),
                Item::Curve { points, .. } => curves.push(Curve {
                    name: engine.name.to_owned(),
                    points,
                }),
                Item::Ready => {}
            }
        }
        std::fs::remove_dir_all(&job.dir)?;
        eprintln!("{} done", engine.name);
    }
    let text = format!("{}{}", table.text(), table.latencies());
    let plot = svg("operations in each second", "second", Axis::Even, &curves);
    let body = format!("{}{plot}", table.html());
    common.finish(
        "A write-heavy run, beside others",
        &head,
        &text,
        &table.csv(),
        &body,
    )
}

/// One value of one curve.
struct Dot {
    engine: &'static str,
    line: String,
    unit: Unit,
    x: u64,
    value: f64,
}

pub fn growth(common: &Common, with: With, points: Vec<u64>, keys: u64, seconds: f64) -> Result<()> {
    let (across, default): (&str, &[u64]) = match with {
        With::Keys => ("keys", &[1_000_000, 3_000_000, 10_000_000, 30_000_000]),
        With::Tenants => ("tenants", &[1, 1_000, 100_000]),
        With::Threads => ("threads", &[1, 2, 4, 8, 16]),
        With::Recovery => ("MiB of keys and values in the log", &[16, 64, 256, 512]),
    };
    let points = if points.is_empty() {
        default.to_vec()
    } else {
        points
    };
    let engines: Vec<&Engine> = common
        .engines()?
        .into_iter()
        .filter(|engine| with != With::Tenants || engine.drops == Drops::Tenant)
        .collect();
    let head = about::head(&format!("{}; {seconds} s a measurement", common.sizes(keys)));
    let root = common.root()?;
    let mut dots: Vec<Dot> = Vec::new();
    for engine in &engines {
        let job = |keys: u64, point: Point| -> Result<Job> {
            let mut budget = common.budget();
            if with == With::Recovery {
                budget.write_buffer_bytes = 1 << 30;
            }
            Ok(Job {
                engine: engine.name.to_owned(),
                budget,
                plan: common.plan(keys, seconds)?,
                dir: root.path().join(engine.name),
                sealed: true,
                task: Task::Growth(point),
            })
        };
        let mut add = |x: u64, figures: Vec<Figure>| {
            for figure in figures {
                // Points measured in one process say theirs themselves.
                let (line, x) = match figure.line.split_once(" @") {
                    Some((line, own)) => (line.to_owned(), own.parse().unwrap_or(x)),
                    None => (figure.line, x),
                };
                dots.push(Dot {
                    engine: engine.name,
                    line,
                    unit: figure.unit,
                    x,
                    value: figure.value,
                });
            }
        };
        let clear = || std::fs::remove_dir_all(root.path().join(engine.name));
        if with == With::Threads {
            let counts = points.iter().map(|threads| *threads as usize).collect();
            add(0, child::figures(&job(keys, Point::Threads(counts))?)?);
            clear()?;
        } else {
            for x in &points {
                let figures = match with {
                    With::Keys => child::figures(&job(*x, Point::Keys)?)?,
                    With::Tenants => {
                        let mut figures = child::figures(&job(keys, Point::Tenants(u32::try_from(*x)?))?)?;
                        figures.extend(child::figures(&job(keys, Point::Open)?)?);
                        figures
                    }
                    With::Recovery => {
                        child::run(&job(keys, Point::FillLog(x << 20))?)?;
                        child::figures(&job(keys, Point::Open)?)?
                    }
                    With::Threads => Vec::new(),
                };
                add(*x, figures);
                clear()?;
            }
        }
        eprintln!("{} done", engine.name);
    }
    let title = format!("Growth with {across}");
    let (text, csv, body) = curves(&engines, &dots, across);
    common.finish(&title, &head, &text, &csv, &body)
}

/// Text, CSV and plots.
fn curves(engines: &[&Engine], dots: &[Dot], across: &str) -> (String, String, String) {
    let mut lines: Vec<(&str, Unit)> = Vec::new();
    let mut csv = String::from("line,engine,unit,x,value\n");
    for dot in dots {
        if !lines.contains(&(dot.line.as_str(), dot.unit)) {
            lines.push((&dot.line, dot.unit));
        }
        csv += &format!(
            "\"{}\",{},{},{},{:.3}\n",
            dot.line,
            dot.engine,
            dot.unit.name(),
            dot.x,
            dot.value
        );
    }
    let (mut text, mut plots) = (String::new(), String::new());
    for (line, unit) in lines {
        text += &format!("\n{line}: {}\n", unit.heading());
        let mut polylines = Vec::new();
        for engine in engines {
            let of = dots
                .iter()
                .filter(|dot| dot.engine == engine.name && dot.line == line);
            let of: Vec<&Dot> = of.collect();
            if of.is_empty() {
                continue;
            }
            let values: Vec<String> = of
                .iter()
                .map(|dot| format!("{} at {}", unit.show(dot.value), dot.x))
                .collect();
            text += &format!("    {:<12} {}\n", engine.name, values.join(", "));
            let scale = if unit == Unit::Bytes {
                f64::from(1 << 20)
            } else {
                1.0
            };
            polylines.push(Curve {
                name: engine.name.to_owned(),
                points: of.iter().map(|dot| (dot.x as f64, dot.value / scale)).collect(),
            });
        }
        let title = format!("{line}: {}", unit.heading());
        plots += &svg(&title, across, Axis::Factors, &polylines);
    }
    (text, csv, plots)
}
