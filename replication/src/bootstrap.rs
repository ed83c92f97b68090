//! Base copies: what starts an empty standby, and what replaces one whose WAL no longer connects.
//!
//! ```text
//! primary   pin WAL -> checkpoint in scratch -> files in chunks -> summary -> scratch removed, pin kept a while
//! standby   <side>/incoming -> files, checked -> all keys (by the key stream) -> finish -> put in place
//! ```
//!
//! The keys are fetched last: they then cover every tenant whose data was copied; one deleted meanwhile is
//! simply absent, and its data unreadable. The standby's directory is not openable before everything is
//! there and synced. Interrupted anywhere, the next attempt starts from nothing.
//!
//! The WAL from the checkpoint's position stays pinned on the primary during the copy and for
//! `Timeouts::base_copy_grace` after it, within what `Options::wal_keep_bytes` allows.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use strongroom::io::Io;
use strongroom::{BaseCopyReceiver, Epoch, checkpoint_files};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{info, warn};

use crate::core::base_copy::{Check, Piece, Received, Step};
use crate::core::message::FromBase;
use crate::dial::{self, within};
use crate::dirs::{Dirs, remove_tree};
use crate::error::{Error, ErrorKind, Result};
use crate::kek::Watched;
use crate::keystream;
use crate::options::ReplicationConfig;
use crate::signal::{Feed, Signal, blocking};
use crate::standbys::Reign;
use crate::wire::{self, CHUNK_BYTES_MAX, status_error, v1};

type Message = std::result::Result<v1::BaseMessage, Status>;
pub(crate) type Outgoing = ReceiverStream<Message>;

/// Chunks queued for the connection, and for the disk on the other side.
const QUEUE_MESSAGES: usize = 4;

// --------------------------------------------------------------------------------- primary's side

/// Answers FetchBase.
pub(crate) fn serve(
    config: &ReplicationConfig,
    dirs: &Dirs,
    reign: Arc<Reign>,
    node: String,
    database_id: Option<[u8; 16]>,
) -> std::result::Result<Outgoing, Status> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    if database_id.is_some_and(|id| id != reign.database_id) {
        return Err(Status::failed_precondition("another database"));
    }
    let Ok(permit) = reign.base_copies.clone().try_acquire_owned() else {
        return Err(Status::resource_exhausted("a base copy is under way"));
    };
    let scratch = dirs
        .scratch(NUMBER.fetch_add(1, Ordering::Relaxed))
        .map_err(|e| Status::unavailable(format!("no place for a checkpoint: {e}")))?;
    let grace = config.timeouts.base_copy_grace;
    let (out, rx) = mpsc::channel(QUEUE_MESSAGES);
    let feed = Feed {
        runtime: Handle::current(),
        queue: out,
        over: reign.over.clone(),
        // A standby that stops reading must not hold a checkpoint on this disk for ever.
        patience: config.timeouts.progress,
    };
    let work = move || {
        let copy = Copy {
            scratch,
            _permit: permit,
        };
        let pin = reign.engine.pin_wal(reign.engine.status().durable);
        match copy.send(&reign, &feed) {
            Ok(true) => {
                info!(node, "base copy sent");
                reign.keep_for_base_copy(pin, grace);
            }
            Ok(false) => info!(node, "base copy given up by the standby"),
            Err(e) => {
                warn!(node, error = %e, "base copy failed");
                feed.send(Err(Status::aborted(format!("base copy failed: {e}"))));
            }
        }
    };
    let thread = std::thread::Builder::new().name("base-copy".into()).spawn(work);
    thread.map_err(|e| Status::unavailable(format!("no thread for the base copy: {e}")))?;
    Ok(ReceiverStream::new(rx))
}

/// Removes its checkpoint when dropped.
struct Copy {
    scratch: PathBuf,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(e) = remove_tree(&Io::os(), &self.scratch) {
            warn!(error = %e, "a scratch checkpoint stays until the next start");
        }
    }
}

impl Copy {
    /// False if the standby went away.
    fn send(&self, reign: &Reign, feed: &Feed<Message>) -> Result<bool> {
        let checkpoint = reign.engine.checkpoint(&self.scratch)?;
        let files = checkpoint_files(&self.scratch, &Io::os())?;
        let (count, total) = (files.len() as u64, files.iter().map(|(_, len)| len).sum());
        let send = |message| feed.send(Ok(wire::encode_base(message)));
        let begin = FromBase::Begin {
            database_id: reign.database_id,
            epoch: reign.epoch,
            lsn: checkpoint.position.lsn,
            files: count,
            bytes: total,
        };
        if !send(begin) {
            return Ok(false);
        }
        for (name, len) in files {
            let path = self.scratch.join(&name);
            if !send(FromBase::File { name, bytes: len }) || !send_file(&path, len, &send)? {
                return Ok(false);
            }
        }
        Ok(send(FromBase::End {
            files: count,
            bytes: total,
        }))
    }
}

