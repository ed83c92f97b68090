//! Sealing as a whole: golden bytes, moved pieces, nonce repeats, keys that die.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::file_key::derived_for_test;
use super::*;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Rng;
use crate::types::{Chain, DekVersion, Epoch, TenantId};

/// Bytes of a seeded SplitMix64: repeatable.
struct Seeded(parking_lot::Mutex<u64>);

impl Rng for Seeded {
    fn fill(&self, buf: &mut [u8]) -> std::io::Result<()> {
        let mut state = self.0.lock();
        for chunk in buf.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            chunk.copy_from_slice(&z.to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

fn seeded(seed: u64) -> Arc<dyn Rng> {
    Arc::new(Seeded(parking_lot::Mutex::new(seed)))
}

fn header(number: u64) -> FileHeader {
    FileHeader {
        kind: FileKind::Table,
        file_id: *b"0123456789abcdef",
        salt: [7; 32],
        epoch: Epoch(65_536),
        number,
        created_ms: 0,
        chain: Chain::default(),
        chain_key: DekVersion::default(),
        chain_after: Chain::default(),
    }
}

fn aad(plain_len: u32) -> Aad {
    Aad {
        piece: Piece::Block,
        tenant: TenantId(5),
        file: *b"0123456789abcdef",
        offset: 4096,
        plain_len,
        a: 1,
        b: 2,
    }
}

fn key() -> FileKey {
    FileKey::derive(&Dek::from_bytes(&[1; 32]), &header(9), TenantId(5), DekVersion(1))
}

#[test]
fn derivation_and_sealing_give_the_golden_bytes() {
    let dek = Dek::from_bytes(&[1; 32]);
    let derived = derived_for_test(&dek, &header(9), TenantId(5), DekVersion(1));
    assert_eq!(hex::encode(derived), GOLDEN_KEY);
    let key = key();
    assert_eq!(hex::encode(key.commitment()), GOLDEN_COMMITMENT);
    let sealed = key.seal_fixed(&[0xaa; 12], &aad(11), b"hello world");
    assert_eq!(hex::encode(&sealed), GOLDEN_SEALED);
    assert_eq!(key.open(&aad(11), &sealed).unwrap(), b"hello world");
}

// Computed with Python's hmac, hashlib and cryptography from the pictures in file_key.rs. Changing any of
// these breaks every database in existence: it takes a new format number.
const GOLDEN_KEY: &str = "39a8ff4a668d8cfb228b8e3b5d339edbc4c68992115cdc03fd282309808453db";
const GOLDEN_COMMITMENT: &str = "926e67886b75c8ce65e88e23c3f4fb97";
const GOLDEN_SEALED: &str = "aaaaaaaaaaaaaaaaaaaaaaaad863a8b299e5b69c396acf7937caed5d79fe06e23ab53f4da5271a";

#[test]
fn sealed_piece_opens_only_where_it_was_sealed() {
    let key = key();
    let nonces = Nonces::new(seeded(1));
    let mut sealed = b"before".to_vec();
    key.seal(&nonces, &aad(5), b"plain", &mut sealed).unwrap();
    let sealed = &sealed[6..];
    assert_eq!(sealed.len(), 5 + SEAL_OVERHEAD);
    assert_eq!(key.open(&aad(5), sealed).unwrap(), b"plain");
    let wrong = [
        Aad {
            piece: Piece::Index,
            ..aad(5)
        },
        Aad {
            tenant: TenantId(6),
            ..aad(5)
        },
        Aad {
            file: [0; 16],
            ..aad(5)
        },
        Aad {
            offset: 4097,
            ..aad(5)
        },
        Aad {
            plain_len: 4,
            ..aad(5)
        },
        Aad {
            plain_len: 6,
            ..aad(5)
        },
        Aad { a: 0, ..aad(5) },
        Aad { b: 1 << 63, ..aad(5) },
    ];
    for aad in wrong {
        assert_eq!(key.open(&aad, sealed), Err(OpenFailed), "{aad:?}");
    }
}

#[test]
fn damaged_or_cut_piece_does_not_open() {
    let key = key();
    let nonces = Nonces::new(seeded(2));
    let mut sealed = Vec::new();
    key.seal(&nonces, &aad(20), &[3; 20], &mut sealed).unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut bad = sealed.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(key.open(&aad(20), &bad), Err(OpenFailed), "bit {bit}");
    }
    for len in 0..sealed.len() {
        assert_eq!(key.open(&aad(20), &sealed[..len]), Err(OpenFailed), "{len} bytes");
        let plain_len = len.saturating_sub(SEAL_OVERHEAD) as u32;
        assert_eq!(
            key.open(&aad(plain_len), &sealed[..len]),
            Err(OpenFailed),
            "{len} bytes"
        );
    }
}

#[test]
fn commitment_tells_a_wrong_key_from_damage() {
    let stored = key().commitment();
    assert!(key().matches(&stored));
    assert!(!key().matches(&stored[..15]));
    let dek = Dek::from_bytes(&[1; 32]);
    let derive = |dek: &Dek, header: &FileHeader, tenant, version| {
        FileKey::derive(dek, header, TenantId(tenant), DekVersion(version))
    };
    let other_headers = [
        FileHeader {
            kind: FileKind::Wal,
            ..header(9)
        },
        FileHeader {
            file_id: [0; 16],
            ..header(9)
        },
        FileHeader {
            salt: [8; 32],
            ..header(9)
        },
        FileHeader {
            epoch: Epoch(65_537),
            ..header(9)
        },
        header(10),
    ];
    for other in &other_headers {
        assert!(!derive(&dek, other, 5, 1).matches(&stored), "{other:?}");
    }
    assert!(!derive(&Dek::from_bytes(&[2; 32]), &header(9), 5, 1).matches(&stored));
    assert!(!derive(&dek, &header(9), 6, 1).matches(&stored));
    assert!(!derive(&dek, &header(9), 5, 2).matches(&stored));
}

#[test]
fn sealing_with_a_wrong_length_is_refused_and_leaves_the_output_alone() {
    let nonces = Nonces::new(seeded(3));
    let mut out = b"kept".to_vec();
    let error = key().seal(&nonces, &aad(4), b"plain", &mut out).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(out, b"kept");
}

#[test]
fn used_up_nonces_are_an_error() {
    let key = FileKey::derive(&Dek::from_bytes(&[4; 32]), &header(1), TenantId(5), DekVersion(1));
    let nonces = Nonces::new(seeded(4));
    nonces.skip(u64::from(u32::MAX) - 1);
    let mut out = Vec::new();
    key.seal(&nonces, &aad(0), b"", &mut out).unwrap();
    for _ in 0..3 {
        let error = key.seal(&nonces, &aad(0), b"", &mut out).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly);
    }
}

#[test]
fn nonce_counts_up_and_takes_fresh_random_bits() {
    let nonces = Nonces::new(seeded(5));
    for plain in [&b"small"[..], &[7; 4096]] {
        let next = || nonces.next(b"aad", plain).unwrap();
        let (a, b) = (next(), next());
        assert_eq!(
            u32::from_be_bytes(a[..4].try_into().unwrap()) + 1,
            u32::from_be_bytes(b[..4].try_into().unwrap())
        );
        assert_ne!(a[4..], b[4..]);
    }
}

/// Two processes that are one up to here: same key, same counter, and the same random bits from now on.
#[test]
fn small_pieces_that_differ_get_nonces_that_differ_when_even_the_random_source_was_cloned() {
    let cloned = || Nonces::new(seeded(9));
    let (one, other) = (cloned(), cloned());
    for at in 0..300u32 {
        let (plain, changed) = (at.to_le_bytes(), (at ^ 1).to_le_bytes());
        let a = one.next(b"aad", &plain).unwrap();
        let b = match at % 3 {
            0 => other.next(b"aad", &changed).unwrap(),
            1 => other.next(b"aae", &plain).unwrap(),
            _ => other.next(b"aad", &plain).unwrap(),
        };
        assert_eq!(a[..4], b[..4]);
        // What is the same is sealed to the same bytes, and tells nothing.
        assert_eq!(a[4..] == b[4..], at % 3 == 2, "{at}");
    }
}

#[test]
fn a_secret_of_nonces_is_drawn_anew_for_every_64_seals_and_by_every_file() {
    let drawn = |seals: u32| {
        let rng = Arc::new(Counting::default());
        let nonces = Nonces::new(rng.clone());
        for _ in 0..seals {
            nonces.next(b"aad", b"small").unwrap();
        }
        rng.0.load(Ordering::Relaxed)
    };
    assert_eq!([0, 1, 64, 65, 128, 129].map(drawn), [0, 1, 1, 2, 2, 3]);
}

/// Counts how often it is asked.
#[derive(Default)]
struct Counting(AtomicU64);

impl Rng for Counting {
    fn fill(&self, buf: &mut [u8]) -> std::io::Result<()> {
        let times = self.0.fetch_add(1, Ordering::Relaxed);
        buf.fill(times as u8);
        Ok(())
    }
}

#[test]
fn no_randomness_is_an_error_and_no_nonce() {
    let nonces = Nonces::new(Arc::new(Without));
    for plain in [&b"small"[..], &[7; 4096]] {
        assert_eq!(nonces.next(b"aad", plain).unwrap_err().kind(), ErrorKind::Io);
    }
}

struct Without;

impl Rng for Without {
    fn fill(&self, _: &mut [u8]) -> std::io::Result<()> {
        Err(std::io::Error::other("none"))
    }
}

#[test]
#[should_panic(expected = "a (key, nonce) pair was used twice")]
fn repeated_pair_panics() {
    let rng = seeded(6);
    let nonces = Nonces::new(Arc::clone(&rng));
    let key = FileKey::derive(&Dek::from_bytes(&[6; 32]), &header(1), TenantId(5), DekVersion(1));
    let before = recorder_pairs();
    let nonce = nonces.next(b"", b"").unwrap();
    recorder::record(&nonces.writer, &key.commitment(), &nonce);
    assert!(recorder_pairs() > before);
    recorder::record(&nonces.writer, &key.commitment(), &nonce);
}

#[test]
#[should_panic(expected = "two counters")]
fn second_counter_for_one_file_key_panics() {
    let rng = seeded(7);
    let key = FileKey::derive(&Dek::from_bytes(&[7; 32]), &header(1), TenantId(5), DekVersion(1));
    let mut out = Vec::new();
    key.seal(&Nonces::new(Arc::clone(&rng)), &aad(0), b"", &mut out)
        .unwrap();
    key.seal(&Nonces::new(Arc::clone(&rng)), &aad(0), b"", &mut out)
        .unwrap();
}

#[test]
fn one_seed_run_twice_is_not_a_repeat() {
    let run = || {
        let rng = seeded(8);
        let key = FileKey::derive(
            &Dek::generate(&*rng).unwrap(),
            &header(2),
            TenantId(5),
            DekVersion(1),
        );
        let mut out = Vec::new();
        key.seal(&Nonces::new(rng), &aad(0), b"", &mut out).unwrap();
        out
    };
    assert_eq!(run(), run());
}

struct Source {
    live: AtomicBool,
    /// Set: the tenant dies while its key is being derived, that is between two questions.
    dies_after_first: AtomicBool,
}

impl Source {
    fn ask(&self) -> bool {
        let live = self.live.load(Ordering::SeqCst);
        if self.dies_after_first.load(Ordering::SeqCst) {
            self.live.store(false, Ordering::SeqCst);
        }
        live
    }
}

impl KeySource for Source {
    fn current(&self, tenant: TenantId) -> Result<(DekVersion, Dek)> {
        match self.find(tenant, DekVersion(1)) {
            KeyLookup::Live(dek) => Ok((DekVersion(1), dek)),
            _ => Err(Error::new(ErrorKind::NotFound, "no such tenant")),
        }
    }

