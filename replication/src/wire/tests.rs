use super::*;
use crate::status::{NodeRole, PeerStatus};
use prost::Message as _;

fn hello() -> Hello {
    Hello {
        database_id: [1; 16],
        node: "b-1.example".into(),
        session: [2; 16],
        history: vec![
            EpochStart {
                epoch: Epoch::FIRST,
                start: Lsn(0),
                chain: Chain([3; 16]),
            },
            EpochStart {
                epoch: Epoch::new(1, 1),
                start: Lsn(9),
                chain: Chain([4; 16]),
            },
        ],
        highest: Epoch::new(1, 1),
        durable: EpochStart {
            epoch: Epoch::new(1, 1),
            start: Lsn(77),
            chain: Chain([5; 16]),
        },
        keystore_version: 6,
    }
}

fn raw_hello() -> v1::Hello {
    match encode_hello(&hello()).message {
        Some(v1::standby_message::Message::Hello(hello)) => hello,
        other => panic!("{other:?}"),
    }
}

fn decode(hello: v1::Hello) -> std::result::Result<FromStandby, Status> {
    decode_standby(v1::StandbyMessage {
        message: Some(v1::standby_message::Message::Hello(hello)),
    })
}

#[test]
fn hello_encoded_then_decoded_equal() {
    let FromStandby::Hello(back) = decode_standby(encode_hello(&hello())).unwrap() else {
        panic!()
    };
    assert_eq!(format!("{back:?}"), format!("{:?}", hello()));
}

#[test]
fn hello_spoiled_then_refused() {
    type Spoil = fn(&mut v1::Hello);
    let table: &[(&str, Code, Spoil)] = &[
        ("protocol 0", Code::FailedPrecondition, |h| h.protocol = 0),
        ("protocol 2", Code::FailedPrecondition, |h| h.protocol = 2),
        ("no id", Code::InvalidArgument, |h| h.database_id = Bytes::new()),
        ("long id", Code::InvalidArgument, |h| {
            h.database_id = vec![0; 17].into()
        }),
        ("no name", Code::InvalidArgument, |h| h.node.clear()),
        ("path name", Code::InvalidArgument, |h| h.node = "../x".into()),
        ("long name", Code::InvalidArgument, |h| h.node = "x".repeat(1000)),
        ("session", Code::InvalidArgument, |h| {
            h.session = vec![0; 15].into()
        }),
        ("chain", Code::InvalidArgument, |h| h.durable_chain = Bytes::new()),
        ("epoch chain", Code::InvalidArgument, |h| {
            h.epochs[0].chain = Bytes::new()
        }),
        ("epochs back", Code::InvalidArgument, |h| h.epochs.reverse()),
        ("epochs twice", Code::InvalidArgument, |h| {
            h.epochs[1].epoch = Epoch::FIRST.0
        }),
        ("starts back", Code::InvalidArgument, |h| {
            h.epochs[0].start_lsn = 10
        }),
        ("many epochs", Code::InvalidArgument, |h| {
            h.epochs = vec![h.epochs[0].clone(); EPOCHS_MAX + 1]
        }),
    ];
    for (what, code, spoil) in table {
        let mut hello = raw_hello();
        spoil(&mut hello);
        assert_eq!(decode(hello).unwrap_err().code(), *code, "{what}");
    }
    decode_standby(v1::StandbyMessage { message: None }).unwrap_err();
}

#[test]
fn long_history_then_the_newest_epochs_are_sent() {
    let mut long = hello();
    long.history = (0..EPOCHS_MAX as u64 + 10)
        .map(|i| EpochStart {
            epoch: Epoch(i + 1),
            start: Lsn(i),
            chain: Chain([0; 16]),
        })
        .collect();
    let FromStandby::Hello(back) = decode_standby(encode_hello(&long)).unwrap() else {
        panic!()
    };
    assert_eq!(back.history.len(), EPOCHS_MAX);
    assert_eq!(back.history.last(), long.history.last());
}

#[test]
fn primary_messages_encoded_then_decoded_equal() {
    let seen = Seen {
        end: Lsn(90),
        ms: 1700,
    };
    let bytes = Bytes::from_static(b"records");
    let table = [
        (
            encode_ok(Epoch(5), Lsn(7), Lsn(9), 1 << 20, 1000, "a"),
            FromPrimary::Ok {
                epoch: Epoch(5),
                start: Lsn(7),
                end: Lsn(9),
                window_bytes: 1 << 20,
                heartbeat_ms: 1000,
                node: "a".into(),
            },
        ),
        (
            encode_wal(Epoch(5), Lsn(7), bytes.clone(), seen),
            FromPrimary::Wal {
                epoch: Epoch(5),
                first: Lsn(7),
                bytes,
                seen,
            },
        ),
        (
            encode_heartbeat(Epoch(5), seen),
            FromPrimary::Heartbeat {
                epoch: Epoch(5),
                seen,
            },
        ),
        (
            encode_refusal(
                Verdict::Diverged {
                    fork_epoch: Epoch(1),
                    fork: Lsn(2),
                },
                Epoch(5),
            ),
            FromPrimary::Diverged {
                fork_epoch: Epoch(1),
                fork: Lsn(2),
            },
        ),
        (
            encode_refusal(Verdict::TooFarBehind { oldest: Lsn(3) }, Epoch(5)),
            FromPrimary::TooFarBehind { oldest: Lsn(3) },
        ),
        (
            encode_refusal(Verdict::Younger(Epoch(8)), Epoch(5)),
            FromPrimary::Younger { epoch: Epoch(5) },
        ),
        (
            encode_refusal(Verdict::WrongDatabase, Epoch(5)),
            FromPrimary::WrongDatabase,
        ),
        (
            encode_not_primary(Epoch(5)),
            FromPrimary::NotPrimary { epoch: Epoch(5) },
        ),
    ];
    for (message, expected) in table {
        assert_eq!(decode_primary(message), Ok(expected));
    }
}

