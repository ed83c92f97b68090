//! Engine calls block; the runtime's threads must not. Each kind of call has its own bound, so that writes that
//! wait for a standby do not keep reads from running.

use std::sync::Arc;

use strongroom_client::Kind;
use tokio::sync::Semaphore;
use tonic::Status;

use crate::status;

/// Runs `call` on a blocking thread once one of `slots` is free. The call goes on when the caller gives up.
pub async fn run<T, F>(slots: &Arc<Semaphore>, call: F) -> Result<T, Status>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let closed = |_| status::status(Kind::Closed, "this node is stopping");
    let slot = slots.clone().acquire_owned().await.map_err(closed)?;
    let task = tokio::task::spawn_blocking(move || {
        let result = call();
        drop(slot);
        result
    });
    task.await.map_err(|error| {
        // A panic: its message may hold anything, so only that it happened is told.
        tracing::error!(panic = error.is_panic(), "a call ended without a result");
        status::status(Kind::Internal, "the call failed inside the server")
    })
}
