//! What an operator sees of a tenant: how much it takes, and what is set for it. Never a key or a value.

use strongroom::{Engine, Retention};
use strongroom_client::proto::admin as pb;

/// Reads it all; keyspaces in order of name.
pub(crate) fn show(engine: &Engine, name: &str) -> strongroom::Result<pb::ShowTenantResponse> {
    let tenant = engine.tenant(name)?;
    let usage = tenant.usage()?;
    let mut keyspaces = Vec::new();
    for name in tenant.keyspaces()? {
        let retention = tenant.retention(&tenant.open_keyspace(&name)?)?;
        let keep = retention.and_then(|retention| match retention {
            Retention::Days(days) => Some(pb::keyspace::Keep::Days(days)),
            Retention::Months(months) => Some(pb::keyspace::Keep::Months(months)),
            _ => None,
        });
        keyspaces.push(pb::Keyspace { name, keep });
    }
    Ok(pb::ShowTenantResponse {
        id: tenant.id().0,
        entries: usage.entries,
        deletes: usage.deletes,
        table_bytes: usage.file_bytes(),
        memtable_entries: usage.memtables.entries,
        memtable_bytes: usage.memtables.bytes,
        quota: tenant.quota()?,
        keyspaces,
    })
}

/// As it is asked for on the wire.
pub(crate) fn retention(keep: pb::set_retention_request::Keep) -> Retention {
    match keep {
        pb::set_retention_request::Keep::Days(days) => Retention::Days(days),
        pb::set_retention_request::Keep::Months(months) => Retention::Months(months),
    }
}
