//! A flag that is raised once and can be awaited: how tasks and threads are told to stop.

use std::sync::Arc;

use tokio::sync::watch;

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

/// Runs engine calls, which block, off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> crate::Result<T> {
    tokio::task::spawn_blocking(call).await.map_err(|e| {
        crate::Error::new(crate::ErrorKind::Stopped, "a background call ended early").with_source(e)
    })
}