fn send_file(path: &Path, len: u64, send: &impl Fn(FromBase) -> bool) -> Result<bool> {
    let failed = |e| Error::io("reading a checkpoint", path, e);
    let mut file = File::open(path).map_err(failed)?;
    let mut offset = 0;
    while offset < len {
        let take = (len - offset).min(CHUNK_BYTES_MAX as u64);
        let mut bytes = vec![0; take as usize];
        file.read_exact(&mut bytes).map_err(failed)?;
        if !send(FromBase::Chunk {
            offset,
            bytes: Bytes::from(bytes),
        }) {
            return Ok(false);
        }
        offset += take;
    }
    Ok(true)
}

// --------------------------------------------------------------------------------- standby's side

/// Receives a base copy into `<side>/incoming`. `None` when told to stop. `progress` hears bytes so far.
///
/// `expected`: the database to be, another one is refused (`WrongDatabase`); and the lowest epoch the primary
/// may be of. The keystore made is left to `provider`; destroyed there if the copy fails after all.
pub(crate) async fn fetch(
    config: &Arc<ReplicationConfig>,
    dirs: &Dirs,
    provider: &Arc<Watched>,
    expected: Option<([u8; 16], Epoch)>,
    stop: &Signal,
    progress: impl Fn(u64),
) -> Result<Option<Received>> {
    let incoming = dirs.incoming();
    let receiver = {
        let (incoming, provider) = (incoming.clone(), provider.clone());
        blocking(move || {
            // Whatever is there is a copy that was never put in place.
            remove_tree(&Io::os(), &incoming)?;
            Ok::<_, Error>(BaseCopyReceiver::start(&incoming, Io::os(), provider)?)
        })
        .await??
    };
    let (pieces, rx) = mpsc::channel(QUEUE_MESSAGES);
    // Not awaited yet, but running.
    let written = tokio::spawn(blocking(move || write(receiver, rx)));
    let transfer = tokio::select! {
        done = transfer(config, expected, pieces, &progress) => Some(done),
        () = stop.raised() => None,
    };
    // The writer ends with its queue; only then may anybody touch the directory again.
    let written = written
        .await
        .map_err(|e| Error::new(ErrorKind::Stopped, "writing a base copy ended early").with_source(e))?;
    let Some(transfer) = transfer else { return Ok(None) };
    // A failure to write is the cause, a broken queue only its sign.
    let mut receiver = written??;
    let received = transfer?;
    let keys = async {
        let client = dial::dial(config).await?;
        keystream::fetch_all(client, config, received.database_id, received.epoch).await
    };
    let keys = tokio::select! {
        keys = keys => keys?,
        () = stop.raised() => return Ok(None),
    };
    let finished = blocking(move || receiver.keys(&keys).and_then(|()| receiver.finish())).await?;
    if let Err(e) = finished {
        let provider = provider.clone();
        if let Err(e) = blocking(move || provider.destroy_all()).await? {
            warn!(error = %e, "the key of a failed base copy could not be destroyed");
        }
        return Err(e.into());
    }
    Ok(Some(received))
}

fn write(mut receiver: BaseCopyReceiver, mut pieces: mpsc::Receiver<Piece>) -> Result<BaseCopyReceiver> {
    while let Some(piece) = pieces.blocking_recv() {
        receiver.chunk(&piece.name, piece.offset, &piece.bytes)?;
    }
    Ok(receiver)
}

async fn transfer(
    config: &ReplicationConfig,
    expected: Option<([u8; 16], Epoch)>,
    pieces: mpsc::Sender<Piece>,
    progress: &impl Fn(u64),
) -> Result<Received> {
    let mut client = dial::dial(config).await?;
    let request = wire::encode_base_request(&config.node, expected.map(|(id, _)| id));
    let mut inbound = within(config, client.fetch_base(request)).await?.into_inner();
    let mut check = Check::new(expected);
    loop {
        // The checkpoint is made before the first message: linking many tables takes its time.
        let patience = if check.begun() { 1 } else { 8 };
        let next = tokio::time::timeout(config.timeouts.progress * patience, inbound.message());
        let message = next
            .await
            .map_err(|_| Error::new(ErrorKind::Unreachable, "the base copy stalled"))?
            .map_err(status_error)?
            .ok_or_else(|| Error::new(ErrorKind::Unreachable, "the base copy ended early"))?;
        match check.take(wire::decode_base(message)?)? {
            Step::Write(piece) => {
                if pieces.send(piece).await.is_err() {
                    return Err(Error::new(ErrorKind::Io, "the base copy cannot be written"));
                }
                progress(check.bytes());
            }
            Step::More => {}
            Step::Done(received) => return Ok(received),
        }
    }
}
