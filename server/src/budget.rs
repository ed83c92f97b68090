//! Bounds the bytes of request messages that are held at once.
//!
//! A message is decoded whole, so a call that sends a large one holds it in memory until it is done. A gRPC
//! message tells its length in its first five bytes:
//!
//! ```text
//! 0  1  compressed (0)
//! 1  4  length, big-endian
//! ```
//!
//! A call whose message is longer than [`FREE_BYTES`] takes room for all of it before the rest is read, and waits
//! while there is none; HTTP/2 flow control stops its peer meanwhile. It takes its room at once, so that two
//! calls can never wait for each other, and keeps it until its [`Room`] is dropped.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use strongroom_client::MESSAGE_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;

/// Of each call, uncounted.
pub const FREE_BYTES: usize = 16 << 10;
/// What room is counted in.
const UNIT: usize = 1 << 10;
const PREFIX_BYTES: usize = 5;

/// Room for large messages, shared by all calls of a listener.
#[derive(Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
}

/// What one call holds of a budget. Clones are the same.
#[derive(Clone, Default)]
pub struct Room(Arc<OnceLock<OwnedSemaphorePermit>>);

impl Budget {
    /// Room for `bytes`, at least one message of the largest size.
    pub fn new(bytes: usize) -> Budget {
        let units = bytes.max(MESSAGE_BYTES_MAX) / UNIT;
        Budget {
            units: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// The same body, kept within the budget, and the room it takes as it is read.
    pub fn limit(&self, body: Body) -> (Body, Room) {
        let room = Room::default();
        let limited = Limited {
            body,
            units: self.units.clone(),
            room: room.clone(),
            stage: Stage::Prefix {
                bytes: [0; PREFIX_BYTES],
                have: 0,
            },
        };
        (Body::new(limited), room)
    }
}

struct Limited {
    body: Body,
    units: Arc<Semaphore>,
    room: Room,
    stage: Stage,
}

type Acquire = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

enum Stage {
    Prefix { bytes: [u8; PREFIX_BYTES], have: usize },
    Waiting(Acquire),
    Open,
}

impl Limited {
    /// Looks at the next bytes of the prefix; the stage after them.
    fn see(&mut self, data: &[u8]) {
        let Stage::Prefix { bytes, have } = &mut self.stage else {
            return;
        };
        for (to, from) in bytes.iter_mut().skip(*have).zip(data) {
            *to = *from;
            *have += 1;
        }
        if *have < PREFIX_BYTES {
            return;
        }
        let [_, length @ ..] = *bytes;
        let length = u32::from_be_bytes(length) as usize;
        // One that is too long is refused by its length, before it is held.
        self.stage = if length <= FREE_BYTES || length > MESSAGE_BYTES_MAX {
            Stage::Open
        } else {
            let units = u32::try_from(length.div_ceil(UNIT)).unwrap_or(u32::MAX);
            let all = self.units.clone();
            Stage::Waiting(Box::pin(async move { all.acquire_many_owned(units).await.ok() }))
        };
    }
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Stage::Waiting(acquire) = &mut this.stage {
            match ready!(acquire.as_mut().poll(cx)) {
                Some(units) => drop(this.room.0.set(units)),
                None => return Poll::Ready(Some(Err(Status::unavailable("stopping")))),
            }
            this.stage = Stage::Open;
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.see(data);
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use super::*;

    struct Frames(VecDeque<Vec<u8>>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes.into()))))
        }
    }

    /// A message of `length` bytes, its prefix cut over two frames.
    fn body(budget: &Budget, length: u32) -> (Body, Room) {
        let [a, b, c, d] = length.to_be_bytes();
        let frames = [vec![0, a, b], vec![c, d], vec![0; length as usize]];
        budget.limit(Body::new(Frames(frames.into())))
    }

    /// Bytes read until the end (true) or until it waits (false).
    fn drain(body: &mut Body) -> (usize, bool) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut bytes = 0;
        loop {
            match Pin::new(&mut *body).poll_frame(&mut cx) {
                Poll::Ready(Some(frame)) => bytes += frame.unwrap().data_ref().unwrap().len(),
                Poll::Ready(None) => return (bytes, true),
                Poll::Pending => return (bytes, false),
            }
        }
    }

    #[test]
    fn no_room_for_a_message_then_it_waits_and_small_ones_do_not() {
        let budget = Budget::new(0);
        let largest = MESSAGE_BYTES_MAX as u32;
        let (mut first, room) = body(&budget, largest - UNIT as u32);
        assert!(drain(&mut first).1);
        let (mut second, _room) = body(&budget, UNIT as u32 * 17);
        assert_eq!(drain(&mut second), (PREFIX_BYTES, false));
        assert!(drain(&mut body(&budget, FREE_BYTES as u32).0).1);
        // Read to its end, but not done.
        drop(first);
        assert_eq!(drain(&mut second), (0, false));
        drop(room);
        assert_eq!(drain(&mut second), (UNIT * 17, true));
    }

    #[test]
    fn message_longer_than_any_may_be_then_not_counted() {
        let budget = Budget::new(0);
        let (mut long, room) = body(&budget, MESSAGE_BYTES_MAX as u32 + 1);
        assert!(drain(&mut long).1);
        assert!(room.0.get().is_none());
    }
}
