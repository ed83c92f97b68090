//! Manifest edits and full states, the manifest's framing, and `CURRENT`, for fuzzing.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use super::current::{self, Current};
use super::edit::{Edit, Full, ManifestState, NodeState};
use super::manifest::{self, Manifest, ManifestWriter};
use crate::error::Result;
use crate::hooks::parsers::{Parser, disk_with, set_u32};
use crate::io::durable;
use crate::io::sim::SimFs;
use crate::seal::parsers::repair_header;
use crate::seal::{Dek, FileHeader, FileKeys, FileKind, KeyLookup, KeySource};
use crate::table::{TableMeta, ValueMeta};
use crate::types::{Chain, DekVersion, Epoch, EpochStart, Lsn, SeqNo, TenantId};

pub(crate) const PARSERS: &[Parser] = &[
    Parser {
        name: "manifest_edit",
        check: check_edit,
        repair: Parser::no_repair,
        samples: edit_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
    Parser {
        name: "manifest_full",
        check: check_full,
        repair: Parser::no_repair,
        samples: full_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
    Parser {
        name: "manifest_file",
        check: check_manifest,
        repair: repair_manifest,
        samples: manifest_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
    Parser {
        name: "current",
        check: check_current,
        repair: repair_current,
        samples: current_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
];

const NUMBER: u64 = 3;

fn check_edit(bytes: &[u8]) -> bool {
    let Ok(edit) = Edit::decode(bytes) else {
        return false;
    };
    // Fields may come in any order; what they say must read back.
    assert!(
        Edit::decode(&edit.encode()) == Ok(edit.clone()),
        "an edit reads back otherwise"
    );
    let mut state = sample_state();
    let before = state.clone();
    if state.apply(&edit).is_err() {
        assert!(state == before, "a refused edit changed the state");
    } else {
        assert!(state.flushed >= before.flushed && state.highest_epoch >= before.highest_epoch);
        let epochs = state.epochs.iter().zip(state.epochs.iter().skip(1));
        assert!(
            epochs
                .into_iter()
                .all(|(a, b)| a.epoch < b.epoch && a.start <= b.start),
            "epochs out of order"
        );
    }
    true
}

fn check_full(bytes: &[u8]) -> bool {
    let Ok(full) = Full::decode(bytes) else {
        return false;
    };
    assert!(
        Full::decode(&full.encode()) == Ok(full),
        "a full state reads back otherwise"
    );
    true
}

/// Sealed: whatever is done to the file, it is refused, or it says a part of what was written.
fn check_manifest(bytes: &[u8]) -> bool {
    let Ok(found) = read(bytes) else {
        return false;
    };
    let sample = &*SAMPLE;
    assert!(
        found.full == sample.full,
        "a changed manifest says something else"
    );
    assert!(found.edits.len() <= sample.edits.len());
    assert!(
        found
            .edits
            .iter()
            .zip(&sample.edits)
            .all(|((_, found), wrote)| found == wrote),
        "a changed manifest says something else"
    );
    true
}

fn check_current(bytes: &[u8]) -> bool {
    let disk = disk_with(&current::path(Path::new("/db")), bytes);
    let Ok(current) = Current::read(&disk.io(1), Path::new("/db")) else {
        return false;
    };
    let Ok(header) = FileHeader::decode(Path::new("CURRENT"), bytes, FileKind::Current) else {
        panic!("CURRENT without a header");
    };
    assert!(
        current.encode(&header) == bytes,
        "CURRENT reads back as other bytes"
    );
    true
}

fn repair_current(bytes: &mut [u8]) {
    repair_header(bytes);
    if let Some(covered) = bytes.get(..188) {
        let crc = crc32fast::hash(covered);
        set_u32(bytes, 188, crc);
    }
}

/// Goes from frame to frame by their lengths, and makes the checksums fit.
fn repair_manifest(bytes: &mut [u8]) {
    repair_header(bytes);
    if let Some(covered) = bytes.get(FileHeader::BYTES..manifest::HEAD_BYTES - 4) {
        let crc = crc32fast::hash(covered);
        set_u32(bytes, manifest::HEAD_BYTES - 4, crc);
    }
    let mut rest = bytes.get_mut(manifest::HEAD_BYTES..).unwrap_or_default();
    while let Some((head, after)) = std::mem::take(&mut rest).split_first_chunk_mut::<8>() {
        let [a, b, c, d, ..] = *head;
        let len = u32::from_le_bytes([a, b, c, d]);
        let Some((sealed, after)) = after.split_at_mut_checked(len as usize) else {
            return;
        };
        set_u32(head, 4, manifest::frame_crc(len, sealed));
        rest = after;
    }
}

/// One key for the one manifest there is.
struct OneKey;

impl KeySource for OneKey {
    fn current(&self, _: TenantId) -> Result<(DekVersion, Dek)> {
        Ok((DekVersion(1), Dek::from_bytes(&[0x51; 32])))
    }

    fn find(&self, tenant: TenantId, version: DekVersion) -> KeyLookup {
        match (tenant, version) {
            (TenantId::SYSTEM, DekVersion(1)) => KeyLookup::Live(Dek::from_bytes(&[0x51; 32])),
            _ => KeyLookup::Unknown,
        }
    }
}

fn read(bytes: &[u8]) -> Result<Manifest> {
    let db = Path::new("/db");
    let io = disk_with(&manifest::path(db, NUMBER), bytes).io(1);
    let current = Current {
        number: NUMBER,
        closed: None,
    };
    manifest::read(&io, db, &current, &FileKeys::new(Arc::new(OneKey), 4))
}

struct Sample {
    bytes: Vec<u8>,
    full: Full,
    edits: Vec<Edit>,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let (full, edits) = (sample_full(), sample_edits());
    let made = write(&full, &edits);
    assert!(made.is_ok(), "the simulated disk takes a manifest");
    Sample {
        bytes: made.unwrap_or_default(),
        full,
        edits,
    }
});

fn write(full: &Full, edits: &[Edit]) -> Result<Vec<u8>> {
    let db = Path::new("/db");
    let io = SimFs::new().io(0x3a);
    durable::create_dir_synced(&io, db)?;
    let keys = FileKeys::new(Arc::new(OneKey), 4);
    let mut writer = ManifestWriter::create(&io, db, NUMBER, Epoch::FIRST, &keys, full)?;
    for edit in edits {
        writer.append(edit)?;
    }
    durable::read_file_bounded(&io, &manifest::path(db, NUMBER), u64::MAX)
}

fn manifest_samples() -> Vec<Vec<u8>> {
    let whole = SAMPLE.bytes.clone();
    let torn = whole.get(..whole.len() - 30).unwrap_or_default().to_vec();
    vec![whole, torn]
}

fn sample_state() -> ManifestState {
    ManifestState {
        flushed: Lsn(1000),
        seqno: SeqNo(50),
        epochs: vec![
            EpochStart {
                epoch: Epoch::FIRST,
                start: Lsn(0),
                chain: Chain([1; 16]),
            },
            EpochStart {
                epoch: Epoch::new(2, 0),
                start: Lsn(4096),
                chain: Chain([2; 16]),
            },
        ],
        highest_epoch: Epoch::new(3, 0),
        fenced_by: Some(Epoch::new(3, 0)),
        database_id: [7; 16],
        state: NodeState::Serving,
        reach: Lsn(5000),
        tenants: 8,
    }
}

fn sample_meta(number: u64) -> TableMeta {
    TableMeta {
        number,
        file_id: [number as u8; 16],
        bytes: 9000,
        entries: 40,
        digest: [2; 32],
        tenant_min: TenantId(0),
        tenant_max: TenantId(7),
        seqno_min: SeqNo(1),
        seqno_max: SeqNo(90),
        values: Vec::new(),
    }
}

fn sample_values(number: u64) -> ValueMeta {
    ValueMeta {
        number,
        file_id: [number as u8; 16],
        bytes: 70_000,
        values: 4,
        digest: [3; 32],
    }
}

fn sample_full() -> Full {
    Full {
        state: sample_state(),
        next_number: 12,
        tables: vec![(0, sample_meta(9)), (3, sample_meta(4))],
        values: Vec::new(),
    }
}

fn sample_edits() -> Vec<Edit> {
    let flush = Edit {
        added: vec![(0, sample_meta(10))],
        flushed: Some(Lsn(2000)),
        seqno: Some(SeqNo(60)),
        tenants: Some(9),
        ..Edit::default()
    };
    let compaction = Edit {
        added: vec![(1, sample_meta(11))],
        removed: vec![(0, 10), (0, 9)],
        ..Edit::default()
    };
    let reign = Edit {
        epoch: Some(EpochStart {
            epoch: Epoch::new(4, 0),
            start: Lsn(6000),
            chain: Chain([9; 16]),
        }),
        highest_epoch: Some(Epoch::new(4, 0)),
        fenced_by: Some(Epoch::ZERO),
        database_id: Some([8; 16]),
        state: Some(NodeState::Following),
        reach: Some(Lsn(6000)),
        ..Edit::default()
    };
    vec![flush, compaction, reign, sample_apart()]
}

/// A table with values apart.
fn sample_apart() -> Edit {
    let mut meta = sample_meta(13);
    meta.values = vec![(5, 900), (12, 60_000)];
    Edit {
        added: vec![(0, meta)],
        values: vec![sample_values(12)],
        ..Edit::default()
    }
}

fn edit_samples() -> Vec<Vec<u8>> {
    sample_edits().iter().map(Edit::encode).collect()
}

fn full_samples() -> Vec<Vec<u8>> {
    let mut apart = sample_full();
    apart.values = vec![sample_values(5), sample_values(6)];
    if let Some((_, meta)) = apart.tables.first_mut() {
        meta.values = vec![(5, 70), (6, 1)];
    }
    vec![sample_full().encode(), Full::default().encode(), apart.encode()]
}

fn current_samples() -> Vec<Vec<u8>> {
    let header = FileHeader {
        kind: FileKind::Current,
        file_id: [5; 16],
        salt: [6; 32],
        epoch: Epoch::FIRST,
        number: NUMBER,
        created_ms: 1_700_000_000_000,
        chain: Chain::default(),
        chain_key: crate::types::DekVersion::default(),
        chain_after: Chain::default(),
    };
    let current = |closed| {
        Current {
            number: NUMBER,
            closed,
        }
        .encode(&header)
    };
    vec![current(None), current(Some((4000, [3; 32])))]
}