    fn find(&self, tenant: TenantId, version: DekVersion) -> KeyLookup {
        match (tenant.0, version.0) {
            (1..=5, 1) if self.ask() => KeyLookup::Live(Dek::from_bytes(&[tenant.0 as u8; 32])),
            (1..=5, 1) => KeyLookup::Destroyed,
            _ => KeyLookup::Unknown,
        }
    }
}

fn file_keys() -> (Arc<Source>, FileKeys) {
    let source = Arc::new(Source {
        live: AtomicBool::new(true),
        dies_after_first: AtomicBool::new(false),
    });
    let keys = FileKeys::new(Arc::clone(&source) as Arc<dyn KeySource>, 100);
    (source, keys)
}

#[test]
fn reading_key_equals_writing_key_and_is_cached() {
    let (_, keys) = file_keys();
    let (version, write) = keys.for_writing(&header(1), TenantId(3)).unwrap();
    let KeyAccess::Live(read) = keys.for_reading(&header(1), TenantId(3), version) else {
        panic!()
    };
    assert!(Arc::ptr_eq(&write, &read));
    assert_eq!(keys.cached(), 1);
    assert!(matches!(
        keys.for_reading(&header(1), TenantId(9), version),
        KeyAccess::Unknown
    ));
    assert!(matches!(
        keys.for_reading(&header(1), TenantId(3), DekVersion(2)),
        KeyAccess::Unknown
    ));
    let forged = FileHeader {
        salt: [0; 32],
        ..header(1)
    };
    let KeyAccess::Live(other) = keys.for_reading(&forged, TenantId(3), version) else {
        panic!()
    };
    assert!(!other.matches(&write.commitment()));
}

#[test]
fn destroyed_tenant_is_destroyed_at_once_even_when_cached() {
    let (source, keys) = file_keys();
    let version = keys.for_writing(&header(1), TenantId(3)).unwrap().0;
    source.live.store(false, Ordering::SeqCst);
    assert!(!keys.is_live(TenantId(3)));
    assert!(matches!(
        keys.for_reading(&header(1), TenantId(3), version),
        KeyAccess::Destroyed
    ));
    assert_eq!(
        keys.for_writing(&header(1), TenantId(3)).err().unwrap().kind(),
        ErrorKind::NotFound
    );
    keys.purge_if(|other| other == TenantId(3));
    assert_eq!(keys.cached(), 0);
}

#[test]
fn key_that_dies_while_derived_is_neither_returned_nor_kept() {
    for writing in [false, true] {
        let (source, keys) = file_keys();
        source.dies_after_first.store(true, Ordering::SeqCst);
        if writing {
            assert!(keys.for_writing(&header(1), TenantId(3)).is_err());
        } else {
            let found = keys.for_reading(&header(1), TenantId(3), DekVersion(1));
            assert!(matches!(found, KeyAccess::Destroyed));
        }
        assert_eq!(keys.cached(), 0);
    }
}

#[test]
fn purge_forgets_one_tenant_and_capacity_bounds_the_rest() {
    let (_, keys) = file_keys();
    for number in 0..10 {
        keys.for_writing(&header(number), TenantId(1)).unwrap();
        keys.for_writing(&header(number), TenantId(2)).unwrap();
    }
    assert_eq!(keys.cached(), 20);
    keys.purge_if(|other| other == TenantId(1));
    assert_eq!(keys.cached(), 10);
    for number in 0..1000 {
        keys.for_writing(&header(number), TenantId(3)).unwrap();
    }
    assert!(keys.cached() <= 100, "{}", keys.cached());
}

#[test]
fn new_headers_differ_in_identity_and_salt() {
    let rng = seeded(9);
    let io = crate::io::Io {
        rng,
        ..crate::io::Io::os()
    };
    let make = || FileHeader::new(&io, FileKind::Wal, Epoch::FIRST, 1, Chain::default());
    let (a, b) = (make().unwrap(), make().unwrap());
    assert_ne!(a.file_id, b.file_id);
    assert_ne!(a.salt, b.salt);
    assert_eq!(
        FileHeader::decode(Path::new("w"), &a.encode(), FileKind::Wal).unwrap(),
        a
    );
}
