//! The command line: one verb a file, and what they share.
//!
//! `exit` maps everything that can go wrong to exit codes, `output` prints, `connect` finds nodes, `pki` makes
//! certificates, `ndjson` and `template` read events.

pub mod backup;
pub mod certs;
pub mod connect;
pub mod data;
pub mod dev;
pub mod doctor;
pub mod exit;
pub mod files;
pub mod form;
pub mod inspect;
pub mod keys;
pub mod load;
pub mod ndjson;
pub mod output;
pub mod pki;
pub mod promote;
pub mod scan;
pub mod serve;
pub mod status;
pub mod template;
pub mod tenant;
