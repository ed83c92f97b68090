//! A tenant's keyspaces: kept as entries of its own tree, in keyspace 0, sealed like all its data.
//!
//! ```text
//! key               value        meaning
//! 0x00              u32          next keyspace id to give out
//! 0x01 name         u32          the keyspace of that name
//! 0x02 id (u32 BE)  empty        deleted: entries of that keyspace at or below this version are dead
//! ```
//!
//! The system tenant keeps there what is set of others as well: see `settings`.
//!
//! Invariants: ids are never reused inside a tenant; creation and deletion read the newest catalog,
//! published or not, under the catalog lock, so that a write of unknown outcome is never built over.

use bytes::Bytes;
use parking_lot::MutexGuard;

use crate::error::{Error, ErrorKind, Result};
use crate::inner::{Inner, View};
use crate::options::NAME_BYTES_MAX;
use crate::read::cursor::EntryKind;
use crate::read::visible::VisibleCursor;
use crate::types::{KeyspaceId, SeqNo, TenantId};
use crate::wal::format::{Op, OpKind, push_op};

pub(crate) const CATALOG: [u8; 4] = [0; 4];
const NEXT: u8 = 0;
const NAME: u8 = 1;
const DELETED: u8 = 2;

/// Checks a tenant's or keyspace's name: 1 to 255 bytes. The message does not repeat it.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        let text = format!(
            "a name has 1 to {NAME_BYTES_MAX} bytes, this one has {}",
            name.len()
        );
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    Ok(())
}

/// The tree key of an entry of the catalog.
pub(crate) fn catalog_key(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(5 + rest.len());
    key.extend_from_slice(&CATALOG);
    key.push(kind);
    key.extend_from_slice(rest);
    key
}

/// The keyspace that `op` deletes, if it is a deletion marker.
pub(crate) fn drop_marker(op: &Op) -> Option<KeyspaceId> {
    let rest = op.key.strip_prefix(&CATALOG)?.strip_prefix(&[DELETED])?;
    let id: [u8; 4] = rest.try_into().ok()?;
    (op.kind == OpKind::Entry(EntryKind::Put)).then_some(KeyspaceId(u32::from_be_bytes(id)))
}

/// The version at which a keyspace was deleted, if it was.
pub(crate) fn dropped_at(view: &View, tenant: TenantId, keyspace: KeyspaceId) -> Result<Option<SeqNo>> {
    if keyspace == KeyspaceId::CATALOG {
        return Ok(None);
    }
    let marker = catalog_key(DELETED, &keyspace.0.to_be_bytes());
    Ok(crate::read::get::find(view, tenant, &marker, SeqNo::MAX)?.map(|entry| entry.seqno))
}

impl Inner {
    fn catalog_get(&self, tenant: TenantId, key: &[u8], at: SeqNo) -> Result<Option<Bytes>> {
        let found = self.find(&self.view(), tenant, key, at)?;
        Ok(found.filter(|e| e.kind == EntryKind::Put).map(|e| e.value))
    }

    fn catalog_id(&self, tenant: TenantId, key: &[u8], at: SeqNo) -> Result<Option<KeyspaceId>> {
        let Some(value) = self.catalog_get(tenant, key, at)? else {
            return Ok(None);
        };
        match value.as_ref().try_into() {
            Ok(id) => Ok(Some(KeyspaceId(u32::from_le_bytes(id)))),
            Err(_) => Err(Error::new(
                ErrorKind::Corruption,
                format!("the catalog of tenant {tenant} is malformed"),
            )),
        }
    }

    /// Finds a keyspace by name.
    pub fn find_keyspace(&self, tenant: TenantId, name: &str) -> Result<Option<KeyspaceId>> {
        check_name(name)?;
        self.check_tenant(tenant)?;
        self.catalog_id(tenant, &catalog_key(NAME, name.as_bytes()), self.visible())
    }

