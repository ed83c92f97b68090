//! `options`: those of one node's engine that can be changed while it runs.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use strongroom_client::proto::admin::{SetOptionsRequest, SetOptionsResponse};

use super::connect::AdminArgs;
use super::exit::Outcome;
use super::output::{self, Format, bytes, span};

/// Flags.
#[derive(Args, Debug)]
pub struct OptionsArgs {
    /// Plaintext block cache; less: what is too much goes at once
    #[arg(long, value_name = "N")]
    cache_bytes: Option<u64>,
    /// Log kept for a standby that is behind; less: one that needed more takes a base copy
    #[arg(long, value_name = "N")]
    wal_keep_bytes: Option<u64>,
    /// How long a value that has ended may stay on the disk; less: what is due is written out now
    #[arg(long, value_name = "N")]
    expiry_grace_ms: Option<u64>,
    /// How long a `replicated` commit waits for the standby, from the next one on
    #[arg(long, value_name = "N")]
    replicated_timeout_ms: Option<u64>,
    #[command(flatten)]
    connection: AdminArgs,
}

/// Changes what is given, all or nothing, and prints what is in force at the node that is asked.
pub async fn run(args: OptionsArgs, format: Format) -> Outcome {
    let request = SetOptionsRequest {
        cache_bytes: args.cache_bytes,
        wal_keep_bytes: args.wal_keep_bytes,
        expiry_grace_ms: args.expiry_grace_ms,
        replicated_timeout_ms: args.replicated_timeout_ms,
    };
    let now = args.connection.one().await?.set_options(request).await?;
    match format {
        Format::Json => output::json(json!({
            "cache_bytes": now.cache_bytes, "wal_keep_bytes": now.wal_keep_bytes,
            "expiry_grace_ms": now.expiry_grace_ms, "replicated_timeout_ms": now.replicated_timeout_ms,
        })),
        Format::Table => output::table(&["option", "in force", ""], rows(&now)),
    }
    if request != SetOptionsRequest::default() {
        eprintln!("Not remembered: when the node opens its engine again, its configuration counts.");
    }
    Ok(())
}

fn rows(now: &SetOptionsResponse) -> [Vec<String>; 4] {
    let row = |name: &str, value: u64, said: String| vec![name.to_owned(), value.to_string(), said];
    let time = |ms| span(Duration::from_millis(ms));
    [
        row("cache_bytes", now.cache_bytes, bytes(now.cache_bytes)),
        row("wal_keep_bytes", now.wal_keep_bytes, bytes(now.wal_keep_bytes)),
        row("expiry_grace_ms", now.expiry_grace_ms, time(now.expiry_grace_ms)),
        row(
            "replicated_timeout_ms",
            now.replicated_timeout_ms,
            time(now.replicated_timeout_ms),
        ),
    ]
}
