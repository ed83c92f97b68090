//! Every parser of the protocol as a plain function over bytes, for fuzzing (package `strongroom-fuzz`).
//!
//! The bytes are a message as the network delivers it: protobuf first, then the rules of `wire`. What is
//! accepted must read back the same after it was written again.

use bytes::Bytes;
use prost::Message;
use strongroom::hooks::parsers::Parser;
use strongroom::{Chain, Epoch, EpochStart, Lsn};

use crate::core::epoch::{Hello, Verdict};
use crate::core::message::{FenceOutcome, FromBase, FromPrimary, FromStandby, Seen};
use crate::core::progress::Ack;
use crate::dirs;
use crate::keystream::{Assembly, chunks};
use crate::status::{NodeRole, PeerStatus};
use crate::wire::{self, FromKeysStandby, v1};

/// The parsers of this crate.
pub fn all() -> Vec<Parser> {
    let parser = |name, check: fn(&[u8]) -> bool, samples: fn() -> Vec<Vec<u8>>| Parser {
        name,
        check,
        repair: Parser::no_repair,
        samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    };
    vec![
        parser("rpc_stream_standby", check_standby, standby_samples),
        Parser {
            repair: repair_primary,
            ..parser("rpc_stream_primary", check_primary, primary_samples)
        },
        parser("rpc_keys_standby", check_keys, keys_samples),
        Parser {
            repair: repair_chunk,
            // A change grows by doubling into new buffers, from 1 MiB on.
            memory: 4 << 20,
            ..parser("rpc_keys_chunks", check_chunks, chunk_samples)
        },
        parser("rpc_base_request", check_base_request, base_request_samples),
        Parser {
            repair: repair_base,
            ..parser("rpc_base_copy", check_base, base_samples)
        },
        parser("rpc_fence", check_fence, fence_samples),
        parser("rpc_fence_reply", check_fence_reply, fence_reply_samples),
        parser("rpc_status_reply", check_status, status_samples),
        parser("node_role", dirs::role_reads_back, role_samples),
    ]
}

/// Decodes, and checks that what `again` makes of it decodes to the same.
fn reads_back<M: Message + Default, T>(
    bytes: &[u8],
    decode: impl Fn(M) -> Option<T>,
    again: impl Fn(T) -> M,
) -> bool {
    let Some(found) = M::decode(bytes).ok().and_then(&decode) else {
        return false;
    };
    let once = again(found).encode_to_vec();
    let Some(found) = M::decode(&*once).ok().and_then(&decode) else {
        panic!("a message that was written again is refused");
    };
    assert!(
        again(found).encode_to_vec() == once,
        "a message reads back otherwise"
    );
    true
}

fn check_standby(bytes: &[u8]) -> bool {
    reads_back(
        bytes,
        |message| wire::decode_standby(message).ok(),
        |found| match found {
            FromStandby::Hello(hello) => wire::encode_hello(&hello),
            FromStandby::Ack(ack) => wire::encode_ack(&ack),
        },
    )
}

fn check_primary(bytes: &[u8]) -> bool {
    reads_back(
        bytes,
        |message| wire::decode_primary(message).ok(),
        |found| match found {
            FromPrimary::Ok {
                epoch,
                start,
                end,
                window_bytes,
                heartbeat_ms,
                node,
            } => {
                assert!(heartbeat_ms > 0, "a primary that never speaks");
                wire::encode_ok(epoch, start, end, window_bytes, heartbeat_ms, &node)
            }
            FromPrimary::Diverged { fork_epoch, fork } => {
                wire::encode_refusal(Verdict::Diverged { fork_epoch, fork }, Epoch::ZERO)
            }
            FromPrimary::TooFarBehind { oldest } => {
                wire::encode_refusal(Verdict::TooFarBehind { oldest }, Epoch::ZERO)
            }
            FromPrimary::NotPrimary { epoch } => wire::encode_not_primary(epoch),
            FromPrimary::Younger { epoch } => wire::encode_refusal(Verdict::Younger(epoch), epoch),
            FromPrimary::WrongDatabase => wire::encode_refusal(Verdict::WrongDatabase, Epoch::ZERO),
            FromPrimary::Wal {
                epoch,
                first,
                bytes,
                seen,
            } => {
                assert!(
                    (1..=wire::CHUNK_BYTES_MAX).contains(&bytes.len()),
                    "a chunk out of range"
                );
                assert!(
                    first.0.checked_add(bytes.len() as u64).is_some(),
                    "a chunk past the end"
                );
                wire::encode_wal(epoch, first, bytes, seen)
            }
            FromPrimary::Heartbeat { epoch, seen } => wire::encode_heartbeat(epoch, seen),
        },
    )
}

