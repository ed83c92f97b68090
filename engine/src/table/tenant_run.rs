//! What a table's clear directory says of one tenant, for who decides without its key.

use super::format::Run;
use crate::expiry;
use crate::types::{SeqNo, TenantId};

/// One tenant's share of a table, from its clear directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TenantRun {
    /// The tenant.
    pub tenant: TenantId,
    /// Versions, deletes included.
    pub entries: u64,
    /// Deletes among them.
    pub deletes: u64,
    /// Range deletes beside them: fragments, each as often as it was deleted.
    pub range_deletes: u64,
    /// Sealed bytes in the file: blocks, filters and indexes.
    pub bytes: u64,
    /// Oldest version.
    pub seqno_min: SeqNo,
    /// Newest version.
    pub seqno_max: SeqNo,
    /// Earliest moment at which a value expires, up to a second late.
    pub expires: Option<u64>,
}

impl From<Run> for TenantRun {
    fn from(run: Run) -> TenantRun {
        TenantRun {
            tenant: run.tenant,
            entries: run.entries,
            deletes: run.deletes,
            range_deletes: u64::from(run.range_deletes),
            bytes: run.bytes(),
            seqno_min: run.seqno_min,
            seqno_max: run.seqno_max,
            expires: expiry::from_seconds(run.expires),
        }
    }
}