#[test]
fn wal_spoiled_then_refused() {
    let good = || match encode_wal(Epoch(5), Lsn(7), Bytes::from_static(b"records"), Seen::default()).message
    {
        Some(v1::primary_message::Message::Wal(wal)) => wal,
        other => panic!("{other:?}"),
    };
    type Spoil = fn(&mut v1::Wal);
    let table: &[(&str, Spoil)] = &[
        ("byte", |w| w.data = Bytes::from_static(b"recordz")),
        ("crc", |w| w.crc32 ^= 1),
        ("empty", |w| (w.data, w.crc32) = (Bytes::new(), 0)),
        ("long", |w| {
            w.data = vec![0; CHUNK_BYTES_MAX + 1].into();
            w.crc32 = crc32fast::hash(&w.data);
        }),
        ("position", |w| w.first_lsn = u64::MAX),
    ];
    for (what, spoil) in table {
        let mut wal = good();
        spoil(&mut wal);
        let message = v1::PrimaryMessage {
            message: Some(v1::primary_message::Message::Wal(wal)),
        };
        decode_primary(message).expect_err(what);
    }
}

#[test]
fn file_names_table() {
    for name in ["CURRENT", "wal/0000.wal", "tables/1.table", "a/b/c"] {
        assert!(valid_file_name(name), "{name}");
    }
    let long = "x".repeat(256);
    for name in [
        "",
        "/etc/passwd",
        "..",
        "../x",
        "a/../b",
        "a//b",
        "./a",
        "a/",
        "a\\b",
        "a\0b",
        "a\nb",
        &long,
    ] {
        assert!(!valid_file_name(name), "{name}");
    }
}

#[test]
fn base_messages_encoded_then_decoded_equal() {
    let table = [
        FromBase::Begin {
            database_id: [1; 16],
            epoch: Epoch(2),
            lsn: Lsn(3),
            files: 4,
            bytes: 5,
        },
        FromBase::File {
            name: "wal/0.wal".into(),
            bytes: 6,
        },
        FromBase::Chunk {
            offset: 7,
            bytes: Bytes::from_static(b"x"),
        },
        FromBase::End { files: 4, bytes: 5 },
    ];
    for message in table {
        assert_eq!(decode_base(encode_base(message.clone())), Ok(message));
    }
    let many = FromBase::Begin {
        database_id: [1; 16],
        epoch: Epoch(2),
        lsn: Lsn(3),
        files: BASE_FILES_MAX + 1,
        bytes: 5,
    };
    decode_base(encode_base(many)).unwrap_err();
}

#[test]
fn status_and_fence_encoded_then_decoded_equal() {
    use NodeRole::*;
    for role in [Waiting, Primary, Fenced, Seeding, Standby, Stopped] {
        for (database_id, fenced_by) in [(None, None), (Some([4; 16]), Some(Epoch(9)))] {
            let status = PeerStatus {
                node: "a".into(),
                role,
                database_id,
                epoch: Epoch(1),
                highest_epoch: Epoch(2),
                fenced_by,
                durable: Lsn(3),
                applied: Lsn(2),
                keystore_version: 5,
            };
            assert_eq!(decode_status(encode_status(&status)), Ok(status));
        }
    }
    use crate::core::message::FenceOutcome::*;
    for outcome in [Recorded, Harmless, NotHigher, WrongDatabase, Undecided] {
        let reply = encode_fence_reply(outcome, Epoch(3), Lsn(4));
        assert_eq!(decode_fence_reply(&reply), Ok((outcome, Epoch(3))));
    }
    decode_fence_reply(&v1::FenceReply::default()).unwrap_err();
    decode_fence_reply(&v1::FenceReply {
        outcome: 99,
        ..Default::default()
    })
    .unwrap_err();
    decode_status(v1::StatusReply {
        role: 99,
        node: "a".into(),
        ..Default::default()
    })
    .unwrap_err();
    decode_fence(encode_fence("a", [0; 16], Epoch(0))).unwrap_err();
}

/// Bytes that were cut or flipped decode to an error or to another message, and never panic.
#[test]
fn every_cut_and_flip_of_messages_then_no_panic() {
    let standby = encode_hello(&hello()).encode_to_vec();
    let primary =
        encode_wal(Epoch(5), Lsn(7), Bytes::from_static(b"records"), Seen::default()).encode_to_vec();
    let feed = |bytes: &[u8]| {
        if let Ok(message) = v1::StandbyMessage::decode(bytes) {
            let _ = decode_standby(message);
        }
        if let Ok(message) = v1::PrimaryMessage::decode(bytes) {
            let _ = decode_primary(message);
        }
        if let Ok(message) = v1::KeysMessage::decode(bytes) {
            let _ = decode_keys_standby(message);
        }
        if let Ok(message) = v1::BaseMessage::decode(bytes) {
            let _ = decode_base(message);
        }
        if let Ok(message) = v1::StatusReply::decode(bytes) {
            let _ = decode_status(message);
        }
    };
    for bytes in [standby, primary] {
        for cut in 0..bytes.len() {
            feed(&bytes[..cut]);
        }
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut flipped = bytes.clone();
                flipped[at] ^= flip;
                feed(&flipped);
            }
        }
    }
}