fn check_keys(bytes: &[u8]) -> bool {
    reads_back(
        bytes,
        |message| wire::decode_keys_standby(message).ok(),
        |found| match found {
            FromKeysStandby::Hello {
                database_id,
                session,
                node,
                since,
                epoch,
            } => wire::encode_keys_hello(database_id, session, &node, since, epoch),
            FromKeysStandby::Ack { version } => wire::encode_keys_ack(version),
        },
    )
}

/// Two bytes of length, then a chunk, as often as there are bytes.
fn check_chunks(bytes: &[u8]) -> bool {
    let mut assembly = Assembly::default();
    let mut whole = false;
    for message in pieces(bytes) {
        let Ok(chunk) = v1::KeysChunk::decode(message) else {
            return false;
        };
        match assembly.push(chunk) {
            Ok(None) => {}
            Ok(Some(change)) => {
                whole = true;
                let again: Vec<_> = chunks(change.since, change.version, &change.encoded).collect();
                let total: usize = again.iter().map(|chunk| chunk.data.len()).sum();
                assert!(total == change.encoded.len(), "a change was put together wrongly");
            }
            Err(_) => return false,
        }
    }
    whole
}

fn check_base_request(bytes: &[u8]) -> bool {
    reads_back(
        bytes,
        |message| wire::decode_base_request(message).ok(),
        |(node, id)| wire::encode_base_request(&node, id),
    )
}

fn check_base(bytes: &[u8]) -> bool {
    reads_back(
        bytes,
        |message| wire::decode_base(message).ok(),
        |found| {
            if let FromBase::File { name, .. } = &found {
                let inside = std::path::Path::new(name)
                    .components()
                    .all(|part| matches!(part, std::path::Component::Normal(_)));
                assert!(inside, "a file outside the directory");
            }
            wire::encode_base(found)
        },
    )
}

fn check_fence(bytes: &[u8]) -> bool {
    reads_back(
        bytes,
        |message| wire::decode_fence(message).ok(),
        |(node, id, epoch)| wire::encode_fence(&node, id, epoch),
    )
}

fn check_fence_reply(bytes: &[u8]) -> bool {
    reads_back(
        bytes,
        |message: v1::FenceReply| wire::decode_fence_reply(&message).ok(),
        |(outcome, highest)| wire::encode_fence_reply(outcome, highest, Lsn::ZERO),
    )
}

fn check_status(bytes: &[u8]) -> bool {
    reads_back(
        bytes,
        |message| wire::decode_status(message).ok(),
        |status| wire::encode_status(&status),
    )
}

/// Cuts `bytes` into messages with two bytes of length before each; the last may be cut short.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (len, after) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_le_bytes(*len)).min(after.len());
        let (piece, after) = after.split_at(len);
        rest = after;
        Some(piece)
    })
}

/// Writes `message` over the bytes it came from, if it still takes as many.
fn put_back(bytes: &mut [u8], message: &impl Message) {
    let new = message.encode_to_vec();
    if new.len() == bytes.len() {
        bytes.copy_from_slice(&new);
    }
}

fn repair_primary(bytes: &mut [u8]) {
    let Ok(mut message) = v1::PrimaryMessage::decode(&*bytes) else {
        return;
    };
    if let Some(v1::primary_message::Message::Wal(wal)) = &mut message.message {
        wal.crc32 = crc32fast::hash(&wal.data);
        put_back(bytes, &message);
    }
}

fn repair_base(bytes: &mut [u8]) {
    let Ok(mut message) = v1::BaseMessage::decode(&*bytes) else {
        return;
    };
    if let Some(v1::base_message::Message::Chunk(chunk)) = &mut message.message {
        chunk.crc32 = crc32fast::hash(&chunk.data);
        put_back(bytes, &message);
    }
}

fn repair_chunk(bytes: &mut [u8]) {
    let mut rest = bytes;
    while let Some((len, after)) = std::mem::take(&mut rest).split_first_chunk_mut::<2>() {
        let len = usize::from(u16::from_le_bytes(*len)).min(after.len());
        let (piece, after) = after.split_at_mut(len);
        if let Ok(mut chunk) = v1::KeysChunk::decode(&*piece) {
            chunk.crc32 = crc32fast::hash(&chunk.data);
            put_back(piece, &chunk);
        }
        rest = after;
    }
}

fn encoded<M: Message>(messages: impl IntoIterator<Item = M>) -> Vec<Vec<u8>> {
    messages
        .into_iter()
        .map(|message| message.encode_to_vec())
        .collect()
}

