//! Logs: lines on standard error, never with a key, a value or a name of a tenant.

use tracing_subscriber::EnvFilter;

/// Environment variable with the filter: `info`, `debug`, `strongroom_server=debug,warn`.
pub const LOG_VARIABLE: &str = "STRONGROOM_LOG";

/// Starts logging at `info`, or as [`LOG_VARIABLE`] says. Call once, from `main`; a second call does nothing.
/// Libraries underneath (HTTP/2, TLS) log what they are sent at `trace`: they are held at `warn`.
pub fn init() {
    let wanted = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| "info".into());
    let mut filter = EnvFilter::try_new(&wanted).unwrap_or_else(|_| EnvFilter::new("info"));
    for library in ["h2", "hyper", "hyper_util", "tower", "tonic", "rustls"] {
        if let Ok(directive) = format!("{library}=warn").parse() {
            filter = filter.add_directive(directive);
        }
    }
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}
