//! The protocol's messages and what they mean here. Outside the service glue (`service.rs`, and the calls in
//! `dial.rs`) nothing else names a generated type.
//!
//! Decoding checks everything a message claims: 16-byte fields have 16 bytes, lengths are in range, checksums
//! match, names are names. What fails is [`Malformed`]: the call ends, nothing of it is used.

use bytes::Bytes;
use strongroom::{Chain, Epoch, EpochStart, Lsn};
use tonic::{Code, Status};
use zeroize::Zeroize;

use crate::core::epoch::{Hello, Verdict};
use crate::core::message::{FromBase, FromPrimary, FromStandby, Seen};
use crate::core::progress::Ack;
use crate::error::{Error, ErrorKind};
use crate::options::valid_node_name;

#[rustfmt::skip]
#[allow(missing_docs, dead_code, clippy::all)]
#[path = "generated/strongroom.replication.v1.rs"]
pub(crate) mod v1;

mod control;
pub(crate) use control::{
    decode_fence, decode_fence_reply, decode_status, encode_fence, encode_fence_reply, encode_status,
    encode_status_request,
};

/// Holds keys: wiped whoever drops it, on both sides.
impl Drop for v1::KeysChunk {
    fn drop(&mut self) {
        self.data.zeroize();
    }
}

/// The protocol spoken here.
pub(crate) const PROTOCOL: u32 = 1;
/// Most payload bytes in one message.
pub(crate) const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Longest message accepted: tonic's own default, set in so many words.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Most epochs a Hello may list.
const EPOCHS_MAX: usize = 65_536;
/// Longest encoded keystore change accepted: 100,000 tenants need some 15 MB.
pub(crate) const KEYS_BYTES_MAX: u64 = 1 << 30;
/// Most files in a base copy.
pub(crate) const BASE_FILES_MAX: u64 = 1 << 24;
/// Longest relative file name in a base copy.
const FILE_NAME_BYTES_MAX: usize = 255;

/// A message that breaks the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed(pub &'static str);

type Decoded<T> = std::result::Result<T, Malformed>;

impl From<Malformed> for Status {
    fn from(Malformed(what): Malformed) -> Status {
        Status::invalid_argument(what)
    }
}

impl From<Malformed> for Error {
    fn from(Malformed(what): Malformed) -> Error {
        Error::new(
            ErrorKind::Protocol,
            format!("the peer broke the protocol: {what}"),
        )
    }
}

/// What a status from the peer means to the caller.
pub(crate) fn status_error(status: Status) -> Error {
    let kind = match status.code() {
        Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::ResourceExhausted
        | Code::Unimplemented => ErrorKind::Refused,
        Code::InvalidArgument | Code::OutOfRange | Code::DataLoss => ErrorKind::Protocol,
        _ => ErrorKind::Unreachable,
    };
    Error::new(
        kind,
        format!("the peer answered {:?}: {}", status.code(), status.message()),
    )
}

fn sixteen(bytes: &[u8], what: &'static str) -> Decoded<[u8; 16]> {
    bytes.try_into().map_err(|_| Malformed(what))
}

fn id_or_none(bytes: &[u8], what: &'static str) -> Decoded<Option<[u8; 16]>> {
    if bytes.is_empty() {
        Ok(None)
    } else {
        sixteen(bytes, what).map(Some)
    }
}

fn id_bytes(id: Option<[u8; 16]>) -> Bytes {
    id.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(&id))
}

fn node_name(name: String) -> Decoded<String> {
    if valid_node_name(&name) {
        Ok(name)
    } else {
        Err(Malformed("node name"))
    }
}

/// Checks the protocol version a call names.
pub(crate) fn check_protocol(theirs: u32) -> std::result::Result<(), Status> {
    if theirs == PROTOCOL {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "protocol {theirs} is not spoken here, {PROTOCOL} is"
    )))
}

fn check_chunk(data: &[u8], crc32: u32) -> Decoded<()> {
    if data.is_empty() || data.len() > CHUNK_BYTES_MAX {
        return Err(Malformed("chunk length"));
    }
    if crc32fast::hash(data) != crc32 {
        return Err(Malformed("chunk checksum"));
    }
    Ok(())
}

// ------------------------------------------------------------------------------------------- Stream

