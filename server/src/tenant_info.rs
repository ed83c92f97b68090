//! What an operator sees of a tenant, how much it takes and what is set for it, and sets. Never a key or a value.

use strongroom::{Engine, Retention};
use strongroom_client::proto::admin as pb;

/// Reads it all; keyspaces in order of name.
pub(crate) fn show(engine: &Engine, name: &str) -> strongroom::Result<pb::ShowTenantResponse> {
    let tenant = engine.tenant(name)?;
    let usage = tenant.usage()?;
    let mut keyspaces = Vec::new();
    for name in tenant.keyspaces()? {
        let keyspace = tenant.open_keyspace(&name)?;
        let retention = tenant.retention(&keyspace)?;
        let separate_bytes = tenant.separate_bytes(&keyspace)?.map(|bytes| bytes as u64);
        let keep = retention.and_then(|retention| match retention {
            Retention::Days(days) => Some(pb::keyspace::Keep::Days(days)),
            Retention::Months(months) => Some(pb::keyspace::Keep::Months(months)),
            _ => None,
        });
        keyspaces.push(pb::Keyspace {
            name,
            keep,
            separate_bytes,
        });
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

/// How long a keyspace keeps what is put into it.
pub(crate) fn set_retention(engine: &Engine, request: &pb::SetRetentionRequest) -> strongroom::Result<()> {
    use pb::set_retention_request::Keep;
    let keep = request.keep.map(|keep| match keep {
        Keep::Days(days) => Retention::Days(days),
        Keep::Months(months) => Retention::Months(months),
    });
    let tenant = engine.tenant(&request.name)?;
    tenant.set_retention(&tenant.keyspace(&request.keyspace)?, keep)?;
    Ok(())
}

/// From which length on a keyspace's values go apart.
pub(crate) fn set_separate_bytes(
    engine: &Engine,
    request: &pb::SetSeparateBytesRequest,
) -> strongroom::Result<()> {
    // What does not fit is refused as out of range.
    let bytes = request
        .bytes
        .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let tenant = engine.tenant(&request.name)?;
    tenant.set_separate_bytes(&tenant.keyspace(&request.keyspace)?, bytes)?;
    Ok(())
}
