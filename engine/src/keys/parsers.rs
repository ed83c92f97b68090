//! Key changes, escrows and key files, for fuzzing.

use std::path::Path;
use std::sync::LazyLock;

use zeroize::Zeroizing;

use super::changes::{KeyChanges, TenantKeys};
use super::escrow::{self, EscrowRecipient, EscrowSecret, open_escrow, seal_escrow};
use super::key_file;
use crate::hooks::parsers::{Parser, set_u32};
use crate::io::sim::SimFs;
use crate::seal::parsers::repair_header;
use crate::types::{DekVersion, TenantId};

pub(crate) const PARSERS: &[Parser] = &[
    Parser {
        name: "key_changes",
        check: check_changes,
        repair: repair_changes,
        samples: change_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
    Parser {
        name: "escrow",
        check: check_escrow,
        repair: repair_escrow,
        samples: escrow_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
    Parser {
        name: "escrow_recipient",
        check: check_recipient,
        repair: Parser::no_repair,
        samples: recipient_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
    Parser {
        name: "key_file",
        check: key_file::parses_and_reads_back,
        repair: repair_key_file,
        samples: key_file_samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    },
];

fn check_changes(bytes: &[u8]) -> bool {
    let Ok(changes) = KeyChanges::decode(bytes) else {
        return false;
    };
    assert!(
        changes.encode().as_slice() == bytes,
        "key changes read back as other bytes"
    );
    true
}

/// Sealed to the recipient: an escrow is refused, or it says what was sealed.
fn check_escrow(bytes: &[u8]) -> bool {
    let Ok(found) = open_escrow(bytes, &SAMPLE.secret) else {
        return false;
    };
    assert!(
        found.encode() == sample(true).encode(),
        "a changed escrow says something else"
    );
    true
}

fn check_recipient(bytes: &[u8]) -> bool {
    let Some(recipient) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| EscrowRecipient::parse(text).ok())
    else {
        return false;
    };
    let text = recipient.to_text();
    assert!(EscrowRecipient::parse(&text).is_ok_and(|again| again.to_text() == text));
    true
}

fn repair_changes(bytes: &mut [u8]) {
    if let Some(at) = bytes.len().checked_sub(4) {
        let crc = crc32fast::hash(bytes.get(..at).unwrap_or_default());
        set_u32(bytes, at, crc);
    }
}

fn repair_escrow(bytes: &mut [u8]) {
    repair_header(bytes);
    let sealed = bytes.len().saturating_sub(escrow::CLEAR_BYTES) as u64;
    if let Some(field) = bytes.get_mut(192..200) {
        field.copy_from_slice(&sealed.to_le_bytes());
    }
    if let Some(covered) = bytes.get(..escrow::CLEAR_BYTES - 4) {
        let crc = crc32fast::hash(covered);
        set_u32(bytes, escrow::CLEAR_BYTES - 4, crc);
    }
}

/// The check line is the last nine bytes: eight digits over everything before "check ".
fn repair_key_file(bytes: &mut [u8]) {
    let Some(at) = bytes.len().checked_sub(15) else {
        return;
    };
    let crc = format!(
        "check {:08x}\n",
        crc32fast::hash(bytes.get(..at).unwrap_or_default())
    );
    if let Some(line) = bytes.get_mut(at..) {
        line.copy_from_slice(crc.as_bytes());
    }
}

fn tenant(id: u64, name: &str, versions: &[u32]) -> TenantKeys {
    let dek = |version: &u32| {
        (
            DekVersion(*version),
            Zeroizing::new([id as u8 ^ *version as u8; 32]),
        )
    };
    TenantKeys {
        id: TenantId(id),
        name: name.into(),
        deks: versions.iter().map(dek).collect(),
    }
}

fn sample(full: bool) -> KeyChanges {
    KeyChanges {
        version: 77,
        full,
        next_tenant: 10,
        upserts: if full {
            vec![tenant(0, "", &[1]), tenant(3, "acme", &[1, 2])]
        } else {
            vec![
                tenant(3, "acme", &[1]),
                tenant(9, &"\u{e9}".repeat(20), &[1, 2, 7]),
            ]
        },
        deleted: if full {
            vec![]
        } else {
            vec![TenantId(4), TenantId(5)]
        },
    }
}

fn change_samples() -> Vec<Vec<u8>> {
    vec![sample(false).encode().to_vec(), sample(true).encode().to_vec()]
}

struct Sample {
    secret: EscrowSecret,
    sealed: Vec<u8>,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let secret = escrow::secret_of(&[0x33; 32]);
    let sealed = seal_escrow(&sample(true), &secret.recipient(), &SimFs::new().io(0x33));
    assert!(sealed.is_ok(), "an escrow can be sealed");
    Sample {
        secret,
        sealed: sealed.unwrap_or_default(),
    }
});

fn escrow_samples() -> Vec<Vec<u8>> {
    vec![SAMPLE.sealed.clone()]
}

fn recipient_samples() -> Vec<Vec<u8>> {
    vec![SAMPLE.secret.recipient().to_text().into_bytes()]
}

fn key_file_samples() -> Vec<Vec<u8>> {
    use super::provider::KeyProvider;
    let io = SimFs::new().io(0x34);
    let path = Path::new("/strongroom.key");
    let made = super::KeyFile::create_in(io.clone(), path).and_then(|keys| {
        for _ in 0..3 {
            keys.create_version()?;
        }
        keys.destroy_version(super::KekVersion(2))?;
        crate::io::durable::read_file_bounded(&io, path, u64::MAX)
    });
    match made {
        Ok(bytes) => vec![bytes],
        Err(e) => panic!("the simulated disk takes a key file: {e}"),
    }
}
