//! Keystore changes on their way to a standby, both sides.
//!
//! A change is encoded by the engine (`KeyChanges::encode`), cut into chunks of at most 1 MiB, put together
//! again, decoded, applied and only then acknowledged. Copies made here are wiped; what the transport's
//! buffers hold on the way is not under our control, and is why nothing but mutual TLS carries it.
//!
//! A standby asks for changes since the version it got from this very primary in this very epoch, and for
//! everything otherwise: after a failover, versions of two keystores may agree by accident.

use std::sync::Arc;
use std::time::{Duration, Instant};

use strongroom::keys::KeyChanges;
use strongroom::{Engine, Epoch};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{debug, warn};
use zeroize::Zeroizing;

use crate::core::primary::Event;
use crate::dial::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::options::ReplicationConfig;
use crate::signal::{Feed, blocking};
use crate::standbys::{Reign, Session};
use crate::wire::{self, CHUNK_BYTES_MAX, FromKeysStandby, KEYS_BYTES_MAX, Malformed, status_error, v1};

type Message = std::result::Result<v1::KeysChunk, Status>;
pub(crate) type Outgoing = ReceiverStream<Message>;

/// How often the thread looks whether it should stop.
const WAIT: Duration = Duration::from_millis(250);
/// Allocated at once for a change, whatever length it claims.
const RESERVE_BYTES_MAX: usize = 1 << 20;

/// Cuts an encoded change that leads from `since` (0: a full set) to `version`.
pub(crate) fn chunks(since: u64, version: u64, encoded: &[u8]) -> impl Iterator<Item = v1::KeysChunk> {
    let total_bytes = encoded.len() as u64;
    encoded.chunks(CHUNK_BYTES_MAX).scan(0, move |next, part| {
        let offset = *next;
        *next += part.len() as u64;
        let crc32 = crc32fast::hash(part);
        Some(v1::KeysChunk {
            version,
            total_bytes,
            offset,
            data: part.to_vec(),
            crc32,
            since,
        })
    })
}

/// A change as it came.
pub(crate) struct Whole {
    /// Where it goes on from; 0: a full set.
    pub since: u64,
    /// Where it leads.
    pub version: u64,
    /// `KeyChanges::encode`.
    pub encoded: Zeroizing<Vec<u8>>,
}

/// Puts a change together again.
#[derive(Default)]
pub(crate) struct Assembly {
    since: u64,
    version: u64,
    total: u64,
    bytes: Zeroizing<Vec<u8>>,
}

impl Assembly {
    /// Takes the next chunk; the whole change when it was the last.
    pub(crate) fn push(&mut self, chunk: v1::KeysChunk) -> std::result::Result<Option<Whole>, Malformed> {
        self.take(&chunk)?;
        if (self.bytes.len() as u64) < self.total {
            return Ok(None);
        }
        let whole = std::mem::take(self);
        Ok(Some(Whole {
            since: whole.since,
            version: whole.version,
            encoded: whole.bytes,
        }))
    }

    fn take(&mut self, chunk: &v1::KeysChunk) -> std::result::Result<(), Malformed> {
        if chunk.data.is_empty() || chunk.data.len() > CHUNK_BYTES_MAX {
            return Err(Malformed("key chunk length"));
        }
        if crc32fast::hash(&chunk.data) != chunk.crc32 {
            return Err(Malformed("key chunk checksum"));
        }
        if self.bytes.is_empty() {
            if !(1..=KEYS_BYTES_MAX).contains(&chunk.total_bytes) {
                return Err(Malformed("key change length"));
            }
            if chunk.since >= chunk.version {
                return Err(Malformed("key change that leads nowhere"));
            }
            (self.since, self.version, self.total) = (chunk.since, chunk.version, chunk.total_bytes);
        }
        let have = self.bytes.len() as u64;
        let fits = chunk.data.len() as u64 <= self.total.saturating_sub(have);
        let same = (chunk.since, chunk.version, chunk.total_bytes) == (self.since, self.version, self.total);
        if !same || chunk.offset != have || !fits {
            return Err(Malformed("key chunk out of order"));
        }
        self.append(&chunk.data);
        Ok(())
    }

