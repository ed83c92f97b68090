//! `get`, `put`, `del`: one entry, with the tenant's token only.

use std::io::{IsTerminal, Read, Write};
use std::ops::Bound;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde_json::json;
use strongroom_client::{Batch, Durability, Position, WriteOptions};

use super::connect::DataArgs;
use super::exit::{self, Exit, Failure, Outcome};
use super::form::Form;
use super::output::{self, Format};

/// `--durability`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Until {
    /// What the server's configuration says.
    #[default]
    Default,
    /// Handed to the operating system.
    Buffered,
    /// On stable storage at the primary.
    Local,
    /// On stable storage at the primary and the standby.
    Replicated,
}

impl Until {
    /// For a write.
    pub fn options(self) -> WriteOptions {
        WriteOptions::new().durability(match self {
            Until::Default => Durability::Unspecified,
            Until::Buffered => Durability::Buffered,
            Until::Local => Durability::Local,
            Until::Replicated => Durability::Replicated,
        })
    }
}

/// Which entry.
#[derive(Args, Debug)]
pub struct Entry {
    /// Keyspace
    keyspace: String,
    /// Key
    key: String,
    /// How the key is written
    #[arg(long, value_enum, default_value_t)]
    key_format: Form,
}

impl Entry {
    fn key(&self) -> Outcome<Vec<u8>> {
        self.key_format.decode("key", &self.key)
    }
}

/// Flags of `get`.
#[derive(Args, Debug)]
pub struct GetArgs {
    #[command(flatten)]
    entry: Entry,
    /// How the value is written with -o json (otherwise its bytes are printed as they are)
    #[arg(long, value_enum, default_value_t)]
    value_format: Form,
    #[command(flatten)]
    connection: DataArgs,
}

/// Prints the value of a key.
pub async fn get(args: GetArgs, format: Format) -> Outcome {
    let key = args.entry.key()?;
    let client = args.connection.connect().await?;
    let Some(value) = client.get(&args.entry.keyspace, &key).await? else {
        if format == Format::Json {
            output::json(json!({ "found": false }));
        }
        return Err(Failure::new(Exit::Absent, "no such key"));
    };
    match format {
        Format::Json => {
            output::json(json!({ "found": true, "value": args.value_format.encode("value", &value)? }));
        }
        Format::Table => {
            let mut out = std::io::stdout().lock();
            out.write_all(&value)?;
            if out.is_terminal() {
                out.write_all(b"\n")?;
            }
            out.flush()?;
        }
    }
    Ok(())
}

/// Flags of `put`.
#[derive(Args, Debug)]
pub struct PutArgs {
    #[command(flatten)]
    entry: Entry,
    /// Value; left out: the whole of standard input, or --value-file
    value: Option<String>,
    /// How the value argument is written
    #[arg(long, value_enum, default_value_t)]
    value_format: Form,
    /// File with the value
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    value_file: Option<PathBuf>,
    /// How long the value lives; then the key is absent
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    ttl: Option<Duration>,
    #[command(flatten)]
    condition: Condition,
    /// How far the write must have got before it is acknowledged
    #[arg(long, value_enum, default_value_t)]
    durability: Until,
    #[command(flatten)]
    connection: DataArgs,
}

/// Stores a value.
pub async fn put(args: PutArgs, format: Format) -> Outcome {
    let key = args.entry.key()?;
    let value = match (&args.value, &args.value_file) {
        (Some(text), _) => args.value_format.decode("value", text)?,
        (None, Some(path)) => bounded(std::fs::File::open(path).map_err(exit::at(path))?)?,
        (None, None) => bounded(std::io::stdin().lock())?,
    };
    let required = args.condition.value(args.value_format)?;
    let client = args.connection.connect().await?;
    let keyspace = &args.entry.keyspace;
    let batch = match args.ttl {
        Some(ttl) => Batch::new().put_expiring(keyspace, key.clone(), value, ttl),
        None => Batch::new().put(keyspace, key.clone(), value),
    };
    let batch = match required {
        Some(required) => batch.require(keyspace, key, required),
        None => batch,
    };
    written(client.batch_with(batch, args.durability.options()).await?, format);
    Ok(())
}

/// What must be so for a write to be done.
#[derive(Args, Debug)]
pub struct Condition {
    /// Write only if the key is absent (exit code 16 otherwise)
    #[arg(long, conflicts_with = "if_value")]
    if_absent: bool,
    /// Write only if the key has this value now (exit code 16 otherwise)
    #[arg(long, value_name = "VALUE")]
    if_value: Option<String>,
}

