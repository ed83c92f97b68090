//! `load`: NDJSON into a keyspace.
//!
//! ```text
//! lines ──► key template, value ──► lane = hash(key) mod lanes ──► batches ──► server
//! ```
//!
//! Lines with the same key go through the same lane, in order: the last one wins, as in the file.
//! Nothing is half-loaded silently. A file is read twice, and nothing is written unless every line of
//! it makes an entry. A pipe cannot be read twice: loading stops at the first broken line, and
//! what was loaded is said exactly. If the server fails in the middle, the line before which all is
//! loaded is said, and `--from-line` goes on after it: numbers, and so keys, stay the same.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clap::Args;
use serde_json::json;
use strongroom::{NAME_BYTES_MAX, VALUE_BYTES_MAX};
use strongroom_client::{Batch, Client};
use strongroom_server::ndjson::{Broken, Lines, Object};
use strongroom_server::template::Template;
use tokio::sync::mpsc;

use super::connect::DataArgs;
use super::data::Until;
use super::exit::{self, Exit, Failure, Outcome};
use super::output::{self, Format};

/// A batch is sent when it has so many bytes, whatever --batch says.
const BATCH_BYTES: usize = 4 << 20;

/// Flags.
#[derive(Args, Debug)]
pub struct LoadArgs {
    /// NDJSON file, plain or zstd; left out or `-`: standard input
    file: Option<PathBuf>,
    /// Keyspace to load into; made if missing
    #[arg(long)]
    keyspace: String,
    /// How a line makes a key: text, {field}, {field:be8} (big-endian integer; be1 be2 be4 be8),
    /// {field:hex}, {#} (line number, {#:be4}); escapes \xNN \\ \{ \}
    #[arg(long, value_name = "TEMPLATE", long_help = LONG_TEMPLATE)]
    key_template: String,
    /// What is stored: `rest` (the object without the key's fields), `line` (the line as it is),
    /// `field:NAME` (one field; text without its quotes), `hex:NAME` (the bytes a field spells)
    #[arg(long, value_name = "VALUE", default_value = "rest")]
    value: String,
    /// Only lines whose text field has this value; the field is left out of `rest`
    #[arg(long = "where", value_name = "FIELD=TEXT")]
    only: Option<String>,
    /// Skip the lines before this one (they still count)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from_line: u64,
    /// Entries in a batch
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// Batches in flight
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// How far a write must have got before it is acknowledged
    #[arg(long, value_enum, default_value_t)]
    durability: Until,
    /// Check every line and stop; nothing is written and no server is needed
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    connection: DataArgs,
}