    /// Grows by copying into a new buffer, so that the old one is wiped.
    fn append(&mut self, data: &[u8]) {
        let needed = self.bytes.len() + data.len();
        if needed > self.bytes.capacity() {
            let total = usize::try_from(self.total).unwrap_or(usize::MAX);
            let capacity = needed
                .saturating_mul(2)
                .max(RESERVE_BYTES_MAX)
                .min(total)
                .max(needed);
            let mut larger = Zeroizing::new(Vec::with_capacity(capacity));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(data);
    }
}

// --------------------------------------------------------------------------------- primary's side

/// Answers a Keys call: changes as they come for a session, or the full set once without one.
pub(crate) async fn serve(
    patience: Duration,
    reign: Arc<Reign>,
    hello: FromKeysStandby,
    inbound: Streaming<v1::KeysMessage>,
) -> std::result::Result<Outgoing, Status> {
    let FromKeysStandby::Hello {
        database_id,
        session,
        node,
        since,
        epoch,
    } = hello
    else {
        return Err(Malformed("first message is no KeysHello").into());
    };
    if database_id.is_some_and(|id| id != reign.database_id) {
        return Err(Status::failed_precondition("another database"));
    }
    if epoch != reign.epoch {
        return Err(Status::failed_precondition("another reign"));
    }
    let (out, rx) = mpsc::channel(2);
    let engine = reign.engine.clone();
    let feed = |over| Feed {
        runtime: Handle::current(),
        queue: out.clone(),
        over,
        patience,
    };
    let Some(id) = session else {
        // A base copy's last step.
        let feed = feed(reign.over.clone());
        start_thread(move || {
            send_change(0, &engine.key_changes(0), &feed);
        })?;
        return Ok(ReceiverStream::new(rx));
    };
    let session = reign.session(id).filter(|s| s.node == node);
    let Some(session) = session else {
        return Err(Status::failed_precondition("no such stream"));
    };
    let begin = Event::KeysBegin {
        since,
        current: engine.keystore_version(),
    };
    if let Some(reason) = session.ends(begin) {
        session.end();
        return Err(Malformed(reason).into());
    }
    {
        let (feed, session) = (feed(session.over.clone()), session.clone());
        start_thread(move || send_changes(&engine, since, &session, &feed))?;
    }
    tokio::spawn(async move {
        let reason = tokio::select! {
            reason = take_acks(&session, inbound) => reason,
            () = out.closed() => "closed",
            () = session.over.raised() => "over",
        };
        debug!(node = %session.node, reason, "key stream ended");
        // WAL may not go on without it.
        session.end();
    });
    Ok(ReceiverStream::new(rx))
}

fn start_thread(work: impl FnOnce() + Send + 'static) -> std::result::Result<(), Status> {
    let thread = std::thread::Builder::new().name("key-sender".into()).spawn(work);
    thread
        .map(drop)
        .map_err(|e| Status::unavailable(format!("no thread for the stream: {e}")))
}

/// Sends every change after `since` until the session is over.
fn send_changes(engine: &Engine, since: u64, session: &Session, feed: &Feed<Message>) {
    let mut known = since;
    // Asked for everything: send it, even if nothing ever changes.
    let mut first = since == 0;
    while !feed.ended() {
        let asked = Instant::now();
        let version = if first {
            0
        } else {
            engine.wait_keystore(known, WAIT)
        };
        if version == known && !first {
            if asked.elapsed() < WAIT / 2 {
                // A closed engine does not wait; the session's end is near.
                std::thread::sleep(WAIT / 10);
            }
            continue;
        }
        let changes = engine.key_changes(if first { 0 } else { known });
        first = false;
        let from = std::mem::replace(&mut known, changes.version);
        // Before it is: an acknowledgement cannot overtake this.
        session.step(Event::KeysSent(known));
        if !send_change(from, &changes, feed) {
            return;
        }
    }
}

fn send_change(from: u64, changes: &KeyChanges, feed: &Feed<Message>) -> bool {
    let encoded = changes.encode();
    let since = if changes.full { 0 } else { from };
    chunks(since, changes.version, &encoded).all(|chunk| feed.send(Ok(chunk)))
}

async fn take_acks(session: &Session, mut inbound: Streaming<v1::KeysMessage>) -> &'static str {
    loop {
        let message = match inbound.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return "the standby ended it",
            Err(_) => return "the connection broke",
        };
        let Ok(FromKeysStandby::Ack { version }) = wire::decode_keys_standby(message) else {
            return "a message that is no acknowledgement";
        };
        if let Some(reason) = session.ends(Event::KeysAcked(version)) {
            warn!(node = %session.node, reason, "key acknowledgement refused");
            return reason;
        }
    }
}

// --------------------------------------------------------------------------------- standby's side