impl Condition {
    /// What the key must have; `Some(None)`: nothing.
    fn value(&self, form: Form) -> Outcome<Option<Option<Bytes>>> {
        Ok(match &self.if_value {
            Some(text) => Some(Some(form.decode("--if-value", text)?.into())),
            None => self.if_absent.then_some(None),
        })
    }
}

/// A time that is at least a millisecond.
fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(number) {
        Ok(time) if time >= Duration::from_millis(1) => Ok(time),
        _ => Err("at least 0.001, and no more than there are seconds".to_owned()),
    }
}

/// Reads a value; one byte more than the largest is enough for the server to refuse it.
fn bounded(input: impl Read) -> Outcome<Vec<u8>> {
    let mut value = Vec::new();
    input
        .take(strongroom::VALUE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut value)?;
    if value.len() > strongroom::VALUE_BYTES_MAX {
        let text = format!("the value is longer than {} bytes", strongroom::VALUE_BYTES_MAX);
        return Err(Failure::usage(text));
    }
    Ok(value)
}

/// Flags of `del`.
#[derive(Args, Debug)]
pub struct DelArgs {
    #[command(flatten)]
    entry: Entry,
    /// Remove it only if it has this value now (exit code 16 otherwise)
    #[arg(long, value_name = "VALUE")]
    if_value: Option<String>,
    /// How the value of --if-value is written
    #[arg(long, value_enum, default_value_t)]
    value_format: Form,
    /// How far the write must have got before it is acknowledged
    #[arg(long, value_enum, default_value_t)]
    durability: Until,
    #[command(flatten)]
    connection: DataArgs,
}

/// Removes a key; fine if it is absent.
pub async fn del(args: DelArgs, format: Format) -> Outcome {
    let key = args.entry.key()?;
    let required = match &args.if_value {
        Some(text) => Some(args.value_format.decode("--if-value", text)?),
        None => None,
    };
    let client = args.connection.connect().await?;
    let keyspace = &args.entry.keyspace;
    let batch = Batch::new().delete(keyspace, key.clone());
    let batch = match required {
        Some(required) => batch.require(keyspace, key, Some(required.into())),
        None => batch,
    };
    written(client.batch_with(batch, args.durability.options()).await?, format);
    Ok(())
}

/// `term.reopen`, as the engine writes epochs.
pub fn epoch(number: u64) -> String {
    strongroom::Epoch(number).to_string()
}

fn written(position: Position, format: Format) {
    match format {
        Format::Json => output::json(json!({
            "epoch": position.epoch, "lsn": position.lsn, "seqno": position.seqno,
        })),
        Format::Table => {
            output::line(&format!(
                "acknowledged at epoch {} position {}",
                epoch(position.epoch),
                position.lsn
            ));
        }
    }
}

/// Flags of `del-range`.
#[derive(Args, Debug)]
pub struct DelRangeArgs {
    /// Keyspace
    keyspace: String,
    /// Keys that begin so
    #[arg(long, conflicts_with_all = ["from", "to", "all"])]
    prefix: Option<String>,
    /// First key (included)
    #[arg(long, value_name = "KEY")]
    from: Option<String>,
    /// Last key (excluded)
    #[arg(long, value_name = "KEY")]
    to: Option<String>,
    /// Every key of the keyspace
    #[arg(long, conflicts_with_all = ["from", "to"], required_unless_present_any = ["prefix", "from", "to"])]
    all: bool,
    /// How keys are written
    #[arg(long, value_enum, default_value_t)]
    key_format: Form,
    /// How far the write must have got before it is acknowledged
    #[arg(long, value_enum, default_value_t)]
    durability: Until,
    #[command(flatten)]
    connection: DataArgs,
}

/// Removes every key of a range, by one operation.
pub async fn del_range(args: DelRangeArgs, format: Format) -> Outcome {
    let bytes = |text: &Option<String>| {
        text.as_deref()
            .map(|text| args.key_format.decode("key", text))
            .transpose()
    };
    let batch = match bytes(&args.prefix)? {
        // An empty prefix would be all, which has a flag of its own.
        Some(prefix) if prefix.is_empty() => {
            return Err(Failure::usage("an empty prefix: --all deletes every key"));
        }
        Some(prefix) => Batch::new().delete_prefix(&args.keyspace, prefix),
        None => {
            let from = bytes(&args.from)?.map_or(Bound::Unbounded, Bound::Included);
            let to = bytes(&args.to)?.map_or(Bound::Unbounded, Bound::Excluded);
            Batch::new().delete_range::<Vec<u8>>(&args.keyspace, (from, to))
        }
    };
    let client = args.connection.connect().await?;
    written(client.batch_with(batch, args.durability.options()).await?, format);
    Ok(())
}
