//! Options of a node's engine that an operator changes while it runs. What the configuration could not hold is
//! refused here as there.

use std::time::Duration;

use strongroom::{Engine, Error, ErrorKind, OnlineOption, Result};
use strongroom_client::proto::admin as pb;

use crate::config;

/// Changes all that `request` gives, or nothing; answers with what is in force. Tenants' calls end after
/// `call_timeout`.
pub(crate) fn set(
    engine: &Engine,
    request: &pb::SetOptionsRequest,
    call_timeout: Duration,
) -> Result<pb::SetOptionsResponse> {
    let pb::SetOptionsRequest {
        cache_bytes,
        wal_keep_bytes,
        expiry_grace_ms,
        replicated_timeout_ms,
    } = *request;
    if let Some(timeout) = replicated_timeout_ms {
        config::check_replicated_timeout(timeout, millis(call_timeout))
            .map_err(|e| Error::new(ErrorKind::Invalid, e.to_string()))?;
    }
    let given = [
        cache_bytes.map(OnlineOption::CacheBytes),
        wal_keep_bytes.map(OnlineOption::WalKeepBytes),
        expiry_grace_ms.map(|ms| OnlineOption::ExpiryGrace(Duration::from_millis(ms))),
        replicated_timeout_ms.map(|ms| OnlineOption::ReplicatedTimeout(Duration::from_millis(ms))),
    ];
    let changes: Vec<OnlineOption> = given.into_iter().flatten().collect();
    if !changes.is_empty() {
        engine.set_options(&changes)?;
        tracing::warn!(
            ?changes,
            "options changed by an operator, until the engine is opened again"
        );
    }
    let now = engine.options();
    Ok(pb::SetOptionsResponse {
        cache_bytes: now.cache_bytes,
        wal_keep_bytes: now.wal_keep_bytes,
        expiry_grace_ms: millis(now.expiry_grace),
        replicated_timeout_ms: millis(now.replicated_timeout),
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
