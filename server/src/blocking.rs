//! Engine calls block; the runtime's threads must not. Each kind of call has its own bound, so that writes that
//! wait for a standby do not keep reads from running.

use std::sync::Arc;

use strongroom_client::Kind;
use tokio::sync::Semaphore;
use tonic::Status;

use crate::status;

/// Runs `call` on a blocking thread once one of `slots` is free. The call goes on when the caller gives up.
///
/// A call that ends without a result (a panic) has the kind `lost`: `Unknown` for one that changes something.
pub async fn run<T, F>(slots: &Arc<Semaphore>, lost: Kind, call: F) -> Result<T, Status>
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
        // A panic's message may hold anything, so only that it happened is told.
        tracing::error!(panic = error.is_panic(), "a call ended without a result");
        status::status(lost, "the call ended without a result inside the server")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn call_panics_then_its_kind_is_the_one_asked_for_and_its_slot_is_free() {
        let slots = Arc::new(Semaphore::new(1));
        for lost in [Kind::Unknown, Kind::Internal] {
            let status = run(&slots, lost, || panic!("canary"))
                .await
                .map(|(): ()| ())
                .unwrap_err();
            let read = strongroom_client::ClientError::from_status(&status, false);
            assert_eq!(read.kind(), lost);
            assert!(!status.message().contains("canary"));
        }
        assert_eq!(run(&slots, Kind::Internal, || 7).await.unwrap(), 7);
    }
}
