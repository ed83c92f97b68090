//! `verify`: reads and checks every byte of a database that is not running. Changes nothing, and goes on after
//! damage; what it prints carries no key, value or name.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use strongroom::keys::KeyFile;
use strongroom::{Damage, Engine, Verified};
use strongroom_server::config::Config;

use super::exit::{Exit, Failure, Outcome};
use super::output::{self, Format};

/// Flags.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Configuration of the node: verifies its data with its key file
    #[arg(long, env = "STRONGROOM_CONFIG", value_name = "FILE", required_unless_present_all = ["data_dir", "key_file"])]
    config: Option<PathBuf>,
    /// Verify this data directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Key file of the database
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Verifies. Exit 3 if anything is damaged, 11 while the database runs.
pub fn run(args: &VerifyArgs, format: Format) -> Outcome {
    let (mut data_dir, mut key_file) = (args.data_dir.clone(), args.key_file.clone());
    if let Some(path) = &args.config
        && (data_dir.is_none() || key_file.is_none())
    {
        let config =
            Config::load(path, None).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        data_dir = data_dir.or(Some(config.node.data_dir));
        key_file = key_file.or(Some(config.keys.file));
    }
    let (Some(data_dir), Some(key_file)) = (data_dir, key_file) else {
        return Err(Failure::usage("give --config FILE, or --data-dir and --key-file"));
    };
    let keys = KeyFile::open(&key_file)?;
    let verified = Engine::builder(&data_dir).keys(keys).verify()?;
    match format {
        Format::Json => output::json(as_json(&verified)),
        Format::Table => print(&verified, &data_dir),
    }
    if verified.is_healthy() {
        return Ok(());
    }
    let rest = if verified.complete {
        ""
    } else {
        "; files that depend on them were not read"
    };
    let text = format!(
        "{} damages{rest}: restore the database from its standby or a backup",
        output::count(verified.damages_total)
    );
    Err(Failure::new(Exit::Unhealthy, text))
}

fn print(verified: &Verified, data_dir: &Path) {
    output::line(&format!(
        "{}: {} in {} files: {} tables with {} blocks and {} entries, {} log segments with {} records",
        data_dir.display(),
        output::bytes(verified.bytes),
        output::count(verified.files),
        output::count(verified.tables),
        output::count(verified.blocks),
        output::count(verified.entries),
        output::count(verified.segments),
        output::count(verified.records),
    ));
    if verified.skipped > 0 {
        let skipped = output::count(verified.skipped);
        output::line(&format!(
            "{skipped} parts of deleted tenants, whose keys are gone, not read"
        ));
    }
    if verified.torn_bytes > 0 {
        let torn = output::bytes(verified.torn_bytes);
        output::line(&format!(
            "{torn} at the end were torn by a crash, never acknowledged; opening cuts them"
        ));
    }
    if verified.damages.is_empty() {
        return;
    }
    output::table(
        &["file", "offset", "damaged", "expected", "found"],
        verified.damages.iter().map(|damage| {
            vec![
                damage
                    .file
                    .as_ref()
                    .map_or(String::new(), |file| file.display().to_string()),
                damage.offset.map_or(String::new(), |offset| offset.to_string()),
                damage.structure.clone(),
                damage.expected.clone(),
                damage.found.clone(),
            ]
        }),
    );
}

fn as_json(verified: &Verified) -> Value {
    let damage = |damage: &Damage| {
        json!({
            "kind": format!("{:?}", damage.kind).to_lowercase(), "file": damage.file, "offset": damage.offset,
            "structure": damage.structure, "expected": damage.expected, "found": damage.found,
        })
    };
    json!({
        "healthy": verified.is_healthy(), "complete": verified.complete, "files": verified.files,
        "bytes": verified.bytes, "tables": verified.tables, "blocks": verified.blocks,
        "value_files": verified.value_files, "values": verified.values,
        "entries": verified.entries, "segments": verified.segments, "records": verified.records,
        "sections": verified.sections, "skipped": verified.skipped, "torn_bytes": verified.torn_bytes,
        "damages_total": verified.damages_total,
        "damages": verified.damages.iter().map(damage).collect::<Vec<_>>(),
    })
}
