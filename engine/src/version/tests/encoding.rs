//! Encodings of edits and states: round trips, the documented bytes, and what edits do to a state.

use super::super::current;
use super::super::edit::{BadEdit, Edit, Full, ManifestState, NodeState};
use super::super::manifest;
use super::super::testing::{Dice, Machine, state};
use crate::table::{TableMeta, ValueMeta};
use crate::types::{Chain, Epoch, EpochStart, Lsn, SeqNo, TenantId};

fn some<T>(dice: &Dice, value: impl FnOnce() -> T) -> Option<T> {
    (!dice.one_in(2)).then(value)
}

fn meta(dice: &Dice) -> TableMeta {
    let tenant = dice.below(1 << 40);
    let seqno = dice.below(1 << 40);
    TableMeta {
        number: dice.below(u64::MAX),
        file_id: [dice.below(256) as u8; 16],
        bytes: 1 << 20,
        entries: 1 + dice.below(1 << 20),
        digest: [dice.below(256) as u8; 32],
        tenant_min: TenantId(tenant),
        tenant_max: TenantId(tenant + dice.below(10)),
        seqno_min: SeqNo(seqno),
        seqno_max: SeqNo(seqno + dice.below(10)),
        values: (0..dice.below(3))
            .map(|file| (10 * file + dice.below(10), 1 + dice.below(1 << 40)))
            .collect(),
    }
}

fn values(dice: &Dice) -> Vec<ValueMeta> {
    let one = |_| ValueMeta {
        number: dice.below(u64::MAX),
        file_id: [dice.below(256) as u8; 16],
        bytes: dice.below(1 << 40),
        values: 1 + dice.below(1 << 20),
        digest: [dice.below(256) as u8; 32],
    };
    (0..dice.below(3)).map(one).collect()
}

fn epoch(dice: &Dice, number: u64) -> EpochStart {
    EpochStart {
        epoch: Epoch(number),
        start: Lsn(number * 10),
        chain: Chain([dice.below(256) as u8; 16]),
    }
}

fn edit(dice: &Dice) -> Edit {
    Edit {
        added: (0..dice.below(4))
            .map(|_| (dice.below(7) as u8, meta(dice)))
            .collect(),
        removed: (0..dice.below(4))
            .map(|_| (dice.below(7) as u8, dice.below(u64::MAX)))
            .collect(),
        values: values(dice),
        flushed: some(dice, || Lsn(dice.below(u64::MAX))),
        seqno: some(dice, || SeqNo(dice.below(u64::MAX))),
        epoch: some(dice, || epoch(dice, dice.below(1 << 50))),
        highest_epoch: some(dice, || Epoch(dice.below(u64::MAX))),
        fenced_by: some(dice, || Epoch(dice.below(u64::MAX))),
        database_id: some(dice, || [dice.below(256) as u8; 16]),
        state: some(dice, || NodeState::AwaitingAcceptance),
        reach: some(dice, || Lsn(dice.below(u64::MAX))),
        tenants: some(dice, || dice.below(u64::MAX)),
    }
}

#[test]
fn edits_and_full_states_survive_encoding() {
    for seed in 0..200 {
        let dice = Dice::new(seed);
        let edit = edit(&dice);
        assert_eq!(Edit::decode(&edit.encode()), Ok(edit), "seed {seed}");
        let full = Full {
            state: ManifestState {
                epochs: (1..=dice.below(5)).map(|number| epoch(&dice, number)).collect(),
                fenced_by: some(&dice, || Epoch(1 + dice.below(1 << 40))),
                state: NodeState::AwaitingAcceptance,
                reach: Lsn(dice.below(u64::MAX)),
                tenants: dice.below(3),
                ..state()
            },
            next_number: dice.below(u64::MAX),
            tables: (0..dice.below(5))
                .map(|_| (dice.below(7) as u8, meta(&dice)))
                .collect(),
            values: values(&dice),
        };
        assert_eq!(Full::decode(&full.encode()), Ok(full), "seed {seed}");
    }
}

