//! `inspect`: headers of Strongroom's files. Never content, and no key is needed.
//!
//! Everything shown is in clear on disk by design: ids, positions, counts, sizes, times. `clear` reads
//! the bytes; this file prints what it found.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::clear::{self, Detail, Inspected, Kind};
use super::data::epoch;
use super::exit::{self, Exit, Failure, Outcome};
use super::output::{self, Format};

/// Flags.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// Files, or directories with all that is in them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Also list what is inside: log records and their sections, tenants in a table
    #[arg(long)]
    records: bool,
    /// List at most so many records or tenants a file
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "records")]
    limit: usize,
}

/// Prints headers. Exit 1 if a file is damaged as far as that can be told without keys.
pub fn run(args: &InspectArgs, format: Format) -> Outcome {
    let mut files = Vec::new();
    for path in &args.paths {
        collect(path, path.is_dir(), &mut files)?;
    }
    let limit = if args.records { args.limit } else { 0 };
    let (mut shown, mut damaged) = (Vec::new(), Vec::new());
    for path in &files {
        match clear::inspect(path, limit) {
            Ok(inspected) => {
                if let Some(why) = &inspected.damage {
                    damaged.push(format!("{}: {why}", path.display()));
                }
                shown.push((path, inspected));
            }
            Err(failure) => damaged.push(failure.message),
        }
    }
    match format {
        Format::Json => output::json(json!({
            "files": shown.iter().map(|(path, file)| as_json(path, file)).collect::<Vec<_>>(),
            "damaged": damaged,
        })),
        Format::Table => {
            output::table(
                &[
                    "file", "kind", "format", "epoch", "number", "file id", "bytes", "holds",
                ],
                shown.iter().map(|(path, file)| row(path, file)),
            );
            for (path, file) in &shown {
                details(path, file);
            }
        }
    }
    if damaged.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failed, damaged.join("\n")))
    }
}

/// Files named, and the Strongroom files under directories named (others there are passed over).
fn collect(path: &Path, found: bool, files: &mut Vec<PathBuf>) -> Outcome {
    let about = std::fs::symlink_metadata(path).map_err(exit::at(path))?;
    if about.is_dir() {
        let entries = std::fs::read_dir(path).map_err(exit::at(path))?;
        let mut inside = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(exit::at(path))?;
        inside.sort();
        for path in inside {
            collect(&path, true, files)?;
        }
    } else if !found || (about.is_file() && clear::is_ours(path)) {
        files.push(path.to_path_buf());
    }
    Ok(())
}

fn row(path: &Path, file: &Inspected) -> Vec<String> {
    let header = &file.header;
    let number = match header.kind {
        Kind::Wal => format!("from {}", header.number),
        _ => header.number.to_string(),
    };
    let holds = match &file.detail {
        Detail::None => String::new(),
        Detail::Wal(wal) => format!(
            "{} records to {}{}",
            output::count(wal.records),
            wal.end,
            if wal.closed { ", closed" } else { "" }
        ),
        Detail::Table(table) => {
            format!(
                "{} entries of {} tenants",
                output::count(table.entries),
                output::count(table.tenants)
            )
        }
        Detail::Values(values) => format!(
            "{} values of {} tenants",
            output::count(values.values),
            output::count(values.tenants)
        ),
    };
    vec![
        path.display().to_string(),
        header.kind.name().to_owned(),
        header.format.to_string(),
        epoch(header.epoch),
        number,
        hex::encode(header.file_id),
        file.bytes.to_string(),
        file.damage
            .as_ref()
            .map_or(holds, |why| format!("DAMAGED: {why}")),
    ]
}

fn details(path: &Path, file: &Inspected) {
    match &file.detail {
        Detail::Wal(wal) if !wal.shown.is_empty() => {
            output::line(&format!("\n{}", path.display()));
            let rows = wal.shown.iter().map(|record| {
                let sections = record.sections.iter().map(|s| {
                    format!(
                        "tenant {}: {} operations, {} bytes sealed",
                        s.tenant, s.operations, s.sealed_bytes
                    )
                });
                vec![
                    record.lsn.to_string(),
                    epoch(record.epoch),
                    record.seqno.to_string(),
                    record.time_ms.to_string(),
                    record.bytes.to_string(),
                    if record.close {
                        "close".to_owned()
                    } else {
                        sections.collect::<Vec<_>>().join("; ")
                    },
                ]
            });
            output::table(&["lsn", "epoch", "seqno", "time (ms)", "bytes", "sections"], rows);
        }
        Detail::Table(table) if !table.shown.is_empty() => {
            output::line(&format!("\n{}", path.display()));
            let rows = table.shown.iter().map(|run| {
                [
                    run.tenant,
                    run.dek_version,
                    run.entries,
                    run.deletes,
                    run.seqno_min,
                    run.seqno_max,
                    run.offset,
                ]
                .map(|n| n.to_string())
                .to_vec()
            });
            output::table(
                &[
                    "tenant",
                    "key version",
                    "entries",
                    "deletes",
                    "seqno min",
                    "seqno max",
                    "offset",
                ],
                rows,
            );
        }
        Detail::Values(values) if !values.shown.is_empty() => {
            output::line(&format!("\n{}", path.display()));
            let rows = values.shown.iter().map(|run| {
                [run.tenant, run.dek_version, run.values, run.bytes, run.offset]
                    .map(|n| n.to_string())
                    .to_vec()
            });
            output::table(&["tenant", "key version", "values", "bytes", "offset"], rows);
        }
        _ => {}
    }
}

fn as_json(path: &Path, file: &Inspected) -> Value {
    let header = &file.header;
    let detail = match &file.detail {
        Detail::None => Value::Null,
        Detail::Wal(wal) => json!({
            "records": wal.records, "end_lsn": wal.end, "closed": wal.closed,
            "shown": wal.shown.iter().map(|r| json!({
                "lsn": r.lsn, "epoch": r.epoch, "seqno": r.seqno, "time_ms": r.time_ms, "bytes": r.bytes,
                "close": r.close,
                "sections": r.sections.iter().map(|s| json!({
                    "tenant_id": s.tenant, "dek_version": s.dek_version, "operations": s.operations,
                    "sealed_bytes": s.sealed_bytes,
                })).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        }),
        Detail::Table(table) => json!({
            "entries": table.entries, "tenants": table.tenants, "seqno_min": table.seqno_min,
            "seqno_max": table.seqno_max,
            "shown": table.shown.iter().map(|r| json!({
                "tenant_id": r.tenant, "dek_version": r.dek_version, "entries": r.entries,
                "deletes": r.deletes, "seqno_min": r.seqno_min, "seqno_max": r.seqno_max, "offset": r.offset,
            })).collect::<Vec<_>>(),
        }),
        Detail::Values(values) => json!({
            "values": values.values, "tenants": values.tenants,
            "shown": values.shown.iter().map(|r| json!({
                "tenant_id": r.tenant, "dek_version": r.dek_version, "values": r.values, "bytes": r.bytes,
                "offset": r.offset,
            })).collect::<Vec<_>>(),
        }),
    };
    json!({
        "path": path, "kind": header.kind.name(), "format": header.format, "suite": header.suite,
        "file_id": hex::encode(header.file_id), "epoch": header.epoch, "number": header.number,
        "created_ms": header.created_ms, "chain": hex::encode(header.chain), "bytes": file.bytes,
        "damage": file.damage, "detail": detail,
    })
}