    /// Finds a keyspace, or creates it.
    pub fn ensure_keyspace(&self, tenant: TenantId, name: &str) -> Result<KeyspaceId> {
        if let Some(id) = self.find_keyspace(tenant, name)? {
            return Ok(id);
        }
        let key = catalog_key(NAME, name.as_bytes());
        let catalog = self.catalog.lock();
        if let Some(id) = self.catalog_id(tenant, &key, SeqNo::MAX)? {
            drop(catalog);
            self.acknowledge(tenant, &key, Some(id))?;
            return Ok(id);
        }
        let next = catalog_key(NEXT, &[]);
        let id = self
            .catalog_id(tenant, &next, SeqNo::MAX)?
            .unwrap_or(KeyspaceId(1));
        let mut plain = Vec::new();
        push_op(
            EntryKind::Put,
            CATALOG,
            after(&next),
            &id.0.saturating_add(1).to_le_bytes(),
            &mut plain,
        );
        push_op(
            EntryKind::Put,
            CATALOG,
            after(&key),
            &id.0.to_le_bytes(),
            &mut plain,
        );
        self.commit_under(catalog, tenant, plain)?;
        Ok(id)
    }

    /// Commits two operations on the catalog. Its lock ends when they are ordered: who waits for a standby holds up nobody
    /// else's keyspaces.
    fn commit_under(&self, catalog: MutexGuard<'_, ()>, tenant: TenantId, plain: Vec<u8>) -> Result<()> {
        let durability = self.options.durability;
        let position = self.submit(tenant, plain, 2, &[], durability)?;
        drop(catalog);
        self.finish(position, durability).map(drop)
    }

    /// Makes sure that what the log says of `key` counts, by a batch behind it that is acknowledged; false where it is
    /// visible. Another caller wrote it and may still wait for its standby, or have given up.
    fn acknowledge(&self, tenant: TenantId, key: &[u8], newest: Option<KeyspaceId>) -> Result<bool> {
        let waits = self.catalog_id(tenant, key, self.visible())? != newest;
        if waits {
            self.commit(tenant, Vec::new(), 0, self.options.durability)?;
        }
        Ok(waits)
    }

    /// Deletes a keyspace: its name at once, its data as compaction comes by.
    pub fn delete_keyspace(&self, tenant: TenantId, name: &str) -> Result<()> {
        check_name(name)?;
        self.check_tenant(tenant)?;
        let key = catalog_key(NAME, name.as_bytes());
        let catalog = self.catalog.lock();
        let Some(id) = self.catalog_id(tenant, &key, SeqNo::MAX)? else {
            drop(catalog);
            // Deleted by another call, of which nobody knew yet whether it stays.
            if self.acknowledge(tenant, &key, None)? {
                self.wake_background();
                return Ok(());
            }
            return Err(Error::new(
                ErrorKind::NotFound,
                "the tenant has no keyspace of that name",
            ));
        };
        let marker = catalog_key(DELETED, &id.0.to_be_bytes());
        let mut plain = Vec::new();
        push_op(EntryKind::Delete, CATALOG, after(&key), &[], &mut plain);
        push_op(EntryKind::Put, CATALOG, after(&marker), &[], &mut plain);
        self.commit_under(catalog, tenant, plain)?;
        self.wake_background();
        Ok(())
    }

    /// Names of a tenant's keyspaces, in order.
    pub fn keyspaces(&self, tenant: TenantId) -> Result<Vec<String>> {
        self.check_tenant(tenant)?;
        let prefix = catalog_key(NAME, &[]);
        let view = self.view();
        let at = self.visible();
        let mut cursor = VisibleCursor::new(view.cursor(tenant, at)?, at);
        let times = self.times.by(None);
        cursor.seek(&times, &prefix)?;
        let mut names = Vec::new();
        while let Some(entry) = cursor.entry() {
            let Some(name) = entry.key.strip_prefix(&prefix[..]) else {
                break;
            };
            names.push(String::from_utf8_lossy(name).into_owned());
            cursor.next(&times)?;
        }
        Ok(names)
    }
}

/// A tree key of the catalog without its keyspace id.
pub(crate) fn after(key: &[u8]) -> &[u8] {
    key.get(4..).unwrap_or_default()
}
