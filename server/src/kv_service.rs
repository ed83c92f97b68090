//! The key-value service: parse, apply, respond. The tenant is the one the gate let in.

use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use strongroom::{Error, ErrorKind, Keyspace, Snapshot};
use strongroom_client::Kind;
use strongroom_client::proto::kv as pb;
use strongroom_client::proto::kv::kv_server::Kv;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::auth::{Access, unauthenticated};
use crate::blocking;
use crate::kv_write;
use crate::snapshots::Snapshots;
use crate::status;

/// A range message is sent once it holds this much.
const CHUNK_BYTES: usize = 256 << 10;
/// Longest piece of a value in a range message: with a full chunk before it and its key, still below 1 MiB.
const PIECE_BYTES: usize = 512 << 10;
/// Keys of one call.
const KEYS_MAX: usize = 1024;
/// Values of a call for many keys, unless the first alone is larger.
const MANY_BYTES: usize = 16 << 20;
/// Frame of an entry on the wire, at most.
const ENTRY_OVERHEAD: usize = 24;

/// The service of one node.
#[derive(Clone)]
pub struct KvService {
    shared: Arc<Shared>,
}

struct Shared {
    snapshots: Arc<Snapshots>,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    patience: Duration,
}

impl KvService {
    /// `calls_max` reads and as many writes run at once. A range whose client takes nothing for `patience` ends.
    pub fn new(snapshots: Arc<Snapshots>, calls_max: usize, patience: Duration) -> KvService {
        let slots = || Arc::new(Semaphore::new(calls_max));
        KvService {
            shared: Arc::new(Shared {
                snapshots,
                reads: slots(),
                writes: slots(),
                patience,
            }),
        }
    }