const LONG_TEMPLATE: &str = r"How a line makes a key:
  text            itself; escapes \xNN (a byte) \\ \{ \}
  {field}         a text field's UTF-8 bytes, or an integer's decimal digits
  {field:be8}     an integer of 0 or more, big-endian in 8 bytes (be1 be2 be4 be8): sorts as the number
  {field:hex}     the bytes a text field spells in hexadecimal
  {#}  {#:be4}    the line's number, from 1
Example: {user}\x00{ts:be8}{#:be4}";

/// What a value is made of.
enum Value {
    Rest,
    Line,
    Field(String),
    Hex(String),
}

/// Lines to entries.
struct Maker {
    template: Template,
    value: Value,
    only: Option<(String, String)>,
    from_line: u64,
}

/// One write.
struct Entry {
    line: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Maker {
    fn new(args: &LoadArgs) -> Outcome<Maker> {
        if !(1..=NAME_BYTES_MAX).contains(&args.keyspace.len()) {
            return Err(Failure::usage(format!(
                "a keyspace's name has 1 to {NAME_BYTES_MAX} bytes"
            )));
        }
        let value = match (args.value.as_str(), args.value.split_once(':')) {
            ("rest", _) => Value::Rest,
            ("line", _) => Value::Line,
            (_, Some(("field", name))) => Value::Field(name.to_owned()),
            (_, Some(("hex", name))) => Value::Hex(name.to_owned()),
            _ => return Err(Failure::usage("--value is rest, line, field:NAME or hex:NAME")),
        };
        let only = match &args.only {
            None => None,
            Some(text) => {
                let (field, want) = text
                    .split_once('=')
                    .ok_or_else(|| Failure::usage("--where wants FIELD=TEXT"))?;
                Some((field.to_owned(), want.to_owned()))
            }
        };
        Ok(Maker {
            template: Template::parse(&args.key_template)?,
            value,
            only,
            from_line: args.from_line,
        })
    }

    /// The entry of a line; `None` if it is not asked for.
    fn entry(&self, number: u64, bytes: Vec<u8>) -> Result<Option<Entry>, Broken> {
        let broken = |why: String| Broken { number, why };
        let object = Object::parse(&bytes).map_err(broken)?;
        if let Some((field, want)) = &self.only
            && object.text(field).as_ref() != Some(want)
        {
            return Ok(None);
        }
        if number < self.from_line {
            return Ok(None);
        }
        let key = self
            .template
            .key(&object.0, number)
            .map_err(|error| broken(error.to_string()))?;
        let text = |name: &str| {
            object
                .raw(name)
                .ok_or_else(|| broken(format!("field {name:?} of the value is missing")))
        };
        let value = match &self.value {
            Value::Line => bytes.trim_ascii().to_vec(),
            Value::Rest => {
                let constant = self.only.as_ref().map(|(field, _)| field.as_str());
                object.without(|field| self.template.uses(field) || constant == Some(field))
            }
            Value::Field(name) => match object.text(name) {
                Some(text) => text.into_bytes(),
                None => text(name)?.as_bytes().to_vec(),
            },
            Value::Hex(name) => {
                text(name)?;
                let bytes = object.text(name).and_then(|text| hex::decode(text).ok());
                bytes.ok_or_else(|| broken(format!("field {name:?} is not hexadecimal text")))?
            }
        };
        if value.len() > VALUE_BYTES_MAX {
            return Err(broken(format!(
                "the value has {} bytes; {VALUE_BYTES_MAX} are allowed",
                value.len()
            )));
        }
        Ok(Some(Entry {
            line: number,
            key,
            value,
        }))
    }

    /// Checks every line. Returns how many there are, and how many entries they make.
    fn check(&self, lines: Lines) -> Result<(u64, u64), Broken> {
        let (mut last, mut entries) = (0, 0);
        for line in lines {
            let line = line?;
            last = line.number;
            entries += u64::from(self.entry(line.number, line.bytes)?.is_some());
        }
        Ok((last, entries))
    }
}

/// What is on its way and what has arrived. Shared by the reader and the lanes.
#[derive(Default)]
struct Ledger {
    /// Lines handed to a lane and not acknowledged.
    open: Mutex<BTreeSet<u64>>,
    entries: AtomicU64,
    bytes: AtomicU64,
    /// Last line read in whole, and dealt with but for `open`.
    read: AtomicU64,
}

impl Ledger {
    fn open(&self) -> std::sync::MutexGuard<'_, BTreeSet<u64>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every line up to this one is loaded or was not asked for.
    fn through(&self) -> u64 {
        let read = self.read.load(Ordering::Acquire);
        self.open().first().map_or(read, |line| line.saturating_sub(1))
    }
}

/// Why reading ended early.
enum Stop {
    Broken(Broken),
    /// A lane is gone: its own failure says why.
    Lane,
}

/// Loads.
pub async fn run(args: LoadArgs, format: Format) -> Outcome {
    let maker = Maker::new(&args)?;
    let file = args
        .file
        .as_deref()
        .filter(|path| *path != std::path::Path::new("-"));
    let open = || match file {
        Some(path) => Lines::file(path).map_err(exit::at(path)),
        None => Ok(Lines::stdin()?),
    };
    let name = file.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
    let mut total = 0;
    // A pipe with a name (`<(…)`) cannot be read twice either.
    let twice = file.is_some_and(std::path::Path::is_file);
    if twice || args.check {
        total = match maker.check(open()?) {
            Ok((lines, entries)) => {
                if args.check {
                    report(
                        format,
                        &Report {
                            lines,
                            entries,
                            checked: true,
                            ..Report::default()
                        },
                    );
                    return Ok(());
                }
                entries
            }
            Err(broken) => {
                report_json(
                    format,
                    &Report {
                        broken: Some(broken.number),
                        ..Report::default()
                    },
                );
                return Err(Failure::usage(format!("{name}: {broken}\nNothing was loaded.")));
            }
        };
    }

    let client = args.connection.connect().await?;
    let started = Instant::now();
    let ledger = Arc::new(Ledger::default());
    let bar = output::progress(total, "entries");
    let mut senders = Vec::new();
    let mut lanes = Vec::new();
    for _ in 0..args.concurrency {
        let (sender, receiver) = mpsc::channel(2);
        senders.push(sender);
        let lane = Lane {
            client: client.clone(),
            keyspace: args.keyspace.clone(),
            durability: args.durability,
            ledger: ledger.clone(),
            bar: bar.clone(),
        };
        lanes.push(tokio::spawn(lane.run(receiver)));
    }
    let lines = open()?;
    let (shared, batch) = (ledger.clone(), usize::from(args.batch));
    let reader = tokio::task::spawn_blocking(move || feed(lines, &maker, &shared, &senders, batch));
    let stopped = reader.await.map_err(|error| Failure::failed(error.to_string()))?;
    let mut failure = None;
    for lane in lanes {
        match lane.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failure = failure.or(Some(Failure::from(error))),
            Err(error) => failure = failure.or(Some(Failure::failed(error.to_string()))),
        }
    }
    bar.finish_and_clear();

    let mut done = Report {
        lines: ledger.read.load(Ordering::Acquire),
        entries: ledger.entries.load(Ordering::Acquire),
        bytes: ledger.bytes.load(Ordering::Acquire),
        through: ledger.through(),
        seconds: started.elapsed().as_secs_f64(),
        ..Report::default()
    };
    match (failure, stopped) {
        (None, Ok(())) => {
            done.complete = true;
            report(format, &done);
            Ok(())
        }
        (None, Err(Stop::Broken(broken))) => {
            done.broken = Some(broken.number);
            report_json(format, &done);
            Err(Failure::usage(format!(
                "{name}: {broken}\nLines 1 to {} are loaded ({} entries); nothing after them is.",
                done.through,
                output::count(done.entries)
            )))
        }
        (failure, _) => {
            report_json(format, &done);
            let failure = failure.unwrap_or_else(|| Failure::new(Exit::Failed, "a lane ended early"));
            Err(Failure::new(
                failure.exit,
                format!(
                    "{}\nLines 1 to {} are loaded; of the lines up to {} some may be. Loading again with \
                     --from-line {} makes it whole.",
                    failure.message,
                    done.through,
                    done.lines,
                    done.through.saturating_add(1)
                ),
            ))
        }
    }
}

/// Reads lines, makes entries, deals them to the lanes.
fn feed(
    lines: Lines,
    maker: &Maker,
    ledger: &Ledger,
    lanes: &[mpsc::Sender<Vec<Entry>>],
    batch: usize,
) -> Result<(), Stop> {
    let mut waiting: Vec<(Vec<Entry>, usize)> = lanes.iter().map(|_| (Vec::new(), 0)).collect();
    let mut result = Ok(());
    for line in lines {
        let made = line.and_then(|line| Ok((line.number, maker.entry(line.number, line.bytes)?)));
        let (number, entry) = match made {
            Ok(made) => made,
            Err(broken) => {
                result = Err(Stop::Broken(broken));
                break;
            }
        };
        if let Some(entry) = entry {
            ledger.open().insert(number);
            let mut hasher = DefaultHasher::new();
            entry.key.hash(&mut hasher);
            let lane = (hasher.finish() % lanes.len().max(1) as u64) as usize;
            if let (Some((entries, bytes)), Some(sender)) = (waiting.get_mut(lane), lanes.get(lane)) {
                *bytes += entry.key.len() + entry.value.len();
                entries.push(entry);
                if entries.len() >= batch || *bytes >= BATCH_BYTES {
                    *bytes = 0;
                    if sender.blocking_send(std::mem::take(entries)).is_err() {
                        return Err(Stop::Lane);
                    }
                }
            }
        }
        ledger.read.store(number, Ordering::Release);
    }
    for ((entries, _), sender) in waiting.into_iter().zip(lanes) {
        if !entries.is_empty() && sender.blocking_send(entries).is_err() {
            return Err(Stop::Lane);
        }
    }
    result
}

/// Sends batches one after the other.
struct Lane {
    client: Client,
    keyspace: String,
    durability: Until,
    ledger: Arc<Ledger>,
    bar: indicatif::ProgressBar,
}

impl Lane {
    async fn run(self, mut batches: mpsc::Receiver<Vec<Entry>>) -> strongroom_client::Result<()> {
        // Loading a line twice leaves what loading it once does, so an unknown outcome is simply repeated.
        let options = self.durability.options().retry_unknown(true);
        while let Some(entries) = batches.recv().await {
            let mut batch = Batch::new();
            let mut bytes = 0;
            let mut lines = Vec::with_capacity(entries.len());
            for entry in entries {
                bytes += (entry.key.len() + entry.value.len()) as u64;
                lines.push(entry.line);
                batch = batch.put(&self.keyspace, entry.key, entry.value);
            }
            self.client.batch_with(batch, options).await?;
            let mut open = self.ledger.open();
            for line in &lines {
                open.remove(line);
            }
            drop(open);
            self.ledger
                .entries
                .fetch_add(lines.len() as u64, Ordering::AcqRel);
            self.ledger.bytes.fetch_add(bytes, Ordering::AcqRel);
            self.bar.inc(lines.len() as u64);
        }
        Ok(())
    }
}

#[derive(Default)]
struct Report {
    lines: u64,
    entries: u64,
    bytes: u64,
    through: u64,
    seconds: f64,
    broken: Option<u64>,
    complete: bool,
    checked: bool,
}

fn report(format: Format, report: &Report) {
    report_json(format, report);
    if format == Format::Json {
        return;
    }
    let (lines, entries) = (output::count(report.lines), output::count(report.entries));
    if report.checked {
        output::line(&format!(
            "{lines} lines make {entries} entries; nothing was written"
        ));
    } else {
        let rate = report.entries as f64 / report.seconds.max(1e-9);
        output::line(&format!(
            "{entries} entries ({}) from {lines} lines in {:.1} s, {} a second",
            output::bytes(report.bytes),
            report.seconds,
            output::count(rate as u64)
        ));
    }
}

fn report_json(format: Format, report: &Report) {
    if format == Format::Json {
        output::json(json!({
            "complete": report.complete, "checked_only": report.checked, "lines": report.lines,
            "entries": report.entries, "bytes": report.bytes, "loaded_through_line": report.through,
            "broken_line": report.broken, "seconds": report.seconds,
        }));
    }
}