pub(crate) fn encode_hello(hello: &Hello) -> v1::StandbyMessage {
    let epoch_start = |s: &EpochStart| v1::EpochStart {
        epoch: s.epoch.0,
        start_lsn: s.start.0,
        chain: Bytes::copy_from_slice(&s.chain.0),
    };
    // Only the newest can matter when a history is that long.
    let skip = hello.history.len().saturating_sub(EPOCHS_MAX);
    let message = v1::standby_message::Message::Hello(v1::Hello {
        protocol: PROTOCOL,
        database_id: Bytes::copy_from_slice(&hello.database_id),
        node: hello.node.clone(),
        session: Bytes::copy_from_slice(&hello.session),
        epochs: hello.history.iter().skip(skip).map(epoch_start).collect(),
        highest_epoch: hello.highest.0,
        durable_epoch: hello.durable.epoch.0,
        durable_lsn: hello.durable.start.0,
        durable_chain: Bytes::copy_from_slice(&hello.durable.chain.0),
        keystore_version: hello.keystore_version,
    });
    v1::StandbyMessage {
        message: Some(message),
    }
}

pub(crate) fn encode_ack(ack: &Ack) -> v1::StandbyMessage {
    let message = v1::standby_message::Message::Ack(v1::Ack {
        epoch: ack.epoch.0,
        received_lsn: ack.received.0,
        durable_lsn: ack.durable.0,
        applied_lsn: ack.applied.0,
    });
    v1::StandbyMessage {
        message: Some(message),
    }
}

/// The protocol version is checked first, so that a newer peer is told so and not called malformed.
pub(crate) fn decode_standby(message: v1::StandbyMessage) -> std::result::Result<FromStandby, Status> {
    match message.message {
        Some(v1::standby_message::Message::Hello(hello)) => {
            check_protocol(hello.protocol)?;
            Ok(FromStandby::Hello(decode_hello(hello)?))
        }
        Some(v1::standby_message::Message::Ack(ack)) => Ok(FromStandby::Ack(Ack {
            epoch: Epoch(ack.epoch),
            received: Lsn(ack.received_lsn),
            durable: Lsn(ack.durable_lsn),
            applied: Lsn(ack.applied_lsn),
        })),
        None => Err(Malformed("empty message").into()),
    }
}

fn decode_hello(hello: v1::Hello) -> Decoded<Hello> {
    if hello.epochs.len() > EPOCHS_MAX {
        return Err(Malformed("too many epochs"));
    }
    let history = hello
        .epochs
        .iter()
        .map(|s| {
            let chain = Chain(sixteen(&s.chain, "epoch chain")?);
            Ok(EpochStart {
                epoch: Epoch(s.epoch),
                start: Lsn(s.start_lsn),
                chain,
            })
        })
        .collect::<Decoded<Vec<_>>>()?;
    let ordered = history.windows(2).all(|pair| match pair {
        [a, b] => a.epoch < b.epoch && a.start <= b.start,
        _ => true,
    });
    if !ordered {
        return Err(Malformed("epochs out of order"));
    }
    Ok(Hello {
        database_id: sixteen(&hello.database_id, "database id")?,
        node: node_name(hello.node)?,
        session: sixteen(&hello.session, "session")?,
        history,
        highest: Epoch(hello.highest_epoch),
        durable: EpochStart {
            epoch: Epoch(hello.durable_epoch),
            start: Lsn(hello.durable_lsn),
            chain: Chain(sixteen(&hello.durable_chain, "chain")?),
        },
        keystore_version: hello.keystore_version,
    })
}

/// The answer to a Hello that is not HelloOk.
pub(crate) fn encode_refusal(verdict: Verdict, own: Epoch) -> v1::PrimaryMessage {
    use v1::primary_message::Message;
    let message = match verdict {
        Verdict::Diverged { fork_epoch, fork } => Message::Diverged(v1::Diverged {
            fork_epoch: fork_epoch.0,
            fork_lsn: fork.0,
        }),
        Verdict::TooFarBehind { oldest } => Message::TooFarBehind(v1::TooFarBehind { oldest_lsn: oldest.0 }),
        Verdict::Younger(_) => Message::Younger(v1::Younger { epoch: own.0 }),
        Verdict::WrongDatabase => Message::WrongDatabase(v1::WrongDatabase {}),
        // Resume is answered with `encode_ok`; asked here it means that nothing is served.
        Verdict::Resume(_) => Message::NotPrimary(v1::NotPrimary { epoch: own.0 }),
    };
    v1::PrimaryMessage {
        message: Some(message),
    }
}

pub(crate) fn encode_not_primary(epoch: Epoch) -> v1::PrimaryMessage {
    let message = v1::primary_message::Message::NotPrimary(v1::NotPrimary { epoch: epoch.0 });
    v1::PrimaryMessage {
        message: Some(message),
    }
}

pub(crate) fn encode_ok(
    epoch: Epoch,
    start: Lsn,
    end: Lsn,
    window: u64,
    heartbeat_ms: u32,
    node: &str,
) -> v1::PrimaryMessage {
    let message = v1::primary_message::Message::HelloOk(v1::HelloOk {
        epoch: epoch.0,
        start_lsn: start.0,
        end_lsn: end.0,
        window_bytes: window,
        heartbeat_ms,
        node: node.to_string(),
    });
    v1::PrimaryMessage {
        message: Some(message),
    }
}

