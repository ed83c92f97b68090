//! A flag that is raised once and can be awaited: how tasks and threads are told to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

/// Cheap to clone; all clones are one flag.
#[derive(Clone)]
pub(crate) struct Signal(Arc<watch::Sender<bool>>);

impl Signal {
    pub(crate) fn new() -> Signal {
        Signal(Arc::new(watch::Sender::new(false)))
    }

    /// Raises it. Never lowered.
    pub(crate) fn raise(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn is_raised(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it is raised.
    pub(crate) async fn raised(&self) {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|raised| *raised).await;
    }
}

/// Runs a call that blocks off the async threads, on a thread of its own.
///
/// Not on the runtime's pool: servers block that pool with commits that wait for a standby, and those waits
/// must never keep the standby from connecting. Such calls are rare (a connection, a key change, a role).
pub(crate) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> crate::Result<T> {
    let (done, outcome) = oneshot::channel();
    let thread = std::thread::Builder::new().name("replication-call".into());
    let spawned = thread.spawn(move || {
        // Nobody may be waiting any more; the call was made all the same.
        let _ = done.send(call());
    });
    if let Err(e) = spawned {
        return Err(crate::Error::new(crate::ErrorKind::Io, "no thread for a call").with_source(e));
    }
    outcome
        .await
        .map_err(|_| crate::Error::new(crate::ErrorKind::Stopped, "a call ended early"))
}

/// Hands messages from a thread to a stream's queue, without ever getting stuck on a peer that does not read:
/// gives up when `over` is raised, or after `patience` for one message.
pub(crate) struct Feed<T> {
    pub(crate) runtime: Handle,
    pub(crate) queue: mpsc::Sender<T>,
    pub(crate) over: Signal,
    pub(crate) patience: Duration,
}

impl<T> Feed<T> {
    /// False if the stream has ended, or must.
    pub(crate) fn send(&self, message: T) -> bool {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.over.raised() => false,
                sent = self.queue.send(message) => sent.is_ok(),
                () = tokio::time::sleep(self.patience) => false,
            }
        })
    }

    /// Whether nothing can be sent any more.
    pub(crate) fn ended(&self) -> bool {
        self.over.is_raised() || self.queue.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn raised_before_or_while_awaited_then_seen() {
        let signal = Signal::new();
        let waiting = tokio::spawn({
            let signal = signal.clone();
            async move { signal.raised().await }
        });
        assert!(!signal.is_raised());
        signal.raise();
        waiting.await.unwrap();
        signal.raised().await;
        assert!(signal.is_raised());
    }

    #[tokio::test]
    async fn call_that_panics_then_an_error() {
        assert_eq!(blocking(|| 7).await.unwrap(), 7);
        let error = blocking(|| panic!("on purpose")).await.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Stopped);
    }

    #[tokio::test]
    async fn peer_that_does_not_read_then_the_feed_gives_up() {
        let (queue, mut messages) = mpsc::channel(1);
        let (over, patience) = (Signal::new(), Duration::from_millis(20));
        let feed = Feed {
            runtime: Handle::current(),
            queue,
            over: over.clone(),
            patience,
        };
        let feed = blocking(move || {
            assert!(feed.send(1), "there is room for one");
            assert!(!feed.send(2), "patience ends");
            feed
        })
        .await
        .unwrap();
        assert_eq!(messages.recv().await, Some(1));
        over.raise();
        blocking(move || assert!(feed.ended() && !feed.send(3)))
            .await
            .unwrap();
    }
}