/// Applies keystore changes of a session until the stream ends. `takes` says whether a change is the next one,
/// by where it goes on from and where it leads. `on_applied` hears of each version, and says which to
/// acknowledge.
///
/// `busy` is locked while a change is being applied, also when this future is dropped meanwhile: whoever
/// holds it knows that none is.
pub(crate) async fn follow(
    mut client: Client,
    config: &ReplicationConfig,
    engine: &Engine,
    hello: v1::KeysMessage,
    busy: &Arc<tokio::sync::Mutex<()>>,
    takes: impl Fn(u64, u64) -> Result<()>,
    mut on_applied: impl FnMut(u64) -> Option<u64>,
) -> Result<()> {
    let (out, rx) = mpsc::channel(4);
    let closed = || Error::new(ErrorKind::Unreachable, "the key stream ended");
    out.send(hello).await.map_err(|_| closed())?;
    let answer = tokio::time::timeout(config.timeouts.call, client.keys(ReceiverStream::new(rx))).await;
    let mut inbound = answer.map_err(|_| closed())?.map_err(status_error)?.into_inner();
    let mut assembly = Assembly::default();
    while let Some(chunk) = inbound.message().await.map_err(status_error)? {
        let Some(change) = assembly.push(chunk)? else {
            continue;
        };
        let (version, bytes) = (change.version, change.encoded);
        takes(change.since, version)?;
        let (engine, busy) = (engine.clone(), busy.clone().lock_owned().await);
        blocking(move || {
            let _busy = busy;
            KeyChanges::decode(&bytes).and_then(|changes| engine.apply_key_changes(&changes))
        })
        .await??;
        if let Some(acknowledged) = on_applied(version) {
            out.send(wire::encode_keys_ack(acknowledged))
                .await
                .map_err(|_| closed())?;
        }
    }
    Err(closed())
}

/// The full key set, for a base copy of the primary of `epoch`.
pub(crate) async fn fetch_all(
    mut client: Client,
    config: &ReplicationConfig,
    database_id: [u8; 16],
    epoch: Epoch,
) -> Result<KeyChanges> {
    let missing = || Error::new(ErrorKind::Unreachable, "the peer sent no keys");
    let hello = wire::encode_keys_hello(Some(database_id), None, &config.node, 0, epoch);
    let (out, rx) = mpsc::channel(1);
    out.send(hello).await.map_err(|_| missing())?;
    let answer = tokio::time::timeout(config.timeouts.call, client.keys(ReceiverStream::new(rx))).await;
    let mut inbound = answer.map_err(|_| missing())?.map_err(status_error)?.into_inner();
    let mut assembly = Assembly::default();
    loop {
        let next = tokio::time::timeout(config.timeouts.progress, inbound.message()).await;
        let chunk = next
            .map_err(|_| missing())?
            .map_err(status_error)?
            .ok_or_else(missing)?;
        if let Some(change) = assembly.push(chunk)? {
            return Ok(KeyChanges::decode(&change.encoded)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assemble(parts: Vec<v1::KeysChunk>) -> std::result::Result<Option<(u64, Vec<u8>)>, Malformed> {
        let mut assembly = Assembly::default();
        let mut last = None;
        for part in parts {
            last = assembly.push(part)?;
        }
        Ok(last.map(|change| (change.version, change.encoded.to_vec())))
    }

    #[test]
    fn change_cut_and_put_together_then_equal() {
        for len in [
            1,
            5,
            CHUNK_BYTES_MAX - 1,
            CHUNK_BYTES_MAX,
            CHUNK_BYTES_MAX + 1,
            3 * CHUNK_BYTES_MAX + 7,
        ] {
            let encoded: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let parts: Vec<_> = chunks(8, 9, &encoded).collect();
            assert_eq!(parts.len(), len.div_ceil(CHUNK_BYTES_MAX));
            assert_eq!(assemble(parts).unwrap(), Some((9, encoded)), "{len}");
        }
    }

    #[test]
    fn spoiled_chunks_then_refused() {
        let encoded = vec![7; 2 * CHUNK_BYTES_MAX + 1];
        type Spoil = fn(&mut Vec<v1::KeysChunk>);
        let table: &[(&str, Spoil)] = &[
            ("byte", |p| p[1].data[0] ^= 1),
            ("checksum", |p| p[1].crc32 ^= 1),
            ("gap", |p| drop(p.remove(1))),
            ("twice", |p| p.insert(1, p[0].clone())),
            ("version", |p| p[1].version += 1),
            ("since", |p| p[1].since -= 1),
            ("leads nowhere", |p| {
                p.iter_mut().for_each(|c| c.since = c.version)
            }),
            ("total grows", |p| p[1].total_bytes += 1),
            ("total zero", |p| p[0].total_bytes = 0),
            ("total huge", |p| p[0].total_bytes = u64::MAX),
            ("total short", |p| {
                p.iter_mut()
                    .for_each(|c| c.total_bytes = CHUNK_BYTES_MAX as u64 + 1)
            }),
            ("empty", |p| p[1].data.clear()),
            ("offset", |p| p[0].offset = 1),
        ];
        for (what, spoil) in table {
            let mut parts: Vec<_> = chunks(8, 9, &encoded).collect();
            spoil(&mut parts);
            assemble(parts).expect_err(what);
        }
    }

    #[test]
    fn huge_claim_then_only_what_arrived_is_allocated() {
        let mut assembly = Assembly::default();
        let mut chunk = chunks(0, 1, &[1, 2, 3]).next().unwrap();
        chunk.total_bytes = KEYS_BYTES_MAX;
        assert!(assembly.push(chunk).unwrap().is_none());
        assert!(assembly.bytes.capacity() <= RESERVE_BYTES_MAX);
    }
}
