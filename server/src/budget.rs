//! Bounds the bytes of request messages that are held at once.
//!
//! A message is decoded whole, so a call that sends a large one holds it in memory. The first
//! [`FREE_BYTES`] of each call are free; the call that goes on first takes room for the largest message there can
//! be, and waits while there is none. It waits without reading: HTTP/2 flow control stops its peer. One call
//! takes its whole room at once, so two can never wait for each other.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use strongroom_client::MESSAGE_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;

/// Of each call, uncounted.
pub const FREE_BYTES: usize = 64 << 10;

/// Room for large messages, shared by all calls of a listener.
#[derive(Clone)]
pub struct Budget {
    slots: Arc<Semaphore>,
}

impl Budget {
    /// Room for as many of the largest messages as fit into `bytes`, at least one.
    pub fn new(bytes: usize) -> Budget {
        Budget {
            slots: Arc::new(Semaphore::new((bytes / MESSAGE_BYTES_MAX).max(1))),
        }
    }

    /// The same body, kept within the budget. Its room is free again when the body is dropped, which is when the
    /// call ends or its message is decoded.
    pub fn limit(&self, body: Body) -> Body {
        Body::new(Limited {
            body,
            free: FREE_BYTES,
            room: Room::None(self.slots.clone()),
        })
    }
}

struct Limited {
    body: Body,
    free: usize,
    room: Room,
}

type Acquire = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

enum Room {
    None(Arc<Semaphore>),
    Waiting(Acquire),
    Taken { _slot: OwnedSemaphorePermit },
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        while this.free == 0 {
            match &mut this.room {
                Room::Taken { .. } => break,
                Room::None(slots) => {
                    let slots = slots.clone();
                    this.room = Room::Waiting(Box::pin(async move { slots.acquire_owned().await.ok() }));
                }
                Room::Waiting(acquire) => match ready!(acquire.as_mut().poll(cx)) {
                    Some(slot) => this.room = Room::Taken { _slot: slot },
                    None => return Poll::Ready(Some(Err(Status::unavailable("stopping")))),
                },
            }
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.free = this.free.saturating_sub(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
