//! Directory and footer of value files, and references, for fuzzing.

use super::format::{CRC_OFFSET, FOOTER_BYTES, Footer, Reference, ValueMeta, ValueRun, check};
use crate::hooks::parsers::{Parser, set_u32};
use crate::seal::FileHeader;
use crate::table::format::checksum;
use crate::types::{DekVersion, SeqNo, TenantId};

pub(crate) const PARSERS: &[Parser] = &[
    Parser {
        name: "value_footer",
        check: check_footer,
        repair: repair_footer,
        samples: footer_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
    Parser {
        name: "value_meta",
        check: check_meta,
        repair: Parser::no_repair,
        samples: meta_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
    Parser {
        name: "value_reference",
        check: check_reference,
        repair: Parser::no_repair,
        samples: reference_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
];

/// Directory, then footer.
fn check_footer(bytes: &[u8]) -> bool {
    let Some(at) = bytes.len().checked_sub(FOOTER_BYTES) else {
        return false;
    };
    let (directory, footer_bytes) = bytes.split_at(at);
    let Ok(footer) = Footer::decode(footer_bytes) else {
        return false;
    };
    let Ok(runs) = check(&footer, directory, footer_bytes) else {
        return false;
    };
    let mut again = Vec::new();
    runs.iter().for_each(|run| run.encode(&mut again));
    assert!(again == directory, "a directory reads back as other bytes");
    assert!(
        footer.encode(directory) == footer_bytes,
        "a footer reads back as other bytes"
    );
    true
}

fn repair_footer(bytes: &mut [u8]) {
    if let Some(at) = bytes.len().checked_sub(FOOTER_BYTES) {
        let (directory, footer) = bytes.split_at(at);
        let crc = checksum(directory, footer.get(..CRC_OFFSET).unwrap_or_default());
        set_u32(bytes, at + CRC_OFFSET, crc);
    }
}

fn check_meta(bytes: &[u8]) -> bool {
    let Some(meta) = ValueMeta::decode(bytes) else {
        return false;
    };
    let mut again = Vec::new();
    meta.encode(&mut again);
    assert!(again == bytes, "a value file's meta reads back as other bytes");
    true
}

fn check_reference(bytes: &[u8]) -> bool {
    let Some(reference) = Reference::decode(bytes) else {
        return false;
    };
    assert!(
        reference.encode() == bytes,
        "a reference reads back as other bytes"
    );
    true
}

fn footer_samples() -> Vec<Vec<u8>> {
    let first = FileHeader::BYTES as u64;
    let run = |tenant: u64, start, bytes| ValueRun {
        tenant: TenantId(tenant),
        dek: DekVersion(1),
        commitment: [tenant as u8; 16],
        values: 3,
        start,
        bytes,
    };
    let file = |runs: &[ValueRun]| {
        let mut directory = Vec::new();
        runs.iter().for_each(|run| run.encode(&mut directory));
        let footer = Footer {
            directory: runs.iter().map(|run| run.bytes).sum::<u64>() + first,
            tenants: runs.len() as u64,
            values: 3 * runs.len() as u64,
            known: SeqNo(8),
        };
        let footer = footer.encode(&directory);
        [directory, footer.to_vec()].concat()
    };
    let one = run(1, first, 500);
    vec![file(&[one]), file(&[one, run(5, first + 500, 90)])]
}

fn meta_samples() -> Vec<Vec<u8>> {
    let meta = ValueMeta {
        number: 9,
        file_id: [1; 16],
        bytes: 5000,
        values: 4,
        digest: [2; 32],
    };
    let mut out = Vec::new();
    meta.encode(&mut out);
    vec![out]
}

fn reference_samples() -> Vec<Vec<u8>> {
    let reference = Reference {
        file: 9,
        offset: 128,
        bytes: 1029,
        length: 1000,
    };
    vec![reference.encode().to_vec()]
}
