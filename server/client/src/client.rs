//! Reads and writes of one tenant, at whichever node is the primary.
//!
//! One connection is in use at a time. A call that a node did not apply because it is not the primary, or that
//! never reached one, goes to the next endpoint until `failover_timeout` has passed. A write whose outcome is
//! unknown comes back as [`Kind::Unknown`] at once, unless the caller vouched for repeating it. Reads are
//! repeated freely.
//!
//! *Invariant:* answers never go back in time. Each carries the epoch it was given in, and one from an older epoch
//! than this client (or a clone of it) has seen is not returned: it comes from a primary that does not know yet that
//! it was replaced. A read then goes on to the next endpoint; a write has an unknown outcome.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::EPOCH_KEY;
use crate::batch::{Batch, milliseconds};
use crate::channel::{self, Dial};
use crate::config::ClientConfig;
use crate::error::{ClientError, Kind, Result};
use crate::many::Asked;
use crate::proto::kv as pb;
use crate::proto::kv::kv_client::KvClient;
use crate::proto::kv::{Durability, Position};
use crate::range::{Entries, RangeOptions};
use crate::snapshot::Snapshot;

/// First wait after all endpoints were tried; doubles up to the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(250);

/// How a write is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct WriteOptions {
    /// `Unspecified`: the server's default.
    pub durability: Durability,
    /// Retry also when the outcome is unknown: the caller vouches that applying the write twice does no harm.
    /// (Another writer of the same key may come between: then the repeated write undoes its.) A batch with
    /// conditions that meets a conflict after an unknown outcome ends in `Unknown`: it may be its own doing.
    pub retry_unknown: bool,
    /// Of a put by itself: how long the value lives, in whole milliseconds, rounded up.
    pub ttl: Option<Duration>,
}

impl WriteOptions {
    /// Defaults.
    pub fn new() -> WriteOptions {
        WriteOptions::default()
    }

    /// With this durability.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> WriteOptions {
        self.durability = durability;
        self
    }

    /// The value lives so long. In a batch each put has its own: [`Batch::put_expiring`].
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> WriteOptions {
        self.ttl = Some(ttl);
        self
    }

    /// Whether to retry when the outcome is unknown.
    #[must_use]
    pub fn retry_unknown(mut self, yes: bool) -> WriteOptions {
        self.retry_unknown = yes;
        self
    }
}

/// A conflict after an attempt whose outcome is not known.
fn own_doing() -> ClientError {
    ClientError::new(
        Kind::Unknown,
        "a condition does not hold, after an attempt that may have been applied: read back",
    )
}

/// What every call carries, and when it is given up.
#[derive(Clone)]
struct Credentials {
    authorization: MetadataValue<Ascii>,
    timeout: Duration,
}

/// One node, connected.
#[derive(Clone)]
pub(crate) struct Node {
    stub: KvClient<Channel>,
    credentials: Credentials,
    index: usize,
    /// Tells connections to the same endpoint apart, so that only the broken one is dropped.
    generation: u64,
}

impl Node {
    pub fn stub(&self) -> KvClient<Channel> {
        self.stub.clone()
    }

    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", self.credentials.authorization.clone());
        request.set_timeout(self.credentials.timeout);
        request
    }
}

/// The endpoint to use next, and its connection if there is one.
struct Current {
    index: usize,
    generation: u64,
    node: Option<Node>,
}

struct Shared {
    endpoints: Vec<Endpoint>,
    credentials: Credentials,
    connect_timeout: Duration,
    failover_timeout: Duration,
    /// Highest epoch that an answer was given in.
    epoch: AtomicU64,
    current: Mutex<Current>,
    /// Held while connecting, so that many callers make one connection.
    connecting: tokio::sync::Mutex<()>,
}