    async fn read<T, F>(&self, access: &Access, call: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: FnOnce(&Access) -> strongroom::Result<T> + Send + 'static,
    {
        let access = access.clone();
        let result = blocking::run(&self.shared.reads, Kind::Internal, move || call(&access)).await?;
        result.map_err(|e| status::for_tenant(&e))
    }

    /// Commits the batch.
    async fn write(
        &self,
        access: Access,
        batch: pb::BatchRequest,
    ) -> Result<Response<pb::WriteResponse>, Status> {
        let durability = kv_write::durability(batch.durability)?;
        let result = blocking::run(&self.shared.writes, Kind::Unknown, move || {
            let committed = kv_write::commit(&access, &batch, durability);
            committed.map_err(|e| match e.kind() {
                ErrorKind::ReadOnly if access.engine.status().awaiting_acceptance => {
                    status::status(Kind::AwaitingAcceptance, e.to_string())
                }
                _ => status::for_tenant(&e),
            })
        });
        let position = result.await??;
        let position = pb::Position {
            epoch: position.epoch.0,
            lsn: position.lsn.0,
            seqno: position.seqno.0,
        };
        Ok(Response::new(pb::WriteResponse {
            position: Some(position),
        }))
    }
}

pub(crate) fn check_key(key: &[u8]) -> strongroom::Result<()> {
    if (1..=strongroom::KEY_BYTES_MAX).contains(&key.len()) {
        return Ok(());
    }
    let text = format!(
        "a key has 1 to {} bytes, this one has {}",
        strongroom::KEY_BYTES_MAX,
        key.len()
    );
    Err(Error::new(ErrorKind::Invalid, text))
}

/// A batch of one.
fn alone(operation: pb::Operation, durability: i32) -> pb::BatchRequest {
    pb::BatchRequest {
        operations: vec![operation],
        durability,
        conditions: Vec::new(),
    }
}

/// Answers for `keys`, as many as a message may have.
fn get_many(
    access: &Access,
    keyspace: &str,
    keys: &[Bytes],
    snapshot: Option<&Snapshot>,
) -> strongroom::Result<Vec<pb::GetResponse>> {
    if keys.is_empty() || keys.len() > KEYS_MAX {
        let text = format!(
            "a call asks for 1 to {KEYS_MAX} keys, this one for {}",
            keys.len()
        );
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    keys.iter().try_for_each(|key| check_key(key))?;
    let Some(keyspace) = open(access, keyspace)? else {
        return Ok(vec![pb::GetResponse::default(); keys.len()]);
    };
    // All of one version, however many values there are.
    let own = snapshot.is_none().then(|| access.tenant.snapshot());
    let Some(snapshot) = snapshot.or(own.as_ref()) else {
        return Ok(Vec::new());
    };
    let (mut answers, mut bytes) = (Vec::with_capacity(keys.len()), 0);
    for key in keys {
        let value = snapshot.get(&keyspace, key)?;
        bytes += value.as_ref().map_or(0, Bytes::len) + ENTRY_OVERHEAD;
        if bytes > MANY_BYTES && !answers.is_empty() {
            break;
        }
        answers.push(pb::GetResponse { value });
    }
    Ok(answers)
}

/// The keyspace to read; `None` if there is none of that name, which reads as empty.
fn open(access: &Access, name: &str) -> strongroom::Result<Option<Keyspace>> {
    match access.tenant.open_keyspace(name) {
        Ok(keyspace) => Ok(Some(keyspace)),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            // Either the keyspace is missing or the tenant is gone: only the first reads as empty.
            access.engine.tenant_by_id(access.tenant.id())?;
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// The caller the gate let in. Without a gate there is none.
fn enter<T>(request: Request<T>) -> Result<(Access, T), Status> {
    let (_, mut extensions, message) = request.into_parts();
    let access = extensions.remove::<Access>().ok_or_else(unauthenticated)?;
    Ok((access, message))
}

type Entries = Box<dyn Iterator<Item = strongroom::Result<(Bytes, Bytes)>> + Send>;

/// A range under way: what is left of it, and what of the last value was not sent yet.
struct Scan {
    entries: Entries,
    left: u64,
    keys_only: bool,
    rest: Bytes,
}

impl Scan {
    /// The next message; `None` at the end. Blocks.
    fn chunk(&mut self) -> strongroom::Result<Option<pb::RangeResponse>> {
        let mut message = pb::RangeResponse::default();
        let mut bytes = 0;
        while bytes < CHUNK_BYTES {
            let (key, value) = if !self.rest.is_empty() {
                (Bytes::new(), std::mem::take(&mut self.rest))
            } else if self.left == 0 {
                break;
            } else {
                let Some(entry) = self.entries.next().transpose()? else {
                    break;
                };
                self.left -= 1;
                if self.keys_only {
                    (entry.0, Bytes::new())
                } else {
                    entry
                }
            };
            let mut value = value;
            if value.len() > PIECE_BYTES {
                self.rest = value.split_off(PIECE_BYTES);
            }
            bytes += key.len() + value.len() + ENTRY_OVERHEAD;
            let value_continues = !self.rest.is_empty();
            message.entries.push(pb::RangeEntry {
                key,
                value,
                value_continues,
            });
        }
        Ok(if message.entries.is_empty() {
            None
        } else {
            Some(message)
        })
    }
}

pub(crate) fn bound(bound: Option<pb::Bound>) -> strongroom::Result<Bound<Bytes>> {
    let Some(bound) = bound else {
        return Ok(Bound::Unbounded);
    };
    if bound.key.len() > strongroom::KEY_BYTES_MAX {
        let text = format!("a bound has up to {} bytes", strongroom::KEY_BYTES_MAX);
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    Ok(if bound.exclusive {
        Bound::Excluded(bound.key)
    } else {
        Bound::Included(bound.key)
    })
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn hello(&self, request: Request<pb::HelloRequest>) -> Result<Response<pb::HelloResponse>, Status> {
        let (access, _) = enter(request)?;
        Ok(Response::new(pb::HelloResponse {
            epoch: access.epoch.0,
        }))
    }

    async fn get(&self, request: Request<pb::GetRequest>) -> Result<Response<pb::GetResponse>, Status> {
        let (access, message) = enter(request)?;
        let snapshot = match message.snapshot_id {
            0 => None,
            id => Some(self.shared.snapshots.get(access.tenant.id(), access.epoch, id)?),
        };
        let value = self.read(&access, move |access| {
            check_key(&message.key)?;
            let Some(keyspace) = open(access, &message.keyspace)? else {
                return Ok(None);
            };
            match snapshot {
                Some(snapshot) => snapshot.get(&keyspace, &message.key),
                None => keyspace.get(&message.key),
            }
        });
        Ok(Response::new(pb::GetResponse { value: value.await? }))
    }

    async fn get_many(
        &self,
        request: Request<pb::GetManyRequest>,
    ) -> Result<Response<pb::GetManyResponse>, Status> {
        let (access, message) = enter(request)?;
        let snapshot = match message.snapshot_id {
            0 => None,
            id => Some(self.shared.snapshots.get(access.tenant.id(), access.epoch, id)?),
        };
        let values = self.read(&access, move |access| {
            get_many(access, &message.keyspace, &message.keys, snapshot.as_ref())
        });
        Ok(Response::new(pb::GetManyResponse {
            values: values.await?,
        }))
    }

    async fn usage(&self, request: Request<pb::UsageRequest>) -> Result<Response<pb::UsageResponse>, Status> {
        let (access, _) = enter(request)?;
        let told = self.read(&access, |access| {
            Ok((access.tenant.usage()?, access.tenant.quota()?))
        });
        let (usage, quota) = told.await?;
        Ok(Response::new(pb::UsageResponse {
            entries: usage.entries,
            deletes: usage.deletes,
            table_bytes: usage.file_bytes(),
            memtable_entries: usage.memtables.entries,
            memtable_bytes: usage.memtables.bytes,
            quota,
        }))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::WriteResponse>, Status> {
        let (access, message) = enter(request)?;
        let operation = pb::Operation {
            keyspace: message.keyspace,
            key: message.key,
            value: Some(message.value),
            ttl_ms: message.ttl_ms,
            range: None,
        };
        self.write(access, alone(operation, message.durability)).await
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteRequest>,
    ) -> Result<Response<pb::WriteResponse>, Status> {
        let (access, message) = enter(request)?;
        let operation = pb::Operation {
            keyspace: message.keyspace,
            key: message.key,
            value: None,
            ttl_ms: None,
            range: None,
        };
        self.write(access, alone(operation, message.durability)).await
    }

    async fn batch(&self, request: Request<pb::BatchRequest>) -> Result<Response<pb::WriteResponse>, Status> {
        let (access, message) = enter(request)?;
        if message.operations.is_empty() {
            return Err(status::status(Kind::Invalid, "the batch is empty"));
        }
        self.write(access, message).await
    }

    type RangeStream = RangeStream;

    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<Self::RangeStream>, Status> {
        let (mut access, message) = enter(request)?;
        let snapshot = match message.snapshot_id {
            0 => None,
            id => Some(self.shared.snapshots.get(access.tenant.id(), access.epoch, id)?),
        };
        // The first message before the answer, so that what is wrong with the call fails the call.
        let begun = self.read(&access, move |access| {
            let bounds = (bound(message.start)?, bound(message.end)?);
            let Some(keyspace) = open(access, &message.keyspace)? else {
                return Ok(None);
            };
            let range = match snapshot {
                Some(snapshot) => snapshot.range(&keyspace, bounds),
                None => keyspace.range(bounds),
            };
            let entries: Entries = if message.reverse {
                Box::new(range.rev())
            } else {
                Box::new(range)
            };
            let left = if message.limit == 0 {
                u64::MAX
            } else {
                message.limit
            };
            let mut scan = Scan {
                entries,
                left,
                keys_only: message.keys_only,
                rest: Bytes::new(),
            };
            Ok(scan.chunk()?.map(|first| (scan, first)))
        });
        let begun = begun.await?;
        access.release_room();
        let (sender, receiver) = mpsc::channel(1);
        let service = self.clone();
        tokio::spawn(async move { service.stream(access, begun, sender).await });
        Ok(Response::new(RangeStream {
            receiver,
            ended: false,
        }))
    }

    async fn open_snapshot(
        &self,
        request: Request<pb::OpenSnapshotRequest>,
    ) -> Result<Response<pb::OpenSnapshotResponse>, Status> {
        let (access, _) = enter(request)?;
        let snapshots = &self.shared.snapshots;
        let (snapshot_id, seqno) = snapshots.open(&access.tenant, access.epoch)?;
        let lease_ms = u64::try_from(snapshots.lease().as_millis()).unwrap_or(u64::MAX);
        Ok(Response::new(pb::OpenSnapshotResponse {
            snapshot_id,
            seqno,
            lease_ms,
        }))
    }

    async fn release_snapshot(
        &self,
        request: Request<pb::ReleaseSnapshotRequest>,
    ) -> Result<Response<pb::ReleaseSnapshotResponse>, Status> {
        let (access, message) = enter(request)?;
        self.shared
            .snapshots
            .release(access.tenant.id(), message.snapshot_id);
        Ok(Response::new(pb::ReleaseSnapshotResponse {}))
    }
}

/// What a range's task tells its answer.
enum Event {
    Chunk(pb::RangeResponse),
    Failed(Status),
    End,
}

/// The answer of a range. It ends well only if its task said so: whatever else cuts it short (a client that took
/// nothing, a defect here) is an error, never a shorter range.
pub struct RangeStream {
    receiver: mpsc::Receiver<Event>,
    ended: bool,
}

impl Stream for RangeStream {
    type Item = Result<pb::RangeResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = ready!(self.receiver.poll_recv(cx));
        self.ended = !matches!(event, Some(Event::Chunk(_)));
        Poll::Ready(match event {
            Some(Event::Chunk(chunk)) => Some(Ok(chunk)),
            Some(Event::Failed(status)) => Some(Err(status)),
            Some(Event::End) => None,
            None => Some(Err(status::status(
                Kind::Timeout,
                "the range was cut off: its client took nothing",
            ))),
        })
    }
}

impl KvService {
    /// Sends messages as the client takes them, holding no thread while it does not.
    async fn stream(
        &self,
        access: Access,
        begun: Option<(Scan, pb::RangeResponse)>,
        sender: mpsc::Sender<Event>,
    ) {
        let mut next = Ok(begun);
        loop {
            let (event, scan) = match next {
                Ok(Some((scan, chunk))) => (Event::Chunk(chunk), Some(scan)),
                Ok(None) => (Event::End, None),
                Err(status) => (Event::Failed(status), None),
            };
            // The client is gone, or takes nothing: the files its range pins are let go.
            if sender.send_timeout(event, self.shared.patience).await.is_err() {
                return;
            }
            let Some(mut scan) = scan else { return };
            next = match access.check() {
                Err(status) => Err(status),
                Ok(()) => {
                    self.read(&access, move |_| Ok(scan.chunk()?.map(|chunk| (scan, chunk))))
                        .await
                }
            };
        }
    }
}