#[test]
fn unknown_tag_is_told_from_malformed_fields() {
    let field = |tag: u8, value: &[u8]| [&[tag][..], &(value.len() as u32).to_le_bytes(), value].concat();
    let good = Edit {
        reach: Some(Lsn(9)),
        ..Edit::default()
    }
    .encode();
    let with = |more: Vec<u8>| Edit::decode(&[good.clone(), more].concat());
    assert_eq!(with(field(99, &[1, 2, 3])), Err(BadEdit::UnknownTag(99)));
    assert_eq!(with(field(0, &[])), Err(BadEdit::UnknownTag(0)));
    for (name, malformed) in [
        ("the field again", good.clone()),
        ("too short", field(3, &[0; 7])),
        ("too long", field(3, &[0; 9])),
        ("no such level", field(2, &[7, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("no such node state", field(9, &[4])),
        ("node state zero", field(9, &[0])),
        ("value cut", vec![3, 8, 0, 0, 0, 1]),
        ("length cut", vec![3, 8]),
        ("length beyond memory", vec![3, 255, 255, 255, 255, 1]),
        ("table meta cut", field(1, &[0; 50])),
        ("file number in an edit", field(11, &[0; 8])),
        ("value file meta cut", field(12, &[0; 71])),
        ("value file without values", field(12, &[0; 72])),
        ("references of no table", field(13, &[0; 24])),
    ] {
        assert!(matches!(with(malformed), Err(BadEdit::Malformed(_))), "{name}");
    }
    let full = Full {
        state: state(),
        next_number: 3,
        tables: Vec::new(),
        values: Vec::new(),
    }
    .encode();
    assert!(matches!(
        Full::decode(&full[..full.len() - 13]),
        Err(BadEdit::Malformed(_))
    ));
    assert!(matches!(
        Full::decode(&[full, field(2, &[0; 9])].concat()),
        Err(BadEdit::Malformed(_))
    ));
}

#[test]
fn random_bytes_decode_without_panic() {
    for seed in 0..2000 {
        let dice = Dice::new(seed);
        let mut bytes = edit(&dice).encode();
        for _ in 0..=dice.below(3) {
            if let Some(at) = bytes
                .len()
                .checked_sub(1)
                .map(|last| dice.below(last as u64 + 1) as usize)
            {
                bytes[at] = dice.below(256) as u8;
            }
        }
        let _ = Edit::decode(&bytes);
        let _ = Full::decode(&bytes);
    }
}

#[test]
fn state_follows_edits_and_refuses_to_go_back() {
    let mut state = state();
    let start = |epoch: u64, start: u64| EpochStart {
        epoch: Epoch(epoch),
        start: Lsn(start),
        chain: Chain([epoch as u8; 16]),
    };
    state.epochs = vec![start(1, 0)];
    state.highest_epoch = Epoch(1);
    let mut apply = |edit: Edit| {
        let result = state.apply(&edit);
        (result.is_ok(), state.clone())
    };
    let epoch = |e| Edit {
        epoch: Some(e),
        ..Edit::default()
    };
    assert_eq!(apply(epoch(start(5, 100))).1.epochs, [start(1, 0), start(5, 100)]);
    // The same once more changes nothing.
    assert_eq!(apply(epoch(start(5, 100))).1.epochs, [start(1, 0), start(5, 100)]);
    assert!(!apply(epoch(start(4, 120))).0, "epochs rise");
    // A promotion that had begun nothing, at the same place, is given up for the reign that did begin there.
    assert_eq!(
        apply(epoch(start(6, 100))).1.epochs,
        [start(1, 0), start(5, 100), start(6, 100)]
    );
    let (fine, after) = apply(epoch(start(5, 100)));
    assert!(fine);
    assert_eq!(
        (after.epochs, after.highest_epoch),
        (vec![start(1, 0), start(5, 100)], Epoch(6))
    );
    // A rewind to 90 forgets the reign that began at 100.
    let (fine, after) = apply(epoch(start(7, 90)));
    assert!(fine);
    assert_eq!(
        (after.epochs, after.highest_epoch),
        (vec![start(1, 0), start(7, 90)], Epoch(7))
    );
    let flushed = |lsn| Edit {
        flushed: Some(Lsn(lsn)),
        seqno: Some(SeqNo(lsn)),
        ..Edit::default()
    };
    assert!(apply(flushed(50)).0);
    assert!(!apply(flushed(49)).0);
    assert_eq!(apply(flushed(50)).1.flushed, Lsn(50));
    let fenced = |epoch| Edit {
        fenced_by: Some(Epoch(epoch)),
        ..Edit::default()
    };
    assert_eq!(apply(fenced(9)).1.fenced_by, Some(Epoch(9)));
    assert_eq!(apply(fenced(0)).1.fenced_by, None);
    let lower = Edit {
        highest_epoch: Some(Epoch(2)),
        ..Edit::default()
    };
    assert_eq!(apply(lower).1.highest_epoch, Epoch(7));
    let reach = |lsn| Edit {
        reach: Some(Lsn(lsn)),
        ..Edit::default()
    };
    assert_eq!(
        apply(reach(70)).1.reach,
        apply(reach(60)).1.reach,
        "durable stays durable"
    );
}

#[test]
fn encodings_are_the_documented_bytes() {
    let edit = Edit {
        removed: vec![(2, 0x0102)],
        flushed: Some(Lsn(3)),
        epoch: Some(EpochStart {
            epoch: Epoch(4),
            start: Lsn(5),
            chain: Chain([6; 16]),
        }),
        fenced_by: Some(Epoch(7)),
        database_id: Some([8; 16]),
        state: Some(NodeState::AwaitingAcceptance),
        tenants: Some(9),
        ..Edit::default()
    };
    let expected = [
        "02 09000000 02 0201000000000000",
        "03 08000000 0300000000000000",
        "07 08000000 0700000000000000",
        "0e 08000000 0900000000000000",
        "05 20000000 0400000000000000 0500000000000000 06060606060606060606060606060606",
        "08 10000000 08080808080808080808080808080808",
        "09 01000000 02",
    ];
    assert_eq!(hex::encode(edit.encode()), expected.concat().replace(' ', ""));
    let full = Full {
        state: ManifestState {
            reach: Lsn(9),
            tenants: 2,
            ..ManifestState::default()
        },
        next_number: 10,
        tables: Vec::new(),
        values: Vec::new(),
    };
    let expected = [
        "03 08000000 0000000000000000",
        "04 08000000 0000000000000000",
        "06 08000000 0000000000000000",
        "07 08000000 0000000000000000",
        "08 10000000 00000000000000000000000000000000",
        "09 01000000 01",
        "0a 08000000 0900000000000000",
        "0e 08000000 0200000000000000",
        "0b 08000000 0a00000000000000",
    ];
    assert_eq!(hex::encode(full.encode()), expected.concat().replace(' ', ""));

    // A table with values apart, and the value file.
    let mut table = meta(&Dice::new(1));
    (table.number, table.values) = (4, vec![(5, 6)]);
    let apart = Edit {
        added: vec![(0, table.clone())],
        values: vec![ValueMeta {
            number: 5,
            file_id: [7; 16],
            bytes: 900,
            values: 2,
            digest: [8; 32],
        }],
        ..Edit::default()
    };
    let mut encoded = Vec::new();
    table.encode(&mut encoded);
    let expected = [
        "01 69000000 00".to_string() + &hex::encode(&encoded),
        "0d 18000000 0400000000000000 0500000000000000 0600000000000000".to_string(),
        "0c 48000000 0500000000000000 07070707070707070707070707070707 8403000000000000 0200000000000000"
            .to_string(),
        "08".repeat(32),
    ];
    assert_eq!(hex::encode(apart.encode()), expected.concat().replace(' ', ""));

    // The frame around them: where things stand in files.
    let machine = Machine::new();
    let set = machine.create().unwrap();
    let number = machine.manifests()[0];
    let manifest = machine.fs.content(manifest::path(&machine.db, number)).unwrap();
    assert_eq!(manifest[..8], *b"STRGROOM");
    assert_eq!(
        (manifest[10], &manifest[144..148]),
        (3, &[1, 0, 0, 0][..]),
        "kind, key version"
    );
    let frame = u32::from_le_bytes(manifest[152..156].try_into().unwrap()) as usize;
    assert_eq!(152 + 8 + frame, manifest.len());
    assert_eq!(
        crc32fast::hash(&[&manifest[152..156], &manifest[160..]].concat()).to_le_bytes(),
        manifest[156..160]
    );
    let open = machine.fs.content(current::path(&machine.db)).unwrap();
    assert_eq!((open.len(), open[10], &open[128..188]), (192, 6, &[0; 60][..]));
    assert_eq!(open[72..80], number.to_le_bytes());
    set.close().unwrap();
    let closed = machine.fs.content(current::path(&machine.db)).unwrap();
    let manifest = machine
        .fs
        .content(manifest::path(&machine.db, machine.manifests()[0]))
        .unwrap();
    assert_eq!(closed[128..136], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(closed[136..144], (manifest.len() as u64).to_le_bytes());
    use sha2::Digest;
    assert_eq!(closed[144..176], sha2::Sha256::digest(&manifest)[..]);
}