/// Reads and writes one tenant's data at the primary. Cheap to clone; clones share the connection.
///
/// Errors of all calls: `Invalid` (a limit), `Unauthenticated`, `Busy`, `Unavailable` (no primary found in
/// `failover_timeout`; nothing was applied), and for writes `Unknown` and `NoSpace`.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Finds the primary among the endpoints. `Invalid` configuration and `Unauthenticated` at once,
    /// `Unavailable` or `NotPrimary` after `failover_timeout`.
    pub async fn connect(config: ClientConfig) -> Result<Client> {
        let mut endpoints = Vec::with_capacity(config.endpoints.len());
        for endpoint in &config.endpoints {
            let dial = Dial {
                endpoint,
                insecure: config.insecure,
                ca_pem: config.ca_pem.as_deref(),
                identity: None,
                server_name: config.server_name.as_deref(),
                connect_timeout: config.connect_timeout,
            };
            endpoints.push(dial.endpoint()?);
        }
        if endpoints.is_empty() {
            return Err(ClientError::new(Kind::Invalid, "no endpoints"));
        }
        let mut authorization = MetadataValue::try_from(format!("Bearer {}", config.token))
            .map_err(|_| ClientError::new(Kind::Invalid, "the token has characters that no token has"))?;
        authorization.set_sensitive(true);
        let client = Client {
            shared: Arc::new(Shared {
                endpoints,
                credentials: Credentials {
                    authorization,
                    timeout: config.request_timeout,
                },
                connect_timeout: config.connect_timeout,
                failover_timeout: config.failover_timeout,
                epoch: AtomicU64::new(0),
                current: Mutex::new(Current {
                    index: 0,
                    generation: 0,
                    node: None,
                }),
                connecting: tokio::sync::Mutex::new(()),
            }),
        };
        client
            .call(Repeat::Read, &pb::HelloRequest {}, async |n: Node, r| {
                n.stub().hello(r).await
            })
            .await?;
        Ok(client)
    }

    /// Newest value.
    pub async fn get(&self, keyspace: &str, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        let key = Bytes::copy_from_slice(key.as_ref());
        let request = pb::GetRequest {
            keyspace: keyspace.into(),
            key,
            snapshot_id: 0,
        };
        Ok(self
            .call(Repeat::Read, &request, async |n: Node, r| n.stub().get(r).await)
            .await?
            .value)
    }

    /// Newest values of many keys of one keyspace, in the order they are asked for.
    ///
    /// Up to 1024 keys whose values take up to 16 MiB are one call and of one version; more are several calls, of
    /// versions that do not go back. [`Snapshot::get_many`] reads any number at one version.
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        keyspace: &str,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Bytes>>> {
        let mut asked = Asked::new(keys);
        while let Some(request) = asked.request(keyspace, 0) {
            let call = async |n: Node, r| n.stub().get_many(r).await;
            asked.answer(self.call(Repeat::Read, &request, call).await?)?;
        }
        Ok(asked.into_values())
    }

    /// What the tenant takes.
    pub async fn usage(&self) -> Result<pb::UsageResponse> {
        let call = async |n: Node, r| n.stub().usage(r).await;
        self.call(Repeat::Read, &pb::UsageRequest {}, call).await
    }

    /// Stores a value.
    pub async fn put(
        &self,
        keyspace: &str,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Position> {
        self.put_with(keyspace, key, value, WriteOptions::new()).await
    }

    /// Stores a value, with options.
    pub async fn put_with(
        &self,
        keyspace: &str,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        options: WriteOptions,
    ) -> Result<Position> {
        let request = pb::PutRequest {
            keyspace: keyspace.into(),
            key: key.into(),
            value: value.into(),
            durability: options.durability.into(),
            ttl_ms: options.ttl.map(milliseconds),
        };
        self.write(options, &request, async |n: Node, r| n.stub().put(r).await)
            .await
    }

    /// Removes a key; fine if it is absent.
    pub async fn delete(&self, keyspace: &str, key: impl Into<Bytes>) -> Result<Position> {
        self.delete_with(keyspace, key, WriteOptions::new()).await
    }

    /// Removes a key, with options.
    pub async fn delete_with(
        &self,
        keyspace: &str,
        key: impl Into<Bytes>,
        options: WriteOptions,
    ) -> Result<Position> {
        if options.ttl.is_some() {
            let text = "a delete has no time to live";
            return Err(ClientError::new(Kind::Invalid, text));
        }
        let request = pb::DeleteRequest {
            keyspace: keyspace.into(),
            key: key.into(),
            durability: options.durability.into(),
        };
        self.write(options, &request, async |n: Node, r| n.stub().delete(r).await)
            .await
    }

    /// Applies a batch.
    pub async fn batch(&self, batch: Batch) -> Result<Position> {
        self.batch_with(batch, WriteOptions::new()).await
    }

    /// Applies a batch, with options.
    pub async fn batch_with(&self, batch: Batch, options: WriteOptions) -> Result<Position> {
        if options.ttl.is_some() {
            let text = "a batch has no time to live: its puts have";
            return Err(ClientError::new(Kind::Invalid, text));
        }
        let request = batch.into_request(options.durability);
        self.write(options, &request, async |n: Node, r| n.stub().batch(r).await)
            .await
    }

    /// Entries of a range, as one consistent view.
    pub async fn range(&self, keyspace: &str, options: RangeOptions) -> Result<Entries> {
        let request = options.request(keyspace, 0);
        Ok(Entries::new(
            self.call(Repeat::Read, &request, async |n: Node, r| n.stub().range(r).await)
                .await?,
        ))
    }

    /// Opens a repeatable view.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        let (node, opened) = self
            .call(Repeat::Read, &pb::OpenSnapshotRequest {}, async |n: Node, r| {
                let opened = n.stub().open_snapshot(r).await?;
                Ok(opened.map(|opened| (n, opened)))
            })
            .await?;
        Ok(Snapshot::new(node, &opened))
    }

    /// The endpoint in use, or to be tried next.
    pub fn endpoint(&self) -> String {
        let index = self.current().index;
        self.shared
            .endpoints
            .get(index)
            .map(|e| e.uri().to_string())
            .unwrap_or_default()
    }

    async fn write<Q, F, Fut>(&self, options: WriteOptions, message: &Q, call: F) -> Result<Position>
    where
        Q: Clone,
        F: Fn(Node, Request<Q>) -> Fut,
        Fut: Future<Output = std::result::Result<Response<pb::WriteResponse>, Status>>,
    {
        let repeat = if options.retry_unknown {
            Repeat::UnknownWrite
        } else {
            Repeat::Write
        };
        let response = self.call(repeat, message, call).await?;
        response
            .position
            .ok_or_else(|| ClientError::new(Kind::Internal, "the answer has no position"))
    }

    /// Makes the call at the primary, wherever it is.
    async fn call<Q, T, F, Fut>(&self, repeat: Repeat, message: &Q, call: F) -> Result<T>
    where
        Q: Clone,
        F: Fn(Node, Request<Q>) -> Fut,
        Fut: Future<Output = std::result::Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.shared.failover_timeout;
        let mut backoff = BACKOFF_MIN;
        let mut unknown = false;
        for attempt in 1usize.. {
            let (generation, error) = match self.node().await {
                Err((generation, error)) => (generation, error),
                Ok(node) => {
                    let generation = node.generation;
                    let request = node.request(message.clone());
                    match call(node, request).await {
                        Ok(response) if !self.is_old(response.metadata()) => {
                            return Ok(response.into_inner());
                        }
                        Ok(_) => (generation, repeat.answered_by_an_old_primary()),
                        Err(status) => (
                            generation,
                            ClientError::from_status(&status, repeat != Repeat::Read),
                        ),
                    }
                }
            };
            // The next call should not meet a node or a connection that just failed.
            if error.kind().is_elsewhere() || matches!(error.kind(), Kind::Unknown | Kind::Timeout) {
                self.leave(generation);
            }
            if !repeat.after(error.kind()) {
                return Err(match error.kind() {
                    Kind::Conflict if unknown => own_doing(),
                    _ => error,
                });
            }
            unknown |= error.kind() == Kind::Unknown;
            if attempt % self.shared.endpoints.len() == 0 {
                let now = Instant::now();
                if now + backoff >= deadline {
                    return Err(error);
                }
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
        Err(ClientError::new(Kind::Internal, "no attempt was made"))
    }

    /// Whether an answer comes from an older epoch than one before it; takes note of its epoch.
    fn is_old(&self, metadata: &MetadataMap) -> bool {
        let epoch = metadata
            .get(EPOCH_KEY)
            .and_then(|text| text.to_str().ok()?.parse().ok());
        epoch.is_some_and(|epoch: u64| epoch < self.shared.epoch.fetch_max(epoch, Ordering::SeqCst))
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        self.shared.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node in use, connected if need be. The error comes with the generation that failed.
    async fn node(&self) -> std::result::Result<Node, (u64, ClientError)> {
        if let Some(node) = &self.current().node {
            return Ok(node.clone());
        }
        let _one = self.shared.connecting.lock().await;
        let (index, generation) = {
            let current = self.current();
            if let Some(node) = &current.node {
                return Ok(node.clone());
            }
            (current.index, current.generation)
        };
        let Some(endpoint) = self.shared.endpoints.get(index) else {
            return Err((
                generation,
                ClientError::new(Kind::Internal, "endpoint out of range"),
            ));
        };
        let channel = channel::connect(endpoint, self.shared.connect_timeout)
            .await
            .map_err(|error| (generation, error))?;
        let node = Node {
            stub: KvClient::new(channel).max_decoding_message_size(crate::MESSAGE_BYTES_MAX),
            credentials: self.shared.credentials.clone(),
            index,
            generation,
        };
        let mut current = self.current();
        if current.generation == generation && current.index == node.index {
            current.node = Some(node.clone());
        }
        Ok(node)
    }

    /// Drops the connection of this generation and moves to the next endpoint, unless another call did.
    fn leave(&self, generation: u64) {
        let mut current = self.current();
        if current.generation == generation {
            current.node = None;
            current.generation += 1;
            current.index = (current.index + 1) % self.shared.endpoints.len();
        }
    }
}

/// What a call may be repeated after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Repeat {
    /// Changes nothing.
    Read,
    /// Only if certainly not applied.
    Write,
    /// Also if the outcome is unknown.
    UnknownWrite,
}

impl Repeat {
    fn after(self, kind: Kind) -> bool {
        kind.is_elsewhere() || (kind == Kind::Unknown && self == Repeat::UnknownWrite)
    }

    /// What the answer of a replaced primary means: nothing to a reader, and what it wrote may not last.
    fn answered_by_an_old_primary(self) -> ClientError {
        let kind = match self {
            Repeat::Read => Kind::Fenced,
            Repeat::Write | Repeat::UnknownWrite => Kind::Unknown,
        };
        ClientError::new(kind, "answered by a node that is no longer the primary")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_unknown_then_repeated_only_if_vouched_for() {
        for kind in Kind::ALL {
            assert_eq!(Repeat::Write.after(*kind), Repeat::Read.after(*kind), "{kind:?}");
            assert!(
                Repeat::UnknownWrite.after(*kind) >= Repeat::Write.after(*kind),
                "{kind:?}"
            );
        }
        assert!(!Repeat::Write.after(Kind::Unknown));
        assert!(Repeat::UnknownWrite.after(Kind::Unknown));
        assert!(Repeat::Write.after(Kind::NotPrimary));
        assert!(!Repeat::Write.after(Kind::Unauthenticated));
    }
}
