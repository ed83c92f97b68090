//! The keystore's base and log, for fuzzing.
//!
//! Both are sealed, so there are two kinds of targets: the clear structures alone, whose bytes must read back,
//! and whole files, which must be refused or say what was written, whatever is done to them.

use std::path::Path;
use std::sync::LazyLock;

use zeroize::Zeroizing;

use super::base::{self, Plan};
use super::format::{self, FRAME_HEAD_BYTES, Frame, LOG_HEAD_BYTES, PREAMBLE_BYTES_MIN, Preamble};
use super::log::{self, LogWriter};
use crate::error::Result;
use crate::hooks::parsers::{Parser, disk_with, get_u32, set_u32};
use crate::io::durable;
use crate::io::sim::SimFs;
use crate::keys::{KeyChanges, KeyProvider, MemoryKeys, TenantKeys};
use crate::seal::parsers::repair_header;
use crate::seal::{Dek, FileHeader, FileKind};
use crate::types::{DekVersion, TenantId};

pub(crate) const PARSERS: &[Parser] = &[
    Parser {
        name: "keystore_preamble",
        check: check_preamble,
        repair: repair_base,
        samples: base_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
    Parser {
        name: "keystore_base",
        check: check_base,
        repair: repair_base,
        samples: base_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
    Parser {
        name: "keystore_frames",
        check: check_frames,
        repair: repair_log,
        samples: log_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
    Parser {
        name: "keystore_log",
        check: check_log,
        repair: repair_log,
        samples: log_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
];

const GENERATION: u64 = 2;
const ROOT: [u8; 32] = [0x52; 32];

fn check_preamble(bytes: &[u8]) -> bool {
    let path = Path::new("base");
    let Ok(header) = FileHeader::decode(path, bytes, FileKind::Keystore) else {
        return false;
    };
    let Ok((preamble, commitment, wrapped, start)) = Preamble::decode(path, bytes) else {
        return false;
    };
    let again = preamble.encode(&header, commitment, wrapped);
    assert_eq!(again.len(), start);
    assert!(bytes.starts_with(&again), "a preamble reads back as other bytes");
    let total = format::chunks_bytes(preamble.plain_bytes);
    assert!(total.is_none_or(|total| total >= preamble.plain_bytes));
    true
}

fn check_base(bytes: &[u8]) -> bool {
    let path = Path::new("/keystore/base");
    let io = disk_with(path, bytes).io(1);
    let Ok(found) = base::read(&io, path, GENERATION, &SAMPLE.provider) else {
        return false;
    };
    assert!(
        *found.changes.encode() == *SAMPLE.full.encode(),
        "a changed base says something else"
    );
    true
}

fn check_frames(bytes: &[u8]) -> bool {
    let (mut at, mut whole) = (LOG_HEAD_BYTES.min(bytes.len()), 0);
    loop {
        match format::frame_at(bytes, at) {
            Frame::Whole(sealed, next) => {
                assert!(
                    next > at && next <= bytes.len(),
                    "a frame that ends outside the log"
                );
                assert_eq!(next, at + FRAME_HEAD_BYTES + sealed.len());
                let head = bytes.get(at..at + FRAME_HEAD_BYTES).unwrap_or_default();
                assert!(
                    format::frame_head(sealed) == head,
                    "a frame reads back as other bytes"
                );
                (at, whole) = (next, whole + 1);
            }
            Frame::Damaged(next) => {
                assert!(next > at && next < bytes.len());
                return false;
            }
            Frame::Torn => return whole > 0,
            Frame::End => {
                assert_eq!(at, bytes.len());
                return whole > 0;
            }
        }
    }
}

fn check_log(bytes: &[u8]) -> bool {
    let path = Path::new("/keystore/log");
    let io = disk_with(path, bytes).io(1);
    let root = Dek::from_bytes(&ROOT);
    let Ok(found) = log::replay(&io, path, GENERATION, SAMPLE.log_id, &root) else {
        return false;
    };
    assert!(found.changes.len() <= SAMPLE.changes.len());
    let same = |(found, wrote): (&KeyChanges, &KeyChanges)| *found.encode() == *wrote.encode();
    assert!(
        found.changes.iter().zip(&SAMPLE.changes).all(same),
        "a changed log says something else"
    );
    true
}

fn repair_base(bytes: &mut [u8]) {
    repair_header(bytes);
    let end =
        get_u32(bytes, PREAMBLE_BYTES_MIN - 4).map_or(0, |wrapped| PREAMBLE_BYTES_MIN + wrapped as usize);
    if let Some(covered) = bytes.get(FileHeader::BYTES..end) {
        let crc = crc32fast::hash(covered);
        set_u32(bytes, end, crc);
    }
}

/// Goes from frame to frame by their lengths, and makes the checksums fit.
fn repair_log(bytes: &mut [u8]) {
    repair_header(bytes);
    let mut rest = bytes.get_mut(LOG_HEAD_BYTES..).unwrap_or_default();
    while let Some((head, after)) = std::mem::take(&mut rest).split_first_chunk_mut::<FRAME_HEAD_BYTES>() {
        let len = get_u32(head, 4).unwrap_or(u32::MAX) as usize;
        let Some((sealed, after)) = after.split_at_mut_checked(len) else {
            return;
        };
        let crc = get_u32(&format::frame_head(sealed), 8).unwrap_or_default();
        set_u32(head, 8, crc);
        rest = after;
    }
}

struct Sample {
    provider: MemoryKeys,
    full: KeyChanges,
    base: Vec<u8>,
    changes: Vec<KeyChanges>,
    log: Vec<u8>,
    log_id: [u8; 16],
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| match make() {
    Ok(sample) => sample,
    Err(e) => panic!("the simulated disk takes a keystore: {e}"),
});

fn make() -> Result<Sample> {
    let provider = MemoryKeys::seeded(0x6b);
    let kek = provider.create_version()?;
    let io = SimFs::new().io(0x6b);
    let dir = Path::new("/keystore");
    durable::create_dir_synced(&io, dir)?;
    let root = Dek::from_bytes(&ROOT);
    let mut writer = LogWriter::create(&io, dir, GENERATION, &root)?;
    let changes = vec![change(8, false, &[(3, "c")]), change(9, false, &[(4, "d")])];
    for change in &changes {
        if writer.append(&change.encode()).is_err() {
            panic!("the simulated disk takes a frame");
        }
    }
    let full = change(7, true, &[(0, ""), (1, "acme"), (2, "b\u{e9}")]);
    let plan = Plan {
        generation: GENERATION,
        root: &root,
        kek,
        superseded: None,
        version: full.version,
        next_tenant: full.next_tenant,
        log_id: Some(writer.file_id()),
        origin: [5; 16],
    };
    let (base, _) = base::encode(&io, &provider, &plan, &full.encode())?;
    Ok(Sample {
        provider,
        full,
        base,
        changes,
        log: durable::read_file_bounded(&io, &format::log_path(dir, GENERATION), u64::MAX)?,
        log_id: writer.file_id(),
    })
}

fn change(version: u64, full: bool, tenants: &[(u64, &str)]) -> KeyChanges {
    let tenant = |(id, name): &(u64, &str)| TenantKeys {
        id: TenantId(*id),
        name: (*name).to_owned(),
        deks: vec![(DekVersion(1), Zeroizing::new([*id as u8 + 1; 32]))],
    };
    KeyChanges {
        version,
        full,
        next_tenant: 5,
        upserts: tenants.iter().map(tenant).collect(),
        deleted: Vec::new(),
    }
}

fn base_samples() -> Vec<Vec<u8>> {
    vec![SAMPLE.base.clone()]
}

fn log_samples() -> Vec<Vec<u8>> {
    let whole = SAMPLE.log.clone();
    let torn = whole.get(..whole.len() - 10).unwrap_or_default().to_vec();
    vec![whole, torn]
}
