//! `scan` and `dump`: entries in key order, streamed; memory stays small however many there are.

use std::io::{BufWriter, ErrorKind, Write};
use std::ops::Bound;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use strongroom_client::{Entries, RangeOptions};

use super::connect::DataArgs;
use super::exit::{self, Failure, Outcome};
use super::form::Form;
use super::output::{self, Format, SCHEMA};

/// Which entries.
#[derive(Args, Debug)]
pub struct Which {
    /// Keyspace
    keyspace: String,
    /// Only keys that begin so
    #[arg(long, conflicts_with_all = ["from", "to"])]
    prefix: Option<String>,
    /// First key (included)
    #[arg(long, value_name = "KEY")]
    from: Option<String>,
    /// Last key (excluded)
    #[arg(long, value_name = "KEY")]
    to: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// How keys are written, on the command line and in the output
    #[arg(long, value_enum, default_value_t)]
    key_format: Form,
    /// How values are written in the output
    #[arg(long, value_enum, default_value_t)]
    value_format: Form,
}

impl Which {
    fn range(&self) -> Outcome<RangeOptions> {
        let bytes = |text: &Option<String>| {
            text.as_deref()
                .map(|text| self.key_format.decode("key", text))
                .transpose()
        };
        let options = match bytes(&self.prefix)? {
            Some(prefix) => RangeOptions::prefix(prefix),
            None => {
                let from = bytes(&self.from)?.map_or(Bound::Unbounded, Bound::Included);
                let to = bytes(&self.to)?.map_or(Bound::Unbounded, Bound::Excluded);
                RangeOptions::keys::<Vec<u8>>((from, to))
            }
        };
        Ok(options.limit(self.limit.unwrap_or(0)))
    }

    /// An entry as JSON; without a value if there is none.
    fn json(&self, key: &[u8], value: Option<&[u8]>) -> Outcome<Value> {
        let key = self.key_format.encode("key", key)?;
        Ok(match value {
            Some(value) => json!({ "key": key, "value": self.value_format.encode("value", value)? }),
            None => json!({ "key": key }),
        })
    }
}

/// Flags of `scan`.
#[derive(Args, Debug)]
pub struct ScanArgs {
    #[command(flatten)]
    which: Which,
    /// From the upper end downwards
    #[arg(long)]
    reverse: bool,
    /// Without values
    #[arg(long)]
    keys_only: bool,
    #[command(flatten)]
    connection: DataArgs,
}

/// Prints entries: a line each (key, tab, value), or one JSON object.
pub async fn scan(args: ScanArgs, format: Format) -> Outcome {
    let mut options = args.which.range()?;
    if args.reverse {
        options = options.reverse();
    }
    if args.keys_only {
        options = options.keys_only();
    }
    let client = args.connection.connect().await?;
    let mut entries = client.range(&args.which.keyspace, options).await?;
    let mut out = BufWriter::new(std::io::stdout());
    let which = &args.which;
    quiet(async {
        if format == Format::Json {
            write!(out, "{{\"schema\":{SCHEMA},\"entries\":[")?;
        }
        let mut first = true;
        while let Some((key, value)) = entries.next().await? {
            let value = (!args.keys_only).then_some(&*value);
            match format {
                Format::Json => {
                    let comma = if first { "" } else { "," };
                    write!(out, "{comma}{}", which.json(&key, value)?)?;
                }
                Format::Table => {
                    write!(out, "{}", which.key_format.show(&key))?;
                    if let Some(value) = value {
                        write!(out, "\t{}", which.value_format.show(value))?;
                    }
                    writeln!(out)?;
                }
            }
            first = false;
        }
        if format == Format::Json {
            writeln!(out, "]}}")?;
        }
        Ok(out.flush()?)
    })
    .await
}

/// Flags of `dump`.
#[derive(Args, Debug)]
pub struct DumpArgs {
    #[command(flatten)]
    which: Which,
    /// Write to this new file instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    connection: DataArgs,
}

/// Writes a keyspace as NDJSON: `{"key":…,"value":…}` a line, one consistent view of all. `load` reads it
/// with `--key-template '{key}' --value field:value` (in hexadecimal: `{key:hex}` and `hex:value`).
pub async fn dump(args: DumpArgs, format: Format) -> Outcome {
    let options = args.which.range()?;
    let client = args.connection.connect().await?;
    let mut entries = client.range(&args.which.keyspace, options).await?;
    match &args.out {
        None => {
            let mut out = BufWriter::new(std::io::stdout());
            quiet(write(&args.which, &mut entries, &mut out)).await?;
        }
        Some(path) => {
            let file = std::fs::File::create_new(path).map_err(exit::at(path))?;
            let mut out = BufWriter::new(file);
            let count = quiet(write(&args.which, &mut entries, &mut out)).await?;
            out.get_ref().sync_all().map_err(exit::at(path))?;
            match format {
                Format::Json => output::json(json!({ "entries": count })),
                Format::Table => output::line(&format!("{} entries", output::count(count))),
            }
        }
    }
    Ok(())
}

async fn write(which: &Which, entries: &mut Entries, out: &mut impl Write) -> Result<u64, Trouble> {
    let mut count = 0;
    while let Some((key, value)) = entries.next().await? {
        writeln!(out, "{}", which.json(&key, Some(&value))?)?;
        count += 1;
    }
    out.flush()?;
    Ok(count)
}

/// A reader that has seen enough (`| head`) is no failure.
async fn quiet<T: Default>(work: impl Future<Output = Result<T, Trouble>>) -> Outcome<T> {
    match work.await {
        Ok(done) => Ok(done),
        Err(Trouble::Pipe) => Ok(T::default()),
        Err(Trouble::Other(failure)) => Err(failure),
    }
}

/// A failure, or a reader that went away.
enum Trouble {
    Pipe,
    Other(Failure),
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Trouble {
        if error.kind() == ErrorKind::BrokenPipe {
            Trouble::Pipe
        } else {
            Trouble::Other(error.into())
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Other(failure)
    }
}

impl From<strongroom_client::ClientError> for Trouble {
    fn from(error: strongroom_client::ClientError) -> Trouble {
        Trouble::Other(error.into())
    }
}
