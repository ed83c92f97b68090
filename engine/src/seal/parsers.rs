//! The file header, for fuzzing.

use std::path::Path;

use super::header::{FileHeader, FileKind, checksum};
use crate::hooks::parsers::{Parser, set_u32};
use crate::types::{Chain, DekVersion, Epoch};

pub(crate) const PARSERS: &[Parser] = &[Parser {
    name: "file_header",
    check,
    repair: repair_header,
    samples,
    memory: Parser::MEMORY,
    memory_per_byte: Parser::MEMORY_PER_BYTE,
}];

const KINDS: [FileKind; 6] = [
    FileKind::Wal,
    FileKind::Table,
    FileKind::Manifest,
    FileKind::Keystore,
    FileKind::Escrow,
    FileKind::Current,
];

fn check(bytes: &[u8]) -> bool {
    let mut accepted = 0;
    for kind in KINDS {
        if let Ok(header) = FileHeader::decode(Path::new("f"), bytes, kind) {
            assert!(
                bytes.starts_with(&header.encode()),
                "a header reads back as other bytes"
            );
            accepted += 1;
        }
    }
    assert!(accepted <= 1, "a header of two kinds");
    accepted == 1
}

/// Makes the checksum of the header at the start of `bytes` fit.
pub(crate) fn repair_header(bytes: &mut [u8]) {
    if let Some(raw) = bytes.first_chunk::<{ FileHeader::BYTES }>() {
        let crc = checksum(raw);
        set_u32(bytes, 12, crc);
    }
}

fn samples() -> Vec<Vec<u8>> {
    let header = |(index, kind): (usize, FileKind)| {
        let in_log = u8::from(kind == FileKind::Wal);
        FileHeader {
            kind,
            file_id: [index as u8; 16],
            salt: [7; 32],
            epoch: Epoch::FIRST,
            number: 42,
            created_ms: 1_700_000_000_000,
            chain: Chain([in_log; 16]),
            chain_key: DekVersion(u32::from(in_log)),
            chain_after: Chain([in_log; 16]),
        }
    };
    KINDS
        .into_iter()
        .enumerate()
        .map(|kind| header(kind).encode().to_vec())
        .collect()
}
