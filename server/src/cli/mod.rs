pub mod exit;
pub mod files;
pub mod ndjson;
pub mod output;
pub mod pki;
pub mod template;
