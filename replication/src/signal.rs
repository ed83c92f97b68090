//! A flag that is raised once and can be awaited: how tasks and threads are told to stop.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

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
}
