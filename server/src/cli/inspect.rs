//! `inspect`: what a Strongroom file says of itself in clear. Headers only, never content; needs no keys.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::exit::{self, Exit, Failure, Outcome};
use super::output::{self, Format};

/// The common header's length: docs/format.md.
const HEADER_BYTES: usize = 128;
/// WAL record and section headers: docs/format.md section 3.
const RECORD_HEADER_BYTES: usize = 72;
const SECTION_HEADER_BYTES: usize = 40;
/// Records listed at most.
const RECORDS_MAX: usize = 1000;

/// Flags.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// A segment, table, manifest, keystore file, escrow or CURRENT
    file: PathBuf,
    /// For a segment: list its records' headers too
    #[arg(long)]
    records: bool,
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn number(&self, offset: usize, len: usize) -> u64 {
        let bytes = self.0.get(offset..offset.saturating_add(len)).unwrap_or_default();
        bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
    }

    fn hex(&self, offset: usize, len: usize) -> String {
        hex::encode(self.0.get(offset..offset.saturating_add(len)).unwrap_or_default())
    }
}

fn kind_name(kind: u64) -> &'static str {
    match kind {
        1 => "write-ahead log segment",
        2 => "table",
        3 => "manifest",
        4 => "keystore",
        5 => "escrow",
        6 => "current",
        _ => "unknown",
    }
}

/// Prints the header. Exit 1 if the file is no Strongroom file or its header is damaged.
pub fn run(args: &InspectArgs, format: Format) -> Outcome {
    let content = std::fs::read(&args.file).map_err(exit::at(&args.file))?;
    let Some(header) = content.get(..HEADER_BYTES).filter(|h| h.starts_with(b"STRGROOM")) else {
        let text = format!(
            "{}: not a Strongroom file, or its header is gone",
            args.file.display()
        );
        return Err(Failure::new(Exit::Failed, text));
    };
    let bytes = Bytes(header);
    let checked = [header.get(..12), header.get(16..)].into_iter().flatten().fold(
        crc32fast::Hasher::new(),
        |mut hasher, part| {
            hasher.update(part);
            hasher
        },
    );
    let intact = u64::from(checked.finalize()) == bytes.number(12, 4);
    let (epoch, kind) = (bytes.number(64, 8), bytes.number(10, 1));
    let records = if args.records && kind == 1 {
        records(&content)
    } else {
        Vec::new()
    };
    match format {
        Format::Json => output::json(json!({
            "kind": kind_name(kind), "format": bytes.number(8, 2), "suite": bytes.number(11, 1),
            "header_intact": intact, "file_id": bytes.hex(16, 16), "epoch": epoch, "number": bytes.number(72, 8),
            "created_ms": bytes.number(80, 8), "chain": bytes.hex(88, 16), "bytes": content.len(),
            "records": records.iter().map(Record::json).collect::<Vec<_>>(),
        })),
        Format::Table => {
            output::facts(&[
                ("kind", kind_name(kind).to_owned()),
                ("format", bytes.number(8, 2).to_string()),
                ("header", if intact { "intact".into() } else { "DAMAGED".into() }),
                ("file id", bytes.hex(16, 16)),
                ("epoch", super::data::epoch(epoch)),
                ("number", bytes.number(72, 8).to_string()),
                ("created", format!("{} ms since 1970", bytes.number(80, 8))),
                ("chain", bytes.hex(88, 16)),
                ("length", output::bytes(content.len() as u64)),
            ]);
            if !records.is_empty() {
                output::table(
                    &["lsn", "bytes", "kind", "version", "tenants"],
                    records.iter().map(Record::row),
                );
            }
        }
    }
    if intact {
        Ok(())
    } else {
        Err(Failure::failed("the header's checksum does not match"))
    }
}

struct Record {
    lsn: u64,
    bytes: u64,
    kind: u64,
    seqno: u64,
    tenants: Vec<(u64, u64)>,
}

impl Record {
    fn json(&self) -> serde_json::Value {
        json!({"lsn": self.lsn, "bytes": self.bytes, "kind": self.kind_name(), "seqno": self.seqno,
               "tenants": self.tenants.iter().map(|(t, n)| json!({"tenant": t, "operations": n})).collect::<Vec<_>>()})
    }

    fn row(&self) -> Vec<String> {
        let tenants: Vec<String> = self
            .tenants
            .iter()
            .map(|(t, n)| format!("{t} ({n} operations)"))
            .collect();
        vec![
            self.lsn.to_string(),
            self.bytes.to_string(),
            self.kind_name().into(),
            self.seqno.to_string(),
            tenants.join(", "),
        ]
    }

    fn kind_name(&self) -> &'static str {
        match self.kind {
            1 => "batch",
            2 => "close",
            _ => "unknown",
        }
    }
}

/// Headers of a segment's records, up to the first that is not one.
fn records(content: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at = HEADER_BYTES;
    while records.len() < RECORDS_MAX
        && let Some(rest) = content.get(at..)
        && rest.len() >= RECORD_HEADER_BYTES
    {
        let head = Bytes(rest);
        let len = head.number(4, 4) as usize;
        let Some(record) = rest.get(..len).filter(|r| r.len() >= RECORD_HEADER_BYTES) else {
            break;
        };
        if u64::from(crc32fast::hash(record.get(4..).unwrap_or_default())) != head.number(0, 4) {
            break;
        }
        let mut tenants = Vec::new();
        let mut section = RECORD_HEADER_BYTES;
        while section + SECTION_HEADER_BYTES <= len {
            tenants.push((head.number(section, 8), head.number(section + 12, 4)));
            section += SECTION_HEADER_BYTES + head.number(section + 32, 4) as usize;
        }
        records.push(Record {
            lsn: head.number(16, 8),
            bytes: len as u64,
            kind: head.number(8, 1),
            seqno: head.number(32, 8),
            tenants,
        });
        at += len;
    }
    records
}
