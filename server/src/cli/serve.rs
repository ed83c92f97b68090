//! `serve` and `standby`: one node, from one configuration file, until it is told to stop.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value};
use strongroom_server::app::{App, Ended};
use strongroom_server::config::Config;
use strongroom_server::{harden, telemetry};

use super::exit::{Failure, Outcome};

/// Flags.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Configuration file, TOML. Environment: STRONGROOM_<TABLE>__<KEY> over it
    #[arg(long, env = "STRONGROOM_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Override one key of the configuration: `tenants.listen=127.0.0.1:0`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Write where the node listens to this file, as JSON, once it is ready
    #[arg(long, env = "STRONGROOM_NODE_FILE", value_name = "FILE")]
    node_file: Option<PathBuf>,
    /// Stop when standard input ends: a node never outlives the process that started it
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// Runs a node. `standby`: the configuration's role does not matter, this node begins as a standby.
pub async fn run(args: ServeArgs, standby: bool) -> Outcome {
    telemetry::init();
    for problem in harden::process() {
        tracing::warn!("{problem}");
    }
    let mut overrides = Map::new();
    if standby {
        set(&mut overrides, "replication.role", Value::from("standby"))?;
    }
    for text in &args.overrides {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--set {text}: KEY=VALUE is wanted")))?;
        // `7300`, `true` and `"text"` are what they look like; anything else is text.
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        set(&mut overrides, key, value)?;
    }
    let config = Config::load(&args.config, Some(&overrides))?;
    let app = App::start(config).await?;
    app.announce(args.node_file.as_deref())?;
    let ended = tokio::select! {
        ended = app.wait() => ended,
        () = stdin_closed(), if args.until_stdin_closes => Ok(Ended::Told),
    };
    app.stop().await?;
    match ended? {
        Ended::Told => Ok(()),
        Ended::ByItself(why) => Err(Failure::failed(format!("the node cannot go on: {why}"))),
    }
}

/// Puts `a.b.c = value` into nested tables.
fn set(table: &mut Map<String, Value>, key: &str, value: Value) -> Outcome {
    match key.split_once('.') {
        None if key.is_empty() => Err(Failure::usage("--set: the key is empty")),
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((first, rest)) => match table.entry(first).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(inner) => set(inner, rest, value),
            _ => Err(Failure::usage(format!(
                "--set {key}: {first} is set to a value already"
            ))),
        },
    }
}

async fn stdin_closed() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread of its own, not the runtime's: a blocked read must not hold up the end.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = sender.send(());
    });
    let _ = receiver.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_nest_and_never_replace_a_table_by_accident() {
        let mut table = Map::new();
        set(&mut table, "tenants.listen", "x".into()).unwrap();
        set(&mut table, "tenants.streams_max", 7.into()).unwrap();
        assert_eq!(
            Value::Object(table.clone()),
            serde_json::json!({"tenants":{"listen":"x","streams_max":7}})
        );
        assert!(set(&mut table, "tenants.listen.deep", 1.into()).is_err());
        assert!(set(&mut table, "", 1.into()).is_err());
    }
}