fn standby_samples() -> Vec<Vec<u8>> {
    let reign = |epoch, start| EpochStart {
        epoch: Epoch(epoch),
        start: Lsn(start),
        chain: Chain([epoch as u8; 16]),
    };
    let hello = Hello {
        database_id: [1; 16],
        node: "b-1.example".into(),
        session: [2; 16],
        history: vec![reign(65536, 0), reign(65537, 9)],
        highest: Epoch(65537),
        durable: reign(65537, 77),
        keystore_version: 6,
    };
    let ack = Ack {
        epoch: Epoch(65537),
        received: Lsn(300),
        durable: Lsn(200),
        applied: Lsn(100),
    };
    encoded([wire::encode_hello(&hello), wire::encode_ack(&ack)])
}

fn primary_samples() -> Vec<Vec<u8>> {
    let seen = Seen {
        end: Lsn(500),
        ms: 1_700_000_000_000,
    };
    let epoch = Epoch(65537);
    encoded([
        wire::encode_ok(epoch, Lsn(3), Lsn(500), 1 << 20, 500, "a"),
        wire::encode_refusal(
            Verdict::Diverged {
                fork_epoch: epoch,
                fork: Lsn(9),
            },
            epoch,
        ),
        wire::encode_refusal(Verdict::TooFarBehind { oldest: Lsn(9) }, epoch),
        wire::encode_refusal(Verdict::Younger(epoch), epoch),
        wire::encode_refusal(Verdict::WrongDatabase, epoch),
        wire::encode_not_primary(epoch),
        wire::encode_wal(epoch, Lsn(3), Bytes::from_static(&[7; 90]), seen),
        wire::encode_heartbeat(epoch, seen),
    ])
}

fn keys_samples() -> Vec<Vec<u8>> {
    encoded([
        wire::encode_keys_hello(Some([1; 16]), Some([2; 16]), "b", 7, Epoch::FIRST),
        wire::encode_keys_hello(None, None, "b", 0, Epoch::FIRST),
        wire::encode_keys_ack(9),
    ])
}

fn chunk_samples() -> Vec<Vec<u8>> {
    let change = |version, len| {
        let mut out = Vec::new();
        for chunk in chunks(version - 1, version, &vec![version as u8; len]) {
            let chunk = chunk.encode_to_vec();
            out.extend_from_slice(&(chunk.len() as u16).to_le_bytes());
            out.extend_from_slice(&chunk);
        }
        out
    };
    vec![change(3, 40), [change(4, 100), change(5, 1)].concat()]
}

fn base_request_samples() -> Vec<Vec<u8>> {
    encoded([
        wire::encode_base_request("b", Some([1; 16])),
        wire::encode_base_request("b", None),
    ])
}

fn base_samples() -> Vec<Vec<u8>> {
    let begin = FromBase::Begin {
        database_id: [1; 16],
        epoch: Epoch(65537),
        lsn: Lsn(900),
        files: 3,
        bytes: 4000,
    };
    let file = FromBase::File {
        name: "tables/0000000000000002.table".into(),
        bytes: 4000,
    };
    let chunk = FromBase::Chunk {
        offset: 100,
        bytes: Bytes::from_static(&[5; 60]),
    };
    let end = FromBase::End {
        files: 3,
        bytes: 4000,
    };
    encoded([begin, file, chunk, end].map(wire::encode_base))
}

fn fence_samples() -> Vec<Vec<u8>> {
    encoded([wire::encode_fence("b", [1; 16], Epoch(131_072))])
}

fn fence_reply_samples() -> Vec<Vec<u8>> {
    encoded([wire::encode_fence_reply(
        FenceOutcome::Recorded,
        Epoch(131_072),
        Lsn(5),
    )])
}

fn status_samples() -> Vec<Vec<u8>> {
    let status = PeerStatus {
        node: "a".into(),
        role: NodeRole::Primary,
        database_id: Some([1; 16]),
        epoch: Epoch(65537),
        highest_epoch: Epoch(65538),
        fenced_by: Some(Epoch(65538)),
        durable: Lsn(5),
        applied: Lsn(4),
        keystore_version: 3,
    };
    encoded([wire::encode_status(&status)])
}

fn role_samples() -> Vec<Vec<u8>> {
    use dirs::Recorded;
    [
        Recorded::Primary,
        Recorded::Standby,
        Recorded::Promoting { from: Epoch(65537) },
    ]
    .map(|role| dirs::role_text(role).into_bytes())
    .into()
}