/// Any message of a primary.
pub(crate) fn encode_primary(message: FromPrimary) -> v1::PrimaryMessage {
    match message {
        FromPrimary::Ok {
            epoch,
            start,
            end,
            window_bytes,
            heartbeat_ms,
            node,
        } => encode_ok(epoch, start, end, window_bytes, heartbeat_ms, &node),
        FromPrimary::Diverged { fork_epoch, fork } => {
            encode_refusal(Verdict::Diverged { fork_epoch, fork }, Epoch::ZERO)
        }
        FromPrimary::TooFarBehind { oldest } => encode_refusal(Verdict::TooFarBehind { oldest }, Epoch::ZERO),
        FromPrimary::NotPrimary { epoch } => encode_not_primary(epoch),
        FromPrimary::Younger { epoch } => encode_refusal(Verdict::Younger(epoch), epoch),
        FromPrimary::WrongDatabase => encode_refusal(Verdict::WrongDatabase, Epoch::ZERO),
        FromPrimary::Wal {
            epoch,
            first,
            bytes,
            seen,
        } => encode_wal(epoch, first, bytes, seen),
        FromPrimary::Heartbeat { epoch, seen } => encode_heartbeat(epoch, seen),
    }
}

pub(crate) fn encode_wal(epoch: Epoch, first: Lsn, bytes: Bytes, seen: Seen) -> v1::PrimaryMessage {
    let crc32 = crc32fast::hash(&bytes);
    let message = v1::primary_message::Message::Wal(v1::Wal {
        epoch: epoch.0,
        first_lsn: first.0,
        data: bytes,
        crc32,
        primary_ms: seen.ms,
        end_lsn: seen.end.0,
    });
    v1::PrimaryMessage {
        message: Some(message),
    }
}

pub(crate) fn encode_heartbeat(epoch: Epoch, seen: Seen) -> v1::PrimaryMessage {
    let message = v1::primary_message::Message::Heartbeat(v1::Heartbeat {
        epoch: epoch.0,
        end_lsn: seen.end.0,
        primary_ms: seen.ms,
    });
    v1::PrimaryMessage {
        message: Some(message),
    }
}

pub(crate) fn decode_primary(message: v1::PrimaryMessage) -> Decoded<FromPrimary> {
    use v1::primary_message::Message;
    Ok(match message.message.ok_or(Malformed("empty message"))? {
        Message::HelloOk(ok) => {
            if ok.heartbeat_ms == 0 {
                return Err(Malformed("heartbeat"));
            }
            FromPrimary::Ok {
                epoch: Epoch(ok.epoch),
                start: Lsn(ok.start_lsn),
                end: Lsn(ok.end_lsn),
                window_bytes: ok.window_bytes,
                heartbeat_ms: ok.heartbeat_ms,
                node: node_name(ok.node)?,
            }
        }
        Message::Diverged(d) => FromPrimary::Diverged {
            fork_epoch: Epoch(d.fork_epoch),
            fork: Lsn(d.fork_lsn),
        },
        Message::TooFarBehind(b) => FromPrimary::TooFarBehind {
            oldest: Lsn(b.oldest_lsn),
        },
        Message::NotPrimary(n) => FromPrimary::NotPrimary {
            epoch: Epoch(n.epoch),
        },
        Message::Younger(y) => FromPrimary::Younger {
            epoch: Epoch(y.epoch),
        },
        Message::WrongDatabase(_) => FromPrimary::WrongDatabase,
        Message::Wal(wal) => {
            check_chunk(&wal.data, wal.crc32)?;
            if wal.first_lsn.checked_add(wal.data.len() as u64).is_none() {
                return Err(Malformed("WAL position"));
            }
            FromPrimary::Wal {
                epoch: Epoch(wal.epoch),
                first: Lsn(wal.first_lsn),
                bytes: wal.data,
                seen: Seen {
                    end: Lsn(wal.end_lsn),
                    ms: wal.primary_ms,
                },
            }
        }
        Message::Heartbeat(h) => FromPrimary::Heartbeat {
            epoch: Epoch(h.epoch),
            seen: Seen {
                end: Lsn(h.end_lsn),
                ms: h.primary_ms,
            },
        },
    })
}

// --------------------------------------------------------------------------------------------- Keys

/// A standby's message on the key stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum FromKeysStandby {
    /// `session` None: the full set, once.
    Hello {
        database_id: Option<[u8; 16]>,
        session: Option<[u8; 16]>,
        node: String,
        since: u64,
        epoch: Epoch,
    },
    Ack {
        version: u64,
    },
}

pub(crate) fn encode_keys_hello(
    database_id: Option<[u8; 16]>,
    session: Option<[u8; 16]>,
    node: &str,
    since: u64,
    epoch: Epoch,
) -> v1::KeysMessage {
    let message = v1::keys_message::Message::Hello(v1::KeysHello {
        protocol: PROTOCOL,
        database_id: id_bytes(database_id),
        session: id_bytes(session),
        node: node.to_string(),
        since,
        epoch: epoch.0,
    });
    v1::KeysMessage {
        message: Some(message),
    }
}

pub(crate) fn encode_keys_ack(version: u64) -> v1::KeysMessage {
    v1::KeysMessage {
        message: Some(v1::keys_message::Message::Ack(v1::KeysAck { version })),
    }
}

pub(crate) fn decode_keys_standby(message: v1::KeysMessage) -> std::result::Result<FromKeysStandby, Status> {
    match message.message {
        Some(v1::keys_message::Message::Hello(hello)) => {
            check_protocol(hello.protocol)?;
            if hello.epoch == 0 {
                return Err(Malformed("epoch").into());
            }
            Ok(FromKeysStandby::Hello {
                database_id: id_or_none(&hello.database_id, "database id")?,
                session: id_or_none(&hello.session, "session")?,
                node: node_name(hello.node)?,
                since: hello.since,
                epoch: Epoch(hello.epoch),
            })
        }
        Some(v1::keys_message::Message::Ack(ack)) => Ok(FromKeysStandby::Ack { version: ack.version }),
        None => Err(Malformed("empty message").into()),
    }
}

// ---------------------------------------------------------------------------------------- Base copy

pub(crate) fn encode_base_request(node: &str, database_id: Option<[u8; 16]>) -> v1::BaseRequest {
    v1::BaseRequest {
        protocol: PROTOCOL,
        node: node.to_string(),
        database_id: id_bytes(database_id),
    }
}

pub(crate) fn decode_base_request(
    request: v1::BaseRequest,
) -> std::result::Result<(String, Option<[u8; 16]>), Status> {
    check_protocol(request.protocol)?;
    Ok((
        node_name(request.node)?,
        id_or_none(&request.database_id, "database id")?,
    ))
}

pub(crate) fn encode_base(message: FromBase) -> v1::BaseMessage {
    use v1::base_message::Message;
    let message = match message {
        FromBase::Begin {
            database_id,
            epoch,
            lsn,
            files,
            bytes,
        } => Message::Begin(v1::BaseBegin {
            database_id: Bytes::copy_from_slice(&database_id),
            epoch: epoch.0,
            lsn: lsn.0,
            files,
            bytes,
        }),
        FromBase::File { name, bytes } => Message::File(v1::BaseFile { name, bytes }),
        FromBase::Chunk { offset, bytes } => {
            let crc32 = crc32fast::hash(&bytes);
            Message::Chunk(v1::BaseChunk {
                offset,
                data: bytes,
                crc32,
            })
        }
        FromBase::End { files, bytes } => Message::End(v1::BaseEnd { files, bytes }),
    };
    v1::BaseMessage {
        message: Some(message),
    }
}

pub(crate) fn decode_base(message: v1::BaseMessage) -> Decoded<FromBase> {
    use v1::base_message::Message;
    Ok(match message.message.ok_or(Malformed("empty message"))? {
        Message::Begin(begin) => {
            if begin.files > BASE_FILES_MAX {
                return Err(Malformed("too many files"));
            }
            FromBase::Begin {
                database_id: sixteen(&begin.database_id, "database id")?,
                epoch: Epoch(begin.epoch),
                lsn: Lsn(begin.lsn),
                files: begin.files,
                bytes: begin.bytes,
            }
        }
        Message::File(file) => {
            if !valid_file_name(&file.name) {
                return Err(Malformed("file name"));
            }
            FromBase::File {
                name: file.name,
                bytes: file.bytes,
            }
        }
        Message::Chunk(chunk) => {
            check_chunk(&chunk.data, chunk.crc32)?;
            FromBase::Chunk {
                offset: chunk.offset,
                bytes: chunk.data,
            }
        }
        Message::End(end) => FromBase::End {
            files: end.files,
            bytes: end.bytes,
        },
    })
}

/// Relative, inside the directory, nothing clever. The engine checks again which names can be a
/// checkpoint's.
fn valid_file_name(name: &str) -> bool {
    (1..=FILE_NAME_BYTES_MAX).contains(&name.len())
        && name
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
        && !name.bytes().any(|b| b == b'\\' || b == 0 || b.is_ascii_control())
}

#[cfg(test)]
#[path = "wire/tests.rs"]
mod tests;
